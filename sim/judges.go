package sim

import (
	"fmt"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
)

// window is the promise: a crash leaves at most this many sends ambiguous.
const window = 256

// flight is how long a message may be on its way between the last check and
// the carrier's clock: the longest stall that the carriers are told to make,
// and the time until a broken conversation is noticed.
const flight = 5 * time.Second

// Judge looks at a story and says what is wrong with it; nothing when all
// promises were kept. It knows nothing of how the node works.
func Judge(s *Story) []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	if s.Run.State != everpoint.RunStateCompleted {
		say("the campaign is %s: it did not go on by itself", s.Run.State)
	}
	for id, round := range s.Acknowledged {
		// An update whose answer was lost may be there too: never less than acknowledged.
		if s.Found[id] < round {
			say("endpoint %s: update %v was acknowledged, %v is there", id, round, s.Found[id])
		}
	}

	times, ids := map[string]int{}, map[string]int{}
	for _, m := range s.Outbox {
		ids[m.id]++
		times[m.to]++
	}
	listed, listedAddress := map[string]bool{}, map[string]bool{}
	for _, a := range s.Ambiguous {
		listed[a.MessageId] = true
		listedAddress[a.Address] = true
	}
	for id, n := range ids {
		if n > 1 && !listed[id] {
			say("message %s went out %d times and is not listed", id, n)
		}
	}
	for id, to := range s.Direct {
		if ids[id] == 0 && !listed[id] && !s.Refused[to] {
			say("direct message %s to %s was accepted and never went out", id, to)
		}
	}

	for _, p := range s.People {
		n := times[p.address]
		switch {
		case p.barred != "" && n > 0:
			say("%s is barred (%s) and was sent to", p.id, p.barred)
		case p.barred == "" && p.out.IsZero() && !p.unsure && n == 0 && !listedAddress[p.address]:
			if !s.Refused[p.address] {
				say("%s was left out, neither held nor listed nor refused", p.id)
			}
		}
		if p.out.IsZero() {
			continue
		}
		for _, m := range s.Outbox {
			if m.to == p.address && m.at.After(p.out.Add(flight)) {
				say("%s opted out at %s and was sent to at %s", p.id, p.out.Format(time.TimeOnly), m.at.Format(time.TimeOnly))
			}
		}
	}

	// Couriers may lose answers as well, a few in each story.
	if most := int64(s.Crashes*window + 64); int64(len(s.Ambiguous)) > most {
		say("%d sends are ambiguous after %d crashes, more than %d", len(s.Ambiguous), s.Crashes, most)
	}
	b := s.Balance
	held := int64(0)
	for _, n := range b.Held {
		held += n
	}
	if total := b.Sent + b.Failed + held + b.AmbiguousLeft + b.InFlight; !b.Balanced || total != b.Targets || b.InFlight != 0 {
		say("the reconciliation does not add up: %+v", b)
	}
	if b.Targets != int64(len(s.People)) {
		say("%d targets of %d people", b.Targets, len(s.People))
	}
	return wrong
}
