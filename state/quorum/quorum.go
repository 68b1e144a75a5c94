package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

// Config says who this voter is and whom it votes with.
type Config struct {
	Name    string // the Region's or the witness's; required
	Witness bool   // it votes and holds no data
	Node    string // this node, unique among the Region's; required
	URL     string // where others reach this node's own peer listener; empty when the Region has no other node
	// Peers is the base URL of each voter's peer listener by name, this one's
	// included, equal at every voter.
	Peers map[string]string
	// Founder is who makes the group when nobody has one; the first name when
	// empty. Equal at every voter.
	Founder string

	Tick        time.Duration // of the voters' clock; 0 means 100 ms. An election takes 10 to 20
	LeaseTime   time.Duration // how long a Region's lease holds after a renewal; 0 means 5 s
	ProposeTime time.Duration // how long Propose tries; 0 means 3 s, or 40 ticks if that is more
	Takeover    time.Duration // how long the Region's voter is silent before another node runs it; 0 means 3 s
}

const (
	electionTicks  = 10
	heartbeatTicks = 2
	peersMax       = 16
)

// election is the shortest time after which a silent leader is replaced.
func (c *Config) election() time.Duration { return electionTicks * c.Tick }

func (c *Config) founder() string {
	if c.Founder != "" {
		return c.Founder
	}
	return slices.Min(slices.Collect(maps.Keys(c.Peers)))
}

// majority is how many of the configured voters decide.
func (c *Config) majority() int { return len(c.Peers)/2 + 1 }

func (c *Config) check() error {
	if err := named(nameBytesMax, "Name", c.Name, "Node", c.Node, "Founder", c.founder()); err != nil {
		return err
	}
	if len(c.Peers) > peersMax {
		return aws.InvalidMember("Peers", "more than %d voters", peersMax)
	}
	for _, name := range []string{c.Name, c.founder()} {
		if _, ok := c.Peers[name]; !ok {
			return aws.InvalidMember("Peers", "%s is not among the voters", name)
		}
	}
	return nil
}

// Quorum is a node's part in the quorum. Create it with New, keep Run going, and
// serve its Handler to the peers; it is safe for concurrent use.
type Quorum struct {
	cfg     Config
	journal journal
	client  *http.Client
	now     func() time.Time
	log     *slog.Logger
	inbox   chan func(*voter) // work for the voter's loop
	peers   map[string]*peer

	mu      sync.Mutex
	chance  *rand.Rand
	state   State
	index   uint64
	moved   chan struct{} // closed and replaced when the index rises
	waiters map[string]chan answer
	view    view
	last    *identity            // the newest row that was seen
	rebirth bool                 // the voter has to begin a new life
	heard   map[string]time.Time // when each peer last sent something
	routes  map[string]string    // where each peer was last heard from, if not where it is configured
	held    held
	applied func(index uint64, data []byte) // tests look on; may be nil
}

// view is what the voter's loop lets the rest of the room see.
type view struct {
	voting  bool // this node runs the voter
	holder  string
	role    Role
	leader  string
	term    uint64
	cluster string
	fresh   bool
	// generation is the voter's row's, while this node runs the voter.
	generation uint64
}

// New makes a node's part in the quorum over the Region's store. Nil client is
// http.DefaultClient, which no group of more than one can want: peers are met
// over mutual TLS.
func New(cfg Config, st *store.Store, client *http.Client, now func() time.Time, chance *rand.Rand, log *slog.Logger) (*Quorum, error) {
	return newQuorum(cfg, rows{st}, client, now, chance, log)
}

