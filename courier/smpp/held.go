package smpp

import (
	"sync"
	"time"
)

// held are the deliver_sm of one bind that were read and wait for their turn, and
// the turns.
//
//	reading ── hold ── waiting ── next, turn ── under way ── done
//	   ▲                  │            │
//	   └─ stands still ───┘            └─ refused, after too long a wait
//	      while it is full
//
// A provider may send as many receipts as it likes: its window, or at last TCP,
// slows it down, and the bind lives. Nothing waits for ever: whatever cannot have
// its turn in time is answered "try again", while the provider still listens for
// the answer, and makes room. So reading stands still for as long as one
// delivery may wait at most, and what lies behind the flood is reached: above all
// the answers to submits.
type held struct {
	under chan struct{} // holds one for each that is under way

	mu      sync.Mutex
	waiting []heldDelivery // oldest first
	octets  int            // of all that wait

	came    chan struct{} // holds one: something waits
	left    chan struct{} // holds one: there may be room
	closing chan struct{} // closed when nothing more has its turn
}

// Bounds of what waits on one bind. 4096 receipts are some seconds of work.
const (
	heldMax       = 4096
	heldOctetsMax = 8 << 20
)

// heldDelivery is a deliver_sm and when it was read.
type heldDelivery struct {
	pdu PDU
	at  time.Time
}

// turn is what became of waiting for one.
type turn uint8

const (
	turnGiven   turn = iota // done must be called
	turnRefused             // it came too late
	turnOver                // the connection ended
)

func newHeld(deliveries int) *held {
	return &held{
		under: make(chan struct{}, deliveries), came: make(chan struct{}, 1), left: make(chan struct{}, 1),
		closing: make(chan struct{}),
	}
}

// hold adds a deliver_sm that the session's reader has just read. It waits for
// room, or for the end of the connection.
func (h *held) hold(s *session, p PDU) {
	d := heldDelivery{p, time.Now()}
	if h.add(d) {
		return
	}
	s.pause(func() {
		for !h.add(d) {
			select {
			case <-h.left:
			case <-s.done:
				return
			}
		}
	})
}

// add is false when there is no room.
func (h *held) add(d heldDelivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	octets := d.octets()
	if len(h.waiting) > 0 && (len(h.waiting) == heldMax || h.octets+octets > heldOctetsMax) {
		return false
	}
	h.waiting = append(h.waiting, d)
	h.octets += octets
	signal(h.came)
	return true
}

// next takes the oldest; ok is false when the connection ended first.
func (h *held) next(s *session) (d heldDelivery, ok bool) {
	for {
		h.mu.Lock()
		if len(h.waiting) > 0 {
			d, h.waiting[0] = h.waiting[0], heldDelivery{}
			h.waiting = h.waiting[1:]
			h.octets -= d.octets()
			signal(h.left)
			h.mu.Unlock()
			return d, true
		}
		h.mu.Unlock()
		select {
		case <-h.came:
		case <-s.done:
			return d, false
		}
	}
}

// turn waits until a delivery may be under way, but not longer than until.
func (h *held) turn(s *session, until time.Time) turn {
	wait := time.Until(until)
	select {
	case <-h.closing:
		return turnRefused
	default:
	}
	if wait <= 0 {
		return turnRefused
	}
	select {
	case h.under <- struct{}{}:
		return turnGiven
	default:
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case h.under <- struct{}{}:
		return turnGiven
	case <-late.C:
		return turnRefused
	case <-h.closing:
		return turnRefused
	case <-s.done:
		return turnOver
	}
}

// done gives a turn back.
func (h *held) done() { <-h.under }

// close gives no more turns and waits until nothing is under way.
func (h *held) close() {
	close(h.closing)
	for range cap(h.under) {
		h.under <- struct{}{}
	}
}

// octets is roughly what a delivery takes of memory.
func (d heldDelivery) octets() int {
	const each = 256 // structures, addresses
	n := each
	if m, ok := d.pdu.Body.(*ShortMessage); ok {
		n += len(m.Text)
		for _, v := range m.TLVs {
			n += each/8 + len(v.Value)
		}
	}
	return n
}

// signal wakes whoever waits on a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
