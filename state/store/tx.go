package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
)

// Tx is one update's view: the committed rows, what its neighbours in the same
// commit wrote before it, and its own writes. It is used by one goroutine, and
// not after the update's function returned.
type Tx struct {
	s      *Store
	g      *group
	rows   map[place]*entry
	byHash map[string][]place
	facts  [][]byte
	heard  [][]byte
	after  []func()
	safety bool // it wrote safety data by itself
	strict bool // some of that is no opt-out
	outs   int  // opt-outs that it wrote
	merged bool // it took over another Region's changes
}

// entry is a row as an update left it.
type entry struct {
	kind   Kind
	id     int64 // 0: not in the database
	rev    int64
	hashes []string // it is indexed under
	body   []byte   // nil: there is no row
	// change is what followers are told: the body, or a document's tombstone.
	change []byte
	// was is what the database holds the row under, to take away.
	was   []string
	dirty bool
	// foreign: the row was taken over from another Region, and not written here
	// since the last commit.
	foreign bool
}

// Now is the node's time.
func (tx *Tx) Now() time.Time { return tx.s.now() }

// Stamp takes a stamp above all of seen.
func (tx *Tx) Stamp(seen ...changelog.Stamp) changelog.Stamp { return tx.s.clock.Next(seen...) }

// Blind is [Store.Blind].
func (tx *Tx) Blind(parts ...string) string { return tx.s.Blind(parts...) }

func (tx *Tx) find(p place) (*entry, error) {
	if e, ok := tx.rows[p]; ok {
		return e, nil
	}
	return tx.g.find(p)
}

// Get returns the row's body; nil when there is none.
func (tx *Tx) Get(k Kind, key string) ([]byte, error) {
	e, err := tx.find(place{k.Name, key})
	if err != nil {
		return nil, err
	}
	return e.body, nil
}

// Put writes the row, whose body is in the form of the kind's rule, under the
// given index values and no others. An update that leaves a replicated row of
// more than 16 MiB is refused.
func (tx *Tx) Put(k Kind, key string, body []byte, indexes ...Index) error {
	if body == nil {
		return fmt.Errorf("store: put of %s without a body", k.Name)
	}
	if len(indexes) > 255 {
		return fmt.Errorf("store: put of %s under %d index values", k.Name, len(indexes))
	}
	var hashes []string
	for _, x := range indexes {
		if h := tx.s.indexHash(k.Name, x); !slices.Contains(hashes, h) {
			hashes = append(hashes, h)
		}
	}
	return tx.set(k, key, entry{body: body, change: body, hashes: hashes})
}

// Remove removes the row; removing what is not there does nothing.
func (tx *Tx) Remove(k Kind, key string) error {
	e, err := tx.find(place{k.Name, key})
	if err != nil || e.body == nil {
		return err
	}
	var change []byte
	if k.Rule == changelog.RuleDocument {
		d, err := changelog.DecodeDocument(e.body)
		if err != nil {
			return fmt.Errorf("read %s before removing it: %w", k.Name, err)
		}
		change = changelog.AppendDocument(nil, changelog.Document{Epoch: max(d.Epoch, tx.g.epoch), Version: d.Version + 1})
		if err := tx.bury(place{k.Name, key}, change); err != nil {
			return err
		}
	}
	return tx.set(k, key, entry{change: change})
}

// set leaves the row with a body, a change, hashes and foreign as in to.
func (tx *Tx) set(k Kind, key string, to entry) error {
	p := place{k.Name, key}
	e, err := tx.find(p)
	if err != nil {
		return err
	}
	if !to.foreign && k.stream() == Safety {
		tx.safety = true
		if tx.strict = tx.strict || !k.OptOut; k.OptOut {
			tx.outs++
		}
	}
	to.kind, to.id, to.rev, to.was, to.dirty = k, e.id, e.rev, e.was, true
	// What this commit also changes by itself is news to the other Regions.
	to.foreign = to.foreign && (!e.dirty || e.foreign)
	// Another Region's rows come without saying which of them are safety data.
	to.kind.Safety = k.Safety || e.dirty && e.kind.Safety
	tx.rows[p] = &to
	for _, h := range to.hashes {
		tx.byHash[h] = append(tx.byHash[h], p)
	}
	return nil
}

