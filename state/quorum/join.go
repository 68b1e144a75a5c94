package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// seekTicks is how often a voter without a leader asks the others.
const seekTicks = 5

// passport is what a voter says of itself.
type passport struct {
	Name    string
	Cluster string
	Fresh   bool // it has no log and never voted
	Founder string
	Leader  string
}

// joining is a voter's request to be admitted.
type joining struct {
	Name    string
	ID      uint64
	Witness bool
	Fresh   bool   // it has no log and never voted
	Term    uint64 // the highest it knows
}

// seek looks for a group while the voter has none, or has heard of no leader for
// long: it may have been replaced.
func (v *voter) seek() {
	q := v.q
	lost := !v.following.IsZero() && time.Since(v.following) > 3*q.cfg.election()
	if v.seeking || v.id.Cluster != "" && !lost && !v.id.fresh() || time.Since(v.sought) < seekTicks*q.cfg.Tick {
		return
	}
	v.seeking, v.sought = true, time.Now()
	id := *v.id
	ctx := v.ctx
	v.busy.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, q.cfg.election())
		defer cancel()
		then := q.look(ctx, &id)
		select {
		case q.inbox <- func(w *voter) {
			w.seeking = false
			if then != nil && w.id.ID == id.ID {
				then(w)
			}
		}:
		case <-v.ctx.Done():
		}
	})
}

// look asks the others who they are, and returns what the voter should do.
func (q *Quorum) look(ctx context.Context, id *identity) func(v *voter) {
	members, empty := q.passports(ctx)
	for _, p := range members {
		if id.Cluster != "" && p.Cluster != id.Cluster && !id.fresh() {
			q.log.ErrorContext(ctx, "a voter belongs to another group", "peer", p.Name)
			continue
		}
		if then := q.join(ctx, id, p); then != nil {
			return then
		}
	}
	// Only one voter may found, and only when each of the others is there to say
	// that it has no group and knows the same founder: so nobody can be in a group
	// that this voter forgot.
	if len(members) == 0 && empty == len(q.peers) && id.fresh() && id.Cluster == "" && q.cfg.founder() == q.cfg.Name {
		return (*voter).found
	}
	return nil
}

// passports asks all others at once; it returns those that are in a group, and
// how many are in none and know the same founder.
func (q *Quorum) passports(ctx context.Context) (members []passport, empty int) {
	answers := make(chan *passport, len(q.peers))
	for name := range q.peers {
		go func() {
			p, err := q.passport(ctx, name)
			if err != nil {
				q.log.DebugContext(ctx, "voter not reached", "peer", name, "error", err)
			}
			answers <- p
		}()
	}
	for range q.peers {
		switch p := <-answers; {
		case p == nil:
		case p.Cluster != "":
			members = append(members, *p)
		case p.Fresh && p.Founder == q.cfg.founder():
			empty++
		case p.Founder != q.cfg.founder():
			q.log.ErrorContext(ctx, "a voter names another founder", "peer", p.Name, "its_founder", p.Founder, "founder", q.cfg.founder())
		}
	}
	slices.SortFunc(members, func(a, b passport) int { return len(b.Leader) - len(a.Leader) }) // who knows a leader first
	return members, empty
}

func (q *Quorum) passport(ctx context.Context, name string) (*passport, error) {
	status, body, err := q.callPeer(ctx, http.MethodGet, name, "voter", nil)
	if err != nil {
		return nil, err
	}
	var p passport
	if status != http.StatusOK {
		return nil, fmt.Errorf("voter %s answered %d", name, status)
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("voter %s: %w", name, err)
	}
	if p.Name != name {
		return nil, fmt.Errorf("voter %s says that it is %q", name, p.Name)
	}
	return &p, nil
}

// join asks to be admitted to the group that a member is in.
func (q *Quorum) join(ctx context.Context, id *identity, p passport) func(v *voter) {
	body, err := json.Marshal(joining{Name: q.cfg.Name, ID: id.ID, Witness: q.cfg.Witness, Fresh: id.fresh(), Term: id.Term})
	if err != nil {
		return nil
	}
	at := p.Leader
	if _, ok := q.peers[at]; !ok {
		at = p.Name
	}
	status, said, err := q.callPeer(ctx, http.MethodPost, at, "join", body)
	if err != nil {
		return nil
	}
	var r reply
	switch err := json.Unmarshal(said, &r); {
	case status == http.StatusGone:
		return func(v *voter) { v.lose("another life of it was admitted") }
	case status == http.StatusAccepted && err == nil && r.Cluster != "":
		return func(v *voter) { v.belong(r.Cluster) }
	default:
		q.log.InfoContext(ctx, "not admitted yet", "peer", at, "status", status, "reason", r.Reason)
	}
	return nil
}

// belong makes the voter part of a group, from which it takes messages then.
func (v *voter) belong(cluster string) {
	if v.id.Cluster == cluster || !v.id.fresh() {
		return
	}
	v.failed = v.save(change{Cluster: cluster})
}

// found makes a group of this voter alone, which the others join.
func (v *voter) found() {
	if !v.id.fresh() || v.id.Cluster != "" {
		return
	}
	v.q.mu.Lock()
	cluster := fmt.Sprintf("%016x%016x", v.q.chance.Uint64(), v.q.chance.Uint64())
	v.q.mu.Unlock()
	m := newMachine()
	m.index, m.term = 1, 1
	m.conf = &pb.ConfState{Voters: []uint64{v.id.ID}}
	m.state.Cluster = cluster
	m.state.Voters = map[string]Voter{v.q.cfg.Name: {ID: v.id.ID, Witness: v.q.cfg.Witness}}
	image, err := m.encode()
	if err == nil {
		err = v.save(change{Term: 1, Commit: 1, Cluster: cluster, Image: image, ImageIndex: 1, Reset: true})
	}
	if err != nil {
		v.failed = err
		return
	}
	v.q.log.Info("voter founds the group", "cluster", cluster)
	v.failed = errAgain
}

// admit is the leader's answer to a voter that asks to be a member.
func (v *voter) admit(j joining) (int, reply) {
	st := v.node.BasicStatus()
	if st.RaftState != raft.StateLeader {
		return http.StatusMisdirectedRequest, reply{Leader: v.leader(), Reason: "this voter does not lead"}
	}
	have, known := v.machine.state.Voters[j.Name]
	_, configured := v.q.cfg.Peers[j.Name]
	switch {
	case !configured:
		return http.StatusForbidden, reply{Reason: "no voter of that name is configured here"}
	case j.Term > st.GetTerm():
		return http.StatusConflict, reply{Reason: "this leader's term is over"}
	case known && have.ID == j.ID:
		return http.StatusAccepted, reply{Cluster: v.id.Cluster}
	case !j.Fresh:
		return http.StatusGone, reply{Reason: "another life of the voter is a member"}
	case j.Name == v.q.cfg.Name:
		return http.StatusConflict, reply{Reason: "the leader has that name"}
	}
	changes := []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: new(j.ID)}}
	if known {
		changes = append(changes, &pb.ConfChangeSingle{Type: pb.ConfChangeRemoveNode.Enum(), NodeId: new(have.ID)})
	}
	v.changeVoters(membership{Name: j.Name, ID: j.ID, Learner: true, Witness: j.Witness}, changes...)
	return http.StatusAccepted, reply{Cluster: v.id.Cluster}
}

// names of the configured voters, this one's first, then sorted.
func (c *Config) names() []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(c.Peers)), func(name string) bool { return name == c.Name })
	return append([]string{c.Name}, names...)
}
