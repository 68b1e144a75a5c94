package quorum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/everpoint/everpoint/aws"
)

// Propose has a command applied and returns what came of it, after it was
// applied on this node too. It may be called on any node; the leader is found.
// The command has its effect at most once.
//
// A command that the state does not allow is rejected with its fault (Conflict,
// NotFound, Quota, Invalid), and nothing has changed. Unavailable means that no
// majority was had within ProposeTime; the message says why. The command may
// then still be applied later, if it is on its way: commands that must not be
// carry an epoch. When ctx ends first the same holds.
func (q *Quorum) Propose(ctx context.Context, c Command) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	q.mu.Lock()
	id := fmt.Sprintf("%016x%016x", q.chance.Uint64(), q.chance.Uint64())
	w := make(chan answer, 1)
	q.waiters[id] = w
	base := q.index
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiters, id)
		q.mu.Unlock()
	}()
	data, err := encodeProposal(id, base, c)
	if err != nil {
		return Result{}, err
	}
	over := time.NewTimer(q.cfg.ProposeTime)
	defer over.Stop()
	var why string
	for hint := ""; ; {
		if base == 0 {
			why = "this node has not joined a group yet"
			if base = q.applyIndex(); base > 0 {
				if data, err = encodeProposal(id, base, c); err != nil {
					return Result{}, err
				}
			}
		}
		again := 2 * q.cfg.Tick
		if base > 0 {
			if hint, why = q.forward(ctx, hint, data); why == "" {
				why = "the leader has the command, and no majority has confirmed it"
				again = q.cfg.election()
			}
		}
		retry := time.NewTimer(again)
		select {
		case a := <-w:
			retry.Stop()
			return a.outcome()
		case <-ctx.Done():
			retry.Stop()
			return Result{}, fmt.Errorf("command %s: %s: %w", c.kind(), why, ctx.Err())
		case <-over.C:
			retry.Stop()
			return Result{}, aws.Unavailable("command %s is not confirmed by a majority of the quorum: %s", c.kind(), q.explain(why))
		case <-retry.C:
		}
	}
}

func (q *Quorum) applyIndex() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index
}

// explain adds what the node knows of the quorum.
func (q *Quorum) explain(why string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.reason(); r != "" {
		return r
	}
	return why
}

// forward takes a proposal to the leader: to the voter that is said to lead, or
// else to each in turn. It returns who led, and why the leader does not have the
// proposal; "" when it does.
func (q *Quorum) forward(ctx context.Context, hint string, data []byte) (leader, why string) {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.election())
	defer cancel()
	ask := q.cfg.names()
	if hint != "" {
		ask = append([]string{hint}, ask...)
	}
	why = "no voter is reached"
	asked := map[string]bool{}
	for len(ask) > 0 && ctx.Err() == nil {
		name := ask[0]
		ask = ask[1:]
		if _, ok := q.cfg.Peers[name]; !ok || asked[name] {
			continue
		}
		asked[name] = true
		status, r, err := q.offer(ctx, name, data)
		switch {
		case err != nil:
		case status == http.StatusAccepted:
			return name, ""
		case status == http.StatusMisdirectedRequest && r.Leader != "":
			ask = append([]string{r.Leader}, ask...)
		default:
			why = r.Reason
		}
	}
	return "", why
}

// offer offers a proposal to a voter: this one, in this process or another node's,
// or a peer.
func (q *Quorum) offer(ctx context.Context, name string, data []byte) (int, reply, error) {
	q.mu.Lock()
	voting, holder := q.view.voting, q.view.holder
	q.mu.Unlock()
	if name == q.cfg.Name && voting {
		return q.offerHere(ctx, data)
	}
	// A voter that hangs must not use up the time for the others.
	ctx, cancel := context.WithTimeout(ctx, q.cfg.election()/2)
	defer cancel()
	var status int
	var body []byte
	var err error
	switch {
	case name != q.cfg.Name:
		status, body, err = q.callPeer(ctx, http.MethodPost, name, "propose", data)
	case holder == "" || holder == q.cfg.URL:
		err = errors.New("no other node runs the voter")
	default:
		status, body, err = q.call(ctx, http.MethodPost, holder, "propose", data)
	}
	if err != nil {
		return 0, reply{}, err
	}
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		return 0, reply{}, fmt.Errorf("voter %s: %w", name, err)
	}
	return status, r, nil
}

func (q *Quorum) offerHere(ctx context.Context, data []byte) (int, reply, error) {
	type said struct {
		status int
		reply
	}
	done := make(chan said, 1)
	select {
	case q.inbox <- func(v *voter) {
		status, r := v.accept(data)
		done <- said{status, r}
	}:
	case <-ctx.Done():
		return 0, reply{}, ctx.Err()
	}
	select {
	case s := <-done:
		return s.status, s.reply, nil
	case <-ctx.Done():
		return 0, reply{}, ctx.Err()
	}
}

// accept puts a proposal into the log if this voter leads.
func (v *voter) accept(data []byte) (int, reply) {
	if v.node.BasicStatus().RaftState != raft.StateLeader {
		return http.StatusMisdirectedRequest, reply{Leader: v.leader(), Reason: "no leader is known"}
	}
	// What one voter alone decided would be lost with it, and with it the group.
	if have, need := len(v.machine.conf.GetVoters()), v.q.cfg.majority(); have < need {
		return http.StatusServiceUnavailable, reply{Reason: fmt.Sprintf("the group is forming: %d of %d voters, %d needed", have, len(v.q.cfg.Peers), need)}
	}
	if err := v.node.Propose(data); err != nil {
		return http.StatusServiceUnavailable, reply{Reason: "the leader does not take commands: " + err.Error()}
	}
	return http.StatusAccepted, reply{}
}

// proposeHere proposes what the leader itself decided; if it gets lost the leader
// decides again.
func (v *voter) proposeHere(c Command) {
	v.q.mu.Lock()
	id := fmt.Sprintf("%016x%016x", v.q.chance.Uint64(), v.q.chance.Uint64())
	v.q.mu.Unlock()
	data, err := encodeProposal(id, v.machine.index, c)
	if err == nil {
		err = v.node.Propose(data)
	}
	if err != nil {
		v.q.log.Info("command of the leader not proposed", "command", c.kind(), "error", err)
	}
}
