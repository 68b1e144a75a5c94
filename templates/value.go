package templates

import (
	"math"
	"strconv"
)

// Kind says what a [Value] is.
type Kind uint8

// The kinds. A null and a value that is not there are the same thing.
const (
	KindNull Kind = iota
	KindString
	KindNumber
	KindBool
	KindList
	KindMap
)

// A Value is what a name stands for while a template is executed. The zero
// Value is null. Values are immutable; lists and maps are shared, not copied.
type Value struct {
	kind    Kind
	number  float64  // the number; 1 or 0 for a bool
	text    string   // the string; for a number the digits as written, or ""
	strings []string // a list of strings
	more    *composite
}

// composite holds the rarer kinds, so that a Value stays small.
type composite struct {
	list   []Value
	fields Fields
}

// Fields is a map value: names, and what they stand for.
type Fields interface {
	Vars

	// Names lists the entries in the order #each visits them.
	Names() []string
}

// String returns a text value.
func String(s string) Value { return Value{kind: KindString, text: s} }

// Number returns a number; one that is not finite is null.
func Number(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{kind: KindNumber, number: f}
}

// Bool returns true or false.
func Bool(b bool) Value {
	if b {
		return Value{kind: KindBool, number: 1}
	}
	return Value{kind: KindBool}
}

// Strings returns a list of texts, as endpoint attributes are. It keeps s.
func Strings(s []string) Value { return Value{kind: KindList, strings: s} }

// List returns a list of values of any kind. It keeps v.
func List(v []Value) Value { return Value{kind: KindList, more: &composite{list: v}} }

// Map returns a map value.
func Map(f Fields) Value { return Value{kind: KindMap, more: &composite{fields: f}} }

// Kind returns what v is.
func (v Value) Kind() Kind { return v.kind }

// Len returns the number of items of a list and 0 for anything else.
func (v Value) Len() int {
	if v.more != nil {
		return len(v.more.list)
	}
	return len(v.strings)
}

// At returns item i of a list; null if there is none. A text, number or bool
// answers for item 0, as a list of one would.
func (v Value) At(i int) Value {
	switch v.kind {
	case KindList:
		if i < 0 || i >= v.Len() {
			return Value{}
		}
		if v.more != nil {
			return v.more.list[i]
		}
		return String(v.strings[i])
	case KindString, KindNumber, KindBool:
		if i == 0 {
			return v
		}
	}
	return Value{}
}

// absent reports that v stands for nothing: null, or a list without items.
func (v Value) absent() bool {
	return v.kind == KindNull || v.kind == KindList && v.Len() == 0
}

// Truth reports whether a condition over v holds; see the package comment.
func (v Value) Truth() bool {
	switch v.kind {
	case KindString:
		return v.text != "" && v.text != "false"
	case KindNumber, KindBool:
		return v.number != 0
	case KindList:
		switch v.Len() {
		case 0:
			return false
		case 1:
			// One level only: a list of one list has an item, whatever is in it.
			if item := v.At(0); item.kind != KindList {
				return item.Truth()
			}
		}
		return true
	case KindMap:
		return len(v.more.fields.Names()) > 0
	}
	return false
}

// listSeparator stands between the values of a bare list. Source: engagement 13.11.
const listSeparator = ", "

// listDepthMax bounds how deep lists within lists are rendered.
const listDepthMax = 8

// Text returns v as it renders unescaped. A map renders as nothing.
func (v Value) Text() string {
	switch v.kind {
	case KindString:
		return v.text
	case KindBool:
		if v.number != 0 {
			return "true"
		}
		return "false"
	case KindNumber:
		if v.text != "" {
			return v.text
		}
	case KindList:
		if v.Len() == 1 && v.more == nil {
			return v.strings[0]
		}
	}
	return string(v.append(nil, listDepthMax, math.MaxInt))
}

// append adds v's text to dst, and stops soon after dst has grown past max.
func (v Value) append(dst []byte, depth, bytesMax int) []byte {
	switch v.kind {
	case KindString:
		return append(dst, v.text...)
	case KindNumber:
		if v.text != "" {
			return append(dst, v.text...)
		}
		return strconv.AppendFloat(dst, v.number, 'f', -1, 64)
	case KindBool:
		return strconv.AppendBool(dst, v.number != 0)
	case KindList:
		if depth == 0 {
			return dst
		}
		for i := range v.Len() {
			if len(dst) > bytesMax {
				return dst
			}
			if i > 0 {
				dst = append(dst, listSeparator...)
			}
			dst = v.At(i).append(dst, depth-1, bytesMax)
		}
	}
	return dst
}
