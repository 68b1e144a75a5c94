package sigv4

import (
	"net/http"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
)

const (
	algorithm           = "AWS4-HMAC-SHA256"
	algorithmAsymmetric = "AWS4-ECDSA-P256-SHA256"
	terminator          = "aws4_request"
	basicTime           = "20060102T150405Z"
	basicDate           = "20060102"

	// Bounds on what one request may carry. Real clients stay far below them.
	authorizationBytesMax = 8 << 10
	accessKeyIDBytesMax   = 128
	signedHeadersMax      = 128
	queryParametersMax    = 1000
	presignSecondsMax     = 604800 // seven days; source: access 1.3
)

// A Signature is what a request carries to prove who sent it, parsed but not
// verified. Its strings may share memory with the request's headers.
type Signature struct {
	AccessKeyID string
	Scope       Scope
	Time        time.Time // when the client signed, UTC, whole seconds

	// SignedHeaders holds the lower-case names, sorted and unique, joined by ";".
	SignedHeaders string

	// SessionToken comes with temporary credentials; empty for long-term keys.
	// It is as secret as a password.
	SessionToken SecretKey

	// Presigned says that the signature came in the query and is good for
	// Expires; otherwise Expires is 0.
	Presigned bool
	Expires   time.Duration

	hex       string // the signature as sent
	timestamp string // Time in basic form, as signed
	dateOf    string // canonical name of the header that supplied Time; "" in the query form
}

// A Scope is what a credential is limited to: one day, Region and service.
type Scope struct {
	Date, Region, Service, Terminator string

	text string // the four parts joined by "/", as sent
}

// String returns the scope as it stands in the credential and the string to sign.
func (s Scope) String() string {
	if s.text != "" {
		return s.text
	}
	return s.Date + "/" + s.Region + "/" + s.Service + "/" + s.Terminator
}

// Parse finds the signature in the headers or the query and checks its shape
// and its timestamp. It returns a MissingToken fault if nothing is signed, and
// an IncompleteSignature fault that lists what is wrong otherwise. The messages
// never repeat a signature or a token.
//
// Source: access 1.2, 1.7.
func Parse(header http.Header, rawQuery string) (Signature, error) {
	authorization := header["Authorization"]
	inQuery := strings.Contains(rawQuery, "mz-") || strings.Contains(rawQuery, "%")
	var q queryForm
	if inQuery {
		var err error
		if q, err = readQueryForm(rawQuery); err != nil {
			return Signature{}, err
		}
	}
	switch {
	case len(authorization) > 1:
		return Signature{}, incomplete("Request has more than one Authorization header.")
	case len(authorization) == 1 && q.present:
		return Signature{}, incomplete("Request is signed both in the Authorization header and in the query string; only one is allowed.")
	case q.present:
		return q.parse(header)
	case len(authorization) == 1 && strings.Trim(authorization[0], " \t") != "":
		return parseHeader(header, strings.Trim(authorization[0], " \t"))
	}
	return Signature{}, &aws.Fault{Kind: aws.KindMissingToken, Message: "Missing Authentication Token"}
}

