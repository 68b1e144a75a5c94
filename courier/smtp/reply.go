package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds on what a server may say in one reply.
const (
	replyLineBytesMax   = 2048 // CRLF included
	replyLinesMax       = 100
	replyDetailBytesMax = 512
)

// Errors of a server that does not speak SMTP.
var (
	errReplyLong  = fmt.Errorf("reply line is longer than %d bytes", replyLineBytesMax)
	errReplyLines = fmt.Errorf("reply has more than %d lines", replyLinesMax)
	errReplyForm  = errors.New("reply is not three digits and a text")
	errReplyMixed = errors.New("lines of one reply differ in their code")
)

// reply is one reply, however many lines it had.
type reply struct {
	code     int    // 200 to 599
	enhanced string // RFC 3463 status, "5.1.1"; empty when there was none
	text     string // the lines' text joined by spaces, at most 512 bytes of printable UTF-8
	followed bool   // more bytes had arrived behind it when it was read
}

// ok says that the server did what it was asked.
func (r reply) ok() bool { return r.code/100 == 2 }

// readReply reads one reply. With lines it also keeps each line's text there,
// whole. The reader's buffer must hold replyLineBytesMax. A line feed alone is
// taken for a line's end, as most clients do. Source: RFC 5321 4.2.
func readReply(br *bufio.Reader, lines *[]string) (reply, error) {
	var r reply
	for n := 0; ; n++ {
		if n == replyLinesMax {
			return reply{}, errReplyLines
		}
		line, err := br.ReadSlice('\n')
		if len(line) > replyLineBytesMax || errors.Is(err, bufio.ErrBufferFull) {
			return reply{}, errReplyLong
		}
		if err != nil {
			return reply{}, err
		}
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		code, more, text, ok := parseReplyLine(line)
		if !ok {
			return reply{}, errReplyForm
		}
		if lines != nil {
			*lines = append(*lines, string(text))
		}
		enhanced, text := cutEnhanced(code, text)
		if n == 0 {
			r = reply{code: code, enhanced: string(enhanced), text: printable(text)}
		} else {
			if code != r.code {
				return reply{}, errReplyMixed
			}
			if len(r.text) < replyDetailBytesMax && len(text) > 0 {
				r.text += " " + printable(text)
			}
		}
		if !more {
			r.text = bounded(r.text)
			return r, nil
		}
	}
}

// parseReplyLine takes one line apart; the line end is already gone.
func parseReplyLine(line []byte) (code int, more bool, text []byte, ok bool) {
	if len(line) < 3 {
		return 0, false, nil, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, nil, false
		}
		code = code*10 + int(c-'0')
	}
	if code < 200 || code > 599 {
		return 0, false, nil, false
	}
	if len(line) == 3 {
		return code, false, nil, true
	}
	switch line[3] {
	case ' ':
		return code, false, line[4:], true
	case '-':
		return code, true, line[4:], true
	default:
		return 0, false, nil, false
	}
}

// cutEnhanced splits an RFC 3463 status from the front of text. A status whose
// class contradicts the code is text. Source: RFC 2034 section 4.
func cutEnhanced(code int, text []byte) (enhanced, rest []byte) {
	if len(text) < 5 || int(text[0]-'0') != code/100 || text[1] != '.' {
		return nil, text
	}
	i := 2
	for part := range 2 {
		start := i
		for i < len(text) && i-start < 3 && '0' <= text[i] && text[i] <= '9' {
			i++
		}
		if i == start {
			return nil, text
		}
		if part == 0 {
			if i == len(text) || text[i] != '.' {
				return nil, text
			}
			i++
		}
	}
	if i < len(text) && text[i] != ' ' {
		return nil, text
	}
	return text[:i], bytes.TrimLeft(text[i:], " ")
}

// printable is text as a string without control characters and broken UTF-8,
// not longer than it needs to be for a detail.
func printable(text []byte) string {
	if len(text) > replyDetailBytesMax {
		text = text[:min(len(text), replyDetailBytesMax+utf8.UTFMax)]
	}
	for _, c := range text {
		if c < ' ' || c >= 0x7f {
			return strings.Map(func(r rune) rune {
				if r < ' ' || 0x7f <= r && r < 0xa0 {
					return ' '
				}
				return r
			}, strings.ToValidUTF8(string(text), "?"))
		}
	}
	return string(text)
}

// bounded cuts s to 512 bytes without breaking a character.
func bounded(s string) string {
	if len(s) <= replyDetailBytesMax {
		return s
	}
	cut := replyDetailBytesMax
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
