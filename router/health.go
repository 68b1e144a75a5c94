package router

import (
	"fmt"
	"math"
	"time"
)

// Health says how a Region is judged: by checks of its health path, and by what
// becomes of the requests it is given.
type Health struct {
	// Path is what checks GET; empty means /readyz. 2xx is well.
	Path string

	// Interval lies between two checks of a Region; 0 means 1 s.
	Interval time.Duration

	// Timeout is how long a check may take; 0 means 1 s.
	Timeout time.Duration

	// ChecksDown is how many checks in a row must fail to divert from a Region; 0
	// means 2. While it returns, one is enough.
	ChecksDown int

	// ChecksUp is how many must pass before it may return; 0 means 3.
	ChecksUp int

	// ConnectsDown is how many connections in a row must be refused, or not come
	// about, to divert from a Region at once; 0 means 2.
	ConnectsDown int

	// Window is how far back requests are counted; 0 means 10 s.
	Window time.Duration

	// FailuresMin is how many requests in the window must have failed before their
	// ratio counts: lost connections, answers that never came, and 502, 503 and
	// 504. Other answers are the caller's business. 0 means 5.
	FailuresMin int

	// FailureRatio is the part of the window's requests that must have failed, or
	// been slow, to divert from a Region; 0 means 0.5.
	FailureRatio float64

	// SlowAfter is when a request without an answer counts as slow; 0 means 10 s.
	SlowAfter time.Duration

	// Steps are the parts of its share that a Region returns by; nil means 10 %,
	// 25 % and 50 %. All of it follows.
	Steps []float64

	// StepTime is how long it must be well on each; 0 means 10 s.
	StepTime time.Duration

	// HoldMin is how long a Region stays diverted from at least; 0 means 5 s. Each
	// further fall doubles it, up to HoldMax (0 means 2 min), until it has been
	// well for FlapWindow (0 means 5 min).
	HoldMin, HoldMax, FlapWindow time.Duration
}

// stepsMax bounds the steps of a return.
const stepsMax = 16

func (c *Health) settle() error {
	or(&c.Path, "/readyz")
	or(&c.Interval, time.Second)
	or(&c.Timeout, time.Second)
	or(&c.ChecksDown, 2)
	or(&c.ChecksUp, 3)
	or(&c.ConnectsDown, 2)
	or(&c.Window, 10*time.Second)
	or(&c.FailuresMin, 5)
	or(&c.FailureRatio, 0.5)
	or(&c.SlowAfter, 10*time.Second)
	or(&c.StepTime, 10*time.Second)
	or(&c.HoldMin, 5*time.Second)
	or(&c.HoldMax, 2*time.Minute)
	or(&c.FlapWindow, 5*time.Minute)
	if c.Steps == nil {
		c.Steps = []float64{0.10, 0.25, 0.50}
	}
	if c.Path[0] != '/' {
		return fmt.Errorf("health path %q does not start with a slash", c.Path)
	}
	for _, d := range []time.Duration{
		c.Interval, c.Timeout, c.Window / windowParts, c.SlowAfter, c.StepTime, c.HoldMin, c.HoldMax, c.FlapWindow,
	} {
		if d <= 0 {
			return fmt.Errorf("health: a duration is not above 0")
		}
	}
	if c.ChecksDown < 1 || c.ChecksUp < 1 || c.ConnectsDown < 1 || c.FailuresMin < 1 {
		return fmt.Errorf("health: a threshold is below 1")
	}
	if !(c.FailureRatio > 0 && c.FailureRatio <= 1) {
		return fmt.Errorf("health: failure ratio %g is not above 0 and at most 1", c.FailureRatio)
	}
	if len(c.Steps) > stepsMax {
		return fmt.Errorf("health: %d steps, at most %d", len(c.Steps), stepsMax)
	}
	for _, s := range c.Steps {
		if !(s > 0 && s < 1) {
			return fmt.Errorf("health: step %g is not between 0 and 1", s)
		}
	}
	return nil
}

