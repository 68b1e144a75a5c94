package replica

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// cursor is how far this Region has another's stream, committed with what it
// merged.
type cursor struct {
	Incarnation string
	N           int64
	Hash        []byte
}

// progress is how far this Region has read another's rows.
type progress struct {
	As    string   // this database's incarnation: a restored one needs the rows again
	From  position // where the streams were when reading began
	After int64    // the last row that is here
	Done  bool
}

// lease says which of a Region's nodes pulls from a peer. It only saves work: a
// cursor moves from where it was left, whoever moves it.
type lease struct {
	Node  string
	Until time.Time
}

var (
	errLost  = errors.New("replica: the peer does not know the position")
	errMoved = errors.New("replica: another node moved the cursor")
	// errReborn ends a turn: what this Region had told the others is among their rows.
	errReborn = errors.New("replica: this Region's database went back and has a new incarnation")
	errQuiet  = errors.New("replica: the peer has said nothing for too long")
)

// peer is another Region, as this one hears of it.
type peer struct {
	Peer
	r     *Replica
	calls chan struct{} // it has asked this Region for something

	mu          sync.Mutex
	at          map[store.Stream]cursor // what is merged
	heads       map[store.Stream]int64  // as last told
	current     map[store.Stream]time.Time
	incarnation string
	index       uint64    // as last told
	mine        bool      // this node is to pull from it
	noted       time.Time // when it was last noted as heard
	apart       bool      // it was not heard for Retention before that
	began       time.Time // when it first said something
	heard       time.Time // when it last did
	rows        int64     // read since it began, while it reads rows
	err         error     // why it is not heard
}

func (p *peer) cursorKey(st store.Stream) string { return p.Region + "\x00" + string(st) }
func (p *peer) rowsKey() string                  { return p.Region + "\x00rows" }
func (p *peer) leaseKey() string                 { return p.Region + "\x00lease" }

// run pulls from the peer until ctx ends.
func (p *peer) run(ctx context.Context) {
	delay, lostBefore := p.r.cfg.RetryMin, false
	for ctx.Err() == nil {
		begun := p.r.now()
		err := p.turn(ctx)
		if ctx.Err() != nil {
			return
		}
		// A Region that says that a position is lost is there, and waits for what comes
		// next; but not when it says nothing else.
		isLost := errors.Is(err, errLost)
		if p.r.now().Sub(begun) > p.r.cfg.RetryMax || isLost && !lostBefore {
			delay = p.r.cfg.RetryMin
		}
		lostBefore = isLost
		p.failed(err)
		if err != nil {
			p.r.log.WarnContext(ctx, "a Region is not heard", "peer", p.Region, "error", err, "delay", delay)
		}
		calls := p.calls
		if p.heardSince(begun) {
			calls = nil // it was there, and yet the turn ended
		}
		select {
		case <-time.After(delay):
			delay = min(2*delay, p.r.cfg.RetryMax)
		case <-calls:
			delay = p.r.cfg.RetryMin
		case <-ctx.Done():
		}
	}
}

// called notes that a Region has asked for something: it can be reached, or soon.
func (r *Replica) called(region string) {
	if p := r.peers[region]; p != nil {
		select {
		case p.calls <- struct{}{}:
		default:
		}
	}
}

func (p *peer) heardSince(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard.After(t)
}

func (p *peer) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// turn is one connection: rows if they are wanted, then the streams until one of
// them ends.
func (p *peer) turn(ctx context.Context) error {
	ok, err := !p.r.mute(), error(nil)
	if p.r.cfg.Voice == nil {
		ok, err = p.lease(ctx)
	}
	p.mu.Lock()
	p.mine = ok && err == nil
	p.mu.Unlock()
	if err != nil || !ok {
		return err
	}
	if err := p.load(ctx); err != nil {
		return err
	}
	anew, err := p.settle(ctx)
	if err != nil {
		return err
	}
	if err := p.takeRows(ctx, anew); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var pulls sync.WaitGroup
	for _, st := range shipped {
		pulls.Go(func() { cancel(p.pull(ctx, st)) })
	}
	pulls.Go(func() { cancel(p.keepLease(ctx)) })
	pulls.Go(func() { cancel(p.keepContact(ctx)) })
	pulls.Wait()
	err = context.Cause(ctx)
	if errors.Is(err, errLost) {
		return errors.Join(err, p.forget(context.WithoutCancel(ctx)))
	}
	return err
}

