package sim

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
)

// repeats sends messages to one address each until the end, and makes a call again in
// the other Region, as a router does: when it failed, and at times when its answer
// is lost. apart says that the repetition is not known for one.
func (c *Chronicle) repeats(ctx context.Context, g *Group, end time.Time, apart bool) {
	rnd := rand.New(rand.NewPCG(g.seed, 0xca11))
	for n := 0; ctx.Err() == nil; n++ {
		time.Sleep(500*time.Millisecond + some(rnd, 4*time.Second))
		if !time.Now().Before(end) {
			return
		}
		to, region := fmt.Sprintf("c%d@tea.example", n), regionNames[rnd.IntN(2)]
		lost := rnd.IntN(3) == 0
		if !c.message(ctx, g.regions[region], to, "call "+to) || lost {
			invocation := "call " + to
			if apart {
				invocation = "another " + to
			}
			time.Sleep(some(rnd, 200*time.Millisecond))
			c.message(ctx, g.regions[otherOf(region)], to, invocation)
		}
	}
}

// message sends one message, and reports whether the Region took it.
func (c *Chronicle) message(ctx context.Context, m *Member, to, invocation string) bool {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	a := Act{Region: m.name, What: "call", ID: to, Began: time.Now()}
	var out pinpoint.MessageResponse
	a.Err = m.repeat(ctx, invocation, "mobiletargeting", "POST", "/v1/apps/"+c.App+"/messages", object{
		"Addresses":            object{to: object{"ChannelType": "EMAIL"}},
		"MessageConfiguration": object{"EmailMessage": object{"SimpleEmail": object{"Subject": object{"Data": "call"}, "TextPart": object{"Data": "Hello"}}}},
	}, &out)
	if res, ok := out.Result[to]; a.Err == nil && (!ok || res.DeliveryStatus != pinpoint.DeliveryStatusSuccessful) {
		a.Err = fmt.Errorf("the message is %q", res.DeliveryStatus)
	}
	a.Ended = time.Now()
	c.act(a)
	return a.Err == nil
}

// watch compares what the voters say of each epoch until ctx ends.
func (c *Chronicle) watch(ctx context.Context, g *Group) {
	sets, duties := map[uint64]map[string]uint64{}, map[uint64][]string{}
	for ctx.Err() == nil {
		states, _ := g.states()
		for i := range states {
			s := &states[i]
			set := map[string]uint64{}
			for _, name := range regionNames {
				if r := s.Regions[name]; r.InSync {
					set[name] = r.Member
				}
			}
			if have, ok := sets[s.SetEpoch]; !ok {
				sets[s.SetEpoch] = set
			} else if !maps.Equal(have, set) {
				c.differ("the set of epoch %d is %v and %v", s.SetEpoch, have, set)
			}
			owners := s.Duty.Shards[:]
			if have, ok := duties[s.Duty.Epoch]; !ok {
				duties[s.Duty.Epoch] = owners
			} else if !slices.Equal(have, owners) {
				c.differ("the duty of epoch %d is %v and %v", s.Duty.Epoch, have, owners)
			}
		}
		_ = pause(ctx, 100*time.Millisecond)
	}
}

// differ remembers what two voters know differently.
func (c *Chronicle) differ(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Split = fmt.Sprintf(format, args...)
}

// split reports whether two voters were seen to know something differently.
func (c *Chronicle) split() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Split != ""
}
