// Package replica ships the change log between Regions: every Region pulls the
// others' blocks, merges them, and says how far it has them on disk.
//
// # Guarantees
//
//   - A block's changes and the cursor that says so are one commit, so a Region
//     that dies at any moment goes on where it was, and nothing is merged half.
//   - Whatever order the streams of several Regions are merged in, all Regions
//     hold the same rows in the end (state/changelog).
//   - An acknowledgement is sent after the commit, never before, and names the
//     incarnation of the database it was made by.
//   - A Region whose position the other does not know (it is new, was away for
//     longer than the log is kept, or either was restored from a backup) takes the
//     other's rows first, from where it left off if it is interrupted, and then
//     follows from the heads as they were before the rows were read.
//   - Safety data has a stream of its own and waits for nothing else.
//
// # The wire
//
// Below /everpoint/replica/v1/, over HTTP/2 with mutual TLS. A pull is one
// request, open as long as the two Regions hear of each other: the answer brings
// frames, the request's body brings acknowledgements of 24 bytes each: three
// numbers, big endian. They are the last block that is on disk, the head of the
// acknowledging Region's own safety stream after that, and the epoch of the other's
// stay in the set as the acknowledging Region knows it, 0 for none. They come after
// each commit, and after a heartbeat when something is another than before.
//
//	POST stream/{stream}?incarnation=I&after=N&hash=H&as=J   blocks and heartbeats
//	GET  rows?after=N                                        rows, as changes
//
// I is the incarnation whose block N has hash H, as the puller has it; J is the
// puller's own, in which it acknowledges.
//
// A frame is a byte that names it, four bytes of length, and its content; see
// frame.go. Blocks are compressed, not sealed: TLS keeps them between the two.
// Changes that a Region took over from another are left out, for every Region
// pulls from every other.
//
// # Several nodes
//
// Where the Regions vote, one node speaks for its Region ([Voice], voice.go): it
// pulls, answers pulls and judges what was acknowledged; the others ask it.
// Elsewhere the nodes share the pulling by a lease for each peer, kept in the
// database, and all of them answer; Acknowledge then works for Regions of one node.
//
// Source: design 4 and 5, Shipping.
package replica
