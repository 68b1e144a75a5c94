package quorum

import (
	"context"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// marginPart is the part of LeaseTime by which a holder stops before others may
// believe the lease to be over: what two machines' clocks may gain on each other.
const marginPart = 5

// renewPart is how often a holder renews, as part of LeaseTime.
const renewPart = 4

// held is the lease as its holder knows it.
type held struct {
	epoch uint64
	until time.Time // with the monotonic clock's reading
}

// sighting is when the leader first saw a lease at a renewal.
type sighting struct {
	lease Lease
	at    time.Time
}

// Lease returns the epoch of the Region's lease when this node holds it, and for
// how long it may be relied on without asking again; ok is false when the node
// does not hold it. Time is the machine's monotonic clock.
func (q *Quorum) Lease() (epoch uint64, left time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	left = time.Until(q.held.until)
	return q.held.epoch, left, q.held.epoch > 0 && left > 0
}

// KeepLease takes the Region's lease whenever it can be had and renews it, until
// ctx ends; then it gives it back. The node with the lease is the one that claims
// for the Region; only the Region's voice takes it.
func (q *Quorum) KeepLease(ctx context.Context) error {
	if q.cfg.Witness {
		return aws.Invalid("a witness has no lease")
	}
	for ctx.Err() == nil {
		q.renew(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(q.cfg.LeaseTime / renewPart):
		}
	}
	q.mu.Lock()
	epoch := q.held.epoch
	q.held = held{} // nobody may rely on it from here on
	q.mu.Unlock()
	if epoch > 0 {
		// When it cannot be given back it runs out.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.cfg.election())
		defer cancel()
		if _, err := q.Propose(last, ReleaseLease{q.cfg.Name, q.cfg.Node, epoch}); err != nil {
			q.log.InfoContext(ctx, "lease not given back", "error", err)
		}
	}
	return nil
}

// renew renews the lease, or takes it. The time that counts is from before the
// command was proposed: the leader can have seen it only later.
func (q *Quorum) renew(ctx context.Context) {
	if _, speaks := q.Speaks(); !speaks {
		return // what it holds runs out
	}
	q.mu.Lock()
	had := q.held.epoch
	l := q.state.Leases[q.cfg.Name]
	in := q.state.Regions[q.cfg.Name].InSync
	q.mu.Unlock()
	if !in || had == 0 && l.Epoch > 0 && !l.Over && l.Node != q.cfg.Node {
		return // nothing to be had yet
	}
	var c Command = TakeLease{q.cfg.Name, q.cfg.Node, q.cfg.LeaseTime.Milliseconds()}
	if had > 0 {
		c = RenewLease{q.cfg.Name, q.cfg.Node, had}
	}
	ctx, cancel := context.WithTimeout(ctx, q.cfg.LeaseTime/2)
	defer cancel()
	from := time.Now()
	r, err := q.Propose(ctx, c)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err == nil:
		q.held = held{r.Epoch, from.Add(q.cfg.LeaseTime - q.cfg.LeaseTime/marginPart)}
		if had == 0 {
			q.log.InfoContext(ctx, "lease taken", "epoch", r.Epoch)
		}
	case aws.KindOf(err) == aws.KindConflict, aws.KindOf(err) == aws.KindNotFound:
		q.log.WarnContext(ctx, "lease is not this node's", "error", err)
		q.held = held{}
	default:
		q.log.InfoContext(ctx, "lease not renewed", "error", err)
	}
}

// watchLeases has the leader declare over what was not renewed in time. Its time
// begins when it first saw the last renewal, or began to lead: not before the
// holder's.
func (v *voter) watchLeases() {
	leases := v.machine.state.Leases
	for region, l := range leases {
		s, ok := v.seen[region]
		switch {
		case !ok || s.lease != l:
			v.seen[region] = sighting{l, time.Now()}
		case !l.Over && time.Since(s.at) > time.Duration(l.Millis)*time.Millisecond:
			v.proposeHere(expireLease{region, l.Epoch, l.Renewals})
			// If that is lost, once more after an election's time.
			s.at = s.at.Add(v.q.cfg.election())
			v.seen[region] = s
		}
	}
}
