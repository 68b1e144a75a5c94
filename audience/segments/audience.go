package segments

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
)

// audience is the index of one app. Evaluations share the lock; an update holds
// it alone, for a few microseconds.
type audience struct {
	app string

	mu    sync.RWMutex
	dict  dictionary
	rows  rows
	pages []*endpointPage
	used  uint32 // ordinals ever given out
	free  []uint32
	keys  table
	// births counts the endpoints that ever came, reuses those that took an
	// ordinal which another had before: whoever remembers an ordinal outside the
	// lock can tell whether it still means the same endpoint.
	births, reuses uint64

	live, active, optedOut, addressed bitset

	users    []*userPage
	userUsed uint32
	userFree []uint32
	userKeys table

	scratch []uint32
	text    []byte
}

// tailBytes is the length of a store key behind the app's part.
const tailBytes = 16

func newAudience(app string) *audience { return &audience{app: app, dict: newDictionary()} }

func (a *audience) page(ordinal uint32) (*endpointPage, uint32) {
	return a.pages[ordinal>>pageBits], ordinal & pageMask
}

func (a *audience) userPage(user uint32) (*userPage, uint32) {
	return a.users[user>>pageBits], user & pageMask
}

// keyHash makes the table's hash of a key, which is itself a keyed hash.
func keyHash(tail *[tailBytes]byte) uint32 { return binary.BigEndian.Uint32(tail[:4]) }

func (a *audience) hashOfKey(ordinal uint32) uint32 {
	p, i := a.page(ordinal)
	return keyHash(&p.key[i])
}

func (a *audience) hashOfUserKey(user uint32) uint32 {
	p, i := a.userPage(user)
	return keyHash(&p.key[i])
}

func (a *audience) find(tail *[tailBytes]byte) (uint32, bool) {
	return a.keys.find(keyHash(tail), func(o uint32) bool {
		p, i := a.page(o)
		return p.key[i] == *tail
	})
}

func (a *audience) findUser(tail *[tailBytes]byte) (uint32, bool) {
	return a.userKeys.find(keyHash(tail), func(u uint32) bool {
		p, i := a.userPage(u)
		return p.key[i] == *tail
	})
}

// upsert takes the endpoint as it now is; user is nil when it has none.
func (a *audience) upsert(tail, user *[tailBytes]byte, e *endpoints.Endpoint) {
	hash := hashOf(e, tail)
	cohort := uint8(endpoints.Cohort(e.App, e.ID))
	last := e.UpdatedAt.Time().UnixMilli()

	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.find(tail)
	if !ok {
		o = a.birth(tail, last)
	}
	p, i := a.page(o)
	p.hash[i], p.cohort[i], p.last[i] = hash, cohort, max(p.last[i], last)
	a.active.put(o, e.Active())
	a.optedOut.put(o, e.OptedOut)
	a.addressed.put(o, e.Address != "")

	a.scratch = a.terms(a.scratch[:0], e)
	p.row[i] = a.replace(p.row[i], a.scratch, o)
	for name, v := range e.Metrics {
		a.dict.columns[a.dict.internColumn(columnMetric, name)].numbers.put(o, v)
	}
	a.attach(o, user)
}

// hashOf is the endpoint's dispatch hash. One without an address cannot be sent
// to; its key stands in for the address, so that all those do not fall on one hash.
func hashOf(e *endpoints.Endpoint, tail *[tailBytes]byte) uint64 {
	if e.Address == "" {
		return DispatchHash(e.App, e.ChannelType, string(tail[:]))
	}
	return DispatchHash(e.App, e.ChannelType, e.Address)
}

// birth gives a new endpoint an ordinal.
func (a *audience) birth(tail *[tailBytes]byte, last int64) uint32 {
	var o uint32
	a.births++
	if n := len(a.free); n > 0 {
		o, a.free = a.free[n-1], a.free[:n-1]
		a.reuses++
	} else {
		if a.used == uint32(len(a.pages))*pageLen {
			a.pages = append(a.pages, newEndpointPage())
			for _, b := range []*bitset{&a.live, &a.active, &a.optedOut, &a.addressed} {
				*b = append(*b, make([]uint64, pageLen/64)...)
			}
		}
		o = a.used
		a.used++
	}
	p, i := a.page(o)
	p.key[i], p.born[i], p.last[i] = *tail, a.births, last
	p.user[i], p.next[i], p.prev[i] = none, none, none
	a.keys.insert(keyHash(tail), o, a.hashOfKey)
	a.live.set(o)
	return o
}

