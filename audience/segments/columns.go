package segments

import (
	"math"
	"slices"
)

// Ordinals are grouped in pages, so that an index grows without moving what it
// has.
const (
	pageBits = 10
	pageLen  = 1 << pageBits
	pageMask = pageLen - 1
)

// none is no ordinal.
const none = math.MaxUint32

// endpointPage holds what is known of 1,024 endpoints besides their values.
type endpointPage struct {
	key    [pageLen][tailBytes]byte // the store key without the app's part
	hash   [pageLen]uint64          // dispatch hash
	last   [pageLen]int64           // last activity, milliseconds since 1970
	born   [pageLen]uint64          // the app's count of births when this one came
	row    [pageLen]uint32          // its terms
	user   [pageLen]uint32          // its user; none
	next   [pageLen]uint32          // in the list of the user's endpoints; none
	prev   [pageLen]uint32
	cohort [pageLen]uint8
}

// newEndpointPage returns a page none of whose ordinals has a user.
func newEndpointPage() *endpointPage {
	p := new(endpointPage)
	for i := range p.user {
		p.user[i] = none
	}
	return p
}

// userPage holds what is known of 1,024 users besides their values.
type userPage struct {
	key  [pageLen][tailBytes]byte
	row  [pageLen]uint32 // its terms
	head [pageLen]uint32 // the first of its endpoints; none
}

// numbers is a metric of all endpoints of an app. NaN is absence: it compares
// false with everything, as an absent metric must.
type numbers struct {
	pages []numberPage
}

// numberPage holds 1,024 endpoints' numbers: a sorted list while they are few.
type numberPage struct {
	places []uint16
	values []float64
	all    *[pageLen]float64 // nil while the list is used
}

// numbersListMax is how many numbers a page's list holds: above it the array is
// hardly larger and faster to scan.
const numbersListMax = 256

func (n *numbers) put(ordinal uint32, v float64) {
	for int(ordinal>>pageBits) >= len(n.pages) {
		n.pages = append(n.pages, numberPage{})
	}
	p, at := &n.pages[ordinal>>pageBits], uint16(ordinal&pageMask)
	if p.all == nil {
		i, ok := slices.BinarySearch(p.places, at)
		switch {
		case ok:
			p.values[i] = v
			return
		case len(p.places) < numbersListMax:
			p.places = slices.Insert(p.places, i, at)
			p.values = slices.Insert(p.values, i, v)
			return
		}
		p.all = new([pageLen]float64)
		for i := range p.all {
			p.all[i] = math.NaN()
		}
		for i, x := range p.places {
			p.all[x] = p.values[i]
		}
		p.places, p.values = nil, nil
	}
	p.all[at] = v
}

func (n *numbers) remove(ordinal uint32) {
	p, at := &n.pages[ordinal>>pageBits], uint16(ordinal&pageMask)
	if p.all != nil {
		p.all[at] = math.NaN()
		return
	}
	if i, ok := slices.BinarySearch(p.places, at); ok {
		p.places = slices.Delete(p.places, i, i+1)
		p.values = slices.Delete(p.values, i, i+1)
	}
}

// get returns NaN for an endpoint without the metric.
func (n *numbers) get(ordinal uint32) float64 {
	if int(ordinal>>pageBits) >= len(n.pages) {
		return math.NaN()
	}
	p, at := &n.pages[ordinal>>pageBits], uint16(ordinal&pageMask)
	if p.all != nil {
		return p.all[at]
	}
	if i, ok := slices.BinarySearch(p.places, at); ok {
		return p.values[i]
	}
	return math.NaN()
}

// scan adds to dst the ordinals whose number compares so with v. The loop over
// a page is written out for each comparison: it is the hottest there is.
func (n *numbers) scan(c comparison, v float64, dst bitset) {
	for i := range n.pages {
		p := &n.pages[i]
		if p.all == nil {
			for j, x := range p.values {
				if c.holds(x, v) {
					dst.set(uint32(i<<pageBits) | uint32(p.places[j]))
				}
			}
			continue
		}
		words := dst[i<<pageBits>>6:][:pageLen/64]
		for w := range words {
			values := p.all[w<<6:][:64]
			var m uint64
			switch c {
			case equal:
				for j, x := range values {
					m |= bit(x == v) << j
				}
			case greater:
				for j, x := range values {
					m |= bit(x > v) << j
				}
			case greaterOrEqual:
				for j, x := range values {
					m |= bit(x >= v) << j
				}
			case less:
				for j, x := range values {
					m |= bit(x < v) << j
				}
			case lessOrEqual:
				for j, x := range values {
					m |= bit(x <= v) << j
				}
			}
			words[w] |= m
		}
	}
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// comparison is a metric's operator.
type comparison uint8

const (
	equal comparison = iota
	greater
	greaterOrEqual
	less
	lessOrEqual
)

func (c comparison) holds(x, v float64) bool {
	switch c {
	case equal:
		return x == v
	case greater:
		return x > v
	case greaterOrEqual:
		return x >= v
	case less:
		return x < v
	default:
		return x <= v
	}
}
