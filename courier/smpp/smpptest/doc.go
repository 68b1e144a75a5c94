// Package smpptest is a provider's message centre (SMSC) to test against: a
// real SMPP 3.4 server over any net.Listener, in process or over loopback, which
// can be told to misbehave.
//
//	bind ── system id and password ── session
//	submit_sm ── Action ── parts gathered ── Sink ── submit_sm_resp
//	                                      └─ receipts: deliver_sm, a window of them on each
//	                                         bind, repeated until answered
//
// A [Server] hands each complete message to its Sink before it answers the last
// part, so that what a client heard as accepted is in the sink. What it does with
// a submit_sm is an [Action]: the next of those queued by [Server.Next], else
// what Config.Decide says, else acceptance. Receipts and texts for a client
// ([Server.Text]) outlive its connections, as a provider's would.
//
// The double speaks with the codec of package smpp. So that both cannot share
// one mistake, the codec is held against octets derived by hand, and the double
// against Kannel's bearerbox.
package smpptest
