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

func newPacer(perSecond int) pacer {
	if perSecond <= 0 {
		return pacer{}
	}
	// A quarter of a second may go at once, so that chunks stay worth a commit.
	return pacer{rate.NewLimiter(rate.Limit(perSecond), max(1, perSecond/4))}
}

// chunk says how many of n messages may be taken up together.
func (p pacer) chunk(n int) int {
	if p.limit == nil {
		return n
	}
	return min(n, p.limit.Burst())
}

func (p pacer) wait(ctx context.Context, n int) error {
	if p.limit == nil {
		return nil
	}
	return p.limit.WaitN(ctx, min(n, p.limit.Burst()))
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

// wait returns when an attempt may go.
func (b *breaker) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		d := b.until.Sub(b.now())
		if d <= 0 && b.failed >= breakerTrips {
			// This caller probes; the others wait for what it finds, longer each time.
			b.delay = min(2*b.delay, breakerDelayMax)
			b.until = b.now().Add(b.delay)
		}
		b.mu.Unlock()
		if d <= 0 {
			return ctx.Err()
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
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

// open reports whether the provider could not be reached lately: whoever asks
// it next risks one message, not many.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed >= breakerTrips
}

// unreachable says that an outcome is about the connection, not the message.
func unreachable(o courier.Outcome) bool { return o.Status == courier.Deferred && o.Code == "conn" }
