package smtptest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config is how the server presents itself. The zero value is a server with
// every extension but STARTTLS and AUTH.
type Config struct {
	// Name is the host name in the greeting; empty means "smtptest".
	Name string
	// Label is copied into every Received; it may be empty.
	Label string
	// TLS offers STARTTLS with this configuration; nil does not offer it.
	TLS *tls.Config
	// Users offers AUTH with these passwords by user name and demands it
	// before MAIL; nil does neither.
	Users map[string]string
	// SizeMax is the largest message in bytes; zero means 32 MiB.
	SizeMax int
	// ConnectionsMax is how many connections may be open; more get a 421.
	// Zero means 1000.
	ConnectionsMax int
	// MailboxMax is how many messages the mailbox keeps; zero means 1000,
	// negative none.
	MailboxMax int
	// Idle is how long a connection may be silent before a 421; zero means 5 min.
	Idle time.Duration
	// Without leaves out extensions by their EHLO keyword ("PIPELINING").
	Without []string
}

// Server takes mail. It may serve several listeners at once.
type Server struct {
	cfg  Config
	sink func(Received)

	rulesMu sync.Mutex
	rules   []*Rule
	ruled   atomic.Bool

	boxMu  sync.Mutex
	box    []kept // a ring once full, from oldest
	oldest int
	byID   map[string][]*Received
	count  int

	mails, conns, open atomic.Int64
}

// New makes a server. The sink is called with each message before its 250 goes
// out, from many goroutines at once; it may be nil.
func New(cfg Config, sink func(Received)) *Server {
	if cfg.Name == "" {
		cfg.Name = "smtptest"
	}
	if cfg.SizeMax == 0 {
		cfg.SizeMax = 32 << 20
	}
	if cfg.ConnectionsMax == 0 {
		cfg.ConnectionsMax = 1000
	}
	if cfg.MailboxMax == 0 {
		cfg.MailboxMax = 1000
	}
	if cfg.Idle == 0 {
		cfg.Idle = 5 * time.Minute
	}
	if sink == nil {
		sink = func(Received) {}
	}
	return &Server{cfg: cfg, sink: sink, byID: make(map[string][]*Received)}
}

// Serve accepts connections until ctx ends, which closes the listener and every
// connection, or the listener fails. It returns when all its goroutines have,
// nil if ctx ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				continue
			}
			l.Close()
			return err
		}
		conns.Go(func() { s.ServeConn(ctx, conn) })
	}
}

// ServeConn has one conversation, until the client quits, the connection ends or
// ctx does, and closes the connection.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	defer s.open.Add(-1)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	full := s.open.Add(1) > int64(s.cfg.ConnectionsMax)
	t := newTalk(ctx, s, conn, int(s.conns.Add(1)))
	if full {
		t.say("421 4.3.2 too many connections")
		t.flush()
		return
	}
	t.run()
}

// Connections is how many connections the server has seen.
func (s *Server) Connections() int { return int(s.conns.Load()) }
