package smtptest

import (
	"context"
	"time"
)

// Stage is a moment in a message's conversation.
type Stage uint8

// The stages, in order; see the package comment.
const (
	AtMail Stage = iota + 1
	AtRcpt
	AtData
	AfterData
	InContent
	AtDot
	AfterStore
)

// Attempt is what the server knows of a message when a rule is asked.
type Attempt struct {
	N    int    // the MAIL commands the server has seen, this one included: 1 for the first
	Conn int    // the connections the server has seen, this one included
	From string // envelope sender
	To   string // at AtRcpt the recipient asked for; later the latest accepted one; empty before
}

// Rule makes the server misbehave. At its stage it first stalls, then drops the
// connection or replies.
type Rule struct {
	// At is the stage; zero never comes.
	At Stage
	// Match says whether the rule is for this attempt; nil is for all. It is
	// called with the rules locked and must not call the server.
	Match func(Attempt) bool
	// Times is how often the rule is used before it is spent; zero is always.
	Times int

	// StallFor holds the conversation for a time.
	StallFor time.Duration
	// Stall holds the conversation until the channel is closed or sends; nil does not.
	Stall <-chan struct{}
	// Drop closes the connection without a word.
	Drop bool
	// Reply is said in place of the stage's own reply, code first
	// ("550 5.1.1 no such user"); empty changes nothing. At AfterData and
	// InContent it is said early and the connection closed. A 421 closes the
	// connection. A reply at AtDot that is not 2xx means the message is not
	// stored; at AfterStore it is stored all the same.
	Reply string
}

// SetRules replaces all rules. The first that matches at a stage is used.
func (s *Server) SetRules(rules ...Rule) {
	s.rulesMu.Lock()
	defer s.rulesMu.Unlock()
	s.rules = make([]*Rule, len(rules))
	for i := range rules {
		r := rules[i]
		s.rules[i] = &r
	}
	s.ruled.Store(len(rules) > 0)
}

// rule finds the rule for this moment and uses it up by one; nil is none.
func (s *Server) rule(at Stage, a Attempt) *Rule {
	if !s.ruled.Load() {
		return nil
	}
	s.rulesMu.Lock()
	defer s.rulesMu.Unlock()
	for i, r := range s.rules {
		if r.At != at || r.Match != nil && !r.Match(a) {
			continue
		}
		used := *r
		if r.Times > 0 {
			if r.Times--; r.Times == 0 {
				s.rules = append(s.rules[:i:i], s.rules[i+1:]...)
			}
		}
		return &used
	}
	return nil
}

// wait is the rule's stall; false means the server is closing.
func (r *Rule) wait(ctx context.Context) bool {
	if r.StallFor > 0 {
		t := time.NewTimer(r.StallFor)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
	if r.Stall != nil {
		select {
		case <-r.Stall:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ToRecipient matches attempts for one recipient.
func ToRecipient(addr string) func(Attempt) bool {
	return func(a Attempt) bool { return a.To == addr }
}

// Nth matches the server's n-th message, counted from 1.
func Nth(n int) func(Attempt) bool {
	return func(a Attempt) bool { return a.N == n }
}
