package wire

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/everpoint/everpoint/aws"
)

// A Match is what the mux found out about one request. It serves that request
// only and is not safe for concurrent use.
type Match struct {
	Op       *Op      // nil if the operation is unknown
	Service  *Service // nil if even the service is
	Protocol Protocol

	// Input is the decoded input, a pointer to the operation's input type,
	// once Invoke has read it; nil before and after a request that could not be
	// read. The audit trail writes it with [Redacted].
	Input any

	mux    *Mux
	req    *Request
	names  []string // of the path's labels
	labels []string // their values, decoded once
}

// Action names the operation as policies do: "mobiletargeting:CreateCampaign".
// It is empty if the operation is unknown.
func (m *Match) Action() string {
	if m.Op == nil {
		return ""
	}
	return m.Op.Action()
}

// Mounted reports whether a room answers the operation.
func (m *Match) Mounted() bool { return m.Op != nil && m.mux.mounts[m.Op] != nil }

// Label returns a value that names something in the request, as it was sent: a
// label of the path, else a member of the query, else a top-level string or
// number of the body. It reads the body without judging it.
func (m *Match) Label(name string) (value string, ok bool) {
	if i := slices.Index(m.names, name); i >= 0 {
		return m.labels[i], true
	}
	if m.Op == nil {
		return "", false
	}
	for i := range m.Op.Input.Members {
		mem := &m.Op.Input.Members[i]
		if mem.Name != name {
			continue
		}
		switch {
		case m.Protocol == AWSQuery:
			if m.req.form == nil {
				return "", false
			}
			n := m.req.form.children[mem.WireName()]
			if n == nil || !n.set {
				return "", false
			}
			return n.value, true
		case mem.In == InQuery:
			return lastQuery(m.req.RawQuery, mem.bind())
		case mem.In == InBody:
			return peekJSON(m.req.Body, mem.WireName())
		}
	}
	return "", false
}

// Resource returns the ARN of what the request acts on, after the pattern it
// was mounted with. What the request does not name is "*" within the ARN. An
// operation that is not mounted, or was mounted on "*", answers "*".
func (m *Match) Resource(region, account string) string {
	mt := m.mux.mounts[m.Op]
	if m.Op == nil || mt == nil || len(mt.pattern) == 0 {
		return "*"
	}
	var b strings.Builder
	for _, p := range mt.pattern {
		if p.label == "" {
			b.WriteString(p.text)
			continue
		}
		v, ok := m.Label(p.label)
		if m.isARN(mt, v) {
			return v
		}
		switch {
		case !ok || v == "":
			v = "*"
		case p.upper:
			v = strings.ToUpper(v)
		}
		b.WriteString(v)
	}
	if m.Service.Global {
		region = ""
	}
	return aws.ARN{Service: m.Service.ARNNamespace, Region: region, Account: account, Resource: b.String()}.String()
}

// isARN reports whether a value names the resource by its full ARN: where the
// pattern is that value alone, or, in the protocols whose identifiers may be
// ARNs, where it is one of the kind that the pattern begins with. An ARN in any
// other place is an identifier like any other, or a caller could choose what
// his request is judged by. Source: channels-and-events 6.1.
func (m *Match) isARN(mt *mount, v string) bool {
	if !strings.HasPrefix(v, "arn:") {
		return false
	}
	arn, err := aws.ParseARN(v)
	if err != nil {
		return false
	}
	if len(mt.pattern) == 1 {
		return true
	}
	return m.Protocol != RestJSON1 && arn.Service == m.Service.ARNNamespace &&
		mt.pattern[0].label == "" && strings.HasPrefix(arn.Resource, mt.pattern[0].text)
}

