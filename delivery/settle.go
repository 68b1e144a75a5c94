package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// settleTries bounds how often an outcome's commit is tried before its intent
// is left open; a restart then lists it as ambiguous.
const settleTries = 30

// settle writes entries for attempts whose outcome is known, with their facts,
// counts and references, in one commit.
func (j *job) settle(ctx context.Context, batch []*ready) error {
	var entries []Entry
	write := func(tx *store.Tx, holder bool) error {
		entries = entries[:0]
		if holder {
			if err := j.it.Hold(tx); err != nil {
				return err
			}
		}
		delta := &Tally{}
		for _, g := range batch {
			e, err := j.entry(tx, g, delta)
			if err != nil {
				return err
			}
			if !holder {
				if e, err = j.late(tx, g, e, delta); err != nil {
					return err
				}
			}
			entries = append(entries, e)
		}
		return j.write(tx, entries, delta)
	}
	var err error
	for try := range settleTries {
		err = j.s.store.Update(ctx, func(tx *store.Tx) error { return write(tx, true) })
		if err == nil {
			j.learn(entries)
			return nil
		}
		if errors.Is(err, queue.ErrLost) {
			// Another holds the block and has listed these attempts; what became of
			// them resolves the list.
			if lerr := j.s.store.Update(ctx, func(tx *store.Tx) error { return write(tx, false) }); lerr != nil {
				return lerr
			}
			return err
		}
		// A full disk, a database that is away: what happened on the wire must be
		// written down, so wait and try again.
		j.s.log.WarnContext(ctx, "outcomes not written yet", "attempts", len(batch), "try", try+1, "error", err)
		t := time.NewTimer(min(time.Duration(try+1)*200*time.Millisecond, 2*time.Second))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
	return err
}

// entry decides what an outcome means and tells it.
func (j *job) entry(tx *store.Tx, g *ready, delta *Tally) (Entry, error) {
	now := tx.Now()
	o := g.outcome
	e := Entry{
		Member: g.i, Attempt: g.attempt, At: now.UnixMilli(), Code: o.Code, Detail: boundedText(o.Detail, 512),
		ProviderIDs: o.ProviderIDs, Parts: o.Parts,
	}
	if o.Enhanced != "" {
		e.Detail = boundedText(o.Enhanced+" "+o.Detail, 512)
	}
	t := j.telling(g.i, g.c, now)
	t.from, t.subject = g.from, g.subject
	if g.failed != nil {
		e.Fate, e.Reason, e.Detail = FateFailed, ReasonRendering, boundedText(g.failed.why, 512)
		delta.Failed++
		return e, j.tellUnrenderable(tx, t, &e)
	}
	switch o.Status {
	case courier.Delivered, courier.Accepted:
		e.Fate = FateSent
		delta.Sent++
		return e, j.tellSent(tx, t, &e)
	case courier.Refused:
		e.Fate, e.Reason = FateFailed, ReasonRefused
		delta.Failed++
		return e, j.tellFailed(tx, t, &e, "FAILURE_PERMANENT", "Permanent")
	case courier.Deferred:
		if at, ok := j.retry(now, g); ok {
			e.Fate, e.RetryAt = FateDeferred, at.UnixMilli()
			return e, nil
		}
		e.Fate, e.Reason = FateFailed, ReasonExhausted
		delta.Failed++
		return e, j.tellFailed(tx, t, &e, "TRANSIENT_FAILURE", "Transient")
	default:
		a, err := j.ambiguous(tx, g.i, g.attempt, now, g.c, delta)
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
	o := g.outcome
	if now.Sub(j.block.At) >= j.s.cfg.RetryFor {
		return time.Time{}, false
	}
	switch {
	case o.Code == "lease":
		return now, true
	case o.Code == "pace" || unreachable(o) || o.Throttled:
		return now.Add(o.RetryAfter + time.Second + j.s.jitter(2*time.Second)), true
	case g.attempt >= j.s.cfg.AttemptsMax:
		return time.Time{}, false
	}
	limit := min(j.s.cfg.RetryDelay<<min(g.attempt-1, 20), time.Hour)
	return now.Add(o.RetryAfter + limit/2 + j.s.jitter(limit/2)), true
}

// late joins an outcome that was learnt without the lease with what the new
// holder wrote meanwhile: the list of ambiguous sends shrinks, the counts move.
func (j *job) late(tx *store.Tx, g *ready, e Entry, delta *Tally) (Entry, error) {
	p := j.plan.plan
	key := ambiguousKey(p.App, p.ID, j.s.messageID(p.ID, &j.block.Members[g.i]), g.attempt)
	a, err := store.Load[Ambiguous](tx, kindAmbiguous, key)
	if err != nil || a == nil {
		return e, err
	}
	a.ResolvedAt, a.Resolution = tx.Now().UTC(), string(e.Fate)
	if a.Decision == Leave {
		delta.Left--
	}
	return e, store.Save(tx, kindAmbiguous, key, a)
}

func (j *job) tellSent(tx *store.Tx, t *telling, e *Entry) error {
	if err := tellCampaignSend(tx, t, "SUCCESS", e.Code, ""); err != nil {
		return err
	}
	if t.channel == ChannelEmail {
		return tellEmail(tx, t, "send", "received", "send", nil)
	}
	if err := tellSMS(tx, t, "BUFFERED", "PENDING", countryOf(t.address), e.Parts); err != nil {
		return err
	}
	return j.s.refer(tx, j, t, e)
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
