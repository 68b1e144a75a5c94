package queue

import (
	"context"
	"errors"
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
	nodesMax    = 1000           // node rows that are looked at
	nodeKeep    = 24 * time.Hour // how long the row of a node that is gone stays
	keepRetry   = time.Second    // after a failure to renew
	leasedMax   = 1000           // leased rows that one look sees
)

var errFenced = errors.New("queue: this node's leases were ended by another")

// begin takes a new life: the leases of the one before end, and what was held
// under them waits again.
func (q *Queue) begin(ctx context.Context) error {
	for first := true; ; first = false {
		left := 0
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			n, err := store.Load[node](tx, kindNode, q.cfg.Node)
			if err != nil {
				return err
			}
			if n == nil {
				n = &node{}
			}
			now := tx.Now()
			life := n.Life
			if first {
				life = max(n.Life+1, now.UnixMilli())
			} else if n.Fenced || life != q.currentLife() {
				return errFenced
			}
			if left, err = q.release(tx, q.cfg.Node); err != nil {
				return err
			}
			tx.AfterCommit(func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.life, q.until, q.holding, q.resting = life, now, false, left < releasePage
			})
			return store.Save(tx, kindNode, q.cfg.Node, &node{Life: life, Until: now, Held: left == releasePage})
		}, store.Touch{Kind: kindNode, Key: q.cfg.Node})
		if err != nil || left < releasePage {
			return err
		}
	}
}

func (q *Queue) currentLife() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.life
}

// release puts back what a node has leased; it returns how many rows that was,
// at most releasePage.
func (q *Queue) release(tx *store.Tx, name string) (int, error) {
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

func (q *Queue) works(lease string) bool {
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
	tx.AfterCommit(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.life == life {
			q.until, q.holding, q.resting = until, true, false
		}
	})
	return store.Save(tx, kindNode, q.cfg.Node, n)
}

// keep renews the node's leases until done, puts back what nobody works on, and
// fences nodes whose leases ran out.
func (q *Queue) keep(ctx context.Context) {
	timer := time.NewTimer(q.cfg.LeaseTime / renewPart)
	defer timer.Stop()
	for {
		doubt := false
		select {
		case <-ctx.Done():
			return
		case <-q.fenced:
			doubt = true
		case <-timer.C:
		}
		next := q.cfg.LeaseTime / renewPart
		if err := q.tend(ctx, doubt); err != nil && ctx.Err() == nil {
			q.log.WarnContext(ctx, "leases not tended", "error", err)
			next = min(next, keepRetry)
		}
		timer.Reset(next)
	}
}

// tend does one round of keep. A node that holds nothing says so once, and then
// renews nothing until it takes a lease, or there is doubt about its life.
func (q *Queue) tend(ctx context.Context, doubt bool) error {
	q.mu.Lock()
	idle := len(q.held) == 0 && len(q.strays) == 0 && q.leases == q.tended
	q.tended = q.leases
	rests := idle && !doubt && q.resting && q.now().Before(q.until.Add(nodeKeep/2))
	if idle {
		q.holding = false // no update leases on Enqueue from here on
	}
	q.mu.Unlock()
	if !rests {
		if err := q.renew(ctx, idle); err != nil {
			return err
		}
		if err := q.releaseStrays(ctx); err != nil {
			return err
		}
	}
	return q.fenceOthers(ctx)
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
	tx.AfterCommit(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.until, q.resting = until, true
	})
	return store.Save(tx, kindNode, q.cfg.Node, n)
}

// lose ends what is held under a life that has ended.
func (q *Queue) lose() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for lease, it := range q.held {
		it.lost = true
		if it.cancel != nil {
			it.cancel(ErrLost)
		}
		delete(q.held, lease)
	}
}

// releaseStrays puts back what is leased to this node without it knowing: its
// update was committed, but the answer was an error. A lease is a stray when two
// looks in a row find nobody who works on it.
func (q *Queue) releaseStrays(ctx context.Context) error {
	rows, err := q.store.Reader(ctx).Lookup(kindWork, heldBy(q.cfg.Node), leasedMax)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	var lost []*row
	for _, w := range rows {
		r, err := store.Decode[row](kindWork, w.Body)
		if err != nil || q.works(r.Lease) {
			continue // what cannot be read was logged when it was leased
		}
		seen[r.Lease] = true
		if q.strays[r.Lease] && len(lost) < releasePage {
			lost = append(lost, r)
		}
	}
	q.strays = seen
	for _, l := range lost {
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			r, err := store.Load[row](tx, kindWork, workKey(l.Kind, l.ID))
			if err != nil || r == nil || r.Lease != l.Lease || q.works(r.Lease) {
				return err
			}
			return q.wait(tx, r)
		}, Touch(l.Kind, l.ID))
		if err != nil {
			return err
		}
	}
	return nil
}

// fenceOthers ends the leases of nodes that have been silent too long.
func (q *Queue) fenceOthers(ctx context.Context) error {
	rows, err := q.store.Reader(ctx).List(kindNode, "", "", nodesMax)
	if err != nil {
		return err
	}
	now := q.now()
	for _, w := range rows {
		n, err := store.Decode[node](kindNode, w.Body)
		if err != nil {
			return err
		}
		silent := now.After(n.Until)
		switch {
		case w.Key == q.cfg.Node:
		case n.Held && (silent || n.Fenced):
			if err := q.fence(ctx, w.Key, n.Life); err != nil {
				return err
			}
		case !n.Held && now.After(n.Until.Add(nodeKeep)):
			if err := q.forget(ctx, w.Key, n.Life); err != nil {
				return err
			}
		}
	}
	return nil
}

// fence ends a life of another node and puts back what it had leased.
func (q *Queue) fence(ctx context.Context, name string, life int64) error {
	q.log.WarnContext(ctx, "a node fell silent; its work is put back", "node", name)
	for {
		left := 0
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			left = 0
			n, err := store.Load[node](tx, kindNode, name)
			if err != nil {
				return err
			}
			if n == nil || n.Life != life || !n.Held || !n.Fenced && !q.now().After(n.Until) {
				return nil // it is back, or another was faster
			}
			if left, err = q.release(tx, name); err != nil {
				return err
			}
			n.Fenced, n.Held = true, left == releasePage
			return store.Save(tx, kindNode, name, n)
		}, store.Touch{Kind: kindNode, Key: name})
		if err != nil || left < releasePage {
			return err
		}
	}
}

func (q *Queue) forget(ctx context.Context, name string, life int64) error {
	return q.store.Update(ctx, func(tx *store.Tx) error {
		n, err := store.Load[node](tx, kindNode, name)
		if err != nil || n == nil || n.Life != life || n.Held {
			return err
		}
		return tx.Remove(kindNode, name)
	}, store.Touch{Kind: kindNode, Key: name})
}

// end ends the node's life in good order: nothing is worked on any more, and
// what was handed to it too late waits again.
func (q *Queue) end(ctx context.Context) error {
	for {
		left := 0
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			n, err := q.own(tx)
			if err != nil {
				return err
			}
			if left, err = q.release(tx, q.cfg.Node); err != nil {
				return err
			}
			n.Fenced, n.Held = left < releasePage, left == releasePage
			return store.Save(tx, kindNode, q.cfg.Node, n)
		}, store.Touch{Kind: kindNode, Key: q.cfg.Node})
		if errors.Is(err, ErrLost) {
			return nil
		}
		if err != nil || left < releasePage {
			return err
		}
	}
}
