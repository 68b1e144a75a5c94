// Package smtp is the courier that hands mail to a relay (a smart host).
//
// A [Client] keeps a bounded pool of connections. Each connection is owned by
// one goroutine, which takes one message at a time and, where the server
// offers PIPELINING, puts the next message's MAIL, RCPT and DATA behind the
// final dot of the one before:
//
//	client                                server
//	MAIL RCPT DATA                  ──►
//	                                ◄──   250 250 354
//	content . MAIL RCPT DATA        ──►
//	                                ◄──   250 | 250 250 354
//	content . MAIL RCPT DATA        ──►
//
// so a busy connection costs one write, one read and one round trip for each
// message. A server without PIPELINING is spoken to one command at a time.
//
// What became of a message is decided by how far its bytes went:
//
//	2xx to the final dot                            Accepted
//	4xx at any stage                                Deferred (421 ends the connection)
//	5xx at any stage                                Refused
//	no connection, greeting, TLS or AUTH            Deferred, code "conn"
//	broken, timed out or cut before the final dot   Deferred, code "conn"
//	broken, timed out or cut after the final dot    Unknown, code "conn"
//	not fit for this server or for SMTP at all      Refused, code "local"
//
// Delivered is never claimed: a relay only takes responsibility. A message
// whose content was never begun when a used connection broke is tried once
// more on another connection before Send answers.
//
// The invariants that keep the promise:
//
//   - The final dot leaves only after the right to send it was taken from the
//     caller's ctx in one atomic step, so a Send that answered Deferred because
//     ctx ended is never delivered afterwards.
//   - No dot is sent into a transaction that has an accepted recipient and is
//     not wanted; the connection is closed instead. RFC 5321 has no other way
//     back after 354.
//   - A server that has said more than it was asked is out of step, and its
//     connection is closed before any content is written, so that no stale
//     reply is taken for an answer to the final dot.
//
// Sources: RFC 5321 (SMTP), RFC 2920 (PIPELINING), RFC 6152 (8BITMIME), RFC
// 6531 (SMTPUTF8), RFC 1870 (SIZE), RFC 2034 and RFC 3463 (enhanced status
// codes), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 7677 (SCRAM-SHA-256).
// Package smtptest holds the server that tests and benchmarks speak to.
package smtp
