package smtp

import (
	"context"
	"net"
	"sync/atomic"

	"github.com/everpoint/everpoint/courier"
)

// The states of a job. They only move down this list, by compare-and-swap, and
// that is what settles the race between a caller whose ctx ends and the
// connection that is about to send the final dot.
const (
	jobWaiting   uint32 = iota // nothing of the content was written
	jobContent                 // content is being written, the final dot is not
	jobDotted                  // the final dot is, or is about to be, on the wire
	jobDone                    // resolved
	jobAbandoned               // the caller has left with Deferred; no dot may follow
)

// job is one attempt at one message.
type job struct {
	ctx   context.Context //nolint:containedctx // a job is a call under way: this is the caller's own
	m     *courier.Message
	utf8  bool // SMTPUTF8 is needed
	eight bool // 8BITMIME is needed

	state atomic.Uint32
	conn  net.Conn // set before jobContent; what the caller closes to stop the content
	reset bool     // RSET was written before this envelope
	dotAt int64    // where in the connection's output the final dot is
	done  chan result
}

// result is what a connection answers about a job.
type result struct {
	outcome courier.Outcome
	again   bool // nothing of the content was written and another connection may do better
}

func newJob(ctx context.Context, m *courier.Message, utf8, eight bool) *job {
	return &job{ctx: ctx, m: m, utf8: utf8, eight: eight, done: make(chan result, 1)}
}

// abandoned says that nobody waits for this job any more.
func (j *job) abandoned() bool { return j.state.Load() == jobAbandoned }

// begin takes the right to write the content.
func (j *job) begin(conn net.Conn) bool {
	j.conn = conn
	return j.state.CompareAndSwap(jobWaiting, jobContent)
}

// dot takes the right to write the final dot.
func (j *job) dot() bool { return j.state.CompareAndSwap(jobContent, jobDotted) }

// resolve answers the caller. Only the first answer counts.
func (j *job) resolve(o courier.Outcome, again bool) {
	for {
		was := j.state.Load()
		if was >= jobDone {
			return
		}
		if j.state.CompareAndSwap(was, jobDone) {
			j.done <- result{o, again}
			return
		}
	}
}

// cancelled is the outcome of a job whose ctx ended in time.
func (j *job) cancelled() courier.Outcome {
	return deferred("cancelled before the final dot: " + context.Cause(j.ctx).Error())
}

// leave is the caller's side of ctx ending: the outcome that is true from now
// on, whatever the connection does next.
func (j *job) leave() courier.Outcome {
	for {
		switch was := j.state.Load(); was {
		case jobWaiting:
			if j.state.CompareAndSwap(was, jobAbandoned) {
				return j.cancelled()
			}
		case jobContent:
			if j.state.CompareAndSwap(was, jobAbandoned) {
				j.conn.Close() // A 354 can be taken back in no other way.
				return j.cancelled()
			}
		case jobDotted:
			return unknown("cancelled while waiting for the reply to the final dot: " + context.Cause(j.ctx).Error())
		default:
			return (<-j.done).outcome
		}
	}
}
