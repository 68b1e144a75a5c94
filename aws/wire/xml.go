package wire

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"unicode/utf8"
)

// xmlWriter encodes a planned type as awsQuery's XML: lists wrap their elements
// in <member>, maps in <entry><key/><value/></entry>.
type xmlWriter struct{ b []byte }

func (w *xmlWriter) open(name string)  { w.b = append(append(append(w.b, '<'), name...), '>') }
func (w *xmlWriter) close(name string) { w.b = append(append(append(w.b, "</"...), name...), '>') }

// leaf writes an element that holds text only.
func (w *xmlWriter) leaf(name, text string) {
	w.open(name)
	w.text(text)
	w.close(name)
}

// text escapes what XML reserves; what XML 1.0 cannot hold becomes U+FFFD.
func (w *xmlWriter) text(s string) {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '&':
			w.b = append(w.b, "&amp;"...)
		case r == '<':
			w.b = append(w.b, "&lt;"...)
		case r == '>':
			w.b = append(w.b, "&gt;"...)
		case r == '"':
			w.b = append(w.b, "&quot;"...)
		case r == '\r':
			w.b = append(w.b, "&#xD;"...)
		case r < 0x20 && r != '\t' && r != '\n', r == 0xfffe, r == 0xffff, r == utf8.RuneError:
			w.b = append(w.b, "\ufffd"...)
		default:
			w.b = append(w.b, s[i:i+n]...)
		}
		i += n
	}
}

func (w *xmlWriter) members(p *plan, v reflect.Value) error {
	for i := range p.fields {
		f := &p.fields[i]
		fv := v.Field(f.index)
		if f.ptr {
			if fv.IsNil() {
				continue
			}
			fv = fv.Elem()
		} else if f.elide && f.isZero(fv) {
			continue
		}
		if err := w.value(f.name, f.plan, fv); err != nil {
			return fmt.Errorf("%s.%w", f.name, err)
		}
	}
	return nil
}

func (w *xmlWriter) value(name string, p *plan, v reflect.Value) error {
	w.open(name)
	switch p.kind {
	case Structure:
		if err := w.members(p, v); err != nil {
			return err
		}
	case List:
		for i := range v.Len() {
			if err := w.value("member", p.elem, v.Index(i)); err != nil {
				return err
			}
		}
	case Map:
		byKey := make(map[string]reflect.Value, v.Len())
		for it := v.MapRange(); it.Next(); {
			byKey[it.Key().String()] = it.Value()
		}
		for _, k := range slices.Sorted(maps.Keys(byKey)) {
			w.open("entry")
			w.leaf("key", k)
			if err := w.value("value", p.elem, byKey[k]); err != nil {
				return err
			}
			w.close("entry")
		}
	default:
		s, err := formatScalar(p, v)
		if err != nil {
			return err
		}
		w.text(s)
	}
	w.close(name)
	return nil
}
