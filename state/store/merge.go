package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
)

// Merge unites a change from another Region's log with the row that is here, by
// the change's rule. It does not matter in what order, or how often, changes are
// merged, as long as each Region's streams are taken in their own order. What
// followers of this Region's log are told is marked as foreign, so that it is not
// shipped back.
//
// When both Regions had changed a record, the united one is found under what
// indexes says of it; otherwise, and for other rules, under the hashes that the
// change brings, for the Regions of a group share the keyset that makes them.
//
// The conflicts are those that this merge decided. An error of the change itself
// is a [*BadChange]: it will not go away by trying again.
//
// Source: design 5, Merge rules.
func (tx *Tx) Merge(c changelog.Change, safety bool, indexes func(key string, body []byte) ([]Index, error)) ([]changelog.Conflict, error) {
	tx.merged = true
	if c.Kind == "" || c.Kind == KindTombstone.Name || strings.Contains(c.Kind, "\x00") {
		return nil, &BadChange{c.Kind, errors.New("rows of this kind are not shipped")}
	}
	for _, h := range c.Hashes {
		if len(h) != blindBytes {
			return nil, &BadChange{c.Kind, fmt.Errorf("a keyed hash of %d bytes", len(h))}
		}
	}
	k, p := Kind{Name: c.Kind, Rule: c.Rule, Safety: safety}, place{c.Kind, c.Key}
	e, err := tx.find(p)
	if err != nil {
		return nil, err
	}
	if e.body != nil && e.kind.Rule != c.Rule {
		return nil, &BadChange{c.Kind, fmt.Errorf("rows here are of rule %s, not %s", e.kind.Rule, c.Rule)}
	}
	switch c.Rule {
	case changelog.RuleRecord, changelog.RuleOptOut:
		return tx.mergeRecord(k, p, e, c, indexes)
	case changelog.RuleDocument:
		return nil, tx.mergeDocument(k, p, e, c)
	case changelog.RuleAppend:
		// Each Region removes by itself what it needs no more.
		if c.Body == nil {
			return nil, nil
		}
		body, _, err := changelog.Merge(c.Rule, e.body, c.Body)
		if err != nil || bytes.Equal(body, e.body) {
			return nil, err
		}
		return nil, tx.set(k, p.key, entry{body: body, change: body, hashes: c.Hashes, foreign: true})
	default:
		return nil, &BadChange{c.Kind, fmt.Errorf("rows of rule %s are not shipped", c.Rule)}
	}
}

// BadChange is a change that cannot be merged, now or later.
type BadChange struct {
	Kind string
	Err  error
}

func (b *BadChange) Error() string { return fmt.Sprintf("merge a change of %s: %v", b.Kind, b.Err) }
func (b *BadChange) Unwrap() error { return b.Err }

func (tx *Tx) mergeRecord(k Kind, p place, e *entry, c changelog.Change, indexes func(string, []byte) ([]Index, error)) ([]changelog.Conflict, error) {
	// A record that was removed, not deleted, belonged to something that is gone for
	// ever: each Region removes by itself what did.
	if c.Body == nil {
		return nil, nil
	}
	r, err := changelog.DecodeRecord(c.Body)
	if err != nil {
		return nil, &BadChange{c.Kind, err}
	}
	if err := tx.s.clock.Observe(r.Latest()); err != nil {
		return nil, err
	}
	body, conflicts, err := changelog.Merge(c.Rule, e.body, c.Body)
	if err != nil || e.body != nil && bytes.Equal(body, e.body) {
		return conflicts, err
	}
	hashes := c.Hashes
	if !bytes.Equal(body, c.Body) {
		hashes = nil
		found, err := indexes(p.key, body)
		if err != nil {
			return nil, fmt.Errorf("index a merged %s: %w", c.Kind, err)
		}
		for _, x := range found {
			if h := tx.s.indexHash(k.Name, x); !slices.Contains(hashes, h) {
				hashes = append(hashes, h)
			}
		}
	}
	return conflicts, tx.set(k, p.key, entry{body: body, change: body, hashes: hashes, foreign: true})
}

func (tx *Tx) mergeDocument(k Kind, p place, e *entry, c changelog.Change) error {
	d, err := changelog.DecodeDocument(c.Body)
	if err != nil {
		return &BadChange{c.Kind, err}
	}
	var was changelog.Document
	if e.body != nil {
		if was, err = changelog.DecodeDocument(e.body); err != nil {
			return fmt.Errorf("read %s before merging it: %w", c.Kind, err)
		}
	} else if was, err = tx.buried(p); err != nil {
		return err
	}
	if m := changelog.MergeDocuments(was, d); sameDocument(m, was) {
		return nil
	}
	if d.Body == nil {
		if err := tx.bury(p, c.Body); err != nil || e.body == nil {
			return err
		}
		return tx.set(k, p.key, entry{change: c.Body, foreign: true})
	}
	if err := tx.exhume(p); err != nil {
		return err
	}
	return tx.set(k, p.key, entry{body: c.Body, change: c.Body, hashes: c.Hashes, foreign: true})
}

func sameDocument(a, b changelog.Document) bool {
	return a.Epoch == b.Epoch && a.Version == b.Version && (a.Body == nil) == (b.Body == nil) && bytes.Equal(a.Body, b.Body)
}

// KindTombstone remembers the documents that were removed: when, and at which
// version, so that an older version which comes late is not taken for a new
// document, and a new document goes on counting.
var KindTombstone = Kind{Name: "tombstone", Rule: changelog.RuleLocal}

func graveOf(p place) place { return place{KindTombstone.Name, keyEntry(p)} }

// buried is the tombstone of a document; version 0 when there is none.
func (tx *Tx) buried(p place) (changelog.Document, error) {
	e, err := tx.find(graveOf(p))
	if err != nil || e.body == nil {
		return changelog.Document{}, err
	}
	_, d, err := DecodeTombstone(e.body)
	return d, err
}

func (tx *Tx) bury(p place, tombstone []byte) error {
	body := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(tombstone)), uint64(tx.s.now().UnixMilli()))
	body = append(body, tombstone...)
	return tx.set(KindTombstone, graveOf(p).key, entry{body: body})
}

func (tx *Tx) exhume(p place) error {
	e, err := tx.find(graveOf(p))
	if err != nil || e.body == nil {
		return err
	}
	return tx.set(KindTombstone, graveOf(p).key, entry{})
}

// raise makes a new document's epoch and version go on from those of its predecessor, if
// one was removed.
func (tx *Tx) raise(p place, d *changelog.Document) error {
	was, err := tx.buried(p)
	if err != nil || was.Version == 0 {
		return err
	}
	d.Epoch, d.Version = was.Epoch, was.Version+1
	return tx.exhume(p)
}

// DecodeTombstone reads a row of KindTombstone: when the document was removed,
// and its last epoch and version.
func DecodeTombstone(body []byte) (time.Time, changelog.Document, error) {
	if len(body) < 8 {
		return time.Time{}, changelog.Document{}, errors.New("store: tombstone is corrupt")
	}
	d, err := changelog.DecodeDocument(body[8:])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(body))), d, err
}
