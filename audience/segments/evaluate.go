package segments

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// node is a part of compiled criteria. It can be asked two ways, and the answers
// agree: for all members at once, and for one endpoint.
type node interface {
	// members returns the ordinals it holds for, in a set that the caller owns.
	// Ordinals that are not in use are never members.
	members(*evaluation) bitset
	// matches reports whether it holds for an ordinal in use.
	matches(*evaluation, uint32) bool
}

// evaluation is one run over an audience, whose lock is held.
type evaluation struct {
	a       *audience
	imports map[*importLeaf]bitset
	sources map[*sourceNode]bitset
	taken   []*bitset
}

func newEvaluation(a *audience, imports map[*importLeaf]bitset) *evaluation {
	return &evaluation{a: a, imports: imports, sources: map[*sourceNode]bitset{}}
}

var spare = sync.Pool{New: func() any { return new(bitset) }}

// empty returns a cleared set for ordinals below n; it is taken back by close.
func (ev *evaluation) empty(n int) bitset {
	words := (n + 63) / 64
	b := spare.Get().(*bitset)
	if cap(*b) < words {
		*b = make(bitset, words)
	}
	*b = (*b)[:words]
	clear(*b)
	ev.taken = append(ev.taken, b)
	return *b
}

func (ev *evaluation) close() {
	for _, b := range ev.taken {
		spare.Put(b)
	}
	ev.taken = nil
}

// room is the size of a set of endpoints: whole pages.
func (ev *evaluation) room() int { return len(ev.a.live) * 64 }

// copyOf returns a set of endpoints that starts as b.
func (ev *evaluation) copyOf(b bitset) bitset {
	out := ev.empty(ev.room())
	copy(out, b)
	return out
}

// allNode holds where every part does; without parts, everywhere.
type allNode []node

func allOf(nodes ...node) node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	return allNode(nodes)
}

func (n allNode) members(ev *evaluation) bitset {
	if len(n) == 0 {
		return ev.copyOf(ev.a.live)
	}
	out := n[0].members(ev)
	for _, part := range n[1:] {
		out.and(part.members(ev))
	}
	return out
}

func (n allNode) matches(ev *evaluation, o uint32) bool {
	for _, part := range n {
		if !part.matches(ev, o) {
			return false
		}
	}
	return true
}

// anyNode holds where at least one part does.
type anyNode []node

func anyOf(nodes ...node) node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	return anyNode(nodes)
}

func (n anyNode) members(ev *evaluation) bitset {
	out := ev.empty(ev.room())
	for _, part := range n {
		out.or(part.members(ev))
	}
	return out
}

func (n anyNode) matches(ev *evaluation, o uint32) bool {
	for _, part := range n {
		if part.matches(ev, o) {
			return true
		}
	}
	return false
}

// notNode holds where its part does not.
type notNode struct{ node }

func not(n node) node { return notNode{n} }

func (n notNode) members(ev *evaluation) bitset {
	out := ev.copyOf(ev.a.live)
	out.andNot(n.node.members(ev))
	return out
}

func (n notNode) matches(ev *evaluation, o uint32) bool { return !n.node.matches(ev, o) }

// sourceNode is a segment that others build on, evaluated once however many do.
type sourceNode struct {
	node
	depth int // of the segments it builds on itself
}

func (n *sourceNode) members(ev *evaluation) bitset {
	b, ok := ev.sources[n]
	if !ok {
		b = n.node.members(ev)
		ev.sources[n] = b
	}
	// Whoever asks may change what it gets.
	return ev.copyOf(b)
}

// valueLeaf holds for endpoints with a value that is one of values or, when
// holds is set, that holds is true of.
type valueLeaf struct {
	kind   columnKind
	name   string
	values []string
	holds  func(*term) bool
}

func (n *valueLeaf) members(ev *evaluation) bitset {
	a := ev.a
	out := ev.empty(ev.room())
	c, ok := a.dict.column(n.kind, n.name)
	if !ok {
		return out
	}
	found := out
	if n.kind == columnUserAttribute {
		found = ev.empty(len(a.users) * pageLen)
	}
	if n.holds == nil {
		for _, v := range n.values {
			if id, ok := a.dict.find(c, v); ok {
				a.dict.term(id).orInto(found)
			}
		}
	} else {
		for _, id := range a.dict.columns[c].terms {
			if t := a.dict.term(id); n.holds(t) {
				t.orInto(found)
			}
		}
	}
	if n.kind == columnUserAttribute {
		a.endpointsOf(found, out)
	}
	return out
}

