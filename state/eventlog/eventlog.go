package eventlog

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

var kindCursor = store.Kind{Name: "cursor", Rule: changelog.RuleLocal}

// Fact is one thing that happened.
type Fact struct {
	ID      string // unique; consumers drop repeats by it
	Account string
	App     string
	Type    string // "_campaign.send", "_email.send", "menu.opened", …
	Client  string // the endpoint it is about; consumers keep its order
	Data    []byte // the event record as JSON; see channels-and-events 9.1
}

// Append adds a fact to the caller's update.
func Append(tx *store.Tx, f Fact) {
	n := 10
	for _, s := range []string{f.ID, f.Account, f.App, f.Type, f.Client} {
		n += len(s) + 2
	}
	b := make([]byte, 0, n+len(f.Data))
	for _, s := range []string{f.ID, f.Account, f.App, f.Type, f.Client} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	tx.Append(append(b, f.Data...))
}

var errCorrupt = errors.New("eventlog: fact is corrupt")

func decode(b []byte) (Fact, error) {
	var f Fact
	for _, s := range []*string{&f.ID, &f.Account, &f.App, &f.Type, &f.Client} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return Fact{}, errCorrupt
		}
		*s = string(b[k : k+int(n)])
		b = b[k+int(n):]
	}
	f.Data = b
	return f, nil
}

// Config tunes a log.
type Config struct {
	// Node holds the leases of this node's followers. Required.
	Node string
	// Retention is how long facts stay; 0 means 7 days. Source: channels 11.
	Retention time.Duration
	// LeaseTime is how long a silent node keeps a follower; 0 means 10 s.
	LeaseTime time.Duration
}

// Log hands facts to followers. Register them, then Run it.
type Log struct {
	cfg       Config
	store     *store.Store
	now       func() time.Time
	log       *slog.Logger
	followers []*follower
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

type follower struct {
	name   string
	follow func(ctx context.Context, batch []Fact, state json.RawMessage) (json.RawMessage, error)
	apply  func(tx *store.Tx, batch []Fact) error
}

// Follow has apply called with facts in order, in the update that moves the
// follower's cursor: each fact takes effect exactly once. apply may run more
// than once for one commit, as every update function. Call it before Run.
func Follow(l *Log, name string, apply func(tx *store.Tx, batch []Fact) error) {
	l.followers = append(l.followers, &follower{name: name, apply: apply})
}

// Deliver has out called with facts in order, outside any update. state is what
// out returned with the batch before, nil at first; it is stored with the
// cursor after out returns. When the node dies between, the batch comes again
// with the older state. Call it before Run.
func Deliver(l *Log, name string, out func(ctx context.Context, batch []Fact, state json.RawMessage) (json.RawMessage, error)) {
	l.followers = append(l.followers, &follower{name: name, follow: out})
}

// cursor is how far a follower is.
type cursor struct {
	N     int64           // the last block it has done
	State json.RawMessage `json:",omitempty"`
	Node  string          // who follows
	Until time.Time       // and until when nobody else may
}

// Run runs the followers until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	var done sync.WaitGroup
	for _, f := range l.followers {
		done.Go(func() { l.follow(ctx, f) })
	}
	done.Go(func() { l.trim(ctx) })
	done.Wait()
	return nil
}

const (
	batchBlocks   = 64
	retryDelay    = time.Second
	trimInterval  = time.Minute
	renewFraction = 3
)

func (l *Log) follow(ctx context.Context, f *follower) {
	for ctx.Err() == nil {
		if err := l.step(ctx, f); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "follower did not advance", "follower", f.name, "error", err)
			wait(ctx, retryDelay)
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

// errElsewhere says that another node runs the follower.
var errElsewhere = errors.New("eventlog: another node follows")

// step waits for facts and hands one batch on.
func (l *Log) step(ctx context.Context, f *follower) error {
	cur, err := l.take(ctx, f)
	if errors.Is(err, errElsewhere) {
		wait(ctx, l.cfg.LeaseTime/renewFraction)
		return nil
	}
	if err != nil {
		return err
	}
	// Wait for facts, but not longer than the lease can be left alone.
	waiting, cancel := context.WithTimeout(ctx, l.cfg.LeaseTime/renewFraction)
	err = l.store.Wait(waiting, store.Events, cur.N)
	cancel()
	if err != nil {
		return nil // the lease is due, or the node stops
	}
	blocks, err := l.store.Blocks(ctx, store.Events, cur.N, batchBlocks)
	if err != nil || len(blocks) == 0 {
		return err
	}
	var batch []Fact
	for _, b := range blocks {
		for _, rec := range b.Records {
			fact, err := decode(rec)
			if err != nil {
				return fmt.Errorf("block %d: %w", b.N, err)
			}
			batch = append(batch, fact)
		}
	}
	next := *cur
	next.N = blocks[len(blocks)-1].N
	if f.follow != nil {
		if next.State, err = f.follow(ctx, batch, cur.State); err != nil {
			return err
		}
	}
	return l.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		c, err := store.Load[cursor](tx, kindCursor, f.name)
		if err != nil {
			return err
		}
		if c == nil || c.Node != l.cfg.Node || c.N != cur.N {
			return errElsewhere
		}
		if f.apply != nil {
			if err := f.apply(tx, batch); err != nil {
				return err
			}
		}
		next.Until = tx.Now().Add(l.cfg.LeaseTime)
		return store.Save(tx, kindCursor, f.name, &next)
	}, store.Touch{Kind: kindCursor, Key: f.name})
}

// take renews the follower's lease, or takes one that ran out.
func (l *Log) take(ctx context.Context, f *follower) (*cursor, error) {
	cur, err := store.Load[cursor](l.store.Reader(ctx), kindCursor, f.name)
	if err != nil {
		return nil, err
	}
	now := l.now()
	if cur != nil && cur.Node == l.cfg.Node && cur.Until.Sub(now) > l.cfg.LeaseTime/2 {
		return cur, nil
	}
	if cur != nil && cur.Node != l.cfg.Node && now.Before(cur.Until) {
		return nil, errElsewhere
	}
	var out *cursor
	err = l.store.Update(ctx, func(tx *store.Tx) error {
		c, err := store.Load[cursor](tx, kindCursor, f.name)
		if err != nil {
			return err
		}
		if c == nil {
			c = &cursor{}
		}
		if c.Node != l.cfg.Node && tx.Now().Before(c.Until) {
			return errElsewhere
		}
		c.Node, c.Until = l.cfg.Node, tx.Now().Add(l.cfg.LeaseTime)
		out = c
		return store.Save(tx, kindCursor, f.name, c)
	}, store.Touch{Kind: kindCursor, Key: f.name})
	return out, err
}

// trim removes facts that are past their time and that every follower has read.
func (l *Log) trim(ctx context.Context) {
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		read := l.store.Head(store.Events)
		for _, f := range l.followers {
			cur, err := store.Load[cursor](l.store.Reader(ctx), kindCursor, f.name)
			if err != nil || cur == nil {
				read = 0
				break
			}
			read = min(read, cur.N)
		}
		if read == 0 {
			continue
		}
		if _, err := l.store.Trim(ctx, store.Events, read, l.now().Add(-l.cfg.Retention)); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "old facts not removed", "error", err)
		}
	}
}
