package quorum

import (
	"encoding/json"
	"fmt"
	"net/url"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/everpoint/everpoint/aws"
)

// Bounds of what comes from other processes.
const (
	proposalBytesMax = 256 << 10
	envelopeBytesMax = 32 << 20 // a snapshot, with every map at its bound, is below it
	envelopeMessages = 256
	idBytesMax       = 64
	urlBytesMax      = 512
)

// version is that of the proposals this release makes and applies. It rises when
// a command's meaning changes; a new kind of command does not need it.
const version = 1

// proposal is a command on its way and in the log.
type proposal struct {
	V    int             `json:"v"`
	ID   string          `json:"id"`   // the proposer's own, so that it has its effect once
	Base uint64          `json:"base"` // the last entry that the proposer had applied
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`

	command Command
}

func encodeProposal(id string, base uint64, c Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.kind(), err)
	}
	data, err := json.Marshal(proposal{V: version, ID: id, Base: base, Kind: c.kind(), Body: body})
	if err == nil && len(data) > proposalBytesMax {
		return nil, aws.TooLarge("the command %s has %d bytes, more than %d", c.kind(), len(data), proposalBytesMax)
	}
	return data, err
}

// decodeProposal reads a proposal and checks its command. Where only the command
// cannot be read the proposal is returned with the error, errUnknown if a newer
// release made it.
func decodeProposal(data []byte) (proposal, error) {
	if len(data) > proposalBytesMax {
		return proposal{}, aws.TooLarge("a proposal of %d bytes is above %d", len(data), proposalBytesMax)
	}
	var p proposal
	if err := json.Unmarshal(data, &p); err != nil {
		return proposal{}, aws.Invalid("the proposal cannot be read: %v", err)
	}
	if p.ID == "" || len(p.ID) > idBytesMax || len(p.Kind) > idBytesMax {
		return proposal{}, aws.Invalid("the proposal's id or kind is missing or too long")
	}
	read := decoders[p.Kind]
	if p.V != version || read == nil {
		return p, errUnknown
	}
	c, err := read(p.Body)
	if err != nil {
		return p, err
	}
	p.command = c
	return p, nil
}

// decoders reads each kind of command.
var decoders = map[string]func([]byte) (Command, error){
	Join{}.kind():         decode[Join],
	Remove{}.kind():       decode[Remove],
	Await{}.kind():        decode[Await],
	Return{}.kind():       decode[Return],
	Forget{}.kind():       decode[Forget],
	Succeed{}.kind():      decode[Succeed],
	SetMode{}.kind():      decode[SetMode],
	SetControl{}.kind():   decode[SetControl],
	SetSwitch{}.kind():    decode[SetSwitch],
	TakeLease{}.kind():    decode[TakeLease],
	RenewLease{}.kind():   decode[RenewLease],
	ReleaseLease{}.kind(): decode[ReleaseLease],
	expireLease{}.kind():  decode[expireLease],
	Raise{}.kind():        decode[Raise],
	DropMarks{}.kind():    decode[DropMarks],
	Grant{}.kind():        decode[Grant],
	DropShares{}.kind():   decode[DropShares],
	Stop{}.kind():         decode[Stop],
	DropStops{}.kind():    decode[DropStops],
	Barrier{}.kind():      decode[Barrier],
}

func decode[C Command](body []byte) (Command, error) {
	var c C
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, aws.Invalid("the command %s cannot be read: %v", c.kind(), err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// envelope carries messages between two voters.
type envelope struct {
	Cluster  string
	From     string   // name of the sender
	URL      string   `json:",omitempty"` // of its node that runs the voter
	Messages [][]byte // in the library's encoding
}

// decodeEnvelope reads an envelope. What it returns may be handed to the library:
// each message has its type, no local one, and entries with increasing indexes.
func decodeEnvelope(data []byte) (envelope, []*pb.Message, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return e, nil, aws.Invalid("the envelope cannot be read: %v", err)
	}
	if e.URL != "" {
		if u, err := url.Parse(e.URL); err != nil || len(e.URL) > urlBytesMax || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return e, nil, aws.Invalid("the sender's URL cannot be used")
		}
	}
	if len(e.Messages) > envelopeMessages {
		return e, nil, aws.TooLarge("an envelope of %d messages is above %d", len(e.Messages), envelopeMessages)
	}
	var all []*pb.Message
	for _, b := range e.Messages {
		m := &pb.Message{}
		if err := proto.Unmarshal(b, m); err != nil {
			return e, nil, aws.Invalid("a message cannot be read: %v", err)
		}
		if err := sane(m); err != nil {
			return e, nil, err
		}
		all = append(all, m)
	}
	return e, all, nil
}

// sane refuses what no voter sends and the library would stumble over.
func sane(m *pb.Message) error {
	switch m.GetType() {
	case pb.MsgApp, pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgHeartbeat, pb.MsgHeartbeatResp,
		pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgTimeoutNow:
	case pb.MsgSnap:
		if m.GetSnapshot().GetMetadata().GetConfState() == nil || m.GetSnapshot().GetMetadata().GetIndex() == 0 {
			return aws.Invalid("a snapshot has no metadata")
		}
	default:
		return aws.Invalid("voters do not send messages of type %v", m.GetType())
	}
	if m.Type == nil || m.GetTerm() == 0 || m.GetFrom() == 0 || m.GetTo() == 0 {
		return aws.Invalid("a message has no type, term, sender or receiver")
	}
	for i, e := range m.GetEntries() {
		if m.GetType() != pb.MsgApp || e == nil || e.GetIndex() != m.GetIndex()+uint64(i)+1 || e.GetTerm() == 0 || e.GetTerm() > m.GetTerm() {
			return aws.Invalid("a message has entries that do not follow each other")
		}
	}
	return nil
}
