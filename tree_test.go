package everpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// module is the path that every package of the product begins with.
const module = "github.com/everpoint/everpoint"

// A source is one Go file of the product, parsed as far as its imports.
type source struct {
	path    string // below the root, with slashes
	dir     string // "." for the root
	test    bool   // _test.go
	doc     string // the package comment
	imports []string
	embeds  []string // the patterns of its go:embed lines
}

// generated reports whether the file is apigen's, by the name it gives.
func generated(file string) bool { return strings.HasSuffix(file, ".gen.go") }

// tree lists the files of the checkout in order, less what .gitignore names.
// It reads directories itself rather than asking git, so that the go command
// sees what was read and does not answer from its cache when a file is new.
var tree = sync.OnceValues(func() ([]string, error) {
	ignored, err := ignoredNames()
	if err != nil {
		return nil, err
	}
	var files []string
	err = fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || ignored(file)):
			return fs.SkipDir
		case d.Type().IsRegular() && !ignored(file):
			files = append(files, file)
		}
		return nil
	})
	return files, err
})

// ignoredNames reads .gitignore, in the two forms ours is written in: a path from
// the root ("/bin/") and a name anywhere ("*.test").
func ignoredNames() (func(file string) bool, error) {
	text, err := os.ReadFile(".gitignore")
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(text))
	return func(file string) bool {
		return slices.ContainsFunc(lines, func(line string) bool {
			if from, rooted := strings.CutPrefix(line, "/"); rooted {
				return strings.TrimSuffix(from, "/") == file
			}
			match, err := path.Match(line, path.Base(file))
			return match && err == nil
		})
	}, nil
}

// files returns the tree, or ends the test.
func files(t *testing.T) []string {
	t.Helper()
	list, err := tree()
	if err != nil {
		t.Fatalf("list the checkout: %v", err)
	}
	return list
}

// read returns what is in a file of the tree, or ends the test.
func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read the checkout: %v", err)
	}
	return text
}

// sources returns the Go files of the module: not those of a module within it
// (tools, examples), and not those in testdata, which are somebody's input.
func sources(t *testing.T) []source {
	t.Helper()
	all := files(t)
	var other []string // directories of other modules
	for _, file := range all {
		if dir := path.Dir(file); path.Base(file) == "go.mod" && dir != "." {
			other = append(other, dir+"/")
		}
	}
	var list []source
	for _, file := range all {
		if path.Ext(file) != ".go" || slices.Contains(strings.Split(path.Dir(file), "/"), "testdata") ||
			slices.ContainsFunc(other, func(dir string) bool { return strings.HasPrefix(file, dir) }) {
			continue
		}
		list = append(list, parse(t, file))
	}
	return list
}

func parse(t *testing.T, file string) source {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, read(t, file), parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	s := source{path: file, dir: path.Dir(file), test: strings.HasSuffix(file, "_test.go"), doc: f.Doc.Text()}
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("parse %s: import %s: %v", file, spec.Path.Value, err)
		}
		s.imports = append(s.imports, name)
	}
	if slices.Contains(s.imports, "embed") {
		s.embeds = embeds(t, file)
	}
	return s
}

// embeds returns the patterns of a file's go:embed lines, unquoted.
func embeds(t *testing.T, file string) (patterns []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, read(t, file), parser.ParseComments)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	for _, group := range f.Comments {
		for _, c := range group.List {
			patterns = append(patterns, embedded(c)...)
		}
	}
	return patterns
}

func embedded(c *ast.Comment) []string {
	rest, ok := strings.CutPrefix(c.Text, "//go:embed ")
	if !ok {
		return nil
	}
	words := strings.Fields(rest)
	for i, w := range words {
		words[i] = strings.TrimPrefix(strings.Trim(w, "\"`"), "all:")
	}
	return words
}