// lease takes the peer for this node, unless another has it.
func (p *peer) lease(ctx context.Context) (ok bool, err error) {
	err = p.r.store.Update(ctx, func(tx *store.Tx) error {
		l, err := store.Load[lease](tx, kindCursor, p.leaseKey())
		now := tx.Now()
		ok = err == nil && (l == nil || l.Node == p.r.cfg.Node || !now.Before(l.Until))
		if !ok {
			return err
		}
		return store.Save(tx, kindCursor, p.leaseKey(), &lease{p.r.cfg.Node, now.Add(p.r.cfg.LeaseTime)})
	}, store.Touch{Kind: kindCursor, Key: p.leaseKey()})
	return ok, err
}

func (p *peer) keepLease(ctx context.Context) error {
	every := p.r.cfg.LeaseTime / 3
	if p.r.cfg.Voice != nil {
		every = p.r.cfg.Heartbeat
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if p.r.cfg.Voice != nil {
			if p.r.mute() {
				return errMoved
			}
			continue
		}
		if ok, err := p.lease(ctx); err != nil || !ok {
			return errors.Join(err, errMoved)
		}
	}
}

// load reads the cursors.
func (p *peer) load(ctx context.Context) error {
	if err := p.meet(ctx); err != nil {
		return err
	}
	rd := p.r.store.Reader(ctx)
	for _, st := range shipped {
		c, err := store.Load[cursor](rd, kindCursor, p.cursorKey(st))
		if err != nil {
			return err
		}
		if c == nil {
			c = &cursor{}
		}
		p.mu.Lock()
		p.at[st] = *c
		p.mu.Unlock()
	}
	return nil
}

// forget makes the next turn begin with the rows.
func (p *peer) forget(ctx context.Context) error {
	return p.r.store.Update(ctx, func(tx *store.Tx) error { return tx.Remove(kindCursor, p.rowsKey()) })
}

// url is where the peer is reached.
func (p *peer) url() string {
	if p.r.cfg.Voice != nil {
		if at := p.r.cfg.Voice.Route(p.Region); at != "" {
			return at
		}
	}
	return p.URL
}

// get asks the peer for something below the room's path, and waits for its answer
// to begin no longer than timeout.
func (p *peer) get(ctx context.Context, method, what string, q url.Values, body io.Reader, timeout time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, p.url()+path+what+"?"+q.Encode(), body)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	quiet := time.AfterFunc(timeout, func() { cancel(errQuiet) })
	resp, err := p.r.client.Do(req)
	quiet.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errQuiet) {
			err = errQuiet
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = answering{resp.Body, cancel}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		resp.Body.Close()
		return nil, fmt.Errorf("%s answered %s: %s", p.Region, resp.Status, text)
	}
	return resp, nil
}

// answering is an answer's body that ends its request with it.
type answering struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (a answering) Close() error {
	defer a.cancel(nil)
	return a.ReadCloser.Close()
}

// frames reads an answer's frames and hands them to take, until it ends, nothing
// comes for too long, or take fails.
func (p *peer) frames(body io.ReadCloser, timeout time.Duration, take func(name byte, content []byte, more bool) error) error {
	quiet := time.AfterFunc(timeout, func() { body.Close() })
	defer quiet.Stop()
	rd := bufio.NewReaderSize(body, 256<<10)
	for {
		name, content, err := readFrame(rd)
		if err != nil {
			if !quiet.Stop() {
				return errQuiet
			}
			return err
		}
		if !quiet.Stop() {
			return errQuiet
		}
		if err := take(name, content, rd.Buffered() > frameHeadBytes); err != nil {
			return err
		}
		quiet.Reset(timeout)
	}
}

