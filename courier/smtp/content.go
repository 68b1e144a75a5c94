package smtp

import (
	"bytes"
	"fmt"
	"io"
)

// checkContent says why data cannot be sent as it is, or returns nil. A line
// feed without carriage return, or the other way round, is refused: servers
// disagree about where such a line ends, and whoever can put one into a message
// could smuggle a second message behind it. Source: RFC 5321 2.3.8 and 4.1.1.4.
func checkContent(data []byte) error {
	if len(data) == 0 {
		return fmt.Errorf("message is empty")
	}
	for i := 0; i < len(data); {
		cr := bytes.IndexByte(data[i:], '\r')
		if cr < 0 {
			cr = len(data) - i
		}
		if lf := bytes.IndexByte(data[i:i+cr], '\n'); lf >= 0 {
			return fmt.Errorf("message has a line feed without carriage return at byte %d", i+lf)
		}
		i += cr
		if i == len(data) {
			return nil
		}
		if i+1 == len(data) || data[i+1] != '\n' {
			return fmt.Errorf("message has a carriage return without line feed at byte %d", i)
		}
		i += 2
	}
	return nil
}

var lineDot = []byte("\n.")

// writeStuffed writes data so that no line of it can end the message: each line
// that begins with a dot gets another, and the last line gets its CRLF. The
// final dot is not written. Stretches without such lines are written as they
// are, without a copy of ours. Source: RFC 5321 4.5.2.
func writeStuffed(w io.Writer, data []byte) error {
	if len(data) > 0 && data[0] == '.' {
		if _, err := io.WriteString(w, "."); err != nil {
			return err
		}
	}
	for rest := data; ; {
		i := bytes.Index(rest, lineDot)
		if i < 0 {
			if _, err := w.Write(rest); err != nil {
				return err
			}
			break
		}
		if _, err := w.Write(rest[:i+2]); err != nil {
			return err
		}
		// The dot just written is the added one; the line's own comes next.
		rest = rest[i+1:]
	}
	if !bytes.HasSuffix(data, crlf) {
		_, err := w.Write(crlf)
		return err
	}
	return nil
}

// wireSize is the message's size as SIZE counts it: with the last line's end,
// without stuffing. Source: RFC 1870 section 3.
func wireSize(data []byte) int64 {
	if bytes.HasSuffix(data, crlf) {
		return int64(len(data))
	}
	return int64(len(data) + len(crlf))
}

var crlf = []byte("\r\n")
