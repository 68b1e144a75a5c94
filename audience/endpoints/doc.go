// Package endpoints keeps whom an app can reach: endpoints, the users they
// belong to, and what is known of both.
//
// An endpoint is stored as a record of registers, one for each member, so that
// two Regions which update different attributes both win (see
// state/changelog). Its registers:
//
//	Id, Address, ChannelType, EndpointStatus, EffectiveDate, RequestId,
//	CreationDate, User.UserId               a string
//	Demographic.{member}, Location.{member} a string; Latitude and Longitude a number
//	Attributes.{name}                       a list of strings
//	Metrics.{name}                          a number
//	UserAttributes.{name}                   a list of strings, while it has no user
//
// Opt-out is not a register but the record's opt-out set: it survives the
// endpoint's deletion, and holds what somebody said. The default for an
// endpoint of which nobody said anything is read off its address.
//
// User attributes belong to the user and are a record of their own, joined
// when an endpoint is read; an endpoint without a user holds them until it
// gets one.
//
// Keys hide the ids that clients choose, which may be addresses: the app's id
// (16 bytes) and a keyed hash of the endpoint id, folded to lower case, or of
// the user id. Endpoints are indexed by (app, channel, address) while they are
// active, and by (app, user).
//
// # A write
//
// [Service.Prepare] turns a request into a [Patch]: checked and encoded, away
// from the store's writer. [Service.Write] then merges it within an update:
// it finds who else changes (the earlier holder of the address, the endpoint
// that makes room for a user's sixteenth), takes one stamp above all of them,
// and either writes everything or nothing. A handful of other things happen in
// the background, in [Service.Run].
//
// Source: engagement 2; design 4 and 5.
package endpoints
