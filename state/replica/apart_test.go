package replica

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// things are the keys of a Region's documents.
func (r *region) things() []string {
	r.g.t.Helper()
	rows, err := r.store.Reader(context.Background()).List(kindThing, "", "", 100)
	if err != nil {
		r.g.t.Fatal(err)
	}
	var keys []string
	for _, row := range rows {
		keys = append(keys, row.Key)
	}
	return keys
}

func (r *region) write(key string) {
	r.g.t.Helper()
	if err := r.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.PutDocument(kindThing, key, []byte("tea"))
	}, store.Touch{Kind: kindThing, Key: key}); err != nil {
		r.g.t.Fatal(err)
	}
}

// forget has the Region forget what it removed, and its log, as after Retention.
func (r *region) forget() {
	r.g.t.Helper()
	later := time.Now().Add(time.Hour)
	err := r.replica.sweepKind(context.Background(), store.KindTombstone, new(string), func(row store.Row) (time.Time, error) {
		at, _, err := store.DecodeTombstone(row.Body)
		return at, err
	}, later)
	if err != nil {
		r.g.t.Fatal(err)
	}
	for _, st := range []store.Stream{store.Safety, store.Changes} {
		if _, err := r.store.Trim(context.Background(), st, r.store.Head(st), later); err != nil {
			r.g.t.Fatal(err)
		}
	}
}

// A Region was away for longer than removed documents are remembered. What it
// holds of them does not come back; what it wrote of endpoints, and its opt-outs,
// are not lost.
func TestRegion_that_was_away_for_too_long_brings_nothing_removed_back(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		const retention = time.Hour
		g := newGroup(t, url, "eu-west-1", "us-east-1")
		a, b := g.regions[0], g.regions[1]
		var ahead, away atomic.Int64
		for _, r := range g.regions {
			r.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			r.tune = func(c *Config) {
				c.Retention = retention
				c.Member = func(region string) uint64 {
					if region == "us-east-1" && away.Load() == 1 || away.Load() == 2 {
						return 0
					}
					return 5
				}
			}
			r.start()
		}
		a.write("kept")
		a.write("removed")
		if err := a.set("before", "user", "u"); err != nil {
			t.Fatal(err)
		}
		g.agree()
		g.eventually("the Regions know when they heard each other", func() bool {
			for _, r := range g.regions {
				for _, p := range r.replica.peers {
					c, err := store.Load[contact](r.store.Reader(t.Context()), kindCursor, p.contactKey())
					if err != nil || c == nil {
						return false
					}
				}
			}
			return true
		})

		away.Store(1)
		a.cut()
		b.cut()
		if err := b.set("while away", "user", "u"); err != nil {
			t.Fatal(err)
		}
		b.write("of its own")
		b.stop()
		if err := a.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Remove(kindThing, "removed") }, store.Touch{Kind: kindThing, Key: "removed"}); err != nil {
			t.Fatal(err)
		}
		if err := a.set("meanwhile", "user", "u"); err != nil {
			t.Fatal(err)
		}
		a.forget()
		a.stop()
		ahead.Store(int64(2 * retention))
		// Until they know who is in the set, neither takes over anything.
		away.Store(2)
		a.start()
		b.start()
		g.eventually("a Region says why it waits", func() bool {
			return a.replica.Status()[0].Apart && b.replica.Status()[0].Apart && b.replica.Status()[0].Err != nil
		})
		if got := b.things(); len(got) != 3 {
			t.Fatalf("the Region that was away has %v", got)
		}
		away.Store(1)
		g.eventually("both hold the same documents", func() bool {
			want := []string{"kept"}
			return slices.Equal(a.things(), want) && slices.Equal(b.things(), want)
		})
		g.eventually("both hold all records", func() bool {
			for _, r := range g.regions {
				rows, err := r.store.Reader(t.Context()).List(kindPerson, "", "", 10)
				if err != nil || len(rows) != 3 {
					return false
				}
			}
			return true
		})
		found, _, err := b.replica.Conflicts(t.Context(), "", 10)
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, c := range found {
			if c.Path == awayPath && c.Kind == kindThing.Name {
				listed = append(listed, c.Key)
			}
		}
		slices.Sort(listed)
		if want := []string{hexOf([]byte("of its own")), hexOf([]byte("removed"))}; !slices.Equal(listed, want) {
			t.Errorf("given up and listed: %q, want %q", listed, want)
		}
		// It is a Region like another again.
		away.Store(0)
		g.eventually("the Region is apart no more", func() bool { return !b.replica.Status()[0].Apart })
		b.write("later")
		g.eventually("what it writes is taken over", func() bool { return slices.Contains(a.things(), "later") })
	})
}

func TestRoll_names_documents_that_are_there(t *testing.T) {
	named := roll{}
	err := named.add([]changelog.Change{
		{Kind: "thing", Key: "here", Rule: changelog.RuleDocument, Body: changelog.AppendDocument(nil, changelog.Document{Version: 1, Body: []byte("x")})},
		{Kind: "thing", Key: "removed", Rule: changelog.RuleDocument, Body: changelog.AppendDocument(nil, changelog.Document{Version: 2})},
		{Kind: "person", Key: "other rule", Rule: changelog.RuleRecord, Body: []byte("x")},
	})
	if err != nil || len(named) != 1 || !named["thing\x00here"] {
		t.Errorf("%v, %v", named, err)
	}
}
