package group

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
)

// handover is how shards go from one Region to another: who loses them says so
// when nothing that it claimed under the old duty map is on its way to the disk
// any more, and who gains them waits until it was said.
type handover struct {
	mu      sync.Mutex
	open    map[uint64]int // claims whose write runs, by the mapEpoch they began under
	told    uint64         // the index that was told last
	ready   [quorum.Shards]taken
	changed chan struct{} // closed and replaced when the duty may be another
}

// taken is a shard that this Region may claim: as what it came to it.
type taken struct {
	member uint64 // the Region's stay in the set
	since  uint64 // the duty epoch at which the shard came to it
}

func newHandover() *handover {
	return &handover{open: map[uint64]int{}, changed: make(chan struct{})}
}

// begin opens a claim under the duty map as it is now; end closes it.
func (h *handover) begin(q Quorum) (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	state, _ := q.State() // with the lock: index looks at what is open and at the state alike
	epoch := mapEpoch(&state)
	h.open[epoch]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open[epoch]--; h.open[epoch] == 0 {
			delete(h.open, epoch)
		}
	}
}

// mapEpoch rises with whatever a claim may go by: the duty map, and who has control,
// for that Region claims of all shards when a run is walked again.
func mapEpoch(state *quorum.State) uint64 { return state.Duty.Epoch + state.Control.Epoch }

// index is how far this node may say that it has applied the quorum's log. While a
// claim is open that began under an older duty map or control, it is what it was.
func (h *handover) index(q Quorum) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	state, index := q.State()
	for epoch := range h.open {
		if epoch != mapEpoch(&state) {
			return h.told
		}
	}
	h.told = index
	return index
}

// claimable are the shards that are the Region's and ready.
func (h *handover) claimable(region string, state *quorum.State) Shards {
	mine, _ := h.split(region, state)
	return mine
}

// split returns the Region's shards: those that are ready, and those that are not.
func (h *handover) split(region string, state *quorum.State) (ready, waiting Shards) {
	member := state.Regions[region].Member
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, owner := range state.Duty.Shards {
		switch {
		case owner != region || member == 0:
		case h.ready[i] == taken{member, state.Duty.Since[i]}:
			ready |= 1 << i
		default:
			waiting |= 1 << i
		}
	}
	return ready, waiting
}

// take makes the Region's shards ready, as they came to it in state.
func (h *handover) take(region string, state *quorum.State) {
	member := state.Regions[region].Member
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, owner := range state.Duty.Shards {
		if owner == region && member > 0 {
			h.ready[i] = taken{member, state.Duty.Since[i]}
		}
	}
}

func (h *handover) changes() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *handover) signal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

// keepDuty takes shards that this Region gained, when it may, until ctx ends.
func (g *Group) keepDuty(ctx context.Context) {
	for ctx.Err() == nil {
		state, index := g.quorum.State()
		g.gain(ctx, &state, index)
		g.await(ctx, index)
	}
}

// tellChanges says when something is another, until ctx ends.
func (g *Group) tellChanges(ctx context.Context) {
	was := ""
	for ctx.Err() == nil {
		_, index := g.quorum.State()
		if is := g.situation(); is != was {
			was = is
			g.handover.signal()
		}
		g.await(ctx, index)
	}
}

// await returns when something after the index was applied, or soon: leases and
// majorities end without an entry of the log.
func (g *Group) await(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Interval)
	defer cancel()
	_ = g.quorum.Wait(ctx, index)
}

// situation is what the duty says now, as far as its callers want to hear of
// changes, to be compared.
func (g *Group) situation() string {
	state, _ := g.quorum.State()
	s, err := g.standing(&state)
	text := fmt.Sprint(s, err, state.SetEpoch, state.Duty.Epoch)
	for _, name := range slices.Sorted(maps.Keys(state.Leases)) {
		text += fmt.Sprint(" ", name, over(&state, name))
	}
	return text
}

// gain takes the shards that are this Region's and not ready, if the others say
// so soon.
//
// What another Region of the set had claimed of them is here when it has told of
// an index not below this one, at which they are not its any more, and its streams
// as it told of them then are merged. What a Region had that is out of the set is
// nobody's when its lease is over; what it had completed is here, for each of the
// set acknowledged it.
func (g *Group) gain(ctx context.Context, state *quorum.State, index uint64) {
	me := state.Regions[g.cfg.Region]
	if !g.current() || !me.InSync || me.Incarnation != g.store.Incarnation() {
		return
	}
	if _, waiting := g.handover.split(g.cfg.Region, state); waiting == 0 {
		return
	}
	others := map[string]string{}
	for name, r := range state.Regions {
		switch {
		case name == g.cfg.Region:
		case r.InSync:
			others[name] = r.Incarnation
		case !over(state, name):
			return
		}
	}
	began := g.now()
	catching, cancel := context.WithTimeout(ctx, g.cfg.ReturnTime)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() { // who is waited for may leave the set
		defer cancel()
		g.unmoved(catching, state, index)
	})
	err := g.replica.CatchUp(catching, others, index)
	cancel()
	watching.Wait()
	now, _ := g.quorum.State()
	if err != nil || moved(state, &now) {
		return // it is tried again
	}
	g.handover.take(g.cfg.Region, state)
	g.handover.signal()
	ready := g.handover.claimable(g.cfg.Region, state)
	g.log.InfoContext(ctx, "shards can be claimed", "shards", ready.Count(), "duty_epoch", state.Duty.Epoch, "waited", g.now().Sub(began).Truncate(time.Millisecond))
}

// unmoved returns when the set or the duty is not as in state any more, or ctx
// ends.
func (g *Group) unmoved(ctx context.Context, state *quorum.State, index uint64) {
	for {
		if err := g.quorum.Wait(ctx, index); err != nil {
			return
		}
		var now quorum.State
		if now, index = g.quorum.State(); moved(state, &now) {
			return
		}
	}
}

// moved reports whether shards or Regions have come or gone between two states.
func moved(from, to *quorum.State) bool {
	return from.SetEpoch != to.SetEpoch || from.Duty.Epoch != to.Duty.Epoch
}
