package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/router"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

const operatorAccount = "111122223333"

// newRegions is a node whose Region is the only voter, or has none. It is to be
// made in a bubble.
func newRegions(t *testing.T, votes bool) (regions, context.Context) {
	t.Helper()
	n := &Node{Config: &Config{Account: []Account{{ID: operatorAccount}}}, now: time.Now}
	caller := aws.WithCaller(t.Context(), aws.Caller{Account: operatorAccount, Principal: "arn:aws:iam::" + operatorAccount + ":root"})
	if !votes {
		return regions{&administration{n: n}}, caller
	}
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1"}, keys, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	n.Quorum, err = quorum.New(quorum.Config{Name: "us-east-1", Node: "n1"}, st, nil, time.Now, rand.New(rand.NewPCG(1, 2)), log)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []func(context.Context) error{st.Run, n.Quorum.Run} {
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		t.Cleanup(func() {
			stop()
			<-ended
		})
	}
	return regions{&administration{n: n}}, caller
}

func (g regions) propose(t *testing.T, commands ...quorum.Command) {
	t.Helper()
	for _, c := range commands {
		if _, err := g.a.n.Quorum.Propose(t.Context(), c); err != nil {
			t.Fatalf("%T: %v", c, err)
		}
	}
}

func (g regions) status(t *testing.T, ctx context.Context) *everpoint.Group {
	t.Helper()
	out, err := g.get(ctx, &everpoint.GetGroupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return out.Group
}

// told is what a router would be told.
func (g regions) told(t *testing.T, method string) (int, routing) {
	t.Helper()
	w := httptest.NewRecorder()
	g.a.n.switches(w, httptest.NewRequest(method, switchesPath, http.NoBody))
	var r routing
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
	}
	return w.Code, r
}

func TestRegions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctx := newRegions(t, true)
		if code, _ := g.told(t, "GET"); code != http.StatusServiceUnavailable {
			t.Errorf("a node without a group answers %d", code)
		}
		if why := g.status(t, ctx).Quorum.Reason; why == nil {
			t.Error("a node without a group does not say why it takes no commands")
		}
		off := &everpoint.UpdateRegionSwitchRequest{
			Region: "eu-west-1", RegionSwitchRequest: &everpoint.RegionSwitchRequest{Position: "off", Reason: new("disk")},
		}
		time.Sleep(10 * time.Second)
		if _, err := g.setSwitch(ctx, off); aws.KindOf(err) != aws.KindNotFound || !strings.Contains(err.Error(), "has not joined the group yet; known: none") {
			t.Errorf("a switch before any Region joined: %v", err)
		}
		g.propose(t, quorum.Join{Region: "us-east-1", Incarnation: "a"}, quorum.Join{Region: "eu-west-1", Incarnation: "b"})
		got := g.status(t, ctx)
		if len(got.Regions) != 2 || got.Regions[0].InSync || *got.Regions[0].Reason != "has not caught up yet" || got.Regions[1].Shards != quorum.Shards {
			t.Fatalf("group is %+v", got.Regions)
		}
		g.propose(t, quorum.TakeLease{Region: "us-east-1", Node: "n1", Millis: 1000})
		got = g.status(t, ctx)
		if *got.Control.Region != "us-east-1" || got.Regions[1].Lease.NodeId != "n1" || got.Regions[0].Lease != nil {
			t.Errorf("group is %+v, control %+v", got.Regions, got.Control)
		}
		if q := got.Quorum; q.Reason != nil || *q.Leader != "us-east-1" || len(q.Voters) != 1 || !q.Voters[0].Admitted || !*q.Voters[0].Reachable {
			t.Errorf("quorum is %+v, voters %+v", q, q.Voters)
		}

		// A switch: what is not said stays, and routers hear of it.
		if out, err := g.setSwitch(ctx, &everpoint.UpdateRegionSwitchRequest{
			Region: "eu-west-1", RegionSwitchRequest: &everpoint.RegionSwitchRequest{Position: "on", Weight: new(30)},
		}); err != nil || out.RegionSwitch.Weight != 30 {
			t.Fatalf("weight 30: %+v %v", out, err)
		}
		_, before := g.told(t, "GET")
		out, err := g.setSwitch(ctx, off)
		if err != nil {
			t.Fatal(err)
		}
		if sw := out.RegionSwitch; sw.Position != "off" || sw.Weight != 30 || *sw.Reason != "disk" || *sw.By != "arn:aws:iam::"+operatorAccount+":root" || sw.At == nil {
			t.Errorf("switch is %+v", sw)
		}
		code, after := g.told(t, "HEAD")
		if code != http.StatusOK {
			t.Errorf("HEAD answers %d", code)
		}
		if _, after = g.told(t, "GET"); after.Index <= before.Index || after.Regions["eu-west-1"] != (routingSwitch{"off", 30}) || after.Regions["us-east-1"] != (routingSwitch{"on", 100}) {
			t.Errorf("routers are told %+v", after)
		}
		off.Region = "us-east-1"
		if _, err := g.setSwitch(ctx, off); aws.KindOf(err) != aws.KindConflict {
			t.Errorf("the last Region that is on: %v", err)
		}

		// Mode and control.
		mode := func(r everpoint.GroupModeRequest) (*everpoint.GroupDuty, error) {
			out, err := g.setMode(ctx, &everpoint.UpdateGroupModeRequest{GroupModeRequest: &r})
			if err != nil {
				return nil, err
			}
			return out.GroupDuty, nil
		}
		if duty, err := mode(everpoint.GroupModeRequest{Mode: "warm-standby", Primary: new("us-east-1")}); err != nil || duty.Shards["us-east-1"] != quorum.Shards || *duty.Primary != "us-east-1" {
			t.Errorf("warm-standby: %+v %v", duty, err)
		}
		if _, err := mode(everpoint.GroupModeRequest{Mode: "warm-standby", Primary: new("eu-west-1")}); aws.KindOf(err) != aws.KindConflict {
			t.Errorf("a primary that is not in the set: %v", err)
		}
		if _, err := mode(everpoint.GroupModeRequest{Mode: "active-active", Epoch: new(int64(100))}); aws.KindOf(err) != aws.KindConflict {
			t.Errorf("another epoch: %v", err)
		}
		if duty, err := mode(everpoint.GroupModeRequest{Mode: "active-active", Weights: map[string]int{"us-east-1": 300}}); err != nil || duty.Primary != nil {
			t.Errorf("active-active: %+v %v", duty, err)
		}
		if weight := g.status(t, ctx).Regions[1].Weight; weight != 300 {
			t.Errorf("the weight is %d", weight)
		}
		control := func(region string) (*everpoint.UpdateControlRegionResponse, error) {
			return g.setControl(ctx, &everpoint.UpdateControlRegionRequest{GroupControlRequest: &everpoint.GroupControlRequest{Region: region}})
		}
		if out, err := control("us-east-1"); err != nil || *out.GroupControl.Region != "us-east-1" || out.GroupControl.Epoch != got.Control.Epoch {
			t.Errorf("control: %+v %v", out, err)
		}
		if _, err := control("ap-south-1"); aws.KindOf(err) != aws.KindNotFound || !strings.Contains(err.Error(), "known: eu-west-1, us-east-1") {
			t.Errorf("control of an unknown Region: %v", err)
		}
	})
}