// State is how a Region is doing.
type State string

// The states of a Region. One starts up: until something fails, nothing is known
// against it.
const (
	Up        State = "up"
	Down      State = "down"      // requests are diverted, save when all are down
	Returning State = "returning" // takes a part of its share, more with each step
)

// outcome is what became of a request in one Region.
type outcome uint8

const (
	answered  outcome = iota // with anything but an ill status
	ill                      // 502, 503 or 504
	unreached                // no connection came about: the request was never sent
	lost                     // the connection ended before the answer did
	silent                   // no answer, or no more of it, in time
	outcomes
)

var outcomeNames = [outcomes]string{"answered", "ill", "unreached", "lost", "silent"}

// health judges one Region. It is pure: what it hears, and when, decides. Its
// methods report whether the state or the share has changed.
type health struct {
	cfg    *Health
	state  State
	step   int       // of Steps, while returning
	since  time.Time // when state or step began
	reason string    // of the state, for people

	hold      time.Duration // of the last fall
	heldUntil time.Time
	falls     int

	checksFailed, checksPassed int // in a row
	connectsFailed             int // in a row
	window                     window
}

func newHealth(cfg *Health, now time.Time) health {
	return health{cfg: cfg, state: Up, since: now, reason: "nothing has failed", window: window{width: cfg.Window / windowParts}}
}

// share is the part of the Region's share that it is given.
func (h *health) share() float64 {
	switch h.state {
	case Down:
		return 0
	case Returning:
		return h.cfg.Steps[h.step]
	}
	return 1
}

// checked hears of a check; problem is empty if it passed.
func (h *health) checked(now time.Time, problem string) bool {
	if problem != "" {
		h.checksPassed = 0
		h.checksFailed++
		if h.state == Down || h.state == Up && h.checksFailed < h.cfg.ChecksDown {
			return false
		}
		return h.fall(now, "check failed: "+problem)
	}
	h.checksFailed = 0
	h.checksPassed++
	if h.state == Down && h.checksPassed >= h.cfg.ChecksUp && !now.Before(h.heldUntil) {
		h.resume(now)
		return true
	}
	return h.advance(now)
}

// resume lets the Region return from its first step, unless it is down.
func (h *health) resume(now time.Time) {
	if h.state == Down && h.checksPassed < h.cfg.ChecksUp {
		return
	}
	h.connectsFailed = 0
	h.window.clear()
	h.enter(now, Returning, 0)
	if len(h.cfg.Steps) == 0 {
		h.enter(now, Up, 0)
	}
}

// advance takes the next step of a return when its time has come.
func (h *health) advance(now time.Time) bool {
	if h.state != Returning || now.Sub(h.since) < h.cfg.StepTime {
		return false
	}
	if h.step+1 < len(h.cfg.Steps) {
		h.enter(now, Returning, h.step+1)
	} else {
		h.enter(now, Up, 0)
	}
	return true
}

func (h *health) enter(now time.Time, s State, step int) {
	h.state, h.step, h.since = s, step, now
	h.reason = "well since it returned"
	if s == Returning {
		h.reason = fmt.Sprintf("returning by steps: %.0f %%", 100*h.cfg.Steps[step])
	}
}

// observed hears what became of a request, and how long its answer took to begin.
func (h *health) observed(now time.Time, o outcome, took time.Duration) bool {
	h.window.add(now, o, took)
	if o == unreached {
		h.connectsFailed++
	} else {
		h.connectsFailed = 0
	}
	if h.state == Down || o == answered {
		return false
	}
	if h.connectsFailed >= h.cfg.ConnectsDown {
		return h.fall(now, fmt.Sprintf("%d connections in a row failed", h.connectsFailed))
	}
	sum := h.window.sum(now)
	if bad := sum.failed(); bad >= h.cfg.FailuresMin && float64(bad) >= h.cfg.FailureRatio*float64(sum.requests()) {
		return h.fall(now, fmt.Sprintf("%d of %d requests failed within %v", bad, sum.requests(), h.cfg.Window))
	}
	return false
}

