package sim

import (
	"fmt"
	"time"

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
	return wrong
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
