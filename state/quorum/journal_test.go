package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/everpoint/everpoint/state/store"
)

// engines runs a test on SQLite in a bubble of virtual time and, when
// TEST_POSTGRES_URL is set, on PostgreSQL in real time.
func engines(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, "") })
	})
	t.Run("postgres", func(t *testing.T) {
		if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
			test(t, newDatabase(t, url))
		} else {
			t.Log("TEST_POSTGRES_URL is not set: nothing to test")
		}
	})
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
	name := fmt.Sprintf("quorum_%d_%d", os.Getpid(), databases.Add(1))
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

// base is a Region's database: what there is to open a store with.
type base struct {
	t    *testing.T
	dir  string
	url  string
	keys *store.Keys

	mu    sync.Mutex
	fault func(point string) error
}

func newBase(t *testing.T, url string) *base {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return &base{t: t, dir: t.TempDir(), url: url, keys: keys}
}

func (b *base) inject(f func(point string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

// open opens and runs a store for a node; stop may be called again.
func (b *base) open(node string) (st *store.Store, stop func()) {
	b.t.Helper()
	st, err := store.Open(context.Background(), store.Config{
		Dir: b.dir + "/" + node, PostgresURL: b.url, Region: "us-east-1",
		Fault: func(point string) error {
			b.mu.Lock()
			f := b.fault
			b.mu.Unlock()
			if f == nil {
				return nil
			}
			return f(point)
		},
	}, b.keys, time.Now, newWorld(b.t, 1).log())
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				b.t.Errorf("store: %v", err)
			}
		})
	}
	b.t.Cleanup(stop)
	return st, stop
}

// entries makes entries from..to of a term.
func entries(term, from, to uint64) []*pb.Entry {
	var all []*pb.Entry
	for i := from; i <= to; i++ {
		all = append(all, &pb.Entry{Index: new(i), Term: new(term), Data: fmt.Appendf(nil, "%d.%d", term, i)})
	}
	return all
}

// indexes is a log as text: term.index of each entry.
func indexes(all []*pb.Entry) (s []string) {
	for _, e := range all {
		s = append(s, string(e.GetData()))
	}
	return s
}

func TestJournal_keeps_what_it_was_told(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		b := newBase(t, url)
		st, stop := b.open("n1")
		j, ctx := rows{st}, t.Context()
		if row, err := j.identity(ctx); row != nil || err != nil {
			t.Fatalf("a new store has %+v, %v", row, err)
		}
		id, err := j.take(ctx, nil, claim{Name: "a", Node: "n1", URL: "http://n1", Life: "l1"})
		if err != nil || id.Generation != 1 || id.ID == 0 || id.Incarnation != st.Incarnation() || !id.fresh() {
			t.Fatalf("got %+v, %v", id, err)
		}
		expect := func(want identity, image string, log ...string) {
			t.Helper()
			row, err := j.identity(ctx)
			if err != nil || *row != want {
				t.Fatalf("the row is %+v, want %+v (%v)", row, want, err)
			}
			i, e, err := j.load(ctx, row.First, 0)
			if err != nil || string(i) != image || !slices.Equal(indexes(e), log) {
				t.Fatalf("image %q, log %v, want %q, %v (%v)", i, indexes(e), image, log, err)
			}
		}
		save := func(c change) {
			t.Helper()
			if err := j.save(ctx, id, c); err != nil {
				t.Fatal(err)
			}
		}
		save(change{Term: 1, Vote: 5, Commit: 0, Cluster: "c", Entries: entries(1, 1, 6)})
		expect(*id, "", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6")
		save(change{Term: 2, Vote: 6, Commit: 3, Cluster: "c", Entries: entries(2, 4, 5)}) // a new leader's replace others'
		expect(*id, "", "1.1", "1.2", "1.3", "2.4", "2.5")
		save(change{Term: 2, Vote: 6, Commit: 4, Cluster: "c", Image: []byte("at 4"), ImageIndex: 4})
		expect(*id, "at 4", "2.5")
		save(change{Term: 3, Vote: 0, Commit: 9, Cluster: "c", Image: []byte("at 9"), ImageIndex: 9, Reset: true, Entries: entries(3, 10, 11)})
		expect(*id, "at 9", "3.10", "3.11")
		if id.Term != 3 || id.Vote != 0 || id.Commit != 9 || id.First != 9 || id.Last != 11 || id.Cluster != "c" {
			t.Fatalf("the row is %+v", id)
		}
		if url == "" {
			stop()
			st, _ = b.open("n1")
			j = rows{st}
			expect(*id, "at 9", "3.10", "3.11")
		}
		// A new life has no log, and another id.
		again, err := j.take(ctx, id, claim{Name: "a", Node: "n1", Life: "l2", Rebirth: true})
		if err != nil || again.ID == id.ID || !again.fresh() || again.Cluster != "" || again.Generation != 2 {
			t.Fatalf("got %+v, %v", again, err)
		}
		expect(*again, "")
	})
}

