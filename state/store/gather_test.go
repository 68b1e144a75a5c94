package store

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestGather: a group waits for company as long as it is expected, no longer than
// lingerMax, and not at all without expectation.
func TestGather(t *testing.T) {
	for _, tt := range []struct {
		name            string
		company         int
		arrive          []time.Duration
		size            int
		after           time.Duration
		oneByOne, alone bool
	}{
		{name: "nobody expected", size: 1},
		{name: "waiting already", arrive: []time.Duration{0, 0}, size: 3},
		{name: "expected and come", company: 3, arrive: []time.Duration{lingerMax / 4, lingerMax / 2}, size: 3, after: lingerMax / 2},
		{name: "more than expected", company: 2, arrive: []time.Duration{0, 0, 0, lingerMax / 2}, size: 4},
		{name: "expected, not come", company: 9, arrive: []time.Duration{lingerMax / 2}, size: 2, after: lingerMax},
		{name: "too late", company: 3, arrive: []time.Duration{2 * lingerMax}, size: 1, after: lingerMax},
		{name: "one by one", company: 3, arrive: []time.Duration{0, 0}, size: 1, oneByOne: true},
		{name: "work of its own", company: 3, arrive: []time.Duration{0}, size: 1, alone: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Store{cfg: Config{GroupMax: 8, OneByOne: tt.oneByOne}, requests: make(chan *request, 8)}
				for _, at := range tt.arrive {
					if at == 0 {
						s.requests <- &request{}
						continue
					}
					time.AfterFunc(at, func() { s.requests <- &request{} })
				}
				first := &request{}
				if tt.alone {
					first.alone = func() error { return nil }
				}
				begin := time.Now()
				reqs, next := s.gather(first, tt.company)
				if took := time.Since(begin); len(reqs) != tt.size || took != tt.after || next != nil {
					t.Errorf("%d requests after %v, then %v; want %d after %v", len(reqs), took, next, tt.size, tt.after)
				}
			})
		})
	}
}
