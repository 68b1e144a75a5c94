package main

import (
	"fmt"
	"go/format"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// generator writes the package of one model.
type generator struct {
	*model
	taken  map[string]string // exported names, with what took them
	names  map[string]string // shape name to Go type
	planes map[string]string // operation name to its plane
}

// newGenerator checks the model and gives every shape its Go name. Shapes keep
// their names where they can; a later comer (in sorted order) that collides
// gets an underscore and a number.
func newGenerator(m *model) (*generator, error) {
	g := &generator{model: m, taken: map[string]string{"Service": "the service"}, names: map[string]string{}}
	if err := g.check(); err != nil {
		return nil, err
	}
	for _, op := range sorted(m.Operations) {
		g.claim(op, "operation "+op)
	}
	for _, n := range slices.Sorted(maps.Keys(m.used)) {
		g.names[n] = g.claim(exported(n), "used "+n)
	}
	for _, n := range sorted(m.Shapes) {
		if s := m.Shapes[n]; s.Type == "structure" || s.Type == "enum" {
			g.names[n] = g.claim(exported(n), "shape "+n)
		}
	}
	return g, nil
}

// claim reserves an exported name and returns it, altered if it was taken.
func (g *generator) claim(name, by string) string {
	free := name
	for i := 2; g.taken[free] != ""; i++ {
		free = name + "_" + strconv.Itoa(i)
	}
	g.taken[free] = by
	return free
}

// check refuses a model that the conventions of package wire cannot express.
func (g *generator) check() error {
	shapeType := func(name string) (string, error) {
		if t := g.kind(name); t != "" {
			return t, nil
		}
		return "", fmt.Errorf("no shape %q", name)
	}
	for _, n := range sorted(g.Shapes) {
		s := g.Shapes[n]
		if _, ok := wireTypes[s.Type]; !ok {
			return fmt.Errorf("shape %s: unknown type %q", n, s.Type)
		}
		for _, ref := range []string{s.Member, s.Key, s.Value} {
			if ref == "" {
				continue
			}
			if _, err := shapeType(ref); err != nil {
				return fmt.Errorf("shape %s: %w", n, err)
			}
		}
		fields := map[string]string{}
		for _, mn := range sorted(s.Members) {
			m := s.Members[mn]
			t, err := shapeType(m.Type)
			if err != nil {
				return fmt.Errorf("member %s.%s: %w", n, mn, err)
			}
			if d := m.Default; d != nil && d != false && d != 0.0 {
				return fmt.Errorf("member %s.%s: default %v is not a zero value", n, mn, d)
			}
			if m.In == "payload" && t != "structure" {
				return fmt.Errorf("member %s.%s: a payload of type %s", n, mn, t)
			}
			if other := fields[exported(mn)]; other != "" {
				return fmt.Errorf("members %s and %s of %s share a Go name", other, mn, n)
			}
			fields[exported(mn)] = mn
		}
		if _, err := pattern(s.Pattern); err != nil {
			return fmt.Errorf("shape %s: %w", n, err)
		}
	}
	for _, n := range sorted(g.Operations) {
		op := g.Operations[n]
		for _, ref := range append([]string{op.Input, op.Output}, op.Errors...) {
			if ref == "" {
				continue
			}
			if t, err := shapeType(ref); err != nil || t != "structure" {
				return fmt.Errorf("operation %s: %s is not a structure", n, ref)
			}
		}
	}
	for n := range g.Absent {
		if g.Operations[n] == nil {
			return fmt.Errorf("absent operation %s is not in the model", n)
		}
	}
	return g.checkPlanes()
}

// wirePlanes are the planes as a model writes them and as package wire does.
var wirePlanes = map[string]string{"control": "ControlPlane", "data": "DataPlane"}

// checkPlanes refuses a plane that does not exist and an operation on two. That
// each operation is on one is for a test beside the generated packages to say,
// or a model could not be worked on.
func (g *generator) checkPlanes() error {
	g.planes = map[string]string{}
	for _, plane := range sorted(g.Planes) {
		if wirePlanes[plane] == "" {
			return fmt.Errorf("no plane %q; there are control and data", plane)
		}
		for _, n := range g.Planes[plane] {
			if g.Operations[n] == nil {
				return fmt.Errorf("plane %s: no operation %s", plane, n)
			}
			if g.planes[n] != "" {
				return fmt.Errorf("operation %s is on the planes %s and %s", n, g.planes[n], plane)
			}
			g.planes[n] = plane
		}
	}
	for _, n := range g.Remembered {
		if g.Operations[n] == nil {
			return fmt.Errorf("remembered: no operation %s", n)
		}
	}
	return nil
}

// kind returns the type of a shape, declared, used or primitive; "" if unknown.
func (g *generator) kind(name string) string {
	if s := g.Shapes[name]; s != nil {
		return s.Type
	}
	if m := g.used[name]; m != nil {
		return m.Shapes[name].Type
	}
	if _, ok := goScalars[name]; ok {
		return name
	}
	return ""
}

var goScalars = map[string]string{
	"string": "string", "boolean": "bool", "integer": "int", "long": "int64",
	"float": "float32", "double": "float64", "timestamp": "time.Time", "blob": "[]byte",
}

var wireTypes = map[string]string{
	"structure": "Structure", "list": "List", "map": "Map", "string": "String", "enum": "Enum",
	"boolean": "Boolean", "integer": "Integer", "long": "Long", "float": "Float", "double": "Double",
	"timestamp": "Timestamp", "blob": "Blob",
}

// valueType is the Go type of a shape inside a list or map.
func (g *generator) valueType(name string) string {
	switch t := g.kind(name); t {
	case "structure", "enum":
		return g.names[name]
	case "list":
		return "[]" + g.valueType(g.Shapes[name].Member)
	case "map":
		return "map[string]" + g.valueType(g.Shapes[name].Value)
	default:
		return goScalars[t]
	}
}

// fieldType is the Go type of a member.
func (g *generator) fieldType(s *shape, m *member) string {
	t := g.valueType(m.Type)
	switch k := g.kind(m.Type); {
	case k == "structure":
		return "*" + t
	case k == "list", k == "map", k == "enum", k == "blob":
		return t
	case m.Required, m.Default != nil, s.Error != "" && k == "string":
		return t
	default:
		return "*" + t
	}
}

func (g *generator) head(what string, imports ...string) *strings.Builder {
	b := &strings.Builder{}
	fmt.Fprintf(b, "// Code generated by cmd/apigen from models/%s.json (sha256 %s). DO NOT EDIT.\n\n", g.file, g.sum)
	if what != "" {
		fmt.Fprintf(b, "%s\n", what)
	}
	fmt.Fprintf(b, "package %s\n\n", g.pkg)
	if len(imports) > 0 {
		b.WriteString("import (\n")
		for i, p := range imports {
			if i > 0 && strings.Contains(p, ".") && !strings.Contains(imports[i-1], ".") {
				b.WriteByte('\n')
			}
			fmt.Fprintf(b, "%q\n", p)
		}
		b.WriteString(")\n\n")
	}
	return b
}

const (
	module   = "github.com/everpoint/everpoint"
	wirePath = module + "/aws/wire"
)

// usedImports are the generated packages this one takes shapes from.
func (g *generator) usedImports() []string {
	var paths []string
	for _, pkg := range sorted(g.Uses) {
		paths = append(paths, module+"/api/"+pkg)
	}
	return paths
}

func (g *generator) types() string {
	body := &strings.Builder{}
	errorShapes := false
	for _, n := range slices.Sorted(maps.Keys(g.used)) {
		from := g.used[n]
		fmt.Fprintf(body, "// %s is the %s shape of that name.\ntype %s = %s.%s\n\n", g.names[n], from.Service, g.names[n], from.pkg, exported(n))
	}
	for _, n := range sorted(g.Shapes) {
		s := g.Shapes[n]
		name := g.names[n]
		switch s.Type {
		case "enum":
			g.enum(body, n, name, s)
		case "structure":
			fmt.Fprintf(body, "// %s is %s of the %s model.\ntype %s struct {\n", name, described(s, n), g.Service, name)
			for _, mn := range sorted(s.Members) {
				m := s.Members[mn]
				tag := mn
				if m.JSONName != "" {
					tag = m.JSONName
				}
				if !m.Required {
					tag += ",omitempty"
				}
				fmt.Fprintf(body, "%s %s `json:%q`\n", exported(mn), g.fieldType(s, m), tag)
			}
			body.WriteString("}\n\n")
			if s.Error != "" {
				errorShapes = true
				text := `"` + n + `"`
				for _, mn := range []string{"Message", "message"} {
					if s.Members[mn] != nil {
						text = `"` + n + `: " + e.Message`
					}
				}
				fmt.Fprintf(body, "// Error names the exception and says what happened.\nfunc (e *%s) Error() string { return %s }\n\n", name, text)
				fmt.Fprintf(body, "// Exception returns the shape, with its status and code.\nfunc (e *%s) Exception() *wire.Schema { return %s }\n\n", name, g.schemaVar(n))
			}
		}
	}
	var imports []string
	if strings.Contains(body.String(), "time.Time") {
		imports = append(imports, "time")
	}
	imports = append(imports, g.usedImports()...)
	if errorShapes {
		imports = append(imports, wirePath)
	}
	doc := fmt.Sprintf("// Package %s holds the types, schemas and operations of %s, version %s.\n//\n// It is generated: data only. Package wire explains the conventions.", g.pkg, g.Service, g.Version)
	return g.head(doc, imports...).String() + body.String()
}

func described(s *shape, name string) string {
	if s.Error == "" {
		return "the structure " + name
	}
	return fmt.Sprintf("the exception %s, status %d,", name, s.Status)
}

func (g *generator) enum(b *strings.Builder, n, name string, s *shape) {
	fmt.Fprintf(b, "// %s is the enumeration %s of the %s model.\ntype %s string\n\n// The values of %s.\nconst (\n", name, n, g.Service, name, name)
	for _, v := range s.Values {
		c := g.claim(name+constant(v), "value "+v+" of "+n)
		fmt.Fprintf(b, "%s %s = %q\n", c, name, v)
	}
	b.WriteString(")\n\n")
}

// schemaVar names the exported schema of a structure.
func (g *generator) schemaVar(shape string) string { return g.names[shape] + "Schema" }

// ref is how a schema names another: plain scalars by their primitive.
func (g *generator) ref(name string) string {
	s := g.Shapes[name]
	if s == nil || s.Type == "structure" || s.Type == "list" || s.Type == "map" || s.Type == "enum" {
		return name
	}
	if s.Format != "" || s.Length != nil || s.Range != nil || s.Pattern != "" || s.Sensitive {
		return name
	}
	return s.Type
}

func (g *generator) schemas() string {
	b := g.head("", append(g.usedImports(), wirePath)...)
	b.WriteString("// The schemas of the structures.\nvar (\n")
	for _, n := range sorted(g.Shapes) {
		if g.Shapes[n].Type == "structure" {
			fmt.Fprintf(b, "%s = shapes.Of(%q)\n", g.schemaVar(n), n)
		}
	}
	b.WriteString(")\n\nvar shapes = wire.Link([]*wire.Schema{\n")
	for _, n := range sorted(g.Shapes) {
		s := g.Shapes[n]
		if g.ref(n) != n {
			continue
		}
		fmt.Fprintf(b, "{Name: %q, Type: wire.%s", n, wireTypes[s.Type])
		if s.Member != "" {
			fmt.Fprintf(b, ", Elem: %q", g.ref(s.Member))
		}
		if s.Value != "" {
			fmt.Fprintf(b, ", Key: %q, Elem: %q", g.ref(s.Key), g.ref(s.Value))
		}
		if len(s.Values) > 0 {
			fmt.Fprintf(b, ", Enum: %#v", s.Values)
		}
		if s.Format == "date-time" {
			b.WriteString(", Format: wire.FormatDateTime")
		}
		b.WriteString(bounds(s.rules))
		if s.Error != "" {
			code := s.Code
			if code == "" {
				code = n
			}
			fmt.Fprintf(b, ", Status: %d, Code: %q", s.Status, code)
			if s.Error == "server" {
				b.WriteString(", Server: true")
			}
		}
		if len(s.Members) > 0 {
			b.WriteString(", Members: []wire.Member{\n")
			for _, mn := range sorted(s.Members) {
				b.WriteString(g.member(mn, s.Members[mn]))
			}
			b.WriteString("}")
		}
		b.WriteString("},\n")
	}
	b.WriteString("}")
	for _, n := range slices.Sorted(maps.Keys(g.used)) {
		fmt.Fprintf(b, ", %s.%sSchema", g.used[n].pkg, exported(n))
	}
	b.WriteString(")\n")
	return b.String()
}

func (g *generator) member(name string, m *member) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "{Name: %q, Shape: %q", name, g.ref(m.Type))
	if m.JSONName != "" && m.JSONName != name {
		fmt.Fprintf(b, ", JSON: %q", m.JSONName)
	}
	if m.In != "" {
		fmt.Fprintf(b, ", In: wire.In%s", exported(m.In))
	}
	if m.Name != "" && m.Name != name {
		fmt.Fprintf(b, ", Bind: %q", m.Name)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"Required", m.Required},
		{"Default", m.Default != nil},
		{"Open", m.Open},
		{"OneAsAll", m.ScalarAsList},
		{"Upper", m.Upper},
		{"Token", m.Token},
	} {
		if f.set {
			fmt.Fprintf(b, ", %s: true", f.name)
		}
	}
	b.WriteString(bounds(m.rules))
	b.WriteString("},\n")
	return b.String()
}

