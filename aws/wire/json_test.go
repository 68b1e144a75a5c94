package wire

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

func p[T any](v T) *T { return &v }

func TestUnmarshalJSON(t *testing.T) {
	when := time.Date(2026, 11, 14, 22, 13, 20, 120e6, time.UTC)
	tests := map[string]struct {
		text string
		want thing
	}{
		"scalars of every kind":              {`{"Name":"a","nick":"b","On":true,"Small":-3,"Big":9007199254740993,"Ratio":1.5,"Thin":0.25,"Flag":true}`, thing{Name: "a", Nick: p("b"), On: p(true), Small: p(-3), Big: p(int64(9007199254740993)), Ratio: p(1.5), Thin: p(float32(0.25)), Flag: true}},
		"unknown members are skipped":        {`{"Name":"a","Nope":{"x":[1,{"y":null}]},"zzz":"\u00e9"}`, thing{Name: "a"}},
		"null is absence":                    {`{"Name":"a","nick":null,"Words":null,"Inner":null,"Color":null}`, thing{Name: "a"}},
		"null entries are absent entries":    {`{"Name":"a","Tags":{"x":null,"y":"1"},"Words":[null,"w"],"Sets":{"s":null}}`, thing{Name: "a", Tags: map[string]string{"y": "1"}, Words: []string{"w"}, Sets: map[string][]string{}}},
		"the last of equal keys counts":      {`{"Name":"a","Name":"b","Parts":[{"ID":"1"},{"ID":"2"}],"Parts":[{"ID":"3"}]}`, thing{Name: "b", Parts: []part2{{ID: "3"}}}},
		"a later null undoes an earlier key": {`{"Name":"a","nick":"x","nick":null,"Tags":{"k":"v","k":null}}`, thing{Name: "a", Tags: map[string]string{}}},
		"a bare scalar where marked":         {`{"Name":"a","Words":"one","Sets":{"k":"v","l":["w","x"]}}`, thing{Name: "a", Words: []string{"one"}, Sets: map[string][]string{"k": {"v"}, "l": {"w", "x"}}}},
		"empty lists and maps are present":   {`{"Name":"a","Words":[],"Tags":{},"Parts":[]}`, thing{Name: "a", Words: []string{}, Tags: map[string]string{}, Parts: []part2{}}},
		"epoch seconds with a fraction":      {`{"Name":"a","When":1794694400.12}`, thing{Name: "a", When: p(when)}},
		"an instant as text":                 {`{"Name":"a","Stamp":"2026-11-14T22:13:20.120Z","When":"2026-11-14T23:13:20.12+01:00"}`, thing{Name: "a", Stamp: p(when), When: p(when)}},
		"base64":                             {`{"Name":"a","Raw":"aGk="}`, thing{Name: "a", Raw: []byte("hi")}},
		"whole numbers in any spelling":      {`{"Name":"a","Small":1.0,"Big":1e3}`, thing{Name: "a", Small: p(1), Big: p(int64(1000))}},
		"escapes and surrogates":             {`{"Name":"\u00e9\ud83d\ude00\n","nick":"\ud800x"}`, thing{Name: "é😀\n", Nick: p("\ufffdx")}},
		"foreign values where open":          {`{"Name":"a","Loose":"BLUE","Color":"RED"}`, thing{Name: "a", Loose: "BLUE", Color: "RED"}},
		"maps of structures":                 {`{"Name":"a","Byname":{"x":{"ID":"1"},"y":{"ID":"2","Count":3}},"Counters":{"n":7}}`, thing{Name: "a", Byname: map[string]part2{"x": {ID: "1"}, "y": {ID: "2", Count: p(3)}}, Counters: map[string]int{"n": 7}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got thing
			if err := UnmarshalJSON(thingSchema, []byte(tt.text), &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestUnmarshalJSONRefuses(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"a missing member":                {`{}`, "Name: required but missing"},
		"a null for a required member":    {`{"Name":null}`, "Name: required but missing"},
		"a wrong type, with its path":     {`{"Name":"a","Inner":{"Name":"b","Sums":{"x":"1"}}}`, "Inner.Sums.x: expected a number"},
		"a wrong element, with its index": {`{"Name":"a","Parts":[{"ID":"1"},{"ID":2}]}`, "Parts[1].ID: expected a string"},
		"a string for a boolean":          {`{"Name":"a","On":"true"}`, "On: expected true or false"},
		"a fraction for an integer":       {`{"Name":"a","Small":1.5}`, "Small: expected an integer"},
		"an integer out of range":         {`{"Name":"a","Small":2147483648}`, "Small: outside the range of a 32-bit integer"},
		"a long out of range":             {`{"Name":"a","Big":9223372036854775808}`, "Big: outside the range of a 64-bit integer"},
		"a double out of range":           {`{"Name":"a","Ratio":1e999}`, "Ratio: outside the range of a 64-bit number"},
		"NaN as text":                     {`{"Name":"a","Ratio":"NaN"}`, "Ratio: expected a number"},
		"a bare scalar where not marked":  {`{"Name":"a","Parts":{"ID":"1"}}`, "Parts: expected an array"},
		"too long":                        {`{"Name":"ninechars"}`, "Name: must have 1 to 8 characters"},
		"lengths count code points":       {`{"Name":"éééééééé","Words":["1","2","3","4","5"]}`, "Words: must have at most 4 entries"},
		"out of range":                    {`{"Name":"a","Parts":[{"ID":"1","Count":10}]}`, "Parts[0].Count: must be between 1 and 9"},
		"a foreign enum value":            {`{"Name":"a","Color":"BLUE"}`, `Color: "BLUE" is not one of RED, GREEN`},
		"the pattern":                     {`{"Name":"a","Letters":"A1"}`, "Letters: does not match the pattern ^[a-z]+$"},
		"bad base64":                      {`{"Name":"a","Raw":"%%"}`, "Raw: expected base64 text"},
		"a bad instant":                   {`{"Name":"a","When":"yesterday"}`, "When: expected a timestamp"},
		"a timestamp beyond time":         {`{"Name":"a","When":1e300}`, "When: outside the range of a timestamp"},
		"several at once":                 {`{"On":1,"Small":"x"}`, "On: expected true or false; Small: expected an integer; Name: required but missing"},
		"an array for a body":             {`[]`, "expected an object"},
		"trailing text":                   {`{"Name":"a"} x`, "the body is not valid JSON: text after the end at byte 13"},
		"a NUL after the end":             {"{\"Name\":\"a\"}\x00", "the body is not valid JSON: text after the end at byte 12"},
		"a truncated body":                {`{"Name":"a`, "the body is not valid JSON: unexpected end at byte 10"},
		"a trailing comma":                {`{"Name":"a",}`, "the body is not valid JSON: nothing follows the comma at byte 12"},
		"a leading zero":                  {`{"Name":"a","Small":01}`, "the body is not valid JSON: invalid number at byte 20"},
		"a raw control character":         {"{\"Name\":\"a\nb\"}", "the body is not valid JSON: control character in a string at byte 10"},
		"invalid UTF-8":                   {"{\"Name\":\"\xff\"}", "the body is not valid JSON: invalid UTF-8 at byte 9"},
		"deep nesting":                    {`{"x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, "the body is not valid JSON: nesting deeper than 64 at byte 68"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got thing
			err := UnmarshalJSON(thingSchema, []byte(tt.text), &got)
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			if aws.KindOf(err) != aws.KindInvalid {
				t.Errorf("kind %v, want invalid", aws.KindOf(err))
			}
		})
	}
}

func TestLengths_count_one_in_the_singular(t *testing.T) {
	for want, c := range map[string]struct {
		rules *Rules
		n     int
		unit  unit
	}{
		"must have at least 1 character": {&Rules{MinLength: 1}, 0, characters},
		"must have at least 1 byte":      {&Rules{MinLength: 1}, 0, octets},
		"must have at least 2 entries":   {&Rules{MinLength: 2}, 1, entries},
		"must have at most 1 entry":      {&Rules{MaxLength: 1}, 2, entries},
		"must have 1 to 64 characters":   {&Rules{MinLength: 1, MaxLength: 64}, 0, characters},
		"":                               {&Rules{MinLength: 1, MaxLength: 64}, 64, characters},
	} {
		var check checker
		check.length(c.rules, c.n, c.unit)
		got := ""
		if len(check.violations) > 0 {
			got = check.violations[0].what
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestViolations(t *testing.T) {
	var got thing
	err := UnmarshalJSON(thingSchema, []byte(`{"Name":1,"On":1,"Small":"","Ratio":"","Raw":1,"Words":1,"Tags":1}`), &got)
	if n := strings.Count(err.Error(), ";") + 1; n != violationsMax {
		t.Errorf("%d violations told, want %d: %v", n, violationsMax, err)
	}
	f, ok := errors.AsType[*aws.Fault](err)
	if !ok || f.Member != "Name" {
		t.Errorf("the fault %+v does not name the first member", f)
	}
}

func TestSensitiveValuesAreNotEchoed(t *testing.T) {
	s := Link([]*Schema{
		{Name: "Kind", Type: Enum, Enum: []string{"A"}},
		{Name: "Map", Type: Map, Key: "string", Elem: "integer"},
		{Name: "S", Type: Structure, Members: []Member{
			{Name: "Kind", Shape: "Kind", Sensitive: true},
			{Name: "ByAddress", Shape: "Map", Sensitive: true},
		}},
	}).Of("S")
	var v struct {
		Kind      string
		ByAddress map[string]int
	}
	err := UnmarshalJSON(s, []byte(`{"Kind":"hunter2","ByAddress":{"+15550100":"x"}}`), &v)
	want := "Kind: not one of A; ByAddress.*: expected an integer"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestTooManyStructures(t *testing.T) {
	var v thing
	err := UnmarshalJSON(thingSchema, []byte(`{"Name":"a","Parts":[`+strings.Repeat(`{},`, structuresMax)+`{}]}`), &v)
	if err == nil || !strings.Contains(err.Error(), "more than 50000 objects") {
		t.Errorf("got %v", err)
	}
}

func TestMarshalJSON(t *testing.T) {
	when := time.Date(2026, 11, 14, 22, 13, 20, 120e6, time.UTC)
	tests := map[string]struct {
		v    thing
		want string
	}{
		"absent is left out, defaults are written": {thing{Name: "a"}, `{"Name":"a","Flag":false}`},
		"empty is present where it is not nil":     {thing{Words: []string{}, Tags: map[string]string{}, Nick: p("")}, `{"Name":"","nick":"","Words":[],"Tags":{},"Flag":false}`},
		"timestamps by format":                     {thing{When: &when, Stamp: &when}, `{"Name":"","When":1794694400.12,"Stamp":"2026-11-14T22:13:20.120Z","Flag":false}`},
		"whole seconds have no fraction":           {thing{When: p(when.Truncate(time.Second))}, `{"Name":"","When":1794694400,"Flag":false}`},
		"keys are sorted":                          {thing{Tags: map[string]string{"b": "2", "a": "1"}, Sums: map[string]float64{"y": 1, "x": 0.1}}, `{"Name":"","Tags":{"a":"1","b":"2"},"Sums":{"x":0.1,"y":1},"Flag":false}`},
		"text is escaped, bad UTF-8 replaced":      {thing{Name: "\"\\\n\x01\xffé<"}, `{"Name":"\"\\\n\u0001` + "\ufffd" + `é<","Flag":false}`},
		"blobs are base64":                         {thing{Raw: []byte("hi"), Small: p(1)}, `{"Name":"","Small":1,"Raw":"aGk=","Flag":false}`},
		"large and small numbers":                  {thing{Sums: map[string]float64{"a": 1e21, "b": 1e-7, "c": 123456789}}, `{"Name":"","Sums":{"a":1e+21,"b":1e-07,"c":123456789},"Flag":false}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := MarshalJSON(thingSchema, &tt.v)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !json.Valid(got) {
				t.Error("not valid JSON")
			}
		})
	}
	if _, err := MarshalJSON(thingSchema, &thing{Ratio: p(math.NaN())}); err == nil {
		t.Error("NaN was written")
	}
	if _, err := MarshalJSON(thingSchema, &thing{Sums: map[string]float64{"x": math.Inf(1)}}); err == nil {
		t.Error("infinity was written")
	}
}

func TestRedacted(t *testing.T) {
	got, err := Redacted(thingSchema, &thing{Name: "a", Secret: p("hunter2"), Inner: &thing{Name: "b", Secret: p("hunter3")}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Name":"a","Inner":{"Name":"b","Secret":"***","Flag":false},"Secret":"***","Flag":false}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzScanner holds the scanner against encoding/json: both must agree on what
// is JSON and on what its strings say.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":[1,2.5,-0,1e9,true,false,null,"x"]}`, `"\ud83d\ude00\ud800"`, `[1,]`, `{"a":1,}`, `01`, `-`, `1.`, `"\x"`, `"\u12g4"`,
		"\"a\x01\"", `nul`, ` [ ] `, `{"a"}`, `[[[[]]]]`, `"\ud800\u0041"`, `"\udc00"`, `tru`, `{"a":1 "b":2}`, "\ufeff{}", `"`, `"\`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		c := scanner{s: s, share: true}
		ok := c.skip()
		if ok && c.peek() != 0 || ok && c.pos < len(s) {
			ok = false
		}
		if ok != (c.err == nil && ok) {
			t.Fatalf("ok with error %v", c.err)
		}
		if c.err != nil && strings.Contains(c.err.Error(), "nesting") {
			return
		}
		if want := json.Valid([]byte(s)); ok != want {
			t.Fatalf("%q: valid %v, encoding/json says %v (%v)", s, ok, want, c.err)
		}
		if !ok || strings.TrimSpace(s)[0] != '"' {
			return
		}
		c = scanner{s: s}
		c.peek()
		got, _ := c.text()
		var want string
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("%q: read %q, encoding/json reads %q", s, got, want)
		}
	})
}

// FuzzUnmarshal: whatever is accepted is written back and read again as the
// same value.
func FuzzUnmarshal(f *testing.F) {
	f.Add(`{"Name":"a","Words":"x","Sets":{"k":"v"},"Inner":{"Name":"b","Byname":{"x":{"ID":"1","Count":3}}}}`)
	f.Add(`{"Name":"a","When":1794694400.12,"Stamp":"2026-11-14T22:13:20Z","Raw":"aGk=","Color":"RED","Tags":{"a":null}}`)
	f.Add(`{"Name":"a","Name":null}`)
	f.Add(`{"Name":"a","Parts":[{"ID":"1"},null,{"ID":"2"}],"Big":-9223372036854775808,"Thin":1e-3}`)
	f.Fuzz(func(t *testing.T, s string) {
		var a, b thing
		if err := UnmarshalJSON(thingSchema, []byte(s), &a); err != nil {
			if aws.KindOf(err) != aws.KindInvalid {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		text, err := MarshalJSON(thingSchema, &a)
		if err != nil {
			t.Fatal(err)
		}
		if err := UnmarshalJSON(thingSchema, text, &b); err != nil {
			t.Fatalf("reread %s: %v", text, err)
		}
		again, err := MarshalJSON(thingSchema, &b)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != string(again) {
			t.Fatalf("%s became %s", text, again)
		}
	})
}
