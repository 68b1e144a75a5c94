package templates

import (
	"slices"
	"strings"
)

// A helper is a function of the template language.
type helper struct {
	name     string
	min, max int      // positional arguments
	hash     []string // the options it knows
	test     bool     // it answers a condition, and so may open a block

	// wordsFrom is the first argument, if not 0, that may be a word without
	// quotes: inflect 3 apple apples.
	wordsFrom int

	// inline computes the value. If quiet, nothing is to be listed as missing or
	// unusable, because a condition is asking. An argument without value makes
	// the result null.
	inline func(r *run, c *call, quiet bool) Value

	// check refuses at compile time what can never work; "" if all is well.
	check func(c *call) string
}

// helpers are all helpers by name.
var helpers = func() map[string]*helper {
	byName := map[string]*helper{}
	for _, h := range slices.Concat(logicHelpers, textHelpers, dateHelpers, numberHelpers, digestHelpers) {
		byName[h.name] = &h
	}
	return byName
}()

// HelperNames lists the helpers in order, for documentation and consoles.
func HelperNames() []string {
	names := []string{"each", "with"}
	for name := range helpers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// textOf returns argument i as text; ok is false if it has no value.
func (r *run) textOf(c *call, i int, quiet bool) (s string, ok bool) {
	return r.asText(&c.args[i], quiet)
}

func (r *run) asText(x *expr, quiet bool) (string, bool) {
	v := r.eval(x, quiet)
	switch v.kind {
	case KindNull:
		return "", false
	case KindMap:
		r.refuse(x.source, "is a map where a text is needed", quiet)
		return "", false
	case KindList:
		if v.more != nil || len(v.strings) != 1 {
			return string(v.append(nil, listDepthMax, outputBytesMax)), true
		}
	}
	s := v.Text()
	return s, r.charge(len(s))
}

// wordOf is textOf for an argument that may be a word without quotes: a name
// without value is then itself the text.
func (r *run) wordOf(x *expr, quiet bool) (string, bool) {
	if x.bareWord() {
		if s, ok := r.asText(x, true); ok {
			return s, true
		}
		return x.source, true
	}
	return r.asText(x, quiet)
}

// optionText returns an option as text, or fallback if it is not given. ok is
// false if it is given and has no value.
func (r *run) optionText(c *call, n int, fallback string, quiet bool) (s string, ok bool) {
	if c.hash[n] == nil {
		return fallback, true
	}
	return r.asText(c.hash[n], quiet)
}

// countOf reads x as a whole number from 0 to the output's bound.
func (r *run) countOf(x *expr, quiet bool) (int, bool) {
	s, ok := r.asText(x, quiet)
	if !ok {
		return 0, false
	}
	n, ok := indexOf(strings.TrimSpace(s))
	if !ok || n > outputBytesMax {
		r.refuse(x.source, "is not a whole number that can be a length or position", quiet)
		return 0, false
	}
	return n, true
}

// checkCount refuses a literal that is no length or position.
func checkCount(x *expr) string {
	if x == nil || x.kind != exprLiteral {
		return ""
	}
	n, ok := indexOf(strings.TrimSpace(x.value.Text()))
	if !ok || n > outputBytesMax {
		return quote(x.source) + " is not a whole number that can be a length or position"
	}
	return ""
}

// result wraps s as a value if it is within bounds, and charges for it.
func (r *run) result(s string) Value {
	if len(s) > outputBytesMax {
		if r.err == nil {
			r.err = ErrOutputTooLong
		}
		return Value{}
	}
	if !r.charge(len(s)) {
		return Value{}
	}
	return String(s)
}
