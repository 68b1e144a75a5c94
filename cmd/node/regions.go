package node

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/quorum"
)

// regions answers what concerns the group: who is in it, who sends, where calls
// go, and the operator's orders about that.
type regions struct{ a *administration }

func (g regions) mount(m *wire.Mux) {
	wire.Handle(m, everpoint.GetGroup, "group", g.get)
	wire.Handle(m, everpoint.UpdateRegionSwitch, "group/regions/{Region}/switch", g.setSwitch)
	wire.Handle(m, everpoint.ForgetRegion, "group/regions/{Region}", g.forget)
	wire.Handle(m, everpoint.UpdateGroupMode, "group/mode", g.setMode)
	wire.Handle(m, everpoint.UpdateControlRegion, "group/control-region", g.setControl)
}

// leads reports whether this Region has control, and may claim work now.
func (n *Node) leads() bool {
	s, err := n.Duty.Standing()
	return err == nil && s.Leads
}

// quorum returns the node's part in the quorum to the operator's account.
func (g regions) quorum(ctx context.Context) (*quorum.Quorum, error) {
	if err := g.a.operator(ctx); err != nil {
		return nil, err
	}
	if g.a.n.Quorum == nil {
		return nil, errNoVote
	}
	return g.a.n.Quorum, nil
}

var errNoVote = aws.NotFound("The Regions of this node do not vote: that takes three of them, or two and a witness, in Group of the configuration")

func (g regions) get(ctx context.Context, _ *everpoint.GetGroupRequest) (*everpoint.GetGroupResponse, error) {
	q, err := g.quorum(ctx)
	if err != nil {
		return nil, err
	}
	state, index := q.State()
	return &everpoint.GetGroupResponse{Group: groupView(&state, index, q.Status())}, nil
}

func (g regions) setSwitch(ctx context.Context, in *everpoint.UpdateRegionSwitchRequest) (*everpoint.UpdateRegionSwitchResponse, error) {
	q, err := g.quorum(ctx)
	if err != nil {
		return nil, err
	}
	state, _ := q.State()
	to := in.RegionSwitchRequest
	if _, err := q.Propose(ctx, quorum.SetSwitch{Region: in.Region, Switch: quorum.Switch{
		Position: quorum.Position(to.Position), Weight: or(to.Weight, switchOf(&state, in.Region).Weight), Reason: or(to.Reason, ""),
		By: by(ctx), AtMillis: g.a.n.now().UnixMilli(),
	}}); err != nil {
		return nil, explain(err, &state, in.Region)
	}
	state, _ = q.State()
	return &everpoint.UpdateRegionSwitchResponse{RegionSwitch: switchView(&state, in.Region)}, nil
}

// heardLately is how short ago a Region was heard that is not lost.
const heardLately = 3 * time.Second

// forget forgets a Region that is lost for good; another takes its place if it was
// the last of the set.
func (g regions) forget(ctx context.Context, in *everpoint.ForgetRegionRequest) (*everpoint.ForgetRegionResponse, error) {
	q, err := g.quorum(ctx)
	if err != nil {
		return nil, err
	}
	state, _ := q.State()
	heard := map[string]string{} // incarnation
	if g.a.n.Replica != nil {
		for _, s := range g.a.n.Replica.Status() {
			if g.a.n.now().Sub(s.Heard) < heardLately {
				heard[s.Region] = s.Incarnation
			}
		}
	}
	c, err := forgetCommand(&state, g.a.n.Config.Region, heard, in.Region, or(in.Successor, ""))
	if err != nil {
		return nil, explain(err, &state, in.Region)
	}
	if _, err := q.Propose(ctx, c); err != nil {
		return nil, explain(err, &state, in.Region)
	}
	state, index := q.State()
	g.a.n.log.WarnContext(ctx, "a Region was forgotten", "peer", in.Region, "by", by(ctx), "set", state.Set())
	return &everpoint.ForgetRegionResponse{Group: groupView(&state, index, q.Status())}, nil
}

