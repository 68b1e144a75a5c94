package queue

import (
	"context"

	"github.com/everpoint/everpoint/state/store"
)

// fenceOthers ends the leases of nodes that have been silent too long, and
// forgets nodes that are gone. It looks at nodesPage nodes, from where the last
// round stopped.
func (k *keeper) fenceOthers(ctx context.Context) error {
	q := k.q
	r := q.store.Reader(ctx)
	rows, err := r.List(kindNode, "", k.nodesAfter, nodesPage)
	if err != nil {
		return err
	}
	forgets := forgetMax
	for _, w := range rows {
		n, err := store.Decode[node](kindNode, w.Body)
		if err != nil {
			q.log.ErrorContext(ctx, "the row of a node cannot be read; what it leased stays leased", "silent_node", w.Key, "error", err)
			continue
		}
		switch {
		case w.Key == q.cfg.Node:
			continue
		case n.Held:
			if n.Fenced || k.silent(w.Key, n) && !k.troubled() {
				q.log.WarnContext(ctx, "a node fell silent; its work is put back", "silent_node", w.Key)
				err = q.fence(ctx, w.Key, n)
			}
		case q.now().After(n.Until.Add(q.cfg.LeaseTime)):
			// It said that it holds nothing. An update that leased to it may have been on
			// its way to the database for longer than that.
			var leased []store.Row
			if leased, err = r.Lookup(kindWork, heldBy(w.Key), 1); err != nil {
				return err
			}
			if len(leased) > 0 {
				q.log.WarnContext(ctx, "work is leased to a node whose leases are over; it is put back", "silent_node", w.Key)
				err = q.fence(ctx, w.Key, n)
			} else if forgets > 0 && q.now().After(n.Until.Add(nodeKeep)) {
				forgets--
				err = q.forget(ctx, w.Key, n.Life)
			}
		}
		if err != nil {
			return err
		}
	}
	k.nodesAfter = ""
	if len(rows) == nodesPage {
		k.nodesAfter = rows[len(rows)-1].Key
	}
	return nil
}

// silent says that a node has not renewed its leases. Leases that seem to hold
// for longer than aheadMax are the word of a clock that was wrong; that node is
// silent once its row has not changed for as long.
func (k *keeper) silent(name string, n *node) bool {
	now, most := k.q.now(), aheadMax*k.q.cfg.LeaseTime
	if n.Until.Sub(now) <= most {
		delete(k.ahead, name)
		return now.After(n.Until)
	}
	seen, ok := k.ahead[name]
	if !ok || !seen.until.Equal(n.Until) {
		if k.ahead == nil || len(k.ahead) >= nodesPage {
			k.ahead = map[string]sighting{}
		}
		seen = sighting{n.Until, now}
		k.ahead[name] = seen
	}
	return now.Sub(seen.at) > most
}

// troubled says that the database failed this node a moment ago. It may have
// failed the others too, and their silence means nothing until they have had
// time to renew.
func (k *keeper) troubled() bool {
	return k.q.now().Sub(k.trouble).Abs() < k.q.cfg.LeaseTime/renewPart
}

// fence ends a life of another node, whose row was seen as silent, and puts back
// what it had leased.
func (q *Queue) fence(ctx context.Context, name string, silent *node) error {
	for {
		put := 0
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			put = 0
			n, err := store.Load[node](tx, kindNode, name)
			if err != nil {
				return err
			}
			if n == nil || n.Life != silent.Life || !n.Fenced && !n.Until.Equal(silent.Until) {
				return nil // it is back, or another was faster
			}
			if put, err = q.release(tx, name, ""); err != nil || put == 0 && !n.Held {
				return err
			}
			n.Fenced, n.Held = true, put == releasePage
			return store.Save(tx, kindNode, name, n)
		}, store.Touch{Kind: kindNode, Key: name})
		if err != nil || put < releasePage {
			return err
		}
	}
}

// forget removes the row of a node that is gone, unless work is leased to it.
func (q *Queue) forget(ctx context.Context, name string, life int64) error {
	return q.store.Update(ctx, func(tx *store.Tx) error {
		n, err := store.Load[node](tx, kindNode, name)
		if err != nil || n == nil || n.Life != life || n.Held {
			return err
		}
		leased, err := tx.Lookup(kindWork, heldBy(name), 1)
		if err != nil || len(leased) > 0 {
			return err
		}
		return tx.Remove(kindNode, name)
	}, store.Touch{Kind: kindNode, Key: name})
}

// sweep puts back what is leased to nodes that were forgotten. An update that
// leased to such a node can only have been on its way to the database for as
// long as nodeKeep, so nothing hurries: one sweep looks at sweepPage pieces of
// work, from where the last stopped.
func (k *keeper) sweep(ctx context.Context) error {
	q := k.q
	r := q.store.Reader(ctx)
	rows, err := r.List(kindWork, "", k.sweptAfter, sweepPage)
	if err != nil {
		return err
	}
	known := map[string]bool{"": true, q.cfg.Node: true}
	for _, w := range rows {
		leased, err := store.Decode[row](kindWork, w.Body)
		if err != nil || known[leased.Node] {
			continue // what cannot be read is buried when it is due
		}
		known[leased.Node] = true
		there, err := r.Get(kindNode, leased.Node)
		if err == nil && there == nil {
			err = q.releaseOrphans(ctx, leased.Node)
		}
		if err != nil {
			return err
		}
	}
	k.sweptAfter = ""
	if len(rows) == sweepPage {
		k.sweptAfter = rows[len(rows)-1].Key
	}
	return nil
}

// releaseOrphans puts back what is leased to a node that has no row.
func (q *Queue) releaseOrphans(ctx context.Context, name string) error {
	q.log.WarnContext(ctx, "work is leased to a node that was forgotten; it is put back", "silent_node", name)
	for {
		put := 0
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			put = 0
			there, err := tx.Get(kindNode, name)
			if err != nil || there != nil {
				return err // it is back, and puts back what it had leased itself
			}
			put, err = q.release(tx, name, "")
			return err
		}, store.Touch{Kind: kindNode, Key: name})
		if err != nil || put < releasePage {
			return err
		}
	}
}
