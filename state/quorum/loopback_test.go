package quorum

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// loopback starts three voters in real time, over TLS and HTTP/2 on the loopback
// interface, each with a store of its own in SQLite, and returns them once all
// have a vote.
func loopback(t testing.TB) []*Quorum {
	t.Helper()
	names := []string{"a", "b", "witness"}
	handlers := make([]http.Handler, len(names))
	var mu sync.Mutex
	peers := map[string]string{}
	var client *http.Client
	for i, name := range names {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			h := handlers[i]
			mu.Unlock()
			if r.ProtoMajor != 2 {
				t.Errorf("%s came over %s", r.URL.Path, r.Proto)
			}
			if h == nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		}))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		client = s.Client() // all have one certificate
		peers[name] = s.URL
	}
	var all []*Quorum
	for i, name := range names {
		log := newWorld(nil, 1).log()
		keys, err := store.NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: name}, keys, time.Now, log)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Name: name, Node: "n", Witness: name == "witness", Peers: peers, Tick: 50 * time.Millisecond}
		q, err := New(cfg, st, client, time.Now, rand.New(rand.NewPCG(1, uint64(i))), log)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		handlers[i] = q.Handler()
		mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		stored, voted := make(chan error, 1), make(chan error, 1)
		storeCtx, stopStore := context.WithCancel(context.Background())
		go func() { stored <- st.Run(storeCtx) }()
		go func() { voted <- q.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-voted; err != nil {
				t.Error(err)
			}
			stopStore()
			if err := <-stored; err != nil {
				t.Error(err)
			}
		})
		all = append(all, q)
	}
	limit, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for n := uint64(0); ; {
		st, now := all[0].State()
		votes := 0
		for _, v := range st.Voters {
			if !v.Learner {
				votes++
			}
		}
		if votes == len(names) {
			return all
		}
		if err := all[0].Wait(limit, max(n, now)); err != nil {
			t.Fatalf("the group did not form: %v; %+v", err, all[0].Status())
		}
		n = now
	}
}

func TestQuorum_over_real_sockets(t *testing.T) {
	all := loopback(t)
	if _, err := all[0].Propose(t.Context(), Join{Region: "a", Incarnation: "1"}); err != nil {
		t.Fatal(err)
	}
	var busy sync.WaitGroup
	for i, q := range all {
		busy.Go(func() {
			for range 20 {
				if _, err := q.Propose(t.Context(), grant(fmt.Sprint("k", i))); err != nil {
					t.Error(err)
				}
			}
			if st, _ := q.State(); st.Shares[fmt.Sprint("k", i)]["a"] != 20 {
				t.Errorf("voter %d sees %v", i, st.Shares)
			}
		})
	}
	busy.Wait()
}

// BenchmarkPropose is one caller at each voter, over TLS and SQLite.
func BenchmarkPropose(b *testing.B) {
	all := loopback(b)
	if _, err := all[0].Propose(b.Context(), Join{Region: "a", Incarnation: "1"}); err != nil {
		b.Fatal(err)
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint("callers_", callers), func(b *testing.B) {
			turns := make(chan int, b.N)
			for i := range b.N {
				turns <- i
			}
			close(turns)
			var busy sync.WaitGroup
			for range callers {
				busy.Go(func() {
					for i := range turns {
						if _, err := all[i%len(all)].Propose(b.Context(), grant("k")); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			busy.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}