// Invoke decodes and validates the input, calls the room and encodes what it
// answers. The request id is that of the context's [aws.Caller]. It never
// panics: a room that does is logged and answered as an internal error.
func (m *Match) Invoke(ctx context.Context, r *Request) (resp *Response) {
	id := aws.CallerFrom(ctx).RequestID
	defer func() {
		if p := recover(); p != nil {
			m.log().ErrorContext(ctx, "operation panicked",
				"operation", m.name(), "request_id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			resp = m.Fail(id, &aws.Fault{Kind: aws.KindInternal})
		}
	}()
	if m.Op == nil {
		return m.Fail(id, unknownOperation(""))
	}
	mt := m.mux.mounts[m.Op]
	if mt == nil {
		return m.Fail(id, aws.NotImplemented("The operation %s is not implemented yet.", m.Op.Name))
	}
	in, err := m.decode(mt, r)
	if err != nil {
		return m.Fail(id, err)
	}
	m.Input = in
	out, err := mt.call(ctx, in)
	if err != nil {
		if internal(err) {
			m.log().ErrorContext(ctx, "operation failed", "operation", m.name(), "request_id", id, "error", err)
		}
		return m.Fail(id, err)
	}
	resp, err = m.encode(mt, out, id)
	if err != nil {
		m.log().ErrorContext(ctx, "output not encodable", "operation", m.name(), "request_id", id, "error", err)
		return m.Fail(id, err)
	}
	return resp
}

// Orders reports whether the operation can be ordered; see [Order].
func (m *Match) Orders() bool {
	mt := m.mux.mounts[m.Op]
	return m.Op != nil && mt != nil && mt.order != nil
}

// Order is Invoke by the operation's order. It may be called while Invoke runs.
// withdraw is nil when no order was given; then resp means nothing.
func (m *Match) Order(ctx context.Context, r *Request) (resp *Response, withdraw func(context.Context)) {
	id := aws.CallerFrom(ctx).RequestID
	defer func() {
		if p := recover(); p != nil {
			m.log().ErrorContext(ctx, "order panicked",
				"operation", m.name(), "request_id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			resp, withdraw = nil, nil
		}
	}()
	mt := m.mux.mounts[m.Op]
	in, err := m.decode(mt, r)
	if err != nil {
		return nil, nil
	}
	out, withdraw, err := mt.order(ctx, in)
	if withdraw == nil {
		if err != nil {
			m.log().InfoContext(ctx, "stop not ordered", "operation", m.name(), "request_id", id, "error", err)
		}
		return nil, nil
	}
	if err == nil {
		if resp, err = m.encode(mt, out, id); err == nil {
			return resp, withdraw
		}
	}
	return m.Fail(id, err), withdraw
}

func (m *Match) name() string {
	if m.Op == nil {
		return ""
	}
	return m.Op.Key()
}

func (m *Match) log() *slog.Logger {
	if m.mux.Log != nil {
		return m.mux.Log
	}
	return slog.Default()
}

// header starts a response's header: the request id, and the content type if
// there is a body.
func header(requestID, contentType string) http.Header {
	h := make(http.Header, 4)
	if requestID != "" {
		// Go's canonical form; header names have no case on the wire.
		h["X-Amzn-Requestid"] = []string{requestID}
	}
	if contentType != "" {
		h["Content-Type"] = []string{contentType}
	}
	return h
}

// part is a piece of a resource pattern: literal text, or a label.
type part struct {
	text, label string
	upper       bool
}

func parsePattern(op *Op, resource string) ([]part, error) {
	if resource == "*" {
		return nil, nil
	}
	if resource == "" {
		return nil, fmt.Errorf("the resource is empty; \"*\" means none")
	}
	var parts []part
	for rest := resource; rest != ""; {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			return append(parts, part{text: rest}), nil
		}
		end := strings.IndexByte(rest, '}')
		if end < open {
			return nil, fmt.Errorf("resource %q: braces do not match", resource)
		}
		if open > 0 {
			parts = append(parts, part{text: rest[:open]})
		}
		name, mod, found := strings.Cut(rest[open+1:end], "|")
		if found && mod != "upper" {
			return nil, fmt.Errorf("resource %q: no modifier %q", resource, mod)
		}
		if !slices.ContainsFunc(op.Input.Members, func(m Member) bool { return m.Name == name }) {
			return nil, fmt.Errorf("resource %q: the input has no member %q", resource, name)
		}
		parts = append(parts, part{label: name, upper: found})
		rest = rest[end+1:]
	}
	return parts, nil
}
