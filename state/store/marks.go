package store

import (
	"context"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
)

// Marked are opt-outs that were accepted though the group did not have them. They
// are in the safety stream, and go to the other Regions before anything else.
type Marked struct {
	OptOuts int       // how many; 0: the group has all
	Since   time.Time // when the first of them was written
	Last    int64     // block of the safety stream that the last of them is in

	Incarnation string // of the database whose block it is
}

// kindMarked has one row at most.
var kindMarked = Kind{Name: "store.marked", Rule: changelog.RuleLocal}

const markedKey = "opt-outs"

const (
	// optOutWait is how long an opt-out waits for the group before it is accepted
	// without: longer than a majority takes to remove a Region that says nothing.
	optOutWait = 5 * time.Second
	// optOutWaitMarked is that while others were accepted so and are marked still.
	optOutWaitMarked = 250 * time.Millisecond
	markedRetry      = time.Second
)

// Marked tells which opt-outs this Region's group does not have, as this node
// knows.
func (s *Store) Marked() Marked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marked
}

// accept waits for the group to have an update of nothing but opt-outs, and if it
// does not, marks them: nobody who wants no more messages is turned away.
//
// Source: design 5, In-sync set.
func (s *Store) accept(ctx context.Context, r *request, acknowledge func(context.Context, int64) error) error {
	patience := optOutWait
	if s.Marked().OptOuts > 0 {
		patience = optOutWaitMarked
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	err := acknowledge(waiting, r.at)
	cancel()
	if err == nil {
		return nil
	}
	first := false
	why := err
	err = s.Update(context.WithoutCancel(ctx), func(tx *Tx) error {
		m, err := Load[Marked](tx, kindMarked, markedKey)
		if err != nil {
			return err
		}
		if first = m == nil; first {
			m = &Marked{Since: tx.Now().UTC()}
		}
		m.OptOuts, m.Last, m.Incarnation = m.OptOuts+r.optOuts, max(m.Last, r.at), s.Incarnation()
		return s.saveMarked(tx, m)
	}, Touch{Kind: kindMarked, Key: markedKey})
	if err != nil {
		return why
	}
	if first {
		s.log.WarnContext(ctx, "opt-outs are accepted that the group does not have; they go first when it can be reached", "error", why)
	}
	select {
	case s.marking <- struct{}{}:
	default:
	}
	return nil
}

// saveMarked writes the row, or removes it when m is nil.
func (s *Store) saveMarked(tx *Tx, m *Marked) error {
	now := Marked{}
	if m != nil {
		now = *m
	}
	tx.AfterCommit(func() {
		s.mu.Lock()
		s.marked = now
		s.mu.Unlock()
	})
	if m == nil {
		return tx.Remove(kindMarked, markedKey)
	}
	return Save(tx, kindMarked, markedKey, m)
}

// keepMarks takes the marks away when the group has what they stand for, until
// ctx ends.
func (s *Store) keepMarks(ctx context.Context) {
	for {
		pending, err := s.unmark(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "marks of opt-outs not looked at", "error", err)
		}
		var again <-chan time.Time
		if pending || err != nil {
			again = time.After(markedRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.marking:
		case <-again:
		}
	}
}

// unmark waits a while for the group to have what is marked. It reports whether
// anything still is.
func (s *Store) unmark(ctx context.Context) (pending bool, err error) {
	m, err := Load[Marked](s.Reader(ctx), kindMarked, markedKey)
	if err != nil || m == nil {
		return false, err
	}
	s.mu.Lock()
	s.marked = *m
	acknowledge := s.acknowledge
	s.mu.Unlock()
	last := m.Last
	if m.Incarnation != s.Incarnation() {
		last = s.Head(Safety) // its blocks have other numbers now
	}
	if acknowledge == nil || acknowledge(ctx, last) != nil {
		return true, nil
	}
	err = s.Update(ctx, func(tx *Tx) error {
		now, err := Load[Marked](tx, kindMarked, markedKey)
		if err != nil || now == nil {
			return err
		}
		if pending = *now != *m; pending {
			return nil // there are more meanwhile
		}
		return s.saveMarked(tx, nil)
	}, Touch{Kind: kindMarked, Key: markedKey})
	if err == nil && !pending {
		s.log.InfoContext(ctx, "the group has the opt-outs that were accepted without it", "opt_outs", m.OptOuts, "since", m.Since)
	}
	return pending, err
}
