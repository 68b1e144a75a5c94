package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// violationsMax bounds how many violations of one request are told.
const violationsMax = 5

// structuresMax bounds how many structures one document may hold: empty
// objects are small on the wire and large in memory.
const structuresMax = 50_000

// violation is one member that is not as the model wants it.
type violation struct {
	member, what string
	missing      bool // required and absent
}

// Invalid is what a request that breaks its model's rules is refused with. It
// is an aws.Fault of KindInvalid to everyone who asks with errors.As.
type invalid struct {
	fault      *aws.Fault
	violations []violation
	syntax     bool // the body could not be read at all
}

func (e *invalid) Error() string { return e.fault.Message }
func (e *invalid) Unwrap() error { return e.fault }

func unreadable(err error) error {
	return &invalid{fault: &aws.Fault{Kind: aws.KindInvalid, Message: err.Error()}, syntax: true}
}

// step is one part of the path to the value being read.
type step struct {
	name  string
	index int // of a list element, when name is empty
	key   bool
	quiet bool // a key that is itself sensitive
}

// checker collects violations with the paths of their members.
type checker struct {
	path       []step
	violations []violation
	structures int
	quiet      int // depth of sensitive members: nothing below is echoed
}

func (c *checker) push(s step) { c.path = append(c.path, s) }
func (c *checker) pop()        { c.path = c.path[:len(c.path)-1] }

// where prints the path: Endpoint.Metrics.x, Item[3].Address.
func (c *checker) where() string {
	var b strings.Builder
	for _, s := range c.path {
		if s.name == "" && !s.key {
			b.WriteByte('[')
			b.WriteString(strconv.Itoa(s.index))
			b.WriteByte(']')
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		switch {
		case s.quiet:
			b.WriteByte('*')
		case s.key:
			b.WriteString(printable(s.name))
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

func (c *checker) violate(format string, args ...any) {
	if len(c.violations) < violationsMax {
		c.violations = append(c.violations, violation{member: c.where(), what: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) missing(name string) {
	if len(c.violations) < violationsMax {
		c.push(step{name: name})
		c.violations = append(c.violations, violation{member: c.where(), what: "required but missing", missing: true})
		c.pop()
	}
}

// fault returns the violations as one error, the first leading; nil if none.
func (c *checker) fault() error {
	if len(c.violations) == 0 {
		return nil
	}
	var b strings.Builder
	for i, v := range c.violations {
		if i > 0 {
			b.WriteString("; ")
		}
		if v.member != "" {
			b.WriteString(v.member)
			b.WriteString(": ")
		}
		b.WriteString(v.what)
	}
	return &invalid{
		fault:      &aws.Fault{Kind: aws.KindInvalid, Message: b.String(), Member: c.violations[0].member},
		violations: slices.Clone(c.violations),
	}
}

// enum checks a value of an enumeration.
func (c *checker) enum(s *Schema, m *Member, v string) {
	if m != nil && m.Open {
		return
	}
	if _, ok := s.enum[v]; ok {
		return
	}
	const listMax = 14
	got := ""
	if c.quiet == 0 && !s.Sensitive {
		got = strconv.Quote(printable(v)) + " is "
	}
	if len(s.Enum) > listMax {
		c.violate("%snot a value of %s", got, s.Name)
		return
	}
	c.violate("%snot one of %s", got, strings.Join(s.Enum, ", "))
}

// rules checks a decoded value against the bounds of its shape and member.
func (c *checker) rules(p *plan, m *Member, v reflect.Value) {
	if p.schema.Rules != nil {
		c.bounds(p.schema.Rules, p.kind, v)
	}
	if m != nil && m.Rules != nil {
		c.bounds(m.Rules, p.kind, v)
	}
}

func (c *checker) bounds(r *Rules, kind Type, v reflect.Value) {
	switch kind {
	case String, Enum:
		s := v.String()
		if r.MinLength > 0 || r.MaxLength > 0 {
			c.length(r, utf8.RuneCountInString(s), characters)
		}
		if r.Pattern != "" && !r.regexp().MatchString(s) {
			c.violate("does not match the pattern %s", r.Pattern)
		}
	case Blob:
		c.length(r, v.Len(), octets)
	case List, Map:
		c.length(r, v.Len(), entries)
	case Integer, Long:
		c.number(r, float64(v.Int()))
	case Float, Double:
		c.number(r, v.Float())
	}
}

// unit is what lengths are counted in: of one, and of any other number.
type unit struct{ one, many string }

var (
	characters = unit{"character", "characters"}
	octets     = unit{"byte", "bytes"}
	entries    = unit{"entry", "entries"}
)

// count says n units.
func count(n int, u unit) string {
	if n == 1 {
		return "1 " + u.one
	}
	return strconv.Itoa(n) + " " + u.many
}

func (c *checker) length(r *Rules, n int, u unit) {
	switch {
	case n < r.MinLength && r.MaxLength > 0:
		c.violate("must have %d to %s", r.MinLength, count(r.MaxLength, u))
	case n < r.MinLength:
		c.violate("must have at least %s", count(r.MinLength, u))
	case r.MaxLength > 0 && n > r.MaxLength && r.MinLength > 0:
		c.violate("must have %d to %s", r.MinLength, count(r.MaxLength, u))
	case r.MaxLength > 0 && n > r.MaxLength:
		c.violate("must have at most %s", count(r.MaxLength, u))
	}
}

func (c *checker) number(r *Rules, n float64) {
	below, above := r.HasMin && n < r.Min, r.HasMax && n > r.Max
	if !below && !above {
		return
	}
	text := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	switch {
	case r.HasMin && r.HasMax:
		c.violate("must be between %s and %s", text(r.Min), text(r.Max))
	case r.HasMin:
		c.violate("must be at least %s", text(r.Min))
	default:
		c.violate("must be at most %s", text(r.Max))
	}
}
