package segments

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
)

// blinder makes 16-byte hashes as the store does, without its keys.
type blinder struct{}

func (blinder) Blind(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return string(h[:16])
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// world is an index and, beside it, the documents that it was told of.
type world struct {
	t     testing.TB
	g     *gen
	ix    *Index
	blind endpoints.Blinder
	all   map[string]*endpoints.Endpoint
	naive *naive
}

func newWorld(t testing.TB, g *gen) *world {
	return &world{
		t: t, g: g, ix: newIndex(blinder{}, quiet), blind: blinder{}, all: map[string]*endpoints.Endpoint{},
		naive: &naive{
			users: map[string]*endpoints.User{}, segments: &savedSegments{}, members: map[string]importedList{},
			touched: map[string]time.Time{}, now: g.now,
		},
	}
}

func (w *world) key(id string) string { return endpoints.Key(w.blind, testApp, id) }

// change does one random thing to the audience.
func (w *world) change() {
	g := w.g
	switch g.IntN(10) {
	case 0, 1:
		id := g.id()
		w.ix.Remove(w.key(id))
		delete(w.all, id)
		delete(w.naive.touched, id)
	case 2, 3:
		u := &endpoints.User{App: testApp, ID: g.userID(), Attributes: g.attributes()}
		w.ix.UpsertUser(endpoints.UserKey(w.blind, testApp, u.ID), u)
		w.naive.users[u.ID] = u
	case 4:
		id := g.userID()
		w.ix.UpsertUser(endpoints.UserKey(w.blind, testApp, id), nil)
		delete(w.naive.users, id)
	case 5:
		id, at := g.id(), g.moment()
		w.ix.Touch(w.key(id), at)
		if w.all[id] != nil && at.After(w.naive.touched[id]) {
			w.naive.touched[id] = at
		}
	default:
		id, at := g.id(), g.moment()
		old := w.all[id]
		if old != nil && at.Before(old.UpdatedAt.Time()) {
			at = old.UpdatedAt.Time() // a record's latest stamp never goes back
		}
		e := g.endpoint(id, at)
		if old != nil && g.IntN(2) == 0 { // most updates change little
			e.Attributes, e.Demographic, e.HasCoordinates = old.Attributes, old.Demographic, old.HasCoordinates
			e.Latitude, e.Longitude = old.Latitude, old.Longitude
		}
		w.ix.Upsert(w.key(id), e)
		w.all[id] = e
	}
}

// judge compares index and naive evaluator on one segment, in every way the
// index can be asked.
func (w *world) judge(s *pinpoint.SegmentResponse, seed uint64) {
	w.t.Helper()
	ctx := w.t.Context()
	c, err := CompileSegment(s, w.naive.segments, w.g.now)
	if err != nil {
		w.t.Fatalf("seed %d: compile: %v", seed, err)
	}
	var want []string
	eligible := 0
	for id, e := range w.all {
		if w.naive.segment(s, e) {
			want = append(want, id)
			if e.Status == "ACTIVE" && !e.OptedOut && e.Address != "" {
				eligible++
			}
		}
	}
	count, ok, err := w.ix.Count(ctx, testApp, c)
	if err != nil || count != len(want) || ok != eligible {
		w.t.Fatalf("seed %d: count %d, eligible %d, error %v; want %d and %d of %d\n%s",
			seed, count, ok, err, len(want), eligible, len(w.all), describe(s))
	}
	set, err := w.ix.Evaluate(ctx, testApp, c)
	if err != nil || set.Len() != len(want) {
		w.t.Fatalf("seed %d: set of %d, error %v; want %d", seed, set.Len(), err, len(want))
	}
	for i := range w.g.ids {
		id := fmt.Sprintf("endpoint-%d", i)
		member := slices.Contains(want, id)
		if set.Has(w.key(id)) != member {
			w.t.Fatalf("seed %d: set has %s: %t, want %t\n%s", seed, id, !member, member, describe(s))
		}
		one, err := w.ix.Matches(ctx, testApp, c, w.key(id))
		if err != nil || one != member {
			w.t.Fatalf("seed %d: %s matches: %t, error %v, want %t\n%s", seed, id, one, err, member, describe(s))
		}
	}
	w.judgeWalk(c, want, seed)
}

func (w *world) judgeWalk(c *Criteria, want []string, seed uint64) {
	w.t.Helper()
	snap, err := w.ix.Walk(w.t.Context(), testApp, c)
	if err != nil || snap.Len() != len(want) {
		w.t.Fatalf("seed %d: snapshot of %d, error %v; want %d", seed, snap.Len(), err, len(want))
	}
	seen := map[string]bool{}
	for shard := range Shards {
		at := Before(shard)
		for {
			page := snap.Next(shard, at, 1+w.g.IntN(3))
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				if m.Hash < at || Shard(m.Hash) != shard || seen[m.Key] {
					w.t.Fatalf("seed %d: member with hash %x twice or out of order after %x in shard %d", seed, m.Hash, at, shard)
				}
				at, seen[m.Key] = m.Hash, true
			}
		}
	}
	if len(seen) != len(want) {
		w.t.Fatalf("seed %d: walked %d members, want %d", seed, len(seen), len(want))
	}
	for _, id := range want {
		if !seen[w.key(id)] {
			w.t.Fatalf("seed %d: %s was not walked", seed, id)
		}
	}
}

