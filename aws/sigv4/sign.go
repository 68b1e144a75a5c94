package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credentials sign requests. SessionToken is empty for long-term keys.
type Credentials struct {
	AccessKeyID  string
	Secret       SecretKey
	SessionToken SecretKey
}

// Sign signs r for one service and Region: it sets X-Amz-Date and, with
// temporary credentials, X-Amz-Security-Token, and replaces Authorization. All
// headers are signed except those that a transport or a proxy rewrites. The
// caller gives the hash of the body it will send, and must not change method,
// URL, Host or signed headers afterwards.
//
// It fails only on requests that could not be sent anyway.
func Sign(r *http.Request, bodySHA256 [sha256.Size]byte, c Credentials, region, service string, now time.Time) error {
	now = now.UTC()
	timestamp := now.Format(basicTime)
	r.Header.Set("X-Amz-Date", timestamp)
	if c.SessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", string(c.SessionToken))
	}
	r.Header.Del("Authorization")
	scope := newScope(now, region, service)
	signedHeaders := signable(r.Header)
	signature, err := signRequest(r, r.URL.RawQuery, signedHeaders, bodySHA256, c.Secret, scope, now)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", algorithm+" Credential="+c.AccessKeyID+"/"+scope.String()+
		", SignedHeaders="+signedHeaders+", Signature="+signature)
	return nil
}

// Presign returns the URL of r with a signature in its query that is good for
// expires, one second to seven days. Headers of r other than Host that are to
// be signed must be sent as they are now by whoever uses the URL. r is not
// changed.
func Presign(r *http.Request, bodySHA256 [sha256.Size]byte, c Credentials, region, service string, expires time.Duration, now time.Time) (string, error) {
	seconds := int64(expires / time.Second)
	if seconds < 1 || seconds > presignSecondsMax {
		return "", fmt.Errorf("presign: expiry of %v is not from 1 second to 7 days", expires)
	}
	now = now.UTC()
	scope := newScope(now, region, service)
	signedHeaders := signable(r.Header)
	var q []byte
	if r.URL.RawQuery != "" {
		q = append(append(q, r.URL.RawQuery...), '&')
	}
	q = append(q, "X-Amz-Algorithm="+algorithm+"&X-Amz-Credential="...)
	q = appendEncoded(q, c.AccessKeyID+"/"+scope.String())
	q = append(q, "&X-Amz-Date="+now.Format(basicTime)+"&X-Amz-Expires="+strconv.FormatInt(seconds, 10)+"&X-Amz-SignedHeaders="...)
	q = appendEncoded(q, signedHeaders)
	if c.SessionToken != "" {
		q = append(q, "&X-Amz-Security-Token="...)
		q = appendEncoded(q, string(c.SessionToken))
	}
	signature, err := signRequest(r, string(q), signedHeaders, bodySHA256, c.Secret, scope, now)
	if err != nil {
		return "", err
	}
	u := *r.URL
	u.RawQuery = string(q) + "&X-Amz-Signature=" + signature
	return u.String(), nil
}

// signRequest computes the signature of r with the given query.
func signRequest(
	r *http.Request, rawQuery, signedHeaders string, bodySHA256 [sha256.Size]byte, secret SecretKey, scope Scope, now time.Time,
) (string, error) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	if host == "" {
		return "", errors.New("sign: request has no host")
	}
	if r.URL.Opaque != "" {
		return "", errors.New("sign: request has an opaque URL")
	}
	payload := hex.EncodeToString(bodySHA256[:])
	if declared := r.Header["X-Amz-Content-Sha256"]; len(declared) > 0 {
		payload = declared[0]
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	key := derive(secret, scope.Date, scope.Region, scope.Service)
	s := scratches.Get().(*scratch)
	defer s.release()
	signature := s.sign(&canonical{
		method: method, rawPath: r.URL.EscapedPath(), rawQuery: rawQuery, host: host,
		header: r.Header, signedHeaders: signedHeaders, payloadHash: payload,
	}, now.Format(basicTime), scope.String(), &key)
	return string(signature[:]), nil
}

func newScope(now time.Time, region, service string) Scope {
	return Scope{Date: now.Format(basicDate), Region: region, Service: service, Terminator: terminator}
}

// signable lists the headers to sign, Host included.
func signable(header http.Header) string {
	names := []string{"host"}
	for name := range header {
		switch name = strings.ToLower(name); name {
		case "host", "authorization", "connection", "transfer-encoding", "accept-encoding",
			"content-length", "expect", "user-agent", "x-amzn-trace-id":
			// Rewritten or added on the way.
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ";")
}
