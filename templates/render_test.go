package templates

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2020, time.September, 19, 19, 0, 0, 0, time.UTC)

// ann is an endpoint as a template sees it.
var ann = MapVars{
	"Address":     String("ann@example.com"),
	"ChannelType": String("EMAIL"),
	"Attributes": Map(MapVars{
		"colors":  Strings([]string{"blue", "red", "green"}),
		"one":     Strings([]string{"only"}),
		"none":    Strings(nil),
		"html":    Strings([]string{`<b class="x">Tom & 'Jerry'</b>`}),
		"2024":    Strings([]string{"year", "of"}),
		"plan":    Strings([]string{"gold"}),
		"off":     Strings([]string{"false"}),
		"zero":    Strings([]string{"0"}),
		"zone":    Strings([]string{"America/Los_Angeles"}),
		"birth":   Strings([]string{"19/09/2020"}),
		"notdate": Strings([]string{"soon"}),
	}),
	"Metrics":  Map(MapVars{"visits": Number(7), "price": Number(5.5), "nothing": Number(0)}),
	"Location": Map(MapVars{"City": String("Los Angeles"), "Country": String("US")}),
	"User": Map(MapVars{
		"UserId": String("u-1"),
		"UserAttributes": Map(MapVars{
			"FirstName": Strings([]string{"Jane"}),
			"Last Name": Strings([]string{"Alejandro"}),
			"UserAge":   Strings([]string{"22"}),
			"interests": Strings([]string{"<h1>Art</h1>"}),
		}),
	}),
	"RecommendationItems": Strings([]string{"sku-0", "sku-1"}),
	"Orders": List([]Value{
		Map(MapVars{"Id": String("o1"), "Items": Strings([]string{"pen", "ink"})}),
		Map(MapVars{"Id": String("o2"), "Items": Strings(nil)}),
	}),
}

func render(t testing.TB, src string, o Options, vars Vars, c Context) (string, Result) {
	t.Helper()
	compiled, err := Parse(src, o)
	if err != nil {
		t.Fatalf("Parse(%q): %v", src, err)
	}
	out, result, err := compiled.Append(nil, vars, c)
	if err != nil {
		t.Fatalf("Append(%q): %v", src, err)
	}
	return string(out), result
}

func noonContext() Context { return Context{Now: noon, UUID: UUIDsFrom("message-1")} }

// A claim is a template and what it renders to for ann.
type claim struct{ src, want string }

func checkClaims(t *testing.T, o Options, claims []claim) {
	t.Helper()
	for _, c := range claims {
		t.Run(c.src, func(t *testing.T) {
			got, result := render(t, c.src, o, ann, noonContext())
			if got != c.want {
				t.Errorf("%s\n got %q\nwant %q", c.src, got, c.want)
			}
			if !result.Complete() {
				t.Errorf("%s: missing %q, unusable %q", c.src, result.Missing, result.Unusable)
			}
		})
	}
}