// List returns rows of a kind in key order whose key starts with prefix and is
// above after, at most limit.
func (tx *Tx) List(k Kind, prefix, after string, limit int) ([]Row, error) {
	changed := map[place]*entry{}
	for p, e := range tx.g.rows {
		if e.dirty && p.kind == k.Name && strings.HasPrefix(p.key, prefix) && p.key > after {
			changed[p] = e
		}
	}
	for p, e := range tx.rows {
		if p.kind == k.Name && strings.HasPrefix(p.key, prefix) && p.key > after {
			changed[p] = e
		}
	}
	rows, err := tx.g.session.list(tx.g.ctx, k.Name, firstKey(prefix, after), prefixEnd(prefix), limit+len(changed))
	if err != nil {
		return nil, &engineError{err}
	}
	var out []Row
	for i := range rows {
		p := place{rows[i].kind, rows[i].key}
		if _, ok := changed[p]; ok {
			continue
		}
		o, err := tx.s.open(&rows[i])
		if err != nil {
			return nil, err
		}
		out = append(out, Row{p.kind, p.key, o.body})
	}
	for p, e := range changed {
		if e.body != nil {
			out = append(out, Row{p.kind, p.key, e.body})
		}
	}
	slices.SortFunc(out, func(a, b Row) int { return strings.Compare(a.Key, b.Key) })
	return out[:min(limit, len(out))], nil
}

// Lookup returns the rows of a kind with an index value, at most limit: those
// of the database first, in the order they were first written.
func (tx *Tx) Lookup(k Kind, x Index, limit int) ([]Row, error) {
	h := tx.s.indexHash(k.Name, x)
	places, err := tx.g.lookup(h)
	if err != nil {
		return nil, err
	}
	var out []Row
	seen := map[place]bool{}
	for _, list := range [][]place{places, tx.g.byHash[h], tx.byHash[h]} {
		for _, p := range list {
			if seen[p] || len(out) == limit {
				continue
			}
			seen[p] = true
			e, err := tx.find(p)
			if err != nil {
				return nil, err
			}
			if e.body != nil && slices.Contains(e.hashes, h) {
				out = append(out, Row{p.kind, p.key, e.body})
			}
		}
	}
	return out, nil
}

// Append adds a fact to the event stream; it becomes visible with the commit. An
// update with a fact of more than 16 MiB is refused.
func (tx *Tx) Append(fact []byte) { tx.facts = append(tx.facts, fact) }

// Hear keeps a fact of another Region's in the stream Heard, within the same
// bound.
func (tx *Tx) Hear(fact []byte) { tx.heard = append(tx.heard, fact) }

// checkRecords refuses what no block can hold.
func (tx *Tx) checkRecords() error {
	for p, e := range tx.rows {
		if n := len(p.kind) + len(p.key) + len(e.change); n > recordBytesMax && e.kind.stream() != "" {
			return aws.TooLarge("%s of %d bytes is above the bound of %d", p.kind, n, recordBytesMax)
		}
	}
	for _, f := range append(tx.facts[:len(tx.facts):len(tx.facts)], tx.heard...) {
		if len(f) > recordBytesMax {
			return aws.TooLarge("event of %d bytes is above the bound of %d", len(f), recordBytesMax)
		}
	}
	return nil
}

// AfterCommit has f called once the update is on disk, before Update returns.
// It must be short and must not call the store.
func (tx *Tx) AfterCommit(f func()) { tx.after = append(tx.after, f) }

var (
	_ Reader = (*Tx)(nil)
	_ Reader = (*reader)(nil)
)

// Load reads a RuleDocument or RuleLocal row that Save wrote; nil when there is none.
func Load[T any](r Reader, k Kind, key string) (*T, error) {
	body, err := r.Get(k, key)
	if err != nil || body == nil {
		return nil, err
	}
	return Decode[T](k, body)
}

// Decode reads the body of a row that Save wrote.
func Decode[T any](k Kind, body []byte) (*T, error) {
	if k.Rule == changelog.RuleDocument {
		d, err := changelog.DecodeDocument(body)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", k.Name, err)
		}
		body = d.Body
	}
	v := new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("read %s: %w", k.Name, err)
	}
	return v, nil
}

// Save writes v as JSON; a RuleDocument row as [Tx.PutDocument] does.
func Save[T any](tx *Tx, k Kind, key string, v *T, indexes ...Index) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", k.Name, err)
	}
	if k.Rule == changelog.RuleDocument {
		return tx.PutDocument(k, key, body, indexes...)
	}
	return tx.Put(k, key, body, indexes...)
}

