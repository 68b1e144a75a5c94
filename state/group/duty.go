package group

import (
	"context"
	"math"
	"math/bits"

	"github.com/everpoint/everpoint/state/quorum"
)

// Duty says what this Region may claim and send, and whose claims still hold.
//
// A claim is a row that says what may be on the wire from now on: a block of
// recipients, an attempt. It carries the Region and the epoch of the claimant's
// membership. A claim holds while the Region is in the set at that epoch; when it
// has left the set, even if it returned, what it had claimed is an orphan, which
// the Regions with the duty resolve.
//
// Source: design 5, Duty, Claims, Takeover.
type Duty interface {
	// Standing is this Region's place now; an error is why it may claim nothing.
	Standing() (Standing, error)
	// Stay is the epoch of the Region's stay in the set, whichever of its nodes
	// claims: what may be written as the Region's to send, and is not on the wire
	// before it is claimed. An error is why nothing may.
	Stay() (epoch uint64, err error)
	// Here reports whether this node is the one of its Region's that claims. It is
	// cheap, and may be late.
	Here() bool
	// Claim runs write, which commits claims at an epoch, and returns when they may
	// be relied on: every other Region of the set has them, knows this Region to be
	// a member at the epoch, and what it had acknowledged to anybody when it said so
	// is here. Duty does not move while write runs: write asks for Standing, and
	// claims of its Shards alone. It returns soon, and must not call Claim. After an
	// error nothing of what was written may go on the wire.
	Claim(ctx context.Context, epoch uint64, write func() error) error
	// Valid reports whether what was claimed at an epoch may be put on the wire at
	// this moment. It is asked before every message, and cheap.
	Valid(epoch uint64) bool
	// Holds reports whether a Region's claims of an epoch are its own still.
	Holds(region string, epoch uint64) bool
	// Past reports whether a Region's claims of an epoch were its own, as far as this
	// node has heard, and are not any more. Of an epoch that it has not heard of yet it
	// is false.
	Past(region string, epoch uint64) bool
	// Heard fails while this node has not heard of the quorum since it started: what
	// it knows of stays is what it knew some time in an earlier life.
	Heard() error
	// Orphaned reports whether a Region's claims of an epoch are nobody's: it has left
	// the set since, and its lease is over. A claim that does not hold may not be
	// orphaned yet.
	Orphaned(region string, epoch uint64) bool
	// Owner is the Region whose duty a shard is, whether it may claim of it yet or not.
	Owner(shard int) string
	// Mark notes in the quorum how far work was claimed, by key: what a Region that
	// is alone in the set does before the wire. It fails when the epoch is over.
	Mark(ctx context.Context, epoch uint64, marks []quorum.Mark) error
	// Marks returns the marks whose keys begin with a prefix.
	Marks(prefix string) map[string]uint64
	// DropMarks removes them. It fails when this Region is alone in the set.
	DropMarks(ctx context.Context, prefix string) error
	// Fresh returns when everything is here that the other Regions of the set had
	// committed when it was called.
	Fresh(ctx context.Context) error
	// Changed returns a channel that is closed when Standing, Holds or Orphaned may
	// say something else.
	Changed() <-chan struct{}
}

// Standing is a Region's place in its group at a moment.
type Standing struct {
	Epoch  uint64   // of its membership, above 0: since when it is in the set without a break
	Shards Shards   // that are its to claim
	Others []string // the other Regions of the set; none: it is alone
	// Grouped says that there are other Regions, in the set or not, or were: one that
	// was forgotten may have left claims behind.
	Grouped bool
	// Leads says that control writes go through this Region.
	Leads bool
}

// Shards is a set of dispatch shards: bit i is shard i.
type Shards uint64

// AllShards is every shard.
const AllShards Shards = math.MaxUint64

// Has reports whether a shard is in the set.
func (s Shards) Has(shard int) bool { return s>>shard&1 == 1 }

// Count is how many shards are in the set.
func (s Shards) Count() int { return bits.OnesCount64(uint64(s)) }

// Alone is the duty of a Region that has no group: everything, always.
func Alone(region string) Duty { return alone(region) }

type alone string

func (alone) Standing() (Standing, error) {
	return Standing{Epoch: 1, Shards: AllShards, Leads: true}, nil
}

func (alone) Stay() (uint64, error)                                       { return 1, nil }
func (alone) Here() bool                                                  { return true }
func (alone) Claim(_ context.Context, _ uint64, write func() error) error { return write() }
func (alone) Valid(uint64) bool                                           { return true }
func (a alone) Holds(region string, _ uint64) bool                        { return region == string(a) }
func (alone) Past(string, uint64) bool                                    { return false }
func (alone) Heard() error                                                { return nil }
func (alone) Orphaned(string, uint64) bool                                { return false }
func (a alone) Owner(int) string                                          { return string(a) }
func (alone) Mark(context.Context, uint64, []quorum.Mark) error           { return nil }
func (alone) Marks(string) map[string]uint64                              { return nil }
func (alone) DropMarks(context.Context, string) error                     { return nil }
func (alone) Fresh(context.Context) error                                 { return nil }
func (alone) Changed() <-chan struct{}                                    { return nil }
