package queue

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// ErrLost says that the work's lease has ended: another holds it, or may.
var ErrLost = errors.New("queue: the lease was lost")

// Item is work that this node holds.
type Item struct {
	Work
	Attempts int // errors before this one
	q        *Queue
	lease    string
	life     int64 // of the node, in which the lease was taken

	// The rest is guarded by q.mu.
	done   bool // Complete or Again was committed
	lost   bool // the node's life ended while it was held
	cancel context.CancelCauseFunc
}

// Valid reports whether the lease still holds, as far as this node knows: what
// a worker asks before each effect that no update can undo.
func (it *Item) Valid() bool {
	q := it.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return !it.lost && q.left() > q.cfg.LeaseTime/skewPart
}

// skewPart is the part of the lease time by which two nodes' clocks may differ.
const skewPart = 10

// Touch names the rows that Complete, Again and Hold read, for the caller's
// Update: on PostgreSQL it saves them a round trip each.
func (it *Item) Touch() []store.Touch {
	return []store.Touch{Touch(it.Kind, it.ID), {Kind: kindNode, Key: it.q.cfg.Node}}
}

// row reads the work, and fails with ErrLost when it is not under the item's lease.
func (it *Item) row(tx *store.Tx) (*row, error) {
	r, err := store.Load[row](tx, kindWork, workKey(it.Kind, it.ID))
	if err != nil {
		return nil, err
	}
	if r == nil || r.Lease != it.lease {
		return nil, ErrLost
	}
	return r, nil
}

// Complete removes the work in the caller's update: the work is gone if and
// only if the update is committed.
func (it *Item) Complete(tx *store.Tx) error {
	if _, err := it.row(tx); err != nil {
		return err
	}
	tx.AfterCommit(it.settle)
	return tx.Remove(kindWork, workKey(it.Kind, it.ID))
}

// Again puts the work back in the caller's update, due later and with a new
// body, its errors forgotten.
func (it *Item) Again(tx *store.Tx, due time.Time, body json.RawMessage) error {
	if err := checkBody(it.Kind, body); err != nil {
		return err
	}
	r, err := it.row(tx)
	if err != nil {
		return err
	}
	tx.AfterCommit(it.settle)
	return it.q.wait(tx, &row{Work: Work{r.Kind, r.ID, due, body}, Enqueued: r.Enqueued})
}

// Hold fails with ErrLost in the caller's update when the lease was lost, so
// that the update has no effect then. It renews the node's leases.
func (it *Item) Hold(tx *store.Tx) error {
	if _, err := it.row(tx); err != nil {
		return err
	}
	// Writing the node's row is what keeps the update and a fencing of the node,
	// on another node at the same time, from both being committed.
	n, err := it.q.own(tx)
	if err != nil {
		return err
	}
	return it.q.renewIn(tx, n)
}

func (it *Item) settle() {
	it.q.mu.Lock()
	defer it.q.mu.Unlock()
	it.done = true
}

func (it *Item) settled() bool {
	it.q.mu.Lock()
	defer it.q.mu.Unlock()
	return it.done
}
