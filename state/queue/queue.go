package queue

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// The rows this package owns: work, what waits in the order it is due, what was
// given up, and the nodes that hold leases.
var (
	kindWork   = store.Kind{Name: "work", Rule: changelog.RuleLocal}
	kindDue    = store.Kind{Name: "work.due", Rule: changelog.RuleLocal}
	kindBuried = store.Kind{Name: "work.buried", Rule: changelog.RuleLocal}
	kindNode   = store.Kind{Name: "work.node", Rule: changelog.RuleLocal}
)

// Work is something to do.
type Work struct {
	Kind string          // which handler does it; UTF-8 without NUL bytes
	ID   string          // unique within the kind: enqueueing it again changes nothing; UTF-8
	Due  time.Time       // not done before; zero means now
	Body json.RawMessage `json:",omitempty"`
}

// Bounds of one piece of work. A row may hold six times as much for a body:
// JSON writes a < as \u003c.
const (
	idBytesMax   = 512
	bodyBytesMax = 256 << 10
)

func checkBody(kind string, body json.RawMessage) error {
	if len(body) > bodyBytesMax {
		return fmt.Errorf("queue: work of kind %s has a body of %d bytes, more than %d", kind, len(body), bodyBytesMax)
	}
	return nil
}

// Config tunes a queue.
type Config struct {
	// Node identifies this node's leases across restarts. Required, and no two
	// nodes of a Region may have the same.
	Node string
	// LeaseTime is how long a silent node keeps its work; 0 means 15 s.
	LeaseTime time.Duration
	// PollInterval is how long due work waits at most when nobody on this node
	// announced it; 0 means 250 ms.
	PollInterval time.Duration
	// AttemptsMax is how many errors bury a piece of work; 0 means 20.
	AttemptsMax int
	// RetryDelay bounds the wait after the first error; each further error doubles
	// the bound, up to 5 min. 0 means 1 s.
	RetryDelay time.Duration
}

// Queue hands work to handlers. Register handlers, then Run it. It is safe for
// concurrent use.
type Queue struct {
	cfg   Config
	store *store.Store
	now   func() time.Time
	rnd   func() float64 // full jitter; in [0, 1)
	log   *slog.Logger

	mu       sync.Mutex
	handlers map[string]*handler
	running  bool             // Run was called
	life     int64            // of this node; grows with every life; 0 before the first
	until    time.Time        // when the node's leases run out
	holding  bool             // the node's row says that it may hold leases, so updates may take them
	resting  bool             // the node's row says that it holds none
	leases   uint64           // taken so far
	held     map[string]*Item // by lease: what this node holds and works on
	doubts   chan struct{}    // tells the keeper that the life may have ended
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
	if cfg.RetryDelay == 0 {
		cfg.RetryDelay = time.Second
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
		held:     map[string]*Item{},
		doubts:   make(chan struct{}, 1),
	}
}

// row is a piece of work as it is stored.
type row struct {
	Work
	Attempts  int       `json:",omitempty"` // errors so far
	Node      string    `json:",omitempty"` // who holds the lease
	Lease     string    `json:",omitempty"` // unique for each lease; empty while the work waits
	LastError string    `json:",omitempty"`
	Enqueued  time.Time `json:",omitzero"`
}

func (r *row) save(tx *store.Tx, indexes ...store.Index) error {
	return store.Save(tx, kindWork, workKey(r.Kind, r.ID), r, indexes...)
}

func workKey(kind, id string) string { return kind + "\x00" + id }

const dueBytes = 8 // of the due time in a key: microseconds, big-endian

func dueKey(kind string, due time.Time, id string) string {
	var at [dueBytes]byte
	binary.BigEndian.PutUint64(at[:], uint64(max(due.UnixMicro(), 0)))
	return kind + "\x00" + string(at[:]) + id
}

// splitDue takes apart the part of a due key after the kind.
func splitDue(rest string) (due time.Time, id string, ok bool) {
	if len(rest) < dueBytes {
		return time.Time{}, "", false
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64([]byte(rest[:dueBytes])))), rest[dueBytes:], true
}

