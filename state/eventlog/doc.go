// Package eventlog is the log of facts: what happened, told once, read by
// whoever wants to know.
//
// A fact is appended by the update that makes it true and becomes visible with
// it. Facts travel up: a room appends and forgets; others follow. A follower
// has a name and a cursor in the same database, and is given every fact in the
// order of the commits, in batches of bounded size. There are two sorts:
//
//   - Follow: the handler runs in the update that moves the cursor, so its effect
//     in the store happens exactly once.
//   - Deliver: the handler has an effect outside the store (a file, a broker). It
//     gets each fact at least once; what it returned as state is stored with the
//     cursor and given back to it, which is enough to be exact where the other side
//     allows (the name of the file that was begun, the offset that was reached).
//
// One node at a time runs a follower: the cursor's row carries a lease, renewed
// while there are facts and given up when the node stops. Another node takes it
// over when it ran out. The handler of a Deliver whose lease cannot be renewed
// has its context ended a tenth of LeaseTime before the lease does, which is what
// the clocks of two nodes may differ by. A cursor moves only under its lease and
// only from where the batch began, so a node that comes back late moves nothing.
//
// A follower that fails is given the same facts again, after 1 s and then ever
// more, up to 10 s; the others do not wait for it.
//
// Facts stay for the retention time; a follower that has not read them keeps
// them longer, on whichever node it runs, unless nobody has run it for the
// retention time.
//
// Source: design 4, channels-and-events 9 and 11.
package eventlog
