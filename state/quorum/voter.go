package quorum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// voter is one run of a voter: the library's state machine over what is durable.
// It belongs to the loop in vote. After any failure it is thrown away and made
// again from the journal, as after a crash.
type voter struct {
	q       *Quorum
	id      *identity
	log     *mirror
	node    *raft.RawNode
	machine *machine
	answers []answer          // applied and not told yet
	names   map[uint64]string // who sent messages under which id
	seen    map[string]sighting
	failed  error // ends the run

	saved     time.Time // when the row was last written
	sought    time.Time // when a group was last looked for
	yielded   time.Time // when leadership was last offered to another
	changed   time.Time // when a change of the voters was last proposed
	seeking   bool
	following time.Time // since when there is no leader; zero when there is one
	busy      *sync.WaitGroup
	ctx       context.Context // of the run, for what it starts
}

const (
	compactEvery  = 1000 // entries between snapshots
	keepEntries   = 200  // behind a snapshot, in memory, for voters that lag a little
	turnWork      = 256  // pieces of work in one turn, which share a commit
	uncommitted   = 8 << 20
	inflightMax   = 64
	appendBytes   = 1 << 20
	promoteWithin = 64 // entries behind the leader's log at which a learner gets its vote
)

// mirror is the durable log in memory, as the library reads it. A snapshot for a
// voter that lags is made when it is asked for: it holds the voter's own
// membership then.
type mirror struct {
	*raft.MemoryStorage
	machine func() *machine
}

func (m mirror) Snapshot() (*pb.Snapshot, error) { return snapshotOf(m.machine()) }

func snapshotOf(m *machine) (*pb.Snapshot, error) {
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	return &pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{
		ConfState: proto.CloneOf(m.conf), Index: new(m.index), Term: new(m.term),
	}}, nil
}

// newVoter makes a voter from what is durable.
func (q *Quorum) newVoter(ctx context.Context, id *identity, busy *sync.WaitGroup) (*voter, error) {
	v := &voter{
		q: q, id: id, machine: newMachine(), names: map[uint64]string{}, seen: map[string]sighting{},
		saved: time.Now(), following: time.Now(), busy: busy, ctx: ctx,
	}
	v.log = &mirror{raft.NewMemoryStorage(), func() *machine { return v.machine }}
	image, entries, err := q.journal.load(ctx, id.First, 0)
	if err != nil {
		return nil, err
	}
	if image != nil {
		if v.machine, err = decodeMachine(image); err != nil {
			return nil, err
		}
		snap, err := snapshotOf(v.machine)
		if err != nil {
			return nil, err
		}
		snap.Data = nil // the mirror makes another when it is asked
		if err := v.log.ApplySnapshot(snap); err != nil {
			return nil, fmt.Errorf("take up snapshot %d: %w", v.machine.index, err)
		}
	}
	if v.machine.index != id.First || id.Last != id.First+uint64(len(entries)) {
		return nil, fmt.Errorf("the voter's row speaks of entries %d to %d; there are %d after %d", id.First, id.Last, len(entries), v.machine.index)
	}
	if err := v.log.Append(entries); err != nil {
		return nil, fmt.Errorf("take up the log: %w", err)
	}
	if id.Term > 0 {
		hard := &pb.HardState{Term: new(id.Term), Vote: new(id.Vote), Commit: new(max(id.Commit, id.First))}
		if err := v.log.SetHardState(hard); err != nil {
			return nil, fmt.Errorf("take up the vote: %w", err)
		}
	}
	v.node, err = raft.NewRawNode(&raft.Config{
		ID: id.ID, ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks, Storage: v.log, Applied: v.machine.index,
		MaxSizePerMsg: appendBytes, MaxInflightMsgs: inflightMax, MaxUncommittedEntriesSize: uncommitted,
		CheckQuorum: true, PreVote: true, StepDownOnRemoval: true, DisableProposalForwarding: true,
		Logger: logger{q.log},
	})
	if err != nil {
		return nil, fmt.Errorf("start the voter: %w", err)
	}
	if c := v.machine.conf.GetVoters(); len(c) == 1 && c[0] == id.ID {
		if err := v.node.Campaign(); err != nil {
			return nil, fmt.Errorf("start the voter: %w", err)
		}
	}
	return v, nil
}

// vote runs the voter until ctx ends or something fails. A panic of the library
// is a failure like another: what it promised is durable.
func (q *Quorum) vote(ctx context.Context, id *identity, busy *sync.WaitGroup) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer func() {
		q.mu.Lock()
		q.view = view{role: Starting, cluster: q.view.cluster}
		q.mu.Unlock()
		if p := recover(); p != nil {
			err = fmt.Errorf("the voter cannot go on: %v", p)
		}
	}()
	v, err := q.newVoter(ctx, id, busy)
	if err != nil {
		return err
	}
	q.publishAll(v.machine)
	v.show()
	ticks := time.NewTicker(q.cfg.Tick)
	defer ticks.Stop()
	for {
		if err := v.work(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			v.tick()
		case f := <-q.inbox:
			f(v)
			v.more()
		}
	}
}