// endpointsOf adds the endpoints of users to dst.
func (a *audience) endpointsOf(users, dst bitset) {
	// Walking lists jumps through memory, asking every endpoint does not; it pays
	// for few users only.
	const jump = 16
	if users.count()*jump < int(a.used) {
		users.each(func(u uint32) { a.orEndpoints(u, dst) })
		return
	}
	for i, p := range a.pages {
		for j := range p.user {
			// Ordinals that are not in use have no user.
			if u := p.user[j]; u != none && users.has(u) {
				dst.set(uint32(i<<pageBits | j))
			}
		}
	}
}

func (a *audience) orEndpoints(u uint32, dst bitset) {
	up, ui := a.userPage(u)
	for o := up.head[ui]; o != none; {
		dst.set(o)
		p, i := a.page(o)
		o = p.next[i]
	}
}

func (n *valueLeaf) matches(ev *evaluation, o uint32) bool {
	a := ev.a
	p, i := a.page(o)
	row := p.row[i]
	if n.kind == columnUserAttribute {
		if p.user[i] == none {
			return false
		}
		up, ui := a.userPage(p.user[i])
		row = up.row[ui]
	}
	c, ok := a.dict.column(n.kind, n.name)
	if !ok {
		return false
	}
	for _, id := range a.rows.get(row) {
		t := a.dict.term(id)
		if t.column != c {
			continue
		}
		if n.holds != nil && n.holds(t) || n.holds == nil && slices.Contains(n.values, t.value) {
			return true
		}
	}
	return false
}

// metricLeaf holds for endpoints whose metric compares so with value.
type metricLeaf struct {
	name  string
	op    comparison
	value float64
}

func (n *metricLeaf) members(ev *evaluation) bitset {
	out := ev.empty(ev.room())
	if c, ok := ev.a.dict.column(columnMetric, n.name); ok {
		ev.a.dict.columns[c].numbers.scan(n.op, n.value, out)
	}
	return out
}

func (n *metricLeaf) matches(ev *evaluation, o uint32) bool {
	c, ok := ev.a.dict.column(columnMetric, n.name)
	return ok && n.op.holds(ev.a.dict.columns[c].numbers.get(o), n.value)
}

// recencyLeaf holds for endpoints that were active at since or later.
type recencyLeaf struct{ since int64 }

func (n *recencyLeaf) members(ev *evaluation) bitset {
	out := ev.empty(ev.room())
	for i, p := range ev.a.pages {
		words := out[i<<pageBits>>6:][:pageLen/64]
		for w := range words {
			var m uint64
			for j, last := range p.last[w<<6:][:64] {
				m |= bit(last >= n.since) << j
			}
			words[w] = m
		}
	}
	out.and(ev.a.live)
	return out
}

func (n *recencyLeaf) matches(ev *evaluation, o uint32) bool {
	p, i := ev.a.page(o)
	return p.last[i] >= n.since
}

// importLeaf holds for the members of an imported segment: endpoints, and all
// endpoints of users. The list is read from the store before the evaluation.
type importLeaf struct{ version version }

func (n *importLeaf) members(ev *evaluation) bitset {
	out := ev.copyOf(ev.imports[n])
	out.and(ev.a.live)
	return out
}

func (n *importLeaf) matches(ev *evaluation, o uint32) bool { return ev.imports[n].has(o) }

// resolve finds the ordinals of the members of every imported segment that the
// criteria build on. The lock is taken for one chunk at a time: a list may have
// millions of entries. An ordinal that passed to another endpoint meanwhile is
// taken out in the end.
func (ix *Index) resolve(ctx context.Context, a *audience, c *Criteria) (map[*importLeaf]bitset, error) {
	if len(c.imports) == 0 {
		return nil, nil
	}
	a.mu.RLock()
	births, reuses := a.births, a.reuses
	a.mu.RUnlock()
	out := make(map[*importLeaf]bitset, len(c.imports))
	for _, leaf := range c.imports {
		var found bitset
		err := eachChunk(ix.st.Reader(ctx), a.app, leaf.version, func(ch chunk) error {
			a.mu.RLock()
			defer a.mu.RUnlock()
			found = append(found, make(bitset, len(a.live)-len(found))...)
			for i := range ch.endpoints {
				if o, ok := a.find(&ch.endpoints[i]); ok {
					found.set(o)
				}
			}
			for i := range ch.users {
				if u, ok := a.findUser(&ch.users[i]); ok {
					a.orEndpoints(u, found)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read members of segment %s: %w", leaf.version.id, err)
		}
		out[leaf] = found
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.reuses != reuses {
		for _, found := range out {
			a.dropBorn(found, births)
		}
	}
	return out, nil
}

// dropBorn takes out of a set who came after the count of births was so.
func (a *audience) dropBorn(set bitset, births uint64) {
	set.each(func(o uint32) {
		if p, i := a.page(o); p.born[i] > births {
			set.clear(o)
		}
	})
}
