package queue

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// The rows this package owns: work by due time, where each piece of work is,
// and what was given up.
var (
	kindWork   = store.Kind{Name: "work", Rule: changelog.RuleLocal}
	kindWhere  = store.Kind{Name: "work.where", Rule: changelog.RuleLocal}
	kindBuried = store.Kind{Name: "work.buried", Rule: changelog.RuleLocal}
)

// Work is something to do.
type Work struct {
	Kind string // which handler does it
	ID   string // unique within the kind: enqueueing it again changes nothing
	Due  time.Time
	Body json.RawMessage // what the handler needs to know; may be nil
}

// Buried is work that was given up after attemptsMax errors.
type Buried struct {
	Work
	Attempts  int
	LastError string
	BuriedAt  time.Time
}

// Config tunes a queue.
type Config struct {
	// Node identifies this node's leases across restarts. Required.
	Node string
	// LeaseTime is how long a silent worker keeps its work; 0 means 15 s.
	LeaseTime time.Duration
	// PollInterval is how long due work waits at most when nobody on this node
	// announced it; 0 means 250 ms.
	PollInterval time.Duration
	// AttemptsMax is how many errors bury a piece of work; 0 means 20.
	AttemptsMax int
}

// ErrLost says that the work's lease is another's by now.
var ErrLost = errors.New("queue: the lease was lost")

// retryDelayMax bounds the wait between attempts.
const retryDelayMax = 5 * time.Minute

// Queue hands work to handlers. Register handlers, then Run it.
type Queue struct {
	cfg   Config
	store *store.Store
	now   func() time.Time
	rnd   func() float64 // full jitter; in [0, 1)
	log   *slog.Logger

	mu       sync.Mutex
	handlers map[string]*handler
	running  int
}

type handler struct {
	kind    string
	workers int
	do      func(ctx context.Context, it *Item) error
	wake    chan struct{}
}

// New returns a queue over st.
func New(cfg Config, st *store.Store, now func() time.Time, rnd *rand.Rand, log *slog.Logger) *Queue {
	if cfg.LeaseTime == 0 {
		cfg.LeaseTime = 15 * time.Second
	}
	if cfg.PollInterval == 0 {
		cfg.PollInterval = 250 * time.Millisecond
	}
	if cfg.AttemptsMax == 0 {
		cfg.AttemptsMax = 20
	}
	var mu sync.Mutex
	return &Queue{
		cfg: cfg, store: st, now: now, log: log.With("component", "queue"),
		rnd: func() float64 {
			mu.Lock()
			defer mu.Unlock()
			return rnd.Float64()
		},
		handlers: map[string]*handler{},
	}
}

// Handle has do called for each piece of work of a kind, on at most workers
// goroutines at once. When do returns nil the work is completed unless do did
// so itself; when it returns an error the work waits and is tried again.
// Call it before Run.
func Handle(q *Queue, kind string, workers int, do func(ctx context.Context, it *Item) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.handlers[kind] = &handler{kind, workers, do, make(chan struct{}, 1)}
}

// row is a piece of work as it is stored.
type row struct {
	Work
	Attempts  int       `json:",omitempty"` // errors so far
	Node      string    `json:",omitempty"` // holder of the lease
	Lease     string    `json:",omitempty"` // unique for each lease
	LastError string    `json:",omitempty"`
	Enqueued  time.Time `json:",omitzero"`
}

func dueKey(kind string, due time.Time, id string) string {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(due.UnixMilli(), 0)))
	return kind + "\x00" + string(ms[:]) + id
}

func whereKey(kind, id string) string { return kind + "\x00" + id }

// Enqueue writes work in the caller's update. Work of the same kind and id that
// is there already stays as it is.
func (q *Queue) Enqueue(tx *store.Tx, w Work) error {
	where, err := tx.Get(kindWhere, whereKey(w.Kind, w.ID))
	if err != nil || where != nil {
		return err
	}
	if err := q.put(tx, &row{Work: w, Enqueued: tx.Now()}); err != nil {
		return err
	}
	q.mu.Lock()
	h := q.handlers[w.Kind]
	q.mu.Unlock()
	if h != nil && !w.Due.After(tx.Now()) {
		tx.AfterCommit(h.poke)
	}
	return nil
}

