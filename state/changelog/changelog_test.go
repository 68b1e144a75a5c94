package changelog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// world makes random versions of one thing the way Regions do: each writes to
// its own copy with stamps above what it has seen, and now and then hears of
// another's.
type world struct {
	rnd    *rand.Rand
	now    time.Time
	clocks []*Clock
	copies []Record
}

func newWorld(seed uint64) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), now: time.UnixMilli(1_700_000_000_000)}
	for i := range 3 {
		skew := time.Duration(w.rnd.IntN(60_000)) * time.Millisecond
		w.clocks = append(w.clocks, NewClock(fmt.Sprintf("r%d", i), func() time.Time { return w.now.Add(skew) }))
		w.copies = append(w.copies, Record{})
	}
	return w
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.rnd.IntN(5)) * time.Millisecond)
	i := w.rnd.IntN(len(w.copies))
	r := &w.copies[i]
	*r, _ = MergeRecords(*r, Record{}) // own slices, so that copies share nothing
	at := w.clocks[i].Next(r.Latest())
	switch w.rnd.IntN(12) {
	case 0:
		r.Delete(at)
	case 1:
		r.OptOut = r.OptOut.Record(at)
	case 2:
		r.OptOut = r.OptOut.Revoke()
	case 3, 4:
		*r, _ = MergeRecords(*r, w.copies[w.rnd.IntN(len(w.copies))])
	case 5:
		r.Set(fmt.Sprintf("p%d", w.rnd.IntN(5)), nil, at)
	default:
		r.Set(fmt.Sprintf("p%d", w.rnd.IntN(5)), fmt.Appendf(nil, "v%d", w.rnd.IntN(1000)), at)
	}
}

func encode(r Record) []byte { return AppendRecord(nil, &r) }

func merged(a, b Record) Record { m, _ := MergeRecords(a, b); return m }

func TestMergeRecords_obeys_the_laws_of_a_join(t *testing.T) {
	for seed := range uint64(400) {
		w := newWorld(seed)
		for range 60 {
			w.step()
			a, b, c := w.copies[0], w.copies[1], w.copies[2]
			if x, y := encode(merged(a, b)), encode(merged(b, a)); !bytes.Equal(x, y) {
				t.Fatalf("seed %d: merge does not commute:\n%x\n%x", seed, x, y)
			}
			if x, y := encode(merged(merged(a, b), c)), encode(merged(a, merged(b, c))); !bytes.Equal(x, y) {
				t.Fatalf("seed %d: merge does not associate:\n%x\n%x", seed, x, y)
			}
			if x, y := encode(merged(a, a)), encode(a); !bytes.Equal(x, y) {
				t.Fatalf("seed %d: merging with itself changed the record", seed)
			}
			m := merged(a, b)
			if !bytes.Equal(encode(merged(m, b)), encode(m)) {
				t.Fatalf("seed %d: hearing of a version twice changed the record", seed)
			}
		}
	}
}

func TestMerge_by_rule_commutes_and_associates(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	version := func(rule Rule) []byte {
		switch rule {
		case RuleDocument:
			d := Document{Epoch: rnd.Uint64N(3), Version: rnd.Uint64N(3)}
			if rnd.IntN(4) > 0 {
				d.Body = fmt.Appendf(nil, "body %d", rnd.IntN(5))
			}
			return AppendDocument(nil, d)
		case RuleOptOut:
			o := OptOut{}.Record(Stamp{rnd.Uint64N(9) + 1, fmt.Sprintf("r%d", rnd.IntN(3))})
			if rnd.IntN(2) == 0 {
				o = o.Revoke()
			}
			return AppendOptOut(nil, o)
		default:
			return fmt.Appendf(nil, "row %d", rnd.IntN(5))
		}
	}
	merge := func(rule Rule, a, b []byte) []byte {
		m, _, err := Merge(rule, a, b)
		if err != nil {
			t.Fatalf("merge %s: %v", rule, err)
		}
		return m
	}
	for _, rule := range []Rule{RuleDocument, RuleAppend, RuleOptOut} {
		for range 2000 {
			a, b, c := version(rule), version(rule), version(rule)
			if !bytes.Equal(merge(rule, a, b), merge(rule, b, a)) {
				t.Fatalf("%s does not commute: %q %q", rule, a, b)
			}
			if !bytes.Equal(merge(rule, merge(rule, a, b), c), merge(rule, a, merge(rule, b, c))) {
				t.Fatalf("%s does not associate: %q %q %q", rule, a, b, c)
			}
			if !bytes.Equal(merge(rule, a, nil), a) || !bytes.Equal(merge(rule, nil, a), a) {
				t.Fatalf("%s: a missing version changed %q", rule, a)
			}
		}
	}
	if _, _, err := Merge(RuleLocal, []byte("a"), []byte("b")); err == nil {
		t.Fatal("rows that belong to one Region were merged")
	}
}

func TestRecord_two_Regions_updating_different_members_both_win(t *testing.T) {
	a := Record{}
	a.Set("Address", []byte("x"), Stamp{1, "a"})
	b := merged(a, Record{})
	a.Set("Attributes.one", []byte("1"), Stamp{5, "a"})
	b.Set("Attributes.two", []byte("2"), Stamp{4, "b"})
	m, conflicts := MergeRecords(a, b)
	for path, want := range map[string]string{"Address": "x", "Attributes.one": "1", "Attributes.two": "2"} {
		if got, _ := m.Get(path); string(got) != want {
			t.Errorf("%s = %q, want %q", path, got, want)
		}
	}
	if len(conflicts) != 0 {
		t.Errorf("different members reported as conflicts: %v", conflicts)
	}
}