// heldBy is the index value of what a node holds.
func heldBy(node string) store.Index { return store.Index{Name: "node", Value: node} }

// Touch names the row that Enqueue reads, for the caller's Update.
func Touch(kind, id string) store.Touch {
	return store.Touch{Kind: kindWork, Key: workKey(kind, id)}
}

// Enqueue writes work in the caller's update. Work of the same kind and id that
// is there already stays as it is.
func (q *Queue) Enqueue(tx *store.Tx, w Work) error {
	switch {
	case w.Kind == "" || strings.Contains(w.Kind, "\x00") || !utf8.ValidString(w.Kind):
		return fmt.Errorf("queue: %q is no kind of work", w.Kind)
	case w.ID == "" || len(w.ID) > idBytesMax:
		return fmt.Errorf("queue: work of kind %s has an id of %d bytes, not 1 to %d", w.Kind, len(w.ID), idBytesMax)
	case !utf8.ValidString(w.ID): // its row, which is JSON, would name other work
		return fmt.Errorf("queue: work of kind %s has the id %q, which is not UTF-8", w.Kind, w.ID)
	}
	if err := checkBody(w.Kind, w.Body); err != nil {
		return err
	}
	return q.add(tx, w)
}

// add writes work that is within its bounds, unless it is there already.
func (q *Queue) add(tx *store.Tx, w Work) error {
	there, err := tx.Get(kindWork, workKey(w.Kind, w.ID))
	if err != nil || there != nil {
		return err
	}
	now := tx.Now()
	if w.Due.IsZero() {
		w.Due = now
	}
	r := &row{Work: w, Enqueued: now}
	q.mu.Lock()
	h := q.handlers[w.Kind]
	handOff := h != nil && !w.Due.After(now) && q.fresh() && h.promise()
	q.mu.Unlock()
	if !handOff {
		return q.wait(tx, r)
	}
	it, err := q.lease(tx, r)
	if err != nil {
		return err
	}
	tx.AfterCommit(func() { q.handOff(h, it) })
	return nil
}

// fresh says whether a lease taken now would last; q.mu is held.
func (q *Queue) fresh() bool { return q.holding && q.left() > q.cfg.LeaseTime/2 }

// left is how long the node's leases still hold; q.mu is held. Of a machine's two
// clocks the one that is further decides: the wall clock may be set back, and the
// other stands still while the machine is suspended.
func (q *Queue) left() time.Duration {
	now := q.now()
	return min(q.until.Sub(now), q.until.Round(0).Sub(now.Round(0)))
}

// wait writes work that waits for its due time.
func (q *Queue) wait(tx *store.Tx, r *row) error {
	r.Node, r.Lease = "", ""
	if err := r.save(tx); err != nil {
		return err
	}
	if err := tx.Put(kindDue, dueKey(r.Kind, r.Due, r.ID), []byte{}); err != nil {
		return err
	}
	if r.Due.Before(tx.Now().Add(q.cfg.PollInterval)) {
		kind := r.Kind
		tx.AfterCommit(func() { q.poke(kind) })
	}
	return nil
}

// lease writes work that this node holds.
func (q *Queue) lease(tx *store.Tx, r *row) (*Item, error) {
	q.mu.Lock()
	q.leases++
	life := q.life
	r.Node, r.Lease = q.cfg.Node, fmt.Sprintf("%s%x", leaseOf(q.cfg.Node, life), q.leases)
	q.mu.Unlock()
	if err := r.save(tx, heldBy(r.Node)); err != nil {
		return nil, err
	}
	return &Item{Work: r.Work, Attempts: r.Attempts, q: q, lease: r.Lease, life: life}, nil
}

// leaseOf is what the leases of one life of a node begin with.
func leaseOf(node string, life int64) string { return fmt.Sprintf("%s/%x/", node, life) }

// Depth counts the work of all kinds, up to limit.
func (q *Queue) Depth(r store.Reader, limit int) (int, error) {
	rows, err := r.List(kindWork, "", "", limit)
	return len(rows), err
}
