package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// Config says who this Region is and when another is given up.
type Config struct {
	Region string // this one

	// RemoveAfter is how long another Region may say nothing before it is removed
	// from the set; 0 means 3 s.
	RemoveAfter time.Duration
	// Interval lies between two looks at the others; 0 means 250 ms.
	Interval time.Duration
	// NearBlocks is how many blocks of a stream a Region may lack when the others
	// begin to wait for it; 0 means 64.
	NearBlocks int64
	// ReturnTime bounds the way from there into the set; 0 means 10 s.
	ReturnTime time.Duration
}

// Quorum is what the Regions decide by.
type Quorum interface {
	State() (quorum.State, uint64)
	Wait(ctx context.Context, index uint64) error
	Member(region, incarnation string) uint64
	Lease() (epoch uint64, left time.Duration, ok bool)
	Reason() string
	Propose(ctx context.Context, c quorum.Command) (quorum.Result, error)
	Speaks() (generation uint64, ok bool)
}

// Replica is how this Region hears the others.
type Replica interface {
	Status() []replica.Status
	CatchUp(ctx context.Context, others map[string]string, index uint64) error
	Handshake(ctx context.Context, epoch uint64) error
}

// Group keeps this Region's place in the set. Make it with New, give it the
// replica by Follow, keep Run going; it is safe for concurrent use.
type Group struct {
	cfg     Config
	store   *store.Store
	quorum  Quorum
	replica Replica
	now     func() time.Time
	log     *slog.Logger

	// heard is the generation of the Region's voice, and 1, in which something that
	// this node proposed has come back to it; 0 before. Until then what is known of
	// the set may be what an earlier life or another node left.
	heard atomic.Uint64
	// joined says that something it proposed has come back at any time.
	joined atomic.Bool
	late   chan string

	handover *handover
}

// New returns a Region's place in a group. Nothing happens before Run.
func New(cfg Config, st *store.Store, q Quorum, now func() time.Time, log *slog.Logger) *Group {
	for _, d := range []struct{ d, v *time.Duration }{
		{&cfg.RemoveAfter, new(3 * time.Second)}, {&cfg.Interval, new(250 * time.Millisecond)}, {&cfg.ReturnTime, new(10 * time.Second)},
	} {
		if *d.d <= 0 {
			*d.d = *d.v
		}
	}
	if cfg.NearBlocks <= 0 {
		cfg.NearBlocks = 64
	}
	return &Group{cfg: cfg, store: st, quorum: q, now: now, log: log.With("component", "group"), late: make(chan string, 16), handover: newHandover()}
}

// Follow says what hears the others. It is called once, before Run.
func (g *Group) Follow(r Replica) { g.replica = r }

// current reports whether this node is its Region's voice and knows what the
// quorum had decided when it became that.
func (g *Group) current() bool {
	generation, speaks := g.quorum.Speaks()
	return speaks && g.heard.Load() == generation+1
}

// Here reports whether this node is the one of its Region's that claims.
func (g *Group) Here() bool {
	_, speaks := g.quorum.Speaks()
	return speaks
}

var errSilent = errors.New("this node has not heard of the quorum since it began to speak for its Region, or another node does")

// Together names the other Regions that must have what is acknowledged to the
// group, with their incarnations. It is what [replica.Config.Group] wants. It
// fails while this node does not know.
func (g *Group) Together() (map[string]string, error) {
	state, _ := g.quorum.State()
	me := state.Regions[g.cfg.Region]
	switch {
	case !g.current():
		return nil, errSilent
	case me.Incarnation != g.store.Incarnation():
		return nil, errors.New("this Region has not joined the group at its present incarnation")
	}
	all := state.Together()
	delete(all, g.cfg.Region)
	return all, nil
}

// Index is how far this node has applied the quorum's log: what
// [replica.Config.Index] tells. It is 0 while Together fails, and stays behind
// while claims of an older duty map are being written.
func (g *Group) Index() uint64 {
	if !g.current() {
		return 0
	}
	return g.handover.index(g.quorum)
}

// Late notes that a write has waited long for a Region. It is what
// [replica.Config.Late] wants.
func (g *Group) Late(region string) {
	select {
	case g.late <- region:
	default: // it is said again
	}
}

// Run keeps the Region's place and duty until ctx ends.
func (g *Group) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { g.keepDuty(ctx) })
	beside.Go(func() { g.tellChanges(ctx) })
	var place keeping
	tick := time.NewTicker(g.cfg.Interval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case region := <-g.late:
			err = g.remove(ctx, region, fmt.Sprintf("Region %s waited too long for it to have a write", g.cfg.Region))
		case <-tick.C:
			err = g.look(ctx, &place)
		}
		if err != nil && ctx.Err() == nil {
			g.log.WarnContext(ctx, "the Region's place in the group cannot be kept", "error", err)
		}
	}
}

