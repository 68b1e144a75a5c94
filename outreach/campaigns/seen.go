package campaigns

import (
	"context"
	"sync"

	"github.com/everpoint/everpoint/delivery"
)

// seen is whom a run has claimed: endpoints, and the hashes of their addresses.
// The walk goes by the address's hash, which moves when somebody changes their
// address, and a run that went on evaluates its segment again; what was claimed
// is therefore remembered by endpoint.
//
// It is read from the claims when a run is taken up and then kept in memory:
// about 60 bytes an endpoint.
type seen struct {
	mu        sync.Mutex
	takes     int // the Takes of the part when it was last right
	runners   int // that use it; the service's mu guards it
	endpoints map[[16]byte]struct{}
	hashes    map[uint64]struct{}
}

// tail is the part of an endpoint's key that is its own within the app.
func tail(key []byte) (t [16]byte) {
	if len(key) >= len(t) {
		copy(t[:], key[len(key)-len(t):])
	} else {
		copy(t[:], key)
	}
	return t
}

func (s *seen) add(members []delivery.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range members {
		s.endpoints[tail(members[i].Key)] = struct{}{}
		s.hashes[members[i].Hash] = struct{}{}
	}
}

func (s *seen) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.endpoints[tail([]byte(key))]
	return ok
}

func (s *seen) hasHash(hash uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.hashes[hash]
	return ok
}

// seenOf returns whom an activity has claimed, in any Region; what others claim
// from then on is added. takes is the part's count before this worker took it:
// what this node remembers is right when nobody else took it since.
func (s *Service) seenOf(ctx context.Context, activity string, takes int) (*seen, error) {
	s.mu.Lock()
	kept := s.kept[activity]
	if kept != nil && kept.takes == takes {
		kept.takes++
		kept.runners++
		s.mu.Unlock()
		return kept, nil
	}
	for other, k := range s.kept {
		if len(s.kept) < keptMax {
			break
		}
		if k.runners == 0 { // who walks has to hear what others claim
			delete(s.kept, other) // it is read again should its run go on here
		}
	}
	// First it is there, for what is merged from now on, then the rest is read.
	out := &seen{takes: takes + 1, runners: 1, endpoints: map[[16]byte]struct{}{}, hashes: map[uint64]struct{}{}}
	s.kept[activity] = out
	s.mu.Unlock()
	err := s.delivery.Claimed(s.store.Reader(ctx), activity, func(b *delivery.Block) error {
		out.add(b.Members)
		return ctx.Err()
	})
	if err != nil {
		s.forget(activity)
		return nil, err
	}
	return out, nil
}

// remember has the runner know whom its activity has claimed.
func (r *runner) remember(ctx context.Context, takes int) error {
	r.letGo()
	known, err := r.s.seenOf(ctx, r.it.ID, takes)
	r.seen = known
	return err
}

// letGo ends that: what was remembered may make room for others.
func (r *runner) letGo() {
	if r.seen == nil {
		return
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.seen.runners--
	r.seen = nil
}

// claimed adds what another Region has claimed of a run that is worked here.
func (s *Service) claimed(activity string, members []delivery.Member) {
	s.mu.Lock()
	kept := s.kept[activity]
	s.mu.Unlock()
	if kept != nil {
		kept.add(members)
	}
}

// keptMax bounds the runs whose claims are remembered between two takes; those that
// are walked come on top, at most one for each worker.
const keptMax = 32

// forget drops what is remembered of a run that is over.
func (s *Service) forget(activity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, activity)
}
