package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/everpoint/everpoint/aws"
)

// Halted returns the stop order for the first of the keys that has one. It is a
// look into memory; a nil Quorum, of a Region that has no group, has none.
func (q *Quorum) Halted(keys ...string) (h Halt, ok bool) {
	if q == nil {
		return Halt{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range keys {
		if h, ok = q.state.Stops[k]; ok {
			return h, true
		}
	}
	return Halt{}, false
}

// Order gives a stop order. Where the leader is not reached another voter that is,
// the witness above all, gives it in this one's name: a Region that is cut off may
// stop what the others send. It fails as [Quorum.Propose] does.
//
// withdraw takes the order back, when what it asks for was done otherwise; one that
// came to another that stood already stays until both are carried out.
func (q *Quorum) Order(ctx context.Context, key string, h Halt) (withdraw func(context.Context), err error) {
	if q == nil {
		return nil, aws.Unavailable("there is no quorum to order it by")
	}
	result, err := q.order(ctx, Stop{Key: key, Halt: h})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		if result.Joined {
			return
		}
		if err := q.Lift(ctx, key, result.Epoch); err != nil {
			q.log.InfoContext(ctx, "a stop order is not withdrawn: the control Region will carry it out", "order", key, "error", err)
		}
	}, nil
}

// order proposes a stop order: first as any command, then, if the leader does not
// confirm it soon, by everybody at once. What is applied twice is one order.
func (q *Quorum) order(ctx context.Context, c Stop) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	if q.Reason() == "" {
		soon, cancel := context.WithTimeout(ctx, q.cfg.election())
		r, err := q.Propose(soon, c)
		cancel()
		if kind := aws.KindOf(err); err == nil || kind == aws.KindQuota || ctx.Err() != nil {
			return r, err
		}
	}
	body, err := json.Marshal(c)
	if err != nil {
		return Result{}, fmt.Errorf("encode a stop order: %w", err)
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithTimeout(ctx, q.cfg.ProposeTime)
	defer cancel()
	type said struct {
		Result
		err error
	}
	answers := make(chan said, 1+len(q.peers))
	ask := func(f func() (Result, error)) {
		asking.Go(func() {
			r, err := f()
			answers <- said{r, err}
		})
	}
	ask(func() (Result, error) { return q.Propose(ctx, c) })
	for name := range q.peers {
		ask(func() (Result, error) { return q.orderBy(ctx, name, body) })
	}
	var why error
	for range 1 + len(q.peers) {
		a := <-answers
		if a.err == nil {
			return a.Result, nil
		}
		if why == nil || aws.KindOf(a.err) == aws.KindUnavailable {
			why = a.err
		}
	}
	return Result{}, why
}

// orderBy has another voter propose a stop order.
func (q *Quorum) orderBy(ctx context.Context, name string, body []byte) (Result, error) {
	status, answer, err := q.callPeer(ctx, http.MethodPost, name, "stop", body)
	if err != nil {
		return Result{}, err
	}
	if status != http.StatusOK {
		var r reply
		if err := json.Unmarshal(answer, &r); err != nil || r.Reason == "" {
			r.Reason = fmt.Sprintf("it answered %d", status)
		}
		return Result{}, aws.Unavailable("voter %s does not take the order: %s", name, r.Reason)
	}
	var r Result
	if err := json.Unmarshal(answer, &r); err != nil {
		return Result{}, fmt.Errorf("read what became of an order given to voter %s: %w", name, err)
	}
	return r, nil
}

// Lift forgets the stop order for a key up to an epoch.
func (q *Quorum) Lift(ctx context.Context, key string, upTo uint64) error {
	_, err := q.Propose(ctx, DropStops{Keys: []string{key}, UpTo: upTo})
	return err
}
