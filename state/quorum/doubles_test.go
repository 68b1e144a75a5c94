package quorum

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"
)

// disk is a journal in memory that survives the process: what a handle wrote
// before it was cut off is there for the next.
type disk struct {
	mu          sync.Mutex
	row         *identity
	image       []byte
	entries     []*pb.Entry // after row.First
	incarnation string
	forgetful   bool // planted: a restart forgets the vote
}

func newDisk(incarnation string) *disk { return &disk{incarnation: incarnation} }

// handle is the disk as one process has it.
type handle struct {
	*disk
	dead  bool
	fault func(point string) error // asked "before" and "after" each write; may be nil
}

var errDead = errors.New("the process is dead")

func (d *disk) open() *handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.forgetful && d.row != nil {
		d.row.Vote = 0
	}
	return &handle{disk: d}
}

func (h *handle) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
}

func (h *handle) identity(context.Context) (*identity, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil, errDead
	}
	if h.row == nil {
		return nil, nil
	}
	c := *h.row
	return &c, nil
}

// write runs f, which changes the disk, between the two points where it can fail.
func (h *handle) write(f func() error) error {
	time.Sleep(2 * time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return errDead
	}
	if h.fault != nil {
		if err := h.fault("before"); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	if h.fault != nil {
		return h.fault("after")
	}
	return nil
}

func (h *handle) take(_ context.Context, seen *identity, by claim) (*identity, error) {
	var taken *identity
	err := h.write(func() error {
		if (h.row == nil) != (seen == nil) || seen != nil && (h.row.Generation != seen.Generation || h.row.Beat != seen.Beat) {
			return errFenced
		}
		taken = by.next(h.row, h.incarnation)
		if h.row == nil || taken.Life != h.row.Life {
			h.image, h.entries = nil, nil
		}
		c := *taken
		h.row = &c
		return nil
	})
	return taken, err
}

func (h *handle) load(_ context.Context, after uint64, limit int) ([]byte, []*pb.Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil, nil, errDead
	}
	var some []*pb.Entry
	for _, e := range h.entries {
		if e.GetIndex() > after && (limit == 0 || len(some) < limit) {
			some = append(some, e)
		}
	}
	return h.image, some, nil
}

func (h *handle) save(_ context.Context, now *identity, c change) error {
	next := now.after(c)
	err := h.write(func() error {
		if err := now.stands(h.row, h.incarnation); err != nil {
			return err
		}
		if c.Image != nil {
			h.image = c.Image
			h.entries = slices.DeleteFunc(h.entries, func(e *pb.Entry) bool { return c.Reset || e.GetIndex() <= c.ImageIndex })
		}
		if len(c.Entries) > 0 {
			h.entries = slices.DeleteFunc(slices.Clone(h.entries), func(e *pb.Entry) bool { return e.GetIndex() >= c.Entries[0].GetIndex() })
			h.entries = append(h.entries, c.Entries...)
		}
		row := next
		h.row = &row
		return nil
	})
	if err == nil {
		*now = next
	}
	return err
}

// world is voters, and the network between them.
type world struct {
	t     *testing.T
	cfg   Config // of every voter, without name and node
	judge *judge

	mu      sync.Mutex
	rng     *rand.Rand
	members map[string]*member // by host
	cut     map[[2]string]bool // from one voter to another
	delay   time.Duration      // at most, for each way of a request
	late    bool               // requests may arrive after their caller gave up, and twice
}

// member is a node: a process that can be killed, and its disk.
type member struct {
	w     *world
	host  string // its address; the voter's name unless the voter has several nodes
	name  string
	disk  *disk
	q     *Quorum
	h     *handle
	stop  func()
	lives int
}

func newWorld(t *testing.T, seed uint64, names ...string) *world {
	w := &world{
		t: t, judge: newJudge(), rng: rand.New(rand.NewPCG(seed, 7)), members: map[string]*member{}, cut: map[[2]string]bool{},
		cfg: Config{Peers: map[string]string{}},
	}
	for _, name := range names {
		w.cfg.Peers[name] = "http://" + name
	}
	for _, name := range names {
		w.members[name] = &member{w: w, host: name, name: name, disk: newDisk(name + "-1")}
	}
	return w
}

