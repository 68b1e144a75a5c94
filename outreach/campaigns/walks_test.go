package campaigns

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/group"
)

// A worker walks an activity; 32 others are taken up on the node meanwhile. It
// hears of what another Region claims from then on all the same: should that Region's
// shards come to this one, it must not claim any of them again.
func TestWorker_hears_of_claims_though_many_runs_are_worked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		defer w.stop()
		lost := 0
		var walks []*seen
		for i := range 40 {
			s, err := w.room.seenOf(t.Context(), fmt.Sprintf("activity%02d", i), 0)
			if err != nil {
				t.Fatal(err)
			}
			walks = append(walks, s)
		}
		for i, s := range walks {
			w.room.claimed(fmt.Sprintf("activity%02d", i), []delivery.Member{{Key: []byte("sixteen bytes of key"), Hash: 7}})
			if !s.has("sixteen bytes of key") {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%d of 40 walks under way do not hear of what other Regions claim", lost)
		}
	})
}

// b swept a first time; a, with control meanwhile, sweeps a second time and is
// lost in the middle of it. b has control again: its first sweep counts for nothing.
func TestSweep_a_second_one_goes_on_in_the_Region_of_the_first(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &situation{
		campaign: &Campaign{}, activity: &Activity{State: stateRunning, Sweeping: true, Superseded: 20}, segment: true,
		tally: &delivery.Tally{Superseded: 20}, here: &delivery.Tally{}, window: 2048,
		part: &Part{SweptDone: group.AllShards, Done: group.AllShards}, done: group.AllShards,
		place: group.Standing{Epoch: 9, Shards: group.AllShards, Leads: true, Grouped: true},
	}
	if d := decide(now, s); d.step == stepAwait {
		t.Errorf("waits for ever: %s", d.why)
	}
}
