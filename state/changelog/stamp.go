package changelog

import (
	"fmt"
	"sync"
	"time"
)

// Stamp orders writes: a hybrid logical clock reading (milliseconds since 1970
// in the upper 48 bits, a counter in the lower 16) and the Region that took it.
// The zero Stamp is before every other.
type Stamp struct {
	Clock  uint64
	Region string
}

// Less orders stamps by clock, then by Region, so that any two Regions agree.
func (s Stamp) Less(t Stamp) bool {
	if s.Clock != t.Clock {
		return s.Clock < t.Clock
	}
	return s.Region < t.Region
}

// IsZero reports whether s was never taken.
func (s Stamp) IsZero() bool { return s == Stamp{} }

// Time is the wall-clock part, to the millisecond.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s.Clock >> 16)).UTC() }

// String prints the stamp for people: instant, counter and Region.
func (s Stamp) String() string {
	return fmt.Sprintf("%s+%d@%s", s.Time().Format("2006-01-02T15:04:05.000Z"), s.Clock&0xffff, s.Region)
}

// SkewMax is how far ahead of its own clock a node accepts a stamp. Beyond it
// the clock that took the stamp, or this one, is wrong, and the write is refused.
const SkewMax = 2 * time.Minute

// Clock takes stamps for one Region. It is safe for concurrent use.
type Clock struct {
	region string
	now    func() time.Time

	mu      sync.Mutex
	last    uint64
	limit   uint64 // stamps up to here are reserved; meaningful when reserve is set
	reserve func(upTo uint64) error
	err     error
}

// ReserveAhead is how far beyond the present a clock reserves stamps at a time.
const ReserveAhead = 5 * time.Second

// Keep makes the clock never repeat itself over restarts, even if the node's
// time went back or stood still: it goes on above last, what an earlier life
// had reserved, and calls reserve before it takes a stamp above what is
// reserved. reserve must have made the number durable when it returns.
func (c *Clock) Keep(last uint64, reserve func(upTo uint64) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, last)
	c.limit, c.reserve = c.last, reserve
}

// Err is why stamps could not be reserved; nil when they could. Stamps that
// were taken since must not be made durable.
func (c *Clock) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// NewClock returns a clock for the Region that reads now.
func NewClock(region string, now func() time.Time) *Clock {
	return &Clock{region: region, now: now}
}

// Region is the Region whose stamps the clock takes.
func (c *Clock) Region() string { return c.region }

// Next takes a stamp above every stamp this clock has taken or observed, and
// above each of seen.
func (c *Clock) Next(seen ...Stamp) Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := max(uint64(c.now().UnixMilli())<<16, c.last+1)
	for _, s := range seen {
		next = max(next, s.Clock+1)
	}
	if c.reserve != nil && next > c.limit {
		upTo := next + uint64(ReserveAhead.Milliseconds())<<16
		if c.err = c.reserve(upTo); c.err == nil {
			c.limit = upTo
		}
	}
	c.last = next
	return Stamp{next, c.region}
}

// Observe moves the clock past a stamp that another node or Region took. It
// reports an error, and does not move, when the stamp is more than SkewMax
// ahead of this node's own time.
func (c *Clock) Observe(s Stamp) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ahead := s.Time().Sub(c.now()); ahead > SkewMax {
		return fmt.Errorf("clock of Region %q is %s ahead, more than %s", s.Region, ahead.Round(time.Millisecond), SkewMax)
	}
	c.last = max(c.last, s.Clock)
	return nil
}
