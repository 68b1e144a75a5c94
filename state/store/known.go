package store

import (
	"hash/maphash"
	"math/bits"
	"sync"
)

// known answers, without a look into the database, that nothing is found under
// an entry. Most rows of an import are new, and asking SQLite for what is not
// there costs as much as writing it.
//
// The answer is right as long as every entry was added; until the filter has
// been filled from the table, it is "maybe".
type known struct {
	mu      sync.Mutex
	current *filter // nil: not filled yet
	next    *filter // being filled
}

// knownMax bounds a filter, in entries; a larger one would take more memory (12
// bits each) than it is worth.
const knownMax = 64_000_000

// maybe reports whether an entry may be there.
func (k *known) maybe(entry string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current == nil || k.current.has(entry)
}

func (k *known) add(postings []posting) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range []*filter{k.current, k.next} {
		if f != nil {
			for _, p := range postings {
				f.add(p.entry)
			}
		}
	}
	if k.current != nil && k.current.entries > knownMax {
		k.current = nil
	}
	k.bound()
}

// bound gives up a filter that grows too large while it is filled; k.mu is held.
func (k *known) bound() {
	if k.next != nil && k.next.entries > knownMax {
		k.next = nil
	}
}

// giveUp ends what begin began, without a filter.
func (k *known) giveUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = nil
}

// begin starts to fill a filter: whatever is added from now on is in it.
func (k *known) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = newFilter()
}

// fill adds what the database holds.
func (k *known) fill(postings []posting) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil {
		return
	}
	for _, p := range postings {
		k.next.add(p.entry)
	}
	k.bound()
}

// end takes the filter that was filled into use.
func (k *known) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next != nil {
		k.current = k.next
		k.current.filled = k.current.entries
	}
	k.next = nil
}

// worn reports whether so many entries were added to the filter, of which many
// may be gone again, that filling it anew is worth while.
func (k *known) worn() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current != nil && k.next == nil && k.current.entries > 4*k.current.filled+4_000_000
}

// filter is a Bloom filter that grows: when a layer is full, one of twice its
// size follows.
type filter struct {
	seed    maphash.Seed
	layers  []layer
	room    int // entries the last layer still takes
	entries int
	filled  int // entries when it was taken into use
}

// layer is an array of blocks of a cache line each; an entry sets a few bits in
// one of them.
type layer [][8]uint64

const (
	firstLayerEntries = 1 << 15
	entriesPerBlock   = 40 // 12.8 bits for each
	bitsPerEntry      = 6
)

func newFilter() *filter { return &filter{seed: maphash.MakeSeed()} }

// bitsOf returns a block's index and the bits within it that an entry sets.
func (l layer) bitsOf(hash uint64) (block uint64, places [bitsPerEntry]uint) {
	block, rest := bits.Mul64(hash, uint64(len(l)))
	rest *= 0x9e3779b97f4a7c15
	for i := range places {
		places[i] = uint(rest >> (64 - 9*(i+1)) & 511)
	}
	return block, places
}

func (f *filter) add(entry string) {
	hash := maphash.String(f.seed, entry)
	if f.room == 0 {
		f.room = firstLayerEntries << len(f.layers)
		f.layers = append(f.layers, make(layer, (f.room+entriesPerBlock-1)/entriesPerBlock))
	}
	l := f.layers[len(f.layers)-1]
	block, places := l.bitsOf(hash)
	for _, p := range places {
		l[block][p/64] |= 1 << (p % 64)
	}
	f.room--
	f.entries++
}

func (f *filter) has(entry string) bool {
	hash := maphash.String(f.seed, entry)
	for _, l := range f.layers {
		block, places := l.bitsOf(hash)
		all := true
		for _, p := range places {
			all = all && l[block][p/64]&(1<<(p%64)) != 0
		}
		if all {
			return true
		}
	}
	return false
}
