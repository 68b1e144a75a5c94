package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// closeTimeout is how long Run waits for handlers whose connections and
// contexts it had to end.
const closeTimeout = 5 * time.Second

// suites are the TLS 1.2 suites we speak: forward secret, authenticated. Those
// of TLS 1.3 are all so.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// listener is what the door listens on, once it does.
type listener struct {
	mu           sync.Mutex
	bound        net.Listener
	certificates *certificates // nil for plain HTTP
}

// checkListen refuses settings that would serve in the clear where others can
// listen, and certificates that cannot be read.
func (d *Door) checkListen() error {
	cfg := &d.cfg
	if cfg.Listen == "" {
		return nil
	}
	if cfg.PlainLoopback {
		if cfg.CertFile != "" || cfg.KeyFile != "" {
			return errors.New("door: both a certificate and plain HTTP are configured; choose one")
		}
		addr, err := net.ResolveTCPAddr("tcp", cfg.Listen)
		if err != nil {
			return fmt.Errorf("door: listen address %q: %w", cfg.Listen, err)
		}
		if !addr.IP.IsLoopback() {
			return fmt.Errorf("door: plain HTTP is served on loopback addresses only, not on %q", cfg.Listen)
		}
		return nil
	}
	if cfg.CertFile == "" || cfg.KeyFile == "" {
		return errors.New("door: TLS needs CertFile and KeyFile (plain HTTP: PlainLoopback, on a loopback address)")
	}
	c, err := readCertificates(cfg.CertFile, cfg.KeyFile, d.log)
	if err != nil {
		return fmt.Errorf("door: %w", err)
	}
	d.listener.certificates = c
	return nil
}

// Listen binds the configured address and returns it, with the port that a 0
// turned into. Run does it if nobody has.
func (d *Door) Listen(ctx context.Context) (net.Addr, error) {
	l := &d.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bound != nil {
		return l.bound.Addr(), nil
	}
	if d.cfg.Listen == "" {
		return nil, errors.New("door: no listen address is configured")
	}
	bound, err := new(net.ListenConfig).Listen(ctx, "tcp", d.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("door: listen: %w", err)
	}
	if a, ok := bound.Addr().(*net.TCPAddr); d.cfg.PlainLoopback && (!ok || !a.IP.IsLoopback()) {
		bound.Close()
		return nil, fmt.Errorf("door: %q no longer means a loopback address", d.cfg.Listen)
	}
	l.bound = &boundedListener{
		Listener: bound,
		slots:    make(chan struct{}, d.cfg.ConnectionsMax),
		closed:   make(chan struct{}),
	}
	return bound.Addr(), nil
}

// Run serves until ctx ends, then takes no more requests, waits for those in
// progress as long as DrainTimeout allows, and returns. It returns nil if all of
// them finished.
func (d *Door) Run(ctx context.Context) error {
	addr, err := d.Listen(ctx)
	if err != nil {
		return err
	}
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.inside.RLock()
			defer d.inside.RUnlock()
			d.serve(w, r)
		}),
		BaseContext:                  func(net.Listener) context.Context { return requests },
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            d.cfg.HeaderTimeout,
		IdleTimeout:                  d.cfg.IdleTimeout,
		MaxHeaderBytes:               d.cfg.HeaderBytesMax,
		ErrorLog:                     slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
		Protocols:                    protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: d.cfg.StreamsMax,
			SendPingTimeout:      d.cfg.IdleTimeout,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     d.cfg.WriteTimeout,
		},
	}
	served := make(chan error, 1)
	if c := d.listener.certificates; c != nil {
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, GetCertificate: c.get}
		go func() { served <- srv.ServeTLS(d.listener.bound, "", "") }()
	} else {
		go func() { served <- srv.Serve(d.listener.bound) }()
	}
	d.log.InfoContext(ctx, "door open", "address", addr.String(), "tls", d.listener.certificates != nil)
	select {
	case err := <-served:
		return fmt.Errorf("door: serve %s: %w", addr, err)
	case <-ctx.Done():
	}

	d.draining.Store(true)
	drain, stop := context.WithTimeout(requests, d.cfg.DrainTimeout)
	defer stop()
	err = srv.Shutdown(drain)
	<-served
	quiet := make(chan struct{})
	go func() {
		d.inside.Lock()
		defer d.inside.Unlock()
		close(quiet)
	}()
	if err == nil { // what is left came by the peers' listener
		select {
		case <-quiet:
			d.log.InfoContext(ctx, "door closed")
			return nil
		case <-drain.Done():
		}
	}
	endRequests()
	_ = srv.Close()
	select {
	case <-quiet:
	case <-time.After(closeTimeout):
	}
	return fmt.Errorf("door: requests were still in progress %v after being told to stop", d.cfg.DrainTimeout)
}

// boundedListener accepts no more connections than it has slots.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept waits for a free slot, then for a connection.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: func() { <-l.slots }}, nil
}

// Close stops Accept.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// boundedConn frees its slot when it is closed.
type boundedConn struct {
	net.Conn
	free func()
	once sync.Once
}

// Close closes the connection and frees its slot.
func (c *boundedConn) Close() error {
	defer c.once.Do(c.free)
	return c.Conn.Close()
}

// CloseWrite lets the server end its side first, so that a client which is
// still sending reads its answer.
func (c *boundedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