const (
	frameHeadBytes = 5
	batchChanges   = 2000 // merged in one commit
	batchBytes     = 4 << 20
	rowsPatience   = 6 // times Timeout: a Region may have many rows that are its own
)

// closers is a body that is closed with the pipe that feeds its request.
type closers struct {
	io.ReadCloser
	say *io.PipeWriter
}

func (c closers) Close() error { return errors.Join(c.say.Close(), c.ReadCloser.Close()) }

// pull follows one stream until it ends.
func (p *peer) pull(ctx context.Context, st store.Stream) error {
	p.mu.Lock()
	at := p.at[st]
	p.mu.Unlock()
	as := p.r.store.Incarnation()
	body, say := io.Pipe()
	// The client does not look at ctx while it waits for more of the body.
	defer context.AfterFunc(ctx, func() { say.Close() })()
	defer say.Close()
	q := url.Values{
		incarnationName: {at.Incarnation}, "after": {strconv.FormatInt(at.N, 10)}, "hash": {hexOf(at.Hash)}, "as": {as},
	}
	resp, err := p.get(ctx, http.MethodPost, "stream/"+string(st), q, body, p.r.cfg.Timeout)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var batch []block
	size, heads := 0, 0
	var last said
	apart := true // the peer is, by the heartbeat before the batch
	acknowledge := func() error {
		s := p.say(st)
		if s == last {
			return nil
		}
		last = s
		_, err := say.Write(s.append(nil))
		return err
	}
	return p.frames(closers{resp.Body, say}, p.r.cfg.Timeout, func(name byte, content []byte, more bool) error {
		switch name {
		case frameHead:
			var h heartbeat
			if err := json.Unmarshal(content, &h); err != nil || h.Region != p.Region {
				return fmt.Errorf("%w: a heartbeat of %q", errFrame, h.Region)
			}
			if err := p.hear(h); err != nil {
				return err
			}
			if h.Apart != apart && len(batch) > 0 { // which is from before
				if err := p.merge(ctx, st, batch, apart); err != nil {
					return err
				}
				batch, size = batch[:0], 0
			}
			apart = h.Apart
			if p.r.store.Incarnation() != as {
				return errReborn
			}
			// The position may be lost after the first; later ones come when nothing else
			// does, and what was said may be another thing now.
			if heads++; heads > 1 && len(batch) == 0 {
				return acknowledge()
			}
		case frameLost:
			return errLost
		case frameBlock:
			bl, err := p.r.codec.decodeBlock(content)
			if err != nil {
				return err
			}
			batch = append(batch, bl)
			for _, record := range bl.Records {
				size += len(record) + batchBytes/batchChanges
			}
		default:
			return fmt.Errorf("%w: %q", errFrame, name)
		}
		if len(batch) == 0 || more && size < batchBytes {
			return nil
		}
		if err := p.merge(ctx, st, batch, apart); err != nil {
			return err
		}
		batch, size = batch[:0], 0
		return acknowledge()
	})
}

// say is what this Region has to acknowledge of a stream, in the order in which
// said wants it read.
func (p *peer) say(st store.Stream) said {
	var s said
	p.mu.Lock()
	s.n = p.at[st].N
	p.mu.Unlock()
	s.member = p.r.member(p.Region)
	s.head = p.r.store.Head(store.Safety)
	return s
}

