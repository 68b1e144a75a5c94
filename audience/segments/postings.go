package segments

import "slices"

// postings is the set of ordinals that have one value of one column. It has one
// of two forms: a sorted list while it is short, and blocks of 65,536 ordinals
// once it is long, each block a sorted list or a bit set, whichever is smaller.
// The zero postings is empty.
type postings struct {
	few    []uint32
	blocks []block // sorted by key; nil while few is used
	n      int
}

// block holds the members of one range of 65,536 ordinals.
type block struct {
	key   uint32 // ordinal >> 16
	n     int
	list  []uint16 // sorted; nil when words is used
	words *[blockWords]uint64
}

const (
	blockWords = 1024
	fewMax     = 256  // members of the short form
	listMax    = 4096 // members of a block's list: above it the bit set is smaller
)

// add puts x into the set; x must not be in it.
func (p *postings) add(x uint32) {
	p.n++
	if p.blocks == nil {
		if len(p.few) < fewMax {
			i, _ := slices.BinarySearch(p.few, x)
			p.few = slices.Insert(p.few, i, x)
			return
		}
		for _, y := range p.few {
			p.block(y).add(uint16(y))
		}
		p.few = nil
	}
	p.block(x).add(uint16(x))
}

// remove takes x out of the set; x must be in it.
func (p *postings) remove(x uint32) {
	p.n--
	if p.blocks == nil {
		i, _ := slices.BinarySearch(p.few, x)
		p.few = slices.Delete(p.few, i, i+1)
		return
	}
	i, _ := p.find(x >> 16)
	if p.blocks[i].remove(uint16(x)); p.blocks[i].n == 0 {
		p.blocks = slices.Delete(p.blocks, i, i+1)
	}
	if p.n <= fewMax/2 {
		few := make([]uint32, 0, p.n)
		p.each(func(y uint32) { few = append(few, y) })
		p.few, p.blocks = few, nil
	}
}

func (p *postings) find(key uint32) (int, bool) {
	// New ordinals go to the last block more often than not.
	if n := len(p.blocks); n > 0 && p.blocks[n-1].key == key {
		return n - 1, true
	}
	return slices.BinarySearchFunc(p.blocks, key, func(b block, k uint32) int { return int(b.key) - int(k) })
}

func (p *postings) block(x uint32) *block {
	i, ok := p.find(x >> 16)
	if !ok {
		p.blocks = slices.Insert(p.blocks, i, block{key: x >> 16})
	}
	return &p.blocks[i]
}

// orInto adds the members to dst, which must be long enough for all of them.
func (p *postings) orInto(dst bitset) {
	for _, x := range p.few {
		dst.set(x)
	}
	for i := range p.blocks {
		b := &p.blocks[i]
		if b.words == nil {
			base := dst[int(b.key)*blockWords:]
			for _, x := range b.list {
				base[x>>6] |= 1 << (x & 63)
			}
			continue
		}
		// The last block of dst may be cut short; what is cut off holds no member.
		base := dst[int(b.key)*blockWords:]
		words := b.words[:min(blockWords, len(base))]
		base = base[:len(words)]
		for j, w := range words {
			base[j] |= w
		}
	}
}

// each calls f with every member in order.
func (p *postings) each(f func(uint32)) {
	for _, x := range p.few {
		f(x)
	}
	for i := range p.blocks {
		b := &p.blocks[i]
		for _, x := range b.list {
			f(b.key<<16 | uint32(x))
		}
		if b.words != nil {
			bitset(b.words[:]).each(func(x uint32) { f(b.key<<16 | x) })
		}
	}
}

func (b *block) add(x uint16) {
	b.n++
	if b.words == nil {
		if len(b.list) < listMax {
			i := len(b.list)
			if i > 0 && b.list[i-1] > x {
				i, _ = slices.BinarySearch(b.list, x)
			}
			b.list = slices.Insert(b.list, i, x)
			return
		}
		b.words = new([blockWords]uint64)
		for _, y := range b.list {
			bitset(b.words[:]).set(uint32(y))
		}
		b.list = nil
	}
	bitset(b.words[:]).set(uint32(x))
}

func (b *block) remove(x uint16) {
	b.n--
	if b.words == nil {
		i, _ := slices.BinarySearch(b.list, x)
		b.list = slices.Delete(b.list, i, i+1)
		return
	}
	bitset(b.words[:]).clear(uint32(x))
	// Half way back, so that a set at the border does not change form each time.
	if b.n <= listMax/2 {
		list := make([]uint16, 0, b.n)
		bitset(b.words[:]).each(func(y uint32) { list = append(list, uint16(y)) })
		b.list, b.words = list, nil
	}
}
