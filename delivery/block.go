package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// job is a block in work on this node.
type job struct {
	s     *Service
	it    *queue.Item
	key   string
	block *Block
	epoch uint64 // at which this Region holds the block

	plan  *compiled
	pace  pacer
	stand []standing
}

// block works one block: it finds where it stands, deals with what a crash left
// open, and attempts what is due until every recipient has a fate or waits.
func (s *Service) block(ctx context.Context, it *queue.Item) error {
	r := s.store.Reader(ctx)
	b, err := store.Load[Block](r, kindClaim, it.ID)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("no claim %s", it.ID)
	}
	h, err := holderOf(r, it.ID, b)
	if err != nil {
		return err
	}
	if h.Region != s.store.Region() || !s.duty.Holds(h.Region, h.Epoch) {
		return s.leave(ctx, it, b)
	}
	plan, err := s.plan(r, b.Plan)
	if err != nil {
		return err
	}
	intents, entries, err := readLedger(r, it.ID)
	if err != nil {
		return err
	}
	if b.Lost {
		intents = append(intents, b.lostIntent())
	}
	j := &job{s: s, it: it, key: it.ID, block: b, epoch: h.Epoch, plan: plan, pace: s.paceOf(plan.plan)}
	if j.stand, err = fold(len(b.Members), intents, entries); err != nil {
		return err
	}
	if !s.duty.Valid(j.epoch) {
		// What this node knows may be old: what it left open is perhaps another's.
		return j.rest(ctx, s.now().Add(dutyPause))
	}
	if err := j.declare(ctx); err != nil {
		return fmt.Errorf("list ambiguous sends: %w", err)
	}
	for {
		chunk, wake, left := j.due()
		if left == 0 {
			return j.finish(ctx)
		}
		if !s.duty.Valid(j.epoch) || s.ordered(plan.plan) {
			return j.rest(ctx, s.now().Add(dutyPause))
		}
		if len(chunk) > 0 {
			// A turn that is far ahead is waited for without the worker.
			ahead := j.pace.turn(s.now(), len(chunk), patience)
			if ahead <= patience {
				if err := pause(ctx, ahead); err != nil {
					return err
				}
				if err := j.attempt(ctx, chunk); err != nil {
					return err
				}
				continue
			}
			wake = s.now().Add(ahead)
		}
		if d := wake.Sub(s.now()); d <= patience {
			if err := pause(ctx, d); err != nil {
				return err
			}
			continue
		}
		return j.rest(ctx, wake)
	}
}

// leave ends the work of a block that another Region has taken over. While none
// has, the work waits: a node that has just started does not know its place yet, and
// this Region may be the one that takes the block over, in another stay in the set.
func (s *Service) leave(ctx context.Context, it *queue.Item, b *Block) error {
	return s.store.Update(ctx, func(tx *store.Tx) error {
		h, err := holderOf(tx, it.ID, b)
		if err != nil {
			return err
		}
		if h.Region == s.store.Region() {
			return it.Again(tx, tx.Now().Add(dutyPause), nil)
		}
		return it.Complete(tx)
	}, it.Touch()...)
}

// rest puts the block's work off.
func (j *job) rest(ctx context.Context, until time.Time) error {
	return j.s.store.Update(ctx, func(tx *store.Tx) error { return j.it.Again(tx, until, nil) }, j.it.Touch()...)
}

// dutyPause is how long a block rests while its Region may not send, or while it
// was ordered to stop.
const dutyPause = time.Second

// patience is how long a worker waits for a turn or a retry before it gives its
// place to another block.
const patience = 500 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// due picks the members whose turn it is: at most a chunk, of one channel's
// pace. wake is when the next of the others is due.
func (j *job) due() (chunk []int, wake time.Time, left int) {
	now := j.s.now().UnixMilli()
	limit := j.pace.chunk(j.s.cfg.ChunkMax)
	if j.plan.plan.SMS != nil {
		for _, p := range j.s.paces {
			limit = min(limit, p.chunk(limit))
		}
	}
	first := int64(0)
	for i := range j.stand {
		st := &j.stand[i]
		if st.settled() {
			continue
		}
		left++
		if st.retryAt > now {
			if first == 0 || st.retryAt < first {
				first = st.retryAt
			}
			continue
		}
		if len(chunk) < limit {
			chunk = append(chunk, i)
		}
	}
	return chunk, time.UnixMilli(first), left
}

