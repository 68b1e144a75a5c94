package templates

import (
	"strings"
	"testing"

	"github.com/everpoint/everpoint/aws"
)

// wantInvalid fails unless err is an Invalid fault about member that holds want;
// an empty want asks for no error.
func wantInvalid(t *testing.T, err error, member, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("unexpected %v", err)
		}
		return
	}
	fault, ok := err.(*aws.Fault)
	if !ok || fault.Kind != aws.KindInvalid || fault.Member != member || !strings.Contains(fault.Message, want) {
		t.Errorf("got %v; want %q about %s", err, want, member)
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"a": "", "9_-A": "", strings.Repeat("x", 128): "",
		"": "empty", strings.Repeat("x", 129): "more than 128", "_a": "does not start", "-a": "does not start",
		"a b": "only letters", "a.b": "only letters", "aé": "only letters", "é": "does not start", "a/b": "only letters",
	} {
		wantInvalid(t, CheckName(name), "TemplateName", want)
	}
	wantInvalid(t, CheckDescription(strings.Repeat("é", 500)), "", "")
	wantInvalid(t, CheckDescription(strings.Repeat("é", 501)), "TemplateDescription", "more than 500")
}

func TestParseType(t *testing.T) {
	for in, want := range map[string]Type{"email": Email, "SMS": SMS, "Voice": Voice, "PUSH": Push, "inApp": InApp} {
		if got, err := ParseType(in); got != want || err != nil {
			t.Errorf("ParseType(%q) = %q, %v", in, got, err)
		}
	}
	_, err := ParseType("FAX")
	wantInvalid(t, err, "TemplateType", "FAX")
}

func TestCheckSize(t *testing.T) {
	text := func(n int) string { return strings.Repeat("é", n) }
	for _, c := range []struct {
		name         string
		t            Type
		parts        []Part
		member, want string
	}{
		{"email parts count together", Email, []Part{{"Subject", text(100_000)}, {"HtmlPart", text(500_000)}}, "", ""},
		{"email too long", Email, []Part{{"Subject", text(1)}, {"HtmlPart", text(600_000)}}, "Subject", "600001 characters; the limit is 600000"},
		{"sms", SMS, []Part{{"Body", text(1_600)}}, "", ""},
		{"sms too long", SMS, []Part{{"Body", text(1_601)}}, "Body", "the limit is 1600"},
		{"voice", Voice, []Part{{"Body", text(10_000)}}, "", ""},
		{"voice too long", Voice, []Part{{"Body", text(10_001)}}, "Body", "the limit is 10000"},
		{"push parts count apart", Push, []Part{{"Default.Body", text(4_000)}, {"ADM.Body", text(6_000)}, {"APNS.Title", text(2_000)}, {"APNS.Body", text(2_000)}}, "", ""},
		{"one push part too long", Push, []Part{{"APNS.Title", text(2_000)}, {"APNS.Body", text(2_001)}}, "APNS.Title", "APNS has 4001"},
		{"adm too long", Push, []Part{{"ADM.RawContent", text(6_001)}}, "ADM.RawContent", "the limit is 6000"},
		{"unknown push part", Push, []Part{{"WNS.Body", "x"}}, "WNS.Body", "not part of a PUSH template"},
		{"in-app fields", InApp, []Part{{"Content.HeaderConfig.Header", text(64)}, {"Content.BodyConfig.Body", text(150)}, {"Content.PrimaryBtn.DefaultConfig.Text", text(64)}}, "", ""},
		{"in-app header", InApp, []Part{{"Content.HeaderConfig.Header", text(65)}}, "Content.HeaderConfig.Header", "limit is 64"},
		{"in-app body", InApp, []Part{{"Content.BodyConfig.Body", text(151)}}, "Content.BodyConfig.Body", "limit is 150"},
		{"in-app button", InApp, []Part{{"Content.PrimaryBtn.DefaultConfig.Text", text(65)}}, "Content.PrimaryBtn.DefaultConfig.Text", "limit is 64"},
		{"in-app whole", InApp, []Part{{"Content.ImageUrl", text(200_001)}}, "Content.ImageUrl", "limit is 200000"},
	} {
		t.Run(c.name, func(t *testing.T) { wantInvalid(t, CheckSize(c.t, c.parts), c.member, c.want) })
	}
}

func TestCompile(t *testing.T) {
	compiled, err := Compile([]Part{{"Subject", "{{a}}"}, {"HtmlPart", "{{a}}"}, {"TextPart", "{{a}}{{b}}"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"<", "&lt;", "<1"} {
		out, _, err := compiled[i].Append(nil, MapVars{"a": String("<"), "b": Number(1)}, Context{})
		if err != nil || string(out) != want {
			t.Errorf("part %d: %q, %v", i, out, err)
		}
	}
	_, err = Compile([]Part{{"Subject", "fine"}, {"TextPart", "a\n{{#if}}"}})
	wantInvalid(t, err, "TextPart", "TextPart: line 2, column 1: {{#if}} takes exactly one argument")
}

func TestCheckHeaders(t *testing.T) {
	many := make([]Header, 16)
	for i := range many {
		many[i] = Header{"X-A", "v"}
	}
	for _, c := range []struct {
		name    string
		headers []Header
		want    string
	}{
		{"the intended use", []Header{{"List-Unsubscribe", "<https://x.example/{{Id}}>, <mailto:u@x.example>"}, {"List-Unsubscribe-Post", "List-Unsubscribe=One-Click"}}, ""},
		{"none", nil, ""},
		{"fifteen", many[:15], ""},
		{"sixteen", many, "the limit is 15"},
		{"the longest name", []Header{{strings.Repeat("x", 126), ""}}, ""},
		{"a name too long", []Header{{strings.Repeat("x", 127), ""}}, "more than 126"},
		{"no name", []Header{{"", "v"}}, "no name"},
		{"a colon in a name", []Header{{"X:Y", "v"}}, "printable ASCII without colon"},
		{"a line break in a name", []Header{{"X\r\nBcc", "v"}}, "printable ASCII without colon"},
		{"a space in a name", []Header{{"X Y", "v"}}, "printable ASCII without colon"},
		{"a name that is not ASCII", []Header{{"X-é", "v"}}, "printable ASCII without colon"},
		{"a line break in a value", []Header{{"X", "v\r\nBcc: a@b.example"}}, "line break"},
		{"a lone carriage return", []Header{{"X", "v\rw"}}, "line break"},
		{"a value that is no template", []Header{{"X", "{{"}}, "line 1, column 1"},
		{"a long source with a short rendering", []Header{{"X", "{{!" + strings.Repeat("x", 900) + "}}"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { wantInvalid(t, CheckHeaders(c.headers), "Headers", c.want) })
	}
}

// TestCheckHeaderValue covers what an endpoint's own values may not do.
func TestCheckHeaderValue(t *testing.T) {
	for rendered, want := range map[string]string{
		strings.Repeat("é", 870): "", "tab\tseparated": "", "": "",
		strings.Repeat("é", 871): "the limit is 870",
		"a\r\nBcc: x@y.example":  "line break", "a\nb": "line break", "a\rb": "line break",
		"a\u2028b": "line break", "a\u0085b": "line break", "a\x00b": "control character",
	} {
		err := CheckHeaderValue("X-A", rendered)
		wantInvalid(t, err, "Headers", want)
		if err != nil && rendered != "" && strings.Contains(err.Error(), rendered) {
			t.Errorf("the error tells the value: %v", err)
		}
	}
}
