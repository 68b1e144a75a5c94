package smpp

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// partTriesMax is how often a part after the first is submitted when the
// provider refuses it for now.
const partTriesMax = 5

// Send submits the text of m and waits for the answer to each part. Outcome.Code
// is the command_status ("0x0000000b"), or
//
//	conn     no bind, or the connection ended
//	timeout  no answer within AnswerWithin
//	context  ctx ended
//	pace     the route is throttled for longer than PacePatience; RetryAfter says how long
//
// See the package comment for how the answers to parts combine.
func (c *Client) Send(ctx context.Context, m *courier.Message) courier.Outcome {
	bodies, parts, err := c.cfg.submits(m, uint16(c.ref.Add(1)))
	if err != nil {
		return refused(err)
	}
	wait, ok := c.governor.reserve(time.Now(), len(bodies), c.cfg.PacePatience)
	if !ok {
		return courier.Outcome{Status: courier.Deferred, Code: "pace", Detail: "the route is slowed down", RetryAfter: wait, Throttled: true}
	}
	if wait > 0 {
		if err := sleep(ctx, wait); err != nil {
			return courier.Outcome{Status: courier.Deferred, Code: "context", Detail: err.Error(), Throttled: true}
		}
	}
	s, err := c.pool.acquire(ctx, c.cfg.BindPatience)
	if err != nil {
		code := "conn"
		if ctx.Err() != nil {
			code = "context"
		}
		return courier.Outcome{Status: courier.Deferred, Code: code, Detail: err.Error()}
	}
	released := false
	release := func() { c.pool.release(s) }
	defer func() {
		if !released {
			release()
		}
	}()

	var ids []string
	for i, body := range bodies {
		var o courier.Outcome
		for try := 1; ; try++ {
			var late bool
			o, late = c.submit(ctx, s, body, release)
			released = released || late
			if i == 0 || o.Status != courier.Deferred || try == partTriesMax || s.dead() {
				break
			}
			wait, ok := c.governor.reserve(time.Now(), 1, c.cfg.PacePatience)
			if !ok || sleep(ctx, max(wait, time.Duration(try)*throttlePause)) != nil {
				break
			}
		}
		if o.Status == courier.Accepted {
			ids = append(ids, strings.Join(o.ProviderIDs, ""))
			if i == len(bodies)-1 {
				o.ProviderIDs, o.Parts = given(ids), parts
				return o
			}
			continue
		}
		o.ProviderIDs, o.Parts = given(ids), i
		if o.Status == courier.Unknown {
			if o.Parts++; len(bodies) == 1 {
				o.Parts = parts
			}
		} else if o.Status == courier.Deferred && i > 0 {
			o.Status = courier.Unknown
		}
		return o
	}
	return courier.Outcome{Status: courier.Refused, Code: StatusSubmitFailed.String(), Detail: "nothing to send"}
}

// given returns ids, which keeps an empty place for a part without id, or nil
// when no part has one.
func given(ids []string) []string {
	if strings.Join(ids, "") == "" {
		return nil
	}
	return ids
}

// submit sends one part and waits for its answer. When ctx ended before the
// answer, late is true and abandoned is called later.
func (c *Client) submit(ctx context.Context, s *session, body *ShortMessage, abandoned func()) (o courier.Outcome, late bool) {
	if err := ctx.Err(); err != nil {
		return courier.Outcome{Status: courier.Deferred, Code: "context", Detail: err.Error()}, false
	}
	w, handed, err := s.request(SubmitSM, body)
	if !handed {
		if _, ok := errors.AsType[*SyntaxError](err); ok {
			return refused(err), false
		}
		return courier.Outcome{Status: courier.Deferred, Code: "conn", Detail: bounded(err.Error(), 512)}, false
	}
	a, late := s.wait(ctx, w, abandoned)
	switch {
	case late:
		return courier.Outcome{Code: "context", Detail: a.err.Error()}, true
	case errors.Is(a.err, errNoAnswer):
		return courier.Outcome{Code: "timeout", Detail: a.err.Error()}, false
	case a.err != nil:
		return courier.Outcome{Code: "conn", Detail: bounded(a.err.Error(), 512)}, false
	}
	return c.judge(s, a.pdu), false
}

// judge turns an answer into an outcome, and acts on what it says of the route.
func (c *Client) judge(s *session, p PDU) (o courier.Outcome) {
	o.Code, o.Detail = p.Status.String(), p.Status.Name()
	if p.Command != SubmitSMResp && (p.Command != GenericNack || p.Status == StatusOK) {
		o.Detail = "answered with " + p.Command.String()
		return o // Unknown: this says nothing about the message
	}
	o.Status, o.Throttled = p.Status.Outcome()
	if status, ok := c.cfg.Statuses[p.Status]; ok {
		o.Status = status
	}
	switch {
	case o.Throttled:
		c.governor.throttled(time.Now())
		o.RetryAfter = throttlePause
	case p.Status == StatusInvalidSource:
		c.log.Error("smpp provider refuses a sender", "status", o.Code)
	case p.Status.Rebind():
		c.log.Error("smpp provider refuses the bind", "status", o.Code)
		s.retire(&bindError{s.mode, p.Status})
	}
	if resp, ok := p.Body.(*MessageResp); ok && o.Status == courier.Accepted && resp.MessageID != "" {
		o.ProviderIDs = []string{resp.MessageID}
	}
	return o
}

// refused is the outcome of a message that cannot be written.
func refused(err error) courier.Outcome {
	o := courier.Outcome{Status: courier.Refused, Code: StatusSubmitFailed.String(), Detail: bounded(err.Error(), 512)}
	if r, ok := errors.AsType[*refusal](err); ok {
		o.Code = r.status.String()
	} else if e, ok := errors.AsType[*SyntaxError](err); ok {
		o.Code = e.Status.String()
	}
	return o
}
