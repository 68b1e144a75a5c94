package processes

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
)

// killsOf is how many Regions are killed in a test: n, or what the environment
// asks for.
func killsOf(t *testing.T, n int) int {
	if text := os.Getenv("EVERPOINT_TEST_KILLS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("EVERPOINT_TEST_KILLS: %v", err)
		}
	}
	return n
}

// newSending is a voting world whose Regions send. Those that are named have a
// PostgreSQL server of their own.
func newSending(t *testing.T, postgres ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}, clusters: map[string]*cluster{}}
	for _, name := range postgres {
		w.clusters[name] = newCluster(t)
	}
	return w.sending()
}

// newCut is the same over a network that can be cut.
func newCut(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}, network: newNetwork(t)}
	return w.sending()
}

func (w *world) sending() *world {
	t := w.t
	t.Helper()
	w.carriersProcess()
	if err := os.MkdirAll(w.path("buckets"), 0o700); err != nil {
		t.Fatal(err)
	}
	postgres := map[string]string{}
	for name, c := range w.clusters {
		postgres[name] = c.url
	}
	w.vote(false, postgres)
	w.gathered(here)
	w.gathered(there)
	return w
}

// lost takes a Region's disk, and its PostgreSQL server's; another server, with an
// empty disk, takes the place of that.
func (w *world) lost(i int) {
	w.t.Helper()
	name := w.nodes[i].name
	hashing, err := os.ReadFile(w.path(name + "/keys/hashing.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.RemoveAll(w.path(name)); err != nil {
		w.t.Fatal(err)
	}
	w.write(name+"/keys/hashing.json", hashing)
	if c := w.clusters[name]; c != nil {
		c.lose()
		w.clusters[name] = newCluster(w.t)
		w.write(name+".url", []byte(w.clusters[name].url))
	}
}

// A Region is killed in the middle of a campaign, with its disk or without: the
// other finishes it, and then nobody is lost or hears twice without being listed.
// The dead Region comes back, and the next campaign begins.
func TestTakeover(t *testing.T) {
	takeovers(t, newSending(t), killsOf(t, 3))
}

// The same, each Region on a PostgreSQL server of its own.
func TestTakeoverPostgres(t *testing.T) {
	if os.Getenv("TEST_POSTGRES_URL") == "" {
		t.Log("TEST_POSTGRES_URL is not set: this is not a run with PostgreSQL")
		return
	}
	takeovers(t, newSending(t, region, otherRegion), killsOf(t, 2))
}

func takeovers(t *testing.T, w *world, kills int) {
	rnd := seeded(t)
	for kill := range kills {
		takeover(t, w, rnd, kill, rnd.IntN(2) == 0)
	}
}

// recipientsOfTakeover is how many a campaign is for.
const recipientsOfTakeover = 4000

func takeover(t *testing.T, w *world, rnd *rand.Rand, kill int, disk bool) {
	t.Helper()
	a := newApp(t, w)
	a.ask(rnd.IntN(2))
	reach := a.audience(recipientsOfTakeover)
	before := w.wentOut()
	w.told = before
	victim := rnd.IntN(2)
	moment := before + rnd.IntN(len(reach)*9/10)
	policy := []string{"LEAVE", "RESEND"}[rnd.IntN(2)]
	campaign := a.campaign(policy)
	untilEvery(t, time.Millisecond, "the campaign does not begin", func() bool { return w.wentOut() >= moment })
	w.nodes[victim].kill()
	died := time.Now()
	out := w.wentOut()
	t.Logf("kill %d: %s after %d of %d messages, disk gone %v, %s", kill+1, w.nodes[victim].name, out-before, len(reach), disk, policy)
	if disk {
		w.lost(victim)
	}
	a.ask(1 - victim)
	a.finish(campaign)
	t.Logf("finished %s after the kill", time.Since(died).Round(time.Millisecond))
	v := a.judge(campaign, recipientsOfTakeover, reach)
	if v.listed > 2*ambiguousPerKillMax {
		t.Errorf("%d are listed as ambiguous, at most %d may be", v.listed, 2*ambiguousPerKillMax)
	}
	w.start(victim)
	// Both count the same, what the dead Region knew last among it.
	a.agreed(campaign, v.says.Sent)
	a.ask(victim)
	if t.Failed() {
		t.FailNow()
	}
	a.judge(campaign, recipientsOfTakeover, reach)
}

// An SDK sends 5,000 direct messages through the router, and repeats what fails,
// while a Region is killed: each recipient of a call that was answered hears once,
// or is listed; of a call that failed, at most once, or is listed.
func TestTakeoverOfCalls(t *testing.T) {
	const calls = 5000
	rnd := seeded(t)
	w := newSending(t)
	a := newApp(t, w)
	for i := range 2 {
		until(t, "the app is not in both Regions", func() bool {
			_, err := w.client(i).GetEmailChannel(t.Context(), &pinpoint.GetEmailChannelInput{ApplicationId: &a.id})
			return err == nil
		})
	}
	c := pinpoint.NewFromConfig(aws.Config{
		Region: region, Credentials: signing, BaseEndpoint: aws.String("http://" + w.listens[front]), HTTPClient: w.http,
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.RateLimiter = 12, ratelimit.None })
		},
	})
	var next, failed atomic.Int64
	answered := make([]bool, calls)
	var longest atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= calls {
					return
				}
				begun := time.Now()
				_, err := c.SendMessages(t.Context(), &pinpoint.SendMessagesInput{ApplicationId: &a.id, MessageRequest: &types.MessageRequest{
					Addresses: map[string]types.AddressConfiguration{fmt.Sprintf("direct%04d@tea.example", i): {ChannelType: types.ChannelTypeEmail}},
					MessageConfiguration: &types.DirectMessageConfiguration{EmailMessage: &types.EmailMessage{SimpleEmail: &types.SimpleEmail{
						Subject: &types.SimpleEmailPart{Data: aws.String("Tea")}, TextPart: &types.SimpleEmailPart{Data: aws.String("is ready")},
					}}},
				}})
				answered[i] = err == nil
				if err != nil {
					failed.Add(1)
					t.Logf("call %d: %v", i, err)
				}
				for took := int64(time.Since(begun)); ; {
					if l := longest.Load(); took <= l || longest.CompareAndSwap(l, took) {
						break
					}
				}
			}
		})
	}
	moment, victim := calls/5+rnd.IntN(calls/2), rnd.IntN(2)
	untilEvery(t, time.Millisecond, "the calls do not come as far", func() bool { return int(next.Load()) >= moment })
	w.nodes[victim].kill()
	clients.Wait()
	t.Logf("%s was killed after %d of %d calls; %d failed, the longest took %s", w.nodes[victim].name, moment, calls, failed.Load(), time.Duration(longest.Load()).Round(time.Millisecond))
	w.start(victim)
	w.gathered(1 - victim)
	a.ask(1 - victim)
	problems := func() (all []string, duplicates, listed int) {
		inOutbox, inList := map[string]int{}, map[string]bool{}
		for _, m := range w.messages() {
			inOutbox[m.To]++
		}
		for _, s := range a.ambiguousSends("") {
			inList[s.Address] = true
		}
		for i, ok := range answered {
			to := fmt.Sprintf("direct%04d@tea.example", i)
			switch n := inOutbox[to]; {
			case inList[to]:
				listed++
				duplicates += max(0, n-1)
			case n > 1:
				all = append(all, fmt.Sprintf("%s heard %d times and is not listed", to, n))
			case n == 0 && ok:
				all = append(all, to+" is lost")
			}
		}
		return all, duplicates, listed
	}
	var all []string
	defer func() {
		if t.Failed() {
			t.Logf("%d problems, %v", len(all), all[:min(len(all), problemsMax)])
		}
	}()
	untilEvery(t, 500*time.Millisecond, "the calls are not all sent", func() bool {
		all, _, _ = problems()
		return !slices.ContainsFunc(all, func(p string) bool { return strings.HasSuffix(p, "is lost") })
	})
	_, duplicates, listed := problems()
	t.Logf("%d listed, %d of them heard more than once", listed, duplicates)
	for i, p := range all {
		if i < problemsMax {
			t.Error(p)
		}
	}
	if listed > 2*ambiguousPerKillMax {
		t.Errorf("%d are listed", listed)
	}
}
