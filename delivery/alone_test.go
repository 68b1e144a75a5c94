package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// The other Region dies between the intent's commit and its acknowledgement; an
// opt-out that it had told (and that is on this disk) comes in the 3 s until it is
// removed. Claim then returns, alone; the second check is made all the same.
func TestAttempt_opt_out_while_the_removal_is_waited_for(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(2)
		p.a.duty.(*seat).instead = func(write func() error) error {
			err := write()
			p.a.endpoint("e1", ChannelEmail, "e001@tea.example", map[string]string{"OptOut": "ALL"})
			time.Sleep(3 * time.Second)
			p.c.set("b", 0)
			return err
		}
		p.a.submit(campaignPlan(), members...)
		time.Sleep(time.Minute)
		if got := p.a.mail.to(); len(got) != 1 || got[0] != "e000@tea.example" {
			t.Errorf("sent to %v, of whom e001 had opted out 3 s before", got)
		}
	})
}

// A Region was out and is back; before the other took its blocks over the other
// is lost for good. Nobody takes them up.
func TestTakeover_of_blocks_of_an_earlier_stay_of_a_Region_that_is_alone(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(20)
		p.c.refusing(true) // b is about to be cut off from a
		p.a.submit(campaignPlan(), members...)
		time.Sleep(time.Second)
		p.c.set("a", 0) // a is removed, for a pause
		time.Sleep(10 * time.Second)
		p.c.set("b", 0) // b is lost, an operator lets a succeed it
		p.c.refusing(false)
		p.c.set("a", 3)
		time.Sleep(2 * time.Hour)
		sum := p.a.tally("activity1")
		if got := len(p.a.mail.to()); got != 20 || sum.InFlight() != 0 {
			t.Errorf("after two days %d of 20 are sent, %d are listed; %d in flight, blocks done %d of %d",
				got, len(p.a.ambiguous()), sum.InFlight(), sum.BlocksDone, sum.Blocks)
		}
	})
}

type markBook struct {
	mu    sync.Mutex
	marks map[string]uint64
}

type markSeat struct {
	*seat
	book *markBook
}

func (s markSeat) Mark(_ context.Context, _ uint64, marks []quorum.Mark) error {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	for _, m := range marks {
		s.book.marks[m.Key] = max(s.book.marks[m.Key], m.To)
	}
	return nil
}

func (s markSeat) Marks(prefix string) map[string]uint64 {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	out := maps.Clone(s.book.marks)
	maps.DeleteFunc(out, func(k string, _ uint64) bool { return !strings.HasPrefix(k, prefix) })
	return out
}

func (s markSeat) DropMarks(_ context.Context, prefix string) error {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	maps.DeleteFunc(s.book.marks, func(k string, _ uint64) bool { return strings.HasPrefix(k, prefix) })
	return nil
}

func markedPairs(t *testing.T, test func(t *testing.T, p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		keys, err := store.NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		c := &council{members: map[string]uint64{"a": 1, "b": 2}, changed: make(chan struct{})}
		p := &pair{t: t, c: c, at: map[string]int64{}}
		book := &markBook{marks: map[string]uint64{}}
		for _, r := range []struct {
			name string
			w    **world
		}{{"a", &p.a}, {"b", &p.b}} {
			w := &world{
				t: t, dir: t.TempDir(), keys: keys, mail: &carrier{}, text: &carrier{}, region: r.name,
				duty: markSeat{&seat{c: c, region: r.name}, book},
			}
			w.start()
			*r.w = w
		}
		defer func() {
			p.a.stop()
			p.b.stop()
		}()
		test(t, p)
	})
}

// A run that a Region walked to its end while it was alone: its marks stay when
// the other is back, for only a claim of the run drops them. Loss of the Region an
// hour later in normal operation then lists who was never attempted.
func TestMarks_of_a_time_alone_do_not_outlive_it(t *testing.T) {
	markedPairs(t, func(t *testing.T, p *pair) {
		members := p.people(1024)
		p.c.set("b", 0)
		plan := campaignPlan()
		plan.PerSecond = 5
		p.a.update(func(tx *store.Tx) error {
			if err := p.a.service.PutPlan(tx, plan); err != nil {
				return err
			}
			for i := range 4 {
				if err := p.a.service.Claim(tx, plan.ID, int64(i+1), members[i*256:(i+1)*256]); err != nil {
					return err
				}
			}
			return nil
		})
		time.Sleep(20 * time.Second)
		p.ship(p.a, p.b) // b is back and has everything
		p.c.set("b", 5)
		for range 30 {
			time.Sleep(time.Second)
			p.ship(p.a, p.b)
		}
		p.a.inject(func(string) error { return errors.New("power cut") })
		time.Sleep(time.Second)
		sent := len(p.a.mail.to())
		p.c.set("a", 0)
		time.Sleep(30 * time.Minute)
		attempted := p.times()
		never := 0
		list := p.b.ambiguous()
		for _, a := range list {
			if attempted[a.Address] == 0 {
				never++
			}
		}
		if len(list) > 512 {
			t.Errorf("a sent %d with b there; its loss lists %d, of whom %d were never attempted and are not sent to", sent, len(list), never)
		}
	})
}

