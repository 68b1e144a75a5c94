package router

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// region is a Region at work: its health and what it is doing.
type region struct {
	index int
	name  string
	named []string // the value of Everpoint-Region
	base  *url.URL
	seed  uint64
	most  int64 // requests at a time

	inFlight atomic.Int64
	ended    [outcomes]atomic.Uint64
	rescued  atomic.Uint64 // requests that failed here and were tried elsewhere

	mu      sync.Mutex // guards what follows; never held while taking the router's
	health  health
	waiting waiting
	check   checkResult
	told    heard // what it last said of the switches
}

// checkResult is how the last check went.
type checkResult struct {
	at      time.Time
	problem string
	took    time.Duration
}

func newRegion(index int, r Region, base *url.URL, cfg *Config, now time.Time) *region {
	return &region{
		index: index, name: r.Name, named: []string{r.Name}, base: base, seed: mix(uint64(hashStart.text(r.Name))),
		most:   int64(cfg.Limits.RegionRequestsMax),
		health: newHealth(&cfg.Health, now),
	}
}

// enter takes a place in the Region for a request; it fails if all are taken.
func (reg *region) enter() bool {
	if reg.inFlight.Add(1) > reg.most {
		reg.inFlight.Add(-1)
		return false
	}
	return true
}

func (reg *region) leave() { reg.inFlight.Add(-1) }

// judge lets f tell the Region's health something, and acts if that changed it:
// the router looks anew, and if the Region fell, those who wait for its answer
// and can go elsewhere do.
func (rt *Router) judge(reg *region, f func(*health) bool) {
	reg.mu.Lock()
	changed := f(&reg.health)
	state, reason, falls := reg.health.state, reg.health.reason, reg.health.falls
	reg.mu.Unlock()
	if !changed {
		return
	}
	rt.refresh()
	if state != Down {
		rt.log.Info("region returns", "region", reg.name, "state", string(state), "reason", reason)
		return
	}
	rt.log.Warn("region diverted", "region", reg.name, "reason", reason, "falls", falls)
	if rt.view.Load().healthy > 0 {
		reg.mu.Lock()
		reg.waiting.divert()
		reg.mu.Unlock()
	}
}

// errDiverted ends attempts in a Region that fell while they waited for it.
var errDiverted = errors.New("the Region was given up while the request waited for its answer")

// waiting is a list of the attempts that wait for an answer, oldest first.
type waiting struct{ first, last *attempt }

func (l *waiting) add(a *attempt) {
	a.prev = l.last
	if l.last != nil {
		l.last.next = a
	} else {
		l.first = a
	}
	l.last, a.listed = a, true
}

func (l *waiting) remove(a *attempt) {
	if !a.listed {
		return
	}
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		l.first = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		l.last = a.prev
	}
	a.prev, a.next, a.listed = nil, nil, false
}

// divert ends the attempts that can be made elsewhere.
func (l *waiting) divert() {
	for a := l.first; a != nil; a = a.next {
		if a.movable {
			a.cancel(errDiverted)
		}
	}
}

// overdue counts the attempts that began before then and were not counted yet.
func (l *waiting) overdue(then time.Time) (n int) {
	for a := l.first; a != nil && a.began.Before(then); a = a.next {
		if !a.counted {
			a.counted = true
			n++
		}
	}
	return n
}

// every does what it is given for a Region once in each interval until ctx ends.
func (rt *Router) every(ctx context.Context, reg *region, do func(context.Context, *region)) {
	interval := rt.cfg.Health.Interval
	rt.mu.Lock()
	first := time.Duration(rt.chance.Int64N(int64(interval))) // so that not all routers check at once
	rt.mu.Unlock()
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(interval)
		do(ctx, reg)
	}
}

// checkOnce asks a Region how it is, and counts who waits too long for it.
func (rt *Router) checkOnce(ctx context.Context, reg *region) {
	began := rt.now()
	problem := rt.ask(ctx, reg)
	if ctx.Err() != nil {
		return
	}
	now := rt.now()
	rt.judge(reg, func(h *health) bool {
		reg.check = checkResult{now, problem, now.Sub(began)}
		changed := h.checked(now, problem)
		if n := reg.waiting.overdue(now.Add(-h.cfg.SlowAfter)); n > 0 {
			return h.slow(now, n) || changed
		}
		return changed
	})
}

// ask performs one check and returns what was wrong; empty if nothing.
func (rt *Router) ask(ctx context.Context, reg *region) string {
	ctx, cancel := context.WithTimeout(ctx, rt.cfg.Health.Timeout)
	defer cancel()
	at := url.URL{Scheme: reg.base.Scheme, Host: reg.base.Host, Path: rt.cfg.Health.Path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return err.Error()
	}
	resp, err := rt.behind.RoundTrip(req)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return "no answer within " + rt.cfg.Health.Timeout.String()
		}
		return err.Error()
	}
	drain(resp)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "answered " + resp.Status
	}
	return ""
}
