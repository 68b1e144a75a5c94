package campaigns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// workRun is the queue's kind for activities; the id is the activity's.
const workRun = "campaign.run"

// target is the body of a run's work: where its activity is.
type target struct{ App, Campaign string }

func reference(a *Activity) json.RawMessage {
	body, err := json.Marshal(target{a.App, a.Campaign})
	if err != nil {
		panic(err) // two strings cannot fail
	}
	return body
}

// step is what a run does next.
type step string

const (
	stepDrop   step = "drop"   // nothing is left to do: the work goes
	stepAwait  step = "await"  // look again when it is due
	stepStart  step = "start"  // write the plan, from PENDING to RUNNING
	stepClaim  step = "claim"  // give delivery the next members
	stepSweep  step = "sweep"  // the walk is over everywhere: walk again, for those who moved
	stepFinish step = "finish" // the run is over
	stepFail   step = "fail"   // the segment is gone
)

// situation is all that a run's next step depends on.
type situation struct {
	campaign *Campaign // nil: gone, with its app or altogether
	activity *Activity // nil: replaced by an update
	segment  bool      // the campaign's version of its segment exists
	tally    *delivery.Tally
	here     *delivery.Tally // of this Region's claims alone
	window   int64           // how many recipients may be on their way
	part     *Part           // this Region's
	done     group.Shards    // walked to their ends, by any Region
	place    group.Standing  // this Region's place; zero: it may claim nothing
	halted   bool            // a stop order waits to be carried out
}

// todo is the shards that this Region may walk now.
func (s *situation) todo() group.Shards {
	if s.activity.Sweeping {
		_, done := s.part.swept(s.activity)
		return group.AllShards &^ done
	}
	return s.place.Shards &^ s.done
}

// decision is a step and, when the run waits, until when.
type decision struct {
	step step
	due  time.Time
	why  string
}

// decide is the engine's rule. It is pure; what it says is done in one update,
// in which it is asked again.
//
// Source: engagement 7.6, 13.8; design 5, Claims.
func decide(now time.Time, s *situation) decision {
	c, a := s.campaign, s.activity
	wait := func(why string) decision { return decision{step: stepAwait, due: now.Add(elsewhere), why: why} }
	switch {
	case a == nil || c == nil || c.DeletedAt != "":
		return decision{step: stepDrop, why: "the campaign is gone or has other activities"}
	case a.over():
		return decision{step: stepDrop, why: "the activity is over"}
	case now.Before(a.ScheduledStart):
		return decision{step: stepAwait, due: a.ScheduledStart, why: "the start is ahead"}
	case s.place.Epoch == 0:
		return wait("the Region may claim nothing")
	case s.halted:
		return wait("it was ordered to stop")
	case !s.place.Leads && (a.State == statePending || !s.segment && a.Walked.IsZero()):
		return wait("the Region with control decides")
	case !s.segment && a.Walked.IsZero():
		return decision{step: stepFail, why: "the segment was deleted"}
	case a.State == statePending:
		return decision{step: stepStart}
	case !a.Walked.IsZero():
		if s.tally.InFlight() > 0 || s.tally.BlocksDone < s.tally.Blocks {
			return decision{step: stepAwait, due: now.Add(settling(now.Sub(a.Walked))), why: "messages are on their way"}
		}
		if !s.place.Leads {
			return wait("the Region with control ends it")
		}
		if s.tally.Superseded > a.Superseded {
			return decision{step: stepSweep}
		}
		return decision{step: stepFinish}
	case a.Sweeping && !s.place.Leads:
		return wait("the Region with control sweeps")
	case !a.Sweeping && s.done == group.AllShards && s.place.Leads:
		return decision{step: stepSweep}
	case s.todo() == 0:
		return wait("the other Regions walk their shards")
	case s.here.InFlight()+delivery.BlockMax > s.window || s.here.Blocks-s.here.BlocksDone >= unfinishedMax:
		return decision{step: stepAwait, due: now, why: "enough is on its way"}
	}
	return decision{step: stepClaim}
}

