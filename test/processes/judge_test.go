package processes

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// ambiguousPerKillMax is how many sends a node may have between intent and
// outcome, and so how many a kill may leave unknown.
const ambiguousPerKillMax = 256

type reconciliation struct {
	Targets, Sent, Failed, AmbiguousLeft, AmbiguousResent, InFlight, Unaccounted int64
	Held                                                                         map[string]int64
	Balanced                                                                     bool
}

// verdict is what the judge counted.
type verdict struct {
	messages, recipients, duplicates, listed, missing int
	says                                              reconciliation
}

func (v verdict) String() string {
	return fmt.Sprintf("%d messages to %d recipients, %d duplicates, %d listed, %d of them missing; says %+v",
		v.messages, v.recipients, v.duplicates, v.listed, v.missing, v.says)
}

// judge holds the outbox of a finished campaign against who was to be reached,
// out of n targets, and against the list of ambiguous sends.
func (a *app) judge(campaign string, n int, reach map[string]bool) verdict {
	a.t.Helper()
	says, err := a.reconciliation(a.at, campaign)
	if err != nil {
		a.t.Fatal(err)
	}
	v, problems := weigh(n, reach, a.messages(), a.ambiguousSends(campaign), says)
	for i, p := range problems {
		if i == problemsMax {
			a.t.Errorf("and %d more", len(problems)-i)
			break
		}
		a.t.Error(p)
	}
	a.t.Log(v)
	return v
}

// reconciliation is what the ith node says of a campaign.
func (a *app) reconciliation(i int, campaign string) (says reconciliation, err error) {
	err = a.admin(i, http.MethodGet, "/apps/"+a.id+"/campaigns/"+campaign+"/reconciliation", nil, nil, &says)
	return says, err
}

const problemsMax = 20

// weigh is the judgment itself; without problems the promise was kept.
func weigh(
	n int, reach map[string]bool, messages []message, ambiguous []ambiguousSend, says reconciliation,
) (v verdict, problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	listed, listedAddress := map[string]bool{}, map[string]bool{}
	out := int64(0) // left, though they opted out: a Region that is lost had them, and nobody knows what became of it
	for _, s := range ambiguous {
		listed[s.MessageId], listedAddress[s.Address] = true, true
		if !reach[s.Address] && s.Decision == "LEFT" {
			out++
		}
	}
	v = verdict{messages: len(messages), listed: len(ambiguous), says: says}
	first := map[string]message{}
	for _, m := range messages {
		if !reach[m.To] {
			problem("message %s went to %s, who must not be reached", m.MessageID, m.To)
		}
		before, again := first[m.To]
		switch {
		case !again:
			first[m.To] = m
		case before.MessageID != m.MessageID:
			problem("%s was sent to as %s and as %s", m.To, before.MessageID, m.MessageID)
		case !listed[m.MessageID]:
			problem("message %s to %s went out again and is not listed", m.MessageID, m.To)
		default:
			v.duplicates++
		}
	}
	v.recipients = len(first)
	for address := range reach {
		if _, ok := first[address]; ok {
			continue
		}
		if !listedAddress[address] {
			problem("%s is lost: not in the outbox, not listed, not held", address)
		}
		v.missing++
	}
	switch {
	case !says.Balanced || says.Unaccounted != 0 || says.InFlight != 0 || says.Failed > int64(len(ambiguous)):
		problem("the reconciliation is not balanced: %+v", says)
	case says.Targets != int64(n):
		problem("%d targets, want %d", says.Targets, n)
	case says.Sent+says.Failed+says.AmbiguousLeft != int64(len(reach))+out: // a Region that was away may know that one failed
		problem("%d sent and %d left ambiguous, want %d together", says.Sent, says.AmbiguousLeft, int64(len(reach))+out)
	case says.Held["ENDPOINT_OPT_OUT"] != int64(n-len(reach))-out || len(says.Held) > 1:
		problem("held %v, want %d for their opt-out", says.Held, n-len(reach))
	}
	return v, problems
}

// The judge must find what it is for.
func TestJudge(t *testing.T) {
	reach := map[string]bool{"a": true, "b": true, "c": true}
	sent := []message{{To: "a", MessageID: "1"}, {To: "b", MessageID: "2"}, {To: "c", MessageID: "3"}}
	says := reconciliation{Targets: 4, Sent: 3, Held: map[string]int64{"ENDPOINT_OPT_OUT": 1}, Balanced: true}
	tests := []struct {
		name      string
		messages  []message
		ambiguous []ambiguousSend
		problem   string
	}{
		{"a_clean_run", sent, nil, ""},
		{"a_loss", sent[1:], nil, "a is lost"},
		{"a_listed_loss", sent[1:], []ambiguousSend{{MessageId: "1", Address: "a"}}, ""},
		{"a_duplicate", append(slices.Clone(sent), sent[0]), nil, "is not listed"},
		{"a_listed_duplicate", append(slices.Clone(sent), sent[0]), []ambiguousSend{{MessageId: "1", Address: "a"}}, ""},
		{
			"a_duplicate_under_another_id", append(slices.Clone(sent), message{To: "a", MessageID: "4"}),
			[]ambiguousSend{{MessageId: "4", Address: "a"}},
			"as 1 and as 4",
		},
		{"somebody_who_opted_out", append(slices.Clone(sent), message{To: "d", MessageID: "4"}), nil, "must not be reached"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := weigh(4, reach, tt.messages, tt.ambiguous, says)
			if found := strings.Join(problems, "; "); tt.problem == "" && found != "" || !strings.Contains(found, tt.problem) {
				t.Errorf("got %q, want %q", found, tt.problem)
			}
		})
	}
	for name, change := range map[string]func(*reconciliation){
		"unaccounted": func(r *reconciliation) { r.Unaccounted = 1 },
		"targets":     func(r *reconciliation) { r.Targets-- },
		"sent":        func(r *reconciliation) { r.Sent-- },
		"held":        func(r *reconciliation) { r.Held = nil },
	} {
		r := says
		change(&r)
		if _, problems := weigh(4, reach, sent, nil, r); len(problems) == 0 {
			t.Errorf("a wrong reconciliation was not noticed: %s", name)
		}
	}
}

// perKill holds the list of ambiguous sends against the moments of the kills:
// what was intended between two of them was in flight at the later one, or, with
// several nodes, at the kill of another node after it.
func (a *app) perKill(campaign string, kills []time.Time) {
	a.t.Helper()
	count := make([]int, len(kills))
	total := 0
	for _, s := range a.ambiguousSends(campaign) {
		total++
		at := slices.IndexFunc(kills, func(kill time.Time) bool { return !s.IntentAt.After(kill) })
		if at < 0 {
			a.t.Errorf("message %s became ambiguous after the last kill, at %v", s.MessageId, s.IntentAt)
			continue
		}
		count[at]++
	}
	a.t.Logf("ambiguous by kill: %v", count)
	for i, n := range count {
		if most := ambiguousPerKillMax * len(a.nodes); n > most {
			a.t.Errorf("up to kill %d there are %d ambiguous sends, at most %d were allowed", i+1, n, most)
		}
	}
	if most := ambiguousPerKillMax * len(kills); total > most {
		a.t.Errorf("%d kills left %d sends ambiguous, at most %d were allowed", len(kills), total, most)
	}
}
