package templates

import (
	"strings"
	"unicode"

	"github.com/everpoint/everpoint/aws"
)

// Bounds of the tags that a template is created with. Source: engagement 1.3.
const (
	resourceTagsMax   = 50
	tagKeyCharsMax    = 128
	tagValueCharsMax  = 256
	tagReservedPrefix = "aws:"
)

func checkTags(tags map[string]string) error {
	if len(tags) > resourceTagsMax {
		return aws.InvalidMember("tags", "tags: more than %d tags", resourceTagsMax)
	}
	for key, value := range tags {
		switch {
		case key == "" || chars(key) > tagKeyCharsMax:
			return aws.InvalidMember("tags", "tags: a key has 1 to %d characters", tagKeyCharsMax)
		case strings.HasPrefix(strings.ToLower(key), tagReservedPrefix):
			return aws.InvalidMember("tags", "tags: keys that start with %s are reserved", tagReservedPrefix)
		case chars(value) > tagValueCharsMax:
			return aws.InvalidMember("tags", "tags: a value has at most %d characters", tagValueCharsMax)
		case strings.ContainsFunc(key+value, func(c rune) bool {
			return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsSpace(c) && !strings.ContainsRune("_.:/=+-@", c)
		}):
			return aws.InvalidMember("tags", "tags: keys and values hold letters, digits, spaces and _ . : / = + - @ only")
		}
	}
	return nil
}
