package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
)

// errControlMoved ends a group during which control moved.
var errControlMoved = errors.New("store: control moved")

var errStopped = aws.Unavailable("the store is stopping")

// request is an update that waits for its commit, or work on the database that
// takes a turn of its own.
type request struct {
	ctx   context.Context
	fn    func(*Tx) error
	touch []Touch
	alone func() error // the work, in place of fn
	done  chan struct{}
	err   error
	after []func()
	// safety says that the update wrote safety data; at is then the block that its
	// commit put it in.
	safety  bool
	optOuts int // how many opt-outs that was, if it was nothing else
	at      int64
}

func (r *request) answer() {
	for _, f := range r.after {
		f()
	}
	close(r.done)
}

// group is one commit in the making.
type group struct {
	s       *Store
	ctx     context.Context // the writer's, not a caller's
	session session
	rows    map[place]*entry
	hits    map[string][]place // what the database holds under a hash
	byHash  map[string][]place // what this group wrote under it
	order   []place            // of dirty rows, as first written
	facts   [][]byte
	heard   [][]byte
	aside   sync.WaitGroup // makes the blocks
	epoch   uint64         // of control
}

// write is the writer's loop: gather, commit, answer.
func (s *Store) write(ctx context.Context) {
	// What was accepted is answered even when ctx ends meanwhile.
	work := context.WithoutCancel(ctx)
	var next *request
	company := 0
	for {
		first := next
		if first == nil {
			select {
			case first = <-s.requests:
			case <-ctx.Done():
				select {
				case first = <-s.requests:
				default:
					close(s.stopped)
					s.refuse()
					return
				}
			}
		}
		var reqs []*request
		if reqs, next = s.gather(first, company); first.alone == nil {
			s.commit(work, reqs)
			company = (len(reqs) + len(s.requests)) / 2
			continue
		}
		if first.err = first.ctx.Err(); first.err == nil {
			if err := first.alone(); err != nil {
				first.err = s.writeError(err)
			}
		}
		first.answer()
	}
}

// lingerMax bounds how long a group waits for company.
const lingerMax = time.Millisecond

// gather takes what waits behind first and can be one commit with it, and the
// request that ended it, which comes next.
//
// A commit costs much that does not depend on its size, and those it answers are
// back with their next update soon. So a group waits a little for company: half of
// those that were there at the last commit, for the other half is then under way
// while this one is written. Who comes alone does not wait.
func (s *Store) gather(first *request, company int) (reqs []*request, next *request) {
	reqs = []*request{first}
	limit := s.cfg.GroupMax
	if s.cfg.OneByOne || first.alone != nil {
		limit = 1
	}
	var linger <-chan time.Time
	for len(reqs) < limit {
		var r *request
		select {
		case r = <-s.requests:
		default:
			if len(reqs) >= company {
				return reqs, nil
			}
			if linger == nil {
				linger = time.After(lingerMax)
			}
			select {
			case r = <-s.requests:
			case <-linger:
				return reqs, nil
			}
		}
		if r.alone != nil {
			return reqs, r
		}
		reqs = append(reqs, r)
	}
	return reqs, nil
}

// refuse answers what slipped into the queue while the writer stopped.
func (s *Store) refuse() {
	for {
		select {
		case r := <-s.requests:
			r.err = errStopped
			r.answer()
		default:
			return
		}
	}
}

// conflictsMax bounds how often a group is run again.
const conflictsMax = 50

func (s *Store) commit(ctx context.Context, reqs []*request) {
	var err error
	var lost []place // what an earlier try wrote and lost: named in advance from then on
	for try := 0; ; try++ {
		if lost, err = s.try(ctx, reqs, lost); err == nil || try == conflictsMax {
			break
		}
		if failed := s.again(ctx, err); failed != nil {
			err = failed
			break
		}
		s.mu.Lock()
		s.groups.Retries++
		s.mu.Unlock()
	}
	if s.doubt.Load() {
		s.resolve(ctx)
	}
	if err != nil {
		err = s.writeError(err)
	}
	for _, r := range reqs {
		if r.err == nil {
			r.err = err
		}
		if r.err != nil {
			r.after = nil
		}
		r.answer()
	}
}

// resolve reads the heads after a commit of which it is not known whether it was
// done: it may be the last for long, and the other Regions wait for its blocks.
func (s *Store) resolve(ctx context.Context) {
	if err := s.learnHeads(ctx); err != nil {
		s.log.WarnContext(ctx, "stream heads not read after a failed commit", "error", err)
		return
	}
	s.doubt.Store(false)
}

// again makes ready to run a group again that failed with err. It returns why
// that is in vain.
func (s *Store) again(ctx context.Context, err error) error {
	if back, ok := errors.AsType[*wentBack](err); ok {
		return s.goOn(ctx, back)
	}
	switch {
	case errors.Is(err, errForeign):
		return s.learnHeads(ctx)
	case errors.Is(err, errConflict), errors.Is(err, errControlMoved):
		return nil
	}
	return err
}

