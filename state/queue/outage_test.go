package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/state/store"
)

// outage takes the database away, or gives it back. On SQLite what is taken away
// is writing, and the first commit of the outage is on disk though its answer is
// an error; on PostgreSQL the connections are cut and no new ones accepted.
func (r *region) outage(away bool) {
	r.t.Helper()
	if r.url == "" {
		if !away {
			r.inject(nil)
			return
		}
		var cut atomic.Bool
		r.inject(func(_, point string) error {
			if cut.Load() || point == "committed" {
				cut.Store(true)
				return errPower
			}
			return nil
		})
		return
	}
	conn, err := pgx.Connect(context.Background(), os.Getenv("TEST_POSTGRES_URL"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	cfg, err := pgx.ParseConfig(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := conn.Exec(context.Background(), fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS %t", cfg.Database, !away)); err != nil {
		r.t.Fatal(err)
	}
	if away {
		if _, err := conn.Exec(context.Background(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", cfg.Database); err != nil {
			r.t.Fatal(err)
		}
	}
}

// nodeRows reads the rows of the nodes.
func (m *member) nodeRows() map[string]*node {
	m.r.t.Helper()
	rows, err := m.store.Reader(context.Background()).List(kindNode, "", "", 100)
	if err != nil {
		m.r.t.Fatal(err)
	}
	out := map[string]*node{}
	for _, w := range rows {
		n, err := store.Decode[node](kindNode, w.Body)
		if err != nil {
			m.r.t.Fatal(err)
		}
		out[w.Key] = n
	}
	return out
}

// insist enqueues as a caller does who is refused and tries again.
func (m *member) insist(w Work) {
	for m.store.Update(context.Background(), func(tx *store.Tx) error { return m.queue.Enqueue(tx, w) }, Touch(w.Kind, w.ID)) != nil {
		<-time.After(10 * time.Millisecond)
	}
}

func TestOutage_is_over_for_all_work_within_a_minute_of_its_end(t *testing.T) {
	t.Parallel()
	// In leases of 15 s these are 30 s, 3 min and 1 h.
	leases := []int{2, 12, 240}
	if os.Getenv("TEST_POSTGRES_URL") != "" {
		leases = append(leases, 3, 10)
	}
	for _, long := range leases {
		for _, nodes := range []int{1, 2} {
			for _, state := range []string{"resting", "ending_work", "at_work"} {
				t.Run(fmt.Sprintf("leases_%d/nodes_%d/%s", long, nodes, state), func(t *testing.T) {
					test := func(t *testing.T, r *region) { outageEnds(t, r, long, nodes, state) }
					if long == 3 || long == 10 {
						t.Parallel() // in real time
						test(t, newRegion(t, newDatabase(t, os.Getenv("TEST_POSTGRES_URL"))))
					} else {
						synctest.Test(t, func(t *testing.T) { test(t, newRegion(t, "")) })
					}
				})
			}
		}
	}
}

func outageEnds(t *testing.T, r *region, leases, nodes int, state string) {
	if r.url == "" {
		r.cfg.PollInterval = time.Second // fewer looks in vain in an hour
	}
	var down atomic.Bool
	var members []*member
	started := make(chan struct{}, 100)
	for i := range nodes {
		m := r.node(fmt.Sprintf("n%d", i+1))
		m.handle("job", 4, func(ctx context.Context, it *Item) error {
			lease := it.q.cfg.LeaseTime
			wait := time.Duration(0)
			switch {
			case strings.HasPrefix(it.ID, "short"): // ends when its outcome cannot be written
				wait = lease
			case strings.HasPrefix(it.ID, "long"): // outlives the outage
				wait = time.Duration(leases+1) * lease
			}
			if wait != 0 && !down.Load() {
				started <- struct{}{}
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(wait):
				}
			}
			return m.store.Update(ctx, func(tx *store.Tx) error {
				if err := effect(tx, it.ID); err != nil {
					return err
				}
				return it.Complete(tx)
			}, append(it.Touch(), effectTouch(it.ID))...)
		})
		members = append(members, m)
	}
	for _, m := range members {
		m.start()
	}
	var ids []string
	enqueue := func(m *member, id string, due time.Time) {
		ids = append(ids, id)
		m.insist(Work{Kind: "job", ID: id, Due: due})
	}
	lease := members[0].queue.cfg.LeaseTime
	for i, m := range members {
		enqueue(m, fmt.Sprint("early", i), time.Time{})
	}
	r.eventually("the first work is done", func() bool { return members[0].depth() == 0 })
	for i, m := range members {
		switch state {
		case "at_work":
			enqueue(m, fmt.Sprint("long", i), time.Time{})
			enqueue(m, fmt.Sprint("due", i), time.Now().Add(lease))
			fallthrough
		case "ending_work":
			enqueue(m, fmt.Sprint("short", i), time.Time{})
		}
	}
	for _, id := range ids {
		if strings.HasPrefix(id, "long") || strings.HasPrefix(id, "short") {
			<-started
		}
	}
	down.Store(true)
	r.outage(true)
	<-time.After(time.Duration(leases) * lease)
	r.outage(false)
	back := time.Now()
	down.Store(false)
	r.eventually("all work is done", func() bool { return members[0].depth() == 0 })
	if took := time.Since(back); took > 4*lease && (r.url == "" || took > 15*time.Second) {
		t.Errorf("all was done %s after the outage", took)
	}
	<-time.After(4 * lease)
	for i, m := range members {
		begun := time.Now()
		enqueue(m, fmt.Sprint("late", i), time.Time{})
		enqueue(m, fmt.Sprint("later", i), time.Now().Add(lease))
		r.eventually("the work that came afterwards is done", func() bool { return m.depth() == 0 })
		if took := time.Since(begun); took > 2*lease && (r.url == "" || took > 5*time.Second) {
			t.Errorf("the work that came afterwards took %s", took)
		}
	}
	got := members[0].effects()
	for _, id := range ids {
		if got[id] != 1 {
			t.Errorf("%s had its effect %d times", id, got[id])
		}
	}
	r.eventually("the nodes rest", func() bool {
		for _, n := range members[0].nodeRows() {
			if n.Held || n.Fenced {
				return false
			}
		}
		return true
	})
}

func TestOutage_does_not_cost_two_nodes_their_work(t *testing.T) {
	for _, long := range []time.Duration{30 * time.Second, 3 * time.Minute, time.Hour} {
		t.Run(long.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, "")
				items, finish := make(chan *Item, 5), make(chan struct{})
				var members []*member
				for _, name := range []string{"n1", "n2"} {
					m := r.node(name)
					m.handle(name, 1, func(ctx context.Context, it *Item) error {
						items <- it
						<-finish
						return ctx.Err()
					}).start()
					<-time.After(1700 * time.Millisecond) // their keepers do not look at the same time
					m.enqueue(Work{Kind: name, ID: "w"})
					members = append(members, m)
				}
				held := []*Item{<-items, <-items}
				r.outage(true)
				<-time.After(long)
				for _, it := range held {
					if it.Valid() {
						t.Errorf("the lease of %s is valid though nothing renewed it", it.Kind)
					}
				}
				r.outage(false)
				<-time.After(20 * time.Second)
				for _, it := range held {
					if !it.Valid() {
						t.Errorf("the lease of %s was not renewed", it.Kind)
					}
				}
				close(finish)
				r.eventually("it is done", func() bool { return members[0].depth() == 0 })
				if n := len(items); n != 0 {
					t.Errorf("%d more handlers ran", n)
				}
			})
		})
	}
}

