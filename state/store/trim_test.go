package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// Old blocks of the change log go, the last stays, and rows, facts and new
// blocks are not touched.
func TestLogs_are_trimmed_by_age(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		var days atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(days.Load()) * 24 * time.Hour) }
		s, err := Open(t.Context(), h.cfg, h.keys, now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		for i := range 10 {
			if err := s.Update(t.Context(), func(tx *Tx) error {
				tx.Append([]byte("fact"))
				return tx.Put(kindRec, fmt.Sprint("k", i), []byte("body"))
			}); err != nil {
				t.Fatal(err)
			}
			if i == 4 {
				days.Store(5)
			}
		}
		left := func(st Stream) (from, n int) {
			t.Helper()
			all := blocks(t, s, st)
			return int(all[0].N), len(all)
		}
		days.Store(8) // the first five are eight days old
		if err := s.trimLogs(t.Context()); err != nil {
			t.Fatal(err)
		}
		if from, n := left(Changes); from != 6 || n != 5 {
			t.Errorf("%d blocks are left, from %d", n, from)
		}
		days.Store(100)
		if err := s.trimLogs(t.Context()); err != nil {
			t.Fatal(err)
		}
		if from, n := left(Changes); from != 10 || n != 1 {
			t.Errorf("%d blocks are left, from %d", n, from)
		}
		if hash, err := s.Hash(t.Context(), Changes, s.Head(Changes)); err != nil || len(hash) == 0 {
			t.Errorf("the head has no hash: %v", err)
		}
		if _, n := left(Events); n != 10 {
			t.Errorf("%d blocks of facts are left", n)
		}
		put(t, s, kindRec, "k10", "body")
		for i := range 11 {
			if got := get(t, s, kindRec, fmt.Sprint("k", i)); got != "body" {
				t.Errorf("k%d is %q", i, got)
			}
		}
	})
}
