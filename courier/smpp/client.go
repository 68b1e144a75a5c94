package smpp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// Client is one route to one provider. It is safe for concurrent use.
type Client struct {
	cfg      Config
	receiver courier.Receiver
	dial     Dialler
	log      *slog.Logger

	pool     *pool
	governor governor
	inbox    *inbox
	ref      atomic.Uint32 // of the last long text
	started  atomic.Bool

	rngMu sync.Mutex
	rng   *rand.Rand
}

var _ courier.Courier = (*Client)(nil)

// Dialler opens a connection, as net.Dialer.DialContext does.
type Dialler func(ctx context.Context, network, address string) (net.Conn, error)

// New returns a client that does nothing until Run. Receipts and inbound texts go
// to receiver. A nil dial is the system's. rng is the client's own from now on.
func New(cfg Config, receiver courier.Receiver, dial Dialler, rng *rand.Rand, log *slog.Logger) (*Client, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	c := &Client{
		cfg: cfg, receiver: receiver, dial: dial, rng: rng,
		log:   log.With("component", "smpp", "route", cfg.Route),
		pool:  newPool(cfg.Window),
		inbox: newInbox(cfg.Route, receiver, time.Now, cfg.HoldPart, cfg.KeepParts, cfg.AnswerWithin),
	}
	c.ref.Store(rng.Uint32())
	return c, nil
}

// Run keeps the binds until ctx ends. Then it lets submits under way be
// answered, unbinds, waits for everything it started, and returns nil. It may be
// called once.
func (c *Client) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("smpp: Run was called twice")
	}
	modes := []Command{BindTransceiver}
	if c.cfg.Pair {
		modes = []Command{BindTransmitter, BindReceiver}
	}
	var binds sync.WaitGroup
	for i := range c.cfg.Binds {
		for _, mode := range modes {
			binds.Go(func() { c.keepBind(ctx, mode, i) })
		}
	}
	<-ctx.Done()
	c.pool.close()
	binds.Wait()
	c.inbox.close()
	return nil
}

// keepBind binds, serves and binds anew until ctx ends.
func (c *Client) keepBind(ctx context.Context, mode Command, first int) {
	bound := c.cfg.ReconnectMin
	for try := first; ctx.Err() == nil; try++ {
		began := time.Now()
		address := c.cfg.Addresses[try%len(c.cfg.Addresses)]
		s, err := c.connect(ctx, mode, address)
		if err == nil {
			c.log.InfoContext(ctx, "smpp bound", "mode", mode.String(), "address", address)
			err = c.serve(ctx, s)
		}
		if ctx.Err() != nil {
			return
		}
		level := slog.LevelWarn
		if refused, ok := errors.AsType[*bindError](err); ok && refused.status.Rebind() {
			level = slog.LevelError // credentials or the account: somebody must act
		}
		if time.Since(began) >= c.cfg.EnquireEvery {
			bound = c.cfg.ReconnectMin
		}
		wait := c.jitter(bound)
		c.log.Log(ctx, level, "smpp bind lost", "mode", mode.String(), "address", address, "reason", err, "reconnect_in", wait)
		if sleep(ctx, wait) != nil {
			return
		}
		bound = min(2*bound, c.cfg.ReconnectMax)
	}
}

// jitter draws a wait between half of ReconnectMin and bound.
func (c *Client) jitter(bound time.Duration) time.Duration {
	c.rngMu.Lock()
	defer c.rngMu.Unlock()
	floor := c.cfg.ReconnectMin / 2
	return floor + time.Duration(c.rng.Int64N(int64(bound-floor)+1))
}

// bindError is a provider's refusal to bind.
type bindError struct {
	mode   Command
	status Status
}

func (e *bindError) Error() string {
	return fmt.Sprintf("%s refused with %s %s", e.mode, e.status, e.status.Name())
}

