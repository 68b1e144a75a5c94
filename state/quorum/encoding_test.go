package quorum

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"
)

func TestEncoding_every_command_comes_back_as_it_was(t *testing.T) {
	all := []Command{
		Join{"a", "1", "0", true},
		Remove{"a", "1", "why"},
		Await{"a", "1"},
		Return{"a", "1", 2, 7},
		Forget{"a"},
		Succeed{"a", "1", "b", "2"},
		SetMode{WarmStandby, "a", map[string]int{"a": 5}, 3},
		SetControl{"a", 4},
		SetSwitch{"a", Switch{Off, 3, "why", "who", 9}},
		TakeLease{"a", "n", 600},
		RenewLease{"a", "n", 2},
		ReleaseLease{"a", "n", 2},
		expireLease{"a", 2, 5},
		Raise{"a", 1, 2, []Mark{{3, "k", 1 << 63}}},
		DropMarks{"k", 5},
		Grant{"k", "a", 1, 2},
		DropShares{"k"},
		Stop{"k", Halt{Cancel, 0, 3, "who", 8}},
		DropStops{[]string{"k"}, 9},
		Barrier{},
	}
	if len(all) != len(decoders) {
		t.Errorf("%d commands here, %d are decoded", len(all), len(decoders))
	}
	for _, c := range all {
		data, err := encodeProposal("id", 5, c)
		if err != nil {
			t.Fatal(err)
		}
		p, err := decodeProposal(data)
		if err != nil || !reflect.DeepEqual(p.command, c) || p.Base != 5 || p.ID != "id" {
			t.Errorf("%s came back as %+v, %v", data, p, err)
		}
	}
}

// FuzzProposal applies what comes, and expects no panic, a state that obeys the
// laws, and that what was read is read again from its own encoding.
func FuzzProposal(f *testing.F) {
	for _, c := range []Command{
		Join{Region: "b", Incarnation: "2"},
		Remove{Region: "a", Incarnation: "a1"},
		SetMode{Mode: WarmStandby, Primary: "b"},
		SetSwitch{Region: "a", Switch: Switch{Position: Off}},
		Raise{Region: "a", Lease: 1, Duty: 2, Marks: []Mark{{0, "k", 9}}},
		grant("k"),
	} {
		data, err := encodeProposal("id", 3, c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":2,"id":"x","kind":"later","body":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := two(t).m
		before := m.state
		a, err := m.apply(m.index+1, 1, data)
		if a == nil && err == nil && len(data) > 0 {
			t.Fatal("passed over in silence")
		}
		var c Command
		if p, err := decodeProposal(data); err == nil {
			c = p.command
			again, err := encodeProposal(p.ID, p.Base, p.command)
			if err != nil {
				return // longer than it came, by escapes
			}
			if q, err := decodeProposal(again); err != nil || !reflect.DeepEqual(p.command, q.command) {
				t.Fatalf("%+v was read again as %+v, %v", p.command, q.command, err)
			}
		}
		lawful(t, &before, &m.state, c)
		if n, err := decodeMachine(mustEncode(t, m)); err != nil || !bytes.Equal(mustEncode(t, n), mustEncode(t, m)) {
			t.Fatalf("the snapshot is not read as it was: %v", err)
		}
	})
}

// FuzzEnvelope expects that nothing gets through which no voter sends: the library
// takes some messages for its own.
func FuzzEnvelope(f *testing.F) {
	add := func(messages ...*pb.Message) {
		e := envelope{Cluster: "c", From: "b"}
		for _, m := range messages {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			e.Messages = append(e.Messages, b)
		}
		data, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	one := func(m *pb.Message) *pb.Message {
		m.From, m.To, m.Term = new(uint64(2)), new(uint64(1)), new(uint64(3))
		return m
	}
	add(one(&pb.Message{Type: pb.MsgHeartbeat.Enum(), Commit: new(uint64(4))}))
	add(one(&pb.Message{Type: pb.MsgVote.Enum(), Index: new(uint64(9)), LogTerm: new(uint64(2))}))
	add(one(&pb.Message{Type: pb.MsgApp.Enum(), Entries: []*pb.Entry{{Index: new(uint64(1)), Term: new(uint64(1))}}}))
	add(one(&pb.Message{Type: pb.MsgSnap.Enum(), Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
		ConfState: &pb.ConfState{Voters: []uint64{2}, Learners: []uint64{1}}, Index: new(uint64(5)), Term: new(uint64(2)),
	}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, messages, err := decodeEnvelope(data)
		if err != nil {
			return
		}
		for _, m := range messages {
			if m.GetTerm() == 0 || m.GetFrom() == 0 || m.GetTo() == 0 {
				t.Fatalf("let through %v", m)
			}
			switch m.GetType() {
			case pb.MsgHup, pb.MsgBeat, pb.MsgProp, pb.MsgUnreachable, pb.MsgSnapStatus, pb.MsgCheckQuorum,
				pb.MsgStorageAppend, pb.MsgStorageAppendResp, pb.MsgStorageApply, pb.MsgStorageApplyResp, pb.MsgForgetLeader, pb.MsgTransferLeader:
				t.Fatalf("let through a local message %v", m)
			}
		}
	})
}
