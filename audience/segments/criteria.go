package segments

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
)

// Criteria is who belongs to a segment, compiled: checked, its source segments
// joined in, its durations counted back from the moment of compilation. It does
// not change and may be used by many at once.
type Criteria struct {
	root    node
	imports []*importLeaf
}

// Dynamic reports whether membership follows from the endpoints alone: no
// imported segment is involved. Events may start only such campaigns and
// journeys. Source: engagement 3.3.
func (c *Criteria) Dynamic() bool { return len(c.imports) == 0 }

// Sources finds the segments that criteria build on.
type Sources interface {
	// Segment returns a version of a segment of the app, the latest for version
	// 0; nil when there is none.
	Segment(id string, version int) (*pinpoint.SegmentResponse, error)
}

// Bounds of a segment. Source: engagement 3.2, 10.
const (
	dimensionsMax     = 100
	groupsMax         = 5
	sourceSegmentsMax = 5 // of a group
	sourceDepthMax    = 5
	valueCharsMax     = 100
	valuesMax         = 100 // of a segment
	// sourcesMax bounds the distinct segments that one builds on, directly or not.
	sourcesMax = 100
)

// Compile compiles a segment that has no name yet: exactly one of dimensions
// and groups.
func Compile(d *pinpoint.SegmentDimensions, g *pinpoint.SegmentGroupList, sources Sources, now time.Time) (*Criteria, error) {
	c := &compiler{sources: sources, now: now, known: map[version]*sourceNode{}}
	root, _, err := c.segment(d, g)
	if err != nil {
		return nil, err
	}
	return &Criteria{root, c.imports}, nil
}

// CompileSegment compiles a saved segment, or one that is about to be saved.
func CompileSegment(s *pinpoint.SegmentResponse, sources Sources, now time.Time) (*Criteria, error) {
	c := &compiler{sources: sources, now: now, known: map[version]*sourceNode{}}
	v := versionOf(s)
	c.path = []version{v}
	root, _, err := c.saved(s, v)
	if err != nil {
		return nil, err
	}
	return &Criteria{root, c.imports}, nil
}

// version names one version of a segment.
type version struct {
	id     string
	number int
}

func versionOf(s *pinpoint.SegmentResponse) version {
	v := version{id: s.Id}
	if s.Version != nil {
		v.number = *s.Version
	}
	return v
}

type compiler struct {
	sources Sources
	now     time.Time
	path    []version // the saved segments that are being compiled, outermost first
	known   map[version]*sourceNode
	imports []*importLeaf

	// Of the segment that is being compiled.
	dimensions, values int
}

// saved compiles a segment and says how deep its sources go.
func (c *compiler) saved(s *pinpoint.SegmentResponse, v version) (node, int, error) {
	if s.SegmentType == pinpoint.SegmentTypeImport {
		leaf := &importLeaf{version: v}
		c.imports = append(c.imports, leaf)
		return leaf, 0, nil
	}
	return c.segment(s.Dimensions, s.SegmentGroups)
}

func (c *compiler) segment(d *pinpoint.SegmentDimensions, g *pinpoint.SegmentGroupList) (n node, depth int, err error) {
	outer := *c
	c.dimensions, c.values = 0, 0
	defer func() { c.dimensions, c.values = outer.dimensions, outer.values }()
	switch {
	case d != nil && g != nil:
		return nil, 0, aws.InvalidMember("SegmentGroups", "Dimensions and SegmentGroups: give one of them, not both")
	case d != nil:
		n, err = c.dims(d, "Dimensions")
		return n, 0, err
	case g != nil:
		return c.groups(g)
	default:
		return nil, 0, aws.InvalidMember("Dimensions", "Dimensions or SegmentGroups: one of them is required")
	}
}

