package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/everpoint/everpoint/state/store"
)

func TestBody_that_is_longer_as_JSON_does_not_stop_its_kind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.AttemptsMax = 2
		m := r.node("n1")
		// Each < takes six bytes in the row.
		m.enqueue(Work{Kind: "job", ID: "long", Body: []byte(`"` + string(bytes.Repeat([]byte("<"), bodyBytesMax-2)) + `"`)})
		m.enqueue(Work{Kind: "job", ID: "short"})
		var broken atomic.Bool
		broken.Store(true)
		var done atomic.Int64
		m.handle("job", 2, func(ctx context.Context, it *Item) error {
			if it.ID == "long" && broken.Load() {
				return errors.New("out of tea")
			}
			done.Add(1)
			return nil
		}).start()
		r.eventually("both have a fate", func() bool { return m.depth() == 0 })
		broken.Store(false)
		m.update(func(tx *store.Tx) error { return m.queue.Retry(tx, "job", "long") })
		r.eventually("it is done", func() bool { return m.depth() == 0 })
		if n := done.Load(); n != 2 {
			t.Errorf("%d done", n)
		}
	})
}

func TestAgain_refuses_a_body_that_is_too_long(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		refused := make(chan error, 1)
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			refused <- m.store.Update(ctx, func(tx *store.Tx) error {
				return it.Again(tx, tx.Now(), make([]byte, bodyBytesMax+1))
			})
			return nil
		}).start()
		m.enqueue(Work{Kind: "job", ID: "w"})
		if err := <-refused; err == nil || !strings.Contains(err.Error(), "more than 262144") {
			t.Errorf("again: %v", err)
		}
		m.r.eventually("the work is done", func() bool { return m.depth() == 0 })
	})
}

func TestEnqueue_refuses_an_id_that_a_row_cannot_hold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		for _, w := range []Work{{Kind: "job", ID: "w\xff"}, {Kind: "job\xff", ID: "w"}} {
			if err := m.store.Update(t.Context(), func(tx *store.Tx) error { return m.queue.Enqueue(tx, w) }); err == nil {
				t.Errorf("%q was accepted", w)
			}
		}
	})
}

func TestBody_is_the_same_however_work_comes_to_its_worker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		bodies := make(chan string, 3)
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			bodies <- fmt.Sprintf("%q %t", it.Body, it.Body == nil)
			return nil
		})
		m.enqueue(Work{Kind: "job", ID: "claimed"})
		m.start()
		synctest.Wait()
		m.enqueue(Work{Kind: "job", ID: "handed over"})
		if a, b := <-bodies, <-bodies; a != b {
			t.Errorf("%s and %s", a, b)
		}
	})
}
