package processes

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

// only waits until the ith Region sees itself alone in the set.
func (w *world) only(i int) {
	w.t.Helper()
	until(w.t, w.nodes[i].name+" does not go on alone", func() bool {
		for _, r := range w.group(i).Regions {
			if r.InSync != (r.Region == w.nodes[i].name) {
				return false
			}
		}
		return true
	})
}

// pause stops a process where it is; resume lets it go on.
func (p *process) pause(t *testing.T)  { p.signal(t, syscall.SIGSTOP) }
func (p *process) resume(t *testing.T) { p.signal(t, syscall.SIGCONT) }

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// The Regions are cut off from each other, one goes on alone, and then that one is
// killed. The other does nothing until an operator says that the dead one never comes
// back, for its disk is gone, or until it is back with its disk; then the campaign is
// finished, and nobody is lost, or hears twice, without being listed. A Region with an
// empty disk takes the place of a lost one, perhaps while the campaign is not over.
func TestTakeoverInTheHarderOrder(t *testing.T) {
	rnd := seeded(t)
	w := newCut(t)
	for kill := range killsOf(t, 2) {
		takeoverInTheHarderOrder(t, w, rnd, kill)
	}
}

// cutAfter lets a campaign begin and cuts a Region off when so many messages are out.
// Cut off is a Region whose links are cut, or one that is stopped where it is. It
// returns what ends that.
func (a *app) cutAfter(i, messages int, stopped, hold bool) (healed func()) {
	a.t.Helper()
	untilEvery(a.t, time.Millisecond, "the campaign does not begin", func() bool { return a.wentOut() >= messages })
	if stopped {
		a.nodes[i].pause(a.t)
		return func() { a.nodes[i].resume(a.t) }
	}
	a.network.cut(a.nodes[i].name, hold)
	return a.network.heal
}

func takeoverInTheHarderOrder(t *testing.T, w *world, rnd *rand.Rand, kill int) {
	t.Helper()
	a := newApp(t, w)
	reach := a.audience(recipientsOfTakeover)
	before := w.wentOut()
	w.told = before
	out := func() int { return w.wentOut() - before }
	lost := rnd.IntN(2)
	heir := 1 - lost
	disk := kill%2 == 0 // is gone
	policy := []string{"LEAVE", "RESEND"}[rnd.IntN(2)]
	if disk {
		// What the heir sent right before the cut, and the other had not heard of, that one
		// may have sent again: with RESEND it is not listed yet (docs/resilience.md).
		policy = "LEAVE"
	}
	stopped, hold, wait, early := rnd.IntN(2) == 0, rnd.IntN(2) == 0, rnd.IntN(4) == 0, rnd.IntN(2) == 0
	cut := rnd.IntN(len(reach) / 2)
	campaign := a.campaign(policy)
	healed := a.cutAfter(heir, before+cut, stopped, hold)
	a.ask(lost)
	w.only(lost)
	alone := out()
	moment := alone + 1 + rnd.IntN(max(1, len(reach)-alone))
	untilEvery(t, time.Millisecond, "the Region that is alone does not send", func() bool { return out() >= moment || a.over(campaign) })
	if wait {
		a.finish(campaign)
	}
	w.nodes[lost].kill()
	died := time.Now()
	dead := out()
	t.Logf("kill %d: %s was cut off after %d messages (stopped %v), %s was alone from %d on and dies after %d of %d, disk gone %v, %s",
		kill+1, w.nodes[heir].name, cut, stopped, w.nodes[lost].name, alone, dead, len(reach), disk, policy)
	// What is on its way at the cut and at the death may be listed.
	most := 2 * ambiguousPerKillMax
	if disk {
		w.lost(lost)
		healed()
		a.ask(heir)
		w.forgotten(heir, lost)
		t.Logf("%s has its place %s after the death; a successor of %s starts before the end %v",
			w.nodes[heir].name, time.Since(died).Round(time.Millisecond), w.nodes[lost].name, early)
		if early {
			w.start(lost)
		}
		// Besides, all that was sent in between, and what else the marks cover: they are
		// for whole blocks, of which 8 may be in work.
		most += dead - alone + 8*ambiguousPerKillMax
	} else {
		early = true
		w.nodes[lost].start(t)
		healed()
		w.ready(lost)
		a.gathered(lost)
	}
	a.finish(campaign)
	t.Logf("finished %s after the death", time.Since(died).Round(time.Millisecond))
	if !disk {
		a.gathered(heir)
		a.agreed(campaign, 0)
	}
	v := a.judge(campaign, recipientsOfTakeover, reach)
	if v.listed > most {
		t.Errorf("%d are listed, at most %d may be", v.listed, most)
	}
	if !early {
		w.start(lost)
	}
	a.agreed(campaign, v.says.Sent)
	a.ask(1 - a.at)
	if t.Failed() {
		t.FailNow()
	}
	a.judge(campaign, recipientsOfTakeover, reach)
}

// forgotten has the heir's operator declare a Region lost.
func (w *world) forgotten(heir, lost int) {
	w.t.Helper()
	var out string
	defer func() {
		if w.t.Failed() {
			status, err := w.command(heir, "region", "status")
			w.t.Logf("the last answer: %s\n%v\n%s", out, err, status)
		}
	}()
	until(w.t, "the lost Region is not forgotten", func() bool {
		var err error
		out, err = w.command(heir, "region", "forget", w.nodes[lost].name)
		return err == nil
	})
	if want := "WARNING: " + w.nodes[lost].name + " was in sync alone"; !strings.Contains(out, want) {
		w.t.Errorf("it is not said what is lost: %s", out)
	}
}

// over says that a campaign has ended.
func (a *app) over(campaign string) bool {
	r, err := a.runOf(campaign)
	return err == nil && r.State == "COMPLETED"
}

// agreed waits until both Regions are in sync and count the same, with at least as
// many sent and nothing under way: what a Region claimed in vain while it was cut off
// counts until another has found that it did.
func (a *app) agreed(campaign string, sent int64) {
	a.t.Helper()
	a.gathered(here)
	a.gathered(there)
	var says [2]reconciliation
	defer func() {
		if a.t.Failed() {
			a.t.Logf("the Regions say %+v", says)
		}
	}()
	until(a.t, "the Regions do not agree", func() bool {
		for i := range says {
			var err error
			if says[i], err = a.reconciliation(i, campaign); err != nil {
				return false
			}
		}
		return fmt.Sprint(says[0]) == fmt.Sprint(says[1]) && says[0].Balanced && says[0].InFlight == 0 && says[0].Sent >= sent
	})
}
