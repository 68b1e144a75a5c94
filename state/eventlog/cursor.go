package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

var kindCursor = store.Kind{Name: "cursor", Rule: changelog.RuleLocal}

// cursor is how far a follower is, and which node runs it.
type cursor struct {
	N     int64           // the last block it has done
	Part  int             `json:",omitempty"` // facts of the next block that it has done
	State json.RawMessage `json:",omitempty"` // of a Deliver
	Node  string          // who runs it
	Until time.Time       // and until when nobody else may
}

const (
	renewPart  = 3  // of the lease time: how often a lease is looked at
	skewPart   = 10 // of the lease time: by how much two nodes' clocks may differ
	keepRetry  = time.Second
	cursorsMax = 10000
)

// elsewhereError says that another node runs the follower.
type elsewhereError struct {
	node  string
	until time.Time
}

func (e *elsewhereError) Error() string {
	return fmt.Sprintf("eventlog: node %s follows until %s", e.node, e.until.UTC().Format(time.RFC3339))
}

var (
	errMoved   = errors.New("eventlog: the cursor is not where it was left")
	errRunsOut = errors.New("eventlog: the lease could not be renewed")
)

func (f *follower) touch() store.Touch { return store.Touch{Kind: kindCursor, Key: f.name} }

// mine reads the follower's cursor in an update, and fails unless this node
// holds it. Its own lease may have run out, if nobody took it.
func (l *Log) mine(tx *store.Tx, f *follower) (*cursor, error) {
	c, err := store.Load[cursor](tx, kindCursor, f.name)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errMoved
	}
	if c.Node != l.cfg.Node {
		return nil, &elsewhereError{c.Node, c.Until}
	}
	return c, nil
}

// find reads where the follower is, whoever runs it.
func (l *Log) find(ctx context.Context, f *follower) error {
	c, err := store.Load[cursor](l.store.Reader(ctx), kindCursor, f.name)
	if err != nil {
		return err
	}
	if c == nil {
		c = &cursor{}
	}
	c.Until = time.Time{} // a lease is never taken from a look
	f.cur = c
	return nil
}

// hold makes f.cur a cursor whose lease lasts, taking or renewing it.
func (l *Log) hold(ctx context.Context, f *follower) error {
	if f.cur.Until.Sub(l.now()) > l.cfg.LeaseTime/2 {
		return nil
	}
	// A look first: a node that waits for another's lease to end writes nothing.
	c, err := store.Load[cursor](l.store.Reader(ctx), kindCursor, f.name)
	if err != nil {
		return err
	}
	if c != nil && c.Node != l.cfg.Node && l.now().Before(c.Until) {
		return &elsewhereError{c.Node, c.Until}
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
		now := l.now()
		if c.Node != l.cfg.Node && now.Before(c.Until) {
			return &elsewhereError{c.Node, c.Until}
		}
		c.Node, c.Until = l.cfg.Node, now.Add(l.cfg.LeaseTime)
		out = c
		return store.Save(tx, kindCursor, f.name, c)
	}, f.touch())
	if err == nil {
		f.cur = out
	}
	return err
}

// keep renews the lease until ctx ends, and ends it when that fails for too long.
func (l *Log) keep(ctx context.Context, f *follower, cancel context.CancelCauseFunc) {
	margin := l.cfg.LeaseTime / skewPart
	end := time.AfterFunc(f.cur.Until.Sub(l.now())-margin, func() { cancel(errRunsOut) })
	defer end.Stop()
	next := l.cfg.LeaseTime / renewPart
	for {
		wait(ctx, next)
		if ctx.Err() != nil {
			return
		}
		var until time.Time
		err := l.store.Update(ctx, func(tx *store.Tx) error {
			c, err := l.mine(tx, f)
			if err != nil {
				return err
			}
			until = l.now().Add(l.cfg.LeaseTime)
			c.Until = until
			return store.Save(tx, kindCursor, f.name, c)
		}, f.touch())
		if _, elsewhere := errors.AsType[*elsewhereError](err); elsewhere || errors.Is(err, errMoved) {
			cancel(err)
			return
		}
		next = l.cfg.LeaseTime / renewPart
		if err != nil {
			next = min(next, keepRetry)
			continue
		}
		end.Reset(until.Sub(l.now()) - margin)
	}
}

// giveUp ends the lease of a node that stops, so that no other waits for it.
func (l *Log) giveUp(ctx context.Context, f *follower) {
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		c, err := l.mine(tx, f)
		if err != nil {
			return err
		}
		now := l.now()
		if !now.Before(c.Until) {
			return errMoved // it has run out
		}
		c.Until = now
		return store.Save(tx, kindCursor, f.name, c)
	}, f.touch())
	if _, elsewhere := errors.AsType[*elsewhereError](err); err != nil && !elsewhere && !errors.Is(err, errMoved) {
		l.log.WarnContext(ctx, "lease not given up; it runs out", "follower", f.name, "error", err)
	}
}

const trimInterval = time.Minute

// trim removes old facts, now and then.
func (l *Log) trim(ctx context.Context) {
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := l.trimOnce(ctx); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "old facts not removed", "error", err)
		}
	}
}

// trimOnce removes facts that are past their time and that every follower has
// read: those of this node, and those that any node ran within the retention time.
func (l *Log) trimOnce(ctx context.Context) error {
	rows, err := l.store.Reader(ctx).List(kindCursor, "", "", cursorsMax)
	if err != nil {
		return err
	}
	before := l.now().Add(-l.cfg.Retention)
	at := map[string]int64{}
	read := l.store.Head(store.Events)
	for _, row := range rows {
		c, err := store.Decode[cursor](kindCursor, row.Body)
		if err != nil {
			return err
		}
		at[row.Key] = c.N
		if c.Until.After(before) {
			read = min(read, c.N)
		}
	}
	for _, f := range l.followers {
		read = min(read, at[f.name])
	}
	if read == 0 {
		return nil
	}
	_, err = l.store.Trim(ctx, store.Events, read, before)
	return err
}
