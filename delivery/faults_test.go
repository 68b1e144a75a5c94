package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// other is a second node over the world's store. Its queue's clock runs ahead
// for as long as ahead says: so it sees the first node as silent.
type other struct {
	ahead atomic.Int64
	mail  *carrier
	queue *queue.Queue
	stop  func()
}

func (w *world) other(name string, delivers bool) *other {
	o := &other{mail: &carrier{}}
	now := func() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }
	log := slog.New(slog.DiscardHandler)
	o.queue = queue.New(queue.Config{Node: name}, w.store, now, rand.New(rand.NewPCG(3, 3)), log)
	if delivers {
		New(Config{Node: name}, w.store, o.queue, group.Alone(w.store.Region()), nil, Routes{Mail: o.mail}, time.Now, rand.New(rand.NewPCG(4, 4)), log).Mount()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = o.queue.Run(ctx) })
	o.stop = func() { cancel(); done.Wait() }
	return o
}

// stolen plays: the node has one mail on the wire, another node ends its lease,
// and it hears of the outcome before or after (worked) the block is worked again.
func stolen(t *testing.T, policy Policy, worked bool, outcome courier.Outcome) (tally *Tally, list []Ambiguous, attempts int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		wire, answer := make(chan struct{}), make(chan struct{})
		w.mail.answer = func(n int, _ *courier.Message) courier.Outcome {
			if n == 1 {
				close(wire)
				<-answer
				return outcome
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
		}
		m := w.endpoint("e1", ChannelEmail, "one@tea.example", nil)
		w.update(func(tx *store.Tx) error { return w.service.SetPolicy(tx, testApp, "", policy) })
		w.submit(campaignPlan(), m)
		<-wire
		o := w.other("n2", false) // it fences only; the first node, in a new life, takes the block up again
		defer o.stop()
		o.ahead.Store(int64(time.Minute))
		leased := func() bool {
			rows, err := w.store.Reader(t.Context()).List(store.Kind{Name: "work", Rule: changelog.RuleLocal}, "", "", 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(rows) > 0 && strings.Contains(string(rows[0].Body), `"Node":"n1"`)
		}
		for leased() {
			time.Sleep(10 * time.Millisecond)
		}
		o.ahead.Store(0)
		if worked {
			time.Sleep(10 * time.Second) // the block is taken up and worked
		}
		close(answer)
		time.Sleep(30 * time.Minute)
		tally, list = w.tally("activity1"), w.ambiguous()
		attempts = len(w.mail.to())
	})
	return tally, list, attempts
}

func TestFault_a_deferral_learnt_after_the_lease_was_lost_is_a_fate(t *testing.T) {
	tally, list, _ := stolen(t, Leave, true, courier.Outcome{Status: courier.Deferred, Code: "lease", Detail: "the lease ran out before the wire"})
	if tally.InFlight() != 0 {
		t.Errorf("in flight for ever: %d; tally %+v, listed %+v", tally.InFlight(), tally, list)
	}
}

func TestFault_a_success_learnt_after_another_sent_again_counts_once(t *testing.T) {
	tally, list, attempts := stolen(t, Resend, true, courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1})
	if tally.Sent != 1 || tally.InFlight() != 0 {
		t.Errorf("one recipient, %d attempts: tally %+v (in flight %d), listed %d", attempts, tally, tally.InFlight(), len(list))
	}
}

func TestFault_an_unknown_learnt_before_another_took_up_is_a_fate(t *testing.T) {
	tally, list, _ := stolen(t, Leave, false, courier.Outcome{Status: courier.Unknown, Code: "conn"})
	if tally.InFlight() != 0 {
		t.Errorf("in flight for ever: %d; tally %+v, listed %+v", tally.InFlight(), tally, list)
	}
	for _, a := range list {
		if !a.ResolvedAt.IsZero() {
			t.Errorf("nobody learnt the outcome, yet the list says resolved: %+v", a)
		}
	}
}

