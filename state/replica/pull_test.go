package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// A Region that had heard exactly the facts that were trimmed since goes on from
// there: it does not read all rows again and again.
func TestFacts_that_were_heard_and_trimmed_are_not_missed(t *testing.T) {
	for name, more := range map[string]bool{"all of them": false, "up to some": true} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, server string) {
				g := newGroup(t, server, "us-east-1", "eu-west-1")
				a, b := g.regions[0], g.regions[1]
				a.start()
				b.start()
				tell := func(n int) {
					t.Helper()
					if err := a.store.Update(t.Context(), func(tx *store.Tx) error { tx.Append(fmt.Appendf(nil, "fact %d", n)); return nil }); err != nil {
						t.Fatal(err)
					}
				}
				for n := range 3 {
					tell(n)
				}
				g.eventually("the facts are heard", func() bool {
					return b.replica.Status()[0].Streams[store.Events].Merged == a.store.Head(store.Events)
				})
				b.cut()
				b.stop()
				trimmed := a.store.Head(store.Events)
				if more {
					tell(3)
				}
				if n, err := a.store.Trim(t.Context(), store.Events, trimmed, time.Now().Add(time.Hour)); err != nil || n == 0 {
					t.Fatalf("%d blocks were trimmed, %v", n, err)
				}
				b.start()
				if err := a.set("k", "user", "u"); err != nil {
					t.Fatal(err)
				}
				tell(4)
				g.eventually("what comes after the trimmed facts is heard, and stays so", func() bool {
					s := b.replica.Status()[0]
					return s.Err == nil && s.Streams[store.Events].Merged == a.store.Head(store.Events) &&
						s.Streams[store.Changes].Merged == a.store.Head(store.Changes)
				})
				blocks, err := b.store.Blocks(t.Context(), store.Heard, 0, 100)
				if err != nil {
					t.Fatal(err)
				}
				var heard []string
				for _, bl := range blocks {
					for _, record := range bl.Records {
						heard = append(heard, string(record))
					}
				}
				want := []string{"fact 0", "fact 1", "fact 2", "fact 4"}
				if more {
					want = []string{"fact 0", "fact 1", "fact 2", "fact 3", "fact 4"}
				}
				if fmt.Sprint(heard) != fmt.Sprint(want) {
					t.Errorf("heard %v, want %v", heard, want)
				}
			})
		})
	}
}

// As above, while nothing comes after what was trimmed.
func TestPosition_at_a_head_that_was_trimmed_is_known(t *testing.T) {
	engines(t, func(t *testing.T, server string) {
		g := newGroup(t, server, "us-east-1")
		a := g.regions[0]
		a.start()
		if err := a.store.Update(t.Context(), func(tx *store.Tx) error { tx.Append([]byte("fact")); return nil }); err != nil {
			t.Fatal(err)
		}
		hash, err := a.store.Hash(t.Context(), store.Events, 1)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := a.store.Trim(t.Context(), store.Events, 1, time.Now().Add(time.Hour)); err != nil || n != 1 {
			t.Fatalf("%d blocks were trimmed, %v", n, err)
		}
		for what, c := range map[string]struct {
			hash []byte
			want bool
		}{"its hash": {hash, true}, "another hash": {[]byte("x"), false}} {
			if known, err := a.replica.knows(t.Context(), store.Events, a.store.Incarnation(), 1, c.hash); err != nil || known != c.want {
				t.Errorf("with %s: known is %t, %v", what, known, err)
			}
		}
	})
}

