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
// A failing run prints its seed; `make sim SEED=n` repeats it. Seeds that once
// failed stay in testdata/seeds. The judges are held to account by runs over a
// deliberately broken ledger, which they must find.
//
// Source: design 10.
package sim
