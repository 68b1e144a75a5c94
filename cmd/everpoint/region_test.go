package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
)

// aGroup is two Regions in sync, of which the second is drained, and one that is
// not.
func aGroup() *everpoint.Group {
	sw := func(p everpoint.SwitchPosition, weight int) *everpoint.RegionSwitch {
		return &everpoint.RegionSwitch{Position: p, Weight: weight}
	}
	return &everpoint.Group{
		Index: 42, SetEpoch: 2, Duty: &everpoint.GroupDuty{Epoch: 3, Mode: "active-active"},
		Control: &everpoint.GroupControl{Region: new("us-east-1"), Epoch: 1},
		Regions: []everpoint.GroupRegion{
			{Region: "ap-south-1", Incarnation: "i3", Reason: new("has not caught up yet"), Weight: 100, Switch: sw("on", 100)},
			{Region: "eu-west-1", Incarnation: "i2", InSync: true, Shards: 32, Weight: 100, Switch: sw("draining", 50)},
			{
				Region: "us-east-1", Incarnation: "i1", InSync: true, Shards: 32, Weight: 100, Switch: sw("on", 100),
				Lease: &everpoint.RegionLease{NodeId: "n1", Epoch: 4},
			},
		},
		Quorum: &everpoint.QuorumStatus{Role: "leader", Leader: new("us-east-1"), Term: 5, Voters: []everpoint.VoterStatus{
			{Voter: "ap-south-1", Reachable: new(false)},
			{Voter: "eu-west-1", Admitted: true, Learner: true},
			{Voter: "us-east-1", Admitted: true, Reachable: new(true)},
			{Voter: "witness", Admitted: true, Witness: true, Reachable: new(false)},
		}},
	}
}

// aNode answers as a node of a group would; nil group: nobody votes. It returns
// what the command printed, how it ended, and what it sent besides reading.
func aNode(t *testing.T, g *everpoint.Group, args ...string) (printed, sent string, err error) {
	t.Helper()
	var orders bytes.Buffer
	answer := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			fmt.Fprintf(&orders, "DELETE %s?%s", strings.TrimPrefix(r.URL.Path, groupPath), r.URL.RawQuery)
			answer(w, struct{}{})
		case r.Method == http.MethodPut:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(&orders, "%s %s", strings.TrimPrefix(r.URL.Path, groupPath), body)
			answer(w, struct{}{})
		case r.URL.Path == nodePath:
			n := everpoint.NodeStatus{Region: "us-east-1", Incarnation: "i1"}
			if g != nil {
				heard := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
				n.Peers = []everpoint.PeerStatus{
					{Region: "ap-south-1", HeardAt: &heard, LagMilliseconds: 60_000, Problem: new("connection refused")},
					{Region: "eu-west-1", HeardAt: &heard, LagMilliseconds: 20},
				}
			}
			answer(w, n)
		case g == nil:
			w.Header().Set("x-amzn-ErrorType", "NotFoundException")
			w.WriteHeader(http.StatusNotFound)
			answer(w, map[string]string{"Message": "do not vote"})
		default:
			answer(w, g)
		}
	}))
	defer srv.Close()
	t.Setenv("AWS_ENDPOINT_URL", srv.URL)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEVERPOINTTEST001")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CA_BUNDLE", "")
	var stdout, stderr bytes.Buffer
	err = region(t.Context(), args, &stdout, &stderr)
	return stdout.String() + stderr.String(), orders.String(), err
}

