package door

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

// headerControlRegion names, in the answer to a control-plane call that was
// forwarded, the Region it was forwarded to.
const headerControlRegion = "X-Everpoint-Control-Region"

// Control knows which Region serves the control plane.
type Control interface {
	// Seat returns where control is, as far as this Region knows now. It must be
	// quick: a look into memory. It fails with the fault to answer with, such as
	// an [aws.Unavailable] that says why no quorum can be had.
	Seat(ctx context.Context) (Seat, error)
}

// A Seat is where control is, and since when.
type Seat struct {
	// Region is the control Region's name.
	Region string

	// URL is where the control Region listens to its peers, as
	// "https://10.0.2.1:7443". Empty means that control is here.
	URL string

	// Epoch rises whenever control moves, from 1. Calls that are served here carry it
	// in their context; see [aws.WithControlEpoch].
	Epoch uint64
}

// settleControl checks the settings of forwarding and fills in defaults.
func settleControl(cfg *Config) error {
	if cfg.Control != nil && cfg.ControlTransport == nil {
		return errors.New("door: Control needs a ControlTransport to forward by")
	}
	or(&cfg.ControlTimeout, cfg.OperationTimeout*3/4)
	or(&cfg.ControlPatience, 5*time.Second)
	or(&cfg.OrderAfter, 500*time.Millisecond)
	or(&cfg.ForwardsMax, max(cfg.RequestsMax/4, 1))
	if cfg.ControlTimeout >= cfg.OperationTimeout {
		return fmt.Errorf("door: ControlTimeout %v is not shorter than OperationTimeout %v", cfg.ControlTimeout, cfg.OperationTimeout)
	}
	return nil
}

// seat decides who serves the call, which was authenticated and authorised: the
// Region at the URL, or this one if there is none. A call that another Region
// forwarded is served here or refused, never forwarded again.
func (c *call) seat(ctx context.Context) (Seat, error) {
	d := c.door
	if c.from != nil {
		return Seat{Epoch: c.from.epoch}, c.from.admit(ctx, d)
	}
	if d.cfg.Control == nil || c.match.Op.Plane != wire.ControlPlane || !c.match.Mounted() {
		return Seat{}, nil
	}
	return d.cfg.Control.Seat(ctx)
}

// settled returns the call's seat, or the answer of the control Region elsewhere.
// When a Region dies that had control, it takes some seconds until another has it:
// a call of which nothing was sent waits for that.
func (c *call) settled(ctx context.Context, body []byte) (Seat, *wire.Response) {
	began := time.Now()
	for {
		seat, err := c.seat(ctx)
		switch {
		case err == nil && seat.URL == "":
			return seat, nil
		case err == nil:
			var resp *wire.Response
			if resp, err = c.forward(ctx, seat, body); !errors.Is(err, errUnsent) {
				return seat, resp
			}
		}
		if !c.patient(ctx, began) {
			resp := c.fail(err)
			if seat.URL != "" {
				resp.Header[headerControlRegion] = []string{seat.Region}
			}
			return seat, resp
		}
	}
}

