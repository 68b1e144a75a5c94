package segments

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
)

// naive judges the index: it decides endpoint by endpoint, from documents, as
// engagement 3.1 to 3.3 says it, and knows nothing of ordinals, dictionaries or
// compiled criteria.
type naive struct {
	users    map[string]*endpoints.User
	segments *savedSegments
	members  map[string]importedList // of imported segments, by id
	touched  map[string]time.Time    // last event of an endpoint, by id
	now      time.Time
}

type importedList struct{ endpoints, users []string }

func (n *naive) segment(s *pinpoint.SegmentResponse, e *endpoints.Endpoint) bool {
	if s.SegmentType == pinpoint.SegmentTypeImport {
		list := n.members[s.Id]
		return slices.Contains(list.endpoints, e.ID) || e.UserID != "" && slices.Contains(list.users, e.UserID)
	}
	return n.criteria(s.Dimensions, s.SegmentGroups, e)
}

func (n *naive) criteria(d *pinpoint.SegmentDimensions, g *pinpoint.SegmentGroupList, e *endpoints.Endpoint) bool {
	if d != nil {
		return n.dimensions(d, e)
	}
	var in []bool
	for i := range g.Groups {
		in = append(in, n.group(&g.Groups[i], e))
	}
	if g.Include == "NONE" && len(in) > 1 {
		// With several groups NONE subtracts: the first without the others.
		return in[0] && !slices.Contains(in[1:], true)
	}
	return joined(string(g.Include), in)
}

// joined is ALL, ANY or NONE of the parts; an empty list filters nothing.
func joined(how string, in []bool) bool {
	if len(in) == 0 {
		return true
	}
	switch how {
	case "ANY":
		return slices.Contains(in, true)
	case "NONE":
		return !slices.Contains(in, true)
	}
	return !slices.Contains(in, false)
}

func (n *naive) group(g *pinpoint.SegmentGroup, e *endpoints.Endpoint) bool {
	var base, dims []bool
	for _, ref := range g.SourceSegments {
		number := 0
		if ref.Version != nil {
			number = *ref.Version
		}
		s, _ := n.segments.Segment(ref.Id, number)
		base = append(base, n.segment(s, e))
	}
	for i := range g.Dimensions {
		dims = append(dims, n.dimensions(&g.Dimensions[i], e))
	}
	return joined(string(g.SourceType), base) && joined(string(g.Type), dims)
}

func (n *naive) dimensions(d *pinpoint.SegmentDimensions, e *endpoints.Endpoint) bool {
	for name, a := range d.Attributes {
		if !attributeMatches(a, e.Attributes[name]) {
			return false
		}
	}
	for name, a := range d.UserAttributes {
		var values []string
		if u := n.users[e.UserID]; e.UserID != "" && u != nil {
			values = u.Attributes[name]
		}
		if !attributeMatches(a, values) {
			return false
		}
	}
	for name, m := range d.Metrics {
		v, ok := e.Metrics[name]
		if !ok {
			return false
		}
		switch m.ComparisonOperator {
		case "EQUAL":
			ok = v == m.Value
		case "GREATER_THAN":
			ok = v > m.Value
		case "GREATER_THAN_OR_EQUAL":
			ok = v >= m.Value
		case "LESS_THAN":
			ok = v < m.Value
		case "LESS_THAN_OR_EQUAL":
			ok = v <= m.Value
		}
		if !ok {
			return false
		}
	}
	if b := d.Behavior; b != nil && b.Recency != nil {
		days := map[pinpoint.Duration]int{"HR_24": 1, "DAY_7": 7, "DAY_14": 14, "DAY_30": 30}[b.Recency.Duration]
		last := e.UpdatedAt.Time()
		if t := n.touched[e.ID]; t.After(last) {
			last = t
		}
		active := !last.Before(n.now.AddDate(0, 0, -days))
		if active != (b.Recency.RecencyType == "ACTIVE") {
			return false
		}
	}
	if g := d.Demographic; g != nil {
		for name, set := range map[string]*pinpoint.SetDimension{
			"AppVersion": g.AppVersion, "DeviceType": g.DeviceType, "Make": g.Make, "Model": g.Model, "Platform": g.Platform,
		} {
			v, ok := e.Demographic[name]
			if set != nil && !setMatches(set, v, ok) {
				return false
			}
		}
		if g.Channel != nil && !setMatches(g.Channel, e.ChannelType, e.ChannelType != "") {
			return false
		}
	}
	if l := d.Location; l != nil {
		country, ok := e.Location["Country"]
		if l.Country != nil && !setMatches(l.Country, country, ok) {
			return false
		}
		if p := l.GPSPoint; p != nil {
			if !e.HasCoordinates || angle(p.Coordinates.Latitude, p.Coordinates.Longitude, e.Latitude, e.Longitude)*6371.0088 > *p.RangeInKilometers {
				return false
			}
		}
	}
	return true
}

func setMatches(set *pinpoint.SetDimension, v string, ok bool) bool {
	in := ok && slices.Contains(set.Values, v)
	return in != (set.DimensionType == "EXCLUSIVE")
}

func attributeMatches(d pinpoint.AttributeDimension, values []string) bool {
	if d.AttributeType == "EXCLUSIVE" {
		for _, v := range values {
			if slices.Contains(d.Values, v) {
				return false
			}
		}
		return true
	}
	for _, v := range values {
		if valueMatches(d, v) {
			return true
		}
	}
	return false
}

func valueMatches(d pinpoint.AttributeDimension, v string) bool {
	switch d.AttributeType {
	case "", "INCLUSIVE":
		return slices.Contains(d.Values, v)
	case "CONTAINS":
		for _, part := range d.Values {
			if strings.Contains(v, part) {
				return true
			}
		}
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return false
	}
	t = t.UTC()
	var bounds []time.Time
	for _, b := range d.Values {
		x, err := time.Parse(time.RFC3339Nano, b)
		if err != nil {
			return false
		}
		bounds = append(bounds, x.UTC())
	}
	switch d.AttributeType {
	case "BEFORE":
		return t.Before(bounds[0])
	case "AFTER":
		return t.After(bounds[0])
	case "ON":
		return t.Format(time.DateOnly) == bounds[0].Format(time.DateOnly)
	}
	return !t.Before(bounds[0]) && !t.After(bounds[1])
}

// angle between two points seen from the centre of the earth, by vectors.
func angle(lat1, lon1, lat2, lon2 float64) float64 {
	vector := func(lat, lon float64) (x, y, z float64) {
		lat, lon = lat*math.Pi/180, lon*math.Pi/180
		return math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)
	}
	ax, ay, az := vector(lat1, lon1)
	bx, by, bz := vector(lat2, lon2)
	cx, cy, cz := ay*bz-az*by, az*bx-ax*bz, ax*by-ay*bx
	return math.Atan2(math.Sqrt(cx*cx+cy*cy+cz*cz), ax*bx+ay*by+az*bz)
}

// savedSegments are segments by id; the versions in order.
type savedSegments struct {
	all map[string][]*pinpoint.SegmentResponse
}

func (s *savedSegments) Segment(id string, version int) (*pinpoint.SegmentResponse, error) {
	versions := s.all[id]
	if version == 0 {
		version = len(versions)
	}
	if version < 1 || version > len(versions) {
		return nil, nil
	}
	return versions[version-1], nil
}

func (s *savedSegments) save(r *pinpoint.SegmentResponse) {
	if s.all == nil {
		s.all = map[string][]*pinpoint.SegmentResponse{}
	}
	r.Version = new(len(s.all[r.Id]) + 1)
	s.all[r.Id] = append(s.all[r.Id], r)
}