// finish ends a block's work.
func (j *job) finish(ctx context.Context) error {
	return j.s.store.Update(ctx, j.it.Complete, j.it.Touch()...)
}

// declare lists the attempts that an earlier holder of the block left open. It
// looks again in the update that lists them: the earlier holder may just have
// written what it learnt.
func (j *job) declare(ctx context.Context) error {
	if !slices.ContainsFunc(j.stand, func(st standing) bool { return st.open > 0 }) {
		return nil
	}
	listed := 0
	err := j.s.store.Update(ctx, func(tx *store.Tx) error {
		if err := j.it.Hold(tx); err != nil {
			return err
		}
		intents, entries, err := readLedger(tx, j.key)
		if err != nil {
			return err
		}
		if j.block.Lost {
			intents = append(intents, j.block.lostIntent())
		}
		stand, err := fold(len(j.block.Members), intents, entries)
		if err != nil {
			return err
		}
		var found []Entry
		for i := range stand {
			if stand[i].open == 0 {
				continue
			}
			c, err := j.candidate(tx, i)
			if err != nil {
				return err
			}
			e, err := j.ambiguous(tx, i, stand[i].openAttempt(), time.UnixMilli(stand[i].openAt), c)
			if err != nil {
				return err
			}
			found = append(found, e)
		}
		listed = len(found)
		return j.write(tx, entries, found)
	}, j.it.Touch()...)
	if err != nil {
		return err
	}
	if listed > 0 {
		j.s.log.WarnContext(ctx, "attempts without outcome listed", "plan", j.block.Plan, "attempts", listed)
	}
	return nil
}

// ambiguous decides about an attempt whose outcome is not known, lists it and
// returns its entry.
func (j *job) ambiguous(tx *store.Tx, i int, of madeBy, intentAt time.Time, c *candidate) (Entry, error) {
	policy, err := j.s.policyFor(tx, j.plan.plan, c.channel)
	if err != nil {
		return Entry{}, err
	}
	if of.attempt-j.stand[i].idle >= j.s.cfg.AttemptsMax {
		policy = Leave
	}
	return j.list(tx, i, of, intentAt, c, policy)
}

// leave is ambiguous for what must not be sent again whatever the policy says.
func (j *job) leave(tx *store.Tx, i int, of madeBy, intentAt time.Time, c *candidate) (Entry, error) {
	return j.list(tx, i, of, intentAt, c, Leave)
}

// list writes that an attempt is ambiguous, and what was decided about it.
func (j *job) list(tx *store.Tx, i int, of madeBy, intentAt time.Time, c *candidate, policy Policy) (Entry, error) {
	p := j.plan.plan
	m := &j.block.Members[i]
	now := tx.Now()
	e := Entry{Member: i, Attempt: of.attempt, Region: of.region, At: now.UnixMilli(), Fate: FateAmbiguous, Reason: string(policy)}
	a := &Ambiguous{
		MessageID: j.s.messageID(p.ID, m), App: p.App, Plan: p.ID, Block: j.key, Member: i, Channel: c.channel,
		Address: c.address, IntentAt: intentAt.UTC(), Region: j.block.Region, Decision: policy,
	}
	if c.endpoint != nil {
		a.EndpointID = c.endpoint.ID
	}
	if p.Campaign != nil {
		a.Campaign, a.Activity = p.Campaign.ID, p.Campaign.Activity
	} else {
		a.Call = p.ID
	}
	if err := store.Save(tx, kindAmbiguous, ambiguousKey(p.App, p.ID, a.MessageID, of.attempt, of.region), a); err != nil {
		return Entry{}, err
	}
	if policy == Resend {
		e.RetryAt = now.UnixMilli()
		return e, nil
	}
	return e, tellCampaignSend(tx, j.telling(i, c, now), "UNKNOWN", "", "the outcome of the send is not known")
}

