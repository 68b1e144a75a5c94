package store

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/btree"
)

// posting says that a row is found under an entry: its kind and key, or a keyed
// hash.
type posting struct {
	entry string
	doc   int64
}

func (p posting) before(q posting) bool {
	return p.entry < q.entry || p.entry == q.entry && p.doc < q.doc
}

// keyEntry and hashEntry are apart from each other, and the keys of one kind are
// side by side.
func keyEntry(p place) string       { return keyFrom(p.kind, p.key) }
func keyFrom(kind, k string) string { return kind + "\x00" + k }
func hashEntry(hash string) string  { return "\xff" + hash }

// young holds the postings that SQLite's table of them does not have yet.
//
// Keys and hashes are random, so each new one belongs to another page of the
// table; written at once, a commit of a few thousand rows would write nearly as
// many pages. So a commit only adds what is new to a log and to memory, and
// takes a stretch of older postings over into the table, in order: many for each
// page. Memory holds two generations, fresh and ageing, of youngMax postings
// each at most; the ageing one is what is being taken over. When it is, its part
// of the log is removed.
//
// Only the writer changes it, after a commit; readers look here first, then in
// the table: a posting that moves meanwhile is seen twice, never missed. What a
// commit adds is seen from before it on, though the rows are not there yet: who
// has seen a row gone sees all that was written with its removal.
type young struct {
	max int

	mu            sync.RWMutex
	fresh, ageing *btree.BTreeG[posting] // ageing is empty, not nil, between two generations
	coming        []posting              // of the commit under way, in the order of entries

	// The log's records: first to last are there, up to aged they are of ageing or
	// before it, up to done they are of no use any more.
	first, aged, done, last int64
	logged                  int // postings in the records after aged, added or dropped
}

// youngMax is how many postings a generation is logged with: enough that several
// go to one page of a table of some millions.
const youngMax = 200_000

func newGeneration() *btree.BTreeG[posting] {
	return btree.NewBTreeGOptions(posting.before, btree.Options{NoLocks: true})
}

func newYoung(limit int) *young {
	if limit == 0 {
		limit = youngMax
	}
	return &young{max: limit, fresh: newGeneration(), ageing: newGeneration(), first: 1}
}

// under returns the first rows under an entry, at most limit for each generation.
func (y *young) under(entry string, limit int) []int64 {
	y.mu.RLock()
	defer y.mu.RUnlock()
	var docs []int64
	for _, part := range []*btree.BTreeG[posting]{y.fresh, y.ageing} {
		n := 0
		part.Ascend(posting{entry: entry}, func(p posting) bool {
			if p.entry != entry || n == limit {
				return false
			}
			docs = append(docs, p.doc)
			n++
			return true
		})
	}
	return append(docs, y.soon(entry, entry+"\x00", limit)...)
}

// soon returns the rows under entries from one to below another that the commit
// under way adds, the first of them, at most limit; y.mu is held.
func (y *young) soon(from, before string, limit int) []int64 {
	at, _ := slices.BinarySearchFunc(y.coming, from, func(p posting, entry string) int { return strings.Compare(p.entry, entry) })
	var docs []int64
	for ; at < len(y.coming) && y.coming[at].entry < before && len(docs) < limit; at++ {
		docs = append(docs, y.coming[at].doc)
	}
	return docs
}

// announce precedes a commit that will add postings.
func (y *young) announce(adds []posting) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.coming = adds
}

// between returns the rows under the first entries from one to below another, at
// most limit for each generation, and whether there are no more; and apart those
// that may not be there yet.
func (y *young) between(from, before string, limit int) (docs, soon []int64, all bool) {
	y.mu.RLock()
	defer y.mu.RUnlock()
	all = true
	for _, part := range []*btree.BTreeG[posting]{y.fresh, y.ageing} {
		n := 0
		part.Ascend(posting{entry: from}, func(p posting) bool {
			if p.entry >= before {
				return false
			}
			if n == limit {
				all = false
				return false
			}
			docs = append(docs, p.doc)
			n++
			return true
		})
	}
	return docs, y.soon(from, before, limit), all
}