// patient waits a moment before the seat is asked for again; it is false when the
// call has waited long enough, or too many do.
func (c *call) patient(ctx context.Context, began time.Time) bool {
	d := c.door
	if c.from != nil || time.Since(began) >= d.cfg.ControlPatience {
		return false
	}
	select {
	case d.forwards <- struct{}{}:
		defer func() { <-d.forwards }()
	default:
		return false
	}
	moment := time.NewTimer(seatInterval)
	defer moment.Stop()
	select {
	case <-moment.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// headerOrdered is in the answer to a call that stops something and was not served:
// it is carried out by whoever has control.
const headerOrdered = "X-Everpoint-Stop-Ordered"

// stop answers a call that stops something. When who serves it has not answered
// soon, it is ordered by another way too, and then not waited for much longer. The
// order is withdrawn when the call was served after all; when nobody can say that it
// was, the order answers it.
func (c *call) stop(ctx context.Context, body []byte) *wire.Response {
	serving, giveUp := context.WithCancel(ctx)
	defer giveUp()
	refused, answered := make(chan struct{}), make(chan struct{})
	var ordered *wire.Response
	var withdraw func(context.Context)
	var order sync.WaitGroup
	order.Go(func() {
		after := c.door.cfg.OrderAfter
		late := time.NewTimer(after)
		defer late.Stop()
		select {
		case <-late.C:
		case <-refused:
		case <-answered:
			return
		}
		if ordered, withdraw = c.match.Order(ctx, c.req); withdraw == nil {
			return
		}
		late.Reset(2 * after)
		select {
		case <-late.C:
			giveUp()
		case <-refused:
		case <-answered:
		}
	})
	resp := c.served(serving, body)
	if resp.Status == http.StatusServiceUnavailable {
		close(refused)
	} else {
		close(answered)
	}
	order.Wait()
	switch {
	case withdraw == nil:
		return resp
	case resp.Status < http.StatusInternalServerError && resp.Status != http.StatusNotFound:
		withdraw(ctx)
		return resp
	}
	// It is not known to be served, or the order was carried out first.
	c.door.log.WarnContext(ctx, "a stop was ordered", "request_id", c.record.RequestID, "action", c.record.Action,
		"resource", c.record.Resource, "status", resp.Status)
	ordered.Header[headerOrdered] = []string{"true"}
	if where := resp.Header[headerControlRegion]; where != nil {
		ordered.Header[headerControlRegion] = where
	}
	return ordered
}

const seatInterval = 100 * time.Millisecond

// errUnsent says that nothing of a call has reached the control Region.
var errUnsent = errors.New("nothing was sent")

// forward hands the call to the control Region, with its body as it was sent,
// and returns what that answers. It tries once. When nothing was sent it fails with
// errUnsent.
func (c *call) forward(ctx context.Context, seat Seat, body []byte) (*wire.Response, error) {
	c.record.ForwardedTo = seat.Region
	resp, err := c.exchange(ctx, seat, body)
	if errors.Is(err, errUnsent) {
		return nil, err
	}
	if err != nil {
		resp = c.fail(err)
	}
	resp.Header[headerControlRegion] = []string{seat.Region}
	return resp, nil
}

func (c *call) exchange(ctx context.Context, seat Seat, body []byte) (*wire.Response, error) {
	d := c.door
	select {
	case d.forwards <- struct{}{}:
		defer func() { <-d.forwards }()
	default:
		return nil, aws.Unavailable("Too many calls are waiting for the control Region %s. Please retry.", seat.Region)
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ControlTimeout)
	defer cancel()
	var sent atomic.Bool
	req, err := c.outgoing(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
	}), seat, body)
	if err != nil {
		return nil, fmt.Errorf("forward to %s: %w", seat.Region, err)
	}
	began := time.Now()
	resp, err := d.cfg.ControlTransport.RoundTrip(req)
	if err != nil {
		d.log.WarnContext(ctx, "control region not heard", "request_id", c.record.RequestID, "action", c.record.Action,
			"control_region", seat.Region, "sent", sent.Load(), "waited", time.Since(began), "error", err)
		if !sent.Load() {
			return nil, &unsent{aws.Unavailable("The control Region %s cannot be reached. The call was not carried out.", seat.Region)}
		}
		return nil, aws.Unavailable("The control Region %s did not answer. It is not known whether the call was carried out.", seat.Region)
	}
	defer resp.Body.Close()
	if resp.Header.Get(headerServed) == "" {
		d.log.WarnContext(ctx, "control region did not take a call", "request_id", c.record.RequestID, "action", c.record.Action,
			"control_region", seat.Region, "status", resp.StatusCode)
		return nil, aws.Unavailable("The control Region %s did not take the call (HTTP status %d). It was not carried out.", seat.Region, resp.StatusCode)
	}
	answer, err := c.held.readAll(resp.Body, resp.ContentLength)
	if err != nil {
		d.log.WarnContext(ctx, "control region's answer not read", "request_id", c.record.RequestID, "action", c.record.Action,
			"control_region", seat.Region, "status", resp.StatusCode, "error", err)
		return nil, aws.Unavailable("The answer of the control Region %s could not be read to its end. It is not known whether the call was carried out.", seat.Region)
	}
	return &wire.Response{Status: resp.StatusCode, Header: answered(resp.Header), Body: answer}, nil
}

// unsent is a fault that is errUnsent too.
type unsent struct{ fault error }

func (u *unsent) Error() string   { return u.fault.Error() }
func (u *unsent) Unwrap() []error { return []error{u.fault, errUnsent} }

// outgoing returns the call as the control Region should get it: method, path
// and query as they stood in the request line, Host, the body as it was sent,
// and the headers as a list in one of our own (see handover.write), so that
// nothing on the way adds to them, drops or joins any.
func (c *call) outgoing(ctx context.Context, seat Seat, body []byte) (*http.Request, error) {
	base, err := url.Parse(seat.URL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("the control Region's URL %q is not like https://10.0.2.1:7443", seat.URL)
	}
	r := c.r
	u := &url.URL{
		Scheme: base.Scheme, Host: base.Host, RawQuery: c.req.RawQuery,
		ForceQuery: c.req.RawQuery == "" && strings.HasSuffix(r.RequestURI, "?"),
	}
	switch path := c.req.RawPath; {
	case r.URL.EscapedPath() == path:
		u.Path, u.RawPath = r.URL.Path, r.URL.RawPath
	case !strings.HasPrefix(path, "//"):
		u.Opaque = path // written as it is
	default:
		// An opaque that begins with two slashes is taken for a host and a path, so
		// it gets the host. Only HTTP/1.1 shows it, and means the same.
		u.Opaque = "//" + r.Host + path
	}
	out := (&http.Request{
		Method: r.Method, URL: u, Host: r.Host, Header: http.Header{},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	handover{
		source: c.record.SourceIP, tls: c.record.TLS, requestID: c.record.RequestID, epoch: seat.Epoch,
	}.write(out.Header, r.Header)
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		// A transport repeats these when a connection breaks, as if none ever wrote;
		// awsQuery writes by GET. What it cannot rewind it does not repeat.
		out.Body = io.NopCloser(bytes.NewBuffer(body))
	default:
		// Others it repeats only if nothing of them was taken.
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		if out.Body, _ = out.GetBody(); len(body) == 0 {
			out.Body = http.NoBody
		}
	}
	out.ContentLength = int64(len(body))
	return out, nil
}

// ofConnection are the headers of an answer that speak of the connection to the
// control Region or are written anew for the client. Source: RFC 9110 7.6.1.
var ofConnection = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Content-Length", "Date", headerServed,
}

// answered returns the headers of the control Region's answer for the client.
func answered(h http.Header) http.Header {
	h = h.Clone()
	for _, field := range h["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range ofConnection {
		delete(h, name)
	}
	return h
}
