// Package group keeps a Region in the set of those that are in sync (it joins,
// leaves when it must, and comes back) and says what it may claim there.
//
// # Guarantees
//
//   - What was acknowledged to the group is on the disk of every Region of the set,
//     at the incarnation at which it is in it, whichever Region acknowledged it and
//     however the set changed meanwhile.
//   - A Region that does not answer is removed by the quorum before others go on
//     without it. Without a majority nobody is removed, and writes that need the
//     group are refused.
//
// # The way back
//
//	unknown ──Join──▶ out of the set ──near the others' heads──▶ Await
//	                        ▲                                      │
//	                        │ removed, late                        ▼
//	                     in sync ◀──Return── has what the others had told
//	                                         when they began to wait for it
//
// The others wait for a Region before it is in the set, not after: else a write
// could be acknowledged between its catching up and their hearing of it. Each
// heartbeat of a Region carries the index of what it has applied of the quorum's
// log, read before the heads that it tells; so who has those heads has all that
// was acknowledged by an older index.
//
// A node that has just started may know an old set from its disk. Until something
// it proposed has come back to it, it knows none ([Group.Together] fails).
//
// # Duty
//
// [Duty] says which shards this Region may claim, and whose claims hold. A shard
// that changes hands is told to be lost when nothing that was claimed under the
// older map is on its way to the disk, and is gained when the others have told so
// and the leases of those out of the set are over; see docs/internals/duty.md.
//
// # Several nodes
//
// One node of a Region keeps its place, holds its lease and claims: the one that
// speaks for it ([quorum.Quorum.Speaks]). When another takes over, it acknowledges
// and tells nothing before something that it proposed has come back to it, and it
// has read the heads that the one before it may have vouched for.
//
// Source: design 5, In-sync set, Duty, Claims, Takeover.
package group
