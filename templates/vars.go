package templates

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// Vars answers what a name stands for. Implementations must be safe for the
// goroutine that executes, must not keep or change path, and should not allocate.
type Vars interface {
	// Lookup returns the value at path: {"User", "UserAttributes", "Last Name"}.
	// Where a template ends a path with an index, x.[0], the engine asks for x
	// and indexes the answer itself; only if there is no x does it ask for
	// {"x", "0"}. ok is false if the name has no value.
	Lookup(path []string) (v Value, ok bool)
}

// MapVars is a map of named values; nested maps are [Map] values.
type MapVars map[string]Value

// Lookup walks path through nested maps and lists.
func (m MapVars) Lookup(path []string) (Value, bool) {
	if len(path) == 0 {
		return Value{}, false
	}
	v, ok := m[path[0]]
	for i := 1; ok && i < len(path); i++ {
		switch v.kind {
		case KindMap:
			if nested, isMap := v.more.fields.(MapVars); isMap {
				v, ok = nested[path[i]]
				continue
			}
			return v.more.fields.Lookup(path[i:])
		case KindList:
			n, isIndex := indexOf(path[i])
			if !isIndex || n >= v.Len() {
				return Value{}, false
			}
			v = v.At(n)
		default:
			return Value{}, false
		}
	}
	return v, ok
}

// Names lists the names in order.
func (m MapVars) Names() []string { return slices.Sorted(maps.Keys(m)) }

// Substitutions are the values a message carries: a name, as it would be
// written in a template without brackets, and its values.
// Source: engagement 9.3.
type Substitutions map[string][]string

// substitutionNameMax bounds the dotted name, in bytes, that is looked up.
const substitutionNameMax = 256

// Lookup finds path's segments joined by dots.
func (s Substitutions) Lookup(path []string) (Value, bool) {
	if len(s) == 0 || len(path) == 0 {
		return Value{}, false
	}
	if len(path) == 1 {
		v, ok := s[path[0]]
		return Strings(v), ok
	}
	var space [substitutionNameMax]byte
	name := space[:0]
	for i, segment := range path {
		if len(name)+1+len(segment) > substitutionNameMax {
			return Value{}, false
		}
		if i > 0 {
			name = append(name, '.')
		}
		name = append(name, segment...)
	}
	v, ok := s[string(name)]
	return Strings(v), ok
}

// Layers asks each Vars in turn; the first that knows the name answers. It
// carries the precedence of engagement 9.3: address, message, default message,
// and then the endpoint.
type Layers []Vars

// Lookup asks the layers in order.
func (l Layers) Lookup(path []string) (Value, bool) {
	for _, vars := range l {
		if v, ok := vars.Lookup(path); ok {
			return v, true
		}
	}
	return Value{}, false
}

// valueDepthMax bounds nesting in ValueOf.
const valueDepthMax = 32

// ValueOf converts what encoding/json decodes into: strings, numbers, bools,
// slices and maps of them, and []string. Anything else, and what lies deeper
// than 32 levels, is null.
func ValueOf(x any) Value { return valueOf(x, valueDepthMax) }

func valueOf(x any, depth int) Value {
	if depth == 0 {
		return Value{}
	}
	switch x := x.(type) {
	case Value:
		return x
	case string:
		return String(x)
	case bool:
		return Bool(x)
	case float64:
		return Number(x)
	case int:
		return Number(float64(x))
	case json.Number:
		f, err := x.Float64()
		if err != nil {
			return Value{}
		}
		return Number(f)
	case []string:
		return Strings(x)
	case []any:
		list := make([]Value, len(x))
		for i := range x {
			list[i] = valueOf(x[i], depth-1)
		}
		return List(list)
	case map[string]any:
		fields := make(MapVars, len(x))
		for name, entry := range x {
			fields[name] = valueOf(entry, depth-1)
		}
		return Map(fields)
	}
	return Value{}
}

// indexOf reads a path segment of digits.
func indexOf(segment string) (int, bool) {
	if segment == "" || len(segment) > 9 {
		return 0, false
	}
	for i := range len(segment) {
		if segment[i] < '0' || segment[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(segment)
	return n, err == nil
}
