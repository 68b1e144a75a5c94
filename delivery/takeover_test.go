package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// council is what two Regions know of each other: who is a member since when.
type council struct {
	mu      sync.Mutex
	members map[string]uint64
	refuse  bool // claims are committed, and refused
	marks   map[string]uint64
	changed chan struct{}
}

func (c *council) set(region string, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[region] = epoch
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *council) refusing(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = on
}

// seat is one Region's duty: with the other there every other shard, else all.
type seat struct {
	c       *council
	region  string
	instead func(write func() error) error // in place of a claim; nil: it is made
	waking  atomic.Bool                    // the node has started and heard of nothing yet
}

func (s *seat) Standing() (group.Standing, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	st := group.Standing{Epoch: s.c.members[s.region], Shards: group.AllShards, Grouped: true}
	if st.Epoch == 0 {
		return st, aws.Unavailable("out of the set")
	}
	for other, epoch := range s.c.members {
		if other != s.region && epoch > 0 {
			st.Others = append(st.Others, other)
		}
	}
	return st, nil
}

func (s *seat) Claim(_ context.Context, epoch uint64, write func() error) error {
	if instead := s.instead; instead != nil {
		return instead(write)
	}
	if err := write(); err != nil {
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.refuse || s.c.members[s.region] != epoch {
		return aws.Unavailable("refused")
	}
	return nil
}

func (s *seat) Here() bool { return true }

func (s *seat) Stay() (uint64, error) {
	st, err := s.Standing()
	return st.Epoch, err
}

func (s *seat) Valid(epoch uint64) bool { return s.Holds(s.region, epoch) }

func (s *seat) Holds(region string, epoch uint64) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.members[region] == epoch && !s.waking.Load()
}

func (s *seat) Orphaned(region string, epoch uint64) bool {
	return !s.waking.Load() && !s.Holds(region, epoch)
}

func (s *seat) Past(region string, epoch uint64) bool { return !s.Holds(region, epoch) }

func (s *seat) Heard() error {
	if s.waking.Load() {
		return aws.Unavailable("not heard of the quorum")
	}
	return nil
}

func (s *seat) Fresh(context.Context) error { return nil }

func (s *seat) Owner(int) string { return s.region }

func (s *seat) Mark(_ context.Context, epoch uint64, marks []quorum.Mark) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.members[s.region] != epoch {
		return aws.Unavailable("refused")
	}
	for _, m := range marks {
		s.c.marks[m.Key] = max(s.c.marks[m.Key], m.To)
	}
	return nil
}

func (s *seat) Marks(prefix string) map[string]uint64 {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	marks := maps.Clone(s.c.marks)
	maps.DeleteFunc(marks, func(key string, _ uint64) bool { return !strings.HasPrefix(key, prefix) })
	return marks
}

func (s *seat) DropMarks(_ context.Context, prefix string) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	maps.DeleteFunc(s.c.marks, func(key string, _ uint64) bool { return strings.HasPrefix(key, prefix) })
	return nil
}

func (s *seat) Changed() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.changed
}

// pair is two Regions that hear of each other when the test says so.
type pair struct {
	t    *testing.T
	c    *council
	a, b *world
	at   map[string]int64 // what was shipped, by Region and stream
}

func newPair(t *testing.T) *pair {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	c := &council{members: map[string]uint64{"a": 1, "b": 2}, marks: map[string]uint64{}, changed: make(chan struct{})}
	p := &pair{t: t, c: c, at: map[string]int64{}}
	for _, r := range []struct {
		name string
		w    **world
	}{{"a", &p.a}, {"b", &p.b}} {
		w := &world{t: t, dir: t.TempDir(), keys: keys, mail: &carrier{}, text: &carrier{}, region: r.name, duty: &seat{c: c, region: r.name}}
		w.start()
		*r.w = w
	}
	return p
}

// ship merges what a Region has written into the other; of some streams only when
// they are named.
func (p *pair) ship(from, to *world, streams ...store.Stream) {
	p.t.Helper()
	if len(streams) == 0 {
		streams = []store.Stream{store.Safety, store.Changes}
	}
	for _, st := range streams {
		at := from.region + string(st)
		blocks, err := from.store.Blocks(context.Background(), st, p.at[at], 100000)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, bl := range blocks {
			p.at[at] = bl.N
			var changes []changelog.Change
			for _, record := range bl.Records {
				c, err := changelog.DecodeChange(record)
				if err != nil {
					p.t.Fatal(err)
				}
				if !c.Foreign {
					changes = append(changes, c)
				}
			}
			to.update(func(tx *store.Tx) error {
				for _, c := range changes {
					if _, err := tx.Merge(c, st == store.Safety, func(string, []byte) ([]store.Index, error) { return nil, nil }); err != nil {
						return err
					}
				}
				return to.service.Merged(tx, changes)
			})
		}
	}
}