func (c *compiler) groups(g *pinpoint.SegmentGroupList) (node, int, error) {
	const at = "SegmentGroups."
	if len(g.Groups) > groupsMax {
		return nil, 0, aws.InvalidMember(at+"Groups", "SegmentGroups.Groups: at most %d groups, not %d", groupsMax, len(g.Groups))
	}
	how, err := joinOf(at+"Include", string(g.Include))
	if err != nil {
		return nil, 0, err
	}
	var nodes []node
	deepest := 0
	for i := range g.Groups {
		path := fmt.Sprintf("%sGroups[%d]", at, i)
		n, depth, imported, err := c.group(&g.Groups[i], path)
		if err != nil {
			return nil, 0, err
		}
		if imported && len(g.Groups) > 1 {
			return nil, 0, aws.InvalidMember(path+".SourceSegments",
				"%s.SourceSegments: a segment that builds on an imported one has one group", path)
		}
		deepest = max(deepest, depth)
		nodes = append(nodes, n)
	}
	if how == joinNone && len(nodes) > 1 {
		return allOf(nodes[0], not(anyOf(nodes[1:]...))), deepest, nil
	}
	return how.of(nodes), deepest, nil
}

func (c *compiler) group(g *pinpoint.SegmentGroup, at string) (n node, depth int, imported bool, err error) {
	base, depth, imported, err := c.base(g, at)
	if err != nil {
		return nil, 0, false, err
	}
	how, err := joinOf(at+".Type", string(g.Type))
	if err != nil {
		return nil, 0, false, err
	}
	var dims []node
	for i := range g.Dimensions {
		d, err := c.dims(&g.Dimensions[i], fmt.Sprintf("%s.Dimensions[%d]", at, i))
		if err != nil {
			return nil, 0, false, err
		}
		dims = append(dims, d)
	}
	return allOf(base, how.of(dims)), depth, imported, nil
}

// base is what a group starts from: its source segments, joined.
func (c *compiler) base(g *pinpoint.SegmentGroup, at string) (n node, depth int, imported bool, err error) {
	how, err := joinOf(at+".SourceType", string(g.SourceType))
	if err != nil {
		return nil, 0, false, err
	}
	if len(g.SourceSegments) > sourceSegmentsMax {
		return nil, 0, false, aws.InvalidMember(at+".SourceSegments",
			"%s.SourceSegments: at most %d segments, not %d", at, sourceSegmentsMax, len(g.SourceSegments))
	}
	var nodes []node
	for i, ref := range g.SourceSegments {
		path := fmt.Sprintf("%s.SourceSegments[%d]", at, i)
		src, err := c.source(ref, path)
		if err != nil {
			return nil, 0, false, err
		}
		if _, ok := src.node.(*importLeaf); ok {
			imported = true
		}
		if depth = max(depth, src.depth+1); depth > sourceDepthMax {
			return nil, 0, false, aws.InvalidMember(path,
				"%s: segments build on each other more than %d levels deep", path, sourceDepthMax)
		}
		nodes = append(nodes, src)
	}
	if imported && len(nodes) > 1 {
		return nil, 0, false, aws.InvalidMember(at+".SourceSegments",
			"%s.SourceSegments: an imported segment cannot be joined with others", at)
	}
	return how.of(nodes), depth, imported, nil
}

// source compiles a segment that another builds on, once for each version.
func (c *compiler) source(ref pinpoint.SegmentReference, at string) (*sourceNode, error) {
	number := 0
	if ref.Version != nil {
		if number = *ref.Version; number < 1 {
			return nil, aws.InvalidMember(at+".Version", "%s.Version: versions start from 1", at)
		}
	}
	s, err := c.sources.Segment(ref.Id, number)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, aws.InvalidMember(at+".Id", "%s: there is no segment %q with that version in this app", at, ref.Id)
	}
	v := versionOf(s)
	if slices.Contains(c.path, v) {
		return nil, aws.InvalidMember(at+".Id", "%s: segment %q would build on itself", at, ref.Id)
	}
	if n, ok := c.known[v]; ok {
		return n, nil
	}
	if len(c.known) == sourcesMax {
		return nil, aws.InvalidMember(at, "%s: a segment builds on at most %d others, directly and through them", at, sourcesMax)
	}
	if len(c.path) > sourceDepthMax+1 {
		return nil, aws.InvalidMember(at, "%s: segments build on each other more than %d levels deep", at, sourceDepthMax)
	}
	c.path = append(c.path, v)
	n, depth, err := c.saved(s, v)
	c.path = c.path[:len(c.path)-1]
	if err != nil {
		return nil, err
	}
	src := &sourceNode{node: n, depth: depth}
	c.known[v] = src
	return src, nil
}

