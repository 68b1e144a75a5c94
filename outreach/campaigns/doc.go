// Package campaigns keeps an app's campaigns and runs them: it decides who gets
// what when, and hands the recipients to delivery in blocks.
//
// # What is kept
//
// A campaign is one document in the shape of the API's response, with one more
// for each version. A run is one activity for each treatment; the activity's row
// holds how far the walk over the segment has come, so any node can go on from
// it. Rows go with their app.
//
// # States
//
//	SCHEDULED ─▶ EXECUTING ─▶ COMPLETED
//	   │  ▲          │
//	   ▼  │          └──▶ INVALID   (no template, no channel: nothing was sent)
//	 PAUSED          └──▶ DELETED   (its segment was deleted)
//
// Each treatment has such a status; the campaign's follows from them. An update
// makes the next version and, as long as nothing has started, new activities in
// place of the pending ones. Paused campaigns have no pending activity, so a
// start that passes meanwhile is missed, not replayed.
//
// # A run
//
// The queue holds one piece of work for each activity, due at its start. Its
// worker reads the state, asks [decide], and does what it says in one update:
//
//	await    not due, or enough is on its way
//	start    write the plan that delivery sends by; from here it does not change
//	claim    give delivery the next members and move the cursor behind them
//	finish   the walk is over and nobody is on the way any more
//	fail     it cannot run: say why
//	drop     the activity is over, or its campaign is gone
//
// Members are walked in the order of their dispatch hash, so that endpoints of
// one address lie side by side and delivery can tell that they are the same. The
// block's number comes from the row, so a step that is repeated claims the same
// block again, which changes nothing. After a crash the next holder evaluates
// the segment again and goes on behind the cursor.
//
// # Stops
//
// A campaign that is deleted ends its run: nothing is claimed any more, and delivery
// holds who was not written to. Where the Region with control does not answer, a
// stop is an order in the quorum (stops.go): while it stands nothing is started,
// claimed or sent, in any Region, and the Region with control carries it out. An
// order to pause that finds the run begun ends it.
//
// Invariants: a member is claimed by one treatment; the cursor moves in the
// update that claims; not more than a window of recipients is ahead of delivery.
//
// Source: engagement 7, 1.2, 13; design 5 (Claims, Takeover), 8.
package campaigns
