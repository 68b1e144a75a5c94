package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// settleGrace is how often an outcome's commit is tried once the node is told to
// stop; until then it is tried for as long as it takes.
const settleGrace = 10

// settle writes entries for attempts whose outcome is known, with their facts,
// counts and references, in one commit. What happened on the wire must be
// written down, so a full disk or a database that is away is waited for.
func (j *job) settle(ctx context.Context, batch []*ready) error {
	write := context.WithoutCancel(ctx)
	holder := true
	for try, grace := 1, 0; ; try++ {
		err := j.s.store.Update(write, func(tx *store.Tx) error {
			if holder {
				if err := j.it.Hold(tx); err != nil {
					return err
				}
			}
			return j.settleIn(tx, batch)
		}, j.references(batch)...)
		switch {
		case err == nil && holder:
			return nil
		case err == nil:
			return queue.ErrLost // the block is another's; what we learnt is written
		case errors.Is(err, queue.ErrLost):
			holder = false
			continue
		}
		if ctx.Err() != nil {
			if grace++; grace > settleGrace {
				return err
			}
		}
		j.s.log.WarnContext(write, "outcomes not written yet", "attempts", len(batch), "try", try, "error", err)
		t := time.NewTimer(min(time.Duration(try)*200*time.Millisecond, 2*time.Second))
		<-t.C
	}
}

// settleIn writes what is not in the ledger yet.
func (j *job) settleIn(tx *store.Tx, batch []*ready) error {
	known, err := readEntries(tx, j.key)
	if err != nil {
		return err
	}
	var entries []Entry
	for _, g := range batch {
		was := -1 // the last entry on this attempt
		for k := range known {
			if known[k].of() == (attemptOf{g.i, g.attempt, j.s.store.Region()}) {
				was = k
			}
		}
		listed := was >= 0 && known[was].Fate == FateAmbiguous
		if was >= 0 && !listed || listed && g.failed == nil && g.outcome.Status == courier.Unknown {
			continue // written already: the answer to that commit was lost, or another listed it
		}
		e, err := j.entry(tx, g)
		if err != nil {
			return err
		}
		if listed {
			if e, err = j.resolve(tx, g, e, Policy(known[was].Reason)); err != nil {
				return err
			}
		}
		entries = append(entries, e)
	}
	return j.write(tx, known, entries)
}

// resolve joins an outcome with the listing of the same attempt, which another
// holder of the block made meanwhile: the list shrinks. What was left and did
// not leave is not tried again: that was decided.
func (j *job) resolve(tx *store.Tx, g *ready, e Entry, decided Policy) (Entry, error) {
	if e.Fate == FateDeferred && decided == Leave {
		e.Fate, e.Reason, e.RetryAt = FateFailed, ReasonExhausted, 0
	}
	return e, j.s.unlist(tx, j.plan.plan, &j.block.Members[g.i], e)
}

// references names the rows of the batch's provider ids, which receipts write
// too.
func (j *job) references(batch []*ready) []store.Touch {
	out := j.it.Touch()
	for _, g := range batch {
		if g.route == "" {
			continue
		}
		for _, id := range g.outcome.ProviderIDs {
			key := referenceKey(g.route, id)
			out = append(out, store.Touch{Kind: kindReference, Key: key}, store.Touch{Kind: kindOrphan, Key: key})
		}
	}
	return out
}