// join is how parts become one.
type join uint8

const (
	joinAll join = iota
	joinAny
	joinNone
)

// joinOf reads Include, SourceType or Type; ALL when it is absent.
func joinOf(member, value string) (join, error) {
	switch value {
	case "", "ALL":
		return joinAll, nil
	case "ANY":
		return joinAny, nil
	case "NONE":
		return joinNone, nil
	default:
		return 0, aws.InvalidMember(member, "%s: %q is not one of ALL, ANY, NONE", member, value)
	}
}

// of joins nodes; no nodes filter nothing.
func (j join) of(nodes []node) node {
	switch {
	case len(nodes) == 0 || j == joinAll:
		return allOf(nodes...)
	case j == joinAny:
		return anyOf(nodes...)
	default:
		return not(anyOf(nodes...))
	}
}

// dims compiles one SegmentDimensions: all of its dimensions must hold.
func (c *compiler) dims(d *pinpoint.SegmentDimensions, at string) (node, error) {
	var nodes []node
	add := func(n node, err error) error {
		if err != nil {
			return err
		}
		c.dimensions++
		if c.dimensions > dimensionsMax {
			return aws.InvalidMember(at, "%s: a segment has at most %d dimensions", at, dimensionsMax)
		}
		nodes = append(nodes, n)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		if err := add(c.attribute(columnAttribute, name, d.Attributes[name], at+".Attributes."+name)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.UserAttributes)) {
		if err := add(c.attribute(columnUserAttribute, name, d.UserAttributes[name], at+".UserAttributes."+name)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Metrics)) {
		if err := add(c.metric(name, d.Metrics[name], at+".Metrics."+name)); err != nil {
			return nil, err
		}
	}
	if d.Behavior != nil && d.Behavior.Recency != nil {
		if err := add(c.recency(d.Behavior.Recency, at+".Behavior.Recency")); err != nil {
			return nil, err
		}
	}
	if g := d.Demographic; g != nil {
		for _, m := range []struct {
			member string
			kind   columnKind
			set    *pinpoint.SetDimension
		}{
			{"AppVersion", columnDemographic, g.AppVersion},
			{"Channel", columnChannel, g.Channel},
			{"DeviceType", columnDemographic, g.DeviceType},
			{"Make", columnDemographic, g.Make},
			{"Model", columnDemographic, g.Model},
			{"Platform", columnDemographic, g.Platform},
		} {
			if m.set == nil {
				continue
			}
			name := m.member
			if m.kind == columnChannel {
				name = ""
			}
			if err := add(c.set(m.kind, name, m.set, at+".Demographic."+m.member)); err != nil {
				return nil, err
			}
		}
	}
	if l := d.Location; l != nil {
		if l.Country != nil {
			if err := add(c.set(columnCountry, "", l.Country, at+".Location.Country")); err != nil {
				return nil, err
			}
		}
		if l.GPSPoint != nil {
			if err := add(c.point(l.GPSPoint, at+".Location.GPSPoint")); err != nil {
				return nil, err
			}
		}
	}
	return allOf(nodes...), nil
}