func TestNode_that_was_fenced_while_it_rests_begins_a_new_life_for_its_next_work(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		m := r.node("n1")
		m.handle("job", 1, func(context.Context, *Item) error { return nil }).start()
		m.enqueue(Work{Kind: "job", ID: "first"})
		resting := func() bool {
			n := m.nodeRows()["n1"]
			return m.depth() == 0 && n != nil && !n.Held && !n.Fenced
		}
		r.eventually("the node rests", resting)
		for _, gone := range []bool{false, true} {
			m.update(func(tx *store.Tx) error {
				if gone {
					return tx.Remove(kindNode, "n1")
				}
				return store.Save(tx, kindNode, "n1", &node{Life: m.queue.currentLife(), Until: tx.Now(), Fenced: true})
			})
			<-time.After(2 * m.queue.cfg.LeaseTime)
			begun := time.Now()
			m.enqueue(Work{Kind: "job", ID: "second"})
			r.eventually("it is done", func() bool { return m.depth() == 0 })
			if took := time.Since(begun); took > m.queue.cfg.LeaseTime {
				t.Errorf("it took %s", took)
			}
			r.eventually("the node rests again", resting)
		}
	})
}

// A hand-off that is on its way to the database while its node is fenced leaves
// work that is leased to a life which is over.
func TestLease_that_was_written_after_its_node_was_fenced_is_ended(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprintf("node_forgotten_%t", forgotten), func(t *testing.T) {
			engines(t, func(t *testing.T, r *region) {
				a, b := r.node("n1"), r.node("n2")
				a.handle("job", 1, func(context.Context, *Item) error { return nil }).start()
				a.enqueue(Work{Kind: "job", ID: "first"})
				r.eventually("the first work is done", func() bool { return a.depth() == 0 })
				a.halt()
				if forgotten {
					a.update(func(tx *store.Tx) error { return tx.Remove(kindNode, "n1") })
				} else if n := a.nodeRows()["n1"]; n.Held || !n.Fenced {
					t.Fatalf("the node's life has not ended: %+v", n)
				}
				a.update(func(tx *store.Tx) error {
					for i := range 250 { // more than one update puts back
						if _, err := a.queue.lease(tx, &row{Work: Work{Kind: "job", ID: fmt.Sprint(i), Due: tx.Now()}}); err != nil {
							return err
						}
					}
					return nil
				})
				var done atomic.Int64
				begun := time.Now()
				b.handle("job", 64, func(context.Context, *Item) error { done.Add(1); return nil }).start()
				r.eventually("the other node has done it", func() bool { return b.depth() == 0 })
				if took := time.Since(begun); r.url == "" && took > time.Minute {
					t.Errorf("it took %s", took)
				}
				if n := done.Load(); n != 250 {
					t.Errorf("done %d times", n)
				}
			})
		})
	}
}

