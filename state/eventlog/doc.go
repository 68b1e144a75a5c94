// Package eventlog is the log of facts: what happened, told once, read by
// whoever wants to know.
//
// A fact is appended by the update that makes it true and becomes visible with
// it. Facts travel up: a room appends and forgets; others follow. A follower
// has a name, a cursor in the same database, and a handler that runs in an
// update together with the cursor's move: its effect in the store happens
// exactly once. A follower with an effect outside the store (a file, a broker)
// gets at-least-once and makes it exactly-once with what it keeps in its cursor,
// if it can.
//
// One node at a time runs a follower: the cursor row carries a lease.
//
// Facts stay for the retention time; a follower that has not read them keeps
// them longer.
//
// Source: design 4, channels-and-events 9 and 11.
package eventlog
