package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/everpoint/everpoint/aws"
)

// cutter stands between a store and its server. Armed, it closes a connection in
// COMMIT: before the server hears of it, or instead of handing on the answer.
// All other connections go with it, and new ones are refused for some times, as
// a server does that starts again.
type cutter struct {
	network, address string // of the server
	armed            atomic.Bool
	before           atomic.Bool  // cut before the server hears of the COMMIT
	refusals         atomic.Int64 // connections to refuse after the cut

	mu    sync.Mutex
	links map[net.Conn]bool // those that are open
	down  int64             // connections still to refuse
}

// newCutter returns the URL of the database on the other side of the cutter.
func newCutter(t *testing.T, url string) (c *cutter, through string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	c = &cutter{links: map[net.Conn]bool{}}
	c.network, c.address = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	dir, err := os.MkdirTemp("", "cut") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	port := int(cfg.Port)
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	var links sync.WaitGroup
	links.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			links.Go(func() { c.link(in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		links.Wait()
		os.RemoveAll(dir)
	})
	return c, "postgres://" + cfg.User + ":" + cfg.Password + "@/" + cfg.Database + "?host=" + dir + "&port=" + strconv.Itoa(port) + "&sslmode=disable"
}

func (c *cutter) admit(in net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down > 0 {
		c.down--
		return false
	}
	c.links[in] = true
	return true
}

func (c *cutter) forget(in net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.links, in)
}

// refused is how many connections are still to be refused.
func (c *cutter) refused() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// fall closes every connection but one.
func (c *cutter) fall(but net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = c.refusals.Load()
	for in := range c.links {
		if in != but {
			in.Close()
		}
	}
}

func (c *cutter) link(in net.Conn) {
	defer in.Close()
	if !c.admit(in) {
		return
	}
	defer c.forget(in)
	out, err := net.Dial(c.network, c.address)
	if err != nil {
		return
	}
	var cut atomic.Bool
	var answers sync.WaitGroup
	answers.Go(func() {
		defer in.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := out.Read(buf)
			if err != nil || cut.Load() {
				return
			}
			if _, err := in.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if bytes.Contains(buf[:n], []byte("COMMIT")) && c.armed.CompareAndSwap(true, false) {
			c.fall(in)
			if c.before.Load() {
				break
			}
			cut.Store(true)
		}
		if err != nil {
			break
		}
		if _, err := out.Write(buf[:n]); err != nil {
			break
		}
	}
	if !cut.Load() {
		out.Close()
	}
	answers.Wait()
	out.Close()
}

func TestCommit_that_lost_its_connection_is_looked_into(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: there is no connection to lose")
		return
	}
	for _, tt := range []struct {
		name     string
		kind     Kind
		before   bool
		refusals int64
		doubt    bool // the server stays away
	}{
		{name: "row with a block", kind: kindRec},
		{name: "row of this Region alone", kind: kindLocal},
		{name: "the server starts again", kind: kindRec, refusals: 20},
		{name: "the server never heard of it", kind: kindRec, before: true},
		{name: "the server never heard of it, local", kind: kindLocal, before: true},
		{name: "the server does not come back", kind: kindRec, refusals: 1 << 40, doubt: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, through := newCutter(t, newDatabase(t, url))
			s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: through}, newTestKeys(t)}.start(t)
			put(t, s, tt.kind, "first", "x")
			c.before.Store(tt.before)
			c.armed.Store(true)
			c.refusals.Store(tt.refusals)
			if tt.doubt {
				s.engine.(*postgresEngine).confirmMax = 200 * time.Millisecond
			}
			err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(tt.kind, "k", []byte("v")) })
			if c.armed.Load() {
				t.Fatal("no COMMIT was cut")
			}
			if tt.doubt {
				if aws.KindOf(err) != aws.KindUnavailable || !strings.Contains(err.Error(), "not known") {
					t.Errorf("the update answered %v", err)
				}
				return
			}
			if tt.before {
				if got := get(t, s, tt.kind, "k"); aws.KindOf(err) != aws.KindUnavailable || got != "" {
					t.Errorf("the row is %q, the update answered %v", got, err)
				}
			} else if got := get(t, s, tt.kind, "k"); err != nil || got != "v" {
				t.Errorf("the row is %q, the update answered %v", got, err)
			}
			if left := c.refused(); left > 0 {
				t.Errorf("the server refuses %d more connections: nobody waited for it", left)
			}
			put(t, s, tt.kind, "k", "again")
			if got := get(t, s, tt.kind, "k"); got != "again" {
				t.Errorf("the row is %q after the next update", got)
			}
		})
	}
}

