package quorum

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/everpoint/everpoint/aws"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "the one seed that the chaos test plays; 0 is all")
	seedsFlag = flag.Uint64("seeds", 200, "how many seeds the chaos test plays")
)

// TestChaos plays crashes (at any point of a write), partitions, lost disks, slow,
// lost, late and repeated requests, and has the judges look: nobody votes twice,
// terms have one leader, entries are the same everywhere, what was answered is
// there once and what was refused is not, the laws of the state hold, and when
// the faults end all agree.
func TestChaos(t *testing.T) {
	first, last := uint64(1), *seedsFlag
	if *seedFlag > 0 {
		first, last = *seedFlag, *seedFlag
	}
	if testing.Short() {
		last = min(last, first+19)
	}
	var all tally
	for seed := first; seed <= last && !t.Failed(); seed++ {
		all.add(chaos(t, seed))
	}
	t.Logf("%+v", all)
	if last-first >= 100 && (all.acked < 1000 || all.crashes < 100 || all.losses < 10 || all.cuts < 100) {
		t.Errorf("too little happened: %+v", all)
	}
}

// TestChurn_the_judge_finds_a_voter_that_forgets_its_vote plants that bug and
// expects to be told; the same with honest disks is fine.
func TestChurn_the_judge_finds_a_voter_that_forgets_its_vote(t *testing.T) {
	const seeds = 150
	for _, forgetful := range []bool{true, false} {
		found := uint64(0)
		for seed := uint64(1); seed <= seeds && found == 0; seed++ {
			if faults := churn(t, seed, forgetful); len(faults) > 0 {
				t.Logf("seed %d, forgetful %v: %s", seed, forgetful, faults[0])
				found = seed
			}
			if !forgetful && seed == 20 {
				break
			}
		}
		if forgetful != (found > 0) {
			t.Errorf("forgetful %v: found with seed %d", forgetful, found)
		}
	}
}

// churn restarts voters in the middle of elections, again and again.
func churn(t *testing.T, seed uint64, forgetful bool) (faults []string) {
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, "a", "b", "witness")
		rng := rand.New(rand.NewPCG(seed, 5))
		w.startAll()
		w.until("the group forms", time.Minute, w.formed)
		for _, m := range w.all() {
			m.disk.forget(forgetful)
		}
		w.slow(400*time.Millisecond, true)
		for range 40 {
			lead := w.leader()
			if lead == nil {
				lead = w.all()[rng.IntN(3)]
			}
			w.sever(lead.name, true)
			// Wait for a vote, restart who gave it, and let the others ask again.
			votes := func() (n uint64, who *member) {
				for _, m := range w.all() {
					m.disk.mu.Lock()
					if m.disk.row.Term > n && m.disk.row.Vote != 0 && m.disk.row.Vote != m.disk.row.ID {
						n, who = m.disk.row.Term, m
					}
					m.disk.mu.Unlock()
				}
				return n, who
			}
			term, _ := votes()
			for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if now, who := votes(); now > term {
					who.kill()
					who.start()
					break
				}
			}
			w.heal()
			time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		}
		faults = w.judge.verdict()
		w.stopAll()
	})
	return faults
}

// tally is what happened in a run.
type tally struct {
	acked, refused, unknown, crashes, losses, cuts int
	entries                                        int
	faults                                         []string
}

func (a *tally) add(b tally) {
	a.acked += b.acked
	a.refused += b.refused
	a.unknown += b.unknown
	a.crashes += b.crashes
	a.losses += b.losses
	a.cuts += b.cuts
	a.entries += b.entries
}

func chaos(t *testing.T, seed uint64) (c tally) {
	cryptotest.SetGlobalRandom(t, seed) // the library's election times
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, "a", "b", "witness")
		w.slow([]time.Duration{0, 20 * time.Millisecond, 300 * time.Millisecond}[seed%3], true)
		run := &chaosRun{w: w, rng: rand.New(rand.NewPCG(seed, 11)), tally: &c}
		run.play()
		c.faults = append(c.faults, w.judge.verdict()...)
		c.entries = len(w.judge.log)
		for _, f := range c.faults {
			t.Errorf("seed %d: %s", seed, f)
		}
	})
	return c
}

// chaosRun is one run of the chaos test.
type chaosRun struct {
	w     *world
	rng   *rand.Rand
	tally *tally

	mu     sync.Mutex
	acked  map[string]int // by key: proposals that were answered
	maybe  map[string]int // and those whose outcome was not told
	seen   map[string]*State
	places map[uint64]bool // indexes of answers
}

func (r *chaosRun) accuse(format string, args ...any) {
	r.w.judge.mu.Lock()
	defer r.w.judge.mu.Unlock()
	r.w.judge.accuse(format, args...)
}

