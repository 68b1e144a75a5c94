package campaigns

import (
	"fmt"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// BenchmarkRun_claim walks a segment of 100,000 endpoints and claims all of
// them, with delivery switched off so that nothing but the claiming is measured.
// It reports members a second, and what a run's walk takes in memory is 12 bytes
// a member (see segments.Snapshot).
func BenchmarkRun_claim(b *testing.B) {
	const people = 100_000
	w := newWorld(b)
	w.blocks, w.silent = 1<<20, true
	w.start()
	defer w.stop()
	for i := 0; i < people; {
		err := w.store.Update(b.Context(), func(tx *store.Tx) error {
			for range 1000 {
				if err := putEndpoint(tx, fmt.Sprintf("e%d", i), "EMAIL", fmt.Sprintf("p%06d@tea.example", i), nil); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		c := w.create(`{` + mailing + `,` + now + `}`)
		start := time.Now()
		tick := time.NewTicker(10 * time.Millisecond)
		for ; ; <-tick.C {
			run := w.running(c.Id)
			if run.Claimed == people {
				break
			}
			if time.Since(start) > time.Minute {
				b.Fatalf("claimed %d", run.Claimed)
			}
		}
		tick.Stop()
		b.ReportMetric(people/time.Since(start).Seconds(), "members/s")
	}
}
