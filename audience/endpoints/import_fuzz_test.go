package endpoints

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// fuzzService has what Prepare needs, and no more.
func fuzzService(f *testing.F) *Service {
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	now := func() time.Time { return at }
	st := openStore(f, store.Config{Dir: f.TempDir()}, newKeys(f), now)
	return &Service{limits: Limits{}.withDefaults(), store: st, now: now}
}

// FuzzCSV reads a header and a line as an import does. Whatever they are, the
// outcome is a fault, or a patch that makes a well-formed record which reads
// back as what the request said.
func FuzzCSV(f *testing.F) {
	for _, c := range [][2]string{
		{"Id,Address,ChannelType", "e,a@example.com,EMAIL"},
		{"Id,Attributes.Ride,Attributes.Ride,User.UserAttributes.x,User.UserId", `e,Bus,"Tram, ""9""",y,u`},
		{"Id,Metrics.n,Location.Latitude,Location.Longitude", "e,1e3,47.66,-122.3"},
		{"Id,Metrics.n", "e,0x1p-2"},
		{"User.UserId", "a b\tc"},
		{"Address,ChannelType,OptOut,EffectiveDate,RequestId", `+4790000000,SMS,NONE,2026-01-02T03:04:05Z,"r"`},
		{`"Id","Demographic.Make"`, `"",""`},
		{"Id,EndpointStatus,Demographic.Timezone", "x,INACTIVE,Europe/Oslo"},
		{"Attributes.", "x"},
		{"", ""},
	} {
		f.Add(c[0], c[1])
	}
	s := fuzzService(f)
	f.Fuzz(func(t *testing.T, header, text string) {
		p, err := newCSVParser(header)
		if err != nil {
			mustFault(t, err)
			return
		}
		for range 2 { // the parser is used for one line after another
			checkLine(t, s, p, text)
		}
	})
}

// FuzzJSON does the same with a line of a JSON file.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{
		`{"Id":"e","Address":"a","ChannelType":"EMAIL","Attributes":{"a":["1"],"b":"2"},"Metrics":{"m":1}}`,
		`{"User":{"UserId":"u"}}`,
		`{"User":{"UserId":"u","UserAttributes":{"x":null}}}`,
		`{"Id":"e","Location":{"Latitude":1e300},"Demographic":null}`,
		`{"Attributes":{"a":[1]}}`,
		`[]`, `null`, `{"Id":`,
	} {
		f.Add(text)
	}
	s := fuzzService(f)
	f.Fuzz(func(t *testing.T, text string) { checkLine(t, s, &jsonParser{}, text) })
}

func mustFault(t *testing.T, err error) {
	t.Helper()
	if aws.KindOf(err) != aws.KindInvalid {
		t.Fatalf("error that is no fault of the data: %v", err)
	}
}

func checkLine(t *testing.T, s *Service, p lineParser, text string) {
	l, err := p.parse(text)
	if err != nil {
		mustFault(t, err)
		return
	}
	if l.request == nil {
		return
	}
	id := l.id
	if id == "" {
		id = "made"
	}
	patch, err := s.Prepare(app, id, l.request, "req")
	if err != nil {
		mustFault(t, err)
		return
	}
	if !slices.IsSortedFunc(patch.sets, func(a, b set) int { return strings.Compare(a.path, b.path) }) {
		t.Fatalf("members are not in the order of their paths: %v", patch.sets)
	}
	r, err := apply(&changelog.Record{}, patch, patch.sets, changelog.Stamp{Clock: 1, Region: "r"})
	if err != nil {
		mustFault(t, err)
		return
	}
	e, err := Read(app, encode(&r))
	if err != nil || e == nil {
		t.Fatalf("the record does not read back: %v, %v", e, err)
	}
	if e.ID != id || e.Address != deref(l.request.Address) || e.ChannelType != string(l.request.ChannelType) || !e.Active() {
		t.Fatalf("read back %+v, the request was %+v", e, l.request)
	}
	given := 0
	for name, values := range l.request.Attributes {
		if len(values) > 0 {
			given++
		}
		if !slices.Equal(e.Attributes[name], values) {
			t.Fatalf("attribute %q is %q, was %q", name, e.Attributes[name], values)
		}
		if utf8.RuneCountInString(name) > s.limits.NameLength {
			t.Fatalf("name %q passed", name)
		}
	}
	if given != len(e.Attributes) || len(e.Metrics) != len(l.request.Metrics) {
		t.Fatalf("read back %+v, the request was %+v", e, l.request)
	}
	for name, v := range l.request.Metrics {
		if e.Metrics[name] != v {
			t.Fatalf("metric %q is %v, was %v", name, e.Metrics[name], v)
		}
	}
}

// TestSplitCSV holds splitting to what RFC 4180 says of one record.
func TestSplitCSV(t *testing.T) {
	for text, want := range map[string][]string{
		``:            {""},
		`a`:           {"a"},
		`a,b`:         {"a", "b"},
		`,`:           {"", ""},
		`a,,`:         {"a", "", ""},
		`"a"`:         {"a"},
		`"a,b",c`:     {"a,b", "c"},
		`"a""b"`:      {`a"b`},
		`""""`:        {`"`},
		`"",x`:        {"", "x"},
		`"a"""`:       {`a"`},
		`"x","y","z"`: {"x", "y", "z"},
		`"a`:          nil,
		`"a""`:        nil,
		`a"b`:         nil,
		`"a"b`:        nil,
	} {
		got, err := splitCSV(text, nil)
		if want == nil {
			if err == nil {
				t.Errorf("%s: no fault", text)
			}
			continue
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}