// forgetCommand is the command that forgetting a Region comes to; here is the Region
// that is asked, and heard the incarnations of those that it hears.
func forgetCommand(state *quorum.State, here string, heard map[string]string, region, successor string) (quorum.Command, error) {
	r, known := state.Regions[region]
	if !known {
		return nil, aws.NotFound("Region %s is not known to the quorum", region)
	}
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(state.Regions)), func(name string) bool { return name == region })
	switch {
	case region == here:
		return nil, aws.Conflict("Region %s was asked to forget itself: ask the one that is to go on", region)
	case heard[region] == r.Incarnation:
		return nil, aws.Conflict("Region %s is heard: it is not lost. If it is to go, stop it first", region)
	case !r.InSync && successor != "":
		return nil, aws.InvalidMember("Successor", "Region %s is not in sync, so nobody has to take its place", region)
	case !r.InSync:
		return quorum.Forget{Region: region}, nil
	case len(state.Set()) > 1 || len(others) == 0:
	case successor == "" && len(others) > 1:
		return nil, aws.InvalidMember("Successor", "Successor is missing: Region %s is the last in sync, and one of %s has to take its place",
			region, strings.Join(others, ", "))
	case successor == "":
		successor = others[0]
	}
	next, known := state.Regions[successor]
	switch {
	case len(state.Set()) > 1:
		return nil, aws.Conflict("Region %s is in the in-sync set with others, which remove it when they do not hear it: it can be forgotten then", region)
	case !known:
		return nil, aws.InvalidMember("Successor", "%q is none of the other Regions of the group", successor)
	case successor != here && heard[successor] != next.Incarnation:
		return nil, aws.Conflict("Region %s, which is to take the place of %s, is not heard here", successor, region)
	}
	return quorum.Succeed{Region: region, Incarnation: r.Incarnation, Successor: successor, SuccessorIncarnation: next.Incarnation}, nil
}

func (g regions) setMode(ctx context.Context, in *everpoint.UpdateGroupModeRequest) (*everpoint.UpdateGroupModeResponse, error) {
	q, err := g.quorum(ctx)
	if err != nil {
		return nil, err
	}
	state, _ := q.State()
	c, err := modeCommand(&state, in.GroupModeRequest)
	if err != nil {
		return nil, err
	}
	if _, err := q.Propose(ctx, c); err != nil {
		return nil, explain(err, &state, c.Primary)
	}
	state, _ = q.State()
	return &everpoint.UpdateGroupModeResponse{GroupDuty: dutyView(&state)}, nil
}

// modeCommand is the command that a request comes to. What it does not say stays
// as it is.
func modeCommand(state *quorum.State, to *everpoint.GroupModeRequest) (quorum.SetMode, error) {
	c := quorum.SetMode{Mode: quorum.Mode(to.Mode), Primary: or(to.Primary, ""), Weights: to.Weights, Epoch: uint64(or(to.Epoch, 0))}
	if c.Weights == nil {
		c.Weights = state.Weights
	}
	switch {
	case c.Mode == quorum.ActiveActive && c.Primary != "":
		return c, aws.InvalidMember("Primary", "Primary is given, but only warm-standby has a primary Region")
	case c.Mode == quorum.WarmStandby && c.Primary == "":
		if c.Primary = state.Primary; c.Primary == "" {
			return c, aws.InvalidMember("Primary", "Primary is missing: it names the Region that has all traffic and duty in warm-standby")
		}
	}
	return c, nil
}

func (g regions) setControl(ctx context.Context, in *everpoint.UpdateControlRegionRequest) (*everpoint.UpdateControlRegionResponse, error) {
	q, err := g.quorum(ctx)
	if err != nil {
		return nil, err
	}
	state, _ := q.State()
	to := in.GroupControlRequest
	epoch := or(to.Epoch, int64(state.Control.Epoch))
	if _, err := q.Propose(ctx, quorum.SetControl{Region: to.Region, Epoch: uint64(epoch)}); err != nil {
		return nil, explain(err, &state, to.Region)
	}
	state, _ = q.State()
	return &everpoint.UpdateControlRegionResponse{GroupControl: controlView(&state)}, nil
}

// callerBytesMax bounds how the state names who gave an order.
const callerBytesMax = 128

// by names the caller.
func by(ctx context.Context) string {
	p := aws.CallerFrom(ctx).Principal
	return p[max(0, len(p)-callerBytesMax):] // of an ARN the end says most
}

// explain adds to the refusal of an unknown Region which ones are known.
func explain(err error, state *quorum.State, region string) error {
	if !errors.Is(err, aws.NotFound("")) {
		return err
	}
	if _, known := state.Regions[region]; known {
		return err
	}
	known := "none"
	if len(state.Regions) > 0 {
		known = strings.Join(slices.Sorted(maps.Keys(state.Regions)), ", ")
	}
	return aws.NotFound("%v, or has not joined the group yet; known: %s", err, known)
}

func or[T any](given *T, otherwise T) T {
	if given == nil {
		return otherwise
	}
	return *given
}

