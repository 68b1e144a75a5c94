package quorum

import (
	"context"

	"github.com/everpoint/everpoint/aws"
)

// A Region has one voice: of its nodes the one that runs its voter. It pulls from
// the other Regions, answers their pulls, holds the lease and claims. What the
// others are told and what they acknowledge so meet in one process, which judges
// both by one state of the quorum.

// Speaks reports whether this node is its Region's voice, and since which
// generation of the voter. The only node of a Region always is, at generation 0.
// The answer may be late: what must not rely on an older one is followed by
// [Quorum.Confirm].
func (q *Quorum) Speaks() (generation uint64, ok bool) {
	if q.cfg.URL == "" {
		return 0, true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.view.generation, q.view.voting
}

// Confirm fails with aws.Unavailable when another node has become the Region's
// voice since the generation: what was judged before Confirm was called, was
// judged while the generation lasted, if Confirm returns nil.
func (q *Quorum) Confirm(ctx context.Context, generation uint64) error {
	if q.cfg.URL == "" {
		return nil
	}
	row, err := q.journal.identity(ctx)
	if err != nil {
		return aws.Unavailable("which node speaks for Region %s cannot be read: %v", q.cfg.Name, err)
	}
	if row == nil || row.Generation != generation {
		return aws.Unavailable("another node speaks for Region %s now", q.cfg.Name)
	}
	return nil
}

// Speaker is the base URL of the peer listener of the Region's voice, when that is
// another node; empty when it is this one or is not known.
func (q *Quorum) Speaker() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.view.voting || q.view.holder == q.cfg.URL {
		return ""
	}
	return q.view.holder
}

// Route is the base URL from which another Region's voice was last heard; empty
// when it is where the configuration says.
func (q *Quorum) Route(region string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.routes[region]
}