// check bounds the values of one dimension.
func (c *compiler) check(values []string, at string) error {
	if len(values) == 0 {
		return aws.InvalidMember(at+".Values", "%s.Values: at least one value is required", at)
	}
	if c.values += len(values); c.values > valuesMax {
		return aws.InvalidMember(at+".Values", "%s.Values: a segment has at most %d values altogether", at, valuesMax)
	}
	for i, v := range values {
		if utf8.RuneCountInString(v) > valueCharsMax {
			return aws.InvalidMember(fmt.Sprintf("%s.Values[%d]", at, i), "%s.Values[%d]: longer than %d characters", at, i, valueCharsMax)
		}
	}
	return nil
}

func (c *compiler) attribute(kind columnKind, name string, d pinpoint.AttributeDimension, at string) (node, error) {
	if err := c.check(d.Values, at); err != nil {
		return nil, err
	}
	leaf := &valueLeaf{kind: kind, name: name}
	switch d.AttributeType {
	case "", pinpoint.AttributeTypeInclusive:
		leaf.values = d.Values
		return leaf, nil
	case pinpoint.AttributeTypeExclusive:
		leaf.values = d.Values
		return not(leaf), nil
	case pinpoint.AttributeTypeContains:
		leaf.holds = func(t *term) bool {
			return slices.ContainsFunc(d.Values, func(v string) bool { return strings.Contains(t.value, v) })
		}
		return leaf, nil
	case pinpoint.AttributeTypeBefore, pinpoint.AttributeTypeAfter, pinpoint.AttributeTypeOn, pinpoint.AttributeTypeBetween:
		var err error
		leaf.holds, err = dateTest(d, at)
		return leaf, err
	default:
		return nil, aws.InvalidMember(at+".AttributeType", "%s.AttributeType: %q is not an attribute type", at, d.AttributeType)
	}
}

// dateTest compiles the four types that compare instants.
func dateTest(d pinpoint.AttributeDimension, at string) (func(*term) bool, error) {
	want := 1
	if d.AttributeType == pinpoint.AttributeTypeBetween {
		want = 2
	}
	if len(d.Values) != want {
		return nil, aws.InvalidMember(at+".Values", "%s.Values: %s takes %d value(s), not %d", at, d.AttributeType, want, len(d.Values))
	}
	dates := make([]int64, want)
	for i, v := range d.Values {
		if dates[i] = parseDate(v); dates[i] == noDate {
			return nil, aws.InvalidMember(fmt.Sprintf("%s.Values[%d]", at, i), "%s.Values[%d]: %q is not an ISO 8601 instant", at, i, v)
		}
	}
	from, to := int64(noDate+1), int64(math.MaxInt64) // both ends belong
	switch first := dates[0]; d.AttributeType {
	case pinpoint.AttributeTypeBefore:
		to = first - 1
	case pinpoint.AttributeTypeAfter:
		from = first + 1
	case pinpoint.AttributeTypeOn:
		day := time.UnixMicro(first).UTC().Truncate(24 * time.Hour)
		from, to = day.UnixMicro(), day.Add(24*time.Hour).UnixMicro()-1
	default:
		if from, to = first, dates[1]; from > to {
			return nil, aws.InvalidMember(at+".Values", "%s.Values: the first instant is after the second", at)
		}
	}
	return func(t *term) bool { return from <= t.date && t.date <= to }, nil
}

func (c *compiler) set(kind columnKind, name string, d *pinpoint.SetDimension, at string) (node, error) {
	if err := c.check(d.Values, at); err != nil {
		return nil, err
	}
	leaf := &valueLeaf{kind: kind, name: name, values: d.Values}
	switch d.DimensionType {
	case "", pinpoint.DimensionTypeInclusive:
		return leaf, nil
	case pinpoint.DimensionTypeExclusive:
		return not(leaf), nil
	default:
		return nil, aws.InvalidMember(at+".DimensionType", "%s.DimensionType: %q is not one of INCLUSIVE, EXCLUSIVE", at, d.DimensionType)
	}
}

var comparisons = map[string]comparison{
	"EQUAL":                 equal,
	"GREATER_THAN":          greater,
	"GREATER_THAN_OR_EQUAL": greaterOrEqual,
	"LESS_THAN":             less,
	"LESS_THAN_OR_EQUAL":    lessOrEqual,
}