func newQuorum(cfg Config, j journal, client *http.Client, now func() time.Time, chance *rand.Rand, log *slog.Logger) (*Quorum, error) {
	if len(cfg.Peers) == 0 {
		cfg.Peers = map[string]string{cfg.Name: ""}
	}
	if cfg.Tick == 0 {
		cfg.Tick = 100 * time.Millisecond
	}
	if cfg.LeaseTime == 0 {
		cfg.LeaseTime = 5 * time.Second
	}
	if cfg.ProposeTime == 0 {
		cfg.ProposeTime = max(3*time.Second, 40*cfg.Tick)
	}
	if cfg.Takeover == 0 {
		cfg.Takeover = 3 * time.Second
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configure the quorum: %w", err)
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	if client == nil {
		client = http.DefaultClient
	}
	q := &Quorum{
		cfg: cfg, journal: j, client: client, now: now, chance: chance,
		log:     log.With("component", "quorum", "voter", cfg.Name),
		inbox:   make(chan func(*voter), 1024),
		peers:   map[string]*peer{},
		state:   State{Mode: ActiveActive},
		moved:   make(chan struct{}),
		waiters: map[string]chan answer{},
		heard:   map[string]time.Time{},
		routes:  map[string]string{},
		view:    view{role: Starting},
	}
	for name := range cfg.Peers {
		if name != cfg.Name {
			q.peers[name] = &peer{q: q, name: name, queue: make(chan parcel, queueMax)}
		}
	}
	return q, nil
}

const retryDelay = 500 * time.Millisecond // after a failure of the store

// Run takes part until ctx ends: it votes if no other node of the Region does,
// and follows what that one applied otherwise. It ends with nil; failures are
// logged, and what is durable is taken up again.
func (q *Quorum) Run(ctx context.Context) error {
	var busy sync.WaitGroup
	defer busy.Wait()
	for _, p := range q.peers {
		busy.Go(func() { p.run(ctx) })
	}
	for {
		err := q.turn(ctx, &busy)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case errors.Is(err, errFenced), errors.Is(err, errAgain):
			q.log.InfoContext(ctx, "voter starts over", "reason", err)
		case err != nil:
			q.log.WarnContext(ctx, "voter stopped and starts again from what is durable", "error", err)
		}
		if !errors.Is(err, errAgain) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryDelay):
			}
		}
	}
}

// errAgain asks to start over from what is durable, at once.
var errAgain = errors.New("the voter's part has changed")

// turn follows while another node runs the voter, then runs it.
func (q *Quorum) turn(ctx context.Context, busy *sync.WaitGroup) error {
	row, err := q.journal.identity(ctx)
	if err != nil {
		return err
	}
	if row != nil && row.Node != q.cfg.Node {
		if row, err = q.follow(ctx, row); err != nil || ctx.Err() != nil {
			return err
		}
	}
	by := claim{Name: q.cfg.Name, Node: q.cfg.Node, URL: q.cfg.URL, Rebirth: q.wentBack(row)}
	q.mu.Lock()
	by.Life = fmt.Sprintf("%s-%x-%016x", q.cfg.Node, q.now().UnixMilli(), q.chance.Uint64())
	q.mu.Unlock()
	id, err := q.journal.take(ctx, row, by)
	if err != nil {
		return err
	}
	q.see(id)
	if id.Life == by.Life {
		q.mu.Lock()
		q.rebirth = false
		q.mu.Unlock()
		q.log.InfoContext(ctx, "voter begins a new life", "id", fmt.Sprintf("%016x", id.ID), "incarnation", id.Incarnation)
	}
	return q.vote(ctx, id, busy)
}

// wentBack says that the row is older than one which was seen before, or that
// the voter is known to have lost something: its promises cannot be trusted.
func (q *Quorum) wentBack(row *identity) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rebirth || q.last == nil {
		return q.rebirth
	}
	return row == nil || row.Generation < q.last.Generation || row.Generation == q.last.Generation && row.Beat < q.last.Beat
}

// see remembers the newest row.
func (q *Quorum) see(row *identity) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := *row
	q.last = &c
	q.view.holder = row.URL
}

// State returns the applied state and the index of the last entry in it: what a
// majority agreed on, as far as this node knows. It takes no round trip, and may
// be behind by what a majority decided since.
func (q *Quorum) State() (State, uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state, q.index
}

