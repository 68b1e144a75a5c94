package group

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/quorum"
)

var _ Duty = (*Group)(nil)

// Standing is this Region's place now. It fails with aws.Unavailable, and why,
// when the Region may claim nothing.
func (g *Group) Standing() (Standing, error) {
	state, _ := g.quorum.State()
	return g.standing(&state)
}

func (g *Group) standing(state *quorum.State) (Standing, error) {
	me := state.Regions[g.cfg.Region]
	if !g.current() {
		return Standing{}, aws.Unavailable("%v", errSilent)
	}
	if _, _, held := g.quorum.Lease(); !held && me.InSync {
		return Standing{}, aws.Unavailable("this node does not hold the lease of Region %s", g.cfg.Region)
	}
	if err := g.stays(state); err != nil {
		return Standing{}, err
	}
	s := Standing{
		Epoch: me.Member, Shards: g.handover.claimable(g.cfg.Region, state), Others: state.Set(),
		Grouped: len(state.Regions) > 1 || len(state.Leases) > 1, Leads: state.Control.Region == g.cfg.Region,
	}
	s.Others = slices.DeleteFunc(s.Others, func(name string) bool { return name == g.cfg.Region })
	return s, nil
}

// Stay is the epoch of this Region's stay in the set, whichever of its nodes
// claims. It fails with aws.Unavailable, and why, when it is in none or nothing can
// be acknowledged.
func (g *Group) Stay() (uint64, error) {
	if err := g.Heard(); err != nil {
		return 0, err
	}
	state, _ := g.quorum.State()
	return state.Regions[g.cfg.Region].Member, g.stays(&state)
}

func (g *Group) stays(state *quorum.State) error {
	me := state.Regions[g.cfg.Region]
	switch {
	case me.Incarnation != g.store.Incarnation():
		return aws.Unavailable("this Region has not joined the group at its present incarnation")
	case !me.InSync:
		return aws.Unavailable("Region %s is not in the in-sync set: %s", g.cfg.Region, me.Reason)
	}
	if why := g.quorum.Reason(); why != "" {
		return aws.Unavailable("there is no majority of the quorum: %s", why)
	}
	return nil
}

// Claim runs write and returns when what it committed may be relied on; see
// [Duty]. A shard that leaves this Region while write runs is not told to have
// left before write has returned.
func (g *Group) Claim(ctx context.Context, epoch uint64, write func() error) error {
	others, err := g.claim(epoch, write)
	if err != nil {
		return err
	}
	if others {
		if err := g.replica.Handshake(ctx, epoch); err != nil {
			return err
		}
	}
	if !g.Valid(epoch) {
		return g.ended(epoch)
	}
	return nil
}

// claim runs write as a claim that is open meanwhile, and reports whether there is
// anybody else in the set, or about to be.
func (g *Group) claim(epoch uint64, write func() error) (others bool, err error) {
	end := g.handover.begin(g.quorum)
	defer end()
	s, err := g.Standing()
	if err != nil {
		return false, err
	}
	if s.Epoch != epoch {
		return false, g.ended(epoch)
	}
	if err := write(); err != nil {
		return false, err
	}
	// As the acknowledgement saw it, or later: one who has come since knows all that
	// was acknowledged before.
	together, err := g.Together()
	if err != nil {
		return false, aws.Unavailable("%v", err)
	}
	return len(together) > 0, nil
}

func (g *Group) ended(epoch uint64) error {
	return aws.Unavailable("the stay of Region %s in the in-sync set since epoch %d is over, or this node's lease is", g.cfg.Region, epoch)
}

// Valid reports whether this node's lease and the Region's stay in the set since
// epoch last.
func (g *Group) Valid(epoch uint64) bool {
	_, _, held := g.quorum.Lease()
	return held && epoch > 0 && g.current() && g.quorum.Member(g.cfg.Region, g.store.Incarnation()) == epoch
}

// Member is the epoch of a Region's present stay in the set: what
// [replica.Config.Member] tells. It is 0 while this node does not know.
func (g *Group) Member(region string) uint64 {
	if !g.current() {
		return 0
	}
	state, _ := g.quorum.State()
	return state.Regions[region].Member
}

// Holds reports whether a Region's claims of an epoch are its own still.
func (g *Group) Holds(region string, epoch uint64) bool {
	state, _ := g.quorum.State()
	return epoch > 0 && state.Regions[region].Member == epoch
}