// terms appends the sorted ids of the endpoint's values: those that criteria
// can ask for, and no others. Metrics come first, so that there is room for all.
func (a *audience) terms(ids []uint32, e *endpoints.Endpoint) []uint32 {
	for name := range e.Metrics {
		ids = a.value(ids, columnMetric, name, "")
	}
	for _, name := range demographics {
		if v, ok := e.Demographic[name]; ok {
			ids = a.value(ids, columnDemographic, name, v)
		}
	}
	if e.ChannelType != "" {
		ids = a.value(ids, columnChannel, "", e.ChannelType)
	}
	if v, ok := e.Location["Country"]; ok {
		ids = a.value(ids, columnCountry, "", v)
	}
	if e.HasCoordinates {
		a.text = appendCoordinates(a.text[:0], e.Latitude, e.Longitude)
		ids = a.value(ids, columnCoordinates, "", string(a.text))
	}
	for name, values := range e.Attributes {
		for _, v := range values {
			ids = a.value(ids, columnAttribute, name, v)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// value appends the id of a value while there is room for it.
func (a *audience) value(ids []uint32, kind columnKind, name, value string) []uint32 {
	if len(ids) == termsMax {
		return ids
	}
	return append(ids, a.dict.intern(a.dict.internColumn(kind, name), value))
}

// demographics are the members that criteria can ask for. Source: engagement 3.1.
var demographics = [...]string{"AppVersion", "DeviceType", "Make", "Model", "Platform"}

// replace writes what changed between a row and the ids that the endpoint, or
// user, x now has, and returns the new row.
func (a *audience) replace(row uint32, ids []uint32, x uint32) uint32 {
	old := a.rows.get(row)
	if slices.Equal(old, ids) {
		return row
	}
	for i, j := 0, 0; j < len(ids); j++ {
		for i < len(old) && old[i] < ids[j] {
			i++
		}
		if i == len(old) || old[i] != ids[j] {
			a.dict.add(ids[j], x)
		}
	}
	for i, j := 0, 0; i < len(old); i++ {
		for j < len(ids) && ids[j] < old[i] {
			j++
		}
		if j < len(ids) && ids[j] == old[i] {
			continue
		}
		if n := a.dict.columns[a.dict.term(old[i]).column].numbers; n != nil {
			n.remove(x)
		}
		a.dict.remove(old[i], x)
	}
	next := a.rows.put(ids)
	a.rows.drop(row)
	return next
}

// attach makes the endpoint one of the user's, or of nobody's.
func (a *audience) attach(o uint32, user *[tailBytes]byte) {
	p, i := a.page(o)
	was := p.user[i]
	if user == nil {
		if was != none {
			a.detach(o)
		}
		return
	}
	u := a.internUser(user)
	if u == was {
		return
	}
	if was != none {
		a.detach(o)
	}
	up, ui := a.userPage(u)
	p.user[i], p.prev[i], p.next[i] = u, none, up.head[ui]
	if first := up.head[ui]; first != none {
		fp, fi := a.page(first)
		fp.prev[fi] = o
	}
	up.head[ui] = o
}

func (a *audience) detach(o uint32) {
	p, i := a.page(o)
	u := p.user[i]
	if p.prev[i] != none {
		pp, pi := a.page(p.prev[i])
		pp.next[pi] = p.next[i]
	} else {
		up, ui := a.userPage(u)
		up.head[ui] = p.next[i]
	}
	if p.next[i] != none {
		np, ni := a.page(p.next[i])
		np.prev[ni] = p.prev[i]
	}
	p.user[i], p.next[i], p.prev[i] = none, none, none
	a.forget(u)
}

func (a *audience) internUser(tail *[tailBytes]byte) uint32 {
	if u, ok := a.findUser(tail); ok {
		return u
	}
	var u uint32
	if n := len(a.userFree); n > 0 {
		u, a.userFree = a.userFree[n-1], a.userFree[:n-1]
	} else {
		if a.userUsed == uint32(len(a.users))*pageLen {
			a.users = append(a.users, new(userPage))
		}
		u = a.userUsed
		a.userUsed++
	}
	p, i := a.userPage(u)
	p.key[i], p.row[i], p.head[i] = *tail, 0, none
	a.userKeys.insert(keyHash(tail), u, a.hashOfUserKey)
	return u
}

// forget frees a user without endpoints and attributes.
func (a *audience) forget(u uint32) {
	p, i := a.userPage(u)
	if p.head[i] != none || p.row[i] != 0 {
		return
	}
	a.userKeys.remove(keyHash(&p.key[i]), u, a.hashOfUserKey)
	a.userFree = append(a.userFree, u)
}

func (a *audience) remove(tail *[tailBytes]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.find(tail)
	if !ok {
		return
	}
	p, i := a.page(o)
	p.row[i] = a.replace(p.row[i], nil, o)
	if p.user[i] != none {
		a.detach(o)
	}
	a.keys.remove(keyHash(tail), o, a.hashOfKey)
	for _, b := range []bitset{a.live, a.active, a.optedOut, a.addressed} {
		b.clear(o)
	}
	a.free = append(a.free, o)
}

// upsertUser takes the user's attributes as they now are; none forget them.
func (a *audience) upsertUser(tail *[tailBytes]byte, attributes map[string][]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.scratch = a.scratch[:0]
	for name, values := range attributes {
		for _, v := range values {
			a.scratch = a.value(a.scratch, columnUserAttribute, name, v)
		}
	}
	u, ok := a.findUser(tail)
	if !ok {
		if len(a.scratch) == 0 {
			return
		}
		u = a.internUser(tail)
	}
	p, i := a.userPage(u)
	slices.Sort(a.scratch)
	p.row[i] = a.replace(p.row[i], slices.Compact(a.scratch), u)
	a.forget(u)
}

// close empties the audience of a deleted app for those who still hold it.
func (a *audience) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.live)
}

func (a *audience) touch(tail *[tailBytes]byte, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o, ok := a.find(tail); ok {
		p, i := a.page(o)
		p.last[i] = max(p.last[i], at.UnixMilli())
	}
}
