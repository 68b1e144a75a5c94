// Package courier is the contract between delivery and the protocols that
// carry messages to the world: what a message is, what may become of it, and
// what comes back later.
//
// A courier speaks one protocol to one provider. It decides nothing about
// whom, when or how often: delivery does. It answers each Send with an
// [Outcome], because "failed" is not a decision:
//
//	Delivered  the recipient's own system has it
//	Accepted   the provider has taken responsibility
//	Deferred   not taken, and trying again later may help; nothing was handed over
//	Refused    not taken, and trying again will not help
//	Unknown    it may or may not have been taken: the connection broke in the window
//	           between handing over and hearing the answer
//
// Unknown is answered only for that window. Everything that breaks before the
// last byte of the message was written is Deferred.
//
// The package imports nothing of ours. Implementations live below it, each with
// a protocol server for tests beside it (smtp/smtptest, smpp/smpptest).
package courier
