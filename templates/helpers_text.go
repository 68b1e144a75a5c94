package templates

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The text helpers. Lengths and positions count characters, not bytes.
// Source: engagement 5.4.
var textHelpers = []helper{
	{name: "abbreviate", min: 2, max: 2, inline: abbreviate, check: countAt(1)},
	{name: "capitalize", min: 1, max: 1, inline: mapped(capitalize)},
	{name: "capitalizeFirst", min: 1, max: 1, inline: mapped(capitalizeFirst)},
	{name: "center", min: 1, max: 3, hash: padOptions, inline: padded(center), check: checkPad},
	{name: "cut", min: 1, max: 2, inline: cut},
	{name: "inflect", min: 3, max: 3, hash: []string{"includeCount"}, wordsFrom: 1, inline: inflect},
	{name: "join", min: 2, max: argumentsMax, hash: []string{"prefix", "suffix"}, inline: join},
	{name: "ljust", min: 1, max: 3, hash: padOptions, inline: padded(ljust), check: checkPad},
	{name: "lower", min: 1, max: 1, inline: mapped(strings.ToLower)},
	{name: "replace", min: 3, max: 3, inline: replace},
	{name: "rjust", min: 1, max: 3, hash: padOptions, inline: padded(rjust), check: checkPad},
	{name: "slugify", min: 1, max: 1, inline: mapped(slugify)},
	{name: "stripTags", min: 1, max: 1, inline: mapped(stripTags)},
	{name: "substring", min: 2, max: 3, inline: substring, check: countAt(1, 2)},
	{name: "upper", min: 1, max: 1, inline: mapped(strings.ToUpper)},
}

// mapped makes a helper of a function of one text.
func mapped(f func(string) string) func(*run, *call, bool) Value {
	return func(r *run, c *call, quiet bool) Value {
		s, ok := r.textOf(c, 0, quiet)
		if !ok {
			return Value{}
		}
		return r.result(f(s))
	}
}

// countAt checks that the arguments at these places, if literal, are counts.
func countAt(places ...int) func(*call) string {
	return func(c *call) string {
		for _, i := range places {
			if i < len(c.args) {
				if message := checkCount(&c.args[i]); message != "" {
					return message
				}
			}
		}
		return ""
	}
}

const ellipsis = "..."

// abbreviate cuts to n characters, the ellipsis among them: 6 gives "Ale...".
// Where there is no room for an ellipsis and a character, it only cuts.
func abbreviate(r *run, c *call, quiet bool) Value {
	s, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	n, ok := r.countOf(&c.args[1], quiet)
	switch {
	case !ok:
		return Value{}
	case chars(s) <= n:
		return String(s)
	case n <= len(ellipsis):
		return r.result(s[:byteAt(s, n)])
	}
	return r.result(s[:byteAt(s, n-len(ellipsis))] + ellipsis)
}

// byteAt returns where character n of s begins, or len(s).
func byteAt(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// capitalize puts the first letter of each word between white space in upper case.
func capitalize(s string) string {
	start := true
	return strings.Map(func(c rune) rune {
		first := start
		start = unicode.IsSpace(c)
		if first {
			return unicode.ToTitle(c)
		}
		return c
	}, s)
}

func capitalizeFirst(s string) string {
	c, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToTitle(c)) + s[n:]
}

// padOptions are the options of center, ljust and rjust, which also take size
// and pad as arguments.
var padOptions = []string{"size", "pad"}

func padArguments(c *call) (size, pad *expr) {
	size, pad = c.hash[0], c.hash[1]
	rest := c.args[1:]
	if size == nil && len(rest) > 0 {
		size, rest = &rest[0], rest[1:]
	}
	if pad == nil && len(rest) > 0 {
		pad = &rest[0]
	}
	return size, pad
}

func checkPad(c *call) string {
	size, _ := padArguments(c)
	if size == nil {
		return "the size is missing"
	}
	return checkCount(size)
}

// padded makes a helper that brings its argument to a width; f is given the text,
// the characters that are missing, and the padding.
func padded(f func(s string, missing int, pad string) string) func(*run, *call, bool) Value {
	return func(r *run, c *call, quiet bool) Value {
		s, ok := r.textOf(c, 0, quiet)
		if !ok {
			return Value{}
		}
		sizeOption, padOption := padArguments(c)
		size, ok := r.countOf(sizeOption, quiet)
		if !ok {
			return Value{}
		}
		pad := " "
		if padOption != nil {
			if pad, ok = r.asText(padOption, quiet); !ok {
				return Value{}
			}
			if pad == "" {
				pad = " "
			}
		}
		missing := size - chars(s)
		if missing <= 0 {
			return String(s)
		}
		if missing*utf8.UTFMax > outputBytesMax {
			r.err = ErrOutputTooLong
			return Value{}
		}
		return r.result(f(s, missing, pad))
	}
}

