// Package queue is durable work: what has to be done, when it is due, who is
// doing it, and what became of the attempts.
//
// Work is written by the update that makes it necessary and removed by the
// update that does it, so it is done if and only if its effect is there. A
// worker may still see the same work twice (its node died after the effect's
// commit was sent), so effects carry a key.
//
// The states of one piece of work:
//
//	     Enqueue                Complete
//	──────────────▶ waiting ──▶ leased ──────────▶ gone
//	                   ▲           │ error, or the lease ran out
//	                   └───────────┤
//	                    Retry      │ attemptsMax errors
//	                   ┌───────────▼
//	                   └──────── buried
//
// A lease lasts leaseTime and is renewed while the handler runs. When a node
// dies its leases run out, or are released when the same node starts again.
// Completing work under a lease that is no longer one's own fails with ErrLost,
// and with it the whole update: two holders cannot both have an effect.
//
// Rows are store rows keyed by (work kind, due time, id): the first in key order
// is the next to do, and moving it to a later due time is what leases it. The
// kind is RuleLocal: work belongs to one Region, and takeover makes its own from
// replicated rows.
//
// Source: design 4, style 3.
package queue
