package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
)

// twin is one of two Regions that hear of each other's changes.
type twin struct {
	*Store
	name string
	seen map[Stream]int64 // of the other's streams
}

// indexRecord is what a test's records are found under.
func indexRecord(_ string, body []byte) ([]Index, error) {
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return nil, err
	}
	var x []Index
	for _, path := range []string{"address", "user"} {
		if v, ok := r.Get(path); ok {
			x = append(x, Index{Name: path, Value: string(v)})
		}
	}
	return x, nil
}

// hear merges some of the other Region's blocks, all of one stream.
func (w *twin) hear(t *testing.T, from *twin, st Stream, most int) (conflicts int) {
	t.Helper()
	blocks, err := from.Blocks(t.Context(), st, w.seen[st], most)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Update(t.Context(), func(tx *Tx) error {
		conflicts = 0
		for _, b := range blocks {
			for _, record := range b.Records {
				c, err := changelog.DecodeChange(record)
				if err != nil {
					return err
				}
				if c.Foreign {
					continue
				}
				found, err := tx.Merge(c, st == Safety, indexRecord)
				if err != nil {
					return err
				}
				conflicts += len(found)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(blocks); n > 0 {
		w.seen[st] = blocks[n-1].N
	}
	return conflicts
}

func newTwins(t *testing.T, h home) [2]*twin {
	t.Helper()
	var twins [2]*twin
	for i, name := range []string{"us-east-1", "eu-west-1"} {
		cfg := Config{Dir: t.TempDir(), Region: name, SQLiteYoungMax: 50}
		if h.cfg.PostgresURL != "" {
			cfg.PostgresURL = newDatabase(t, h.cfg.PostgresURL)
		}
		s, _ := home{cfg, h.keys}.start(t)
		twins[i] = &twin{s, name, map[Stream]int64{}}
	}
	return twins
}

// Whatever two Regions write at once, and in whatever pieces they hear of it,
// they hold the same rows in the end, found under the same index values.
func TestMerge_brings_two_regions_to_the_same_rows(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 2))
		twins := newTwins(t, h)
		kindPerson := Kind{Name: "person", Rule: changelog.RuleRecord}
		write := func(w *twin, tx *Tx) error {
			switch key := fmt.Sprintf("k%d", rnd.IntN(8)); rnd.IntN(5) {
			case 0: // a document belongs to one Region, by its key
				key = w.name + key
				if rnd.IntN(3) == 0 {
					return tx.Remove(kindDoc, key)
				}
				v := rnd.IntN(1000)
				return Save(tx, kindDoc, key, &v, Index{Name: "even", Value: fmt.Sprint(v%2 == 0)})
			case 1:
				return tx.Put(kindSafe, w.name+fmt.Sprint(rnd.IntN(1e9)), []byte("claimed"))
			case 2: // both may claim the same key, before they hear of each other
				if old, err := tx.Get(kindSafe, key); err != nil || old != nil {
					return err
				}
				return tx.Put(kindSafe, key, []byte(w.name))
			default:
				body, err := tx.Get(kindPerson, key)
				if err != nil {
					return err
				}
				var r changelog.Record
				if body != nil {
					if r, err = changelog.DecodeRecord(body); err != nil {
						return err
					}
				}
				at := tx.Stamp(r.Latest())
				switch rnd.IntN(8) {
				case 0:
					r.Delete(at)
				case 1:
					r.OptOut = r.OptOut.Record(at)
				case 2:
					r.OptOut = r.OptOut.Revoke()
				default:
					path := []string{"address", "user", "color"}[rnd.IntN(3)]
					r.Set(path, fmt.Append(nil, rnd.IntN(4)), at)
				}
				k := kindPerson
				k.Safety = rnd.IntN(4) == 0
				body = changelog.AppendRecord(nil, &r)
				x, err := indexRecord(key, body)
				if err != nil {
					return err
				}
				return tx.Put(k, key, body, x...)
			}
		}
		conflicts := 0
		for range 300 {
			me := rnd.IntN(2)
			w, other := twins[me], twins[1-me]
			switch rnd.IntN(3) {
			case 0:
				st := []Stream{Safety, Changes}[rnd.IntN(2)]
				conflicts += w.hear(t, other, st, 1+rnd.IntN(6))
			default:
				if err := w.Update(t.Context(), func(tx *Tx) error {
					for range 1 + rnd.IntN(3) {
						if err := write(w, tx); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 2 {
			for me, w := range twins {
				for _, st := range []Stream{Safety, Changes} {
					conflicts += w.hear(t, twins[1-me], st, 1000)
				}
			}
		}
		if conflicts == 0 {
			t.Error("no conflict: the test did not try what it says")
		}
		var all [2]map[string][]byte
		for i, w := range twins {
			all[i] = map[string][]byte{}
			if err := w.ScanKinds(t.Context(), []Kind{kindPerson, kindDoc, kindSafe}, func(r Row) error {
				all[i][r.Kind+" "+r.Key] = bytes.Clone(r.Body)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if len(all[0]) != len(all[1]) {
			t.Errorf("%d rows and %d", len(all[0]), len(all[1]))
		}
		for key, body := range all[0] {
			if other, ok := all[1][key]; !ok || !bytes.Equal(body, other) {
				t.Errorf("%s differs: %x and %x", key, body, other)
			}
		}
		for _, path := range []string{"address", "user"} {
			for v := range 4 {
				var found [2]map[string]bool
				want := map[string]bool{}
				for key, body := range all[0] {
					if x, err := indexRecord("", body); err == nil && key[:6] == "person" {
						for _, x := range x {
							if x == (Index{Name: path, Value: fmt.Sprint(v)}) {
								want[key[7:]] = true
							}
						}
					}
				}
				for i, w := range twins {
					rows, err := w.Reader(t.Context()).Lookup(kindPerson, Index{Name: path, Value: fmt.Sprint(v)}, 100)
					if err != nil {
						t.Fatal(err)
					}
					found[i] = map[string]bool{}
					for _, r := range rows {
						found[i][r.Key] = true
					}
					if fmt.Sprint(found[i]) != fmt.Sprint(want) {
						t.Errorf("%s %d in %s: %v, want %v", path, v, w.name, found[i], want)
					}
				}
			}
		}
	})
}

// A document that was removed stays so when an older version comes late, and one
// that takes its place goes on counting.
func TestMerge_tells_a_late_document_from_a_new_one(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		twins := newTwins(t, h)
		save := func(w *twin, v int) {
			t.Helper()
			if err := w.Update(t.Context(), func(tx *Tx) error { return Save(tx, kindDoc, "d", &v) }); err != nil {
				t.Fatal(err)
			}
		}
		value := func(w *twin) int {
			t.Helper()
			v, err := Load[int](w.Reader(t.Context()), kindDoc, "d")
			if err != nil {
				t.Fatal(err)
			}
			if v == nil {
				return 0
			}
			return *v
		}
		a, b := twins[0], twins[1]
		save(a, 1)
		save(a, 2)
		if err := a.Update(t.Context(), func(tx *Tx) error { return tx.Remove(kindDoc, "d") }); err != nil {
			t.Fatal(err)
		}
		b.hear(t, a, Changes, 10)
		b.seen[Changes] = 0
		b.hear(t, a, Changes, 2) // the first two again
		if v := value(b); v != 0 {
			t.Fatalf("a late version brought the document back: %d", v)
		}
		b.seen[Changes] = 3
		save(a, 3)
		b.hear(t, a, Changes, 10)
		if v := value(b); v != 3 {
			t.Fatalf("the new document is %d", v)
		}
		b.seen[Changes] = 0
		b.hear(t, a, Changes, 10)
		if v := value(b); v != 3 {
			t.Fatalf("after everything came again it is %d", v)
		}
		// What was merged is marked: b has nothing to tell a.
		for _, block := range blocks(t, b.Store, Changes) {
			for _, record := range block.Records {
				if c, err := changelog.DecodeChange(record); err != nil || !c.Foreign {
					t.Errorf("b would ship %+v (%v)", c, err)
				}
			}
		}
	})
}

func TestMerge_refuses_what_it_cannot_understand(t *testing.T) {
	s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1"}, newTestKeys(t)}.start(t)
	put(t, s, kindLocal, "mine", "of this Region alone")
	head := s.Head(Changes)
	ahead := changelog.Record{}
	ahead.Set("a", []byte("b"), changelog.Stamp{Clock: uint64(time.Now().Add(time.Hour).UnixMilli()) << 16, Region: "eu-west-1"})
	for name, c := range map[string]changelog.Change{
		"a local row":            {Kind: "cursor", Key: "k", Rule: changelog.RuleLocal, Body: []byte("x")},
		"a local row as another": {Kind: kindLocal.Name, Key: "mine", Rule: changelog.RuleAppend, Body: []byte("x")},
		"an unknown rule":        {Kind: "cursor", Key: "k", Rule: 9, Body: []byte("x")},
		"a broken record":        {Kind: "person", Key: "k", Rule: changelog.RuleRecord, Body: []byte("x")},
		"a broken document":      {Kind: "thing", Key: "k", Rule: changelog.RuleDocument, Body: []byte("x")},
		"a stamp of tomorrow":    {Kind: "person", Key: "k", Rule: changelog.RuleRecord, Body: changelog.AppendRecord(nil, &ahead)},
	} {
		err := s.Update(t.Context(), func(tx *Tx) error {
			_, err := tx.Merge(c, false, indexRecord)
			return err
		})
		if err == nil {
			t.Errorf("%s is merged", name)
		}
		if _, bad := errors.AsType[*BadChange](err); bad == (name == "a stamp of tomorrow") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Head(Changes) != head {
		t.Error("something was written")
	}
}

// A merge that shares a commit with a write of the same safety data does not wait
// for the group, which may be waiting for that very merge, and leaves the write in
// the safety stream, for which its writer waits.
func TestMerge_beside_a_write_of_the_same_safety_data(t *testing.T) {
	for name, safety := range map[string]bool{"of the safety stream": true, "of the rows": false} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, h home) {
				s, _ := h.start(t)
				asked := make(chan int64, 4)
				s.Acknowledge(func(_ context.Context, n int64) error { asked <- n; return nil })
				free, taken := make(chan struct{}), make(chan struct{})
				var all sync.WaitGroup
				update := func(fn func(*Tx) error) {
					all.Go(func() {
						if err := s.Update(context.Background(), fn, Touch{Kind: kindSafe, Key: "k"}); err != nil {
							t.Error(err)
						}
					})
				}
				queued := func(n int) {
					for deadline := time.Now().Add(10 * time.Second); len(s.requests) < n; <-time.After(time.Millisecond) {
						if time.Now().After(deadline) {
							close(free)
							t.Fatal("the writer does not wait")
						}
					}
				}
				update(func(*Tx) error { close(taken); <-free; return nil })
				<-taken
				update(func(tx *Tx) error { return tx.Put(kindSafe, "k", []byte("b")) })
				queued(1)
				update(func(tx *Tx) error {
					_, err := tx.Merge(changelog.Change{Kind: kindSafe.Name, Key: "k", Rule: kindSafe.Rule, Body: []byte("a")}, safety, nil)
					return err
				})
				queued(2)
				close(free)
				all.Wait()
				if len(asked) != 1 {
					t.Fatalf("%d updates waited for the group, want 1", len(asked))
				}
				blocks, err := s.Blocks(t.Context(), Safety, 0, 10)
				if err != nil || len(blocks) != 1 || <-asked != blocks[0].N {
					t.Errorf("the safety stream has %d blocks, %v", len(blocks), err)
				}
			})
		})
	}
}

// A change that would leave a row which cannot be read, or take the place of the
// store's own, is refused.
func TestMerge_refuses_hashes_and_kinds_that_no_region_writes(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		document := changelog.AppendDocument(nil, changelog.Document{Version: 9, Body: []byte("{}")})
		for what, c := range map[string]changelog.Change{
			"a short hash":         {Kind: kindSafe.Name, Key: "a", Rule: kindSafe.Rule, Hashes: []string{"x"}, Body: []byte("a")},
			"a tombstone":          {Kind: KindTombstone.Name, Key: "b", Rule: changelog.RuleDocument, Body: document},
			"no kind":              {Key: "c", Rule: kindSafe.Rule, Body: []byte("a")},
			"a kind with a key in": {Kind: "thing\x00d", Key: "d", Rule: kindSafe.Rule, Body: []byte("a")},
		} {
			err := s.Update(t.Context(), func(tx *Tx) error { _, err := tx.Merge(c, false, indexRecord); return err })
			if _, bad := errors.AsType[*BadChange](err); !bad {
				t.Errorf("%s is answered %v", what, err)
			}
		}
		if err := s.Scan(t.Context(), kindSafe, func(Row) error { return nil }); err != nil {
			t.Errorf("the rows cannot be read any more: %v", err)
		}
	})
}

