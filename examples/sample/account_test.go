package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// played is a campaign that went well: every reachable endpoint has a message.
func played(people []Endpoint) (messages []Message, says Reconciliation) {
	says = Reconciliation{Held: map[string]int64{}, Balanced: true}
	for i := range people {
		e := &people[i]
		if e.Fate == NotTargeted {
			continue
		}
		says.Targets++
		switch e.Fate {
		case Reached:
			says.Sent++
			m := Message{N: len(messages) + 1, Channel: e.Channel, To: e.Address, MessageID: fmt.Sprint("m", i)}
			if e.Channel == "SMS" {
				m.Body = e.Rendered()
			} else {
				m.Subject = e.Rendered()
			}
			messages = append(messages, m)
		case Unrenderable:
			says.Failed++
		default:
			says.Held[string(e.Fate)]++
		}
	}
	return messages, says
}

func TestPeople(t *testing.T) {
	people := People(10_000, 1)
	if again := People(10_000, 1); !slices.EqualFunc(people, again, func(a, b Endpoint) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Error("the same seed gave other people")
	}
	ids, users, fates, holder := map[string]bool{}, map[string]int{}, map[Fate]int{}, map[string]int{}
	for i := range people {
		e := &people[i]
		if ids[e.ID] {
			t.Fatalf("%s is there twice", e.ID)
		}
		ids[e.ID] = true
		users[e.UserID]++
		fates[e.Fate]++
		holder[e.Address] = i // the last line with an address holds it
	}
	for i := range people {
		e := &people[i]
		if took := holder[e.Address] != i; took != (e.Fate == Inactive && !e.Deactivated) {
			t.Errorf("%s: a later line has its address: %v; fate %q", e.ID, took, e.Fate)
		}
	}
	for _, f := range []Fate{Reached, NotTargeted, OptedOut, Inactive, Unrenderable} {
		if fates[f] < 50 {
			t.Errorf("only %d endpoints have the fate %q", fates[f], f)
		}
	}
	var file bytes.Buffer
	if err := WriteCSV(&file, people); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&file).ReadAll()
	if err != nil || len(rows) != len(people)+1 || rows[1][0] != people[0].ID {
		t.Errorf("the file has %d rows, error %v", len(rows), err)
	}
}

// Who was lost, and who was written to twice without being listed, is said first.
func TestAccount_verdict(t *testing.T) {
	people := People(2000, 7)
	messages, says := played(people)
	for i := range messages {
		messages[i].Region = []string{"us-east-1", "eu-west-1"}[i%2]
	}
	twice := append(messages[1:], messages[5], messages[6])
	a := Reconcile(people, twice, []AmbiguousSend{{MessageId: messages[6].MessageID}}, says)
	const want = "1 recipients were lost, and 1 messages went out twice without being listed"
	if err := a.Verdict(); !errors.Is(err, errUnbalanced) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if n := a.ByRegion["us-east-1"] + a.ByRegion["eu-west-1"]; n != len(twice) || a.Once != len(messages)-3 {
		t.Errorf("%d messages by Region and %d reached once, of %d", n, a.Once, len(twice))
	}
	says.Targets++
	if err := Reconcile(people, messages, nil, says).Verdict(); err == nil || !strings.Contains(err.Error(), "but targets: Everpoint says") {
		t.Errorf("a wrong total: %v", err)
	}
}