// slow hears of n requests that have waited for SlowAfter.
func (h *health) slow(now time.Time, n int) bool {
	h.window.at(now).slow += uint32(n)
	if h.state == Down {
		return false
	}
	sum := h.window.sum(now)
	// Requests that still wait are not among those that have ended.
	if bad := int(sum.slow); bad >= h.cfg.FailuresMin && float64(bad) >= h.cfg.FailureRatio*float64(max(sum.requests(), bad)) {
		return h.fall(now, fmt.Sprintf("%d requests had no answer after %v", bad, h.cfg.SlowAfter))
	}
	return false
}

// fall diverts from the Region, and says so.
func (h *health) fall(now time.Time, reason string) bool {
	if h.hold == 0 || h.state == Up && now.Sub(h.since) >= h.cfg.FlapWindow {
		h.hold = h.cfg.HoldMin
	} else {
		h.hold = min(2*h.hold, max(h.cfg.HoldMin, h.cfg.HoldMax))
	}
	h.falls++
	h.heldUntil = now.Add(h.hold)
	h.checksPassed = 0
	h.state, h.step, h.since, h.reason = Down, 0, now, reason
	return true
}

// windowParts is how many parts a window is counted in.
const windowParts = 10

// A window counts what became of the requests of the last while.
type window struct {
	width time.Duration // of a part
	parts [windowParts]counts
}

// counts are those of one part, or of several together.
type counts struct {
	number int64 // of the part, since 1970
	ends   [outcomes]uint32
	slow   uint32
	took   histogram // of answers
}

func (c *counts) requests() (n int) {
	for _, e := range c.ends {
		n += int(e)
	}
	return n
}

func (c *counts) failed() int { return c.requests() - int(c.ends[answered]) }

// at returns the part of now, emptied if it held another time.
func (w *window) at(now time.Time) *counts {
	number := now.UnixNano() / int64(w.width)
	part := &w.parts[uint64(number)%windowParts]
	if part.number != number {
		*part = counts{number: number}
	}
	return part
}

func (w *window) add(now time.Time, o outcome, took time.Duration) {
	part := w.at(now)
	part.ends[o]++
	if o == answered || o == ill {
		part.took[bucket(took)]++
	}
}

func (w *window) sum(now time.Time) (sum counts) {
	number := now.UnixNano() / int64(w.width)
	for i := range w.parts {
		part := &w.parts[i]
		if part.number <= number-windowParts || part.number > number {
			continue
		}
		for o, n := range part.ends {
			sum.ends[o] += n
		}
		sum.slow += part.slow
		for b, n := range part.took {
			sum.took[b] += n
		}
	}
	return sum
}

func (w *window) clear() { w.parts = [windowParts]counts{} }

// A histogram counts durations in buckets a quarter of a doubling wide, from
// 64 µs to more than a minute.
type histogram [histogramBuckets]uint32

const (
	histogramBuckets = 84
	histogramFirst   = 64 * time.Microsecond
)

func bucket(d time.Duration) int {
	if d <= histogramFirst {
		return 0
	}
	return min(int(math.Ceil(4*math.Log2(float64(d)/float64(histogramFirst)))), histogramBuckets-1)
}

// quantile returns the upper bound of the bucket in which the q-th part of all
// lies; 0 if there is none.
func (h *histogram) quantile(q float64) time.Duration {
	var all uint64
	for _, n := range h {
		all += uint64(n)
	}
	if all == 0 {
		return 0
	}
	rank, seen := uint64(math.Ceil(q*float64(all))), uint64(0)
	for b, n := range h {
		if seen += uint64(n); seen >= max(rank, 1) {
			return time.Duration(float64(histogramFirst) * math.Pow(2, float64(b)/4))
		}
	}
	return 0
}