func pairs(t *testing.T, test func(t *testing.T, p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer func() {
			p.a.stop()
			p.b.stop()
		}()
		test(t, p)
	})
}

// people writes n endpoints in Region a, known to b.
func (p *pair) people(n int) []Member {
	var members []Member
	for i := range n {
		m := p.a.endpoint(fmt.Sprintf("e%d", i), ChannelEmail, fmt.Sprintf("e%03d@tea.example", i), nil)
		m.Hash = uint64(i)
		members = append(members, m)
	}
	p.ship(p.a, p.b)
	return members
}

// times counts what went to each address, from both Regions.
func (p *pair) times() map[string]int {
	n := map[string]int{}
	for _, w := range []*world{p.a, p.b} {
		for _, to := range w.mail.to() {
			n[to]++
		}
	}
	return n
}

func TestTakeover_sends_the_rest_and_lists_what_may_have_left(t *testing.T) {
	for _, policy := range []Policy{Leave, Resend} {
		t.Run(string(policy), func(t *testing.T) {
			pairs(t, func(t *testing.T, p *pair) {
				members := p.people(200)
				p.a.update(func(tx *store.Tx) error { return p.a.service.SetPolicy(tx, testApp, "", policy) })
				p.ship(p.a, p.b)
				// After the 70th message the Region's disk says no more.
				p.a.mail.answer = func(n int, _ *courier.Message) courier.Outcome {
					if n >= 70 {
						p.a.inject(func(string) error { return errors.New("power cut") })
					}
					return courier.Outcome{Status: courier.Accepted, Code: "250"}
				}
				p.a.submit(campaignPlan(), members...)
				synctest.Wait()
				p.ship(p.a, p.b)
				before := p.b.tally("activity1")
				if before.Claimed != 200 || before.Sent != p.a.tally("activity1").Sent {
					t.Errorf("before the loss Region b counts %+v", before)
				}
				time.Sleep(10 * time.Second)
				if got := p.b.mail.to(); len(got) != 0 {
					t.Fatalf("Region b sends to %d though a is there", len(got))
				}
				p.c.set("a", 0)
				time.Sleep(time.Minute)
				list := p.b.ambiguous()
				if len(list) == 0 || len(list) > windowMax {
					t.Fatalf("%d ambiguous after the loss", len(list))
				}
				listed := map[string]bool{}
				for _, a := range list {
					listed[a.Address] = true
					if a.Decision != policy {
						t.Errorf("row %+v", a)
					}
				}
				check := func() {
					t.Helper()
					times := p.times()
					for i := range 200 {
						to := fmt.Sprintf("e%03d@tea.example", i)
						switch n := times[to]; {
						case n == 0 && !listed[to]:
							t.Errorf("%s was lost", to)
						case n > 1 && (!listed[to] || policy == Leave):
							t.Errorf("%s was sent to %d times", to, n)
						}
					}
				}
				check()
				if sum := p.b.tally("activity1"); sum.InFlight() != 0 || sum.BlocksDone != 1 {
					t.Errorf("Region b counts %+v", sum)
				}
				// Region a comes back with what it knows, as another member.
				p.a.inject(nil)
				time.Sleep(time.Minute)
				p.ship(p.b, p.a)
				p.ship(p.a, p.b)
				p.c.set("a", 3)
				time.Sleep(10 * time.Minute)
				p.ship(p.b, p.a)
				p.ship(p.a, p.b)
				check()
				a, b := p.a.tally("activity1"), p.b.tally("activity1")
				if !a.equal(b) || a.InFlight() != 0 || a.Sent+a.Left != 200 {
					t.Errorf("Region a counts %+v, b %+v", a, b)
				}
				resolved := 0
				for _, a := range p.b.ambiguous() {
					if a.Resolution != "" {
						resolved++
					}
				}
				if resolved == 0 {
					t.Errorf("none of the %d on the list is resolved by what Region a knew", len(list))
				}
			})
		})
	}
}

