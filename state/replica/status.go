package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Status is how one peer is heard.
type Status struct {
	Region      string
	Incarnation string        // of its database, as last told
	Heard       time.Time     // when it last said something; zero if never
	Lag         time.Duration // since everything it had told of was here, by this node's clock
	Rows        int64         // taken over since this node began to
	Mine        bool          // this node pulls from it, or tries to
	Apart       bool          // this Region was away from it for too long, and has to read its rows anew
	Hears       bool          // it pulls this Region's safety data from this node
	Streams     map[store.Stream]StreamStatus
	Err         error // why it is not heard
}

// StreamStatus is how far one stream of a peer is here, and how far this
// Region's is there.
type StreamStatus struct {
	Merged int64 // the last block that is here
	Head   int64 // the last block there is, as told
	Acked  int64 // the last block of this Region's that is there
}

// Status tells how the peers are heard, in the order of their names.
func (r *Replica) Status() []Status {
	out := make([]Status, 0, len(r.peers))
	now := r.now()
	for _, p := range r.peers {
		p.mu.Lock()
		s := Status{
			Region: p.Region, Incarnation: p.incarnation, Heard: p.heard, Rows: p.rows, Mine: p.mine, Apart: p.apart,
			Err: p.err, Streams: map[store.Stream]StreamStatus{},
		}
		s.Hears = r.acks.heard(p.Region)
		for _, st := range shipped {
			s.Streams[st] = StreamStatus{Merged: p.at[st].N, Head: p.heads[st], Acked: r.acks.of(p.Region, st)}
			at := p.current[st]
			if at.IsZero() {
				at = p.began
			}
			if !at.IsZero() && (p.at[st].N < p.heads[st] || now.Sub(p.heard) > 2*r.cfg.Heartbeat) {
				s.Lag = max(s.Lag, now.Sub(at))
			}
		}
		p.mu.Unlock()
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Region, b.Region) })
	return out
}

// CatchUp returns when this Region has what the others, named with their
// incarnations, had told when they had applied an index: a write that one of them
// acknowledged before is here.
func (r *Replica) CatchUp(ctx context.Context, others map[string]string, index uint64) error {
	tick := time.NewTicker(r.cfg.Heartbeat)
	defer tick.Stop()
	to := map[string]map[store.Stream]int64{}
	for {
		behind := ""
		for region, incarnation := range others {
			p := r.peers[region]
			if p == nil {
				return fmt.Errorf("replica: Region %s is not one that this one pulls from", region)
			}
			if !p.reachedHeads(incarnation, index, to) {
				behind = region
			}
		}
		if behind == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("catch up with Region %s: %w", behind, context.Cause(ctx))
		}
	}
}

// reachedHeads notes in to where the peer's streams were when it had first told
// of an index, and reports whether this Region has all until there.
func (p *peer) reachedHeads(incarnation string, index uint64, to map[string]map[store.Stream]int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.incarnation != incarnation || p.index < index {
		return false
	}
	if to[p.Region] == nil {
		to[p.Region] = maps.Clone(p.heads)
	}
	for _, st := range []store.Stream{store.Safety, store.Changes} {
		if p.at[st].Incarnation != incarnation || p.at[st].N < to[p.Region][st] {
			return false
		}
	}
	return true
}

func (a *acks) heard(region string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open[ackKey{region, store.Safety}] > 0
}

func (a *acks) of(region string, st store.Stream) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.have[ackKey{region, st}].n
}

// Conflict is two writes of which neither had seen the other, and which of them
// stands.
type Conflict struct {
	Peer          string // that told of one of them
	Kind          string
	Key           string // hex
	Path          string
	Winner, Loser changelog.Register
	Merged        time.Time
}

// conflictSeq tells a node's conflicts of one millisecond apart.
var conflictSeq atomic.Uint32

func record(tx *store.Tx, node, peer string, c changelog.Change, found changelog.Conflict) error {
	now := tx.Now()
	key := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
	key = append(binary.BigEndian.AppendUint32(key, conflictSeq.Add(1)), node...)
	return store.Save(tx, kindConflict, string(key), &Conflict{
		Peer: peer, Kind: c.Kind, Key: hexOf([]byte(c.Key)), Path: found.Path, Winner: found.Winner, Loser: found.Loser, Merged: now,
	})
}

// Conflicts returns recorded conflicts after a position, the oldest first, at
// most limit, and the position of the last.
func (r *Replica) Conflicts(ctx context.Context, after string, limit int) (found []Conflict, next string, err error) {
	rows, err := r.store.Reader(ctx).List(kindConflict, "", after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, row := range rows {
		c, err := store.Decode[Conflict](kindConflict, row.Body)
		if err != nil {
			return nil, "", err
		}
		found, next = append(found, *c), row.Key
	}
	return found, next, nil
}

const (
	sweepInterval = time.Minute
	sweepRows     = 500
)

// sweep removes, now and then, what is older than Retention: other Regions'
// facts, conflicts, tombstones.
func (r *Replica) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	after := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := r.now().Add(-r.cfg.Retention)
		_, err := r.store.Trim(ctx, store.Heard, r.store.Head(store.Heard), before)
		if err == nil {
			err = r.sweepKind(ctx, kindConflict, new(string), func(row store.Row) (time.Time, error) {
				return time.UnixMilli(int64(binary.BigEndian.Uint64([]byte(row.Key[:8])))), nil
			}, before)
		}
		if err == nil {
			err = r.sweepKind(ctx, store.KindTombstone, &after, func(row store.Row) (time.Time, error) {
				at, _, err := store.DecodeTombstone(row.Body)
				return at, err
			}, before)
		}
		if err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "old conflicts, tombstones and facts not removed", "error", err)
		}
	}
}

// sweepKind looks at some rows after a key, which it moves on, and removes the
// old ones.
func (r *Replica) sweepKind(ctx context.Context, k store.Kind, after *string, when func(store.Row) (time.Time, error), before time.Time) error {
	rows, err := r.store.Reader(ctx).List(k, "", *after, sweepRows)
	if err != nil {
		return err
	}
	var old []string
	for _, row := range rows {
		at, err := when(row)
		if err != nil {
			return err
		}
		if at.Before(before) {
			old = append(old, row.Key)
		}
		*after = row.Key
	}
	if len(rows) < sweepRows {
		*after = ""
	}
	if len(old) == 0 {
		return nil
	}
	return r.store.Update(ctx, func(tx *store.Tx) error {
		for _, key := range old {
			body, err := tx.Get(k, key)
			if err != nil {
				return err
			}
			if body == nil {
				continue
			}
			// It may have been renewed since it was read.
			if at, err := when(store.Row{Kind: k.Name, Key: key, Body: body}); err != nil || !at.Before(before) {
				if err != nil {
					return err
				}
				continue
			}
			if err := tx.Remove(k, key); err != nil {
				return err
			}
		}
		return nil
	})
}
