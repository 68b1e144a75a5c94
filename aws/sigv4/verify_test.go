package sigv4

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// The worked example of access 1.10.
const (
	exampleKeyID     = "AKIAIOSFODNN7EXAMPLE"
	exampleSecret    = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	exampleHost      = "pinpoint.us-east-1.amazonaws.com"
	examplePath      = "/v1/tags/arn%3Aaws%3Amobiletargeting%3Aus-east-1%3A123456789012%3Aapps%2F810c7aab86d42fb2b56c8c966example"
	exampleQuery     = "tagKeys=b&tagKeys=a%20c"
	exampleSignature = "fbdc003f03558bcabc1f6d8bb395ee8ea631ea030ac1593fd890e10f7d9ce578"
	exampleCanonical = `DELETE
/v1/tags/arn%253Aaws%253Amobiletargeting%253Aus-east-1%253A123456789012%253Aapps%252F810c7aab86d42fb2b56c8c966example
tagKeys=a%20c&tagKeys=b
host:pinpoint.us-east-1.amazonaws.com
x-amz-date:20241031T120000Z

host;x-amz-date
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`
	exampleCanonicalHash = "4e2a28d8f290a46f6b5bd4eb45051ab25024d8dbda48b8be6a1d9491870e01bb"
	exampleAuthorization = "AWS4-HMAC-SHA256 Credential=" + exampleKeyID + "/20241031/us-east-1/mobiletargeting/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + exampleSignature
)

var exampleTime = time.Date(2024, 10, 31, 12, 0, 0, 0, time.UTC)

// someKeys holds secrets by access key id; a session needs its token.
type someKeys map[string]struct {
	secret, token string
	expires       time.Time
}

func (k someKeys) Secret(_ context.Context, id string, token SecretKey) (Secret, error) {
	s, ok := k[id]
	if !ok || s.token != string(token) {
		return Secret{}, UnknownKey()
	}
	return Secret{SecretKey(s.secret), s.expires}, nil
}

var exampleKeys = someKeys{
	exampleKeyID:           {secret: exampleSecret},
	"ASIAIOSFODNN7EXAMPLE": {secret: exampleSecret, token: "Token+/==", expires: exampleTime.Add(time.Hour)},
}

func exampleRequest() *Request {
	return &Request{
		Method: "DELETE", RawPath: examplePath, RawQuery: exampleQuery, Host: exampleHost,
		Header:     http.Header{"X-Amz-Date": {"20241031T120000Z"}, "Authorization": {exampleAuthorization}},
		BodySHA256: sha256.Sum256(nil),
		Now:        exampleTime,
		Regions:    func(r string) bool { return r == "us-east-1" },
		Services:   []string{"mobiletargeting"},
	}
}

