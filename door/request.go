package door

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/aws/wire"
)

// lingerTimeout is how long the server reads on after it has refused a body, so
// that a client which is still sending comes to read the answer.
const lingerTimeout = time.Second

// textBytesMax bounds the client's words that are kept in records.
const textBytesMax = 256

// call is one request on its way through the door.
type call struct {
	door   *Door
	r      *http.Request
	req    *wire.Request
	match  *wire.Match // nil until the operation was looked for
	from   *handover   // if another Region forwarded the call
	record Record
	held   held
	hangUp bool // the body was not read to its end: close the connection
}

// answer serves one request to the APIs. Unless from is nil, another Region has
// forwarded it, and r is as that got it.
func (d *Door) answer(w http.ResponseWriter, r *http.Request, from *handover) {
	now := d.cfg.Now()
	path, query := target(r)
	c := &call{
		door: d, r: r, from: from,
		req:  &wire.Request{Method: r.Method, RawPath: path, RawQuery: query, Header: r.Header},
		held: held{door: d},
		record: Record{
			Time: now, UserAgent: text(r.UserAgent()), Host: text(r.Host), Region: d.cfg.Region,
		},
	}
	if from != nil {
		c.record.RequestID, c.record.SourceIP, c.record.TLS, c.record.ForwardedBy = from.requestID, from.source, from.tls, from.region
	} else {
		c.record.RequestID, c.record.SourceIP, c.record.TLS = d.ids.UUID(), d.source(r), r.TLS != nil
	}
	defer c.held.release()
	var resp *wire.Response
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
		resp = c.guarded(w)
	default:
		resp = c.early(aws.Unavailable("Too many requests in progress. Please retry."), nil)
	}
	c.record.Duration = d.cfg.Now().Sub(now)
	c.record.Status = resp.Status
	c.record.ErrorCode = errorCode(resp)
	d.audit.Record(context.WithoutCancel(r.Context()), c.record)
	// A client that is slow to read its answer has no more need of its body.
	c.req.Body = nil
	c.held.release()
	c.write(w, resp)
}

// guarded is handle, with a panic turned into an internal error.
func (c *call) guarded(w http.ResponseWriter) (resp *wire.Response) {
	defer func() {
		if p := recover(); p != nil {
			c.door.log.ErrorContext(c.r.Context(), "request panicked", "request_id", c.record.RequestID,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			resp = c.early(&aws.Fault{Kind: aws.KindInternal}, nil)
		}
	}()
	return c.handle(w)
}

func (c *call) handle(w http.ResponseWriter) *wire.Response {
	d := c.door
	body, err := d.readBody(w, c.r, &c.held)
	if err != nil {
		return c.early(err, body)
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), d.cfg.OperationTimeout)
	defer cancel()
	hash := sha256.Sum256(body)
	c.req.Body = body
	encodings := c.r.Header["Content-Encoding"]
	if isForm(c.r) && len(encodings) > 0 {
		// The operation is named inside, so it cannot wait for the signature.
		if c.req.Body, err = c.held.decompress(encodings, body); err != nil {
			return c.early(err, nil)
		}
		encodings = nil
	}

	var notFound error
	c.match, notFound = d.mux.Find(c.req)
	if c.match.Service != nil {
		c.record.Service = c.match.Service.SigningName
	}
	c.record.Action = c.match.Action()
	caller := aws.Caller{
		Region: d.cfg.Region, SourceIP: c.record.SourceIP, RequestID: c.record.RequestID,
		InvocationID: text(c.r.Header.Get("Amz-Sdk-Invocation-Id")), BodyHash: hex.EncodeToString(hash[:]),
	}
	unsigned := c.match.Op != nil && c.match.Op.Unsigned
	if !unsigned {
		identity, err := c.authenticate(ctx, hash)
		if err != nil {
			return c.fail(err)
		}
		caller.Account, caller.Principal, caller.AccessKeyID = identity.Account, identity.Principal, c.record.AccessKeyID
		c.record.Account, c.record.Principal = identity.Account, identity.Principal
	}
	if notFound != nil {
		return c.fail(notFound)
	}
	if c.req.Body, err = c.held.decompress(encodings, c.req.Body); err != nil {
		return c.fail(err)
	}
	ctx = aws.WithCaller(ctx, caller)
	c.record.Resource = c.match.Resource(d.cfg.Region, caller.Account)
	if !unsigned {
		if err := d.authz.Allow(ctx, caller, c.record.Action, c.record.Resource); err != nil {
			return c.fail(err)
		}
	}
	if d.cfg.Control != nil && c.from == nil && c.match.Orders() {
		return c.stop(ctx, body)
	}
	return c.served(ctx, body)
}

// served is the answer of whoever has to serve the call.
func (c *call) served(ctx context.Context, body []byte) *wire.Response {
	seat, resp := c.settled(ctx, body)
	if resp != nil {
		return resp
	}
	c.record.ForwardedTo = ""
	if seat.Epoch > 0 {
		ctx = aws.WithControlEpoch(ctx, seat.Epoch)
	}
	return c.match.Invoke(ctx, c.req)
}

