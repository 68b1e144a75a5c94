package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

func TestWork_is_done_once_in_effect_whatever_fails(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		const works = 240
		rounds := 30
		if r.url != "" {
			rounds = 12
		}
		r.cfg.AttemptsMax = 4
		var mu sync.Mutex
		chance := rand.New(rand.NewPCG(7, 7))
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return chance.IntN(n)
		}
		do := func(st *store.Store) func(ctx context.Context, it *Item) error {
			return func(ctx context.Context, it *Item) error {
				switch draw(10) {
				case 0:
					return errors.New("out of tea")
				case 1:
					panic("out of cheese")
				case 2: // longer than the lease
					select {
					case <-time.After(it.q.cfg.LeaseTime * 2):
					case <-ctx.Done():
						return ctx.Err()
					}
				case 3:
					if err := st.Update(ctx, it.Hold); err != nil {
						return err
					}
				case 4:
					return st.Update(ctx, func(tx *store.Tx) error {
						return it.Again(tx, tx.Now().Add(time.Duration(draw(50))*time.Millisecond), it.Body)
					})
				}
				return st.Update(ctx, func(tx *store.Tx) error {
					if err := effect(tx, it.ID); err != nil {
						return err
					}
					return it.Complete(tx)
				}, append(it.Touch(), effectTouch(it.ID))...)
			}
		}
		start := func(name string) *member {
			m := r.node(name)
			return m.handle("job", 8, do(m.store)).start()
		}
		names := []string{"n1"}
		if r.url != "" {
			names = append(names, "n2")
		}
		nodes := map[string]*member{}
		for _, n := range names {
			nodes[n] = start(n)
		}
		wanted := map[string]int{}
		for round := range rounds {
			if round%2 == 1 { // a time of trouble
				r.inject(func(string, string) error {
					if draw(12) == 0 {
						return errPower
					}
					return nil
				})
			}
			for range works / rounds {
				id := fmt.Sprintf("w%03d", len(wanted))
				wanted[id] = 1
				w := Work{Kind: "job", ID: id, Due: time.Now().Add(time.Duration(draw(400)-100) * time.Millisecond)}
				for m := nodes[names[draw(len(names))]]; ; { // as a caller who is refused tries again
					// Work whose first update was committed after all may be done by now.
					if err := m.store.Update(context.Background(), func(tx *store.Tx) error {
						if done, err := tx.Get(kindEffect, id); done != nil || err != nil {
							return err
						}
						return m.queue.Enqueue(tx, w)
					}, Touch("job", id), effectTouch(id)); err == nil {
						break
					}
				}
			}
			<-time.After(time.Duration(draw(300)) * time.Millisecond)
			r.inject(nil)
			n := names[draw(len(names))]
			switch draw(3) {
			case 0:
				nodes[n].stop()
				nodes[n] = start(n)
			case 1:
				nodes[n].crash()
				nodes[n] = start(n)
			}
		}
		m := nodes["n1"]
		r.eventually("everything is done", func() bool {
			page, _, err := m.queue.BuriedWork(m.store.Reader(context.Background()), "", 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range page {
				m.update(func(tx *store.Tx) error { return m.queue.Retry(tx, b.Kind, b.ID) })
			}
			return len(page) == 0 && m.depth() == 0
		})
		got := m.effects()
		for id := range wanted {
			if got[id] != 1 {
				t.Errorf("%s had its effect %d times", id, got[id])
			}
		}
	})
}

func TestWork_is_done_when_it_is_due_and_in_that_order(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		m := r.node("n1")
		type start struct {
			id   string
			late time.Duration
		}
		var mu sync.Mutex
		var got []start
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, start{it.ID, time.Since(it.Due)})
			return nil
		}).start()
		began := time.Now()
		order := rand.New(rand.NewPCG(3, 3)).Perm(40)
		for _, i := range order {
			m.enqueue(Work{Kind: "job", ID: fmt.Sprintf("w%02d", i), Due: began.Add(time.Duration(300+i*17) * time.Millisecond)})
		}
		r.eventually("all is done", func() bool { return m.depth() == 0 })
		most := time.Millisecond // in virtual time nothing takes time
		if r.url != "" {
			most = time.Minute // how busy the machine is, is not asked here
		}
		for i, s := range got {
			if want := fmt.Sprintf("w%02d", i); s.id != want {
				t.Errorf("%s was done in place of %s", s.id, want)
			}
			if s.late < 0 || s.late > most {
				t.Errorf("%s was done %s after it was due", s.id, s.late)
			}
		}
	})
}

