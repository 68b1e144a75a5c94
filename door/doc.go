// Package door is where HTTP comes in: it finds the operation, establishes who
// calls, asks whether they may, lets the room answer, and records what happened.
//
// One request passes these steps, and the first that refuses answers, in the
// protocol the caller speaks:
//
//  1. a request id, which every response carries
//  2. bounds: concurrent requests (503), header bytes (431), body bytes (413),
//     body time (400), bytes of all bodies together (503)
//  3. the operation, as far as path, target or form name one
//  4. the signature (package sigv4); operations that need none are marked in
//     the model. An unsigned request for an unknown route is told that it is
//     unsigned, not that the route is unknown.
//  5. decompression, bounded like the body
//  6. authorisation of the operation's action on its resource; no rule, no entry
//  7. for a control-plane call: where control is. If it is in another Region, that
//     gets the request as it came and answers it; if nobody knows, 503.
//  8. the room, which finds an [aws.Caller] in its context
//  9. the audit record: who, what, from where, how it ended; never a body
//
// The door knows no room. Rooms hang operations on a wire.Mux; who holds a key
// ([Authenticator]), what they may do ([Authorizer]) and where records go
// ([Recorder]) are interfaces declared here and filled by the assembly.
//
// TLS is required, 1.2 or later with forward-secret AEAD suites; certificates
// are read again when their files change. Plain HTTP is served on loopback
// addresses only, and only if configured.
//
// # The control plane
//
// Operations are on the data plane or on the control plane (wire.Plane). The
// first are served where they come in; the second in the control Region, which
// the assembly's [Control] knows. A call that came in elsewhere is authenticated
// and authorised there, and again in the control Region, whose [Door.Forwarded]
// takes it on the peers' listener: the client's signature goes with it, to the
// byte. It is forwarded once, tried once, and either refused or served.
//
// What a Region says of a call that it forwards (address, TLS, request id) is
// believed on that listener alone, of peers that have proven to be Regions. At
// the door the same headers are headers like any others.
//
// # Paths outside the APIs
//
// Two paths are open to anybody: /healthz says that the process is up, /readyz
// whether it can serve.
//
// Sources: docs/internals/control-plane.md; access 1.3, 1.7, 1.8; clients
// (Amplify host names, Expect: 100-continue).
package door
