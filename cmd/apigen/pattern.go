package main

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

var unicodeEscape = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)

// pattern turns a model's regular expression into one of package regexp. Look
// around and code points beyond \uFFFF cannot be expressed: the overlay must
// replace such a pattern.
func pattern(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	p = unicodeEscape.ReplaceAllString(p, `\x{$1}`)
	if _, err := syntax.Parse(p, syntax.Perl); err != nil {
		return "", fmt.Errorf("pattern %q needs a replacement in the overlay: %w", p, err)
	}
	return p, nil
}
