package sim

import (
	"errors"
	"sync"
)

// errDead is what a dead store and a cut cable answer.
var errDead = errors.New("sim: the process is dead")

// process is one process after another over the same disk. It dies at a commit
// point of its store: from then on it writes nothing and nobody hears of it.
type process struct {
	mu     sync.Mutex
	life   int
	lives  int
	dead   bool
	commit int // commit points passed in this life
	fatal  int // the one that kills; 0: none
	died   chan struct{}
	die    func() // cuts it off; mu is held. May be nil

	halts  int           // commit points from now; the last of them freezes it. 0: none
	halted chan struct{} // closed when it does
	freeze func()        // mu is held
}

// begin begins a life that ends at the fatal commit point, or lasts when it is 0.
func (p *process) begin(fatal int) (life int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lives++
	p.life = p.lives
	p.dead, p.commit, p.fatal, p.died = false, 0, fatal, make(chan struct{})
	return p.life
}

// halt freezes the process at the nth commit point from now, and closes the channel;
// at none with 0.
func (p *process) halt(n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halts, p.halted = n, make(chan struct{})
	return p.halted
}

// pass freezes the process if a commit point is the one to do that at.
func (p *process) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.halts == 0 {
		return
	}
	if p.halts--; p.halts == 0 {
		p.freeze()
		close(p.halted)
	}
}

// fault counts commit points and kills the process at the fatal one.
func (p *process) fault(life int) func(string) error {
	return func(string) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.life != life || p.dead {
			return errDead
		}
		if p.commit++; p.fatal > 0 && p.commit == p.fatal {
			p.kill()
			return errDead
		}
		return nil
	}
}

// kill ends this life: nothing more is written, and the cables are cut. mu is held.
func (p *process) kill() {
	p.dead = true
	if p.die != nil {
		p.die()
	}
	close(p.died)
}

// doom makes the nth commit point from now the fatal one.
func (p *process) doom(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fatal = p.commit + n
}

// isDead reports whether this life has ended.
func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// Died is closed when this life ends at its fatal commit point.
func (p *process) Died() <-chan struct{} { return p.died }