// all returns every posting.
func (y *young) all() []posting {
	y.mu.RLock()
	defer y.mu.RUnlock()
	return append(y.fresh.Items(), y.ageing.Items()...)
}

// isFresh reports whether a posting is surely not in the table.
func (y *young) isFresh(p posting) bool {
	_, ok := y.fresh.Get(p)
	return ok
}

// oldest returns the next postings to take over, in order, at most n.
func (y *young) oldest(n int) []posting {
	out := make([]posting, 0, min(n, y.ageing.Len()))
	y.ageing.Scan(func(p posting) bool {
		if len(out) == n {
			return false
		}
		out = append(out, p)
		return true
	})
	return out
}

// useless returns the log's records to remove, from and up to, at most n of them.
func (y *young) useless(n int64) (from, to int64) { return y.first, min(y.done, y.first+n-1) }

// step is what one commit does to the young postings.
type step struct {
	adds, drops []posting
	moved       []posting // taken over into the table
	record      int64     // the log's new record; 0: none
	removed     int64     // the log's records up to here are gone
}

// take follows a commit.
func (y *young) take(s step) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.coming = nil
	for _, p := range s.moved {
		y.ageing.Delete(p)
	}
	y.apply(s.adds, s.drops)
	y.logged += len(s.adds) + len(s.drops)
	y.last = max(y.last, s.record)
	y.first = max(y.first, s.removed+1)
	if y.ageing.Len() > 0 {
		return
	}
	y.done = y.aged
	// Not by what fresh holds: rows that come and go fill the log, and not fresh.
	if y.logged >= y.max {
		y.fresh, y.ageing, y.aged, y.logged = y.ageing, y.fresh, y.last, 0
	}
}

func (y *young) apply(adds, drops []posting) {
	for _, p := range drops {
		y.fresh.Delete(p)
		y.ageing.Delete(p)
	}
	for _, p := range adds {
		y.fresh.Set(p)
	}
}

// replay takes a record of the log when the database is opened.
func (y *young) replay(n int64, record []byte) error {
	adds, drops, err := decodePostings(record)
	if err != nil {
		return err
	}
	if y.last == 0 {
		y.first = n
	}
	y.last = n
	y.apply(adds, drops)
	return nil
}

// replayed ends the replay. Of what it found, some is in the table already.
func (y *young) replayed() {
	y.fresh, y.ageing, y.aged = y.ageing, y.fresh, y.last
	if y.ageing.Len() == 0 {
		y.done = y.aged
	}
}

// encodePostings writes a record of the log: the number of drops, the drops,
// the adds. Each posting is its row, how many bytes its entry shares with the one
// before, how many more it has, and those.
func encodePostings(adds, drops []posting) []byte {
	b := binary.AppendUvarint(make([]byte, 0, 16+24*(len(adds)+len(drops))), uint64(len(drops)))
	previous := ""
	for _, list := range [][]posting{drops, adds} {
		for _, p := range list {
			n := 0
			for n < len(p.entry) && n < len(previous) && p.entry[n] == previous[n] {
				n++
			}
			b = binary.AppendUvarint(b, uint64(p.doc))
			b = binary.AppendUvarint(b, uint64(n))
			b = appendLength(b, len(p.entry)-n)
			b = append(b, p.entry[n:]...)
			previous = p.entry
		}
	}
	return b
}

var errPostings = errors.New("store: a record of young postings is corrupt")

func decodePostings(b []byte) (adds, drops []posting, err error) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = errPostings
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	left := next()
	previous := ""
	for len(b) > 0 {
		doc, shared, more := next(), next(), next()
		if err != nil || shared > uint64(len(previous)) || more > uint64(len(b)) {
			return nil, nil, errPostings
		}
		previous = previous[:shared] + string(b[:more])
		b = b[more:]
		if p := (posting{previous, int64(doc)}); left > 0 {
			drops = append(drops, p)
			left--
		} else {
			adds = append(adds, p)
		}
	}
	if left > 0 {
		err = errPostings
	}
	return adds, drops, err
}
