package delivery

import (
	"github.com/everpoint/everpoint/state/store"
)

// Made is a plan that a Region made of a direct call.
type Made struct{ Plan, Region string }

// Stands says which of the plans that were made of one call is the one to send, by
// its place in made, whose order is the same everywhere; -1: made is empty.
//
// A caller repeats a call in another Region, perhaps before that has heard of it from
// the first, and then there are two plans. While both Regions are in the set, each has
// the other's record by the time it may send, and they mean the same: the first of
// made. When one has left the set, its claim may have come late. Nobody waited for it,
// so the other plan may have been sent by then: that one stands, and the late one is
// void, which is written when it is taken over. A late claim of which there is no
// other plan is good: the call may have been answered.
//
// When no Region holds what it claimed of the call, nobody sends any more but who took
// it over, so a plan of which something was attempted stands.
//
// Source: design 5, Calls that send or create.
func (s *Service) Stands(r store.Reader, made []Made) (int, error) {
	if len(made) < 2 {
		return len(made) - 1, nil
	}
	best, bestWorth := -1, worth(0)
	bygone := true
	claims := make([]callClaim, len(made))
	for i, m := range made {
		c, err := s.callClaim(r, m)
		if err != nil {
			return -1, err
		}
		claims[i] = c
		bygone = bygone && !c.held
	}
	for i, c := range claims {
		w := c.worth
		if bygone && w > worthVoid {
			tried, err := attempted(r, c.block)
			if err != nil {
				return -1, err
			}
			if tried {
				w = worthAttempted
			}
		}
		if best < 0 || w > bestWorth {
			best, bestWorth = i, w
		}
	}
	return best, nil
}

// worth is how good a plan's claim is.
type worth int

const (
	worthVoid      worth = iota // it is not here, or was found to be void
	worthLate                   // it came late, and nobody has taken it over yet
	worthGood                   // it came in time, or was found to be good
	worthAttempted              // and something of it was attempted
)

// callClaim is what is known of the claim of a call's plan, by its first block: a
// call's blocks are one update.
type callClaim struct {
	block string
	held  bool // by the Region that made it
	worth worth
}

func (s *Service) callClaim(r store.Reader, m Made) (callClaim, error) {
	c := callClaim{block: blockKey(m.Plan, m.Region, 1)}
	b, err := store.Load[Block](r, kindClaim, c.block)
	if err != nil || b == nil {
		return c, err
	}
	c.held = s.duty.Holds(b.Region, b.Epoch)
	row, err := store.Load[countRow](r, kindCount, c.block)
	if err != nil {
		return c, err
	}
	taken, late, err := firstTaken(r, c.block)
	switch {
	case err != nil:
		return c, err
	case taken && late:
		c.worth = worthVoid
	case !taken && row != nil && row.Late:
		c.worth = worthLate
	default:
		c.worth = worthGood
	}
	return c, nil
}

// attempted reports whether something of a plan's blocks of a Region may have been on
// the wire: it has an intent of which no entry says that it was not.
func attempted(r store.Reader, blocks string) (bool, error) {
	intents, entries, err := readLedger(r, blocks)
	if err != nil {
		return false, err
	}
	off := map[attemptOf]bool{}
	for _, e := range entries {
		off[e.of()] = e.Fate == FateHeld || e.Fate == FateDeferred && offWire(e.Code)
	}
	for _, row := range intents {
		for k, m := range row.Members {
			if !off[attemptOf{m, row.Attempts[k], row.Region}] {
				return true, nil
			}
		}
	}
	return false, nil
}

// stands reports whether a plan is the one to send of its call.
func (s *Service) stands(r store.Reader, p *Plan) (bool, error) {
	if p.Call == nil || len(p.Call.Record) == 0 || s.made == nil {
		return true, nil
	}
	made, err := s.made(r, string(p.Call.Record))
	if err != nil {
		return false, err
	}
	i, err := s.Stands(r, made)
	return i >= 0 && made[i].Plan == p.ID, err
}
