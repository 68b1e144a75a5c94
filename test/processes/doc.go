// Package processes tries the product as it is run: the binary, its processes,
// kill -9, a full disk, and the public AWS SDK as the client. It holds tests only.
//
// Each test has a world of its own: a directory, the carriers' doubles with
// their outbox, and one or two nodes, on free loopback ports. The judge knows
// nothing of the implementation: it holds what the carriers took against who was
// to be reached and against what the product lists as not known. The promise is
//
//	every recipient   in the outbox, or held, or listed as ambiguous
//	every duplicate   listed, and with the same Message-ID
//	every kill        leaves at most 256 sends ambiguous
//	every run         ends by itself, whatever was killed
//
// The moments of the kills are drawn from a seed, which is printed; set
// EVERPOINT_TEST_SEED to draw them again.
//
// Source: design 5 (Claims, Takeover), 10.
package processes
