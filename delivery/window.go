package delivery

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/everpoint/everpoint/state/store"
)

// Told says how far the other Regions have this one's streams.
type Told interface {
	// Acked reports whether every Region of the set has block n of a stream.
	Acked(st store.Stream, n int64) bool
	// AckChanged returns a channel that is closed when one of them has more.
	AckChanged() <-chan struct{}
}

// windowMax is how many attempts of a node may lie between intent and an entry
// that every Region of the set has: a crash, or the loss of a Region, leaves at
// most this many ambiguous.
const windowMax = 256

// window counts attempts whose outcome is not known to all.
type window struct {
	st     *store.Store
	told   Told // nil: there is nobody to tell
	tokens *semaphore.Weighted

	mu     sync.Mutex
	used   int64
	untold []untold // in the order of blocks
}

// untold is some entries that are up to a block of the stream Changes.
type untold struct {
	block int64
	n     int
}

func newWindow(st *store.Store, told Told) *window {
	return &window{st: st, told: told, tokens: semaphore.NewWeighted(windowMax)}
}

// acquire waits for room for n attempts.
func (w *window) acquire(ctx context.Context, n int) error {
	for !w.tokens.TryAcquire(int64(n)) {
		if w.told == nil {
			if err := w.tokens.Acquire(ctx, int64(n)); err != nil {
				return err
			}
			break
		}
		changed := w.told.AckChanged()
		if w.drain() {
			continue
		}
		// Somebody's removal from the set is no ack, so it looks again.
		look := time.NewTimer(windowLook)
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.used += int64(n)
	w.mu.Unlock()
	return nil
}

const windowLook = 20 * time.Millisecond

// release gives back attempts that were not made.
func (w *window) release(n int) {
	if n == 0 {
		return
	}
	w.mu.Lock()
	w.used -= int64(n)
	w.mu.Unlock()
	w.tokens.Release(int64(n))
}

// settled gives back attempts whose entries are committed, once the others have
// them.
func (w *window) settled(n int) {
	if w.told == nil {
		w.release(n)
		return
	}
	w.mu.Lock()
	w.untold = append(w.untold, untold{w.st.Head(store.Changes), n})
	w.mu.Unlock()
	w.drain()
}

// drain gives back what the others have been told of. It reports whether that
// was anything.
func (w *window) drain() bool {
	w.mu.Lock()
	n := 0
	for len(w.untold) > 0 && w.told.Acked(store.Changes, w.untold[0].block) {
		n += w.untold[0].n
		w.untold = w.untold[1:]
	}
	w.mu.Unlock()
	w.release(n)
	return n > 0
}

func (w *window) open() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used
}