// entry decides what an outcome means and tells it.
func (j *job) entry(tx *store.Tx, g *ready) (Entry, error) {
	now := tx.Now()
	o := g.outcome
	if g.held != "" {
		return Entry{Member: g.i, Attempt: g.attempt, Region: j.s.store.Region(), At: now.UnixMilli(), Fate: FateHeld, Reason: g.held},
			tellHeld(tx, j.telling(g.i, g.c, now), g.held)
	}
	e := Entry{
		Member: g.i, Attempt: g.attempt, Region: j.s.store.Region(), At: now.UnixMilli(), Code: o.Code, Detail: boundedText(o.Detail, 512),
		ProviderIDs: o.ProviderIDs, Parts: o.Parts,
	}
	if o.Enhanced != "" {
		e.Detail = boundedText(o.Enhanced+" "+o.Detail, 512)
	}
	t := j.telling(g.i, g.c, now)
	t.from, t.subject = g.from, g.subject
	if g.failed != nil {
		e.Fate, e.Reason, e.Detail = FateFailed, ReasonRendering, boundedText(g.failed.why, 512)
		return e, j.tellUnrenderable(tx, t, &e)
	}
	switch o.Status {
	case courier.Delivered, courier.Accepted:
		e.Fate = FateSent
		return e, j.tellSent(tx, t, &e, g.route)
	case courier.Refused:
		e.Fate, e.Reason = FateFailed, ReasonRefused
		return e, j.tellFailed(tx, t, &e, "FAILURE_PERMANENT", "Permanent")
	case courier.Deferred:
		if at, ok := j.retry(now, g); ok {
			e.Fate, e.RetryAt = FateDeferred, at.UnixMilli()
			return e, nil
		}
		e.Fate, e.Reason = FateFailed, ReasonExhausted
		return e, j.tellFailed(tx, t, &e, "TRANSIENT_FAILURE", "Transient")
	default:
		a, err := j.ambiguous(tx, g.i, madeBy{g.attempt, j.s.store.Region()}, now, g.c)
		a.Code, a.Detail = e.Code, e.Detail
		if Policy(a.Reason) == Resend {
			a.RetryAt = now.Add(j.s.jitter(j.s.cfg.RetryDelay)).UnixMilli()
		}
		return a, err
	}
}

// retry says when a deferred message is tried again, if it is. What never left
// because of the connection, the pace or the lease comes back soon; the
// provider's own no waits longer each time, with full jitter.
func (j *job) retry(now time.Time, g *ready) (time.Time, bool) {
	o, tries := g.outcome, g.attempt-j.stand[g.i].idle
	if now.Sub(j.block.At) >= j.s.cfg.RetryFor {
		return time.Time{}, false
	}
	switch {
	case o.Code == codeLease:
		return now, true
	case o.Code == codeClaim:
		return now.Add(dutyPause), true
	case o.Code == codePace || unreachable(o) || o.Throttled:
		return now.Add(o.RetryAfter + time.Second + j.s.jitter(2*time.Second)), true
	case tries >= j.s.cfg.AttemptsMax:
		return time.Time{}, false
	}
	limit := min(j.s.cfg.RetryDelay<<min(max(tries-1, 0), 20), time.Hour)
	return now.Add(o.RetryAfter + limit/2 + j.s.jitter(limit/2)), true
}

func (j *job) tellSent(tx *store.Tx, t *telling, e *Entry, route string) error {
	if err := tellCampaignSend(tx, t, "SUCCESS", e.Code, ""); err != nil {
		return err
	}
	if t.channel == ChannelEmail {
		return tellEmail(tx, t, "send", "received", "send", nil)
	}
	if err := tellSMS(tx, t, "BUFFERED", "PENDING", countryOf(t.address), e.Parts); err != nil {
		return err
	}
	return j.s.refer(tx, j, t, e, route)
}

func (j *job) tellFailed(tx *store.Tx, t *telling, e *Entry, status, bounce string) error {
	if err := tellCampaignSend(tx, t, status, e.Code, e.Detail); err != nil {
		return err
	}
	if t.channel == ChannelEmail {
		if err := tellEmail(tx, t, "send", "received", "send", nil); err != nil {
			return err
		}
		event := "hardbounce"
		if bounce == "Transient" {
			event = "softbounce"
		}
		return tellEmail(tx, t, event, event, "bounce", t.bounce(bounce, "General", e))
	}
	return tellSMS(tx, t, "FAILURE", smsStatus(e), countryOf(t.address), e.Parts)
}

func (j *job) tellUnrenderable(tx *store.Tx, t *telling, e *Entry) error {
	if err := tellCampaignSend(tx, t, "FAILURE", "", e.Detail); err != nil {
		return err
	}
	if t.channel == ChannelEmail {
		name := ""
		if t.plan.Email != nil {
			name = t.plan.Email.Template
		}
		return tellEmail(tx, t, "rendering_failure", "rendering_failure", "rendering_failure",
			map[string]any{"error_message": e.Detail, "template_name": name})
	}
	return tellSMS(tx, t, "FAILURE", "INVALID_MESSAGE", countryOf(t.address), e.Parts)
}

// smsStatus is the record_status of a refused or given-up text. Source:
// channels 2.5, command_status.
func smsStatus(e *Entry) string {
	switch e.Code {
	case "0x0000000b":
		return "INVALID"
	case "0x00000001":
		return "INVALID_MESSAGE"
	}
	if e.Reason == ReasonExhausted {
		return "UNREACHABLE"
	}
	return "UNKNOWN"
}
