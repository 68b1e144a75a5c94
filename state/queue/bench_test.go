package queue

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// BenchmarkWork64 is 64 callers who each enqueue work and wait until its
// handler has completed it, as direct sends do.
func BenchmarkWork64(b *testing.B) {
	benchmarks(b, func(b *testing.B, st *store.Store) {
		var waiting sync.Map
		q := benchQueue(b, st, func(ctx context.Context, it *Item) error {
			if err := st.Update(ctx, it.Complete, it.Touch()...); err != nil {
				return err
			}
			done, _ := waiting.LoadAndDelete(it.ID)
			close(done.(chan struct{}))
			return nil
		})
		var n, took atomic.Int64
		b.ResetTimer()
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for {
					i := n.Add(1)
					if i > int64(b.N) {
						return
					}
					w := Work{Kind: "bench", ID: fmt.Sprintf("call-%08d", i), Due: time.Now(), Body: benchBody}
					done := make(chan struct{})
					waiting.Store(w.ID, done)
					start := time.Now()
					if err := st.Update(context.Background(), func(tx *store.Tx) error { return q.Enqueue(tx, w) }, Touch(w.Kind, w.ID)); err != nil {
						b.Error(err)
						return
					}
					<-done
					took.Add(int64(time.Since(start)))
				}
			})
		}
		callers.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "works/s")
		b.ReportMetric(float64(took.Load())/float64(b.N)/1e6, "ms/work")
		s := st.Stats()
		b.ReportMetric(float64(s.Updates)/float64(max(s.Commits, 1)), "updates/commit")
	})
}

// BenchmarkBacklog is 64 workers against 10,000 pieces of work that wait.
func BenchmarkBacklog(b *testing.B) {
	benchmarks(b, func(b *testing.B, st *store.Store) {
		left := atomic.Int64{}
		left.Store(int64(b.N))
		all := make(chan struct{})
		enqueue := New(Config{Node: "other"}, st, time.Now, rand.New(rand.NewPCG(1, 1)), slog.New(slog.DiscardHandler))
		for i := 0; i < max(b.N, 10000); i += 1000 {
			if err := st.Update(context.Background(), func(tx *store.Tx) error {
				for j := range 1000 {
					if err := enqueue.Enqueue(tx, Work{Kind: "bench", ID: fmt.Sprintf("call-%08d", i+j), Due: time.Now(), Body: benchBody}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
		b.ResetTimer()
		benchQueue(b, st, func(ctx context.Context, it *Item) error {
			if err := st.Update(ctx, it.Complete, it.Touch()...); err != nil {
				return err
			}
			if left.Add(-1) == 0 {
				close(all)
			}
			return nil
		})
		<-all
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "works/s")
	})
}

var benchBody = []byte(`{"Plan":"4f0c3f6e0b","Block":"4f0c3f6e0b/000001","Members":1}`)

func benchmarks(b *testing.B, run func(b *testing.B, st *store.Store)) {
	b.Run("sqlite", func(b *testing.B) { run(b, benchStore(b, store.Config{Dir: b.TempDir(), Region: "us-east-1"})) })
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		b.Run("postgres", func(b *testing.B) {
			run(b, benchStore(b, store.Config{Dir: b.TempDir(), Region: "us-east-1", PostgresURL: newDatabase(b, url)}))
		})
	}
}

func benchStore(b *testing.B, cfg store.Config) *store.Store {
	b.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(b.Context(), cfg, keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	runs(b, st.Run)
	return st
}

func benchQueue(b *testing.B, st *store.Store, do func(context.Context, *Item) error) *Queue {
	q := New(Config{Node: "n1"}, st, time.Now, rand.New(rand.NewPCG(1, 1)), slog.New(slog.DiscardHandler))
	Handle(q, "bench", 64, do)
	runs(b, q.Run)
	return q
}

// runs runs what runs until the benchmark ends.
func runs(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
