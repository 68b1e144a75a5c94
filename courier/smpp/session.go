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
// answers to the peer go through a queue, so that reading never waits for writing
// and two peers cannot block each other.
type session struct {
	conn    net.Conn
	reader  *Reader
	mode    Command // the bind that made it
	timeout time.Duration

	writing chan struct{} // holds one token: the right to write
	wbuf    []byte        // guarded by writing
	answers chan PDU      // to the peer
	retired chan error    // holds one: why no new work may go to this session

	mu       sync.Mutex
	sequence uint32
	pending  map[uint32]*pending
	lost     error // why the connection ended; nil while it lives
	done     chan struct{}
}

// pending is one request that waits for its answer.
type pending struct {
	answer    chan answer // holds one
	timer     *time.Timer
	abandoned func() // set when nobody waits any more; called with the answer
}

type answer struct {
	pdu PDU
	err error // errNoAnswer, or why the connection ended
}

var (
	errNoAnswer     = errors.New("no answer in time")
	errClosedByPeer = errors.New("the provider closed the connection")
	errUnbound      = errors.New("the provider unbound")
	errFlood        = errors.New("the provider asks faster than it reads")
)

// answersMax bounds the answers that wait to be written.
const answersMax = 256

func newSession(conn net.Conn, mode Command, timeout time.Duration) *session {
	s := &session{
		conn: conn, reader: NewReader(conn), mode: mode, timeout: timeout,
		writing: make(chan struct{}, 1), answers: make(chan PDU, answersMax), retired: make(chan error, 1),
		pending: make(map[uint32]*pending), done: make(chan struct{}),
	}
	s.writing <- struct{}{}
	return s
}

// write writes one PDU; handed says that its last octet was written.
func (s *session) write(p PDU) (handed bool, err error) {
	<-s.writing
	defer func() { s.writing <- struct{}{} }()
	b, err := Append(s.wbuf[:0], p)
	if err != nil {
		return false, err
	}
	s.wbuf = b[:0]
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		s.fail(err)
		return false, err
	}
	n, err := s.conn.Write(b)
	if err != nil {
		s.fail(err)
	}
	return n == len(b), err
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
	w.timer = time.AfterFunc(s.timeout, func() { s.resolve(sequence, answer{err: errNoAnswer}) })
	s.mu.Unlock()

	handed, err = s.write(PDU{Command: command, Sequence: sequence, Body: body})
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

// answer queues an answer to the peer.
func (s *session) answer(p PDU) {
	select {
	case s.answers <- p:
	default:
		s.fail(errFlood)
	}
}

// writeAnswers writes queued answers until the connection ends. An unbind_resp
// retires the session, now that it is written.
func (s *session) writeAnswers() {
	for {
		select {
		case p := <-s.answers:
			if _, err := s.write(p); err != nil {
				s.fail(err)
				return
			}
			if p.Command == UnbindResp {
				s.retire(errUnbound)
			}
		case <-s.done:
			return
		}
	}
}

// enquire asks every period whether the peer is there, and ends the connection
// when no answer comes in time.
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
		if a, _ := s.wait(context.Background(), w, nil); a.err != nil {
			s.fail(a.err)
			return
		}
	}
}

// read reads until the connection ends. deliver gets each deliver_sm and must
// not block.
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
			s.answer(PDU{Command: GenericNack, Status: bad.Status, Sequence: bad.Sequence})
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
			s.answer(PDU{Command: EnquireLinkResp, Sequence: p.Sequence})
		case p.Command == DeliverSM:
			deliver(p)
		case p.Command == Unbind:
			s.answer(PDU{Command: UnbindResp, Sequence: p.Sequence})
		default:
			s.answer(PDU{Command: GenericNack, Status: StatusInvalidCommandID, Sequence: p.Sequence})
		}
	}
}