func (c *compiler) metric(name string, d pinpoint.MetricDimension, at string) (node, error) {
	op, ok := comparisons[string(d.ComparisonOperator)]
	if !ok {
		return nil, aws.InvalidMember(at+".ComparisonOperator", "%s.ComparisonOperator: %q is not one of %s",
			at, d.ComparisonOperator, strings.Join(slices.Sorted(maps.Keys(comparisons)), ", "))
	}
	return &metricLeaf{name, op, d.Value}, nil
}

var durations = map[pinpoint.Duration]time.Duration{
	pinpoint.DurationHr24:  24 * time.Hour,
	pinpoint.DurationDay7:  7 * 24 * time.Hour,
	pinpoint.DurationDay14: 14 * 24 * time.Hour,
	pinpoint.DurationDay30: 30 * 24 * time.Hour,
}

func (c *compiler) recency(d *pinpoint.RecencyDimension, at string) (node, error) {
	within, ok := durations[d.Duration]
	if !ok {
		return nil, aws.InvalidMember(at+".Duration", "%s.Duration: %q is not one of HR_24, DAY_7, DAY_14, DAY_30", at, d.Duration)
	}
	leaf := &recencyLeaf{c.now.Add(-within).UnixMilli()}
	switch d.RecencyType {
	case pinpoint.RecencyTypeActive:
		return leaf, nil
	case pinpoint.RecencyTypeInactive:
		return not(leaf), nil
	default:
		return nil, aws.InvalidMember(at+".RecencyType", "%s.RecencyType: %q is not one of ACTIVE, INACTIVE", at, d.RecencyType)
	}
}

func (c *compiler) point(d *pinpoint.GPSPointDimension, at string) (node, error) {
	switch {
	case d.Coordinates == nil:
		return nil, aws.InvalidMember(at+".Coordinates", "%s.Coordinates is required", at)
	case !(math.Abs(d.Coordinates.Latitude) <= 90):
		return nil, aws.InvalidMember(at+".Coordinates.Latitude", "%s.Coordinates.Latitude: from -90 to 90", at)
	case !(math.Abs(d.Coordinates.Longitude) <= 180):
		return nil, aws.InvalidMember(at+".Coordinates.Longitude", "%s.Coordinates.Longitude: from -180 to 180", at)
	case d.RangeInKilometers == nil:
		return nil, aws.InvalidMember(at+".RangeInKilometers", "%s.RangeInKilometers is required", at)
	case !(*d.RangeInKilometers >= 0):
		return nil, aws.InvalidMember(at+".RangeInKilometers", "%s.RangeInKilometers: not below 0", at)
	}
	latitude, longitude, within := d.Coordinates.Latitude, d.Coordinates.Longitude, *d.RangeInKilometers
	return &valueLeaf{kind: columnCoordinates, holds: func(t *term) bool {
		lat, lon := t.coordinates()
		// A degree of latitude is everywhere at least this long; most places are out
		// of reach by it alone.
		if math.Abs(lat-latitude)*kilometersPerDegreeMin > within {
			return false
		}
		return distance(latitude, longitude, lat, lon) <= within
	}}, nil
}

const (
	earthRadiusKilometers  = 6371.0088 // mean radius, IUGG
	kilometersPerDegreeMin = 111.19    // of a great circle on that sphere, rounded down
)

// distance is the length of the great circle between two points, in kilometers.
func distance(lat1, lon1, lat2, lon2 float64) float64 {
	const radian = math.Pi / 180
	dLat, dLon := (lat2-lat1)*radian/2, (lon2-lon1)*radian/2
	h := math.Sin(dLat)*math.Sin(dLat) + math.Cos(lat1*radian)*math.Cos(lat2*radian)*math.Sin(dLon)*math.Sin(dLon)
	return 2 * earthRadiusKilometers * math.Asin(math.Sqrt(min(h, 1)))
}