func TestEnqueue_does_not_overtake_what_waits(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		m := r.node("n1")
		hold := make(chan struct{})
		var mu sync.Mutex
		var got []string
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			if it.ID == "first" {
				<-hold
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, it.ID)
			return nil
		}).start()
		m.enqueue(Work{Kind: "job", ID: "first"})
		var want []string
		for i := range 30 {
			id := fmt.Sprintf("w%02d", i)
			want = append(want, id)
			m.enqueue(Work{Kind: "job", ID: id})
			<-time.After(time.Millisecond)
		}
		close(hold)
		r.eventually("all is done", func() bool { return m.depth() == 0 })
		if want = append([]string{"first"}, want...); !slices.Equal(got, want) {
			t.Errorf("done in the order %v", got)
		}
	})
}

func TestHandleWhile_takes_work_only_while_it_may(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		var here atomic.Bool
		got := make(chan string, 5)
		HandleWhile(m.queue, "job", 2, here.Load, func(_ context.Context, it *Item) error {
			got <- it.ID
			return nil
		})
		m.start()
		m.enqueue(Work{Kind: "job", ID: "first"})
		<-time.After(time.Minute)
		if len(got) != 0 {
			t.Fatalf("%s was done where it may not be", <-got)
		}
		here.Store(true)
		if id := <-got; id != "first" {
			t.Errorf("done: %s", id)
		}
		m.enqueue(Work{Kind: "job", ID: "second"})
		if id := <-got; id != "second" {
			t.Errorf("done: %s", id)
		}
		here.Store(false)
		m.enqueue(Work{Kind: "job", ID: "third"})
		<-time.After(time.Minute)
		if len(got) != 0 {
			t.Errorf("%s was done where it may not be any more", <-got)
		}
	})
}

func TestEnqueue_on_an_idle_node_does_not_overtake_what_is_due(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		got := make(chan *Item, 5)
		m.handle("job", 5, func(ctx context.Context, it *Item) error {
			got <- it
			return nil
		}).start()
		m.enqueue(Work{Kind: "job", ID: "first"})
		<-got
		synctest.Wait()
		m.enqueue(Work{Kind: "job", ID: "old", Due: time.Now().Add(100 * time.Millisecond)})
		var once sync.Once
		r.inject(func(_, point string) (err error) {
			if point == "write" {
				once.Do(func() { err = errPower }) // what leases the old work
			}
			return err
		})
		<-time.After(150 * time.Millisecond)
		m.enqueue(Work{Kind: "job", ID: "new"})
		first, second := <-got, <-got
		if first.lease > second.lease {
			first, second = second, first
		}
		if first.ID != "old" || second.ID != "new" {
			t.Errorf("leased: %s, then %s", first.ID, second.ID)
		}
	})
}

func TestHold_fails_once_the_node_is_fenced_though_its_rows_are_not_put_back_yet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		holding, finish := make(chan *Item), make(chan struct{})
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			holding <- it
			<-finish
			return nil
		}).start()
		m.enqueue(Work{Kind: "job", ID: "w"})
		it := <-holding
		m.update(it.Hold)
		m.update(func(tx *store.Tx) error {
			return store.Save(tx, kindNode, "n1", &node{Life: m.queue.currentLife(), Fenced: true, Held: true})
		})
		if err := m.store.Update(t.Context(), it.Hold); !errors.Is(err, ErrLost) {
			t.Errorf("hold: %v", err)
		}
		close(finish)
	})
}