// more does what else waits, so that it is one commit.
func (v *voter) more() {
	for range turnWork {
		select {
		case f := <-v.q.inbox:
			f(v)
		default:
			return
		}
	}
}

// work makes durable what the library wants durable, then sends and applies what
// it allows for that.
func (v *voter) work() error {
	for v.failed == nil && v.node.HasReady() {
		rd := v.node.Ready()
		if err := v.persist(rd); err != nil {
			return err
		}
		v.send(rd.Messages)
		if !raft.IsEmptySnap(rd.Snapshot) {
			v.q.publishAll(v.machine)
		}
		for _, e := range rd.CommittedEntries {
			if err := v.apply(e); err != nil {
				return err
			}
		}
		v.node.Advance(rd)
		if err := v.compact(); err != nil {
			return err
		}
	}
	v.q.publish(v.machine, v.answers)
	v.answers = nil
	v.show()
	return v.failed
}

// save writes a change; what it does not name stays.
func (v *voter) save(c change) error {
	if c.Term == 0 {
		c.Term, c.Vote, c.Commit = v.id.Term, v.id.Vote, v.id.Commit
	}
	if c.Cluster == "" {
		c.Cluster = v.id.Cluster
	}
	c.Leader = v.leader()
	if err := v.q.journal.save(v.ctx, v.id, c); err != nil {
		return err
	}
	v.saved = time.Now()
	v.q.see(v.id)
	return nil
}

func (v *voter) persist(rd raft.Ready) error {
	c := change{Entries: rd.Entries}
	if !raft.IsEmptyHardState(rd.HardState) {
		c.Term, c.Vote, c.Commit = rd.GetTerm(), rd.GetVote(), rd.GetCommit()
	}
	var taken *machine
	if !raft.IsEmptySnap(rd.Snapshot) {
		var err error
		if taken, err = decodeMachine(rd.Snapshot.GetData()); err != nil {
			return err
		}
		if meta := rd.Snapshot.GetMetadata(); taken.index != meta.GetIndex() || taken.term != meta.GetTerm() {
			return fmt.Errorf("a snapshot said to be of entry %d is of %d", meta.GetIndex(), taken.index)
		}
		c.Image, c.ImageIndex, c.Reset = rd.Snapshot.GetData(), taken.index, true
	}
	if c.Term == 0 && len(c.Entries) == 0 && c.Image == nil {
		return nil
	}
	if err := v.save(c); err != nil {
		return err
	}
	if taken != nil {
		v.machine = taken
		if err := v.log.ApplySnapshot(rd.Snapshot); err != nil {
			return fmt.Errorf("take over snapshot %d: %w", taken.index, err)
		}
	}
	if err := v.log.Append(rd.Entries); err != nil {
		return fmt.Errorf("keep the log: %w", err)
	}
	if c.Term > 0 {
		return v.log.SetHardState(rd.HardState)
	}
	return nil
}

func (v *voter) apply(e *pb.Entry) error {
	if v.q.applied != nil {
		v.q.applied(e.GetIndex(), e.GetData())
	}
	switch e.GetType() {
	case pb.EntryNormal:
		a, err := v.machine.apply(e.GetIndex(), e.GetTerm(), e.GetData())
		if err != nil {
			v.q.log.Warn("entry was passed over", "error", err)
		}
		if a != nil {
			v.answers = append(v.answers, *a)
		}
		return nil
	case pb.EntryConfChangeV2:
		cc := &pb.ConfChangeV2{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return fmt.Errorf("read change of voters %d: %w", e.GetIndex(), err)
		}
		conf := v.node.ApplyConfChange(cc)
		return v.machine.applyConf(e.GetIndex(), e.GetTerm(), cc.GetContext(), conf)
	}
	return fmt.Errorf("entry %d is of type %v, which no voter writes", e.GetIndex(), e.GetType())
}

// compact makes the state durable in place of the entries that led to it.
func (v *voter) compact() error {
	if v.machine.index < v.id.First+compactEvery {
		return nil
	}
	image, err := v.machine.encode()
	if err != nil {
		return fmt.Errorf("make snapshot %d: %w", v.machine.index, err)
	}
	if err := v.save(change{Image: image, ImageIndex: v.machine.index}); err != nil {
		return err
	}
	if err := v.log.Compact(v.machine.index - keepEntries); err != nil && !errors.Is(err, raft.ErrCompacted) {
		return fmt.Errorf("compact the log: %w", err)
	}
	return nil
}

// tick is the passing of time.
func (v *voter) tick() {
	v.node.Tick()
	if time.Since(v.saved) > v.q.cfg.Takeover/3 {
		if v.failed = v.save(change{}); v.failed != nil {
			return
		}
	}
	if v.node.BasicStatus().RaftState == raft.StateLeader {
		v.watchLeases()
		v.promote()
		v.yield()
	}
	v.seek()
}

