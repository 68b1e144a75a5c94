package quorum

import (
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// A Region that is cut off from the leader's is not in the quorum any more. The
// witness gives its stop orders.
func TestStops_of_a_Region_that_does_not_reach_the_leader(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		leads := func() bool { l := w.leader(); return l != nil && l.name != "witness" }
		if !leads() {
			w.sever("witness", true)
			w.until("a Region leads", time.Minute, leads)
			w.heal()
			w.until("the witness follows", time.Minute, func() bool { return leads() && w.members["witness"].q.Reason() == "" })
		}
		leader := w.leader()
		cut := w.members[map[string]string{"a": "b", "b": "a"}[leader.name]]
		w.mu.Lock()
		w.cut[[2]string{leader.name, cut.name}], w.cut[[2]string{cut.name, leader.name}] = true, true
		w.mu.Unlock()
		for i := range 2 { // before it knows that it is cut off, and after
			if i > 0 {
				w.until("it knows", time.Minute, func() bool { return cut.q.Reason() != "" })
			}
			if _, err := cut.q.Propose(t.Context(), Barrier{}); aws.KindOf(err) != aws.KindUnavailable {
				t.Fatalf("a command of a Region that is cut off: %v", err)
			}
			began := time.Now()
			withdraw, err := cut.q.Order(t.Context(), "app/c", Halt{Kind: Pause})
			if err != nil || withdraw == nil {
				t.Fatalf("order %d is not given: %v", i, err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("order %d took %s", i, took)
			}
			h, ok := leader.q.Halted("other", "app/c")
			if !ok || h.Kind != Pause {
				t.Errorf("the leader's Region has %+v, %v", h, ok)
			}
			if err := leader.q.Lift(t.Context(), "app/c", h.Epoch); err != nil {
				t.Fatal(err)
			}
			if _, ok := leader.q.Halted("app/c"); ok {
				t.Error("it stands after it was lifted")
			}
		}
		w.sever(cut.name, true)
		if _, err := cut.q.Order(t.Context(), "app/c", Halt{Kind: Pause}); aws.KindOf(err) != aws.KindUnavailable {
			t.Errorf("a Region that reaches nobody: %v", err)
		}
		if _, err := cut.q.Order(t.Context(), "a key", Halt{Kind: Pause}); aws.KindOf(err) != aws.KindInvalid {
			t.Errorf("a key that cannot be: %v", err)
		}
	})
}

func TestStops_withdrawn(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		q := w.members["b"].q
		order := func() func() {
			t.Helper()
			withdraw, err := q.Order(t.Context(), "app", Halt{Kind: Delete})
			if err != nil {
				t.Fatal(err)
			}
			return func() { withdraw(t.Context()) }
		}
		order()()
		if _, ok := q.Halted("app"); ok {
			t.Error("the order stands")
		}
		order()
		order()() // another's stands already
		if _, ok := q.Halted("app"); !ok {
			t.Error("who withdrew its own order withdrew another's")
		}
	})
	var none *Quorum
	if _, ok := none.Halted("app"); ok {
		t.Error("a Region without a group has an order")
	}
	if _, err := none.Order(t.Context(), "app", Halt{Kind: Delete}); aws.KindOf(err) != aws.KindUnavailable {
		t.Errorf("an order in a Region without a group: %v", err)
	}
}
