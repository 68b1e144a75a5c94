package segments

// table finds ids by hash: open addressing, split into parts that grow one at a
// time, so that no single insertion has to move a table of millions. It keeps
// ids only; the caller compares what they stand for.
type table struct {
	parts [tableParts]tablePart
}

type tablePart struct {
	slots []uint32 // id + 1; 0 is free. A power of two long, or empty.
	n     int
}

const (
	tableParts    = 64
	tablePartBits = 6
	slotsMin      = 8
)

func (t *table) part(hash uint32) *tablePart { return &t.parts[hash>>(32-tablePartBits)] }

// find returns the id with the hash for which same holds.
func (t *table) find(hash uint32, same func(id uint32) bool) (uint32, bool) {
	p := t.part(hash)
	if len(p.slots) == 0 {
		return 0, false
	}
	mask := uint32(len(p.slots) - 1)
	for i := hash & mask; p.slots[i] != 0; i = (i + 1) & mask {
		if id := p.slots[i] - 1; same(id) {
			return id, true
		}
	}
	return 0, false
}

// insert adds an id that is not in the table.
func (t *table) insert(hash, id uint32, hashOf func(id uint32) uint32) {
	p := t.part(hash)
	if (p.n+1)*4 > len(p.slots)*3 {
		old := p.slots
		p.slots = make([]uint32, max(slotsMin, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				p.place(hashOf(s-1), s)
			}
		}
	}
	p.place(hash, id+1)
	p.n++
}

func (p *tablePart) place(hash, slot uint32) {
	mask := uint32(len(p.slots) - 1)
	i := hash & mask
	for p.slots[i] != 0 {
		i = (i + 1) & mask
	}
	p.slots[i] = slot
}

// remove takes out an id that is in the table.
func (t *table) remove(hash, id uint32, hashOf func(id uint32) uint32) {
	p := t.part(hash)
	mask := uint32(len(p.slots) - 1)
	i := hash & mask
	for p.slots[i] != id+1 {
		i = (i + 1) & mask
	}
	p.n--
	// Close the gap: move back every follower that the gap lies on the way to.
	for j := (i + 1) & mask; p.slots[j] != 0; j = (j + 1) & mask {
		home := hashOf(p.slots[j]-1) & mask
		if (j-home)&mask >= (j-i)&mask {
			p.slots[i] = p.slots[j]
			i = j
		}
	}
	p.slots[i] = 0
}
