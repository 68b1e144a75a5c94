package wire

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// Request is an HTTP request as the door hands it over: the path and the query
// as they stood on the request line, the body read and bounded.
type Request struct {
	Method   string
	RawPath  string // percent-encoded, without the query
	RawQuery string
	Header   http.Header
	Body     []byte

	form *node // the parsed form of an awsQuery request
}

// Response is what goes back: complete but for what the door adds (Date).
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// A Mux knows every operation of its services and the functions that rooms
// have mounted on them. Mount everything first; then it is safe for concurrent
// use.
type Mux struct {
	// Log hears of panics, internal errors and outputs that cannot be
	// written. Nil means slog.Default.
	Log *slog.Logger

	services []*Service
	rest     *route
	prefixes map[*Service]string         // restJson1: what all paths of a service start with
	targets  map[string]*Service         // awsJson target prefixes
	versions map[string]*Service         // awsQuery versions
	actions  map[*Service]map[string]*Op // by name, for awsJson and awsQuery
	mounts   map[*Op]*mount
}

// mount is a room's function on an operation.
type mount struct {
	pattern []part
	in, out *plan
	call    func(context.Context, any) (any, error)
	order   func(context.Context, any) (any, func(context.Context), error) // nil: see Order
}

// NewMux routes every operation of the services; those that nobody mounts
// answer NotImplemented. It panics if two operations claim one path and verb.
func NewMux(services ...*Service) *Mux {
	m := &Mux{
		services: services,
		rest:     &route{},
		prefixes: map[*Service]string{},
		targets:  map[string]*Service{},
		versions: map[string]*Service{},
		actions:  map[*Service]map[string]*Op{},
		mounts:   map[*Op]*mount{},
	}
	for _, s := range services {
		switch s.Protocol {
		case RestJSON1:
			m.prefixes[s] = commonPath(s.Operations)
			for _, op := range s.Operations {
				for _, uri := range append([]string{op.URI}, op.Aliases...) {
					m.rest.add(uri, op)
				}
			}
			continue
		case AWSQuery:
			m.versions[s.Version] = s
		default:
			for _, p := range append([]string{s.TargetPrefix}, s.TargetAliases...) {
				m.targets[p] = s
			}
		}
		byName := make(map[string]*Op, len(s.Operations))
		for _, op := range s.Operations {
			byName[op.Name] = op
		}
		m.actions[s] = byName
	}
	return m
}

// Handle mounts h on an operation. The resource is what policies decide on,
// without the arn:aws:service:region:account: before it; {Name} stands for a
// label of the path, a member of the query, or a top-level member of the body,
// {Name|upper} for the same in upper case, and "*" for no resource. Where the
// caller names a resource by its full ARN, that ARN is the resource.
//
// Handle panics if the operation's service is not the mux's, if it is mounted
// already, if the pattern names no member, or if the Go types do not fit the
// schemas: each is a defect of the assembly, found when the process starts.
func Handle[I, O any](m *Mux, op *Operation[I, O], resource string, h func(context.Context, *I) (*O, error)) {
	o := &op.Op
	if !slices.Contains(m.services, o.Service) {
		panic(fmt.Sprintf("wire: mount %s: the mux does not have its service", o.Key()))
	}
	if m.mounts[o] != nil {
		panic(fmt.Sprintf("wire: mount %s: mounted twice", o.Key()))
	}
	pattern, err := parsePattern(o, resource)
	if err != nil {
		panic(fmt.Sprintf("wire: mount %s: %v", o.Key(), err))
	}
	m.mounts[o] = &mount{
		pattern: pattern,
		in:      planFor(o.in, o.Input),
		out:     planFor(o.out, o.Output),
		call: func(ctx context.Context, in any) (any, error) {
			out, err := h(ctx, in.(*I))
			if err != nil {
				return nil, err
			}
			if out == nil {
				out = new(O)
			}
			return out, nil
		},
	}
}

// Order adds to a mounted operation, one that stops something, how it is ordered
// where what serves it does not answer. h answers as the operation would; withdraw
// takes the order back, and is nil when none was given. What it answers beside a
// withdraw, an error too, is said of an order that stands.
func Order[I, O any](m *Mux, op *Operation[I, O], h func(context.Context, *I) (out *O, withdraw func(context.Context), err error)) {
	mt := m.mounts[&op.Op]
	if mt == nil || mt.order != nil {
		panic(fmt.Sprintf("wire: order %s: it is not mounted, or has an order", op.Op.Key()))
	}
	mt.order = func(ctx context.Context, in any) (any, func(context.Context), error) {
		out, withdraw, err := h(ctx, in.(*I))
		return out, withdraw, err
	}
}

// Mounted lists the mounted operations as "package.Operation", sorted.
func (m *Mux) Mounted() []string {
	keys := make([]string, 0, len(m.mounts))
	for op := range m.mounts {
		keys = append(keys, op.Key())
	}
	slices.Sort(keys)
	return keys
}

// Services returns the services the mux was made with.
func (m *Mux) Services() []*Service { return slices.Clone(m.services) }

