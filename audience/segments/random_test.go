package segments

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/state/changelog"
)

const testApp = "0123456789abcdef0123456789abcdef"

var testNow = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// gen makes endpoints and criteria over small pools, so that they meet often.
type gen struct {
	*rand.Rand
	now time.Time
	ids int // endpoint ids in use
}

func newGen(seed uint64) *gen {
	return &gen{Rand: rand.New(rand.NewPCG(seed, 1)), now: testNow, ids: 60}
}

func (g *gen) pick(pool []string) string { return pool[g.IntN(len(pool))] }

func (g *gen) some(pool []string, most int) []string {
	var out []string
	for range 1 + g.IntN(most) {
		out = append(out, g.pick(pool))
	}
	return out
}

var (
	attributeNames = []string{"Ride", "Pet", "Joined", "Odd #name?"}
	plainValues    = []string{"Bus", "bus", "Car", "Minibus", "", "Fahrrad", "自転車", "Boat trip"}
	dateValues     = []string{
		"2026-01-01T00:00:00Z", "2026-01-01T23:59:59.999Z", "2026-01-02T00:00:00.000Z", "2026-01-01T12:00:00+05:00",
		"2025-12-31T23:30:00-01:00", "2026-02-30T00:00:00Z", "2026-01-01", "yesterday", "2026-01-01T12:00:00.000001Z",
		"0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
	}
	goodDates     = slices.DeleteFunc(slices.Clone(dateValues), func(v string) bool { return parseDate(v) == noDate })
	metricNames   = []string{"age", "visits"}
	channels      = []string{"SMS", "EMAIL", "APNS", "GCM", ""}
	countries     = []string{"DE", "FR", "USA"}
	demographic   = []string{"AppVersion", "Make", "Model", "Platform", "Locale", "DeviceType"}
	demographics9 = []string{"1.0", "2.0", "iPhone", ""}
)

func (g *gen) value(name string) string {
	if name == "Joined" {
		return g.pick(dateValues)
	}
	return g.pick(plainValues)
}

func (g *gen) attributes() map[string][]string {
	out := map[string][]string{}
	for _, name := range attributeNames {
		if g.IntN(2) == 0 {
			for range g.IntN(4) {
				out[name] = append(out[name], g.value(name))
			}
		}
	}
	return out
}

func (g *gen) metric() float64 {
	return []float64{-1, 0, 1, 2, 2.5, math.MaxFloat64, float64(g.IntN(5))}[g.IntN(7)]
}

func (g *gen) coordinate(limit int) float64 {
	if g.IntN(3) == 0 {
		return float64(g.IntN(20*limit+1)-10*limit) / 10
	}
	return float64(g.IntN(30)) / 10
}

func (g *gen) id() string     { return fmt.Sprintf("endpoint-%d", g.IntN(g.ids)) }
func (g *gen) userID() string { return fmt.Sprintf("user-%d", g.IntN(g.ids/4)) }

func (g *gen) endpoint(id string, at time.Time) *endpoints.Endpoint {
	e := &endpoints.Endpoint{
		App: testApp, ID: id, ChannelType: g.pick(channels), Status: "ACTIVE",
		Attributes: g.attributes(), Metrics: map[string]float64{}, Demographic: map[string]string{}, Location: map[string]string{},
		UpdatedAt: changelog.Stamp{Clock: uint64(at.UnixMilli()) << 16, Region: "us-east-1"},
		OptedOut:  g.IntN(5) == 0,
	}
	if g.IntN(5) == 0 {
		e.Status = "INACTIVE"
	}
	if g.IntN(5) > 0 {
		e.Address = fmt.Sprintf("address-%d", g.IntN(g.ids))
	}
	if g.IntN(3) > 0 {
		e.UserID = g.userID()
	}
	for _, name := range metricNames {
		if g.IntN(2) == 0 {
			e.Metrics[name] = g.metric()
		}
	}
	for _, name := range demographic {
		if g.IntN(2) == 0 {
			e.Demographic[name] = g.pick(demographics9)
		}
	}
	if g.IntN(2) == 0 {
		e.Location["Country"] = g.pick(countries)
	}
	if g.IntN(2) == 0 {
		e.HasCoordinates, e.Latitude, e.Longitude = true, g.coordinate(90), g.coordinate(180)
	}
	return e
}

// moment is at one of the ends of a recency window, or near it.
func (g *gen) moment() time.Time {
	days := []int{0, 1, 7, 14, 30, 40}[g.IntN(6)]
	return g.now.AddDate(0, 0, -days).Add(time.Duration(g.IntN(3)-1) * time.Millisecond)
}

