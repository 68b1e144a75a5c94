package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
)

var (
	kindDoc   = Kind{Name: "thing", Rule: changelog.RuleDocument}
	kindRec   = Kind{Name: "person", Rule: changelog.RuleRecord}
	kindSafe  = Kind{Name: "claim", Rule: changelog.RuleAppend, Safety: true}
	kindLocal = Kind{Name: "cursor", Rule: changelog.RuleLocal}
)

// place to keep a database between two openings of it.
type home struct {
	cfg  Config
	keys *Keys
}

// engines runs a test on SQLite and, when TEST_POSTGRES_URL is set, on PostgreSQL.
func engines(t *testing.T, test func(t *testing.T, h home)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, home{Config{Dir: t.TempDir(), Region: "us-east-1"}, newTestKeys(t)})
	})
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: SQLite only")
		return
	}
	t.Run("postgres", func(t *testing.T) {
		test(t, home{Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: newDatabase(t, url)}, newTestKeys(t)})
	})
}

func newTestKeys(t *testing.T) *Keys {
	t.Helper()
	k, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var databases atomic.Int64

// newDatabase makes an empty database on the server for one test.
func newDatabase(t *testing.T, url string) string {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	name := fmt.Sprintf("store_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	cfg := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", cfg.User, cfg.Password, name, cfg.Host, cfg.Port)
}

// start opens the store and runs it; stop ends it and waits.
func (h home) start(t *testing.T) (s *Store, stop func()) {
	t.Helper()
	s, err := Open(t.Context(), h.cfg, h.keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

func put(t *testing.T, s *Store, k Kind, key, body string, indexes ...Index) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(k, key, []byte(body), indexes...) }); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, k Kind, key string) string {
	t.Helper()
	body, err := s.Reader(t.Context()).Get(k, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func keysIn(rows []Row) string {
	var keys []string
	for _, r := range rows {
		keys = append(keys, r.Key)
	}
	return strings.Join(keys, " ")
}

func TestUpdate_is_there_after_it_was_answered_and_after_a_restart(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, stop := h.start(t)
		put(t, s, kindLocal, "a", "one")
		if got := get(t, s, kindLocal, "a"); got != "one" {
			t.Fatalf("a = %q", got)
		}
		put(t, s, kindLocal, "a", "two")
		put(t, s, kindLocal, "b", "three")
		if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Remove(kindLocal, "b") }); err != nil {
			t.Fatal(err)
		}
		stop()
		s, _ = h.start(t)
		if got := get(t, s, kindLocal, "a"); got != "two" {
			t.Errorf("a = %q after a restart", got)
		}
		if got := get(t, s, kindLocal, "b"); got != "" {
			t.Errorf("removed row came back as %q", got)
		}
	})
}

func TestUpdate_that_fails_leaves_nothing_and_does_not_disturb_its_neighbours(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		boom := errors.New("boom")
		var done sync.WaitGroup
		for i := range 40 {
			done.Go(func() {
				err := s.Update(t.Context(), func(tx *Tx) error {
					if err := tx.Put(kindLocal, fmt.Sprintf("k%02d", i), []byte("x")); err != nil {
						return err
					}
					tx.Append([]byte("fact"))
					switch i % 4 {
					case 1:
						return boom
					case 2:
						panic("out of cheese")
					}
					return nil
				})
				if failed := i%4 == 1 || i%4 == 2; failed != (err != nil) {
					t.Errorf("update %d: %v", i, err)
				}
			})
		}
		done.Wait()
		rows, err := s.Reader(t.Context()).List(kindLocal, "k", "", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 20 {
			t.Errorf("%d rows, want the 20 of the updates that did not fail", len(rows))
		}
		facts := 0
		for _, b := range blocks(t, s, Events) {
			facts += len(b.Records)
		}
		if facts != 20 {
			t.Errorf("%d facts, want 20", facts)
		}
	})
}