func (s *Store) fault(point string) error {
	if s.cfg.Fault == nil {
		return nil
	}
	return s.cfg.Fault(point)
}

// try runs the group once, reading the named rows in advance. It returns the
// rows that the group wrote.
func (s *Store) try(ctx context.Context, reqs []*request, named []place) (wrote []place, err error) {
	if err := s.fault("begin"); err != nil {
		return nil, err
	}
	ses, err := s.engine.begin(ctx)
	if err != nil {
		return nil, err
	}
	open := true
	defer func() {
		if open {
			ses.rollback()
		}
	}()
	touched := len(named)
	for _, r := range reqs {
		touched += len(r.touch)
	}
	g := &group{
		s: s, ctx: ctx, session: ses,
		rows: make(map[place]*entry, touched), hits: make(map[string][]place, touched), byHash: map[string][]place{},
		epoch: s.epoch(),
	}
	defer g.aside.Wait() // a group that failed is over before anybody is answered
	if err := g.prefetch(reqs, named); err != nil {
		return g.order, err
	}
	live, admitted := 0, false
	for _, r := range reqs {
		r.err, r.after, r.safety, r.optOuts = nil, nil, false, 0
		if r.ctx.Err() != nil {
			r.err = r.ctx.Err()
			continue
		}
		at, ok := aws.ControlEpochFrom(r.ctx)
		if ok && at != g.epoch {
			r.err = aws.Unavailable("Control moved from epoch %d to %d before the call was written. It was not carried out. Please retry.", at, g.epoch)
			continue
		}
		admitted = admitted || ok
		r.err = g.run(r)
		if broken, ok := errors.AsType[*engineError](r.err); ok {
			return g.order, broken.err
		}
		if r.err == nil {
			live++
		}
	}
	b, err := g.batch()
	if err != nil {
		return g.order, err
	}
	if b.empty() {
		return nil, nil
	}
	if err := s.clock.Err(); err != nil {
		return g.order, fmt.Errorf("reserve stamps: %w", err)
	}
	if err := s.fault("write"); err != nil {
		return g.order, err
	}
	heads, err := ses.write(ctx, b)
	if err != nil {
		return g.order, err
	}
	if err := s.checkHeads(heads); err != nil {
		return g.order, err
	}
	if err := s.fault("commit"); err != nil {
		return g.order, err
	}
	if admitted && s.epoch() != g.epoch {
		return g.order, errControlMoved // those that were admitted before are refused then
	}
	open = false
	if err := ses.commit(ctx); err != nil {
		s.doubt.Store(!errors.Is(err, errConflict) || s.doubt.Load())
		return g.order, err
	}
	if err := s.fault("committed"); err != nil {
		s.doubt.Store(true)
		return g.order, err
	}
	s.mu.Lock()
	for _, h := range heads {
		if h.n > s.heads[h.stream].n {
			s.heads[h.stream] = h
		}
	}
	for _, r := range reqs {
		r.at = s.heads[Safety].n
	}
	s.groups.Commits++
	s.groups.Updates += int64(live)
	if len(heads) > 0 {
		s.signal()
	}
	s.mu.Unlock()
	return nil, nil
}

// wentBack is a stream that hands out a position which this node has seen.
type wentBack struct {
	stream Stream
	seen   head
	have   int64
}

func (w *wentBack) Error() string {
	return fmt.Sprintf("stream %s went back from %d to %d", w.stream, w.seen.n, w.have)
}

// checkHeads notices, before the commit, a database that went back under a
// running node.
func (s *Store) checkHeads(heads []head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range heads {
		if h.n <= s.heads[h.stream].n {
			return &wentBack{h.stream, s.heads[h.stream], h.n - 1}
		}
	}
	return nil
}

// goOn takes a new incarnation after the database went back, and starts from
// where it now is.
func (s *Store) goOn(ctx context.Context, w *wentBack) error {
	if err := s.reincarnate(ctx, w.seen.incarnation, w.Error(), w.stream, w.seen.n, w.have); err != nil {
		return err
	}
	s.mu.Lock()
	clear(s.heads)
	s.mu.Unlock()
	return s.learnHeads(ctx)
}