func (w *world) log() *slog.Logger {
	if os.Getenv("QUORUM_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return slog.New(slog.DiscardHandler)
}

// start starts a member that is not running.
func (m *member) start() *member {
	m.w.t.Helper()
	m.h = m.disk.open()
	m.run(m.h)
	return m
}

func (m *member) run(j journal) {
	cfg := m.w.cfg
	cfg.Name, cfg.Node, cfg.URL = m.name, m.host+"-node", "http://"+m.host
	cfg.Witness = m.name == "witness"
	m.lives++
	m.w.mu.Lock()
	seed := m.w.rng.Uint64()
	m.w.mu.Unlock()
	client := clientOf(m.w, m.name)
	q, err := newQuorum(cfg, j, client, time.Now, rand.New(rand.NewPCG(seed, uint64(m.lives))), m.w.log())
	if err != nil {
		m.w.t.Fatal(err)
	}
	q.applied = m.w.judge.applied
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := q.Run(ctx); err != nil {
			m.w.t.Errorf("run %s: %v", m.host, err)
		}
	}()
	m.w.mu.Lock()
	m.q = q
	m.w.mu.Unlock()
	m.stop = func() { cancel(); <-done }
}

// kill ends a member at once: nothing that it does later is durable.
func (m *member) kill() {
	if m.q == nil {
		return
	}
	if m.h != nil {
		m.h.kill()
	}
	m.w.mu.Lock()
	m.q = nil
	m.w.mu.Unlock()
	m.stop()
}

func (m *member) alive() bool { return m.q != nil }

// lose replaces the disk by an empty one.
func (m *member) lose() {
	m.kill()
	m.disk = newDisk(fmt.Sprintf("%s-%d", m.name, m.lives+1))
}

func (w *world) startAll() {
	for _, m := range w.all() {
		m.start()
	}
}

// all is the members in the order of their hosts.
func (w *world) all() []*member {
	var all []*member
	for _, m := range w.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return bytes.Compare([]byte(a.host), []byte(b.host)) })
	return all
}

func (w *world) stopAll() {
	for _, m := range w.all() {
		m.kill()
	}
	time.Sleep(lateMax + 2*w.delay) // what is still on its way arrives nowhere
}

// sever cuts or mends the network between a voter and all others.
func (w *world) sever(name string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for other := range w.cfg.Peers {
		if other != name {
			w.cut[[2]string{name, other}], w.cut[[2]string{other, name}] = cut, cut
		}
	}
}

func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
}

// until waits, in virtual time, until the condition holds.
func (w *world) until(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			for _, m := range w.all() {
				if m.alive() {
					st, n := m.q.State()
					w.t.Logf("%s: %+v at %d: voters %v", m.host, m.q.Status(), n, st.Voters)
				}
			}
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leader is the member that leads, if exactly one says so.
func (w *world) leader() *member {
	var leads *member
	for _, m := range w.all() {
		if m.alive() && m.q.Status().Role == Leader {
			if leads != nil {
				return nil
			}
			leads = m
		}
	}
	return leads
}

// formed says that every voter has its vote, everywhere.
func (w *world) formed() bool {
	if w.leader() == nil {
		return false
	}
	for _, m := range w.all() {
		if !m.alive() {
			return false
		}
		st, _ := m.q.State()
		if len(st.Voters) != len(w.cfg.Peers) || st.Voters[m.name].ID != m.disk.id() {
			return false
		}
		for _, v := range st.Voters {
			if v.Learner {
				return false
			}
		}
	}
	return true
}

func (d *disk) id() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.row == nil {
		return 0
	}
	return d.row.ID
}

// forget plants the fault, or takes it away.
func (d *disk) forget(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetful = yes
}

// slow sets how long messages take at most, and whether they may outlive their
// callers.
func (w *world) slow(delay time.Duration, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.late = delay, late
}

const lateMax = 2 * time.Second // how long a request without a caller is served

// network carries a voter's requests.
type network struct {
	w    *world
	from string
}

