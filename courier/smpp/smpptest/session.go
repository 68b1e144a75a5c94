package smpptest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/everpoint/everpoint/courier/smpp"
)

// session is one connection. Everything is written by one goroutine from a
// queue, so the order on the wire is that of the queue.
type session struct {
	server *Server
	conn   net.Conn
	out    chan item
	buf    []byte        // of the writing goroutine
	done   chan struct{} // closed when reading ended
	window chan struct{} // holds one for each deliver_sm without an answer

	// Set by the bind, before the session is in Server.sessions.
	mode   smpp.Command
	system string

	mu       sync.Mutex
	sequence uint32
	waiting  map[uint32]chan smpp.Status
}

// item is a PDU to write, or the end.
type item struct {
	pdu  smpp.PDU
	drop bool
}

const (
	queueMax     = 1024
	writeTimeout = 30 * time.Second
	bindTimeout  = 30 * time.Second
)

func (s *Server) serveConn(conn net.Conn) {
	defer conn.Close()
	c := &session{
		server: s, conn: conn, out: make(chan item, queueMax), done: make(chan struct{}),
		window: make(chan struct{}, s.cfg.Window), waiting: make(map[uint32]chan smpp.Status),
	}
	unhook := context.AfterFunc(s.running, func() { conn.Close() })
	defer unhook()
	var writing sync.WaitGroup
	writing.Go(c.writeAll)
	c.readAll()
	s.mu.Lock()
	delete(s.sessions, c)
	s.mu.Unlock()
	close(c.done)
	writing.Wait()
}

