package sigv4

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// clockSkewMax is how far a signature's time may be from ours, either way.
const clockSkewMax = 15 * time.Minute

// Config holds the knobs of a Verifier; the zero value works.
type Config struct {
	// SigningKeysMax bounds the derived keys kept in memory; 0 means 4096.
	SigningKeysMax int

	// AllowUnsignedPayload accepts UNSIGNED-PAYLOAD on TLS connections; the
	// default is to refuse it everywhere.
	AllowUnsignedPayload bool
}

// A Verifier checks signatures. It is safe for concurrent use.
type Verifier struct {
	cfg  Config
	keys signingKeys
}

// NewVerifier returns a verifier with an empty cache of signing keys.
func NewVerifier(cfg Config) *Verifier {
	if cfg.SigningKeysMax <= 0 {
		cfg.SigningKeysMax = 4096
	}
	return &Verifier{cfg: cfg, keys: signingKeys{
		max:     max(1, cfg.SigningKeysMax/2),
		younger: make(map[signingKeyID]signingKey),
	}}
}

// A Request is what was received, untouched, and what it is checked against.
type Request struct {
	Method   string
	RawPath  string      // the path as it stood in the request line, escapes included
	RawQuery string      // without "?"
	Host     string      // the Host field or :authority, as sent
	Header   http.Header // canonical keys, values in order of arrival; Host not among them

	BodySHA256 [sha256.Size]byte // of the body actually read
	TLS        bool              // no hop of the connection was plain text

	Now      time.Time
	Regions  func(region string) bool // which scope Regions are accepted
	Services []string                 // signing names of the endpoint; the first is named in the fault
}

// UnknownKey returns the one fault for a key that is unknown, inactive, or came
// with the wrong token. Source: access 1.7.
func UnknownKey() *aws.Fault {
	return &aws.Fault{Kind: aws.KindUnknownKey, Message: "The security token included in the request is invalid."}
}

// Verify returns the request's signature if it is right, now and here, and an
// [aws.Fault] that says what is wrong otherwise; errors of keys that are no
// faults are returned as they are. The signature is also returned with a fault
// once it could be parsed, for the audit record: its claims are then unproven.
//
// Source: access 1.3.
func (v *Verifier) Verify(ctx context.Context, keys Keys, r *Request) (Signature, error) {
	sig, err := Parse(r.Header, r.RawQuery)
	if err != nil {
		return sig, err
	}
	// The query is decoded and sorted below.
	if strings.Count(r.RawQuery, "&") >= queryParametersMax {
		return sig, incomplete("Request has more than 1000 query-string parameters.")
	}
	if err := checkScope(&sig, r); err != nil {
		return sig, err
	}
	now := r.Now.UTC().Truncate(time.Second)
	if err := checkClock(&sig, now); err != nil {
		return sig, err
	}
	secret, err := keys.Secret(ctx, sig.AccessKeyID, sig.SessionToken)
	if err != nil {
		return sig, err
	}
	if !secret.Expires.IsZero() && !r.Now.Before(secret.Expires) {
		return sig, &aws.Fault{Kind: aws.KindExpiredToken, Message: "The security token included in the request is expired"}
	}

	var hashed [2 * sha256.Size]byte
	hex.Encode(hashed[:], r.BodySHA256[:])
	c := canonical{
		method: r.Method, rawPath: r.RawPath, rawQuery: r.RawQuery, host: r.Host,
		header: r.Header, signedHeaders: sig.SignedHeaders,
	}
	declared := r.Header["X-Amz-Content-Sha256"]
	if len(declared) > 0 {
		c.payloadHash = declared[0]
	} else {
		c.payloadHash = string(hashed[:])
	}
	key := v.keys.get(sig.AccessKeyID, &sig.Scope, secret.Key)
	s := scratches.Get().(*scratch)
	defer s.release()
	want := s.sign(&c, sig.timestamp, sig.Scope.text, &key)
	same := subtle.ConstantTimeCompare(want[:], []byte(sig.hex))
	if same == 0 && sig.Presigned && sig.SessionToken != "" {
		// Some clients add the token after presigning.
		c.dropToken = true
		want = s.sign(&c, sig.timestamp, sig.Scope.text, &key)
		same = subtle.ConstantTimeCompare(want[:], []byte(sig.hex))
	}
	if same == 0 || !v.payloadMatches(declared, r) || !signsRequired(&sig, r.Header) {
		return sig, mismatch()
	}
	return sig, nil
}