// connect opens a connection and binds it.
func (c *Client) connect(ctx context.Context, mode Command, address string) (_ *session, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectWithin)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	plain := conn
	stop := context.AfterFunc(ctx, func() { plain.Close() })
	defer stop()
	if c.cfg.TLS != nil {
		settings := c.cfg.TLS.Clone()
		if settings.ServerName == "" {
			if settings.ServerName, _, err = net.SplitHostPort(address); err != nil {
				return nil, fmt.Errorf("TLS server name: %w", err)
			}
		}
		secured := tls.Client(conn, settings)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = secured
	}
	s := newSession(conn, mode, c.cfg.AnswerWithin)
	s.sequence = 1
	if _, err := s.write(&PDU{Command: mode, Sequence: 1, Body: c.cfg.bind()}); err != nil {
		return nil, fmt.Errorf("%s: %w", mode, err)
	}
	for {
		p, err := s.reader.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mode, err)
		}
		if p.Sequence != 1 || p.Command != mode.Response() && p.Command != GenericNack {
			continue // nothing else is allowed before the answer
		}
		if p.Status != StatusOK || p.Command == GenericNack {
			return nil, &bindError{mode, p.Status}
		}
		break
	}
	if !stop() {
		return nil, fmt.Errorf("%s: %w", mode, context.Cause(ctx))
	}
	return s, nil
}

// serve uses a bound session until it ends or ctx does, and waits for all it
// started. It returns why the session ended.
func (c *Client) serve(ctx context.Context, s *session) error {
	var working sync.WaitGroup
	h := newHeld(c.cfg.Deliveries)
	working.Go(func() { s.read(func(p PDU) { h.hold(s, p) }) })
	working.Go(func() { c.dispatch(s, h) })
	working.Go(s.writeAnswers)
	working.Go(func() { s.enquire(c.cfg.EnquireEvery) })
	if s.mode != BindReceiver {
		c.pool.add(s)
	}
	select {
	case <-s.done:
		c.pool.remove(s)
	case reason := <-s.retired:
		c.pool.remove(s)
		c.drain(s)
		s.fail(reason)
	case <-ctx.Done():
		c.pool.remove(s)
		c.drain(s)
		h.close() // each under way is bounded by AnswerWithin
		if w, _, err := s.request(Unbind, nil); err == nil {
			s.wait(context.Background(), w, nil)
		}
		s.fail(errClosed)
	}
	working.Wait()
	return s.reason()
}

// drain waits until every message under way on s was answered or gave up, or
// the time for that is over.
func (c *Client) drain(s *session) {
	over := time.NewTimer(2 * c.cfg.AnswerWithin)
	defer over.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !c.pool.idle(s) {
		select {
		case <-ticker.C:
		case <-over.C:
			return
		case <-s.done:
			return
		}
	}
}

// dispatch hands over what is held, in the order it came in, until the connection
// ends, and returns when nothing is under way.
func (c *Client) dispatch(s *session, h *held) {
	var delivering sync.WaitGroup
	defer delivering.Wait()
	for {
		d, ok := h.next(s)
		if !ok {
			return
		}
		switch h.turn(s, d.at.Add(c.cfg.AnswerWithin/2)) {
		case turnGiven:
			delivering.Go(func() {
				defer h.done()
				c.deliver(s, d)
			})
		case turnRefused:
			s.answer(PDU{Command: DeliverSMResp, Status: StatusTemporaryAppError, Sequence: d.pdu.Sequence, Body: &MessageResp{}})
		case turnOver:
			return
		}
	}
}

// deliver hands a deliver_sm to the Receiver and answers it.
func (c *Client) deliver(s *session, d heldDelivery) {
	// The fact may be stored after Run's ctx ended: it is here, and its provider waits.
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.AnswerWithin)
	defer cancel()
	answered, err := c.take(ctx, s, d.pdu.Body.(*ShortMessage))
	response := PDU{Command: DeliverSMResp, Sequence: d.pdu.Sequence, Body: &MessageResp{}}
	switch {
	case errors.Is(err, errReceiptID), errors.Is(err, errUserDataHeader):
		// It will not be better the next time.
		c.log.WarnContext(ctx, "smpp delivery cannot be read", "reason", err)
		response.Status = StatusPermanentAppError
	case err != nil:
		response.Status = StatusTemporaryAppError
	}
	if err == nil && time.Since(d.at) < c.cfg.HoldPart {
		// In time for any provider, so it will know, unless the connection breaks.
		answered()
	}
	s.answer(response)
}

// take hands one deliver_sm over; nil means that the Receiver has it.
func (c *Client) take(ctx context.Context, s *session, m *ShortMessage) (answered func(), err error) {
	if !m.IsReceipt() {
		return c.inbox.take(ctx, m, s.dead)
	}
	r, err := readReceipt(m, c.cfg.ReceiptZone, time.Now())
	if err != nil {
		return nil, err
	}
	r.Route = c.cfg.Route
	return func() {}, c.receiver.Receipt(ctx, r)
}
