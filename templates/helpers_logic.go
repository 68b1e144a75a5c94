package templates

import (
	"strings"
)

// The conditional helpers. Inline they give their option yes or no, or else true
// or false; as blocks they choose a body. Source: engagement 5.4.
var logicHelpers = []helper{
	test("if", 1, 1, func(r *run, c *call) bool { return r.eval(&c.args[0], true).Truth() }),
	test("unless", 1, 1, func(r *run, c *call) bool { return !r.eval(&c.args[0], true).Truth() }),
	test("not", 1, 1, func(r *run, c *call) bool { return !r.eval(&c.args[0], true).Truth() }),
	test("and", 2, argumentsMax, func(r *run, c *call) bool {
		for i := range c.args {
			if !r.eval(&c.args[i], true).Truth() {
				return false
			}
		}
		return true
	}),
	test("or", 2, argumentsMax, func(r *run, c *call) bool {
		for i := range c.args {
			if r.eval(&c.args[i], true).Truth() {
				return true
			}
		}
		return false
	}),
	comparison("eq", func(order int) bool { return order == 0 }),
	test("neq", 2, 2, func(r *run, c *call) bool {
		order, ok := r.compare(c)
		return !ok || order != 0
	}),
	comparison("gt", func(order int) bool { return order > 0 }),
	comparison("gte", func(order int) bool { return order >= 0 }),
	comparison("lt", func(order int) bool { return order < 0 }),
	comparison("lte", func(order int) bool { return order <= 0 }),
	{name: "yesno", min: 1, max: 1, hash: []string{"yes", "no", "maybe"}, inline: yesno},
}

func test(name string, least, most int, holds func(r *run, c *call) bool) helper {
	return helper{
		name: name, min: least, max: most, hash: []string{"yes", "no"}, test: true,
		inline: func(r *run, c *call, quiet bool) Value {
			answer := holds(r, c)
			chosen := c.hash[1]
			if answer {
				chosen = c.hash[0]
			}
			if chosen == nil {
				return Bool(answer)
			}
			return r.eval(chosen, quiet)
		},
	}
}

func comparison(name string, holds func(order int) bool) helper {
	return test(name, 2, 2, func(r *run, c *call) bool {
		order, ok := r.compare(c)
		return ok && holds(order)
	})
}

// compare orders the two arguments; ok is false if one has no value.
func (r *run) compare(c *call) (order int, ok bool) {
	a, ok := r.textOf(c, 0, true)
	if !ok {
		return 0, false
	}
	b, ok := r.textOf(c, 1, true)
	if !ok {
		return 0, false
	}
	if order, ok := compareDecimals(a, b); ok {
		return order, true
	}
	return strings.Compare(a, b), true
}

// compareDecimals orders two decimals exactly, however long; ok is false if one
// of them is not a decimal: [+-]digits[.digits], spaces around allowed.
func compareDecimals(a, b string) (order int, ok bool) {
	x, ok := splitDecimal(a)
	if !ok {
		return 0, false
	}
	y, ok := splitDecimal(b)
	switch {
	case !ok:
		return 0, false
	case x.negative && !y.negative:
		return -1, true
	case !x.negative && y.negative:
		return 1, true
	case x.negative:
		x, y = y, x
	}
	if len(x.whole) != len(y.whole) {
		if len(x.whole) < len(y.whole) {
			return -1, true
		}
		return 1, true
	}
	if order = strings.Compare(x.whole, y.whole); order != 0 {
		return order, true
	}
	return strings.Compare(x.fraction, y.fraction), true
}

// decimal is a number without zeros that do not count, and never minus zero.
type decimal struct {
	negative        bool
	whole, fraction string
}

func splitDecimal(s string) (d decimal, ok bool) {
	s = strings.TrimSpace(s)
	if s == "" {
		return d, false
	}
	if s[0] == '-' || s[0] == '+' {
		d.negative = s[0] == '-'
		s = s[1:]
	}
	n := digits(s)
	d.whole = s[:n]
	if n < len(s) {
		if s[n] != '.' {
			return d, false
		}
		d.fraction = s[n+1:]
		if digits(d.fraction) != len(d.fraction) {
			return d, false
		}
	}
	if d.whole == "" && d.fraction == "" {
		return d, false
	}
	d.whole = strings.TrimLeft(d.whole, "0")
	d.fraction = strings.TrimRight(d.fraction, "0")
	if d.whole == "" && d.fraction == "" {
		d.negative = false
	}
	return d, true
}

// yesno gives yes for true, no for false, and maybe for a name without value.
func yesno(r *run, c *call, quiet bool) Value {
	v := r.eval(&c.args[0], true)
	n, word := 1, "no"
	switch {
	case v.absent():
		n, word = 2, "maybe"
	case v.Truth():
		n, word = 0, "yes"
	}
	if c.hash[n] == nil {
		return String(word)
	}
	return r.eval(c.hash[n], quiet)
}
