package smtp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Sizes of a session's buffers.
const (
	writeBufferBytes   = 32 << 10 // holds an ordinary message and the next envelope, so that they leave in one write
	writeBlockBytesMax = 64 << 10 // the most that one write, and one DataBlock time-out, covers
	repliesMax         = 8        // replies read ahead of the commands they answer
)

// lastWordsWait is how long a connection that broke under our writing may still
// tell why, and how long QUIT waits for its 221.
const lastWordsWait = 5 * time.Second

// Errors that end a session.
var (
	errAbandoned = errors.New("the caller left after DATA was sent")
	errOutOfStep = errors.New("server sent a reply that nothing asked for")
	errClosing   = errors.New("server is closing the connection")
)

// session is one connection that carries mail. Everything but read is called by
// the slot's goroutine; read fills replies, so that the server never waits for
// us to read while we write.
type session struct {
	c    *Client
	conn net.Conn
	raw  net.Conn // below TLS: closing it never waits for the peer
	br   *bufio.Reader
	ext  extensions

	out     *counter
	w       *bufio.Writer
	timer   *time.Timer
	replies chan reply    // closed by read, after readErr was set
	dead    chan struct{} // closed by close
	readErr error

	err    error // why the session cannot go on
	reset  bool  // a transaction was left open: RSET comes first
	taken  int   // messages begun on this connection
	served int   // messages that got as far as a reply: a break after that may be an old connection's
}

func newSession(c *Client, h *hello) *session {
	s := &session{
		c:       c,
		conn:    h.conn,
		raw:     h.raw,
		br:      h.br,
		ext:     h.ext,
		out:     &counter{conn: h.conn, block: c.cfg.Timeouts.DataBlock},
		timer:   time.NewTimer(time.Hour),
		replies: make(chan reply, repliesMax),
		dead:    make(chan struct{}),
	}
	s.timer.Stop()
	s.w = bufio.NewWriterSize(s.out, writeBufferBytes)
	return s
}

// counter counts what the connection took, which is what decides between
// Deferred and Unknown, and gives every write its own time.
type counter struct {
	conn  net.Conn
	block time.Duration
	n     int64
}