// center pads both sides; the odd character goes to the right.
func center(s string, missing int, pad string) string {
	return fill(pad, missing/2) + s + fill(pad, missing-missing/2)
}

func ljust(s string, missing int, pad string) string { return s + fill(pad, missing) }
func rjust(s string, missing int, pad string) string { return fill(pad, missing) + s }

// fill repeats pad to exactly n characters.
func fill(pad string, n int) string {
	width := chars(pad)
	if width > n {
		return pad[:byteAt(pad, n)]
	}
	return strings.Repeat(pad, n/width) + pad[:byteAt(pad, n%width)]
}

// cut removes all of its second argument, by default spaces.
func cut(r *run, c *call, quiet bool) Value {
	s, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	removed := " "
	if len(c.args) > 1 {
		if removed, ok = r.textOf(c, 1, quiet); !ok {
			return Value{}
		}
	}
	if removed == "" {
		return String(s)
	}
	return r.result(strings.ReplaceAll(s, removed, ""))
}

// inflect gives the singular for 1 and -1 and else the plural, after the count
// if includeCount is true.
func inflect(r *run, c *call, quiet bool) Value {
	count, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	n, ok := splitDecimal(count)
	if !ok {
		r.refuse(c.args[0].source, notNumber, quiet)
		return Value{}
	}
	form := &c.args[2]
	if n.whole == "1" && n.fraction == "" {
		form = &c.args[1]
	}
	word, ok := r.wordOf(form, quiet)
	if !ok {
		return Value{}
	}
	if c.hash[0] != nil && r.eval(c.hash[0], true).Truth() {
		word = count + " " + word
	}
	return r.result(word)
}

// join puts its last argument between the values of the others, lists or not.
func join(r *run, c *call, quiet bool) Value {
	last := len(c.args) - 1
	separator, ok := r.textOf(c, last, quiet)
	if !ok {
		return Value{}
	}
	prefix, ok := r.optionText(c, 0, "", quiet)
	if !ok {
		return Value{}
	}
	suffix, ok := r.optionText(c, 1, "", quiet)
	if !ok {
		return Value{}
	}
	out := []byte(prefix)
	count := 0
	for i := range last {
		v := r.eval(&c.args[i], quiet)
		if v.absent() {
			return Value{}
		}
		items := max(v.Len(), 1)
		for n := range items {
			if count++; count > 1 {
				out = append(out, separator...)
			}
			start := len(out)
			out = v.At(n).append(out, listDepthMax, outputBytesMax)
			if !r.charge(len(out)-start+len(separator)) || len(out) > outputBytesMax {
				return r.result(string(out))
			}
		}
	}
	return r.result(string(append(out, suffix...)))
}

// replace replaces all of its second argument by the third, literally.
func replace(r *run, c *call, quiet bool) Value {
	s, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	old, ok := r.textOf(c, 1, quiet)
	if !ok {
		return Value{}
	}
	with, ok := r.textOf(c, 2, quiet)
	switch {
	case !ok:
		return Value{}
	case old == "":
		return String(s)
	}
	if grown := len(s) + strings.Count(s, old)*(len(with)-len(old)); grown > outputBytesMax {
		r.err = ErrOutputTooLong
		return Value{}
	}
	return r.result(strings.ReplaceAll(s, old, with))
}

// slugify gives lower case letters, digits and underscores, and a hyphen for
// each space within; all else goes.
func slugify(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case unicode.IsLetter(c), unicode.IsMark(c), unicode.IsDigit(c), c == '_':
			return unicode.ToLower(c)
		case unicode.IsSpace(c):
			return '-'
		}
		return -1
	}, strings.TrimSpace(s))
}

// stripTags removes whatever stands between < and >.
func stripTags(s string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "<")
		end := strings.IndexByte(rest, '>')
		if !found || end < 0 {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(before)
		s = rest[end+1:]
	}
}

// substring gives the characters from start up to, not including, end. Positions
// past the end stand for the end.
func substring(r *run, c *call, quiet bool) Value {
	s, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	start, ok := r.countOf(&c.args[1], quiet)
	if !ok {
		return Value{}
	}
	from, to := byteAt(s, start), len(s)
	if len(c.args) > 2 {
		end, ok := r.countOf(&c.args[2], quiet)
		if !ok {
			return Value{}
		}
		to = max(from, byteAt(s, end))
	}
	return String(s[from:to])
}
