package router

import "math"

// A view is what the spreading of one request goes by: the Regions that are on,
// with their weights and health. It is never changed once made.
type view struct {
	places  []place
	weights float64 // sum
	healthy int     // places with a share
	primary int     // 1 + the place that comes first, in warm-standby; 0 if none
}

// A place is one Region in a view.
type place struct {
	region *region
	seed   uint64 // hash of its name: the same in every router
	weight float64
	share  float64 // of what its weight gives it: 0 ill, 1 well, between while it returns
}

// An order is the places of a view as a request should try them.
type order struct {
	at    [regionsMax]uint8
	n     int
	alive int // the first of them are not ill
}

// sticky orders the places for a key. The same key has the same order in every
// router, and when a Region falls ill, returns or changes its weight, only keys
// that leave it or come to it have another first place (weighted rendezvous).
func (v *view) sticky(key uint64) order {
	var scores [regionsMax]float64
	for i := range v.places {
		p := &v.places[i]
		scores[i] = -math.Log(unit(mix(key^p.seed))) / p.weight
	}
	return v.sorted(key, &scores)
}

// inTurn orders the places for the n-th call that has no key. Any run of calls
// is spread as evenly as the weights allow: a golden-section sequence leaves no
// gaps, where chance would.
func (v *view) inTurn(n uint64) order {
	var scores [regionsMax]float64
	key := mix(n)
	at := unit(n*golden) * v.weights
	found := false
	for i := range v.places {
		p := &v.places[i]
		scores[i] = -math.Log(unit(mix(key^p.seed))) / p.weight
		if at -= p.weight; at < 0 && !found {
			scores[i], found = -1, true
		}
	}
	return v.sorted(key, &scores)
}

// sorted orders the places by score, smallest first, in three groups: those that
// take this key, those on their way back that do not take it yet, and the ill.
func (v *view) sorted(key uint64, scores *[regionsMax]float64) order {
	if v.primary > 0 {
		scores[v.primary-1] = -2
	}
	var group [regionsMax]uint8
	var o order
	for i := range v.places {
		p := &v.places[i]
		switch {
		case p.share <= 0:
			group[i] = 2
		case p.share < 1 && unit(mix(key^p.seed^returning)) >= p.share:
			group[i] = 1
		}
		if group[i] < 2 {
			o.alive++
		}
		at := o.n
		for ; at > 0; at-- {
			j := o.at[at-1]
			if group[j] < group[i] || group[j] == group[i] && scores[j] <= scores[i] {
				break
			}
			o.at[at] = j
		}
		o.at[at] = uint8(i)
		o.n++
	}
	return o
}

const (
	golden    = 0x9e3779b97f4a7c15 // 2^64 over the golden section
	returning = 0x5851f42d4c957f2d // makes which keys return first independent of where keys live
)

// mix spreads every bit of x over all bits: the finalizer of MurmurHash3.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// unit maps x to a number above 0 and below 1.
func unit(x uint64) float64 { return (float64(x>>11) + 0.5) / (1 << 53) }

// hash is FNV-1a, which a key is built up with.
type hash uint64

const hashStart hash = 0xcbf29ce484222325

func (h hash) byte(b byte) hash { return (h ^ hash(b)) * 0x100000001b3 }

func (h hash) text(s string) hash {
	for i := range len(s) {
		h = h.byte(s[i])
	}
	return h.byte(0)
}

// escaped adds a segment of a path with its percent-encoding undone, so that two
// spellings of one id are one key. What is no encoding stands for itself.
func (h hash) escaped(s string) hash {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if hi, lo := nibble(s[i+1]), nibble(s[i+2]); hi >= 0 && lo >= 0 {
				c = byte(hi<<4 | lo)
				i += 2
			}
		}
		h = h.byte(c)
	}
	return h.byte(0)
}

// nibble returns the value of a hex digit, or -1.
func nibble(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