// bounds prints the Rules and Sensitive fields of a schema or member.
func bounds(r rules) string {
	var parts []string
	if len(r.Length) == 2 {
		if r.Length[0] != nil && *r.Length[0] != 0 {
			parts = append(parts, fmt.Sprintf("MinLength: %d", *r.Length[0]))
		}
		if r.Length[1] != nil {
			parts = append(parts, fmt.Sprintf("MaxLength: %d", *r.Length[1]))
		}
	}
	if len(r.Range) == 2 {
		if r.Range[0] != nil {
			parts = append(parts, fmt.Sprintf("HasMin: true, Min: %v", *r.Range[0]))
		}
		if r.Range[1] != nil {
			parts = append(parts, fmt.Sprintf("HasMax: true, Max: %v", *r.Range[1]))
		}
	}
	if r.Pattern != "" {
		p, err := pattern(r.Pattern)
		if err != nil {
			panic(err) // check has compiled it
		}
		parts = append(parts, fmt.Sprintf("Pattern: %q", p))
	}
	out := ""
	if len(parts) > 0 {
		out = ", Rules: &wire.Rules{" + strings.Join(parts, ", ") + "}"
	}
	if r.Sensitive {
		out += ", Sensitive: true"
	}
	return out
}

var protocols = map[string]string{
	"restJson1": "RestJSON1", "awsJson1_0": "AWSJSON10", "awsJson1_1": "AWSJSON11", "awsQuery": "AWSQuery",
}

