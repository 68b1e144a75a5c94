package wire

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// reader decodes JSON into a planned type.
type reader struct {
	scanner
	checker
	scratch []string // gathers a list before its length is known
	boxes   []string // room for the next strings held by pointer
}

// scratchMax is how many strings a pooled reader keeps room for.
const scratchMax = 256

var readers = sync.Pool{New: func() any { return &reader{checker: checker{path: make([]step, 0, 16)}} }}

// shareBytesMax is the size up to which the strings of a request may share one
// copy of its body.
const shareBytesMax = 16 << 10

func newReader(text string, share bool) *reader {
	d := readers.Get().(*reader)
	d.scanner = scanner{s: text, share: share && len(text) <= shareBytesMax}
	d.checker = checker{path: d.path[:0], violations: d.violations[:0]}
	return d
}

func (d *reader) release() {
	clear(d.path[:cap(d.path)])
	clear(d.violations[:cap(d.violations)])
	d.scanner, d.boxes = scanner{}, nil
	readers.Put(d)
}

// UnmarshalJSON reads a JSON document into v, a pointer to a type that fits the
// schema, with all the checks a request gets. The fault it returns names the
// offending member. The strings of v are copies of their own.
func UnmarshalJSON(s *Schema, data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		panic(fmt.Sprintf("wire: unmarshal into %T, not a pointer", v))
	}
	p := planFor(rv.Type().Elem(), s)
	d := newReader(string(data), false)
	defer d.release()
	return d.document(p, nil, rv.Elem())
}

// document reads the whole text as one value. A null leaves v as it is.
func (d *reader) document(p *plan, m *Member, v reflect.Value) error {
	if !utf8.ValidString(d.s) {
		return unreadable(&syntaxError{invalidUTF8(d.s), "invalid UTF-8"})
	}
	if d.null() {
		d.absent(p)
	} else {
		d.value(p, m, v)
	}
	if d.err == nil && d.peek() != 0 || d.err == nil && d.pos < len(d.s) {
		d.scanner.fail("text after the end")
	}
	if d.err != nil {
		return unreadable(d.err)
	}
	return d.fault()
}

// absent reports the required members of a body that is not there.
func (d *reader) absent(p *plan) {
	for _, i := range p.body {
		if f := &p.fields[i]; f.m.Required && !f.m.Open {
			d.missing(f.name)
		}
	}
}

func invalidUTF8(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return i
			}
		}
	}
	return len(s)
}

// value reads one value into v. It reports false only on a syntax error; a
// value of the wrong type is skipped and noted.
func (d *reader) value(p *plan, m *Member, v reflect.Value) bool {
	if p.schema.Sensitive || m != nil && m.Sensitive {
		d.quiet++
		defer func() { d.quiet-- }()
	}
	b := d.peek()
	ok := false
	switch p.kind {
	case Structure:
		if b != '{' {
			return d.wrong(p)
		}
		return d.structure(p, v)
	case List:
		if b != '[' {
			if m == nil || !m.OneAsAll {
				return d.wrong(p)
			}
			return d.one(p, v)
		}
		ok = d.list(p, m, v)
	case Map:
		if b != '{' {
			return d.wrong(p)
		}
		ok = d.mapping(p, m, v)
	case String, Enum:
		if b != '"' {
			return d.wrong(p)
		}
		s, good := d.text()
		if !good {
			return false
		}
		if m != nil && m.Upper {
			s = strings.ToUpper(s)
		}
		if p.kind == Enum {
			d.enum(p.schema, m, s)
		}
		v.SetString(s)
		ok = true
	case Boolean:
		switch b {
		case 't':
			ok = d.literal("true")
		case 'f':
			ok = d.literal("false")
		default:
			return d.wrong(p)
		}
		v.SetBool(b == 't')
	case Integer, Long, Float, Double:
		if b != '-' && (b < '0' || b > '9') {
			return d.wrong(p)
		}
		s, whole, good := d.scanner.number()
		if !good {
			return false
		}
		if !d.numeric(p, s, whole, v) {
			return true
		}
		ok = true
	case Timestamp:
		t, good, read := d.timestamp(p)
		if !read || !good {
			return read
		}
		v.Set(reflect.ValueOf(t))
		ok = true
	case Blob:
		if b != '"' {
			return d.wrong(p)
		}
		s, good := d.text()
		if !good {
			return false
		}
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			d.violate("expected %s", p.kind)
			return true
		}
		v.SetBytes(raw)
		ok = true
	}
	if ok && (p.schema.Rules != nil || m != nil && m.Rules != nil) {
		d.rules(p, m, v)
	}
	return ok
}

// wrong notes a value of the wrong type and steps over it.
func (d *reader) wrong(p *plan) bool {
	if !d.skip() {
		return false
	}
	d.violate("expected %s", p.kind)
	return true
}