func (g *gen) attributeDimension(name string) pinpoint.AttributeDimension {
	kinds := []pinpoint.AttributeType{"", "INCLUSIVE", "EXCLUSIVE", "CONTAINS", "BEFORE", "AFTER", "ON", "BETWEEN"}
	d := pinpoint.AttributeDimension{AttributeType: kinds[g.IntN(len(kinds))]}
	switch d.AttributeType {
	case "BEFORE", "AFTER", "ON":
		d.Values = []string{g.pick(goodDates)}
	case "BETWEEN":
		d.Values = []string{g.pick(goodDates), g.pick(goodDates)}
		if parseDate(d.Values[0]) > parseDate(d.Values[1]) {
			d.Values[0], d.Values[1] = d.Values[1], d.Values[0]
		}
	case "CONTAINS":
		d.Values = g.some([]string{"us", "B", "", "zz", "転", "2026-01-01T"}, 2)
	default:
		for range 1 + g.IntN(3) {
			d.Values = append(d.Values, g.value(name))
		}
	}
	return d
}

func (g *gen) set(pool []string) *pinpoint.SetDimension {
	if g.IntN(4) > 0 {
		return nil
	}
	kinds := []pinpoint.DimensionType{"", "INCLUSIVE", "EXCLUSIVE"}
	return &pinpoint.SetDimension{DimensionType: kinds[g.IntN(3)], Values: g.some(pool, 2)}
}

func (g *gen) dimensions() *pinpoint.SegmentDimensions {
	d := &pinpoint.SegmentDimensions{}
	for range g.IntN(3) {
		switch g.IntN(6) {
		case 0:
			name := g.pick(attributeNames)
			d.Attributes = map[string]pinpoint.AttributeDimension{name: g.attributeDimension(name)}
		case 1:
			name := g.pick(attributeNames)
			d.UserAttributes = map[string]pinpoint.AttributeDimension{name: g.attributeDimension(name)}
		case 2:
			op := g.pick(slices.Sorted(maps.Keys(comparisons)))
			d.Metrics = map[string]pinpoint.MetricDimension{
				g.pick(metricNames): {ComparisonOperator: pinpoint.ComparisonOperator(op), Value: g.metric()},
			}
		case 3:
			d.Behavior = &pinpoint.SegmentBehaviors{Recency: &pinpoint.RecencyDimension{
				Duration:    pinpoint.Duration(g.pick([]string{"HR_24", "DAY_7", "DAY_14", "DAY_30"})),
				RecencyType: pinpoint.RecencyType(g.pick([]string{"ACTIVE", "INACTIVE"})),
			}}
		case 4:
			d.Demographic = &pinpoint.SegmentDemographics{
				AppVersion: g.set(demographics9), Channel: g.set(channels[:4]), DeviceType: g.set(demographics9),
				Make: g.set(demographics9), Model: g.set(demographics9), Platform: g.set(demographics9),
			}
		case 5:
			d.Location = &pinpoint.SegmentLocation{Country: g.set(countries)}
			if g.IntN(2) == 0 {
				d.Location.GPSPoint = &pinpoint.GPSPointDimension{
					Coordinates:       &pinpoint.GPSCoordinates{Latitude: g.coordinate(90), Longitude: g.coordinate(180)},
					RangeInKilometers: new([]float64{0, 25.5, 150.7, 3000.3, 15000.1}[g.IntN(5)]),
				}
			}
		}
	}
	return d
}

// groups makes a group list over segments that exist.
func (g *gen) groups(dimensional, imported []string) *pinpoint.SegmentGroupList {
	join := []string{"", "ALL", "ANY", "NONE"}
	l := &pinpoint.SegmentGroupList{Include: pinpoint.Include(g.pick(join))}
	for range g.IntN(4) {
		group := pinpoint.SegmentGroup{Type: pinpoint.Type(g.pick(join)), SourceType: pinpoint.SourceType(g.pick(join))}
		for range g.IntN(3) {
			group.Dimensions = append(group.Dimensions, *g.dimensions())
		}
		if len(dimensional) > 0 {
			for range g.IntN(3) {
				group.SourceSegments = append(group.SourceSegments, pinpoint.SegmentReference{Id: g.pick(dimensional)})
			}
		}
		l.Groups = append(l.Groups, group)
	}
	if len(imported) > 0 && len(l.Groups) == 1 {
		l.Groups[0].SourceSegments = []pinpoint.SegmentReference{{Id: g.pick(imported)}}
	}
	return l
}
