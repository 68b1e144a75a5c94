package replica

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// benchRegions are two Regions over TLS on loopback, and a body of 480 bytes to
// write. They are on PostgreSQL when TEST_POSTGRES_URL is set.
func benchRegions(b *testing.B) (*region, *region, []byte) {
	g := newGroup(b, os.Getenv("TEST_POSTGRES_URL"), "us-east-1", "eu-west-1")
	for _, r := range g.regions {
		r.cfg.SQLiteYoungMax = 0
		r.tune = func(c *Config) { c.Heartbeat, c.Timeout = 250*time.Millisecond, 5*time.Second }
	}
	return g.regions[0], g.regions[1], make([]byte, 480)
}

func benchRecord(tx *store.Tx, key string, body []byte) error {
	var rec changelog.Record
	at := tx.Stamp()
	for i := range 8 {
		rec.Set(fmt.Sprintf("Attributes.a%d", i), body[i*60:(i+1)*60], at)
	}
	rec.Set("user", []byte(key), at)
	return tx.Put(kindPerson, key, changelog.AppendRecord(nil, &rec), store.Index{Name: "user", Value: key})
}

func (g *group) hearEachOther() {
	g.eventually("they hear of each other", func() bool {
		return !slices.ContainsFunc(g.regions, func(r *region) bool { return r.replica.Status()[0].Heard.IsZero() })
	})
}

// BenchmarkCatchUp is a Region that missed b.N updates of 20,000 records, made by
// commits of a hundred, and merges them.
func BenchmarkCatchUp(b *testing.B) {
	a, c, body := benchRegions(b)
	a.start()
	c.start()
	a.g.hearEachOther()
	c.stop()
	for from := 0; from < b.N; from += 100 {
		if err := a.store.Update(b.Context(), func(tx *store.Tx) error {
			for i := from; i < min(from+100, b.N); i++ {
				if err := benchRecord(tx, fmt.Sprint("k", i*7919%20_000), body); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	head := a.store.Head(store.Changes)
	b.ResetTimer()
	c.start()
	for c.replica.Status()[0].Streams[store.Changes].Merged < head {
		<-time.After(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
}

// BenchmarkNewRegion is a Region with an empty disk that takes b.N records over.
func BenchmarkNewRegion(b *testing.B) {
	a, c, body := benchRegions(b)
	a.start()
	for from := 0; from < b.N; from += 1000 {
		if err := a.store.Update(b.Context(), func(tx *store.Tx) error {
			for i := from; i < min(from+1000, b.N); i++ {
				if err := benchRecord(tx, fmt.Sprint("k", i), body); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	head := a.store.Head(store.Changes)
	b.ResetTimer()
	c.start()
	for c.replica.Status()[0].Streams[store.Changes].Merged < head {
		<-time.After(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkLag is 2,000 updates a second, and how long each takes to be in the
// other Region.
func BenchmarkLag(b *testing.B) {
	a, c, body := benchRegions(b)
	a.start()
	c.start()
	a.g.hearEachOther()
	type mark struct {
		n  int64
		at time.Time
	}
	marks := make(chan mark, b.N)
	var lags []time.Duration
	var reading sync.WaitGroup
	reading.Go(func() {
		for m := range marks {
			for c.replica.Status()[0].Streams[store.Changes].Merged < m.n {
				<-time.After(200 * time.Microsecond)
			}
			lags = append(lags, time.Since(m.at))
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var writers sync.WaitGroup
	b.ResetTimer()
	for i := range b.N {
		if i%2 == 0 {
			<-tick.C
		}
		writers.Go(func() {
			if err := a.store.Update(context.Background(), func(tx *store.Tx) error {
				return benchRecord(tx, fmt.Sprint("k", i%20_000), body)
			}); err != nil {
				b.Error(err)
			}
			marks <- mark{a.store.Head(store.Changes), time.Now()}
		})
	}
	writers.Wait()
	b.StopTimer()
	close(marks)
	reading.Wait()
	slices.Sort(lags)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkGroup is one writer of safety data: with the group, and without.
func BenchmarkGroup(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(map[bool]string{false: "local", true: "group"}[with], func(b *testing.B) {
			a, c, _ := benchRegions(b)
			if with {
				tune := a.tune
				a.tune = func(cfg *Config) {
					tune(cfg)
					cfg.Group = func() (map[string]string, error) { return map[string]string{"eu-west-1": ""}, nil }
				}
			}
			a.start()
			c.start()
			a.g.hearEachOther()
			var took []time.Duration
			b.ResetTimer()
			for i := range b.N {
				begun := time.Now()
				if err := a.store.Update(b.Context(), func(tx *store.Tx) error {
					return tx.Put(kindClaim, fmt.Sprint(i), []byte("mine"))
				}); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begun))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		})
	}
}
