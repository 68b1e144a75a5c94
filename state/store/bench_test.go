package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchmarks runs a benchmark on the engines that are at hand.
func benchmarks(b *testing.B, run func(b *testing.B, cfg Config)) {
	b.Run("sqlite", func(b *testing.B) { run(b, Config{Dir: b.TempDir(), Region: "us-east-1"}) })
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		b.Run("postgres", func(b *testing.B) {
			run(b, Config{Dir: b.TempDir(), Region: "us-east-1", PostgresURL: url})
		})
		b.Run("postgres-one-by-one", func(b *testing.B) {
			run(b, Config{Dir: b.TempDir(), Region: "us-east-1", PostgresURL: url, OneByOne: true})
		})
	}
}

func benchStore(b *testing.B, cfg Config) *Store {
	keys, err := NewKeys()
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), cfg, keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return s
}

// BenchmarkUpsert64 is 64 writers, each update durable before it is
// acknowledged: a 600-byte row under two index values, its change and a fact.
func BenchmarkUpsert64(b *testing.B) {
	benchmarks(b, func(b *testing.B, cfg Config) {
		s := benchStore(b, cfg)
		body := make([]byte, 600)
		copy(body, randomBytes(300))
		fact := randomBytes(120)
		run := fmt.Sprintf("%x", randomBytes(4))
		var n atomic.Int64
		b.ResetTimer()
		var done sync.WaitGroup
		for range 64 {
			done.Go(func() {
				for {
					i := n.Add(1)
					if i > int64(b.N) {
						return
					}
					key := s.Blind(run, fmt.Sprint(i%20000))
					user, address := Index{Name: "user", Value: fmt.Sprint(run, i%5000)}, Index{Name: "address", Value: fmt.Sprint(run, i%20000)}
					if err := s.Update(context.Background(), func(tx *Tx) error {
						tx.Append(fact)
						return tx.Put(kindRec, key, body, user, address)
					}, Touch{Kind: kindRec, Key: key}, Touch{Kind: kindRec, Index: address}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		done.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		st := s.Stats()
		b.ReportMetric(float64(st.Updates)/float64(max(st.Commits, 1)), "updates/commit")
	})
}

// BenchmarkBulk is one writer with 5,000 new rows in each update.
func BenchmarkBulk(b *testing.B) {
	benchmarks(b, func(b *testing.B, cfg Config) {
		s := benchStore(b, cfg)
		body := make([]byte, 600)
		copy(body, randomBytes(300))
		const each = 5000
		run := fmt.Sprintf("%x", randomBytes(4))
		b.ResetTimer()
		for i := 0; i < b.N; i += each {
			var touch []Touch
			var keys []string
			var indexes []Index
			for j := range each {
				keys = append(keys, s.Blind(run, fmt.Sprint(i+j)))
				indexes = append(indexes, Index{Name: "address", Value: fmt.Sprint(run, i+j)})
				touch = append(touch, Touch{Kind: kindRec, Key: keys[j]}, Touch{Kind: kindRec, Index: indexes[j]})
			}
			if err := s.Update(context.Background(), func(tx *Tx) error {
				for j := range keys {
					if err := tx.Put(kindRec, keys[j], body, indexes[j]); err != nil {
						return err
					}
				}
				return nil
			}, touch...); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((b.N+each-1)/each*each)/b.Elapsed().Seconds(), "rows/s")
	})
}
