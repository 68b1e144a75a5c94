package wire

import (
	"time"
)

// thing has a member of every kind; the tests of the codecs share it.
type thing struct {
	Name     string
	Nick     *string
	On       *bool
	Small    *int
	Big      *int64
	Ratio    *float64
	Thin     *float32
	When     *time.Time
	Stamp    *time.Time
	Raw      []byte
	Color    color
	Loose    color
	Words    []string
	Tags     map[string]string
	Sets     map[string][]string
	Sums     map[string]float64
	Parts    []part2
	Byname   map[string]part2
	Inner    *thing
	Secret   *string
	Letters  *string
	Flag     bool
	Counters map[string]int
}

type part2 struct {
	ID    string
	Count *int
}

type color string

var (
	testShapes = Link([]*Schema{
		{Name: "Part", Type: Structure, Members: []Member{
			{Name: "ID", Shape: "string", Required: true},
			{Name: "Count", Shape: "Count"},
		}},
		{Name: "Count", Type: Integer, Rules: &Rules{HasMin: true, Min: 1, HasMax: true, Max: 9}},
		{Name: "Color", Type: Enum, Enum: []string{"RED", "GREEN"}},
		{Name: "Words", Type: List, Elem: "string", Rules: &Rules{MaxLength: 4}},
		{Name: "Tags", Type: Map, Key: "string", Elem: "string"},
		{Name: "Words2", Type: List, Elem: "string"},
		{Name: "Sets", Type: Map, Key: "string", Elem: "Words2"},
		{Name: "Sums", Type: Map, Key: "string", Elem: "double"},
		{Name: "Parts", Type: List, Elem: "Part"},
		{Name: "ByName", Type: Map, Key: "string", Elem: "Part"},
		{Name: "Counters", Type: Map, Key: "string", Elem: "integer"},
		{Name: "Stamp", Type: Timestamp, Format: FormatDateTime},
		{Name: "Thing", Type: Structure, Members: []Member{
			{Name: "Name", Shape: "string", Required: true, Rules: &Rules{MinLength: 1, MaxLength: 8}},
			{Name: "Nick", Shape: "string", JSON: "nick"},
			{Name: "On", Shape: "boolean"},
			{Name: "Small", Shape: "integer"},
			{Name: "Big", Shape: "long"},
			{Name: "Ratio", Shape: "double"},
			{Name: "Thin", Shape: "float"},
			{Name: "When", Shape: "timestamp"},
			{Name: "Stamp", Shape: "Stamp"},
			{Name: "Raw", Shape: "blob"},
			{Name: "Color", Shape: "Color"},
			{Name: "Loose", Shape: "Color", Open: true},
			{Name: "Words", Shape: "Words", OneAsAll: true},
			{Name: "Tags", Shape: "Tags"},
			{Name: "Sets", Shape: "Sets", OneAsAll: true},
			{Name: "Sums", Shape: "Sums"},
			{Name: "Parts", Shape: "Parts"},
			{Name: "Byname", Shape: "ByName"},
			{Name: "Inner", Shape: "Thing"},
			{Name: "Secret", Shape: "string", Sensitive: true},
			{Name: "Letters", Shape: "string", Rules: &Rules{Pattern: "^[a-z]+$"}},
			{Name: "Flag", Shape: "boolean", Default: true},
			{Name: "Counters", Shape: "Counters"},
		}},
	})
	thingSchema = testShapes.Of("Thing")
)
