package queue

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// node is the row of a node: in which life it holds leases, and until when.
type node struct {
	Life   int64     // grows with each life: milliseconds since 1970, or one more than the last
	Until  time.Time // when the leases run out
	Fenced bool      `json:",omitempty"` // the life has ended
	Held   bool      `json:",omitempty"` // rows may still be leased to the node
}

const (
	renewPart   = 3              // of the lease time: how often it is renewed
	releasePage = 200            // leased rows that one update puts back
	nodesPage   = 200            // node rows that one round looks at
	sweepPage   = 200            // rows of work that one sweep looks at
	sweepRounds = 6              // rounds from one sweep to the next
	nodeKeep    = 24 * time.Hour // how long the row of a node that is gone stays
	keepRetry   = time.Second    // after a failure to renew
	leasedMax   = 1000           // leased rows that one look sees
	forgetMax   = 20             // node rows that one round removes
	aheadMax    = 20             // lease times: no node's leases hold for longer, unless its clock is wrong
)

// begin takes a new life: the leases of the one before end, and what was held
// under them waits again.
func (q *Queue) begin(ctx context.Context) error {
	for first := true; ; first = false {
		put := 0
		err := q.store.Update(ctx, func(tx *store.Tx) (err error) {
			if first {
				put, err = q.beginIn(tx)
				return err
			}
			n, err := q.own(tx)
			if err != nil {
				return err
			}
			// Work may be leased in the new life already.
			put, err = q.release(tx, q.cfg.Node, leaseOf(q.cfg.Node, n.Life))
			return err
		}, store.Touch{Kind: kindNode, Key: q.cfg.Node})
		if err != nil || put < releasePage {
			return err
		}
	}
}

// beginIn takes a new life in an update and puts back what was leased, up to
// releasePage rows; it returns how many.
func (q *Queue) beginIn(tx *store.Tx) (int, error) {
	old, err := store.Load[node](tx, kindNode, q.cfg.Node)
	if err != nil {
		return 0, err
	}
	now := tx.Now()
	n := &node{Life: now.UnixMilli(), Until: now}
	if old != nil {
		n.Life = max(old.Life+1, n.Life)
	}
	put, err := q.release(tx, q.cfg.Node, "")
	if err != nil {
		return 0, err
	}
	if put == releasePage { // there may be more, and others should leave that to this node
		n.Held, n.Until = true, now.Add(q.cfg.LeaseTime)
	}
	tx.AfterCommit(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.drop() // an update on its way may have leased since the old life was seen to be over
		q.life, q.until, q.holding, q.resting = n.Life, now, false, !n.Held
	})
	return put, store.Save(tx, kindNode, q.cfg.Node, n)
}

func (q *Queue) currentLife() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.life
}

// release puts back what a node has leased, save in the life whose leases begin
// with keep unless that is empty; it returns how many rows that was, at most
// releasePage.
func (q *Queue) release(tx *store.Tx, name, keep string) (int, error) {
	rows, err := tx.Lookup(kindWork, heldBy(name), leasedMax)
	if err != nil {
		return 0, err
	}
	put := 0
	for _, w := range rows {
		r, err := store.Decode[row](kindWork, w.Body)
		if err != nil {
			q.log.Error("leased work cannot be read and stays leased", "node", name, "error", err)
			continue
		}
		if keep != "" && strings.HasPrefix(r.Lease, keep) {
			continue
		}
		if put == releasePage {
			break
		}
		put++
		if err := q.wait(tx, r); err != nil {
			return 0, err
		}
	}
	return put, nil
}

func (q *Queue) holds(lease string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held[lease] != nil
}

// own reads this node's row, and fails with ErrLost when its life has ended.
func (q *Queue) own(tx *store.Tx) (*node, error) {
	n, err := store.Load[node](tx, kindNode, q.cfg.Node)
	if err != nil {
		return nil, err
	}
	if n == nil || n.Fenced || n.Life != q.currentLife() {
		return nil, ErrLost
	}
	return n, nil
}

// renewIn renews the node's leases in an update.
func (q *Queue) renewIn(tx *store.Tx, n *node) error {
	life, until := n.Life, tx.Now().Add(q.cfg.LeaseTime)
	n.Until, n.Held = until, true
	// Whether the update is committed may remain unknown: no rest from here on.
	q.mu.Lock()
	q.resting = false
	q.mu.Unlock()
	tx.AfterCommit(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.life == life {
			q.until, q.holding, q.resting = until, true, false // the node said it rests in this very commit, perhaps
		}
	})
	return store.Save(tx, kindNode, q.cfg.Node, n)
}

// keep renews the node's leases until done, puts back what nobody works on, and
// fences nodes whose leases ran out.
func (q *Queue) keep(ctx context.Context) {
	k := keeper{q: q}
	timer := time.NewTimer(q.cfg.LeaseTime / renewPart)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.doubts:
		case <-timer.C:
		}
		next := q.cfg.LeaseTime / renewPart
		if err := k.tend(ctx); err != nil && ctx.Err() == nil {
			q.log.WarnContext(ctx, "leases not tended", "error", err)
			next = min(next, keepRetry)
		}
		timer.Reset(next)
	}
}

// doubt has the keeper look at the node's row at once: a claim found the life over.
func (q *Queue) doubt() {
	q.mu.Lock()
	q.resting = false
	q.mu.Unlock()
	select {
	case q.doubts <- struct{}{}:
	default:
	}
}

