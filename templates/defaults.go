package templates

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/everpoint/everpoint/aws"
)

// Defaults are a template's default substitutions: the text to use for a name
// that has no value. A default for a name also serves its items: one for
// User.UserAttributes.FirstName is used for User.UserAttributes.FirstName.[0].
// Make them with [ParseDefaults], which brings names to the form they are
// looked up by.
type Defaults map[string]string

// Bounds on DefaultSubstitutions. Source: ours; the original states none.
const (
	defaultsCharsMax = 100_000
	defaultsNamesMax = 1_000
)

// ParseDefaults reads DefaultSubstitutions, a string that holds a JSON object
// of strings: {"User.UserAttributes.FirstName":"friend"}. The empty string and
// {} hold none. Errors are Invalid faults that name the offending entry.
//
// Source: engagement 5.1.
func ParseDefaults(s string) (Defaults, error) {
	const member = "DefaultSubstitutions"
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if chars(s) > defaultsCharsMax {
		return nil, aws.InvalidMember(member, "DefaultSubstitutions has more than %d characters", defaultsCharsMax)
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &entries); err != nil || entries == nil {
		return nil, aws.InvalidMember(member, "DefaultSubstitutions is not a JSON object of strings")
	}
	if len(entries) > defaultsNamesMax {
		return nil, aws.InvalidMember(member, "DefaultSubstitutions has more than %d names", defaultsNamesMax)
	}
	d := make(Defaults, len(entries))
	for name, raw := range entries {
		var text string
		if !bytes.HasPrefix(raw, []byte{'"'}) || json.Unmarshal(raw, &text) != nil {
			return nil, aws.InvalidMember(member, "DefaultSubstitutions: the value of %q is not a string", name)
		}
		key := defaultsKey(name)
		if key == "" {
			return nil, aws.InvalidMember(member, "DefaultSubstitutions: %q is not a name", name)
		}
		d[key] = text
	}
	return d, nil
}

var withoutBrackets = strings.NewReplacer("[", "", "]", "")

// defaultsKey is a name without brackets and surrounding space: "a.[b c].[0]"
// is looked up as "a.b c.0".
func defaultsKey(name string) string {
	return withoutBrackets.Replace(strings.TrimSpace(name))
}