func TestTakeover_of_a_claim_that_came_late_sends_nothing(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(20)
		p.c.refusing(true)
		p.a.submit(campaignPlan(), members...)
		time.Sleep(10 * time.Second)
		p.c.set("a", 0)
		p.c.refusing(false)
		time.Sleep(10 * time.Second)
		p.ship(p.a, p.b)
		p.c.mu.Lock()
		p.c.marks[markPrefix("activity1", holder{"c", 3})+"00"] = 1000 // of those who claimed the same people anew
		p.c.mu.Unlock()
		time.Sleep(time.Minute)
		p.c.set("a", 5)
		time.Sleep(time.Hour)
		p.ship(p.b, p.a)
		time.Sleep(time.Hour)
		p.ship(p.a, p.b)
		p.ship(p.b, p.a)
		if n := len(p.times()); n != 0 {
			t.Errorf("%d were sent to", n)
		}
		a, b := p.a.tally("activity1"), p.b.tally("activity1")
		if !a.equal(b) || a.Superseded != 20 || a.Claimed != 0 {
			t.Errorf("Region a counts %+v, b %+v", a, b)
		}
	})
}

// Who was held in such a claim counts where they are claimed anew, and there alone.
func TestTakeover_of_a_claim_that_came_late_holds_nobody(t *testing.T) {
	for name, held := range map[string]int{"some were held": 3, "most were held": 19} {
		t.Run(name, func(t *testing.T) {
			pairs(t, func(t *testing.T, p *pair) {
				members := p.people(20)
				for i := range held {
					p.a.endpoint(fmt.Sprintf("e%d", i), ChannelEmail, fmt.Sprintf("e%03d@tea.example", i), map[string]string{"OptOut": "ALL"})
				}
				p.c.refusing(true)
				p.a.submit(campaignPlan(), members...)
				time.Sleep(10 * time.Second)
				p.c.set("a", 0)
				p.c.refusing(false)
				if sum := p.a.tally("activity1"); sum.HeldTotal() != int64(held) {
					t.Fatalf("Region a counts %+v", sum)
				}
				p.ship(p.a, p.b)
				p.b.submit(campaignPlan(), members...)
				time.Sleep(time.Minute)
				p.c.set("a", 5)
				p.exchange()
				if n := len(p.times()); n != 20-held || len(p.b.mail.to()) != n {
					t.Errorf("%d were sent to", n)
				}
				a, b := p.a.tally("activity1"), p.b.tally("activity1")
				if !a.equal(b) || a.Superseded != 20 || a.Claimed != 20 || a.HeldTotal() != int64(held) || a.BlocksDone != 2 {
					t.Errorf("Region a counts %+v, b %+v", a, b)
				}
			})
		})
	}
}

// A node that has just started may be told of a claim before it has heard that the
// claimant's stay was over: it does not take it for a good one.
func TestMerged_waits_until_the_node_has_heard_of_the_quorum(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.b.duty.(*seat).waking.Store(true)
		err := p.b.store.Update(t.Context(), func(tx *store.Tx) error {
			claim := changelog.Change{Kind: kindClaim.Name, Key: "activity1/a/1", Body: []byte("{}")}
			return p.b.service.Merged(tx, []changelog.Change{claim})
		})
		if aws.KindOf(err) != aws.KindUnavailable {
			t.Errorf("a claim before the node has heard: %v", err)
		}
		if err := p.b.store.Update(t.Context(), func(tx *store.Tx) error {
			return p.b.service.Merged(tx, []changelog.Change{{Kind: "endpoint", Key: "e", Body: []byte("{}")}})
		}); err != nil {
			t.Errorf("something else before the node has heard: %v", err)
		}
	})
}

func TestAttempts_that_are_refused_wait(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(20)
		p.c.refusing(true)
		p.a.submit(campaignPlan(), members...)
		time.Sleep(10 * time.Second)
		if n := len(p.times()); n != 0 {
			t.Fatalf("%d were sent to without a claim", n)
		}
		p.c.refusing(false)
		time.Sleep(time.Minute)
		if n := len(p.times()); n != 20 {
			t.Errorf("%d were sent to", n)
		}
		if sum := p.a.tally("activity1"); sum.Sent != 20 || len(p.a.ambiguous()) != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// An opt-out that the other Region had acknowledged when it heard of the attempt
// is known before the wire.
func TestAttempt_is_checked_again_when_the_others_have_it(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(2)
		p.a.duty.(*seat).instead = func(write func() error) error {
			err := write()
			p.a.endpoint("e1", ChannelEmail, "e001@tea.example", map[string]string{"OptOut": "ALL"})
			return err
		}
		p.a.submit(campaignPlan(), members...)
		time.Sleep(time.Minute)
		if got := p.a.mail.to(); len(got) != 1 || got[0] != "e000@tea.example" {
			t.Errorf("sent to %v", got)
		}
		if sum := p.a.tally("activity1"); sum.Held[ReasonOptOut] != 1 || sum.InFlight() != 0 {
			t.Errorf("%+v", sum)
		}
	})
}

