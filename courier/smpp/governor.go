package smpp

import (
	"context"
	"sync"
	"time"
)

// governor slows a route that the provider throttles.
//
// It spaces submits by an interval, at first none. A throttled answer doubles
// the interval (from 10 ms up to 1 s) and stops the route for a second; answers
// to one burst count once. Each second without one shortens the interval by a
// fifth, until it is below a millisecond and gone. So a route finds its rate
// from above and creeps back up, as TCP does.
type governor struct {
	mu       sync.Mutex
	interval time.Duration
	next     time.Time // when the next submit may go
	eased    time.Time // when interval was last changed
}

const (
	throttlePause       = time.Second
	throttleIntervalMin = 10 * time.Millisecond
	throttleIntervalMax = time.Second
)

// throttled notes a throttled answer.
func (g *governor) throttled(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ease(now)
	if g.interval > 0 && now.Sub(g.eased) < throttlePause {
		return // the burst that was under way when the first answer came
	}
	g.interval = min(max(2*g.interval, throttleIntervalMin), throttleIntervalMax)
	g.eased = now
	if pause := now.Add(throttlePause); pause.After(g.next) {
		g.next = pause
	}
}

// ease shortens the interval by what now allows; mu is held.
func (g *governor) ease(now time.Time) {
	for g.interval > 0 && now.Sub(g.eased) >= 2*throttlePause {
		g.eased = g.eased.Add(throttlePause)
		if g.interval = g.interval * 4 / 5; g.interval < time.Millisecond {
			g.interval = 0
		}
	}
}

// reserve books n submits and returns how long to wait before the first. When that
// would be longer than most, nothing is booked and ok is false.
func (g *governor) reserve(now time.Time, n int, most time.Duration) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ease(now)
	if g.next.Before(now) {
		g.next = now
	}
	if wait = g.next.Sub(now); wait > most {
		return wait, false
	}
	g.next = g.next.Add(time.Duration(n) * g.interval)
	return wait, true
}

// sleep waits for d; it returns ctx's error when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