func (c *session) writeAll() {
	for {
		select {
		case i := <-c.out:
			if !c.write(i) {
				return
			}
		case <-c.done:
			for { // what was queued before the end
				select {
				case i := <-c.out:
					if !c.write(i) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// write is false when nothing more can be written.
func (c *session) write(i item) bool {
	if !i.drop {
		b, err := smpp.Append(c.buf[:0], i.pdu)
		if err == nil {
			c.buf = b[:0]
			c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err = c.conn.Write(b); err == nil {
				return true
			}
		}
	}
	c.conn.Close()
	return false
}

// put queues a PDU; a client that does not read its answers is cut off.
func (c *session) put(p smpp.PDU) { c.queue(item{pdu: p}) }

func (c *session) queue(i item) {
	select {
	case c.out <- i:
	default:
		c.conn.Close()
	}
}

func (c *session) readAll() {
	r := smpp.NewReader(c.conn)
	c.conn.SetReadDeadline(time.Now().Add(bindTimeout))
	for {
		p, err := r.Next()
		if err != nil {
			bad, ok := errors.AsType[*smpp.SyntaxError](err)
			if !ok {
				return
			}
			if !bad.Command.IsResponse() {
				c.put(smpp.PDU{Command: smpp.GenericNack, Status: bad.Status, Sequence: bad.Sequence})
			}
			if bad.Fatal {
				c.queue(item{drop: true})
				return
			}
			continue
		}
		answer := smpp.PDU{Command: p.Command.Response(), Sequence: p.Sequence}
		switch p.Command {
		case smpp.BindReceiver, smpp.BindTransmitter, smpp.BindTransceiver:
			c.bind(p, answer)
		case smpp.SubmitSM:
			if c.mode != smpp.BindTransmitter && c.mode != smpp.BindTransceiver {
				answer.Status = smpp.StatusInvalidBindStatus
				c.put(answer)
				continue
			}
			c.submit(p.Body.(*smpp.ShortMessage), answer)
		case smpp.EnquireLink:
			c.server.mu.Lock()
			mute := c.server.mute
			c.server.mu.Unlock()
			if !mute {
				c.put(answer)
			}
		case smpp.Unbind:
			c.put(answer)
			c.queue(item{drop: true})
		case smpp.DeliverSMResp, smpp.UnbindResp, smpp.EnquireLinkResp, smpp.GenericNack:
			c.mu.Lock()
			w := c.waiting[p.Sequence]
			delete(c.waiting, p.Sequence)
			c.mu.Unlock()
			if w != nil {
				w <- p.Status
			}
		default:
			c.put(smpp.PDU{Command: smpp.GenericNack, Status: smpp.StatusInvalidCommandID, Sequence: p.Sequence})
		}
	}
}

func (c *session) bind(p, answer smpp.PDU) {
	b := p.Body.(*smpp.Bind)
	if c.mode != 0 {
		answer.Status = smpp.StatusAlreadyBound
		c.put(answer)
		return
	}
	if answer.Status = c.server.admit(b); answer.Status != smpp.StatusOK {
		c.put(answer)
		return
	}
	c.conn.SetReadDeadline(time.Time{})
	answer.Body = &smpp.BindResp{SystemID: "smpptest", TLVs: smpp.TLVs{{Tag: smpp.TagSCInterfaceVersion, Value: []byte{0x34}}}}
	c.put(answer) // ahead of any deliver_sm
	c.mode, c.system = p.Command, b.SystemID
	c.server.mu.Lock()
	c.server.sessions[c] = true
	c.server.mu.Unlock()
}

func (c *session) submit(m *smpp.ShortMessage, answer smpp.PDU) {
	id, action, receipts := c.server.submit(c.system, m)
	answer.Status = action.Status
	if action.Nack {
		answer.Command = smpp.GenericNack
	} else if action.Status == smpp.StatusOK {
		answer.Body = &smpp.MessageResp{MessageID: id}
	}
	for _, r := range receipts {
		if r.BeforeAnswer {
			body := c.server.receipt(m, id, r)
			for range max(r.Copies, 1) {
				c.ask(smpp.DeliverSM, body)
			}
		}
	}
	if action.Delay == 0 {
		c.finish(action, answer, m, id, receipts)
		return
	}
	c.server.work.Go(func() {
		if pause(c.server.running, action.Delay) {
			c.finish(action, answer, m, id, receipts)
		}
	})
}

// finish answers a submit_sm, or does not, and sends the receipts that follow.
func (c *session) finish(action Action, answer smpp.PDU, m *smpp.ShortMessage, id string, receipts []Receipt) {
	switch {
	case action.Drop:
		c.queue(item{drop: true})
	case !action.Silent:
		c.put(answer)
	}
	for _, r := range receipts {
		if !r.BeforeAnswer {
			for range max(r.Copies, 1) {
				c.server.push(c.system, c.server.receipt(m, id, r), r.After)
			}
		}
	}
}

// deliver sends a deliver_sm when the window has room, and reports whether it was
// answered with status 0 in time.
func (c *session) deliver(ctx context.Context, body *smpp.ShortMessage) bool {
	select {
	case c.window <- struct{}{}:
	case <-c.done:
		return false
	case <-ctx.Done():
		return false
	}
	defer func() { <-c.window }()
	sequence, answered := c.ask(smpp.DeliverSM, body)
	late := time.NewTimer(writeTimeout)
	defer late.Stop()
	select {
	case status := <-answered:
		return status == smpp.StatusOK
	case <-late.C:
		c.mu.Lock()
		delete(c.waiting, sequence)
		c.mu.Unlock()
	case <-c.done:
	case <-ctx.Done():
	}
	return false
}

// ask sends a request; the status of its answer comes on the channel.
func (c *session) ask(command smpp.Command, body smpp.Body) (sequence uint32, answered <-chan smpp.Status) {
	w := make(chan smpp.Status, 1)
	c.mu.Lock()
	c.sequence++
	sequence = c.sequence
	if len(c.waiting) < queueMax {
		c.waiting[sequence] = w
	}
	c.mu.Unlock()
	c.put(smpp.PDU{Command: command, Sequence: sequence, Body: body})
	return sequence, w
}
