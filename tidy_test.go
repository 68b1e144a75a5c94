package everpoint_test

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// How many characters a line of Go may have that a person writes and reads; a row
// of a test's table may have more. What stands in quotes does not count, so that
// bytes for the wire stay in one piece.
const (
	lineRunesMax     = 160
	testLineRunesMax = 200
)

// quoted finds the string literals that begin and end in one line.
var quoted = regexp.MustCompile("`[^`]*`|\"(?:[^\"\\\\]|\\\\.)*\"")

// tooLong returns how many characters of a line of the file count, and the bound
// if they are above it; otherwise 0.
func tooLong(file string, line []byte) (runes, most int) {
	most = lineRunesMax
	if strings.HasSuffix(file, "_test.go") {
		most = testLineRunesMax
	}
	if path.Ext(file) != ".go" || generated(file) || len(line) <= most {
		return 0, 0
	}
	if runes = utf8.RuneCount(quoted.ReplaceAll(line, []byte(`""`))); runes <= most {
		return 0, 0
	}
	return runes, most
}

// A rule forbids something in committed text.
type rule struct {
	name   string // what was found, for the report
	remedy string
	find   *regexp.Regexp
	in     func(file string) bool
}

var rules = []rule{
	{
		"a note to do it later", "do it, or file an issue",
		regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME)\b|(?://|/\*|#|--)\s*XX` + `X\b`),
		written,
	},
	{
		"a path of somebody's machine", "name it from the root of the checkout, or make it a setting",
		regexp.MustCompile("(?:^|[\\s\"'`(=:,<\\[])/(?:work|root|home/[a-z]+|Users/[A-Za-z]+)/[A-Za-z0-9._]"),
		anywhere,
	},
	{
		"a package registry's host", "leave it to the client's own configuration (npm: omit-lockfile-registry-resolved)",
		regexp.MustCompile(`\b(?:` + strings.Join([]string{
			`proxy\.golang` + `\.org`, `sum\.golang` + `\.org`, `registry\.npmjs` + `\.org`, `registry\.yarnpkg` + `\.com`,
			`deb\.debian` + `\.org`, `index\.docker` + `\.io`, `pypi` + `\.org`, `crates` + `\.io`,
		}, "|") + `)\b`),
		anywhere,
	},
	{
		"a wait for nothing", "use testing/synctest, a channel, or a condition with a deadline",
		regexp.MustCompile(`\btime\.Sleep\(`),
		func(file string) bool { return strings.HasSuffix(file, "_test.go") },
	},
}

// written reports whether people write the file and others read it as prose or code.
func written(file string) bool {
	switch path.Ext(file) {
	case ".go", ".md", ".sh", ".sql", ".ts", ".tsx", ".yml":
		return !generated(file)
	}
	return path.Base(file) == "Makefile"
}

// anywhere leaves out what nobody wrote: the corpora of fuzz tests.
func anywhere(file string) bool { return !strings.Contains(file, "testdata/fuzz/") }

// breaches returns a line for each place in text that breaks a rule of the file.
func breaches(file string, text []byte) (found []string) {
	// Inside a synctest bubble a sleep takes no time and is how time passes.
	bubble := bytes.Contains(text, []byte(`"testing/synctest"`))
	for n, line := range bytes.Split(text, []byte("\n")) {
		for _, r := range rules {
			if !r.in(file) || bubble && r.name == "a wait for nothing" {
				continue
			}
			if hit := r.find.Find(line); hit != nil {
				found = append(found, fmt.Sprintf("%s:%d: %s: %q: %s", file, n+1, r.name, bytes.TrimSpace(hit), r.remedy))
			}
		}
		if runes, most := tooLong(file, line); most > 0 {
			found = append(found, fmt.Sprintf("%s:%d: %d characters in a line, at most %d", file, n+1, runes, most))
		}
	}
	return found
}

func TestTidy_text(t *testing.T) {
	for _, file := range files(t) {
		text := read(t, file)
		if bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
			continue // not text
		}
		for _, b := range breaches(file, text) {
			t.Error(b)
		}
	}
}

// TestTidy_breaches shows each rule at work, and the text next to it that is fine.
func TestTidy_breaches(t *testing.T) {
	long := strings.Repeat("é", lineRunesMax)
	tests := []struct {
		file, text string
		found      int
	}{
		{"a.go", "// TO" + "DO: later", 1},
		{"a.go", "// XX" + "X: later", 1},
		{"a.go", "mktemp XXX" + "XXX; Java's XX" + "X is a zone", 0},
		{"models/a.json", `"TO` + `DO"`, 0},
		{"docs/a.md", "see `/wo" + "rk/main/a.go`", 1},
		{"docs/a.md", "arn:aws:iam::123456789012:root, state/work/queue, /v1/apps/root/x", 0},
		{"console/package-lock.json", `"https://registry.npmjs` + `.org/a.tgz"`, 1},
		{"testdata/fuzz/FuzzA/0", "/ro" + "ot/x", 0},
		{"a_test.go", "\ttime.Sl" + "eep(time.Second)", 1},
		{"a.go", "\ttime.Sl" + "eep(time.Second)", 0},
		{"a_test.go", "import \"testing/synctest\"\n\ttime.Sl" + "eep(time.Second)", 0},
		{"a.go", long, 0},
		{"a.go", long + "é", 1},
		{"a.gen.go", long + "é", 0},
		{"a.md", long + "é", 0},
		{"a.go", `f("\"` + long + `", 1)`, 0},
		{"a.go", long + `é ""`, 1},
		{"a_test.go", long + long[:40], 0},
		{"a_test.go", long + long, 1},
	}
	for _, tt := range tests {
		if got := breaches(tt.file, []byte(tt.text)); len(got) != tt.found {
			t.Errorf("%s with %q: got %q, want %d", tt.file, tt.text, got, tt.found)
		}
	}
}

// TestTidy_packages asks every package for a doc.go whose comment says what it
// is. A generated package has its comment where the generator puts it.
func TestTidy_packages(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || s.dir == "." {
			continue
		}
		here := path.Base(s.path) == "doc.go" || generated(s.path)
		documented[s.dir] = documented[s.dir] || here && s.doc != ""
	}
	if len(documented) == 0 {
		t.Fatal("no package found: the test looks in the wrong place")
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no doc.go with a package comment", dir)
		}
	}
}

// TestTidy_sql asks that every .sql file is embedded by the Go package beside it,
// or one directory above (migrations/): text nobody runs is text nobody tests.
func TestTidy_sql(t *testing.T) {
	embedded := map[string][]string{}
	for _, s := range sources(t) {
		if !s.test {
			embedded[s.dir] = append(embedded[s.dir], s.embeds...)
		}
	}
	for _, file := range files(t) {
		if path.Ext(file) != ".sql" || slices.Contains(strings.Split(file, "/"), "testdata") {
			continue
		}
		dir, name := path.Dir(file), path.Base(file)
		folder := path.Base(dir)
		if !takes(embedded[dir], name) && !takes(embedded[path.Dir(dir)], folder, folder+"/"+name) {
			t.Errorf("%s is embedded by no Go file beside it", file)
		}
	}
}

// takes reports whether one of the patterns takes one of the names.
func takes(patterns []string, names ...string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			ok, err := path.Match(pattern, name)
			return ok && err == nil
		})
	})
}