func TestUpdate_whose_group_never_finds_its_incarnation_is_an_error(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		var s *Store
		var armed atomic.Bool
		// The last moment at which another connection may move the streams.
		last := "begin"
		if h.cfg.PostgresURL != "" {
			last = "write"
		}
		h.cfg.Fault = func(point string) error {
			if point == last && armed.Load() {
				return s.engine.reincarnate(t.Context(), s.Incarnation(), newIncarnation())
			}
			return nil
		}
		s, _ = h.start(t)
		put(t, s, kindRec, "before", "x")
		armed.Store(true)
		err := s.Update(t.Context(), func(tx *Tx) error {
			tx.AfterCommit(func() { t.Error("told of a commit") })
			return tx.Put(kindRec, "k", []byte("v"))
		})
		armed.Store(false)
		if got := get(t, s, kindRec, "k"); err == nil || got != "" {
			t.Errorf("the row is %q, the update answered %v", got, err)
		}
		put(t, s, kindRec, "k", "again")
		if all := blocks(t, s, Changes); len(all) != 2 || all[1].Incarnation != s.Incarnation() {
			t.Errorf("blocks %+v", all)
		}
	})
}

func TestReincarnate_takes_every_stream_or_none(t *testing.T) {
	s, _ := home{Config{Dir: t.TempDir(), Region: "us-east-1"}, newTestKeys(t)}.start(t)
	put(t, s, kindRec, "r", "x")
	e := s.engine.(*sqliteEngine)
	if _, err := e.conn.ExecContext(t.Context(), `CREATE TRIGGER broken BEFORE UPDATE ON log_head
		WHEN new.stream = 'event' BEGIN SELECT RAISE(ABORT, 'broken'); END`); err != nil {
		t.Fatal(err)
	}
	if err := e.reincarnate(t.Context(), s.Incarnation(), newIncarnation()); err == nil {
		t.Fatal("the broken stream took a new incarnation")
	}
	for _, st := range streams {
		h, err := e.head(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		if h.incarnation != s.Incarnation() {
			t.Errorf("stream %s has taken the new incarnation alone", st)
		}
	}
	put(t, s, kindRec, "r", "y")
}

func TestBlocks_of_a_great_commit_can_be_read(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, stop := h.start(t)
		put(t, s, kindRec, "before", "x")
		const facts, factBytes, rows, rowBytes = 90, 1 << 20, 5, 5 << 20
		big := make([]byte, rowBytes)
		err := s.Update(t.Context(), func(tx *Tx) error {
			for i := range facts {
				fact := make([]byte, factBytes)
				fact[0] = byte(i)
				tx.Append(fact)
			}
			for i := range rows {
				if err := tx.Put(kindRec, fmt.Sprintf("big%d", i), big); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, kindRec, "after", "x")
		stop()
		s, _ = h.start(t)
		for st, want := range map[Stream]struct{ blocks, records int }{Events: {6, facts}, Changes: {4, rows + 2}} {
			all := blocks(t, s, st)
			if len(all) != want.blocks || s.Head(st) != int64(want.blocks) {
				t.Errorf("stream %s has %d blocks and head %d, want %d", st, len(all), s.Head(st), want.blocks)
			}
			records := 0
			for i, b := range all {
				size := 0
				for _, r := range b.Records {
					if st == Events && r[0] != byte(records) {
						t.Errorf("record %d is in the place of %d", r[0], records)
					}
					records++
					size += len(r)
				}
				if b.N != int64(i+1) || size > blockBytesMax {
					t.Errorf("stream %s: block %d is the %dth, of %d bytes", st, b.N, i+1, size)
				}
			}
			if records != want.records {
				t.Errorf("stream %s has %d records, want %d", st, records, want.records)
			}
		}
	})
}

func TestUpdate_with_a_record_above_the_bound_is_refused(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		for name, write := range map[string]func(tx *Tx, n int) error{
			"row":  func(tx *Tx, n int) error { return tx.Put(kindRec, "k", make([]byte, n)) },
			"fact": func(tx *Tx, n int) error { tx.Append(make([]byte, n)); return nil },
		} {
			for _, tt := range []struct {
				bytes int
				want  aws.Kind
			}{{blockBytesMax + 1, aws.KindTooLarge}, {blockBytesMax - 1<<10, 0}} {
				err := s.Update(t.Context(), func(tx *Tx) error {
					if err := tx.Put(kindLocal, "told", []byte(name)); err != nil {
						return err
					}
					return write(tx, tt.bytes)
				})
				if tt.want == 0 && err != nil || tt.want != 0 && aws.KindOf(err) != tt.want {
					t.Errorf("a %s of %d bytes: %v", name, tt.bytes, err)
				}
				if got := get(t, s, kindLocal, "told"); tt.want != 0 && got == name {
					t.Errorf("the refused update of a %s left a row behind", name)
				}
			}
		}
		for _, st := range []Stream{Changes, Events} {
			if all := blocks(t, s, st); len(all) != 1 {
				t.Errorf("stream %s has %d blocks, want 1", st, len(all))
			}
		}
	})
}