// keeping is since when this node keeps its Region's place.
type keeping struct {
	generation uint64 // and 1, of the voice; 0 while another node is it
	began      time.Time
}

// look does what is due.
func (g *Group) look(ctx context.Context, k *keeping) error {
	generation, speaks := g.quorum.Speaks()
	switch {
	case !speaks && g.joined.Load():
		*k = keeping{}
		return nil // the node that speaks does it
	case speaks && k.generation != generation+1:
		*k = keeping{generation + 1, g.now()} // it has heard nobody before
	}
	state, _ := g.quorum.State()
	me, known := state.Regions[g.cfg.Region]
	if incarnation := g.store.Incarnation(); !speaks || !g.current() || !known || me.Incarnation != incarnation {
		if _, err := g.quorum.Propose(ctx, quorum.Join{Region: g.cfg.Region, Incarnation: incarnation, Was: me.Incarnation}); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		if speaks {
			// What the node that spoke before vouched for is below the heads that this one
			// tells.
			if err := g.store.Refresh(ctx); err != nil {
				return fmt.Errorf("read the streams' heads: %w", err)
			}
			g.heard.Store(generation + 1)
		}
		g.joined.Store(true)
		g.log.InfoContext(ctx, "joined the group", "incarnation", incarnation)
		return nil
	}
	status := map[string]replica.Status{}
	for _, s := range g.replica.Status() {
		status[s.Region] = s
	}
	for region := range state.Together() {
		s := status[region]
		if silent := g.now().Sub(later(s.Heard, k.began)); region != g.cfg.Region && s.Mine && silent > g.cfg.RemoveAfter {
			if err := g.remove(ctx, region, fmt.Sprintf("Region %s has not heard of it for %s", g.cfg.Region, silent.Truncate(time.Millisecond))); err != nil {
				return err
			}
		}
	}
	if me.InSync {
		return nil
	}
	return g.comeBack(ctx, &state, status)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// remove has a Region removed from the set, or no more waited for.
func (g *Group) remove(ctx context.Context, region, reason string) error {
	state, _ := g.quorum.State()
	r := state.Regions[region]
	if me := state.Regions[g.cfg.Region]; !me.InSync || !r.InSync && !r.Awaited {
		return nil // who is out of the set removes nobody
	}
	_, err := g.quorum.Propose(ctx, quorum.Remove{Region: region, Incarnation: r.Incarnation, Reason: reason})
	if aws.KindOf(err) == aws.KindConflict {
		return nil // it has changed meanwhile
	}
	if err != nil {
		return fmt.Errorf("remove Region %s: %w", region, err)
	}
	g.log.WarnContext(ctx, "a Region was removed from the in-sync set", "peer", region, "reason", reason)
	return nil
}

// comeBack takes this Region into the set when it is near enough.
func (g *Group) comeBack(ctx context.Context, state *quorum.State, status map[string]replica.Status) error {
	others := map[string]string{}
	for _, region := range state.Set() {
		others[region] = state.Regions[region].Incarnation
		s, heard := status[region]
		if !heard || s.Apart || !s.Hears || s.Incarnation != others[region] || g.now().Sub(s.Heard) > g.cfg.RemoveAfter/2 {
			return nil
		}
		for _, st := range []store.Stream{store.Safety, store.Changes} {
			if s.Streams[st].Head-s.Streams[st].Merged > g.cfg.NearBlocks {
				return nil
			}
		}
	}
	me := state.Regions[g.cfg.Region]
	result, err := g.quorum.Propose(ctx, quorum.Await{Region: g.cfg.Region, Incarnation: me.Incarnation})
	if err != nil {
		return fmt.Errorf("be awaited: %w", err)
	}
	catching, cancel := context.WithTimeout(ctx, g.cfg.ReturnTime)
	defer cancel()
	if err := g.replica.CatchUp(catching, others, result.Index); err != nil {
		return err
	}
	_, err = g.quorum.Propose(ctx, quorum.Return{
		Region: g.cfg.Region, Incarnation: me.Incarnation, Attempt: result.Epoch, SetEpoch: state.SetEpoch,
	})
	if err != nil {
		return fmt.Errorf("return to the in-sync set: %w", err)
	}
	// What waited long before says nothing about who is in the set now.
	for len(g.late) > 0 {
		<-g.late
	}
	g.log.InfoContext(ctx, "in sync", "others", len(others))
	return nil
}
