package wire

import (
	"fmt"
	"regexp"
	"sync"
)

// A Schema describes one shape of a model. Schemas are generated as data and
// connected by [Link]; nothing changes them afterwards.
type Schema struct {
	Name    string
	Type    Type
	Members []Member // of a structure, sorted by name

	Elem  string // shape of a list's elements or a map's values
	Key   string // shape of a map's keys
	Enum  []string
	Rules *Rules // bounds on the shape itself; nil if none

	Format    TimeFormat // how a timestamp is written, when the shape says so
	Sensitive bool       // addresses, secrets: never printed, logged or echoed

	Status int    // of an exception: its HTTP status; 0 for other shapes
	Code   string // of an exception: the code on the wire
	Server bool   // of an exception: the server is at fault, not the client

	elem, key *Schema
	byName    map[string]int // index of members by their name on the wire
	enum      map[string]struct{}
}

// A Member is one field of a structure.
type Member struct {
	Name  string // as the model writes it
	Shape string // the shape's name
	JSON  string // key in JSON; empty means Name
	Field string // Go field; empty means Name with a capital letter
	In    Binding
	Bind  string // name in the query or header; empty means Name

	Required bool
	Default  bool   // absent means the zero value; always written
	Open     bool   // an enum whose foreign values pass: the room judges them
	OneAsAll bool   // a bare scalar where a list is expected is a list of one
	Upper    bool   // raised to upper case before it is checked
	Token    bool   // an idempotency token
	Rules    *Rules // bounds beyond the shape's own

	Sensitive bool // value must not be printed; of a map, its keys too

	schema *Schema
}

// Schema returns the member's shape.
func (m *Member) Schema() *Schema { return m.schema }

// WireName returns the member's key in JSON, XML and forms.
func (m *Member) WireName() string {
	if m.JSON != "" {
		return m.JSON
	}
	return m.Name
}

// Type is the kind of a shape.
type Type uint8

// The kinds of shapes.
const (
	Structure Type = iota
	List
	Map
	String
	Enum
	Boolean
	Integer // 32 bits
	Long    // 64 bits
	Float
	Double
	Timestamp
	Blob
)

var typeNames = [...]string{
	"an object", "an array", "an object", "a string", "a string", "true or false",
	"an integer", "an integer", "a number", "a number", "a timestamp", "base64 text",
}

// String says what a reader of the wire expects there: "a number".
func (t Type) String() string { return typeNames[t] }

// Binding says where a member of an operation's input or output travels.
type Binding uint8

// The places. A member of the body is the rule.
const (
	InBody Binding = iota
	InLabel
	InQuery
	InHeader
	InPayload // the member is the whole body
)

// TimeFormat says how a timestamp is written.
type TimeFormat uint8

// The formats. The default depends on the place: seconds in JSON bodies, ISO
// 8601 in queries, forms and XML, HTTP date in headers. Source: models/README.md.
const (
	FormatByPlace TimeFormat = iota
	FormatDateTime
	FormatEpoch
	FormatHTTPDate
)

// Rules bound a value. Lengths count code points of strings, bytes of blobs,
// entries of lists and maps; a zero Max means no upper bound.
type Rules struct {
	MinLength, MaxLength int
	Min, Max             float64
	HasMin, HasMax       bool
	Pattern              string // RE2 syntax, searched, so anchored where it must be

	once sync.Once
	re   *regexp.Regexp
}

func (r *Rules) regexp() *regexp.Regexp {
	r.once.Do(func() { r.re = regexp.MustCompile(r.Pattern) })
	return r.re
}

// Shapes are the linked schemas of one model.
type Shapes struct {
	byName map[string]*Schema
}

// Of returns the schema of a shape. It panics if the model has none: the name
// comes from generated code.
func (s *Shapes) Of(name string) *Schema {
	if c := s.byName[name]; c != nil {
		return c
	}
	panic(fmt.Sprintf("wire: no shape %q", name))
}

// primitives are the shapes that every model may name without declaring them.
var primitives = map[string]*Schema{
	"string":    {Name: "string", Type: String},
	"boolean":   {Name: "boolean", Type: Boolean},
	"integer":   {Name: "integer", Type: Integer},
	"long":      {Name: "long", Type: Long},
	"float":     {Name: "float", Type: Float},
	"double":    {Name: "double", Type: Double},
	"timestamp": {Name: "timestamp", Type: Timestamp},
	"blob":      {Name: "blob", Type: Blob},
}

// Link connects the schemas of one model by name and takes in those it uses
// from other models. It panics on a name that leads nowhere, which only a
// defect of the generator can cause.
func Link(schemas []*Schema, uses ...*Schema) *Shapes {
	s := &Shapes{byName: make(map[string]*Schema, len(schemas)+len(uses)+len(primitives))}
	for n, p := range primitives {
		s.byName[n] = p
	}
	for _, c := range uses {
		s.byName[c.Name] = c
	}
	for _, c := range schemas {
		s.byName[c.Name] = c
	}
	for _, c := range schemas {
		if c.Elem != "" {
			c.elem = s.Of(c.Elem)
		}
		if c.Key != "" {
			c.key = s.Of(c.Key)
		}
		if len(c.Members) > 0 {
			c.byName = make(map[string]int, len(c.Members))
			for i := range c.Members {
				m := &c.Members[i]
				m.schema = s.Of(m.Shape)
				c.byName[m.WireName()] = i
			}
		}
		if len(c.Enum) > 0 {
			c.enum = make(map[string]struct{}, len(c.Enum))
			for _, v := range c.Enum {
				c.enum[v] = struct{}{}
			}
		}
	}
	return s
}

// Empty is the input or output of an operation that has none.
type Empty struct{}

// EmptySchema is the schema of [Empty].
var EmptySchema = &Schema{Name: "Empty", Type: Structure}

// An Exception is an error that a model declares. Generated error shapes
// implement it; rooms return one when its fields matter to the caller.
type Exception interface {
	error
	Exception() *Schema
}
