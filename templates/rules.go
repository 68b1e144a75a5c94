package templates

import (
	"slices"
	"strings"
	"unicode"

	"github.com/everpoint/everpoint/aws"
)

// A Type is one of the five kinds of template. Source: engagement 5.
type Type string

// The types, in the API's words.
const (
	Email Type = "EMAIL"
	SMS   Type = "SMS"
	Voice Type = "VOICE"
	Push  Type = "PUSH"
	InApp Type = "INAPP"
)

// ParseType reads a type in any case, as it stands in paths.
func ParseType(s string) (Type, error) {
	for _, t := range []Type{Email, SMS, Voice, Push, InApp} {
		if strings.EqualFold(s, string(t)) {
			return t, nil
		}
	}
	return "", aws.InvalidMember("TemplateType", "%q is not a template type: EMAIL, SMS, VOICE, PUSH or INAPP", quote(s))
}

// Limits, in characters and in numbers of things. Source: engagement 5, 5.1.
const (
	NameCharsMax        = 128
	DescriptionCharsMax = 500
	HeadersMax          = 15
	HeaderNameCharsMax  = 126
	HeaderValueCharsMax = 870
	InAppContentsMax    = 5
	InAppConfigMax      = 10
)

// CheckName reports a template name that is empty, too long, or has other signs
// than letters, digits, underscore and hyphen, the first a letter or digit.
// Letters and digits are those of ASCII. Source: engagement 5.
func CheckName(name string) error {
	const member = "TemplateName"
	if name == "" {
		return aws.InvalidMember(member, "the template name is empty")
	}
	if chars(name) > NameCharsMax {
		return aws.InvalidMember(member, "the template name has more than %d characters", NameCharsMax)
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		switch {
		case letter:
		case i == 0:
			return aws.InvalidMember(member, "the template name %q does not start with a letter or digit", quote(name))
		case c != '_' && c != '-':
			return aws.InvalidMember(member, "the template name %q has %q; only letters, digits, _ and - may be used", quote(name), c)
		}
	}
	return nil
}

// CheckDescription reports a TemplateDescription that is too long.
func CheckDescription(description string) error {
	if chars(description) > DescriptionCharsMax {
		return aws.InvalidMember("TemplateDescription", "TemplateDescription has more than %d characters", DescriptionCharsMax)
	}
	return nil
}

// A Part is one text member of a template's content.
type Part struct {
	Member string // its path in the request: "HtmlPart", "ADM.Body", "Content.BodyConfig.Body"
	Text   string
}

// sizes are the character limits of what a member belongs to: the template, a
// platform's part of a push template, or a field of an in-app message.
var sizes = map[Type]map[string]int{
	Email: {"": 600_000},
	SMS:   {"": 1_600},
	Voice: {"": 10_000},
	Push:  {"Default": 4_000, "APNS": 4_000, "GCM": 4_000, "Baidu": 4_000, "ADM": 6_000},
	InApp: {"": 200_000},
}

// inAppFields are the limits of single fields, by the last word of the member.
var inAppFields = map[string]int{"Header": 64, "Body": 150, "Text": 64}

// CheckSize reports content that has too many characters. The members of an
// email, and of one platform's part of a push template, count together; an
// in-app template counts as a whole, and its headers, bodies and button texts
// one by one. Source: engagement 5.1.
func CheckSize(t Type, parts []Part) error {
	counts := map[string]int{}
	for _, part := range parts {
		n := chars(part.Text)
		whole := ""
		if t == Push {
			whole, _, _ = strings.Cut(part.Member, ".")
		}
		counts[whole] += n
		if t != InApp {
			continue
		}
		field := part.Member[strings.LastIndexByte(part.Member, '.')+1:]
		if most, ok := inAppFields[field]; ok && n > most {
			return aws.InvalidMember(part.Member, "%s has %d characters; the limit is %d", part.Member, n, most)
		}
	}
	for _, part := range parts {
		whole := ""
		if t == Push {
			whole, _, _ = strings.Cut(part.Member, ".")
		}
		most, ok := sizes[t][whole]
		if !ok {
			return aws.InvalidMember(part.Member, "%s is not part of a %s template", part.Member, t)
		}
		if counts[whole] > most {
			what := whole
			if what == "" {
				what = "the template"
			}
			return aws.InvalidMember(part.Member, "%s has %d characters; the limit is %d", what, counts[whole], most)
		}
	}
	return nil
}

// Compile parses every part and reports the first mistake as an Invalid fault
// that names the member, line and column. The result is parallel to parts.
// HtmlPart escapes. In-app templates have no variables and are not compiled.
// Source: engagement 5.1, 5.3.
func Compile(parts []Part) ([]*Template, error) {
	compiled := make([]*Template, len(parts))
	for i, part := range parts {
		t, err := Parse(part.Text, Options{HTML: part.Member == "HtmlPart"})
		if err != nil {
			return nil, aws.InvalidMember(part.Member, "%s: %s", part.Member, err)
		}
		compiled[i] = t
	}
	return compiled, nil
}

// A Header is an email header that the sender adds. The value may hold variables.
type Header struct {
	Name, Value string
}

// CheckHeaders reports headers that no message may carry: too many, a name that
// is not printable ASCII without colon or is too long, a value with a line
// break or that is no template. How long the value is, only its rendering tells:
// see [CheckHeaderValue]. Source: engagement 5.1; RFC 5322 2.2.
func CheckHeaders(headers []Header) error {
	if len(headers) > HeadersMax {
		return aws.InvalidMember("Headers", "there are %d headers; the limit is %d", len(headers), HeadersMax)
	}
	for _, h := range headers {
		if err := checkHeaderName(h.Name); err != nil {
			return err
		}
		if err := checkHeaderText(h.Name, h.Value); err != nil {
			return err
		}
		if _, err := Parse(h.Value, Options{}); err != nil {
			return aws.InvalidMember("Headers", "the value of header %q: %s", h.Name, err)
		}
	}
	return nil
}

func checkHeaderName(name string) error {
	if name == "" {
		return aws.InvalidMember("Headers", "a header has no name")
	}
	if chars(name) > HeaderNameCharsMax {
		return aws.InvalidMember("Headers", "the header name %q has more than %d characters", quote(name), HeaderNameCharsMax)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f || name[i] == ':' {
			return aws.InvalidMember("Headers", "the header name %q has other signs than printable ASCII without colon", quote(name))
		}
	}
	return nil
}

// lineBreaks are what some mail programs take for the end of a header.
const lineBreaks = "\r\n\v\f\u0085\u2028\u2029"

func checkHeaderText(name, text string) error {
	if strings.ContainsAny(text, lineBreaks) {
		return aws.InvalidMember("Headers", "the value of header %q has a line break", quote(name))
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c != '\t' && unicode.IsControl(c) }) {
		return aws.InvalidMember("Headers", "the value of header %q has a control character", quote(name))
	}
	return nil
}

// CheckHeaderValue reports a rendered value that is too long or that would break
// out of its header: a value from an endpoint must not add headers or a body.
// The caller does not send such a message. The error does not hold the value.
// Source: engagement 5.1, channels-and-events 4.
func CheckHeaderValue(name, rendered string) error {
	if n := chars(rendered); n > HeaderValueCharsMax {
		return aws.InvalidMember("Headers", "the value of header %q has %d characters; the limit is %d", quote(name), n, HeaderValueCharsMax)
	}
	return checkHeaderText(name, rendered)
}

// VariablesOf lists the names that any of the templates may ask for, in order,
// each once.
func VariablesOf(compiled []*Template) []string {
	var names []string
	for _, t := range compiled {
		names = append(names, t.variables...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