func TestEnqueue_of_the_same_work_twice_is_once(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		var runs atomic.Int64
		hold := make(chan struct{})
		a, b := r.node("n1"), r.node("n2")
		do := func(st *store.Store) func(context.Context, *Item) error {
			return func(ctx context.Context, it *Item) error {
				runs.Add(1)
				<-hold
				return nil
			}
		}
		a.handle("job", 8, do(a.store)).start()
		b.handle("job", 8, do(b.store)).start()
		// At once, on both nodes, with and without naming the row, due at different times.
		var callers sync.WaitGroup
		for i := range 40 {
			m := []*member{a, b}[i%2]
			callers.Go(func() {
				var touch []store.Touch
				if i%4 < 2 {
					touch = append(touch, Touch("job", "same"))
				}
				m.update(func(tx *store.Tx) error {
					return m.queue.Enqueue(tx, Work{Kind: "job", ID: "same", Due: time.Now().Add(time.Duration(i%3) * time.Millisecond)})
				}, touch...)
			})
		}
		callers.Wait()
		r.eventually("it is in work", func() bool { return runs.Load() > 0 })
		a.enqueue(Work{Kind: "job", ID: "same"}) // while it is leased
		if n := a.depth(); n != 1 {
			t.Errorf("%d pieces of work", n)
		}
		close(hold)
		r.eventually("it is done", func() bool { return a.depth() == 0 })
		if n := runs.Load(); n != 1 {
			t.Errorf("done %d times", n)
		}
		a.enqueue(Work{Kind: "job", ID: "same"}) // it is new work now
		r.eventually("it is done again", func() bool { return runs.Load() == 2 && a.depth() == 0 })
	})
}

