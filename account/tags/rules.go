package tags

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// Bounds of a resource's tags. Source: engagement 1.3.
const (
	tagsMax        = 50  // reserved ones not counted
	keyCharsMax    = 128 // at least 1
	valueCharsMax  = 256
	reservedPrefix = "aws:"
)

// Check reports tags that nobody may give to a resource: too many, too long, of
// other characters than the service takes, or with a reserved key. Of several
// faults it names that of the first key in order. A nil map is no fault.
//
// The at sign is taken besides the documented characters, as elsewhere in AWS.
//
// Source: engagement 1.3.
func Check(tags map[string]string) error {
	if len(tags) > tagsMax {
		return aws.InvalidMember("tags", "tags: more than %d tags", tagsMax)
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if err := checkKey("tags", key); err != nil {
			return err
		}
		value := tags[key]
		switch {
		case utf8.RuneCountInString(value) > valueCharsMax:
			return aws.InvalidMember("tags", "tags: a value has at most %d characters", valueCharsMax)
		case strings.ContainsFunc(value, refused):
			return refusedCharacters("tags")
		}
	}
	return nil
}

// checkKey reports a key that a request may not name; member is where it does.
func checkKey(member, key string) error {
	switch {
	case key == "" || utf8.RuneCountInString(key) > keyCharsMax:
		return aws.InvalidMember(member, "%s: a key has 1 to %d characters", member, keyCharsMax)
	case reserved(key):
		return aws.InvalidMember(member, "%s: keys that start with %s are reserved", member, reservedPrefix)
	case strings.ContainsFunc(key, refused):
		return refusedCharacters(member)
	}
	return nil
}

func refusedCharacters(member string) error {
	return aws.InvalidMember(member, "%s: keys and values hold letters, digits, spaces and _ . : / = + - @ only", member)
}

func refused(r rune) bool {
	return !unicode.In(r, unicode.L, unicode.N, unicode.Z) && !strings.ContainsRune("_.:/=+-@", r)
}

// reserved reports a key of the provider's own, in whatever case.
func reserved(key string) bool { return strings.HasPrefix(strings.ToLower(key), reservedPrefix) }

// counted is how many tags count against the bound.
func counted(tags map[string]string) (n int) {
	for key := range tags {
		if !reserved(key) {
			n++
		}
	}
	return n
}