// A node that has just started may look at a block before it has heard of the
// quorum: nobody else has the block, so its work must not be over.
func TestBlock_waits_until_the_node_knows_its_place(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.a.duty.(*seat).waking.Store(true)
		p.a.submit(campaignPlan(), p.people(20)...)
		time.Sleep(5 * time.Second)
		if got := len(p.a.mail.to()); got != 0 {
			t.Errorf("%d were sent by a node that does not know whether it may", got)
		}
		p.a.duty.(*seat).waking.Store(false)
		time.Sleep(time.Minute)
		if got := len(p.a.mail.to()); got != 20 {
			t.Errorf("%d of 20 were sent in the end", got)
		}
	})
}

// Region a claims, and is cut off: it knows of its attempts only that they could not
// be told, or nothing. Region b takes the block over, goes on alone and is lost for
// good. What b may have sent is below its marks: a lists it before it sends again,
// whatever it knows of attempts of its own.
func TestTakeover_from_a_Region_that_was_alone_and_is_lost(t *testing.T) {
	for _, policy := range []Policy{Leave, Resend} {
		t.Run(string(policy), func(t *testing.T) {
			pairs(t, func(t *testing.T, p *pair) {
				members := p.people(150)
				for _, w := range []*world{p.a, p.b} {
					w.update(func(tx *store.Tx) error { return w.service.SetPolicy(tx, testApp, "", policy) })
				}
				p.c.refusing(true)
				p.a.submit(campaignPlan(), members...)
				synctest.Wait()
				p.ship(p.a, p.b)
				p.c.set("a", 0)
				p.c.refusing(false)
				time.Sleep(20 * time.Minute) // a notes that its attempts were put off
				sent := p.b.mail.to()
				if len(sent) == 0 {
					t.Fatal("Region b did not take over")
				}
				p.c.set("b", 0)
				p.c.set("a", 5)
				time.Sleep(time.Hour)
				listed := map[string]int{}
				for _, a := range p.a.ambiguous() {
					listed[a.Address]++
				}
				for to, n := range p.times() {
					if n > 1 && (policy == Leave || listed[to] == 0) {
						t.Errorf("%s was sent to %d times, listed %d times", to, n, listed[to])
					}
				}
				for i := range 150 {
					to := fmt.Sprintf("e%03d@tea.example", i)
					if p.times()[to] == 0 && listed[to] == 0 {
						t.Errorf("%s was lost", to)
					}
					if listed[to] > 1 {
						t.Errorf("%s is listed %d times", to, listed[to])
					}
				}
				if sum := p.a.tally("activity1"); sum.InFlight() != 0 || sum.BlocksDone != 1 {
					t.Errorf("Region a counts %+v", sum)
				}
			})
		})
	}
}

// Marks of other stays are kept while the run lasts, whoever has the Region's name
// now, and dropped when it is over; those of a Region's own stay when others have
// what it did.
func TestMarks_are_kept_until_they_are_of_no_use(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		var over atomic.Bool
		p.a.service.Ended(func(store.Reader, *Plan) (bool, error) { return over.Load(), nil })
		p.b.service.Ended(func(store.Reader, *Plan) (bool, error) { return over.Load(), nil })
		p.a.update(func(tx *store.Tx) error { return p.a.service.PutPlan(tx, campaignPlan()) })
		p.ship(p.a, p.b)
		plan := campaignPlan().ID
		lost, own := holder{"b", 1}, holder{"b", 2}
		p.c.mu.Lock()
		p.c.marks[markPrefix(plan, lost)+"03"] = 7
		p.c.marks[markPrefix(plan, own)+"03"] = 9
		p.c.mu.Unlock()
		if got := p.b.service.LostUpTo(plan)[3]; got != 7 {
			t.Errorf("the Region that has the lost one's name knows of a mark up to %d, want 7", got)
		}
		time.Sleep(time.Minute)
		if got := p.a.duty.Marks(plan + "/"); len(got) != 1 || got[markPrefix(plan, lost)+"03"] != 7 {
			t.Errorf("while the run lasts %v are kept", got)
		}
		over.Store(true)
		time.Sleep(time.Minute)
		if got := p.a.duty.Marks(""); len(got) != 0 {
			t.Errorf("%v are kept when the run is over", got)
		}
	})
}

// pass lets virtual time pass in a bubble.
func pass(d time.Duration) { time.Sleep(d) }
