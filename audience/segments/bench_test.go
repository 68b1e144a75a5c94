package segments

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// typical is an endpoint as customers keep them: address, three attributes of
// which one is nearly unique, two metrics, a user, demographics.
func typical(rng *rand.Rand, i int) *endpoints.Endpoint {
	return &endpoints.Endpoint{
		App: testApp, ID: fmt.Sprintf("endpoint-%d", i), Address: fmt.Sprintf("+4917%08d", i), ChannelType: "SMS", Status: "ACTIVE",
		UserID: fmt.Sprintf("user-%d", i),
		Attributes: map[string][]string{
			"Plan": {[]string{"free", "basic", "pro", "team"}[rng.IntN(4)]}, "City": {fmt.Sprintf("city-%d", rng.IntN(5000))},
			"Interests": {fmt.Sprintf("i%d", rng.IntN(50)), fmt.Sprintf("i%d", rng.IntN(50))},
		},
		Metrics:     map[string]float64{"age": float64(rng.IntN(90)), "spent": rng.Float64() * 1000},
		Demographic: map[string]string{"Make": "Apple", "Platform": "ios", "AppVersion": fmt.Sprintf("%d.0", rng.IntN(20)), "Locale": "de_DE"},
		Location:    map[string]string{"Country": []string{"DE", "FR", "US"}[rng.IntN(3)]},
		UpdatedAt:   changelog.Stamp{Clock: uint64(testNow.Add(-time.Duration(rng.IntN(60*24))*time.Hour).UnixMilli()) << 16},
	}
}

var loadOnce struct {
	sync.Once
	ix    *Index
	bytes float64
}

const benchEndpoints = 1_000_000

func loaded(b *testing.B) *Index {
	loadOnce.Do(func() {
		before := heap()
		rng := rand.New(rand.NewPCG(1, 1))
		ix := newIndex(blinder{}, quiet)
		for i := range benchEndpoints {
			e := typical(rng, i)
			ix.Upsert(endpoints.Key(blinder{}, testApp, e.ID), e)
		}
		loadOnce.ix, loadOnce.bytes = ix, float64(heap()-before)/benchEndpoints
	})
	return loadOnce.ix
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// threeConditions is a segment of three conditions: one EXCLUSIVE, one a metric.
func threeConditions(b *testing.B) *Criteria {
	c, err := Compile(&pinpoint.SegmentDimensions{
		Attributes: map[string]pinpoint.AttributeDimension{
			"Plan":      {AttributeType: "EXCLUSIVE", Values: []string{"free"}},
			"Interests": {Values: []string{"i7", "i8", "i9"}},
		},
		Metrics: map[string]pinpoint.MetricDimension{"age": {ComparisonOperator: "GREATER_THAN", Value: 30}},
	}, nil, nil, testNow)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkUpsert(b *testing.B) {
	ix := loaded(b)
	rng := rand.New(rand.NewPCG(2, 2))
	all := make([]*endpoints.Endpoint, 10_000)
	keys := make([]string, len(all))
	for i := range all {
		all[i] = typical(rng, rng.IntN(benchEndpoints))
		keys[i] = endpoints.Key(blinder{}, testApp, all[i].ID)
	}
	for i := 0; b.Loop(); i++ {
		ix.Upsert(keys[i%len(all)], all[i%len(all)])
	}
	b.ReportMetric(loadOnce.bytes, "bytes/endpoint")
}

// BenchmarkCount counts while 2,000 endpoints change each second.
func BenchmarkCount(b *testing.B) {
	ix, c := loaded(b), threeConditions(b)
	ctx, cancel := context.WithCancel(b.Context())
	var updates sync.WaitGroup
	updates.Go(func() {
		rng := rand.New(rand.NewPCG(3, 3))
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range 10 {
				e := typical(rng, rng.IntN(benchEndpoints))
				ix.Upsert(endpoints.Key(blinder{}, testApp, e.ID), e)
			}
		}
	})
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if n, _, err := ix.Count(ctx, testApp, c); err != nil || n == 0 {
			b.Fatal(n, err)
		}
		took = append(took, time.Since(start))
	}
	cancel()
	updates.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

func BenchmarkWalk(b *testing.B) {
	ix := loaded(b)
	c, err := Compile(&pinpoint.SegmentDimensions{}, nil, nil, testNow)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := ix.Walk(b.Context(), testApp, c)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for shard := range Shards {
			for at := Before(shard); ; {
				page := s.Next(shard, at, 1000)
				if len(page) == 0 {
					break
				}
				n += len(page)
				at = page[len(page)-1].Hash
			}
		}
		if n != benchEndpoints {
			b.Fatal(n)
		}
	}
}

// BenchmarkBuild builds the index from a store of 50,000 endpoints and their users.
func BenchmarkBuild(b *testing.B) {
	const n = 50_000
	r := newRoom(b)
	rng := rand.New(rand.NewPCG(4, 4))
	for from := 0; from < n; from += 1000 {
		r.update(func(tx *store.Tx) error {
			for i := from; i < from+1000; i++ {
				e := typical(rng, i)
				req := &pinpoint.EndpointRequest{
					Address: &e.Address, ChannelType: pinpoint.ChannelTypeSms, Attributes: e.Attributes, Metrics: e.Metrics,
					User: &pinpoint.EndpointUser{UserId: &e.UserID, UserAttributes: map[string][]string{"Tier": {"gold"}}},
				}
				if err := r.ep.Upsert(tx, testApp, e.ID, req, "request"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	b.ResetTimer()
	start := time.Now()
	for range b.N {
		ix := NewIndex(r.st, quiet)
		if err := ix.build(b.Context()); err != nil || ix.Len(testApp) != n {
			b.Fatal(ix.Len(testApp), err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/time.Since(start).Seconds(), "endpoints/s")
}
