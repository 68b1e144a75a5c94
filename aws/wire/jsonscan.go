package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonDepthMax bounds nesting, and with it the recursion of reader and writer.
const jsonDepthMax = 64

// scanner walks over JSON text. The text is checked to be UTF-8 beforehand; a
// syntax error sticks, and every method then returns false.
type scanner struct {
	s     string
	pos   int
	depth int
	err   error
	// share lets strings without escapes be parts of s. Otherwise each is a
	// copy, so that keeping a small one does not keep the whole text.
	share bool
}

// syntaxError says where the text stops being JSON.
type syntaxError struct {
	at   int // in bytes
	what string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("the body is not valid JSON: %s at byte %d", e.what, e.at)
}

func (c *scanner) fail(what string) bool {
	if c.err == nil {
		if c.pos >= len(c.s) {
			what = "unexpected end"
		}
		c.err = &syntaxError{c.pos, what}
	}
	return false
}

// peek skips white space and returns the next byte, 0 at the end.
func (c *scanner) peek() byte {
	for c.pos < len(c.s) {
		switch b := c.s[c.pos]; b {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return b
		}
	}
	return 0
}

// null consumes a null if one comes next.
func (c *scanner) null() bool {
	if c.peek() == 'n' && strings.HasPrefix(c.s[c.pos:], "null") {
		c.pos += 4
		return true
	}
	return false
}

func (c *scanner) enter() bool {
	c.depth++
	if c.depth > jsonDepthMax {
		if c.err == nil {
			c.err = &syntaxError{c.pos, "nesting deeper than " + strconv.Itoa(jsonDepthMax)}
		}
		return false
	}
	c.pos++
	return true
}

// more steps to the next element of an object or array that ends with end. It
// reports false at the end, and on an error.
func (c *scanner) more(first bool, end byte) bool {
	b := c.peek()
	if b == end {
		c.pos++
		c.depth--
		return false
	}
	if first {
		return true
	}
	if b != ',' {
		return c.fail("expected a comma or the closing bracket")
	}
	c.pos++
	if c.peek() == end {
		return c.fail("nothing follows the comma")
	}
	return true
}

// key reads an object's key and its colon. The key may be part of the text:
// who keeps it must clone it.
func (c *scanner) key() (string, bool) {
	if c.peek() != '"' {
		return "", c.fail("expected a key in quotes")
	}
	share := c.share
	c.share = true
	k, ok := c.text()
	c.share = share
	if !ok {
		return "", false
	}
	if c.peek() != ':' {
		return "", c.fail("expected a colon")
	}
	c.pos++
	return k, true
}

// text reads a string; the position is at its opening quote.
func (c *scanner) text() (string, bool) {
	start := c.pos + 1
	for i := start; i < len(c.s); i++ {
		switch b := c.s[i]; {
		case b == '"':
			c.pos = i + 1
			if c.share {
				return c.s[start:i], true
			}
			return strings.Clone(c.s[start:i]), true
		case b == '\\':
			return c.escaped(start, i)
		case b < 0x20:
			c.pos = i
			return "", c.fail("control character in a string")
		}
	}
	c.pos = len(c.s)
	return "", c.fail("unexpected end")
}