func TestLease_that_is_lost_takes_the_holders_updates_with_it(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		a, b := r.node("n1"), r.node("n2")
		b.queue.now = func() time.Time { return time.Now().Add(time.Hour) } // so n1 seems silent to n2
		holding, cause := make(chan *Item, 1), make(chan error, 1)
		a.handle("job", 1, func(ctx context.Context, it *Item) error {
			holding <- it
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return ctx.Err()
		}).start()
		a.enqueue(Work{Kind: "job", ID: "w"})
		it := <-holding
		a.update(it.Hold)
		if !it.Valid() {
			t.Error("the lease does not hold")
		}
		taken, finish := make(chan *Item, 1), make(chan struct{})
		b.handle("job", 1, func(ctx context.Context, it *Item) error {
			taken <- it
			<-finish
			return nil
		}).start()
		second := <-taken
		for what, f := range map[string]func(tx *store.Tx) error{
			"Hold":     it.Hold,
			"Complete": it.Complete,
			"Again":    func(tx *store.Tx) error { return it.Again(tx, time.Now(), nil) },
		} {
			for _, touch := range [][]store.Touch{nil, it.Touch()} {
				err := a.store.Update(t.Context(), func(tx *store.Tx) error {
					if err := effect(tx, what); err != nil {
						return err
					}
					return f(tx)
				}, touch...)
				if !errors.Is(err, ErrLost) {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		if n := len(a.effects()); n != 0 {
			t.Errorf("%d updates had an effect", n)
		}
		if err := <-cause; !errors.Is(err, ErrLost) {
			t.Errorf("the handler was told %v", err)
		}
		if it.Valid() {
			t.Error("the lost lease is valid")
		}
		if second.Attempts != 0 || second.ID != "w" {
			t.Errorf("taken over: %+v", second.Work)
		}
		close(finish)
		r.eventually("the other node has done it", func() bool { return b.depth() == 0 })
		b.stopQueue()
		// The node that was fenced goes on in a new life; not in one that the other had
		// fenced as well before it stopped.
		a.enqueue(Work{Kind: "job", ID: "next"})
		for done := false; !done; {
			it = <-holding
			err := a.store.Update(t.Context(), it.Complete, it.Touch()...)
			switch {
			case err == nil:
				done = true
			case errors.Is(err, ErrLost):
				<-cause
			default:
				t.Fatal(err)
			}
		}
	})
}

func (m *member) stopQueue() { m.halt() }

func TestHold_and_a_fencing_at_the_same_time_are_not_both_committed(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: one process writes to SQLite, so there is no such time")
		return
	}
	r := newRegion(t, newDatabase(t, url))
	r.cfg.LeaseTime = time.Minute // nothing is renewed meanwhile
	a, b := r.node("n1"), r.node("n2")
	b.queue.now = func() time.Time { return time.Now().Add(time.Hour) }
	holding := make(chan *Item, 1)
	a.handle("job", 1, func(ctx context.Context, it *Item) error {
		holding <- it
		<-ctx.Done()
		return ctx.Err()
	}).start()
	a.enqueue(Work{Kind: "job", ID: "w"})
	it := <-holding
	// n1's update has read its lease and is about to be written when n2 fences n1.
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.inject(func(node, point string) error {
		if node == "n1" && point == "write" {
			once.Do(func() {
				close(reached)
				<-goOn
			})
		}
		return nil
	})
	result := make(chan error, 1)
	go func() {
		result <- a.store.Update(context.Background(), func(tx *store.Tx) error {
			if err := effect(tx, "w"); err != nil {
				return err
			}
			return it.Hold(tx)
		})
	}()
	<-reached
	if err := (&keeper{q: b.queue}).fenceOthers(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-result; !errors.Is(err, ErrLost) {
		t.Errorf("the holder's update: %v", err)
	}
	if n := len(b.effects()); n != 0 {
		t.Error("the holder's update had its effect")
	}
}

func TestStop_in_mid_handler_puts_the_work_back_as_it_was(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		a, b := r.node("n1"), r.node("n2")
		started := make(chan struct{}, 10)
		a.handle("job", 3, func(ctx context.Context, it *Item) error {
			started <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}).start()
		due := time.Now().Add(-time.Second).UTC()
		for i := range 3 {
			a.enqueue(Work{Kind: "job", ID: fmt.Sprint(i), Due: due.Add(time.Duration(i))})
		}
		for range 3 {
			<-started
		}
		a.enqueue(Work{Kind: "job", ID: "waits", Due: due.Add(time.Millisecond)})
		a.halt()
		type seen struct {
			id       string
			attempts int
			due      time.Time
		}
		var mu sync.Mutex
		var got []seen
		begun := time.Now()
		b.handle("job", 1, func(ctx context.Context, it *Item) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, seen{it.ID, it.Attempts, it.Due})
			return nil
		}).start()
		r.eventually("the other node has done it", func() bool { return b.depth() == 0 })
		if r.url == "" && time.Since(begun) > time.Second {
			t.Errorf("the other node waited %s", time.Since(begun))
		}
		for i, id := range []string{"0", "1", "2", "waits"} {
			if got[i].id != id || got[i].attempts != 0 {
				t.Errorf("%d: %+v", i, got[i])
			}
		}
		if !got[1].due.Equal(due.Add(1)) {
			t.Errorf("due moved from %s to %s", due.Add(1), got[1].due)
		}
	})
}

func TestCrash_work_is_taken_over_when_the_lease_ran_out_or_the_node_is_back(t *testing.T) {
	for _, back := range []string{"n1", "n2"} {
		t.Run(back, func(t *testing.T) {
			engines(t, func(t *testing.T, r *region) {
				const works = 450 // more than one update puts back
				a := r.node("n1")
				var started atomic.Int64
				a.handle("job", works, func(ctx context.Context, it *Item) error {
					started.Add(1)
					<-ctx.Done()
					return ctx.Err()
				}).start()
				a.update(func(tx *store.Tx) error {
					for i := range works {
						if err := a.queue.Enqueue(tx, Work{Kind: "job", ID: fmt.Sprint(i)}); err != nil {
							return err
						}
					}
					return nil
				})
				r.eventually("all is in work", func() bool { return started.Load() == works })
				a.crash()
				b := r.node(back)
				crashed := time.Now()
				var done atomic.Int64
				b.handle("job", 64, func(ctx context.Context, it *Item) error {
					done.Add(1)
					return nil
				}).start()
				r.eventually("all is done", func() bool { return b.depth() == 0 })
				if n := done.Load(); n != works {
					t.Errorf("done %d times", n)
				}
				took, lease := time.Since(crashed), b.queue.cfg.LeaseTime
				switch {
				case r.url != "":
				case back == "n1" && took > time.Second:
					t.Errorf("the node that came back waited %s", took)
				case back == "n2" && (took < lease/2 || took > 2*lease):
					t.Errorf("the other node took over after %s", took)
				}
			})
		})
	}
}