func TestJournal_only_the_node_of_the_generation_writes(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		b := newBase(t, url)
		st1, _ := b.open("n1")
		st2 := st1
		if url != "" {
			st2, _ = b.open("n2")
		}
		j1, j2, ctx := rows{st1}, rows{st2}, t.Context()
		id1, err := j1.take(ctx, nil, claim{Name: "a", Node: "n1", Life: "l1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j2.take(ctx, nil, claim{Name: "a", Node: "n2", Life: "l2"}); !errors.Is(err, errFenced) {
			t.Fatalf("a second node took a voter that it had not seen: %v", err)
		}
		seen, err := j2.identity(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := j1.save(ctx, id1, change{Term: 4, Vote: 9}); err != nil {
			t.Fatal(err)
		}
		if _, err := j2.take(ctx, seen, claim{Name: "a", Node: "n2", Life: "l2"}); !errors.Is(err, errFenced) {
			t.Fatalf("a node took a voter that had written meanwhile: %v", err)
		}
		id2, err := j2.take(ctx, id1, claim{Name: "a", Node: "n2", Life: "l2"})
		if err != nil || id2.ID != id1.ID || id2.Vote != 9 || id2.Term != 4 {
			t.Fatalf("got %+v, %v: want the same voter with its vote", id2, err)
		}
		before := *id1
		if err := j1.save(ctx, id1, change{Term: 4, Vote: 7}); !errors.Is(err, errFenced) || *id1 != before {
			t.Fatalf("the node of the older generation wrote: %v", err)
		}
		if err := j2.save(ctx, id2, change{Term: 5, Vote: 9}); err != nil {
			t.Fatal(err)
		}
		// Somebody puts an older row there: the node that wrote newer ones notices.
		if err := st2.Update(ctx, func(tx *store.Tx) error { return store.Save(tx, kindVoter, rowKey, &before) }); err != nil {
			t.Fatal(err)
		}
		if err := j2.save(ctx, id2, change{Term: 5, Vote: 9}); !errors.Is(err, errWentBack) {
			t.Fatalf("got %v, want errWentBack", err)
		}
	})
}

// TestJournal_many_nodes_take_turns has nodes take the voter from each other as
// fast as they can: each write is of the generation that is in the row.
func TestJournal_many_nodes_take_turns(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		b := newBase(t, url)
		var stores []*store.Store
		for i := range 3 {
			if i == 0 || url != "" {
				st, _ := b.open(fmt.Sprint("n", i))
				stores = append(stores, st)
			}
		}
		var mu sync.Mutex
		votes := map[uint64]string{} // term → which node voted
		var busy sync.WaitGroup
		for i := range 3 {
			j, node := rows{stores[i%len(stores)]}, fmt.Sprint("n", i)
			busy.Go(func() {
				for range 15 {
					row, err := j.identity(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					id, err := j.take(t.Context(), row, claim{Name: "a", Node: node, Life: node})
					if err != nil {
						continue
					}
					for range 3 {
						if err := j.save(t.Context(), id, change{Term: id.Term + 1, Vote: uint64(i + 1)}); err != nil {
							break
						}
						mu.Lock()
						if by, ok := votes[id.Term]; ok {
							t.Errorf("%s and %s both voted in term %d", by, node, id.Term)
						}
						votes[id.Term] = node
						mu.Unlock()
					}
				}
			})
		}
		busy.Wait()
		row, err := rows{stores[0]}.identity(t.Context())
		if err != nil || row.Term < uint64(len(votes)) || len(votes) == 0 {
			t.Errorf("%d votes, the row is %+v, %v", len(votes), row, err)
		}
	})
}

