package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// handler is one kind's workers. Everything but the first three fields is
// guarded by the queue's mu.
type handler struct {
	kind    string
	workers int
	do      func(ctx context.Context, it *Item) error
	wake    chan struct{} // look for work
	here    func() bool   // nil: always

	ctx     context.Context // of the items, from Run; nil before
	items   sync.WaitGroup  // in work
	open    bool            // takes what is handed to it
	busy    int             // workers that have an item, or are about to
	ready   []*Item         // handed over when no worker was idle
	behind  bool            // due work may be waiting in the database
	rotated time.Time
	// promised counts items that updates on their way will hand over. An update
	// that fails does not say so, so promises are counted by the poll interval
	// they were made in and forgotten after the next.
	promised [2]int
}

// Handle has do called for each piece of work of a kind, on at most workers
// goroutines at once. When do returns nil the work is completed unless do did
// so itself; when it returns an error the work waits and is tried again. The
// context ends when the queue stops, and with cause ErrLost when the lease is
// lost. Handle panics when the kind has a handler already, or after Run.
func Handle(q *Queue, kind string, workers int, do func(ctx context.Context, it *Item) error) {
	HandleWhile(q, kind, workers, nil, do)
}

// HandleWhile is Handle for work that is taken only while here says so: of a
// Region's nodes one may be meant to do it. here is called often, and must be
// quick; what is in work when it changes goes on.
func HandleWhile(q *Queue, kind string, workers int, here func() bool, do func(ctx context.Context, it *Item) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		panic("queue: Handle of kind " + kind + " after Run")
	}
	if q.handlers[kind] != nil {
		panic("queue: kind " + kind + " is handled twice")
	}
	q.handlers[kind] = &handler{kind: kind, workers: max(workers, 1), do: do, wake: make(chan struct{}, 1), here: here}
}