func (p *peer) hear(h heartbeat) error {
	if h.Hashing != p.r.hashing() {
		return fmt.Errorf("replica: Region %s has another hashing keyset: copy hashing.json from the first Region of the group before the first start", p.Region)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.incarnation, p.index, p.heard, p.err = h.Incarnation, h.Index, p.r.now(), nil
	if p.began.IsZero() {
		p.began = p.heard
	}
	for _, st := range shipped {
		p.heads[st] = h.Heads[string(st)]
		p.reached(st)
	}
	return nil
}

// reached notes when a stream was at its head; p.mu is held.
func (p *peer) reached(st store.Stream) {
	if p.current == nil {
		p.current = map[store.Stream]time.Time{}
	}
	if p.at[st].N >= p.heads[st] {
		p.current[st] = p.heard
	}
}

// merge merges blocks and moves the cursor, in one commit. apart says that the
// peer was apart from this Region when it told them.
func (p *peer) merge(ctx context.Context, st store.Stream, blocks []block, apart bool) error {
	p.mu.Lock()
	at := p.at[st]
	p.mu.Unlock()
	var changes []changelog.Change
	touches := []store.Touch{{Kind: kindCursor, Key: p.cursorKey(st)}}
	to := at
	for _, bl := range blocks {
		if bl.N != to.N+1 {
			return fmt.Errorf("%w: block %d after %d", errFrame, bl.N, to.N)
		}
		to.N, to.Hash = bl.N, bl.Hash
		if st == store.Events {
			continue
		}
		for _, record := range bl.Records {
			c, err := changelog.DecodeChange(record)
			if err != nil {
				return fmt.Errorf("read block %d of %s: %w", bl.N, st, err)
			}
			changes = append(changes, c)
			touches = append(touches, touchOf(c))
		}
	}
	err := p.r.store.Update(ctx, func(tx *store.Tx) error {
		was, err := store.Load[cursor](tx, kindCursor, p.cursorKey(st))
		if err != nil {
			return err
		}
		if was == nil {
			was = &cursor{}
		}
		if was.Incarnation != at.Incarnation || was.N != at.N {
			return errMoved
		}
		if err := p.mergeAll(tx, changes, st == store.Safety, apart); err != nil {
			return err
		}
		if st == store.Events {
			for _, bl := range blocks {
				for _, fact := range bl.Records {
					tx.Hear(fact)
				}
			}
		}
		return store.Save(tx, kindCursor, p.cursorKey(st), &to)
	}, touches...)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.at[st] = to
	p.heads[st] = max(p.heads[st], to.N)
	p.reached(st)
	p.mu.Unlock()
	p.r.signalMerged()
	return nil
}

func touchOf(c changelog.Change) store.Touch {
	return store.Touch{Kind: store.Kind{Name: c.Kind, Rule: c.Rule}, Key: c.Key}
}

func (p *peer) mergeAll(tx *store.Tx, changes []changelog.Change, safety, apart bool) error {
	switch {
	case !apart || !p.r.votes():
	case p.r.member(p.r.cfg.Region) > 0:
		var err error
		if changes, err = p.leaveOut(tx, changes); err != nil {
			return err
		}
	case p.r.member(p.Region) == 0:
		return errApart // who of the two was away is not known yet
	}
	return p.mergeChanges(tx, changes, safety)
}

func (p *peer) mergeChanges(tx *store.Tx, changes []changelog.Change, safety bool) error {
	for _, c := range changes {
		conflicts, err := tx.Merge(c, safety, func(key string, body []byte) ([]store.Index, error) { return p.r.cfg.Indexes(c.Kind, key, body) })
		if err != nil {
			return err
		}
		if err := p.r.cfg.Merged(tx, c); err != nil {
			return err
		}
		for i := range conflicts {
			if err := record(tx, p.r.cfg.Node, p.Region, c, conflicts[i]); err != nil {
				return err
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return p.r.cfg.MergedAll(tx, changes)
}

// takeRows reads the peer's rows unless that was done, from where it was left; or
// anew, and removes the documents that the peer does not have.
func (p *peer) takeRows(ctx context.Context, anew bool) error {
	done, err := store.Load[progress](p.r.store.Reader(ctx), kindCursor, p.rowsKey())
	if err != nil {
		return err
	}
	named, apart := roll{}, true // the peer is, by its first frame
	if as := p.r.store.Incarnation(); done == nil || done.As != as || anew {
		done = &progress{As: as}
	}
	if done.Done {
		return nil
	}
	resp, err := p.get(ctx, http.MethodGet, "rows", url.Values{"after": {strconv.FormatInt(done.After, 10)}}, http.NoBody, rowsPatience*p.r.cfg.Timeout)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = p.frames(resp.Body, rowsPatience*p.r.cfg.Timeout, func(name byte, content []byte, _ bool) error {
		switch name {
		case frameHead:
			var from position
			if err := json.Unmarshal(content, &from); err != nil || from.Region != p.Region {
				return fmt.Errorf("%w: rows of %q", errFrame, from.Region)
			}
			if err := p.hear(from.heartbeat); err != nil {
				return err
			}
			apart = from.Apart
			switch {
			case done.From.Incarnation == "":
				done.From = from
			case done.From.Incarnation != from.Incarnation:
				*done = progress{As: done.As, From: from}
				return errors.Join(errLost, p.keep(ctx, done, nil, apart)) // from the start, in another answer
			}
			return nil
		case frameRows:
			last, records, err := p.r.codec.decodeRows(content)
			if err != nil || last <= done.After {
				return fmt.Errorf("%w: rows up to %d after %d: %w", errFrame, last, done.After, err)
			}
			changes := make([]changelog.Change, 0, len(records))
			for _, record := range records {
				c, err := changelog.DecodeChange(record)
				if err != nil {
					return fmt.Errorf("read rows up to %d: %w", last, err)
				}
				changes = append(changes, c)
			}
			if anew {
				if err := named.add(changes); err != nil {
					return err
				}
			}
			next := *done
			next.After = last
			if err := p.keep(ctx, &next, changes, apart); err != nil {
				return err
			}
			*done = next
			return nil
		case frameEnd:
			if anew {
				if err := p.prune(ctx, named); err != nil {
					return err
				}
			}
			done.Done = true
			if err := p.keep(ctx, done, nil, apart); err != nil {
				return err
			}
			return errDone
		default:
			return fmt.Errorf("%w: %q", errFrame, name)
		}
	})
	if !errors.Is(err, errDone) {
		return err
	}
	p.r.log.InfoContext(ctx, "a Region's rows were taken over", "peer", p.Region)
	return p.load(ctx)
}

// setCursors makes the streams go on from where they were before the rows were
// read. Facts are not among the rows: they are told from the first that is still
// there, unless this Region was further.
func (p *peer) setCursors(tx *store.Tx, from position) error {
	for _, st := range shipped {
		hash, err := hex.DecodeString(from.Hashes[string(st)])
		if err != nil {
			return err
		}
		c := cursor{from.Incarnation, from.Heads[string(st)], hash}
		if st == store.Events {
			was, err := store.Load[cursor](tx, kindCursor, p.cursorKey(st))
			if err != nil {
				return err
			}
			// The block of the cursor is still there. One before the first is not, and its
			// hash cannot be asked for.
			if was != nil && was.Incarnation == from.Incarnation && was.N > from.Facts {
				continue
			}
			c.N, c.Hash = from.Facts, nil
		}
		if err := store.Save(tx, kindCursor, p.cursorKey(st), &c); err != nil {
			return err
		}
	}
	return nil
}

var errDone = errors.New("replica: all rows are here")

// keep merges rows and says how far they are here, in one commit; with the last
// of them the cursors are set to where the streams were before.
func (p *peer) keep(ctx context.Context, to *progress, changes []changelog.Change, apart bool) error {
	touches := []store.Touch{{Kind: kindCursor, Key: p.rowsKey()}}
	for _, c := range changes {
		touches = append(touches, touchOf(c))
	}
	err := p.r.store.Update(ctx, func(tx *store.Tx) error {
		if err := p.mergeAll(tx, changes, false, apart); err != nil {
			return err
		}
		if to.Done {
			if err := p.setCursors(tx, to.From); err != nil {
				return err
			}
		}
		return store.Save(tx, kindCursor, p.rowsKey(), to)
	}, touches...)
	if err == nil {
		p.mu.Lock()
		p.rows += int64(len(changes))
		p.mu.Unlock()
	}
	return err
}