// TestQuorum_over_stores_crashes_at_every_point plays the real journal: a store of
// SQLite for each voter, which fails at one of its points and whose process then
// starts again.
func TestQuorum_over_stores_crashes_at_every_point(t *testing.T) {
	for _, point := range []string{"begin", "write", "commit", "committed"} {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 6, "a", "b", "witness")
				bases, stops := map[string]*base{}, map[string]func(){}
				start := func(m *member) {
					st, stop := bases[m.name].open("n1")
					stops[m.name] = stop
					m.run(rows{st})
				}
				for _, m := range w.all() {
					bases[m.name] = newBase(t, "")
					start(m)
				}
				defer func() {
					w.rest()
					for _, stop := range stops {
						stop()
					}
				}()
				voters := func() bool {
					for _, m := range w.all() {
						st, _ := m.q.State()
						if len(st.Voters) != 3 {
							return false
						}
						for _, v := range st.Voters {
							if v.Learner {
								return false
							}
						}
					}
					return w.leader() != nil
				}
				w.until("the group forms", 30*time.Second, voters)
				w.members["a"].do(Join{Region: "a", Incarnation: "1"})
				rng := rand.New(rand.NewPCG(1, 2))
				done := uint64(0)
				for i := range 9 {
					m := w.all()[i%3]
					lead := w.leader()
					if i%2 == 0 && lead != nil {
						m = lead
					}
					count := rng.IntN(6)
					broken := make(chan struct{})
					bases[m.name].inject(func(at string) error {
						if count--; at == point && count < 0 {
							select {
							case <-broken:
							default:
								close(broken)
							}
							return errors.New("the process dies")
						}
						return nil
					})
					other := w.all()[(i+1)%3]
					for range 8 {
						if _, err := other.q.Propose(t.Context(), grant("k")); err != nil {
							done = 1 << 32 // who knows
							break
						}
						done++
						select {
						case <-broken:
						default:
							continue
						}
						break
					}
					<-broken
					m.kill()
					stops[m.name]()
					bases[m.name].inject(nil)
					start(m)
					w.until("all agree", 30*time.Second, func() bool { return voters() && w.agree() })
					st, _ := m.q.State()
					if n := st.Shares["k"]["a"]; done < 1<<32 && n != done || n == 0 {
						t.Fatalf("%d commands were answered, %d are there", done, n)
					} else {
						done = n
					}
				}
			})
		})
	}
}

// TestQuorum_over_postgres_nodes_share_a_voter is a Region of two nodes over one
// database, in real time: the second follows, and votes when the first is gone.
func TestQuorum_over_one_database_nodes_share_a_voter(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		b := newBase(t, url)
		w := newWorld(t, 8, "a")
		w.cfg.Tick, w.cfg.Takeover = 20*time.Millisecond, 600*time.Millisecond
		first, second := w.members["a"], &member{w: w, host: "a2", name: "a"}
		w.members["a2"] = second
		st1, _ := b.open("n1")
		st2 := st1
		if url != "" {
			st2, _ = b.open("n2")
		}
		defer w.rest()
		first.run(rows{st1})
		reach := func(what string, ok func() bool) {
			t.Helper()
			limit, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for tick := time.NewTicker(10 * time.Millisecond); !ok(); {
				select {
				case <-tick.C:
				case <-limit.Done():
					t.Fatalf("not reached: %s", what)
				}
			}
		}
		reach("the first leads", func() bool { return first.q.Status().Role == Leader })
		second.run(rows{st2})
		reach("the second follows", func() bool { return second.q.Status().Role == Following })
		second.do(Join{Region: "a", Incarnation: "1"})
		for range 20 {
			second.do(grant("k"))
		}
		first.kill()
		reach("the second leads", func() bool { return second.q.Status().Role == Leader })
		second.do(grant("k"))
		if st, _ := second.q.State(); st.Shares["k"]["a"] != 21 {
			t.Errorf("shares %v", st.Shares)
		}
	})
}
