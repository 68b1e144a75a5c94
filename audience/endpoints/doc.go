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
//
// Opt-out is not a register but the record's opt-out set: it survives the
// endpoint's deletion. User attributes belong to the user and are a record of
// their own (UserAttributes.{name}), joined when an endpoint is read.
//
// Keys hide the ids that clients choose, which may be addresses: the app's id
// (16 bytes) and a keyed hash of the endpoint id, folded to lower case, or of
// the user id. Endpoints are indexed by (app, channel, address) and (app, user).
//
// Source: engagement 2; design 4 and 5.
package endpoints