func TestLanguage(t *testing.T) {
	checkClaims(t, Options{}, []claim{
		{"", ""},
		{"no tags } }} { here", "no tags } }} { here"},
		{"{{Address}}", "ann@example.com"},
		{"{{ Address }}!", "ann@example.com!"},
		{"{{Attributes.colors.[0]}}", "blue"},
		{"{{Attributes.colors.[2]}}", "green"},
		{"{{Attributes.colors.1}}", "red"},
		{"{{Attributes/colors/[1]}}", "red"},
		{"{{Attributes.colors[1]}}", "red"},
		{"{{User.UserAttributes.[Last Name].[0]}}", "Alejandro"},
		{"{{RecommendationItems.[1]}}", "sku-1"},
		{"{{Attributes.2024}}", "year, of"},
		{"{{Attributes.2024.[1]}}", "of"},
		{"{{Location.City.[0]}}", "Los Angeles"},
		{"{{Metrics.visits}} {{Metrics.price}} {{Metrics.nothing}}", "7 5.5 0"},
		{"{{Orders.[0].Id}}{{Orders.[1].Id}}", "o1o2"},
		{"{{Orders.[0].Items.[1]}}", "ink"},
		{"{{@root.Address}}", "ann@example.com"},
		{"{{this.Address}}{{./ChannelType}}", "ann@example.comEMAIL"},

		// Lists: one value is the value, several are joined (engagement 13.11).
		{"{{Attributes.one}}", "only"},
		{"{{Attributes.colors}}", "blue, red, green"},

		// Literals.
		{`{{"a 'b'"}}{{'c "d"'}}{{12}}{{-1.50}}{{true}}`, `a 'b'c "d"12-1.50true`},
		{`{{lower "A \"B\""}}`, `a "b"`},

		// Comments.
		{"a{{! gone }}b{{!-- gone }} too --}}c{{!}}d", "abcd"},

		// White space control.
		{"a  {{~Address~}}  b", "aann@example.comb"},
		{"a \n {{~! x ~}} \n b", "ab"},
		{"a {{~!-- x --~}} b", "ab"},
		{"a {{#if Address~}} \n b \n {{~else~}} c {{~/if}} d", "a b d"},
		{"a {{~{Address}~}} b", "aann@example.comb"},
		{"a\n{{#if Address}}\nb\n{{/if}}\nc", "a\n\nb\n\nc"},

		// A backslash makes a literal tag; two make a backslash.
		{`\{{Address}} {{ChannelType}}`, "{{Address}} EMAIL"},
		{`\\{{ChannelType}}`, `\EMAIL`},
		{`a\b \{{x}} \{{y}}`, `a\b {{x}} {{y}}`},

		// Blocks.
		{"{{#if Address}}yes{{else}}no{{/if}}", "yes"},
		{"{{#if Nothing}}yes{{else}}no{{/if}}", "no"},
		{"{{#if Nothing}}yes{{^}}no{{/if}}", "no"},
		{"{{#unless Nothing}}yes{{else}}no{{/unless}}", "yes"},
		{"{{#if Nothing}}1{{else if Address}}2{{else}}3{{/if}}", "2"},
		{"{{#if Nothing}}1{{else if Nought}}2{{else unless Address}}3{{else}}4{{/if}}", "4"},
		{`{{#if Nothing}}1{{else eq ChannelType "EMAIL"}}2{{/if}}`, "2"},
		{"{{^if Nothing}}none{{else}}some{{/if}}", "none"},
		{"{{# if Address }}yes{{/ if }}", "yes"},
		{"{{#if Attributes.colors.[5]}}yes{{else}}no{{/if}}", "no"},
		{"{{#if Attributes.none}}yes{{else}}no{{/if}}", "no"},
		{"{{#if Attributes.off}}yes{{else}}no{{/if}}", "no"},
		{"{{#if Attributes.zero.[0]}}yes{{else}}no{{/if}}", "yes"},
		{"{{#if Metrics.nothing}}yes{{else}}no{{/if}}", "no"},
		{"{{#if Location}}yes{{else}}no{{/if}}", "yes"},
		{"{{#each Attributes.colors}}<{{@index}}:{{this}}>{{else}}none{{/each}}", "<0:blue><1:red><2:green>"},
		{"{{#each Attributes.none}}x{{else}}none{{/each}}", "none"},
		{"{{#each Nothing}}x{{else}}none{{/each}}", "none"},
		{"{{#each Location.City}}<{{this}}>{{/each}}", "<Los Angeles>"},
		{"{{#each Location}}{{@key}}={{this}};{{/each}}", "City=Los Angeles;Country=US;"},
		{"{{#each Attributes.colors}}{{#if @first}}[{{/if}}{{.}}{{#if @last}}]{{else}},{{/if}}{{/each}}", "[blue,red,green]"},
		{"{{#each Orders}}{{Id}}:{{#each Items}}{{../Id}}/{{this}}/{{@../index}}{{@index}} {{else}}-{{/each}}{{/each}}", "o1:o1/pen/00 o1/ink/01 o2:-"},
		{"{{#each Orders}}{{this.Id}}{{/each}}", "o1o2"},
		{"{{#each Attributes.colors}}{{upper this}}{{/each}}", "BLUEREDGREEN"},
		{"{{#each Attributes.colors}}{{User.UserId}} {{/each}}", "u-1 u-1 u-1 "},
		{"{{#with User}}{{UserId}} {{Address}}{{/with}}", "u-1 ann@example.com"},
		{"{{#with Nothing}}x{{else}}none{{/with}}", "none"},
		{"{{#Attributes.colors}}{{this}} {{/Attributes.colors}}", "blue red green "},
		{"{{#Location}}{{City}}{{/Location}}{{^Nothing}}!{{/Nothing}}", "Los Angeles!"},
		{"{{#[Last Name]}}x{{else}}none{{/[Last Name]}}", "none"},

		// Inline partials.
		{`{{#* inline "n"}}<{{Address}}>{{/inline}}{{> n}}{{> n}}`, "<ann@example.com><ann@example.com>"},
		{`{{> n}}{{#*inline "n"}}late{{/inline}}`, "late"},
		{`{{#* inline "n"}}{{UserId}}{{/inline}}{{> n User}}`, "u-1"},
		{`{{#* inline "n"}}{{greeting}} {{this.Address}}{{Address}}{{/inline}}{{> n greeting="Hi"}}`, "Hi ann@example.comann@example.com"},
		{`{{#* inline "a"}}[{{> b}}]{{/inline}}{{#* inline "b"}}{{ChannelType}}{{/inline}}{{> a}}`, "[EMAIL]"},
		{
			`{{#* inline "fullName"}}{{User.UserAttributes.FirstName.[0]}}{{#if User.UserAttributes.LastName.[0]}} {{User.UserAttributes.LastName.[0]}}{{/if}}{{/inline}}Hello {{> fullName}}`,
			"Hello Jane",
		},

		// Sub-expressions.
		{`{{capitalizeFirst (lower "JANE")}}`, "Jane"},
		{`{{#and (eq Location.City "Los Angeles") (eq Location.Country "US")}}both{{else}}not{{/and}}`, "both"},
		{`{{upper (substring (lower Location.City) 4 (add 4 5))}}`, "ANGEL"},

		// A helper's name without the arguments it needs is a plain name.
		{"{{#if floor}}x{{else}}no floor{{/if}}", "no floor"},
	})
}