func TestRegions_refuses(t *testing.T) {
	g, ctx := newRegions(t, false)
	for name, call := range map[string]func(context.Context) error{
		"GetGroup":            func(ctx context.Context) error { _, err := g.get(ctx, nil); return err },
		"UpdateRegionSwitch":  func(ctx context.Context) error { _, err := g.setSwitch(ctx, nil); return err },
		"ForgetRegion":        func(ctx context.Context) error { _, err := g.forget(ctx, nil); return err },
		"UpdateGroupMode":     func(ctx context.Context) error { _, err := g.setMode(ctx, nil); return err },
		"UpdateControlRegion": func(ctx context.Context) error { _, err := g.setControl(ctx, nil); return err },
	} {
		if err := call(ctx); !errors.Is(err, errNoVote) {
			t.Errorf("%s where nobody votes: %v", name, err)
		}
		if err := call(aws.WithCaller(ctx, aws.Caller{Account: "999999999999"})); aws.KindOf(err) != aws.KindDenied {
			t.Errorf("%s to another account: %v", name, err)
		}
	}
	if code, _ := g.told(t, "GET"); code != http.StatusNotFound {
		t.Errorf("where nobody votes a router is told %d", code)
	}
	if code, _ := g.told(t, "POST"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST answers %d", code)
	}
}