func blocks(t *testing.T, s *Store, st Stream) []Block {
	t.Helper()
	out, err := s.Blocks(t.Context(), st, 0, 10000)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTx_sees_its_own_writes_and_its_neighbours(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		city := Index{Name: "city", Value: "Porto"}
		put(t, s, kindLocal, "p/a", "1", city)
		put(t, s, kindLocal, "p/b", "2", city)
		put(t, s, kindLocal, "q/c", "3")
		err := s.Update(t.Context(), func(tx *Tx) error {
			check := func(what, got, want string) {
				t.Helper()
				if got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			list := func(prefix, after string, limit int) string {
				rows, err := tx.List(kindLocal, prefix, after, limit)
				if err != nil {
					t.Error(err)
				}
				return keysIn(rows)
			}
			found := func() string {
				rows, err := tx.Lookup(kindLocal, city, 10)
				if err != nil {
					t.Error(err)
				}
				return keysIn(rows)
			}
			check("list", list("p/", "", 10), "p/a p/b")
			check("list after", list("p/", "p/a", 10), "p/b")
			check("look-up", found(), "p/a p/b")
			if err := tx.Put(kindLocal, "p/aa", []byte("4"), city); err != nil {
				return err
			}
			if err := tx.Put(kindLocal, "p/a", []byte("5")); err != nil { // leaves the city
				return err
			}
			if err := tx.Remove(kindLocal, "p/b"); err != nil {
				return err
			}
			check("list of own writes", list("p/", "", 10), "p/a p/aa")
			check("limited list of own writes", list("p/", "", 1), "p/a")
			check("look-up of own writes", found(), "p/aa")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.Reader(t.Context()).Lookup(kindLocal, city, 10)
		if err != nil {
			t.Fatal(err)
		}
		if got := keysIn(rows); got != "p/aa" {
			t.Errorf("look-up after the commit: %q", got)
		}
		rows, err = s.Reader(t.Context()).List(kindLocal, "", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		if got := keysIn(rows); got != "p/a p/aa q/c" {
			t.Errorf("list after the commit: %q", got)
		}
	})
}

func TestCommit_holds_row_change_and_fact_together(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		type thing struct{ Name string }
		for i := range 3 {
			if err := s.Update(t.Context(), func(tx *Tx) error {
				tx.Append(fmt.Appendf(nil, "fact %d", i))
				if err := tx.Put(kindSafe, fmt.Sprintf("c%d", i), []byte("claimed")); err != nil {
					return err
				}
				return Save(tx, kindDoc, "doc", &thing{fmt.Sprintf("name %d", i)})
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Remove(kindDoc, "doc") }); err != nil {
			t.Fatal(err)
		}
		for st, want := range map[Stream]int{Changes: 4, Safety: 3, Events: 3} {
			got := blocks(t, s, st)
			if len(got) != want || s.Head(st) != int64(want) {
				t.Errorf("stream %s has %d blocks, head %d, want %d", st, len(got), s.Head(st), want)
			}
			for i, b := range got {
				if b.N != int64(i+1) || b.Incarnation != s.Incarnation() || len(b.Records) != 1 {
					t.Errorf("stream %s block %d: %+v", st, i, b)
				}
			}
		}
		for i, b := range blocks(t, s, Changes) {
			c, err := changelog.DecodeChange(b.Records[0])
			if err != nil {
				t.Fatal(err)
			}
			d, err := changelog.DecodeDocument(c.Body)
			if err != nil {
				t.Fatal(err)
			}
			if d.Version != uint64(i+1) || (d.Body == nil) != (i == 3) {
				t.Errorf("change %d has version %d and body %q", i, d.Version, d.Body)
			}
		}
	})
}

func TestUpdate_counts_exactly_under_contention(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		// Two nodes over one PostgreSQL; on SQLite, one.
		nodes := 1
		if h.cfg.PostgresURL != "" {
			nodes = 2
		}
		var stores []*Store
		for range nodes {
			h := h
			h.cfg.Dir = t.TempDir()
			s, _ := h.start(t)
			stores = append(stores, s)
		}
		type counter struct{ N int }
		const each = 150
		var done sync.WaitGroup
		for w := range 4 {
			s := stores[w%nodes]
			for _, touched := range []bool{true, false} {
				done.Go(func() {
					var touch []Touch
					if touched {
						touch = append(touch, Touch{Kind: kindDoc, Key: "n"})
					}
					for range each {
						if err := s.Update(t.Context(), func(tx *Tx) error {
							c, err := Load[counter](tx, kindDoc, "n")
							if err != nil {
								return err
							}
							if c == nil {
								c = &counter{}
							}
							c.N++
							tx.Append([]byte("one"))
							return Save(tx, kindDoc, "n", c)
						}, touch...); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
		}
		done.Wait()
		c, err := Load[counter](stores[0].Reader(t.Context()), kindDoc, "n")
		if err != nil {
			t.Fatal(err)
		}
		if c == nil || c.N != 8*each {
			t.Errorf("counter is %+v, want %d", c, 8*each)
		}
		facts, last := 0, int64(0)
		for _, b := range blocks(t, stores[0], Events) {
			if b.N != last+1 {
				t.Errorf("block %d follows %d", b.N, last)
			}
			last = b.N
			facts += len(b.Records)
		}
		if facts != 8*each {
			t.Errorf("%d facts, want %d", facts, 8*each)
		}
	})
}

func TestStreams_are_chained(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		for i := range 5 {
			put(t, s, kindRec, fmt.Sprintf("r%d", i), "body")
		}
		sealed, err := s.engine.blocks(t.Context(), Changes, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		var previous []byte
		for _, b := range sealed {
			if want := chain(previous, b.body); !slices.Equal(want, b.hash) {
				t.Errorf("block %d does not follow from the one before", b.n)
			}
			previous = b.hash
		}
	})
}

func TestScan_hands_out_the_rows_of_its_kinds_as_they_were_first_written(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		// More than one step of the scan, of kinds that take turns.
		const each = 1500
		for from := 0; from < each; from += 300 {
			for _, k := range []Kind{kindRec, kindLocal, kindSafe} {
				if err := s.Update(t.Context(), func(tx *Tx) error {
					for i := from; i < from+300; i++ {
						if err := tx.Put(k, fmt.Sprintf("k%05d", i), fmt.Appendf(nil, "%s %d", k.Name, i)); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(t, s, kindRec, "k00000", "person 0") // its place stays
		scan := func(kinds ...Kind) (rows []Row) {
			t.Helper()
			if err := s.ScanKinds(t.Context(), kinds, func(r Row) error { rows = append(rows, r); return nil }); err != nil {
				t.Fatal(err)
			}
			return rows
		}
		var want []string
		for from := 0; from < each; from += 300 {
			for _, k := range []Kind{kindRec, kindSafe} {
				for i := from; i < from+300; i++ {
					want = append(want, fmt.Sprintf("%s %d", k.Name, i))
				}
			}
		}
		got := scan(kindSafe, kindRec)
		if len(got) != len(want) {
			t.Fatalf("%d rows, want %d", len(got), len(want))
		}
		for i, r := range got {
			if string(r.Body) != want[i] || !strings.HasPrefix(want[i], r.Kind+" ") {
				t.Fatalf("row %d is %s %s: %q, want %q", i, r.Kind, r.Key, r.Body, want[i])
			}
		}
		if rows := scan(kindDoc); len(rows) != 0 {
			t.Errorf("%d rows of a kind that has none", len(rows))
		}
		one, enough := 0, errors.New("enough")
		if err := s.Scan(t.Context(), kindLocal, func(r Row) error {
			if one++; one == 7 {
				return enough
			}
			return nil
		}); !errors.Is(err, enough) || one != 7 {
			t.Errorf("a scan that was ended saw %d rows: %v", one, err)
		}
	})
}

func TestWait_returns_when_a_block_comes(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		got := make(chan error, 1)
		go func() { got <- s.Wait(ctx, Changes, 0) }()
		put(t, s, kindRec, "r", "body")
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
}

func TestSealed_bodies_and_indexes_do_not_show_in_the_files(t *testing.T) {
	dir := t.TempDir()
	s, stop := home{Config{Dir: dir, Region: "us-east-1"}, newTestKeys(t)}.start(t)
	put(t, s, kindRec, "r", "secret-body-7", Index{Name: "address", Value: "someone@tea.example"})
	if err := s.Update(t.Context(), func(tx *Tx) error { tx.Append([]byte("secret-fact-7")); return nil }); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		files, err := filepath.Glob(filepath.Join(dir, "everpoint.db*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no database files: %v", err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"secret-body-7", "secret-fact-7", "tea.example"} {
				if strings.Contains(string(data), secret) {
					t.Errorf("%s: %s shows %q", when, filepath.Base(f), secret)
				}
			}
		}
	}
	check("while running")
	stop()
	check("after the end")
}

func TestFiles_are_the_owner_s_alone(t *testing.T) {
	dir := t.TempDir()
	s, _ := home{Config{Dir: dir, Region: "us-east-1"}, newTestKeys(t)}.start(t)
	put(t, s, kindRec, "r", "body")
	files, err := filepath.Glob(filepath.Join(dir, "everpoint.db*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(f), st.Mode())
		}
	}
	if _, err := Open(t.Context(), Config{Dir: dir, Region: "us-east-1"}, newTestKeys(t), time.Now, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a second process opened the same directory")
	}
}

// A Region that joins a group brings the group's hashing keyset and makes its own
// for sealing.
func TestLoadKeys_takes_a_hashing_keyset_that_was_brought(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	a, err := LoadKeys(first)
	if err != nil {
		t.Fatal(err)
	}
	brought, err := os.ReadFile(filepath.Join(first, "hashing.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(second, "hashing.json"), brought, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // made, then read
		b, err := LoadKeys(second)
		if err != nil {
			t.Fatal(err)
		}
		if a.Blind("x") != b.Blind("x") {
			t.Error("the same value has other hashes in the other Region")
		}
		sealed, err := a.Seal([]byte("x"), "place")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Unseal(sealed, "place"); err == nil {
			t.Error("both Regions seal with one keyset")
		}
	}
	if err := os.WriteFile(filepath.Join(second, "hashing.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(second, "sealing.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(second); err == nil {
		t.Error("a broken hashing keyset is replaced")
	}
}

func TestKeys_bind_a_row_to_its_place(t *testing.T) {
	k := newTestKeys(t)
	sealed, err := k.Seal([]byte("x"), "here")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unseal(sealed, "there"); err == nil {
		t.Error("a sealed row was opened in another place")
	}
	dir := t.TempDir()
	first, err := LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := first.Blind("a", "b"), second.Blind("a", "b"), second.Blind("ab", "")
	if a != b || a == c || len(a) != blindBytes {
		t.Errorf("hashes %x %x %x", a, b, c)
	}
}

func TestLineage_a_restored_database_takes_a_new_incarnation(t *testing.T) {
	dir := t.TempDir()
	h := home{Config{Dir: dir, Region: "us-east-1"}, newTestKeys(t)}
	s, stop := h.start(t)
	put(t, s, kindRec, "a", "1")
	stop()
	backup, err := os.ReadFile(filepath.Join(dir, "everpoint.db"))
	if err != nil {
		t.Fatal(err)
	}
	s, stop = h.start(t)
	before := s.Incarnation()
	put(t, s, kindRec, "b", "2")
	stop()
	s, stop = h.start(t)
	if s.Incarnation() != before {
		t.Error("a plain restart took a new incarnation")
	}
	stop()
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Remove(filepath.Join(dir, "everpoint.db"+suffix))
	}
	if err := os.WriteFile(filepath.Join(dir, "everpoint.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = h.start(t)
	if s.Incarnation() == before {
		t.Error("a database restored from an older copy kept its incarnation")
	}
	put(t, s, kindRec, "c", "3")
	for _, b := range blocks(t, s, Changes) {
		if want := b.N > 1; want != (b.Incarnation == s.Incarnation()) {
			t.Errorf("block %d is of incarnation %s", b.N, b.Incarnation)
		}
	}
}

func TestLineage_another_Region_knows_more_of_the_database(t *testing.T) {
	h := home{Config{Dir: t.TempDir(), Region: "us-east-1"}, newTestKeys(t)}
	s, _ := h.start(t)
	put(t, s, kindRec, "a", "1")
	put(t, s, kindRec, "b", "2")
	first, head := s.Incarnation(), s.Head(Changes)
	hash, err := s.Hash(t.Context(), Changes, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		of   string
		n    int64
		hash []byte
		goes bool
	}{
		{"what it has", first, 1, hash, false},
		{"of another life", "other", head + 5, []byte("x"), false},
		{"a first block that is asked for without its predecessor", first, 1, nil, false},
		{"what it has not", first, head + 1, []byte("x"), true},
	} {
		if err := s.Told(t.Context(), Changes, c.of, c.n, c.hash); err != nil {
			t.Fatal(err)
		}
		if went := s.Incarnation() != first; went != c.goes {
			t.Errorf("%s: a new incarnation is %v", c.name, went)
		}
	}
	second := s.Incarnation()
	if err := s.Told(t.Context(), Changes, second, 1, []byte("x")); err != nil || s.Incarnation() == second {
		t.Errorf("another block in the place of one that it has: %v", err)
	}
}

func TestLineage_a_database_that_goes_back_under_a_running_node_is_noticed(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: nothing to hold")
		return
	}
	h := home{Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: newDatabase(t, url)}, newTestKeys(t)}
	s, _ := h.start(t)
	for i := range 5 {
		put(t, s, kindRec, fmt.Sprintf("r%d", i), "body")
	}
	was := s.Incarnation()
	// What the promotion of a replica that lacked the last commits looks like.
	e := s.engine.(*postgresEngine)
	hash, err := e.blockHash(t.Context(), Changes, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.pool.Exec(t.Context(), "DELETE FROM log_block WHERE stream = 'change' AND n > 3"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.pool.Exec(t.Context(), e.texts["head_set"], "change", was, 3, hash); err != nil {
		t.Fatal(err)
	}
	put(t, s, kindRec, "after", "body")
	if s.Incarnation() == was {
		t.Error("the node went on with the old incarnation")
	}
	all := blocks(t, s, Changes)
	if last := all[len(all)-1]; last.N != 4 || last.Incarnation != s.Incarnation() {
		t.Errorf("last block: %d of %s", last.N, last.Incarnation)
	}
}

func TestStreams_no_reader_sees_a_block_before_the_one_below_it(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: one process writes, so blocks cannot overtake")
		return
	}
	db := newDatabase(t, url)
	keys := newTestKeys(t)
	stalled, release := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	slow := home{Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: db, Fault: func(point string) error {
		if point == "commit" && armed.CompareAndSwap(true, false) {
			close(stalled)
			<-release
		}
		return nil
	}}, keys}
	a, _ := slow.start(t)
	b, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: db}, keys}.start(t)
	armed.Store(true)
	update := func(s *Store, key string) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- s.Update(context.Background(), func(tx *Tx) error { return tx.Put(kindRec, key, []byte(key)) })
		}()
		return done
	}
	first := update(a, "first")
	<-stalled
	second := update(b, "second")
	// While the first writer holds the head row, the second cannot become visible.
	waiting := func() bool {
		var n int
		err := a.engine.(*postgresEngine).pool.QueryRow(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	for !waiting() {
		select {
		case err := <-second:
			t.Fatalf("the second writer committed while the first was stalled: %v", err)
		default:
		}
	}
	if got := blocks(t, b, Changes); len(got) != 0 {
		t.Fatalf("%d blocks are visible while the first writer is stalled", len(got))
	}
	close(release)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	got := blocks(t, b, Changes)
	if len(got) != 2 || got[0].N != 1 || got[1].N != 2 {
		t.Fatalf("blocks %+v", got)
	}
}

func TestFull_disk_refuses_writes_and_recovers(t *testing.T) {
	h := home{Config{Dir: t.TempDir(), Region: "us-east-1", SQLitePagesMax: 120}, newTestKeys(t)}
	s, _ := h.start(t)
	put(t, s, kindLocal, "small", "x")
	big := strings.Repeat("y", 100_000)
	var err error
	written := 0
	for ; written < 20 && err == nil; written++ {
		err = s.Update(t.Context(), func(tx *Tx) error {
			return tx.Put(kindLocal, fmt.Sprintf("big%d", written), []byte(big))
		})
	}
	if aws.KindOf(err) != aws.KindUnavailable {
		t.Fatalf("a full database answered %v", err)
	}
	if got := get(t, s, kindLocal, "small"); got != "x" {
		t.Errorf("reads do not go on: %q", got)
	}
	if err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range written {
			if err := tx.Remove(kindLocal, fmt.Sprintf("big%d", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("removing rows from a full database: %v", err)
	}
	put(t, s, kindLocal, "again", big)
}

func TestStore_agrees_with_a_model_after_random_updates_and_restarts(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		type modelRow struct{ body, index string }
		model := map[string]modelRow{}
		s, stop := h.start(t)
		for round := range 120 {
			next := map[string]*modelRow{}
			fail := rnd.IntN(5) == 0
			err := s.Update(t.Context(), func(tx *Tx) error {
				clear(next)
				for range 1 + rnd.IntN(6) {
					key := fmt.Sprintf("k%d", rnd.IntN(20))
					if rnd.IntN(4) == 0 {
						next[key] = nil
						if err := tx.Remove(kindRec, key); err != nil {
							return err
						}
						continue
					}
					m := &modelRow{fmt.Sprintf("body %d", rnd.IntN(1000)), fmt.Sprintf("i%d", rnd.IntN(4))}
					next[key] = m
					if err := tx.Put(kindRec, key, []byte(m.body), Index{Name: "i", Value: m.index}); err != nil {
						return err
					}
				}
				if fail {
					return errors.New("no")
				}
				return nil
			})
			if fail != (err != nil) {
				t.Fatalf("round %d: %v", round, err)
			}
			if !fail {
				for k, m := range next {
					if m == nil {
						delete(model, k)
					} else {
						model[k] = *m
					}
				}
			}
			if rnd.IntN(40) == 0 {
				stop()
				s, stop = h.start(t)
			}
			for i := range 20 {
				key := fmt.Sprintf("k%d", i)
				if got := get(t, s, kindRec, key); got != model[key].body {
					t.Fatalf("round %d: %s = %q, want %q", round, key, got, model[key].body)
				}
			}
			for i := range 4 {
				x := fmt.Sprintf("i%d", i)
				rows, err := s.Reader(t.Context()).Lookup(kindRec, Index{Name: "i", Value: x}, 100)
				if err != nil {
					t.Fatal(err)
				}
				want := 0
				for _, m := range model {
					if m.index == x {
						want++
					}
				}
				if len(rows) != want {
					t.Fatalf("round %d: %d rows under %s, want %d", round, len(rows), x, want)
				}
			}
		}
		// The change stream, replayed, gives the same rows.
		replayed := map[string]string{}
		for _, b := range blocks(t, s, Changes) {
			for _, rec := range b.Records {
				c, err := changelog.DecodeChange(rec)
				if err != nil {
					t.Fatal(err)
				}
				if c.Body == nil {
					delete(replayed, c.Key)
				} else {
					replayed[c.Key] = string(c.Body)
				}
			}
		}
		if len(replayed) != len(model) {
			t.Errorf("the change stream gives %d rows, the model %d", len(replayed), len(model))
		}
		for k, m := range model {
			if replayed[k] != m.body {
				t.Errorf("the change stream gives %s = %q, want %q", k, replayed[k], m.body)
			}
		}
	})
}
