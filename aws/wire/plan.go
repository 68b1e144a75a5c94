package wire

import (
	"fmt"
	"reflect"
	"sync"
	"time"
)

// A plan says how a Go type holds a shape. Plans are compiled once per pair of
// type and schema, verified while they are, and shared.
type plan struct {
	schema *Schema
	kind   Type
	rt     reflect.Type
	elem   *plan   // of a list's elements or a map's values
	fields []field // of a structure, one per schema member
	direct direct

	body, bound []int // a structure's members in the body, and bound elsewhere
	payload     int   // index of the payload member, or -1
}

// field is where a structure holds one member.
type field struct {
	*plan
	m     *Member
	index int
	ptr   bool // held by pointer: nil is absent
	elide bool // plain and optional: the zero value is absent
	bare  bool // a Go string without bounds: most members are
	name  string
}

// direct marks Go types that are filled without reflection.
type direct uint8

const (
	notDirect direct = iota
	directStrings
	directStringMap
	directStringsMap
	directFloatMap
)

var timeType = reflect.TypeFor[time.Time]()

// membersMax bounds a structure's members, so that the set of those seen fits
// a small array. The largest modelled structure has 43.
const membersMax = 128

type planKey struct {
	rt reflect.Type
	s  *Schema
}

var (
	planCache sync.Map // planKey to *plan
	planMu    sync.Mutex
)

// planFor returns the plan of a type and a schema. It panics if they do not
// fit, which the generator rules out and mounting finds.
func planFor(rt reflect.Type, s *Schema) *plan {
	key := planKey{rt, s}
	if p, ok := planCache.Load(key); ok {
		return p.(*plan)
	}
	planMu.Lock()
	defer planMu.Unlock()
	fresh := map[planKey]*plan{}
	p := compile(rt, s, fresh)
	for k, v := range fresh {
		planCache.Store(k, v)
	}
	return p
}

// compile builds a plan; fresh holds those under construction, for shapes that
// contain themselves.
func compile(rt reflect.Type, s *Schema, fresh map[planKey]*plan) *plan {
	key := planKey{rt, s}
	if p, ok := planCache.Load(key); ok {
		return p.(*plan)
	}
	if p := fresh[key]; p != nil {
		return p
	}
	p := &plan{schema: s, kind: s.Type, rt: rt, payload: -1}
	fresh[key] = p
	fits := false
	switch s.Type {
	case Structure:
		fits = rt.Kind() == reflect.Struct
		if fits {
			p.compileFields(fresh)
		}
	case List:
		if fits = rt.Kind() == reflect.Slice; fits {
			p.elem = compile(rt.Elem(), s.elem, fresh)
		}
	case Map:
		if fits = rt.Kind() == reflect.Map && rt.Key() == reflect.TypeFor[string](); fits {
			p.elem = compile(rt.Elem(), s.elem, fresh)
		}
	case String, Enum:
		fits = rt.Kind() == reflect.String
	case Boolean:
		fits = rt.Kind() == reflect.Bool
	case Integer:
		fits = rt.Kind() == reflect.Int
	case Long:
		fits = rt.Kind() == reflect.Int64
	case Float:
		fits = rt.Kind() == reflect.Float32
	case Double:
		fits = rt.Kind() == reflect.Float64
	case Timestamp:
		fits = rt == timeType
	case Blob:
		fits = rt.Kind() == reflect.Slice && rt.Elem().Kind() == reflect.Uint8
	}
	if !fits {
		panic(fmt.Sprintf("wire: Go type %s does not fit shape %s", rt, s.Name))
	}
	p.direct = directness(p)
	return p
}

func (p *plan) compileFields(fresh map[planKey]*plan) {
	if len(p.schema.Members) > membersMax {
		panic(fmt.Sprintf("wire: shape %s has more than %d members", p.schema.Name, membersMax))
	}
	for i := range p.schema.Members {
		m := &p.schema.Members[i]
		sf, ok := p.rt.FieldByName(m.goField())
		if !ok {
			panic(fmt.Sprintf("wire: Go type %s has no field for %s", p.rt, m.Name))
		}
		f := field{m: m, index: sf.Index[0], name: m.WireName()}
		ft := sf.Type
		if ft.Kind() == reflect.Pointer {
			f.ptr, ft = true, ft.Elem()
		}
		f.plan = compile(ft, m.schema, fresh)
		f.elide = !f.ptr && !m.Required && !m.Default
		f.bare = f.kind == String && f.rt == reflect.TypeFor[string]() && m.schema.Rules == nil && m.Rules == nil && !m.Upper
		p.fields = append(p.fields, f)
		switch m.In {
		case InBody:
			p.body = append(p.body, i)
		case InPayload:
			p.payload = i
		default:
			p.bound = append(p.bound, i)
		}
	}
}

func directness(p *plan) direct {
	plainElem := func(p *plan, t Type) bool { return p.kind == t && p.schema.Rules == nil }
	switch p.rt {
	case reflect.TypeFor[[]string]():
		if plainElem(p.elem, String) {
			return directStrings
		}
	case reflect.TypeFor[map[string]string]():
		if plainElem(p.elem, String) && p.schema.key.Rules == nil {
			return directStringMap
		}
	case reflect.TypeFor[map[string][]string]():
		if p.elem.direct == directStrings && p.elem.schema.Rules == nil && p.schema.key.Rules == nil {
			return directStringsMap
		}
	case reflect.TypeFor[map[string]float64]():
		if plainElem(p.elem, Double) && p.schema.key.Rules == nil {
			return directFloatMap
		}
	}
	return notDirect
}

func (m *Member) goField() string {
	if m.Field != "" {
		return m.Field
	}
	n := m.Name
	for len(n) > 1 && n[0] == '_' {
		n = n[1:]
	}
	if c := n[0]; c >= 'a' && c <= 'z' {
		n = string(c-'a'+'A') + n[1:]
	}
	return n
}

// bind returns the member's name in the query or a header.
func (m *Member) bind() string {
	if m.Bind != "" {
		return m.Bind
	}
	return m.Name
}
