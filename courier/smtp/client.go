package smtp

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// Dialler opens a connection, as net.Dialer.DialContext does.
type Dialler func(ctx context.Context, network, addr string) (net.Conn, error)

// Client hands mail to one relay. It works while Run runs; its methods may be
// called from any number of goroutines.
type Client struct {
	cfg  Config
	dial Dialler

	// An unbuffered channel finds a connection for a job without a queue of
	// our own: waiting senders are the queue, and its bound is theirs.
	warm chan *job // taken by open connections
	cold chan *job // taken by connections yet to be opened

	began    atomic.Bool
	stopping chan struct{} // closed when Run was told to end
	nonce    func() string // for SCRAM; tests replace it

	dialled, open, messages, pipelined atomic.Int64
}

var _ courier.Courier = (*Client)(nil)

// New makes a client. It connects to nothing: Run and Send do. A nil dial means
// the system's own. The error names the field that is wrong.
func New(cfg Config, dial Dialler) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &Client{
		cfg:      cfg,
		dial:     dial,
		warm:     make(chan *job),
		cold:     make(chan *job),
		stopping: make(chan struct{}),
		nonce:    scramNonce,
	}, nil
}

// Run keeps the connections until ctx ends, and returns when all is quiet:
// messages under way were answered (for at most Config.Drain, then they are cut
// and answered Deferred or Unknown), connections closed, goroutines gone. It
// runs once; the only error is a second call.
func (c *Client) Run(ctx context.Context) error {
	if !c.began.CompareAndSwap(false, true) {
		return errors.New("smtp: Run was called before")
	}
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var slots sync.WaitGroup
	for range c.cfg.Connections {
		slots.Go(func() { c.slot(ctx, hard) })
	}
	<-ctx.Done()
	close(c.stopping)

	drain := time.AfterFunc(c.cfg.Drain, cut)
	defer drain.Stop()
	slots.Wait()
	return nil
}

// slot is the life of one of the pool's places: wait for a job that no open
// connection took, connect, serve until that connection ends, again.
func (c *Client) slot(stop, hard context.Context) {
	for {
		select {
		case <-c.stopping:
			return
		case j := <-c.cold:
			if j.abandoned() {
				continue
			}
			s, err := c.connect(stop)
			if err != nil {
				j.resolve(err.outcome(), false)
				continue
			}
			s.run(hard, j)
		}
	}
}

// Send hands one message to the relay and blocks until the outcome is known,
// ctx ends or Run was told to end before a connection took the message. It
// waits while Run does not run yet. Source: the contract of courier.Courier.
func (c *Client) Send(ctx context.Context, m *courier.Message) courier.Outcome {
	j, refused := c.job(ctx, m)
	if j == nil {
		return refused
	}
	r := c.attempt(j)
	if r.again && ctx.Err() == nil {
		j, _ = c.job(ctx, m)
		r = c.attempt(j)
	}
	return r.outcome
}

// job checks what can be checked without a server; a nil job comes with the
// refusal.
func (c *Client) job(ctx context.Context, m *courier.Message) (*job, courier.Outcome) {
	if m.Mail == nil {
		return nil, refusedHere("5.6.0", "message holds no mail")
	}
	if m.From != "" {
		if err := checkMailbox(m.From); err != nil {
			return nil, refusedHere("5.1.7", "sender: "+err.Error())
		}
	}
	if err := checkMailbox(m.To); err != nil {
		return nil, refusedHere("5.1.3", "recipient: "+err.Error())
	}
	if err := checkContent(m.Mail.Data); err != nil {
		return nil, refusedHere("5.6.0", err.Error())
	}
	utf8 := m.Mail.UTF8 || !isASCII(m.From) || !isASCII(m.To)
	return newJob(ctx, m, utf8, m.Mail.EightBit), courier.Outcome{}
}

// attempt gives the job to a connection, an open one if any is free, and waits.
func (c *Client) attempt(j *job) result {
	select {
	case <-c.stopping:
		return result{outcome: deferred("the courier is closed")}
	case <-j.ctx.Done():
		return result{outcome: j.leave()}
	default:
	}
	select {
	case c.warm <- j:
	default:
		select {
		case c.warm <- j:
		case c.cold <- j:
		case <-c.stopping:
			return result{outcome: deferred("the courier is closed")}
		case <-j.ctx.Done():
			return result{outcome: j.leave()}
		}
	}
	select {
	case r := <-j.done:
		return r
	case <-j.ctx.Done():
		return result{outcome: j.leave()}
	}
}

// Stats is what the pool has done so far.
type Stats struct {
	Dialled   int64 // connections that came as far as a served EHLO (and AUTH)
	Open      int64 // connections open now
	Messages  int64 // messages whose final dot was answered 2xx
	Pipelined int64 // envelopes that went out behind another message's final dot
}

// Stats may be read at any time.
func (c *Client) Stats() Stats {
	return Stats{c.dialled.Load(), c.open.Load(), c.messages.Load(), c.pipelined.Load()}
}