func TestOutage_longer_than_the_lease_does_not_cost_a_lone_node_its_work(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		var runs atomic.Int64
		items, finish := make(chan *Item, 5), make(chan struct{})
		m.handle("job", 5, func(ctx context.Context, it *Item) error {
			runs.Add(1)
			items <- it
			<-finish
			return ctx.Err()
		}).start()
		m.enqueue(Work{Kind: "job", ID: "w"})
		it := <-items
		r.inject(func(string, string) error { return errPower })
		<-time.After(time.Minute)
		if it.Valid() {
			t.Error("the lease is valid though nothing renewed it")
		}
		r.inject(nil)
		<-time.After(5 * time.Second)
		if !it.Valid() {
			t.Error("the lease was not renewed")
		}
		close(finish)
		r.eventually("it is done", func() bool { return m.depth() == 0 })
		if n := runs.Load(); n != 1 {
			t.Errorf("done %d times", n)
		}
	})
}

func TestStrays_of_an_update_that_was_committed_but_failed_are_put_back(t *testing.T) {
	for _, handOff := range []bool{false, true} {
		t.Run(fmt.Sprintf("handed_off_%t", handOff), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, "")
				m := r.node("n1")
				done := make(chan string, 5)
				m.handle("job", 5, func(ctx context.Context, it *Item) error {
					done <- it.ID
					return nil
				}).start()
				m.enqueue(Work{Kind: "job", ID: "first"}) // from here on the node holds leases
				<-done
				if !handOff {
					m.enqueue(Work{Kind: "job", ID: "w", Due: time.Now().Add(100 * time.Millisecond)})
				}
				synctest.Wait()
				var once sync.Once
				r.inject(func(_, point string) (err error) {
					if point == "committed" {
						once.Do(func() { err = errPower })
					}
					return err
				})
				if handOff {
					err := m.store.Update(t.Context(), func(tx *store.Tx) error { return m.queue.Enqueue(tx, Work{Kind: "job", ID: "w"}) })
					if !errors.Is(err, errPower) {
						t.Fatal(err)
					}
					m.enqueue(Work{Kind: "job", ID: "w"}) // the caller tries again; it is there
				}
				began := time.Now()
				if id := <-done; id != "w" {
					t.Errorf("%s was done", id)
				}
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("it was done after %s", took)
				}
				r.eventually("it is gone", func() bool { return m.depth() == 0 })
			})
		})
	}
}

func TestIdle_node_writes_nothing_and_keeps_its_life(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.PollInterval, r.cfg.LeaseTime = time.Minute, 3*time.Minute // fewer looks in a day
		m, other := r.node("n1"), r.node("n2")
		var runs atomic.Int64
		do := func(ctx context.Context, it *Item) error { runs.Add(1); return nil }
		m.handle("job", 5, do).start()
		other.start()
		m.enqueue(Work{Kind: "job", ID: "1"})
		<-time.After(5 * time.Minute)
		life, was := m.queue.currentLife(), m.store.Stats().Commits
		<-time.After(time.Hour)
		if n := m.store.Stats().Commits - was; n != 0 {
			t.Errorf("%d commits in an hour without work", n)
		}
		<-time.After(25 * time.Hour) // longer than the row of a node that is gone stays
		m.enqueue(Work{Kind: "job", ID: "2"})
		r.eventually("it is done", func() bool { return m.depth() == 0 && runs.Load() == 2 })
		if m.queue.currentLife() != life {
			t.Error("the idle node was fenced")
		}
	})
}

