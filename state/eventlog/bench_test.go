package eventlog

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// BenchmarkFollow64 is 64 callers who append a fact of 300 bytes with each
// update, and three followers who count facts; it ends when all have them all.
func BenchmarkFollow64(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchFollow(b, store.Config{Dir: b.TempDir(), Region: "us-east-1"}) })
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		b.Run("postgres", func(b *testing.B) {
			benchFollow(b, store.Config{Dir: b.TempDir(), Region: "us-east-1", PostgresURL: newDatabase(b, url)})
		})
	}
}

func benchFollow(b *testing.B, cfg store.Config) {
	log := slog.New(slog.DiscardHandler)
	keys, err := store.NewKeys()
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(b.Context(), cfg, keys, time.Now, log)
	if err != nil {
		b.Fatal(err)
	}
	l := New(Config{Node: "n1"}, st, time.Now, log)
	var reading sync.WaitGroup
	reading.Add(3)
	for i := range 3 {
		var read atomic.Int64
		key := strconv.Itoa(i)
		Follow(l, key, func(tx *store.Tx, batch []Fact) error {
			n := read.Add(int64(len(batch))) // nothing fails here, so no update runs twice
			tx.AfterCommit(func() {
				if n == int64(b.N) {
					reading.Done()
				}
			})
			return tx.Put(kindEffect, key, strconv.AppendInt(nil, n, 10))
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	storeCtx, stopStore := context.WithCancel(context.Background())
	var logs, stores sync.WaitGroup
	stores.Go(func() { _ = st.Run(storeCtx) })
	logs.Go(func() { _ = l.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		logs.Wait()
		stopStore()
		stores.Wait()
	})
	data := make([]byte, 300)
	var n atomic.Int64
	b.ResetTimer()
	var writers sync.WaitGroup
	for range 64 {
		writers.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				if err := st.Update(context.Background(), func(tx *store.Tx) error {
					Append(tx, Fact{ID: strconv.FormatInt(i, 10), Type: "_email.send", Data: data})
					return nil
				}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	writers.Wait()
	reading.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}
