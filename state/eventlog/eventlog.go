package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// Config tunes a log.
type Config struct {
	// Node holds the leases of this node's followers. Required, and no two nodes
	// of a Region may have the same.
	Node string
	// Retention is how long facts stay; 0 means 7 days. Source: channels 11.
	Retention time.Duration
	// LeaseTime is how long a silent node keeps a follower; 0 means 10 s.
	LeaseTime time.Duration
}

// Log hands facts to followers. Register them, then Run it.
type Log struct {
	cfg   Config
	store *store.Store
	now   func() time.Time
	log   *slog.Logger

	mu        sync.Mutex
	followers []*follower
	running   bool
}

// New returns a log over st.
func New(cfg Config, st *store.Store, now func() time.Time, log *slog.Logger) *Log {
	if cfg.Retention == 0 {
		cfg.Retention = 7 * 24 * time.Hour
	}
	if cfg.LeaseTime == 0 {
		cfg.LeaseTime = 10 * time.Second
	}
	return &Log{cfg: cfg, store: st, now: now, log: log.With("component", "eventlog")}
}

// follower is one follower on this node; one goroutine runs it.
type follower struct {
	name  string
	out   func(ctx context.Context, batch []Fact, state json.RawMessage) (json.RawMessage, error)
	apply func(tx *store.Tx, batch []Fact) error
	cur   *cursor // as last read or written; nil when that is in doubt
}

// Follow has apply called with facts in order, in the update that moves the
// follower's cursor: each fact takes effect exactly once. apply may run more
// than once for one commit, as every update function. Follow panics when the
// name is taken, or after Run.
func Follow(l *Log, name string, apply func(tx *store.Tx, batch []Fact) error) {
	l.add(&follower{name: name, apply: apply})
}

// Deliver has out called with facts in order, outside any update. state is what
// out returned with the batch before, nil at first; it is stored with the
// cursor after out returns. When the node dies between, facts come again with
// the older state, perhaps cut into other batches. out must return when its
// context ends: the node stops, or no longer holds the follower. Deliver panics
// when the name is taken, or after Run.
func Deliver(l *Log, name string, out func(ctx context.Context, batch []Fact, state json.RawMessage) (json.RawMessage, error)) {
	l.add(&follower{name: name, out: out})
}

func (l *Log) add(f *follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running {
		panic("eventlog: follower " + f.name + " was added after Run")
	}
	for _, o := range l.followers {
		if o.name == f.name {
			panic("eventlog: follower " + f.name + " was added twice")
		}
	}
	l.followers = append(l.followers, f)
}

// Run runs the followers until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.running {
		l.mu.Unlock()
		return errors.New("eventlog: Run was called twice")
	}
	l.running = true
	l.mu.Unlock()
	var done sync.WaitGroup
	for _, f := range l.followers { // nobody adds any more
		done.Go(func() { l.follow(ctx, f) })
	}
	done.Go(func() { l.trim(ctx) })
	done.Wait()
	return nil
}

// Bounds of one batch, and of what is read for it.
const (
	batchFactsMax = 1000
	batchBytesMax = 4 << 20 // of Data; a longer fact is a batch of its own
	batchBlocks   = 16
)

// After a failure a follower waits.
const (
	retryDelay    = time.Second
	retryDelayMax = 10 * time.Second
)

func (l *Log) follow(ctx context.Context, f *follower) {
	defer l.giveUp(context.WithoutCancel(ctx), f)
	delay := retryDelay
	for ctx.Err() == nil {
		err := l.step(ctx, f)
		if err == nil {
			delay = retryDelay
			continue
		}
		f.cur = nil
		if held, ok := errors.AsType[*elsewhereError](err); ok {
			wait(ctx, min(max(held.until.Sub(l.now()), time.Millisecond), l.cfg.LeaseTime/renewPart))
		} else if ctx.Err() == nil {
			l.log.WarnContext(ctx, "follower did not advance", "follower", f.name, "error", err)
			wait(ctx, delay)
			delay = min(2*delay, retryDelayMax)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// step waits for facts and hands one batch on. While there are none it holds no
// lease: a log at rest writes nothing.
func (l *Log) step(ctx context.Context, f *follower) error {
	if f.cur == nil {
		if err := l.find(ctx, f); err != nil {
			return err
		}
	}
	if err := l.store.Wait(ctx, store.Events, f.cur.N); err != nil {
		return err // the node stops
	}
	if err := l.hold(ctx, f); err != nil {
		return err
	}
	blocks, err := l.store.Blocks(ctx, store.Events, f.cur.N, batchBlocks)
	if err != nil || len(blocks) == 0 {
		return err
	}
	if first := blocks[0].N; f.cur.N > 0 && first > f.cur.N+1 {
		l.log.ErrorContext(ctx, "facts were removed before they were read", "follower", f.name, "from_block", f.cur.N+1, "to_block", first-1)
	}
	batch, next, err := gather(f.cur, blocks)
	if err != nil {
		return err
	}
	if f.out != nil {
		if next.State, err = l.deliver(ctx, f, batch); err != nil {
			return err
		}
	}
	return l.advance(context.WithoutCancel(ctx), f, batch, next)
}

// gather cuts the next batch out of blocks, and says where the cursor is after it.
func gather(cur *cursor, blocks []store.Block) (batch []Fact, next *cursor, err error) {
	after := *cur
	next = &after
	bytes := 0
	for _, b := range blocks {
		start := 0
		if b.N == cur.N+1 {
			start = min(cur.Part, len(b.Records))
		}
		for i := start; i < len(b.Records); i++ {
			f, err := decode(b.Records[i])
			if err != nil {
				return nil, nil, fmt.Errorf("block %d: %w", b.N, err)
			}
			if len(batch) == batchFactsMax || len(batch) > 0 && bytes+len(f.Data) > batchBytesMax {
				next.N, next.Part = b.N-1, i
				return batch, next, nil
			}
			batch, bytes = append(batch, f), bytes+len(f.Data)
		}
		next.N, next.Part = b.N, 0
	}
	return batch, next, nil
}

// advance moves the cursor, with the effect of a follower that has one here.
func (l *Log) advance(ctx context.Context, f *follower, batch []Fact, next *cursor) error {
	if err := l.store.Update(ctx, func(tx *store.Tx) error {
		c, err := l.mine(tx, f)
		if err != nil {
			return err
		}
		if c.N != f.cur.N || c.Part != f.cur.Part {
			return errMoved
		}
		if f.apply != nil {
			if err := f.apply(tx, batch); err != nil {
				return err
			}
		}
		next.Until = l.now().Add(l.cfg.LeaseTime)
		return store.Save(tx, kindCursor, f.name, next)
	}, f.touch()); err != nil {
		return err
	}
	f.cur = next
	return nil
}

// deliver calls out, keeping the lease meanwhile.
func (l *Log) deliver(ctx context.Context, f *follower, batch []Fact) (json.RawMessage, error) {
	work, cancel := context.WithCancelCause(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { l.keep(work, f, cancel) })
	state, err := call(work, f, batch)
	cancel(nil)
	keeping.Wait()
	if cause := context.Cause(work); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return nil, fmt.Errorf("%w (%w)", err, cause)
	}
	return state, err
}

func call(ctx context.Context, f *follower, batch []Fact) (state json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("follower panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return f.out(ctx, batch, f.cur.State)
}
