package router

import (
	"encoding/json"
	"math"
	"net/http"
	"time"
)

// StatusPath is where [Router.Admin] tells the status.
const StatusPath = "/everpoint/router/v1/status"

// Status is what a router knows about itself and the Regions, for people.
type Status struct {
	Mode      Mode
	Primary   string
	Started   time.Time
	InFlight  int64
	Refusals  uint64 // requests refused because too many were in progress
	Retries   uint64 // attempts after the first
	Abandoned uint64 // requests whose client left
	Switches  HeardStatus
	Regions   []RegionStatus
}

// HeardStatus is what was last heard of the switches that the quorum decides.
type HeardStatus struct {
	Index   uint64     // in the quorum's log; 0: none was heard, and the configuration holds
	From    string     `json:",omitempty"` // the Region that told
	At      *time.Time `json:",omitempty"`
	Problem string     `json:",omitempty"` // why it is not followed
}

func (h heard) status() HeardStatus {
	s := HeardStatus{Index: h.index, From: h.from, Problem: h.problem}
	if !h.at.IsZero() {
		at := h.at.UTC()
		s.At = &at
	}
	return s
}

// RegionStatus is what a router knows about one Region.
type RegionStatus struct {
	Name   string
	URL    string
	Switch SwitchState
	Weight float64

	State  State
	Since  time.Time
	Reason string
	// Health is the part of its share that the Region is given: 0 while it is
	// down, 1 when it is well.
	Health float64
	// Share is the part of all calls that it gets now, to a thousandth.
	Share     float64
	Falls     int
	HeldUntil *time.Time `json:",omitempty"` // when it may return at the earliest

	Check CheckStatus
	Tells HeardStatus // what it last said of the switches; index 0 without a problem: it does not vote

	InFlight int64
	Ended    map[string]uint64 // attempts since the start, by how they ended
	Rescued  uint64            // attempts that failed here and were made again elsewhere

	// Of the window that health is judged by: attempts, those that failed, those
	// without an answer for long, and how long answers took to begin.
	Window                 string
	Requests, Failed, Slow int
	P50Millis, P99Millis   float64
}

// CheckStatus is how the last check went.
type CheckStatus struct {
	At      *time.Time `json:",omitempty"` // nil: there was none
	Problem string     // empty: it passed
	Millis  float64
}

// Status returns the present state.
func (rt *Router) Status() Status {
	now := rt.now()
	rt.mu.Lock()
	defer rt.mu.Unlock()
	s := Status{
		Mode: rt.switches.Mode, Primary: rt.switches.Primary, Started: rt.started.UTC(),
		InFlight: rt.inFlight.Load(), Refusals: rt.refusals.Load(), Retries: rt.retries.Load(), Abandoned: rt.abandoned.Load(),
		Switches: rt.heard.status(),
	}
	parts := rt.view.Load().shares()
	for i, reg := range rt.regions {
		rs := reg.status(now, rt.switches.Regions[reg.name])
		rs.Share = math.Round(1000*parts[i]) / 1000
		s.Regions = append(s.Regions, rs)
	}
	return s
}

func (reg *region) status(now time.Time, sw Switch) RegionStatus {
	rs := RegionStatus{
		Name: reg.name, URL: reg.base.String(), Switch: sw.State, Weight: sw.Weight,
		InFlight: reg.inFlight.Load(), Rescued: reg.rescued.Load(), Ended: map[string]uint64{},
	}
	for o := range reg.ended {
		rs.Ended[outcomeNames[o]] = reg.ended[o].Load()
	}
	reg.mu.Lock()
	defer reg.mu.Unlock()
	h := &reg.health
	rs.State, rs.Since, rs.Reason, rs.Health, rs.Falls = h.state, h.since.UTC(), h.reason, h.share(), h.falls
	if h.state == Down {
		until := h.heldUntil.UTC()
		rs.HeldUntil = &until
	}
	if c := reg.check; !c.at.IsZero() {
		at := c.at.UTC()
		rs.Check = CheckStatus{At: &at, Problem: c.problem, Millis: millis(c.took)}
	}
	rs.Tells = reg.told.status()
	sum := h.window.sum(now)
	rs.Window, rs.Requests, rs.Failed, rs.Slow = h.cfg.Window.String(), sum.requests(), sum.failed(), int(sum.slow)
	rs.P50Millis, rs.P99Millis = millis(sum.took.quantile(0.50)), millis(sum.took.quantile(0.99))
	return rs
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// shares asks the view where it would send a thousand calls, and returns what
// part each Region would get, by index. That is true by construction.
func (v *view) shares() (parts [regionsMax]float64) {
	const calls = 1000
	for n := range uint64(calls) {
		o := v.inTurn(n)
		parts[v.places[o.at[0]].region.index] += 1.0 / calls
	}
	return parts
}

// Admin returns a handler of the router's own page, for an address that clients
// of the APIs do not reach.
func (rt *Router) Admin() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET "+StatusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(rt.Status()) // an error means that the client has gone
	})
	return m
}
