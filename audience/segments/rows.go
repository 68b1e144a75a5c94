package segments

// rows keeps short lists of term ids, one for each endpoint and user, in large
// pages without pointers: a list is a slot of its size class. A row is what an
// update is compared with, and what a single endpoint is judged by.
type rows struct {
	classes [len(rowSizes)]rowClass
}

type rowClass struct {
	pages [][]uint32
	free  []uint32
	used  uint32 // slots ever taken
}

// rowSizes are the classes' slot lengths, the length word included. An endpoint
// of 15 KB holds fewer values than the last; see termsMax.
var rowSizes = [...]uint32{
	4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768,
	1024, 2048, 4096, 8192, 16384,
}

// A row's name is its slot and, in the lowest bits, its class; 0 is the empty row.
const (
	rowClassBits = 5
	rowPageWords = 1 << 14
	termsMax     = 16384 - 1
)

func rowPage(size uint32) uint32 { return max(1, rowPageWords/size) }

// put stores a list of at most termsMax ids and returns its name.
func (r *rows) put(ids []uint32) uint32 {
	if len(ids) == 0 {
		return 0
	}
	k := 0
	for rowSizes[k] < uint32(len(ids))+1 {
		k++
	}
	c := &r.classes[k]
	var slot uint32
	if n := len(c.free); n > 0 {
		slot, c.free = c.free[n-1], c.free[:n-1]
	} else {
		if c.used == uint32(len(c.pages))*rowPage(rowSizes[k]) {
			c.pages = append(c.pages, make([]uint32, rowPage(rowSizes[k])*rowSizes[k]))
		}
		slot = c.used
		c.used++
	}
	s := r.slot(k, slot)
	s[0] = uint32(len(ids))
	copy(s[1:], ids)
	return (slot+1)<<rowClassBits | uint32(k)
}

func (r *rows) slot(class int, slot uint32) []uint32 {
	size := rowSizes[class]
	per := rowPage(size)
	at := slot % per * size
	return r.classes[class].pages[slot/per][at : at+size]
}

// get returns the list; it is valid until the row is dropped.
func (r *rows) get(name uint32) []uint32 {
	if name == 0 {
		return nil
	}
	s := r.slot(int(name&(1<<rowClassBits-1)), name>>rowClassBits-1)
	return s[1 : 1+s[0]]
}

// drop frees the row.
func (r *rows) drop(name uint32) {
	if name == 0 {
		return
	}
	c := &r.classes[name&(1<<rowClassBits-1)]
	c.free = append(c.free, name>>rowClassBits-1)
}