func TestEscaping(t *testing.T) {
	checkClaims(t, Options{HTML: true}, []claim{
		{"<i>{{Attributes.html.[0]}}</i>", "<i>&lt;b class&#x3D;&quot;x&quot;&gt;Tom &amp; &#x27;Jerry&#x27;&lt;/b&gt;</i>"},
		{"{{{Attributes.html.[0]}}}", `<b class="x">Tom & 'Jerry'</b>`},
		{"{{& Attributes.html.[0]}}", `<b class="x">Tom & 'Jerry'</b>`},
		{"{{Attributes.html}}", "&lt;b class&#x3D;&quot;x&quot;&gt;Tom &amp; &#x27;Jerry&#x27;&lt;/b&gt;"},
		{`{{"` + "`" + `"}}`, "&#x60;"},
		{`{{replace "a" "a" "<"}}{{{replace "a" "a" "<"}}}`, "&lt;<"},
		{`{{join Attributes.colors " & "}}`, "blue &amp; red &amp; green"},
		{"{{Metrics.price}}{{true}}", "5.5true"},
	})
	checkClaims(t, Options{}, []claim{
		{"{{Attributes.html}} {{{Attributes.html}}}", `<b class="x">Tom & 'Jerry'</b> <b class="x">Tom & 'Jerry'</b>`},
	})
}