func (j *job) telling(i int, c *candidate, at time.Time) *telling {
	m := &j.block.Members[i]
	t := &telling{
		plan: j.plan.plan, messageID: j.s.messageID(j.block.Plan, m), channel: c.channel, address: c.address,
		endpoint: c.endpoint, member: m, override: j.override(m), at: at,
	}
	if c.channel == ChannelEmail && j.plan.from != nil {
		t.from = j.plan.from.Address
	}
	return t
}

func (j *job) override(m *Member) *Override {
	if m.Override < 1 || m.Override > len(j.plan.plan.Overrides) {
		return nil
	}
	return &j.plan.plan.Overrides[m.Override-1]
}

// write adds entries to the block's ledger, and to the counts what they change.
// What the ledger holds already changes nothing, so it does not matter who writes,
// how often, or how late. The job learns the new standing when the update is
// committed.
//
// known is what the ledger holds, read in this update.
func (j *job) write(tx *store.Tx, known, news []Entry) error {
	if len(news) == 0 {
		return nil
	}
	all := append(slices.Clip(known), news...)
	after, err := fold(len(j.block.Members), nil, all)
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		for i := range news {
			m := news[i].Member
			j.stand[m] = after[m]
		}
	})
	if err := putEntries(tx, j.s.rowKey(tx, j.key), news); err != nil {
		return err
	}
	return j.s.count(tx, j.key, j.block, all)
}

// candidate reads one recipient as it is now.
func (j *job) candidate(r store.Reader, i int) (*candidate, error) {
	m := &j.block.Members[i]
	if m.Key == nil {
		return &candidate{raw: true, channel: m.Channel, address: m.Address}, nil
	}
	body, err := r.Get(endpoints.KindEndpoint, string(m.Key))
	if err != nil || body == nil {
		return &candidate{}, err
	}
	e, err := endpoints.Read(j.plan.plan.App, body)
	if err != nil {
		// One record that cannot be read must not hold up the others of its block.
		j.s.log.Error("endpoint cannot be read", "app_id", j.plan.plan.App, "error", err)
		return &candidate{broken: true}, nil
	}
	if e == nil {
		return &candidate{}, nil
	}
	return &candidate{endpoint: e, channel: e.ChannelType, address: e.Address}, nil
}

func (j *job) user(r interface {
	store.Reader
	endpoints.Blinder
}, e *endpoints.Endpoint,
) (*endpoints.User, error) {
	if e == nil || e.UserID == "" {
		return nil, nil
	}
	body, err := r.Get(endpoints.KindUser, endpoints.UserKey(r, e.App, e.UserID))
	if err != nil || body == nil {
		return nil, err
	}
	return endpoints.ReadUser(e.App, body)
}

// ready is a recipient that passed the last check and whose intent is durable.
type ready struct {
	i       int
	attempt int
	c       *candidate
	u       *endpoints.User
	message *courier.Message
	courier courier.Courier
	breaker *breaker
	pace    pacer
	outcome courier.Outcome
	failed  *unrenderable
	held    string // why it did not pass the check after the intents
	from    string
	subject string
	route   string // of a text
}

// attempt takes a chunk over the line: intents, wire, entries.
func (j *job) attempt(ctx context.Context, chunk []int) error {
	if err := j.s.window.acquire(ctx, len(chunk)); err != nil {
		return err
	}
	going, err := j.intend(ctx, chunk)
	if err == nil && len(going) > 0 {
		going, err = j.clear(ctx, going)
	}
	if err != nil {
		j.s.window.release(len(chunk))
		return err
	}
	j.s.window.release(len(chunk) - len(going))
	return j.send(ctx, going)
}

// clear does what lies between the intents and the wire, and returns who may go. Whom
// it fails for, and who does not pass the check any more, is written down: nothing of
// them is on the wire, so they are not ambiguous.
func (j *job) clear(ctx context.Context, going []*ready) ([]*ready, error) {
	var fail []*ready
	pass, err := going, j.mark(ctx)
	if err == nil {
		pass, fail, err = j.again(ctx, going)
	}
	if err != nil {
		return nil, j.putOff(ctx, going, err)
	}
	if len(fail) == 0 {
		return pass, nil
	}
	if err := j.settle(ctx, fail); err != nil {
		return nil, errors.Join(err, j.putOff(ctx, pass, err))
	}
	return pass, nil
}

