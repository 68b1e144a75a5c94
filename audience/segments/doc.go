// Package segments says who belongs to what: the audience of every app in
// memory, criteria over it, and the segments that keep criteria under a name.
//
// # The index
//
// [Index] holds the endpoints of a Region in columns, one audience for each app.
// An endpoint is an ordinal. Every value that criteria can ask for is a term,
// numbered by a dictionary, with the set of ordinals that have it; metrics are
// arrays of numbers; user attributes are kept once for each user, and users know
// their endpoints. Addresses and whole documents are not kept: 1 million typical
// endpoints take 190 MB. A question holds the audience still for the one or two
// milliseconds that a million endpoints take; an update takes microseconds.
//
// The index is a copy. [Index.Run] reads every row once and then follows the
// store's change and safety streams; [Index.Position] says how far, and
// [Index.Fresh] waits for what was committed before the call. It can be thrown
// away and built again at any time.
//
// # Criteria
//
// [Compile] checks SegmentDimensions or a SegmentGroupList and joins in the
// segments they build on. What the API leaves open is decided so:
//
//   - an absent AttributeType or DimensionType is INCLUSIVE; an absent Include,
//     SourceType or Type is ALL;
//   - EXCLUSIVE holds for an endpoint without the attribute or member;
//   - dates are ISO 8601 instants, to the microsecond; a value that is none
//     matches no date, and one in the criteria is refused;
//   - BETWEEN includes both ends; ON compares days in UTC;
//   - Include NONE with one group is everybody else; with several it subtracts
//     the others from the first;
//   - a list of no groups, sources or dimensions filters nothing;
//   - an endpoint's last activity is the later of its last update and its last
//     event that this node heard of.
//
// Membership ignores EndpointStatus and OptOut; both are looked at when a
// message goes out.
//
// # Runs
//
// [Index.Walk] takes the members of a run in the order of their [DispatchHash],
// by dispatch shard, so that one address comes once or side by side, in the same
// order in every Region.
//
// # Segments
//
// A segment is stored as the model's shape, its latest version and each version
// by itself (KindSegment, KindVersion). The members of an imported version are
// store keys in chunks (KindMember); they are read when a question needs them,
// never kept. A user among them stands for the endpoints that the user then has.
//
// Sources: engagement 3; design 4 (Audience in memory), 5 (Duty).
package segments