// Touch names the row that Enqueue reads, for the caller's Update.
func Touch(kind, id string) store.Touch {
	return store.Touch{Kind: kindWhere, Key: whereKey(kind, id)}
}

func (h *handler) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) put(tx *store.Tx, r *row) error {
	key := dueKey(r.Kind, r.Due, r.ID)
	if err := store.Save(tx, kindWork, key, r); err != nil {
		return err
	}
	return tx.Put(kindWhere, whereKey(r.Kind, r.ID), []byte(key))
}

// held reads the row of it, and ErrLost when it is not under it's lease.
func (q *Queue) held(tx *store.Tx, it *Item) (*row, string, error) {
	where, err := tx.Get(kindWhere, whereKey(it.Kind, it.ID))
	if err != nil {
		return nil, "", err
	}
	if where == nil {
		return nil, "", ErrLost
	}
	r, err := store.Load[row](tx, kindWork, string(where))
	if err != nil {
		return nil, "", err
	}
	if r == nil || r.Lease != it.lease {
		return nil, "", ErrLost
	}
	return r, string(where), nil
}

// Item is work that this node holds.
type Item struct {
	Work
	Attempts int // errors before this one
	q        *Queue
	lease    string

	mu    sync.Mutex
	done  bool
	until time.Time // of the lease, by this node's clock
}

// Valid reports whether the lease still holds, as far as this node knows: what
// a worker asks before each effect that no update can undo.
func (it *Item) Valid() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.q.now().Before(it.until)
}

func (it *Item) extend(until time.Time) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.until = until
}

// Complete removes the work in the caller's update: the work is gone if and
// only if the update is committed.
func (it *Item) Complete(tx *store.Tx) error {
	_, key, err := it.q.held(tx, it)
	if err != nil {
		return err
	}
	if err := tx.Remove(kindWork, key); err != nil {
		return err
	}
	tx.AfterCommit(it.settle)
	return tx.Remove(kindWhere, whereKey(it.Kind, it.ID))
}

// Again puts the work back in the caller's update, due later and with a new
// body, its errors forgotten.
func (it *Item) Again(tx *store.Tx, due time.Time, body json.RawMessage) error {
	r, key, err := it.q.held(tx, it)
	if err != nil {
		return err
	}
	if err := tx.Remove(kindWork, key); err != nil {
		return err
	}
	tx.AfterCommit(it.settle)
	return it.q.put(tx, &row{Work: Work{r.Kind, r.ID, due, body}, Enqueued: r.Enqueued})
}

// Hold fails with ErrLost in the caller's update when the lease was lost, so
// that the update has no effect then.
func (it *Item) Hold(tx *store.Tx) error {
	_, _, err := it.q.held(tx, it)
	return err
}

func (it *Item) settle() {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.done = true
}

func (it *Item) settled() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.done
}

// Run leases work and calls handlers until ctx ends and the last handler
// returned. First it releases what this node held when it last stopped.
func (q *Queue) Run(ctx context.Context) error {
	if err := q.releaseOwn(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("release leases of the node's last life: %w", err)
	}
	q.mu.Lock()
	var all []*handler
	for _, h := range q.handlers {
		all = append(all, h)
	}
	q.mu.Unlock()
	var done sync.WaitGroup
	for _, h := range all {
		done.Go(func() { q.serve(ctx, h) })
	}
	done.Wait()
	return nil
}

// claimMax is how many pieces of work one look takes.
const claimMax = 16

