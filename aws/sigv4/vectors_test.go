package sigv4

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vectors is where the public signature vectors lie beside a checkout; they are
// not part of it.
const vectors = "../../../shared/vectors/sigv4"

func readVectors(t *testing.T, name string, into any) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(vectors, name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("the public vectors (%s) are not beside this checkout: only the committed cases run", name)
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
	return true
}

// readRaw reads a request as the vectors write it: bare line feeds, a path that
// may hold spaces, folded headers.
func readRaw(t *testing.T, text string) *Request {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	line, fields, _ := strings.Cut(head, "\n")
	line, ok := strings.CutSuffix(line, " HTTP/1.1")
	method, target, ok2 := strings.Cut(line, " ")
	if !ok || !ok2 {
		t.Fatalf("request line of %q", text)
	}
	r := &Request{Method: method, Header: http.Header{}}
	r.RawPath, r.RawQuery, _ = strings.Cut(target, "?")
	last := ""
	for field := range strings.SplitSeq(strings.TrimRight(fields, "\n"), "\n") {
		if strings.HasPrefix(field, " ") {
			values := r.Header[last]
			values[len(values)-1] += "\n" + field
			continue
		}
		name, value, _ := strings.Cut(field, ":")
		if last = http.CanonicalHeaderKey(name); last == "Host" {
			r.Host = value
			continue
		}
		r.Header[last] = append(r.Header[last], value)
	}
	r.BodySHA256 = sha256.Sum256([]byte(strings.TrimSuffix(body, "\n")))
	return r
}

// judge verifies one signed request of the vectors and compares the
// intermediate texts.
func judge(t *testing.T, r *Request, secret, canonicalText, stringToSign string) {
	t.Helper()
	r.Now = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	r.Regions = func(region string) bool { return region == "us-east-1" }
	r.Services = []string{"service"}
	keys := keysFunc(func(id string) (Secret, error) {
		if id != "AKIDEXAMPLE" {
			return Secret{}, UnknownKey()
		}
		return Secret{Key: SecretKey(secret)}, nil
	})
	sig, err := Parse(r.Header, r.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	payload := hex.EncodeToString(r.BodySHA256[:])
	if d := r.Header["X-Amz-Content-Sha256"]; len(d) > 0 {
		payload = d[0]
	}
	// A token that was added after signing is in the request, but not in the text.
	dropToken := sig.Presigned && !strings.Contains(canonicalText, "X-Amz-Security-Token")
	got := new(scratch).render(&canonical{
		method: r.Method, rawPath: r.RawPath, rawQuery: r.RawQuery, host: r.Host, header: r.Header,
		signedHeaders: sig.SignedHeaders, payloadHash: payload, dropToken: dropToken,
	})
	if string(got) != canonicalText {
		t.Fatalf("canonical request:\n%s\nwant:\n%s", got, canonicalText)
	}
	if sts := string(appendStringToSign(nil, sig.timestamp, sig.Scope.text, sha256.Sum256(got))); sts != stringToSign {
		t.Fatalf("string to sign:\n%s\nwant:\n%s", sts, stringToSign)
	}
	v := NewVerifier(Config{})
	if _, err := v.Verify(context.Background(), keys, r); err != nil {
		t.Fatal(err)
	}
	r.Method += "X"
	if _, err := v.Verify(context.Background(), keys, r); err == nil {
		t.Fatal("another method was accepted")
	}
}

func TestPublicVectors(t *testing.T) {
	t.Run("committed", TestWorkedExample)

	var v4 struct {
		Cases []struct {
			Name    string
			Context struct {
				Credentials struct {
					Secret string `json:"secret_access_key"`
				}
				Normalize bool
			}
			HeaderCanonical string `json:"header-canonical-request"`
			HeaderSTS       string `json:"header-string-to-sign"`
			HeaderSigned    string `json:"header-signed-request"`
			QueryCanonical  string `json:"query-canonical-request"`
			QuerySTS        string `json:"query-string-to-sign"`
			QuerySigned     string `json:"query-signed-request"`
		}
	}
	if readVectors(t, "v4.json", &v4) {
		judged := 0
		for _, c := range v4.Cases {
			if !c.Context.Normalize {
				continue // the S3 variant, which no service here uses
			}
			judged++
			t.Run("header/"+c.Name, func(t *testing.T) {
				r := readRaw(t, c.HeaderSigned)
				judge(t, r, c.Context.Credentials.Secret, c.HeaderCanonical, c.HeaderSTS)
			})
			t.Run("query/"+c.Name, func(t *testing.T) {
				r := readRaw(t, c.QuerySigned)
				judge(t, r, c.Context.Credentials.Secret, c.QueryCanonical, c.QuerySTS)
			})
		}
		if judged < 30 {
			t.Errorf("only %d cases", judged)
		}
	}

	var legacy struct {
		Credentials struct {
			Secret string `json:"secret_access_key"`
		}
		Cases []struct{ Name, Sreq, Creq, Sts, Authz string }
	}
	if readVectors(t, "legacy.json", &legacy) {
		if len(legacy.Cases) < 30 {
			t.Errorf("only %d cases", len(legacy.Cases))
		}
		for _, c := range legacy.Cases {
			t.Run("legacy/"+c.Name, func(t *testing.T) {
				r := readRaw(t, c.Sreq)
				// One signed request of this suite carries a wrong signature; its Authz is right.
				r.Header["Authorization"] = []string{c.Authz}
				judge(t, r, legacy.Credentials.Secret, c.Creq, c.Sts)
			})
		}
	}
}