// A node that is told to stop between an intent and the wire has sent nothing, knows
// it, and says so: whoever goes on sends.
func TestFault_a_stop_between_intent_and_wire_leaves_nothing_ambiguous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		m := w.endpoint("e1", ChannelEmail, "one@tea.example", nil)
		w.stop()
		intended, proceed := make(chan struct{}), make(chan struct{})
		looks := 0
		w.stopped = func(store.Reader, *Plan) (bool, error) {
			if looks++; looks != 2 { // the first is before the intent
				return false, nil
			}
			close(intended)
			<-proceed
			return false, context.Canceled // as a database says whose reader was told to stop
		}
		w.start()
		w.submit(campaignPlan(), m)
		<-intended
		var stopping sync.WaitGroup
		stopping.Go(w.stop)
		synctest.Wait()
		close(proceed)
		stopping.Wait()
		if got := w.mail.to(); len(got) != 0 {
			t.Fatalf("a node that was told to stop sent to %v", got)
		}
		w.start()
		time.Sleep(time.Minute)
		if got := w.mail.to(); len(got) != 1 {
			t.Errorf("after the start it was sent to %v", got)
		}
		if list, sum := w.ambiguous(), w.tally("activity1"); len(list) != 0 || sum.Sent != 1 || sum.InFlight() != 0 {
			t.Errorf("listed %+v; tally %+v, in flight %d", list, sum, sum.InFlight())
		}
	})
}

func TestFault_outcomes_whose_commit_answered_an_error_count_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		var armed atomic.Bool
		w.inject(func(p string) error {
			if p == "committed" && armed.CompareAndSwap(true, false) {
				return errors.New("the connection broke in COMMIT, and the look afterwards failed too")
			}
			return nil
		})
		w.mail.answer = func(int, *courier.Message) courier.Outcome {
			armed.Store(true)
			return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
		}
		w.submit(campaignPlan(), w.endpoint("e1", ChannelEmail, "one@tea.example", nil))
		time.Sleep(time.Minute)
		if sum := w.tally("activity1"); sum.Sent != 1 || sum.InFlight() != 0 {
			t.Errorf("one recipient, one message: %+v, in flight %d; facts %v", sum, sum.InFlight(), w.facts())
		}
	})
}

// A node that fails to write that it rests must take work again once the
// database is back and another node has fenced it.
func TestFault_a_node_that_was_fenced_at_rest_works_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		var away atomic.Bool
		w.inject(func(string) error {
			if away.Load() {
				return errors.New("the database is away")
			}
			return nil
		})
		o := w.other("n2", true)
		defer o.stop()
		slow := func(int, *courier.Message) courier.Outcome {
			time.Sleep(3 * time.Second)
			return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
		}
		w.mail.answer, o.mail.answer = slow, slow
		m := w.endpoint("e1", ChannelEmail, "one@tea.example", nil)
		w.update(func(tx *store.Tx) error { return w.service.PutPlan(tx, campaignPlan()) })
		for seq := range 12 {
			w.update(func(tx *store.Tx) error { return w.service.Claim(tx, "activity1", int64(seq), []Member{m}) })
		}
		time.Sleep(4 * time.Second) // sent; the nodes hold nothing now
		if len(w.mail.to()) == 0 || len(o.mail.to()) == 0 {
			t.Fatal("both nodes should have had work")
		}
		away.Store(true)
		time.Sleep(30 * time.Second)
		away.Store(false)
		time.Sleep(time.Minute)
		before := len(w.mail.to()) + len(o.mail.to())
		w.update(func(tx *store.Tx) error {
			p := campaignPlan()
			p.ID = "activity2"
			if err := w.service.PutPlan(tx, p); err != nil {
				return err
			}
			return w.service.Claim(tx, p.ID, 1, []Member{{Key: []byte(endpoints.Key(w.store, testApp, "e1"))}})
		})
		time.Sleep(time.Hour)
		if got := len(w.mail.to()) + len(o.mail.to()); got != before+1 {
			t.Errorf("two nodes, and an hour after the database came back: %+v, nothing sent", w.tally("activity2"))
		}
	})
}

