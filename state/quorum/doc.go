// Package quorum is what the Regions agree on by majority: who is in sync, who
// sends for which shard, who has control, what is switched off. It is one voter
// for each Region and a witness, and a small state that all of them hold.
//
// Guarantees:
//
//  1. What Propose answered is durable at a majority of the voters, and survives
//     the loss of any one of them, disk and all.
//  2. Every voter applies the same commands in the same order, and each has its
//     effect at most once, however often it was sent.
//  3. A command that the state does not allow changes nothing, and its proposer is
//     told the rule. Without a majority commands are refused, within ProposeTime
//     and with the reason.
//  4. Each shard has exactly one owner, in the in-sync set, from the first Region
//     on. Epochs and marks only rise.
//  5. A voter that cannot know any more what it promised does not vote. Its next
//     life has another id, and joins by itself.
//  6. Of the nodes of a Region at most one votes; no two groups come to be.
//  7. Who relies on a lease has stopped before anybody sees it to be over.
//
// Reading the state is a look into memory. Nothing here is on the path of a
// data-plane request.
//
// # The state and its commands
//
// [State] changes by [Command]s alone (commands.go has their rules, duty.go how
// shards are divided). The log holds no time that anything is decided by. A
// command carries what its caller saw (an incarnation, an epoch) and is refused
// when that is not so any more. A command of a kind that this release does not
// know is passed over and logged; who adds a kind must not propose it before
// every voter runs the release that has it.
//
// A proposal has an id. The outcomes of the last 2,048 entries are part of the
// state, so one that arrives again has its first outcome; one that is older is
// refused, for its outcome may be forgotten.
//
// A Region leaves the set by Remove and comes back by Await, after which the
// others wait for it too, and Return, once it has what they had acknowledged
// before they did. A Region that is
// removed loses its shards and control at once, and cannot renew its lease; when
// the lease has run out too, nothing that it claimed before can still be on its
// way, but for what was in a socket. The last of the set leaves it by an operator's
// word alone: Succeed forgets it, once its lease is over, for another that may know
// less.
// A voter that leads while its Region is out of the set hands leadership on, to a
// Region of the set or to the witness.
//
// Each stay of a Region in the set has a number of its own, Region.Member: the
// SetEpoch at which it began. What a Region claims carries it. Duty.Since tells
// likewise whether a shard stayed with its Region or went and came back.
//
// # Voters
//
// The agreement is go.etcd.io/raft/v3, with PreVote and CheckQuorum. One loop
// (voter.go) drives it: what the library wants durable is one update of the
// Region's store, and only after that its messages leave and commands are
// applied. After any failure, of the store or the library, the voter is thrown
// away and made again from its rows, as after a crash.
//
// A voter's id is a hash of its name, the store's incarnation and the voter's
// own life. A new life begins when there is no row, when the store has another
// incarnation, when the row is older than one that was seen, when the leader
// knows of entries that the log lacks, or when another life was admitted in its
// place. The states of a life:
//
//	          founds, or         log or snapshot        caught up
//	joining ─────────────▶ learning ─────────▶ learning ─────────▶ voting
//	          is admitted                                            │
//	   ▲              a new life, with another id                    │
//	   └─────────────────────────────────────────────────────────────┘
//
// Admission is one change of the voters, through the majority: the old id of the
// name goes, the new one becomes a learner; the leader gives it its vote when it
// has caught up.
//
// # The first start
//
// Nobody can tell an empty disk from one that was lost. So exactly one voter may
// found the group (Config.Founder, or the first name), and only after each of
// the others has answered that it belongs to none and knows the same founder. A
// founder that lost its disk therefore finds the group it founded or waits. It
// founds alone, and the others are admitted; until a majority of the configured
// voters has a vote the group takes no commands. All voters have to be up once
// for that, in any order; afterwards a majority is enough.
//
// A new voter name is admitted when it is in the leader's configuration. None is
// removed by leaving it out: that takes a release of its own.
//
// # The nodes of a Region
//
// They share a store. The voter's row says which of them runs it, and in which
// generation; every write is conditional on that. The others apply what it made
// durable, and take over when its row has not changed for Takeover, by their own
// clock. A node that was paused meanwhile can send what it made durable before,
// and nothing else.
//
// # Leases
//
// A Region's lease says which of its nodes claims. A holder renews it every
// quarter of LeaseTime, and counts from the moment before it proposed the
// renewal that was confirmed; it stops a fifth of LeaseTime early. The leader
// counts from when it applied the renewal, or began to lead, and then declares
// the lease over by a command that a renewal defeats. Both use monotonic clocks,
// which may gain a fifth on each other. Such a clock goes on while a process is
// stopped, but not while its machine is suspended.
//
// # Where it is
//
// quorum.go is the room's door; state.go, commands.go and duty.go the rules;
// stops.go how stops are ordered; machine.go and encoding.go how they meet the log; voter.go, join.go, lease.go
// the voter's loop; follow.go the other nodes; journal.go the rows; transport.go
// and handler.go the wire; propose.go a command's way.
//
// Source: design 5.
package quorum