// numeric converts a number's text; false if it does not fit the type.
func (d *reader) numeric(p *plan, s string, whole bool, v reflect.Value) bool {
	switch p.kind {
	case Integer, Long:
		bits := 64
		if p.kind == Integer {
			bits = 32
		}
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil && !whole {
			// 1.0 and 1e3 are whole numbers too.
			f, ferr := strconv.ParseFloat(s, 64)
			if ferr == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 && (bits == 64 || f == float64(int32(f))) {
				n, err = int64(f), nil
			}
		}
		if err != nil {
			if whole {
				d.violate("outside the range of a %d-bit integer", bits)
			} else {
				d.violate("expected %s", p.kind)
			}
			return false
		}
		v.SetInt(n)
	default:
		bits := 64
		if p.kind == Float {
			bits = 32
		}
		f, err := strconv.ParseFloat(s, bits)
		if err != nil {
			d.violate("outside the range of a %d-bit number", bits)
			return false
		}
		v.SetFloat(f)
	}
	return true
}

// timestamp reads an instant: a number of epoch seconds, or a string in ISO
// 8601 or HTTP form, whichever format the model names; clients mix them. good
// says that there is one, read that the syntax held.
func (d *reader) timestamp(p *plan) (t time.Time, good, read bool) {
	switch b := d.peek(); {
	case b == '"':
		s, ok := d.text()
		if !ok {
			return t, false, false
		}
		t, err := parseTime(s)
		if err != nil {
			d.violate("expected %s", p.kind)
			return t, false, true
		}
		return t, true, true
	case b == '-' || b >= '0' && b <= '9':
		s, _, ok := d.scanner.number()
		if !ok {
			return t, false, false
		}
		t, err := parseEpoch(s)
		if err != nil {
			d.violate("outside the range of a timestamp")
			return t, false, true
		}
		return t, true, true
	}
	return t, false, d.wrong(p)
}

// one reads a bare value where the member tolerates it for a list of one.
func (d *reader) one(p *plan, v reflect.Value) bool {
	l := reflect.MakeSlice(p.rt, 1, 1)
	if !d.value(p.elem, nil, l.Index(0)) {
		return false
	}
	v.Set(l)
	return true
}

func (d *reader) structure(p *plan, v reflect.Value) bool {
	if d.structures++; d.structures > structuresMax {
		d.err = &syntaxError{d.pos, fmt.Sprintf("more than %d objects", structuresMax)}
		return false
	}
	if !d.enter() {
		return false
	}
	var seen [membersMax / 64]uint64
	for first := true; d.more(first, '}'); first = false {
		k, ok := d.key()
		if !ok {
			return false
		}
		i, known := p.schema.byName[k]
		if !known || p.fields[i].m.In != InBody {
			if !d.skip() {
				return false
			}
			continue
		}
		f := &p.fields[i]
		fv := v.Field(f.index)
		word, bit := i/64, uint64(1)<<(i%64)
		if seen[word]&bit != 0 {
			fv.SetZero() // the last of equal keys counts
			seen[word] &^= bit
		}
		if d.null() {
			continue
		}
		seen[word] |= bit
		if f.bare && d.peek() == '"' {
			s, ok := d.text()
			if !ok {
				return false
			}
			if f.ptr {
				*fv.Addr().Interface().(**string) = d.box(s)
			} else {
				*fv.Addr().Interface().(*string) = s
			}
			continue
		}
		d.push(step{name: f.name})
		if f.ptr {
			nv := reflect.New(f.rt)
			ok = d.value(f.plan, f.m, nv.Elem())
			fv.Set(nv)
		} else {
			ok = d.value(f.plan, f.m, fv)
		}
		d.pop()
		if !ok {
			return false
		}
	}
	if d.err != nil {
		return false
	}
	for _, i := range p.body {
		if f := &p.fields[i]; f.m.Required && !f.m.Open && seen[i/64]&(1<<(i%64)) == 0 {
			d.missing(f.name)
		}
	}
	return true
}

// box returns a pointer to a string. The strings of a small request are
// allocated together, as their text is.
func (d *reader) box(s string) *string {
	if len(d.boxes) == 0 {
		n := 1
		if d.share {
			n = 8
		}
		d.boxes = make([]string, n)
	}
	b := &d.boxes[0]
	d.boxes = d.boxes[1:]
	*b = s
	return b
}

func (d *reader) list(p *plan, m *Member, v reflect.Value) bool {
	if p.direct == directStrings {
		l, ok := d.strings()
		if ok {
			*v.Addr().Interface().(*[]string) = l
		}
		return ok
	}
	if !d.enter() {
		return false
	}
	v.Set(reflect.MakeSlice(p.rt, 0, 0))
	em := elementOf(m)
	n := 0
	for i, first := 0, true; d.more(first, ']'); i, first = i+1, false {
		if d.null() {
			continue
		}
		if n == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(n + 1)
		d.push(step{index: i})
		ok := d.value(p.elem, em, v.Index(n))
		d.pop()
		if !ok {
			return false
		}
		n++
	}
	return d.err == nil
}

