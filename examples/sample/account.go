package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Message is a message of the outbox: what a carrier took.
type Message struct {
	N         int       `json:"n"`
	Channel   string    `json:"channel"`
	Region    string    `json:"region"` // that sent it
	To        string    `json:"to"`
	Subject   string    `json:"subject"`
	Body      string    `json:"body"`
	MessageID string    `json:"messageId"`
	Time      time.Time `json:"time"` // when the carrier took it
}

// AmbiguousSend is a send whose outcome Everpoint does not know, or did not for
// a while.
type AmbiguousSend struct {
	MessageId, EndpointId, Channel, Address string
	Decision                                string // LEFT or RESENT
	Resolution                              string // later knowledge; empty while there is none
}

// Reconciliation is Everpoint's own sum of a campaign.
type Reconciliation struct {
	Targets, Sent, Failed                                 int64
	Held                                                  map[string]int64
	AmbiguousLeft, AmbiguousResent, InFlight, Unaccounted int64
	Balanced                                              bool
}

// Account is what became of everybody, from both sides.
type Account struct {
	Everpoint Reconciliation
	Listed    int // ambiguous sends

	Expected   map[Fate]int   // lines of the file, by what must become of them
	Messages   int            // in the outbox
	Recipients int            // distinct, in the outbox
	ByRegion   map[string]int // messages, by the Region that sent them
	Once       int            // recipients with one message
	Duplicates int            // messages beyond the first to the same recipient
	// DuplicatesListed are those whose Message-ID is in the list of ambiguous sends.
	DuplicatesListed int
	// Lost are recipients that must be reached, are not in the outbox, and are not
	// listed.
	Lost int
	// UnsureMissing are recipients that must be reached, are not in the outbox, and
	// are listed as ambiguous: nobody can know.
	UnsureMissing int
	// UnsureFailed are endpoints whose mail cannot be made and that are listed: the
	// node was killed between their intent and the attempt.
	UnsureFailed int

	Problems []string // why it does not add up; empty when it does
}

// problemsMax bounds the list that people are shown.
const problemsMax = 20

func (a *Account) problem(format string, args ...any) {
	if len(a.Problems) < problemsMax {
		a.Problems = append(a.Problems, fmt.Sprintf(format, args...))
	}
}

// Reconcile holds three lists against each other: who must be reached, what the
// carriers took, and what Everpoint says it does not know. It is pure.
func Reconcile(people []Endpoint, messages []Message, ambiguous []AmbiguousSend, says Reconciliation) *Account {
	a := &Account{Everpoint: says, Listed: len(ambiguous), Expected: map[Fate]int{}, ByRegion: map[string]int{}, Messages: len(messages)}
	listedMessage, listedEndpoint := map[string]bool{}, map[string]bool{}
	for _, s := range ambiguous {
		listedMessage[s.MessageId], listedEndpoint[s.EndpointId] = true, true
	}

	// Of the endpoints that share an address one may be reached at most.
	reachable := map[string]*Endpoint{}
	known := map[string]bool{}
	for i := range people {
		e := &people[i]
		a.Expected[e.Fate]++
		if e.Fate == Unrenderable && listedEndpoint[e.ID] {
			a.UnsureFailed++
		}
		known[e.Address] = true
		if e.Fate == Reached {
			if other := reachable[e.Address]; other != nil {
				a.problem("the sample is wrong: %s and %s share an address", other.ID, e.ID)
			}
			reachable[e.Address] = e
		}
	}

	seen := map[string][]Message{}
	for _, m := range messages {
		a.ByRegion[m.Region]++
		e := reachable[m.To]
		switch {
		case e == nil && known[m.To]:
			a.problem("message %s went to somebody who must not be reached", m.MessageID)
		case e == nil:
			a.problem("message %s went to nobody of the file", m.MessageID)
		case e.Channel != m.Channel:
			a.problem("message %s to %s went out as %s", m.MessageID, e.ID, m.Channel)
		default:
			got := m.Subject
			if m.Channel == "SMS" {
				got = m.Body
			}
			if want := e.Rendered(); got != want {
				a.problem("message %s to %s reads %q, want %q", m.MessageID, e.ID, got, want)
			}
		}
		if before := seen[m.To]; len(before) > 0 {
			a.Duplicates++
			if listedMessage[m.MessageID] && before[0].MessageID == m.MessageID {
				a.DuplicatesListed++
			} else {
				a.problem("message %s went out again and is not listed", m.MessageID)
			}
		}
		seen[m.To] = append(seen[m.To], m)
	}
	a.Recipients = len(seen)
	for _, all := range seen {
		if len(all) == 1 {
			a.Once++
		}
	}
	for address, e := range reachable {
		switch {
		case len(seen[address]) > 0:
		case listedEndpoint[e.ID]:
			a.UnsureMissing++
		default:
			a.Lost++
			a.problem("%s was not reached and is not listed", e.ID)
		}
	}
	a.compare()
	return a
}

