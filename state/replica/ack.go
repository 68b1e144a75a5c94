package replica

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

// said is one acknowledgement.
type said struct {
	n int64 // the last block of the stream that is on disk
	// head is the last block of the safety stream of the Region that acknowledges, of
	// the incarnation in which it does. It was read after n was on disk and after
	// member was: what that Region had acknowledged to anybody by then is not after it.
	head int64
	// member is the epoch of the asking Region's stay in the set, as the other knows
	// it; 0 when it is out of the set.
	member uint64
}

// saidBytes is the length of an acknowledgement on the wire: three numbers of
// eight bytes, big endian.
const saidBytes = 24

func (s said) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(s.n))
	b = binary.BigEndian.AppendUint64(b, uint64(s.head))
	return binary.BigEndian.AppendUint64(b, s.member)
}

func decodeSaid(b *[saidBytes]byte) said {
	return said{
		n: int64(binary.BigEndian.Uint64(b[:8])), head: int64(binary.BigEndian.Uint64(b[8:16])), member: binary.BigEndian.Uint64(b[16:]),
	}
}

// acks is how far the other Regions say that they have this one's streams.
type acks struct {
	mu    sync.Mutex
	have  map[ackKey]ack
	open  map[ackKey]int // pulls that are being answered
	moved chan struct{}  // closed and replaced when one changes
}

type ackKey struct {
	region string
	stream store.Stream
}

type ack struct {
	as string // the incarnation of the database that has it
	of string // the incarnation of this one whose blocks they are
	said
	// whole says that head and member were told too: not yet when a pull has just
	// begun, from a position.
	whole bool
}

// pulling is one request that is being answered.
type pulling struct {
	key  ackKey
	as   string
	of   string
	told atomic.Int64 // the last block that went out
}

func (a *acks) begin(region string, st store.Stream, as, of string, n int64) *pulling {
	p := &pulling{key: ackKey{region, st}, as: as, of: of}
	p.told.Store(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have == nil {
		a.have, a.open = map[ackKey]ack{}, map[ackKey]int{}
	}
	a.have[p.key] = ack{as: as, of: of, said: said{n: n}}
	a.open[p.key]++
	a.signal()
	return p
}

func (a *acks) end(p *pulling) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[p.key]--
}

// set notes what the other Region said. It reports whether that may be: it cannot
// have what it was not told.
func (a *acks) set(p *pulling, s said) bool {
	if s.n > p.told.Load() || s.n < 0 || s.head < 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if have := a.have[p.key]; have.as == p.as && have.of == p.of && s.n >= have.n {
		a.have[p.key] = ack{p.as, p.of, s, true}
		a.signal()
	}
	return true
}

func (a *acks) signal() {
	close(a.moved)
	a.moved = make(chan struct{})
}

// changed returns a channel that is closed when something is said.
func (a *acks) changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.moved
}

// missing returns a Region that has not said that it has block n, at the
// incarnation at which it is asked for.
func (a *acks) missing(st store.Stream, of string, n int64, regions map[string]string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for region, as := range regions {
		if have := a.have[ackKey{region, st}]; have.of != of || have.n < n || as != "" && have.as != as {
			return region
		}
	}
	return ""
}

// latest returns what a Region said last of this one's safety stream, and the
// incarnation at which it did; ok is false when it has not said it to the
// incarnation of, or not at as unless that is "".
func (a *acks) latest(region, of, as string) (s said, at string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := a.have[ackKey{region, store.Safety}]
	return have.said, have.as, have.whole && have.of == of && (as == "" || have.as == as)
}

// Acknowledge returns when every Region of the group has block n of the safety
// stream on disk. It is what [store.Store.Acknowledge] wants.
func (r *Replica) Acknowledge(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.AckMax)
	defer cancel()
	if r.cfg.Voice == nil {
		return r.heardOfAll(ctx, n)
	}
	var before error
	for {
		err := r.vouched(ctx, n)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && before != nil:
			return before // it says more than that time is over
		case ctx.Err() != nil:
			return err
		}
		before = err
		select {
		case <-time.After(r.cfg.RetryMin): // who speaks may be another now
		case <-ctx.Done():
			return err
		}
	}
}