func TestModeCommand(t *testing.T) {
	standby := quorum.State{Mode: quorum.WarmStandby, Primary: "a", Weights: map[string]int{"a": 5}}
	tests := map[string]struct {
		state quorum.State
		in    everpoint.GroupModeRequest
		want  string // JSON, or the member that is wrong
	}{
		"weights that are not said stay":       {standby, everpoint.GroupModeRequest{Mode: "active-active"}, `{"Mode":"active-active","Weights":{"a":5}}`},
		"weights that are empty are forgotten": {standby, everpoint.GroupModeRequest{Mode: "active-active", Weights: map[string]int{}}, `{"Mode":"active-active"}`},
		"a primary that is not said stays":     {standby, everpoint.GroupModeRequest{Mode: "warm-standby", Epoch: new(int64(4))}, `{"Mode":"warm-standby","Primary":"a","Weights":{"a":5},"Epoch":4}`},
		"warm-standby needs a primary":         {quorum.State{}, everpoint.GroupModeRequest{Mode: "warm-standby"}, "Primary"},
		"active-active has none":               {quorum.State{}, everpoint.GroupModeRequest{Mode: "active-active", Primary: new("a")}, "Primary"},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			c, err := modeCommand(&tt.state, &tt.in)
			got := ""
			if f, ok := errors.AsType[*aws.Fault](err); ok {
				got = f.Member
			} else if data, err := json.Marshal(c); err == nil {
				got = string(data)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestForgetCommand(t *testing.T) {
	in, out := quorum.Region{Incarnation: "i", InSync: true}, quorum.Region{Incarnation: "o"}
	alone := map[string]quorum.Region{"a": in, "b": out}
	three := map[string]quorum.Region{"a": in, "b": out, "c": out}
	tests := map[string]struct {
		regions           map[string]quorum.Region
		heard             map[string]string
		region, successor string
		want              string // the command as JSON, or what the refusal says
	}{
		"the other takes the place of the last":    {alone, nil, "a", "", `{"Region":"a","Incarnation":"i","Successor":"b","SuccessorIncarnation":"o"}`},
		"and may be named":                         {alone, nil, "a", "b", `{"Region":"a","Incarnation":"i","Successor":"b","SuccessorIncarnation":"o"}`},
		"nobody takes the place of one out of set": {three, nil, "c", "", `{"Region":"c"}`},
		"so nobody may be named":                   {three, nil, "c", "a", "nobody has to take its place"},
		"of several one has to be named":           {three, nil, "a", "", "one of b, c has to take its place"},
		"that one has to be heard":                 {three, nil, "a", "c", "c, which is to take the place of a, is not heard here"},
		"one that is heard may be named":           {three, map[string]string{"c": "o"}, "a", "c", `{"Region":"a","Incarnation":"i","Successor":"c","SuccessorIncarnation":"o"}`},
		"an unknown one may not":                   {alone, nil, "a", "x", `"x" is none of the other Regions`},
		"who is heard is not lost":                 {alone, map[string]string{"a": "i"}, "a", "", "a is heard: it is not lost"},
		"but its disk is":                          {alone, map[string]string{"a": "another"}, "a", "", `{"Region":"a","Incarnation":"i","Successor":"b","SuccessorIncarnation":"o"}`},
		"nobody forgets itself":                    {alone, nil, "b", "", "asked to forget itself"},
		"the others remove one by themselves":      {map[string]quorum.Region{"a": in, "b": in}, nil, "a", "", "in the in-sync set with others"},
		"who is not known cannot be forgotten":     {alone, nil, "x", "", "not known"},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			c, err := forgetCommand(&quorum.State{Regions: tt.regions}, "b", tt.heard, tt.region, tt.successor)
			got := fmt.Sprint(err)
			if err == nil {
				data, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				got = string(data)
			}
			if err == nil && got != tt.want || !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// What the plain path tells is read by routers of other releases.
func TestSwitches_wire(t *testing.T) {
	if switchesPath != router.SwitchesPath {
		t.Errorf("nodes tell at %s, and routers ask at %s", switchesPath, router.SwitchesPath)
	}
	state := quorum.State{
		Mode: quorum.WarmStandby, Primary: "b", Regions: map[string]quorum.Region{"a": {}, "b": {}},
		Switches: map[string]quorum.Switch{"a": {Position: quorum.Draining, Weight: 50, Reason: "not theirs to know", By: "nor this"}},
	}
	var text strings.Builder
	if err := json.NewEncoder(io.Writer(&text)).Encode(routingOf(&state, 7)); err != nil {
		t.Fatal(err)
	}
	const want = `{"Index":7,"Mode":"warm-standby","Primary":"b","Regions":{"a":{"Position":"draining","Weight":50},"b":{"Position":"on","Weight":100}}}` + "\n"
	if text.String() != want {
		t.Errorf("got %swant %s", text.String(), want)
	}
}

func TestHears(t *testing.T) {
	tests := map[string]struct {
		status quorum.Status
		voter  quorum.VoterStatus
		want   bool
	}{
		"a leader hears of all":                    {quorum.Status{Role: quorum.Leader, Leader: "a"}, quorum.VoterStatus{Name: "b"}, true},
		"a follower hears of its leader":           {quorum.Status{Role: quorum.Follower, Leader: "a"}, quorum.VoterStatus{Name: "a"}, true},
		"and of nobody else":                       {quorum.Status{Role: quorum.Follower, Leader: "a"}, quorum.VoterStatus{Name: "b"}, false},
		"but what was heard was heard":             {quorum.Status{Role: quorum.Follower, Leader: "a"}, quorum.VoterStatus{Name: "b", Reachable: true}, true},
		"without a leader everybody is asked":      {quorum.Status{Role: quorum.Candidate}, quorum.VoterStatus{Name: "b"}, true},
		"another node's voter hears, not this one": {quorum.Status{Role: quorum.Following, Leader: "a"}, quorum.VoterStatus{Name: "b"}, false},
	}
	for name, tt := range tests {
		if got := hears(&tt.status, &tt.voter); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
