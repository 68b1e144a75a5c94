// Package sim runs a Region and its carriers in one process under virtual time,
// from a seed: the same assembly that the command serve starts, with only clock,
// randomness and dialler replaced and faults injected at the store's commit
// points and in the carriers' conversations.
//
// A run makes an app, endpoints, a campaign over mail and SMS and direct
// messages, opts people out meanwhile, and kills the node at commit points drawn
// from the seed: before a commit, inside it, or after it but before anybody
// hears of it. Then it starts the node again on what the disk holds.
//
// Judges, which know nothing of how it works, look at what was acknowledged,
// what the carriers received, and what the node lists:
//
//	nothing acknowledged is lost
//	nobody is sent to twice unless listed as ambiguous
//	nobody is left out unless held for a reason or listed
//	no send after an opt-out that the sender could know
//	a crash leaves at most the window ambiguous
//	the reconciliation adds up
//
// # Groups
//
// A group is two Regions and a witness over a network in the bubble, with mutual
// TLS and HTTP/2 as in the field. Clients write in both while a Region is killed at
// a commit point, loses its disk, is put back from a backup or is frozen, for up to
// 30 s and at times at a commit point, cables are cut, broken and slowed, messages
// overtake each other, clocks step, and the witness dies or loses its disk. Messages
// are sent, and calls whose answer is lost are made again in the other Region, as a
// router does. Then all is mended, and other judges look at the [Chronicle]:
//
//	both Regions hold the same rows, byte for byte
//	opt-outs, deletions and control-plane writes that were acknowledged are there,
//	  whichever one disk was lost
//	other writes are lost only with the disk, and only the last of them
//	campaigns end; members are sent to, held, refused or listed
//	nobody is sent to twice for one campaign unless listed in both Regions
//	a call that was made in two Regions is sent once, and what was accepted is sent,
//	  refused or listed
//	no send after an opt-out that the sender could know
//	voters agree on the set and the duty of every epoch
//
// [Chronicle.Faults] counts what came to pass; the sum over all stories is printed
// with `go test -v`, and a run over 200 stories fails when a kind was never there.
//
// Nothing of a frozen Region leaves or arrives, and its store does not write; its
// timers run, as those of a process that is stopped do not.
//
// A seed decides the story and the faults. It does not decide how goroutines take
// turns, nor what raft draws: a failure of a few instants may need some tries.
//
// A failing run prints its seed; `make sim SEED=n` and `make sim GROUP=n` repeat it.
// Seeds that once failed stay in testdata. The judges are held to account by runs
// over a deliberately broken ledger, and over groups with planted bugs: the disk is
// changed between two lives, a tap changes what one Region hears of another, the
// witness goes back, the duty trusts every claim, or a repetition is not known for one.
//
// Source: design 10.
package sim
