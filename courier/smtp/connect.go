package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// connError is why no connection came about, and at which step. It may hold the
// server's reply.
type connError struct {
	step  string // "connect", "greeting", "EHLO", "STARTTLS", "TLS handshake", "AUTH"
	reply reply  // zero unless the server said no
	err   error  // nil when the server said no
}

// Error is for the outcome's detail: relay and step, never an address of mail.
func (e *connError) Error() string {
	if e.err != nil {
		return e.step + ": " + e.err.Error()
	}
	return fmt.Sprintf("%s: %d %s", e.step, e.reply.code, e.reply.text)
}

// outcome is Deferred whatever the server said, 5xx included: it was said about
// us, before the server could know of the message.
func (e *connError) outcome() courier.Outcome {
	o := deferred(e.Error())
	o.Enhanced = e.reply.enhanced
	o.Throttled = e.reply.code/100 == 4 && throttled(e.reply)
	return o
}

// extensions is what the server offered in its reply to EHLO.
type extensions struct {
	pipelining, eightBit, utf8, size, startTLS bool

	sizeMax int64    // bytes; 0 means no limit was named
	auth    []string // mechanisms, in upper case
}

// parseExtensions reads the lines of an EHLO reply, the first of which is the
// server's name. Unknown and broken ones are ignored. Source: RFC 5321 4.1.1.1.
func parseExtensions(lines []string) extensions {
	var x extensions
	for _, line := range lines[min(1, len(lines)):] {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "PIPELINING":
			x.pipelining = true
		case "8BITMIME":
			x.eightBit = true
		case "SMTPUTF8":
			x.utf8 = true
		case "STARTTLS":
			x.startTLS = true
		case "SIZE":
			x.size = true
			if len(words) > 1 {
				if n, err := strconv.ParseInt(words[1], 10, 64); err == nil && n > 0 {
					x.sizeMax = n
				}
			}
		case "AUTH":
			x.auth = append(x.auth, words[1:]...)
		}
	}
	return x
}

// hello is a connection before it carries mail. It is used by one goroutine and
// speaks one command at a time.
type hello struct {
	c    *Client
	raw  net.Conn // as dialled
	conn net.Conn // raw, or TLS over it
	br   *bufio.Reader
	tls  bool
	ext  extensions
}

// connect opens a connection ready for MAIL. Where opportunistic TLS fails in
// its handshake, it dials once more and stays in the clear. ctx ending breaks
// it off.
func (c *Client) connect(ctx context.Context) (*session, *connError) {
	h, err := c.greet(ctx, c.cfg.TLS != TLSOff)
	if err != nil && c.cfg.TLS == TLSOpportunistic && err.step == stepHandshake {
		h, err = c.greet(ctx, false)
	}
	if err != nil {
		return nil, err
	}
	c.dialled.Add(1)
	c.open.Add(1)
	return newSession(c, h), nil
}

const (
	stepConnect   = "connect"
	stepGreeting  = "greeting"
	stepHello     = "EHLO"
	stepStartTLS  = "STARTTLS"
	stepHandshake = "TLS handshake"
	stepAuth      = "AUTH"
)

// greet dials and goes through greeting, EHLO, TLS and AUTH.
func (c *Client) greet(ctx context.Context, wantTLS bool) (_ *hello, failed *connError) {
	dialCtx, cancel := context.WithTimeout(ctx, c.cfg.Timeouts.Connect)
	conn, err := c.dial(dialCtx, "tcp", c.cfg.Addr)
	cancel()
	if err != nil {
		return nil, &connError{step: stepConnect, err: err}
	}
	raw := conn
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer func() {
		if !stop() && failed == nil {
			failed = &connError{step: stepHello, err: context.Cause(ctx)}
		}
		if failed != nil {
			raw.Close()
		}
	}()

	h := &hello{c: c, raw: raw}
	h.use(conn)
	if c.cfg.TLS == TLSImplicit {
		if err := h.handshake(ctx); err != nil {
			return nil, err
		}
	}
	if r, err := h.read(c.cfg.Timeouts.Greeting, nil); err != nil || r.code != 220 {
		return nil, &connError{stepGreeting, r, err}
	}
	if err := h.ehlo(); err != nil {
		return nil, err
	}
	if wantTLS && !h.tls {
		switch {
		case h.ext.startTLS:
			err := h.startTLS(ctx)
			saidNo := err != nil && err.step == stepStartTLS && err.err == nil
			if err != nil && !(saidNo && c.cfg.TLS == TLSOpportunistic) {
				return nil, err
			}
		case c.cfg.TLS == TLSRequired:
			return nil, &connError{step: stepStartTLS, err: errors.New("not offered, and TLS is required")}
		}
	}
	if c.cfg.Username != "" {
		if err := h.authenticate(); err != nil {
			return nil, err
		}
	}
	// The session sets its own deadlines, and only for writing.
	if err := h.conn.SetDeadline(time.Time{}); err != nil {
		return nil, &connError{step: stepHello, err: err}
	}
	return h, nil
}

func (h *hello) use(conn net.Conn) {
	h.conn = conn
	h.br = bufio.NewReaderSize(conn, 2*replyLineBytesMax)
}

// ehlo says EHLO and learns the extensions.
func (h *hello) ehlo() *connError {
	var lines []string
	r, err := h.command(&lines, "EHLO "+h.c.cfg.Name)
	if err != nil || !r.ok() {
		return &connError{stepHello, r, err}
	}
	h.ext = parseExtensions(lines)
	h.ext.pipelining = h.ext.pipelining && !h.c.cfg.NoPipelining
	return nil
}

// startTLS changes to TLS and says EHLO again.
func (h *hello) startTLS(ctx context.Context) *connError {
	r, err := h.command(nil, "STARTTLS")
	if err != nil || r.code != 220 {
		return &connError{stepStartTLS, r, err}
	}
	// What arrived in the clear behind the 220 may be someone else's; it must
	// not be read as if it had come through TLS. RFC 3207 section 6.
	if h.br.Buffered() > 0 {
		return &connError{step: stepStartTLS, err: errors.New("server spoke in the clear after its 220")}
	}
	if err := h.handshake(ctx); err != nil {
		return err
	}
	return h.ehlo()
}

func (h *hello) handshake(ctx context.Context) *connError {
	ctx, cancel := context.WithTimeout(ctx, h.c.cfg.Timeouts.Connect)
	defer cancel()
	if err := h.conn.SetDeadline(time.Time{}); err != nil {
		return &connError{step: stepHandshake, err: err}
	}
	t := tls.Client(h.conn, h.c.cfg.tlsConfig())
	if err := t.HandshakeContext(ctx); err != nil {
		return &connError{step: stepHandshake, err: err}
	}
	h.tls = true
	h.use(t)
	return nil
}

// command writes one line and reads its reply.
func (h *hello) command(lines *[]string, line string) (reply, error) {
	if err := h.conn.SetDeadline(time.Now().Add(h.c.cfg.Timeouts.Command)); err != nil {
		return reply{}, err
	}
	if _, err := h.conn.Write([]byte(line + "\r\n")); err != nil {
		return reply{}, err
	}
	return h.read(h.c.cfg.Timeouts.Command, lines)
}

func (h *hello) read(limit time.Duration, lines *[]string) (reply, error) {
	if err := h.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return reply{}, err
	}
	return readReply(h.br, lines)
}
