package queue

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// waitingMax is how many of the tests that are parallel run at once: most of them
// wait in real time.
const waitingMax = 12

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) { // nobody asked for less
		if err := f.Value.Set(strconv.Itoa(waitingMax)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// region is a database and the nodes over it. On SQLite, in a bubble of virtual
// time, the nodes are queues over one store; on PostgreSQL, in real time, each
// has a store of its own.
type region struct {
	t    *testing.T
	url  string
	dir  string
	keys *store.Keys
	cfg  Config // of every queue, without the node
	one  *running

	mu    sync.Mutex
	fault func(node, point string) error
}

// running is a store that runs.
type running struct {
	store *store.Store
	stop  func()
}

// engines runs a test on SQLite and, when TEST_POSTGRES_URL is set, on PostgreSQL.
func engines(t *testing.T, test func(t *testing.T, r *region)) {
	t.Run("sqlite", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newRegion(t, "")) })
	})
	t.Run("postgres", func(t *testing.T) {
		if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
			test(t, newRegion(t, newDatabase(t, url)))
		} else {
			t.Log("TEST_POSTGRES_URL is not set: nothing to test")
		}
	})
}

func newRegion(t *testing.T, url string) *region {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	r := &region{t: t, url: url, dir: t.TempDir(), keys: keys}
	if url != "" {
		r.cfg = Config{LeaseTime: 900 * time.Millisecond, PollInterval: 50 * time.Millisecond, RetryDelay: 20 * time.Millisecond}
	}
	return r
}

// inject has the nodes' stores fail; nil stops that.
func (r *region) inject(f func(node, point string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// open opens and runs a store for a node.
func (r *region) open(name string) *running {
	r.t.Helper()
	st, err := store.Open(context.Background(), store.Config{
		Dir: r.dir + "/" + name, PostgresURL: r.url, Region: "us-east-1",
		Fault: func(point string) error {
			r.mu.Lock()
			f := r.fault
			r.mu.Unlock()
			if f == nil {
				return nil
			}
			return f(name, point)
		},
	}, r.keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	return &running{st, r.run(st.Run)}
}

// run runs what runs until it is stopped, or the test ends.
func (r *region) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("run: %v", err)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

// member is one node: a queue and the store it uses.
type member struct {
	r     *region
	name  string
	base  *running
	store *store.Store
	queue *Queue
	halt  func() // stops the queue
}

// node makes a node. Register handlers, then start it.
func (r *region) node(name string) *member {
	r.t.Helper()
	var base *running
	if r.url != "" {
		base = r.open(name)
	} else {
		if r.one == nil {
			r.one = r.open("one")
		}
		base = r.one
	}
	cfg := r.cfg
	cfg.Node = name
	seed := uint64(len(name))
	q := New(cfg, base.store, time.Now, rand.New(rand.NewPCG(seed, 1)), slog.New(slog.DiscardHandler))
	return &member{r: r, name: name, base: base, store: base.store, queue: q}
}

func (m *member) handle(kind string, workers int, do func(ctx context.Context, it *Item) error) *member {
	Handle(m.queue, kind, workers, do)
	return m
}

func (m *member) start() *member {
	m.halt = m.r.run(m.queue.Run)
	return m
}

// stop stops the node in good order.
func (m *member) stop() {
	if m.halt != nil {
		m.halt()
	}
	m.base.stop()
	if m.r.one == m.base {
		m.r.one = nil
	}
}

var errPower = errors.New("the power is off")

// crash ends the node without a chance to write anything.
func (m *member) crash() {
	m.r.inject(func(node, _ string) error {
		if m.r.url == "" || node == m.name {
			return errPower
		}
		return nil
	})
	m.stop()
	m.r.inject(nil)
}

func (m *member) enqueue(works ...Work) {
	m.r.t.Helper()
	for _, w := range works {
		m.update(func(tx *store.Tx) error { return m.queue.Enqueue(tx, w) }, Touch(w.Kind, w.ID))
	}
}

func (m *member) update(f func(tx *store.Tx) error, touch ...store.Touch) {
	m.r.t.Helper()
	if err := m.store.Update(context.Background(), f, touch...); err != nil {
		m.r.t.Fatal(err)
	}
}

func (m *member) depth() int {
	m.r.t.Helper()
	n, err := m.queue.Depth(m.store.Reader(context.Background()), 100000)
	if err != nil {
		m.r.t.Fatal(err)
	}
	return n
}

// eventually waits until a condition holds.
func (r *region) eventually(what string, cond func() bool) {
	r.t.Helper()
	most, look := time.Hour, 50*time.Millisecond
	if r.url != "" {
		most, look = time.Minute, 5*time.Millisecond
	}
	deadline := time.After(most)
	for !cond() {
		select {
		case <-deadline:
			r.t.Fatalf("after %s still not so: %s", most, what)
		case <-time.After(look):
		}
	}
}

var kindEffect = store.Kind{Name: "effect", Rule: changelog.RuleLocal}

// effect counts, in an update, what work has brought about.
func effect(tx *store.Tx, id string) error {
	body, err := tx.Get(kindEffect, id)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(body))
	return tx.Put(kindEffect, id, []byte(strconv.Itoa(n+1)))
}

func effectTouch(id string) store.Touch { return store.Touch{Kind: kindEffect, Key: id} }

// effects reads how often each piece of work had its effect.
func (m *member) effects() map[string]int {
	m.r.t.Helper()
	rows, err := m.store.Reader(context.Background()).List(kindEffect, "", "", 100000)
	if err != nil {
		m.r.t.Fatal(err)
	}
	out := map[string]int{}
	for _, row := range rows {
		out[row.Key], _ = strconv.Atoi(string(row.Body))
	}
	return out
}

var databases atomic.Int64

// newDatabase makes an empty database on the server for one test.
func newDatabase(t testing.TB, url string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	name := fmt.Sprintf("queue_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	c := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", c.User, c.Password, name, c.Host, c.Port)
}
