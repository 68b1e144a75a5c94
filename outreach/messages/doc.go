// Package messages answers the direct sends: SendMessages to addresses and
// endpoints, SendUsersMessages to every endpoint of users.
//
// A call is judged recipient by recipient; whoever cannot be sent to has a
// result that says why, and the call still answers 200. For the others one
// update writes, before the answer,
//
//	the call record   what is answered, under who called, what, and the SDK's
//	                  invocation id: a retry of the call gets this answer
//	the plan          what the messages say
//	the claims        who they go to, 256 recipients a block
//
// so that what was answered is sent, and what is retried is not sent again.
// "SUCCESSFUL" means that a message is durably on its way; what becomes of it is
// told by events. Opt-outs, and all that may change meanwhile, are checked once
// more by delivery right before the wire.
//
// A client that sends no invocation id has no record: each of its calls is new.
// Records, plans and claims go with their app.
//
// EMAIL and SMS can be sent. Other channels answer PERMANENT_FAILURE, 400.
//
// Source: engagement 9.1 to 9.4, 13.21; channels-and-events 1, 1.1, 5.2; design 5,
// Calls that send or create.
package messages
