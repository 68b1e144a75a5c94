package processes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/router"
)

const witnessName = "witness"

// The processes of a world whose Regions vote.
const (
	here = iota
	there
	front // the router
	voter // the witness, unless it is in the router
)

// newVoting is a voting world on SQLite, without carriers.
func newVoting(t *testing.T, alone bool) (w *world, admin string) {
	t.Helper()
	w = &world{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}}
	return w, w.vote(alone, nil)
}

// vote makes a world one of two Regions, a node each, a router before them, and a
// witness, which runs in the router or alone. The Regions send through the world's
// carriers, if it has any. It returns where the router tells its status.
func (w *world) vote(alone bool, postgres map[string]string) (admin string) {
	t := w.t
	t.Helper()
	t.Cleanup(w.close)
	w.write("secret", []byte(secretKey))
	regions := []string{region, otherRegion}
	w.certificates(region, otherRegion, witnessName)
	addresses := map[string]string{region: freeAddress(t), otherRegion: freeAddress(t), witnessName: freeAddress(t)}
	url := func(from, to string) string { return "https://" + w.network.between(from, to, addresses[to]) }
	urls := map[string]string{} // as the witness calls them
	for name := range addresses {
		urls[name] = url(witnessName, name)
	}
	config := func(name string, c any) {
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		w.write(name+".json", data)
	}
	program := func(command, name, listen string) {
		w.listens = append(w.listens, listen)
		w.nodes = append(w.nodes, &process{name: name, args: []string{command, "-config", w.path(name + ".json")}, log: w.path(name + ".log")})
	}
	for i, name := range regions {
		other := regions[1-i]
		c := node.Config{
			Node: "n1", Region: name, Dir: name, Local: true,
			Door:    node.Door{Listen: freeAddress(t), PlainLoopback: true, RegionsAccepted: []string{other}},
			Account: []node.Account{{ID: account, AccessKeyID: accessKeyID, SecretFile: "secret"}},
			Group: &node.Group{
				Listen: addresses[name], URL: url(name, name), CAFile: "ca.pem", CertFile: name + ".pem", KeyFile: name + ".key",
				Peers:   []node.Peer{{Region: other, URL: url(name, other)}},
				Witness: &node.Peer{Region: witnessName, URL: url(name, witnessName)},
			},
		}
		if w.smtp != "" {
			c.Mail = &node.Mail{Addr: w.smtp, TLS: "off"}
			c.Routes = []node.Route{{Name: "centre", Addresses: []string{w.smpp}, SystemID: name, Binds: 2, Window: 32}}
			c.Numbers = []node.Number{{Number: origin, Type: "LONG_CODE", Country: "US", Route: "centre"}}
			c.Import = node.Import{BucketDir: "buckets"}
		}
		if url := postgres[name]; url != "" {
			w.write(name+".url", []byte(url))
			c.PostgresURLFile = name + ".url"
		}
		config(name, c)
		program("serve", name, c.Door.Listen)
	}
	witness := map[string]any{
		"Name": witnessName, "Dir": witnessName, "Listen": addresses[witnessName], "CAFile": "ca.pem",
		"CertFile": witnessName + ".pem", "KeyFile": witnessName + ".key", "Peers": urls,
	}
	admin = freeAddress(t)
	c := map[string]any{
		"Listen": freeAddress(t), "PlainLoopback": true, "Admin": admin,
		"Regions": []map[string]any{{"Name": region, "URL": "http://" + w.listens[here]}, {"Name": otherRegion, "URL": "http://" + w.listens[there]}},
	}
	if !alone {
		c["Witness"] = witness
	}
	config("router", c)
	program("router", "router", c["Listen"].(string))
	w.start(here)
	hashing, err := os.ReadFile(w.path(region + "/keys/hashing.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(otherRegion+"/keys/hashing.json", hashing)
	w.start(there)
	w.start(front)
	if alone {
		config(witnessName, witness)
		program("witness", witnessName, "")
		w.nodes[voter].start(t)
	}
	return "http://" + admin + router.StatusPath
}

// command runs the command line against the ith node.
func (w *world) command(i int, args ...string) (string, error) {
	c := exec.Command(binary, args...)
	c.Env = append(os.Environ(), "AWS_ENDPOINT_URL=http://"+w.listens[i], "AWS_REGION="+region, "AWS_ACCESS_KEY_ID="+accessKeyID,
		"AWS_SECRET_ACCESS_KEY="+secretKey, "AWS_CA_BUNDLE=")
	out, err := c.CombinedOutput()
	return string(out), err
}

// must runs a command that must succeed and print something.
func (w *world) must(i int, prints string, args ...string) {
	w.t.Helper()
	if out, err := w.command(i, args...); err != nil || !strings.Contains(out, prints) {
		w.t.Fatalf("everpoint %s: %v, and not %q but\n%s", strings.Join(args, " "), err, prints, out)
	}
}

func (w *world) group(i int) everpoint.Group {
	w.t.Helper()
	var g everpoint.Group
	if err := w.admin(i, http.MethodGet, "/group", nil, nil, &g); err != nil {
		w.t.Fatal(err)
	}
	return g
}

// gathered waits until the ith node sees all three vote and both Regions in sync.
func (w *world) gathered(i int) {
	w.t.Helper()
	var g everpoint.Group
	defer func() {
		if w.t.Failed() {
			out, err := w.command(i, "region", "status")
			w.t.Logf("%v\n%s", err, out)
		}
	}()
	until(w.t, "the group does not gather", func() bool {
		g = w.group(i)
		lacks := func(v everpoint.VoterStatus) bool {
			return !v.Admitted || v.Learner || v.Reachable != nil && !*v.Reachable || v.Witness != (v.Voter == witnessName)
		}
		away := func(r everpoint.GroupRegion) bool { return !r.InSync }
		return g.Quorum.Reason == nil && len(g.Quorum.Voters) == 3 && !slices.ContainsFunc(g.Quorum.Voters, lacks) &&
			len(g.Regions) == 2 && !slices.ContainsFunc(g.Regions, away)
	})
}

// met counts which Regions answer n requests to the router. They are not signed:
// a Region's refusal is an answer too.
func (w *world) met(n int) map[string]int {
	w.t.Helper()
	regions := map[string]int{}
	for i := range n {
		resp, err := w.http.Get(fmt.Sprintf("http://%s/v1/apps/tea/endpoints/%d", w.listens[front], i))
		if err != nil {
			w.t.Fatal(err)
		}
		resp.Body.Close()
		regions[resp.Header.Get("Everpoint-Region")]++
	}
	return regions
}

// Two Regions and the router's witness vote; what they decide about a Region is
// what the router does, after its restart too, and without one of the Regions.
func TestRegionSwitch(t *testing.T) {
	w, admin := newVoting(t, false)
	w.gathered(here)
	until(t, "not both Regions are met", func() bool { return len(w.met(40)) == 2 })

	w.must(there, "would change the switch of eu-west-1: from on, weight 100 to off", "region", "switch", otherRegion, "off", "-dry-run")
	if sw := w.group(here).Regions[0].Switch; sw.Position != everpoint.SwitchPositionOn {
		t.Errorf("a dry run left %+v", sw)
	}
	w.must(there, "changed the switch of eu-west-1", "region", "switch", otherRegion, "off", "-reason", "a test")
	until(t, "the Region that is off is met", func() bool { return w.met(40)[otherRegion] == 0 })
	w.must(here, "a test", "region", "status")
	var s router.Status
	resp, err := w.http.Get(admin)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil || s.Switches.Index == 0 || s.Switches.From == "" || s.Switches.Problem != "" {
		t.Errorf("the router's status: %v, switches from %+v", err, s.Switches)
	}
	if out, err := w.command(here, "region", "drain", region); err == nil || !strings.Contains(out, "the last Region in sync that is switched on") {
		t.Errorf("the last that is on is drained: %v\n%s", err, out)
	}

	// The router starts again, with the witness in it: from the first request on it
	// knows what was decided.
	w.nodes[front].stop(t)
	w.start(front)
	if got := w.met(100); got[otherRegion] > 0 {
		t.Errorf("after the router's restart %v are met", got)
	}
	w.gathered(here)

	// A Region dies; the others decide.
	w.nodes[there].kill()
	until(t, "without one Region nothing is decided", func() bool {
		_, err := w.command(here, "region", "drain", otherRegion, "-reason", "dead")
		return err == nil
	})
	if r := w.group(here).Regions[0]; r.Switch.Position != everpoint.SwitchPositionDraining || *r.Switch.Reason != "dead" {
		t.Errorf("the switch is %+v", r.Switch)
	}
	if got := w.met(40); got[region] != 40 {
		t.Errorf("without one Region %v are met", got)
	}
	// It comes back, and requests with it when it is resumed.
	w.start(there)
	w.gathered(here)
	if got := w.met(40); got[region] != 40 {
		t.Errorf("before it is resumed %v are met", got)
	}
	w.must(there, "to on, weight 100", "region", "resume", otherRegion)
	untilEvery(t, 200*time.Millisecond, "the Region that was resumed is not met", func() bool { return w.met(40)[otherRegion] > 0 })
}

// The witness alone: without it two Regions decide, without it and one of them
// nobody does, and that is told.
func TestWitness(t *testing.T) {
	w, _ := newVoting(t, true)
	w.gathered(here)
	create := &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}}
	made, err := w.client(here).CreateApp(t.Context(), create)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the app is not here", func() bool {
		_, err := w.client(here).GetApp(t.Context(), &pinpoint.GetAppInput{ApplicationId: made.ApplicationResponse.Id})
		return err == nil
	})
	w.nodes[voter].kill()
	until(t, "without the witness nothing is decided", func() bool {
		_, err := w.command(here, "region", "switch", otherRegion, "on", "-weight", "50")
		return err == nil
	})
	w.nodes[there].kill()
	var out string
	until(t, "one of three decides", func() bool {
		var err error
		out, err = w.command(here, "region", "switch", otherRegion, "off")
		return err != nil && strings.Contains(out, "ServiceUnavailableException")
	})
	if !strings.Contains(out, "voters") && !strings.Contains(out, "majority") {
		t.Errorf("the refusal does not say why: %s", out)
	}
	// Endpoints are written all the same, what needs the control Region is not.
	if _, err := w.client(here).UpdateEndpoint(t.Context(), &pinpoint.UpdateEndpointInput{
		ApplicationId: made.ApplicationResponse.Id, EndpointId: aws.String("e"),
		EndpointRequest: &types.EndpointRequest{Address: aws.String("e@tea.example"), ChannelType: types.ChannelTypeEmail},
	}); err != nil {
		t.Errorf("an endpoint without a majority: %v", err)
	}
	if _, err := w.client(here).CreateApp(t.Context(), create); err == nil || !strings.Contains(err.Error(), "The control plane cannot be used now") {
		t.Errorf("an app without a majority: %v", err)
	}
	until(t, "the status does not say that nobody decides", func() bool {
		out, err := w.command(here, "region", "status")
		return err != nil && strings.Contains(out, "the group takes no commands: 1 of 3 voters are reached and 2 are needed")
	})
	w.nodes[voter].start(t)
	until(t, "the witness does not vote again", func() bool {
		_, err := w.command(here, "region", "drain", otherRegion)
		return err == nil
	})
	w.nodes[voter].stop(t)
}