// What a newer control Region wrote stands, however often an older one wrote.
func TestMerge_takes_the_document_of_the_newer_epoch_of_control(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		for _, removed := range []bool{false, true} {
			twins := newTwins(t, h)
			old, recent := twins[0], twins[1]
			old.Control(func() uint64 { return 3 })
			recent.Control(func() uint64 { return 4 })
			save := func(w *twin, v string) {
				t.Helper()
				if err := w.Update(t.Context(), func(tx *Tx) error { return Save(tx, kindDoc, "d", &v) }); err != nil {
					t.Fatal(err)
				}
			}
			save(old, "first")
			recent.hear(t, old, Changes, 10)
			for i := range 5 {
				save(old, fmt.Sprint("old ", i))
			}
			if removed {
				if err := old.Update(t.Context(), func(tx *Tx) error { return tx.Remove(kindDoc, "d") }); err != nil {
					t.Fatal(err)
				}
			}
			save(recent, "recent")
			recent.hear(t, old, Changes, 10)
			old.hear(t, recent, Changes, 10)
			for _, w := range twins {
				v, err := Load[string](w.Reader(t.Context()), kindDoc, "d")
				if err != nil || v == nil || *v != "recent" {
					t.Errorf("Region %s has %v, %v, where the newer control Region wrote", w.name, v, err)
				}
			}
			// Who goes on writing does so at the epoch that the row has.
			save(old, "after")
			recent.hear(t, old, Changes, 10)
			if v, err := Load[string](recent.Reader(t.Context()), kindDoc, "d"); err != nil || *v != "after" {
				t.Errorf("%v, %v after a write that had seen the newer one", v, err)
			}
		}
	})
}