// Find decides which service and operation a request means, before anything of
// its body is believed. With an error it still returns a Match, without an
// operation, that can encode the error in the protocol the caller speaks.
//
// X-Amz-Target means awsJson; a form posted to "/", or a query with Action,
// awsQuery; any other path restJson1. Source: access 1.1, channels-and-events 0.
func (m *Mux) Find(r *Request) (*Match, error) {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return m.findTarget(r, target)
	}
	if r.RawPath == "/" || r.RawPath == "" {
		if match, ok, err := m.findAction(r); ok {
			return match, err
		}
	}
	return m.findPath(r)
}

func (m *Mux) findTarget(r *Request, target string) (*Match, error) {
	match := &Match{mux: m, req: r, Protocol: AWSJSON10}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-amz-json-1.1") {
		match.Protocol = AWSJSON11
	}
	dot := strings.LastIndexByte(target, '.')
	if dot < 0 {
		return match, unknownOperation("")
	}
	s := m.targets[target[:dot]]
	if s == nil {
		return match, unknownOperation("")
	}
	match.Service, match.Protocol = s, s.Protocol
	if r.Method != http.MethodPost {
		return match, &aws.Fault{Kind: aws.KindMethodNotAllowed, Message: "The method " + printable(r.Method) + " is not allowed; use POST."}
	}
	op := m.actions[s][target[dot+1:]]
	if op == nil || op.Absent {
		return match, unknownOperation(target[dot+1:])
	}
	match.Op = op
	return match, nil
}

// findAction reports ok if the request is an awsQuery request at all.
func (m *Mux) findAction(r *Request) (match *Match, ok bool, err error) {
	var raw string
	switch r.Method {
	case http.MethodPost:
		if ct := r.Header.Get("Content-Type"); ct != "" && !strings.HasPrefix(ct, "application/x-www-form-urlencoded") {
			return nil, false, nil
		}
		raw = string(r.Body)
	case http.MethodGet:
		raw = r.RawQuery
	default:
		return nil, false, nil
	}
	form, err := parseForm(raw)
	match = &Match{mux: m, req: r, Protocol: AWSQuery}
	if err != nil {
		return match, true, err
	}
	r.form = form
	action, version := form.text("Action"), form.text("Version")
	if action == "" {
		return nil, false, nil
	}
	match.Service = m.versions[version]
	if match.Service == nil {
		return match, true, unknownOperation(action)
	}
	op := m.actions[match.Service][action]
	if op == nil || op.Absent {
		return match, true, unknownOperation(action)
	}
	match.Op = op
	return match, true, nil
}

func (m *Mux) findPath(r *Request) (*Match, error) {
	match := &Match{mux: m, req: r, Protocol: RestJSON1, Service: m.serviceOf(r.RawPath)}
	segments, err := splitPath(r.RawPath)
	if err != nil {
		return match, err
	}
	found, labels := m.rest.find(segments, nil)
	if found == nil {
		return match, unknownOperation("")
	}
	for _, l := range found.leaves {
		if l.op.Method == r.Method && !l.op.Absent {
			match.Op, match.Service = l.op, l.op.Service
			match.names, match.labels = l.names, labels
			return match, nil
		}
	}
	match.Service = found.leaves[0].op.Service
	return match, &aws.Fault{
		Kind:    aws.KindMethodNotAllowed,
		Message: "The method " + printable(r.Method) + " is not allowed here.",
	}
}

// serviceOf guesses whose path it is from what it starts with, so that even an
// unknown path is refused in the right words. It may be nil.
func (m *Mux) serviceOf(path string) *Service {
	var best *Service
	for _, s := range m.services {
		rest, ok := strings.CutPrefix(path, m.prefixes[s])
		if !ok || m.prefixes[s] == "" || rest != "" && rest[0] != '/' {
			continue
		}
		if best == nil || len(m.prefixes[s]) > len(m.prefixes[best]) {
			best = s
		}
	}
	return best
}

func unknownOperation(name string) *aws.Fault {
	f := &aws.Fault{Kind: aws.KindUnknownOperation, Message: "The requested operation is not recognized by the service."}
	if name != "" {
		f.Message = "The operation " + printable(name) + " is not recognized by the service."
	}
	return f
}

// printable makes a foreign word safe and short enough for a sentence.
func printable(s string) string {
	const wordBytesMax = 64
	if len(s) > wordBytesMax {
		s = s[:wordBytesMax]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}

// splitPath cuts a raw path into segments and undoes their percent-encoding
// once. The door bounds the path's length.
func splitPath(raw string) ([]string, error) {
	if !strings.HasPrefix(raw, "/") {
		return nil, aws.Invalid("the path does not start with a slash")
	}
	if strings.Count(raw, "/") > pathSegmentsMax {
		return nil, unknownOperation("")
	}
	segments := strings.Split(raw[1:], "/")
	for i, s := range segments {
		if strings.IndexByte(s, '%') < 0 {
			continue
		}
		u, err := url.PathUnescape(s)
		if err != nil {
			return nil, aws.Invalid("the path holds an invalid percent-encoding")
		}
		if !utf8.ValidString(u) || strings.ContainsFunc(u, unicode.IsControl) {
			return nil, aws.Invalid("the path holds invalid UTF-8 or a control character")
		}
		segments[i] = u
	}
	return segments, nil
}

// pathSegmentsMax bounds the path matcher's recursion; the longest modelled
// path has ten segments.
const pathSegmentsMax = 24
