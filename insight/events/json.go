package events

import (
	"math"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString writes s as a JSON string. Text that is no UTF-8 becomes U+FFFD.
func appendString[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendNumber writes v as a JSON number that shows it is not an integer's
// type: 3.0, 1e+21. What JSON cannot write becomes 0.0; the wire lets none in.
func appendNumber(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return append(b, '0', '.', '0')
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return append(strconv.AppendInt(b, int64(v), 10), '.', '0')
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// appendMember writes a member by its key, which brings what stands before it;
// nothing when the value is empty.
func appendMember(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, key...), value)
}

// uncomma takes away the comma at start, if anything was written there.
func uncomma(b []byte, start int) []byte {
	if len(b) == start {
		return b
	}
	return append(b[:start], b[start+1:]...)
}
