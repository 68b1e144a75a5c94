package router

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// ServeHTTP passes a request on to a Region and its answer back.
//
// It panics with http.ErrAbortHandler when an answer breaks off in the middle,
// so that the server breaks off too, and the client sees what happened.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer rt.inFlight.Add(-1)
	if rt.inFlight.Add(1) > int64(rt.cfg.Limits.RequestsMax) {
		rt.refusals.Add(1)
		rt.refuse(w, r, 0, hasBody(r), aws.Unavailable("Too many requests in progress. Please retry."))
		return
	}
	if r.Method == http.MethodConnect {
		rt.refuse(w, r, 0, hasBody(r), &aws.Fault{Kind: aws.KindMethodNotAllowed, Message: "The method CONNECT is not allowed."})
		return
	}
	p := &passage{rt: rt, w: w, r: r, ctrl: http.NewResponseController(w), began: rt.now()}
	defer p.finish()
	if p.takeBody() {
		p.send()
	}
}

// hasBody reports that a body follows the headers: of known length, or of -1.
func hasBody(r *http.Request) bool { return r.ContentLength != 0 }

// passage is one request on its way through the router.
type passage struct {
	rt    *Router
	w     http.ResponseWriter
	r     *http.Request
	ctrl  *http.ResponseController
	began time.Time

	kept    *replay // the body, if it is kept
	stream  *stream // the body, if it is streamed
	attempt *attempt
}

func (p *passage) finish() {
	if p.kept != nil {
		p.kept.release()
	}
	if p.stream != nil {
		p.stream.finish()
	}
}

// takeBody keeps the body, if it is short enough, or prepares to stream it. If
// it cannot be had it refuses the request and returns false.
func (p *passage) takeBody() bool {
	limits, r := &p.rt.cfg.Limits, p.r
	if !hasBody(r) {
		return true
	}
	if r.ContentLength > limits.BodyBytesMax {
		p.rt.refuse(p.w, r, 0, true, p.tooLarge())
		return false
	}
	if r.ContentLength > 0 && r.ContentLength <= limits.ReplayBytesMax {
		p.kept = p.rt.buffers.lend(r.ContentLength)
	}
	if p.kept == nil {
		p.stream = &stream{src: r.Body, left: limits.BodyBytesMax, pace: limits.BodyTimeout, ctrl: p.ctrl, moved: p.moved}
		// An answer may begin before the body has ended. HTTP/2 knows no other way.
		_ = p.ctrl.EnableFullDuplex()
		return true
	}
	_ = p.ctrl.SetReadDeadline(time.Now().Add(limits.BodyTimeout))
	_, err := io.ReadFull(r.Body, p.kept.body)
	if err == nil {
		_, err = r.Body.Read(make([]byte, 1)) // meet the end, for trailers and for the server
		if err == io.EOF {
			err = nil
		}
	}
	if err != nil {
		p.rt.refuse(p.w, r, 0, true, aws.Invalid("The request body ended before it was complete, or did not arrive in time."))
		return false
	}
	_ = p.ctrl.SetReadDeadline(time.Time{})
	return true
}

func (p *passage) tooLarge() *aws.Fault {
	return aws.TooLarge("The request body is larger than %d bytes.", p.rt.cfg.Limits.BodyBytesMax)
}

// moved is told that some of a streamed body came: whoever sends it is alive.
func (p *passage) moved() { p.attempt.extend(p.rt.cfg.Limits.AnswerTimeout) }