// Heard fails, with aws.Unavailable, while this node has not heard of the quorum
// since it started.
func (g *Group) Heard() error {
	if !g.joined.Load() {
		return aws.Unavailable("this node has not heard of the quorum since it started")
	}
	return nil
}

// Past reports whether the stay in which a Region claimed is over.
func (g *Group) Past(region string, epoch uint64) bool {
	state, _ := g.quorum.State()
	return past(&state, region, epoch)
}

// past is false of a stay that this node has not heard of yet, or that lasts.
func past(state *quorum.State, region string, epoch uint64) bool {
	return epoch <= state.SetEpoch && state.Regions[region].Member != epoch
}

// Orphaned reports whether a Region's claims of an epoch are nobody's.
func (g *Group) Orphaned(region string, epoch uint64) bool {
	state, _ := g.quorum.State()
	return past(&state, region, epoch) && (state.Regions[region].Member > 0 || over(&state, region))
}

// Fresh returns when this Region has what the others had committed when it was
// called: what they tell with an index that was not there before.
func (g *Group) Fresh(ctx context.Context) error {
	result, err := g.quorum.Propose(ctx, quorum.Barrier{})
	if err != nil {
		return fmt.Errorf("mark a moment: %w", err)
	}
	others := map[string]string{}
	state, _ := g.quorum.State()
	for name, r := range state.Regions {
		if r.InSync && name != g.cfg.Region {
			others[name] = r.Incarnation
		}
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.ReturnTime)
	defer cancel()
	if err := g.replica.CatchUp(ctx, others, result.Index); err != nil {
		return aws.Unavailable("what the other Regions have is not here yet: %v", err)
	}
	return nil
}

// Owner is the Region whose duty a shard is; empty while there is none.
func (g *Group) Owner(shard int) string {
	state, _ := g.quorum.State()
	if shard < 0 || shard >= quorum.Shards {
		return ""
	}
	return state.Duty.Shards[shard]
}

// over reports whether a Region's lease has ended, or never was.
func over(state *quorum.State, region string) bool {
	l := state.Leases[region]
	return l.Epoch == 0 || l.Over
}

// Mark notes in the quorum how far work was claimed. The shards must be this
// Region's to claim.
func (g *Group) Mark(ctx context.Context, epoch uint64, marks []quorum.Mark) error {
	if len(marks) == 0 {
		return nil
	}
	for try := 0; ; try++ {
		state, _ := g.quorum.State()
		s, err := g.standing(&state)
		if err != nil {
			return err
		}
		if s.Epoch != epoch {
			return g.ended(epoch)
		}
		for _, m := range marks {
			if m.Shard >= 0 && m.Shard < quorum.Shards && !s.Shards.Has(m.Shard) {
				return aws.Unavailable("shard %d is not this Region's to claim now", m.Shard)
			}
		}
		lease, _, _ := g.quorum.Lease()
		_, err = g.quorum.Propose(ctx, quorum.Raise{Region: g.cfg.Region, Lease: lease, Duty: state.Duty.Epoch, Marks: marks})
		now, _ := g.quorum.State()
		switch {
		case err == nil && g.Valid(epoch):
			return nil
		case err == nil:
			return g.ended(epoch)
		case try > 0 || aws.KindOf(err) != aws.KindConflict || now.Duty.Epoch == state.Duty.Epoch:
			return err
		}
	}
}

// Marks returns the marks whose keys begin with a prefix.
func (g *Group) Marks(prefix string) map[string]uint64 {
	state, _ := g.quorum.State()
	marks := maps.Clone(state.Marks)
	maps.DeleteFunc(marks, func(key string, _ uint64) bool { return !strings.HasPrefix(key, prefix) })
	return marks
}

// DropMarks removes them, unless this Region is alone in the set when it is applied:
// nobody else knows then what they stand for.
func (g *Group) DropMarks(ctx context.Context, prefix string) error {
	state, _ := g.quorum.State()
	s, err := g.standing(&state)
	switch {
	case err != nil:
		return err
	case len(s.Others) == 0:
		return aws.Conflict("Region %s is alone in the set, and its marks are needed", g.cfg.Region)
	}
	_, err = g.quorum.Propose(ctx, quorum.DropMarks{Prefix: prefix, SetEpoch: state.SetEpoch})
	return err
}

// Changed returns a channel that is closed when Standing, Holds or Orphaned may
// say something else.
func (g *Group) Changed() <-chan struct{} { return g.handover.changes() }
