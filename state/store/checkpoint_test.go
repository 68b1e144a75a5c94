package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// TestCheckpoint_beside_the_writer: what waits is counted without being copied, and
// copied while an update is open.
func TestCheckpoint_beside_the_writer(t *testing.T) {
	ctx := t.Context()
	e, err := openSQLite(filepath.Join(t.TempDir(), "db"), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	if err := e.prepare(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := e.conn.ExecContext(ctx, text, args...); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func(mode string) int {
		t.Helper()
		n, err := checkpoint(ctx, e.copier, mode)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	exec("CREATE TABLE filler (x)")
	waiting("PASSIVE")
	exec("INSERT INTO filler VALUES (zeroblob(?))", 100*4096)
	if first, again := waiting("NOOP"), waiting("NOOP"); first < 100 || again != first {
		t.Errorf("%d, then %d pages wait; want at least 100, twice", first, again)
	}
	exec("BEGIN IMMEDIATE")
	exec("INSERT INTO filler VALUES (1)")
	if n := waiting("PASSIVE"); n != 0 {
		t.Errorf("%d pages wait after a checkpoint beside an open update", n)
	}
	exec("COMMIT")
}

// TestCopyLog copies a long log without being asked for more than commits.
func TestCopyLog(t *testing.T) {
	ctx := t.Context()
	e, err := openSQLite(filepath.Join(t.TempDir(), "db"), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	if err := e.prepare(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"CREATE TABLE filler (x)", fmt.Sprintf("INSERT INTO filler VALUES (zeroblob(%d))", 2*copyPages*4096)} {
		if _, err := e.conn.ExecContext(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for waiting := 1; waiting > 0; {
		select {
		case e.committed <- struct{}{}:
		case <-ctx.Done():
			t.Fatalf("%d pages still wait", waiting)
		}
		if waiting, err = checkpoint(ctx, e.copier, "NOOP"); err != nil {
			t.Fatal(err)
		}
	}
}
