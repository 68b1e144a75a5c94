package quorum

import (
	"cmp"
	"maps"
	"slices"
)

// divide gives each shard to one of the Regions in weights, in numbers that are
// even by weight (largest remainders), moving as few shards as can be from their
// present owners. Where no Region has a weight all count the same. It is a pure
// function: every voter divides alike.
func divide(now [Shards]string, weights map[string]int) [Shards]string {
	owned := map[string]int{}
	for _, owner := range now {
		owned[owner]++
	}
	want := quotas(weights, owned)
	kept := map[string]int{}
	var free []int // shards without an owner, or of one that has too many
	for i, owner := range now {
		if kept[owner] < want[owner] {
			kept[owner]++
			continue
		}
		free = append(free, i)
	}
	next := now
	for _, name := range slices.Sorted(maps.Keys(want)) {
		for ; kept[name] < want[name]; kept[name]++ {
			next[free[0]], free = name, free[1:]
		}
	}
	return next
}

// quotas says how many shards each Region has: its share rounded down, and one
// more for the largest remainders until all are given. Of equal remainders that
// Region is first which would otherwise have to give a shard away.
func quotas(weights map[string]int, owned map[string]int) map[string]int {
	total := 0
	for _, w := range weights {
		total += w
	}
	weight := func(name string) int { return weights[name] }
	if total == 0 {
		total, weight = len(weights), func(string) int { return 1 }
	}
	want, left := map[string]int{}, Shards
	for name := range weights {
		want[name] = Shards * weight(name) / total
		left -= want[name]
	}
	names := slices.Sorted(maps.Keys(weights))
	remainder := func(name string) int { return Shards * weight(name) % total }
	has := func(name string) int {
		if owned[name] > want[name] {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(remainder(b), remainder(a)), cmp.Compare(has(b), has(a)))
	})
	for _, name := range names[:left] {
		want[name]++
	}
	return want
}