// compare holds Everpoint's own sum against the file.
func (a *Account) compare() {
	says := a.Everpoint
	if !says.Balanced || says.Unaccounted != 0 || says.InFlight != 0 {
		a.problem("Everpoint's own reconciliation is not balanced: %d unaccounted, %d in flight", says.Unaccounted, says.InFlight)
	}
	targets := 0
	for fate, n := range a.Expected {
		if fate != NotTargeted {
			targets += n
		}
	}
	equal := func(what string, got int64, want int) {
		if got != int64(want) {
			a.problem("%s: Everpoint says %d, the file says %d", what, got, want)
		}
	}
	equal("targets", says.Targets, targets)
	equal("sent, failed or left ambiguous", says.Sent+says.Failed+says.AmbiguousLeft, a.Expected[Reached]+a.Expected[Unrenderable])
	if most := a.Expected[Unrenderable]; says.Failed > int64(most) || says.Failed < int64(most-a.UnsureFailed) {
		a.problem("failed: Everpoint says %d, the file says %d, of whom %d are listed as ambiguous", says.Failed, most, a.UnsureFailed)
	}
	held := map[string]int64{}
	for _, f := range []Fate{OptedOut, Inactive} {
		if n := a.Expected[f]; n > 0 {
			held[string(f)] = int64(n)
		}
	}
	if !maps.Equal(held, says.Held) {
		a.problem("held: Everpoint says %v, the file says %v", says.Held, held)
	}
}

// Verdict is nil when everything adds up, and otherwise says the worst of it.
func (a *Account) Verdict() error {
	switch unlisted := a.Duplicates - a.DuplicatesListed; {
	case a.Lost > 0 || unlisted > 0:
		return fmt.Errorf("%w: %d recipients were lost, and %d messages went out twice without being listed", errUnbalanced, a.Lost, unlisted)
	case len(a.Problems) > 0:
		return fmt.Errorf("%w: nobody was lost or written to twice without being listed, but %s", errUnbalanced, a.Problems[0])
	default:
		return nil
	}
}

// Print writes the account for people.
func (a *Account) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(what string, n int64, note string) { fmt.Fprintf(t, "%s\t%d\t  %s\n", what, n, note) }
	row("targets", a.Everpoint.Targets, "")
	row("sent", a.Everpoint.Sent, "")
	var held int64
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(a.Everpoint.Held)) {
		held += a.Everpoint.Held[reason]
		why = append(why, fmt.Sprintf("%s %d", reason, a.Everpoint.Held[reason]))
	}
	row("held", held, strings.Join(why, ", "))
	row("failed", a.Everpoint.Failed, "no value for a name in the mail")
	row("ambiguous, left", a.Everpoint.AmbiguousLeft, "may or may not have arrived; listed")
	row("ambiguous, sent again", a.Everpoint.AmbiguousResent, "with the same Message-ID; listed")
	row("unaccounted", a.Everpoint.Unaccounted, "")
	row("messages in the outbox", int64(a.Messages), "")
	for _, region := range slices.Sorted(maps.Keys(a.ByRegion)) {
		row("by "+region, int64(a.ByRegion[region]), "")
	}
	row("recipients reached once", int64(a.Once), "")
	row("duplicates, listed", int64(a.DuplicatesListed), "")
	row("duplicates, not listed", int64(a.Duplicates-a.DuplicatesListed), "")
	row("missing, but listed", int64(a.UnsureMissing), "")
	row("lost", int64(a.Lost), "missing and not listed")
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range a.Problems {
		fmt.Fprintln(w, "  does not add up:", p)
	}
	return nil
}