func (r *chaosRun) play() {
	w := r.w
	r.acked, r.maybe, r.places = map[string]int{}, map[string]int{}, map[uint64]bool{}
	r.seen = map[string]*State{}
	for i, m := range w.all() {
		time.Sleep(time.Duration(i) * time.Duration(r.rng.IntN(1000)) * time.Millisecond)
		r.start(m)
	}
	w.until("the group forms", time.Minute, w.formed)
	if _, err := w.leader().q.Propose(context.Background(), Join{Region: "a", Incarnation: "1"}); err != nil {
		r.accuse("join: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	for i, m := range w.all() {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), uint64(i)))
		busy.Go(func() { r.client(ctx, m, rng) })
		busy.Go(func() { r.watch(ctx, m) })
	}
	for range 12 {
		time.Sleep(time.Duration(200+r.rng.IntN(3000)) * time.Millisecond)
		r.fault()
	}
	w.heal()
	for _, m := range w.all() {
		if m.h != nil {
			m.h.mu.Lock()
			m.h.fault = nil
			m.h.mu.Unlock()
		}
		if !m.alive() {
			r.start(m)
		}
	}
	for end := time.Now().Add(time.Minute); !w.formed(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			for _, m := range w.all() {
				st, n := m.q.State()
				r.accuse("%s is %+v at %d with voters %v a minute after the last fault", m.host, m.q.Status(), n, st.Voters)
			}
			break
		}
	}
	cancel()
	busy.Wait()
	for end := time.Now().Add(time.Minute); !w.agree(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			r.accuse("the voters do not agree a minute after the last command")
			break
		}
	}
	r.count()
	w.stopAll()
}

// start starts a member with a disk that fails now and then.
func (r *chaosRun) start(m *member) {
	m.start()
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), 3))
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	m.h.fault = func(string) error {
		if rng.IntN(300) == 0 {
			return errors.New("the disk fails")
		}
		return nil
	}
}

// fault does one bad thing, or ends one.
func (r *chaosRun) fault() {
	w := r.w
	m := w.all()[r.rng.IntN(3)]
	switch r.rng.IntN(8) {
	case 0, 1, 2:
		if m.alive() {
			r.tally.crashes++
			m.kill()
		}
		if r.rng.IntN(2) == 0 {
			r.start(m)
		}
	case 3, 4:
		r.tally.cuts++
		w.sever(m.name, true)
	case 5: // one way only
		r.tally.cuts++
		other := w.all()[r.rng.IntN(3)]
		w.mu.Lock()
		w.cut[[2]string{m.name, other.name}] = m != other
		w.mu.Unlock()
	case 6:
		w.heal()
		for _, m := range w.all() {
			if !m.alive() {
				r.start(m)
			}
		}
	case 7:
		// A group survives the loss of one disk at a time.
		if w.formed() {
			r.tally.losses++
			m.lose()
			r.start(m)
			w.heal()
			for end := time.Now().Add(time.Minute); !w.formed() && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				continue
			}
		}
	}
}

// client proposes at a member until ctx ends. Each grant adds 1 under a key of
// its own, so that what was done can be counted.
func (r *chaosRun) client(ctx context.Context, m *member, rng *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		r.w.mu.Lock()
		q := m.q
		r.w.mu.Unlock()
		if q == nil {
			continue
		}
		key := fmt.Sprint("count/", rng.IntN(10))
		var c Command = Grant{Key: key, Region: "a", Amount: 1, Limit: 1 << 40}
		counted := rng.IntN(3) > 0
		if !counted {
			st, _ := q.State()
			if c = randomCommand(rng, &st); spoils(c) {
				continue
			}
		}
		limit, cancel := context.WithTimeout(context.Background(), time.Duration(100+rng.IntN(8000))*time.Millisecond)
		res, err := q.Propose(limit, c)
		cancel()
		r.mu.Lock()
		switch kind := aws.KindOf(err); {
		case err == nil:
			r.tally.acked++
			if counted {
				r.acked[key]++
				if r.places[res.Index] {
					r.accuse("two commands were answered for entry %d", res.Index)
				}
				r.places[res.Index] = true
			}
		case kind == aws.KindUnavailable || kind == aws.KindInternal:
			r.tally.unknown++
			if counted {
				r.maybe[key]++
			}
		default:
			r.tally.refused++
			if counted && kind != aws.KindConflict { // a may be out of the set
				r.accuse("a grant was refused: %v", err)
			}
		}
		r.mu.Unlock()
	}
}

// spoils says that a command would spoil the count.
func spoils(c Command) bool {
	switch c := c.(type) {
	case Forget:
		return c.Region == "a"
	case Succeed:
		return c.Region == "a"
	case DropShares, Grant:
		return true
	}
	return false
}

