package node

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// administration answers what concerns the node as a whole and no room.
type administration struct {
	n      *Node
	tokens *wire.Tokens
}

// operator refuses everybody but the operator's account, the first of the
// configuration: what concerns the node concerns all its tenants.
func (a *administration) operator(ctx context.Context) error {
	if c := aws.CallerFrom(ctx); c.Account != a.n.Config.Account[0].ID {
		return aws.Denied("Only the operator's account may look at the node")
	}
	return nil
}

// Mount hangs the node's own operations on the mux.
func (a *administration) Mount(m *wire.Mux) {
	wire.Handle(m, everpoint.GetNodeStatus, "node", a.status)
	wire.Handle(m, everpoint.ListBuriedWork, "buried-work", a.buried)
	wire.Handle(m, everpoint.RetryBuriedWork, "buried-work/{WorkId}", a.retry)
	regions{a}.mount(m)
}

// depthMax bounds what status counts of the queue.
const depthMax = 100_000

func (a *administration) status(ctx context.Context, _ *everpoint.GetNodeStatusRequest) (*everpoint.GetNodeStatusResponse, error) {
	if err := a.operator(ctx); err != nil {
		return nil, err
	}
	n := a.n
	depth, err := n.Queue.Depth(n.Store.Reader(ctx), depthMax)
	if err != nil {
		return nil, err
	}
	engine := "sqlite"
	if n.Config.PostgresURLFile != "" {
		engine = "postgresql"
	}
	var peers []everpoint.PeerStatus
	if n.Replica != nil && n.Duty.Here() { // who does not speak for the Region hears nobody
		for _, p := range n.Replica.Status() {
			peers = append(peers, peerStatus(p))
		}
	}
	var marked *int64
	var since *time.Time
	if m := n.Store.Marked(); m.OptOuts > 0 {
		marked, since = new(int64(m.OptOuts)), &m.Since
	}
	return &everpoint.GetNodeStatusResponse{NodeStatus: &everpoint.NodeStatus{
		Peers: peers, OptOutsMarked: marked, OptOutsMarkedSince: since,
		Region: n.Config.Region, NodeId: n.Config.Node, Incarnation: n.Store.Incarnation(), Version: Version(),
		StartedAt: n.started, Engine: engine, ChangeHead: n.Store.Head(store.Changes), EventHead: n.Store.Head(store.Events),
		QueueDepth: int64(depth), InFlightSends: n.Delivery.InFlight(), EndpointsIndexed: int64(n.Index.Size()),
	}}, nil
}

func peerStatus(p replica.Status) everpoint.PeerStatus {
	safety, changes := p.Streams[store.Safety], p.Streams[store.Changes]
	out := everpoint.PeerStatus{
		Region: p.Region, LagMilliseconds: p.Lag.Milliseconds(),
		SafetyMerged: safety.Merged, SafetyHead: safety.Head, SafetyAcknowledged: safety.Acked,
		ChangesMerged: changes.Merged, ChangesHead: changes.Head, ChangesAcknowledged: changes.Acked,
	}
	if p.Incarnation != "" {
		out.Incarnation = &p.Incarnation
	}
	if !p.Heard.IsZero() {
		out.HeardAt = &p.Heard
	}
	if p.Err != nil {
		problem := p.Err.Error()
		out.Problem = &problem
	}
	return out
}

// A buried work's id on the wire is its kind and id, made safe for a path.
func workID(kind, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + "\x00" + id))
}

func view(b *queue.Buried) everpoint.BuriedWork {
	out := everpoint.BuriedWork{Kind: b.Kind, Id: workID(b.Kind, b.ID), Attempts: b.Attempts, BuriedAt: b.BuriedAt}
	if b.LastError != "" {
		out.LastError = &b.LastError
	}
	return out
}

const buriedScope = "everpoint:ListBuriedWork"

func (a *administration) buried(ctx context.Context, in *everpoint.ListBuriedWorkRequest) (*everpoint.ListBuriedWorkResponse, error) {
	if err := a.operator(ctx); err != nil {
		return nil, err
	}
	limit, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	after := ""
	if in.Token != nil {
		if after, err = a.tokens.Open(buriedScope, *in.Token); err != nil {
			return nil, err
		}
	}
	page, next, err := a.n.Queue.BuriedWork(a.n.Store.Reader(ctx), after, limit)
	if err != nil {
		return nil, err
	}
	out := &everpoint.BuriedWorkResponse{Item: []everpoint.BuriedWork{}}
	for i := range page {
		out.Item = append(out.Item, view(&page[i]))
	}
	if next != "" {
		token := a.tokens.Seal(buriedScope, next)
		out.NextToken = &token
	}
	return &everpoint.ListBuriedWorkResponse{BuriedWorkResponse: out}, nil
}

func (a *administration) retry(ctx context.Context, in *everpoint.RetryBuriedWorkRequest) (*everpoint.RetryBuriedWorkResponse, error) {
	if err := a.operator(ctx); err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(in.WorkId)
	kind, id, ok := strings.Cut(string(raw), "\x00")
	if err != nil || !ok {
		return nil, aws.NotFound("no buried work %s", in.WorkId)
	}
	var was everpoint.BuriedWork
	err = a.n.Store.Update(ctx, func(tx *store.Tx) error {
		b, err := a.n.Queue.BuriedOf(tx, kind, id)
		if err != nil {
			return err
		}
		was = view(b)
		return a.n.Queue.Retry(tx, kind, id)
	})
	if err != nil {
		return nil, err
	}
	return &everpoint.RetryBuriedWorkResponse{BuriedWork: &was}, nil
}
