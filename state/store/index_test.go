package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"
)

// Rows that come and go leave nothing behind in the log of young entries, however
// few there are at a time.
func TestSQLite_s_log_of_young_entries_is_bounded_by_what_was_written(t *testing.T) {
	for name, removeLater := range map[string]bool{"come and go": false, "go together": true} {
		t.Run(name, func(t *testing.T) {
			s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1", SQLiteYoungMax: 40}, newTestKeys(t)}.start(t)
			e := s.engine.(*sqliteEngine)
			put := func(key string) error {
				return s.Update(t.Context(), func(tx *Tx) error { return tx.Put(kindLocal, key, []byte("x")) })
			}
			remove := func(key string) error {
				return s.Update(t.Context(), func(tx *Tx) error { return tx.Remove(kindLocal, key) })
			}
			const rows = 500
			for i := range rows {
				err := put(fmt.Sprint(i))
				if err == nil && !removeLater {
					err = remove(fmt.Sprint(i))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for i := range rows {
				if removeLater {
					if err := remove(fmt.Sprint(i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			var n int
			if err := e.readers.QueryRow("SELECT count(*) FROM doc_young").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n > 150 {
				t.Errorf("the log has %d records after %d rows came and went, of 40 postings in a generation", n, rows)
			}
		})
	}
}

// A value that very many rows have does not hide the rows that are asked for with it.
func TestUpdate_finds_rows_beside_a_value_of_very_many(t *testing.T) {
	s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1", SQLiteYoungMax: 10}, newTestKeys(t)}.start(t)
	crowd := Index{Name: "of", Value: "all"}
	const rows = 10_100
	if err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range rows {
			if err := tx.Put(kindLocal, fmt.Sprintf("k%05d", i), []byte("x"), crowd); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// The second commit takes their entries over into the table.
	if err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range 2 * rows {
			if err := tx.Put(kindLocal, fmt.Sprintf("l%05d", i), []byte("x")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	touch := []Touch{{Kind: kindLocal, Index: crowd}}
	for i := range 2*manyRows - 1 {
		touch = append(touch, Touch{Kind: kindLocal, Key: fmt.Sprintf("k%05d", rows-1-i)})
	}
	if err := s.Update(t.Context(), func(tx *Tx) error {
		for _, x := range touch[1:] {
			if body, err := tx.Get(kindLocal, x.Key); err != nil || body == nil {
				t.Errorf("%s is not there: %v", x.Key, err)
			}
		}
		return nil
	}, touch...); err != nil {
		t.Fatal(err)
	}
}

// A reader that has looked at the young entries, and then waits, meanwhile has
// the database change under it.
func TestSQLite_reader_that_is_overtaken_is_not_misled(t *testing.T) {
	s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1"}, newTestKeys(t)}.start(t)
	e := s.engine.(*sqliteEngine)
	update := func(fn func(*Tx) error) {
		t.Helper()
		if err := s.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	// overtake has read wait for a connection while the database changes.
	overtake := func(read, change func()) {
		t.Helper()
		var held []*sql.Conn
		for range readersMax {
			c, err := e.readers.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		}
		waits := e.readers.Stats().WaitCount
		done := make(chan struct{})
		go func() { defer close(done); read() }()
		for deadline := time.Now().Add(10 * time.Second); e.readers.Stats().WaitCount == waits; <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the reader does not wait")
			}
		}
		change()
		for _, c := range held {
			c.Close()
		}
		<-done
	}

	update(func(tx *Tx) error { return tx.Put(kindLocal, "mine", []byte("mine")) })
	overtake(func() {
		if body, err := s.Reader(context.Background()).Get(kindLocal, "mine"); err != nil || body != nil && string(body) != "mine" {
			t.Errorf("mine is %q, %v", body, err)
		}
	}, func() {
		update(func(tx *Tx) error { return tx.Remove(kindLocal, "mine") })
		if err := s.Update(t.Context(), func(*Tx) error { return errors.New("no") }); err == nil {
			t.Error("the error was lost")
		}
		update(func(tx *Tx) error { return tx.Put(kindLocal, "yours", []byte("yours")) })
	})

	update(func(tx *Tx) error {
		for i := range 20 {
			if err := tx.Put(kindLocal, fmt.Sprintf("p%02d", i), []byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	overtake(func() {
		rows, err := s.Reader(context.Background()).List(kindLocal, "p", "", 5)
		if err != nil || len(rows) != 5 || rows[4].Key != "p09" {
			t.Errorf("listed %d rows of 15, %v", len(rows), err)
		}
	}, func() {
		update(func(tx *Tx) error {
			for i := range 5 {
				if err := tx.Remove(kindLocal, fmt.Sprintf("p%02d", i)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