func TestRegion_orders(t *testing.T) {
	tests := []struct {
		args    string
		sent    string // path and body; empty: nothing
		printed string
		err     string
	}{
		{
			"switch us-west-2 off", "", "", "no Region us-west-2 in the group; joined have ap-south-1, eu-west-1, us-east-1",
		},
		{
			"switch eu-west-1 off -weight 30 -reason disk", `/regions/eu-west-1/switch {"Position":"off","Reason":"disk","Weight":30}`,
			"changed the switch of eu-west-1: from draining, weight 50 to off, weight 30", "",
		},
		{"switch -dry-run eu-west-1 off", "", "would change the switch of eu-west-1: from draining, weight 50 to off, weight 50", ""},
		{"switch us-east-1 off", "", "", "us-east-1 is the last Region in sync that is switched on, and stays so"},
		{"drain us-east-1", "", "", "us-east-1 is the last Region in sync that is switched on, and stays so"},
		{"drain ap-south-1", `/regions/ap-south-1/switch {"Position":"draining"}`, "from on, weight 100 to draining, weight 100", ""},
		{"resume eu-west-1 -reason well", `/regions/eu-west-1/switch {"Position":"on","Reason":"well"}`, "from draining, weight 50 to on, weight 50", ""},
		{"resume eu-west-1 -dry-run", "", "would change", ""},
		{"switch eu-west-1 on -weight 1001", "", "", "the weight 1001 is not between 1 and 1000"},
		{
			"mode warm-standby -primary eu-west-1", `/mode {"Epoch":3,"Mode":"warm-standby","Primary":"eu-west-1"}`,
			"changed the mode: from active-active, weights ap-south-1=100,eu-west-1=100,us-east-1=100 to warm-standby, primary eu-west-1", "",
		},
		{"mode warm-standby", "", "", "warm-standby needs -primary"},
		{"mode warm-standby -primary us-west-2", "", "", "no Region us-west-2"},
		{"mode active-active -primary eu-west-1", "", "", "-primary is for warm-standby"},
		{
			"mode active-active -weights eu-west-1=300,ap-south-1=0 -dry-run", "",
			"would change the mode: from active-active, weights ap-south-1=100,eu-west-1=100,us-east-1=100 to active-active, weights ap-south-1=0,eu-west-1=300,us-east-1=100", "",
		},
		{"mode active-active -weights eu-west-1=300", `/mode {"Epoch":3,"Mode":"active-active","Weights":{"eu-west-1":300}}`, "changed", ""},
		{"mode active-active -weights eu-west-1", "", "is not REGION=N", "usage"},
		{"mode half", "", "usage: everpoint region mode", "usage"},
		{"control eu-west-1", `/control-region {"Epoch":1,"Region":"eu-west-1"}`, "changed control: from us-east-1 to eu-west-1", ""},
		{"control eu-west-1 -dry-run", "", "would change control: from us-east-1 to eu-west-1", ""},
		{"control ap-south-1", "", "", "ap-south-1 is not in sync: has not caught up yet"},
		{"forget ap-south-1", "DELETE /regions/ap-south-1?", "from ap-south-1 known, has not caught up yet to ap-south-1 forgotten", ""},
		{"forget ap-south-1 -dry-run", "", "Lost with ap-south-1: endpoint updates and events", ""},
		{"forget ap-south-1 -successor eu-west-1", "", "", "nobody has to take its place"},
		{"forget eu-west-1", "", "", "eu-west-1 is in sync with others"},
		{"forget us-west-2", "", "", "no Region us-west-2"},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.args, " ", "_"), func(t *testing.T) {
			printed, sent, err := aNode(t, aGroup(), strings.Fields(tt.args)...)
			if sent != tt.sent || !strings.Contains(printed, tt.printed) {
				t.Errorf("sent %q and printed %q, want %q and %q", sent, printed, tt.sent, tt.printed)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("ended with %v, want %q", err, tt.err)
			}
		})
	}
}