// serve keeps one kind's workers busy.
func (q *Queue) serve(ctx context.Context, h *handler) {
	free := make(chan struct{}, h.workers)
	for range h.workers {
		free <- struct{}{}
	}
	var done sync.WaitGroup
	defer done.Wait()
	ticker := time.NewTicker(q.cfg.PollInterval)
	defer ticker.Stop()
	for {
		// As many as there are free workers, at least one.
		n := 0
		select {
		case <-free:
			n = 1
		case <-ctx.Done():
			return
		}
		for n < claimMax && len(free) > 0 {
			<-free
			n++
		}
		items, err := q.claim(ctx, h.kind, n)
		if err != nil && ctx.Err() == nil {
			q.log.WarnContext(ctx, "work not claimed", "kind", h.kind, "error", err)
		}
		for _, it := range items {
			done.Go(func() {
				q.do(ctx, h, it)
				free <- struct{}{}
				h.poke()
			})
		}
		for range n - len(items) {
			free <- struct{}{}
		}
		if len(items) == n {
			continue
		}
		select {
		case <-h.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// claim leases up to n due pieces of work.
func (q *Queue) claim(ctx context.Context, kind string, n int) ([]*Item, error) {
	// A look at the committed state first: most looks find nothing.
	due, err := q.due(q.store.Reader(ctx), kind, n)
	if err != nil || len(due) == 0 {
		return nil, err
	}
	var items []*Item
	err = q.store.Update(ctx, func(tx *store.Tx) error {
		items = items[:0]
		due, err := q.due(tx, kind, n)
		if err != nil {
			return err
		}
		for _, w := range due {
			r, err := store.Decode[row](kindWork, w.Body)
			if err != nil {
				return err
			}
			if err := tx.Remove(kindWork, w.Key); err != nil {
				return err
			}
			r.Node, r.Lease, r.Due = q.cfg.Node, newLease(tx, w.Key), tx.Now().Add(q.cfg.LeaseTime)
			if err := q.put(tx, r); err != nil {
				return err
			}
			items = append(items, &Item{Work: r.Work, Attempts: r.Attempts, q: q, lease: r.Lease, until: r.Due})
		}
		return nil
	})
	return items, err
}

// newLease names a lease; the store's stamps are unique within the Region's
// node, and the node's name is beside it in the row.
func newLease(tx *store.Tx, key string) string {
	return fmt.Sprintf("%x-%x", tx.Stamp().Clock, tx.Blind(key)[:4])
}

func (q *Queue) due(r store.Reader, kind string, n int) ([]store.Row, error) {
	rows, err := r.List(kindWork, kind+"\x00", "", n)
	if err != nil {
		return nil, err
	}
	limit := dueKey(kind, q.now().Add(time.Millisecond), "")
	for i := range rows {
		if rows[i].Key >= limit {
			return rows[:i], nil
		}
	}
	return rows, nil
}

// do runs the handler, renewing the lease meanwhile.
func (q *Queue) do(ctx context.Context, h *handler, it *Item) {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var renewing sync.WaitGroup
	renewing.Go(func() { q.renew(work, it, cancel) })
	err := q.call(work, h, it)
	cancel(nil)
	renewing.Wait()
	if it.settled() || errors.Is(err, ErrLost) {
		return
	}
	// The node may be stopping; what became of the work is still written.
	ctx = context.WithoutCancel(ctx)
	if err == nil {
		err = q.store.Update(ctx, it.Complete)
	} else if ctx.Err() == nil {
		err = q.fail(ctx, it, err)
	}
	if err != nil && !errors.Is(err, ErrLost) {
		// The lease runs out and the work is tried again.
		q.log.WarnContext(ctx, "outcome of work not written", "kind", it.Kind, "error", err)
	}
}

func (q *Queue) call(ctx context.Context, h *handler, it *Item) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("handler panicked: %v", p)
		}
	}()
	return h.do(ctx, it)
}

