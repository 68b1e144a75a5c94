package router

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// buffers lends memory for bodies that are kept, in a few sizes, and knows how
// much is out.
type buffers struct {
	bytesMax int64
	lent     atomic.Int64
	pools    [3]sync.Pool
}

// bufferSizes are what the pools hold; longer bodies have memory of their own.
var bufferSizes = [3]int64{4 << 10, 32 << 10, 256 << 10}

// lend returns n bytes, or nil if too many are out.
func (b *buffers) lend(n int64) *replay {
	if b.lent.Add(n) > b.bytesMax {
		b.lent.Add(-n)
		return nil
	}
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		rp, _ := b.pools[i].Get().(*replay)
		if rp == nil {
			rp = &replay{all: make([]byte, size), from: b, pool: i}
		}
		rp.body = rp.all[:n]
		rp.holders.Store(1)
		return rp
	}
	rp := &replay{all: make([]byte, n), from: b, pool: -1}
	rp.body = rp.all
	rp.holders.Store(1)
	return rp
}

// A replay is a body that is kept so that it can be sent again. Its memory goes
// back when whoever holds it, and every reader opened on it, have let go: a
// transport may still send it after it has returned an answer.
type replay struct {
	body    []byte
	all     []byte
	from    *buffers
	pool    int
	holders atomic.Int32
}

func (rp *replay) release() {
	if rp.holders.Add(-1) != 0 {
		return
	}
	rp.from.lent.Add(-int64(len(rp.body)))
	rp.body = nil
	if rp.pool >= 0 {
		rp.from.pools[rp.pool].Put(rp)
	}
}

// open returns the body from its beginning. It never fails.
func (rp *replay) open() (io.ReadCloser, error) {
	rp.holders.Add(1)
	r := &replayReader{of: rp}
	r.rest.Reset(rp.body)
	return r, nil
}

// replayReader reads a replay once. After Close it never touches its memory.
type replayReader struct {
	mu     sync.Mutex
	of     *replay
	rest   bytes.Reader
	closed bool
}

var errClosed = errors.New("router: read of a body that was closed")

func (r *replayReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, errClosed
	}
	return r.rest.Read(p)
}

// Close lets go of the memory.
func (r *replayReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.rest.Reset(nil)
		r.of.release()
	}
	return nil
}

// errBodyTooLarge ends a streamed body that turns out to be too long.
var errBodyTooLarge = errors.New("router: the body is longer than allowed")

// A stream is a body on its way through, kept nowhere. The transport may read it
// from another goroutine, and after the handler has returned.
type stream struct {
	src    io.ReadCloser
	left   int64 // bytes it may still have
	pace   time.Duration
	ctrl   *http.ResponseController
	moved  func() // told whenever bytes came
	failed atomic.Pointer[error]
	ended  atomic.Bool // it was read to its end

	mu   sync.Mutex
	over bool // the handler has returned: hands off
}

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return 0, errClosed
	}
	_ = s.ctrl.SetReadDeadline(time.Now().Add(s.pace))
	s.mu.Unlock()
	n, err := s.src.Read(p)
	if s.left -= int64(n); s.left < 0 {
		err = errBodyTooLarge
	}
	switch {
	case err == io.EOF:
		s.ended.Store(true)
	case err != nil:
		s.failed.Store(&err)
	}
	if n > 0 {
		s.moved()
	}
	return n, err
}

// Close does nothing: the server closes the body it reads from.
func (s *stream) Close() error { return nil }

// finish takes the stream out of the transport's hands.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if !s.ended.Load() {
		// Whoever still waits for the client waits a moment only.
		_ = s.ctrl.SetReadDeadline(time.Now().Add(lingerTimeout))
		return
	}
	_ = s.ctrl.SetReadDeadline(time.Time{})
}
