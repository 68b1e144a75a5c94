package smpp

import (
	"context"
	"errors"
	"sync"
	"time"
)

// pool lends the window slots of the binds that can transmit, to whoever has
// waited longest. It is safe for concurrent use.
type pool struct {
	window int

	mu      sync.Mutex
	free    map[*session]int // slots left, of each bind that lends
	lent    map[*session]int // slots lent, of each bind that has lent any
	waiting []chan *session  // oldest first; each holds one
	closed  bool
}

var (
	errNotBound = errors.New("no bind")
	errClosed   = errors.New("the client is not running")
)

func newPool(window int) *pool {
	return &pool{window: window, free: make(map[*session]int), lent: make(map[*session]int)}
}

// add lends the slots of a new bind.
func (p *pool) add(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[s] = p.window
	p.serve()
}

// remove lends no more slots of s.
func (p *pool) remove(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.free, s)
}

// release gives a slot back.
func (p *pool) release(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lent[s]--; p.lent[s] == 0 {
		delete(p.lent, s)
	}
	if _, lends := p.free[s]; lends {
		p.free[s]++
		p.serve()
	}
}

// idle says that no slot of s is lent.
func (p *pool) idle(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lent[s] == 0
}

// close sends away whoever waits, and whoever comes.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.waiting {
		w <- nil
	}
	p.waiting = nil
}

// serve gives free slots to those who wait; mu is held.
func (p *pool) serve() {
	for len(p.waiting) > 0 {
		s := p.pick()
		if s == nil {
			return
		}
		p.waiting[0] <- s
		p.waiting = p.waiting[1:]
	}
}

// pick takes a slot of the bind with the most free ones; mu is held.
func (p *pool) pick() (best *session) {
	for s, n := range p.free {
		if n > 0 && !s.dead() && (best == nil || n > p.free[best]) {
			best = s
		}
	}
	if best != nil {
		p.free[best]--
		p.lent[best]++
	}
	return best
}

// acquire takes a slot. It waits while the windows are full, as long as ctx
// lasts, but at most patience while there is no bind at all.
func (p *pool) acquire(ctx context.Context, patience time.Duration) (*session, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if len(p.waiting) == 0 {
		if s := p.pick(); s != nil {
			p.mu.Unlock()
			return s, nil
		}
	}
	w := make(chan *session, 1)
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()

	ticker := time.NewTicker(patience)
	defer ticker.Stop()
	for {
		var err error
		select {
		case s := <-w:
			if s == nil {
				return nil, errClosed
			}
			return s, nil
		case <-ctx.Done():
			err = ctx.Err()
		case <-ticker.C:
			p.mu.Lock()
			if bound := len(p.free) > 0; bound {
				p.mu.Unlock()
				continue
			}
			p.mu.Unlock()
			err = errNotBound
		}
		if s := p.leave(w); s != nil {
			return s, nil // it was served in the meantime
		}
		return nil, err
	}
}

// leave takes w out of the queue, or returns the slot it was just given.
func (p *pool) leave(w chan *session) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.waiting {
		if other == w {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return nil
		}
	}
	return <-w
}
