package group

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

var kindSafe = store.Kind{Name: "safe", Rule: changelog.RuleAppend, Safety: true}

const (
	removeAfter = 400 * time.Millisecond
	leaseTime   = time.Second
)

// world is Regions and a witness that hear of each other over HTTP/2 on loopback.
type world struct {
	t       *testing.T
	keys    *store.Keys
	members map[string]*member
}

// member is a Region or the witness; it can be stopped and started.
type member struct {
	w      *world
	name   string
	dir    string
	server *httptest.Server

	mu      sync.Mutex
	handler http.Handler // nil: it does not answer
	network context.Context
	unplug  context.CancelFunc
	mux     http.Handler
	deaf    bool // it is cut off from the quorum alone

	store  *store.Store
	quorum *quorum.Quorum
	group  *Group
	cancel context.CancelFunc
	done   chan struct{}
}

// called says in a header who calls, as certificates do elsewhere.
type called struct {
	by   *member
	next http.RoundTripper
}

func (c called) RoundTrip(req *http.Request) (*http.Response, error) {
	c.by.mu.Lock()
	network := c.by.network
	deaf := c.by.deaf && strings.HasPrefix(req.URL.Path, quorum.Path)
	c.by.mu.Unlock()
	if network.Err() != nil || deaf {
		return nil, errors.New("cut off")
	}
	ctx, cancel := context.WithCancel(req.Context())
	context.AfterFunc(network, cancel)
	req = req.Clone(ctx)
	req.Header.Set("Caller", c.by.name)
	return c.next.RoundTrip(req)
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, keys: keys, members: map[string]*member{}}
	for _, name := range append(names, "witness") {
		m := &member{w: w, name: name, dir: t.TempDir()}
		m.server = httptest.NewUnstartedServer(http.HandlerFunc(m.serve))
		m.server.EnableHTTP2 = true
		m.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		m.server.StartTLS()
		t.Cleanup(m.server.Close)
		w.members[name] = m
	}
	for _, m := range w.members {
		m.start()
		t.Cleanup(m.stop)
	}
	w.until("everybody votes", func() bool {
		state, _ := w.members["witness"].quorum.State()
		voting := 0
		for _, v := range state.Voters {
			if !v.Learner {
				voting++
			}
		}
		return voting == len(w.members)
	})
	return w
}

func (m *member) serve(w http.ResponseWriter, req *http.Request) {
	m.mu.Lock()
	h := m.handler
	deaf := m.deaf && strings.HasPrefix(req.URL.Path, quorum.Path)
	m.mu.Unlock()
	if h == nil || deaf {
		panic(http.ErrAbortHandler)
	}
	h.ServeHTTP(w, req)
}

func (m *member) answer(h http.Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handler = h
}

func (m *member) start() {
	t := m.w.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	m.mu.Lock()
	m.network, m.unplug = context.WithCancel(context.Background())
	m.mu.Unlock()
	m.store, err = store.Open(context.Background(), store.Config{Dir: m.dir, Region: m.name}, m.w.keys, time.Now, log)
	must(err)
	peers := map[string]string{}
	var others []replica.Peer
	for name, o := range m.w.members {
		peers[name] = o.server.URL
		if name != m.name && name != "witness" {
			others = append(others, replica.Peer{Region: name, URL: o.server.URL})
		}
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // both ends are this test
	}
	client := &http.Client{Transport: called{m, transport}}
	m.quorum, err = quorum.New(quorum.Config{
		Name: m.name, Witness: m.name == "witness", Node: "n1", Peers: peers, Founder: "witness", Tick: 20 * time.Millisecond, LeaseTime: leaseTime,
	}, m.store, client, time.Now, rand.New(rand.NewPCG(rand.Uint64(), 7)), log) // ids of proposals are made of it
	must(err)
	runs := []func(context.Context) error{m.quorum.Run}
	mux := http.NewServeMux()
	mux.Handle(quorum.Path, m.quorum.Handler())
	if m.name != "witness" {
		m.group = New(Config{Region: m.name, RemoveAfter: removeAfter, Interval: 20 * time.Millisecond}, m.store, m.quorum, time.Now, log)
		r, err := replica.New(replica.Config{
			Region: m.name, Node: "n1", Peers: others, Group: m.group.Together, Index: m.group.Index, Late: m.group.Late, Member: m.group.Member,
			Caller:    func(req *http.Request) (string, error) { return req.Header.Get("Caller"), nil },
			Heartbeat: 20 * time.Millisecond, Timeout: 300 * time.Millisecond, LateAfter: 400 * time.Millisecond, AckMax: 20 * time.Second,
			LeaseTime: 300 * time.Millisecond, RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
		}, m.store, client, time.Now, log)
		must(err)
		m.group.Follow(r)
		m.store.Acknowledge(r.Acknowledge)
		mux.Handle("/", r.Handler())
		runs = append(runs, r.Run, m.group.Run, m.quorum.KeepLease)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan struct{})
	var all sync.WaitGroup
	for _, run := range runs {
		all.Go(func() { _ = run(ctx) })
	}
	done := m.done
	storing, closeStore := context.WithCancel(context.Background())
	stored := make(chan error, 1)
	go func() { stored <- m.store.Run(storing) }()
	go func() {
		defer close(done)
		all.Wait()
		closeStore()
		<-stored
		transport.CloseIdleConnections()
	}()
	m.mux = mux
	m.answer(mux)
}

