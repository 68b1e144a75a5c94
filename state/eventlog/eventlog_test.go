package eventlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

var kindEffect = store.Kind{Name: "effect", Rule: changelog.RuleLocal}

// tell appends facts in one update.
func (m *member) tell(ids ...string) {
	m.r.t.Helper()
	m.update(func(tx *store.Tx) error {
		for _, id := range ids {
			Append(tx, Fact{ID: id, Type: "menu.opened", Data: []byte(`{}`)})
		}
		return nil
	})
}

// told lists the ids of all facts in the order of the log.
func (m *member) told() []string {
	m.r.t.Helper()
	var out []string
	after := int64(0)
	for {
		blocks, err := m.store.Blocks(context.Background(), store.Events, after, 100)
		if err != nil {
			m.r.t.Fatal(err)
		}
		if len(blocks) == 0 {
			return out
		}
		for _, b := range blocks {
			after = b.N
			for _, rec := range b.Records {
				f, err := decode(rec)
				if err != nil {
					m.r.t.Fatal(err)
				}
				out = append(out, f.ID)
			}
		}
	}
}

func idsOf(batch []Fact) []string {
	var ids []string
	for _, f := range batch {
		ids = append(ids, f.ID)
	}
	return ids
}

// journal is a Follow that keeps, in the store, the ids in the order it was
// given them: a row for each batch, numbered by a row that counts them.
func journal(name string) func(tx *store.Tx, batch []Fact) error {
	return func(tx *store.Tx, batch []Fact) error {
		body, err := tx.Get(kindEffect, name)
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(body))
		if err := tx.Put(kindEffect, name, []byte(strconv.Itoa(n+1))); err != nil {
			return err
		}
		return tx.Put(kindEffect, fmt.Sprintf("%s/%08d", name, n), []byte(strings.Join(idsOf(batch), " ")))
	}
}

func (m *member) journalOf(name string) []string {
	m.r.t.Helper()
	rows, err := m.store.Reader(context.Background()).List(kindEffect, name+"/", "", 100000)
	if err != nil {
		m.r.t.Fatal(err)
	}
	var ids []string
	for _, row := range rows {
		ids = append(ids, strings.Fields(string(row.Body))...)
	}
	return ids
}

// file is a Deliver to something outside the store, which the state makes exact:
// it is how many ids are certain.
type file struct {
	mu     sync.Mutex
	ids    []string
	inside int
	most   int // calls at once
	repeat int // ids that came again
	runs   map[string]int
}

func (f *file) out(node string, slow func(ctx context.Context) error) func(context.Context, []Fact, json.RawMessage) (json.RawMessage, error) {
	return func(ctx context.Context, batch []Fact, state json.RawMessage) (json.RawMessage, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.inside++
		f.most = max(f.most, f.inside)
		if f.runs == nil {
			f.runs = map[string]int{}
		}
		f.runs[node]++
		f.mu.Unlock()
		err := slow(ctx)
		f.mu.Lock()
		f.inside--
		n := 0
		if state != nil {
			if err := json.Unmarshal(state, &n); err != nil {
				return nil, err
			}
		}
		if n > len(f.ids) {
			return nil, fmt.Errorf("state says %d of %d", n, len(f.ids))
		}
		f.repeat += len(f.ids) - n
		f.ids = append(f.ids[:n], idsOf(batch)...)
		if err != nil {
			return nil, err
		}
		return json.Marshal(len(f.ids))
	}
}

func (f *file) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ids)
}

func (f *file) repeats() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.repeat
}

func (f *file) mostAtOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

func quick(context.Context) error { return nil }

