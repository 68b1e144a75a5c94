package segments

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Position says how far the index has followed the store's streams; -1 while it
// is being built.
type Position struct {
	Changes int64
	Safety  int64
}

// Position is what the index has applied.
func (ix *Index) Position() Position {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.position
}

// WaitFor returns when the index has applied both streams up to p, or ctx ends.
func (ix *Index) WaitFor(ctx context.Context, p Position) error {
	for {
		ix.mu.Lock()
		have, moved := ix.position, ix.moved
		ix.mu.Unlock()
		if have.Changes >= p.Changes && have.Safety >= p.Safety && have.Changes >= 0 {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Fresh returns when the index has everything that was committed before the call.
func (ix *Index) Fresh(ctx context.Context) error { return ix.WaitFor(ctx, ix.head()) }

// head reads the heads in the order that follow needs: whatever was in the
// safety stream before a change is at or below the second.
func (ix *Index) head() Position {
	changes := ix.st.Head(store.Changes)
	return Position{changes, ix.st.Head(store.Safety)}
}

func (ix *Index) moveTo(p Position) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.position = p
	close(ix.moved)
	ix.moved = make(chan struct{})
}

// errRebuild: the streams are not the ones that the index was following.
var errRebuild = errors.New("segments: the streams have moved from under the index")

const (
	retryDelayMin  = 100 * time.Millisecond
	retryDelayMax  = 5 * time.Second
	blocksAtOnce   = 64
	loadBatch      = 256 // rows handed to a decoder at once
	loadBatchesMax = 8   // in wait for a decoder
)

// Run builds the index and keeps it current until ctx ends. Questions asked
// before it is built are answered Unavailable. While the database cannot be
// read, Run tries again, and the index stays as it was.
func (ix *Index) Run(ctx context.Context) error {
	delay := retryDelayMin
	for ctx.Err() == nil {
		err := ix.build(ctx)
		if err == nil {
			delay = retryDelayMin
			err = ix.follow(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		ix.log.WarnContext(ctx, "audience index is built again", "error", err, "delay", delay)
		pause(ctx, delay)
		delay = min(2*delay, retryDelayMax)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// build reads every user and endpoint into fresh audiences and puts them in
// place of the present ones.
func (ix *Index) build(ctx context.Context) error {
	start, at := time.Now(), ix.head()
	m := newAudiences()
	if err := ix.load(ctx, m, endpoints.KindUser, endpoints.KindEndpoint); err != nil {
		return fmt.Errorf("load users and endpoints: %w", err)
	}
	ix.apps.Store(m)
	ix.moveTo(at)
	ix.log.InfoContext(ctx, "audience index built", "apps", len(m.all), "elapsed", time.Since(start).Round(time.Millisecond))
	return nil
}

// load reads the rows of some kinds in one pass: one goroutine unseals, others
// decode. Each row comes once, so their order does not matter.
func (ix *Index) load(ctx context.Context, m *audiences, kinds ...store.Kind) error {
	batches := make(chan []store.Row, loadBatchesMax)
	var decoders sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		decoders.Go(func() {
			for batch := range batches {
				for _, row := range batch {
					ix.apply(ctx, m, row.Kind, row.Key, row.Body)
				}
			}
		})
	}
	batch := make([]store.Row, 0, loadBatch)
	err := ix.st.ScanKinds(ctx, kinds, func(row store.Row) error {
		if batch = append(batch, row); len(batch) == loadBatch {
			batches <- batch
			batch = make([]store.Row, 0, loadBatch)
		}
		return nil
	})
	batches <- batch
	close(batches)
	decoders.Wait()
	return err
}

// follow applies what the streams bring until ctx ends or they cannot be followed.
func (ix *Index) follow(ctx context.Context) error {
	incarnation, delay := ix.st.Incarnation(), retryDelayMin
	for {
		at, to := ix.Position(), ix.head()
		if to.Changes < at.Changes || to.Safety < at.Safety || ix.st.Incarnation() != incarnation {
			return errRebuild
		}
		if to == at {
			if err := ix.wait(ctx, at); err != nil {
				return err
			}
			continue
		}
		switch err := ix.advance(ctx, at, to); {
		case err == nil:
			delay = retryDelayMin
		case errors.Is(err, errRebuild) || ctx.Err() != nil:
			return err
		default:
			ix.log.WarnContext(ctx, "audience index cannot read the change log", "error", err, "delay", delay)
			pause(ctx, delay)
			delay = min(2*delay, retryDelayMax)
		}
	}
}

// wait returns when either stream has moved on.
func (ix *Index) wait(ctx context.Context, at Position) error {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	var waits sync.WaitGroup
	waits.Go(func() {
		defer cancel()
		_ = ix.st.Wait(either, store.Safety, at.Safety) // only ctx ends it; see below
	})
	_ = ix.st.Wait(either, store.Changes, at.Changes)
	cancel()
	waits.Wait()
	return ctx.Err()
}

// advance applies both streams up to a position. An endpoint's row may be told
// of in either, by what its commit touched, so the streams together have no
// order: changes are applied as they come, and after them every row that the
// safety stream names is read as it now is. A row that was read too new is
// brought back by older changes for a moment, and is right again when the
// position says so.
func (ix *Index) advance(ctx context.Context, at, to Position) error {
	m := ix.apps.Load()
	err := ix.blocks(ctx, store.Changes, at.Changes, to.Changes, func(c changelog.Change) error {
		ix.apply(ctx, m, c.Kind, c.Key, c.Body)
		return nil
	})
	if err != nil {
		return err
	}
	reader := ix.st.Reader(ctx)
	read := map[string]bool{}
	err = ix.blocks(ctx, store.Safety, at.Safety, to.Safety, func(c changelog.Change) error {
		switch c.Kind {
		case endpoints.KindEndpoint.Name, endpoints.KindUser.Name:
			if read[c.Key] {
				return nil
			}
			read[c.Key] = true
			body, err := reader.Get(store.Kind{Name: c.Kind, Rule: changelog.RuleRecord}, c.Key)
			if err != nil {
				return err
			}
			c.Body = body
		}
		ix.apply(ctx, m, c.Kind, c.Key, c.Body)
		return nil
	})
	if err != nil {
		return err
	}
	ix.moveTo(to)
	return nil
}

// blocks hands the changes of a stream's blocks after from, up to to, to yield.
func (ix *Index) blocks(ctx context.Context, s store.Stream, from, to int64, yield func(changelog.Change) error) error {
	for from < to {
		blocks, err := ix.st.Blocks(ctx, s, from, int(min(to-from, blocksAtOnce)))
		if err != nil {
			return err
		}
		if len(blocks) == 0 {
			return errRebuild // trimmed, or gone back
		}
		for _, b := range blocks {
			if b.N != from+1 {
				return errRebuild
			}
			for _, record := range b.Records {
				c, err := changelog.DecodeChange(record)
				if err != nil {
					return fmt.Errorf("block %d of stream %s: %w", b.N, s, err)
				}
				if err := yield(c); err != nil {
					return err
				}
			}
			from = b.N
		}
	}
	return nil
}

// apply takes a row as it now is; a nil body is a row that was removed. A row
// that cannot be read is left out, and logged: one bad row must not keep a
// million others from being found.
func (ix *Index) apply(ctx context.Context, m *audiences, kind, key string, body []byte) {
	switch kind {
	case endpoints.KindEndpoint.Name:
		if body == nil {
			removeKey(m, key)
			return
		}
		e, err := endpoints.Read(endpoints.AppOfKey(key), body)
		switch {
		case err != nil:
			ix.log.ErrorContext(ctx, "endpoint row cannot be read", "app_id", endpoints.AppOfKey(key), "error", err)
			removeKey(m, key)
		case e == nil:
			removeKey(m, key)
		default:
			ix.upsert(m, key, e)
		}
	case endpoints.KindUser.Name:
		if body == nil {
			upsertUser(m, key, nil)
			return
		}
		u, err := endpoints.ReadUser(endpoints.AppOfKey(key), body)
		if err != nil {
			ix.log.ErrorContext(ctx, "user row cannot be read", "app_id", endpoints.AppOfKey(key), "error", err)
		}
		upsertUser(m, key, u)
	case apps.Kind.Name:
		if body != nil {
			app, err := apps.Decode(body)
			if err != nil {
				ix.log.ErrorContext(ctx, "app row cannot be read", "app_id", key, "error", err)
				return
			}
			if app.DeletedAt == "" {
				return
			}
		}
		m.remove(key)
	}
}