// A block that is in work while the other Region returns and leaves again is
// marked once only, and that mark was dropped.
func TestMarks_of_a_block_that_is_alone_a_second_time(t *testing.T) {
	markedPairs(t, func(t *testing.T, p *pair) {
		members := p.people(256)
		p.c.set("b", 0)
		p.a.mail.answer = func(int, *courier.Message) courier.Outcome {
			time.Sleep(4 * time.Second)
			return courier.Outcome{Status: courier.Accepted, Code: "250"}
		}
		p.a.submit(campaignPlan(), members...)
		time.Sleep(time.Second)
		p.ship(p.a, p.b)
		p.c.set("b", 5)
		if err := p.a.service.Unmark(t.Context(), "activity1"); err != nil { // as the run's next claim does
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // the second chunk
		p.ship(p.a, p.b)
		p.c.set("b", 0)
		time.Sleep(4 * time.Second) // the third, alone
		p.a.inject(func(string) error { return errors.New("disk lost") })
		sent := p.times()
		p.c.set("a", 0)
		p.c.set("b", 7) // succeeds a
		time.Sleep(time.Hour)
		listed := map[string]bool{}
		for _, a := range p.b.ambiguous() {
			listed[a.Address] = true
		}
		twice := 0
		for i := range 256 {
			if to := fmt.Sprintf("e%03d@tea.example", i); p.times()[to] > 1 && !listed[to] {
				twice++
			}
		}
		if twice > 0 {
			t.Errorf("a had sent %d; %d were sent to twice and are not listed (%d are)", len(sent), twice, len(listed))
		}
	})
}

// reborn replaces Region b by one with an empty disk that has read a's rows.
func (p *pair) reborn() {
	p.t.Helper()
	p.b.stop()
	w := &world{t: p.t, dir: p.t.TempDir(), keys: p.b.keys, mail: &carrier{}, text: &carrier{}, region: "b", duty: &seat{c: p.c, region: "b"}}
	w.start()
	p.b = w
	var all []changelog.Change
	if err := p.a.store.Changes(p.t.Context(), 0, func(_ int64, c changelog.Change) error {
		all = append(all, c)
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
	w.update(func(tx *store.Tx) error {
		for _, c := range all {
			if _, err := tx.Merge(c, false, func(string, []byte) ([]store.Index, error) { return nil, nil }); err != nil {
				return err
			}
		}
		return w.service.Merged(tx, all)
	})
}

// Region b loses its disk; a takes its blocks over and goes on. b is there again,
// with a's rows. All that was claimed in earlier stays comes late to it, and yet whom
// a is sending to is among whom b's walk has seen, and when a is lost too b sends to
// them.
func TestReborn_Region_does_not_take_old_claims_for_late_ones(t *testing.T) {
	for _, call := range []bool{false, true} {
		name := "campaign"
		if call {
			name = "call"
		}
		t.Run(name, func(t *testing.T) {
			pairs(t, func(t *testing.T, p *pair) {
				members := p.people(20)
				later := func(int, *courier.Message) courier.Outcome {
					return courier.Outcome{Status: courier.Deferred, Code: "451", Detail: "greylisted"}
				}
				p.a.mail.answer, p.b.mail.answer = later, later
				plan := campaignPlan()
				if call {
					plan.Campaign, plan.Call = nil, &Call{Operation: "SendMessages"}
				}
				p.b.update(func(tx *store.Tx) error {
					if err := p.b.service.PutPlan(tx, plan); err != nil {
						return err
					}
					if call {
						return p.b.service.ClaimCall(tx, plan.ID, 1, members)
					}
					return p.b.service.Claim(tx, plan.ID, 1, members)
				})
				time.Sleep(5 * time.Second)
				p.ship(p.b, p.a)
				p.c.set("b", 0)
				time.Sleep(5 * time.Second) // a takes the block over
				p.reborn()
				p.c.set("b", 5)
				seen := 0
				if err := p.b.service.Claimed(p.b.store.Reader(t.Context()), plan.ID, func(b *Block) error {
					seen += len(b.Members)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if seen != 20 {
					t.Errorf("b's walk has seen %d of the 20 whom a is sending to: it claims the others again", seen)
				}
				p.ship(p.a, p.b)
				p.a.inject(func(string) error { return errDark })
				p.c.set("a", 0)
				time.Sleep(time.Hour)
				sum := p.b.tally(plan.ID)
				if got := len(p.b.mail.to()); got != 20 {
					t.Errorf("a is lost: b sent to %d of 20, listed %d, held as superseded %d", got, len(p.b.ambiguous()), sum.Superseded)
				}
			})
		})
	}
}

var errDark = dark("power cut")

type dark string

func (l dark) Error() string { return string(l) }

// Claims are refused for 20 s, as while a majority is missing: those refusals
// do not count, so that the first greylisting afterwards is the first attempt.
func TestAttempts_that_were_refused_do_not_count(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(20)
		p.a.update(func(tx *store.Tx) error { return p.a.service.SetPolicy(tx, testApp, "", Resend) })
		p.c.refusing(true)
		p.a.mail.answer = func(n int, _ *courier.Message) courier.Outcome {
			if n <= 20 {
				return courier.Outcome{Status: courier.Deferred, Code: "451", Detail: "greylisted"}
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250"}
		}
		p.a.submit(campaignPlan(), members...)
		time.Sleep(20 * time.Second)
		p.c.refusing(false)
		time.Sleep(2 * time.Hour)
		if sum := p.a.tally("activity1"); sum.Sent != 20 {
			t.Errorf("of 20, who were deferred once by the relay, %d are sent and %d failed", sum.Sent, sum.Failed)
		}
	})
}