func TestNode_that_was_fenced_at_rest_works_again(t *testing.T) {
	for _, when := range []string{"before it wrote that it rests", "after"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, "")
				a, b := r.node("n1"), r.node("n2")
				var done atomic.Int64
				a.handle("job", 1, func(context.Context, *Item) error { done.Add(1); return nil }).start()
				b.start()
				a.enqueue(Work{Kind: "job", ID: "1"})
				if <-time.After(6 * time.Second); when == "after" { // the first round after the work renewed
					<-time.After(time.Minute)
					a.update(func(tx *store.Tx) error {
						n, err := store.Load[node](tx, kindNode, "n1")
						if err != nil {
							return err
						}
						n.Fenced = true
						return store.Save(tx, kindNode, "n1", n)
					})
				} else {
					r.inject(func(string, string) error { return errPower })
					<-time.After(30 * time.Second)
					r.inject(nil)
					<-time.After(time.Minute)
				}
				began := time.Now()
				a.enqueue(Work{Kind: "job", ID: "2"})
				r.eventually("it is done", func() bool { return a.depth() == 0 && done.Load() == 2 })
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("after %s", took)
				}
			})
		})
	}
}

func TestNode_that_is_gone_is_forgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.LeaseTime = 3 * time.Minute
		pod := r.node("pod-1").start()
		synctest.Wait()
		pod.halt()
		r.node("pod-2").start()
		<-time.After(25 * time.Hour)
		rows, err := r.one.store.Reader(t.Context()).List(kindNode, "", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 1 || rows[0].Key != "pod-2" {
			t.Errorf("%d rows: %v", len(rows), rows)
		}
	})
}

func TestBurial_after_AttemptsMax_errors_and_Retry(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		r.cfg.AttemptsMax = 3
		m := r.node("n1")
		var broken atomic.Bool
		broken.Store(true)
		var mu sync.Mutex
		attempts := map[string][]int{}
		m.handle("job", 2, func(ctx context.Context, it *Item) error {
			mu.Lock()
			defer mu.Unlock()
			attempts[it.ID] = append(attempts[it.ID], it.Attempts)
			if broken.Load() {
				if it.ID == "b" {
					panic("out of cheese")
				}
				return errors.New("out of tea " + strings.Repeat("é", 400))
			}
			return nil
		}).start()
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			m.enqueue(Work{Kind: "job", ID: id, Body: []byte(`{"x":1}`)})
		}
		r.eventually("all is given up", func() bool { return m.depth() == 0 })
		var got []string
		after := ""
		reader := m.store.Reader(t.Context())
		for pages := 0; ; pages++ {
			page, next, err := m.queue.BuriedWork(reader, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range page {
				got = append(got, b.ID)
				want := "out of tea é"
				if b.ID == "b" {
					want = "handler panicked: out of cheese"
				}
				if b.Attempts != 3 || !strings.HasPrefix(b.LastError, want) || len(b.LastError) > errorBytesMax || string(b.Body) != `{"x":1}` {
					t.Errorf("buried: %+v", b)
				}
			}
			if next == "" {
				if pages != 2 {
					t.Errorf("%d pages, not 3", pages+1)
				}
				break
			}
			after = next
		}
		if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
			t.Errorf("buried %v", got)
		}
		if page, next, err := m.queue.BuriedWork(reader, "", 0); err != nil || len(page) != 1 || next == "" {
			t.Errorf("a page of none: %v, %q, %v", page, next, err)
		}
		broken.Store(false)
		m.update(func(tx *store.Tx) error { return m.queue.Retry(tx, "job", "b") })
		r.eventually("the retried work is done", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return m.depth() == 0 && len(attempts["b"]) == 4
		})
		mu.Lock()
		if !slices.Equal(attempts["b"], []int{0, 1, 2, 0}) || !slices.Equal(attempts["a"], []int{0, 1, 2}) {
			t.Errorf("attempts: %v", attempts)
		}
		mu.Unlock()
		err := m.store.Update(t.Context(), func(tx *store.Tx) error { return m.queue.Retry(tx, "job", "b") })
		if !errors.Is(err, aws.NotFound("")) {
			t.Errorf("retry of what is not buried: %v", err)
		}
	})
}

