package segments

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
)

// saved makes a dimensional segment that builds on others.
func saved(s *savedSegments, id string, on ...string) {
	g := &pinpoint.SegmentGroupList{Groups: []pinpoint.SegmentGroup{{}}}
	for _, source := range on {
		g.Groups[0].SourceSegments = append(g.Groups[0].SourceSegments, pinpoint.SegmentReference{Id: source})
	}
	s.save(&pinpoint.SegmentResponse{Id: id, SegmentType: pinpoint.SegmentTypeDimensional, SegmentGroups: g})
}

func chained(depth int) *savedSegments {
	s := &savedSegments{}
	saved(s, "s0")
	for i := 1; i <= depth; i++ {
		saved(s, fmt.Sprintf("s%d", i), fmt.Sprintf("s%d", i-1))
	}
	return s
}

func on(ids ...string) *pinpoint.SegmentGroupList {
	g := pinpoint.SegmentGroup{}
	for _, id := range ids {
		g.SourceSegments = append(g.SourceSegments, pinpoint.SegmentReference{Id: id})
	}
	return &pinpoint.SegmentGroupList{Groups: []pinpoint.SegmentGroup{g}}
}

func TestCompile_refuses_and_names_the_member(t *testing.T) {
	attribute := func(kind string, values ...string) *pinpoint.SegmentDimensions {
		return &pinpoint.SegmentDimensions{Attributes: map[string]pinpoint.AttributeDimension{
			"Ride": {AttributeType: pinpoint.AttributeType(kind), Values: values},
		}}
	}
	many := func(n int) []string {
		return strings.Split(strings.Repeat("x,", n-1)+"x", ",")
	}
	metrics := map[string]pinpoint.MetricDimension{}
	for i := range 101 {
		metrics[fmt.Sprint(i)] = pinpoint.MetricDimension{ComparisonOperator: "EQUAL"}
	}
	point := func(lat, lon float64, within *float64) *pinpoint.SegmentDimensions {
		return &pinpoint.SegmentDimensions{Location: &pinpoint.SegmentLocation{GPSPoint: &pinpoint.GPSPointDimension{
			Coordinates: &pinpoint.GPSCoordinates{Latitude: lat, Longitude: lon}, RangeInKilometers: within,
		}}}
	}
	recency := func(d, r string) *pinpoint.SegmentDimensions {
		return &pinpoint.SegmentDimensions{Behavior: &pinpoint.SegmentBehaviors{
			Recency: &pinpoint.RecencyDimension{Duration: pinpoint.Duration(d), RecencyType: pinpoint.RecencyType(r)},
		}}
	}
	imported := &savedSegments{}
	imported.save(&pinpoint.SegmentResponse{Id: "imported", SegmentType: pinpoint.SegmentTypeImport})
	saved(imported, "s0")
	two := on("imported")
	two.Groups = append(two.Groups, pinpoint.SegmentGroup{})
	loop := chained(1)
	saved(loop, "s0", "s1") // s0 version 2

	for _, c := range []struct {
		claim   string
		d       *pinpoint.SegmentDimensions
		g       *pinpoint.SegmentGroupList
		sources *savedSegments
		member  string
	}{
		{claim: "neither", member: "Dimensions"},
		{claim: "both", d: &pinpoint.SegmentDimensions{}, g: on(), member: "SegmentGroups"},
		{claim: "unknown attribute type", d: attribute("LIKE", "x"), member: "Dimensions.Attributes.Ride.AttributeType"},
		{claim: "no value", d: attribute("INCLUSIVE"), member: "Dimensions.Attributes.Ride.Values"},
		{claim: "101 values", d: attribute("INCLUSIVE", many(101)...), member: "Dimensions.Attributes.Ride.Values"},
		{claim: "value of 101 characters", d: attribute("", "x", strings.Repeat("ü", 101)), member: "Dimensions.Attributes.Ride.Values[1]"},
		{claim: "two values before", d: attribute("BEFORE", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"), member: "Dimensions.Attributes.Ride.Values"},
		{claim: "one value between", d: attribute("BETWEEN", "2026-01-01T00:00:00Z"), member: "Dimensions.Attributes.Ride.Values"},
		{claim: "between backwards", d: attribute("BETWEEN", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"), member: "Dimensions.Attributes.Ride.Values"},
		{claim: "on no date", d: attribute("ON", "tomorrow"), member: "Dimensions.Attributes.Ride.Values[0]"},
		{claim: "101 dimensions", d: &pinpoint.SegmentDimensions{Metrics: metrics}, member: "Dimensions"},
		{
			claim:  "unknown operator",
			d:      &pinpoint.SegmentDimensions{Metrics: map[string]pinpoint.MetricDimension{"age": {ComparisonOperator: "ABOUT"}}},
			member: "Dimensions.Metrics.age.ComparisonOperator",
		},
		{claim: "unknown duration", d: recency("DAY_2", "ACTIVE"), member: "Dimensions.Behavior.Recency.Duration"},
		{claim: "unknown recency", d: recency("DAY_7", "LAZY"), member: "Dimensions.Behavior.Recency.RecencyType"},
		{
			claim: "unknown set type",
			d: &pinpoint.SegmentDimensions{Demographic: &pinpoint.SegmentDemographics{
				Make: &pinpoint.SetDimension{DimensionType: "FUZZY", Values: []string{"x"}},
			}},
			member: "Dimensions.Demographic.Make.DimensionType",
		},
		{claim: "latitude beyond the pole", d: point(90.1, 0, new(1.0)), member: "Dimensions.Location.GPSPoint.Coordinates.Latitude"},
		{claim: "longitude beyond the date line", d: point(0, -181, new(1.0)), member: "Dimensions.Location.GPSPoint.Coordinates.Longitude"},
		{claim: "no range", d: point(0, 0, nil), member: "Dimensions.Location.GPSPoint.RangeInKilometers"},
		{claim: "range below 0", d: point(0, 0, new(-1.0)), member: "Dimensions.Location.GPSPoint.RangeInKilometers"},
		{claim: "six groups", g: &pinpoint.SegmentGroupList{Groups: make([]pinpoint.SegmentGroup, 6)}, member: "SegmentGroups.Groups"},
		{claim: "unknown include", g: &pinpoint.SegmentGroupList{Include: "SOME"}, member: "SegmentGroups.Include"},
		{
			claim:  "unknown type",
			g:      &pinpoint.SegmentGroupList{Groups: []pinpoint.SegmentGroup{{Type: "SOME"}}},
			member: "SegmentGroups.Groups[0].Type",
		},
		{claim: "six sources", g: on("a", "b", "c", "d", "e", "f"), member: "SegmentGroups.Groups[0].SourceSegments"},
		{claim: "unknown source", g: on("nowhere"), member: "SegmentGroups.Groups[0].SourceSegments[0].Id"},
		{
			claim: "unknown version", sources: chained(0), member: "SegmentGroups.Groups[0].SourceSegments[0].Id",
			g: &pinpoint.SegmentGroupList{Groups: []pinpoint.SegmentGroup{{SourceSegments: []pinpoint.SegmentReference{{Id: "s0", Version: new(2)}}}}},
		},
		{claim: "six levels", g: on("s5"), sources: chained(5), member: "SegmentGroups.Groups[0].SourceSegments[0]"},
		{claim: "a circle", g: on("s1"), sources: loop, member: "SegmentGroups.Groups[0].SourceSegments[0].Id"},
		{claim: "imported with another", g: on("imported", "s0"), sources: imported, member: "SegmentGroups.Groups[0].SourceSegments"},
		{claim: "imported and a second group", g: two, sources: imported, member: "SegmentGroups.Groups[0].SourceSegments"},
	} {
		t.Run(c.claim, func(t *testing.T) {
			if c.sources == nil {
				c.sources = &savedSegments{}
			}
			_, err := Compile(c.d, c.g, c.sources, testNow)
			f, ok := errors.AsType[*aws.Fault](err)
			if !ok || f.Kind != aws.KindInvalid || f.Member != c.member {
				t.Fatalf("error %v of member %q, want one of %q", err, f.Member, c.member)
			}
			if !strings.Contains(f.Message, strings.SplitN(c.member, "[", 2)[0]) {
				t.Errorf("the sentence %q does not name the member", f.Message)
			}
		})
	}
}

func TestCompile_accepts_what_is_at_the_bound(t *testing.T) {
	five := &pinpoint.SegmentGroupList{Groups: make([]pinpoint.SegmentGroup, 5)}
	five.Groups[4].SourceSegments = on("s4", "s4", "s3", "s2", "s1").Groups[0].SourceSegments
	if _, err := Compile(nil, five, chained(4), testNow); err != nil {
		t.Error(err)
	}
	values := make([]string, 100)
	for i := range values {
		values[i] = strings.Repeat("ü", 100)
	}
	d := &pinpoint.SegmentDimensions{Attributes: map[string]pinpoint.AttributeDimension{"Ride": {Values: values}}}
	if _, err := Compile(d, nil, nil, testNow); err != nil {
		t.Error(err)
	}
}

// An old version of oneself is another segment.
func TestCompile_may_build_on_an_earlier_version_of_the_same_segment(t *testing.T) {
	s := chained(0)
	next := &pinpoint.SegmentResponse{Id: "s0", Version: new(2), SegmentType: pinpoint.SegmentTypeDimensional, SegmentGroups: on("s0")}
	next.SegmentGroups.Groups[0].SourceSegments[0].Version = new(1)
	if _, err := CompileSegment(next, s, testNow); err != nil {
		t.Error(err)
	}
	next.SegmentGroups.Groups[0].SourceSegments[0].Version = nil
	s.all["s0"] = append(s.all["s0"], next)
	if _, err := CompileSegment(next, s, testNow); aws.KindOf(err) != aws.KindInvalid {
		t.Errorf("error %v, want a circle", err)
	}
}

// A lattice of segments has a number of paths that nobody could walk.
func TestCompile_visits_each_source_once(t *testing.T) {
	s := &savedSegments{}
	var below []string
	for level := range 6 {
		var here []string
		for i := range 5 {
			id := fmt.Sprintf("l%d-%d", level, i)
			saved(s, id, below...)
			here = append(here, id)
		}
		below = here
	}
	asked := &counting{Sources: s}
	if _, err := Compile(nil, on("l4-0", "l4-1", "l4-2", "l4-3", "l4-4"), asked, testNow); err != nil {
		t.Fatal(err)
	}
	if asked.n > 5*5*5+5 {
		t.Errorf("%d look-ups", asked.n)
	}
}

type counting struct {
	Sources
	n int
}

func (c *counting) Segment(id string, version int) (*pinpoint.SegmentResponse, error) {
	c.n++
	return c.Sources.Segment(id, version)
}

func TestGroups_join(t *testing.T) {
	w := newWorld(t, newGen(1))
	for _, id := range []string{"a", "b", "ab", "none"} {
		e := &endpoints.Endpoint{App: testApp, ID: id, Attributes: map[string][]string{"In": strings.Split(id, "")}}
		w.ix.Upsert(w.key(id), e)
	}
	in := func(v string) pinpoint.SegmentDimensions {
		return pinpoint.SegmentDimensions{Attributes: map[string]pinpoint.AttributeDimension{"In": {Values: []string{v}}}}
	}
	groups := func(include string, values ...string) *pinpoint.SegmentGroupList {
		g := &pinpoint.SegmentGroupList{Include: pinpoint.Include(include)}
		for _, v := range values {
			g.Groups = append(g.Groups, pinpoint.SegmentGroup{Dimensions: []pinpoint.SegmentDimensions{in(v)}})
		}
		return g
	}
	within := func(kind string) *pinpoint.SegmentGroupList {
		return &pinpoint.SegmentGroupList{Groups: []pinpoint.SegmentGroup{{
			Type: pinpoint.Type(kind), Dimensions: []pinpoint.SegmentDimensions{in("a"), in("b")},
		}}}
	}
	excluding := groups("ALL", "a", "b")
	excluding.Groups[1].Type = "NONE"
	for _, c := range []struct {
		claim string
		g     *pinpoint.SegmentGroupList
		want  string
	}{
		{"ALL of two groups", groups("ALL", "a", "b"), "ab"},
		{"ANY of two groups", groups("ANY", "a", "b"), "a ab b"},
		{"NONE with two groups subtracts the second from the first", groups("NONE", "a", "b"), "a"},
		{"NONE with one group is everybody else", groups("NONE", "a"), "b none"},
		{"no groups filter nothing", groups("ANY"), "a ab b none"},
		{"ALL of two dimensions", within("ALL"), "ab"},
		{"ANY of two dimensions", within("ANY"), "a ab b"},
		{"NONE of two dimensions", within("NONE"), "none"},
		{"a second group that excludes", excluding, "a"},
	} {
		t.Run(c.claim, func(t *testing.T) {
			compiled, err := Compile(nil, c.g, nil, testNow)
			if err != nil {
				t.Fatal(err)
			}
			set, err := w.ix.Evaluate(t.Context(), testApp, compiled)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, id := range []string{"a", "ab", "b", "none"} {
				if set.Has(w.key(id)) {
					got = append(got, id)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("members %q, want %q", s, c.want)
			}
		})
	}
}

func TestDistance_is_that_of_known_cities(t *testing.T) {
	for _, c := range []struct {
		from, to       string
		a, b, x, y, km float64
	}{
		{"Berlin", "Paris", 52.52, 13.405, 48.8566, 2.3522, 877.5},
		{"Auckland", "Honolulu", -36.8485, 174.7633, 21.3069, -157.8583, 7076},
	} {
		if got := distance(c.a, c.b, c.x, c.y); got < c.km*0.998 || got > c.km*1.002 {
			t.Errorf("from %s to %s %.1f km, want %.1f", c.from, c.to, got, c.km)
		}
	}
}

func FuzzParseDate(f *testing.F) {
	for _, v := range dateValues {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		at := parseDate(v)
		want, err := aws.ParseTimestamp(v)
		if err == nil && at != want.UnixMicro() {
			t.Errorf("%q is at %d, want %d", v, at, want.UnixMicro())
		}
		if err != nil && at != noDate {
			t.Errorf("%q is no instant, but at %d", v, at)
		}
	})
}

func FuzzDecodeChunk(f *testing.F) {
	f.Add(appendChunk(nil, chunk{endpoints: make([][tailBytes]byte, 2), users: make([][tailBytes]byte, 1)}))
	f.Add([]byte{0xff, 0xff, 0x03, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChunk(b)
		if err != nil {
			return
		}
		if again, err := decodeChunk(appendChunk(nil, c)); err != nil || len(again.endpoints) != len(c.endpoints) || len(again.users) != len(c.users) {
			t.Errorf("a chunk of %d and %d came back with error %v", len(c.endpoints), len(c.users), err)
		}
	})
}
