package segments

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// KindMember rows are the members of imported segments, many in each row:
// app/segment/version/chunk. The row app/segment/version/end says how many
// chunks there are; it is written last, in the same stream, so that a Region
// which has it has them all.
var KindMember = store.Kind{Name: "segmentmember", Rule: changelog.RuleDocument}

// chunk is a part of an imported segment: store keys without the app's part.
type chunk struct {
	endpoints, users [][tailBytes]byte
}

const (
	chunkMax     = 10_000 // keys of one chunk
	chunksAtOnce = 16     // in memory while a list is read
)

func versionKey(app string, v version) string {
	return fmt.Sprintf("%s/%s/%010d", app, v.id, v.number)
}

func chunkKey(app string, v version, i int) string {
	return fmt.Sprintf("%s/%010d", versionKey(app, v), i)
}

func endKey(app string, v version) string { return versionKey(app, v) + "/end" }

func appendChunk(b []byte, c chunk) []byte {
	b = binary.AppendUvarint(b, uint64(len(c.endpoints)))
	b = binary.AppendUvarint(b, uint64(len(c.users)))
	for i := range c.endpoints {
		b = append(b, c.endpoints[i][:]...)
	}
	for i := range c.users {
		b = append(b, c.users[i][:]...)
	}
	return b
}

var errMembers = errors.New("segments: the members of an imported segment are corrupt")

func decodeChunk(b []byte) (chunk, error) {
	e, k := binary.Uvarint(b)
	if k <= 0 || e > chunkMax {
		return chunk{}, errMembers
	}
	b = b[k:]
	u, k := binary.Uvarint(b)
	if k <= 0 || u > chunkMax || uint64(len(b)-k) != (e+u)*tailBytes {
		return chunk{}, errMembers
	}
	b = b[k:]
	c := chunk{make([][tailBytes]byte, e), make([][tailBytes]byte, u)}
	for _, list := range [][][tailBytes]byte{c.endpoints, c.users} {
		for i := range list {
			copy(list[i][:], b)
			b = b[tailBytes:]
		}
	}
	return c, nil
}

// end is the marker that closes a list.
type end struct{ Chunks int }

// eachChunk reads the members of an imported segment.
func eachChunk(r store.Reader, app string, v version, yield func(chunk) error) error {
	last, err := store.Load[end](r, KindMember, endKey(app, v))
	if err != nil {
		return err
	}
	if last == nil {
		return aws.Unavailable("the members of imported segment %s have not all arrived in this Region", v.id)
	}
	prefix, after := versionKey(app, v)+"/", ""
	for next := 0; next < last.Chunks; {
		rows, err := r.List(KindMember, prefix, after, min(chunksAtOnce, last.Chunks-next))
		if err != nil {
			return err
		}
		if len(rows) == 0 || strings.HasSuffix(rows[len(rows)-1].Key, "/end") {
			return fmt.Errorf("%w: %d chunks of %d", errMembers, next+len(rows), last.Chunks)
		}
		for _, row := range rows {
			d, err := changelog.DecodeDocument(row.Body)
			if err != nil {
				return err
			}
			c, err := decodeChunk(d.Body)
			if err != nil {
				return err
			}
			if err := yield(c); err != nil {
				return err
			}
		}
		next, after = next+len(rows), rows[len(rows)-1].Key
	}
	return nil
}
