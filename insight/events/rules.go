package events

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
)

// durationText is compared by clients, word for word. Source: channels-and-events 10.
const durationText = "Session duration in milliseconds must be equal to the difference of start and stop timestamp"

const (
	eventTypeLengthMax = 256 // characters. Source: ours
	sessionIDLengthMax = 256 // characters. Source: ours
)

// check says what is wrong with an event, if anything, and when it happened by
// its client's clock.
//
// Source: channels-and-events 10.
func (l *Limits) check(e *pinpoint.Event) (at time.Time, why string) {
	switch {
	case e.EventType == "":
		return at, "Missing EventType"
	case longer(e.EventType, eventTypeLengthMax):
		return at, fmt.Sprintf("EventType is longer than %d characters", eventTypeLengthMax)
	case isTold(e.EventType):
		return at, "EventType is one that the service itself reports"
	case e.Timestamp == "":
		return at, "Missing Timestamp"
	}
	at, ok := instant(e.Timestamp)
	if !ok {
		return at, "Timestamp is not an ISO 8601 instant"
	}
	if n := len(e.Attributes) + len(e.Metrics); n > l.KeysPerEvent {
		return at, fmt.Sprintf("The event has %d attributes and metrics, more than %d", n, l.KeysPerEvent)
	}
	for key, value := range e.Attributes {
		if why := l.checkKey(key, "an attribute"); why != "" {
			return at, why
		}
		if longer(value, l.ValueLength) {
			return at, fmt.Sprintf("The value of an attribute is longer than %d characters", l.ValueLength)
		}
	}
	for key := range e.Metrics {
		if why := l.checkKey(key, "a metric"); why != "" {
			return at, why
		}
	}
	if bytesOf(e) > l.EventBytes {
		return at, fmt.Sprintf("The event has more than %d bytes", l.EventBytes)
	}
	if e.Session != nil {
		return at, checkSession(e.Session)
	}
	return at, ""
}

// isTold reports whether records of a type tell what the service did. Whoever
// follows the log acts on them, and apps call PutEvents with the credentials of
// guests: they must not be able to tell a delivery or a bounce.
//
// Source: channels-and-events 9.3 to 9.6.
func isTold(eventType string) bool {
	return eventType == "_campaign.send" || eventType == "_journey.send" ||
		strings.HasPrefix(eventType, "_email.") || strings.HasPrefix(eventType, "_SMS.")
}

func (l *Limits) checkKey(key, what string) string {
	if key == "" {
		return "The name of " + what + " is empty"
	}
	if longer(key, l.KeyLength) {
		return fmt.Sprintf("The name of %s is longer than %d characters", what, l.KeyLength)
	}
	return ""
}

func checkSession(s *pinpoint.Session) string {
	if s.Id == "" {
		return "Missing Session Id"
	}
	if longer(s.Id, sessionIDLengthMax) {
		return fmt.Sprintf("Session Id is longer than %d characters", sessionIDLengthMax)
	}
	if s.StartTimestamp == "" {
		return "Missing Session StartTimestamp"
	}
	start, ok := instant(s.StartTimestamp)
	if !ok {
		return "Session StartTimestamp is not an ISO 8601 instant"
	}
	if s.StopTimestamp == nil {
		return ""
	}
	stop, ok := instant(*s.StopTimestamp)
	if !ok {
		return "Session StopTimestamp is not an ISO 8601 instant"
	}
	if s.Duration != nil && int64(*s.Duration) != stop.UnixMilli()-start.UnixMilli() {
		return durationText
	}
	return ""
}

// instant reads a time that can be written as milliseconds.
func instant(s string) (time.Time, bool) {
	t, err := aws.ParseTimestamp(s)
	return t, err == nil && t.Year() >= 0 && t.Year() <= 9999
}

// longer reports whether s has more than n characters.
func longer(s string, n int) bool { return len(s) > n && utf8.RuneCountInString(s) > n }

// isEndpointID reports whether there can be an endpoint of that id.
//
// Source: engagement 2.1.
func isEndpointID(id string) bool {
	return id != "" && len(id) <= 1024 && !strings.ContainsAny(id, "${}")
}

// bytesOf is the size of an event's names and values.
func bytesOf(e *pinpoint.Event) int {
	n := len(e.EventType) + len(e.Timestamp) + 8*len(e.Metrics)
	for k, v := range e.Attributes {
		n += len(k) + len(v)
	}
	for k := range e.Metrics {
		n += len(k)
	}
	if s := e.Session; s != nil {
		n += len(s.Id) + len(s.StartTimestamp)
	}
	for _, p := range [...]*string{e.AppPackageName, e.AppTitle, e.AppVersionCode, e.ClientSdkVersion, e.SdkName} {
		if p != nil {
			n += len(*p)
		}
	}
	return n
}