// elementOf returns the marks of a member that hold for its elements too: all
// but its bounds.
func elementOf(m *Member) *Member {
	if m == nil || m.Rules == nil {
		return m
	}
	e := *m
	e.Rules = nil
	return &e
}

// strings reads an array of strings, the commonest list.
func (d *reader) strings() ([]string, bool) {
	if !d.enter() {
		return nil, false
	}
	l := d.scratch[:0]
	for i, first := 0, true; d.more(first, ']'); i, first = i+1, false {
		switch {
		case d.peek() == '"':
			s, ok := d.text()
			if !ok {
				return nil, false
			}
			l = append(l, s)
		case d.null():
		default:
			if !d.skip() {
				return nil, false
			}
			d.push(step{index: i})
			d.violate("expected %s", String)
			d.pop()
		}
	}
	out := make([]string, len(l))
	copy(out, l)
	clear(l)
	if cap(l) <= scratchMax {
		d.scratch = l
	}
	return out, d.err == nil
}

func (d *reader) mapping(p *plan, m *Member, v reflect.Value) bool {
	if !d.enter() {
		return false
	}
	quiet := d.quiet > 0 || p.schema.key.Sensitive
	switch p.direct {
	case directStringsMap:
		out := map[string][]string{}
		ok := d.entries(quiet, p, func(k string) bool {
			var l []string
			var ok bool
			switch {
			case d.peek() == '[':
				l, ok = d.strings()
			case m != nil && m.OneAsAll && d.peek() == '"':
				var s string
				s, ok = d.text()
				l = []string{s}
			default:
				return d.wrong(p.elem)
			}
			out[k] = l
			return ok
		}, func(k string) { delete(out, k) })
		*v.Addr().Interface().(*map[string][]string) = out
		return ok
	case directStringMap:
		out := map[string]string{}
		ok := d.entries(quiet, p, func(k string) bool {
			if d.peek() != '"' {
				return d.wrong(p.elem)
			}
			s, ok := d.text()
			out[k] = s
			return ok
		}, func(k string) { delete(out, k) })
		*v.Addr().Interface().(*map[string]string) = out
		return ok
	case directFloatMap:
		out := map[string]float64{}
		ok := d.entries(quiet, p, func(k string) bool {
			if b := d.peek(); b != '-' && (b < '0' || b > '9') {
				return d.wrong(p.elem)
			}
			s, _, ok := d.scanner.number()
			if !ok {
				return false
			}
			f, err := strconv.ParseFloat(s, 64)
			if err != nil {
				d.violate("outside the range of a 64-bit number")
				return true
			}
			out[k] = f
			return true
		}, func(k string) { delete(out, k) })
		*v.Addr().Interface().(*map[string]float64) = out
		return ok
	}
	out := reflect.MakeMap(p.rt)
	elem := reflect.New(p.elem.rt).Elem()
	em := elementOf(m)
	ok := d.entries(quiet, p, func(k string) bool {
		elem.SetZero()
		if !d.value(p.elem, em, elem) {
			return false
		}
		out.SetMapIndex(reflect.ValueOf(k), elem)
		return true
	}, func(k string) { out.SetMapIndex(reflect.ValueOf(k), reflect.Value{}) })
	v.Set(out)
	return ok
}

// entries walks over a map's entries: each reads a value, drop forgets a key
// whose value is null.
func (d *reader) entries(quiet bool, p *plan, each func(string) bool, drop func(string)) bool {
	key := p.schema.key
	for first := true; d.more(first, '}'); first = false {
		k, ok := d.key()
		if !ok {
			return false
		}
		if d.null() {
			drop(k)
			continue
		}
		if !d.share {
			k = strings.Clone(k)
		}
		d.push(step{name: k, key: true, quiet: quiet})
		if key.Type == Enum {
			d.enum(key, nil, k)
		}
		if key.Rules != nil {
			d.bounds(key.Rules, String, reflect.ValueOf(k))
		}
		ok = each(k)
		d.pop()
		if !ok {
			return false
		}
	}
	return d.err == nil
}

// parseTime reads an instant in ISO 8601 or as an HTTP date.
func parseTime(s string) (time.Time, error) {
	if t, err := aws.ParseTimestamp(s); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.RFC1123, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, aws.Invalid("not a timestamp")
}

// epochMax is the last second of the year 9999.
const epochMax = 253402300799

// parseEpoch reads seconds since 1970, to the millisecond.
func parseEpoch(s string) (time.Time, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > epochMax {
		return time.Time{}, aws.Invalid("not a timestamp")
	}
	return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
}