// elsewhere is how long a run waits for another Region before it looks again.
const elsewhere = 500 * time.Millisecond

// unfinishedMax bounds the blocks that wait, with a few recipients each, for a
// provider that said later. The window counts recipients, not blocks, so that
// one slow recipient in each block does not stop a run.
const unfinishedMax = 1024

// settling is how long a run whose walk is over waits before it looks again:
// a quarter of how long it has waited, for a deferred message may take hours.
func settling(waited time.Duration) time.Duration {
	return min(max(waited/4, 20*time.Millisecond), time.Minute)
}

// Patience of a worker: how long it keeps its place while nothing can be
// claimed, and how long it then leaves it to others.
const (
	patience = 2 * time.Second
	away     = 5 * time.Second
)

// runner is one worker's hold of one activity.
type runner struct {
	s      *Service
	it     *queue.Item
	target target
	taken  bool // this hold is written down
	before int  // how often the part was taken before
	closed bool // the last update ended the activity, and with it the work
	walk   *segments.Snapshot
	seen   *seen // whom the activity has claimed
	swept  bool  // walk was evaluated for the sweep
	next   *batch
}

// run works an activity until it is over, has to wait long, or ctx ends.
func (s *Service) run(ctx context.Context, it *queue.Item) error {
	r := &runner{s: s, it: it}
	if err := json.Unmarshal(it.Body, &r.target); err != nil {
		return fmt.Errorf("read the work of activity %s: %w", it.ID, err)
	}
	defer r.letGo()
	var waiting time.Time // since when; zero: it is not
	for {
		sit, err := r.look(s.store.Reader(ctx))
		if err != nil {
			return err
		}
		now := s.now()
		d := decide(now, sit)
		if d.step != stepAwait {
			waiting = time.Time{}
			over, err := r.act(ctx, sit, d)
			if aws.KindOf(err) == aws.KindUnavailable {
				// The group or the database cannot be had: that is no fault of the run's.
				s.log.InfoContext(ctx, "campaign run waits", "activity_id", it.ID, "reason", err)
				due := now.Add(elsewhere)
				return s.store.Update(ctx, func(tx *store.Tx) error { return it.Again(tx, due, it.Body) })
			}
			if err != nil || over {
				return err
			}
			continue
		}
		if waiting.IsZero() {
			waiting = now
		}
		if d.due.Sub(now) > patience || now.Sub(waiting) > patience {
			due := d.due
			if a := sit.activity; a.State == stateRunning && a.Walked.IsZero() && !d.due.After(now) {
				due = now.Add(away)
			}
			return s.store.Update(ctx, func(tx *store.Tx) error { return it.Again(tx, due, it.Body) })
		}
		if err := pause(ctx, max(d.due.Sub(now), s.cfg.PollInterval)); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look reads what the next step depends on.
func (r *runner) look(rd store.Reader) (*situation, error) {
	s, sit := r.s, &situation{window: int64(r.s.cfg.BlocksAhead) * delivery.BlockMax}
	var err error
	if sit.activity, err = loadActivity(rd, r.target.App, r.target.Campaign, r.it.ID); err != nil || sit.activity == nil {
		return sit, err
	}
	app, err := apps.Get(rd, r.target.App)
	if err != nil || app == nil {
		return sit, err
	}
	if sit.campaign, err = load(rd, r.target.App, r.target.Campaign); err != nil || sit.campaign == nil {
		return sit, err
	}
	if sit.activity.over() {
		return sit, nil
	}
	if sit.place, err = s.duty.Standing(); err != nil {
		sit.place = group.Standing{}
	}
	sit.halted = s.halted(r.target.App, r.target.Campaign, sit.activity.Version)
	segment, err := s.segment(rd, r.target.App, sit.campaign.SegmentId, sit.campaign.SegmentVersion)
	if err != nil {
		return nil, err
	}
	sit.segment = segment != nil
	all, err := together(rd, sit.activity)
	if err != nil {
		return nil, err
	}
	sit.done = all.Done
	if sit.part, err = loadPart(rd, sit.activity, s.store.Region()); err != nil {
		return nil, err
	}
	if sit.here, err = s.delivery.TallyHere(rd, r.it.ID); err != nil {
		return nil, err
	}
	sit.tally, err = s.delivery.TallyOf(rd, r.it.ID)
	return sit, err
}

// act does a step in one update. over means that the worker has nothing left to
// do. A step that no longer is the one to take does nothing.
func (r *runner) act(ctx context.Context, sit *situation, d decision) (over bool, err error) {
	if d.step == stepClaim {
		if !r.taken || r.walk == nil || sit.activity.Sweeping != r.swept {
			return r.begin(ctx, sit)
		}
		if err := r.gather(ctx, sit); err != nil {
			return false, err
		}
	}
	var did decision
	write := func(tx *store.Tx) error {
		r.closed = false
		if err := r.it.Hold(tx); err != nil {
			return err
		}
		now, err := r.look(tx)
		if err != nil {
			return err
		}
		if did = decide(tx.Now(), now); did.step != d.step {
			return nil
		}
		return r.do(tx, now, did)
	}
	update := func() error { return r.s.store.Update(ctx, write, r.touches()...) }
	if d.step == stepClaim {
		err = r.s.duty.Claim(ctx, sit.place.Epoch, update)
	} else {
		err = update()
	}
	if err != nil {
		return false, err
	}
	if r.closed {
		r.s.forget(r.it.ID)
	}
	// A Region that is alone keeps the marks: nobody else knows that the run is over.
	if r.closed && d.step == stepFinish && len(sit.place.Others) > 0 {
		if err := r.s.delivery.Forget(ctx, r.it.ID); err != nil {
			r.s.log.InfoContext(ctx, "marks of a run that is over are not removed", "activity_id", r.it.ID, "error", err)
		}
	}
	if r.closed && d.step == stepFail {
		r.s.logStopped(ctx, sit.activity, d.why)
	}
	return r.closed, nil
}

func (r *runner) touches() []store.Touch {
	return []store.Touch{
		queue.Touch(workRun, r.it.ID),
		{Kind: kindCampaign, Key: campaignKey(r.target.App, r.target.Campaign)},
		{Kind: kindActivity, Key: activityKey(r.target.App, r.target.Campaign, r.it.ID)},
		{Kind: kindPart, Key: activityKey(r.target.App, r.target.Campaign, r.it.ID) + "/" + r.s.store.Region()},
		{Kind: apps.Kind, Key: r.target.App},
	}
}

// do writes a step's effects.
func (r *runner) do(tx *store.Tx, sit *situation, d decision) error {
	c, a, now := sit.campaign, sit.activity, tx.Now()
	switch d.step {
	case stepDrop:
		r.closed = true
		return r.it.Complete(tx)
	case stepStart:
		return r.start(tx, c, a)
	case stepClaim:
		return r.claim(tx, sit)
	case stepSweep:
		r.walk = nil
		a.Sweeping, a.Walked, a.Superseded = true, time.Time{}, sit.tally.Superseded
		sit.part.Swept, sit.part.SweptDone, sit.part.SweptFor = 0, 0, a.Superseded
		if err := savePart(tx, a, r.s.store.Region(), sit.part); err != nil {
			return err
		}
		return saveActivity(tx, a)
	case stepFinish:
		a.end(stateCompleted, resultSuccess, "", now)
		c.setStatus(a.Treatment, pinpoint.CampaignStatusCompleted)
	case stepFail:
		a.end(stateCompleted, resultFail, d.why, now)
		c.setAll(pinpoint.CampaignStatusDeleted)
	}
	return r.close(tx, c, a)
}

// close writes an activity that is over, its campaign, and the end of the work.
func (r *runner) close(tx *store.Tx, c *Campaign, a *Activity) error {
	if err := saveActivity(tx, a); err != nil {
		return err
	}
	if err := save(tx, c); err != nil {
		return err
	}
	r.closed = true
	return r.it.Complete(tx)
}

// start writes the plan and what follows from it; a campaign that cannot run
// becomes invalid.
func (r *runner) start(tx *store.Tx, c *Campaign, a *Activity) error {
	t := c.treatment(a.Treatment)
	if t == nil {
		return fmt.Errorf("campaign %s has no treatment %s", c.Id, a.Treatment)
	}
	p, err := r.s.plan(tx, c, a, t)
	if err == nil {
		err = r.s.delivery.PutPlan(tx, p)
	}
	a.Start = tx.Now().UTC()
	if cannotRun(err) {
		a.end(stateCompleted, resultFail, err.Error(), tx.Now())
		c.setStatus(a.Treatment, pinpoint.CampaignStatusInvalid)
		return r.close(tx, c, a)
	}
	if err != nil {
		return err
	}
	a.State = stateRunning
	c.setStatus(a.Treatment, pinpoint.CampaignStatusExecuting)
	if err := saveActivity(tx, a); err != nil {
		return err
	}
	return save(tx, c)
}

// cannotRun tells an error of the campaign's own making from one that passes.
func cannotRun(err error) bool {
	switch aws.KindOf(err) {
	case aws.KindInvalid, aws.KindNotFound:
		return true
	}
	return errors.Is(err, errNoChannel)
}

func (c *Campaign) treatment(id string) *treatment {
	for _, t := range c.treatments() {
		if t.id == id {
			return &t
		}
	}
	return nil
}

// begin opens the walk, or opens it again: it writes down that this worker has
// the activity, lets the index come as far as that, and evaluates the segment.
// So whatever was acknowledged before the run began is in it, whichever node
// acknowledged it.
func (r *runner) begin(ctx context.Context, sit *situation) (over bool, err error) {
	var walk *segments.Snapshot
	write := func(change func(tx *store.Tx, now *situation) error) error {
		return r.s.store.Update(ctx, func(tx *store.Tx) error {
			if err := r.it.Hold(tx); err != nil {
				return err
			}
			now, err := r.look(tx)
			if err != nil || now.activity == nil || now.campaign == nil || now.activity.over() {
				return err
			}
			return change(tx, now)
		}, r.touches()...)
	}
	if !r.taken {
		before := 0
		if err := write(func(tx *store.Tx, now *situation) error {
			before = now.part.Takes
			now.part.Takes++
			return savePart(tx, now.activity, r.s.store.Region(), now.part)
		}); err != nil {
			return false, err
		}
		if err := r.remember(ctx, before); err != nil {
			return false, err
		}
		r.taken, r.before = true, before
	}
	if sit.activity.Sweeping && sit.place.Grouped {
		// Of what was claimed, some may have been superseded meanwhile.
		r.s.forget(r.it.ID)
		if err := r.remember(ctx, r.before); err != nil {
			return false, err
		}
	}
	if sit.activity.Sweeping {
		// What was written elsewhere before the run began may have come after the walk.
		if err := r.s.duty.Fresh(ctx); err != nil {
			return false, err
		}
	}
	if walk, err = r.s.members(ctx, sit.campaign); cannotRun(err) {
		if !sit.place.Leads {
			return false, aws.Unavailable("the segment cannot be evaluated here: %v", err)
		}
		why := err.Error()
		r.s.logStopped(ctx, sit.activity, why)
		return true, write(func(tx *store.Tx, now *situation) error {
			now.activity.end(stateCompleted, resultFail, why, tx.Now())
			now.campaign.setStatus(now.activity.Treatment, pinpoint.CampaignStatusInvalid)
			return r.close(tx, now.campaign, now.activity)
		})
	}
	if err != nil {
		return false, err
	}
	if err := write(func(tx *store.Tx, now *situation) error {
		if now.activity.Sweeping {
			return nil
		}
		now.part.Members = int64(walk.Len())
		return savePart(tx, now.activity, r.s.store.Region(), now.part)
	}); err != nil {
		return false, err
	}
	r.walk, r.swept = walk, sit.activity.Sweeping
	r.s.log.InfoContext(ctx, "campaign run walks its segment", "app_id", r.target.App, "campaign_id", r.target.Campaign,
		"activity_id", r.it.ID, "endpoints", walk.Len())
	return false, nil
}

// members evaluates the campaign's segment over an index that has everything
// committed before the call.
func (s *Service) members(ctx context.Context, c *Campaign) (*segments.Snapshot, error) {
	if err := s.index.Fresh(ctx); err != nil {
		return nil, err
	}
	r := s.store.Reader(ctx)
	segment, err := s.segment(r, c.ApplicationId, c.SegmentId, c.SegmentVersion)
	if err != nil {
		return nil, err
	}
	if segment == nil {
		return nil, aws.NotFound("there is no segment %s", c.SegmentId)
	}
	criteria, err := segments.CompileSegment(segment, sources{s, r, c.ApplicationId}, s.now())
	if err != nil {
		return nil, err
	}
	return s.index.Walk(ctx, c.ApplicationId, criteria)
}

// sources finds the segments that a segment builds on.
type sources struct {
	s   *Service
	r   store.Reader
	app string
}

func (x sources) Segment(id string, version int) (*pinpoint.SegmentResponse, error) {
	return x.s.segment(x.r, x.app, id, version)
}

// scanMax bounds the members that one claim looks at: of a small treatment most
// are others'.
const scanMax = 4096

// gather takes the next members of the activity's treatment from the walk.
func (r *runner) gather(ctx context.Context, sit *situation) error {
	c, a, p := sit.campaign, sit.activity, sit.part
	t := c.treatment(a.Treatment)
	if t == nil {
		return fmt.Errorf("campaign %s has no treatment %s", c.Id, a.Treatment)
	}
	b := &batch{walk: r.walk, from: p.After, todo: sit.todo(), seen: r.seen, mine: func(cohort int) bool {
		return cohort >= t.from && cohort < t.to || a.Treatment == "0" && cohort < c.holdout()
	}}
	if a.Sweeping {
		b.from, _ = p.swept(a)
	}
	b.wanted = b.todo
	b.collect(scanMax)
	r.next = b
	if !sit.place.Grouped {
		return nil
	}
	b.lost = r.s.delivery.LostUpTo(a.ID)
	if len(sit.place.Others) > 0 {
		// The others are here again, and have all that was claimed without them.
		return r.s.delivery.Unmark(ctx, a.ID)
	}
	return nil
}

// claim gives delivery the members that were gathered and moves the cursor behind
// them. Members of one hash, which may be one address, go into one block unless
// there are more than a block holds.
func (r *runner) claim(tx *store.Tx, sit *situation) error {
	a, p, b := sit.activity, sit.part, r.next
	from := p.After
	if a.Sweeping {
		from, _ = p.swept(a)
	}
	if b == nil || b.from != from || b.wanted&^sit.todo() != 0 {
		return nil // it was gathered for another situation
	}
	if a.Sweeping {
		if err := b.dropNewcomers(tx, a.Start); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		members []delivery.Member
		claim   func(tx *store.Tx, plan string, seq int64, members []delivery.Member) error
	}{{b.which(false), r.s.delivery.Claim}, {b.which(true), r.s.delivery.ClaimLost}} {
		for rest := c.members; len(rest) > 0; {
			n := min(len(rest), delivery.BlockMax)
			p.Seq++
			if err := c.claim(tx, a.ID, p.Seq, rest[:n]); err != nil {
				return err
			}
			if rest = rest[n:]; len(rest) > 0 {
				rest[0].Twin = true // more of one hash than a block holds
			}
		}
	}
	claimed, known := b.members, r.seen
	tx.AfterCommit(func() { known.add(claimed) })
	p.Claimed += int64(len(b.members))
	if a.Sweeping {
		p.Produced += int64(len(b.members))
		_, done := p.swept(a)
		p.Swept, p.SweptDone, p.SweptFor = b.after, done|b.ended, a.Superseded
		if p.SweptDone == group.AllShards {
			a.Walked = tx.Now().UTC()
			if err := saveActivity(tx, a); err != nil {
				return err
			}
		}
	} else {
		p.Produced += int64(b.produced)
		p.Others += int64(b.others)
		p.After, p.Done = b.after, p.Done|b.ended
	}
	return savePart(tx, a, r.s.store.Region(), p)
}

// dropNewcomers leaves out who came into being after the run began: a sweep is
// for those who were there and moved.
func (b *batch) dropNewcomers(r store.Reader, start time.Time) error {
	limit := aws.Timestamp(start)
	kept := b.members[:0]
	for _, m := range b.members {
		e, err := endpoints.LoadKey(r, string(m.Key))
		if err != nil {
			return err
		}
		if e != nil && e.CreationDate <= limit {
			kept = append(kept, m)
		}
	}
	b.members = kept
	return nil
}

// batch gathers the members of one claim.
type batch struct {
	walk     *segments.Snapshot
	from     uint64       // everything in its shard up to here was seen
	wanted   group.Shards // to be walked when the gathering began
	todo     group.Shards // to be walked still
	mine     func(cohort int) bool
	seen     *seen
	members  []delivery.Member
	after    uint64         // everything in its shard up to here is seen now
	ended    group.Shards   // shards of todo that were walked to their ends
	lost     map[int]uint64 // by shard: up to here another Region may have sent
	produced int            // members that were not seen before
	others   int            // of them, another treatment's
	looked   int            // members
}

// collect takes members of the shards to be walked until a block is full, at most
// look of them were looked at, or there are none. It holds more than a block's
// members only when all of them have one hash.
func (b *batch) collect(look int) {
	b.after = b.from
	for b.todo != 0 {
		shard := segments.Shard(b.after)
		if !b.todo.Has(shard) {
			shard = bits.TrailingZeros64(uint64(b.todo))
			b.after = segments.Before(shard)
		}
		next := b.walk.Next(shard, b.after, delivery.BlockMax)
		if len(next) == 0 {
			b.ended |= 1 << shard
			b.todo &^= 1 << shard
			continue
		}
		for len(next) > 0 {
			n := sameHash(next)
			var mine []delivery.Member
			others := 0
			for _, m := range next[:n] {
				switch {
				case !b.mine(m.Cohort):
					others++
				case !b.seen.has(m.Key):
					mine = append(mine, delivery.Member{Key: []byte(m.Key), Hash: m.Hash, Twin: b.seen.hasHash(m.Hash)})
				}
			}
			if len(b.members) > 0 && len(b.members)+len(mine) > delivery.BlockMax {
				return
			}
			b.members = append(b.members, mine...)
			b.others += others
			b.produced += len(mine) + others
			b.looked += n
			b.after = next[0].Hash
			next = next[n:]
			if len(b.members) >= delivery.BlockMax || b.looked >= look {
				return
			}
		}
	}
}

// which returns the members to whom another Region may have sent, or the others.
func (b *batch) which(lost bool) []delivery.Member {
	if len(b.lost) == 0 && !lost {
		return b.members
	}
	var out []delivery.Member
	for _, m := range b.members {
		if (m.Hash <= b.lost[segments.Shard(m.Hash)]) == lost {
			out = append(out, m)
		}
	}
	return out
}

// sameHash is how many of the first members share the first one's hash.
func sameHash(m []segments.Member) int {
	n := 1
	for n < len(m) && m[n].Hash == m[0].Hash {
		n++
	}
	return n
}
