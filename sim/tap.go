package sim

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// tap stands where a Region pulls another's log, and changes what it hears and
// says: bugs are planted here that the code has not. It knows the frames of
// state/replica.
type tap struct {
	// ask may change the query of a pull.
	ask func(puller, stream string, q url.Values)
	// hear may change the records of a block; n is its number.
	hear func(puller, stream string, n int64, records [][]byte) [][]byte
	// hold is for how long a block is kept from the Region, which acknowledges it at
	// once.
	hold func(puller, stream string) time.Duration

	once sync.Once // what follows belongs to the bubble
	enc  *zstd.Encoder
	dec  *zstd.Decoder
}

// tapped is a transport with a tap.
type tapped struct {
	*tap
	ctx  context.Context // of the process: what is held ends with it
	host string
	next http.RoundTripper
}

const streamPath = "/everpoint/replica/v1/stream/"

func (t tapped) RoundTrip(req *http.Request) (*http.Response, error) {
	stream, pull := strings.CutPrefix(req.URL.Path, streamPath)
	if !pull {
		return t.next.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	if t.ask != nil {
		q := req.URL.Query()
		t.ask(t.host, stream, q)
		req.URL.RawQuery = q.Encode()
	}
	var acks *eager
	if t.hold != nil {
		acks = newEager(req.Body)
		req.Body = acks
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	resp.Body = t.filter(resp.Body, stream, acks)
	return resp, nil
}

// filter hands on an answer's frames.
func (t tapped) filter(body io.ReadCloser, stream string, acks *eager) io.ReadCloser {
	out, in := io.Pipe()
	turn := make(chan struct{}, 1) // frames are written whole
	turn <- struct{}{}
	say := func(frame []byte) {
		<-turn
		_, _ = in.Write(frame)
		turn <- struct{}{}
	}
	held := make(chan []byte, 1<<16)
	go func() {
		for frame := range held {
			select {
			case <-time.After(time.Until(time.Unix(0, int64(binary.BigEndian.Uint64(frame))))):
			case <-t.ctx.Done():
			}
			say(frame[8:])
		}
	}()
	go func() {
		defer close(held)
		rd := bufio.NewReader(body)
		for {
			var head [5]byte
			if _, err := io.ReadFull(rd, head[:]); err != nil {
				in.CloseWithError(err)
				return
			}
			content := make([]byte, binary.BigEndian.Uint32(head[1:]))
			if _, err := io.ReadFull(rd, content); err != nil {
				in.CloseWithError(err)
				return
			}
			if head[0] != 'B' {
				say(append(head[:], content...))
				continue
			}
			n, _ := binary.Uvarint(content)
			if t.hear != nil {
				content = t.rewrite(content, func(records [][]byte) [][]byte { return t.hear(t.host, stream, int64(n), records) })
			}
			frame := binary.BigEndian.AppendUint32([]byte{'B'}, uint32(len(content)))
			frame = append(frame, content...)
			if acks == nil {
				say(frame)
				continue
			}
			hold := t.hold(t.host, stream)
			acks.have(int64(n))
			held <- append(binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(hold).UnixNano())), frame...)
		}
	}()
	return &heard{PipeReader: out, body: body}
}

// heard is an answer behind a tap.
type heard struct {
	*io.PipeReader
	body io.Closer
}

func (h *heard) Close() error {
	_ = h.PipeReader.Close()
	return h.body.Close()
}

// rewrite changes the records of a block's frame.
func (t *tap) rewrite(content []byte, change func([][]byte) [][]byte) []byte {
	t.once.Do(func() {
		t.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		t.dec, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	})
	_, k := binary.Uvarint(content)
	_, l := binary.Uvarint(content[k:])
	hash, m := binary.Uvarint(content[k+l:])
	start := k + l + m + int(hash)
	plain, err := t.dec.DecodeAll(content[start:], nil)
	if err != nil {
		return content
	}
	var records [][]byte
	for len(plain) > 0 {
		n, k := binary.Uvarint(plain)
		records = append(records, plain[k:k+int(n)])
		plain = plain[k+int(n):]
	}
	var packed []byte
	for _, r := range change(records) {
		packed = append(binary.AppendUvarint(packed, uint64(len(r))), r...)
	}
	return t.enc.EncodeAll(packed, content[:start:start])
}

// eager is the body of a pull's request that acknowledges what was heard, not what
// was written.
type eager struct {
	out   *io.PipeReader
	in    *io.PipeWriter
	under io.ReadCloser
	seen  chan int64
}

const saidBytes = 24 // block, head of the safety stream, epoch of membership

func newEager(under io.ReadCloser) *eager {
	e := &eager{under: under, seen: make(chan int64, 1<<16)}
	e.out, e.in = io.Pipe()
	said := make(chan [saidBytes]byte)
	go func() {
		defer close(said)
		for {
			var b [saidBytes]byte
			if _, err := io.ReadFull(under, b[:]); err != nil {
				_ = e.in.CloseWithError(err)
				return
			}
			said <- b
		}
	}()
	go func() {
		var last [saidBytes]byte
		var most int64
		for {
			select {
			case b, ok := <-said:
				if !ok {
					return
				}
				last = b
				most = max(most, int64(binary.BigEndian.Uint64(b[:8])))
			case n := <-e.seen:
				most = max(most, n)
			}
			binary.BigEndian.PutUint64(last[:8], uint64(most))
			if _, err := e.in.Write(last[:]); err != nil {
				for range said { // until who writes has heard of it
				}
				return
			}
		}
	}()
	return e
}

func (e *eager) have(n int64) {
	select {
	case e.seen <- n:
	default:
	}
}

func (e *eager) Read(b []byte) (int, error) { return e.out.Read(b) }

func (e *eager) Close() error {
	_ = e.out.Close()
	return e.under.Close()
}