// provider is the breaker of whoever would carry a recipient's message; nil
// when nobody would.
func (j *job) provider(c *candidate) *breaker {
	switch {
	case c.channel == ChannelEmail:
		return j.s.breakers["mail"]
	case c.channel == ChannelSMS && j.plan.plan.SMS != nil:
		if n, ok := j.s.origin(j.plan.plan.SMS, c.address); ok {
			return j.s.breakers[n.Route]
		}
	}
	return nil
}

// intend makes the last check in the commit that writes the intents, and
// returns who passed.
func (j *job) intend(ctx context.Context, chunk []int) ([]*ready, error) {
	var going []*ready
	var later map[int]time.Time // whose provider cannot be reached
	stopped, err := j.stopped(ctx)
	if err != nil {
		return nil, err
	}
	touch := j.it.Touch()
	for _, i := range chunk {
		if key := j.block.Members[i].Key; key != nil {
			touch = append(touch, store.Touch{Kind: endpoints.KindEndpoint, Key: string(key)})
		}
	}
	committed := false
	write := func(tx *store.Tx) error {
		going, later = nil, map[int]time.Time{}
		var held []Entry
		if err := j.it.Hold(tx); err != nil {
			return err
		}
		now := tx.Now()
		stands, err := j.s.stands(tx, j.plan.plan)
		if err != nil {
			return err
		}
		row := &intentRow{At: now.UnixMilli(), Region: j.s.store.Region(), Epoch: j.epoch}
		for _, i := range chunk {
			c, err := j.candidate(tx, i)
			if err != nil {
				return err
			}
			if c.repeated, err = j.repeated(tx, i, c); err != nil {
				return err
			}
			reason := guard(now, j.plan.plan, c)
			if stopped {
				reason = ReasonStopped
			}
			if !stands {
				reason = ReasonSuperseded
			}
			if b := j.provider(c); reason == "" && b != nil {
				if ok, again := b.allow(); !ok {
					later[i] = again
					continue
				}
			}
			if reason == "" && j.stand[i].attempts == 0 {
				if reason, err = j.admit(tx, now, c); err != nil {
					return err
				}
			}
			if reason != "" {
				e := Entry{Member: i, Attempt: j.stand[i].attempts, At: now.UnixMilli(), Fate: FateHeld, Reason: reason}
				held = append(held, e)
				if err := tellHeld(tx, j.telling(i, c, now), reason); err != nil {
					return err
				}
				continue
			}
			u, err := j.user(tx, c.endpoint)
			if err != nil {
				return err
			}
			g := &ready{i: i, attempt: j.stand[i].attempts + 1, c: c, u: u}
			going = append(going, g)
			row.Members, row.Attempts = append(row.Members, i), append(row.Attempts, g.attempt)
		}
		if len(held) > 0 {
			known, err := readEntries(tx, j.key)
			if err != nil {
				return err
			}
			if err := j.write(tx, known, held); err != nil {
				return err
			}
		}
		tx.AfterCommit(func() { committed = true })
		if len(going) == 0 {
			return nil
		}
		return putIntent(tx, j.s.rowKey(tx, j.key), row)
	}
	err = j.s.duty.Claim(ctx, j.epoch, func() error { return j.s.store.Update(ctx, write, touch...) })
	if err != nil && !committed {
		return nil, err
	}
	for i, again := range later {
		j.stand[i].retryAt = again.UnixMilli()
	}
	if err != nil && len(going) > 0 {
		return nil, j.putOff(ctx, going, err)
	}
	return going, err
}

// putOff writes that nothing of the intents went on the wire: the other Regions
// may not know of them.
func (j *job) putOff(ctx context.Context, going []*ready, cause error) error {
	j.s.log.InfoContext(ctx, "attempts put off", "plan", j.block.Plan, "attempts", len(going), "error", cause)
	for _, g := range going {
		g.outcome = courier.Outcome{Status: courier.Deferred, Code: codeClaim, Detail: "the attempt could not be claimed"}
	}
	return j.settle(ctx, going)
}

// stopped reports whether the plan's run was stopped. It looks before the update
// that acts on it: a row that every block of a run would lock is no part of one.
func (j *job) stopped(ctx context.Context) (bool, error) {
	if j.plan.plan.Campaign == nil {
		return false, nil
	}
	return j.s.stopped(j.s.store.Reader(ctx), j.plan.plan)
}