// escaped reads the rest of a string from its first backslash at i.
func (c *scanner) escaped(start, i int) (string, bool) {
	b := append(make([]byte, 0, i-start+32), c.s[start:i]...)
	for i < len(c.s) {
		switch x := c.s[i]; {
		case x == '"':
			c.pos = i + 1
			return string(b), true
		case x < 0x20:
			c.pos = i
			return "", c.fail("control character in a string")
		case x != '\\':
			b = append(b, x)
			i++
			continue
		}
		c.pos = i
		if i+1 >= len(c.s) {
			break
		}
		switch x := c.s[i+1]; x {
		case '"', '\\', '/':
			b = append(b, x)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, ok := hex4(c.s, i+2)
			if !ok {
				return "", c.fail("invalid \\u escape")
			}
			i += 4
			if utf16.IsSurrogate(r) {
				// A pair makes one code point; a lone half becomes U+FFFD.
				low, ok := rune(0), false
				if strings.HasPrefix(c.s[i+2:], `\u`) {
					low, ok = hex4(c.s, i+4)
				}
				if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
					r = pair
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			return "", c.fail("invalid escape")
		}
		i += 2
	}
	c.pos = len(c.s)
	return "", c.fail("unexpected end")
}

func hex4(s string, at int) (rune, bool) {
	if at+4 > len(s) {
		return 0, false
	}
	var r rune
	for _, b := range []byte(s[at : at+4]) {
		switch {
		case b >= '0' && b <= '9':
			b -= '0'
		case b >= 'a' && b <= 'f':
			b -= 'a' - 10
		case b >= 'A' && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(b)
	}
	return r, true
}

// number reads a number's text in JSON's grammar; whole is false if it has a
// fraction or an exponent.
func (c *scanner) number() (text string, whole, ok bool) {
	start, i := c.pos, c.pos
	digits := func() bool {
		from := i
		for i < len(c.s) && c.s[i] >= '0' && c.s[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(c.s) && c.s[i] == '-' {
		i++
	}
	lead := i
	if !digits() || c.s[lead] == '0' && i > lead+1 {
		return "", false, c.fail("invalid number")
	}
	whole = true
	if i < len(c.s) && c.s[i] == '.' {
		whole = false
		i++
		if !digits() {
			return "", false, c.fail("invalid number")
		}
	}
	if i < len(c.s) && (c.s[i] == 'e' || c.s[i] == 'E') {
		whole = false
		i++
		if i < len(c.s) && (c.s[i] == '+' || c.s[i] == '-') {
			i++
		}
		if !digits() {
			return "", false, c.fail("invalid number")
		}
	}
	c.pos = i
	return c.s[start:i], whole, true
}

// literal consumes true, false or null.
func (c *scanner) literal(word string) bool {
	if !strings.HasPrefix(c.s[c.pos:], word) {
		return c.fail("invalid literal")
	}
	c.pos += len(word)
	return true
}

// skip steps over one value of any kind, checking its syntax.
func (c *scanner) skip() bool {
	switch b := c.peek(); {
	case b == '{':
		if !c.enter() {
			return false
		}
		for first := true; c.more(first, '}'); first = false {
			if _, ok := c.key(); !ok || !c.skip() {
				return false
			}
		}
		return c.err == nil
	case b == '[':
		if !c.enter() {
			return false
		}
		for first := true; c.more(first, ']'); first = false {
			if !c.skip() {
				return false
			}
		}
		return c.err == nil
	case b == '"':
		_, ok := c.text()
		return ok
	case b == 't':
		return c.literal("true")
	case b == 'f':
		return c.literal("false")
	case b == 'n':
		return c.literal("null")
	case b == '-' || b >= '0' && b <= '9':
		_, _, ok := c.number()
		return ok
	}
	return c.fail("expected a value")
}

// peekJSON returns a top-level string or number of an object, read leniently:
// whatever is wrong with the rest is found later.
func peekJSON(body []byte, name string) (value string, ok bool) {
	c := scanner{s: string(body), share: true}
	if c.peek() != '{' || !c.enter() {
		return "", false
	}
	for first := true; c.more(first, '}'); first = false {
		k, good := c.key()
		if !good {
			break
		}
		if k != name {
			if !c.skip() {
				break
			}
			continue
		}
		// The last of equal keys counts, as it does when the body is decoded.
		value, ok = "", false
		switch b := c.peek(); {
		case b == '"':
			value, ok = c.text()
		case b == '-' || b >= '0' && b <= '9':
			value, _, ok = c.number()
		default:
			c.skip()
		}
		if c.err != nil {
			return "", false
		}
	}
	return value, ok
}