// step hands a message to the library.
func (v *voter) step(m *pb.Message) {
	if m.GetTo() != v.id.ID || v.failed != nil {
		return
	}
	if m.GetType() == pb.MsgHeartbeat && m.GetTerm() >= v.id.Term {
		// A leader tells a voter of commits only as far as it acknowledged entries.
		if last, err := v.log.LastIndex(); err == nil && m.GetCommit() > last {
			v.lose(fmt.Sprintf("the leader knows entry %d to be here, and the log ends with %d", m.GetCommit(), last))
			return
		}
	}
	if err := v.node.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
		v.q.log.Debug("message was not taken", "type", m.GetType().String(), "error", err)
	}
}

// lose ends this life of the voter: its word is not good any more.
func (v *voter) lose(why string) {
	v.q.log.Error("the voter begins a new life, for this one cannot go on", "reason", why)
	v.q.mu.Lock()
	v.q.rebirth = true
	v.q.mu.Unlock()
	v.failed = errAgain
}

// leader is the leader's name; empty when there is none.
func (v *voter) leader() string { return v.nameOf(v.node.BasicStatus().Lead) }

func (v *voter) nameOf(id uint64) string {
	if id == raft.None {
		return ""
	}
	for name, voter := range v.machine.state.Voters {
		if voter.ID == id {
			return name
		}
	}
	return v.names[id]
}

func (v *voter) send(messages []*pb.Message) {
	for _, m := range messages {
		p := v.q.peers[v.nameOf(m.GetTo())]
		body, err := proto.Marshal(m)
		if p == nil || err != nil {
			v.node.ReportUnreachable(m.GetTo())
			continue
		}
		if !p.offer(parcel{v.id.Cluster, m.GetTo(), m.GetType() == pb.MsgSnap, body}) {
			v.lost(m.GetTo(), m.GetType() == pb.MsgSnap)
		}
	}
}

// lost tells the library that a message did not arrive.
func (v *voter) lost(id uint64, snapshot bool) {
	v.node.ReportUnreachable(id)
	if snapshot {
		v.node.ReportSnapshot(id, raft.SnapshotFailure)
	}
}

// show lets the rest of the room see how things stand.
func (v *voter) show() {
	st := v.node.BasicStatus()
	role := Follower
	switch {
	case v.id.Cluster == "":
		role = Joining
	case st.RaftState == raft.StateLeader:
		role = Leader
	case st.RaftState == raft.StateCandidate, st.RaftState == raft.StatePreCandidate:
		role = Candidate
	case !contains(v.machine.conf.GetVoters(), v.id.ID):
		role = Learning
	}
	leader := v.leader()
	switch {
	case leader != "":
		v.following = time.Time{}
	case v.following.IsZero():
		v.following = time.Now()
	}
	q := v.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if leader != q.view.leader || role != q.view.role {
		q.log.Info("voter's part", "role", role, "leader", leader, "term", st.GetTerm())
	}
	q.view = view{
		voting: true, holder: q.cfg.URL, role: role, leader: leader, term: st.GetTerm(),
		cluster: v.id.Cluster, fresh: v.id.fresh(), generation: v.id.Generation,
	}
}

func contains(ids []uint64, id uint64) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// promote gives learners that have caught up their vote.
func (v *voter) promote() {
	if time.Since(v.changed) < v.q.cfg.election() {
		return
	}
	last, err := v.log.LastIndex()
	if err != nil {
		return
	}
	v.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		if typ != raft.ProgressTypeLearner || !pr.RecentActive || pr.Match+promoteWithin < last {
			return
		}
		for name, voter := range v.machine.state.Voters {
			if voter.ID != id {
				continue
			}
			v.changeVoters(membership{Name: name, ID: id, Witness: voter.Witness},
				&pb.ConfChangeSingle{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(id)})
		}
	})
}

// yield offers leadership to another voter while this one's Region is out of the
// set: it may be reached one way only, and has no duty of its own. A Region of the
// set is asked before the witness.
func (v *voter) yield() {
	state := &v.machine.state
	r, known := state.Regions[v.q.cfg.Name]
	if !known || r.InSync || time.Since(v.yielded) < 2*v.q.cfg.election() {
		return
	}
	name, to := "", uint64(0)
	v.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		if id == v.id.ID || typ == raft.ProgressTypeLearner || !pr.RecentActive {
			return
		}
		for n, voter := range state.Voters {
			if voter.ID == id && (state.Regions[n].InSync || voter.Witness && name == "") {
				name, to = n, id
			}
		}
	})
	if to == 0 {
		return
	}
	v.yielded = time.Now()
	v.node.TransferLeader(to)
	v.q.log.Info("leadership is offered, for this Region is out of the set", "to", name)
}

// changeVoters proposes a change of who votes. The library passes over one that
// comes while another is under way; who needs it asks again.
func (v *voter) changeVoters(note membership, changes ...*pb.ConfChangeSingle) {
	text, err := json.Marshal(note)
	if err != nil {
		v.q.log.Error("membership cannot be encoded", "error", err)
		return
	}
	v.changed = time.Now()
	cc := &pb.ConfChangeV2{Changes: changes, Context: text}
	if err := v.node.ProposeConfChange(cc); err != nil {
		v.q.log.Info("change of voters not proposed", "name", note.Name, "error", err)
		return
	}
	v.q.log.Info("change of voters proposed", "name", note.Name, "learner", note.Learner)
}