func TestWorkedExample(t *testing.T) {
	r := exampleRequest()
	got := new(scratch).render(&canonical{
		method: r.Method, rawPath: r.RawPath, rawQuery: r.RawQuery, host: r.Host, header: r.Header,
		signedHeaders: "host;x-amz-date", payloadHash: hex.EncodeToString(r.BodySHA256[:]),
	})
	if string(got) != exampleCanonical {
		t.Errorf("canonical request:\n%s\nwant:\n%s", got, exampleCanonical)
	}
	if h := fmt.Sprintf("%x", sha256.Sum256(got)); h != exampleCanonicalHash {
		t.Errorf("canonical hash %s, want %s", h, exampleCanonicalHash)
	}
	sig, err := NewVerifier(Config{}).Verify(t.Context(), exampleKeys, r)
	if err != nil {
		t.Fatal(err)
	}
	if sig.AccessKeyID != exampleKeyID || sig.Scope.Region != "us-east-1" || sig.Scope.Service != "mobiletargeting" || sig.Presigned || !sig.Time.Equal(exampleTime) {
		t.Errorf("parsed %+v", sig)
	}

	req, err := http.NewRequestWithContext(t.Context(), "DELETE", "https://"+exampleHost+examplePath+"?"+exampleQuery, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Sign(req, sha256.Sum256(nil), Credentials{AccessKeyID: exampleKeyID, Secret: exampleSecret}, "us-east-1", "mobiletargeting", exampleTime); err != nil {
		t.Fatal(err)
	}
	if got := req.Header.Get("Authorization"); got != exampleAuthorization {
		t.Errorf("Sign wrote %s\nwant %s", got, exampleAuthorization)
	}
}

// resign replaces the signature of r by one that is right for what r holds now.
func resign(r *Request, secret string) {
	const mark = "Signature="
	value := r.Header["Authorization"][0]
	_, signed, _ := strings.Cut(value, "SignedHeaders=")
	signed, _, _ = strings.Cut(signed, ",")
	_, scope, _ := strings.Cut(value, "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	_, scope, _ = strings.Cut(scope, "/")
	parts := strings.Split(scope, "/")
	payload := hex.EncodeToString(r.BodySHA256[:])
	if d := r.Header["X-Amz-Content-Sha256"]; len(d) > 0 {
		payload = d[0]
	}
	timestamp := r.Header.Get("X-Amz-Date")
	if timestamp == "" {
		d, _ := http.ParseTime(r.Header.Get("Date"))
		timestamp = d.UTC().Format(basicTime)
	}
	key := derive(SecretKey(secret), parts[0], parts[1], parts[2])
	sum := new(scratch).sign(&canonical{
		method: r.Method, rawPath: r.RawPath, rawQuery: r.RawQuery, host: r.Host, header: r.Header,
		signedHeaders: signed, payloadHash: payload,
	}, timestamp, scope, &key)
	r.Header["Authorization"] = []string{value[:strings.Index(value, mark)+len(mark)] + string(sum[:])}
}

func authorize(r *Request, old, new string) {
	r.Header["Authorization"] = []string{strings.ReplaceAll(r.Header["Authorization"][0], old, new)}
}

const mismatchText = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

func TestVerifyHeaderForm(t *testing.T) {
	type row struct {
		name   string
		change func(r *Request)
		kind   aws.Kind
		text   string // the message; "" where the request is right
	}
	rows := []row{
		{"as_signed", func(*Request) {}, 0, ""},
		{"parameters_in_any_order_and_spacing", func(r *Request) {
			r.Header.Set("Authorization", " AWS4-HMAC-SHA256 Signature="+exampleSignature+",SignedHeaders=host;x-amz-date ,  Credential="+exampleKeyID+"/20241031/us-east-1/mobiletargeting/aws4_request ")
		}, 0, ""},
		{"nothing_signed", func(r *Request) { r.Header.Del("Authorization") }, aws.KindMissingToken, "Missing Authentication Token"},
		{"blank_authorization", func(r *Request) { r.Header.Set("Authorization", " ") }, aws.KindMissingToken, "Missing Authentication Token"},
		{"scheme_only", func(r *Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256"); r.Header.Del("X-Amz-Date") }, aws.KindIncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256"},
		{"no_credential", func(r *Request) { authorize(r, "Credential=", "Other=") }, aws.KindIncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"no_signature", func(r *Request) { authorize(r, ", Signature="+exampleSignature, "") }, aws.KindIncompleteSignature, "Authorization header requires 'Signature' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"no_signed_headers", func(r *Request) { authorize(r, " SignedHeaders=host;x-amz-date,", "") }, aws.KindIncompleteSignature, "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"no_date", func(r *Request) { r.Header.Del("X-Amz-Date") }, aws.KindIncompleteSignature, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256"},
		{"element_without_equals", func(r *Request) { authorize(r, "SignedHeaders=", "SignedHeaders:") }, aws.KindIncompleteSignature, "'SignedHeaders:host;x-amz-date' not a valid key=value pair (missing equal-sign) in Authorization header"},
		{"bare_signature_is_not_repeated", func(r *Request) { authorize(r, "Signature=", "Signature:") }, aws.KindIncompleteSignature, "'...' not a valid key=value pair (missing equal-sign) in Authorization header"},
		{"repeated_parameter", func(r *Request) { authorize(r, ", Signature=", ", Signature=, Signature=") }, aws.KindIncompleteSignature, "Authorization header has more than one 'Signature' parameter."},
		{"two_headers", func(r *Request) { r.Header.Add("Authorization", exampleAuthorization) }, aws.KindIncompleteSignature, "Request has more than one Authorization header."},
		{"both_forms", func(r *Request) { r.RawQuery += "&X-Amz-Signature=1" }, aws.KindIncompleteSignature, "Request is signed both in the Authorization header and in the query string; only one is allowed."},
		{"both_forms_escaped_name", func(r *Request) { r.RawQuery += "&X%2DAmz%2Dsignature=1&%58-Amz-Credential=1" }, aws.KindIncompleteSignature, "Request is signed both in the Authorization header and in the query string; only one is allowed."},
		{"bearer", func(r *Request) { r.Header.Set("Authorization", "Bearer secret") }, aws.KindIncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization=Bearer"},
		{"bare_token_is_not_repeated", func(r *Request) { r.Header.Set("Authorization", "secret") }, aws.KindIncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization="},
		{"asymmetric", func(r *Request) { authorize(r, "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256") }, aws.KindIncompleteSignature, "Signatures of algorithm 'AWS4-ECDSA-P256-SHA256' are not accepted by this endpoint; sign with 'AWS4-HMAC-SHA256'."},
		{"too_long", func(r *Request) { authorize(r, "Signature=", "Signature="+strings.Repeat("0", authorizationBytesMax)) }, aws.KindIncompleteSignature, "Authorization header is longer than 8192 bytes."},
		{"four_part_credential", func(r *Request) { authorize(r, "/us-east-1", "") }, aws.KindIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."},
		{"six_part_credential", func(r *Request) { authorize(r, "/us-east-1", "/us-east-1/x") }, aws.KindIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."},
		{"no_key_id", func(r *Request) { authorize(r, exampleKeyID, "") }, aws.KindIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."},
		{"upper_case_signed_header", func(r *Request) { authorize(r, "x-amz-date", "X-Amz-Date") }, aws.KindIncompleteSignature, "SignedHeaders must be lower-case."},
		{"unsorted_signed_headers", func(r *Request) { authorize(r, "host;x-amz-date", "x-amz-date;host") }, aws.KindIncompleteSignature, "SignedHeaders must be sorted, without repetition or empty names, and at most 128."},
		{"repeated_signed_header", func(r *Request) { authorize(r, "host;x-amz-date", "host;host;x-amz-date") }, aws.KindIncompleteSignature, "SignedHeaders must be sorted, without repetition or empty names, and at most 128."},
		{"empty_signed_header", func(r *Request) { authorize(r, "host;x-amz-date", "host;x-amz-date;") }, aws.KindIncompleteSignature, "SignedHeaders must be sorted, without repetition or empty names, and at most 128."},
		{"absent_signed_header", func(r *Request) { authorize(r, "x-amz-date", "x-amz-date;x-gone") }, aws.KindIncompleteSignature, "SignedHeaders names 'x-gone', which is not a header of the request."},
		{"malformed_date", func(r *Request) { r.Header.Set("X-Amz-Date", "2024-10-31T12:00:00Z") }, aws.KindIncompleteSignature, "Date must be in ISO-8601 'basic format' (YYYYMMDDTHHMMSSZ). Got '2024-10-31T12:00:00Z'."},
		{"date_with_fraction", func(r *Request) { r.Header.Set("X-Amz-Date", "20241031T120000.5Z") }, aws.KindIncompleteSignature, "Date must be in ISO-8601 'basic format' (YYYYMMDDTHHMMSSZ). Got '20241031T120000.5Z'."},
		{"http_date_in_x_amz_date", func(r *Request) { r.Header.Set("X-Amz-Date", "Thu, 31 Oct 2024 12:00:00 GMT") }, aws.KindIncompleteSignature, "Date must be in ISO-8601 'basic format' (YYYYMMDDTHHMMSSZ). Got 'Thu, 31 Oct 2024 12:00:00 GMT'."},
		{"two_dates", func(r *Request) { r.Header.Add("X-Amz-Date", "20241031T120000Z") }, aws.KindIncompleteSignature, "Request has more than one 'X-Amz-Date' header."},
		{"two_tokens", func(r *Request) { r.Header["X-Amz-Security-Token"] = []string{"a", "b"} }, aws.KindIncompleteSignature, "Request has more than one 'X-Amz-Security-Token' header."},
		{"too_many_parameters", func(r *Request) { r.RawQuery = strings.Repeat("a&", 1000) }, aws.KindIncompleteSignature, "Request has more than 1000 query-string parameters."},
		{"http_date", func(r *Request) {
			r.Header = http.Header{"Date": {"Thu, 31 Oct 2024 12:00:00 GMT"}, "Authorization": r.Header["Authorization"]}
			authorize(r, "host;x-amz-date", "host")
			resign(r, exampleSecret)
		}, 0, ""},
		{"x_amz_date_wins_over_date", func(r *Request) { r.Header.Set("Date", "Thu, 31 Oct 2020 12:00:00 GMT") }, 0, ""},

		{"scope_date", func(r *Request) { authorize(r, "/20241031/", "/20241030/") }, aws.KindBadSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20241030' != '20241031', from '20241031T120000Z'."},
		{"scope_terminator", func(r *Request) { authorize(r, "aws4_request", "aws5_request") }, aws.KindBadSignature, "Credential should be scoped with a valid terminator: 'aws4_request'."},
		{"scope_service", func(r *Request) { authorize(r, "/mobiletargeting/", "/ses/") }, aws.KindBadSignature, "Credential should be scoped to correct service: 'mobiletargeting'."},
		{"scope_region", func(r *Request) { authorize(r, "/us-east-1/", "/eu-west-1/") }, aws.KindBadSignature, "Credential should be scoped to a valid region. Received 'eu-west-1'."},
		{"scope_date_comes_before_region", func(r *Request) { authorize(r, "/20241031/us-east-1/", "/20241030/eu-west-1/") }, aws.KindBadSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20241030' != '20241031', from '20241031T120000Z'."},
		{"scope_comes_before_clock", func(r *Request) { authorize(r, "/us-east-1/", "/eu-west-1/"); r.Now = r.Now.Add(time.Hour) }, aws.KindBadSignature, "Credential should be scoped to a valid region. Received 'eu-west-1'."},

		{"15_minutes_old", func(r *Request) { r.Now = r.Now.Add(15*time.Minute + 999*time.Millisecond) }, 0, ""},
		{"older", func(r *Request) { r.Now = r.Now.Add(15*time.Minute + time.Second) }, aws.KindBadSignature, "Signature expired: 20241031T120000Z is now earlier than 20241031T120001Z (20241031T121501Z - 15 min.)"},
		{"15_minutes_ahead", func(r *Request) { r.Now = r.Now.Add(-15 * time.Minute) }, 0, ""},
		{"further_ahead", func(r *Request) { r.Now = r.Now.Add(-15*time.Minute - time.Second) }, aws.KindBadSignature, "Signature not yet current: 20241031T120000Z is still later than 20241031T115959Z (20241031T114459Z + 15 min.)"},
		{"clock_comes_before_key", func(r *Request) { authorize(r, exampleKeyID, "AKIAUNKNOWN"); r.Now = r.Now.Add(time.Hour) }, aws.KindBadSignature, "Signature expired: 20241031T120000Z is now earlier than 20241031T124500Z (20241031T130000Z - 15 min.)"},

		{"unknown_key", func(r *Request) { authorize(r, exampleKeyID, "AKIAUNKNOWN") }, aws.KindUnknownKey, "The security token included in the request is invalid."},
		{"token_with_long_term_key", func(r *Request) { r.Header.Set("X-Amz-Security-Token", "x") }, aws.KindUnknownKey, "The security token included in the request is invalid."},
		{"session_without_token", func(r *Request) { authorize(r, "AKIA", "ASIA") }, aws.KindUnknownKey, "The security token included in the request is invalid."},
		{"session_with_wrong_token", func(r *Request) { authorize(r, "AKIA", "ASIA"); r.Header.Set("X-Amz-Security-Token", "x") }, aws.KindUnknownKey, "The security token included in the request is invalid."},
		{"session_with_unsigned_token", func(r *Request) {
			authorize(r, "AKIA", "ASIA")
			r.Header.Set("X-Amz-Security-Token", "Token+/==")
		}, 0, ""},
		{"session_with_signed_token", func(r *Request) {
			authorize(r, "AKIA", "ASIA")
			authorize(r, "x-amz-date", "x-amz-date;x-amz-security-token")
			r.Header.Set("X-Amz-Security-Token", "Token+/==")
			resign(r, exampleSecret)
		}, 0, ""},
		{"session_over", func(r *Request) {
			r.Now = exampleTime.Add(time.Hour)
			r.Header.Set("X-Amz-Date", "20241031T130000Z")
			r.Header.Set("X-Amz-Security-Token", "Token+/==")
			authorize(r, "AKIA", "ASIA")
			resign(r, exampleSecret)
		}, aws.KindExpiredToken, "The security token included in the request is expired"},

		{"wrong_secret", func(r *Request) { resign(r, "other") }, aws.KindBadSignature, mismatchText},
		{"upper_case_signature", func(r *Request) { authorize(r, exampleSignature, strings.ToUpper(exampleSignature)) }, aws.KindBadSignature, mismatchText},
		{"truncated_signature", func(r *Request) { authorize(r, exampleSignature, exampleSignature[:63]) }, aws.KindBadSignature, mismatchText},
		{"other_method", func(r *Request) { r.Method = "GET" }, aws.KindBadSignature, mismatchText},
		{"other_path", func(r *Request) { r.RawPath += "x" }, aws.KindBadSignature, mismatchText},
		{"decoded_path", func(r *Request) { r.RawPath = unescape(r.RawPath) }, aws.KindBadSignature, mismatchText},
		{"other_query", func(r *Request) { r.RawQuery = "tagKeys=b" }, aws.KindBadSignature, mismatchText},
		{"reordered_query", func(r *Request) { r.RawQuery = "tagKeys=a%20c&tagKeys=%62" }, 0, ""},
		{"plus_is_not_a_space", func(r *Request) { r.RawQuery = "tagKeys=b&tagKeys=a+c" }, aws.KindBadSignature, mismatchText},
		{"other_host", func(r *Request) { r.Host += ":8443" }, aws.KindBadSignature, mismatchText},
		{"other_body", func(r *Request) { r.BodySHA256 = sha256.Sum256([]byte("{}")) }, aws.KindBadSignature, mismatchText},
		{"unsigned_header", func(r *Request) { r.Header.Set("User-Agent", "x") }, 0, ""},

		{"declared_hash", func(r *Request) { declare(r, hex.EncodeToString(r.BodySHA256[:])) }, 0, ""},
		{"declared_hash_of_another_body", func(r *Request) { declare(r, strings.Repeat("ab", 32)) }, aws.KindBadSignature, mismatchText},
		{"declared_hash_unsigned", func(r *Request) {
			r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(r.BodySHA256[:]))
			resign(r, exampleSecret)
		}, aws.KindBadSignature, mismatchText},
		{"declared_hash_not_hex", func(r *Request) { declare(r, strings.Repeat("zz", 32)) }, aws.KindBadSignature, mismatchText},
		{"unsigned_payload", func(r *Request) { r.TLS = true; declare(r, "UNSIGNED-PAYLOAD") }, aws.KindBadSignature, mismatchText},
		{"streaming_payload", func(r *Request) { declare(r, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") }, aws.KindBadSignature, mismatchText},
		{"streaming_unsigned_trailer", func(r *Request) { declare(r, "STREAMING-UNSIGNED-PAYLOAD-TRAILER") }, aws.KindBadSignature, mismatchText},

		{"host_unsigned", func(r *Request) { authorize(r, "host;x-amz-date", "x-amz-date"); resign(r, exampleSecret) }, aws.KindBadSignature, mismatchText},
		{"date_unsigned", func(r *Request) { authorize(r, "host;x-amz-date", "host"); resign(r, exampleSecret) }, aws.KindBadSignature, mismatchText},
		{"target_unsigned", func(r *Request) { r.Header.Set("X-Amz-Target", "A.B") }, aws.KindBadSignature, mismatchText},
		{"target_signed", func(r *Request) {
			r.Header.Set("X-Amz-Target", "A.B")
			authorize(r, "x-amz-date", "x-amz-date;x-amz-target")
			resign(r, exampleSecret)
		}, 0, ""},
		{"region_set_unsigned", func(r *Request) { r.Header.Set("X-Amz-Region-Set", "*") }, aws.KindBadSignature, mismatchText},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := exampleRequest()
			row.change(r)
			_, err := NewVerifier(Config{}).Verify(t.Context(), exampleKeys, r)
			checkFault(t, err, row.kind, row.text)
		})
	}
}

// declare sets x-amz-content-sha256 and signs it.
func declare(r *Request, value string) {
	r.Header.Set("X-Amz-Content-Sha256", value)
	authorize(r, "host;x-amz-date", "host;x-amz-content-sha256;x-amz-date")
	resign(r, exampleSecret)
}

func checkFault(t *testing.T, err error, kind aws.Kind, text string) {
	t.Helper()
	if text == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("accepted, want %q", text)
	}
	if got := aws.KindOf(err); got != kind || err.Error() != text {
		t.Fatalf("kind %d: %s\nwant %d: %s", got, err, kind, text)
	}
}

func TestUnsignedPayloadNeedsSettingAndTLS(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		for _, tls := range []bool{false, true} {
			r := exampleRequest()
			r.TLS = tls
			r.BodySHA256 = sha256.Sum256([]byte("anything"))
			declare(r, "UNSIGNED-PAYLOAD")
			_, err := NewVerifier(Config{AllowUnsignedPayload: allowed}).Verify(t.Context(), exampleKeys, r)
			if (err == nil) != (allowed && tls) {
				t.Errorf("allowed %t, tls %t: %v", allowed, tls, err)
			}
		}
	}
}

// presigned returns a request signed in its query with Presign.
func presigned(t *testing.T, c Credentials) *Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+exampleHost+"/v1/apps/a%2Fb?page-size=5", nil)
	if err != nil {
		t.Fatal(err)
	}
	url, err := Presign(req, sha256.Sum256(nil), c, "us-east-1", "mobiletargeting", time.Hour, exampleTime)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(url, exampleHost)
	path, query, _ := strings.Cut(rest, "?")
	r := exampleRequest()
	r.Method, r.RawPath, r.RawQuery, r.Header = "GET", path, query, http.Header{}
	return r
}

func TestVerifyQueryForm(t *testing.T) {
	longTerm := Credentials{AccessKeyID: exampleKeyID, Secret: exampleSecret}
	session := Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", Secret: exampleSecret, SessionToken: "Token+/=="}
	edit := func(old, new string) func(r *Request) {
		return func(r *Request) { r.RawQuery = strings.Replace(r.RawQuery, old, new, 1) }
	}
	for _, row := range []struct {
		name        string
		credentials Credentials
		change      func(r *Request)
		kind        aws.Kind
		text        string
	}{
		{"as_signed", longTerm, func(*Request) {}, 0, ""},
		{"until_it_lapses", longTerm, func(r *Request) { r.Now = r.Now.Add(time.Hour) }, 0, ""},
		{"lapsed", longTerm, func(r *Request) { r.Now = r.Now.Add(time.Hour + time.Second) }, aws.KindRequestExpired, "Signature expired: 20241031T120000Z is now earlier than 20241031T120001Z (20241031T130001Z - 3600 sec.)"},
		{"ahead", longTerm, func(r *Request) { r.Now = r.Now.Add(-15*time.Minute - time.Second) }, aws.KindBadSignature, "Signature not yet current: 20241031T120000Z is still later than 20241031T115959Z (20241031T114459Z + 15 min.)"},
		{"session", session, func(*Request) {}, 0, ""},
		{"session_over", session, func(r *Request) { r.Now = r.Now.Add(time.Hour) }, aws.KindExpiredToken, "The security token included in the request is expired"},
		{"token_left_out_of_the_calculation", Credentials{AccessKeyID: session.AccessKeyID, Secret: exampleSecret}, func(r *Request) { r.RawQuery += "&X-Amz-Security-Token=Token%2B%2F%3D%3D" }, 0, ""},
		{"token_in_an_unsigned_header", Credentials{AccessKeyID: session.AccessKeyID, Secret: exampleSecret}, func(r *Request) { r.Header.Set("X-Amz-Security-Token", "Token+/==") }, 0, ""},
		{"other_token", session, edit("Token%2B", "Token-"), aws.KindUnknownKey, "The security token included in the request is invalid."},
		{"no_expiry", longTerm, edit("X-Amz-Expires", "X-Amz-Lapses"), aws.KindIncompleteSignature, "AWS query-string parameters must include 'X-Amz-Expires'. Re-examine the query-string parameters."},
		{"names_are_case_sensitive", longTerm, edit("X-Amz-Date", "x-amz-date"), aws.KindIncompleteSignature, "AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters."},
		{"lower_case_names_sign_nothing", longTerm, func(r *Request) { r.RawQuery = strings.ReplaceAll(r.RawQuery, "X-Amz-", "x-amz-") }, aws.KindMissingToken, "Missing Authentication Token"},
		{"repeated", longTerm, func(r *Request) { r.RawQuery += "&X-Amz-Date=20241031T120000Z" }, aws.KindIncompleteSignature, "AWS query-string parameter 'X-Amz-Date' is given more than once."},
		{"zero_expiry", longTerm, edit("X-Amz-Expires=3600", "X-Amz-Expires=0"), aws.KindIncompleteSignature, "X-Amz-Expires must be an integer from 1 to 604800."},
		{"signed_expiry", longTerm, edit("X-Amz-Expires=3600", "X-Amz-Expires=+3600"), aws.KindIncompleteSignature, "X-Amz-Expires must be an integer from 1 to 604800."},
		{"long_expiry", longTerm, edit("X-Amz-Expires=3600", "X-Amz-Expires=604801"), aws.KindIncompleteSignature, "X-Amz-Expires must be an integer from 1 to 604800."},
		{"endless_expiry", longTerm, edit("X-Amz-Expires=3600", "X-Amz-Expires=18446744073709551617"), aws.KindIncompleteSignature, "X-Amz-Expires must be an integer from 1 to 604800."},
		{"changed_expiry", longTerm, edit("X-Amz-Expires=3600", "X-Amz-Expires=3601"), aws.KindBadSignature, mismatchText},
		{"other_algorithm", longTerm, edit("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), aws.KindIncompleteSignature, "X-Amz-Algorithm must be 'AWS4-HMAC-SHA256'."},
		{"asymmetric", longTerm, edit("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), aws.KindIncompleteSignature, "Signatures of algorithm 'AWS4-ECDSA-P256-SHA256' are not accepted by this endpoint; sign with 'AWS4-HMAC-SHA256'."},
		{"http_date", longTerm, edit("20241031T120000Z", "Thu,%2031%20Oct%202024%2012:00:00%20GMT"), aws.KindIncompleteSignature, "Date must be in ISO-8601 'basic format' (YYYYMMDDTHHMMSSZ). Got 'Thu, 31 Oct 2024 12:00:00 GMT'."},
		{"scope_region", longTerm, edit("us-east-1", "eu-west-1"), aws.KindBadSignature, "Credential should be scoped to a valid region. Received 'eu-west-1'."},
		{"body", longTerm, func(r *Request) { r.BodySHA256 = sha256.Sum256([]byte("x")) }, aws.KindBadSignature, mismatchText},
		{"added_parameter", longTerm, func(r *Request) { r.RawQuery += "&a" }, aws.KindBadSignature, mismatchText},
		{"target", longTerm, func(r *Request) { r.Header.Set("X-Amz-Target", "A.B") }, aws.KindBadSignature, mismatchText},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := presigned(t, row.credentials)
			row.change(r)
			_, err := NewVerifier(Config{}).Verify(t.Context(), exampleKeys, r)
			checkFault(t, err, row.kind, row.text)
		})
	}
}

func TestPresignRefusesExpiryOutOfRange(t *testing.T) {
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+exampleHost+"/", nil)
	for _, d := range []time.Duration{0, time.Second - 1, 7*24*time.Hour + time.Second} {
		if _, err := Presign(req, sha256.Sum256(nil), Credentials{}, "r", "s", d, exampleTime); err == nil {
			t.Errorf("expiry %v accepted", d)
		}
	}
}

func TestSignAndVerifyAgree(t *testing.T) {
	body := []byte(`{"a":1}`)
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:8080/v1/apps//x/./y/../z%20/?b=%2f+&a&b=1&", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header["X-Many"] = []string{" b   b ", "a"}
	req.Header.Set("X-Blank", "")
	c := Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", Secret: exampleSecret, SessionToken: "Token+/=="}
	if err := Sign(req, sha256.Sum256(body), c, "us-east-1", "mobiletargeting", exampleTime); err != nil {
		t.Fatal(err)
	}
	r := exampleRequest()
	r.Method, r.RawPath, r.RawQuery = req.Method, req.URL.EscapedPath(), req.URL.RawQuery
	r.Host, r.Header, r.BodySHA256 = req.Host, req.Header, sha256.Sum256(body)
	v := NewVerifier(Config{})
	if _, err := v.Verify(t.Context(), exampleKeys, r); err != nil {
		t.Fatal(err)
	}
	r.Header["X-Many"] = []string{"a", "b b"}
	if _, err := v.Verify(t.Context(), exampleKeys, r); err == nil {
		t.Fatal("values in another order accepted")
	}
}

func TestKeyLookupErrorsPassThrough(t *testing.T) {
	broken := errors.New("store is gone")
	_, err := NewVerifier(Config{}).Verify(t.Context(), keysFunc(func(string) (Secret, error) { return Secret{}, broken }), exampleRequest())
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
}

type keysFunc func(id string) (Secret, error)

func (f keysFunc) Secret(_ context.Context, id string, _ SecretKey) (Secret, error) { return f(id) }

func TestSigningKeys(t *testing.T) {
	t.Run("a_changed_secret_takes_effect_at_once", func(t *testing.T) {
		v := NewVerifier(Config{})
		secret := SecretKey(exampleSecret)
		keys := keysFunc(func(string) (Secret, error) { return Secret{Key: secret}, nil })
		if _, err := v.Verify(t.Context(), keys, exampleRequest()); err != nil {
			t.Fatal(err)
		}
		secret = "rotated"
		_, err := v.Verify(t.Context(), keys, exampleRequest())
		checkFault(t, err, aws.KindBadSignature, mismatchText)
		r := exampleRequest()
		resign(r, "rotated")
		if _, err := v.Verify(t.Context(), keys, r); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the_cache_is_bounded_and_keeps_what_is_used", func(t *testing.T) {
		k := &signingKeys{max: 4, younger: map[signingKeyID]signingKey{}}
		scope := &Scope{Date: "20241031", Region: "r", Service: "s"}
		for i := range 100 {
			k.get(fmt.Sprint(i), scope, "x")
			k.get("used", scope, "x")
			if n := len(k.younger) + len(k.older); n > 8 {
				t.Fatalf("%d entries", n)
			}
		}
		id := signingKeyID{"used", "20241031", "r", "s"}
		if _, young := k.younger[id]; !young {
			if _, old := k.older[id]; !old {
				t.Error("a key in use was dropped")
			}
		}
		k.forget("used")
		if k.younger[id].secret != "" || k.older[id].secret != "" {
			t.Error("a forgotten key is still there")
		}
	})
}

func TestSecretsRefuseToPrint(t *testing.T) {
	s := Signature{SessionToken: "hidden"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", SecretKey("hidden"), "secret", Secret{Key: "hidden"}, "c", &Credentials{Secret: "hidden"})
	for _, text := range []string{
		fmt.Sprint(SecretKey("hidden")), fmt.Sprintf("%s %q %x %v %#v", SecretKey("hidden"), SecretKey("hidden"), SecretKey("hidden"), SecretKey("hidden"), SecretKey("hidden")),
		fmt.Sprintf("%+v %#v", s, Secret{Key: "hidden"}), log.String(),
	} {
		if strings.Contains(text, "hidden") || strings.Contains(text, "68696464656e") || !strings.Contains(text, "[redacted]") {
			t.Errorf("printed %s", text)
		}
	}
}
