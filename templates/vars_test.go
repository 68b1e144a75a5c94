package templates

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/aws"
)

func TestSubstitutions(t *testing.T) {
	long := strings.Repeat("x", substitutionNameMax-2)
	s := Substitutions{
		"name": {"Ann"}, "codes": {"1", "2"}, "User.UserAttributes.FirstName": {"Jane"},
		"First Name": {"J"}, "empty": nil, "a." + long: {"fits"}, "ab." + long: {"does not"},
	}
	out, result := render(t, "{{name}} {{codes}} {{codes.[1]}} {{User.UserAttributes.FirstName.[0]}} {{[First Name]}} {{a."+long+"}}<{{empty}}{{other}}{{ab."+long+"}}>", Options{}, s, Context{})
	if out != "Ann 1, 2 2 Jane J fits<>" {
		t.Errorf("out %q", out)
	}
	if len(result.Missing) != 3 {
		t.Errorf("missing %q", result.Missing)
	}
	if _, ok := s.Lookup(nil); ok {
		t.Error("the empty path has a value")
	}
}

// TestLayers follows the precedence of engagement 9.3.
func TestLayers(t *testing.T) {
	vars := Layers{
		Substitutions{"a": {"address"}},
		Substitutions{"a": {"message"}, "b": {"message"}},
		Substitutions{"a": {"default"}, "b": {"default"}, "c": {"default"}},
		MapVars{"a": String("endpoint"), "d": String("endpoint")},
	}
	c := Context{Defaults: Defaults{"a": "template", "e": "template"}}
	out, result := render(t, "{{a}} {{b}} {{c.[0]}} {{d}} {{e}}", Options{}, vars, c)
	if out != "address message default endpoint template" || !result.Complete() {
		t.Errorf("out %q, %v", out, result)
	}
}

// TestLookupSeesNoTrailingIndex pins what an implementation of Vars is asked for.
func TestLookupSeesNoTrailingIndex(t *testing.T) {
	var asked recorder
	render(t, "{{a.b.[0]}}{{c}}{{[0]}}{{d.2.[1]}}", Options{}, &asked, Context{})
	want := recorder{{"a", "b"}, {"a", "b", "0"}, {"c"}, {"0"}, {"d", "2"}, {"d", "2", "1"}}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("asked for %q", asked)
	}
}

type recorder [][]string

func (r *recorder) Lookup(path []string) (Value, bool) {
	*r = append(*r, path)
	return Value{}, false
}

func TestValueOf(t *testing.T) {
	var decoded any
	if err := json.Unmarshal([]byte(`{"s":"x","n":1.25,"b":true,"z":null,"l":[1,["a","b"],{"k":"v"}],"m":{"k":[{"d":"deep"}]}}`), &decoded); err != nil {
		t.Fatal(err)
	}
	vars := ValueOf(decoded).more.fields
	out, result := render(t, "{{s}} {{n}} {{b}} {{l.[0]}} {{l.[1]}} {{l.[1].[1]}} {{l.[2].k}} {{m.k.[0].d}} {{#each l}}{{@index}}{{k}}{{/each}}<{{z}}>", Options{}, vars, Context{})
	if out != "x 1.25 true 1 a, b b v deep 012v<>" {
		t.Errorf("out %q", out)
	}
	if len(result.Missing) != 2 {
		t.Errorf("missing %q", result.Missing)
	}
	for _, c := range []struct {
		in   any
		want string
	}{{json.Number("2.50"), "2.5"}, {json.Number("x"), ""}, {[]string{"a", "b"}, "a, b"}, {3, "3"}, {String("v"), "v"}, {struct{}{}, ""}} {
		if got := ValueOf(c.in).Text(); got != c.want {
			t.Errorf("ValueOf(%v) = %q, want %q", c.in, got, c.want)
		}
	}
	deep := any("bottom")
	for range 100 {
		deep = []any{deep}
	}
	if got := ValueOf(deep).Text(); got != "" {
		t.Errorf("a value below the depth bound shows as %q", got)
	}
}

func TestParseDefaults(t *testing.T) {
	for _, s := range []string{"", " ", "{}"} {
		if d, err := ParseDefaults(s); err != nil || len(d) != 0 {
			t.Errorf("ParseDefaults(%q) = %v, %v", s, d, err)
		}
	}
	got, err := ParseDefaults(`{"User.UserAttributes.FirstName":"friend"," a.[b c].[0] ":"é\n"}`)
	want := Defaults{"User.UserAttributes.FirstName": "friend", "a.b c.0": "é\n"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, c := range []struct{ in, want string }{
		{"[]", "not a JSON object"},
		{"null", "not a JSON object"},
		{`"x"`, "not a JSON object"},
		{`{"a":"b"} {}`, "not a JSON object"},
		{`{"a":`, "not a JSON object"},
		{`{"a":1}`, `"a" is not a string`},
		{`{"a":["b"]}`, `"a" is not a string`},
		{`{"a":null}`, `"a" is not a string`},
		{`{"":"x"}`, `"" is not a name`},
		{`{"a":"` + strings.Repeat("x", defaultsCharsMax) + `"}`, "more than 100000 characters"},
	} {
		_, err := ParseDefaults(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) || aws.KindOf(err) != aws.KindInvalid {
			t.Errorf("ParseDefaults(%.40q): %v; want %q", c.in, err, c.want)
		}
	}
}
