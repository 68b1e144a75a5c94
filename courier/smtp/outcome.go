package smtp

import (
	"strconv"
	"strings"

	"github.com/everpoint/everpoint/courier"
)

// The codes of outcomes that are not a server's reply.
const (
	CodeConn  = "conn"  // no connection, or it broke, timed out or was cut
	CodeLocal = "local" // the server was not asked: it could not take this message, or SMTP cannot carry it
)

// outcomeOf turns the reply that decided a message into its outcome.
func outcomeOf(r reply) courier.Outcome {
	o := courier.Outcome{Code: strconv.Itoa(r.code), Enhanced: r.enhanced, Detail: r.text, Parts: 1}
	switch r.code / 100 {
	case 2:
		o.Status = courier.Accepted
		o.ProviderIDs = queueID(r.text)
	case 4:
		o.Status = courier.Deferred
		o.Throttled = throttled(r)
	case 5:
		o.Status = courier.Refused
	}
	return o
}

func deferred(detail string) courier.Outcome {
	return courier.Outcome{Status: courier.Deferred, Code: CodeConn, Detail: bounded(detail), Parts: 1}
}

func unknown(detail string) courier.Outcome {
	return courier.Outcome{Status: courier.Unknown, Code: CodeConn, Detail: bounded(detail), Parts: 1}
}

func refusedHere(enhanced, detail string) courier.Outcome {
	return courier.Outcome{Status: courier.Refused, Code: CodeLocal, Enhanced: enhanced, Detail: bounded(detail), Parts: 1}
}

// throttled says whether a 4xx is about how fast we send. 4.4.5 is congestion
// and 4.7.28 a rate limit by registry; most relays only say it in words.
// Source: RFC 3463, the IANA registry of enhanced status codes.
func throttled(r reply) bool {
	if r.enhanced == "4.4.5" || r.enhanced == "4.7.28" {
		return true
	}
	text := strings.ToLower(r.text)
	for _, words := range []string{"throttl", "rate limit", "sending rate", "too many", "too quickly", "slow down"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// queueID finds the relay's own id in its 250, as Postfix ("queued as X") and
// Exim ("id=X") write it; nil when there is none. Operators search by it.
func queueID(text string) []string {
	lower := strings.ToLower(text)
	for _, mark := range []string{"queued as ", "id="} {
		i := strings.Index(lower, mark)
		if i < 0 || len(lower) != len(text) {
			continue
		}
		id, _, _ := strings.Cut(text[i+len(mark):], " ")
		if id = strings.Trim(id, "<>.,;"); id != "" {
			return []string{id}
		}
	}
	return nil
}