func TestFault_an_address_gets_one_message_though_its_first_endpoint_opts_out(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		a := w.endpoint("a", ChannelEmail, "twin@tea.example", nil)
		b := w.endpoint("b", ChannelEmail, "twin@tea.example", nil)
		p := campaignPlan()
		p.PerSecond = 1 // one message a commit
		w.mail.answer = func(n int, _ *courier.Message) courier.Outcome {
			if n == 1 {
				w.endpoint("a", ChannelEmail, "twin@tea.example", map[string]string{"OptOut": "ALL"})
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
		}
		w.submit(p, a, b)
		time.Sleep(time.Minute)
		if got := w.mail.to(); len(got) != 1 {
			t.Errorf("one address, of which the first endpoint opted out after the first mail, got %d mails; listed %d", len(got), len(w.ambiguous()))
		}
	})
}

func TestFault_a_plan_keeps_its_rate_while_direct_calls_come(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		const rate, blocks, each = 4, 4, 40
		var campaign atomic.Int64
		w.mail.answer = func(_ int, m *courier.Message) courier.Outcome {
			if m.To != "direct@tea.example" {
				campaign.Add(1)
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
		}
		var members []Member
		for i := range blocks * each {
			members = append(members, w.endpoint(fmt.Sprint("e", i), ChannelEmail, fmt.Sprintf("p%d@tea.example", i), nil))
		}
		p := campaignPlan()
		p.PerSecond = rate
		w.update(func(tx *store.Tx) error { return w.service.PutPlan(tx, p) })
		for block := range blocks {
			w.update(func(tx *store.Tx) error {
				return w.service.Claim(tx, p.ID, int64(block), members[block*each:(block+1)*each])
			})
			for call := range plansMax {
				w.update(func(tx *store.Tx) error {
					d := &Plan{
						ID: fmt.Sprintf("call%d-%d", block, call), Account: "111122223333", App: testApp, Call: &Call{Operation: "SendMessages"},
						Email: &Email{From: "news@tea.example", Subject: "s", Text: "t"},
					}
					if err := w.service.PutPlan(tx, d); err != nil {
						return err
					}
					return w.service.Claim(tx, d.ID, 1, []Member{{Channel: ChannelEmail, Address: "direct@tea.example", MessageID: d.ID}})
				})
			}
		}
		time.Sleep(time.Second)
		from := campaign.Load()
		const seconds = 5
		time.Sleep(seconds * time.Second)
		if got := campaign.Load() - from; got > rate*seconds+rate {
			t.Errorf("%d messages in %d s of a plan with %d/s", got, seconds, rate)
		}
	})
}

// slowly: while one provider is away or one number is slow, a direct text on
// another channel leaves soon.
func TestFault_a_dead_relay_does_not_hold_up_texts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		w.mail.answer = func(int, *courier.Message) courier.Outcome {
			return courier.Outcome{Status: courier.Deferred, Code: "conn"}
		}
		p := campaignPlan()
		p.SMS = nil
		w.update(func(tx *store.Tx) error { return w.service.PutPlan(tx, p) })
		for block := range 8 {
			var members []Member
			for i := range 20 {
				members = append(members, w.endpoint(fmt.Sprintf("e%d-%d", block, i), ChannelEmail, fmt.Sprintf("p%d-%d@tea.example", block, i), nil))
			}
			w.update(func(tx *store.Tx) error { return w.service.Claim(tx, p.ID, int64(block), members) })
		}
		time.Sleep(time.Minute)
		w.update(func(tx *store.Tx) error {
			d := &Plan{ID: "call", Account: "111122223333", App: testApp, Call: &Call{Operation: "SendMessages"}, SMS: &SMS{Body: "your code"}}
			if err := w.service.PutPlan(tx, d); err != nil {
				return err
			}
			return w.service.Claim(tx, d.ID, 1, []Member{{Channel: ChannelSMS, Address: "+12065550177", MessageID: "m"}})
		})
		start := time.Now()
		for len(w.text.to()) == 0 && time.Since(start) < time.Hour {
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("with the mail relay away a direct text waited %s", d)
		}
	})
}

func TestFault_a_slow_number_stays_slow(t *testing.T) {
	if p := newPacer(Number{PartsPerSecond: 0.5}.PartsPerSecond); p.limit == nil {
		t.Error("half a part a second is no limit at all")
	}
	// Ten parts are ten turns.
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(1)
		start := time.Now()
		for range 3 {
			if err := p.wait(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d < 19*time.Second {
			t.Errorf("30 parts at 1 part/s took %s", d)
		}
	})
}

