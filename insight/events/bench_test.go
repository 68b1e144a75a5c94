package events

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/eventlog"
)

// benchBody is a batch of ten events of one endpoint, as an app sends it.
func benchBody(endpoint string, n int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `{"BatchItem":{%q:{"Endpoint":{"ChannelType":"GCM","Address":"token-%s","Demographic":{"AppVersion":"2.4","Make":"Example",`+
		`"Model":"One","Platform":"android","PlatformVersion":"14","Locale":"en_GB"},"User":{"UserId":"u-%s"}},"Events":{`, endpoint, endpoint, endpoint)
	for i := range 10 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%08d-0000-4000-8000-%012d":{"EventType":"menu.opened","Timestamp":"2026-11-02T09:29:%02d.000Z","Attributes":{"screen":"menu",`+
			`"source":"notification","variant":"b"},"Metrics":{"items":3,"seconds":1.5},"Session":{"Id":"s-77","StartTimestamp":"2026-11-02T09:29:00.000Z"},`+
			`"AppPackageName":"net.example.tea","AppTitle":"Tea","AppVersionCode":"24","SdkName":"amplify-js","ClientSdkVersion":"6.0.2"}`, n, i, i)
	}
	b.WriteString("}}}}")
	return []byte(b.String())
}

func benchRequest(body []byte) *wire.Request {
	return &wire.Request{Method: "POST", RawPath: "/v1/apps/" + app + "/events", Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

// BenchmarkWithoutStore is all of a PutEvents of ten events but the store: find
// the operation, decode, check, encode the endpoint's patch and the records,
// say what is new, answer.
func BenchmarkWithoutStore(b *testing.B) {
	r := newRoom(b, Config{}, "")
	mux := wire.NewMux(pinpoint.Service)
	wire.Handle(mux, pinpoint.PutEvents, "apps/{ApplicationId}/events",
		func(ctx context.Context, in *pinpoint.PutEventsRequest) (*pinpoint.PutEventsResponse, error) {
			batch, err := r.prepare(aws.CallerFrom(ctx), in, r.now())
			if err != nil {
				return nil, err
			}
			_ = batch.touches()
			known := &names{}
			for sort, list := range [sorts][]string{{"menu.opened"}, {"screen", "source", "variant"}, {"items", "seconds"}} {
				known.used[sort] = map[string]struct{}{}
				for _, name := range list {
					known.used[sort][name] = struct{}{}
				}
			}
			use := usage{names: known, limits: &r.limits}
			var scratch scratch
			n := 0
			for i := range batch.items {
				it := &batch.items[i]
				it.judged = accepted
				who := &endpoints.Endpoint{
					App: app, ID: it.id, ChannelType: "GCM", Status: "ACTIVE", UserID: "u",
					Demographic: map[string]string{"AppVersion": "2.4", "Make": "Example", "Model": "One", "Platform": "android"},
				}
				scratch.endpoint(batch, it, who)
				seen := &memory{}
				for j := range it.events {
					e := &it.events[j]
					e.judged = accepted
					if use.admit(&e.in) != "" || !seen.add(e.id128) {
						return nil, aws.Invalid("not expected")
					}
					f := eventlog.Fact{ID: factID(e.id128), Type: e.in.EventType, Client: scratch.client, Data: scratch.record(batch, e)}
					n += len(f.Data)
				}
			}
			return &pinpoint.PutEventsResponse{EventsResponse: batch.response()}, nil
		})
	req := benchRequest(benchBody("ep-31", 1))
	ctx := aws.WithCaller(context.Background(), aws.Caller{Account: account, Region: "us-east-1", RequestID: "d2c1a7c0-52a6-4d6c-a3ad-9f4f4f0c2c55"})
	b.ReportAllocs()
	b.SetBytes(int64(len(req.Body)))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m, err := mux.Find(req)
			if err != nil {
				b.Error(err)
				return
			}
			if resp := m.Invoke(ctx, req); resp.Status != 202 {
				b.Errorf("%d %s", resp.Status, resp.Body)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkPutEvents64 is 64 callers that put ten events each for random ones
// of a thousand endpoints, each durable before it is answered.
func BenchmarkPutEvents64(b *testing.B) {
	r := newRoom(b, Config{}, "")
	ctx := aws.WithCaller(context.Background(), aws.Caller{Account: account, Region: "us-east-1", RequestID: "d2c1a7c0-52a6-4d6c-a3ad-9f4f4f0c2c55"})
	var n atomic.Int64
	var done sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range 64 {
		done.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				req := benchRequest(benchBody(fmt.Sprint("ep-", i*2654435761%1000), int(i)))
				m, err := r.mux.Find(req)
				if err != nil {
					b.Error(err)
					return
				}
				if resp := m.Invoke(ctx, req); resp.Status != 202 {
					b.Errorf("%d %s", resp.Status, resp.Body)
					return
				}
			}
		})
	}
	done.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