func describe(s *pinpoint.SegmentResponse) string {
	return fmt.Sprintf("dimensions %+v\ngroups %+v", s.Dimensions, s.SegmentGroups)
}

// segment makes a random segment; every other one is saved, for others to build on.
func (w *world) segment(i int, dimensional, imported *[]string) *pinpoint.SegmentResponse {
	s := &pinpoint.SegmentResponse{Id: fmt.Sprintf("segment-%d", i), SegmentType: pinpoint.SegmentTypeDimensional}
	if w.g.IntN(2) == 0 {
		s.Dimensions = w.g.dimensions()
	} else {
		s.SegmentGroups = w.g.groups(*dimensional, *imported)
	}
	// Not beyond the depth that is allowed.
	if _, err := CompileSegment(s, w.naive.segments, w.g.now); err == nil && len(*dimensional) < 4 {
		w.naive.segments.save(s)
		*dimensional = append(*dimensional, s.Id)
	}
	return s
}

func TestIndex_agrees_with_the_naive_evaluator(t *testing.T) {
	base := rand.Uint64()
	for round := range uint64(60) {
		seed := base + round
		g := newGen(seed)
		w := newWorld(t, g)
		var dimensional, imported []string
		for i := range 60 {
			for range g.IntN(30) {
				w.change()
			}
			w.judge(w.segment(i, &dimensional, &imported), seed)
		}
		if got, want := w.ix.Len(testApp), len(w.all); got != want {
			t.Fatalf("seed %d: the index holds %d endpoints, want %d", seed, got, want)
		}
	}
}

// With thousands of endpoints lists become blocks and numbers become arrays.
func TestIndex_agrees_with_the_naive_evaluator_on_a_large_audience(t *testing.T) {
	seed := rand.Uint64()
	g := newGen(seed)
	g.ids = 4000
	w := newWorld(t, g)
	for range 12_000 {
		w.change()
	}
	var dimensional, imported []string
	for i := range 25 {
		for range 200 {
			w.change()
		}
		w.judge(w.segment(i, &dimensional, &imported), seed)
	}
}

// What is taken out again must leave nothing behind: no values, no users, no numbers.
func TestIndex_forgets_what_is_removed(t *testing.T) {
	seed := rand.Uint64()
	w := newWorld(t, newGen(seed))
	for range 3000 {
		w.change()
	}
	for id := range w.all {
		w.ix.Remove(w.key(id))
	}
	for id := range w.naive.users {
		w.ix.UpsertUser(endpoints.UserKey(w.blind, testApp, id), nil)
	}
	a := w.ix.apps.Load().find(testApp)
	if n := len(a.dict.free); n != int(a.dict.used) {
		t.Errorf("seed %d: %d of %d values are still there", seed, int(a.dict.used)-n, a.dict.used)
	}
	for _, c := range a.dict.columns {
		if len(c.terms) != 0 {
			t.Errorf("seed %d: column %s lists %d values", seed, c.name, len(c.terms))
		}
		for i := range 100 {
			if c.numbers != nil && c.numbers.get(uint32(i)) == c.numbers.get(uint32(i)) {
				t.Errorf("seed %d: metric %s has a number for %d", seed, c.name, i)
			}
		}
	}
	if len(a.userFree) != int(a.userUsed) || len(a.free) != int(a.used) {
		t.Errorf("seed %d: %d users and %d endpoints are still there", seed, int(a.userUsed)-len(a.userFree), int(a.used)-len(a.free))
	}
	for k, c := range a.rows.classes {
		if len(c.free) != int(c.used) {
			t.Errorf("seed %d: class %d holds %d rows", seed, k, int(c.used)-len(c.free))
		}
	}
}

// A run must not take a new endpoint for the old one whose ordinal it got.
func TestSnapshot_leaves_out_who_is_gone_and_who_came_later(t *testing.T) {
	w := newWorld(t, newGen(1))
	at := testNow
	for _, id := range []string{"a", "b"} {
		w.ix.Upsert(w.key(id), w.g.endpoint(id, at))
	}
	c, err := Compile(&pinpoint.SegmentDimensions{}, nil, nil, testNow)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := w.ix.Walk(t.Context(), testApp, c)
	if err != nil {
		t.Fatal(err)
	}
	set, err := w.ix.Evaluate(t.Context(), testApp, c)
	if err != nil {
		t.Fatal(err)
	}
	w.ix.Remove(w.key("a"))
	w.ix.Upsert(w.key("c"), w.g.endpoint("c", at))
	var keys []string
	for shard := range Shards {
		for _, m := range snap.Next(shard, Before(shard), 10) {
			keys = append(keys, m.Key)
		}
	}
	if !slices.Equal(keys, []string{w.key("b")}) {
		t.Errorf("walked %d members, want b alone", len(keys))
	}
	if set.Has(w.key("c")) || set.Has(w.key("a")) || !set.Has(w.key("b")) {
		t.Error("the set holds a or c, or lost b")
	}
	w.ix.RemoveApp(testApp)
	if set.Has(w.key("b")) || w.ix.Len(testApp) != 0 {
		t.Error("the members of a removed app are still there")
	}
}

