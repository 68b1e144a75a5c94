package segments

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"sync"
)

// Member is an endpoint of a run.
type Member struct {
	Key    string // store key; the endpoint's document has the rest
	Hash   uint64 // dispatch hash
	Cohort int    // 0 to 99
}

// Snapshot is who belonged to a segment at one moment, in the order of a run:
// by dispatch shard and hash, so that endpoints with one address on one channel
// are side by side. It takes 12 bytes for each member and stays as it was taken,
// save that endpoints deleted since are left out. It is safe for concurrent use.
type Snapshot struct {
	a      *audience
	prefix string
	births uint64
	shards [Shards]shardMembers
	count  int
}

// shardMembers are in order once sorted ran.
type shardMembers struct {
	once     sync.Once
	hashes   []uint64
	ordinals []uint32
}

// Walk takes a snapshot of the endpoints that the criteria hold for.
func (ix *Index) Walk(ctx context.Context, app string, c *Criteria) (*Snapshot, error) {
	s := &Snapshot{}
	if raw, err := hex.DecodeString(app); err == nil {
		s.prefix = string(raw)
	}
	err := ix.evaluate(ctx, app, c, func(a *audience, members bitset) {
		s.a, s.births, s.count = a, a.births, members.count()
		for i := range s.shards {
			// A good hash fills the shards evenly; leave a little room.
			room := s.count/Shards + s.count/(8*Shards) + 8
			s.shards[i].hashes = make([]uint64, 0, room)
			s.shards[i].ordinals = make([]uint32, 0, room)
		}
		members.each(func(o uint32) {
			p, i := a.page(o)
			m := &s.shards[Shard(p.hash[i])]
			m.hashes = append(m.hashes, p.hash[i])
			m.ordinals = append(m.ordinals, o)
		})
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Len is the number of members when the snapshot was taken.
func (s *Snapshot) Len() int { return s.count }

// ShardLen is the number of a shard's members when the snapshot was taken.
func (s *Snapshot) ShardLen(shard int) int { return len(s.shards[shard].ordinals) }

// Next returns the shard's members whose hash is above after, in order of hash,
// then of key. It returns about limit of them: members with one hash are never
// parted, so that the last one's hash is the position to go on from. None means
// that the shard is done. For the first members pass Before(shard).
func (s *Snapshot) Next(shard int, after uint64, limit int) []Member {
	m := &s.shards[shard]
	m.once.Do(func() { m.sort(s.a) })
	from, found := slices.BinarySearch(m.hashes, after)
	if found {
		for from < len(m.hashes) && m.hashes[from] == after {
			from++
		}
	}
	var out []Member
	for from < len(m.hashes) && len(out) == 0 {
		to := min(from+max(limit, 1), len(m.hashes))
		for to < len(m.hashes) && m.hashes[to] == m.hashes[to-1] {
			to++
		}
		out = s.read(m, from, to)
		from = to
	}
	return out
}

// Before is the position ahead of a shard's first member; DispatchHash never
// returns 0.
func Before(shard int) uint64 {
	if shard == 0 {
		return 0
	}
	return uint64(shard)<<58 - 1
}

// Last is the highest hash of a shard.
func Last(shard int) uint64 { return uint64(shard)<<58 | 1<<58 - 1 }

// read returns the members that still exist.
func (s *Snapshot) read(m *shardMembers, from, to int) []Member {
	out := make([]Member, 0, to-from)
	s.a.mu.RLock()
	defer s.a.mu.RUnlock()
	for j := from; j < to; j++ {
		o := m.ordinals[j]
		p, i := s.a.page(o)
		if !s.a.live.has(o) || p.born[i] > s.births {
			continue
		}
		out = append(out, Member{Key: s.prefix + string(p.key[i][:]), Hash: m.hashes[j], Cohort: int(p.cohort[i])})
	}
	return out
}

func (m *shardMembers) sort(a *audience) {
	type member struct {
		hash    uint64
		ordinal uint32
	}
	all := make([]member, len(m.hashes))
	for i := range all {
		all[i] = member{m.hashes[i], m.ordinals[i]}
	}
	slices.SortFunc(all, func(x, y member) int { return cmp.Compare(x.hash, y.hash) })

	// Only those with one hash need their keys, and the lock, to be put in order.
	// Keys are the same in every Region that shares the hashing keyset.
	byKey := func(x, y member) int {
		xp, xi := a.page(x.ordinal)
		yp, yi := a.page(y.ordinal)
		return bytes.Compare(xp.key[xi][:], yp.key[yi][:])
	}
	for from := 0; from < len(all); {
		to := from + 1
		for to < len(all) && all[to].hash == all[from].hash {
			to++
		}
		if to > from+1 {
			a.mu.RLock()
			slices.SortFunc(all[from:to], byKey)
			a.mu.RUnlock()
		}
		from = to
	}
	for i, x := range all {
		m.hashes[i], m.ordinals[i] = x.hash, x.ordinal
	}
}
