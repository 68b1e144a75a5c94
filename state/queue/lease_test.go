package queue

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

func TestFencing_is_no_error_of_the_work(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		attempts := make(chan int, 3)
		var again atomic.Bool
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			attempts <- it.Attempts
			if again.Swap(true) {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}).start()
		m.enqueue(Work{Kind: "job", ID: "w"})
		<-attempts
		m.update(func(tx *store.Tx) error {
			return store.Save(tx, kindNode, "n1", &node{Life: m.queue.currentLife(), Until: tx.Now(), Fenced: true, Held: true})
		})
		var writes atomic.Int64
		r.inject(func(_, point string) error { // the update that begins the next life
			if point == "write" && writes.Add(1) == 1 {
				return errPower
			}
			return nil
		})
		if n := <-attempts; n != 0 {
			t.Errorf("%d errors", n)
		}
	})
}

func TestWork_claimed_in_a_new_life_is_valid_at_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		a := r.node("n1").start()
		synctest.Wait()
		a.halt()
		a.update(func(tx *store.Tx) error {
			for i := range releasePage + 50 { // more than one update puts back
				if _, err := a.queue.lease(tx, &row{Work: Work{Kind: "job", ID: fmt.Sprint(i), Due: tx.Now()}}); err != nil {
					return err
				}
			}
			return nil
		})
		var invalid atomic.Int64
		b := r.node("n1")
		b.handle("job", 64, func(ctx context.Context, it *Item) error {
			if !it.Valid() {
				invalid.Add(1)
			}
			return nil
		}).start()
		r.eventually("all is done", func() bool { return b.depth() == 0 })
		if n := invalid.Load(); n != 0 {
			t.Errorf("%d began under a lease that did not hold", n)
		}
	})
}

func TestClaim_of_less_than_was_due_looks_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.PollInterval = time.Hour
		m := r.node("n1")
		done, finish := make(chan string, 3), make(chan struct{})
		m.handle("job", 3, func(ctx context.Context, it *Item) error {
			if strings.HasPrefix(it.ID, "long") {
				<-finish
			}
			done <- it.ID
			return nil
		})
		// Between the look at two that are due and their claim, two are handed over.
		var armed atomic.Bool
		m.queue.now = func() time.Time {
			if armed.Load() && m.queue.mu.TryLock() {
				m.queue.mu.Unlock()
				if armed.CompareAndSwap(true, false) {
					m.insist(Work{Kind: "job", ID: "long1"})
					m.insist(Work{Kind: "job", ID: "long2"})
				}
			}
			return time.Now()
		}
		m.start()
		m.enqueue(Work{Kind: "job", ID: "first"}) // from here on the node holds leases
		<-done
		due := time.Now().Add(time.Second)
		m.enqueue(Work{Kind: "job", ID: "a", Due: due}, Work{Kind: "job", ID: "b", Due: due})
		<-time.After(500 * time.Millisecond)
		armed.Store(true)
		for _, want := range []string{"a", "b"} {
			if got := <-done; got != want {
				t.Errorf("%s was done in place of %s", got, want)
			}
		}
		if late := time.Since(due); late > time.Second || armed.Load() {
			t.Errorf("all was done %s after it was due", late)
		}
		close(finish)
		r.eventually("all is done", func() bool { return m.depth() == 0 })
	})
}

func TestNode_that_says_it_rests_in_one_commit_with_a_claim_rests_later(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1").start()
		synctest.Wait()
		// The writer stands still until both updates wait for it.
		goOn := make(chan struct{})
		var once sync.Once
		r.inject(func(_, point string) error {
			if point == "begin" {
				once.Do(func() { <-goOn })
			}
			return nil
		})
		var all sync.WaitGroup
		for _, step := range []func(){
			func() { m.update(func(*store.Tx) error { return nil }) },
			func() {
				if err := m.queue.renew(t.Context(), true); err != nil {
					t.Error(err)
				}
			},
			func() {
				m.update(func(tx *store.Tx) error { // as a claim does that finds nothing left
					n, err := m.queue.own(tx)
					if err != nil {
						return err
					}
					return m.queue.renewIn(tx, n)
				})
			},
		} {
			all.Go(step)
			synctest.Wait()
		}
		close(goOn)
		all.Wait()
		if !m.nodeRows()["n1"].Held {
			t.Error("the node does not hold")
		}
		<-time.After(m.queue.cfg.LeaseTime)
		if m.nodeRows()["n1"].Held {
			t.Error("the node does not rest, and renews nothing")
		}
	})
}
