package smpp

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// session is one bound connection. Requests are written by whoever sends them;
// answers to the peer go through a queue, which a goroutine writes, so that
// reading does not wait for writing and two peers cannot block each other. Each
// write takes the answers that wait along, first, so that they overtake requests
// and an unbind comes after all of them.
//
// Reading stops while the queue is full, or the deliver_sm that wait are too
// many; see [held]. The time in which it stands still is not held against the
// peer: it prolongs the wait for an answer, up to twice.
type session struct {
	conn    net.Conn
	reader  *Reader
	mode    Command // the bind that made it
	timeout time.Duration

	writing chan struct{} // holds one token: the right to write
	wbuf    []byte        // guarded by writing
	answers chan PDU      // to the peer
	waiting chan struct{} // holds one: there are answers
	retired chan error    // holds one: why no new work may go to this session

	mu       sync.Mutex
	sequence uint32
	pending  map[uint32]*pending
	deafFrom time.Time     // when reading stopped; zero while it goes on
	deafFor  time.Duration // how long it stood still before
	lost     error         // why the connection ended; nil while it lives
	done     chan struct{}
}

// pending is one request that waits for its answer.
type pending struct {
	answer    chan answer // holds one
	timer     *time.Timer
	deafFor   time.Duration // of the session when it was written
	longer    time.Duration // the time-out was prolonged by this
	abandoned func()        // set when nobody waits any more; called with the answer
}

type answer struct {
	pdu PDU
	err error // errNoAnswer, or why the connection ended
}

var (
	errNoAnswer     = errors.New("no answer in time")
	errClosedByPeer = errors.New("the provider closed the connection")
	errUnbound      = errors.New("the provider unbound")
)

const (
	// answersMax bounds the answers that wait to be written. There is room for
	// one to each delivery that is held, so that reading goes on when all of them
	// are refused, even if the peer does not read before it has written.
	answersMax = heldMax + 1024
	// answersOnceMax bounds the answers of one write.
	answersOnceMax = 256
)

func newSession(conn net.Conn, mode Command, timeout time.Duration) *session {
	s := &session{
		conn: conn, reader: NewReader(conn), mode: mode, timeout: timeout,
		writing: make(chan struct{}, 1), answers: make(chan PDU, answersMax), waiting: make(chan struct{}, 1),
		retired: make(chan error, 1), pending: make(map[uint32]*pending), done: make(chan struct{}),
	}
	s.writing <- struct{}{}
	return s
}

// write writes the answers that wait and then p, if it is not nil; handed says
// that p's last octet was written.
func (s *session) write(p *PDU) (handed bool, err error) {
	<-s.writing
	defer func() { s.writing <- struct{}{} }()
	b, unbound, err := s.appendAnswers(s.wbuf[:0])
	if err != nil {
		s.fail(err)
		return false, err
	}
	var bad error // of p alone
	if p != nil {
		whole, err := Append(b, *p)
		if bad = err; bad == nil {
			b = whole
		}
	}
	s.wbuf = b[:0]
	if len(b) == 0 {
		return false, bad
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		s.fail(err)
		return false, err
	}
	n, err := s.conn.Write(b)
	switch {
	case err != nil:
		s.fail(err)
	case unbound:
		s.retire(errUnbound)
	}
	if bad != nil {
		return false, bad
	}
	return n == len(b), err
}

// appendAnswers appends the answers that wait; unbound says that an unbind_resp is
// among them. The caller holds the right to write.
func (s *session) appendAnswers(b []byte) (_ []byte, unbound bool, err error) {
	for range answersOnceMax {
		select {
		case p := <-s.answers:
			if b, err = Append(b, p); err != nil {
				return b, unbound, err
			}
			unbound = unbound || p.Command == UnbindResp
		default:
			return b, unbound, nil
		}
	}
	signal(s.waiting) // there may be more
	return b, unbound, nil
}

// request writes a request and returns what will hold its answer. When handed is
// false, nothing that the peer could act on was written.
func (s *session) request(command Command, body Body) (w *pending, handed bool, err error) {
	w = &pending{answer: make(chan answer, 1)}
	s.mu.Lock()
	if s.lost != nil {
		s.mu.Unlock()
		return nil, false, s.lost
	}
	s.sequence++
	if s.sequence > 0x7fffffff {
		s.sequence = 1 // Source: SMPP 3.4 3.2
	}
	sequence := s.sequence
	s.pending[sequence] = w
	w.deafFor = s.deaf(time.Now())
	w.timer = time.AfterFunc(s.timeout, func() { s.lapse(sequence) })
	s.mu.Unlock()

	handed, err = s.write(&PDU{Command: command, Sequence: sequence, Body: body})
	if !handed {
		s.mu.Lock()
		delete(s.pending, sequence)
		s.mu.Unlock()
		w.timer.Stop()
		return nil, false, err
	}
	return w, true, nil
}

// wait returns the answer to w. When ctx ends first, late is true and abandoned
// will be called once the answer, or the certainty that there is none, is here.
func (s *session) wait(ctx context.Context, w *pending, abandoned func()) (a answer, late bool) {
	select {
	case a = <-w.answer:
		return a, false
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case a = <-w.answer:
		return a, false
	default:
		w.abandoned = abandoned
		return answer{err: ctx.Err()}, true
	}
}

