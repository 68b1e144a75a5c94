package endpoints

// Limits bound what a write may leave behind. A zero member means its default.
//
// Source: engagement 2.3, 10.
type Limits struct {
	EndpointBytes    int // of an endpoint with its user's attributes: names and values; default 15 KiB
	NamesPerApp      int // distinct Attributes, Metrics and UserAttributes; default 250
	NameLength       int // characters; default 50
	ValueLength      int // characters of one attribute value; default 100
	ValuesPerName    int // of one attribute; default 50
	EndpointsPerUser int // default 15
	BatchItems       int // of UpdateEndpointsBatch; default 100
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		to    *int
		value int
	}{
		{&l.EndpointBytes, 15 << 10},
		{&l.NamesPerApp, 250},
		{&l.NameLength, 50},
		{&l.ValueLength, 100},
		{&l.ValuesPerName, 50},
		{&l.EndpointsPerUser, 15},
		{&l.BatchItems, 100},
	} {
		if *d.to <= 0 {
			*d.to = d.value
		}
	}
	// A list that is longer than a reader accepts must not be written.
	l.ValuesPerName = min(l.ValuesPerName, valuesPerNameBound)
	return l
}

// idBytesMax bounds endpoint and user ids, which travel in paths.
const idBytesMax = 1024