// Run leases work and calls handlers until ctx ends and the last handler
// returned. First it ends the leases of this node's last life, last its own.
func (q *Queue) Run(ctx context.Context) error {
	q.mu.Lock()
	if q.running {
		q.mu.Unlock()
		return errors.New("queue: Run was called twice")
	}
	q.running = true
	q.mu.Unlock()
	for {
		err := q.begin(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			q.log.WarnContext(ctx, "leases of the node's last life not ended yet", "error", err)
		}
		if !pause(ctx, keepRetry) {
			return nil
		}
	}
	// Leases are kept until the last handler has returned.
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeping()
	var tending, kinds sync.WaitGroup
	tending.Go(func() { q.keep(keeping) })
	for _, h := range q.handlers { // nobody writes it any more
		kinds.Go(func() { q.serve(ctx, h) })
	}
	<-ctx.Done()
	kinds.Wait()
	stopKeeping()
	tending.Wait()
	// Updates are answered in order, so what was promised before the handlers
	// closed has been handed over when this one runs.
	if err := q.end(context.WithoutCancel(ctx)); err != nil {
		q.log.WarnContext(ctx, "leases not ended; they run out", "error", err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// claimMax is how many pieces of work one update leases.
const claimMax = 64

// serve keeps one kind's workers busy.
func (q *Queue) serve(ctx context.Context, h *handler) {
	q.mu.Lock()
	h.ctx, h.open, h.behind = ctx, true, true
	q.mu.Unlock()
	defer h.items.Wait()
	defer q.close(h)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		f := q.look(ctx, h)
		if f.more {
			continue
		}
		pollIn := q.cfg.PollInterval
		if !f.next.IsZero() {
			pollIn = min(pollIn, max(f.next.Sub(q.now()), 0))
		}
		timer.Reset(pollIn)
		select {
		case <-h.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// promise counts an item that is to be handed over, unless no worker is idle or
// due work waits already; q.mu is held.
func (h *handler) promise() bool {
	if !h.open || h.behind || h.idle() <= 0 || h.here != nil && !h.here() {
		return false
	}
	h.promised[0]++
	return true
}

func (h *handler) idle() int {
	return h.workers - h.busy - len(h.ready) - h.promised[0] - h.promised[1]
}

// room is how many pieces of work a look may find. When there is no room, the
// next worker that becomes idle asks for a look.
func (q *Queue) room(h *handler) int {
	if h.here != nil && !h.here() {
		return 0 // it is asked again
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := q.now(); now.Sub(h.rotated) >= q.cfg.PollInterval {
		h.promised[0], h.promised[1] = 0, h.promised[0]
		h.rotated = now
	}
	n := min(h.idle(), claimMax)
	if n <= 0 {
		h.behind = true
	}
	return n
}

// reserve takes up to n idle workers for a claim.
func (q *Queue) reserve(h *handler, n int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = max(min(n, h.idle()), 0)
	h.busy += n
	h.behind = true // what is due is in the database until the claim is committed
	return n
}

// admit notes that the node holds what an update has just leased, unless the
// life it was leased in is over; q.mu is held. It is called while the update is
// answered, before any later update begins.
func (q *Queue) admit(it *Item) bool {
	if it.lost = it.life != q.life; !it.lost {
		q.held[it.lease] = it
	}
	return !it.lost
}

// start gives what was claimed to the n workers that were reserved for it, and
// notes whether the database may hold more that is due.
func (q *Queue) start(h *handler, n int, items []*Item, behind bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h.busy -= n - len(items)
	h.behind = behind
	for _, it := range items {
		h.items.Go(func() { q.work(h, it) })
	}
}

// handOff takes an item that an update has just leased.
func (q *Queue) handOff(h *handler, it *Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if old := &h.promised[1]; *old > 0 {
		*old--
	} else if h.promised[0] > 0 {
		h.promised[0]--
	}
	if !h.open || !q.admit(it) {
		return // the queue's end or the keeper puts it back
	}
	if h.busy >= h.workers {
		h.ready = append(h.ready, it)
		return
	}
	h.busy++
	h.items.Go(func() { q.work(h, it) })
}

// close makes the handler take nothing more.
func (q *Queue) close(h *handler) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h.open = false
	for _, it := range h.ready {
		delete(q.held, it.lease)
	}
	h.ready = nil
}

// work does an item, and then those that wait for a worker.
func (q *Queue) work(h *handler, it *Item) {
	for it != nil {
		q.do(h, it)
		it = q.finish(h, it)
	}
}

// finish lets go of an item and returns the next that was handed over, if any.
func (q *Queue) finish(h *handler, it *Item) *Item {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.held, it.lease)
	if len(h.ready) > 0 {
		next := h.ready[0]
		h.ready = h.ready[1:]
		return next
	}
	h.busy--
	if h.behind {
		h.poke()
	}
	return nil
}

// poke has the kind's work looked for.
func (q *Queue) poke(kind string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.handlers[kind]; h != nil {
		h.behind = true
		h.poke()
	}
}

func (h *handler) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// found is what a look for work found.
type found struct {
	next time.Time // when the first that is not due yet will be; zero if not seen
	more bool      // look again at once
}

// look leases due work for idle workers and sets them to it.
func (q *Queue) look(ctx context.Context, h *handler) found {
	n := q.room(h)
	if n <= 0 {
		return found{}
	}
	due, next, err := q.due(q.store.Reader(ctx), h.kind, n)
	full := len(due) == n
	if err == nil && len(due) > 0 {
		n = q.reserve(h, len(due))
		if n == 0 {
			return found{}
		}
		full = full || n < len(due) // what was handed over meanwhile took the workers
		due = due[:n]
		var items []*Item
		items, err = q.claim(ctx, h.kind, due)
		// Another node may have been faster with some of it.
		more := err == nil && (full || len(items) < len(due))
		q.start(h, n, items, more || err != nil)
		if more {
			return found{more: true}
		}
	} else if err == nil {
		q.start(h, 0, nil, false)
	}
	switch {
	case err == nil:
		return found{next: next}
	case errors.Is(err, ErrLost):
		q.doubt()
	case ctx.Err() == nil:
		q.log.WarnContext(ctx, "work not claimed", "kind", h.kind, "error", err)
	}
	return found{}
}

// due lists the keys of up to n pieces of work that are due, and when the next
// will be if that was seen.
func (q *Queue) due(r store.Reader, kind string, n int) (keys []string, next time.Time, err error) {
	prefix := kind + "\x00"
	rows, err := r.List(kindDue, prefix, "", n)
	if err != nil {
		return nil, next, err
	}
	limit := dueKey(kind, q.now().Add(time.Microsecond), "")
	for i := range rows {
		if rows[i].Key >= limit {
			next, _, _ = splitDue(rows[i].Key[len(prefix):])
			break
		}
		keys = append(keys, rows[i].Key)
	}
	return keys, next, nil
}

// claim leases the work of due rows that is still there.
func (q *Queue) claim(ctx context.Context, kind string, due []string) ([]*Item, error) {
	touch := []store.Touch{{Kind: kindNode, Key: q.cfg.Node}}
	for _, key := range due {
		touch = append(touch, store.Touch{Kind: kindDue, Key: key})
		if _, id, ok := splitDue(key[len(kind)+1:]); ok {
			touch = append(touch, Touch(kind, id))
		}
	}
	var items []*Item
	err := q.store.Update(ctx, func(tx *store.Tx) error {
		items = nil
		n, err := q.own(tx)
		if err != nil {
			return err
		}
		q.mu.Lock()
		fresh := q.fresh()
		q.mu.Unlock()
		if !fresh {
			if err := q.renewIn(tx, n); err != nil {
				return err
			}
		}
		for _, key := range due {
			it, err := q.claimOne(tx, kind, key)
			if err != nil {
				return err
			}
			if it != nil {
				items = append(items, it)
			}
		}
		leased := items
		tx.AfterCommit(func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			for _, it := range leased {
				q.admit(it)
			}
		})
		return nil
	}, touch...)
	if err != nil {
		return nil, err
	}
	return items, nil
}

// claimOne leases the work of a due row; nil when another did.
func (q *Queue) claimOne(tx *store.Tx, kind, key string) (*Item, error) {
	there, err := tx.Get(kindDue, key)
	if err != nil || there == nil {
		return nil, err
	}
	if err := tx.Remove(kindDue, key); err != nil {
		return nil, err
	}
	_, id, ok := splitDue(key[len(kind)+1:])
	if !ok {
		return nil, nil
	}
	body, err := tx.Get(kindWork, workKey(kind, id))
	if err != nil || body == nil {
		return nil, err
	}
	r, err := store.Decode[row](kindWork, body)
	if err != nil {
		// Nobody can do it; it must not stand in the way of the rest.
		q.log.Error("work cannot be read and is buried", "kind", kind, "error", err)
		return nil, bury(tx, &row{Work: Work{Kind: kind, ID: id}, LastError: bounded(err.Error(), errorBytesMax)})
	}
	return q.lease(tx, r)
}

// do calls the handler and writes what became of the work.
func (q *Queue) do(h *handler, it *Item) {
	work, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	q.mu.Lock()
	it.cancel = cancel
	lost := it.lost
	q.mu.Unlock()
	if lost {
		return
	}
	err := q.call(work, h, it)
	if it.settled() || errors.Is(err, ErrLost) {
		return
	}
	outcome := it.Complete
	switch {
	case err == nil:
	case h.ctx.Err() != nil:
		// The node stops: that is no error of the work's.
		outcome = it.release
	case errors.Is(context.Cause(work), ErrLost):
		return // nor is that, and whoever ended the lease puts the work back
	default:
		q.log.WarnContext(work, "work failed", "kind", it.Kind, "attempt", it.Attempts+1,
			"buried", it.Attempts+1 >= q.cfg.AttemptsMax, "error", err)
		outcome = func(tx *store.Tx) error { return it.fail(tx, err) }
	}
	q.conclude(h.ctx, it, outcome)
}

// outcomeTries bounds how often an outcome is written before the work is left
// to the keeper, who puts it back as it was.
const outcomeTries = 6

func (q *Queue) conclude(ctx context.Context, it *Item, outcome func(tx *store.Tx) error) {
	touch := it.Touch()
	for try := range outcomeTries {
		err := q.store.Update(context.WithoutCancel(ctx), outcome, touch...)
		if err == nil || errors.Is(err, ErrLost) {
			return
		}
		q.log.WarnContext(ctx, "outcome of work not written", "kind", it.Kind, "try", try+1, "error", err)
		if !pause(ctx, 100*time.Millisecond<<try) && try > 0 {
			return // a node that stops does not wait for its database
		}
	}
}

// release puts the work back as it was.
func (it *Item) release(tx *store.Tx) error {
	r, err := it.row(tx)
	if err != nil {
		return err
	}
	return it.q.wait(tx, r)
}

func (q *Queue) call(ctx context.Context, h *handler, it *Item) (err error) {
	defer func() {
		if p := recover(); p != nil {
			q.log.ErrorContext(ctx, "handler panicked", "kind", h.kind, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("handler panicked: %v", p)
		}
	}()
	return h.do(ctx, it)
}