func TestMissing(t *testing.T) {
	defaults, err := ParseDefaults(`{"User.UserAttributes.Nick":"friend","Attributes.[pet name].[0]":"Rex","Nobody":""}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, src, want   string
		missing, unusable []string
	}{
		{"a name without value renders as nothing and is listed", "a{{Nothing}}b", "ab", []string{"Nothing"}, nil},
		{"an index past the end is missing", "{{Attributes.colors.[9]}}", "", []string{"Attributes.colors.[9]"}, nil},
		{"a name is listed once, as written", "{{x.[a b]}}{{x.[a b]}}{{ y }}", "", []string{"x.[a b]", "y"}, nil},
		{"a helper's argument is listed, not the helper", "{{upper (lower Nothing)}}", "", []string{"Nothing"}, nil},
		{"arithmetic with a missing name is nothing", "{{add Nothing 1}}", "", []string{"Nothing"}, nil},
		{"an empty list is missing", "{{Attributes.none}}", "", []string{"Attributes.none"}, nil},
		{"this outside a loop is missing", "{{this}}{{@index}}", "", []string{"this", "@index"}, nil},
		{"tests do not list", "{{#if a}}{{/if}}{{#unless b}}{{/unless}}{{#eq c 1}}{{/eq}}{{not d}}{{yesno e}}{{#each f}}{{/each}}{{or g h}}{{#if (upper i)}}{{/if}}{{#j}}{{/j}}", "truemaybefalse", nil, nil},
		{"the chosen answer of a test is listed", "{{if Address yes=Nothing no=Other}}", "", []string{"Nothing"}, nil},
		{"a branch not taken is not listed", "{{#if Nothing}}{{Nothing}}{{else}}none{{/if}}", "none", nil, nil},
		{"neq holds for a missing name, eq and its like do not", `{{neq x 1}}{{eq x 1}}{{gt x 1}}{{gte x 1}}{{lt x 1}}{{lte x 1}}`, "truefalsefalsefalsefalsefalse", nil, nil},
		{"a default fills in", "{{User.UserAttributes.Nick}}", "friend", nil, nil},
		{"a default for a name serves its items", "{{User.UserAttributes.Nick.[0]}}", "friend", nil, nil},
		{"a default may be written with brackets", "{{Attributes.[pet name].[0]}}", "Rex", nil, nil},
		{"a default reaches helpers", "{{upper User.UserAttributes.Nick}}", "FRIEND", nil, nil},
		{"a default makes a test hold", "{{#if User.UserAttributes.Nick}}yes{{/if}}", "yes", nil, nil},
		{"an empty default is a value", "<{{Nobody}}>", "<>", nil, nil},
		{"a value wins over a default", "{{Location.City}}", "Los Angeles", nil, nil},
		{"a text is no number", `{{add Location.City 1}}{{round "x"}}`, "", nil, []string{"Location.City is not a number", `"x" is not a number`}},
		{"nothing is divided by zero", "{{divide 1 0}}{{modulo 1.5 0}}", "", nil, []string{"0 gives divide no result", "0 gives modulo no result"}},
		{"a date that is none", "{{dateFormat Attributes.notdate.[0]}}", "", nil, []string{"Attributes.notdate.[0] is not a date that can be read"}},
		{"a zone that is none", "{{now tz=Location.City}}{{now tz=Nowhere}}", "", nil, []string{"Location.City is not a time zone", "Nowhere is not a time zone"}},
		{"a map is not printed", "{{Location}}", "", nil, []string{"Location is a map and cannot be printed"}},
		{"base64 that is none", `{{decode64 "a*"}}`, "", nil, []string{`"a*" is not base64`}},
		{"a length that is none", "{{abbreviate Address Location.City}}", "", nil, []string{"Location.City is not a whole number that can be a length or position"}},
		{"a test lists nothing unusable", "{{#if (add Location.City 1)}}x{{/if}}", "", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := noonContext()
			ctx.Defaults = defaults
			got, result := render(t, c.src, Options{}, ann, ctx)
			if got != c.want || !slices.Equal(result.Missing, c.missing) || !slices.Equal(result.Unusable, c.unusable) {
				t.Errorf("%s\n got %q missing %q unusable %q\nwant %q missing %q unusable %q", c.src, got, result.Missing, result.Unusable, c.want, c.missing, c.unusable)
			}
			if result.Complete() != (c.missing == nil && c.unusable == nil) {
				t.Errorf("Complete() = %v", result.Complete())
			}
		})
	}

	t.Run("ten names are listed at most", func(t *testing.T) {
		var src strings.Builder
		for i := range 30 {
			fmt.Fprintf(&src, "{{n%d}}", i)
		}
		_, result := render(t, src.String(), Options{}, nil, Context{})
		if len(result.Missing) != 10 || result.Missing[0] != "n0" {
			t.Errorf("missing %q", result.Missing)
		}
	})
	t.Run("now and uuid need their source", func(t *testing.T) {
		out, result := render(t, "<{{now}}{{uuid}}>", Options{}, nil, Context{})
		if out != "<>" || len(result.Unusable) != 2 {
			t.Errorf("out %q, unusable %q", out, result.Unusable)
		}
	})
}

func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"{{", "line 1, column 1: the tag is not closed"},
		{"a\nbc{{x", "line 2, column 3: the tag is not closed"},
		{"é {{}}", "line 1, column 3: the tag is empty"},
		{"{{x y}}", `line 1, column 1: there is no helper named "x"`},
		{"{{#if x}}", "line 1, column 1: the block {{#if}} is not closed"},
		{"{{#if x}}\n{{/each}}", "line 2, column 1: {{/each}} does not close {{#if}}"},
		{"{{/if}}", "line 1, column 1: {{/if}} closes a block that is not open"},
		{"{{else}}", "line 1, column 1: {{else}} outside a block"},
		{"{{#if x}}{{else}}{{else}}{{/if}}", "line 1, column 18: {{else}} a second time in one block"},
		{"{{#if}}{{/if}}", "line 1, column 1: {{#if}} takes exactly one argument"},
		{"{{#if a b}}{{/if}}", "line 1, column 1: {{#if}} takes exactly one argument"},
		{"{{#}}{{/}}", "line 1, column 1: the block has no name"},
		{"{{#upper x}}{{/upper}}", "line 1, column 1: upper is not a block: {{upper …}}"},
		{"{{upper}}{{upper a b}}", "line 1, column 10: upper takes at most 1 arguments, has 2"},
		{"{{replace a}}", "line 1, column 1: replace needs at least 3 arguments, has 1"},
		{"{{upper a x=1}}", `line 1, column 1: upper has no option "x"`},
		{"{{eq a b yes=1 yes=2}}", `line 1, column 20: the option "yes" is given twice`},
		{"{{eq a yes=1 b}}", "line 1, column 14: arguments come before options"},
		{"{{upper (x)}}", "line 1, column 9: (x) is not a call: there is no such helper without arguments"},
		{"{{upper (lower a}}", "line 1, column 17: expected ) to close the parenthesis, found '}'"},
		{"{{x)}}", "line 1, column 4: expected }} to close the tag, found ')'"},
		{"{{{x}}", "line 1, column 5: expected }}} to close the tag, found '}'"},
		{`{{"x}}`, "line 1, column 3: the quoted text is not closed"},
		{"{{a.[b}}", "line 1, column 5: the bracket is not closed"},
		{"{{a.[]}}", "line 1, column 5: the brackets are empty"},
		{"{{a.}}", "line 1, column 5: expected a name, found '}'"},
		{"{{a!b}}", "line 1, column 4: a name cannot hold '!'; put it in brackets: [a b]"},
		{"{{@size}}", "line 1, column 3: there is no @size; there are @index, @key, @first, @last and @root"},
		{"{{! x", "line 1, column 1: the comment is not closed"},
		{"{{!-- x }}", "line 1, column 1: the comment is not closed"},
		{"{{{{raw}}}}", "line 1, column 1: raw blocks {{{{ }}}} are not supported"},
		{"{{#> x}}{{/x}}", "line 1, column 1: partial blocks {{#> }} are not supported"},
		{"{{#each a as |b|}}{{/each}}", "line 1, column 11: block parameters (as |x|) are not supported"},
		{"{{> x}}", `line 1, column 1: there is no inline partial named "x"`},
		{"{{> }}", "line 1, column 1: the tag names no partial"},
		{`{{#* inline "x"}}{{/inline}}{{#* inline "x"}}{{/inline}}`, `line 1, column 29: the inline partial "x" is defined twice`},
		{`{{#* inline "x"}}{{else}}{{/inline}}`, "line 1, column 18: {{else}} is not allowed in {{#inline}}"},
		{`{{#* other "x"}}`, `line 1, column 1: {{#* }} is for inline partials only: {{#* inline "name"}}`},
		{`{{now "jjj"}}`, `line 1, column 1: now: 'j' is not a date format letter`},
		{`{{now "yyyy'"}}`, "line 1, column 1: now: the date format has an open quote"},
		{`{{dateFormat x tz="Mars/Base"}}`, `line 1, column 1: dateFormat: "Mars/Base" is not a time zone`},
		{`{{dateFormat x inputFormat="ww"}}`, "line 1, column 1: dateFormat: dates cannot be read by the letter 'w'"},
		{"{{abbreviate x -3}}", "line 1, column 1: abbreviate: -3 is not a whole number that can be a length or position"},
		{"{{center x}}", "line 1, column 1: center: the size is missing"},
		{"a\xff", "line 1, column 1: the text is not valid UTF-8"},
	} {
		t.Run(c.src, func(t *testing.T) {
			_, err := Parse(c.src, Options{})
			if err == nil || err.Error() != c.want {
				t.Errorf("Parse(%q)\n got %v\nwant %s", c.src, err, c.want)
			}
			if _, ok := errors.AsType[*SyntaxError](err); !ok {
				t.Errorf("%T is no *SyntaxError", err)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	parse := func(src string) error {
		_, err := Parse(src, Options{})
		return err
	}
	nested := func(n int) string {
		return strings.Repeat("{{#if x}}", n) + strings.Repeat("{{/if}}", n)
	}
	parentheses := func(n int) string {
		return "{{not " + strings.Repeat("(not ", n) + "x" + strings.Repeat(")", n) + "}}"
	}
	chain := func(n int) string {
		return "{{#if x}}" + strings.Repeat("{{else if x}}", n) + "{{/if}}"
	}
	for _, c := range []struct {
		name      string
		fits, not string
	}{
		{"characters", strings.Repeat("é", 600_000), strings.Repeat("é", 600_001)},
		{"tags", strings.Repeat("{{x}}", 20_000), strings.Repeat("{{x}}", 20_001)},
		{"blocks", nested(32), nested(33)},
		{"parentheses", parentheses(32), parentheses(33)},
		{"else if", chain(256), chain(257)},
		{"path", "{{x" + strings.Repeat(".x", 31) + "}}", "{{x" + strings.Repeat(".x", 32) + "}}"},
		{"up", "{{" + strings.Repeat("../", 32) + "x}}", "{{" + strings.Repeat("../", 33) + "x}}"},
		{"arguments", "{{and" + strings.Repeat(" x", 32) + "}}", "{{and" + strings.Repeat(" x", 33) + "}}"},
		{"pattern", `{{now "` + strings.Repeat("y", 32) + `"}}`, `{{now "` + strings.Repeat("y", 33) + `"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := parse(c.fits); err != nil {
				t.Errorf("within the bound: %v", err)
			}
			if err := parse(c.not); err == nil {
				t.Error("past the bound: no error")
			}
		})
	}

	many := make([]string, 40)
	for i := range many {
		many[i] = "item"
	}
	vars := MapVars{"many": Strings(many), "big": String(strings.Repeat("<", 1<<19))}
	each := func(n int) string {
		return strings.Repeat("{{#each @root.many}}", n) + "x" + strings.Repeat("{{/each}}", n)
	}
	double := "big"
	for range 8 {
		double = `(replace ` + double + ` "<" "<<")`
	}
	for _, c := range []struct {
		name, src string
		want      error
	}{
		{"partials that call themselves", `{{#* inline "a"}}{{> a}}{{/inline}}{{> a}}`, ErrTooDeep},
		{"partials that double", `{{#* inline "a"}}{{> b}}{{> b}}{{/inline}}{{#* inline "b"}}{{> a}}{{> a}}{{/inline}}{{> a}}`, ErrTooDeep},
		{"loops in loops", each(6), ErrTooMuchWork},
		{"a long output", "{{big}}{{big}}{{big}}", ErrOutputTooLong},
		{"a long literal output", "{{#each many}}" + strings.Repeat("x", 1<<17) + "{{/each}}", ErrOutputTooLong},
		{"escapes that grow", "{{#each many}}{{big}}{{/each}}", ErrOutputTooLong},
		{"helpers that grow", "{{md5 " + double + "}}", ErrOutputTooLong},
		{"wide padding", "{{md5 (center big size=1048576)}}", ErrOutputTooLong},
		{"joins that grow", `{{md5 (join many big)}}`, ErrOutputTooLong},
		{"zones that are none, over and over", each(3) + strings.Repeat("{{#each many}}", 3) + "{{now tz=this}}" + strings.Repeat("{{/each}}", 3), ErrTooMuchWork},
		{"dates over and over", strings.Replace(each(5), "x", `{{md5 (dateFormat "2020-09-19" "`+strings.Repeat("MMMM ", 40)+`")}}`, 1), ErrTooMuchWork},
		{"digests over and over", "{{#each many}}{{#each @root.many}}{{sha512 big}}{{sha512 big}}{{/each}}{{/each}}", ErrTooMuchWork},
	} {
		t.Run(c.name, func(t *testing.T) {
			compiled, err := Parse(c.src, Options{HTML: true})
			if err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			out, _, err := compiled.Append([]byte("kept"), vars, noonContext())
			if !errors.Is(err, c.want) || string(out) != "kept" {
				t.Errorf("out %d bytes, error %v; want %v", len(out), err, c.want)
			}
			took := time.Since(started)
			t.Logf("took %v", took)
			if took > 5*time.Second {
				t.Error("the bound on work does not bound time")
			}
		})
	}

	t.Run("each visits 15 items", func(t *testing.T) {
		out, _ := render(t, "{{#each many}}{{#if @last}}{{@index}}{{/if}}{{/each}}", Options{}, vars, Context{})
		if out != "14" {
			t.Errorf("last index %s", out)
		}
	})
}

func TestVariables(t *testing.T) {
	compiled, err := Parse(`{{b.[x y].[0]}}{{a}}{{a}}{{upper c.d}}{{#if e}}{{@index}}{{this}}{{/if}}`+
		`{{eq f "g" yes=h}}{{inflect i cat cats}}{{now tz=America/New_York}}{{dateFormat j tz=k.l}}`+
		`{{> p m n=o}}{{#* inline "p"}}{{q}}{{/inline}}{{#each r}}{{../s}}{{/each}}{{uuid}}`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a", "b.[x y].[0]", "c.d", "e", "f", "h", "i", "j", "k.l", "m", "o", "q", "r", "s"}
	if got := compiled.Variables(); !slices.Equal(got, want) {
		t.Errorf("Variables() = %q\nwant %q", got, want)
	}
	if got := VariablesOf([]*Template{compiled, compiled}); !slices.Equal(got, want) {
		t.Errorf("VariablesOf = %q", got)
	}
}

func TestExecuteFromManyGoroutines(t *testing.T) {
	compiled, err := Parse(`{{#each Attributes.colors}}{{upper this}}{{/each}} {{User.UserId}} {{missing}}`, Options{HTML: true})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				var out strings.Builder
				result, err := compiled.Execute(&out, ann, noonContext())
				if err != nil || out.String() != "BLUEREDGREEN u-1 " || !slices.Equal(result.Missing, []string{"missing"}) {
					t.Errorf("out %q, result %v, error %v", out.String(), result, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// TestRunsLeaveNothingBehind executes templates that fail in the middle of
// loops and partials, and then others that must not see any of it.
func TestRunsLeaveNothingBehind(t *testing.T) {
	deep, err := Parse(`{{#* inline "a"}}{{#with User}}{{> a x="left"}}{{/with}}{{/inline}}{{> a}}`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, _, err := deep.Append(nil, ann, Context{}); !errors.Is(err, ErrTooDeep) {
			t.Fatal(err)
		}
		out, result := render(t, "{{x}}{{UserId}}{{this}}", Options{}, nil, Context{})
		if out != "" || len(result.Missing) != 3 {
			t.Fatalf("out %q, missing %q", out, result.Missing)
		}
	}
}

func TestExecuteReportsTheWriter(t *testing.T) {
	compiled, err := Parse("x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compiled.Execute(brokenWriter{}, nil, Context{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
