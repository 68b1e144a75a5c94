// Package store is the one place where state becomes durable. It keeps rows of
// bytes under (kind, key) on SQLite or PostgreSQL, and writes with each row its
// Change and with each call its facts, in one commit; forgetting to replicate
// is not possible, for there is no other way to write.
//
// # Writing
//
// [Store.Update] runs a function over a [Tx]. Concurrent updates are gathered
// into one commit: the functions run one after another over an overlay in
// memory, and what they leave is written with set-based statements. A function
// that fails leaves nothing behind and does not disturb its neighbours. It may
// run more than once (another node won a race), so it must have no effect
// outside its Tx.
//
// Update returns after the commit is on disk. An update that names the rows it
// will read ([Touch]) has them fetched together with its neighbours'.
//
// # Logs
//
// Three streams are kept in the database as blocks, one block for each commit
// that has records for it: safety (what must reach a peer first), change (every
// other replicated row) and event (facts). A commit with more than 16 MiB for a
// stream has several blocks in it; a record above that is refused. A stream's head row is written last
// and held to the commit, so no reader ever sees block n+1 before n, whichever
// node writes. Blocks are compressed, sealed and hash-chained.
//
// # Sealed
//
// Row bodies and blocks are sealed (AES-256-GCM) before the engine sees them.
// Look-ups by address or user go through keyed hashes ([Store.Blind]), and so
// do keys that a person could be found by. What an engine's file shows is
// kinds, the ids that the service gave out, and sizes.
//
// # Incarnations
//
// A database that was restored from an older copy, or promoted from a replica
// that lacked commits, has forgotten ids it already gave out. Each node keeps,
// beside the database, how far it had seen each stream come; when the database
// is behind that, or its chain is another, the store takes a new incarnation,
// which is part of every block's identity, and says so. That memory is a second old
// at most; what another Region has of the database tells the rest ([Store.Told]).
//
// # Stamps
//
// Every stamp a node takes is above every stamp of its earlier lives, even if
// its time went back meanwhile: the file clock, beside the database, holds how
// far stamps are reserved. Row keys may therefore be made of stamps.
//
// Guarantees: what Update acknowledged is on disk and survives kill -9; blocks
// become visible in order; a block exists if and only if its rows do; a reader
// that sees a row can find its change at or below the stream's head.
//
// Source: design 4.
package store
