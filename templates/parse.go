package templates

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds on a source text. Source: engagement 5.1 for its size; the others are ours.
const (
	sourceCharsMax = 600_000
	tagsMax        = 20_000
	nestingMax     = 32
	segmentsMax    = 32
	argumentsMax   = 32
	elseIfsMax     = 256
	quotedCharsMax = 60 // of source text in an error message
	variablesMax   = 5_000
	variableLenMax = 256 // bytes
)

// A SyntaxError says what is wrong with a text and where.
type SyntaxError struct {
	Line    int // from 1
	Column  int // from 1, in characters
	Message string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Parse compiles src. Every error is a *[SyntaxError].
func Parse(src string, o Options) (*Template, error) {
	if !utf8.ValidString(src) {
		return nil, &SyntaxError{Line: 1, Column: 1, Message: "the text is not valid UTF-8"}
	}
	if n := chars(src); n > sourceCharsMax {
		return nil, &SyntaxError{Line: 1, Column: 1, Message: fmt.Sprintf("the text has %d characters; the limit is %d", n, sourceCharsMax)}
	}
	p := &parser{src: src, partials: map[string]*partial{}, variables: map[string]struct{}{}}
	body, end, err := p.body(0)
	if err != nil {
		return nil, err
	}
	switch end.kind {
	case tagClose:
		return nil, p.errorAt(end.at, "{{/%s}} closes a block that is not open", end.name)
	case tagElse:
		return nil, p.errorAt(end.at, "{{else}} outside a block")
	}
	for _, use := range p.uses {
		defined, ok := p.partials[use.name]
		if !ok {
			return nil, p.errorAt(use.at, "there is no inline partial named %q", use.name)
		}
		*use.partial = *defined
	}
	t := &Template{body: body, html: o.HTML, variables: slices.Sorted(maps.Keys(p.variables))}
	for i := range body {
		t.textBytes += len(body[i].text)
	}
	return t, nil
}

type parser struct {
	src       string
	pos       int
	tags      int
	elseIfs   int
	tagAt     int  // where the tag being read began
	trimNext  bool // the last tag ended in ~}}
	partials  map[string]*partial
	uses      []partialUse
	variables map[string]struct{}
}

// partialUse is a {{> name}} whose definition may come later.
type partialUse struct {
	partial *partial
	name    string
	at      int
}

type tagKind uint8

const (
	tagEnd   tagKind = iota // the text is over
	tagClose                // {{/name}}
	tagElse                 // {{else}}, {{^}}, or the head of {{else if x}}
)

// ending is the tag that ended a body.
type ending struct {
	kind  tagKind
	name  string // tagClose
	at    int
	chain bool // tagElse: pos stands at the head of a chained block
}

func (p *parser) errorAt(at int, format string, args ...any) error {
	before := p.src[:at]
	line := 1 + strings.Count(before, "\n")
	column := 1 + chars(before[strings.LastIndexByte(before, '\n')+1:])
	return &SyntaxError{Line: line, Column: column, Message: fmt.Sprintf(format, args...)}
}

// body reads nodes up to the tag that ends them.
func (p *parser) body(depth int) ([]node, ending, error) {
	if depth > nestingMax {
		return nil, ending{}, p.errorAt(p.pos, "blocks are nested more than %d deep", nestingMax)
	}
	var nodes []node
	for {
		text, more := p.text()
		if text != "" {
			nodes = append(nodes, node{kind: nodeText, text: text})
		}
		if !more {
			return nodes, ending{at: len(p.src)}, nil
		}
		n, end, err := p.tag(depth)
		if err != nil {
			return nil, ending{}, err
		}
		if end != nil {
			return nodes, *end, nil
		}
		if n != nil {
			nodes = append(nodes, *n)
		}
	}
}

// text reads literal text up to the next tag; more is false if there is none.
func (p *parser) text() (text string, more bool) {
	var pieces strings.Builder // used once there was an escape
	for {
		rest := p.src[p.pos:]
		at := strings.Index(rest, "{{")
		if at < 0 {
			p.pos = len(p.src)
			return p.trimmed(&pieces, rest), false
		}
		piece := rest[:at]
		p.pos += at
		if before, ok := strings.CutSuffix(piece, `\\`); ok {
			// A literal backslash, then a tag.
			return p.trimmed(&pieces, before+`\`), true
		}
		if before, ok := strings.CutSuffix(piece, `\`); ok {
			// A literal {{; what follows is text up to the next tag.
			pieces.WriteString(before)
			pieces.WriteString("{{")
			p.pos += len("{{")
			continue
		}
		if strings.HasPrefix(p.src[p.pos:], "{{~") {
			piece = strings.TrimRight(piece, whiteSpace)
		}
		return p.trimmed(&pieces, piece), true
	}
}

// trimmed is the text of pieces and last, after the white space control of the
// tag before it.
func (p *parser) trimmed(pieces *strings.Builder, last string) string {
	text := last
	if pieces.Len() > 0 {
		pieces.WriteString(last)
		text = pieces.String()
	}
	if p.trimNext {
		text = trimLeft(text)
	}
	p.trimNext = false
	return text
}

const whiteSpace = " \t\r\n\v\f\u00a0\ufeff"

func trimLeft(s string) string { return strings.TrimLeft(s, whiteSpace) }

// tag reads one {{…}}. A comment or a definition yields neither node nor ending.
func (p *parser) tag(depth int) (*node, *ending, error) {
	at := p.pos
	p.tagAt = at
	if p.tags++; p.tags > tagsMax {
		return nil, nil, p.errorAt(at, "the text has more than %d tags", tagsMax)
	}
	if strings.HasPrefix(p.src[at:], "{{{{") {
		return nil, nil, p.errorAt(at, "raw blocks {{{{ }}}} are not supported")
	}
	p.pos += len("{{")
	p.accept("~")
	switch {
	case p.accept("!"):
		return nil, nil, p.comment(at)
	case p.accept("{"):
		n, err := p.print(at, true, "}")
		return n, nil, err
	case p.accept("&"):
		n, err := p.print(at, true, "")
		return n, nil, err
	case p.accept(">"):
		n, err := p.partialCall(at)
		return n, nil, err
	case p.accept("#"):
		p.space()
		switch {
		case p.accept("*"):
			return nil, nil, p.definition(at, depth)
		case p.accept(">"):
			return nil, nil, p.errorAt(at, "partial blocks {{#> }} are not supported")
		}
		n, err := p.block(at, depth, false)
		return n, nil, err
	case p.accept("/"):
		p.space()
		n := strings.Index(p.src[p.pos:], "}}")
		if n < 0 {
			return nil, nil, p.errorAt(at, "the tag is not closed")
		}
		name := strings.TrimRight(strings.TrimSuffix(p.src[p.pos:p.pos+n], "~"), whiteSpace)
		p.pos += len(name)
		if err := p.close(at, ""); err != nil {
			return nil, nil, err
		}
		return nil, &ending{kind: tagClose, name: quote(name), at: at}, nil
	case p.accept("^"):
		p.space()
		if p.atClose() {
			return nil, &ending{kind: tagElse, at: at}, p.close(at, "")
		}
		n, err := p.block(at, depth, true)
		return n, nil, err
	}
	p.space()
	if p.acceptWord("else") {
		p.space()
		if p.atClose() {
			return nil, &ending{kind: tagElse, at: at}, p.close(at, "")
		}
		return nil, &ending{kind: tagElse, at: at, chain: true}, nil
	}
	n, err := p.print(at, false, "")
	return n, nil, err
}

// comment reads up to }}, or up to --}} if the comment began with --.
func (p *parser) comment(at int) error {
	mark := ""
	if strings.HasPrefix(p.src[p.pos:], "--") {
		mark = "--"
	}
	for {
		n := strings.Index(p.src[p.pos:], "}}")
		if n < 0 {
			return p.errorAt(at, "the comment is not closed")
		}
		text, trim := strings.CutSuffix(p.src[p.pos:p.pos+n], "~")
		p.pos += n + len("}}")
		if strings.HasSuffix(text, mark) {
			p.trimNext = trim
			return nil
		}
	}
}

// print reads {{x}}, {{helper x}} and their raw forms.
func (p *parser) print(at int, raw bool, brace string) (*node, error) {
	value, err := p.head(at, brace+"}}")
	if err != nil {
		return nil, err
	}
	return &node{kind: nodePrint, raw: raw, value: value}, p.close(at, brace)
}

// head reads what a mustache or a block is about: a value, or a helper with its
// arguments, up to the closing braces or parenthesis, which it leaves.
func (p *parser) head(at int, closing string) (*expr, error) {
	p.space()
	if p.atClose() {
		return nil, p.errorAt(at, "the tag is empty")
	}
	first, err := p.operand(0)
	if err != nil {
		return nil, err
	}
	return p.callOrValue(at, first, 0, closing)
}

// callOrValue decides whether first is a helper's name, and reads its arguments.
func (p *parser) callOrValue(at int, first expr, depth int, closing string) (*expr, error) {
	args, names, values, err := p.arguments(depth)
	if err != nil {
		return nil, err
	}
	if p.pos == len(p.src) {
		return nil, p.errorAt(p.tagAt, "the tag is not closed")
	}
	if !p.closes() {
		return nil, p.errorAt(p.pos, "expected %s to close the tag, found %s", closing, p.found())
	}
	var h *helper
	if first.bareWord() {
		h = helpers[first.source]
	}
	given := len(args) > 0 || len(names) > 0
	switch {
	case h == nil && given:
		return nil, p.errorAt(at, "there is no helper named %q", quote(first.source))
	case h == nil, !given && h.min > 0:
		// Without arguments the name of a helper that needs some is a plain name.
		if closing == ")" && first.kind == exprPath {
			return nil, p.errorAt(at, "(%s) is not a call: there is no such helper without arguments", quote(first.source))
		}
		p.use(&first)
		return &first, nil
	}
	c := &call{helper: h, args: args, hash: make([]*expr, len(h.hash))}
	switch {
	case len(args) < h.min:
		return nil, p.errorAt(at, "%s needs at least %d arguments, has %d", h.name, h.min, len(args))
	case len(args) > h.max:
		return nil, p.errorAt(at, "%s takes at most %d arguments, has %d", h.name, h.max, len(args))
	}
	for i, name := range names {
		n := slices.Index(h.hash, name)
		if n < 0 {
			return nil, p.errorAt(at, "%s has no option %q", h.name, quote(name))
		}
		c.hash[n] = &values[i]
	}
	if h.check != nil {
		if message := h.check(c); message != "" {
			return nil, p.errorAt(at, "%s: %s", h.name, message)
		}
	}
	for i := range c.args {
		if h.wordsFrom == 0 || i < h.wordsFrom || !c.args[i].bareWord() {
			p.use(&c.args[i])
		}
	}
	for i, x := range c.hash {
		if x != nil && !(h.hash[i] == "tz" && x.zoneWord()) {
			p.use(x)
		}
	}
	return &expr{kind: exprCall, call: c, source: first.source}, nil
}

// arguments reads positional arguments, then name=value pairs.
func (p *parser) arguments(depth int) (args []expr, names []string, values []expr, err error) {
	for {
		p.space()
		if p.closes() || p.pos == len(p.src) {
			return args, names, values, nil
		}
		if len(args)+len(names) == argumentsMax {
			return nil, nil, nil, p.errorAt(p.pos, "more than %d arguments", argumentsMax)
		}
		if name, ok := p.hashName(); ok {
			if slices.Contains(names, name) {
				return nil, nil, nil, p.errorAt(p.pos, "the option %q is given twice", quote(name))
			}
			p.space()
			value, err := p.operand(depth)
			if err != nil {
				return nil, nil, nil, err
			}
			names, values = append(names, name), append(values, value)
			continue
		}
		if len(names) > 0 {
			return nil, nil, nil, p.errorAt(p.pos, "arguments come before options")
		}
		if strings.HasPrefix(p.src[p.pos:], "as |") {
			return nil, nil, nil, p.errorAt(p.pos, "block parameters (as |x|) are not supported")
		}
		value, err := p.operand(depth)
		if err != nil {
			return nil, nil, nil, err
		}
		args = append(args, value)
	}
}

// hashName reads "name =" if that is what follows.
func (p *parser) hashName() (string, bool) {
	from := p.pos
	name := p.identifier()
	if name != "" {
		p.space()
		if p.accept("=") {
			return name, true
		}
	}
	p.pos = from
	return "", false
}

// definition reads {{#* inline "name"}}…{{/inline}}.
func (p *parser) definition(at, depth int) error {
	p.space()
	if !p.acceptWord("inline") {
		return p.errorAt(at, `{{#* }} is for inline partials only: {{#* inline "name"}}`)
	}
	p.space()
	name, err := p.partialName(at)
	if err != nil {
		return err
	}
	if _, exists := p.partials[name]; exists {
		return p.errorAt(at, "the inline partial %q is defined twice", quote(name))
	}
	if err := p.close(at, ""); err != nil {
		return err
	}
	defined := &partial{name: name}
	p.partials[name] = defined
	body, end, err := p.body(depth + 1)
	if err != nil {
		return err
	}
	defined.body = body
	return p.mustClose(at, end, "inline")
}

// partialName reads "name" or name.
func (p *parser) partialName(at int) (string, error) {
	x, err := p.operand(0)
	if err != nil {
		return "", err
	}
	name := x.source
	if x.kind == exprLiteral && x.value.kind == KindString {
		name = x.value.text
	} else if x.kind != exprPath {
		return "", p.errorAt(at, "the name of a partial is a word or a quoted text")
	}
	if name == "" {
		return "", p.errorAt(at, "the name of the partial is empty")
	}
	return name, nil
}

// partialCall reads {{> name context key=value}}.
func (p *parser) partialCall(at int) (*node, error) {
	p.space()
	if p.atClose() {
		return nil, p.errorAt(at, "the tag names no partial")
	}
	name, err := p.partialName(at)
	if err != nil {
		return nil, err
	}
	args, names, values, err := p.arguments(0)
	if err != nil {
		return nil, err
	}
	if len(args) > 1 {
		return nil, p.errorAt(at, "a partial takes at most one argument, its context")
	}
	n := &node{kind: nodePartial, partial: &partial{}, names: names, values: values}
	if len(args) == 1 {
		n.value = &args[0]
		p.use(n.value)
	}
	for i := range values {
		p.use(&values[i])
	}
	p.uses = append(p.uses, partialUse{partial: n.partial, name: name, at: at})
	return n, p.close(at, "")
}

// block reads {{#x}} or {{^x}}, from its head to the tag that closes it.
func (p *parser) block(at, depth int, inverted bool) (*node, error) {
	n, name, err := p.blockHead(at)
	if err != nil {
		return nil, err
	}
	end, err := p.blockBodies(n, depth, inverted)
	if err != nil {
		return nil, err
	}
	return n, p.mustClose(at, end, name)
}

// blockHead reads from after {{# to after }}.
func (p *parser) blockHead(at int) (*node, string, error) {
	p.space()
	if p.atClose() {
		return nil, "", p.errorAt(at, "the block has no name")
	}
	first, err := p.operand(0)
	if err != nil {
		return nil, "", err
	}
	if first.kind != exprPath {
		return nil, "", p.errorAt(at, "a block starts with a name")
	}
	n := &node{}
	word := ""
	if first.bareWord() {
		word = first.source
	}
	switch word {
	case "if", "unless", "each", "with":
		n.value, err = p.onlyArgument(at, word)
		switch word {
		case "if":
			n.kind = nodeIf
		case "unless":
			n.kind, n.negate = nodeIf, true
		case "each":
			n.kind = nodeEach
		case "with":
			n.kind = nodeWith
		}
	default:
		n.value, err = p.callOrValue(at, first, 0, "}}")
		if err == nil {
			n.kind = nodeSection
			if n.value.kind == exprCall {
				n.kind = nodeIf
				if !n.value.call.helper.test {
					err = p.errorAt(at, "%s is not a block: {{%s …}}", word, word)
				}
			}
		}
	}
	if err != nil {
		return nil, "", err
	}
	return n, first.source, p.close(at, "")
}

// onlyArgument reads the one argument of a built-in block.
func (p *parser) onlyArgument(at int, word string) (*expr, error) {
	args, names, _, err := p.arguments(0)
	if err != nil {
		return nil, err
	}
	if len(args) != 1 || len(names) != 0 {
		return nil, p.errorAt(at, "{{#%s}} takes exactly one argument", word)
	}
	p.use(&args[0])
	return &args[0], nil
}

// blockBodies reads the body, and after {{else}} the inverse; a chained
// {{else if x}} is a block of its own in the inverse, closed by the same tag.
func (p *parser) blockBodies(n *node, depth int, inverted bool) (ending, error) {
	body, end, err := p.body(depth + 1)
	if err != nil {
		return ending{}, err
	}
	var inverse []node
	if end.kind == tagElse {
		if end.chain {
			if p.elseIfs++; p.elseIfs > elseIfsMax {
				return ending{}, p.errorAt(end.at, "more than %d {{else if}}", elseIfsMax)
			}
			chained, _, err := p.blockHead(end.at)
			if err != nil {
				return ending{}, err
			}
			if end, err = p.blockBodies(chained, depth, false); err != nil {
				return ending{}, err
			}
			inverse = []node{*chained}
		} else {
			if inverse, end, err = p.body(depth + 1); err != nil {
				return ending{}, err
			}
			if end.kind == tagElse {
				return ending{}, p.errorAt(end.at, "{{else}} a second time in one block")
			}
		}
	}
	n.body, n.inverse = body, inverse
	if inverted {
		n.body, n.inverse = n.inverse, n.body
	}
	return end, nil
}

func (p *parser) mustClose(at int, end ending, name string) error {
	switch {
	case end.kind == tagEnd:
		return p.errorAt(at, "the block {{#%s}} is not closed", quote(name))
	case end.kind == tagElse:
		return p.errorAt(end.at, "{{else}} is not allowed in {{#%s}}", quote(name))
	case end.name != quote(name):
		return p.errorAt(end.at, "{{/%s}} does not close {{#%s}}", end.name, quote(name))
	}
	return nil
}

// use lists the variable that x is, if it is one.
func (p *parser) use(x *expr) {
	if x.kind != exprPath || x.path.base == baseData || len(x.path.names) == 0 {
		return
	}
	if name := x.path.name; len(p.variables) < variablesMax && len(name) <= variableLenMax {
		p.variables[name] = struct{}{}
	}
}

func chars(s string) int { return utf8.RuneCountInString(s) }

// quote cuts source text to what fits into an error message.
func quote(s string) string {
	if chars(s) <= quotedCharsMax {
		return s
	}
	return string([]rune(s)[:quotedCharsMax]) + "…"
}
