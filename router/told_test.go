package router

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// say lets a Region tell switches from now on.
func (b *bubble) say(name, text string) { b.regions[name].switches.Store(&text) }

// switchesAt is what a Region tells, with the positions of the first two Regions.
func switchesAt(index int, one, two string) string {
	return fmt.Sprintf(`{"Index": %d, "Mode": "active-active", "Primary": "", "Regions": {"eu-1-1": {"Position": %q, "Weight": 100}, "eu-2-1": {"Position": %q, "Weight": 100}}}`,
		index, one, two)
}

func TestRouter_follows_the_newest_switches(t *testing.T) {
	inBubble(t, 2, ActiveActive, func(b *bubble) {
		// Before the first request: what was decided holds at once, and only of two
		// answers the newer.
		b.say("eu-1-1", switchesAt(7, "off", "on"))
		b.say("eu-2-1", switchesAt(4, "on", "off"))
		b.rt.Hear(b.t.Context())
		if got := b.shares(100); got["eu-2-1"] != 100 {
			t.Errorf("after a start with one Region off: %v", got)
		}
		s := b.rt.Status()
		if s.Switches.Index != 7 || s.Switches.From != "eu-1-1" || s.Switches.At == nil || s.Switches.Problem != "" {
			t.Errorf("the status says %+v", s.Switches)
		}
		if tells := s.Regions[1].Tells; tells.Index != 4 || tells.At == nil {
			t.Errorf("the status says of the Region that is behind: %+v", tells)
		}

		// A later decision is heard within a second or two, from whoever has it.
		b.say("eu-2-1", switchesAt(9, "draining", "on"))
		b.pass(2 * time.Second)
		if s := b.rt.Status(); s.Switches.Index != 9 || s.Switches.From != "eu-2-1" || s.Regions[0].Switch != Draining {
			t.Errorf("the status says %+v, %s", s.Switches, s.Regions[0].Switch)
		}
		// An older one that comes late changes nothing.
		b.say("eu-1-1", switchesAt(8, "on", "off"))
		b.pass(2 * time.Second)
		if got := b.shares(100); got["eu-2-1"] != 100 {
			t.Errorf("after an older answer: %v", got)
		}
		// What is switched on returns in steps, and is not sent back to the first by
		// each newer answer of the same.
		for i := range 60 {
			b.say("eu-1-1", switchesAt(10+i, "on", "on"))
			b.pass(time.Second)
		}
		if got := b.shares(1000); got["eu-1-1"] < 400 {
			t.Errorf("a minute after it was switched on: %v", got)
		}
		// Nobody tells any more: the last decision stands.
		b.say("eu-1-1", switchesAt(100, "on", "off"))
		b.pass(2 * time.Second)
		b.regions["eu-1-1"].switches.Store(nil)
		b.regions["eu-2-1"].switches.Store(nil)
		b.pass(time.Minute)
		if got := b.shares(100); got["eu-1-1"] != 100 {
			t.Errorf("after nobody tells any more: %v", got)
		}
		if tells := b.rt.Status().Regions[0].Tells; tells.Index != 0 || tells.Problem != "" {
			t.Errorf("the status says of a Region that does not vote: %+v", tells)
		}
	})
}

func TestRouter_switches_it_cannot_follow(t *testing.T) {
	tests := []struct {
		name, said string
		problem    string // of the switches, or of the Region that told
		state      SwitchState
		mode       Mode
		weight     float64
	}{
		{"not JSON", `<html>`, "cannot be read", On, ActiveActive, 1},
		{"endless", `{"Mode": "` + strings.Repeat("x", toldBytesMax), "cannot be read", On, ActiveActive, 1},
		{"an unknown position", switchesAt(1, "half", "on"), `state "half"`, On, ActiveActive, 1},
		{"all off", switchesAt(1, "off", "off"), "no Region would be on", On, ActiveActive, 1},
		{"an unknown mode", `{"Index": 1, "Mode": "both"}`, `mode "both"`, On, ActiveActive, 1},
		{
			"an unknown primary, and the rest holds", `{"Index": 1, "Mode": "warm-standby", "Primary": "eu-9-1", "Regions": {"eu-1-1": {"Position": "off", "Weight": 100}}}`,
			`primary "eu-9-1" is not`, Off, WarmStandby, 1,
		},
		{"a Region that is not configured", `{"Index": 1, "Regions": {"eu-9-1": {"Position": "off", "Weight": 100}}}`, "", On, ActiveActive, 1},
		{"half a weight", `{"Index": 1, "Regions": {"eu-1-1": {"Position": "on", "Weight": 50}}}`, "", On, ActiveActive, 0.5},
		{"no weight", `{"Index": 1, "Regions": {"eu-1-1": {"Position": "on", "Weight": 0}}}`, "", Draining, ActiveActive, 1},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			inBubble(t, 2, ActiveActive, func(b *bubble) {
				b.say("eu-1-1", tt.said)
				b.rt.Hear(b.t.Context())
				s := b.rt.Status()
				problem := s.Switches.Problem + s.Regions[0].Tells.Problem
				if (problem == "") != (tt.problem == "") || !strings.Contains(problem, tt.problem) {
					t.Errorf("the problem is %q, want %q", problem, tt.problem)
				}
				if r := s.Regions[0]; r.Switch != tt.state || s.Mode != tt.mode || r.Weight != tt.weight {
					t.Errorf("%s, mode %s, weight %g; want %s, %s, %g", r.Switch, s.Mode, r.Weight, tt.state, tt.mode, tt.weight)
				}
			})
		})
	}
}

func TestRouter_hears_beside_its_checks(t *testing.T) {
	inBubble(t, 2, ActiveActive, func(b *bubble) {
		// A Region that hangs does not keep the others from being heard, nor is its
		// own fall found later for it.
		b.regions["eu-1-1"].hangs.Store(true)
		b.say("eu-2-1", switchesAt(3, "off", "on"))
		b.pass(3500 * time.Millisecond)
		s := b.rt.Status()
		if s.Switches.Index != 3 || s.Regions[0].State != Down {
			t.Errorf("%+v, and the Region that hangs is %s", s.Switches, s.Regions[0].State)
		}
		if p := s.Regions[0].Tells.Problem; p != "no answer within 1s" {
			t.Errorf("the problem is %q", p)
		}
	})
}
