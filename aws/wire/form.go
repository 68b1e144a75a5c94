package wire

import (
	"encoding/base64"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// Bounds on a form. IAM's largest calls have some hundred parameters.
const (
	formPairsMax   = 10_000
	formNodesMax   = 50_000
	formDepthMax   = 32
	formEntriesMax = 10_000
)

// node is a place in the tree that the dotted names of a form make:
// Tags.member.1.Key is four nodes deep.
type node struct {
	value    string
	set      bool
	children map[string]*node
}

func (n *node) text(name string) string {
	if c := n.children[name]; c != nil {
		return c.value
	}
	return ""
}

// parseForm reads application/x-www-form-urlencoded text into a tree. Of two
// equal names the last counts.
func parseForm(raw string) (*node, error) {
	root := &node{}
	if raw == "" {
		return root, nil
	}
	nodes := 0
	if strings.Count(raw, "&") >= formPairsMax {
		return nil, aws.Invalid("the request has more than %d parameters", formPairsMax)
	}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(k)
		if err != nil {
			return nil, aws.Invalid("a parameter's name is not valid percent-encoding")
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return nil, aws.InvalidMember(printable(name), "%s: not valid percent-encoding", printable(name))
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, aws.Invalid("the request is not valid UTF-8")
		}
		if strings.Count(name, ".") >= formDepthMax {
			return nil, aws.Invalid("a parameter's name has more than %d parts", formDepthMax)
		}
		n := root
		for part := range strings.SplitSeq(name, ".") {
			next := n.children[part]
			if next == nil {
				if nodes++; nodes > formNodesMax {
					return nil, aws.Invalid("the parameters' names have more than %d parts", formNodesMax)
				}
				next = &node{}
				if n.children == nil {
					n.children = map[string]*node{}
				}
				n.children[part] = next
			}
			n = next
		}
		n.value, n.set = value, true
	}
	return root, nil
}

// formReader decodes an awsQuery form into a planned type.
type formReader struct{ checker }

func (d *formReader) structure(p *plan, n *node, v reflect.Value) {
	if d.structures++; d.structures > structuresMax {
		return
	}
	for i := range p.fields {
		f := &p.fields[i]
		c := n.children[f.name]
		if c == nil {
			if f.m.Required && !f.m.Open {
				d.missing(f.name)
			}
			continue
		}
		fv := v.Field(f.index)
		d.push(step{name: f.name})
		if f.ptr {
			nv := reflect.New(f.rt)
			if d.value(f.plan, f.m, c, nv.Elem()) {
				fv.Set(nv)
			}
		} else {
			d.value(f.plan, f.m, c, fv)
		}
		d.pop()
	}
}

// value decodes one node; false if it holds nothing usable.
func (d *formReader) value(p *plan, m *Member, n *node, v reflect.Value) bool {
	if p.schema.Sensitive || m != nil && m.Sensitive {
		d.quiet++
		defer func() { d.quiet-- }()
	}
	switch p.kind {
	case Structure:
		d.structure(p, n, v)
		return true
	case List:
		d.list(p, m, n, v)
	case Map:
		d.mapping(p, m, n, v)
	default:
		if !n.set {
			d.violate("expected %s", p.kind)
			return false
		}
		return d.scalar(p, m, n.value, v)
	}
	d.rules(p, m, v)
	return true
}

// numbered returns a list's entries in order: the children of "member" (or of
// "entry", or the node's own) whose names are numbers from 1.
func (d *formReader) numbered(n *node, wrap string) []*node {
	if inner := n.children[wrap]; inner != nil {
		n = inner
	}
	type entry struct {
		at int
		n  *node
	}
	var entries []entry
	for k, c := range n.children {
		at, err := strconv.Atoi(k)
		if err != nil || at < 1 || at > formEntriesMax || k[0] == '+' || k[0] == '0' {
			d.violate("%q is not an index from 1 to %d", printable(k), formEntriesMax)
			continue
		}
		entries = append(entries, entry{at, c})
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.at - b.at })
	out := make([]*node, len(entries))
	for i, e := range entries {
		out[i] = e.n
	}
	return out
}

func (d *formReader) list(p *plan, m *Member, n *node, v reflect.Value) {
	entries := d.numbered(n, "member")
	l := reflect.MakeSlice(p.rt, len(entries), len(entries))
	em := elementOf(m)
	for i, e := range entries {
		d.push(step{index: i})
		d.value(p.elem, em, e, l.Index(i))
		d.pop()
	}
	v.Set(l)
}

func (d *formReader) mapping(p *plan, m *Member, n *node, v reflect.Value) {
	out := reflect.MakeMap(p.rt)
	em := elementOf(m)
	key := p.schema.key
	for i, e := range d.numbered(n, "entry") {
		k := e.children["key"]
		val := e.children["value"]
		if k == nil || !k.set || val == nil {
			d.push(step{index: i})
			d.violate("expected a key and a value")
			d.pop()
			continue
		}
		d.push(step{name: k.value, key: true, quiet: d.quiet > 0 || key.Sensitive})
		if key.Type == Enum {
			d.enum(key, nil, k.value)
		}
		if key.Rules != nil {
			d.bounds(key.Rules, String, reflect.ValueOf(k.value))
		}
		elem := reflect.New(p.elem.rt).Elem()
		if d.value(p.elem, em, val, elem) {
			out.SetMapIndex(reflect.ValueOf(k.value), elem)
		}
		d.pop()
	}
	v.Set(out)
}

// scalar decodes text from a form, a path, a query or a header into v, and
// checks its bounds. False means that v was not set.
func (c *checker) scalar(p *plan, m *Member, s string, v reflect.Value) bool {
	switch p.kind {
	case String, Enum:
		if m != nil && m.Upper {
			s = strings.ToUpper(s)
		}
		if p.kind == Enum {
			c.enum(p.schema, m, s)
		}
		v.SetString(s)
	case Boolean:
		switch strings.ToLower(s) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			c.violate("expected %s", p.kind)
			return false
		}
	case Integer, Long:
		bits := 64
		if p.kind == Integer {
			bits = 32
		}
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			c.violate("expected %s", p.kind)
			return false
		}
		v.SetInt(n)
	case Float, Double:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			c.violate("expected %s", p.kind)
			return false
		}
		v.SetFloat(f)
	case Timestamp:
		t, err := parseTime(s)
		if err != nil {
			t, err = parseEpoch(s)
		}
		if err != nil {
			c.violate("expected %s", p.kind)
			return false
		}
		v.Set(reflect.ValueOf(t))
	case Blob:
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			c.violate("expected %s", p.kind)
			return false
		}
		v.SetBytes(raw)
	default:
		c.violate("expected %s", p.kind)
		return false
	}
	c.rules(p, m, v)
	return true
}

// formatScalar writes a scalar as text, for XML and headers.
func formatScalar(p *plan, v reflect.Value) (string, error) {
	switch p.kind {
	case Boolean:
		return strconv.FormatBool(v.Bool()), nil
	case Integer, Long:
		return strconv.FormatInt(v.Int(), 10), nil
	case Float, Double:
		b, err := appendFloat(nil, v.Float(), 64)
		return string(b), err
	case Timestamp:
		t := v.Interface().(time.Time).UTC()
		if t.Nanosecond()/1e6 == 0 {
			return t.Format("2006-01-02T15:04:05Z"), nil
		}
		return aws.Timestamp(t), nil
	case Blob:
		return base64.StdEncoding.EncodeToString(v.Bytes()), nil
	}
	return v.String(), nil
}