// Forget drops the derived keys of an access key from memory. It need not be
// called for safety: Verify looks every key up and derives anew when its secret
// has changed.
func (v *Verifier) Forget(accessKeyID string) { v.keys.forget(accessKeyID) }

// checkScope compares the scope with the timestamp and the endpoint.
func checkScope(sig *Signature, r *Request) error {
	switch s := &sig.Scope; {
	case s.Date != sig.timestamp[:len(basicDate)]:
		return bad("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" +
			echo(s.Date) + "' != '" + sig.timestamp[:len(basicDate)] + "', from '" + sig.timestamp + "'.")
	case s.Terminator != terminator:
		return bad("Credential should be scoped with a valid terminator: 'aws4_request'.")
	case !slices.Contains(r.Services, s.Service):
		service := ""
		if len(r.Services) > 0 {
			service = r.Services[0]
		}
		return bad("Credential should be scoped to correct service: '" + service + "'.")
	case r.Regions == nil || !r.Regions(s.Region):
		return bad("Credential should be scoped to a valid region. Received '" + echo(s.Region) + "'.")
	}
	return nil
}

// checkClock compares the timestamp with our clock; now has whole seconds.
func checkClock(sig *Signature, now time.Time) error {
	if sig.Time.After(now.Add(clockSkewMax)) {
		return bad("Signature not yet current: " + sig.timestamp + " is still later than " +
			now.Add(clockSkewMax).Format(basicTime) + " (" + now.Format(basicTime) + " + 15 min.)")
	}
	kind, good, text := aws.KindBadSignature, clockSkewMax, "15 min."
	if sig.Presigned {
		kind, good = aws.KindRequestExpired, sig.Expires
		text = strconv.Itoa(int(sig.Expires/time.Second)) + " sec."
	}
	if sig.Time.Before(now.Add(-good)) {
		return &aws.Fault{Kind: kind, Message: "Signature expired: " + sig.timestamp + " is now earlier than " +
			now.Add(-good).Format(basicTime) + " (" + now.Format(basicTime) + " - " + text + ")"}
	}
	return nil
}

// payloadMatches checks the declared payload hash, if any, against the body.
// Chunk formats and unknown words never match. Source: access 1.5.
func (v *Verifier) payloadMatches(declared []string, r *Request) bool {
	switch {
	case len(declared) == 0:
		return true // the signature covered the hash of the body itself
	case len(declared) > 1:
		return false
	case declared[0] == "UNSIGNED-PAYLOAD":
		return v.cfg.AllowUnsignedPayload && r.TLS
	case len(declared[0]) != 2*sha256.Size:
		return false
	}
	var sum [sha256.Size]byte
	if _, err := hex.Decode(sum[:], []byte(declared[0])); err != nil {
		return false
	}
	return subtle.ConstantTimeCompare(sum[:], r.BodySHA256[:]) == 1
}

// signsRequired checks that the signature covers what changes a request's
// meaning. Source: access 1.3 step 7.
func signsRequired(sig *Signature, header http.Header) bool {
	if !signs(sig.SignedHeaders, "host") {
		return false
	}
	if sig.dateOf == "X-Amz-Date" && !signs(sig.SignedHeaders, "x-amz-date") {
		return false
	}
	return (header["X-Amz-Target"] == nil || signs(sig.SignedHeaders, "x-amz-target")) &&
		(header["X-Amz-Content-Sha256"] == nil || signs(sig.SignedHeaders, "x-amz-content-sha256")) &&
		(header["X-Amz-Region-Set"] == nil || signs(sig.SignedHeaders, "x-amz-region-set"))
}

func bad(message string) *aws.Fault {
	return &aws.Fault{Kind: aws.KindBadSignature, Message: message}
}

func mismatch() *aws.Fault {
	return bad("The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}
