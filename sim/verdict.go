package sim

import (
	"fmt"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
)

// shippedAfter is within what a write of one Region is in the other when nothing
// is wrong: what is lost with a disk is younger.
const shippedAfter = 5 * time.Second

// JudgeGroup looks at a group's chronicle and says what is wrong with it; nothing
// when all promises were kept. It knows nothing of how a group works.
func JudgeGroup(c *Chronicle) []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	if !c.Settled {
		say("the Regions do not agree: %s", c.Why)
	}
	if c.Split != "" {
		say("the voters do not agree: %s", c.Split)
	}
	touched, deleted := map[string]time.Time{}, map[string]time.Time{}
	for i := range c.Acts {
		a := &c.Acts[i]
		switch a.What {
		case "delete":
			deleted[a.ID] = a.Began
		case "round", "optout":
			if a.Ended.After(touched[a.ID]) {
				touched[a.ID] = a.Ended
			}
		}
	}
	for i := range c.Acts {
		a := &c.Acts[i]
		if a.Err != nil {
			continue
		}
		for _, region := range regionNames {
			_, gone := deleted[a.ID]
			e := c.Endpoints[region][a.ID]
			switch {
			case a.What == "delete" && e != nil && touched[a.ID].Before(a.Began):
				say("%s: %s was deleted in %s at %s, acknowledged at %s, and is there", region, a.ID, a.Region, clock(a.Began), clock(a.Ended))
			case a.What == "segment" && !c.Segments[region][a.ID]:
				say("%s: segment %s was acknowledged in %s at %s, and is not there", region, a.ID, a.Region, clock(a.Ended))
			case gone:
			case a.What == "optout" && (e == nil || e.OptOut != pinpoint.OptOutAll):
				say("%s: %s opted out in %s at %s, and may be sent to", region, a.ID, a.Region, clock(a.Ended))
			case a.What == "round" && (e == nil || e.Metrics["Round-"+a.Region] < a.Value) && !c.lostWith(a):
				say("%s: round %v of %s in %s was acknowledged at %s, and it is %+v", region, a.Value, a.ID, a.Region, clock(a.Ended), e)
			}
		}
	}
	c.judgeSends(say)
	return wrong
}

// sureAfter bounds the time from an acknowledged opt-out to the last send that could
// not know of it. Where nothing is wrong a message that was checked before is on
// its way for a moment. Where the Regions do not hear each other, one may have been
// removed without knowing, and goes on until its lease is over.
const (
	sureAfter     = 2 * time.Second
	sureAfterLoss = 6*time.Second + flight
)

// judgeSends looks at what the carriers received.
func (c *Chronicle) judgeSends(say func(string, ...any)) {
	for subject, state := range c.Runs {
		if state != everpoint.RunStateCompleted {
			say("campaign %q is %s: nobody finished it", subject, state)
		}
	}
	out, asked := map[string]time.Time{}, map[string]bool{}
	acknowledged := map[string]bool{}
	listed := func(subject, address string) bool {
		if !acknowledged[subject] {
			subject = ""
		}
		for _, region := range regionNames {
			if !c.Listed[region][[2]string{subject, address}] {
				return false
			}
		}
		return true
	}
	for i := range c.Acts {
		a := &c.Acts[i]
		switch {
		case a.What == "campaign" && a.Err == nil:
			acknowledged[a.ID] = true
		case a.What == "optout":
			address := memberAddress(a.ID)
			asked[address] = true
			if at, ok := out[address]; a.Err == nil && (!ok || a.Ended.Before(at)) {
				out[address] = a.Ended
			}
		}
	}
	times := map[[2]string]int{}
	for i := range c.Outbox {
		m := &c.Outbox[i]
		times[[2]string{m.subject, m.to}]++
		if at, ok := out[m.to]; ok && m.at.After(c.known(at, m)) {
			say("%s opted out at %s and was sent %q by %s at %s", m.to, clock(at), m.subject, m.region, clock(m.at))
		}
	}
	for who, n := range times {
		if n > 1 && !listed(who[0], who[1]) {
			say("%s was sent %q %d times and is not listed", who[1], who[0], n)
		}
	}
	for _, to := range c.unsent() {
		say("a message to %s was accepted, and was neither sent, refused nor listed", to)
	}
	for subject := range acknowledged {
		for i := range memberCount {
			to := memberAddress(memberID(i))
			if times[[2]string{subject, to}] == 0 && !asked[to] && !listed(subject, to) && !c.Refused[to] {
				say("%s was left out of %q, neither sent, held, refused nor listed", to, subject)
			}
		}
	}
}

// known is until when a message may arrive at the carrier although an opt-out was
// acknowledged at a moment.
func (c *Chronicle) known(at time.Time, m *sent) time.Time {
	until := at.Add(sureAfter)
	for _, t := range c.Trouble {
		if t[0].Before(m.at) && t[1].After(at.Add(-sureAfterLoss)) {
			until = at.Add(sureAfterLoss)
		}
	}
	for _, f := range c.Frozen {
		// What is in a socket when nothing runs leaves when it runs again.
		if f.Region == m.region && f.From.Before(until) && f.To.Add(flight).After(until) {
			until = f.To.Add(flight)
		}
	}
	return until
}

func clock(t time.Time) string { return t.Format("04:05.000") }

// lostWith reports whether a local write may have been lost with the disk of its
// Region.
func (c *Chronicle) lostWith(a *Act) bool {
	for _, l := range c.Losses {
		if l.Region == a.Region && l.At.After(a.Began) && !c.calm(a.Ended, l.At) {
			return true
		}
	}
	return false
}

// calm reports whether nothing was wrong between two moments for long enough.
func (c *Chronicle) calm(from, to time.Time) bool {
	for at := from; at.Add(shippedAfter).Before(to); at = at.Add(shippedAfter / 4) {
		quiet := true
		for _, t := range c.Trouble {
			quiet = quiet && (!t[0].Before(at.Add(shippedAfter)) || !t[1].After(at))
		}
		if quiet {
			return true
		}
	}
	return false
}
