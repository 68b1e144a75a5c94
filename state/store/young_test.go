package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKnown_never_denies_what_was_added(t *testing.T) {
	var k known
	if !k.maybe("x") {
		t.Error("a filter that is not filled denies an entry")
	}
	k.begin()
	k.fill([]posting{{"a", 1}})
	k.add([]posting{{"b", 2}}) // while it is filled
	k.end()
	const n = 200_000
	for i := range n {
		k.add([]posting{{fmt.Sprint("in", i), int64(i)}})
	}
	for _, e := range []string{"a", "b"} {
		if !k.maybe(e) {
			t.Errorf("%s is denied", e)
		}
	}
	wrong := 0
	for i := range n {
		if !k.maybe(fmt.Sprint("in", i)) {
			t.Fatalf("in%d is denied", i)
		}
		if k.maybe(fmt.Sprint("out", i)) {
			wrong++
		}
	}
	if wrong > n/20 {
		t.Errorf("%d of %d absent entries are not denied", wrong, n)
	}
	// Filled anew while in use, it knows both what the table has and what comes.
	k.begin()
	if !k.maybe("in7") || k.worn() {
		t.Error("a filter in use is not, while the next is filled")
	}
	k.fill([]posting{{"a", 1}})
	k.add([]posting{{"c", 3}})
	k.end()
	if !k.maybe("a") || !k.maybe("c") || k.current.entries != 2 {
		t.Errorf("the new filter has %d entries", k.current.entries)
	}
}

func TestPostings_are_read_as_written(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 300 {
		var lists [2][]posting
		for i := range lists {
			for range rnd.IntN(9) {
				lists[i] = append(lists[i], posting{strings.Repeat("ab\x00", rnd.IntN(5)) + fmt.Sprint(rnd.IntN(40)), rnd.Int64()})
			}
		}
		record := encodePostings(lists[0], lists[1])
		adds, drops, err := decodePostings(record)
		if err != nil || !slices.Equal(adds, lists[0]) || !slices.Equal(drops, lists[1]) {
			t.Fatalf("%v %v: read as %v %v, %v", lists[0], lists[1], adds, drops, err)
		}
	}
}

func FuzzPostings(f *testing.F) {
	f.Add(encodePostings([]posting{{"person\x00k1", 4}, {"person\x00k2", 5}}, []posting{{"\xffhash", 3}}))
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, record []byte) {
		adds, drops, err := decodePostings(record)
		if err != nil {
			return
		}
		again, gone, err := decodePostings(encodePostings(adds, drops))
		if err != nil || !slices.Equal(adds, again) || !slices.Equal(drops, gone) {
			t.Errorf("%v %v: written and read as %v %v, %v", adds, drops, again, gone, err)
		}
	})
}