// A document that is removed again while its old tombstone is swept keeps the new
// one.
func TestSweep_leaves_a_tombstone_that_was_renewed(t *testing.T) {
	g := newGroup(t, "", "us-east-1")
	a := g.regions[0]
	a.start()
	removeAgain := func() {
		if err := a.store.Update(t.Context(), func(tx *store.Tx) error {
			v := 1
			if err := store.Save(tx, kindThing, "k", &v); err != nil {
				return err
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := a.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Remove(kindThing, "k") }); err != nil {
			t.Fatal(err)
		}
	}
	removeAgain()
	before := time.Now().Add(time.Hour)
	var after string
	looked := 0
	err := a.replica.sweepKind(t.Context(), store.KindTombstone, &after, func(row store.Row) (time.Time, error) {
		if looked++; looked == 1 {
			removeAgain()
			return before.Add(-time.Minute), nil // when the first was made
		}
		return before.Add(time.Minute), nil // when the second was
	}, before)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := a.store.Reader(t.Context()).List(store.KindTombstone, "", "", 10)
	if err != nil || len(rows) != 1 {
		t.Errorf("%d tombstones are left, %v", len(rows), err)
	}
}

// A Region that says it has what it was not told is not believed.
func TestAcknowledgement_of_what_was_not_told_counts_for_nothing(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a := g.regions[0]
	a.tune = func(c *Config) {
		c.Peers, c.Group, c.AckMax = nil, func() (map[string]string, error) { return map[string]string{"eu-west-1": ""}, nil }, 300*time.Millisecond
	}
	a.start()
	body, say := io.Pipe()
	defer say.Close()
	q := url.Values{incarnationName: {a.store.Incarnation()}, "after": {"0"}, "hash": {""}, "as": {"liar"}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.server.URL+path+"stream/safety?"+q.Encode(), body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := Client(g.ca.config(t, CertificateURI("eu-west-1"))).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := say.Write(said{n: 1 << 40}.append(nil)); err != nil {
		t.Fatal(err)
	}
	// The pull ends over it.
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the pull goes on: %v", err)
	}
	if err := a.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(kindClaim, "c", []byte("mine")) }); err == nil {
		t.Error("a claim is answered that nobody else has")
	}
}

// Blocks that are short on the way and long when they are opened are not gathered
// without end.
func TestPull_bounds_what_it_gathers_by_what_is_in_it(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	a.start()
	fact := make([]byte, 1<<20)
	const facts = 40
	for range facts {
		if err := a.store.Update(t.Context(), func(tx *store.Tx) error { tx.Append(fact); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	g.eventually("the facts are heard", func() bool { return b.replica.Status()[0].Streams[store.Events].Merged == facts })
	blocks, err := b.store.Blocks(t.Context(), store.Heard, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, bl := range blocks {
		if n := len(bl.Records) * len(fact); n > 2*batchBytes {
			t.Errorf("one commit heard %d bytes", n)
		}
	}
}

// A Region that accepts a pull and never answers is left again.
func TestPull_that_is_never_answered_ends(t *testing.T) {
	g := newGroup(t, "", "us-east-1")
	var asked atomic.Int64
	mute := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		<-req.Context().Done()
	}))
	mute.EnableHTTP2 = true
	mute.TLS = g.ca.config(t, CertificateURI("eu-west-1"))
	mute.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	mute.StartTLS()
	t.Cleanup(mute.Close)
	a := g.regions[0]
	a.tune = func(c *Config) { c.Peers, c.Timeout = []Peer{{"eu-west-1", mute.URL}}, 20*time.Millisecond }
	a.start()
	g.eventually("the Region is asked again", func() bool { return asked.Load() > 1 })
	g.eventually("it is said why", func() bool { return errors.Is(a.replica.Status()[0].Err, errQuiet) })
	a.stop()
}

// A Region that could not be reached is asked again as soon as it asks: who comes back
// must not be taken for silent because nobody has tried for a while.
func TestPull_of_a_Region_that_calls_is_tried_at_once(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	a.tune = func(c *Config) { c.RetryMin, c.RetryMax = time.Hour, time.Hour }
	a.start()
	g.eventually("it is not reached", func() bool { return a.replica.Status()[0].Err != nil })
	b.start()
	g.eventually("it is heard", func() bool { return !a.replica.Status()[0].Heard.IsZero() })
}
