package segments

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/audience/endpoints"
)

func TestPostings_hold_what_was_added_and_not_removed(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, universe := range []uint32{300, 9000, 200_000} {
		p, want := &postings{}, map[uint32]bool{}
		check := func() {
			t.Helper()
			var got []uint32
			p.each(func(x uint32) { got = append(got, x) })
			if !slices.Equal(got, slices.Sorted(maps.Keys(want))) || p.n != len(want) {
				t.Fatalf("seed %d: postings of %d differ from the set of %d", seed, p.n, len(want))
			}
			dense := make(bitset, (universe+63)/64)
			p.orInto(dense)
			if dense.count() != len(want) {
				t.Fatalf("seed %d: %d bits, want %d", seed, dense.count(), len(want))
			}
			dense.each(func(x uint32) {
				if !want[x] {
					t.Fatalf("seed %d: bit %d", seed, x)
				}
			})
		}
		// Fill, then drain, so that every form is entered and left.
		for _, chance := range []int{90, 10, 70, 0} {
			for range 2 * universe {
				x := rng.Uint32N(universe)
				if add := rng.IntN(100) < chance; add && !want[x] {
					p.add(x)
					want[x] = true
				} else if !add && want[x] {
					p.remove(x)
					delete(want, x)
				}
			}
			check()
		}
		for x := range want {
			p.remove(x)
			delete(want, x)
		}
		check()
	}
}

func TestTable_finds_what_was_inserted_and_not_removed(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	// Few distinct hashes make long clusters, also across the end of a part.
	hashes := make([]uint32, 2000)
	for i := range hashes {
		hashes[i] = rng.Uint32N(4)<<26 | uint32(0xfff0+rng.IntN(32))
	}
	hashOf := func(id uint32) uint32 { return hashes[id] }
	tb, in := &table{}, map[uint32]bool{}
	for range 40_000 {
		id := rng.Uint32N(uint32(len(hashes)))
		if in[id] {
			tb.remove(hashes[id], id, hashOf)
			delete(in, id)
		} else {
			tb.insert(hashes[id], id, hashOf)
			in[id] = true
		}
		probe := rng.Uint32N(uint32(len(hashes)))
		if _, ok := tb.find(hashes[probe], func(x uint32) bool { return x == probe }); ok != in[probe] {
			t.Fatalf("seed %d: found %t, want %t", seed, ok, in[probe])
		}
	}
}

func TestRows_keep_lists_of_every_length(t *testing.T) {
	r := &rows{}
	names := map[int]uint32{}
	list := func(n int) []uint32 {
		ids := make([]uint32, n)
		for i := range ids {
			ids[i] = uint32(n*31 + i)
		}
		return ids
	}
	for n := 0; n <= termsMax; n += 1 + n/7 {
		names[n] = r.put(list(n))
	}
	names[termsMax] = r.put(list(termsMax))
	for n, name := range names {
		if n%2 == 0 {
			r.drop(name)
			names[n] = r.put(list(n))
		}
	}
	for n, name := range names {
		if !slices.Equal(r.get(name), list(n)) {
			t.Errorf("the list of %d came back with %d", n, len(r.get(name)))
		}
	}
}

func TestNumbers_forget_and_compare(t *testing.T) {
	n := &numbers{}
	for i := range uint32(3 * pageLen) {
		if i%3 == 0 || i > pageLen {
			n.put(i, float64(i))
		}
	}
	for i := uint32(0); i < 3*pageLen; i += 5 {
		n.remove(i)
	}
	for op := equal; op <= lessOrEqual; op++ {
		for _, v := range []float64{0, 3, pageLen + 1, 5000, math.Inf(1)} {
			got := make(bitset, 3*pageLen/64)
			n.scan(op, v, got)
			for i := range uint32(3 * pageLen) {
				has := (i%3 == 0 || i > pageLen) && i%5 != 0
				if want := has && op.holds(float64(i), v); got.has(i) != want || op.holds(n.get(i), v) != want {
					t.Fatalf("operator %d with %g on %d: %t", op, v, i, !want)
				}
			}
		}
	}
}

// Claims and marks that are in the store were made of these hashes.
func TestDispatchHash_never_changes(t *testing.T) {
	for _, c := range []struct {
		channel, address string
		want             uint64
	}{
		{"SMS", "+491701234567", 0xff14fa60d686a513},
		{"EMAIL", "a@example.com", 0x8475da9a6d3963f4},
		{"", "", 0x1ee5ccadbef2252},
	} {
		if got := DispatchHash(testApp, c.channel, c.address); got != c.want {
			t.Errorf("hash of %s %s is %#x, want %#x", c.channel, c.address, got, c.want)
		}
	}
}

func TestDispatchHash_tells_its_parts_apart(t *testing.T) {
	seen := map[uint64][3]string{}
	parts := []string{"", "a", "ab", "b", "abcdefgh", "abcdefghi", "\x00", "a\x00"}
	for _, x := range parts {
		for _, y := range parts {
			for _, z := range parts {
				h := DispatchHash(x, y, z)
				if old, ok := seen[h]; ok {
					t.Errorf("%q and %q have one hash", old, [3]string{x, y, z})
				}
				seen[h] = [3]string{x, y, z}
			}
		}
	}
}

// Shards are filled evenly, and so are the cohorts within each: chi-square far
// from its mean would mean that treatments fall on Regions unevenly.
func TestShard_is_even_and_independent_of_the_cohort(t *testing.T) {
	const n = 640_000
	var shards [Shards]int
	var cells [Shards][100]int
	for i := range n {
		id := "user" + strings.Repeat("x", i%3) + string(rune('a'+i%26)) + strconv.Itoa(i) + "@example.com"
		s := Shard(DispatchHash(testApp, "EMAIL", id))
		shards[s]++
		cells[s][endpoints.Cohort(testApp, id)]++
	}
	chi := 0.0
	for _, got := range shards {
		d := float64(got) - n/Shards
		chi += d * d / (n / Shards)
	}
	if chi > 63+6*math.Sqrt(2*63) {
		t.Errorf("chi-square of the shards is %.0f for 63 degrees of freedom", chi)
	}
	chi = 0
	for s := range cells {
		for _, got := range cells[s] {
			d := float64(got) - n/6400
			chi += d * d / (n / 6400)
		}
	}
	if chi > 6399+6*math.Sqrt(2*6399) {
		t.Errorf("chi-square of shards and cohorts is %.0f for 6399 degrees of freedom", chi)
	}
}
