// Command sample plays a campaign against a running `everpoint local`, as a user
// of Pinpoint would: with the public AWS SDK for Go and the variables of local.env.
//
// It makes 10,000 endpoints up (the same for the same seed), imports them,
// writes a segment, two templates and one campaign over email and SMS, and waits
// for its end. With -kill it ends a process by kill -9 on the way and starts it
// again: one of two Regions when the other has finished the campaign, anything else
// at once. It says when the other Region took over, and when the one that was lost
// has caught up. Then it adds up what became of every single recipient: what Everpoint
// says, against what the carriers' doubles took. It fails when a recipient is
// missing, was reached twice without being listed, or was reached although the
// rules forbid it.
//
//	. .local/everpoint/local.env
//	go run ./examples/sample -kill control:50
package main
