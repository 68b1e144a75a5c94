// Package smpp sends SMS over SMPP 3.4, and hears receipts and inbound texts.
//
// A [Client] is one route: several binds to one provider that share a queue.
//
//	Send ── pace ── window slot of the emptiest bind ── submit_sm, part by part ── Outcome
//	deliver_sm ── receipt or inbound ── Receiver ── deliver_sm_resp
//
// # Outcomes
//
// A submit_sm whose last octet was not written is Deferred. One that was
// written and not answered (connection lost, response time-out, ctx ended) is
// Unknown. An answer decides by its command_status: [Status.Outcome] is the
// table of channels 2.5, and Config.Statuses overrides it for a provider's own
// codes.
//
// The parts of one message go out in order on one bind, each after the answer
// to the one before it. So the first answer is about the whole message: nothing
// else was handed over yet, and Deferred and Refused mean what they say. From
// the second part on, a temporary refusal is retried here a few times, because
// only this part is missing. What remains combines like this:
//
//	all accepted                             Accepted
//	any part without a known answer          Unknown
//	some accepted, then refused for good     Refused; ProviderIDs holds the accepted parts
//	some accepted, then deferred to the end  Unknown: resending repeats parts, not resending loses them
//
// # Binds
//
// Each bind reconnects by itself, with full jitter between 1 s and 60 s. It asks
// enquire_link every 30 s and gives the connection up when the answer is late.
// A throttled answer (0x58, 0x14) slows the whole route, see [governor].
//
// # What comes in
//
// A deliver_sm is answered with status 0 only after the Receiver returned nil,
// and with ESME_RX_T_APPN (try again) when it did not. A flood is slowed, not
// refused: what the Receiver is not ready for waits in memory, for half of
// AnswerWithin at most, and when too much waits, reading stops; see [held].
// Parts of a long inbound text are held, unanswered for a few seconds and
// in memory for some minutes, until they are whole; see [inbox].
//
// # Wire
//
// [PDU], [Append], [Decode] and [Reader] are the codec, shared with the double
// in smpptest and held against octets derived by hand in testdata. What it
// speaks is in docs/decisions/smpp-codec.md.
//
// Sources: SMPP Protocol Specification v3.4, issue 1.2; channels 2, 2.5, 5.2, 5.4.
package smpp