func TestLease_whose_commit_stalled_longer_than_its_node_lived_is_ended(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: one process writes to SQLite, so nobody fences meanwhile")
		return
	}
	r := newRegion(t, newDatabase(t, url))
	r.cfg.LeaseTime = 1500 * time.Millisecond
	a, b := r.node("n1"), r.node("n2")
	done := make(chan string, 10)
	do := func(_ context.Context, it *Item) error { done <- it.q.cfg.Node + " " + it.ID; return nil }
	a.handle("job", 1, do).start()
	b.start()                                 // to fence
	a.enqueue(Work{Kind: "job", ID: "first"}) // from here on the node holds leases
	<-done
	r.eventually("the first work is done", func() bool { return a.depth() == 0 })
	reached, goOn := make(chan struct{}), make(chan struct{})
	var stall, gone atomic.Bool
	r.inject(func(node, point string) error {
		switch {
		case node != "n1":
		case gone.Load(): // it writes nothing more
			return errPower
		case point == "commit" && stall.Load():
			close(reached)
			<-goOn
			gone.Store(true)
		}
		return nil
	})
	result := make(chan error, 1)
	busy := errors.New("the worker has not put its last work down")
	go func() {
		for {
			err := a.store.Update(context.Background(), func(tx *store.Tx) error {
				if err := a.queue.Enqueue(tx, Work{Kind: "job", ID: "w"}); err != nil {
					return err
				}
				// Only work that is handed to a worker at once is leased with its enqueuing.
				w, err := store.Load[row](tx, kindWork, workKey("job", "w"))
				if err != nil || w.Node != "n1" {
					return errors.Join(busy, err)
				}
				stall.Store(true)
				return nil
			})
			if !errors.Is(err, busy) {
				result <- err
				return
			}
			<-time.After(time.Millisecond)
		}
	}()
	<-reached
	r.eventually("the node is fenced", func() bool { return b.nodeRows()["n1"].Fenced })
	close(goOn)
	if err := <-result; !errors.Is(err, errPower) {
		t.Fatalf("the stalled update: %v", err)
	}
	late, err := store.Load[row](b.store.Reader(t.Context()), kindWork, workKey("job", "w"))
	if err != nil || late == nil || late.Node != "n1" {
		t.Fatalf("leased late: %+v, %v", late, err)
	}
	a.stop() // and never returns
	c := r.node("n3")
	c.handle("job", 1, do).start()
	r.eventually("the work is done", func() bool { return b.depth() == 0 })
	if got := <-done; got != "n3 w" {
		t.Errorf("done: %s", got)
	}
}