// some is nil for what is not there.
func some[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

// weightDefault is a Region's share where nothing else was said.
//
// Source: state/quorum, State.Weights and Join.
const weightDefault = 100

// switchOf is a Region's switch; every Region starts switched on.
func switchOf(state *quorum.State, region string) quorum.Switch {
	if sw, ok := state.Switches[region]; ok {
		return sw
	}
	return quorum.Switch{Position: quorum.On, Weight: weightDefault}
}

func switchView(state *quorum.State, region string) *everpoint.RegionSwitch {
	sw := switchOf(state, region)
	out := &everpoint.RegionSwitch{
		Region: region, Position: everpoint.SwitchPosition(sw.Position), Weight: sw.Weight, Reason: some(sw.Reason), By: some(sw.By),
	}
	if sw.AtMillis > 0 {
		out.At = new(time.UnixMilli(sw.AtMillis).UTC())
	}
	return out
}

func dutyView(state *quorum.State) *everpoint.GroupDuty {
	out := &everpoint.GroupDuty{
		Epoch: int64(state.Duty.Epoch), Mode: everpoint.GroupMode(state.Mode), Primary: some(state.Primary), Shards: map[string]int{},
	}
	for _, region := range state.Duty.Shards {
		if region != "" {
			out.Shards[region]++
		}
	}
	return out
}

func controlView(state *quorum.State) *everpoint.GroupControl {
	return &everpoint.GroupControl{Region: some(state.Control.Region), Epoch: int64(state.Control.Epoch)}
}

func groupView(state *quorum.State, index uint64, s quorum.Status) *everpoint.Group {
	duty := dutyView(state)
	out := &everpoint.Group{
		Index: int64(index), SetEpoch: int64(state.SetEpoch), Duty: duty, Control: controlView(state), Regions: []everpoint.GroupRegion{},
		Quorum: &everpoint.QuorumStatus{
			Role: string(s.Role), Leader: some(s.Leader), Term: int64(s.Term), Cluster: some(s.Cluster), Reason: some(s.Reason),
			Voters: []everpoint.VoterStatus{},
		},
	}
	for _, name := range slices.Sorted(maps.Keys(state.Regions)) {
		r := state.Regions[name]
		weight, ok := state.Weights[name]
		if !ok {
			weight = weightDefault
		}
		view := everpoint.GroupRegion{
			Region: name, Incarnation: r.Incarnation, InSync: r.InSync, Reason: some(r.Reason), Shards: duty.Shards[name], Weight: weight,
			Switch: switchView(state, name),
		}
		if l, ok := state.Leases[name]; ok {
			view.Lease = &everpoint.RegionLease{NodeId: l.Node, Epoch: int64(l.Epoch), Over: l.Over}
		}
		out.Regions = append(out.Regions, view)
	}
	for _, v := range s.Voters {
		_, admitted := state.Voters[v.Name]
		view := everpoint.VoterStatus{Voter: v.Name, Admitted: admitted, Learner: v.Learner, Witness: v.Witness}
		if hears(&s, &v) {
			view.Reachable = &v.Reachable
		}
		out.Quorum.Voters = append(out.Quorum.Voters, view)
	}
	return out
}

// hears says whether the node would hear of a voter that is well: one that has a
// leader hears of nobody else, and one that follows its Region's voter of nobody.
func hears(s *quorum.Status, v *quorum.VoterStatus) bool {
	if s.Role == quorum.Following {
		return v.Reachable
	}
	return v.Reachable || s.Role == quorum.Leader || s.Leader == "" || v.Name == s.Leader
}

// switchesPath is where routers ask for the routing switches; router.SwitchesPath
// is the same.
const switchesPath = "/everpoint/routing/v1/switches"

// routing is what routers are told. Index says how new it is: of two answers the
// one with the higher counts.
type routing struct {
	Index   uint64
	Mode    quorum.Mode
	Primary string
	Regions map[string]routingSwitch
}

type routingSwitch struct {
	Position quorum.Position
	Weight   int // of 100: the part of the share that the router's configuration gives
}

// switches tells routers the routing switches, unsigned: 404 where nobody votes,
// 503 while the node has not heard of a group.
func (n *Node) switches(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET is possible here", http.StatusMethodNotAllowed)
		return
	}
	if n.Quorum == nil {
		http.Error(w, "the Regions of this node do not vote", http.StatusNotFound)
		return
	}
	state, index := n.Quorum.State()
	if index == 0 {
		http.Error(w, "this node has not joined a group yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(routingOf(&state, index)) // an error means that the router has gone
}

func routingOf(state *quorum.State, index uint64) routing {
	out := routing{Index: index, Mode: state.Mode, Primary: state.Primary, Regions: map[string]routingSwitch{}}
	for name := range state.Regions {
		sw := switchOf(state, name)
		out.Regions[name] = routingSwitch{sw.Position, sw.Weight}
	}
	return out
}
