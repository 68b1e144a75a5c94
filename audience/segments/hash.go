package segments

import (
	"encoding/binary"
	"math/bits"
)

// Shards is how many dispatch shards sending is divided into. Source: design 2.
const Shards = 64

// DispatchHash places an address of an app's channel among the dispatch shards
// and orders the members of a run. It is the same in every Region and release:
// claims and marks are made of it. It has nothing in common with the hash
// behind CohortId, so that treatments do not correlate with Regions.
//
// The parts are hashed with their lengths, eight bytes at a time, by multiply
// and rotate, and mixed at the end.
//
// Source: design 5, Duty.
func DispatchHash(app, channel, address string) uint64 {
	h := uint64(0x6576657270746473)
	h = absorb(h, app)
	h = absorb(h, channel)
	h = absorb(h, address)
	// 0 is the position ahead of all; see Before.
	return max(mix(h), 1)
}

// Shard is the dispatch shard of a hash, 0 to 63: its upper six bits, so that
// a shard is a range of hashes.
func Shard(hash uint64) int { return int(hash >> 58) }

func absorb(h uint64, s string) uint64 {
	h = step(h, uint64(len(s)))
	for len(s) >= 8 {
		h = step(h, binary.LittleEndian.Uint64([]byte(s[:8])))
		s = s[8:]
	}
	if len(s) > 0 {
		var last [8]byte
		copy(last[:], s)
		h = step(h, binary.LittleEndian.Uint64(last[:]))
	}
	return h
}

func step(h, k uint64) uint64 {
	k = bits.RotateLeft64(k*0x9e3779b97f4a7c15, 31) * 0xc2b2ae3d27d4eb4f
	return bits.RotateLeft64(h^k, 27)*0x9fb21c651e98df25 + 0x165667b19e3779f9
}

// mix spreads every bit of x over all of them; it is one to one.
func mix(x uint64) uint64 {
	x ^= x >> 32
	x *= 0xe9846af9b1a615d5
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 32
	return x
}