// lapse gives a request up whose time has passed, unless reading stood still in
// that time.
func (s *session) lapse(sequence uint32) {
	s.mu.Lock()
	if w := s.pending[sequence]; w != nil {
		longer := min(s.deaf(time.Now())-w.deafFor, s.timeout)
		if more := longer - w.longer; more > 0 {
			w.longer = longer
			w.timer.Reset(more)
			s.mu.Unlock()
			return
		}
	}
	s.mu.Unlock()
	s.resolve(sequence, answer{err: errNoAnswer})
}

// deaf is how long reading has stood still so far; mu is held.
func (s *session) deaf(now time.Time) time.Duration {
	if s.deafFrom.IsZero() {
		return s.deafFor
	}
	return s.deafFor + now.Sub(s.deafFrom)
}

// pause calls wait, during which nothing is read. Only the reader may call it.
func (s *session) pause(wait func()) {
	s.mu.Lock()
	s.deafFrom = time.Now()
	s.mu.Unlock()
	wait()
	s.mu.Lock()
	s.deafFor, s.deafFrom = s.deaf(time.Now()), time.Time{}
	s.mu.Unlock()
}

// resolve gives a request its answer, once.
func (s *session) resolve(sequence uint32, a answer) {
	s.mu.Lock()
	w := s.pending[sequence]
	delete(s.pending, sequence)
	abandoned := w.settle(a)
	s.mu.Unlock()
	if abandoned != nil {
		abandoned()
	}
}

// settle keeps the answer for whoever waits and returns what to call when nobody
// does. The session's mu is held.
func (w *pending) settle(a answer) (abandoned func()) {
	if w == nil {
		return nil
	}
	w.timer.Stop()
	w.answer <- a
	return w.abandoned
}

// fail ends the connection, for the first reason given, and every request on it.
func (s *session) fail(reason error) {
	s.mu.Lock()
	if s.lost != nil {
		s.mu.Unlock()
		return
	}
	s.lost = reason
	waiting := s.pending
	s.pending = make(map[uint32]*pending)
	var abandoned []func()
	for _, w := range waiting {
		if f := w.settle(answer{err: reason}); f != nil {
			abandoned = append(abandoned, f)
		}
	}
	close(s.done)
	s.mu.Unlock()
	s.conn.Close()
	for _, f := range abandoned {
		f()
	}
}

// dead says that the connection ended.
func (s *session) dead() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// reason is why the connection ended.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// retire asks for the session to be ended once its submits were answered.
func (s *session) retire(reason error) {
	select {
	case s.retired <- reason:
	default:
	}
}

// answer queues an answer to the peer, when there is room. It returns early when
// the connection ends.
func (s *session) answer(p PDU) {
	select {
	case s.answers <- p:
	case <-s.done:
		return
	}
	signal(s.waiting)
}

// reply is answer for the reader.
func (s *session) reply(p PDU) {
	if len(s.answers) < answersMax {
		s.answer(p) // as good as at once
		return
	}
	s.pause(func() { s.answer(p) })
}

// writeAnswers writes queued answers until the connection ends.
func (s *session) writeAnswers() {
	for {
		select {
		case <-s.waiting:
			if _, err := s.write(nil); err != nil {
				return // write has ended the connection
			}
		case <-s.done:
			return
		}
	}
}

// enquire asks every period whether the peer is there, and ends the connection
// when no answer comes in time. It draws no conclusion when reading stood still
// for so long that the answer may not have been reached.
func (s *session) enquire(period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.done:
			return
		}
		w, _, err := s.request(EnquireLink, nil)
		if err != nil {
			s.fail(err)
			return
		}
		a, _ := s.wait(context.Background(), w, nil)
		if errors.Is(a.err, errNoAnswer) && w.longer == s.timeout {
			continue
		}
		if a.err != nil {
			s.fail(a.err)
			return
		}
	}
}

// read reads until the connection ends. deliver gets each deliver_sm; reading goes
// on when it returns.
func (s *session) read(deliver func(PDU)) {
	for {
		p, err := s.reader.Next()
		if err != nil {
			bad, ok := errors.AsType[*SyntaxError](err)
			if !ok {
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					err = errClosedByPeer
				}
				s.fail(err)
				return
			}
			if bad.Command.IsResponse() {
				// Whatever was answered, nobody knows it.
				s.resolve(bad.Sequence, answer{err: bad})
				if bad.Fatal {
					s.fail(bad)
					return
				}
				continue
			}
			s.reply(PDU{Command: GenericNack, Status: bad.Status, Sequence: bad.Sequence})
			if bad.Fatal {
				s.fail(bad)
				return
			}
			continue
		}
		switch {
		case p.Command.IsResponse():
			s.resolve(p.Sequence, answer{pdu: p})
		case p.Command == EnquireLink:
			s.reply(PDU{Command: EnquireLinkResp, Sequence: p.Sequence})
		case p.Command == DeliverSM:
			deliver(p)
		case p.Command == Unbind:
			s.reply(PDU{Command: UnbindResp, Sequence: p.Sequence})
		default:
			s.reply(PDU{Command: GenericNack, Status: StatusInvalidCommandID, Sequence: p.Sequence})
		}
	}
}