// send tries Regions until one answers. What fails in one is tried in the next
// only if it never got there, or if a second execution does no harm; each Region
// is tried once.
func (p *passage) send() {
	rt, r := p.rt, p.r
	path, query, asked := target(r)
	call := Call{Method: r.Method, Path: path, Target: r.Header.Get("X-Amz-Target"), Invocation: r.Header.Get("Amz-Sdk-Invocation-Id")}
	out := p.outgoing(path, query, asked)
	v := rt.view.Load()
	var order order
	if key, ok := resource(path); ok && call.Target == "" {
		order = v.sticky(key)
	} else {
		order = v.inTurn(rt.turn.Add(1))
	}
	replayable := p.stream == nil
	repeatable := replayable && rt.repeatable(call)

	var (
		last    ending // of the attempt before
		tried   int
		pending *ending // an answer of an ill Region, passed on if nobody does better
	)
	for i := range order.n {
		reg := v.places[order.at[i]].region
		if pending != nil && i >= order.alive {
			break // its answer is better than what a Region that is down may say
		}
		if !reg.enter() {
			continue
		}
		if tried++; tried > 1 {
			rt.retries.Add(1)
			last.region.rescued.Add(1)
		}
		movable := repeatable && order.alive > 1 && i < order.alive-1
		end := p.try(reg, out, movable)
		if end.gone {
			pending.close()
			rt.abandoned.Add(1)
			panic(http.ErrAbortHandler)
		}
		if end.what == answered || end.what == ill && (!repeatable || order.alive < 2) {
			pending.close()
			p.answer(end)
			return
		}
		last = end
		switch {
		case end.what == ill:
			pending.close()
			pending = &end
		case p.stream.tooLong():
			rt.refuse(p.w, r, 0, true, p.tooLarge())
			return
		case p.stream.broken():
			rt.refuse(p.w, r, 0, true, aws.Invalid("The request body ended before it was complete, or did not arrive in time."))
			return
		}
		if !replayable || !repeatable && end.what != unreached || rt.now().Sub(p.began) >= rt.cfg.Limits.AnswerTimeout {
			break
		}
	}
	switch {
	case pending != nil:
		p.answer(*pending)
	case tried == 0:
		rt.refusals.Add(1)
		rt.refuse(p.w, r, 0, p.stream != nil, aws.Unavailable("Too many requests in progress. Please retry."))
	case last.what == unreached:
		rt.refuse(p.w, r, 0, p.stream != nil, aws.Unavailable("No Region can be reached. Please retry."))
	case last.what == silent:
		rt.refuse(p.w, r, http.StatusGatewayTimeout, p.stream != nil, aws.Unavailable("The Region did not answer in time."))
	default:
		rt.refuse(p.w, r, http.StatusBadGateway, p.stream != nil, aws.Unavailable("The connection to the Region ended before its answer."))
	}
}

// outgoing returns the request as a Region should get it, less its URL's host,
// context and body: method, Host, path and query to the byte.
func (p *passage) outgoing(path, query string, asked bool) *http.Request {
	r := p.r
	u := &url.URL{RawQuery: query, ForceQuery: asked && query == ""}
	switch {
	case !strings.HasPrefix(path, "//"):
		u.Opaque = path // written as it is
	case r.URL.EscapedPath() == path:
		u.Path, u.RawPath = r.URL.Path, r.URL.RawPath
	default:
		// An opaque that begins with two slashes is taken for a host and a path, so
		// it gets the host. Only HTTP/1.1 shows it, and means the same.
		u.Opaque = "//" + r.Host + path
	}
	out := &http.Request{
		Method: r.Method, URL: u, Host: r.Host, Header: forward(r), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	switch {
	case p.kept != nil:
		out.ContentLength, out.GetBody = r.ContentLength, p.kept.open
	case p.stream != nil:
		out.ContentLength, out.Body = r.ContentLength, p.stream
		if r.ContentLength < 0 {
			out.Trailer = r.Trailer // filled when the body has been read
		}
	}
	return out
}

// An ending is how an attempt ended.
type ending struct {
	region  *region
	attempt *attempt
	what    outcome
	gone    bool // the client left
	resp    *http.Response
}

// close gives up an answer that is not passed on.
func (e *ending) close() {
	if e == nil || e.resp == nil {
		return
	}
	drain(e.resp)
	e.attempt.close()
	e.region.leave()
}

// drainBytesMax bounds what is read of an answer that nobody wants, so that its
// connection can be used again.
const drainBytesMax = 4 << 10

func drain(resp *http.Response) {
	if resp.ContentLength <= drainBytesMax {
		_, _ = io.CopyN(io.Discard, resp.Body, drainBytesMax)
	}
	resp.Body.Close()
}

// errSilent ends an attempt that took too long.
var errSilent = errors.New("no answer in time")

// attempt is one request to one Region.
type attempt struct {
	began   time.Time
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	ends    time.Time    // the last moment the timer may be set to
	reached atomic.Int32 // nothing known, connection asked for, connection got

	// In the Region's list of those who wait, under its lock.
	prev, next *attempt
	listed     bool
	movable    bool // it may be made elsewhere
	counted    bool // as slow
}

const (
	asked = 1 // for a connection
	got   = 2 // a connection: from now on the request may have been received
)

// extend gives the attempt more time, for it moves.
func (a *attempt) extend(d time.Duration) {
	a.timer.Reset(min(d, time.Until(a.ends)))
}

func (a *attempt) close() {
	a.timer.Stop()
	a.cancel(nil)
}

// try makes one attempt. If the ending has an answer, the caller passes it on or
// closes it.
func (p *passage) try(reg *region, out *http.Request, movable bool) ending {
	rt, limits := p.rt, &p.rt.cfg.Limits
	a := &attempt{began: rt.now(), movable: movable}
	p.attempt = a
	ctx, cancel := context.WithCancelCause(p.r.Context())
	a.cancel = cancel
	wall := time.Now()
	spent := a.began.Sub(p.began)
	a.ends = wall.Add(limits.RequestTimeout - spent)
	a.timer = time.AfterFunc(min(limits.AnswerTimeout, limits.RequestTimeout)-spent, func() { cancel(errSilent) })
	req := out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { a.reached.Store(asked) },
		GotConn: func(httptrace.GotConnInfo) { a.reached.Store(got) },
	}))
	u := *out.URL
	u.Scheme, u.Host = reg.base.Scheme, reg.base.Host
	req.URL = &u
	if p.kept != nil {
		req.Body, _ = p.kept.open()
	}

	if p.stream == nil { // of a streamed one the client decides how long it takes
		reg.mu.Lock()
		reg.waiting.add(a)
		reg.mu.Unlock()
	}
	resp, err := rt.behind.RoundTrip(req)
	now := rt.now()
	end := ending{region: reg, attempt: a, resp: resp}
	cause := context.Cause(ctx)
	switch {
	case err == nil && resp.StatusCode == http.StatusSwitchingProtocols: // nobody asked for it
		resp.Body.Close()
		end.what, end.resp = lost, nil
	case err == nil:
		end.what = verdict(resp)
	case p.stream.broken(): // also ends the request's context, and yet the client may listen
		end.what = lost
	case p.r.Context().Err() != nil:
		end.gone = true
	case errors.Is(cause, errSilent):
		end.what = silent
	case a.reached.Load() == asked:
		end.what = unreached
	default:
		end.what = lost
	}
	if p.stream == nil {
		reg.mu.Lock()
		reg.waiting.remove(a)
		reg.mu.Unlock()
	}
	// What the client broke, what no connection was ever asked for (a request that
	// cannot be sent), and what the Region was given up for already, is not held
	// against it.
	blameless := end.gone || errors.Is(cause, errDiverted) || err != nil && (a.reached.Load() == 0 || p.stream.broken())
	if !blameless {
		reg.ended[end.what].Add(1)
		took := now.Sub(a.began)
		rt.judge(reg, func(h *health) bool { return h.observed(now, end.what, took) })
	}
	if end.resp == nil {
		a.close()
		reg.leave()
	}
	return end
}