// parseHeader reads the Authorization header.
func parseHeader(header http.Header, value string) (Signature, error) {
	if len(value) > authorizationBytesMax {
		return Signature{}, incomplete("Authorization header is longer than 8192 bytes.")
	}
	scheme, rest := value, ""
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		scheme, rest = value[:i], value[i+1:]
	} else if !strings.HasPrefix(value, "AWS4-") {
		scheme = "" // a bare word may be a token: do not repeat it
	}
	if scheme == algorithmAsymmetric {
		return Signature{}, asymmetricRefused()
	}

	var credential, signedHeaders, hex string
	var seen [3]bool
	if scheme == algorithm {
		for more := rest != ""; more; {
			var element string
			element, rest, more = strings.Cut(rest, ",")
			element = strings.Trim(element, " \t")
			name, v, ok := strings.Cut(element, "=")
			if !ok {
				return Signature{}, incomplete("'" + echo(element) + "' not a valid key=value pair (missing equal-sign) in Authorization header")
			}
			var which int
			switch name {
			case "Credential":
				which, credential = 0, v
			case "SignedHeaders":
				which, signedHeaders = 1, v
			case "Signature":
				which, hex = 2, v
			default:
				continue
			}
			if seen[which] {
				return Signature{}, incomplete("Authorization header has more than one '" + name + "' parameter.")
			}
			seen[which] = true
		}
	}

	dateOf := "X-Amz-Date"
	dates := header[dateOf]
	if len(dates) == 0 {
		dateOf = "Date"
		dates = header[dateOf]
	}
	var gaps []string
	if credential == "" {
		gaps = append(gaps, "Authorization header requires 'Credential' parameter.")
	}
	if hex == "" {
		gaps = append(gaps, "Authorization header requires 'Signature' parameter.")
	}
	if signedHeaders == "" {
		gaps = append(gaps, "Authorization header requires 'SignedHeaders' parameter.")
	}
	if len(dates) == 0 {
		gaps = append(gaps, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if len(gaps) > 0 {
		return Signature{}, incomplete(strings.Join(gaps, " ") + " Authorization=" + echo(scheme))
	}

	sig := Signature{SignedHeaders: signedHeaders, hex: hex, dateOf: dateOf}
	if err := sig.readCredential(credential); err != nil {
		return Signature{}, err
	}
	if err := checkSignedHeaders(header, signedHeaders); err != nil {
		return Signature{}, err
	}
	if len(dates) > 1 {
		return Signature{}, incomplete("Request has more than one '" + dateOf + "' header.")
	}
	if err := sig.readTime(dates[0], dateOf == "Date"); err != nil {
		return Signature{}, err
	}
	if err := sig.readTokenHeader(header); err != nil {
		return Signature{}, err
	}
	return sig, nil
}

// queryForm holds the decoded signature parameters of a query string.
type queryForm struct {
	present bool // one of those that only a presigned request has
	values  [7]string
	seen    [7]bool
}

// The signature parameters; the order is that of queryForm.values.
var queryNames = [7]string{
	"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires",
	"X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token",
}

const (
	qAlgorithm = iota
	qCredential
	qDate
	qExpires
	qSignedHeaders
	qSignature
	qToken
)

func readQueryForm(rawQuery string) (q queryForm, err error) {
	repeated := ""
	for pair := range strings.SplitSeq(rawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		if len(rawName) < len("X-Amz-Date") { // the shortest name; escapes only lengthen
			continue
		}
		name := unescape(rawName)
		for i, want := range queryNames {
			if name != want {
				continue
			}
			if q.seen[i] {
				repeated = want
			}
			q.seen[i] = true
			q.values[i] = unescape(rawValue)
			q.present = q.present || (i != qDate && i != qToken)
		}
	}
	if repeated != "" && q.present {
		return q, incomplete("AWS query-string parameter '" + repeated + "' is given more than once.")
	}
	return q, nil
}

func (q *queryForm) parse(header http.Header) (Signature, error) {
	if q.values[qAlgorithm] == algorithmAsymmetric {
		return Signature{}, asymmetricRefused()
	}
	var gaps []string
	for i := range qToken {
		if q.values[i] == "" {
			gaps = append(gaps, "AWS query-string parameters must include '"+queryNames[i]+"'.")
		}
	}
	if len(gaps) > 0 {
		return Signature{}, incomplete(strings.Join(gaps, " ") + " Re-examine the query-string parameters.")
	}
	if q.values[qAlgorithm] != algorithm {
		return Signature{}, incomplete("X-Amz-Algorithm must be '" + algorithm + "'.")
	}
	seconds := 0
	for i := range len(q.values[qExpires]) {
		c := q.values[qExpires][i]
		if c < '0' || c > '9' || i >= 6 {
			seconds = 0
			break
		}
		seconds = seconds*10 + int(c-'0')
	}
	if seconds < 1 || seconds > presignSecondsMax {
		return Signature{}, incomplete("X-Amz-Expires must be an integer from 1 to 604800.")
	}
	sig := Signature{
		Presigned:     true,
		Expires:       time.Duration(seconds) * time.Second,
		SignedHeaders: q.values[qSignedHeaders],
		SessionToken:  SecretKey(q.values[qToken]),
		hex:           q.values[qSignature],
	}
	if err := sig.readCredential(q.values[qCredential]); err != nil {
		return Signature{}, err
	}
	if err := checkSignedHeaders(header, sig.SignedHeaders); err != nil {
		return Signature{}, err
	}
	if err := sig.readTime(q.values[qDate], false); err != nil {
		return Signature{}, err
	}
	if sig.SessionToken == "" {
		if err := sig.readTokenHeader(header); err != nil {
			return Signature{}, err
		}
	}
	return sig, nil
}

// readCredential splits keyid/date/region/service/terminator.
func (s *Signature) readCredential(credential string) error {
	id, scope, ok := strings.Cut(credential, "/")
	if strings.Count(credential, "/") != 4 || !ok || id == "" || len(credential) > 2*accessKeyIDBytesMax || len(id) > accessKeyIDBytesMax {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	s.AccessKeyID = id
	s.Scope.text = scope
	s.Scope.Date, scope, _ = strings.Cut(scope, "/")
	s.Scope.Region, scope, _ = strings.Cut(scope, "/")
	s.Scope.Service, s.Scope.Terminator, _ = strings.Cut(scope, "/")
	return nil
}

// readTime reads the timestamp: basic form, or an HTTP date where that is allowed.
func (s *Signature) readTime(value string, httpDate bool) error {
	value = strings.Trim(value, " \t")
	// The length keeps out the fractions that time.Parse accepts unasked.
	if len(value) == len(basicTime) {
		if t, err := time.Parse(basicTime, value); err == nil {
			s.Time, s.timestamp = t, value
			return nil
		}
	}
	if httpDate {
		if t, err := http.ParseTime(value); err == nil {
			s.Time = t.UTC()
			s.timestamp = s.Time.Format(basicTime)
			return nil
		}
	}
	return incomplete("Date must be in ISO-8601 'basic format' (YYYYMMDDTHHMMSSZ). Got '" + echo(value) + "'.")
}

func (s *Signature) readTokenHeader(header http.Header) error {
	switch tokens := header["X-Amz-Security-Token"]; len(tokens) {
	case 0:
	case 1:
		s.SessionToken = SecretKey(tokens[0])
	default:
		return incomplete("Request has more than one 'X-Amz-Security-Token' header.")
	}
	return nil
}

// checkSignedHeaders makes sure that the names are lower-case, sorted, unique
// and present in the request. Host is always present: it is not in the map.
func checkSignedHeaders(header http.Header, names string) error {
	previous := ""
	for count, rest, more := 0, names, true; more; count++ {
		var name string
		name, rest, more = strings.Cut(rest, ";")
		for i := range len(name) {
			if c := name[i]; c >= 'A' && c <= 'Z' {
				return incomplete("SignedHeaders must be lower-case.")
			}
		}
		if name <= previous || count >= signedHeadersMax {
			return incomplete("SignedHeaders must be sorted, without repetition or empty names, and at most 128.")
		}
		previous = name
		if name != "host" && headerValues(header, name) == nil {
			return incomplete("SignedHeaders names '" + echo(name) + "', which is not a header of the request.")
		}
	}
	return nil
}

// headerValues looks a lower-case name up under its canonical key without
// allocating; nil if the request has no such header.
func headerValues(header http.Header, name string) []string {
	var buf [64]byte
	if len(name) > len(buf) {
		return header[http.CanonicalHeaderKey(name)]
	}
	upper := true
	for i := range len(name) {
		c := name[i]
		if upper && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper = c == '-'
		buf[i] = c
	}
	return header[string(buf[:len(name)])]
}

func signs(signedHeaders, name string) bool {
	for more := true; more; {
		var have string
		have, signedHeaders, more = strings.Cut(signedHeaders, ";")
		if have == name {
			return true
		}
	}
	return false
}

// unescape decodes percent escapes. A "+" stays a plus sign, and a "%" that
// starts no escape stays itself. Source: access 1.4.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c, ok := escaped(s, i); ok {
			out = append(out, c)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// escaped decodes the escape at s[i]; ok is false if there is none.
func escaped(s string, i int) (c byte, ok bool) {
	if s[i] != '%' || i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := fromHex(s[i+1])
	lo, ok2 := fromHex(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func fromHex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// echo returns s if it is safe to repeat to the caller: a short word, which
// neither a signature nor a token is.
func echo(s string) string {
	if len(s) > 32 {
		return "..."
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '\'' {
			return "..."
		}
	}
	return s
}

func incomplete(message string) *aws.Fault {
	return &aws.Fault{Kind: aws.KindIncompleteSignature, Message: message}
}

func asymmetricRefused() *aws.Fault {
	return incomplete("Signatures of algorithm '" + algorithmAsymmetric + "' are not accepted by this endpoint; sign with '" + algorithm + "'.")
}