func (o *counter) Write(b []byte) (int, error) {
	var done int
	for done < len(b) {
		if err := o.conn.SetWriteDeadline(time.Now().Add(o.block)); err != nil {
			return done, err
		}
		n, err := o.conn.Write(b[done:min(len(b), done+writeBlockBytesMax)])
		done += n
		o.n += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// run serves first and then whatever comes, until the connection ends. It
// answers every job it took. hard ending cuts the connection.
func (s *session) run(hard context.Context, first *job) {
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.read()
	}()
	stop := context.AfterFunc(hard, func() { s.raw.Close() })
	defer func() {
		stop()
		close(s.dead)
		s.conn.Close()
		<-reading
		s.timer.Stop()
		s.c.open.Add(-1)
	}()

	j := first
	if !s.begin(j) {
		j = nil
	}
	for s.err == nil {
		if j == nil {
			if j = s.next(); j == nil {
				break
			}
		}
		j = s.transact(j)
	}
	if j != nil {
		// Its envelope may have gone out behind another's dot; its content did not.
		j.resolve(deferred(s.err.Error()), s.served > 0)
	}
	if s.err == nil {
		s.quit()
	}
}

// read hands replies over until the connection ends.
func (s *session) read() {
	defer close(s.replies)
	for {
		r, err := readReply(s.br, nil)
		if err != nil {
			s.readErr = err
			return
		}
		r.followed = s.br.Buffered() > 0
		select {
		case s.replies <- r:
		case <-s.dead:
			return
		}
	}
}

// next waits for a job while the connection is idle; nil means it should end.
func (s *session) next() *job {
	for s.taken < s.c.cfg.MessagesPerConnection {
		// An unasked reply, mostly a 421, or the connection's end: see it
		// before a job is put onto a dead connection.
		select {
		case r, ok := <-s.replies:
			s.err = s.unasked(r, ok)
			return nil
		case <-s.c.stopping:
			return nil
		default:
		}
		s.timer.Reset(s.c.cfg.Idle)
		select {
		case j := <-s.c.warm:
			if s.begin(j) {
				return j
			}
		case r, ok := <-s.replies:
			s.err = s.unasked(r, ok)
			return nil
		case <-s.timer.C:
			return nil
		case <-s.c.stopping:
			return nil
		}
	}
	return nil
}

// lookahead takes a job that is waiting now, if there is one and its envelope
// may follow the final dot; else nil.
func (s *session) lookahead() *job {
	if !s.ext.pipelining {
		return nil
	}
	for s.taken < s.c.cfg.MessagesPerConnection {
		select {
		case <-s.c.stopping:
			return nil
		default:
		}
		select {
		case j := <-s.c.warm:
			if s.begin(j) {
				s.c.pipelined.Add(1)
				return j
			}
		default:
			return nil
		}
	}
	return nil
}

// begin puts a job's envelope into the buffer (where the server pipelines; else
// transact writes it command by command). It is false when the job needs
// nothing more: its caller left, or this server cannot take it.
func (s *session) begin(j *job) bool {
	if j.abandoned() {
		return false
	}
	size := wireSize(j.m.Mail.Data)
	switch {
	case j.utf8 && !s.ext.utf8:
		j.resolve(refusedHere("5.6.7", "server does not offer SMTPUTF8, which an address needs"), false)
		return false
	case j.eight && !s.ext.eightBit:
		j.resolve(refusedHere("5.6.3", "server does not offer 8BITMIME, which the content needs"), false)
		return false
	case s.ext.sizeMax > 0 && size > s.ext.sizeMax:
		j.resolve(refusedHere("5.3.4", fmt.Sprintf("message of %d bytes is larger than the server's %d", size, s.ext.sizeMax)), false)
		return false
	}
	s.taken++
	j.reset, s.reset = s.reset, false
	if s.ext.pipelining {
		// Errors of the buffer stay with it and come back from flush.
		if j.reset {
			s.w.WriteString("RSET\r\n")
		}
		s.writeMail(j)
		s.writeRcpt(j)
		s.w.WriteString("DATA\r\n")
	}
	return true
}

func (s *session) writeMail(j *job) {
	s.w.WriteString("MAIL FROM:<")
	s.w.WriteString(j.m.From)
	s.w.WriteByte('>')
	if s.ext.size {
		s.w.WriteString(" SIZE=")
		s.w.Write(strconv.AppendInt(s.w.AvailableBuffer(), wireSize(j.m.Mail.Data), 10))
	}
	if j.eight {
		s.w.WriteString(" BODY=8BITMIME")
	}
	if j.utf8 {
		s.w.WriteString(" SMTPUTF8")
	}
	s.w.WriteString("\r\n")
}

func (s *session) writeRcpt(j *job) {
	s.w.WriteString("RCPT TO:<")
	s.w.WriteString(j.m.To)
	s.w.WriteString(">\r\n")
}

// transact takes one job, whose envelope begin has written, to its outcome. It
// returns the job whose envelope went out meanwhile, if any. After it, s.err
// says whether the session goes on.
func (s *session) transact(j *job) (next *job) {
	if s.err = s.w.Flush(); s.err != nil {
		s.lastWords(j)
		return nil
	}
	limits := &s.c.cfg.Timeouts
	if j.reset {
		if r, ok := s.step(j, "RSET\r\n", limits.Command); !ok || !r.ok() {
			s.refuseConnection(j, r, ok)
			return nil
		}
	}

	var rcpt, data reply
	if !s.ext.pipelining {
		s.writeMail(j)
	}
	mail, ok := s.step(j, "", limits.Command)
	refusal, refused := mail, !mail.ok()
	if ok && (s.ext.pipelining || !refused) {
		if !s.ext.pipelining {
			s.writeRcpt(j)
		}
		rcpt, ok = s.step(j, "", limits.Command)
		if ok && !refused && !rcpt.ok() {
			refusal, refused = rcpt, true
		}
	}
	if ok && (s.ext.pipelining || !refused) {
		data, ok = s.step(j, "DATA\r\n", limits.DataInit)
		if ok && !refused && data.code != 354 {
			refusal, refused = data, true
		}
	}
	switch {
	case refused && refusal.code/100 >= 4:
		// The answer stands even if the connection broke behind it.
		again := refusal.code == 421 && s.served > 0
		j.resolve(outcomeOf(refusal), again)
	case errors.Is(s.err, errAbandoned):
		j.resolve(j.cancelled(), false)
	case !ok:
		j.resolve(deferred(s.err.Error()), s.served > 0)
	case refused:
		s.err = fmt.Errorf("server answered %d where that has no meaning", refusal.code)
		j.resolve(deferred(s.err.Error()), false)
	}
	switch {
	case s.err != nil:
		return nil
	case !refused && (data.followed || len(s.replies) > 0):
		// Nothing is due behind a 354. See the package comment.
		s.err = errOutOfStep
		j.resolve(deferred(s.err.Error()), false)
		return nil
	case !refused:
		return s.content(j)
	case data.code != 354:
		s.served++
		s.reset = true
		return nil
	case rcpt.ok():
		// MAIL was refused, yet a recipient stands and the server waits for
		// content: a lone dot could deliver an empty message.
		s.err = errors.New("server asks for content of a refused message")
		return nil
	default:
		// No recipient stands, and the server waits for content all the same:
		// a lone dot gets us out of it. RFC 2920 section 3.1.
		s.w.WriteString(".\r\n")
		next = s.lookahead()
		if s.err = s.w.Flush(); s.err == nil {
			if r, ok := s.await(nil, limits.DataEnd); ok && r.code == 421 {
				s.err = errClosing
			}
		}
		s.served++
		return next
	}
}

// step is one command and its reply: where the server pipelines, the command is
// long gone. A 421 ends the session, but is a reply all the same; ok is false
// only if there was none.
func (s *session) step(j *job, command string, limit time.Duration) (reply, bool) {
	if s.err != nil {
		return reply{}, false
	}
	if !s.ext.pipelining {
		s.w.WriteString(command)
		if s.err = s.w.Flush(); s.err != nil {
			return reply{}, false
		}
	}
	r, ok := s.await(j.ctx.Done(), limit)
	if ok && (r.code == 421 || r.code == 521) {
		s.err = errClosing
	}
	return r, ok
}

// content sends what follows a 354: the message, its final dot, and whichever
// envelope is waiting.
func (s *session) content(j *job) (next *job) {
	if !j.begin(s.raw) {
		s.err = errAbandoned
		return nil
	}
	if s.err = writeStuffed(s.w, j.m.Mail.Data); s.err != nil {
		s.lastWords(j)
		return nil
	}
	if !j.dot() {
		s.err = errAbandoned
		return nil
	}
	j.dotAt = s.out.n + int64(s.w.Buffered())
	s.w.WriteString(".\r\n")
	next = s.lookahead()
	if s.err = s.w.Flush(); s.err != nil {
		s.lastWords(j)
		return next
	}
	r, ok := s.await(nil, s.c.cfg.Timeouts.DataEnd)
	s.settle(j, r, ok)
	return next
}

// settle answers a job whose content was begun, from the reply to its final dot
// or the lack of one.
func (s *session) settle(j *job, r reply, ok bool) {
	dotted := j.state.Load() >= jobDotted && s.out.n > j.dotAt
	switch {
	case ok && r.code/100 >= 4:
		// The reply speaks of this message even when it came before the dot.
		j.resolve(outcomeOf(r), false)
		if r.code == 421 || r.code == 521 {
			s.err = errors.Join(s.err, errClosing)
		}
	case ok && r.ok() && dotted && s.out.n >= j.dotAt+int64(len(".\r\n")):
		// It stands even if the connection broke under the envelope behind it.
		s.c.messages.Add(1)
		j.resolve(outcomeOf(r), false)
	default:
		if s.err == nil {
			s.err = fmt.Errorf("server answered %d to the final dot", r.code)
		}
		if dotted {
			j.resolve(unknown(s.err.Error()), false)
		} else {
			j.resolve(deferred(s.err.Error()), false)
		}
	}
	s.served++
}

// lastWords answers a job under whose writing the connection broke. Servers
// that refuse a message half-way say so before they close, so what they said is
// looked at first.
func (s *session) lastWords(j *job) {
	broken := s.err
	if j.state.Load() == jobWaiting {
		j.resolve(deferred(broken.Error()), s.served > 0)
		return
	}
	r, ok := s.await(nil, lastWordsWait)
	s.err = broken
	s.settle(j, r, ok)
}

// refuseConnection answers a job that met a connection whose RSET failed.
func (s *session) refuseConnection(j *job, r reply, ok bool) {
	if ok && s.err == nil {
		s.err = fmt.Errorf("server answered %d to RSET", r.code)
	}
	j.resolve(deferred(s.err.Error()), true)
}

// await is the next reply, in the order of the commands. It is false, with
// s.err set, when limit passed, left was closed, or the connection ended.
func (s *session) await(left <-chan struct{}, limit time.Duration) (reply, bool) {
	select {
	case r, ok := <-s.replies:
		return s.got(r, ok)
	default:
	}
	s.timer.Reset(limit)
	defer s.timer.Stop()
	select {
	case r, ok := <-s.replies:
		return s.got(r, ok)
	case <-left:
		s.err = errAbandoned
	case <-s.timer.C:
		s.err = fmt.Errorf("no reply within %v", limit)
	}
	return reply{}, false
}

func (s *session) got(r reply, ok bool) (reply, bool) {
	if !ok {
		s.err = fmt.Errorf("connection ended: %w", s.readErr)
	}
	return r, ok
}

// unasked is the error for a reply, or an end, that came while nothing was asked.
func (s *session) unasked(r reply, ok bool) error {
	switch {
	case !ok:
		return fmt.Errorf("connection ended: %w", s.readErr)
	case r.code == 421:
		return errClosing
	default:
		return errOutOfStep
	}
}

// quit ends the connection politely.
func (s *session) quit() {
	s.w.WriteString("QUIT\r\n")
	if s.w.Flush() == nil {
		s.await(nil, lastWordsWait)
	}
}