// cut takes the member's network away, or gives it back.
func (m *member) cut(off bool) {
	m.mu.Lock()
	if off {
		m.unplug()
		m.handler = nil
	} else {
		m.network, m.unplug = context.WithCancel(context.Background())
		m.handler = m.mux
	}
	m.mu.Unlock()
	if off {
		m.server.CloseClientConnections()
	}
}

// die stops the member without a word to the others.
func (m *member) die() {
	m.cut(true)
	m.stop()
}

// stop ends the member at once for the others, and its store in good order.
func (m *member) stop() {
	m.answer(nil)
	m.server.CloseClientConnections()
	m.cancel()
	<-m.done
}

func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-deadline:
			for _, m := range w.members {
				state, index := m.quorum.State()
				w.t.Logf("%s at %d: regions %+v; %+v", m.name, index, state.Regions, m.quorum.Status())
			}
			w.t.Fatalf("not so after 30 s: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// set waits until the witness knows the in-sync set.
func (w *world) set(want ...string) {
	w.t.Helper()
	w.until(fmt.Sprint("the set is ", want), func() bool {
		state, _ := w.members["witness"].quorum.State()
		return slices.Equal(state.Set(), want)
	})
}

func (m *member) put(ctx context.Context, key string) error {
	return m.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(kindSafe, key, []byte("x")) }, store.Touch{Kind: kindSafe, Key: key})
}

func (m *member) has(key string) bool {
	m.w.t.Helper()
	row, err := m.store.Reader(context.Background()).Get(kindSafe, key)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return row != nil
}

func TestGroup_goes_on_without_a_Region_and_takes_it_back(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.set("a", "b")
	a, b := w.members["a"], w.members["b"]
	if err := a.put(t.Context(), "together"); err != nil || !b.has("together") {
		t.Fatalf("acknowledged %v, and b has it: %v", err, b.has("together"))
	}
	b.stop()
	// Nobody is told that it is done before b is out of the set.
	if err := a.put(t.Context(), "alone"); err != nil {
		t.Fatal(err)
	}
	if state, _ := a.quorum.State(); state.Regions["b"].InSync || state.Regions["b"].Reason == "" {
		t.Errorf("acknowledged with b %+v", state.Regions["b"])
	}
	b.start()
	w.set("a", "b")
	if !b.has("alone") {
		t.Error("b is in the set and lacks what was acknowledged before")
	}
	if err := b.put(t.Context(), "again"); err != nil || !a.has("again") {
		t.Errorf("acknowledged %v, and a has it: %v", err, a.has("again"))
	}
}

func TestGroup_without_a_majority_refuses(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.set("a", "b")
	w.members["b"].stop()
	w.members["witness"].stop()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := w.members["a"].put(ctx, "x"); err == nil {
		t.Error("a write was acknowledged by one of two Regions, and nobody removed the other")
	}
	// One that starts again does not go by the set on its disk.
	w.members["a"].stop()
	w.members["a"].start()
	if all, err := w.members["a"].group.Together(); err == nil {
		t.Errorf("after a start, without the quorum, %v", all)
	}
}

// TestGroup_keeps_what_it_acknowledged: one Region stops and comes back while the
// other writes on; as soon as it is in the set again, the writer is lost. What the
// writer's callers were told is there is there.
func TestGroup_keeps_what_it_acknowledged(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	w := newWorld(t, "a", "b")
	rnd := rand.New(rand.NewPCG(11, 11))
	for round := range rounds {
		writer, other := w.members["a"], w.members["b"]
		if round%2 == 1 {
			writer, other = other, writer
		}
		w.set("a", "b")
		writing, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		var told []string
		var writers sync.WaitGroup
		for i := range 4 {
			writers.Go(func() {
				for n := 0; writing.Err() == nil; n++ {
					key := fmt.Sprintf("%d/%d/%d", round, i, n)
					if err := writer.put(writing, key); err == nil {
						mu.Lock()
						told = append(told, key)
						mu.Unlock()
					} else if writing.Err() == nil && !errors.Is(err, context.Canceled) {
						t.Errorf("write refused: %v", err)
						return
					}
				}
			})
		}
		pause := func() { <-time.After(time.Duration(rnd.IntN(100)) * time.Millisecond) }
		more := func() {
			mu.Lock()
			was := len(told)
			mu.Unlock()
			w.until("writes are acknowledged", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(told) > was
			})
		}
		more()
		pause()
		other.stop()
		pause()
		if rnd.IntN(2) == 0 {
			w.set(writer.name)
			more()
		}
		other.start()
		w.set("a", "b")
		pause()
		stop()
		writer.stop()
		writers.Wait()
		missing := 0
		for _, key := range told {
			if !other.has(key) {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("round %d: %d of %d acknowledged writes are not there", round, missing, len(told))
		}
		writer.start()
	}
}

