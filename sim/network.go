package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network is the cables between hosts of a bubble. A connection keeps its bytes in
// order and loses none of them; a cable that is cut holds them back until it is
// mended, as a network does whose packets are sent again. A host can be frozen,
// which holds back what it would read and what it wrote, or reset, which breaks
// its connections.
//
// No write blocks: who holds a lock while writing would stop the clock of the
// bubble for who waits for that lock.
type Network struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when a cable or a host changes
	cut       map[link]bool
	delay     map[link]time.Duration
	frozen    map[string]bool
	shut      bool
	shuffle   time.Duration // up to which requests are held, so that they overtake each other; 0: they are not
	chance    *rand.Rand    // of that
	overtaken int
	listeners map[string]*listener
	conns     map[*wire]bool
}

// link is one direction between two hosts.
type link struct{ from, to string }

const (
	delayMin  = time.Millisecond // of every direction: else who never agrees would stop the clock
	wireBytes = 64 << 20         // that may be under way in one direction of a connection
)

// NewNetwork makes a network without hosts.
func NewNetwork() *Network {
	return &Network{
		changed: make(chan struct{}), cut: map[link]bool{}, delay: map[link]time.Duration{}, frozen: map[string]bool{},
		listeners: map[string]*listener{}, conns: map[*wire]bool{},
	}
}

// change changes cables and wakes who waits for them.
func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut cuts the direction from one host to another, or mends it.
func (n *Network) Cut(from, to string, cut bool) { n.change(func() { n.cut[link{from, to}] = cut }) }

// Delay sets how long bytes are under way from one host to another.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.change(func() { n.delay[link{from, to}] = d })
}

// Freeze holds back what a host would read and what it wrote, until it is thawed.
func (n *Network) Freeze(host string, frozen bool) { n.change(func() { n.frozen[host] = frozen }) }

// Shuffle has each request between hosts wait for up to a time of its own, there
// and back, and has some arrive when who sent them has given them up; 0 ends it.
func (n *Network) Shuffle(most time.Duration, seed uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shuffle, n.chance = most, rand.New(rand.NewPCG(seed, 4))
}

// Overtaken is how many requests another one has overtaken, or may have.
func (n *Network) Overtaken() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.overtaken
}

// holds draws for how long a request is held on its way there and back, and whether
// its sender gives it up.
func (n *Network) holds() (there, back time.Duration, late bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shuffle == 0 {
		return 0, 0, false
	}
	n.overtaken++
	return some(n.chance, n.shuffle), some(n.chance, n.shuffle), n.chance.IntN(3) == 0
}

// Heal mends every cable.
func (n *Network) Heal() {
	n.change(func() {
		clear(n.cut)
		clear(n.delay)
		clear(n.frozen)
	})
}

// Shut ends who waits for a connection, and waits until that is done.
func (n *Network) Shut() {
	n.change(func() { n.shut = true })
	time.Sleep(time.Second)
}

// Thawed returns when the host is not frozen, or ctx ends.
func (n *Network) Thawed(ctx context.Context, host string) error {
	for {
		n.mu.Lock()
		frozen, changed := n.frozen[host], n.changed
		n.mu.Unlock()
		if !frozen {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Reset breaks every connection between two hosts; the other is "" for any.
func (n *Network) Reset(host, other string) {
	n.mu.Lock()
	var broken []*wire
	for w := range n.conns {
		if w.to == host && (other == "" || w.from == other) || w.from == host && (other == "" || w.to == other) {
			broken = append(broken, w)
		}
	}
	n.mu.Unlock()
	for _, w := range broken {
		w.end(syscall.ECONNRESET)
	}
}

// Gone closes a host's listeners and breaks its connections: its process is dead.
func (n *Network) Gone(host string) {
	n.mu.Lock()
	var open []*listener
	for _, l := range n.listeners {
		if l.host == host {
			open = append(open, l)
		}
	}
	n.mu.Unlock()
	for _, l := range open {
		_ = l.Close()
	}
	n.Reset(host, "")
}

// Listen opens a listener on a host; addr is host:port.
func (n *Network) Listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{n: n, host: host, addr: addr, conns: make(chan net.Conn, 128), done: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Dial connects a host to an address. Where nobody listens it is refused; over a
// cable that is cut it waits.
func (n *Network) Dial(ctx context.Context, from, addr string) (net.Conn, error) {
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	refused := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: err}
	}
	there, back := n.wire(from, to), n.wire(to, from)
	for _, l := range []link{{from, to}, {to, from}} {
		if err := n.pass(ctx, l); err != nil {
			return refused(err)
		}
	}
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return refused(syscall.ECONNREFUSED)
	}
	near := &conn{in: back, out: there, local: address(from), remote: address(addr)}
	far := &conn{in: there, out: back, local: address(addr), remote: address(from)}
	n.mu.Lock()
	n.conns[there], n.conns[back] = true, true
	n.mu.Unlock()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
	case <-ctx.Done():
	}
	_ = near.Close()
	return refused(errors.Join(syscall.ECONNREFUSED, ctx.Err()))
}

