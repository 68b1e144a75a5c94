// Package delivery is the one way out. Rooms above decide whom to tell what;
// they write a [Plan] and claim recipients in blocks, and from there on this
// package orders, guards, renders, chooses the origin, attempts, and writes
// down what became of it.
//
// # The ledger
//
// For every recipient of every block the ledger tells one story:
//
//	claim     the right to send to these recipients; written with the block, in
//	          the update that made it necessary, in the safety stream
//	intent    "this attempt is about to be on the wire"; durable, and with every
//	          Region of the set, before it is
//	entry     what became of the attempt: sent, failed, held, deferred, ambiguous
//
// An intent without an entry, found after a crash or by the Region that took the
// block over, is ambiguous: the message may or may not have left. It is left or
// sent again, as the sending policy says, and listed either way. Sent again means
// with the same Message-ID (or, for SMS, the same reference). At most windowMax
// attempts of a node lie between the intent and an entry that every Region of the
// set has, so a crash leaves at most that many ambiguous, never a whole block.
//
//	claimed ─▶ held (opt-out, inactive, no address, quiet time, cap, …)
//	   │
//	   ▼ intent
//	attempt ─▶ sent
//	   │    ─▶ failed (refused, or the attempts are used up)
//	   │    ─▶ deferred ─▶ claimed again, later
//	   └────▶ ambiguous ─▶ left | resent ─▶ attempt
//
// The last check (opt-out, status, caps) reads the primary store in the very
// commit that writes the intent, and once more when the other Regions have it:
// what they had acknowledged until then is here by then. Facts for the event
// stream are in the commits of the entries, so they are exact.
//
// A block is a piece of queued work; its worker holds a lease, checks it and the
// Region's duty before each message, and cannot write entries as the holder after
// losing it. What a worker without lease learns late still resolves the ambiguous
// row.
//
// # Regions
//
// A block belongs to the Region that claimed it while that is in the set, at the
// epoch of its membership then ([group.Duty]). When it is not, the Region with
// the block's dispatch shard takes the block over, ambiguous attempts, deferred
// ones and those not yet made; a row says so, which the set has before anything
// of it is sent. A claim that comes when it holds no more was never relied on: its
// recipients are superseded, for others may have claimed them meanwhile.
//
// Every Region counts by itself, from the claims and entries that it has: counts
// are a function of those, and come to be the same everywhere.
//
// Source: design 5 (Claims, Takeover), 8; engagement 7.7, 9; channels 1.1, 2, 9.
package delivery
