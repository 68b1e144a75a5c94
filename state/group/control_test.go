package group

import (
	"context"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
)

// Control moves while a claim of the sweep (which is not of a's own shards, but of
// control) is being written: Fresh, after which the new control Region sweeps,
// waits for it.
func TestFresh_waits_when_control_moves_while_its_claim_is_written(t *testing.T) {
	w := newWorld(t, "a", "b")
	members := map[string]*member{"a": w.members["a"], "b": w.members["b"]}
	members["a"].standing(32)
	members["b"].standing(32)
	from, to := "a", "b"
	if s, _ := members["a"].group.Standing(); !s.Leads {
		from, to = to, from
	}
	a, b := members[from], members[to]
	s, err := a.group.Standing()
	if err != nil {
		t.Fatal(err)
	}
	writing, write, claimed := make(chan bool), make(chan struct{}), make(chan error, 1)
	go func() {
		claimed <- a.group.Claim(t.Context(), s.Epoch, func() error {
			now, err := a.group.Standing()
			writing <- now.Leads
			<-write
			if err != nil {
				return err
			}
			return a.put(t.Context(), "of the sweep")
		})
	}()
	if !<-writing {
		t.Fatal("a does not lead")
	}
	state, _ := a.quorum.State()
	if _, err := b.quorum.Propose(t.Context(), quorum.SetControl{Region: to, Epoch: state.Control.Epoch}); err != nil {
		t.Fatal(err)
	}
	w.until("b leads", func() bool { s, err := b.group.Standing(); return err == nil && s.Leads })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	swept := b.group.Fresh(ctx) == nil
	if swept && !b.has("of the sweep") {
		t.Error("b is fresh and sweeps, while a's claim of its sweep is being written")
	}
	close(write)
	if err := <-claimed; err != nil {
		t.Logf("claim: %v", err)
	} else if swept {
		t.Error("a's claim is good, though b has swept")
	}
}
