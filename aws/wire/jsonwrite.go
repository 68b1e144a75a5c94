package wire

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// writer encodes a planned type as JSON.
type writer struct {
	b []byte
	// redact writes "***" for what the model marks as sensitive.
	redact bool
}

// MarshalJSON writes v, or what v points to, by its schema: in the form it has
// on the wire. Equal values give equal bytes.
func MarshalJSON(s *Schema, v any) ([]byte, error) { return marshal(s, v, false) }

// Redacted is MarshalJSON with "***" in place of whatever the model marks as
// sensitive: addresses, secrets, codes. It is meant for records and logs. It
// writes all members, those of path and query among them.
func Redacted(s *Schema, v any) ([]byte, error) { return marshal(s, v, true) }

func marshal(s *Schema, v any, redact bool) ([]byte, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer {
		if rv.IsNil() {
			return []byte("null"), nil
		}
		rv = rv.Elem()
	}
	w := writer{b: make([]byte, 0, 512), redact: redact}
	p := planFor(rv.Type(), s)
	var err error
	if redact && p.kind == Structure {
		err = w.structure(p, rv, true)
	} else {
		err = w.value(p, rv, false)
	}
	if err != nil {
		return nil, err
	}
	return w.b, nil
}

func (w *writer) value(p *plan, v reflect.Value, quiet bool) error {
	quiet = w.redact && (quiet || p.schema.Sensitive)
	if quiet {
		w.b = append(w.b, `"***"`...)
		return nil
	}
	switch p.kind {
	case Structure:
		return w.structure(p, v, false)
	case List:
		w.b = append(w.b, '[')
		for i := range v.Len() {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			if err := w.value(p.elem, v.Index(i), false); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
		w.b = append(w.b, ']')
	case Map:
		return w.mapping(p, v)
	case String, Enum:
		w.b = AppendString(w.b, v.String())
	case Boolean:
		w.b = strconv.AppendBool(w.b, v.Bool())
	case Integer, Long:
		w.b = strconv.AppendInt(w.b, v.Int(), 10)
	case Float, Double:
		bits := 64
		if p.kind == Float {
			bits = 32
		}
		b, err := appendFloat(w.b, v.Float(), bits)
		if err != nil {
			return err
		}
		w.b = b
	case Timestamp:
		w.b = appendTime(w.b, v.Interface().(time.Time), p.schema.Format)
	case Blob:
		w.b = append(w.b, '"')
		w.b = base64.StdEncoding.AppendEncode(w.b, v.Bytes())
		w.b = append(w.b, '"')
	}
	return nil
}

// structure writes an object; of a structure that is an operation's input or
// output only the members of the body, unless all are asked for.
func (w *writer) structure(p *plan, v reflect.Value, all bool) error {
	w.b = append(w.b, '{')
	first := true
	for i := range p.fields {
		f := &p.fields[i]
		if f.m.In != InBody && !all {
			continue
		}
		fv := v.Field(f.index)
		if f.ptr {
			if fv.IsNil() {
				if f.kind != Structure || !f.m.Required {
					continue
				}
				w.name(f, &first)
				w.b = append(w.b, "{}"...)
				continue
			}
			fv = fv.Elem()
		} else if f.elide && f.isZero(fv) {
			continue
		}
		w.name(f, &first)
		if err := w.value(f.plan, fv, f.m.Sensitive); err != nil {
			return fmt.Errorf("%s.%w", f.name, err)
		}
	}
	w.b = append(w.b, '}')
	return nil
}

// isZero reports absence of a plain, optional member: nil, or an empty scalar.
// A list or map that is empty but not nil is present.
func (f *field) isZero(v reflect.Value) bool {
	switch f.kind {
	case List, Map, Blob:
		return v.IsNil()
	}
	return v.IsZero()
}

func (w *writer) name(f *field, first *bool) {
	if !*first {
		w.b = append(w.b, ',')
	}
	*first = false
	w.b = append(w.b, '"')
	w.b = append(w.b, f.name...)
	w.b = append(w.b, '"', ':')
}

func (w *writer) mapping(p *plan, v reflect.Value) error {
	w.b = append(w.b, '{')
	switch p.direct {
	case directStringMap:
		m := v.Interface().(map[string]string)
		for i, k := range sortedKeys(m) {
			w.key(i, k)
			w.b = AppendString(w.b, m[k])
		}
	case directStringsMap:
		m := v.Interface().(map[string][]string)
		for i, k := range sortedKeys(m) {
			w.key(i, k)
			w.b = append(w.b, '[')
			for j, s := range m[k] {
				if j > 0 {
					w.b = append(w.b, ',')
				}
				w.b = AppendString(w.b, s)
			}
			w.b = append(w.b, ']')
		}
	case directFloatMap:
		m := v.Interface().(map[string]float64)
		for i, k := range sortedKeys(m) {
			w.key(i, k)
			b, err := appendFloat(w.b, m[k], 64)
			if err != nil {
				return fmt.Errorf("an entry: %w", err)
			}
			w.b = b
		}
	default:
		keys := make([]string, 0, v.Len())
		for it := v.MapRange(); it.Next(); {
			keys = append(keys, it.Key().String())
		}
		slices.Sort(keys)
		for i, k := range keys {
			w.key(i, k)
			if err := w.value(p.elem, v.MapIndex(reflect.ValueOf(k)), false); err != nil {
				return fmt.Errorf("an entry: %w", err)
			}
		}
	}
	w.b = append(w.b, '}')
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (w *writer) key(i int, k string) {
	if i > 0 {
		w.b = append(w.b, ',')
	}
	w.b = AppendString(w.b, k)
	w.b = append(w.b, ':')
}

const hexDigits = "0123456789abcdef"

// AppendString writes a JSON string. Invalid UTF-8 becomes U+FFFD.
func AppendString[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
			b = append(b, s[start:i]...)
			b = append(b, "\ufffd"...)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendFloat writes a number as other JSON writers do: plain digits, with an
// exponent only where it is very large or very small.
func appendFloat(b []byte, f float64, bits int) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v is not a JSON number", f)
	}
	form := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, f, form, -1, bits), nil
}

// appendTime writes an instant in a JSON body: epoch seconds with as much of
// the milliseconds as there is, unless the shape says otherwise.
func appendTime(b []byte, t time.Time, f TimeFormat) []byte {
	switch f {
	case FormatDateTime:
		return append(append(append(b, '"'), aws.Timestamp(t)...), '"')
	case FormatHTTPDate:
		return append(append(append(b, '"'), httpDate(t)...), '"')
	}
	ms := t.UnixMilli()
	if ms%1000 == 0 {
		return strconv.AppendInt(b, ms/1000, 10)
	}
	return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
}

func httpDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }
