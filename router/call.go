package router

import (
	"net/http"
	"strings"

	"github.com/everpoint/everpoint/aws/wire"
)

// A Call is what the router knows of a request: never its body.
type Call struct {
	Method     string
	Path       string // as it stood in the request line, without the query
	Target     string // X-Amz-Target, of awsJson calls: Service.Operation
	Invocation string // Amz-Sdk-Invocation-Id: equal in all attempts of an SDK
}

// Remembers returns a Config.Remembered for Regions that answer some services: the
// operations whose first answer every Region keeps by principal, body and
// invocation id, and awsJson calls that only read. It tells operations apart as
// the door does; those of awsQuery are named in the body, and not remembered.
//
// Source: design 5, calls that send or create; models/overlay, remembered.
func Remembers(services ...*wire.Service) func(Call) bool {
	mux := wire.NewMux(services...)
	return func(c Call) bool {
		r := &wire.Request{Method: c.Method, RawPath: c.Path, Header: http.Header{}}
		if c.Target != "" {
			r.Header.Set("X-Amz-Target", c.Target)
		}
		match, err := mux.Find(r)
		if err != nil || match.Op == nil {
			return false
		}
		return match.Op.Remembered || c.Target != "" && (strings.HasPrefix(match.Op.Name, "Describe") || strings.HasPrefix(match.Op.Name, "List"))
	}
}

// repeatable says whether a call may be executed twice without harm, because it
// is idempotent by its method or because the Regions remember it.
func (rt *Router) repeatable(c Call) bool {
	switch c.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	case http.MethodPost:
		return c.Invocation != "" && rt.cfg.Remembered != nil && rt.cfg.Remembered(c)
	}
	return false
}

// resource returns the key that calls about the resource in a path share; ok is
// false if the path names none that could spread: calls about a whole app that
// come in masses (messages, events, batches), lists, and what is not known.
//
// What a node tells of itself and of the group is one resource, so that whoever
// asks for both hears of one Region. The app alone is a key only where the resource is the app itself or one of the
// few things it has one of.
func resource(path string) (key uint64, ok bool) {
	path = strings.TrimPrefix(strings.TrimRight(path, "/"), "/everpoint")
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return 0, false
	}
	collection, rest := segment(rest)
	if collection == "node" || collection == "group" {
		return uint64(hashStart.text("group")), true
	}
	id, rest := segment(rest)
	if id == "" {
		return 0, false
	}
	h := hashStart.text(collection)
	switch collection {
	case "apps":
		return inApp(h.escaped(id), rest)
	case "templates", "recommenders", "buried-work":
		return uint64(h.escaped(id)), true
	case "tags": // an ARN, whose slashes not everybody escapes
		h = h.escaped(id)
		for rest != "" {
			id, rest = segment(rest)
			h = h.escaped(id)
		}
		return uint64(h), true
	case "email", "sms-voice":
		switch kind := id; kind {
		case "identities", "configuration-sets", "dedicated-ips", "dedicated-ip-pools":
			if id, _ = segment(rest); id != "" {
				return uint64(h.text(kind).escaped(id)), true
			}
		}
	}
	return 0, false
}

// inApp is resource for what is left of a path after the app's id.
func inApp(h hash, rest string) (key uint64, ok bool) {
	kind, rest := segment(rest)
	h = h.text(kind)
	switch kind {
	case "":
		return uint64(h), rest == ""
	case "settings", "eventstream", "sending-policy":
		return uint64(h), true
	case "jobs":
		var direction string
		direction, rest = segment(rest)
		h = h.text(direction)
	case "endpoints", "users", "campaigns", "segments", "journeys", "channels":
	default:
		return 0, false
	}
	id, _ := segment(rest)
	return uint64(h.escaped(id)), id != ""
}

// segment cuts a path at its first slash.
func segment(path string) (first, rest string) {
	first, rest, _ = strings.Cut(path, "/")
	return first, rest
}

// target returns path and query as they stood in the request line, and whether
// there was a question mark.
func target(r *http.Request) (path, query string, asked bool) {
	line := r.RequestURI
	if line == "" { // not from a server
		return r.URL.EscapedPath(), r.URL.RawQuery, r.URL.ForceQuery || r.URL.RawQuery != ""
	}
	if i := strings.Index(line, "://"); i > 0 && line[0] != '/' {
		line = line[i+3:]
		if i := strings.IndexAny(line, "/?"); i >= 0 {
			line = line[i:]
		} else {
			line = ""
		}
	}
	return strings.Cut(line, "?")
}
