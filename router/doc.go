// Package router is the global endpoint: one address in front of the Regions of
// a group. It spreads requests over them, diverts from a Region that fails, lets
// it return in steps, and repeats a request elsewhere where that is safe. It
// holds no keys, looks into no bodies, and keeps nothing: several may run.
//
// # Which Region
//
// The endpoint, user, campaign or other resource in the path decides, by weighted
// rendezvous hashing without any secret: whoever reads what they just wrote meets
// the same Region, through any router, and when a Region goes or returns only its
// own resources move. Calls that name no resource, or only an app they come to in
// masses, go in turn by weights. In warm-standby the primary comes first.
//
// # States of a Region
//
//	up ──2 connections refused, 2 checks failed, or half of ≥5 requests──► down
//	▲                                                                       │
//	└── after the last step ── returning: 10 %, 25 %, 50 % ◄──held, 3 checks┘
//	                               └──1 check failed, or as above──► down
//
// It is held down for 5 s at first and twice as long at each further fall, until
// it has been well for long. When every Region that is on is down, all are tried:
// the router never turns everybody away on suspicion. Switches are stronger than
// health: what is off or draining gets nothing new. The Regions' quorum decides
// them, each Region tells them ([SwitchesPath]), and the newest answer holds.
//
// # Repeating a request
//
// A request is sent to another Region, once each, only if nothing of an answer
// has reached the client, the body was kept (it is short and its length known),
// and either no connection to the first Region came about, or a second execution
// does no harm: the method is idempotent, or the Regions remember the call by its
// amz-sdk-invocation-id ([Remembers]). Then a lost connection, a Region given up
// while the request waited, and 502, 503 and 504 are no longer the client's
// business. It is the same request to the byte, so its signature holds.
//
// # Why not httputil.ReverseProxy
//
// It writes the path anew from its decoded form where escapes are unusual, knows
// no second backend, and cannot tell a request that was never sent from one that
// may have been executed. Here the request line is passed on as it came, through
// any http.RoundTripper that tells package httptrace about connections.
//
// Sources: design 5 (signatures across Regions, calls that send) and 6; clients
// (SDK retries, small habits); RFC 9110 7.6.1, 9.2.2.
package router
