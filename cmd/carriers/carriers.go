package carriers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/everpoint/everpoint/courier/smpp/smpptest"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// Config says where the carriers listen. Empty addresses are not listened on.
type Config struct {
	SMTP   string // host:port of the mail relay
	SMPP   string // host:port of the SMS centre
	Outbox string // host:port of the outbox page
	// BodyBytes is how much of each body the outbox keeps; see [Outbox].
	BodyBytes int
	// ReceiptAfter is how long after its submit a text is reported delivered; 0
	// means 300 ms, negative never.
	ReceiptAfter time.Duration
}

// Carriers are the running servers' doubles.
type Carriers struct {
	cfg    Config
	outbox *Outbox
	Relay  *smtptest.Server
	Centre *smpptest.Server

	listeners map[string]net.Listener
}

// New makes the carriers; Listen and Run start them.
func New(cfg Config) *Carriers {
	c := &Carriers{cfg: cfg, outbox: &Outbox{BodyBytes: cfg.BodyBytes}, listeners: map[string]net.Listener{}}
	c.Relay = smtptest.New(smtptest.Config{Name: "relay.local", MailboxMax: -1}, c.outbox.Mail)
	centre := smpptest.Config{Sink: c.outbox.Text}
	if cfg.ReceiptAfter >= 0 {
		after := cfg.ReceiptAfter
		if after == 0 {
			after = 300 * time.Millisecond
		}
		centre.Receipts = []smpptest.Receipt{{State: "DELIVRD", After: after}}
	}
	c.Centre = smpptest.New(centre)
	return c
}

// Outbox is what went out.
func (c *Carriers) Outbox() *Outbox { return c.outbox }

// Listen binds the addresses, so that a caller knows the ports before Run.
func (c *Carriers) Listen(ctx context.Context) error {
	for name, addr := range map[string]string{"smtp": c.cfg.SMTP, "smpp": c.cfg.SMPP, "outbox": c.cfg.Outbox} {
		if addr == "" {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("listen for %s: %w", name, err)
		}
		c.listeners[name] = l
	}
	return nil
}

// Addr is where "smtp", "smpp" or "outbox" is served; empty when it is not.
func (c *Carriers) Addr(name string) string {
	if l := c.listeners[name]; l != nil {
		return l.Addr().String()
	}
	return ""
}

// Run serves until ctx ends.
func (c *Carriers) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var done sync.WaitGroup
	errs := make(chan error, 3)
	serve := func(f func() error) {
		done.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				errs <- err
				cancel()
			}
		})
	}
	if l := c.listeners["smtp"]; l != nil {
		serve(func() error { return c.Relay.Serve(ctx, l) })
	}
	if l := c.listeners["smpp"]; l != nil {
		serve(func() error { return c.Centre.Serve(ctx, l) })
	}
	if l := c.listeners["outbox"]; l != nil {
		srv := &http.Server{Handler: c.outbox, ReadHeaderTimeout: 10 * time.Second}
		done.Go(func() {
			<-ctx.Done()
			_ = srv.Close()
		})
		serve(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	<-ctx.Done()
	done.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
