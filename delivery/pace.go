package delivery

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/everpoint/everpoint/courier"
)

// pacer spreads messages over time.
type pacer struct{ limit *rate.Limiter } // nil: as fast as possible

func newPacer(perSecond float64) pacer {
	if perSecond <= 0 {
		return pacer{}
	}
	// A quarter of a second may go at once, so that chunks stay worth a commit.
	return pacer{rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/4)))}
}

// chunk says how many of n messages may be taken up together.
func (p pacer) chunk(n int) int {
	if p.limit == nil {
		return n
	}
	return min(n, p.limit.Burst())
}

// wait returns when n turns have come, however many may go at once.
func (p pacer) wait(ctx context.Context, n int) error {
	for p.limit != nil && n > 0 {
		step := min(n, p.limit.Burst())
		if err := p.limit.WaitN(ctx, step); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

// turn takes n turns, at most what may go at once, and returns how long they
// are ahead. Further ahead than most it takes none.
func (p pacer) turn(now time.Time, n int, most time.Duration) (ahead time.Duration) {
	if p.limit == nil {
		return 0
	}
	r := p.limit.ReserveN(now, min(n, p.limit.Burst()))
	if ahead = r.DelayFrom(now); ahead > most {
		r.CancelAt(now)
	}
	return ahead
}

// breaker keeps a provider that cannot be reached from being asked for every
// message: after breakerTrips failures to connect in a row it lets one attempt
// through every now and then.
type breaker struct {
	now func() time.Time

	mu     sync.Mutex
	failed int
	until  time.Time     // nothing goes before
	delay  time.Duration // the next wait
}

const (
	breakerTrips    = 8
	breakerDelayMin = 200 * time.Millisecond
	breakerDelayMax = 15 * time.Second
)

// allow reports whether a message may be tried now, and if not, when to ask
// again. Of those who ask while the provider cannot be reached one goes ahead
// at a time, and the others wait for what it finds, longer each time.
func (b *breaker) allow() (ok bool, again time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	switch {
	case b.failed < breakerTrips:
		return true, time.Time{}
	case now.Before(b.until):
		return false, b.until
	}
	b.delay = min(2*b.delay, breakerDelayMax)
	b.until = now.Add(b.delay)
	return true, time.Time{}
}

// learn takes an outcome into account.
func (b *breaker) learn(o courier.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !unreachable(o) {
		b.failed, b.delay, b.until = 0, 0, time.Time{}
		return
	}
	if b.failed++; b.failed == breakerTrips {
		b.delay = breakerDelayMin
		b.until = b.now().Add(b.delay)
	}
}

// unreachable says that an outcome is about the connection, not the message.
func unreachable(o courier.Outcome) bool { return o.Status == courier.Deferred && o.Code == "conn" }