func TestRegion_forgets_the_last_in_sync(t *testing.T) {
	alone := func(over bool) *everpoint.Group {
		g := aGroup()
		g.Regions[1].InSync, g.Regions[1].Reason = false, new("not heard")
		g.Regions[2].Lease.Over = over
		return g
	}
	two := alone(true)
	two.Regions = two.Regions[1:]
	const done = "changed the group: from us-east-1 known, in sync alone to eu-west-1 in sync alone, with control and all shards; us-east-1 forgotten"
	tests := []struct {
		group               *everpoint.Group
		args                string
		sent, printed, says string
	}{
		{two, "us-east-1", "DELETE /regions/us-east-1?successor=eu-west-1", done, ""},
		{two, "us-east-1 -dry-run", "", "acknowledged or not: opt-outs", ""},
		{alone(true), "us-east-1", "", "", "name with -successor which of ap-south-1, eu-west-1"},
		{alone(true), "us-east-1 -successor eu-west-1", "DELETE /regions/us-east-1?successor=eu-west-1", "Everything that it took since eu-west-1 left the set is lost", ""},
		{alone(true), "us-east-1 -successor us-east-1", "", "", "cannot take the place of"},
		{alone(false), "us-east-1 -successor eu-west-1", "", "", "the lease of us-east-1 has not run out"},
	}
	for _, tt := range tests {
		printed, sent, err := aNode(t, tt.group, append([]string{"forget"}, strings.Fields(tt.args)...)...)
		if sent != tt.sent || !strings.Contains(printed, tt.printed) || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("forget %s: sent %q, printed %q, %v", tt.args, sent, printed, err)
		}
	}
}

func TestRegion_dry_run_says_that_nobody_decides(t *testing.T) {
	g := aGroup()
	g.Quorum.Reason = new("1 of 3 voters are reached")
	printed, sent, err := aNode(t, g, "drain", "ap-south-1", "-dry-run")
	if sent != "" || !strings.Contains(printed, "would change") || err == nil || err.Error() != "the group takes no commands: 1 of 3 voters are reached" {
		t.Errorf("sent %q, printed %q, ended with %v", sent, printed, err)
	}
}

func TestRegion_status(t *testing.T) {
	const peers = `us-east-1, incarnation i1
REGION      HEARD                 LAG   SAFETY MERGED  CHANGES MERGED  OF OURS THERE  PROBLEM
ap-south-1  2026-07-01T12:00:00Z  1m0s  0 of 0         0 of 0          0, 0           connection refused
eu-west-1   2026-07-01T12:00:00Z  20ms  0 of 0         0 of 0          0, 0           
`
	const want = peers + `
group: active-active, duty epoch 3, set epoch 2, control us-east-1 (epoch 1)
REGION      IN SYNC  SHARDS    CONTROL  LAG        SWITCH               LEASE        INCARNATION  REASON
ap-south-1  no       0 of 64            not heard  on, weight 100       none         i3           has not caught up yet
eu-west-1   yes      32 of 64           20ms       draining, weight 50  none         i2           
us-east-1   yes      32 of 64  yes      this one   on, weight 100       n1, epoch 4  i1           

quorum: this node is leader, leader us-east-1, term 5, index 42
VOTER       PART                         REACHED
ap-south-1  not admitted yet             no
eu-west-1   catches up, has no vote yet  the leader knows
us-east-1   votes                        yes
witness     votes, holds no data         no
`
	printed, _, err := aNode(t, aGroup(), "status")
	if !errors.Is(err, errUnheard) || printed != want {
		t.Errorf("%v, printed\n%s\nwant\n%s", err, printed, want)
	}
	if printed, _, err = aNode(t, nil, "status"); err != nil || printed != "us-east-1, incarnation i1\nno other Region\n" {
		t.Errorf("where nobody votes: %v\n%s", err, printed)
	}
	printed, _, err = aNode(t, aGroup(), "status", "-json")
	var s struct {
		Region string
		Group  everpoint.Group
	}
	if err != nil || json.Unmarshal([]byte(printed), &s) != nil || s.Region != "us-east-1" || s.Group.Index != 42 {
		t.Errorf("-json: %v\n%s", err, printed)
	}
	if printed, _, err = aNode(t, nil, "status", "-json"); err != nil || strings.Contains(printed, "Group") {
		t.Errorf("-json where nobody votes: %v\n%s", err, printed)
	}
	g := aGroup()
	g.Quorum.Reason = new("no leader is elected yet")
	if _, _, err = aNode(t, g, "status"); !errors.Is(err, errUndecided) || !strings.Contains(err.Error(), "the group takes no commands: no leader is elected yet") {
		t.Errorf("without a quorum: %v", err)
	}
}