func TestFacts_reach_every_follower_once_in_effect_whatever_fails(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		rounds := 40
		if r.url != "" {
			rounds = 12
		}
		var mu sync.Mutex
		chance := rand.New(rand.NewPCG(9, 9))
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return chance.IntN(n)
		}
		var archive file
		start := func(name string) *member {
			m := r.node(name)
			for _, f := range []string{"one", "two"} {
				apply := journal(f)
				Follow(m.log, f, func(tx *store.Tx, batch []Fact) error {
					if err := apply(tx, batch); err != nil {
						return err
					}
					switch draw(10) {
					case 0:
						return errors.New("out of tea")
					case 1:
						panic("out of cheese")
					}
					return nil
				})
			}
			Deliver(m.log, "archive", archive.out(name, func(ctx context.Context) error {
				// It fails after it wrote: the first time for certain, then by chance.
				if archive.repeats() == 0 {
					return errors.New("out of tea")
				}
				switch draw(10) {
				case 0:
					return errors.New("out of tea")
				case 1: // longer than the lease
					select {
					case <-time.After(m.log.cfg.LeaseTime * 3 / 2):
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			}))
			return m.start()
		}
		names := []string{"n1"}
		if r.url != "" {
			names = append(names, "n2")
		}
		nodes := map[string]*member{}
		for _, n := range names {
			nodes[n] = start(n)
		}
		told := 0
		for round := range rounds {
			if round%2 == 1 {
				r.inject(func(string, string) error {
					if draw(12) == 0 {
						return errPower
					}
					return nil
				})
			}
			var writers sync.WaitGroup
			for range 4 {
				m, first, n := nodes[names[draw(len(names))]], told, 1+draw(20)
				told += n
				writers.Go(func() {
					// A caller who is refused does not know; the log holds it once or twice.
					for m.store.Update(context.Background(), func(tx *store.Tx) error {
						for i := range n {
							Append(tx, Fact{ID: fmt.Sprint(first + i), Data: []byte("{}")})
						}
						return nil
					}) != nil {
					}
				})
			}
			writers.Wait()
			<-time.After(time.Duration(draw(400)) * time.Millisecond)
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
		want := m.told()
		if len(want) < told {
			t.Fatalf("%d of %d facts are in the log", len(want), told)
		}
		r.eventually("all have read everything", func() bool {
			return len(m.journalOf("one")) >= len(want) && len(m.journalOf("two")) >= len(want) && len(archive.all()) >= len(want)
		})
		for _, f := range []string{"one", "two"} {
			if got := m.journalOf(f); !slices.Equal(got, want) {
				t.Errorf("follower %s has other facts than the log, or in another order: %d, not %d", f, len(got), len(want))
			}
		}
		if got := archive.all(); !slices.Equal(got, want) {
			t.Errorf("the archive has other facts than the log, or in another order: %d, not %d", len(got), len(want))
		}
		if archive.repeat == 0 {
			t.Error("nothing came twice: the test did not try what it says")
		}
		if archive.mostAtOnce() > 1 {
			t.Errorf("%d deliveries at once", archive.mostAtOnce())
		}
	})
}

func TestFollower_that_fails_or_is_slow_does_not_hold_others(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		m := r.node("n1")
		entered, finish := make(chan struct{}, 100), make(chan struct{})
		Follow(m.log, "fails", func(*store.Tx, []Fact) error { return errors.New("out of tea") })
		Deliver(m.log, "panics", func(context.Context, []Fact, json.RawMessage) (json.RawMessage, error) { panic("out of cheese") })
		Deliver(m.log, "slow", func(ctx context.Context, _ []Fact, _ json.RawMessage) (json.RawMessage, error) {
			entered <- struct{}{}
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return nil, nil
		})
		Follow(m.log, "good", journal("good"))
		m.start()
		m.tell("a")
		<-entered
		began := time.Now()
		for i := range 20 {
			m.tell(fmt.Sprint(i))
			r.eventually("the good follower has it", func() bool { return len(m.journalOf("good")) == i+2 })
		}
		if took := time.Since(began); r.url == "" && took > 2*time.Second {
			t.Errorf("the good follower took %s", took)
		}
		close(finish)
	})
}

func TestFollower_that_fails_is_tried_after_growing_delays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		var tries []time.Time
		var mu sync.Mutex
		Deliver(m.log, "f", func(context.Context, []Fact, json.RawMessage) (json.RawMessage, error) {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, time.Now())
			if len(tries) < 8 {
				return nil, errors.New("out of tea")
			}
			return nil, nil
		})
		m.start()
		m.tell("a")
		m.r.eventually("it succeeds", func() bool { mu.Lock(); defer mu.Unlock(); return len(tries) == 8 })
		for i, want := range []time.Duration{1, 2, 4, 8, 10, 10, 10} {
			if d := tries[i+1].Sub(tries[i]); d != want*time.Second {
				t.Errorf("try %d came after %s, not %d s", i+2, d, want)
			}
		}
	})
}

