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
//	intent    "this attempt is about to be on the wire"; durable before it is
//	entry     what became of the attempt: sent, failed, held, deferred, ambiguous
//
// An intent without an entry, found after a crash, is ambiguous: the message
// may or may not have left. It is left or sent again, as the sending policy
// says, and listed either way. Sent again means with the same Message-ID (or,
// for SMS, the same reference). At most windowMax attempts of a node lie
// between intent and entry, so a crash leaves at most that many ambiguous,
// never a whole block.
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
// commit that writes the intent. Facts for the event stream and the counters of
// the run are in the commits of the entries, so they are exact.
//
// A block is a piece of queued work; its worker holds a lease, checks it before
// each message, and cannot write entries as the holder after losing it. What a
// worker without lease learns late still resolves the ambiguous row.
//
// Source: design 5 (Claims), 8; engagement 7.7, 9; channels 1.1, 2, 9.
package delivery
