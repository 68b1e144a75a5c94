package delivery

import (
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

const callRecord = "rec\xffrd"

// calls has both Regions know which plans were made of a call: those that are there,
// a's before b's.
func (p *pair) calls() {
	for _, w := range []*world{p.a, p.b} {
		w.service.Calls(func(r store.Reader, of string) ([]Made, error) {
			var made []Made
			for _, m := range []Made{{"a's", "a"}, {"b's", "b"}} {
				row, err := r.Get(kindClaim, blockKey(m.Plan, m.Region, 1))
				if err != nil {
					return nil, err
				}
				if row != nil && of == callRecord {
					made = append(made, m)
				}
			}
			return made, nil
		})
	}
}

// call makes the call in a Region; after is done in the update, when it is not nil.
func (w *world) call(after func()) {
	w.t.Helper()
	plan := &Plan{
		ID: w.region + "'s", App: testApp, Created: time.Now(), Call: &Call{Operation: "SendMessages", Record: []byte(callRecord)},
		Email: &Email{From: "Tea <news@tea.example>", Subject: "Menu", Text: "Hello"},
	}
	w.update(func(tx *store.Tx) error {
		if err := w.service.PutPlan(tx, plan); err != nil {
			return err
		}
		err := w.service.ClaimCall(tx, plan.ID, 1, []Member{{Channel: ChannelEmail, Address: "one@tea.example", MessageID: plan.ID}})
		if after != nil {
			after()
		}
		return err
	})
}

// exchange ships everything both ways, lets time pass, and does so again.
func (p *pair) exchange() {
	p.t.Helper()
	for range 2 {
		p.ship(p.a, p.b)
		p.ship(p.b, p.a)
		pass(time.Minute)
	}
}

// sentBy fails unless the recipient heard once, from the Region, and both count alike.
func (p *pair) sentBy(w *world, plan string) {
	p.t.Helper()
	if n := p.times()["one@tea.example"]; n != 1 || len(w.mail.to()) != 1 {
		p.t.Errorf("sent %d times, %d of them by %s", n, len(w.mail.to()), w.region)
	}
	if list := w.ambiguous(); len(list) != 0 {
		p.t.Errorf("listed %+v", list)
	}
	sent := 0
	for _, of := range []string{"a's", "b's"} {
		a, b := p.a.tally(of), p.b.tally(of)
		if !a.equal(b) || a.InFlight() != 0 {
			p.t.Errorf("of %s plan Region a counts %+v, b %+v", of, a, b)
		}
		if sent += int(a.Sent); of == plan && a.Sent != 1 {
			p.t.Errorf("%s plan counts %+v", of, a)
		}
	}
	if sent != 1 {
		p.t.Errorf("%d are counted as sent", sent)
	}
}

// Neither had heard of the other's when it made its own. They mean the same plan.
func TestCall_that_was_made_twice_is_sent_once(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.calls()
		// Both have written that they are about to send when they hear of each other.
		var written, heard sync.WaitGroup
		written.Add(2)
		heard.Add(1)
		for _, w := range []*world{p.a, p.b} {
			w.duty.(*seat).instead = func(write func() error) error {
				err := write()
				written.Done()
				heard.Wait()
				return err
			}
		}
		p.b.call(nil)
		p.a.call(nil)
		written.Wait()
		p.ship(p.a, p.b)
		p.ship(p.b, p.a)
		heard.Done()
		pass(time.Minute)
		p.exchange()
		p.sentBy(p.a, "a's")
	})
}

// What a Region wrote when its stay had just ended may have been answered, and nobody
// else has it to send: another Region does.
func TestCall_that_came_late_is_sent_by_another(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.calls()
		p.a.call(func() { p.c.set("a", 0) })
		p.ship(p.a, p.b)
		pass(time.Minute)
		p.c.set("a", 5)
		p.exchange()
		p.sentBy(p.b, "a's")
	})
}

// The caller had no answer from a Region that was cut off, and repeated the call.
func TestCall_that_came_late_and_was_repeated_is_sent_once(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.calls()
		p.a.call(func() { p.c.set("a", 0) })
		p.b.call(nil)
		pass(time.Minute)
		if got := p.b.mail.to(); len(got) != 1 {
			t.Fatalf("the repeated call is sent to %v", got)
		}
		p.c.set("a", 5)
		p.exchange()
		p.sentBy(p.b, "b's")
	})
}

// The same, and who sent it is lost before it could write that the late one is void.
func TestCall_that_was_repeated_is_sent_once_whoever_is_lost_then(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.calls()
		p.a.call(func() { p.c.set("a", 0) })
		p.b.call(nil)
		pass(time.Minute)
		p.c.set("a", 5)
		p.ship(p.b, p.a)
		p.c.set("b", 0)
		p.b.stop()
		pass(time.Minute)
		if n := p.times()["one@tea.example"]; n != 1 {
			t.Errorf("sent %d times", n)
		}
		if a, b := p.a.tally("a's"), p.a.tally("b's"); a.Sent != 0 || a.InFlight() != 0 || b.Sent != 1 {
			t.Errorf("counted %+v of a's plan, %+v of b's", a, b)
		}
	})
}