// heardOfAll is Acknowledge for the node that the other Regions acknowledge to.
func (r *Replica) heardOfAll(ctx context.Context, n int64) error {
	tick := time.NewTicker(r.cfg.Heartbeat) // the group may have changed
	defer tick.Stop()
	late := time.NewTicker(r.cfg.LateAfter)
	defer late.Stop()
	for {
		moved := r.acks.changed() // before the group is looked at
		group, err := r.cfg.Group()
		missing := ""
		if err != nil && r.mute() {
			return err
		}
		if err == nil {
			if missing = r.acks.missing(store.Safety, r.store.Incarnation(), n, group); missing == "" {
				return nil
			}
		}
		select {
		case <-moved:
		case <-tick.C:
		case <-late.C:
			if missing != "" {
				r.cfg.Late(missing)
			}
		case <-ctx.Done():
			if err != nil {
				return aws.Unavailable("written in Region %s; whether the other Regions need to have it is not known: %v", r.cfg.Region, err)
			}
			return aws.Unavailable("written in Region %s, but Region %s has not said in time that it has it", r.cfg.Region, missing)
		}
	}
}

// Acked reports whether every Region of the group has block n of a stream of this
// one's; true when there is none, false when that is not known.
func (r *Replica) Acked(st store.Stream, n int64) bool {
	group, err := r.cfg.Group()
	return err == nil && r.acks.missing(st, r.store.Incarnation(), n, group) == ""
}

// AckChanged returns a channel that is closed when a Region says how far it has
// a stream of this one's. It says nothing of a group that changes.
func (r *Replica) AckChanged() <-chan struct{} { return r.acks.changed() }

// patience is for how many heartbeats Handshake waits for a Region that knows of
// an older stay: it may have heard of the change later than this one.
const patience = 4

// Handshake returns when what was written before it may be relied on as a claim of
// this Region's stay in the set since epoch: every other Region of the group says
// that this one is a member at the epoch, and what each had acknowledged to anybody
// when it said so is here. It fails when one says otherwise, or says nothing in
// time.
//
// It is called after Update has returned for what was written, and so after every
// Region of the group has said that it has it. The latest word of each is
// therefore about a block that is not before it: a Region that said "a member"
// had the claim on its disk when it did, and one that learnt of a removal first
// says so with every block from then on.
func (r *Replica) Handshake(ctx context.Context, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.AckMax)
	defer cancel()
	tick := time.NewTicker(r.cfg.Heartbeat)
	defer tick.Stop()
	over := time.NewTimer(patience * r.cfg.Heartbeat)
	defer over.Stop()
	s := shaking{r: r, epoch: epoch, heads: map[string]told{}}
	for {
		moved, merged := r.acks.changed(), r.mergedMore()
		missing, err := s.look()
		if err == nil && missing == "" {
			return nil
		}
		if s.refused != nil && (s.late || s.final) {
			return s.refused
		}
		select {
		case <-moved:
		case <-merged:
		case <-tick.C:
		case <-over.C:
			s.late = true
		case <-ctx.Done():
			if err != nil {
				return aws.Unavailable("whether the other Regions know of the claim is not known: %v", err)
			}
			return aws.Unavailable("what Region %s had acknowledged is not here in time: the claim is not made", missing)
		}
	}
}

// shaking is a handshake under way.
type shaking struct {
	r       *Replica
	epoch   uint64
	heads   map[string]told // of the Regions that know of the stay, as they were first told
	refused error           // a Region knows of another stay
	final   bool            // it will not change its mind
	late    bool            // nobody's mind is waited for any more
}

type told struct {
	incarnation string
	head        int64
}

// look reports a Region that is waited for; "" when the handshake is done.
func (s *shaking) look() (missing string, err error) {
	group, err := s.r.cfg.Group()
	if err != nil {
		return "", err
	}
	s.refused, s.final = nil, false
	of := s.r.store.Incarnation()
	for region, as := range group {
		last, at, ok := s.r.acks.latest(region, of, as)
		switch {
		case !ok:
			missing = region
			continue
		case last.member != s.epoch:
			missing = region
			s.refused = aws.Unavailable("Region %s knows this Region to be in the set since epoch %d, not %d: the claim is refused", region, last.member, s.epoch)
			s.final = s.final || last.member > s.epoch
			continue
		case s.heads[region].incarnation != at:
			s.heads[region] = told{at, last.head}
		}
		if to := s.heads[region]; !s.r.has(region, to.incarnation, to.head) {
			missing = region
		}
	}
	return missing, nil
}

// has reports whether block n of a Region's safety stream is merged.
func (r *Replica) has(region, incarnation string, n int64) bool {
	p := r.peers[region]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.at[store.Safety]
	return at.Incarnation == incarnation && at.N >= n
}

// mergedMore returns a channel that is closed when something is merged.
func (r *Replica) mergedMore() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.merged
}

func (r *Replica) signalMerged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.merged)
	r.merged = make(chan struct{})
}
