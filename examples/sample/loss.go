package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/everpoint/everpoint/audience/segments"
)

// Bounds of what is waited for.
const (
	settleMax = 30 * time.Second // until both Regions have the audience
	returnMax = 60 * time.Second // until a Region that is back has everything
	stillMax  = 60 * time.Second // in which a campaign gets no further
	watchTick = 50 * time.Millisecond
)

// loss is a Region that is killed, and what the others do about it.
type loss struct {
	*victim
	region   string
	survivor place
	control  bool // it had control
	killed   time.Time
	shards   map[int]bool // dispatch shards for which it had sent

	// What was seen since.
	next          time.Time // when to look again
	out, moved    bool      // of the set; and control
	took          bool      // the survivor sends on its shards
	messagesKnown int       // N of the last message that was looked at
}

// ago is how long after the kill it is.
func (l *loss) ago() string { return after(time.Since(l.killed)) }

func after(d time.Duration) string { return fmt.Sprintf("%+8.1f s ", d.Seconds()) }

// choose resolves the Region to be killed: "control" is the one that has control,
// "other" one that has not.
func (p *play) choose(ctx context.Context, v *victim) (*loss, error) {
	l := &loss{victim: v, region: v.name, shards: map[int]bool{}}
	if !p.grouped() {
		if l.region == nameControl || l.region == nameOther {
			l.region = p.regions[0].region
		}
		return l, nil
	}
	g, err := p.group(ctx, p.anywhere())
	if err != nil {
		return nil, err
	}
	for _, at := range p.regions {
		if v.name == nameControl && at.region == g.Control.Region || v.name == nameOther && at.region != g.Control.Region {
			l.region = at.region
		}
	}
	for _, at := range p.regions {
		if at.region != l.region {
			l.survivor = at
		}
	}
	l.control = g.Control.Region == l.region
	return l, nil
}

// isRegion says whether a Region of several is lost, and not another process.
func (p *play) isRegion(l *loss) bool {
	return p.grouped() && slices.ContainsFunc(p.regions, func(at place) bool { return at.region == l.region })
}

// shard is the dispatch shard of a message's recipient.
func (p *play) shard(m Message) int {
	return segments.Shard(segments.DispatchHash(p.app, m.Channel, m.To))
}

// lose kills the Region.
func (p *play) lose(ctx context.Context, l *loss) error {
	messages, err := p.messages(ctx, p.outboxBefore)
	if err != nil {
		return err
	}
	by := map[string]int{}
	for _, m := range messages {
		by[m.Region]++
		l.messagesKnown = m.N
		if m.Region == l.region {
			l.shards[p.shard(m)] = true
		}
	}
	what := ""
	if l.control {
		what = ", which has control"
	}
	p.say("       so far %s; kill -9 %s%s", byRegion(by), l.region, what)
	l.killed = time.Now()
	return l.kill(ctx, l.region)
}

func byRegion(n map[string]int) string {
	text := ""
	for i, name := range slices.Sorted(maps.Keys(n)) {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %d", name, n[name])
	}
	return text
}

// watch says what the survivor did about the loss since it was asked last. What it
// cannot ask now it asks later.
func (p *play) watch(ctx context.Context, l *loss) {
	if l.took && l.out && l.moved || time.Now().Before(l.next) {
		return
	}
	l.next = time.Now().Add(watchTick)
	if !l.out || !l.moved {
		if g, err := p.group(ctx, l.survivor); err == nil {
			p.tellGroup(l, g)
		}
	}
	if l.took {
		return
	}
	fresh, err := p.messages(ctx, l.messagesKnown)
	if err != nil {
		return
	}
	for _, m := range fresh {
		l.messagesKnown = m.N
		if m.Region != l.region && l.shards[p.shard(m)] && !l.took {
			l.took = true
			p.say("%s%s sends what was %s's to send", after(m.Time.Sub(l.killed)), m.Region, l.region)
		}
	}
}