func TestForget_waits_for_the_leases_of_a_node_that_is_gone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		a, b := r.node("n1"), r.node("n2")
		a.start()
		synctest.Wait()
		a.halt()
		a.update(func(tx *store.Tx) error {
			_, err := a.queue.lease(tx, &row{Work: Work{Kind: "job", ID: "w", Due: tx.Now()}})
			return err
		})
		if err := b.queue.forget(t.Context(), "n1", a.nodeRows()["n1"].Life); err != nil {
			t.Fatal(err)
		}
		if a.nodeRows()["n1"] == nil {
			t.Error("the node was forgotten, and work is leased to it")
		}
	})
}

func TestHandOff_in_one_commit_with_a_new_life_is_not_worked_under_the_old_one(t *testing.T) {
	for _, order := range []string{"life_first", "hand_off_first"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegion(t, "")
				m := r.node("n1")
				items, finish := make(chan *Item, 5), make(chan struct{})
				m.handle("job", 5, func(ctx context.Context, it *Item) error {
					items <- it
					select {
					case <-ctx.Done():
						return context.Cause(ctx)
					case <-finish:
						return nil
					}
				}).start()
				m.enqueue(Work{Kind: "job", ID: "first"})
				<-items
				// The writer stands still until both updates wait for it.
				goOn := make(chan struct{})
				var once sync.Once
				r.inject(func(_, point string) error {
					if point == "begin" {
						once.Do(func() { <-goOn })
					}
					return nil
				})
				var both sync.WaitGroup
				both.Go(func() { m.update(func(*store.Tx) error { return nil }) })
				synctest.Wait()
				steps := []func(){
					func() {
						if err := m.queue.begin(t.Context()); err != nil {
							t.Error(err)
						}
					},
					func() { m.enqueue(Work{Kind: "job", ID: "w"}) },
				}
				if order == "hand_off_first" {
					steps[0], steps[1] = steps[1], steps[0]
				}
				for _, step := range steps {
					both.Go(step)
					synctest.Wait()
				}
				close(goOn)
				both.Wait()
				<-time.After(time.Minute)
				valid := map[string]int{}
				for len(items) > 0 {
					if it := <-items; it.Valid() {
						valid[it.ID]++
						m.update(it.Hold)
					}
				}
				if valid["first"] != 1 || valid["w"] != 1 {
					t.Errorf("items that are valid: %v", valid)
				}
				close(finish)
				r.eventually("all is done", func() bool { return m.depth() == 0 })
			})
		})
	}
}

func TestNew_life_that_takes_several_updates_keeps_what_it_leases_meanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const works = 250 // more than one update puts back
		r := newRegion(t, "")
		m := r.node("n1")
		var again atomic.Bool
		var started, kept, lost atomic.Int64
		m.handle("job", works, func(ctx context.Context, it *Item) error {
			started.Add(1)
			if !again.Load() {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			<-time.After(time.Minute)
			if err := m.store.Update(ctx, it.Hold, it.Touch()...); err != nil {
				lost.Add(1)
				return err
			}
			kept.Add(1)
			return nil
		}).start()
		m.update(func(tx *store.Tx) error {
			for i := range works {
				if err := m.queue.Enqueue(tx, Work{Kind: "job", ID: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return nil
		})
		r.eventually("all is in work", func() bool { return started.Load() == works })
		again.Store(true)
		// What is put back is leased anew before the next update puts back more.
		var writes atomic.Int64
		r.inject(func(_, point string) error {
			if point == "begin" && writes.Add(1) > 1 {
				<-time.After(10 * time.Millisecond)
			}
			return nil
		})
		m.update(func(tx *store.Tx) error {
			return store.Save(tx, kindNode, "n1", &node{Life: m.queue.currentLife(), Until: tx.Now(), Fenced: true, Held: true})
		})
		r.eventually("all is done", func() bool { return m.depth() == 0 })
		if lost.Load() != 0 || kept.Load() != works {
			t.Errorf("%d kept, %d lost", kept.Load(), lost.Load())
		}
	})
}
