package queue

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/everpoint/everpoint/state/store"
)

// asleep is a time as a machine tells it that was suspended for d before: its
// wall clock has gone on, the clock that counts from its start has not.
func asleep(t time.Time, d time.Duration) time.Time {
	t = t.Add(d)
	(*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&t)).ext -= int64(d)
	return t
}

func TestValid_asks_both_clocks_of_the_machine(t *testing.T) {
	// No bubble: its time is of one clock.
	began := time.Now()
	var now time.Time
	q := New(Config{Node: "n1"}, nil, func() time.Time { return now }, rand.New(rand.NewPCG(1, 1)), slog.New(slog.DiscardHandler))
	q.until = began.Add(q.cfg.LeaseTime)
	it := &Item{q: q}
	for what, c := range map[string]struct {
		now  time.Time
		want bool
	}{
		"a second later":                          {began.Add(time.Second), true},
		"when the lease is about to run out":      {began.Add(q.cfg.LeaseTime * 95 / 100), false},
		"after the machine was suspended":         {asleep(began.Add(time.Second), time.Minute), false},
		"a second later, the wall clock set back": {asleep(began.Add(time.Second), -time.Hour), true},
		"a minute later, the wall clock set back": {asleep(began.Add(time.Minute), -time.Hour), false},
	} {
		if now = c.now; it.Valid() != c.want {
			t.Errorf("%s the lease holds: %t", what, !c.want)
		}
	}
}

func TestLease_of_a_node_whose_clock_was_far_ahead_is_ended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		a, b := r.node("n1"), r.node("n2")
		var done atomic.Int64
		do := func(context.Context, *Item) error { done.Add(1); return nil }
		b.handle("job", 1, do).start()
		// n1 leased while its clock was a year ahead, and is gone.
		a.update(func(tx *store.Tx) error {
			if err := store.Save(tx, kindNode, "n1", &node{Life: 1, Until: tx.Now().Add(365 * 24 * time.Hour), Held: true}); err != nil {
				return err
			}
			_, err := a.queue.lease(tx, &row{Work: Work{Kind: "job", ID: "w", Due: tx.Now()}})
			return err
		})
		r.eventually("the other node has done it", func() bool { return b.depth() == 0 })
	})
}

func TestNode_whose_clock_is_far_ahead_keeps_its_leases_while_it_renews_them(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRegion(t, "").node("n2").start()
		began := time.Now()
		for n := (&node{Life: 1, Held: true}); time.Since(began) < time.Hour; <-time.After(5 * time.Second) {
			n.Until = time.Now().Add(24 * time.Hour)
			b.update(func(tx *store.Tx) error { return store.Save(tx, kindNode, "n1", n) })
			if b.nodeRows()["n1"].Fenced {
				t.Fatalf("fenced after %s", time.Since(began))
			}
		}
	})
}