// again makes the last check once more, when other Regions had a say in the
// intents: what they had acknowledged by then, an opt-out above all, is here now. The
// run may have been stopped in any case. Who fails it says in held why.
func (j *job) again(ctx context.Context, going []*ready) (pass, fail []*ready, err error) {
	hold := func(reason string) (pass, fail []*ready, err error) {
		for _, g := range going {
			g.held = reason
		}
		return nil, going, nil
	}
	// It may have been stopped while the others were waited for, even by this Region
	// after they were given up.
	switch stopped, err := j.stopped(ctx); {
	case err != nil:
		return nil, nil, err
	case stopped:
		return hold(ReasonStopped)
	}
	st, err := j.s.duty.Standing()
	if err == nil && !st.Grouped {
		return going, nil, nil
	}
	r := j.s.store.Reader(ctx)
	switch ok, err := j.s.stands(r, j.plan.plan); {
	case err != nil:
		return nil, nil, err
	case !ok:
		return hold(ReasonSuperseded)
	}
	for _, g := range going {
		c, err := j.candidate(r, g.i)
		if err != nil {
			return nil, nil, err
		}
		c.repeated = g.c.repeated
		if reason := guard(j.s.now(), j.plan.plan, c); reason != "" {
			g.held = reason
			fail = append(fail, g)
			continue
		}
		g.c = c
		pass = append(pass, g)
	}
	return pass, fail, nil
}

// heldStatus is the campaign_send_status of a reason; reasons without one are
// metrics only. Source: engagement 2.2 (opt-out makes no event), 7.7.
var heldStatus = map[string]string{
	ReasonHoldout: "HOLDOUT", ReasonDuplicate: "DUPLICATE_ADDRESS", ReasonQuietTime: "QUIET_TIME",
	ReasonDailyCap: "DAILY_CAP", ReasonCampaignCap: "CAMPAIGN_CAP", ReasonExpired: "EXPIRED",
	ReasonUnsupported: "UNSUPPORTED_CHANNEL",
}

func tellHeld(tx *store.Tx, t *telling, reason string) error {
	if status := heldStatus[reason]; status != "" {
		return tellCampaignSend(tx, t, status, "", "")
	}
	return nil
}

// repeated says whether the address was sent to already. Runs claim in the order
// of the address's hash, so members of one address lie side by side; a run
// marks those whose twin is in an earlier block.
func (j *job) repeated(r store.Reader, i int, c *candidate) (bool, error) {
	m := &j.block.Members[i]
	// A direct call tells its caller of repeats itself.
	if c.address == "" || j.plan.plan.Campaign == nil {
		return false, nil
	}
	if m.Twin {
		return true, nil
	}
	for k := i - 1; k >= 0 && j.block.Members[k].Hash == m.Hash; k-- {
		switch st := &j.stand[k]; {
		case st.fate == FateHeld || st.fate == FateFailed:
			continue // nothing went to the address
		case st.attempts > 0:
			return true, nil // whatever has become of that endpoint since
		}
		o, err := j.candidate(r, k)
		if err != nil {
			return false, err
		}
		if o.channel == c.channel && o.address == c.address && guard(j.s.now(), j.plan.plan, o) == "" {
			return true, nil
		}
	}
	return false, nil
}

// admit applies and counts the caps of a campaign's plan.
func (j *job) admit(tx *store.Tx, now time.Time, c *candidate) (string, error) {
	p := j.plan.plan
	if p.Campaign == nil || p.Daily == 0 && p.Total == 0 {
		return "", nil
	}
	key := p.App + "/" + tx.Blind("cap", p.App, c.channel, c.address)
	row, err := store.Load[capRow](tx, kindCap, key)
	if err != nil {
		return "", err
	}
	if row == nil {
		row = &capRow{}
	}
	if reason := row.admit(now, p); reason != "" {
		return reason, nil
	}
	return "", store.Save(tx, kindCap, key, row)
}

// settleEvery bounds how many outcomes share an entry's commit.
const settleEvery = 64

