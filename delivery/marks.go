package delivery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// A Region that is alone in the set has nobody to tell its intents to. It notes
// in the quorum how far it may have sent, by plan, stay in the set and shard, in the
// order of hashes. Should it be lost for good, what lies below its mark and has no
// known outcome is ambiguous.
//
// A mark outlives the Region that made it: whoever has its name afterwards, with an
// empty disk, knows no more of what was sent than the others. So a Region drops the
// marks of its present stay, once others have what it did, and those of other stays
// only when the run is over everywhere.
//
// Source: design 5, Claims.

// markPrefix is how the keys of a holder's marks of a plan begin.
func markPrefix(plan string, h holder) string {
	return fmt.Sprintf("%s/%s/%016x/", plan, h.Region, h.Epoch)
}

// splitMark reads a mark's key.
func splitMark(key string) (plan string, h holder, shard int, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return "", h, 0, false
	}
	epoch, err := strconv.ParseUint(parts[2], 16, 64)
	if err != nil {
		return "", h, 0, false
	}
	shard, err = strconv.Atoi(parts[3])
	return parts[0], holder{parts[1], epoch}, shard, err == nil
}

// mark notes in the quorum that the block may be sent, unless another Region has
// its intents. Direct calls are not marked: there are too many of them for the
// quorum.
func (j *job) mark(ctx context.Context) error {
	st, err := j.s.duty.Standing()
	if err != nil {
		return err
	}
	if !st.Grouped || len(st.Others) > 0 || j.plan.plan.Campaign == nil {
		return nil
	}
	highest := map[int]uint64{}
	for i := range j.block.Members {
		h := j.block.Members[i].Hash
		highest[segments.Shard(h)] = max(highest[segments.Shard(h)], h)
	}
	prefix := markPrefix(j.block.Plan, holder{j.s.store.Region(), j.epoch})
	have := j.s.duty.Marks(prefix)
	var marks []quorum.Mark
	for shard, to := range highest {
		if key := fmt.Sprintf("%s%02d", prefix, shard); have[key] < to {
			marks = append(marks, quorum.Mark{Shard: shard, Key: key, To: to})
		}
	}
	slices.SortFunc(marks, func(a, b quorum.Mark) int { return a.Shard - b.Shard })
	return j.s.duty.Mark(ctx, j.epoch, marks)
}

// LostUpTo says by shard up to which hash a Region may have sent of a plan without
// telling: another one, or this one in an earlier stay in the set, which may have
// been on a disk that was lost.
func (s *Service) LostUpTo(plan string) map[int]uint64 {
	return s.upTo(plan, func(holder) bool { return true })
}

func (s *Service) upTo(plan string, of func(holder) bool) map[int]uint64 {
	own := s.ownStay()
	var out map[int]uint64
	for key, to := range s.duty.Marks(plan + "/") {
		_, h, shard, ok := splitMark(key)
		if !ok || h == own || !of(h) {
			continue
		}
		if out == nil {
			out = map[int]uint64{}
		}
		out[shard] = max(out[shard], to)
	}
	return out
}

// ownStay is this Region as a holder now; of no epoch when it is not in the set.
func (s *Service) ownStay() holder {
	standing, err := s.duty.Standing()
	if err != nil {
		standing.Epoch = 0
	}
	return holder{s.store.Region(), standing.Epoch}
}

// sweepMarks drops the marks that are of no more use, when there are other Regions
// in the set: they have what this one did, and what it knows to be over is over
// there too.
func (s *Service) sweepMarks(ctx context.Context, standing group.Standing) error {
	if len(standing.Others) == 0 {
		return nil
	}
	own := holder{s.store.Region(), standing.Epoch}
	drop := map[string]bool{} // by prefix; false: it stays
	for key := range s.duty.Marks("") {
		plan, h, _, ok := splitMark(key)
		if !ok {
			continue
		}
		prefix := markPrefix(plan, h)
		if _, known := drop[prefix]; known {
			continue
		}
		switch {
		case h == own:
			drop[prefix] = true
		case s.duty.Holds(h.Region, h.Epoch):
			drop[prefix] = false // theirs to drop
		default:
			over, err := s.over(ctx, plan)
			if err != nil {
				return err
			}
			drop[prefix] = over
		}
	}
	for _, prefix := range slices.Sorted(maps.Keys(drop)) {
		if !drop[prefix] {
			continue
		}
		if err := s.duty.DropMarks(ctx, prefix); err != nil {
			return err
		}
	}
	return nil
}

// over reports whether a campaign's plan is over.
func (s *Service) over(ctx context.Context, id string) (bool, error) {
	r := s.store.Reader(ctx)
	p, err := store.Load[Plan](r, kindPlan, id)
	switch {
	case err != nil:
		return false, err
	case p == nil || p.Campaign == nil || s.ended == nil:
		return p == nil, nil
	}
	return s.ended(r, p)
}

// Unmark drops this Region's marks of a plan: the others have what it did.
func (s *Service) Unmark(ctx context.Context, plan string) error {
	prefix := markPrefix(plan, s.ownStay())
	if len(s.duty.Marks(prefix)) == 0 {
		return nil
	}
	return s.duty.DropMarks(ctx, prefix)
}

// Forget drops all marks of a plan that is over, as the other Regions know.
func (s *Service) Forget(ctx context.Context, plan string) error {
	if len(s.duty.Marks(plan+"/")) == 0 {
		return nil
	}
	return s.duty.DropMarks(ctx, plan+"/")
}

// addMarks adds to where a block's members stand what the marks say: an attempt after
// those that are known may have been made, by whoever had the block, alone. Nobody but
// its claimant had a claim that came late. Of members who are listed already the marks
// say nothing new.
func (j *job) addMarks(late bool, entries []Entry) {
	upTo := j.s.upTo(j.block.Plan, func(h holder) bool { return !late || h == holder{j.block.Region, j.block.Epoch} })
	if len(upTo) == 0 {
		return
	}
	listed := map[int]bool{}
	for _, e := range entries {
		if e.Fate == FateAmbiguous {
			listed[e.Member] = true
		}
	}
	for i := range j.stand {
		st, hash := &j.stand[i], j.block.Members[i].Hash
		to, ok := upTo[segments.Shard(hash)]
		if !ok || hash > to || listed[i] || st.open > 0 || st.settled() {
			continue
		}
		st.attempts++
		st.open, st.openAt, st.openBy = st.attempts, j.block.At.UnixMilli(), ""
	}
}
