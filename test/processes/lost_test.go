package processes

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/api/everpoint"
)

// optOuts writes endpoints that opt out, a hundred a call, and remembers those
// that it was told are written.
type optOuts struct {
	w    *world
	app  string
	next atomic.Int64

	mu   sync.Mutex
	told []int64 // first of a hundred
}

const optOutsACall = 100

// write writes through the ith process until ctx ends or most are told, with some
// clients at a time. A call that fails counts for nothing.
func (o *optOuts) write(ctx context.Context, i, most int) {
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			c := o.w.client(i)
			for ctx.Err() == nil {
				first := o.next.Add(optOutsACall) - optOutsACall
				if first >= int64(most) {
					return
				}
				items := make([]types.EndpointBatchItem, optOutsACall)
				for k := range items {
					items[k] = types.EndpointBatchItem{
						Id: aws.String(fmt.Sprint("e", first+int64(k))), Address: aws.String(fmt.Sprintf("e%d@tea.example", first+int64(k))),
						ChannelType: types.ChannelTypeEmail, OptOut: aws.String("ALL"),
					}
				}
				_, err := c.UpdateEndpointsBatch(ctx, &pinpoint.UpdateEndpointsBatchInput{
					ApplicationId: &o.app, EndpointBatchRequest: &types.EndpointBatchRequest{Item: items},
				})
				if err != nil {
					continue
				}
				o.mu.Lock()
				o.told = append(o.told, first)
				o.mu.Unlock()
			}
		})
	}
	clients.Wait()
}

func (o *optOuts) acknowledged() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.told) * optOutsACall
}

// missing counts the opt-outs told of that the ith node does not know.
func (o *optOuts) missing(i int) int {
	var lost atomic.Int64
	o.mu.Lock()
	told := o.told
	o.mu.Unlock()
	work := make(chan string, 64)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			c := o.w.client(i)
			for id := range work {
				out, err := c.GetEndpoint(o.w.t.Context(), &pinpoint.GetEndpointInput{ApplicationId: &o.app, EndpointId: &id})
				if err != nil || aws.ToString(out.EndpointResponse.OptOut) != "ALL" {
					lost.Add(1)
				}
			}
		})
	}
	for _, first := range told {
		for k := range int64(optOutsACall) {
			work <- fmt.Sprint("e", first+k)
		}
	}
	close(work)
	readers.Wait()
	return int(lost.Load())
}

// The control plane is written in one Region, whichever is asked, and in the other
// when that one is dead.
func TestControlPlane(t *testing.T) {
	w, _ := newVoting(t, false)
	w.gathered(here)
	create := func(i int) (*types.ApplicationResponse, error) {
		out, err := w.client(i).CreateApp(t.Context(), &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}})
		if err != nil {
			return nil, err
		}
		return out.ApplicationResponse, nil
	}
	seat := func(i int) string {
		return aws.ToString(w.group(i).Control.Region)
	}
	control, other := here, there
	if seat(here) == otherRegion {
		control, other = there, here
	}
	for _, i := range []int{control, other} {
		app, err := create(i)
		if err != nil {
			t.Fatal(err)
		}
		if name := w.nodes[control].name; !strings.Contains(*app.Arn, ":"+name+":") {
			t.Errorf("asked in %s, made as %s; control is in %s", w.nodes[i].name, *app.Arn, name)
		}
	}
	w.nodes[control].kill()
	until(t, "nobody takes control over", func() bool {
		_, err := create(other)
		return err == nil
	})
	if name := w.nodes[other].name; seat(other) != name {
		t.Errorf("control is in %s, and %s made an app", seat(other), name)
	}
}

// A Region dies in the midst of writes, and its disk with it: each opt-out that
// somebody was told is written is in the other Region, which goes on by itself. A
// Region with an empty disk takes the place of the dead one and gets all of it.
func TestRegionLost(t *testing.T) {
	w, _ := newVoting(t, false)
	w.gathered(here)
	out, err := w.client(here).CreateApp(t.Context(), &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}})
	if err != nil {
		t.Fatal(err)
	}
	o := &optOuts{w: w, app: *out.ApplicationResponse.Id}
	until(t, "the app is not in the other Region", func() bool {
		_, err := w.client(there).GetApp(t.Context(), &pinpoint.GetAppInput{ApplicationId: &o.app})
		return err == nil
	})
	const most = 100_000
	writing, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.write(writing, here, 2*most)
	}()
	untilEvery(t, 50*time.Millisecond, "opt-outs are not acknowledged", func() bool { return o.acknowledged() >= most })
	killed := time.Now()
	w.nodes[here].kill()
	stop()
	<-ended
	if err := os.RemoveAll(w.path(region)); err != nil {
		t.Fatal(err)
	}
	// The survivor's next opt-out is told as soon as the quorum has removed the other.
	after := &optOuts{w: w, app: o.app}
	after.next.Store(3 * most)
	after.write(t.Context(), there, 3*most+optOutsACall)
	t.Logf("%d opt-outs acknowledged; the survivor acknowledged by itself %s after the kill", o.acknowledged(), time.Since(killed).Round(time.Millisecond))
	if after.acknowledged() == 0 {
		t.Error("the survivor does not acknowledge opt-outs")
	}
	if lost := o.missing(there); lost > 0 {
		t.Errorf("%d of %d acknowledged opt-outs are lost", lost, o.acknowledged())
	}
	var g everpoint.Group
	if err := w.admin(there, http.MethodGet, "/group", nil, nil, &g); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.Regions {
		if r.InSync != (r.Region == otherRegion) {
			t.Errorf("Region %s in sync: %v", r.Region, r.InSync)
		}
	}
	hashing, err := os.ReadFile(w.path(otherRegion + "/keys/hashing.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(region+"/keys/hashing.json", hashing)
	w.start(here)
	w.gathered(there)
	if lost := o.missing(here); lost > 0 {
		t.Errorf("%d of %d acknowledged opt-outs are not in the Region that took its place", lost, o.acknowledged())
	}
}
