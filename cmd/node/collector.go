package node

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The collector is told to let a small heap grow by headroomBytes before it
// runs again, and a large one by the usual proportion: a node with little in
// memory would otherwise collect many times a second under load, and one with a
// large audience index would double.
const (
	headroomBytes   = 64 << 20
	collectorTick   = time.Second
	percentMin      = 40
	percentMax      = 400
	liveHeapMetric  = "/gc/heap/live:bytes"
	smallestLiveSet = 1 << 20
)

// tuneCollector keeps the collector's pace until ctx ends.
func tuneCollector(ctx context.Context) error {
	sample := []metrics.Sample{{Name: liveHeapMetric}}
	ticker := time.NewTicker(collectorTick)
	defer ticker.Stop()
	was := -1
	for {
		metrics.Read(sample)
		live := max(sample[0].Value.Uint64(), smallestLiveSet)
		if percent := int(min(max(headroomBytes*100/live, percentMin), percentMax)); percent != was {
			debug.SetGCPercent(percent)
			was = percent
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