func clientOf(w *world, name string) *http.Client { return &http.Client{Transport: &network{w, name}} }

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	w := n.w
	var body []byte
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = b
	}
	w.mu.Lock()
	// It always takes some time, or voters that never agree would stop the clock.
	there := time.Millisecond + time.Duration(w.rng.Int64N(int64(w.delay)+1))
	back := time.Duration(w.rng.Int64N(int64(w.delay) + 1))
	twice := w.late && w.rng.IntN(20) == 0
	late := w.late
	w.mu.Unlock()
	if err := pass(r.Context(), there); err != nil && !late {
		return nil, err
	}
	w.judge.messages(n.from, body)
	if r.Context().Err() != nil { // the caller is gone, and the request is not
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), lateMax)
		defer cancel()
		r = r.WithContext(ctx)
	}
	resp, err := n.deliver(r, body)
	if twice {
		go func() {
			time.Sleep(there + back)
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), lateMax)
			defer cancel()
			if resp, err := n.deliver(r.WithContext(ctx), body); err == nil {
				resp.Body.Close()
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	if err := pass(r.Context(), back); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if to := w.members[r.URL.Host]; to == nil || w.cut[[2]string{to.name, n.from}] {
		return nil, errors.New("the answer was lost")
	}
	return resp, nil
}

func (n *network) deliver(r *http.Request, body []byte) (*http.Response, error) {
	n.w.mu.Lock()
	to := n.w.members[r.URL.Host]
	if to == nil || to.q == nil || n.w.cut[[2]string{n.from, to.name}] {
		n.w.mu.Unlock()
		return nil, errors.New("connection refused")
	}
	handler := to.q.Handler()
	n.w.mu.Unlock()
	req := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), bytes.NewReader(body))
	req.Header = r.Header.Clone()
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, req)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return rec.Result(), nil
}

func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// judge knows what a quorum promises and nothing of how it is kept. It reads what
// goes over the wire and what is applied.
type judge struct {
	mu      sync.Mutex
	votes   map[[2]uint64]uint64 // (voter, term) → for whom
	leaders map[uint64]uint64    // term → who led
	log     map[uint64][]byte    // index → entry
	faults  []string
}

func newJudge() *judge {
	return &judge{votes: map[[2]uint64]uint64{}, leaders: map[uint64]uint64{}, log: map[uint64][]byte{}}
}

func (j *judge) accuse(format string, args ...any) {
	if len(j.faults) < 20 {
		j.faults = append(j.faults, fmt.Sprintf(format, args...))
	}
}

// messages looks at what a voter sends.
func (j *judge) messages(from string, body []byte) {
	var e envelope
	if json.Unmarshal(body, &e) != nil || len(e.Messages) == 0 {
		return
	}
	for _, b := range e.Messages {
		m := &pb.Message{}
		if err := proto.Unmarshal(b, m); err != nil {
			j.accuse("%s sends what cannot be read: %v", from, err)
			return
		}
		j.message(m)
	}
}

func (j *judge) message(m *pb.Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch m.GetType() {
	case pb.MsgVote:
		j.vote(m.GetFrom(), m.GetTerm(), m.GetFrom())
	case pb.MsgVoteResp:
		if !m.GetReject() {
			j.vote(m.GetFrom(), m.GetTerm(), m.GetTo())
		}
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		if who, ok := j.leaders[m.GetTerm()]; ok && who != m.GetFrom() {
			j.accuse("term %d has two leaders, %x and %x", m.GetTerm(), who, m.GetFrom())
		}
		j.leaders[m.GetTerm()] = m.GetFrom()
	}
}

func (j *judge) vote(voter, term, who uint64) {
	k := [2]uint64{voter, term}
	if before, ok := j.votes[k]; ok && before != who {
		j.accuse("voter %x voted for %x and for %x in term %d", voter, before, who, term)
	}
	j.votes[k] = who
}

// applied looks at what a voter applies.
func (j *judge) applied(index uint64, data []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if before, ok := j.log[index]; ok && !bytes.Equal(before, data) {
		j.accuse("entry %d was applied as %q and as %q", index, before, data)
	}
	j.log[index] = bytes.Clone(data)
}

func (j *judge) verdict() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.faults)
}

// rest has the judge speak at the end of a test.
func (w *world) rest() {
	w.t.Helper()
	w.stopAll()
	for _, f := range w.judge.verdict() {
		w.t.Error(f)
	}
}

// three starts a group of two Regions and a witness and waits until all vote.
func three(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "a", "b", "witness")
		defer w.rest()
		w.startAll()
		w.until("the group forms", 30*time.Second, w.formed)
		test(t, w)
	})
}