func (p *play) tellGroup(l *loss, g *group) {
	for _, r := range g.Regions {
		if r.Region == l.region && !r.InSync && !l.out {
			l.out = true
			p.say("%s%s is out of the set: %s", l.ago(), r.Region, r.Reason)
		}
	}
	if l.out && !l.moved {
		l.moved = true
		shards := 0
		for _, r := range g.Regions {
			if r.Region == l.survivor.region {
				shards = r.Shards
			}
		}
		p.say("%s%s has %d of 64 shards; control is with %s", l.ago(), l.survivor.region, shards, g.Control.Region)
	}
}

// comeBack starts the lost Region again and waits until it has everything: it is
// in the set, has what the other tells, and says the same of the campaign.
func (p *play) comeBack(ctx context.Context, l *loss) error {
	l.killed = time.Now()
	p.say("\n%s is started again", l.region)
	if err := l.start(ctx, l.region); err != nil {
		return err
	}
	p.say("%sit answers", l.ago())
	for _, step := range []struct {
		what string
		done func() (string, error)
	}{
		{"it is in the set again", func() (string, error) {
			g, err := p.group(ctx, l.survivor)
			if err != nil {
				return "", err
			}
			for _, r := range g.Regions {
				if r.Region == l.region && r.InSync {
					return fmt.Sprintf("with %d of 64 shards", r.Shards), nil
				}
			}
			return "", errNotYet
		}},
		{"both have all of the other's", func() (string, error) { return p.level(ctx) }},
		{"both count the same", func() (string, error) { return p.same(ctx) }},
	} {
		said, err := until(ctx, returnMax, step.done)
		if err != nil {
			return fmt.Errorf("%s: %s within %v: %w", l.region, step.what, returnMax, err)
		}
		p.say("%s%s: %s", l.ago(), step.what, said)
	}
	return nil
}

var errNotYet = errors.New("not yet")

// level says how late the Regions are, once each has merged all that the others
// told.
func (p *play) level(ctx context.Context) (string, error) {
	var lag int64
	for _, at := range p.regions {
		n, err := p.node(ctx, at)
		if err != nil {
			return "", err
		}
		for _, other := range n.Peers {
			if other.Problem != "" || other.SafetyMerged < other.SafetyHead || other.ChangesMerged < other.ChangesHead {
				return "", fmt.Errorf("%w: %s has %d of %d and %d of %d of %s %s", errNotYet, at.region,
					other.SafetyMerged, other.SafetyHead, other.ChangesMerged, other.ChangesHead, other.Region, other.Problem)
			}
			lag = max(lag, other.LagMilliseconds)
		}
	}
	return fmt.Sprintf("lag %d ms", lag), nil
}

// same says what the Regions count, once it is the same.
func (p *play) same(ctx context.Context) (string, error) {
	var first string
	for i, at := range p.regions {
		n, err := p.node(ctx, at)
		if err != nil {
			return "", err
		}
		says, err := p.reconciliation(ctx, at, p.app, p.campaign)
		if err != nil {
			return "", err
		}
		listed, err := p.ambiguousSends(ctx, at, p.app, p.campaign)
		if err != nil {
			return "", err
		}
		held := 0
		for _, n := range says.Held {
			held += int(n)
		}
		text := fmt.Sprintf("%d endpoints; of the campaign %d targets, %d sent, %d held, %d failed, %d ambiguous, %d listed",
			n.EndpointsIndexed, says.Targets, says.Sent, held, says.Failed, says.AmbiguousLeft, len(listed))
		if i > 0 && text != first {
			return "", fmt.Errorf("%w: %s has %s, and %s %s", errNotYet, p.regions[0].region, first, at.region, text)
		}
		first = text
	}
	return first, nil
}

// until asks until there is an answer without an error.
func until(ctx context.Context, most time.Duration, ask func() (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		said, err := ask()
		if err == nil {
			return said, nil
		}
		if late := pause(ctx, watchTick); late != nil {
			return "", errors.Join(err, late)
		}
	}
}