// headerControl names the control Region in an answer that is that Region's, or is
// about it. Source: docs/internals/control-plane.md.
const headerControl = "X-Everpoint-Control-Region"

// verdict says what an answer tells about the Region that gave it.
func verdict(resp *http.Response) outcome {
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if resp.Header.Get(headerControl) == "" {
			return ill
		}
	}
	return answered
}

// broken reports that the client did not send all of it, or too much. A nil
// stream is never broken.
func (s *stream) broken() bool { return s != nil && s.failed.Load() != nil }

// tooLong reports that it was longer than allowed.
func (s *stream) tooLong() bool { return s.broken() && errors.Is(*s.failed.Load(), errBodyTooLarge) }

// copies are buffers for answers on their way.
var copies = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// answer passes an answer on as it comes.
func (p *passage) answer(end ending) {
	rt, resp, a := p.rt, end.resp, end.attempt
	whole := false
	defer func() {
		resp.Body.Close()
		a.close()
		end.region.leave()
		if !whole {
			panic(http.ErrAbortHandler)
		}
	}()
	pace := rt.cfg.Limits.StreamTimeout
	a.extend(pace)
	written := time.Now()
	_ = p.ctrl.SetWriteDeadline(written.Add(pace))
	h := p.w.Header()
	backward(h, resp, end.region)
	if len(resp.Trailer) > 0 {
		for name := range resp.Trailer {
			h.Add("Trailer", name)
		}
	}
	p.w.WriteHeader(resp.StatusCode)
	if resp.ContentLength == 0 || resp.Body == http.NoBody {
		whole = true
		return
	}
	if resp.ContentLength < 0 {
		_ = p.ctrl.Flush() // the first piece may be long in coming
	}
	buf := copies.Get().(*[32 << 10]byte)
	defer copies.Put(buf)
	var sent int64
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			if now := time.Now(); now.Sub(written) > pace/8 {
				written = now
				a.extend(pace)
				_ = p.ctrl.SetWriteDeadline(now.Add(pace))
			}
			if _, err := p.w.Write(buf[:n]); err != nil {
				rt.abandoned.Add(1)
				return
			}
			if sent += int64(n); sent != resp.ContentLength && err == nil {
				if p.ctrl.Flush() != nil {
					rt.abandoned.Add(1)
					return
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			p.broke(end)
			return
		}
	}
	for name, values := range resp.Trailer {
		h[name] = values
	}
	whole = true
}

// broke tells the Region's health of an answer that broke off, unless the client
// left, or took as long as a request may.
func (p *passage) broke(end ending) {
	if p.r.Context().Err() != nil {
		p.rt.abandoned.Add(1)
		return
	}
	if time.Now().After(end.attempt.ends) {
		return
	}
	now := p.rt.now()
	end.region.ended[lost].Add(1)
	p.rt.judge(end.region, func(h *health) bool { return h.observed(now, lost, 0) })
}
