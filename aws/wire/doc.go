// Package wire speaks the protocols of the emulated services from the server's
// side: restJson1, awsJson1_0, awsJson1_1 and awsQuery.
//
// Nothing here knows a resource. The models become data ([Schema], [Op],
// [Service]) in the generated packages under api/; a room hangs a function on
// an operation with [Handle]; the door asks the [Mux] which operation a request
// is, decides whether it may, and lets the [Match] decode, validate, call and
// encode. Codecs are written once, by hand, over schemas: a plan per Go type is
// compiled by reflection when an operation is mounted and reused ever after.
//
//	m := wire.NewMux(pinpoint.Service, smsvoicev2.Service)
//	wire.Handle(m, pinpoint.GetCampaign, "apps/{ApplicationId}/campaigns/{CampaignId}", s.get)
//
//	match, err := m.Find(req)              // service, operation, labels
//	if err != nil { return match.Fail(id, err) }
//	authorise(match.Action(), match.Resource(region, account))
//	return match.Invoke(ctx, req)
//
// # What a generated type looks like
//
// A type has its shape's name. A required scalar is a plain value, an optional
// one a pointer; an optional enum is plain and absent when empty, and so are
// the strings of an exception. A member with a default is plain. Lists are
// slices, maps are maps, nested structures are pointers; structures inside
// lists and maps are values. An operation without input or output has [Empty].
//
// # Reading and writing
//
// Reading is strict in what is typed and deaf to what is unknown: unknown
// members are skipped, null is absence, the last of two equal keys counts, a
// member of the wrong type or outside its model's bounds is a violation that
// names its path ("Endpoint.Metrics.x: expected a number"). Up to five
// violations are told at once. Writing never fails on bad text (invalid UTF-8
// becomes U+FFFD) and refuses NaN and infinities. Map keys are written sorted,
// so equal values have equal bytes.
//
// The strings of a small request (16 KiB) share one copy of its body: whoever
// keeps a few of them for long clones them. [UnmarshalJSON] copies each.
//
// # Faults
//
// A room returns an aws.Fault or a generated exception; one table (faults.go)
// turns a kind into the called service's exception and status. Anything else
// is an internal error, logged with its cause and told without it.
//
// # The ledger
//
// Every operation of every model is routed: one that nobody mounted answers
// NotImplemented. [Mux.Mounted] lists the mounted ones. docs/reference/mounted.txt
// holds the same list as text, one "service.Operation" a line; cmd/apigen reads
// it to write docs/reference/coverage.md, and the test beside cmd/everpoint's
// assembly fails when the file and the real Mux differ.
//
// Sources: engagement 0 and 12; channels-and-events 0, 6.1, 6.2; access 1.1, 1.7.
package wire
