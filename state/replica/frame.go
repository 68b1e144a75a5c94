package replica

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// The frames of an answer.
const (
	frameHead  = 'H' // JSON of heartbeat: where the streams are; the first of every answer
	frameBlock = 'B' // a block
	frameRows  = 'R' // rows, in an answer to rows
	frameLost  = 'L' // JSON of lost: the position is unknown, take the rows
	frameEnd   = 'E' // all rows were told
)

// Bounds of a frame: a block's records and what stands around them.
const (
	frameBytesMax = 20 << 20
	plainBytesMax = 64 << 20
)

var errFrame = errors.New("replica: a frame is corrupt")

// heartbeat says where a Region's streams are.
type heartbeat struct {
	Region      string
	Incarnation string
	Hashing     string // tells whether both hash with one keyset
	Index       uint64 // of what the Regions decide together, applied before the heads were read
	Heads       map[string]int64
	At          int64 // Unix milliseconds, by the sender's clock
	Apart       bool  `json:",omitempty"` // the sender has not heard of whom it tells for Retention; see apart.go
}

type lost struct{ Reason string }

// block is a block on its way: its records without what came from elsewhere.
type block struct {
	N       int64
	At      int64 // Unix milliseconds
	Hash    []byte
	Records [][]byte
}

// codec compresses and takes apart; it is safe for concurrent use.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(plainBytesMax), zstd.WithDecoderLowmem(true))
	return &codec{enc, dec}, err
}

// appendFrame appends a frame around what write appends.
func appendFrame(b []byte, name byte, write func([]byte) []byte) []byte {
	b = append(b, name, 0, 0, 0, 0)
	start := len(b)
	b = write(b)
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

func appendJSON(b []byte, name byte, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("replica: a frame of %T: %v", v, err)) // plain structs always have a JSON form
	}
	return appendFrame(b, name, func(b []byte) []byte { return append(b, data...) })
}

// pack writes records, each behind its length, compressed.
func (c *codec) pack(b []byte, records [][]byte) []byte {
	size := 0
	for _, r := range records {
		size += len(r) + binary.MaxVarintLen32
	}
	plain := make([]byte, 0, size)
	for _, r := range records {
		plain = append(binary.AppendUvarint(plain, uint64(len(r))), r...)
	}
	return c.enc.EncodeAll(plain, b)
}

func (c *codec) unpack(b []byte) ([][]byte, error) {
	plain, err := c.dec.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	var records [][]byte
	for len(plain) > 0 {
		n, k := binary.Uvarint(plain)
		if k <= 0 || n > uint64(len(plain)-k) {
			return nil, errFrame
		}
		records = append(records, plain[k:k+int(n):k+int(n)])
		plain = plain[k+int(n):]
	}
	return records, nil
}

// appendBlock appends a block's frame: number, time, hash, records.
func (c *codec) appendBlock(b []byte, bl block) []byte {
	return appendFrame(b, frameBlock, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(bl.N))
		b = binary.AppendUvarint(b, uint64(bl.At))
		b = append(binary.AppendUvarint(b, uint64(len(bl.Hash))), bl.Hash...)
		return c.pack(b, bl.Records)
	})
}

func (c *codec) decodeBlock(b []byte) (block, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 {
		return block{}, errFrame
	}
	at, l := binary.Uvarint(b[k:])
	if l <= 0 {
		return block{}, errFrame
	}
	hash, m := binary.Uvarint(b[k+l:])
	if m <= 0 || hash > uint64(len(b)-k-l-m) {
		return block{}, errFrame
	}
	b = b[k+l+m:]
	records, err := c.unpack(b[hash:])
	return block{int64(n), int64(at), b[:hash:hash], records}, err
}

// appendRows appends rows' frame: the number of the last row, then the changes.
func (c *codec) appendRows(b []byte, last int64, changes [][]byte) []byte {
	return appendFrame(b, frameRows, func(b []byte) []byte {
		return c.pack(binary.AppendUvarint(b, uint64(last)), changes)
	})
}

func (c *codec) decodeRows(b []byte) (last int64, changes [][]byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 {
		return 0, nil, errFrame
	}
	changes, err = c.unpack(b[k:])
	return int64(n), changes, err
}

// readFrame reads the next frame, of at most frameBytesMax.
func readFrame(r *bufio.Reader) (name byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > frameBytesMax {
		return 0, nil, fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	content = make([]byte, n)
	if _, err := io.ReadFull(r, content); err != nil {
		return 0, nil, err
	}
	return head[0], content, nil
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