func TestRecord_a_later_write_that_had_seen_the_earlier_is_no_conflict(t *testing.T) {
	a := Record{}
	a.Set("p", []byte("old"), Stamp{10, "a"})
	b := merged(a, Record{})
	b.Set("p", []byte("new"), Stamp{11, "b"})
	if _, conflicts := MergeRecords(a, b); len(conflicts) != 0 {
		t.Errorf("writes in sequence reported as a conflict: %v", conflicts)
	}
	a.Set("p", []byte("other"), Stamp{12, "a"})
	m, conflicts := MergeRecords(a, b)
	if len(conflicts) != 1 || conflicts[0].Path != "p" || string(conflicts[0].Loser.Value) != "new" {
		t.Errorf("concurrent writes not reported: %v", conflicts)
	}
	if got, _ := m.Get("p"); string(got) != "other" {
		t.Errorf("p = %q, want the later write", got)
	}
}

func TestRecord_a_delete_wins_over_updates_that_had_not_seen_it(t *testing.T) {
	a := Record{}
	a.Set("p", []byte("1"), Stamp{1, "a"})
	b := merged(a, Record{})
	a.Delete(Stamp{2, "a"})
	b.Set("p", []byte("2"), Stamp{99, "b"})
	if m := merged(a, b); m.Live() {
		t.Error("an update that had not seen the delete revived the record")
	}
	seen := merged(a, b)
	seen.Set("p", []byte("3"), Stamp{100, "b"})
	if m := merged(seen, b); !m.Live() {
		t.Error("a write that had seen the delete did not start a new generation")
	}
}

func TestOptOut_stands_until_an_opt_in_that_had_seen_it(t *testing.T) {
	seen := OptOut{}.Record(Stamp{5, "a"})
	unseen := OptOut{}.Record(Stamp{3, "b"})
	revoked := seen.Revoke()
	if revoked.Active() {
		t.Error("an opt-in that had seen the opt-out did not revoke it")
	}
	if !MergeOptOuts(revoked, unseen).Active() {
		t.Error("an opt-in revoked an opt-out that it had not seen")
	}
	if !MergeOptOuts(revoked, OptOut{}.Record(Stamp{6, "a"})).Active() {
		t.Error("a new opt-out after the opt-in does not count")
	}
	if MergeOptOuts(revoked, seen).Active() {
		t.Error("the old opt-out, heard of again, revived")
	}
	r := Record{OptOut: seen}
	r.Set("p", []byte("1"), Stamp{9, "a"})
	r.Delete(Stamp{10, "a"})
	if !r.OptOut.Active() {
		t.Error("deleting the record dropped its opt-out")
	}
}

func TestClock_is_above_what_it_has_seen_and_refuses_skew(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	c := NewClock("a", func() time.Time { return now })
	first := c.Next()
	second := c.Next()
	if !first.Less(second) {
		t.Fatal("stamps of one clock are not in order")
	}
	ahead := Stamp{uint64(now.Add(time.Minute).UnixMilli()) << 16, "b"}
	if s := c.Next(ahead); !ahead.Less(s) {
		t.Error("a stamp is not above the one it overwrites")
	}
	if err := c.Observe(Stamp{uint64(now.Add(SkewMax+time.Second).UnixMilli()) << 16, "b"}); err == nil {
		t.Error("a stamp far ahead was accepted")
	}
}

func TestClock_does_not_repeat_itself_in_its_next_life(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	var durable uint64
	live := func() *Clock {
		c := NewClock("a", func() time.Time { return now })
		c.Keep(durable, func(upTo uint64) error { durable = upTo; return nil })
		return c
	}
	seen := map[Stamp]bool{}
	for life := range 5 {
		c := live()
		for range 1000 {
			s := c.Next()
			if seen[s] {
				t.Fatalf("life %d took %s again", life, s)
			}
			if s.Clock > durable {
				t.Fatalf("life %d took %s before it was reserved", life, s)
			}
			seen[s] = true
		}
		now = now.Add(-time.Millisecond) // the node's time goes back
	}
	c := live()
	c.Keep(durable, func(uint64) error { return errors.New("disk full") })
	c.Next(Stamp{durable + 1, "b"})
	if c.Err() == nil {
		t.Error("a stamp that could not be reserved is not reported")
	}
}

func TestCodec_reads_what_it_wrote(t *testing.T) {
	w := newWorld(3)
	for range 500 {
		w.step()
		for _, r := range w.copies {
			data := encode(r)
			got, err := DecodeRecord(data)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encode(got), data) {
				t.Fatalf("decoding changed the record: %x", data)
			}
		}
	}
}

func TestDecodeChange_gives_back_what_was_written(t *testing.T) {
	for _, want := range []Change{
		{Kind: "endpoint", Key: "a", Rule: RuleRecord, Hashes: []string{"h1", "h2"}, Body: []byte("x")},
		{Kind: "claim", Key: "b", Rule: RuleAppend, Foreign: true},
		{Kind: "app", Key: "c", Rule: RuleDocument, Body: []byte{}},
		{},
	} {
		got, err := DecodeChange(AppendChange(nil, want))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	w := newWorld(1)
	for range 40 {
		w.step()
		f.Add(encode(w.copies[0]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRecord(data)
		if err != nil {
			return
		}
		again, err := DecodeRecord(encode(r))
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if !bytes.Equal(encode(again), encode(r)) {
			t.Fatal("encoding is not stable")
		}
	})
}
