package processes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/state/quorum"
)

// second adds another node to the first Region and returns its number.
func (w *world) second() int {
	w.t.Helper()
	data, err := os.ReadFile(w.path(region + ".json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var c node.Config
	if err := json.Unmarshal(data, &c); err != nil {
		w.t.Fatal(err)
	}
	const name = "second"
	c.Node, c.Dir, c.KeysDir = "n2", name, region+"/keys"
	c.Door.Listen, c.Group.Listen = freeAddress(w.t), freeAddress(w.t)
	c.Group.NodeURL = "https://" + c.Group.Listen
	if data, err = json.Marshal(c); err != nil {
		w.t.Fatal(err)
	}
	w.write(name+".json", data)
	w.listens = append(w.listens, c.Door.Listen)
	w.nodes = append(w.nodes, &process{name: name, args: []string{"serve", "-config", w.path(name + ".json")}, log: w.path(name + ".log")})
	w.start(len(w.nodes) - 1)
	return len(w.nodes) - 1
}

// A Region of two nodes on one database: each takes calls that the group must
// have, one claims for both; when that one is killed or paused in the middle of a campaign
// the other does.
func TestNodesOfARegionInAGroup(t *testing.T) {
	if os.Getenv("TEST_POSTGRES_URL") == "" {
		t.Log("TEST_POSTGRES_URL is not set: this is not a run with PostgreSQL")
		return
	}
	rnd := seeded(t)
	w := newSending(t, region)
	second := w.second()
	w.gathered(second)
	a := newApp(t, w)
	a.ask(second)
	took := map[int][]time.Duration{}
	for i := range 40 {
		at := []int{here, second}[i%2]
		begun := time.Now()
		if _, err := w.client(at).UpdateEndpoint(t.Context(), &pinpoint.UpdateEndpointInput{
			ApplicationId: &a.id, EndpointId: aws.String(fmt.Sprint("out", i)),
			EndpointRequest: &types.EndpointRequest{Address: aws.String(fmt.Sprintf("out%d@tea.example", i)), ChannelType: types.ChannelTypeEmail, OptOut: aws.String("ALL")},
		}); err != nil {
			t.Fatal(err)
		}
		took[at] = append(took[at], time.Since(begun))
		// Acknowledged: the other Region has it.
		e, err := w.client(there).GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &a.id, EndpointId: aws.String(fmt.Sprint("out", i))})
		if err != nil || aws.ToString(e.EndpointResponse.OptOut) != "ALL" {
			t.Fatalf("the other Region: %v", err)
		}
	}
	for at, all := range took {
		slices.Sort(all)
		t.Logf("opt-outs by %s took %s at the median, %s at most", w.nodes[at].name, all[len(all)/2].Round(10*time.Microsecond), all[len(all)-1].Round(10*time.Microsecond))
		if all[len(all)-1] > 2*time.Second { // it is accepted without the group after 5 s
			t.Errorf("an opt-out by %s was not acknowledged", w.nodes[at].name)
		}
	}
	const calls = 50
	for i := range calls {
		if _, err := w.client(second).SendMessages(t.Context(), &pinpoint.SendMessagesInput{ApplicationId: &a.id, MessageRequest: &types.MessageRequest{
			Addresses: map[string]types.AddressConfiguration{fmt.Sprintf("direct%04d@tea.example", i): {ChannelType: types.ChannelTypeEmail}},
			MessageConfiguration: &types.DirectMessageConfiguration{EmailMessage: &types.EmailMessage{SimpleEmail: &types.SimpleEmail{
				Subject: &types.SimpleEmailPart{Data: aws.String("Tea")}, TextPart: &types.SimpleEmailPart{Data: aws.String("is ready")},
			}}},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "direct messages are not sent", func() bool { return w.wentOut() == calls })

	reach := a.audience(recipientsOfTakeover)
	w.told = w.wentOut()
	moment := w.told + len(reach)/10 + rnd.IntN(len(reach)*8/10)
	campaign := a.campaign("LEAVE")
	var err error
	untilEvery(t, time.Millisecond, "the campaign does not begin", func() bool { return w.wentOut() >= moment })
	paused := rnd.IntN(2) == 0
	if paused {
		err = w.nodes[here].cmd.Process.Signal(syscall.SIGSTOP)
	} else {
		w.nodes[here].kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	died := time.Now()
	a.ask(there)
	a.finish(campaign)
	t.Logf("finished %s after the node was lost, paused %v", time.Since(died).Round(time.Millisecond), paused)
	if v := a.judge(campaign, recipientsOfTakeover, reach); v.listed > 2*ambiguousPerKillMax {
		t.Errorf("%d are listed", v.listed)
	}
	// The Region is back in the set without the node, and with it; and it sends.
	until(t, "the other node does not speak for the Region", func() bool {
		role := w.group(second).Quorum.Role
		return role == string(quorum.Follower) || role == string(quorum.Leader)
	})
	w.gathered(second)
	if paused {
		if err := w.nodes[here].cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		until(t, "the node that was paused does not notice", func() bool { return w.group(here).Quorum.Role == string(quorum.Following) })
		heard := map[string]int{}
		for _, m := range w.messages() {
			if heard[m.To]++; heard[m.To] > 1 {
				t.Errorf("%s heard twice", m.To)
			}
		}
	} else {
		w.start(here)
	}
	w.gathered(here)
	until(t, "the Region has no lease", func() bool {
		r := w.group(there).Regions[1]
		return r.Region == region && r.Lease != nil && !r.Lease.Over && r.Lease.NodeId == "n2"
	})
	w.told = w.wentOut()
	a.ask(here)
	campaign = a.campaign("LEAVE")
	a.finish(campaign)
	until(t, "the last campaign's counts are not all here", func() bool {
		var says reconciliation
		err := a.admin(here, http.MethodGet, "/apps/"+a.id+"/campaigns/"+campaign+"/reconciliation", nil, nil, &says)
		return err == nil && says.Balanced && says.InFlight == 0
	})
	if v := a.judge(campaign, recipientsOfTakeover, reach); v.listed > 0 {
		t.Errorf("%d are listed though nobody was killed", v.listed)
	}
}