// authenticate verifies the signature and returns who made it.
func (c *call) authenticate(ctx context.Context, hash [sha256.Size]byte) (Identity, error) {
	d := c.door
	// A request that names no service may be signed for any: it is refused in
	// any case, but who signed it is told why.
	services, global := d.services, true
	if s := c.match.Service; s != nil {
		services, global = []string{s.SigningName}, s.Global
	}
	keys := lookup{auth: d.auth}
	sig, err := d.verifier.Verify(ctx, &keys, &sigv4.Request{
		Method: c.req.Method, RawPath: c.req.RawPath, RawQuery: c.req.RawQuery, Host: c.r.Host, Header: c.r.Header,
		BodySHA256: hash, TLS: c.record.TLS,
		Now: c.record.Time, Regions: d.accepts(c.r.Host, global), Services: services,
	})
	// Copies, so that records do not keep whole headers in memory.
	c.record.AccessKeyID, c.record.SignedRegion = strings.Clone(sig.AccessKeyID), strings.Clone(sig.Scope.Region)
	return keys.found, err
}

// lookup asks the authenticator and keeps its answer for after verification.
type lookup struct {
	auth  Authenticator
	found Identity
}

func (l *lookup) Secret(ctx context.Context, accessKeyID string, sessionToken sigv4.SecretKey) (sigv4.Secret, error) {
	var err error
	l.found, err = l.auth.Identity(ctx, accessKeyID, sessionToken)
	return l.found.Secret, err
}

// early answers a request whose body was not, or not all, understood. What
// there is of it serves to find the protocol.
func (c *call) early(err error, head []byte) *wire.Response {
	c.hangUp = hasBody(c.r)
	if isForm(c.r) {
		if i := bytes.LastIndexByte(head, '&'); i >= 0 {
			head = head[:i]
		}
		if !bytes.HasPrefix(head, []byte("Action=")) && !bytes.Contains(head, []byte("&Action=")) {
			head = []byte("Action=unread")
		}
	}
	c.req.Body = head
	c.match, _ = c.door.mux.Find(c.req)
	return c.fail(err)
}

// fail answers with an error. Faults and exceptions are told; anything else is
// logged here and told as an internal error.
func (c *call) fail(err error) *wire.Response {
	if _, told := errors.AsType[wire.Exception](err); !told && !isFault(err) {
		c.door.log.ErrorContext(c.r.Context(), "request failed", "request_id", c.record.RequestID,
			"action", c.record.Action, "error", err)
	}
	if c.match.Protocol == wire.AWSQuery {
		// The older protocol has words of its own. Source: access 1.7.
		switch aws.KindOf(err) {
		case aws.KindMissingToken:
			err = &aws.Fault{Kind: aws.KindMissingToken, Message: "Request is missing Authentication Token"}
		case aws.KindRequestExpired:
			err = &aws.Fault{Kind: aws.KindRequestExpired, Message: "Request has expired."}
		}
	}
	return c.match.Fail(c.record.RequestID, err)
}

func (c *call) write(w http.ResponseWriter, resp *wire.Response) {
	h := w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	// SDKs repair their clocks by this header.
	h["Date"] = []string{c.door.cfg.Now().UTC().Format(http.TimeFormat)}
	h["Content-Length"] = []string{strconv.Itoa(len(resp.Body))}
	if resp.Status == http.StatusServiceUnavailable && h["Retry-After"] == nil {
		h["Retry-After"] = []string{"1"}
	}
	if c.hangUp {
		if c.r.ProtoMajor == 1 { // HTTP/2 ends the stream, and keeps the connection
			h["Connection"] = []string{"close"}
		}
		setReadDeadline(w, time.Now().Add(lingerTimeout))
	}
	if resp.Status == http.StatusNoContent || resp.Status == http.StatusNotModified {
		delete(h, "Content-Length")
	}
	w.WriteHeader(resp.Status)
	_, _ = w.Write(resp.Body) // an error means that the client has gone
}

// isForm says whether the body is a form, in which awsQuery names its operation.
func isForm(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

// target returns path and query as they stood in the request line.
func target(r *http.Request) (path, query string) {
	line := r.RequestURI
	if line == "" { // not from a server
		return r.URL.EscapedPath(), r.URL.RawQuery
	}
	if i := strings.Index(line, "://"); i > 0 && line[0] != '/' {
		line = line[i+3:]
		if i := strings.IndexAny(line, "/?"); i >= 0 {
			line = line[i:]
		} else {
			line = ""
		}
	}
	path, query, _ = strings.Cut(line, "?")
	return path, query
}

// text bounds a client's words and drops what is not printable ASCII.
func text(s string) string {
	s = s[:min(len(s), textBytesMax)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