func TestTrim_is_not_undone_with_a_commit_that_is_under_way(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		var s *Store
		var armed atomic.Bool
		type outcome struct {
			removed int64
			err     error
		}
		trimmed := make(chan outcome, 1)
		h.cfg.Fault = func(point string) error {
			if point != "write" || !armed.CompareAndSwap(true, false) {
				return nil
			}
			go func() {
				n, err := s.Trim(t.Context(), Events, 3, time.Now().Add(time.Hour))
				trimmed <- outcome{n, err}
			}()
			// It has done its work, or waits for its turn.
			for len(s.requests) == 0 && len(trimmed) == 0 {
				runtime.Gosched()
			}
			return errors.New("no")
		}
		s, _ = h.start(t)
		fact := func() error {
			return s.Update(t.Context(), func(tx *Tx) error { tx.Append([]byte("fact")); return nil })
		}
		for range 5 {
			if err := fact(); err != nil {
				t.Fatal(err)
			}
		}
		armed.Store(true)
		if err := fact(); err == nil {
			t.Fatal("the commit was done")
		}
		if got := <-trimmed; got.err != nil || got.removed != 3 {
			t.Errorf("trim removed %d blocks, %v", got.removed, got.err)
		}
		if all := blocks(t, s, Events); len(all) != 2 || all[0].N != 4 {
			t.Errorf("%d blocks are left", len(all))
		}
	})
}

