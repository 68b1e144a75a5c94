package router

import (
	"errors"
	"fmt"
)

// weightMax bounds weights, so that sums of them stay exact enough.
const weightMax = 1e6

// SwitchState is what operators have decided about a Region.
type SwitchState string

// The states of a switch.
const (
	On       SwitchState = "on"
	Off      SwitchState = "off"      // takes no requests, ill though the others may be
	Draining SwitchState = "draining" // takes no new requests; those in flight finish
)

// A Switch is what is decided about a Region, whatever its health.
type Switch struct {
	State  SwitchState // empty means on
	Weight float64     // 0 keeps the present weight
}

// Switches are what is decided about the group. They come from outside: from the
// quorum, as the Regions tell it.
type Switches struct {
	Mode    Mode   // empty keeps the present mode
	Primary string // empty keeps the present primary

	// Regions holds the switches that change, by name; the others stay.
	Regions map[string]Switch
}

// SetSwitches changes switches, all or, with an error, none. A Region that is
// switched on returns in steps, as after an illness. Nobody can switch off or
// drain the last Region that is on.
func (rt *Router) SetSwitches(s Switches) error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	next := Switches{Mode: rt.switches.Mode, Primary: rt.switches.Primary, Regions: map[string]Switch{}}
	for name, sw := range rt.switches.Regions {
		next.Regions[name] = sw
	}
	if s.Mode != "" {
		next.Mode = s.Mode
	}
	if s.Primary != "" {
		next.Primary = s.Primary
	}
	if next.Mode != ActiveActive && next.Mode != WarmStandby {
		return fmt.Errorf("router: mode %q is neither %s nor %s", next.Mode, ActiveActive, WarmStandby)
	}
	if _, ok := next.Regions[next.Primary]; !ok {
		return fmt.Errorf("router: primary %q is no Region of the group", next.Primary)
	}
	for name, sw := range s.Regions {
		present, ok := next.Regions[name]
		if !ok {
			return fmt.Errorf("router: switch of %q: no Region of the group", name)
		}
		or(&sw.State, On)
		or(&sw.Weight, present.Weight)
		if sw.State != On && sw.State != Off && sw.State != Draining {
			return fmt.Errorf("router: switch of %q: state %q is not on, off or draining", name, sw.State)
		}
		if !(sw.Weight > 0 && sw.Weight <= weightMax) {
			return fmt.Errorf("router: switch of %q: weight %g is not above 0 and at most %g", name, sw.Weight, float64(weightMax))
		}
		next.Regions[name] = sw
	}
	on := 0
	for _, sw := range next.Regions {
		if sw.State == On {
			on++
		}
	}
	if on == 0 {
		return errors.New("router: no Region would be on")
	}
	now := rt.now()
	for _, reg := range rt.regions {
		if was := rt.switches.Regions[reg.name]; was.State != On && next.Regions[reg.name].State == On {
			reg.mu.Lock()
			reg.health.resume(now)
			reg.mu.Unlock()
		}
	}
	rt.switches = next
	rt.lookAgain()
	return nil
}

// refresh makes a new view after some Region's health has changed.
func (rt *Router) refresh() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.lookAgain()
}

// lookAgain makes a new view; the caller holds rt.mu.
func (rt *Router) lookAgain() {
	v := &view{}
	for _, reg := range rt.regions {
		sw := rt.switches.Regions[reg.name]
		if sw.State != On {
			continue
		}
		reg.mu.Lock()
		share := reg.health.share()
		reg.mu.Unlock()
		if share > 0 {
			v.healthy++
		}
		if rt.switches.Mode == WarmStandby && reg.name == rt.switches.Primary {
			v.primary = len(v.places) + 1
		}
		v.places = append(v.places, place{region: reg, seed: reg.seed, weight: sw.Weight, share: share})
		v.weights += sw.Weight
	}
	rt.view.Store(v)
}