func TestDelay_has_full_jitter_and_doubles_up_to_five_minutes(t *testing.T) {
	q := New(Config{Node: "n1"}, nil, time.Now, rand.New(rand.NewPCG(1, 2)), slog.New(slog.DiscardHandler))
	for attempts, limit := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 64: 5 * time.Minute, 1 << 40: 5 * time.Minute,
	} {
		low, high := limit, time.Duration(0)
		for range 2000 {
			d := q.delay(attempts)
			low, high = min(low, d), max(high, d)
		}
		if low < 0 || low > limit/100 || high >= limit || high < limit-limit/100 {
			t.Errorf("after %d errors between %s and %s, not up to %s", attempts, low, high, limit)
		}
	}
}

func TestWork_of_a_kind_without_handler_stays(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		a := r.node("n1")
		var done atomic.Int64
		do := func(context.Context, *Item) error { done.Add(1); return nil }
		a.handle("job", 1, do).start()
		a.enqueue(Work{Kind: "jobs", ID: "w"}, Work{Kind: "jo", ID: "w"}, Work{Kind: "job", ID: "w"})
		r.eventually("what has a handler is done", func() bool { return a.depth() == 2 })
		a.stop()
		b := r.node("n1")
		b.handle("jobs", 1, do).handle("jo", 1, do).start()
		r.eventually("the rest is done", func() bool { return b.depth() == 0 })
		if n := done.Load(); n != 3 {
			t.Errorf("%d handlers ran", n)
		}
	})
}

func TestHandle_panics_after_Run_and_for_a_second_handler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		do := func(context.Context, *Item) error { return nil }
		panics := func(what, kind string) {
			defer func() {
				if recover() == nil {
					t.Error(what + " did not panic")
				}
			}()
			m.handle(kind, 1, do)
		}
		m.handle("job", 1, do)
		panics("a second handler", "job")
		m.start()
		synctest.Wait()
		panics("a handler after Run", "late")
		if err := m.queue.Run(t.Context()); err == nil {
			t.Error("Run ran twice")
		}
	})
}

func TestEnqueue_refuses_what_has_no_bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		for what, w := range map[string]Work{
			"no kind":        {ID: "w"},
			"a kind's NUL":   {Kind: "a\x00b", ID: "w"},
			"no id":          {Kind: "job"},
			"a long id":      {Kind: "job", ID: strings.Repeat("x", idBytesMax+1)},
			"a long body":    {Kind: "job", ID: "w", Body: []byte(`"` + strings.Repeat("x", bodyBytesMax) + `"`)},
			"a body no JSON": {Kind: "job", ID: "w", Body: []byte(`{`)},
		} {
			if err := m.store.Update(t.Context(), func(tx *store.Tx) error { return m.queue.Enqueue(tx, w) }); err == nil {
				t.Errorf("%s was accepted", what)
			}
		}
		if m.depth() != 0 {
			t.Error("refused work is there")
		}
	})
}

func TestRow_that_cannot_be_read_does_not_stand_in_the_way(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		var done atomic.Int64
		m.handle("job", 1, func(context.Context, *Item) error { done.Add(1); return nil })
		for i := range 100 {
			m.enqueue(Work{Kind: "job", ID: fmt.Sprintf("bad%02d", i), Due: time.Now().Add(-time.Hour)})
			m.update(func(tx *store.Tx) error {
				return tx.Put(kindWork, workKey("job", fmt.Sprintf("bad%02d", i)), []byte("not JSON"))
			})
		}
		m.update(func(tx *store.Tx) error { return tx.Put(kindDue, "job\x00short", []byte{}) })
		m.enqueue(Work{Kind: "job", ID: "good"})
		m.start()
		m.r.eventually("the good work is done", func() bool { return m.depth() == 0 })
		page, _, err := m.queue.BuriedWork(m.store.Reader(t.Context()), "", 1000)
		if err != nil || len(page) != 100 || done.Load() != 1 {
			t.Errorf("%d buried, %d done, %v", len(page), done.Load(), err)
		}
	})
}

