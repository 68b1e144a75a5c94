package smtp

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// pathBytesMax is the longest mailbox: RFC 5321 4.5.3.1.3 allows a path of 256
// octets, angle brackets included.
const pathBytesMax = 254

// checkMailbox says why s cannot stand between the angle brackets of MAIL or
// RCPT, or returns nil. It is about safety on the wire (nothing that ends the
// path, the line or the command can pass), not about whether the mailbox
// exists. Source: RFC 5321 4.1.2, RFC 6531 3.3.
func checkMailbox(s string) error {
	if len(s) > pathBytesMax {
		return fmt.Errorf("address is longer than %d bytes", pathBytesMax)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("address is not UTF-8")
	}
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at == len(s)-1 {
		return fmt.Errorf("address is not local-part@domain")
	}
	local, domain := s[:at], s[at+1:]
	if local[0] == '"' {
		if err := checkQuoted(local); err != nil {
			return err
		}
	} else {
		for i := range len(local) {
			if c := local[i]; c < 0x80 && !isAtext(c) && c != '.' {
				return fmt.Errorf("byte %d of the address, %q, cannot stand in an unquoted local part", i, c)
			}
		}
	}
	return checkDomain(domain)
}

// checkQuoted checks a quoted local part, quotes included.
func checkQuoted(s string) error {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return fmt.Errorf("quoted local part does not end")
	}
	for i := 1; i < len(s)-1; i++ {
		c := s[i]
		switch {
		case c == '\\':
			i++
			if i == len(s)-1 || s[i] < ' ' || s[i] >= 0x7f {
				return fmt.Errorf("quoted local part has a bad escape")
			}
		case c == '"' || c < ' ' || c == 0x7f:
			return fmt.Errorf("byte %d of the address, %q, cannot stand in a quoted local part", i, c)
		}
	}
	return nil
}

// checkDomain checks a domain or an address literal in square brackets.
func checkDomain(s string) error {
	if strings.HasPrefix(s, "[") {
		if !strings.HasSuffix(s, "]") || len(s) < 3 {
			return fmt.Errorf("address literal does not end")
		}
		for _, c := range []byte(s[1 : len(s)-1]) {
			if c <= ' ' || c >= 0x7f || c == '[' || c == ']' || c == '\\' || c == '<' || c == '>' {
				return fmt.Errorf("address literal holds %q", c)
			}
		}
		return nil
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" {
			return fmt.Errorf("domain has an empty label")
		}
	}
	for _, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c >= 0x80
		if !letter && c != '-' && c != '.' && c != '_' {
			return fmt.Errorf("domain holds %q", c)
		}
	}
	return nil
}

// isAtext says whether c may stand in an atom. Source: RFC 5322 3.2.3.
func isAtext(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// validHello says whether s may be given in EHLO.
func validHello(s string) bool {
	return s != "" && len(s) <= 255 && isASCII(s) && checkDomain(s) == nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
