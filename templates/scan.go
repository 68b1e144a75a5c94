package templates

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file reads what stands inside a tag: names, literals and parentheses.

func (p *parser) space() {
	p.pos += len(p.src[p.pos:]) - len(trimLeft(p.src[p.pos:]))
}

func (p *parser) accept(s string) bool {
	if !strings.HasPrefix(p.src[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	return true
}

// acceptWord accepts word if it is not just the beginning of a name.
func (p *parser) acceptWord(word string) bool {
	rest, ok := strings.CutPrefix(p.src[p.pos:], word)
	if !ok || rest != "" && !strings.ContainsAny(rest[:1], " \t\r\n~}") {
		return false
	}
	p.pos += len(word)
	return true
}

// atClose reports whether the tag's end follows.
func (p *parser) atClose() bool {
	rest := p.src[p.pos:]
	return strings.HasPrefix(rest, "}}") || strings.HasPrefix(rest, "~}}") || strings.HasPrefix(rest, "}~}}")
}

// closes reports whether the tag or a parenthesis ends here.
func (p *parser) closes() bool {
	return p.atClose() || strings.HasPrefix(p.src[p.pos:], ")")
}

// close reads the end of the tag that began at at: brace, ~ and }}.
func (p *parser) close(at int, brace string) error {
	p.space()
	if rest := p.src[p.pos:]; brace != "" && rest != "" && !strings.HasPrefix(rest, "}}}") && !strings.HasPrefix(rest, "}~}}") {
		return p.errorAt(p.pos, "expected }}} to close the tag, found %s", p.found())
	}
	p.accept(brace)
	p.trimNext = p.accept("~")
	if !p.accept("}}") {
		if p.pos == len(p.src) {
			return p.errorAt(at, "the tag is not closed")
		}
		return p.errorAt(p.pos, "expected }} to close the tag, found %s", p.found())
	}
	return nil
}

// found describes what stands at pos, for messages.
func (p *parser) found() string {
	if p.pos == len(p.src) {
		return "the end of the text"
	}
	r, _ := utf8.DecodeRuneInString(p.src[p.pos:])
	return strconv.QuoteRune(r)
}

// operand reads a literal, a path or a call in parentheses.
func (p *parser) operand(depth int) (expr, error) {
	from := p.pos
	if p.pos == len(p.src) {
		return expr{}, p.errorAt(p.tagAt, "the tag is not closed")
	}
	switch c := p.src[p.pos]; c {
	case '(':
		if depth == nestingMax {
			return expr{}, p.errorAt(p.pos, "parentheses are nested more than %d deep", nestingMax)
		}
		p.pos++
		p.space()
		first, err := p.operand(depth + 1)
		if err != nil {
			return expr{}, err
		}
		x, err := p.callOrValue(from, first, depth+1, ")")
		if err != nil {
			return expr{}, err
		}
		if !p.accept(")") {
			return expr{}, p.errorAt(p.pos, "expected ) to close the parenthesis, found %s", p.found())
		}
		x.source = p.src[from:p.pos]
		return *x, nil
	case '"', '\'':
		text, err := p.quoted(c)
		return expr{kind: exprLiteral, value: String(text), source: p.src[from:p.pos]}, err
	}
	if x, ok := p.number(); ok {
		return x, nil
	}
	for i := range literalWords {
		if w := &literalWords[i]; p.literalWord(w.source) {
			return *w, nil
		}
	}
	return p.path()
}

var literalWords = []expr{
	{kind: exprLiteral, source: "true", value: Bool(true)},
	{kind: exprLiteral, source: "false", value: Bool(false)},
	{kind: exprLiteral, source: "null"},
	{kind: exprLiteral, source: "undefined"},
}

// literalWord accepts word if it stands alone, and not as true.x or true=1.
func (p *parser) literalWord(word string) bool {
	rest, ok := strings.CutPrefix(p.src[p.pos:], word)
	if !ok || rest != "" && !strings.ContainsAny(rest[:1], " \t\r\n~})") {
		return false
	}
	p.pos += len(word)
	return true
}

// quoted reads a text in quotes; a backslash before the quote keeps it.
func (p *parser) quoted(quote byte) (string, error) {
	from := p.pos
	p.pos++
	var text strings.Builder
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == quote:
			p.pos++
			return text.String(), nil
		case c == '\\' && p.pos+1 < len(p.src) && p.src[p.pos+1] == quote:
			text.WriteByte(quote)
			p.pos += 2
		default:
			text.WriteByte(c)
			p.pos++
		}
	}
	return "", p.errorAt(from, "the quoted text is not closed")
}