// watch holds what a member shows to the laws, one look after the other.
func (r *chaosRun) watch(ctx context.Context, m *member) {
	var last uint64
	var q *Quorum
	for ctx.Err() == nil {
		time.Sleep(30 * time.Millisecond)
		r.w.mu.Lock()
		now := m.q
		r.w.mu.Unlock()
		if now == nil {
			continue
		}
		if now != q {
			q, last = now, 0
		}
		st, n := q.State()
		if n < last {
			r.accuse("%s showed entry %d and then %d", m.host, last, n)
		}
		last = n
		if set := st.Set(); len(set) > 0 {
			for i, owner := range st.Duty.Shards {
				if !st.Regions[owner].InSync {
					r.accuse("%s: shard %d is the duty of %q at %d; the set is %v", m.host, i, owner, n, set)
				}
			}
		}
	}
}

// count compares what was answered with what is there.
func (r *chaosRun) count() {
	st, _ := r.w.all()[0].q.State()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range 10 {
		key := fmt.Sprint("count/", i)
		if n := int(st.Shares[key]["a"]); n < r.acked[key] || n > r.acked[key]+r.maybe[key] {
			r.accuse("%d commands on %s were answered and %d may have been done; %d are there", r.acked[key], key, r.maybe[key], n)
		}
	}
}

// TestJudge_votes has a voter restart between two candidates of one term, with a
// disk that keeps its vote and one that forgets it.
func TestJudge_votes(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		t.Run(fmt.Sprint("forgetful_", forgetful), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 9, "a", "b", "witness")
				w.startAll()
				w.until("the group forms", 30*time.Second, w.formed)
				m, b, c := w.members["a"], w.members["b"], w.members["witness"]
				b.kill()
				c.kill()
				m.kill()
				m.disk.forget(forgetful)
				term, last := m.disk.row.Term+5, m.disk.entries[len(m.disk.entries)-1]
				for _, from := range []*member{b, c} { // the test speaks for them
					m.start()
					// Its answer goes to whom it voted for, who is not there; the judge sees it leave.
					w.until("it runs", 5*time.Second, func() bool { return m.q.Status().Role == Follower })
					w.post(from, m, &pb.Message{
						Type: pb.MsgVote.Enum(), From: new(from.disk.id()), To: new(m.disk.id()), Term: new(term),
						Index: new(last.GetIndex()), LogTerm: new(last.GetTerm()),
					})
					w.until("it answered", time.Second, func() bool { m.disk.mu.Lock(); defer m.disk.mu.Unlock(); return m.disk.row.Term == term })
					time.Sleep(200 * time.Millisecond)
					m.kill()
				}
				if found := len(w.judge.verdict()) > 0; found != forgetful {
					t.Errorf("the judge says %q", w.judge.verdict())
				}
				w.stopAll()
			})
		})
	}
}

// post delivers a message that a test made in a voter's name.
func (w *world) post(from, to *member, m *pb.Message) {
	w.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	to.disk.mu.Lock()
	cluster := to.disk.row.Cluster
	to.disk.mu.Unlock()
	p := &peer{q: &Quorum{cfg: Config{Name: from.name, Peers: w.cfg.Peers, Tick: 100 * time.Millisecond}}, name: to.name}
	p.q.client = clientOf(w, from.name)
	if err := p.post(w.t.Context(), []parcel{{cluster: cluster, body: b}}); err != nil {
		w.t.Fatal(err)
	}
}

func TestQuorum_a_panic_of_the_library_is_a_restart(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		w.members["a"].do(Join{Region: "a", Incarnation: "1"})
		lead := w.leader()
		var m *member
		for _, other := range w.all() {
			if other != lead {
				m = other
			}
		}
		w.until("it has the log", 5*time.Second, w.agree)
		m.disk.mu.Lock()
		row, last := *m.disk.row, m.disk.entries[len(m.disk.entries)-1]
		m.disk.mu.Unlock()
		// A snapshot of a configuration that cannot be: no leader sends that.
		w.post(lead, m, &pb.Message{
			Type: pb.MsgSnap.Enum(), From: new(lead.disk.id()), To: new(row.ID), Term: new(row.Term + 1),
			Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
				ConfState: &pb.ConfState{Voters: []uint64{row.ID, 2}, Learners: []uint64{row.ID}},
				Index:     new(row.Last + 5), Term: new(row.Term + 1),
			}},
		})
		w.until("it starts over", 5*time.Second, func() bool {
			m.disk.mu.Lock()
			defer m.disk.mu.Unlock()
			return m.disk.row.Generation > row.Generation
		})
		w.until("it takes part again", 20*time.Second, func() bool { return w.formed() && w.agree() })
		m.disk.mu.Lock()
		defer m.disk.mu.Unlock()
		if m.disk.row.ID != row.ID {
			t.Error("it began a new life")
		}
		if got := m.disk.entries[last.GetIndex()-row.First-1]; !bytes.Equal(got.GetData(), last.GetData()) {
			t.Error("a committed entry was replaced")
		}
	})
}
