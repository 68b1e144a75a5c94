package delivery

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/state/quorum"
)

// A Region that is alone in the set has nobody to tell its intents to. It notes
// in the quorum how far it may have sent, by plan, Region and shard, in the order
// of hashes. Should it be lost for good, what lies below its mark and has no known
// outcome is ambiguous.
//
// Source: design 5, Claims.

func markPrefix(plan, region string) string { return plan + "/" + region + "/" }

// mark notes in the quorum that the block may be sent, unless another Region has
// its intents. Direct calls are not marked: there are too many of them for the
// quorum.
func (j *job) mark(ctx context.Context) error {
	st, err := j.s.duty.Standing()
	if err != nil {
		return err
	}
	if !st.Grouped || len(st.Others) > 0 || j.plan.plan.Campaign == nil || j.marked {
		return nil
	}
	highest := map[int]uint64{}
	for i := range j.block.Members {
		h := j.block.Members[i].Hash
		highest[segments.Shard(h)] = max(highest[segments.Shard(h)], h)
	}
	prefix := markPrefix(j.block.Plan, j.s.store.Region())
	have := j.s.duty.Marks(prefix)
	var marks []quorum.Mark
	for shard, to := range highest {
		if key := fmt.Sprintf("%s%02d", prefix, shard); have[key] < to {
			marks = append(marks, quorum.Mark{Shard: shard, Key: key, To: to})
		}
	}
	slices.SortFunc(marks, func(a, b quorum.Mark) int { return a.Shard - b.Shard })
	if err := j.s.duty.Mark(ctx, j.epoch, marks); err != nil {
		return err
	}
	j.marked = true
	return nil
}

// LostUpTo says by shard up to which hash a Region that is not in the set any more
// may have sent of a plan without telling.
func (s *Service) LostUpTo(plan string) map[int]uint64 {
	return s.marks(plan, func(region string) bool { return region != s.store.Region() })
}

func (s *Service) marks(plan string, of func(region string) bool) map[int]uint64 {
	var out map[int]uint64
	for key, to := range s.duty.Marks(plan + "/") {
		parts := strings.Split(key, "/")
		if len(parts) != 3 || !of(parts[1]) {
			continue
		}
		shard, err := strconv.Atoi(parts[2])
		if err != nil {
			continue
		}
		if out == nil {
			out = map[int]uint64{}
		}
		out[shard] = max(out[shard], to)
	}
	return out
}

// Unmark drops this Region's marks of a plan: the others have what it did.
func (s *Service) Unmark(ctx context.Context, plan string) error {
	prefix := markPrefix(plan, s.store.Region())
	if len(s.duty.Marks(prefix)) == 0 {
		return nil
	}
	return s.duty.DropMarks(ctx, prefix)
}

// Forget drops all marks of a plan that is over.
func (s *Service) Forget(ctx context.Context, plan string) error {
	if len(s.duty.Marks(plan+"/")) == 0 {
		return nil
	}
	return s.duty.DropMarks(ctx, plan+"/")
}

// marked is what a holder's mark says of a block, as an intent.
func (s *Service) marked(b *Block, of string) (in intentRow) {
	upTo := s.marks(b.Plan, func(region string) bool { return region == of })
	in.At, in.Region = b.At.UnixMilli(), of
	for i := range b.Members {
		if h := b.Members[i].Hash; h <= upTo[segments.Shard(h)] {
			in.Members, in.Attempts = append(in.Members, i), append(in.Attempts, 1)
		}
	}
	return in
}
