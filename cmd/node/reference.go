package node

import (
	_ "embed" // the settings' own comments
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

//go:embed config.go
var configSource string

// Reference is the page on the configuration file: every member with its
// comment, read from the source that this binary was built from.
func Reference() (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", configSource, parser.ParseComments)
	if err != nil {
		return "", fmt.Errorf("parse config.go: %w", err)
	}
	var b strings.Builder
	b.WriteString("<!-- Code generated from cmd/node/config.go by `everpoint config reference`. DO NOT EDIT. -->\n\n# Configuration\n\n" +
		"A node reads one JSON file, `everpoint serve -config FILE`. Members that are not listed here are refused. Relative paths\n" +
		"are below the file's directory. `everpoint config show FILE` prints what a file comes to.\n")
	for _, d := range file.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		spec := gen.Specs[0].(*ast.TypeSpec)
		body, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| member | type | meaning |\n|---|---|---|\n", spec.Name.Name, sentence(gen.Doc))
		for _, f := range body.Fields.List {
			text := sentence(f.Doc)
			if text == "" {
				text = sentence(f.Comment)
			}
			for _, name := range f.Names {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name.Name, typeName(f.Type), text)
			}
		}
	}
	return b.String(), nil
}

// sentence joins a comment's lines.
func sentence(c *ast.CommentGroup) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(c.Text()), " "), "|", "\\|")
}

func typeName(e ast.Expr) string {
	switch t := e.(type) {
	case *ast.Ident:
		if t.IsExported() {
			return "[" + t.Name + "](#" + strings.ToLower(t.Name) + ")"
		}
		switch t.Name {
		case "bool":
			return "true or false"
		case "int", "float64":
			return "number"
		}
		return t.Name
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.ArrayType:
		return "list of " + typeName(t.Elt)
	default:
		return ""
	}
}
