package quorum

import (
	"context"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"google.golang.org/protobuf/proto"
)

// followPage is how many entries a following node reads at once.
const followPage = 500

// follow applies what the node that runs the voter made durable, and returns the
// row when that node has been silent for Takeover: its row has not changed for so
// long, by this node's clock alone. While the store fails nobody is silent.
func (q *Quorum) follow(ctx context.Context, row *identity) (*identity, error) {
	q.log.InfoContext(ctx, "another node runs the voter", "holder", row.Node)
	m := newMachine()
	since := time.Now()
	ticks := time.NewTicker(q.cfg.Tick)
	defer ticks.Stop()
	for {
		if q.wentBack(row) {
			return row, nil
		}
		q.see(row)
		if err := q.catchUp(ctx, m, row); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticks.C:
		}
		now, err := q.journal.identity(ctx)
		switch {
		case err != nil:
			return nil, err
		case now == nil || now.Node == q.cfg.Node:
			return now, nil
		case now.Generation != row.Generation || now.Beat != row.Beat:
			since = time.Now()
		case time.Since(since) > q.cfg.Takeover:
			q.log.WarnContext(ctx, "the node that runs the voter is silent; this one takes over", "holder", row.Node)
			return now, nil
		}
		row = now
	}
}

// catchUp applies the log up to the commit that the row speaks of. The row was
// read first, so the entries up to there are final.
func (q *Quorum) catchUp(ctx context.Context, m *machine, row *identity) error {
	var answers []answer
	from := m.index
	for m.index < row.Commit {
		image, entries, err := q.journal.load(ctx, m.index, followPage)
		if err != nil {
			return err
		}
		before := m.index
		for _, e := range entries {
			if e.GetIndex() != m.index+1 || e.GetIndex() > row.Commit {
				break
			}
			a, err := m.follow(e)
			if err != nil {
				q.log.WarnContext(ctx, "entry was passed over", "error", err)
			}
			if a != nil {
				answers = append(answers, *a)
			}
		}
		if m.index == before { // what comes next is in the snapshot already
			if image == nil {
				break
			}
			next, err := decodeMachine(image)
			if err != nil {
				return err
			}
			if next.index <= before {
				break // the rest will be read with the next row
			}
			*m = *next
			answers = append(answers, next.recent...)
		}
	}
	q.mu.Lock()
	q.view = view{holder: row.URL, role: Following, leader: row.Leader, term: row.Term, cluster: row.Cluster}
	q.mu.Unlock()
	if m.index != from || len(answers) > 0 {
		q.publish(m, answers)
	}
	return nil
}

// follow applies an entry where nobody votes.
func (m *machine) follow(e *pb.Entry) (*answer, error) {
	if e.GetType() == pb.EntryNormal {
		return m.apply(e.GetIndex(), e.GetTerm(), e.GetData())
	}
	cc := &pb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		m.index, m.term = e.GetIndex(), e.GetTerm()
		return nil, err
	}
	return nil, m.applyConf(e.GetIndex(), e.GetTerm(), cc.GetContext(), nil)
}