// pass takes as long as one packet takes over a link.
func (n *Network) pass(ctx context.Context, l link) error {
	n.mu.Lock()
	delay := max(n.delay[l], delayMin)
	n.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		n.mu.Lock()
		held, shut, changed := n.held(l), n.shut, n.changed
		n.mu.Unlock()
		if shut {
			return syscall.ENETDOWN
		}
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// held says that nothing arrives over a link now; n.mu is held.
func (n *Network) held(l link) bool { return n.cut[l] || n.frozen[l.from] || n.frozen[l.to] }

func (n *Network) wire(from, to string) *wire {
	return &wire{n: n, link: link{from, to}, wake: make(chan struct{})}
}

// wire is one direction of a connection.
type wire struct {
	n *Network
	link

	mu    sync.Mutex
	wake  chan struct{} // closed and replaced when something below changes
	parts []part
	size  int
	last  time.Time // when the last part arrives
	shut  bool      // the writer has closed it: what is under way, and then the end
	err   error     // it is broken
	until time.Time // the reader's deadline
}

type part struct {
	at   time.Time
	data []byte
}

func (w *wire) signal() {
	close(w.wake)
	w.wake = make(chan struct{})
}

// end breaks the wire.
func (w *wire) end(err error) {
	w.n.mu.Lock()
	delete(w.n.conns, w)
	w.n.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.signal()
	}
}

// send puts bytes on the wire.
func (w *wire) send(data []byte) error {
	w.n.mu.Lock()
	delay := max(w.n.delay[w.link], delayMin)
	w.n.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.shut:
		return net.ErrClosed
	case errors.Is(w.err, net.ErrClosed):
		return syscall.EPIPE // by the other end
	case w.err != nil:
		return w.err
	}
	if w.size+len(data) > wireBytes {
		return errors.New("sim: more is under way than any network holds")
	}
	if at := time.Now().Add(delay); at.After(w.last) {
		w.last = at
	}
	w.parts = append(w.parts, part{w.last, append([]byte(nil), data...)})
	w.size += len(data)
	w.signal()
	return nil
}

// receive waits for bytes.
func (w *wire) receive(b []byte) (int, error) {
	for {
		w.n.mu.Lock()
		held, changed := w.n.held(w.link), w.n.changed
		w.n.mu.Unlock()
		w.mu.Lock()
		now := time.Now()
		var alarm time.Time
		switch {
		case w.err != nil:
			defer w.mu.Unlock()
			return 0, w.err
		case !w.until.IsZero() && !now.Before(w.until):
			w.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case held:
		case len(w.parts) > 0 && !now.Before(w.parts[0].at):
			n := 0
			for len(w.parts) > 0 && n < len(b) && !now.Before(w.parts[0].at) {
				p := &w.parts[0]
				k := copy(b[n:], p.data)
				n += k
				if p.data = p.data[k:]; len(p.data) == 0 {
					w.parts = w.parts[1:]
				}
			}
			w.size -= n
			w.mu.Unlock()
			return n, nil
		case len(w.parts) > 0:
			alarm = w.parts[0].at
		case w.shut:
			w.mu.Unlock()
			return 0, io.EOF
		}
		if !w.until.IsZero() && (alarm.IsZero() || w.until.Before(alarm)) {
			alarm = w.until
		}
		wake := w.wake
		w.mu.Unlock()
		wait(wake, changed, alarm)
	}
}

// wait returns when one of the channels is closed, or at the alarm if it is set.
func wait(a, b <-chan struct{}, alarm time.Time) {
	var rings <-chan time.Time
	if !alarm.IsZero() {
		t := time.NewTimer(time.Until(alarm))
		defer t.Stop()
		rings = t.C
	}
	select {
	case <-a:
	case <-b:
	case <-rings:
	}
}

// conn is one end of a connection.
type conn struct {
	in, out       *wire
	local, remote address
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.receive(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &net.OpError{Op: "read", Net: "sim", Source: c.local, Addr: c.remote, Err: err}
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.out.send(b); err != nil {
		return 0, &net.OpError{Op: "write", Net: "sim", Source: c.local, Addr: c.remote, Err: err}
	}
	return len(b), nil
}

// Close ends both directions: the other end reads what is under way, and then the
// end; what it writes is lost.
func (c *conn) Close() error {
	c.out.mu.Lock()
	c.out.shut = true
	c.out.signal()
	c.out.mu.Unlock()
	c.in.end(net.ErrClosed)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.until = t
	c.in.signal()
	return nil
}

// SetWriteDeadline does nothing: no write blocks.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// address is host:port, or a host.
type address string

func (address) Network() string  { return "sim" }
func (a address) String() string { return string(a) }

type listener struct {
	n          *Network
	host, addr string
	conns      chan net.Conn
	once       sync.Once
	done       chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr)
		l.n.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }
