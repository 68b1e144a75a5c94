package sigv4

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// canonical is the part of a request that is signed, as it went over the wire.
type canonical struct {
	method, rawPath, rawQuery, host string
	header                          http.Header
	signedHeaders                   string
	payloadHash                     string

	dropToken bool // leave X-Amz-Security-Token out of the query
}

// scratch holds the buffers of one computation; pooled, because every request
// needs them and none keeps them.
type scratch struct {
	text  []byte // the canonical request
	query []byte // encoded query pairs, unsorted
	pairs []pair
	path  [][2]int
}

// pair is an encoded query parameter: scratch.query[start:mid] is its name and
// [mid:end] its value.
type pair struct{ start, mid, end int }

const scratchBytesKept = 64 << 10

var scratches = sync.Pool{New: func() any { return &scratch{text: make([]byte, 0, 2048)} }}

func (s *scratch) release() {
	if cap(s.text)+cap(s.query) <= scratchBytesKept {
		scratches.Put(s)
	}
}

// render writes the canonical request; the result is valid until the scratch is
// used again. Source: access 1.4.
func (s *scratch) render(c *canonical) []byte {
	b := append(s.text[:0], c.method...)
	b = append(b, '\n')
	b = s.appendPath(b, c.rawPath)
	b = append(b, '\n')
	b = s.appendQuery(b, c.rawQuery, c.dropToken)
	b = append(b, '\n')
	for rest, more := c.signedHeaders, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, ";")
		b = append(b, name...)
		b = append(b, ':')
		if name == "host" {
			b = appendFolded(b, c.host)
		} else {
			for i, value := range headerValues(c.header, name) {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendFolded(b, value)
			}
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, c.signedHeaders...)
	b = append(b, '\n')
	b = append(b, c.payloadHash...)
	s.text = b
	return b
}

// appendPath removes dot segments, collapses slashes, keeps a trailing slash,
// and encodes every segment of the raw path once more.
func (s *scratch) appendPath(b []byte, raw string) []byte {
	kept := s.path[:0]
	for start := 0; start <= len(raw); {
		end := len(raw)
		if i := strings.IndexByte(raw[start:], '/'); i >= 0 {
			end = start + i
		}
		switch raw[start:end] {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, [2]int{start, end})
		}
		start = end + 1
	}
	s.path = kept
	for _, segment := range kept {
		b = append(b, '/')
		b = appendEncoded(b, raw[segment[0]:segment[1]])
	}
	if len(kept) == 0 || strings.HasSuffix(raw, "/") {
		b = append(b, '/')
	}
	return b
}

// appendQuery decodes and encodes every parameter and sorts them by encoded
// name, then encoded value.
func (s *scratch) appendQuery(b []byte, raw string, dropToken bool) []byte {
	if raw == "" {
		return b
	}
	q, pairs := s.query[:0], s.pairs[:0]
	for rest, more := raw, true; more; {
		var piece string
		piece, rest, more = strings.Cut(rest, "&")
		if piece == "" {
			continue
		}
		name, value, _ := strings.Cut(piece, "=")
		p := pair{start: len(q)}
		q = appendReencoded(q, name)
		p.mid = len(q)
		// Encoding leaves these two names as they are, so that encoded names compare.
		if n := q[p.start:p.mid]; string(n) == "X-Amz-Signature" || (dropToken && string(n) == "X-Amz-Security-Token") {
			q = q[:p.start]
			continue
		}
		q = appendReencoded(q, value)
		p.end = len(q)
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(x, y pair) int {
		if c := bytes.Compare(q[x.start:x.mid], q[y.start:y.mid]); c != 0 {
			return c
		}
		return bytes.Compare(q[x.mid:x.end], q[y.mid:y.end])
	})
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, q[p.start:p.mid]...)
		b = append(b, '=')
		b = append(b, q[p.mid:p.end]...)
	}
	s.query, s.pairs = q, pairs
	return b
}

// appendFolded trims a header value and turns each run of white space, line
// folds among it, into one space. A value therefore never adds a line.
func appendFolded(b []byte, value string) []byte {
	start := len(b)
	gap := false
	for i := range len(value) {
		switch c := value[i]; c {
		case ' ', '\t', '\r', '\n':
			gap = true
		default:
			if gap && len(b) > start {
				b = append(b, ' ')
			}
			gap = false
			b = append(b, c)
		}
	}
	return b
}

// unreserved marks the bytes that stay as they are.
var unreserved = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") {
		t[c] = true
	}
	return t
}()

func appendEncoded(b []byte, s string) []byte {
	for i := range len(s) {
		b = appendEncodedByte(b, s[i])
	}
	return b
}

func appendReencoded(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c, ok := escaped(s, i)
		if ok {
			i += 2
		} else {
			c = s[i]
		}
		b = appendEncodedByte(b, c)
	}
	return b
}

func appendEncodedByte(b []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	if unreserved[c] {
		return append(b, c)
	}
	return append(b, '%', digits[c>>4], digits[c&15])
}

// sign returns the signature of c, 64 lower-case hex digits.
// Source: access 1.6.
func (s *scratch) sign(c *canonical, timestamp, scope string, key *[sha256.Size]byte) [2 * sha256.Size]byte {
	digest := sha256.Sum256(s.render(c))
	b := appendStringToSign(s.text[:0], timestamp, scope, digest)
	s.text = b
	mac := hmac.New(sha256.New, key[:])
	mac.Write(b)
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	var out [2 * sha256.Size]byte
	hex.Encode(out[:], sum[:])
	return out
}

func appendStringToSign(b []byte, timestamp, scope string, digest [sha256.Size]byte) []byte {
	b = append(b, algorithm...)
	b = append(b, '\n')
	b = append(b, timestamp...)
	b = append(b, '\n')
	b = append(b, scope...)
	b = append(b, '\n')
	return hex.AppendEncode(b, digest[:])
}