func TestDeliver_is_run_by_one_node_and_taken_over(t *testing.T) {
	for _, how := range []string{"crash", "stop"} {
		t.Run(how, func(t *testing.T) {
			engines(t, func(t *testing.T, r *region) {
				var archive file
				a, b := r.node("n1"), r.node("n2")
				Deliver(a.log, "archive", archive.out("n1", quick))
				Deliver(b.log, "archive", archive.out("n2", quick))
				a.start()
				a.tell("0")
				r.eventually("the first node has it", func() bool { return len(archive.all()) == 1 })
				b.start()
				want := []string{"0"}
				for i := range 20 {
					want = append(want, fmt.Sprint(i+1))
					b.tell(want[i+1])
					<-time.After(5 * time.Millisecond)
				}
				r.eventually("it is delivered", func() bool { return len(archive.all()) == len(want) })
				archive.mu.Lock()
				if archive.runs["n2"] != 0 {
					t.Error("the other node ran it beside the first")
				}
				archive.mu.Unlock()
				left := time.Now()
				if how == "crash" {
					a.vanish()
				} else {
					a.halt()
				}
				b.tell("last")
				r.eventually("the other node took over", func() bool { return len(archive.all()) == len(want)+1 })
				took, lease := time.Since(left), b.log.cfg.LeaseTime
				switch {
				case how == "stop" && took > lease/2:
					t.Errorf("taken over %s after the other stopped", took)
				case how == "crash" && (took < lease/2 || took > 2*lease+time.Second):
					t.Errorf("taken over %s after the other crashed", took)
				}
				if got := archive.all(); !slices.Equal(got, append(want, "last")) || archive.mostAtOnce() != 1 {
					t.Errorf("%d at once delivered %v", archive.mostAtOnce(), got)
				}
			})
		})
	}
}

func TestDeliver_keeps_its_lease_however_long_it_takes(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		var archive file
		a, b := r.node("n1"), r.node("n2")
		entered := make(chan struct{}, 1)
		Deliver(a.log, "archive", archive.out("n1", func(ctx context.Context) error {
			entered <- struct{}{}
			select {
			case <-time.After(5 * a.log.cfg.LeaseTime):
			case <-ctx.Done():
				t.Errorf("told to end: %v", context.Cause(ctx))
			}
			return nil
		}))
		Deliver(b.log, "archive", archive.out("n2", quick))
		a.start()
		a.tell("a")
		<-entered
		b.start()
		r.eventually("it is delivered", func() bool { return len(archive.all()) == 1 })
		archive.mu.Lock()
		defer archive.mu.Unlock()
		if archive.most != 1 || archive.runs["n2"] != 0 || archive.repeat != 0 {
			t.Errorf("%d at once, %v, %d repeated", archive.most, archive.runs, archive.repeat)
		}
	})
}

func TestDeliver_is_told_to_end_before_a_lease_that_cannot_be_renewed_ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		entered := make(chan struct{})
		told := make(chan time.Time, 9)
		var calls atomic.Int64
		Deliver(m.log, "f", func(ctx context.Context, _ []Fact, _ json.RawMessage) (json.RawMessage, error) {
			if calls.Add(1) > 1 {
				return nil, nil
			}
			close(entered)
			<-ctx.Done()
			told <- time.Now()
			if !errors.Is(context.Cause(ctx), errRunsOut) {
				t.Errorf("cause: %v", context.Cause(ctx))
			}
			return nil, ctx.Err()
		})
		m.start()
		m.tell("a")
		<-entered
		began := time.Now()
		r.inject(func(string, string) error { return errPower })
		if took := (<-told).Sub(began); took != 9*time.Second {
			t.Errorf("told after %s of a lease of 10 s", took)
		}
		r.inject(nil)
		r.eventually("it goes on", func() bool { return calls.Load() == 2 })
	})
}

func TestLate_node_moves_nothing(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		a, b := r.node("n1"), r.node("n2")
		b.log.now = func() time.Time { return time.Now().Add(time.Hour) } // so n1's lease seems to have run out
		entered, finish, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		var once sync.Once
		Deliver(a.log, "f", func(ctx context.Context, _ []Fact, _ json.RawMessage) (json.RawMessage, error) {
			first := false
			once.Do(func() { first = true })
			if !first {
				return json.RawMessage(`"n1 again"`), nil
			}
			close(entered)
			<-finish
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return json.RawMessage(`"n1"`), nil
		})
		Deliver(b.log, "f", func(context.Context, []Fact, json.RawMessage) (json.RawMessage, error) {
			return json.RawMessage(`"n2"`), nil
		})
		a.start()
		a.tell("a")
		<-entered
		b.start()
		row := func() cursor {
			c, err := store.Load[cursor](b.store.Reader(context.Background()), kindCursor, "f")
			if err != nil {
				t.Fatal(err)
			}
			return *c
		}
		r.eventually("the other node delivered", func() bool { return row().N == 1 })
		close(finish)
		cause := <-ended
		if _, ok := errors.AsType[*elsewhereError](cause); !ok {
			t.Errorf("the late node was told %v", cause)
		}
		a.halt()
		if c := row(); string(c.State) != `"n2"` || c.Node != "n2" {
			t.Errorf("the cursor: %+v", c)
		}
	})
}