// The members of an imported segment are looked up a chunk at a time.
func TestAudience_drops_who_took_an_ordinal_meanwhile(t *testing.T) {
	w := newWorld(t, newGen(1))
	for _, id := range []string{"a", "b"} {
		w.ix.Upsert(w.key(id), w.g.endpoint(id, testNow))
	}
	a := w.ix.apps.Load().find(testApp)
	found, births, reuses := slices.Clone(a.live), a.births, a.reuses
	w.ix.Remove(w.key("a"))
	w.ix.Upsert(w.key("c"), w.g.endpoint("c", testNow))
	if a.reuses == reuses {
		t.Error("the reuse of an ordinal was not counted")
	}
	a.dropBorn(found, births)
	if found.count() != 1 {
		t.Errorf("%d members, want b alone", found.count())
	}
}

func TestSnapshot_keeps_equal_addresses_together(t *testing.T) {
	w := newWorld(t, newGen(1))
	for i := range 10 {
		e := w.g.endpoint(fmt.Sprintf("endpoint-%d", i), testNow)
		e.ChannelType, e.Address = "SMS", "+491701234567"
		w.ix.Upsert(w.key(e.ID), e)
	}
	c, err := Compile(&pinpoint.SegmentDimensions{}, nil, nil, testNow)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := w.ix.Walk(t.Context(), testApp, c)
	if err != nil {
		t.Fatal(err)
	}
	shard := Shard(DispatchHash(testApp, "SMS", "+491701234567"))
	page := snap.Next(shard, Before(shard), 3)
	if len(page) != 10 || !slices.IsSortedFunc(page, func(x, y Member) int { return strings.Compare(x.Key, y.Key) }) {
		t.Errorf("a page of %d members, want all 10 in order of key", len(page))
	}
	if rest := snap.Next(shard, page[len(page)-1].Hash, 3); len(rest) != 0 {
		t.Errorf("%d members after the last", len(rest))
	}
}

// Whatever moves meanwhile, an answer is that of one moment: nobody is counted
// twice or missed.
func TestIndex_answers_from_one_moment_while_updates_stream_in(t *testing.T) {
	const n = 3000
	ix := newIndex(blinder{}, quiet)
	put := func(i int, side string) {
		e := &endpoints.Endpoint{
			App: testApp, ID: fmt.Sprint(i), Address: "a", UserID: fmt.Sprint(i % 50),
			Attributes: map[string][]string{"Side": {side}}, Metrics: map[string]float64{side: 1},
		}
		ix.Upsert(endpoints.Key(blinder{}, testApp, e.ID), e)
	}
	for i := range n {
		put(i, "left")
	}
	either, err := Compile(nil, &pinpoint.SegmentGroupList{Groups: []pinpoint.SegmentGroup{{Type: "ANY", Dimensions: []pinpoint.SegmentDimensions{
		{Attributes: map[string]pinpoint.AttributeDimension{"Side": {Values: []string{"left"}}}},
		{Metrics: map[string]pinpoint.MetricDimension{"right": {ComparisonOperator: "EQUAL", Value: 1}}},
	}}}}, nil, testNow)
	if err != nil {
		t.Fatal(err)
	}
	var updates sync.WaitGroup
	for k := range 2 {
		updates.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(k), 4))
			for range 20_000 {
				// Each updater has its half; an endpoint has one writer at a time.
				put(rng.IntN(n/2)*2+k, []string{"left", "right"}[rng.IntN(2)])
				u := fmt.Sprint(rng.IntN(50))
				ix.UpsertUser(endpoints.UserKey(blinder{}, testApp, u), &endpoints.User{Attributes: map[string][]string{"x": {u}}})
			}
		})
	}
	done := make(chan struct{})
	go func() { updates.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if count, _, err := ix.Count(t.Context(), testApp, either); err != nil || count != n {
			t.Fatalf("counted %d, error %v; want %d", count, err, n)
		}
		snap, err := ix.Walk(t.Context(), testApp, either)
		if err != nil {
			t.Fatal(err)
		}
		shard := Shard(DispatchHash(testApp, "", "a"))
		if page := snap.Next(shard, Before(shard), 1); len(page) != n {
			t.Fatalf("walked %d, want %d", len(page), n)
		}
	}
}
