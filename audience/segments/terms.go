package segments

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"strings"

	"github.com/everpoint/everpoint/aws"
)

// columnKind says which of an endpoint's members a column holds.
type columnKind uint8

const (
	columnAttribute columnKind = iota
	columnUserAttribute
	columnMetric
	columnDemographic
	columnChannel
	columnCountry
	columnCoordinates
	columnKinds
)

// column is one member of the endpoints of an app: its distinct values or, for
// a metric, its numbers.
type column struct {
	kind  columnKind
	name  string
	terms []uint32 // the distinct values, in no order
	// numbers are the values of a metric; its one term marks the rows that have it.
	numbers *numbers
}

// term is one distinct value of one column, and who has it.
type term struct {
	value  string
	date   int64     // the value as an instant, microseconds since 1970; noDate when it is none
	set    *postings // members when there are several
	one    uint32    // the member when there is one
	n      uint32    // members
	hash   uint32
	column uint32
	place  uint32 // in the column's terms
}

const noDate = math.MinInt64

// dictionary numbers the columns and the distinct values of an app. A value
// that nobody has any more is forgotten.
type dictionary struct {
	columns []column
	byName  [columnKinds]map[string]uint32
	pages   [][]term
	used    uint32
	free    []uint32
	table   table
	seed    maphash.Seed
}

const termPage = 1024

func newDictionary() dictionary { return dictionary{seed: maphash.MakeSeed()} }

func (d *dictionary) term(id uint32) *term { return &d.pages[id/termPage][id%termPage] }

func (d *dictionary) hashOf(id uint32) uint32 { return d.term(id).hash }

func (d *dictionary) hash(column uint32, value string) uint32 {
	return uint32(mix(maphash.String(d.seed, value) + uint64(column)))
}

// column finds a column; ok is false when no endpoint ever had it.
func (d *dictionary) column(kind columnKind, name string) (id uint32, ok bool) {
	id, ok = d.byName[kind][name]
	return id, ok
}

// internColumn finds or makes a column. Columns are as many as the names that
// an app may use (engagement 2.3), and stay.
func (d *dictionary) internColumn(kind columnKind, name string) uint32 {
	if id, ok := d.byName[kind][name]; ok {
		return id
	}
	if d.byName[kind] == nil {
		d.byName[kind] = map[string]uint32{}
	}
	// The name may be a part of a whole record; keep the name alone.
	name = strings.Clone(name)
	id := uint32(len(d.columns))
	c := column{kind: kind, name: name}
	if kind == columnMetric {
		c.numbers = &numbers{}
	}
	d.columns = append(d.columns, c)
	d.byName[kind][name] = id
	return id
}

func (d *dictionary) find(column uint32, value string) (uint32, bool) {
	return d.table.find(d.hash(column, value), func(id uint32) bool {
		t := d.term(id)
		return t.column == column && t.value == value
	})
}

// intern finds or makes a value. A new one has no members; the caller adds one.
func (d *dictionary) intern(column uint32, value string) uint32 {
	if id, ok := d.find(column, value); ok {
		return id
	}
	var id uint32
	if n := len(d.free); n > 0 {
		id, d.free = d.free[n-1], d.free[:n-1]
	} else {
		if d.used == uint32(len(d.pages))*termPage {
			d.pages = append(d.pages, make([]term, termPage))
		}
		id = d.used
		d.used++
	}
	c := &d.columns[column]
	t := d.term(id)
	*t = term{
		value: strings.Clone(value), date: noDate, hash: d.hash(column, value),
		column: column, place: uint32(len(c.terms)),
	}
	if c.kind == columnAttribute || c.kind == columnUserAttribute {
		t.date = parseDate(t.value)
	}
	c.terms = append(c.terms, id)
	d.table.insert(t.hash, id, d.hashOf)
	return id
}

// add gives the term a member that it does not have.
func (d *dictionary) add(id, ordinal uint32) {
	t := d.term(id)
	t.n++
	switch {
	case d.columns[t.column].kind == columnMetric:
		// The numbers say who has the metric; the term is only counted.
	case t.n == 1:
		t.one = ordinal
	case t.set == nil:
		t.set = &postings{few: make([]uint32, 0, 2)}
		t.set.add(t.one)
		t.set.add(ordinal)
	default:
		t.set.add(ordinal)
	}
}

// remove takes a member away, and the term with its last.
func (d *dictionary) remove(id, ordinal uint32) {
	t := d.term(id)
	t.n--
	if t.set != nil {
		t.set.remove(ordinal)
		if t.n == 1 {
			t.set.each(func(x uint32) { t.one = x })
			t.set = nil
		}
	}
	if t.n > 0 {
		return
	}
	d.table.remove(t.hash, id, d.hashOf)
	c := &d.columns[t.column]
	last := c.terms[len(c.terms)-1]
	c.terms[t.place] = last
	d.term(last).place = t.place
	c.terms = c.terms[:len(c.terms)-1]
	*t = term{}
	d.free = append(d.free, id)
}

// orInto adds the term's members to dst.
func (t *term) orInto(dst bitset) {
	switch {
	case t.set != nil:
		t.set.orInto(dst)
	case t.n > 0:
		dst.set(t.one)
	}
}

// parseDate reads an attribute's value as an instant; noDate when it is none.
func parseDate(value string) int64 {
	// Most values are no dates; do not make errors of them.
	if len(value) < len("2006-01-02T15:04Z") || value[4] != '-' || value[7] != '-' {
		return noDate
	}
	t, err := aws.ParseTimestamp(value)
	if err != nil {
		return noDate
	}
	return t.UnixMicro()
}

// Coordinates are kept as values too: they have one decimal, so there are few
// distinct ones, and a distance is computed once for all endpoints of a place.

const coordinatesBytes = 16

func appendCoordinates(b []byte, latitude, longitude float64) []byte {
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(latitude))
	return binary.BigEndian.AppendUint64(b, math.Float64bits(longitude))
}

func (t *term) coordinates() (latitude, longitude float64) {
	var b [coordinatesBytes]byte
	copy(b[:], t.value)
	return math.Float64frombits(binary.BigEndian.Uint64(b[:8])), math.Float64frombits(binary.BigEndian.Uint64(b[8:]))
}
