package sigv4

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"testing"
)

// BenchmarkVerify hashes and verifies a request as an SDK sends it, with a
// 1 KB body and a signing key in the cache.
func BenchmarkVerify(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	req, err := http.NewRequestWithContext(b.Context(), "PUT", "https://"+exampleHost+"/v1/apps/810c7aab86d42fb2b56c8c966example/endpoints/3f2504e0-4f89-11d3-9a0c-0305e82c3301", nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Content-Length": "1024", "Accept-Encoding": "identity", "User-Agent": "aws-sdk-go-v2/1.47.8",
		"Amz-Sdk-Invocation-Id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "Amz-Sdk-Request": "attempt=1; max=3",
	} {
		req.Header.Set(name, value)
	}
	if err := Sign(req, sha256.Sum256(body), Credentials{AccessKeyID: exampleKeyID, Secret: exampleSecret}, "us-east-1", "mobiletargeting", exampleTime); err != nil {
		b.Fatal(err)
	}
	v := NewVerifier(Config{})
	r := exampleRequest()
	r.Method, r.RawPath, r.RawQuery, r.Header = "PUT", req.URL.EscapedPath(), "", req.Header
	b.ReportAllocs()
	for b.Loop() {
		r.BodySHA256 = sha256.Sum256(body)
		if _, err := v.Verify(b.Context(), exampleKeys, r); err != nil {
			b.Fatal(err)
		}
	}
}
