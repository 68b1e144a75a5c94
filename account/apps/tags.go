package apps

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/everpoint/everpoint/aws"
)

// Bounds of the tags that an app is created with. Source: engagement 1.3.
const (
	tagsMax           = 50
	tagKeyLengthMax   = 128 // characters
	tagValueLengthMax = 256
	tagReservedPrefix = "aws:"
)

func checkTags(tags map[string]string) error {
	if len(tags) > tagsMax {
		return aws.InvalidMember("tags", "tags: more than %d tags", tagsMax)
	}
	for key, value := range tags {
		switch {
		case key == "" || utf8.RuneCountInString(key) > tagKeyLengthMax:
			return aws.InvalidMember("tags", "tags: a key has 1 to %d characters", tagKeyLengthMax)
		case strings.HasPrefix(strings.ToLower(key), tagReservedPrefix):
			return aws.InvalidMember("tags", "tags: keys that start with %s are reserved", tagReservedPrefix)
		case utf8.RuneCountInString(value) > tagValueLengthMax:
			return aws.InvalidMember("tags", "tags: a value has at most %d characters", tagValueLengthMax)
		case !taggable(key) || !taggable(value):
			return aws.InvalidMember("tags", "tags: keys and values hold letters, digits, spaces and _ . : / = + - @ only")
		}
	}
	return nil
}

func taggable(s string) bool {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsSpace(r) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}