func TestBatches_are_bounded_and_resume_in_the_middle_of_a_commit(t *testing.T) {
	engines(t, func(t *testing.T, r *region) {
		m := r.node("n1")
		var want []string
		for i := range 2*batchFactsMax + 500 {
			want = append(want, fmt.Sprint(i))
		}
		m.tell(want...) // one commit
		var archive file
		var sizes []int
		fail := false
		out := archive.out("n1", quick)
		deliver := func(m *member) {
			Deliver(m.log, "archive", func(ctx context.Context, batch []Fact, state json.RawMessage) (json.RawMessage, error) {
				archive.mu.Lock()
				sizes = append(sizes, len(batch))
				fail = len(sizes) == 2
				archive.mu.Unlock()
				if fail {
					return nil, errors.New("out of tea")
				}
				return out(ctx, batch, state)
			})
			Follow(m.log, "journal", journal("journal"))
		}
		deliver(m)
		m.start()
		r.eventually("the first batch is through", func() bool { return len(archive.all()) >= batchFactsMax })
		m.stop()
		m = r.node("n1")
		deliver(m)
		m.start()
		r.eventually("all is delivered", func() bool { return len(archive.all()) == len(want) && len(m.journalOf("journal")) == len(want) })
		if !slices.Equal(archive.all(), want) || !slices.Equal(m.journalOf("journal"), want) {
			t.Error("in another order")
		}
		if archive.repeat != 0 {
			t.Errorf("%d facts came again after a batch was stored", archive.repeat)
		}
		if slices.Max(sizes) != batchFactsMax {
			t.Errorf("batches of %v", sizes)
		}
	})
}

func TestGather_bounds_bytes_and_knows_where_it_stopped(t *testing.T) {
	big := encode(Fact{ID: "b", Data: bytes.Repeat([]byte("x"), batchBytesMax/2+1)})
	huge := encode(Fact{ID: "h", Data: bytes.Repeat([]byte("x"), batchBytesMax+1)})
	small := encode(Fact{ID: "s"})
	blocks := []store.Block{{N: 7, Records: [][]byte{small, big, small}}, {N: 8, Records: [][]byte{big, huge}}, {N: 9, Records: [][]byte{small, small}}}
	cur := &cursor{N: 6, Part: 1, State: json.RawMessage("1"), Node: "n1"}
	var got []string
	for range 4 {
		rest := blocks
		for len(rest) > 0 && rest[0].N <= cur.N {
			rest = rest[1:]
		}
		batch, next, err := gather(cur, rest)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d+%d", strings.Join(idsOf(batch), ""), next.N, next.Part))
		if string(next.State) != "1" || next.Node != "n1" {
			t.Errorf("next: %+v", next)
		}
		cur = next
	}
	if want := []string{"bs 7+0", "b 7+1", "h 8+0", "ss 9+0"}; !slices.Equal(got, want) {
		t.Errorf("batches: %q, want %q", got, want)
	}
	if _, _, err := gather(&cursor{}, []store.Block{{N: 1, Records: [][]byte{{0xff}}}}); !errors.Is(err, errCorrupt) {
		t.Errorf("a corrupt fact: %v", err)
	}
}

func TestTrim_keeps_what_is_young_and_what_somebody_has_not_read(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.Retention = time.Hour
		m, other := r.node("n1"), r.node("n2")
		var broken atomic.Bool
		Follow(m.log, "quick", journal("quick"))
		Deliver(other.log, "elsewhere", func(context.Context, []Fact, json.RawMessage) (json.RawMessage, error) {
			if broken.Load() {
				return nil, errors.New("out of tea")
			}
			return nil, nil
		})
		m.start()
		other.start()
		m.tell("a")
		<-time.After(time.Second)
		broken.Store(true)
		m.tell("b")
		<-time.After(65 * time.Minute)
		if got := m.told(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("after the retention time there are %v", got)
		}
		m.tell("c")
		broken.Store(false)
		<-time.After(3 * time.Minute)
		if got := m.told(); !slices.Equal(got, []string{"c"}) {
			t.Errorf("after all was read there are %v", got)
		}
		// Nobody runs the other follower any more: it keeps facts for the retention time.
		other.halt()
		m.tell("d")
		<-time.After(55 * time.Minute)
		if got := m.told(); !slices.Equal(got, []string{"c", "d"}) {
			t.Errorf("before the retention time is over there are %v", got)
		}
		<-time.After(10 * time.Minute)
		if got := m.told(); len(got) != 0 {
			t.Errorf("after the retention time without the follower there are %v", got)
		}
		if got := m.journalOf("quick"); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
			t.Errorf("the quick follower read %v", got)
		}
	})
}