func TestFault_a_recipient_that_cannot_be_read_does_not_stop_the_rest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		bad := w.endpoint("bad", ChannelEmail, "bad@tea.example", nil)
		w.update(func(tx *store.Tx) error {
			return tx.Put(endpoints.KindEndpoint, string(bad.Key), []byte{0xff, 0xff, 0xff})
		})
		good := w.endpoint("good", ChannelEmail, "good@tea.example", nil)
		w.submit(campaignPlan(), bad, good)
		time.Sleep(3 * time.Hour)
		if sum := w.tally("activity1"); sum.InFlight() != 0 || len(w.mail.to()) != 1 {
			buried, _, err := w.queue.BuriedWork(w.store.Reader(t.Context()), "", 10)
			t.Errorf("three hours later in flight %d, sent to %v; buried %d, %v", sum.InFlight(), w.mail.to(), len(buried), err)
		}
	})
}

func TestFault_a_message_that_is_known_to_have_left_is_not_sent_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		var full atomic.Bool
		w.inject(func(p string) error {
			if p == "write" && full.Load() {
				return errors.New("no space left on device")
			}
			return nil
		})
		w.mail.answer = func(int, *courier.Message) courier.Outcome {
			full.Store(true)
			return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
		}
		p := &Plan{ID: "call", Account: "111122223333", App: testApp, Call: &Call{Operation: "SendMessages"}, Email: &Email{From: "news@tea.example", Subject: "s", Text: "t"}}
		w.submit(p, Member{Channel: ChannelEmail, Address: "one@tea.example", MessageID: "m"})
		time.Sleep(3 * time.Minute) // the disk is full for so long; the node lives all the while
		w.mail.mu.Lock()
		w.mail.answer = nil
		w.mail.mu.Unlock()
		full.Store(false)
		time.Sleep(time.Hour)
		if sum := w.tally("call"); sum.InFlight() != 0 || sum.Sent != 1 {
			t.Errorf("an hour after the disk has room again: %+v", sum)
		}
		time.Sleep(13 * time.Hour)
		if got := w.mail.to(); len(got) != 1 {
			t.Errorf("the relay's 250 was heard, and it went out %d times (listed %d)", len(got), len(w.ambiguous()))
		}
	})
}

func TestFault_each_text_is_delivered_once_however_many_parts_it_has(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		w.text.answer = func(int, *courier.Message) courier.Outcome {
			return courier.Outcome{Status: courier.Accepted, Code: "0x00000000", Parts: 3, ProviderIDs: []string{"a", "b", "c"}}
		}
		w.submit(campaignPlan(), w.endpoint("e1", ChannelSMS, "+12065550177", nil))
		time.Sleep(time.Minute)
		for _, id := range []string{"a", "b", "c"} {
			if err := w.service.Receipt(t.Context(), courier.Receipt{Route: "main", ProviderID: id, State: "DELIVRD"}); err != nil {
				t.Fatal(err)
			}
		}
		if sum := w.tally("activity1"); sum.Delivered > sum.Sent {
			t.Errorf("%d sent, %d delivered", sum.Sent, sum.Delivered)
		}
	})
}

// The run marks who has the address of somebody in an earlier block.
func TestFault_an_address_gets_one_message_though_its_endpoints_lie_in_two_blocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		a := w.endpoint("a", ChannelEmail, "shared@tea.example", nil)
		b := w.endpoint("b", ChannelEmail, "shared@tea.example", nil)
		b.Twin = true
		p := campaignPlan()
		w.update(func(tx *store.Tx) error { return w.service.PutPlan(tx, p) })
		for seq, m := range []Member{a, b} {
			w.update(func(tx *store.Tx) error { return w.service.Claim(tx, p.ID, int64(seq), []Member{m}) })
		}
		time.Sleep(time.Minute)
		if got, sum := w.mail.to(), w.tally(p.ID); len(got) != 1 || sum.Held[ReasonDuplicate] != 1 {
			t.Errorf("one address got %d mails of one campaign; tally %+v", len(got), sum)
		}
	})
}