func TestReconcile(t *testing.T) {
	people := People(2000, 7)
	clean, says := played(people)
	endpoint := func(m Message) string {
		for _, e := range people {
			if e.Address == m.To && e.Fate == Reached {
				return e.ID
			}
		}
		t.Fatal("no such recipient")
		return ""
	}
	listed := AmbiguousSend{MessageId: clean[5].MessageID, EndpointId: endpoint(clean[5]), Decision: "RESENT"}
	optedOut := people[slices.IndexFunc(people, func(e Endpoint) bool { return e.Fate == OptedOut })]
	unrenderable := people[slices.IndexFunc(people, func(e Endpoint) bool { return e.Fate == Unrenderable })]
	tests := []struct {
		name      string
		change    func(m []Message, s *Reconciliation) []Message
		ambiguous []AmbiguousSend
		problem   string // "" when it adds up
	}{
		{name: "nothing_happened"},
		{
			name:      "a_listed_duplicate_adds_up",
			change:    func(m []Message, s *Reconciliation) []Message { s.AmbiguousResent++; return append(m, m[5]) },
			ambiguous: []AmbiguousSend{listed},
		},
		{
			name:    "an_unlisted_duplicate_does_not",
			change:  func(m []Message, _ *Reconciliation) []Message { return append(m, m[5]) },
			problem: "went out again and is not listed",
		},
		{
			name: "a_duplicate_with_another_id_does_not",
			change: func(m []Message, _ *Reconciliation) []Message {
				other := m[9]
				other.To, other.Subject, other.Body, other.Channel = m[5].To, m[5].Subject, m[5].Body, m[5].Channel
				return append(m, other)
			},
			ambiguous: []AmbiguousSend{listed},
			problem:   "went out again and is not listed",
		},
		{
			name: "a_missing_recipient_that_is_listed_adds_up",
			change: func(m []Message, s *Reconciliation) []Message {
				s.Sent--
				s.AmbiguousLeft++
				return slices.Delete(m, 5, 6)
			},
			ambiguous: []AmbiguousSend{listed},
		},
		{
			name:      "a_mail_that_cannot_be_made_may_be_listed",
			change:    func(m []Message, s *Reconciliation) []Message { s.Failed--; s.AmbiguousLeft++; return m },
			ambiguous: []AmbiguousSend{{MessageId: "u", EndpointId: unrenderable.ID}},
		},
		{
			name:    "a_failure_that_is_counted_as_sent_does_not_add_up",
			change:  func(m []Message, s *Reconciliation) []Message { s.Failed--; s.Sent++; return m },
			problem: "failed: Everpoint says",
		},
		{
			name:    "a_missing_recipient_does_not",
			change:  func(m []Message, _ *Reconciliation) []Message { return slices.Delete(m, 5, 6) },
			problem: "was not reached and is not listed",
		},
		{
			name: "who_opted_out_must_not_be_reached",
			change: func(m []Message, _ *Reconciliation) []Message {
				return append(m, Message{Channel: optedOut.Channel, To: optedOut.Address, MessageID: "x"})
			},
			problem: "must not be reached",
		},
		{
			name:    "a_stranger_must_not_be_reached",
			change:  func(m []Message, _ *Reconciliation) []Message { return append(m, Message{To: "a@b.example"}) },
			problem: "nobody of the file",
		},
		{
			name: "somebody_elses_text_does_not_add_up",
			change: func(m []Message, _ *Reconciliation) []Message {
				m[0].Subject, m[0].Body = "Dear nobody", "Dear nobody"
				return m
			},
			problem: "Dear nobody",
		},
		{
			name:    "a_wrong_reason_does_not_add_up",
			change:  func(m []Message, s *Reconciliation) []Message { s.Held["ENDPOINT_OPT_OUT"]--; s.Held["X"]++; return m },
			problem: "held: Everpoint says",
		},
		{
			name:    "a_wrong_total_does_not_add_up",
			change:  func(m []Message, s *Reconciliation) []Message { s.Targets++; return m },
			problem: "targets: Everpoint says",
		},
		{
			name:    "an_unbalanced_sum_does_not_add_up",
			change:  func(m []Message, s *Reconciliation) []Message { s.Balanced, s.Unaccounted = false, 3; return m },
			problem: "3 unaccounted",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			messages, s := played(people)
			if tt.change != nil {
				messages = tt.change(messages, &s)
			}
			a := Reconcile(people, messages, tt.ambiguous, s)
			found := strings.Join(a.Problems, "\n")
			if err := a.Verdict(); (err == nil) != (tt.problem == "") {
				t.Errorf("the verdict is %v", err)
			}
			if tt.problem == "" && found != "" || !strings.Contains(found, tt.problem) {
				t.Errorf("got problems %q, want %q", found, tt.problem)
			}
		})
	}
	if says.Sent == 0 {
		t.Error("nobody was reached")
	}
}