func (g *group) prefetch(reqs []*request, named []place) error {
	var places []place
	var hashes []string
	var locks []int64
	none, shared := &entry{}, g.s.engine.shared()
	read := func(p place) {
		if g.rows[p] == nil {
			g.rows[p] = none
			places = append(places, p)
			if shared {
				locks = append(locks, lockOf(keyEntry(p)))
			}
		}
	}
	for _, p := range named {
		read(p)
	}
	for _, r := range reqs {
		for _, t := range r.touch {
			if t.Key == "" {
				h := g.s.indexHash(t.Kind.Name, t.Index)
				if _, ok := g.hits[h]; !ok {
					g.hits[h] = nil
					hashes = append(hashes, h)
					if shared {
						locks = append(locks, lockOf(h))
					}
				}
				continue
			}
			read(place{t.Kind.Name, t.Key})
			if t.Kind.Rule == changelog.RuleDocument {
				read(graveOf(place{t.Kind.Name, t.Key}))
			}
		}
	}
	if len(places)+len(hashes) == 0 {
		return nil
	}
	slices.Sort(locks)
	rows, hits, err := g.session.prefetch(g.ctx, slices.Compact(locks), places, hashes)
	if err != nil {
		return err
	}
	for i := range rows {
		if err := g.hold(&rows[i]); err != nil {
			return err
		}
	}
	for h, found := range hits {
		if err := g.holdHits(h, found); err != nil {
			return err
		}
	}
	return nil
}

// lockOf spreads names over a bounded number of PostgreSQL's advisory locks
// (FNV-1a), which a server keeps in a table of fixed size: a commit of many rows
// may hold all of them. Two names in one lock wait for each other, no more.
func lockOf(name string) int64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 29
	return lockBase + int64(h%lockBuckets)
}

const (
	lockBuckets = 2048
	lockBase    = setupLock << 16 // apart from the lock under which the schema is made
)

// hold keeps a row of the database for the group, unless the group has its own.
func (g *group) hold(r *stored) error {
	p := place{r.kind, r.key}
	if e, ok := g.rows[p]; ok && (e.dirty || e.id != 0) {
		return nil
	}
	o, err := g.s.open(r)
	if err != nil {
		return err
	}
	g.rows[p] = &entry{kind: Kind{Name: r.kind, Rule: o.rule}, id: r.id, rev: r.rev, hashes: o.hashes, was: o.hashes, body: o.body}
	return nil
}

func (g *group) holdHits(h string, found []stored) error {
	places := make([]place, 0, len(found))
	for i := range found {
		if err := g.hold(&found[i]); err != nil {
			return err
		}
		places = append(places, place{found[i].kind, found[i].key})
	}
	g.hits[h] = places
	return nil
}

func (g *group) find(p place) (*entry, error) {
	if e, ok := g.rows[p]; ok {
		return e, nil
	}
	rows, _, err := g.session.prefetch(g.ctx, nil, []place{p}, nil)
	if err != nil {
		return nil, &engineError{err}
	}
	g.rows[p] = &entry{}
	for i := range rows {
		if err := g.hold(&rows[i]); err != nil {
			return nil, err
		}
	}
	return g.rows[p], nil
}

func (g *group) lookup(h string) ([]place, error) {
	if places, ok := g.hits[h]; ok {
		return places, nil
	}
	_, hits, err := g.session.prefetch(g.ctx, nil, nil, []string{h})
	if err != nil {
		return nil, &engineError{err}
	}
	if err := g.holdHits(h, hits[h]); err != nil {
		return nil, err
	}
	return g.hits[h], nil
}

// run runs one update and takes over what it wrote.
func (g *group) run(r *request) (err error) {
	tx := &Tx{s: g.s, g: g, rows: make(map[place]*entry, len(r.touch)/2), byHash: make(map[string][]place, len(r.touch)/2)}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("update panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if err := r.fn(tx); err != nil {
		return err
	}
	if err := tx.checkRecords(); err != nil {
		return err
	}
	for p, e := range tx.rows {
		if old := g.rows[p]; old == nil || !old.dirty {
			g.order = append(g.order, p)
		}
		g.rows[p] = e
	}
	for h, places := range tx.byHash {
		if g.byHash[h] == nil {
			g.byHash[h] = places
		} else {
			g.byHash[h] = append(g.byHash[h], places...)
		}
	}
	g.facts = append(g.facts, tx.facts...)
	g.heard = append(g.heard, tx.heard...)
	r.after = tx.after
	if r.safety = tx.safety && !tx.merged; !tx.strict {
		r.optOuts = tx.outs
	}
	return nil
}

