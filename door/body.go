package door

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// bodyBytesFirst is the buffer a body of unknown length starts with.
const bodyBytesFirst = 4 << 10

// held counts what the bodies of one request take of the door's memory.
type held struct {
	door  *Door
	bytes int64
}

// take reserves n more bytes, or fails if the door's bodies are at their bound.
func (h *held) take(n int64) error {
	h.bytes += n
	if h.door.bodiesBytes.Add(n) > h.door.cfg.BodiesBytesMax {
		return aws.Unavailable("Too many request bodies at once. Please retry.")
	}
	return nil
}

func (h *held) release() {
	h.door.bodiesBytes.Add(-h.bytes)
	h.bytes = 0
}

// readAll reads src to its end into memory that h accounts for. It takes
// memory as bytes arrive, not as a length is claimed, and fails with TooLarge
// beyond the bound; what was read until then is returned too.
func (h *held) readAll(src io.Reader, claimed int64) ([]byte, error) {
	most := h.door.cfg.BodyBytesMax
	first := min(most+1, bodyBytesFirst)
	if claimed > 0 {
		first = min(claimed+1, 16*bodyBytesFirst)
	}
	if err := h.take(first); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, first)
	for {
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > most:
			return buf, h.door.tooLarge()
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		case len(buf) == cap(buf):
			grown := min(2*int64(cap(buf)), most+1)
			if err := h.take(grown - int64(cap(buf))); err != nil {
				return buf, err
			}
			next := make([]byte, len(buf), grown)
			copy(next, buf)
			buf = next
		}
	}
}

func (d *Door) tooLarge() *aws.Fault {
	return aws.TooLarge("The request body is larger than %d bytes.", d.cfg.BodyBytesMax)
}

// readBody reads the body as it was sent, within its bounds of size and time.
// After an error the connection cannot be used again.
func (d *Door) readBody(w http.ResponseWriter, r *http.Request, h *held) ([]byte, error) {
	if r.ContentLength > d.cfg.BodyBytesMax {
		return nil, d.tooLarge()
	}
	if !hasBody(r) {
		return nil, nil
	}
	setReadDeadline(w, time.Now().Add(d.cfg.BodyTimeout))
	body, err := h.readAll(r.Body, r.ContentLength)
	switch {
	case err == nil:
		return body, nil // the server lifts the deadline itself when it meets the end
	case isFault(err):
		return body, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return body, aws.Invalid("The request body did not arrive within %v.", d.cfg.BodyTimeout)
	}
	return body, aws.Invalid("The request body ended before it was complete.")
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// setReadDeadline bounds how long the client may take to send. Writers that
// know no deadlines, as in simulations, are bounded by their maker.
func setReadDeadline(w http.ResponseWriter, at time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(at)
}

// decompress undoes the Content-Encoding. The result is bounded like a body.
func (h *held) decompress(encodings []string, body []byte) ([]byte, error) {
	switch encoding := strings.ToLower(strings.Join(encodings, ",")); encoding {
	case "", "identity":
		return body, nil
	case "gzip":
	default:
		return nil, aws.Invalid("The Content-Encoding of the body is not supported; send gzip or none.")
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, aws.Invalid("The request body is not valid gzip.")
	}
	plain, err := h.readAll(z, 0)
	if err != nil && !isFault(err) {
		err = aws.Invalid("The request body is not valid gzip.")
	}
	return plain, err
}

func isFault(err error) bool {
	_, ok := errors.AsType[*aws.Fault](err)
	return ok
}