// number reads -12.5, if what follows it ends a literal.
func (p *parser) number() (expr, bool) {
	rest := p.src[p.pos:]
	n := 0
	if strings.HasPrefix(rest, "-") {
		n++
	}
	whole := digits(rest[n:])
	if whole == 0 {
		return expr{}, false
	}
	n += whole
	if strings.HasPrefix(rest[n:], ".") {
		if fraction := digits(rest[n+1:]); fraction > 0 {
			n += 1 + fraction
		}
	}
	if n < len(rest) && !strings.ContainsAny(rest[n:n+1], " \t\r\n~})") {
		return expr{}, false
	}
	f, err := strconv.ParseFloat(rest[:n], 64)
	if err != nil {
		return expr{}, false
	}
	p.pos += n
	value := Number(f)
	value.text = rest[:n]
	return expr{kind: exprLiteral, value: value, source: rest[:n]}, true
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// path reads a name: ../a.b/[c d].[0], this.x, @index, @root.x.
func (p *parser) path() (expr, error) {
	from := p.pos
	x := &path{}
	data := p.accept("@")
	for p.accept("..") {
		if x.up++; x.up > nestingMax {
			return expr{}, p.errorAt(from, "more than %d times ../", nestingMax)
		}
		x.base = baseThis // of the item further out
		if !p.accept("/") {
			return p.finishPath(from, x)
		}
		x.base = basePlain
	}
	if data {
		return p.dataPath(from, x)
	}
	switch {
	case p.pathWord("this"), p.pathWord("."):
		x.base = baseThis
		if !p.accept(".") && !p.accept("/") && !strings.HasPrefix(p.src[p.pos:], "[") {
			return p.finishPath(from, x)
		}
	}
	return p.segments(from, x)
}

// pathWord accepts a word that stands for the current item.
func (p *parser) pathWord(word string) bool {
	rest, ok := strings.CutPrefix(p.src[p.pos:], word)
	if !ok || rest != "" && !strings.ContainsAny(rest[:1], " \t\r\n~})./[") {
		return false
	}
	p.pos += len(word)
	return true
}

func (p *parser) dataPath(from int, x *path) (expr, error) {
	x.base = baseData
	switch name := p.identifier(); name {
	case "root":
		x.base = baseRoot
		if !p.accept(".") && !p.accept("/") {
			return expr{}, p.errorAt(from, "@root needs a name: @root.x")
		}
		return p.segments(from, x)
	case "index":
		x.data = dataIndex
	case "key":
		x.data = dataKey
	case "first":
		x.data = dataFirst
	case "last":
		x.data = dataLast
	default:
		return expr{}, p.errorAt(from, "there is no @%s; there are @index, @key, @first, @last and @root", quote(name))
	}
	return p.finishPath(from, x)
}

// segments reads names separated by dots or slashes.
func (p *parser) segments(from int, x *path) (expr, error) {
	for {
		if len(x.names) == segmentsMax {
			return expr{}, p.errorAt(from, "a name has more than %d parts", segmentsMax)
		}
		if p.accept("[") {
			n := strings.IndexByte(p.src[p.pos:], ']')
			if n < 0 {
				return expr{}, p.errorAt(p.pos-1, "the bracket is not closed")
			}
			if n == 0 {
				return expr{}, p.errorAt(p.pos-1, "the brackets are empty")
			}
			x.names = append(x.names, p.src[p.pos:p.pos+n])
			p.pos += n + 1
		} else {
			name := p.identifier()
			if name == "" {
				return expr{}, p.errorAt(p.pos, "expected a name, found %s", p.found())
			}
			x.names = append(x.names, name)
		}
		if !p.accept(".") && !p.accept("/") && !strings.HasPrefix(p.src[p.pos:], "[") {
			return p.finishPath(from, x)
		}
	}
}

// finishPath checks that the path ends where a word may end, and prepares its lookups.
func (p *parser) finishPath(from int, x *path) (expr, error) {
	if p.pos < len(p.src) && !strings.ContainsAny(p.src[p.pos:p.pos+1], " \t\r\n~})") {
		return expr{}, p.errorAt(p.pos, "a name cannot hold %s; put it in brackets: [a b]", p.found())
	}
	source := p.src[from:p.pos]
	if n := len(x.names); n > 0 {
		x.key = strings.Join(x.names, ".")
		x.name = writtenPath(x.names)
		if index, ok := indexOf(x.names[n-1]); ok {
			x.indexed, x.index = true, index
			x.itemOf = strings.Join(x.names[:n-1], ".")
		}
	} else {
		x.name = source
	}
	return expr{kind: exprPath, path: x, source: source}, nil
}

// writtenPath joins segments as a template would write them.
func writtenPath(names []string) string {
	var out strings.Builder
	for i, name := range names {
		if i > 0 {
			out.WriteByte('.')
		}
		_, isIndex := indexOf(name)
		if isIndex || strings.ContainsFunc(name, func(r rune) bool { return !nameRune(r) }) {
			out.WriteString("[" + name + "]")
		} else {
			out.WriteString(name)
		}
	}
	return out.String()
}

// identifier reads a name without brackets; "" if there is none.
func (p *parser) identifier() string {
	rest := p.src[p.pos:]
	n := strings.IndexFunc(rest, func(r rune) bool { return !nameRune(r) })
	if n < 0 {
		n = len(rest)
	}
	p.pos += n
	return rest[:n]
}

// nameRune reports whether r may stand in a name without brackets: all but
// white space and the signs that Handlebars reserves.
func nameRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r != 0x7f && !strings.ContainsRune("!\"#%&'()*+,./;<=>@[\\]^`{|}~", r)
	}
	return !unicode.IsSpace(r) && r != '\ufeff'
}

// bareWord reports whether x is one plain segment without brackets: what may be
// a helper's name, or a word given where a text is meant.
func (x *expr) bareWord() bool {
	return x.kind == exprPath && x.path.base == basePlain && x.path.up == 0 &&
		len(x.path.names) == 1 && x.source == x.path.names[0]
}

// zoneWord reports whether x looks like a time zone's name written without
// quotes: UTC, America/Los_Angeles.
func (x *expr) zoneWord() bool {
	return x.kind == exprPath && x.path.base == basePlain && x.path.up == 0 &&
		len(x.path.names) > 0 && !strings.ContainsAny(x.source, ".[")
}
