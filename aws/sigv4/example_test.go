package sigv4_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	"github.com/everpoint/everpoint/aws/sigv4"
)

func ExampleSign() {
	body := sha256.Sum256(nil)
	credentials := sigv4.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	at := time.Date(2024, 10, 31, 12, 0, 0, 0, time.UTC) // time.Now(), outside examples

	r, err := http.NewRequestWithContext(context.Background(), "GET", "https://pinpoint.us-east-1.amazonaws.com/v1/apps", nil)
	if err != nil {
		panic(err)
	}
	if err := sigv4.Sign(r, body, credentials, "us-east-1", "mobiletargeting", at); err != nil {
		panic(err)
	}
	sig, err := sigv4.Parse(r.Header, r.URL.RawQuery)
	if err != nil {
		panic(err)
	}
	fmt.Println(sig.AccessKeyID, sig.Scope, sig.SignedHeaders)
	fmt.Println(credentials)
	// Output:
	// AKIAIOSFODNN7EXAMPLE 20241031/us-east-1/mobiletargeting/aws4_request host;x-amz-date
	// {AKIAIOSFODNN7EXAMPLE [redacted] [redacted]}
}