// Member returns the epoch of a Region's present stay in the set, at an
// incarnation; 0 when it is out of the set or at another one. It is [State] for
// those who ask often.
func (q *Quorum) Member(region, incarnation string) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.state.Regions[region]; r.Incarnation == incarnation {
		return r.Member
	}
	return 0
}

// Wait returns when something after the index was applied, or ctx ends.
func (q *Quorum) Wait(ctx context.Context, index uint64) error {
	for {
		q.mu.Lock()
		moved, have := q.moved, q.index
		q.mu.Unlock()
		if have > index {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish shows the machine's state and answers who waits for what was applied. A
// voter that starts over shows nothing older than what was seen already.
func (q *Quorum) publish(m *machine, answers []answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.index > q.index {
		q.state, q.index = m.state, m.index
		close(q.moved)
		q.moved = make(chan struct{})
	}
	for _, a := range answers {
		q.tell(a)
	}
}

// publishAll is publish after a snapshot was taken over, which may hold the
// answer of anybody.
func (q *Quorum) publishAll(m *machine) { q.publish(m, m.recent) }

// tell answers a waiter; q.mu is held.
func (q *Quorum) tell(a answer) {
	if w, ok := q.waiters[a.ID]; ok {
		delete(q.waiters, a.ID)
		w <- a // has room for it
	}
}

// Reason says why commands are refused; it is empty when they are not.
func (q *Quorum) Reason() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reason()
}

// Role is a node's part at the moment.
type Role string

// The roles.
const (
	Starting  Role = "starting"  // nothing is known yet, or the store fails
	Joining   Role = "joining"   // it looks for a group
	Learning  Role = "learning"  // it catches up and has no vote yet
	Follower  Role = "follower"  // it votes
	Candidate Role = "candidate" // it asks for votes
	Leader    Role = "leader"
	Following Role = "following" // another node of the Region votes
)

// Status is for a health page.
type Status struct {
	Role    Role
	Leader  string // empty when none is known
	Term    uint64
	Index   uint64 // last applied
	Cluster string
	Voters  []VoterStatus // sorted by name
	Reason  string        // why commands are refused; empty when they are not
}

// VoterStatus is a voter as this node sees it.
type VoterStatus struct {
	Name             string
	Learner, Witness bool
	// Reachable says that it was heard of within two elections. Only the node that
	// runs a Region's voter hears of others.
	Reachable bool
}

// Status returns what the node knows of the quorum's health.
func (q *Quorum) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Status{Role: q.view.role, Leader: q.view.leader, Term: q.view.term, Index: q.index, Cluster: q.view.cluster, Reason: q.reason()}
	for name := range q.cfg.Peers {
		v := q.state.Voters[name]
		s.Voters = append(s.Voters, VoterStatus{name, v.Learner, v.Witness, q.reachable(name)})
	}
	slices.SortFunc(s.Voters, func(a, b VoterStatus) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// reachable says that a voter was heard of lately; q.mu is held.
func (q *Quorum) reachable(name string) bool {
	if name == q.cfg.Name {
		return q.view.voting
	}
	at, ok := q.heard[name]
	return ok && time.Since(at) < 2*q.cfg.election()
}

// reason says why there is no quorum; q.mu is held.
func (q *Quorum) reason() string {
	if q.view.leader != "" {
		return ""
	}
	var missing []string
	for name := range q.cfg.Peers {
		if !q.reachable(name) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	switch {
	case q.view.role == Following:
		return "the Region's voter knows no leader"
	case q.view.cluster == "":
		return fmt.Sprintf("this node has not joined a group yet; not reached: %s", list(missing))
	case len(q.cfg.Peers)-len(missing) < q.cfg.majority():
		return fmt.Sprintf("%d of %d voters are reached and %d are needed; not reached: %s",
			len(q.cfg.Peers)-len(missing), len(q.cfg.Peers), q.cfg.majority(), list(missing))
	}
	return "no leader is elected yet"
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