// send puts messages on the wire and writes what became of them as it becomes
// known. Once intents are written the outcomes are, whatever happens to ctx.
func (j *job) send(ctx context.Context, going []*ready) error {
	if len(going) == 0 {
		return nil
	}
	wire, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.s.cfg.SendTimeout)
	defer cancel()
	heard := make(chan *ready, len(going))
	var sending sync.WaitGroup
	for _, g := range going {
		sending.Go(func() {
			j.one(wire, g)
			heard <- g
		})
	}
	var firstErr error
	for left := len(going); left > 0; {
		batch := []*ready{<-heard}
	more:
		for len(batch) < settleEvery && len(batch) < left {
			select {
			case g := <-heard:
				batch = append(batch, g)
			default:
				// Nothing else is known yet. When most are on their way a moment's
				// patience saves commits; the last ones are not kept waiting.
				if len(batch) >= left/2 {
					break more
				}
				batch = append(batch, <-heard)
			}
		}
		left -= len(batch)
		if err := j.settle(ctx, batch); err != nil && firstErr == nil {
			firstErr = err
		}
		j.s.window.settled(len(batch))
	}
	sending.Wait()
	return firstErr
}

// one renders and sends one message. A panic on the way there is a failure of
// that message; one on the wire leaves its outcome unknown.
func (j *job) one(ctx context.Context, g *ready) {
	wire := false
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		j.s.log.ErrorContext(ctx, "sending panicked", "plan", j.block.Plan, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if wire {
			g.outcome = courier.Outcome{Status: courier.Unknown, Code: "panic"}
		} else {
			g.failed = &unrenderable{"the message could not be made"}
		}
	}()
	m := &j.block.Members[g.i]
	d := &draft{
		messageID: j.s.messageID(j.block.Plan, m), channel: g.c.channel, address: g.c.address,
		override: j.override(m), at: j.block.At,
	}
	if g.c.endpoint != nil {
		d.vars = recipientVars{g.c.endpoint, g.u}
	}
	if g.failed = j.prepare(d, g); g.failed != nil {
		return
	}
	if err := g.pace.wait(ctx, max(1, g.outcome.Parts)); err != nil {
		g.outcome = courier.Outcome{Status: courier.Deferred, Code: codePace, Detail: "no turn before the attempt's time ran out"}
		return
	}
	if !j.it.Valid() || !j.s.duty.Valid(j.epoch) {
		// The lease ran out while this waited: another may hold the block by now.
		g.outcome = courier.Outcome{Status: courier.Deferred, Code: codeLease, Detail: "the lease ran out before the wire"}
		return
	}
	if j.s.ordered(j.plan.plan) {
		g.outcome = courier.Outcome{Status: courier.Deferred, Code: "stop", Detail: "it was ordered to stop before the wire"}
		return
	}
	wire = true
	g.outcome = g.courier.Send(ctx, g.message)
	if g.breaker != nil {
		g.breaker.learn(g.outcome)
	}
}

// prepare renders the message and chooses its courier.
func (j *job) prepare(d *draft, g *ready) *unrenderable {
	msg, err := j.plan.render(d)
	if err != nil {
		if u, ok := errors.AsType[*unrenderable](err); ok {
			return u
		}
		return &unrenderable{err.Error()}
	}
	g.message, g.from = msg, msg.From
	if msg.Mail != nil {
		if !j.s.MaySend(msg.From) {
			return &unrenderable{"FromAddress: mail may not come from it"}
		}
		g.courier, g.breaker = j.s.routes.Mail, j.s.breakers["mail"]
		if g.courier == nil {
			return &unrenderable{"no mail relay is configured"}
		}
		return nil
	}
	n, ok := j.s.origin(j.plan.plan.SMS, msg.To)
	if !ok {
		return &unrenderable{"no origination identity fits"}
	}
	seg, err := courier.Segment(msg.Text.Body)
	if err != nil {
		return &unrenderable{"Body: " + err.Error()}
	}
	msg.From, g.from = n.Number, n.Number
	g.courier, g.breaker, g.pace = j.s.routes.Text[n.Route], j.s.breakers[n.Route], j.s.paces[n.Number]
	g.outcome.Parts, g.route = len(seg.Parts), n.Route
	if g.courier == nil {
		return &unrenderable{"route " + n.Route + " is not configured"}
	}
	return nil
}
