package processes

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// network is what lies between the processes of a voting world: a link for each
// pair of them and each direction of calls, which can be cut.
type network struct {
	t     *testing.T
	links map[[2]string]*link // by who calls and who is called
}

func newNetwork(t *testing.T) *network { return &network{t: t, links: map[[2]string]*link{}} }

// between returns where one process reaches another's listener. Without a network it
// is the listener itself.
func (n *network) between(from, to, address string) string {
	if n == nil || from == to {
		return address
	}
	n.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	k := &link{to: address, open: make(chan struct{}), over: make(chan struct{})}
	close(k.open)
	n.links[[2]string{from, to}] = k
	var accepting sync.WaitGroup
	accepting.Go(func() { k.accept(l) })
	n.t.Cleanup(func() {
		close(k.over)
		l.Close()
		accepting.Wait()
		k.drop()
		k.busy.Wait()
	})
	return l.Addr().String()
}

// cut cuts the links of one process to all others. What was under way is held and
// arrives when they heal, or is lost with its connections.
func (n *network) cut(name string, hold bool) {
	for pair, k := range n.links {
		if pair[0] == name || pair[1] == name {
			k.cut(hold)
		}
	}
}

// heal heals all links.
func (n *network) heal() {
	for _, k := range n.links {
		k.heal()
	}
}

// link carries connections from one process to another.
type link struct {
	to   string
	over chan struct{} // closed at the end of the test
	busy sync.WaitGroup

	mu      sync.Mutex
	open    chan struct{} // closed while bytes go through
	refuses bool
	conns   map[net.Conn]bool
}

func (k *link) cut(hold bool) {
	k.mu.Lock()
	select {
	case <-k.open:
		k.open = make(chan struct{})
	default:
	}
	k.refuses = !hold
	k.mu.Unlock()
	if !hold {
		k.drop()
	}
}

func (k *link) heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuses = false
	select {
	case <-k.open:
	default:
		close(k.open)
	}
}

// drop ends all connections.
func (k *link) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		c.Close()
	}
}

func (k *link) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		k.mu.Lock()
		refuses := k.refuses
		k.mu.Unlock()
		if refuses {
			c.Close()
			continue
		}
		k.busy.Go(func() { k.carry(c) })
	}
}

// pass waits until bytes may go through; false: the test is over.
func (k *link) pass() bool {
	k.mu.Lock()
	open := k.open
	k.mu.Unlock()
	select {
	case <-open:
		return true
	case <-k.over:
		return false
	}
}

// carry carries one connection until one side ends it.
func (k *link) carry(near net.Conn) {
	defer near.Close()
	if !k.keep(near) || !k.pass() {
		return
	}
	defer k.leave(near)
	far, err := net.DialTimeout("tcp", k.to, 10*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	if !k.keep(far) {
		return
	}
	defer k.leave(far)
	var both sync.WaitGroup
	copying := func(to, from net.Conn) {
		defer near.Close()
		defer far.Close()
		buffer := make([]byte, 32<<10)
		for {
			got, err := from.Read(buffer)
			if got > 0 {
				if !k.pass() {
					return
				}
				if _, err := to.Write(buffer[:got]); err != nil {
					return
				}
			}
			if err != nil {
				if err == io.EOF {
					k.pass()
				}
				return
			}
		}
	}
	both.Go(func() { copying(far, near) })
	copying(near, far)
	both.Wait()
}

func (k *link) keep(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.over:
		return false
	default:
	}
	if k.conns == nil {
		k.conns = map[net.Conn]bool{}
	}
	k.conns[c] = true
	return true
}

func (k *link) leave(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}
