package wire

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
)

func readForm(raw string) (thing, error) {
	var v thing
	n, err := parseForm(raw)
	if err != nil {
		return v, err
	}
	d := &formReader{}
	d.structure(planFor(reflect.TypeFor[thing](), thingSchema), n, reflect.ValueOf(&v).Elem())
	return v, d.fault()
}

func TestForm(t *testing.T) {
	when := time.Date(2026, 11, 14, 22, 13, 20, 0, time.UTC)
	tests := map[string]struct {
		form string
		want thing
	}{
		"scalars":                   {"Action=X&Version=1&Name=a+b%21&On=TRUE&Small=3&Big=-4&Ratio=1.5&Raw=aGk%3D&Color=RED&When=2026-11-14T22%3A13%3A20Z", thing{Name: "a b!", On: p(true), Small: p(3), Big: p(int64(-4)), Ratio: p(1.5), Raw: []byte("hi"), Color: "RED", When: &when}},
		"lists by member":           {"Name=a&Words.member.1=x&Words.member.2=y", thing{Name: "a", Words: []string{"x", "y"}}},
		"order is by number":        {"Name=a&Words.member.10=z&Words.member.2=y&Words.member.1=x", thing{Name: "a", Words: []string{"x", "y", "z"}}},
		"an empty list":             {"Name=a&Words=", thing{Name: "a", Words: []string{}}},
		"lists of structures":       {"Name=a&Parts.member.1.ID=1&Parts.member.2.ID=2&Parts.member.2.Count=5", thing{Name: "a", Parts: []part2{{ID: "1"}, {ID: "2", Count: p(5)}}}},
		"maps by entry":             {"Name=a&Tags.entry.1.key=k&Tags.entry.1.value=v", thing{Name: "a", Tags: map[string]string{"k": "v"}}},
		"maps of structures":        {"Name=a&Byname.entry.1.key=k&Byname.entry.1.value.ID=7", thing{Name: "a", Byname: map[string]part2{"k": {ID: "7"}}}},
		"nested structures":         {"Name=a&Inner.Name=b&Inner.Inner.Name=c", thing{Name: "a", Inner: &thing{Name: "b", Inner: &thing{Name: "c"}}}},
		"the last of equals counts": {"Name=a&Name=b", thing{Name: "b"}},
		"an empty string is one":    {"Name=a&nick=", thing{Name: "a", Nick: p("")}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readForm(tt.form)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestFormRefuses(t *testing.T) {
	tests := map[string]struct{ form, want string }{
		"a missing member":        {"nick=x", "Name: required but missing"},
		"a bad number":            {"Name=a&Inner.Name=b&Inner.Small=x", "Inner.Small: expected an integer"},
		"a bad index":             {"Name=a&Words.member.x=1", `Words: "x" is not an index from 1 to 10000`},
		"an index of zero":        {"Name=a&Words.member.0=1", `Words: "0" is not an index from 1 to 10000`},
		"a huge index":            {"Name=a&Words.member.99999999=1", `Words: "99999999" is not an index from 1 to 10000`},
		"an entry without key":    {"Name=a&Tags.entry.1.value=1", "Tags[0]: expected a key and a value"},
		"members for a scalar":    {"Name.x=a", "Name: expected a string"},
		"infinity":                {"Name=a&Ratio=Inf", "Ratio: expected a number"},
		"bounds of elements":      {"Name=a&Parts.member.1.ID=1&Parts.member.1.Count=10", "Parts[0].Count: must be between 1 and 9"},
		"bad percent-encoding":    {"Name=%zz", "Name: not valid percent-encoding"},
		"invalid UTF-8":           {"Name=%ff", "the request is not valid UTF-8"},
		"a name of many parts":    {"Name=a&" + strings.Repeat("a.", 40) + "b=1", "a parameter's name has more than 32 parts"},
		"names of too many parts": {manyParts(), "the parameters' names have more than 50000 parts"},
		"too many parameters":     {strings.Repeat("a=1&", 10_001), "the request has more than 10000 parameters"},
		"a sensitive bad value":   {"Name=a&Color=BLUE", `Color: "BLUE" is not one of RED, GREEN`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := readForm(tt.form)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if aws.KindOf(err) != aws.KindInvalid {
				t.Errorf("kind %v", aws.KindOf(err))
			}
		})
	}
}

// manyParts is a form of few bytes whose tree would be large.
func manyParts() string {
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "x%d", i)
		b.WriteString(strings.Repeat(".a", 28))
		b.WriteByte('&')
	}
	return b.String()
}

// FuzzForm: no form panics, and a flat form is read as net/url reads it, except
// that the last of equal names counts.
func FuzzForm(f *testing.F) {
	f.Add("Name=a&Words.member.1=x")
	f.Add("Name=a&Tags.entry.1.key=k&Tags.entry.1.value=v&&=&.=")
	f.Add("Name.=1&.Name=2&Name..x=3")
	f.Add("Name=%C3%A9+%26")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := readForm(raw)
		if err != nil {
			if aws.KindOf(err) != aws.KindInvalid {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		q, err := url.ParseQuery(raw)
		if err != nil {
			return // net/url refuses semicolons; forms of ours may hold them
		}
		if names := q["Name"]; len(names) > 0 && v.Name != names[len(names)-1] {
			t.Fatalf("Name %q, net/url reads %q", v.Name, names)
		}
	})
}

func TestXML(t *testing.T) {
	when := time.Date(2026, 11, 14, 22, 13, 20, 0, time.UTC)
	w := &xmlWriter{}
	v := thing{
		Name: "a<b>&\"\x01\xff\r", When: &when, Words: []string{"x", "y"}, Tags: map[string]string{"k2": "2", "k1": "1"},
		Parts: []part2{{ID: "1", Count: p(2)}}, Flag: true, Raw: []byte("hi"), Inner: &thing{Name: "in"},
	}
	if err := w.members(planFor(reflect.TypeFor[thing](), thingSchema), reflect.ValueOf(v)); err != nil {
		t.Fatal(err)
	}
	want := "<Name>a&lt;b&gt;&amp;&quot;\ufffd\ufffd&#xD;</Name><When>2026-11-14T22:13:20Z</When><Raw>aGk=</Raw>" +
		"<Words><member>x</member><member>y</member></Words>" +
		"<Tags><entry><key>k1</key><value>1</value></entry><entry><key>k2</key><value>2</value></entry></Tags>" +
		"<Parts><member><ID>1</ID><Count>2</Count></member></Parts>" +
		"<Inner><Name>in</Name><Flag>false</Flag></Inner><Flag>true</Flag>"
	if string(w.b) != want {
		t.Errorf("got  %s\nwant %s", w.b, want)
	}
}