// batch turns what the group wrote into what the engine writes.
func (g *group) batch() (*batch, error) {
	b := &batch{}
	// Sorted by key: two nodes lock in one order, and one node's new rows go into
	// the index side by side.
	slices.SortFunc(g.order, func(x, y place) int {
		if c := strings.Compare(x.kind, y.kind); c != 0 {
			return c
		}
		return strings.Compare(x.key, y.key)
	})
	live := make([]written, 0, len(g.order))
	b.logged = len(g.facts)+len(g.heard) > 0
	for _, p := range g.order {
		e := g.rows[p]
		if e.id == 0 && e.body == nil {
			continue // written and removed within the group
		}
		live = append(live, written{p, e})
		b.logged = b.logged || e.kind.stream() != ""
	}
	// Of the incarnation as it is now, whenever they are made.
	p := packer{s: g.s, at: g.s.now().UnixMilli(), incarnation: g.s.Incarnation()}
	b.blocks = sync.OnceValues(func() ([]sealedBlock, error) { return g.blocks(live, p) })
	if len(live)+len(g.facts)+len(g.heard) > aloneMax {
		// Beside the rows and what the database does with them.
		g.aside.Go(func() { _, _ = b.blocks() })
	}
	bodies, err := g.seal(live)
	if err != nil {
		return nil, err
	}
	for i, w := range live {
		p, e := w.at, w.row
		if e.body == nil {
			b.deletes = append(b.deletes, stored{id: e.id, kind: p.kind, key: p.key, rev: e.rev})
			for _, h := range e.was {
				b.indexDrops = append(b.indexDrops, indexRow{h, e.id})
			}
			continue
		}
		row := stored{id: e.id, kind: p.kind, key: p.key, rev: e.rev, body: bodies[i]}
		if row.id == 0 {
			if row.id, err = g.session.nextID(g.ctx); err != nil {
				return nil, err
			}
			row.rev = 1
			b.inserts = append(b.inserts, row)
		} else {
			b.updates = append(b.updates, row)
		}
		for _, h := range e.hashes {
			if !slices.Contains(e.was, h) {
				b.indexAdds = append(b.indexAdds, indexRow{h, row.id})
			}
		}
		for _, h := range e.was {
			if !slices.Contains(e.hashes, h) {
				b.indexDrops = append(b.indexDrops, indexRow{h, row.id})
			}
		}
	}
	byHash := func(x, y indexRow) int { return strings.Compare(x.hash, y.hash) }
	slices.SortFunc(b.indexAdds, byHash)
	slices.SortFunc(b.indexDrops, byHash)
	return b, nil
}

// written is a row that the group leaves, or removes.
type written struct {
	at  place
	row *entry
}

// seal seals the bodies of rows, half of them in another goroutine when they are
// many.
func (g *group) seal(order []written) ([][]byte, error) {
	bodies := make([][]byte, len(order))
	part := func(from, to int) error {
		var plain []byte
		for i := from; i < to; i++ {
			w := order[i]
			if w.row.body == nil {
				continue
			}
			var err error
			if bodies[i], plain, err = g.s.close(w.at, w.row, plain); err != nil {
				return fmt.Errorf("seal %s: %w", w.at.kind, err)
			}
		}
		return nil
	}
	if len(order) <= aloneMax {
		return bodies, part(0, len(order))
	}
	other := make(chan error, 1)
	go func() { other <- part(len(order)/2, len(order)) }()
	return bodies, errors.Join(part(0, len(order)/2), <-other)
}

// aloneMax bounds the records for whose blocks another goroutine is not worth
// while.
const aloneMax = 64

// blocks makes the blocks of a commit.
func (g *group) blocks(order []written, p packer) ([]sealedBlock, error) {
	size := 0
	for _, w := range order {
		size += len(w.at.kind) + len(w.at.key) + len(w.row.change) + 4*binary.MaxVarintLen32
	}
	p.plain = make([]byte, 0, min(size, blockBytesMax))
	var record []byte
	for _, st := range streams {
		switch st {
		case Events:
			for _, fact := range g.facts {
				p.add(st, fact)
			}
		case Heard:
			for _, fact := range g.heard {
				p.add(st, fact)
			}
		default:
			for _, w := range order {
				if w.row.kind.stream() == st {
					record = changelog.AppendChange(record[:0], changelog.Change{
						Kind: w.at.kind, Key: w.at.key, Rule: w.row.kind.Rule, Foreign: w.row.foreign, Hashes: w.row.hashes, Body: w.row.change,
					})
					p.add(st, record)
				}
			}
		}
		p.end(st)
	}
	return p.blocks, p.err
}

// writeError turns what a database says into what a caller should hear.
func (s *Store) writeError(err error) error {
	if _, ok := errors.AsType[*aws.Fault](err); ok {
		return err
	}
	switch {
	case isFull(err):
		s.log.Error("the database's disk is full; writes are refused", "error", err)
		return aws.Unavailable("writes are refused: the disk of this Region's database is full")
	case errors.Is(err, errDoubt):
		s.log.Error("the database was lost in a commit", "error", err)
		return aws.Unavailable("this Region's database cannot be reached: it is not known whether the write was done")
	case isLost(err):
		s.log.Error("the database cannot be reached", "error", err)
		return aws.Unavailable("writes are refused: this Region's database cannot be reached")
	}
	return fmt.Errorf("commit: %w", err)
}