func (q *Queue) renew(ctx context.Context, it *Item, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(q.cfg.LeaseTime / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := q.store.Update(ctx, func(tx *store.Tx) error {
			r, key, err := q.held(tx, it)
			if err != nil {
				return err
			}
			if err := tx.Remove(kindWork, key); err != nil {
				return err
			}
			r.Due = tx.Now().Add(q.cfg.LeaseTime)
			until := r.Due
			tx.AfterCommit(func() { it.extend(until) })
			return q.put(tx, r)
		})
		if errors.Is(err, ErrLost) && !it.settled() {
			cancel(ErrLost)
			return
		}
	}
}

// fail puts the work back after an error, or buries it.
func (q *Queue) fail(ctx context.Context, it *Item, cause error) error {
	buried := it.Attempts+1 >= q.cfg.AttemptsMax
	q.log.WarnContext(ctx, "work failed", "kind", it.Kind, "attempt", it.Attempts+1, "buried", buried, "error", cause)
	return q.store.Update(ctx, func(tx *store.Tx) error {
		r, key, err := q.held(tx, it)
		if err != nil {
			return err
		}
		if err := tx.Remove(kindWork, key); err != nil {
			return err
		}
		r.Attempts++
		r.LastError = bounded(cause.Error(), 500)
		r.Node, r.Lease = "", ""
		if buried {
			if err := tx.Remove(kindWhere, whereKey(r.Kind, r.ID)); err != nil {
				return err
			}
			return store.Save(tx, kindBuried, whereKey(r.Kind, r.ID), &Buried{r.Work, r.Attempts, r.LastError, tx.Now()})
		}
		r.Due = tx.Now().Add(q.delay(r.Attempts))
		return q.put(tx, r)
	})
}

// delay is exponential with full jitter: up to 1 s, 2 s, 4 s, …, retryDelayMax.
func (q *Queue) delay(attempts int) time.Duration {
	limit := min(time.Second<<min(attempts-1, 20), retryDelayMax)
	return time.Duration(q.rnd() * float64(limit))
}

func bounded(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// releaseOwn makes due what this node held in an earlier life.
func (q *Queue) releaseOwn(ctx context.Context) error {
	after := ""
	for {
		rows, err := q.store.Reader(ctx).List(kindWork, "", after, 500)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1].Key
		if err := q.store.Update(ctx, func(tx *store.Tx) error {
			for _, w := range rows {
				r, err := store.Load[row](tx, kindWork, w.Key)
				if err != nil {
					return err
				}
				if r == nil || r.Node != q.cfg.Node {
					continue
				}
				if err := tx.Remove(kindWork, w.Key); err != nil {
					return err
				}
				r.Due, r.Node, r.Lease = tx.Now(), "", ""
				if err := q.put(tx, r); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
}

// Depth counts the work of all kinds, up to limit.
func (q *Queue) Depth(r store.Reader, limit int) (int, error) {
	rows, err := r.List(kindWhere, "", "", limit)
	return len(rows), err
}

// BuriedWork lists what was given up, after a token that an earlier page ended
// with; next is empty at the end.
func (q *Queue) BuriedWork(r store.Reader, after string, limit int) (page []Buried, next string, err error) {
	rows, err := r.List(kindBuried, "", after, limit+1)
	if err != nil {
		return nil, "", err
	}
	for i, w := range rows {
		if i == limit {
			return page, rows[i-1].Key, nil
		}
		b, err := store.Decode[Buried](kindBuried, w.Body)
		if err != nil {
			return nil, "", err
		}
		page = append(page, *b)
	}
	return page, "", nil
}

// Retry takes buried work out again, due now.
func (q *Queue) Retry(tx *store.Tx, kind, id string) error {
	b, err := store.Load[Buried](tx, kindBuried, whereKey(kind, id))
	if err != nil {
		return err
	}
	if b == nil {
		return aws.NotFound("no buried work %s of kind %s", id, kind)
	}
	if err := tx.Remove(kindBuried, whereKey(kind, id)); err != nil {
		return err
	}
	b.Due = tx.Now()
	return q.Enqueue(tx, b.Work)
}