// Every row is found by its key, under its index value and in a list, wherever
// its entries are at the moment, for the writer and for readers, through restarts
// and failed commits, and the log of young entries does not grow without end.
func TestSQLite_finds_rows_while_their_entries_age(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	broken := false
	h := home{Config{Dir: t.TempDir(), Region: "us-east-1", SQLiteYoungMax: 40, Fault: func(point string) error {
		if broken && point == "commit" {
			return errors.New("the power is gone")
		}
		return nil
	}}, newTestKeys(t)}
	s, stop := h.start(t)
	model := map[string]string{} // key: index value
	check := func(r Reader, what string) {
		t.Helper()
		for i := range 120 {
			key := fmt.Sprintf("k%03d", i)
			body, err := r.Get(kindRec, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := model[key]; ok != (body != nil) {
				t.Fatalf("%s: %s is there: %t, want %t", what, key, body != nil, ok)
			}
		}
		var want []string
		under := map[string]int{}
		for key, index := range model {
			want = append(want, key)
			under[index]++
		}
		slices.Sort(want)
		for after := ""; ; {
			rows, err := r.List(kindRec, "k", after, 7)
			if err != nil {
				t.Fatal(err)
			}
			n := min(7, len(want))
			if got := keysIn(rows); got != strings.Join(want[:n], " ") {
				t.Fatalf("%s: after %q the list is %s, want %s", what, after, got, strings.Join(want[:n], " "))
			}
			if want = want[n:]; n < 7 {
				break
			}
			after = rows[6].Key
		}
		for i := range 30 {
			x := fmt.Sprint(i)
			rows, err := r.Lookup(kindRec, Index{Name: "i", Value: x}, 200)
			if err != nil || len(rows) != under[x] {
				t.Fatalf("%s: %d rows under %s, want %d (%v)", what, len(rows), x, under[x], err)
			}
		}
	}
	taken := false
	for round := range 400 {
		next := map[string]string{}
		var gone []string
		update := func(tx *Tx) error {
			clear(next)
			gone = gone[:0]
			for range 1 + rnd.IntN(12) {
				key := fmt.Sprintf("k%03d", rnd.IntN(120))
				if rnd.IntN(4) == 0 {
					delete(next, key)
					gone = append(gone, key)
					if err := tx.Remove(kindRec, key); err != nil {
						return err
					}
					continue
				}
				next[key] = fmt.Sprint(rnd.IntN(30))
				gone = slices.DeleteFunc(gone, func(k string) bool { return k == key })
				if err := tx.Put(kindRec, key, []byte("body"), Index{Name: "i", Value: next[key]}); err != nil {
					return err
				}
			}
			return nil
		}
		broken = rnd.IntN(6) == 0
		var touches []Touch
		for range rnd.IntN(60) {
			touches = append(touches, Touch{Kind: kindRec, Key: fmt.Sprintf("k%03d", rnd.IntN(120))},
				Touch{Kind: kindRec, Index: Index{Name: "i", Value: fmt.Sprint(rnd.IntN(30))}})
		}
		err := s.Update(t.Context(), update, touches...)
		if err != nil && !broken {
			t.Fatal(err)
		}
		broken = false
		if err == nil { // an update that changes nothing needs no commit
			for k, x := range next {
				model[k] = x
			}
			for _, k := range gone {
				delete(model, k)
			}
		}
		if rnd.IntN(15) == 0 {
			stop()
			s, stop = h.start(t)
		}
		check(s.Reader(t.Context()), fmt.Sprintf("round %d, a reader", round))
		if err := s.Update(t.Context(), func(tx *Tx) error { check(tx, fmt.Sprintf("round %d, an update", round)); return nil }); err != nil {
			t.Fatal(err)
		}
		y := s.engine.(*sqliteEngine).young
		taken = taken || y.done > 0
		if n := y.fresh.Len() + y.ageing.Len(); n > 400 {
			t.Fatalf("round %d: %d young postings", round, n)
		}
		if records := y.last - y.first; records > 100 {
			t.Fatalf("round %d: the log of young postings has %d records", round, records)
		}
	}
	e := s.engine.(*sqliteEngine)
	inTable, err := e.entriesAfter(posting{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[posting]bool{}
	for _, p := range append(inTable, e.young.all()...) {
		all[p] = true
	}
	if len(all) != 2*len(model) {
		t.Errorf("%d rows have %d postings", len(model), len(all))
	}
	if !taken {
		t.Error("nothing was taken over into the table")
	}
}

// A filter that cannot be filled is given up: it does not grow on, and is filled
// again later.
func TestKnown_that_cannot_be_filled_is_given_up(t *testing.T) {
	s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1"}, newTestKeys(t)}.start(t)
	e := s.engine.(*sqliteEngine)
	if err := e.read["entries"].Close(); err != nil {
		t.Fatal(err)
	}
	e.known.begin()
	if err := e.fill(); err == nil {
		t.Error("entries were read without their statement")
	}
	if e.known.next != nil {
		t.Error("it is still being filled")
	}
	e.known.fill([]posting{{"a", 1}})
	e.known.end()
	if e.known.next != nil || !e.known.maybe("a") && e.known.current == nil {
		t.Error("what was given up is in use")
	}
}

func TestYoung_shows_what_a_commit_adds_before_it(t *testing.T) {
	y := newYoung(0)
	y.take(step{adds: []posting{{"b", 1}}})
	adds := []posting{{"a", 2}, {"b", 3}, {"b", 4}, {"c", 5}}
	y.announce(adds)
	check := func(what string, under []int64, docs, soon []int64) {
		t.Helper()
		if got := y.under("b", 10); !slices.Equal(got, under) {
			t.Errorf("%s: under b %v, want %v", what, got, under)
		}
		gotDocs, gotSoon, all := y.between("b", "d", 10)
		if !all || !slices.Equal(gotDocs, docs) || !slices.Equal(gotSoon, soon) {
			t.Errorf("%s: between b and d %v and %v, want %v and %v", what, gotDocs, gotSoon, docs, soon)
		}
	}
	check("announced", []int64{1, 3, 4}, []int64{1}, []int64{3, 4, 5})
	if got := y.under("b", 1); !slices.Equal(got, []int64{1, 3}) {
		t.Errorf("with a limit of 1: %v", got)
	}
	y.announce(nil)
	check("rolled back", []int64{1}, []int64{1}, nil)
	y.announce(adds)
	y.take(step{adds: adds})
	check("committed", []int64{1, 3, 4}, []int64{1, 3, 4, 5}, nil)
}

// TestReaders_who_miss_what_was_removed_find_what_came_with_it: while the engine
// makes a commit, checkpoint and all, nobody sees a part of it.
func TestReaders_who_miss_what_was_removed_find_what_came_with_it(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		put(t, s, kindRec, "from", "x")
		filler := strings.Repeat("f", 64<<10)
		for i := range 200 {
			from, to := fmt.Sprint("from", i), fmt.Sprint("to", i)
			put(t, s, kindRec, from, "x")
			moved := make(chan error, 1)
			go func() {
				moved <- s.Update(t.Context(), func(tx *Tx) error {
					return errors.Join(tx.Remove(kindRec, from), tx.Put(kindRec, to, []byte(filler)))
				})
			}()
			for get(t, s, kindRec, from) != "" {
			}
			if get(t, s, kindRec, to) == "" {
				t.Errorf("%s is gone and %s is not there", from, to)
			}
			if rows, err := s.Reader(t.Context()).List(kindRec, to, "", 1); err != nil || len(rows) != 1 {
				t.Errorf("%d rows from %s, %v", len(rows), to, err)
			}
			if err := <-moved; err != nil {
				t.Fatal(err)
			}
		}
	})
}