// sighting is when a row of a node was first seen as it is.
type sighting struct{ until, at time.Time }

// keeper is what keep remembers from round to round.
type keeper struct {
	q          *Queue
	taken      uint64              // leases taken at the last round
	trouble    time.Time           // when the database last failed it
	ahead      map[string]sighting // by name: nodes whose leases seem to hold for very long
	nodesAfter string              // the key of the node row that was looked at last
	sweptAfter string              // the key of the work that was swept last
	rounds     int
}

// tend does one round of keep. A node that holds nothing says so once, and then
// renews nothing until it takes a lease, or there is doubt about its life.
func (k *keeper) tend(ctx context.Context) error {
	q := k.q
	q.mu.Lock()
	idle := len(q.held) == 0 && q.leases == k.taken
	k.taken = q.leases
	rests := idle && q.resting && q.now().Before(q.until.Add(nodeKeep/2))
	q.mu.Unlock()
	if !rests {
		if err := q.renew(ctx, idle); err != nil {
			k.trouble = q.now()
			return err
		}
	}
	k.rounds++
	sweeps := k.rounds%sweepRounds == 0
	// Even to a node that rests an update may lease that was on its way to the
	// database when its connection broke.
	if !rests || sweeps {
		if err := q.releaseStrays(ctx); err != nil {
			return err
		}
	}
	if err := k.fenceOthers(ctx); err != nil {
		k.trouble = q.now()
		return err
	}
	if sweeps {
		return k.sweep(ctx)
	}
	return nil
}

// renew renews the node's leases, or says that it has none.
func (q *Queue) renew(ctx context.Context, idle bool) error {
	err := q.store.Update(ctx, func(tx *store.Tx) error {
		n, err := q.own(tx)
		if err != nil {
			return err
		}
		if idle {
			leased, err := tx.Lookup(kindWork, heldBy(q.cfg.Node), 1)
			if err != nil {
				return err
			}
			if len(leased) == 0 {
				return q.rest(tx, n)
			}
		}
		return q.renewIn(tx, n)
	}, store.Touch{Kind: kindNode, Key: q.cfg.Node})
	if errors.Is(err, ErrLost) {
		q.log.WarnContext(ctx, "another node ended this node's leases; a new life begins")
		q.lose()
		err = q.begin(ctx)
	}
	return err
}

// rest writes that the node holds nothing.
func (q *Queue) rest(tx *store.Tx, n *node) error {
	n.Until, n.Held = tx.Now(), false
	until := n.Until
	q.mu.Lock()
	q.holding = false // no update, not even in this commit, leases on Enqueue from here on
	q.mu.Unlock()
	tx.AfterCommit(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.until, q.holding, q.resting = until, false, true
	})
	return store.Save(tx, kindNode, q.cfg.Node, n)
}

// lose ends what is held under a life that has ended.
func (q *Queue) lose() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holding, q.resting = false, false
	q.drop()
}

// drop tells those who work on items that their leases have ended; q.mu is held.
func (q *Queue) drop() {
	for lease, it := range q.held {
		it.lost = true
		if it.cancel != nil {
			it.cancel(ErrLost)
		}
		delete(q.held, lease)
	}
}

// releaseStrays puts back what is leased to this node and nobody works on: the
// update that leased it was committed, but the answer was an error; or what
// became of it could not be written.
func (q *Queue) releaseStrays(ctx context.Context) error {
	for range leasedMax / releasePage {
		rows, err := q.store.Reader(ctx).Lookup(kindWork, heldBy(q.cfg.Node), leasedMax)
		if err != nil {
			return err
		}
		var strays []*row
		var touch []store.Touch
		for _, w := range rows {
			r, err := store.Decode[row](kindWork, w.Body)
			if err != nil || q.holds(r.Lease) {
				continue // what cannot be read was logged when it was leased
			}
			if len(strays) < releasePage {
				strays, touch = append(strays, r), append(touch, Touch(r.Kind, r.ID))
			}
		}
		if len(strays) == 0 {
			return nil
		}
		err = q.store.Update(ctx, func(tx *store.Tx) error {
			for _, s := range strays {
				r, err := store.Load[row](tx, kindWork, workKey(s.Kind, s.ID))
				if err != nil {
					return err
				}
				// Items are held from the moment their update is answered, which was before
				// this one began: what is not held is a stray for certain.
				if r == nil || r.Lease != s.Lease || q.holds(r.Lease) {
					continue
				}
				if err := q.wait(tx, r); err != nil {
					return err
				}
			}
			return nil
		}, touch...)
		if err != nil || len(strays) < releasePage {
			return err
		}
	}
	return nil
}

// end ends the node's life in good order: nothing is worked on any more, and
// what was handed to it too late waits again.
func (q *Queue) end(ctx context.Context) error {
	for {
		put := 0
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			n, err := q.own(tx)
			if err != nil {
				return err
			}
			if put, err = q.release(tx, q.cfg.Node, ""); err != nil {
				return err
			}
			n.Fenced, n.Held = put < releasePage, put == releasePage
			return store.Save(tx, kindNode, q.cfg.Node, n)
		}, store.Touch{Kind: kindNode, Key: q.cfg.Node})
		if errors.Is(err, ErrLost) {
			return nil
		}
		if err != nil || put < releasePage {
			return err
		}
	}
}