func (g *generator) operations() string {
	b := g.head("", wirePath)
	fmt.Fprintf(b, "// Service describes the API; its operations register with it.\nvar Service = &wire.Service{\n")
	action := g.ActionPrefix
	if action == "" {
		action = g.SigningName
	}
	fmt.Fprintf(b, "Name: %q,\nPackage: %q,\nVersion: %q,\nSigningName: %q,\nARNNamespace: %q,\nActionPrefix: %q,\nProtocol: wire.%s,\n",
		g.Service, g.pkg, g.Version, g.SigningName, g.ARNNamespace, action, protocols[g.Protocol])
	if g.Global {
		b.WriteString("Global: true,\n")
	}
	if strings.HasPrefix(g.Protocol, "awsJson") {
		fmt.Fprintf(b, "TargetPrefix: %q,\n", g.TargetPrefix)
		if len(g.TargetAliases) > 0 {
			fmt.Fprintf(b, "TargetAliases: %#v,\n", g.TargetAliases)
		}
	}
	if g.Protocol == "awsQuery" {
		fmt.Fprintf(b, "XMLNamespace: %q,\n", g.XMLNamespace)
	}
	b.WriteString("}\n\n")
	for _, n := range sorted(g.Operations) {
		op := g.Operations[n]
		in, out := "wire.Empty", "wire.Empty"
		if op.Input != "" {
			in = g.names[op.Input]
		}
		if op.Output != "" {
			out = g.names[op.Output]
		}
		doc := ""
		if op.URI != "" {
			doc = ": " + op.Method + " " + op.URI
		}
		fmt.Fprintf(b, "// %s is the operation of that name%s.\nvar %s = wire.Define[%s, %s](wire.Op{\nName: %q,\n", n, doc, n, in, out, n)
		if op.URI != "" {
			fmt.Fprintf(b, "Method: %q,\nURI: %q,\n", op.Method, op.URI)
		}
		if len(op.Aliases) > 0 {
			fmt.Fprintf(b, "Aliases: %#v,\n", op.Aliases)
		}
		if op.Code != 0 && op.Code != 200 {
			fmt.Fprintf(b, "Status: %d,\n", op.Code)
		}
		b.WriteString("Service: Service,\n")
		if plane := g.planes[n]; plane != "" {
			fmt.Fprintf(b, "Plane: wire.%s,\n", wirePlanes[plane])
		}
		if slices.Contains(g.Remembered, n) {
			b.WriteString("Remembered: true,\n")
		}
		if op.Input != "" {
			fmt.Fprintf(b, "Input: %s,\n", g.schemaVar(op.Input))
		}
		if op.Output != "" {
			fmt.Fprintf(b, "Output: %s,\n", g.schemaVar(op.Output))
		}
		if len(op.Errors) > 0 {
			b.WriteString("Errors: []*wire.Schema{")
			for i, e := range op.Errors {
				if i > 0 {
					b.WriteString(", ")
				}
				b.WriteString(g.schemaVar(e))
			}
			b.WriteString("},\n")
		}
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"Unsigned", op.Unsigned},
			{"Idempotent", op.Idempotent},
			{"FoldCase", op.FoldCase},
			{"Absent", g.Absent[n] != ""},
		} {
			if f.set {
				fmt.Fprintf(b, "%s: true,\n", f.name)
			}
		}
		b.WriteString("})\n\n")
	}
	return b.String()
}

// exported makes a model's name a Go name: underscores in front go, and the
// first letter is a capital.
func exported(name string) string {
	name = strings.TrimLeft(name, "_")
	return strings.ToUpper(name[:1]) + name[1:]
}

// constant makes an enum value the tail of a Go name: APNS_VOIP is ApnsVoip.
func constant(v string) string {
	b := &strings.Builder{}
	shout := strings.ToUpper(v) == v
	start := true
	for _, r := range v {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			start = true
			continue
		}
		switch {
		case start:
			b.WriteRune(unicode.ToUpper(r))
		case shout:
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
		start = false
	}
	if b.Len() == 0 {
		return "Empty"
	}
	return b.String()
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func formatted(src string) ([]byte, error) {
	out, err := format.Source([]byte(src))
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	return out, nil
}