func TestTrim_waits_for_a_follower_without_a_cursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.Retention = time.Minute
		m := r.node("n1")
		m.tell("a")
		<-time.After(2 * time.Minute)
		with, without := m.log, New(Config{Node: "n2", Retention: time.Minute}, m.store, time.Now, m.log.log)
		Follow(with, "new", journal("new"))
		for _, try := range []struct {
			log  *Log
			left int
		}{{with, 1}, {without, 0}} {
			if err := try.log.trimOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(m.told()); n != try.left {
				t.Errorf("%d facts are left, not %d", n, try.left)
			}
		}
	})
}

func TestCommit_that_is_not_heard_of_delays_a_follower_little(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		m := r.node("n1")
		Follow(m.log, "f", func(tx *store.Tx, batch []Fact) error {
			if batch[0].ID == "b" {
				var once sync.Once
				r.inject(func(_, point string) (err error) {
					if point == "committed" {
						once.Do(func() { err = errPower })
					}
					return err
				})
			}
			return journal("f")(tx, batch)
		})
		m.start()
		m.tell("a")
		synctest.Wait()
		m.tell("b")
		<-time.After(500 * time.Millisecond)
		m.tell("c")
		began := time.Now()
		r.eventually("all is read", func() bool { return len(m.journalOf("f")) >= 3 })
		if took := time.Since(began); took > retryDelay {
			t.Errorf("the next fact took %s", took)
		}
		if got := m.journalOf("f"); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("read %v", got)
		}
	})
}

func TestTrim_waits_for_a_follower_that_has_not_begun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t, "")
		r.cfg.Retention = 10 * time.Minute
		m := r.node("n1")
		Follow(m.log, "quick", journal("quick"))
		m.tell("a")
		var fail atomic.Bool
		fail.Store(true)
		Follow(m.log, "new", func(tx *store.Tx, batch []Fact) error {
			if fail.Load() {
				return errors.New("out of tea")
			}
			return journal("new")(tx, batch)
		})
		m.start()
		<-time.After(30 * time.Minute)
		fail.Store(false)
		<-time.After(time.Minute)
		if got := m.journalOf("new"); !slices.Equal(got, []string{"a"}) {
			t.Errorf("the new follower read %v", got)
		}
	})
}

func TestLog_at_rest_writes_nothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		Follow(m.log, "f", journal("f"))
		m.start()
		m.tell("a")
		<-time.After(time.Minute)
		was := m.store.Stats().Commits
		<-time.After(4 * time.Hour)
		if n := m.store.Stats().Commits - was; n != 0 {
			t.Errorf("%d commits in four hours without facts", n)
		}
		began := time.Now()
		m.tell("b")
		m.r.eventually("it is read", func() bool { return len(m.journalOf("f")) == 2 })
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it was read after %s", took)
		}
	})
}

func TestFollower_added_twice_or_after_Run_panics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRegion(t, "").node("n1")
		panics := func(what, name string) {
			defer func() {
				if recover() == nil {
					t.Error(what + " did not panic")
				}
			}()
			Deliver(m.log, name, nil)
		}
		Follow(m.log, "f", journal("f"))
		panics("a second follower of the name", "f")
		m.start()
		synctest.Wait()
		panics("a follower after Run", "late")
		if err := m.log.Run(t.Context()); err == nil {
			t.Error("Run ran twice")
		}
	})
}

func TestFact_round_trip(t *testing.T) {
	for _, f := range []Fact{
		{},
		{ID: "i", Account: "111122223333", App: "a", Type: "_email.send", Client: "e", Data: []byte(`{"x":1}`)},
		{ID: strings.Repeat("é", 300), Data: []byte{0, 1, 2}},
	} {
		got, err := decode(encode(f))
		if err != nil || got.ID != f.ID || got.Account != f.Account || got.App != f.App || got.Type != f.Type || got.Client != f.Client || !bytes.Equal(got.Data, f.Data) {
			t.Errorf("%+v became %+v, %v", f, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(Fact{ID: "i", Account: "a", App: "p", Type: "t", Client: "c", Data: []byte("{}")}))
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{5, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		fact, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(encode(fact))
		if err != nil || again.ID != fact.ID || again.Client != fact.Client || !bytes.Equal(again.Data, fact.Data) {
			t.Errorf("%+v became %+v, %v", fact, again, err)
		}
	})
}
