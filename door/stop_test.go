package door

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// A call that stops something is ordered by another way when the control Region
// does not answer it, and only then.
func TestStops(t *testing.T) {
	const soon = 100 * time.Millisecond
	stop := func(e *region, app string) *http.Request {
		r := newRequest(http.MethodDelete, e.base+"/v1/apps/"+app+"/running-note", nil)
		sign(r, nil, "mobiletargeting")
		return r
	}
	tests := map[string]struct {
		app              string
		before           func(e, w *region)
		meanwhile        func(e, w *region)
		status           int
		says             string
		given, withdrawn int64
	}{
		"served in time it is not ordered":           {app: "a", status: 200, says: west},
		"an error in time is the answer":             {app: "fail", status: 404, says: "app fail"},
		"where nobody is reached it is ordered":      {app: "a", before: func(_, w *region) { w.peers.Close() }, status: 200, says: "ordered", given: 1},
		"where nobody has control it is ordered":     {app: "a", before: func(e, _ *region) { e.control.set(Seat{}, aws.Unavailable("no majority")) }, status: 200, says: "ordered", given: 1},
		"where nobody answers it is ordered":         {app: "wait", status: 200, says: "ordered", given: 1},
		"what was not ordered is said":               {app: "a", before: func(e, w *region) { w.peers.Close(); e.orders.partly.Store(true) }, status: 503, says: "the rest was not written", given: 1},
		"where it cannot be ordered the call failed": {app: "a", before: func(e, w *region) { w.peers.Close(); e.orders.refused.Store(true) }, status: 503, says: "cannot be reached"},
		"served after all the order is withdrawn": {app: "wait", meanwhile: func(e, w *region) {
			<-e.orders.was
			w.gate <- struct{}{}
		}, status: 200, says: west, given: 1, withdrawn: 1},
		"the Region with control orders too": {app: "wait", before: func(e, _ *region) { e.control.set(Seat{Region: east, Epoch: 8}, nil) }, meanwhile: func(e, _ *region) {
			<-e.orders.was
			e.gate <- struct{}{}
		}, status: 200, says: east, given: 1, withdrawn: 1},
	}
	for name, tt := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			e, w := twoRegions(t, func(_ string, cfg *Config) { cfg.OrderAfter = soon })
			if tt.before != nil {
				tt.before(e, w)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if tt.meanwhile != nil {
					tt.meanwhile(e, w)
				}
			}()
			resp, body := e.send(t, stop(e, tt.app))
			<-done
			if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.says) {
				t.Errorf("answered %d %s", resp.StatusCode, body)
			}
			if got := resp.Header.Get(headerOrdered) == "true"; got != (tt.given > tt.withdrawn) {
				t.Errorf("the answer says that it was ordered: %v", got)
			}
			if given, withdrawn := e.orders.given.Load(), e.orders.withdrawn.Load(); given != tt.given || withdrawn != tt.withdrawn {
				t.Errorf("%d orders given and %d withdrawn, want %d and %d", given, withdrawn, tt.given, tt.withdrawn)
			}
			if w.orders.given.Load() > 0 {
				t.Error("the Region to which it was forwarded ordered it")
			}
			if tt.app == "wait" && tt.meanwhile == nil {
				w.gate <- struct{}{}
			}
		})
	}
}