func TestTrim_removes_many_blocks_in_steps(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, _ := h.start(t)
		const facts = 2*trimMax + 10
		for range facts {
			if err := s.Update(t.Context(), func(tx *Tx) error { tx.Append([]byte("fact")); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := s.Trim(t.Context(), Events, facts-5, time.Now().Add(-time.Hour)); err != nil || n != 0 {
			t.Errorf("trim removed %d blocks that are not old enough, %v", n, err)
		}
		if n, err := s.Trim(t.Context(), Events, facts-5, time.Now().Add(time.Hour)); err != nil || n != facts-5 {
			t.Errorf("trim removed %d blocks, %v", n, err)
		}
		if all := blocks(t, s, Events); len(all) != 5 {
			t.Errorf("%d blocks are left, want 5", len(all))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := s.Trim(ctx, Events, facts, time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
			t.Errorf("trim by a caller that has left removed %d blocks, %v", n, err)
		}
	})
}

// When a commit failed, nothing of it goes on: what the caller handed over is the
// caller's again.
func TestUpdate_that_failed_lets_go_of_what_it_was_given(t *testing.T) {
	h := home{Config{Dir: t.TempDir(), Region: "us-east-1", Fault: func(point string) error {
		if point == "write" {
			return errors.New("no")
		}
		return nil
	}}, newTestKeys(t)}
	s, _ := h.start(t)
	fact := make([]byte, 4<<20)
	err := s.Update(t.Context(), func(tx *Tx) error {
		for range aloneMax + 1 {
			tx.Append(fact)
		}
		return nil
	})
	if err == nil {
		t.Fatal("the update did not fail")
	}
	for i := range fact { // under -race
		fact[i] = 1
	}
}

// Whoever still reads when the store ends hears an error, and no worse.
func TestBlocks_that_are_read_while_the_store_ends(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, stop := h.start(t)
		if err := s.Update(t.Context(), func(tx *Tx) error { tx.Append(make([]byte, 8<<20)); return nil }); err != nil {
			t.Fatal(err)
		}
		var readers sync.WaitGroup
		begun := make(chan struct{}, 8)
		for range cap(begun) {
			readers.Go(func() {
				for first := true; ; first = false {
					if _, err := s.Blocks(context.Background(), Events, 0, 1); err != nil {
						return
					}
					if first {
						begun <- struct{}{}
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		stop()
		readers.Wait()
	})
}

// A commit that failed though it was done may be the last for long: what it wrote
// is told nevertheless.
func TestHead_after_a_commit_whose_answer_was_lost(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		lost := false
		h.cfg.Fault = func(point string) error {
			if point == "committed" && lost {
				return errors.New("lost")
			}
			return nil
		}
		s, _ := h.start(t)
		lost = true
		before := s.Head(Events)
		if err := s.Update(t.Context(), func(tx *Tx) error { tx.Append([]byte("fact")); return nil }); err == nil {
			t.Fatal("the update did not fail")
		}
		if err := s.Wait(t.Context(), Events, before); err != nil {
			t.Fatal(err)
		}
	})
}

// A call that was admitted at an epoch of control writes at that epoch or not at
// all; others do not mind.
func TestUpdate_is_refused_when_control_has_moved(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		var epoch, moveAt atomic.Uint64
		epoch.Store(3)
		h.cfg.Fault = func(point string) error {
			if point == "commit" && moveAt.Load() > 0 {
				epoch.Store(moveAt.Swap(0))
			}
			return nil
		}
		s, _ := h.start(t)
		s.Control(epoch.Load)
		save := func(ctx context.Context, key string) error {
			return s.Update(ctx, func(tx *Tx) error { return Save(tx, kindDoc, key, &key) })
		}
		has := func(key string) bool {
			t.Helper()
			body, err := s.Reader(t.Context()).Get(kindDoc, key)
			if err != nil {
				t.Fatal(err)
			}
			return body != nil
		}
		at := func(n uint64) context.Context { return aws.WithControlEpoch(t.Context(), n) }
		if err := save(at(3), "admitted"); err != nil || !has("admitted") {
			t.Errorf("at the epoch that is: %v", err)
		}
		for _, n := range []uint64{2, 4} {
			if err := save(at(n), "refused"); aws.KindOf(err) != aws.KindUnavailable || has("refused") {
				t.Errorf("at epoch %d: %v", n, err)
			}
		}
		moveAt.Store(4)
		if err := save(at(3), "moved"); aws.KindOf(err) != aws.KindUnavailable || has("moved") {
			t.Errorf("when control moves during the commit: %v", err)
		}
		moveAt.Store(5)
		if err := save(t.Context(), "anybody"); err != nil || !has("anybody") {
			t.Errorf("what is not bound to an epoch: %v", err)
		}
		if err := save(aws.WithoutControlEpoch(at(3)), "left behind"); err != nil || !has("left behind") {
			t.Errorf("what a call leaves behind: %v", err)
		}
	})
}

// Opt-outs are accepted when the group cannot have them, and marked until it has;
// nothing else is.
func TestUpdate_of_opt_outs_is_accepted_and_marked(t *testing.T) {
	engines(t, func(t *testing.T, h home) {
		s, stop := h.start(t)
		var reached atomic.Bool
		group := func(context.Context, int64) error {
			if !reached.Load() {
				return aws.Unavailable("no majority")
			}
			return nil
		}
		s.Acknowledge(group)
		out := kindSafe
		out.OptOut = true
		put := func(kinds ...Kind) error {
			return s.Update(t.Context(), func(tx *Tx) error {
				for i, k := range kinds {
					if err := tx.Put(k, fmt.Sprint("k", i), []byte(fmt.Sprint(time.Now()))); err != nil {
						return err
					}
				}
				return nil
			})
		}
		for name, tt := range map[string]struct {
			kinds    []Kind
			accepted bool
		}{
			"an opt-out":                  {[]Kind{out}, true},
			"two, and a row of no stream": {[]Kind{out, out, kindLocal}, true},
			"other safety data":           {[]Kind{kindSafe}, false},
			"an opt-out and other":        {[]Kind{out, kindSafe}, false},
			"other and an opt-out":        {[]Kind{kindSafe, out}, false},
		} {
			if err := put(tt.kinds...); (err == nil) != tt.accepted || err != nil && aws.KindOf(err) != aws.KindUnavailable {
				t.Errorf("%s: %v", name, err)
			}
		}
		if m := s.Marked(); m.OptOuts != 3 || m.Since.IsZero() || m.Last == 0 || m.Last > s.Head(Safety) {
			t.Errorf("%+v, want three", m)
		}
		stop()
		s, _ = h.start(t)
		eventually := func(what string, want int) {
			t.Helper()
			deadline, tick := time.Now().Add(20*time.Second), time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for s.Marked().OptOuts != want {
				if <-tick.C; time.Now().After(deadline) {
					t.Fatalf("%s: %+v, want %d", what, s.Marked(), want)
				}
			}
		}
		eventually("in the next life", 3)
		s.Acknowledge(group)
		if err := put(out); err != nil {
			t.Error(err)
		}
		eventually("one more", 4)
		reached.Store(true)
		eventually("when the group has them", 0)
		if row, err := s.Reader(t.Context()).Get(kindMarked, markedKey); err != nil || row != nil {
			t.Errorf("the mark is %q, %v", row, err)
		}
	})
}
