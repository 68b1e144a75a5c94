// Package changelog holds what two Regions need to agree on: clocks, the shape
// of a change, and the rules by which two versions of one thing become one.
//
// Everything here is pure. The merge of each rule is commutative, associative
// and idempotent, so it does not matter in what order, or how often, a Region
// hears of a change; the property tests hold every rule to that.
//
//	RuleRecord    endpoints and users: every member is a register of its own,
//	              last writer wins by hybrid logical clock, removes win
//	RuleOptOut    opt-outs: an opt-out stands until an opt-in that had seen it
//	RuleDocument  what one Region writes at a time: higher (epoch, version) wins
//	RuleAppend    facts, ledger, audit: never changed, united by key
//	RuleLocal     belongs to one Region and is never shipped
//
// # Stamps
//
// A [Stamp] is a hybrid logical clock reading and the Region that took it. A
// writer's stamp is above every stamp it overwrites, and the overwritten stamp
// is kept beside it: a skewed clock can therefore not hide a later write, and
// two writes of which neither had seen the other can be told apart from two in
// sequence.
//
// # Generations
//
// Deleting a record ends its generation, and of two versions the younger
// generation stands whole: this is what makes a delete win over updates that
// had not seen it. A write that has seen the delete belongs to the next
// generation. Opt-outs outlive every generation.
//
// Source: design 5, Merge rules.
package changelog
