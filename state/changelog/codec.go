package changelog

import (
	"encoding/binary"
	"errors"
	"slices"
)

// A record's binary form, all numbers unsigned varints:
//
//	version 1 | generation | deletedAt | stamp table | opt-outs | registers
//	stamp      clock, length, Region
//	opt-out    length, Region, out, revoked
//	register   length, path, kind (0 removed, 1 value), length, value,
//	           indexes of At and Over, from 1 (0 none)
//
// The stamp table lists each distinct stamp once: a record written by one
// import holds one.

const recordVersion = 1

// Bounds of a decoded record; a longer one is refused as corrupt.
const (
	registersMax = 4096
	stampsMax    = 8192
	regionsMax   = 256
)

var errCorrupt = errors.New("changelog: record is corrupt")

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStamp(b []byte, s Stamp) []byte {
	return appendString(binary.AppendUvarint(b, s.Clock), s.Region)
}

// AppendRecord appends the binary form of r to b.
func AppendRecord(b []byte, r *Record) []byte {
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, uint64(r.Generation))
	b = appendStamp(b, r.DeletedAt)

	table := make([]Stamp, 0, 8)
	index := func(s Stamp) uint64 {
		if s.IsZero() {
			return 0
		}
		i := slices.Index(table, s)
		if i < 0 {
			table = append(table, s)
			i = len(table) - 1
		}
		return uint64(i + 1)
	}
	for i := range r.Registers {
		index(r.Registers[i].At)
		index(r.Registers[i].Over)
	}
	b = binary.AppendUvarint(b, uint64(len(table)))
	for _, s := range table {
		b = appendStamp(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(r.OptOut)))
	for _, o := range r.OptOut {
		b = appendString(b, o.Region)
		b = binary.AppendUvarint(b, o.Out)
		b = binary.AppendUvarint(b, o.Revoked)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Registers)))
	for i := range r.Registers {
		g := &r.Registers[i]
		b = appendString(b, g.Path)
		if g.Value == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1)
			b = append(binary.AppendUvarint(b, uint64(len(g.Value))), g.Value...)
		}
		b = binary.AppendUvarint(b, index(g.At))
		b = binary.AppendUvarint(b, index(g.Over))
	}
	return b
}

// reader takes values off a byte slice; after a failure it stays failed.
type reader struct {
	b   []byte
	s   string // the same bytes as one string, so that paths share it
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) count(limit int) int {
	n := r.uint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	off := len(r.s) - len(r.b)
	r.b = r.b[n:]
	return r.s[off : off+int(n)]
}

func (r *reader) stamp() Stamp { return Stamp{r.uint(), r.string()} }

// DecodeRecord reads what AppendRecord wrote. Values alias data.
func DecodeRecord(data []byte) (Record, error) {
	rd := &reader{b: data, s: string(data)}
	if rd.byte() != recordVersion {
		return Record{}, errCorrupt
	}
	var r Record
	r.Generation = uint32(rd.uint())
	r.DeletedAt = rd.stamp()
	table := make([]Stamp, 1, 4)
	for range rd.count(stampsMax) {
		table = append(table, rd.stamp())
	}
	for range rd.count(regionsMax) {
		r.OptOut = append(r.OptOut, RegionOptOut{rd.string(), rd.uint(), rd.uint()})
	}
	n := rd.count(registersMax)
	if n > 0 {
		r.Registers = make([]Register, 0, n)
	}
	for range n {
		g := Register{Path: rd.string()}
		if rd.byte() == 1 {
			if g.Value = rd.bytes(); g.Value == nil {
				g.Value = []byte{}
			}
		}
		at, over := rd.uint(), rd.uint()
		if at >= uint64(len(table)) || over >= uint64(len(table)) || rd.bad {
			return Record{}, errCorrupt
		}
		g.At, g.Over = table[at], table[over]
		if k := len(r.Registers); k > 0 && r.Registers[k-1].Path >= g.Path {
			return Record{}, errCorrupt
		}
		r.Registers = append(r.Registers, g)
	}
	if rd.bad || len(rd.b) != 0 {
		return Record{}, errCorrupt
	}
	return r, nil
}
