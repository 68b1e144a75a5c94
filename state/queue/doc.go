// Package queue is durable work: what has to be done, when it is due, who is
// doing it, and what became of the attempts.
//
// Work is written by the update that makes it necessary and removed by the
// update that does it, so it is done if and only if its effect is there. A
// worker may still see the same work twice (its node died after the effect's
// commit was sent), so effects that no update holds carry a key.
//
// The states of one piece of work:
//
//	     Enqueue                Complete
//	──────────────▶ waiting ──▶ leased ──────────▶ gone
//	                   ▲           │ error, Again, or the node was lost
//	                   └───────────┤
//	                    Retry      │ AttemptsMax errors
//	                   ┌───────────▼
//	                   └──────── buried
//
// Work that is due when it is enqueued on a node with an idle worker is leased
// by that very update and handed to the worker when it is committed: nothing
// looks for it. All other work waits for its due time in order; each node looks
// when it is due, when its own updates say so, and every PollInterval.
//
// # Leases
//
// A node leases work, and one row for each node says until when all of that
// node's leases hold and in which life of the node they were taken. It is
// renewed every third of LeaseTime, by every Hold, and until the last handler
// has returned; a node that holds nothing says so there and, once that is
// committed, renews nothing. When it ran out another node fences it: it marks the
// row, and puts back what was leased. A node that starts again takes a new life,
// which ends the leases of the one before. A node that was fenced while it ran
// cancels its handlers with ErrLost and begins a new life; one that was fenced at
// rest does when it next finds work. While the database fails a node, and for a
// third of LeaseTime after, it fences nobody for silence: the others could not
// renew either.
//
// No lease is for ever. What a node has leased without knowing, because the
// answer to a commit was an error or an outcome could not be written, it puts
// back itself. What is leased to a node whose leases are over (its commit was on
// its way for longer) is put back by any other: every round looks at the nodes
// that said they hold nothing, and a slow sweep over all work finds what is
// leased to nodes that were forgotten.
//
// What an update does under a lease (Complete, Again, Hold) fails with ErrLost
// when the lease is no longer the item's, and with it the whole update. Each of
// them writes a row that whoever ends the lease writes too, so the two cannot
// both be committed: two holders never both have an effect. Outside the
// database only the clock can tell: Item.Valid stops a tenth of LeaseTime before
// the lease does, which is what two nodes' clocks may differ by, and asks both
// clocks of its machine: the wall clock may be set back, and the other stands
// still while the machine is suspended. A row whose leases seem to hold for very
// long, written while a clock was wrong, is believed for 20 times LeaseTime.
//
// # Rows
//
// Each piece of work has one row under (kind, id). While it waits there is a
// second, empty one under (kind, due, id), which orders it; while it is leased
// the first is indexed by its node. All are RuleLocal: work belongs to one
// Region, and takeover between Regions makes its own from replicated rows.
//
// Source: design 4, style 3.
package queue
