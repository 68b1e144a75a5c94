package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// A Region remembers removed documents for Retention. One that was away for longer
// may hold documents that the others have removed and forgotten, and nothing that
// it hears says so. Records need no such care: what was deleted of them stays in
// their rows.
//
// So a Region that has not heard of another for Retention is *apart* from it. It
// says so with each heartbeat, and while it is out of the in-sync set:
//
//   - a Region of the set takes over its opt-outs, records, ledger and facts, and
//     none of its documents;
//   - it reads the rows of a Region of the set anew and removes the documents that
//     are not among them.
//
// Either way what is given up is recorded as a conflict. Whoever is in the set is
// apart from nobody: the others were away.
//
// Source: design 5, Merge rules: a Region absent longer than the tombstones live.

// contact is when a peer was last heard, to a hundredth of Retention.
type contact struct {
	At time.Time
}

var errApart = errors.New("replica: this Region has not heard of the other for longer than removed documents are remembered; it waits until it knows which of them is in the in-sync set")

func (p *peer) contactKey() string { return p.Region + "\x00contact" }

// meet reads when the peer was last heard.
func (p *peer) meet(ctx context.Context) error {
	c, err := store.Load[contact](p.r.store.Reader(ctx), kindCursor, p.contactKey())
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c != nil {
		p.noted = c.At
	}
	p.apart = p.r.votes() && !p.noted.IsZero() && p.r.now().Sub(p.noted) > p.r.cfg.Retention
	return nil
}

// note keeps that the peer is heard, now and then.
func (p *peer) note(ctx context.Context) error {
	now := p.r.now()
	p.mu.Lock()
	due := !p.apart && now.Sub(p.noted) > p.r.cfg.Retention/100
	p.mu.Unlock()
	if !due {
		return nil
	}
	return p.together(ctx, now)
}

// together notes that this Region is not apart from the peer.
func (p *peer) together(ctx context.Context, now time.Time) error {
	if err := p.r.store.Update(ctx, func(tx *store.Tx) error {
		return store.Save(tx, kindCursor, p.contactKey(), &contact{now.UTC()})
	}, store.Touch{Kind: kindCursor, Key: p.contactKey()}); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noted, p.apart = now, false
	return nil
}

// votes says whether there is an in-sync set.
func (r *Replica) votes() bool { return r.cfg.Member != nil }

func (r *Replica) member(region string) uint64 {
	if r.cfg.Member == nil {
		return 0
	}
	return r.cfg.Member(region)
}

// apartFrom says whether this Region is apart from another.
func (r *Replica) apartFrom(region string) bool {
	p := r.peers[region]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.apart
}

// settle decides, before anything is merged, who of the two was away. anew is
// whether this Region has to read the peer's rows for that.
func (p *peer) settle(ctx context.Context) (anew bool, err error) {
	switch {
	case !p.r.apartFrom(p.Region):
		return false, nil
	case p.r.member(p.r.cfg.Region) > 0:
		return false, p.together(ctx, p.r.now())
	case p.r.member(p.Region) > 0:
		p.r.log.WarnContext(ctx, "this Region was away for longer than removed documents are remembered: it reads the rows of one that was not", "peer", p.Region)
		return true, nil
	}
	return false, errApart
}

// leaveOut returns the changes but for documents, which are recorded as conflicts
// when they say something else than those here.
func (p *peer) leaveOut(tx *store.Tx, changes []changelog.Change) ([]changelog.Change, error) {
	kept := make([]changelog.Change, 0, len(changes))
	for _, c := range changes {
		if c.Rule != changelog.RuleDocument {
			kept = append(kept, c)
			continue
		}
		have, err := tx.Get(store.Kind{Name: c.Kind, Rule: c.Rule}, c.Key)
		if err != nil {
			return nil, err
		}
		merged, _, err := changelog.Merge(c.Rule, have, c.Body)
		if err != nil || have != nil && bytes.Equal(merged, have) {
			continue // older than what is here, or unreadable: it would not stand anyway
		}
		if err := p.giveUp(tx, c); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// awayPath marks conflicts of documents that were given up whole.
const awayPath = "(document of a Region that was away for too long)"

func (p *peer) giveUp(tx *store.Tx, c changelog.Change) error {
	return record(tx, p.r.cfg.Node, p.Region, c, changelog.Conflict{Path: awayPath})
}

// roll collects the documents of a peer whose rows are read anew.
type roll map[string]bool

func (l roll) add(changes []changelog.Change) error {
	for _, c := range changes {
		if c.Rule != changelog.RuleDocument || c.Body == nil {
			continue
		}
		d, err := changelog.DecodeDocument(c.Body)
		if err != nil {
			return fmt.Errorf("read a document of %s: %w", c.Kind, err)
		}
		if d.Body != nil {
			l[c.Kind+"\x00"+c.Key] = true
		}
	}
	return nil
}

// pruneChunk is how many documents are removed in one commit.
const pruneChunk = 200

// prune removes the documents that the peer did not name, and notes that this
// Region is apart from it no more.
func (p *peer) prune(ctx context.Context, named roll) error {
	var gone []changelog.Change
	err := p.r.store.Changes(ctx, 0, func(_ int64, c changelog.Change) error {
		if c.Rule != changelog.RuleDocument || named[c.Kind+"\x00"+c.Key] {
			return nil
		}
		d, err := changelog.DecodeDocument(c.Body)
		if err != nil || d.Body == nil {
			return err
		}
		c.Hashes, c.Body = nil, changelog.AppendDocument(nil, changelog.Document{Epoch: d.Epoch, Version: d.Version + 1})
		gone = append(gone, c)
		return nil
	})
	if err != nil {
		return err
	}
	for len(gone) > 0 {
		chunk := gone[:min(pruneChunk, len(gone))]
		gone = gone[len(chunk):]
		touches := make([]store.Touch, 0, len(chunk))
		for _, c := range chunk {
			touches = append(touches, touchOf(c))
		}
		if err := p.r.store.Update(ctx, func(tx *store.Tx) error {
			for _, c := range chunk {
				if err := p.giveUp(tx, c); err != nil {
					return err
				}
			}
			return p.mergeChanges(tx, chunk, true)
		}, touches...); err != nil {
			return fmt.Errorf("remove documents that Region %s does not have: %w", p.Region, err)
		}
	}
	return p.together(ctx, p.r.now())
}

// keepContact notes that the peer is heard until ctx ends.
func (p *peer) keepContact(ctx context.Context) error {
	tick := time.NewTicker(p.r.cfg.Heartbeat * contactBeats)
	defer tick.Stop()
	for {
		p.mu.Lock()
		heard := p.heard
		p.mu.Unlock()
		if p.r.now().Sub(heard) < p.r.cfg.Timeout {
			if err := p.note(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// contactBeats is between two looks whether a contact is to be noted.
const contactBeats = 20