// PutDocument writes a RuleDocument row with the next version, at the epoch of
// control or the row's own, whichever is higher; see [Store.Control].
func (tx *Tx) PutDocument(k Kind, key string, body []byte, indexes ...Index) error {
	d := changelog.Document{Version: 1, Body: body}
	old, err := tx.Get(k, key)
	if err != nil {
		return err
	}
	if old != nil {
		was, err := changelog.DecodeDocument(old)
		if err != nil {
			return fmt.Errorf("read %s before writing it: %w", k.Name, err)
		}
		d.Epoch, d.Version = was.Epoch, was.Version+1
	} else if err := tx.raise(place{k.Name, key}, &d); err != nil {
		return fmt.Errorf("write %s: %w", k.Name, err)
	}
	d.Epoch = max(d.Epoch, tx.g.epoch)
	return tx.Put(k, key, changelog.AppendDocument(nil, d), indexes...)
}

// Update runs fn over a Tx and returns when what it wrote is durable. See the
// package comment for what fn may and may not do. When ctx ends before the
// update was taken up, nothing was written; afterwards Update waits for the
// outcome, which is bounded by the database's own time limits.
//
// When the store belongs to a group of Regions, an update that writes safety
// data returns after the group has it; see [Store.Acknowledge]. One that writes
// opt-outs and no other safety data is accepted and marked when the group cannot
// have it in time; see [Store.Marked]. One that merges
// does not: the Region that told of the changes waits for it.
//
// A ctx that carries an epoch of control ([aws.WithControlEpoch]) is one of a call
// that was admitted at that epoch: when control has moved by the commit, the
// update is Unavailable and nothing is written.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error, touch ...Touch) error {
	r := &request{ctx: ctx, fn: fn, touch: touch}
	if err := s.submit(r); err != nil || !r.safety {
		return err
	}
	s.mu.Lock()
	acknowledge := s.acknowledge
	s.mu.Unlock()
	switch {
	case acknowledge == nil:
		return nil
	case r.optOuts > 0:
		return s.accept(ctx, r, acknowledge)
	}
	if err := acknowledge(ctx, r.at); err != nil {
		return err
	}
	// Of a Region's nodes one may hear late that control has moved.
	if at, ok := aws.ControlEpochFrom(ctx); ok && at != s.epoch() {
		return aws.Unavailable("Control moved from epoch %d to %d while the call was written: whether it stands is not known. Please retry.", at, s.epoch())
	}
	return nil
}

// Acknowledge has Update call f after the local commit of safety data, with the
// number of its block in the safety stream; f returns when every Region that must
// have it has it, or why that is not known. What was committed stays, whatever f
// says.
//
// Source: design 5, Shipping.
func (s *Store) Acknowledge(f func(ctx context.Context, n int64) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acknowledge = f
}

// Acknowledged returns when every Region that must have it has the safety data that
// was committed here before it was called, or why that is not known. Who finds that
// what was asked for is written already asks this before saying so: whoever wrote it
// may have been told that it is here alone.
func (s *Store) Acknowledged(ctx context.Context) error {
	s.mu.Lock()
	acknowledge := s.acknowledge
	s.mu.Unlock()
	if acknowledge == nil {
		return nil
	}
	if err := s.Refresh(ctx); err != nil { // another node may have written it
		return err
	}
	return acknowledge(ctx, s.Head(Safety))
}

// Control says what tells the epoch of control, as this node knows it; without,
// it is 0. Documents are written at it, so that those of a newer control Region
// win over an older one's, whatever their versions. f is called by the writer: it
// must be quick, and must not wait for the store.
//
// Source: design 5, Two planes and Merge rules.
func (s *Store) Control(f func() uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = f
}

// epoch is the epoch of control now.
func (s *Store) epoch() uint64 {
	s.mu.Lock()
	f := s.control
	s.mu.Unlock()
	if f == nil {
		return 0
	}
	return f()
}

// submit hands a request to the writer and waits for the answer.
func (s *Store) submit(r *request) error {
	r.done = make(chan struct{})
	select {
	case s.requests <- r:
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-s.stopped:
		return errStopped
	}
	select {
	case <-r.done:
		return r.err
	case <-s.stopped:
		// The writer may have answered just before it stopped.
		select {
		case <-r.done:
			return r.err
		default:
			return errStopped
		}
	}
}
