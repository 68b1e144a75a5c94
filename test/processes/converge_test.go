package processes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

const (
	endpointsOfConvergence = 40
	cutsOfConvergence      = 3
)

// In both Regions an SDK updates, deletes and opts out the same endpoints at random,
// while the network between the Regions is cut and healed. In the end both hold the
// same documents, byte for byte, and no opt-out that was acknowledged is lost.
func TestRegionsConverge(t *testing.T) {
	rnd := seeded(t)
	w := &world{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}, network: newNetwork(t)}
	w.vote(false, nil)
	w.gathered(here)
	w.gathered(there)
	made, err := w.client(here).CreateApp(t.Context(), &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}})
	if err != nil {
		t.Fatal(err)
	}
	id := made.ApplicationResponse.Id
	var mu sync.Mutex
	out := map[string]bool{} // opt-outs that were acknowledged
	acted, refused := 0, 0
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	defer writers.Wait()
	for i := range 2 {
		own := rand.New(rand.NewPCG(rnd.Uint64(), uint64(i)))
		c := w.client(i)
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				e := fmt.Sprint("e", own.IntN(endpointsOfConvergence))
				to := &types.EndpointRequest{Address: aws.String(e + "@tea.example"), ChannelType: types.ChannelTypeEmail}
				var err error
				optOut := false
				switch own.IntN(8) {
				case 0:
					optOut, to.OptOut = true, aws.String("ALL")
					_, err = c.UpdateEndpoint(ctx, &pinpoint.UpdateEndpointInput{ApplicationId: id, EndpointId: &e, EndpointRequest: to})
				case 1:
					_, err = c.DeleteEndpoint(ctx, &pinpoint.DeleteEndpointInput{ApplicationId: id, EndpointId: &e})
				default:
					to.Attributes = map[string][]string{fmt.Sprint("a", own.IntN(3)): {fmt.Sprintf("%s %d", w.nodes[i].name, n)}}
					_, err = c.UpdateEndpoint(ctx, &pinpoint.UpdateEndpointInput{ApplicationId: id, EndpointId: &e, EndpointRequest: to})
				}
				mu.Lock()
				if acted++; err != nil {
					refused++
				} else if optOut {
					out[e] = true
				}
				mu.Unlock()
			}
		})
	}
	did := func() int {
		mu.Lock()
		defer mu.Unlock()
		return acted
	}
	more := func(n int) {
		from := did()
		until(t, "the writers do not go on", func() bool { return did() >= from+n })
	}
	for range cutsOfConvergence {
		more(50)
		cut := rnd.IntN(2)
		w.network.cut(w.nodes[cut].name, rnd.IntN(2) == 0)
		if rnd.IntN(3) > 0 { // else it heals before anybody is removed
			w.only(1 - cut)
		}
		more(50)
		w.network.heal()
		w.gathered(here)
		w.gathered(there)
	}
	more(50)
	stop()
	writers.Wait()
	t.Logf("%d calls, %d of them refused or cut short; %d opted out", acted, refused, len(out))

	get := func(i int, e string) *types.EndpointResponse {
		got, err := w.client(i).GetEndpoint(t.Context(), &pinpoint.GetEndpointInput{ApplicationId: id, EndpointId: &e})
		if err != nil {
			return nil
		}
		return got.EndpointResponse
	}
	until(t, "the Regions do not answer the same", func() bool {
		for n := range endpointsOfConvergence {
			e := fmt.Sprint("e", n)
			a, b := get(here, e), get(there, e)
			if (a == nil) != (b == nil) || a != nil && fmt.Sprint(a.Attributes, *a.OptOut, *a.EffectiveDate) != fmt.Sprint(b.Attributes, *b.OptOut, *b.EffectiveDate) {
				return false
			}
		}
		return true
	})
	for e := range out {
		for _, i := range []int{here, there} {
			if got := get(i, e); got != nil && aws.ToString(got.OptOut) != "ALL" {
				t.Errorf("%s: the opt-out of %s is lost", w.nodes[i].name, e)
			}
		}
	}
	until(t, "a Region has not heard all", func() bool {
		for i := range 2 {
			if out, err := w.command(i, "region", "status"); err != nil || bytes.Contains([]byte(out), []byte("opt-outs accepted that")) {
				return false
			}
		}
		return true
	})
	for _, i := range []int{here, there} {
		w.nodes[i].stop(t)
	}
	a, b := w.rows(here), w.rows(there)
	if len(a) < endpointsOfConvergence {
		t.Errorf("%d rows are compared", len(a))
	}
	for key, body := range a {
		if !bytes.Equal(body, b[key]) {
			t.Errorf("%q is\n%x here, and there\n%x", key, body, b[key])
		}
	}
	for key := range b {
		if a[key] == nil {
			t.Errorf("%q is there and not here", key)
		}
	}
}

// rows are all that a stopped Region's database has for others, by kind and key.
func (w *world) rows(i int) map[string][]byte {
	w.t.Helper()
	rows := map[string][]byte{}
	w.database(i, func(st *store.Store) {
		if err := st.Changes(w.t.Context(), 0, func(_ int64, c changelog.Change) error {
			rows[c.Kind+" "+c.Key] = bytes.Clone(c.Body)
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
	})
	return rows
}

// database opens the database of a stopped Region.
func (w *world) database(i int, look func(*store.Store)) {
	t := w.t
	t.Helper()
	name := w.nodes[i].name
	keys, err := store.LoadKeys(w.path(name + "/keys"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	st, err := store.Open(t.Context(), store.Config{Dir: w.path(name), Region: name}, keys, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- st.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	look(st)
}
