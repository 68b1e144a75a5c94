package quorum

import (
	"encoding/json"
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/everpoint/everpoint/aws"
)

// window is how many entries of the log a proposal may be late: the outcomes of
// the last so many are remembered, so that a proposal which arrives twice has
// its effect once, and one that is older is refused.
const window = 2048

// machine is the applied state with what is needed to go on from it. Every voter
// that applied the same entries has the same machine, byte for byte.
type machine struct {
	state  State
	index  uint64 // of the last applied entry
	term   uint64 // of that entry
	conf   *pb.ConfState
	recent []answer          // in the order applied
	known  map[string]answer // the same by proposal
}

// answer is what came of a proposal.
type answer struct {
	ID      string
	Result  Result
	Kind    aws.Kind `json:",omitempty"` // of the rejection; none if Message is empty
	Message string   `json:",omitempty"`
	Member  string   `json:",omitempty"`
}

// outcome is the answer as its proposer sees it.
func (a answer) outcome() (Result, error) {
	if a.Message != "" {
		return Result{Index: a.Result.Index}, &aws.Fault{Kind: a.Kind, Message: a.Message, Member: a.Member}
	}
	return a.Result, nil
}

func newMachine() *machine {
	return &machine{state: State{Mode: ActiveActive}, conf: &pb.ConfState{}, known: map[string]answer{}}
}

// errUnknown is a command that a newer release made.
var errUnknown = errors.New("the command is unknown to this release")

// apply applies a normal entry. The answer is nil when nobody waits for one:
// the entry is empty, or cannot be read; then err says why.
func (m *machine) apply(index, term uint64, data []byte) (*answer, error) {
	m.index, m.term = index, term
	m.prune()
	if len(data) == 0 {
		return nil, nil
	}
	p, err := decodeProposal(data)
	if err != nil && p.ID == "" {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	if old, ok := m.known[p.ID]; ok {
		return &old, nil
	}
	a := answer{ID: p.ID, Result: Result{Index: index}}
	var unknown error
	switch {
	case p.Base+window < index:
		// It may have been applied once and forgotten.
		a.reject(aws.Unavailable("the command was on its way for too long"))
		return &a, nil
	case errors.Is(err, errUnknown):
		unknown = fmt.Errorf("entry %d: command %q: %w", index, p.Kind, err)
		a.reject(aws.NotImplemented("the command %q is unknown to this release", p.Kind))
	case err != nil:
		a.reject(err)
	default:
		a.run(&m.state, p.command)
	}
	m.recent = append(m.recent, a)
	m.known[a.ID] = a
	return &a, unknown
}

// run applies a command to s unless it is rejected.
func (a *answer) run(s *State, c Command) {
	next := *s
	r, err := c.apply(&next)
	if err != nil {
		a.reject(err)
		return
	}
	*s = next
	r.Index = a.Result.Index
	a.Result = r
}

func (a *answer) reject(err error) {
	f, ok := errors.AsType[*aws.Fault](err)
	if !ok {
		f = aws.Invalid("%v", err)
	}
	a.Kind, a.Message, a.Member = f.Kind, f.Message, f.Member
}

// prune forgets the answers that are out of the window.
func (m *machine) prune() {
	n := 0
	for n < len(m.recent) && m.recent[n].Result.Index+window < m.index {
		delete(m.known, m.recent[n].ID)
		n++
	}
	m.recent = m.recent[n:]
}

// membership is what a configuration change says of the voter that it is about.
type membership struct {
	Name    string
	ID      uint64
	Learner bool `json:",omitempty"`
	Witness bool `json:",omitempty"`
}

// applyConf applies the note of a configuration change; conf is what the library
// made of the change itself, nil where nobody votes.
func (m *machine) applyConf(index, term uint64, note []byte, conf *pb.ConfState) error {
	m.index, m.term = index, term
	m.prune()
	if conf != nil {
		m.conf = conf
	}
	if len(note) == 0 {
		return nil // the end of a joint configuration
	}
	var c membership
	if err := json.Unmarshal(note, &c); err != nil {
		return fmt.Errorf("entry %d: read membership: %w", index, err)
	}
	m.state.Voters = with(m.state.Voters, c.Name, Voter{c.ID, c.Learner, c.Witness})
	return nil
}

// image is a machine as it is kept and sent.
type image struct {
	Index, Term uint64
	Conf        configuration
	State       State
	Recent      []answer `json:",omitempty"`
}

// configuration is the library's view of who votes, by id.
type configuration struct {
	Voters    []uint64 `json:",omitempty"`
	Learners  []uint64 `json:",omitempty"`
	Outgoing  []uint64 `json:",omitempty"`
	Next      []uint64 `json:",omitempty"`
	AutoLeave bool     `json:",omitempty"`
}

func (m *machine) encode() ([]byte, error) {
	return json.Marshal(image{m.index, m.term, configuration{
		m.conf.GetVoters(), m.conf.GetLearners(), m.conf.GetVotersOutgoing(), m.conf.GetLearnersNext(), m.conf.GetAutoLeave(),
	}, m.state, m.recent})
}

func decodeMachine(data []byte) (*machine, error) {
	var i image
	if err := json.Unmarshal(data, &i); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	m := newMachine()
	m.index, m.term, m.state, m.recent = i.Index, i.Term, i.State, i.Recent
	// A release before Member left it out of its snapshots, and there were no claims
	// then. No Region came into the set before 1, and none will again.
	for name, r := range m.state.Regions {
		if r.InSync && r.Member == 0 {
			r.Member = 1
			m.state.Regions[name] = r
		}
	}
	m.conf = &pb.ConfState{
		Voters: i.Conf.Voters, Learners: i.Conf.Learners, VotersOutgoing: i.Conf.Outgoing, LearnersNext: i.Conf.Next,
		AutoLeave: new(i.Conf.AutoLeave),
	}
	for _, a := range m.recent {
		m.known[a.ID] = a
	}
	return m, nil
}