func TestLatency_is_small_without_polling(t *testing.T) {
	test := func(t *testing.T, r *region) {
		r.cfg.PollInterval = time.Hour
		r.cfg.LeaseTime = 15 * time.Second
		m := r.node("n1")
		began := make(chan time.Time, 1)
		m.handle("job", 4, func(context.Context, *Item) error {
			began <- time.Now()
			return nil
		}).start()
		m.enqueue(Work{Kind: "job", ID: "first"})
		<-began
		var took []time.Duration
		for i := range 60 {
			m.enqueue(Work{Kind: "job", ID: fmt.Sprint(i)})
			committed := time.Now()
			took = append(took, (<-began).Sub(committed))
		}
		slices.Sort(took)
		t.Logf("after the commit: median %s, 95th percentile %s", took[30], took[57])
		if took[30] > 5*time.Millisecond {
			t.Errorf("the median piece of work began %s after its commit", took[30])
		}
	}
	t.Run("sqlite", func(t *testing.T) { test(t, newRegion(t, "")) }) // in real time
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		t.Run("postgres", func(t *testing.T) { test(t, newRegion(t, newDatabase(t, url))) })
	}
}

func TestAgain_and_near_due_times_need_no_polling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		var runs []time.Duration
		began := time.Now()
		m.handle("job", 1, func(ctx context.Context, it *Item) error {
			runs = append(runs, time.Since(began).Round(time.Millisecond))
			if len(runs) == 4 {
				return nil
			}
			return m.store.Update(ctx, func(tx *store.Tx) error { return it.Again(tx, tx.Now().Add(30*time.Millisecond), []byte("1")) })
		}).start()
		<-time.After(10 * time.Millisecond)
		m.enqueue(Work{Kind: "job", ID: "w", Due: time.Now().Add(7 * time.Millisecond)})
		r.eventually("it is done", func() bool { return m.depth() == 0 })
		if want := []time.Duration{17e6, 47e6, 77e6, 107e6}; !slices.Equal(runs, want) {
			t.Errorf("ran after %v", runs)
		}
	})
}

func TestWorkers_are_never_more_than_asked_for(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		m := r.node("n1")
		var now, most atomic.Int64
		full := make(chan struct{}) // closed when all five are at work
		m.handle("job", 5, func(ctx context.Context, it *Item) error {
			n := now.Add(1)
			defer now.Add(-1)
			for old := most.Load(); n > old; old = most.Load() {
				if most.CompareAndSwap(old, n) && n == 5 {
					close(full)
				}
			}
			select {
			case <-full:
			case <-ctx.Done():
			}
			<-time.After(time.Millisecond)
			return nil
		}).start()
		var callers sync.WaitGroup
		for c := range 20 {
			callers.Go(func() {
				for i := range 20 {
					m.enqueue(Work{Kind: "job", ID: fmt.Sprint(c, "-", i)})
				}
			})
		}
		callers.Wait()
		r.eventually("all is done", func() bool { return m.depth() == 0 })
		if n := most.Load(); n != 5 {
			t.Errorf("%d at once", n)
		}
	})
}

func TestBacklog_of_10000_is_claimed_in_few_commits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		for i := range 10 {
			m.update(func(tx *store.Tx) error {
				for j := range 1000 {
					if err := m.queue.Enqueue(tx, Work{Kind: "job", ID: fmt.Sprint(i, "-", j)}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		before := m.store.Stats().Commits
		var done atomic.Int64
		all := make(chan struct{})
		m.handle("job", 64, func(context.Context, *Item) error {
			if done.Add(1) == 10000 {
				close(all)
			}
			return nil
		}).start()
		began := time.Now()
		<-all
		if took := time.Since(began); took > time.Second {
			t.Errorf("workers waited %s while work was due", took) // virtual time: nothing else takes any
		}
		r.eventually("all is gone", func() bool { return m.depth() == 0 })
		if commits := m.store.Stats().Commits - before; done.Load() != 10000 || commits > 10000/4 {
			t.Errorf("%d done in %d commits", done.Load(), commits)
		}
	})
}