// notes is a quorum and a replica that only write down what they are asked.
type notes struct {
	state quorum.State
	asked []string
	deaf  bool  // b does not hear a
	late  error // of CatchUp
	away  error // of Propose
	apart bool  // a was away from b for too long
	other bool  // another node speaks for the Region
}

func (n *notes) Speaks() (uint64, bool) { return 0, !n.other }

func (n *notes) State() (quorum.State, uint64) { return n.state, 40 }

func (n *notes) Wait(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

func (n *notes) Member(string, string) uint64            { return 0 }
func (n *notes) Lease() (uint64, time.Duration, bool)    { return 0, 0, false }
func (n *notes) Reason() string                          { return "" }
func (n *notes) Handshake(context.Context, uint64) error { return nil }

func (n *notes) Propose(_ context.Context, c quorum.Command) (quorum.Result, error) {
	n.asked = append(n.asked, fmt.Sprintf("%T %+v", c, c))
	return quorum.Result{Index: 41, Epoch: 5}, n.away
}

func (n *notes) Status() []replica.Status {
	return []replica.Status{{
		Region: "b", Incarnation: "b1", Heard: time.Now(), Mine: true, Hears: !n.deaf, Apart: n.apart,
		Streams: map[store.Stream]replica.StreamStatus{store.Safety: {Merged: 990, Head: 1000}, store.Changes: {Merged: 1, Head: 1}},
	}}
}

func (n *notes) CatchUp(_ context.Context, others map[string]string, index uint64) error {
	n.asked = append(n.asked, fmt.Sprint("catch up with ", others, " at ", index))
	return n.late
}

// TestGroup_the_way_back: others wait for the Region before it looks how far it
// has to catch up, and it returns by that attempt alone.
func TestGroup_the_way_back(t *testing.T) {
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "a"}, newKeys(t), time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- st.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	me := st.Incarnation()
	join := "quorum.Join {Region:a Incarnation:" + me + " Was:" + me + " Force:false}"
	await := "quorum.Await {Region:a Incarnation:" + me + "}"
	catch := "catch up with map[b:b1] at 41"
	back := "quorum.Return {Region:a Incarnation:" + me + " Attempt:5 SetEpoch:9}"
	for _, tt := range []struct {
		name       string
		n          notes
		near       int64
		incarnated string
		want       []string
	}{
		{name: "near", want: []string{join, await, catch, back}},
		{name: "far", near: 5, want: []string{join}},
		{name: "not heard", n: notes{deaf: true}, want: []string{join}},
		{name: "not in time", n: notes{late: context.DeadlineExceeded}, want: []string{join, await, catch}},
		{name: "no majority", n: notes{away: errors.New("no majority")}, want: []string{join, join}},
		{name: "another incarnation", incarnated: "b2", want: []string{join}},
		{name: "away for too long", n: notes{apart: true}, want: []string{join}},
		{name: "another node speaks", n: notes{other: true}, want: []string{join}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := "b1"
			if tt.incarnated != "" {
				other = tt.incarnated
			}
			tt.n.state = quorum.State{SetEpoch: 9, Regions: map[string]quorum.Region{
				"a": {Incarnation: me, Reason: "was away"}, "b": {Incarnation: other, InSync: true},
			}}
			g := New(Config{Region: "a", NearBlocks: tt.near}, st, &tt.n, time.Now, slog.New(slog.DiscardHandler))
			g.Follow(&tt.n)
			if _, err := g.Together(); err == nil || g.Index() != 0 {
				t.Error("a node that has not heard of the quorum knows the set")
			}
			g.Late("b") // a write of an earlier stay waits for b
			var place keeping
			for range 2 {
				_ = g.look(t.Context(), &place)
			}
			if !slices.Equal(tt.n.asked, tt.want) {
				t.Errorf("asked\n%q\nwant\n%q", tt.n.asked, tt.want)
			}
			if returned := slices.Contains(tt.n.asked, back); returned && len(g.late) > 0 {
				t.Error("having returned it removes b for what waited before")
			}
		})
	}
}

func newKeys(t *testing.T) *store.Keys {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
