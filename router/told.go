package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// SwitchesPath is where the Regions tell what their quorum has decided; 404 says
// that they do not vote.
const SwitchesPath = "/everpoint/routing/v1/switches"

// toldBytesMax bounds what a Region tells: sixteen Regions' switches are 2 KiB.
const toldBytesMax = 64 << 10

// told is what a Region tells.
type told struct {
	Index   uint64 // in the quorum's log: of two answers the higher is the newer
	Mode    Mode
	Primary string
	Regions map[string]struct {
		Position SwitchState
		Weight   int // of 100: the part of the configured weight
	}
}

// heard is what was last heard, of all Regions or of one.
type heard struct {
	index   uint64 // 0: nothing yet
	from    string // the Region
	at      time.Time
	problem string // why it is not followed; empty if it is
}

// Hear asks all Regions once for the switches, and follows the newest answer. It
// takes as long as a check may, and is for the moment before the first request:
// a router that has just started sends nothing to a Region that is off.
func (rt *Router) Hear(ctx context.Context) {
	var all sync.WaitGroup
	for _, reg := range rt.regions {
		all.Go(func() { rt.hear(ctx, reg) })
	}
	all.Wait()
}

// hear asks one Region for the switches.
func (rt *Router) hear(ctx context.Context, reg *region) {
	said, err := rt.askSwitches(ctx, reg)
	if ctx.Err() != nil {
		return
	}
	now := rt.now()
	last := heard{index: said.Index, from: reg.name, at: now}
	if err != nil {
		last.problem = err.Error()
	} else if said.Index > 0 {
		rt.follow(reg.name, said, now)
	}
	reg.mu.Lock()
	reg.told = last
	reg.mu.Unlock()
}

// askSwitches returns what a Region tells; index 0 means that it does not vote.
func (rt *Router) askSwitches(ctx context.Context, reg *region) (told, error) {
	var said told
	ctx, cancel := context.WithTimeout(ctx, rt.cfg.Health.Timeout)
	defer cancel()
	at := url.URL{Scheme: reg.base.Scheme, Host: reg.base.Host, Path: SwitchesPath}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return said, err
	}
	resp, err := rt.behind.RoundTrip(req)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return said, fmt.Errorf("no answer within %v", rt.cfg.Health.Timeout)
		}
		return said, err
	}
	defer drain(resp)
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return said, nil
	default:
		return said, fmt.Errorf("answered %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, toldBytesMax)).Decode(&said); err != nil {
		return told{}, fmt.Errorf("cannot be read: %w", err)
	}
	return said, nil
}

// follow takes over what a Region told, unless something as new was heard
// before.
func (rt *Router) follow(from string, said told, now time.Time) {
	rt.hearing.Lock()
	defer rt.hearing.Unlock()
	rt.mu.Lock()
	before, present := rt.heard, rt.switches
	rt.mu.Unlock()
	if said.Index <= before.index {
		return
	}
	next, problem := rt.switchesOf(said)
	if err := rt.SetSwitches(next); err != nil {
		problem = err.Error()
	}
	rt.mu.Lock()
	rt.heard = heard{said.Index, from, now, problem}
	followed := rt.switches
	rt.mu.Unlock()
	if problem != "" && problem != before.problem {
		rt.log.Error("switches of the quorum are not followed", "region", from, "index", said.Index, "problem", problem)
	}
	if followed.Mode != present.Mode || followed.Primary != present.Primary || !maps.Equal(followed.Regions, present.Regions) {
		rt.log.Info("switches changed", "region", from, "index", said.Index, "mode", string(followed.Mode), "primary", followed.Primary,
			"switches", fmt.Sprint(followed.Regions))
	}
}

// switchesOf turns what was told into switches: of the Regions that are
// configured, with their weights taken as parts of the configured ones. A Region
// that is on with a weight of 0 gets nothing new. The problem says what cannot be
// followed though the rest is; empty if nothing.
func (rt *Router) switchesOf(said told) (next Switches, problem string) {
	next = Switches{Mode: said.Mode, Primary: said.Primary, Regions: map[string]Switch{}}
	known := false
	for _, r := range rt.cfg.Regions {
		known = known || r.Name == said.Primary
		sw, ok := said.Regions[r.Name]
		if !ok {
			continue
		}
		next.Regions[r.Name] = Switch{State: sw.Position, Weight: r.Weight * float64(sw.Weight) / weightWhole}
		if sw.Position == On && sw.Weight == 0 {
			next.Regions[r.Name] = Switch{State: Draining}
		}
	}
	if said.Primary != "" && !known {
		next.Primary = ""
		problem = fmt.Sprintf("primary %q is not among the router's Regions", said.Primary)
	}
	return next, problem
}

// weightWhole is the weight of a switch that leaves the configured weight as it
// is.
const weightWhole = 100
