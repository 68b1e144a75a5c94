package door

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
)

// words is how one failure reads in each of the dialects, in their order.
type words [3]struct {
	status int
	code   string
}

func TestFailures(t *testing.T) {
	f := serve(t, Config{})
	own := sigv4.Credentials{AccessKeyID: testKeyID, Secret: testSecret}
	signed := func(c sigv4.Credentials, region string, at time.Duration) func(r *http.Request, body []byte, service string) {
		return func(r *http.Request, body []byte, service string) {
			signAs(r, body, c, region, service, time.Now().Add(at))
		}
	}
	presigned := func(at time.Duration) func(r *http.Request, body []byte, service string) {
		return func(r *http.Request, body []byte, service string) {
			u, err := sigv4.Presign(r, sha256.Sum256(body), own, testRegion, service, time.Minute, time.Now().Add(at))
			if err != nil {
				panic(err)
			}
			r.URL, _ = r.URL.Parse(u)
		}
	}
	var (
		missing    = words{{403, "MissingAuthenticationTokenException"}, {400, "MissingAuthenticationTokenException"}, {403, "MissingAuthenticationToken"}}
		incomplete = words{{403, "IncompleteSignatureException"}, {400, "IncompleteSignatureException"}, {400, "IncompleteSignature"}}
		unknown    = words{{403, "UnrecognizedClientException"}, {400, "UnrecognizedClientException"}, {403, "InvalidClientTokenId"}}
		mismatch   = words{{403, "InvalidSignatureException"}, {400, "InvalidSignatureException"}, {403, "SignatureDoesNotMatch"}}
		lapsed     = words{{403, "InvalidSignatureException"}, {400, "InvalidSignatureException"}, {400, "RequestExpired"}}
		over       = words{{403, "ExpiredTokenException"}, {400, "ExpiredTokenException"}, {403, "ExpiredToken"}}
		denied     = words{{403, "AccessDeniedException"}, {400, "AccessDeniedException"}, {403, "AccessDenied"}}
	)
	const mismatchText = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	const invalidToken = "The security token included in the request is invalid."
	rows := []struct {
		name  string
		app   string
		sign  func(r *http.Request, body []byte, service string)
		words words
		text  string // "*" stands for anything
		query string // the awsQuery text, where it differs
	}{
		{"nothing_signed", "a", func(*http.Request, []byte, string) {}, missing, "Missing Authentication Token", "Request is missing Authentication Token"},
		{"malformed", "a", func(r *http.Request, _ []byte, _ string) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x")
		}, incomplete, "Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256", ""},
		{"unknown_key", "a", signed(sigv4.Credentials{AccessKeyID: "AKIAUNKNOWN", Secret: testSecret}, testRegion, 0), unknown, invalidToken, ""},
		{"token_of_nobody", "a", signed(sigv4.Credentials{AccessKeyID: testKeyID, Secret: testSecret, SessionToken: "x"}, testRegion, 0), unknown, invalidToken, ""},
		{"mismatch", "a", signed(sigv4.Credentials{AccessKeyID: testKeyID, Secret: "other"}, testRegion, 0), mismatch, mismatchText, ""},
		{"scope_region", "a", signed(own, "us-west-2", 0), mismatch, "Credential should be scoped to a valid region. Received 'us-west-2'.", ""},
		{"scope_service", "a", func(r *http.Request, body []byte, service string) {
			signAs(r, body, own, testRegion, "s3", time.Now())
		}, mismatch, "Credential should be scoped to correct service: '*'.", ""},
		{"clock_behind", "a", signed(own, testRegion, -16*time.Minute), mismatch, "Signature expired: * - 15 min.)", ""},
		{"clock_ahead", "a", signed(own, testRegion, 16*time.Minute), mismatch, "Signature not yet current: * + 15 min.)", ""},
		{"presigned_lapsed", "a", presigned(-2 * time.Minute), lapsed, "Signature expired: * - 60 sec.)", "Request has expired."},
		{"session_over", "a", signed(sigv4.Credentials{AccessKeyID: overKeyID, Secret: testSecret, SessionToken: "t"}, testRegion, 0), over, "The security token included in the request is expired", ""},
		{"not_permitted", "forbidden", signed(own, testRegion, 0), denied, "User: " + testRoot + " is not authorized to perform: *:PutNote on resource: arn:aws:*:" + testAccount + ":apps/forbidden", ""},
	}
	for _, row := range rows {
		for i, d := range dialects {
			t.Run(row.name+"/"+d.name, func(t *testing.T) {
				r, sent := d.build("http://"+f.addr, row.app, "hello")
				row.sign(r, sent, d.service)
				resp, body := do(t, r)
				text := row.text
				if d.name == "awsQuery" && row.query != "" {
					text = row.query
				}
				if row.name == "not_permitted" { // two stars, and no Region in IAM
					head, _, _ := strings.Cut(text, "*")
					text = head + "*:" + testAccount + ":apps/forbidden"
				}
				f.check(t, d, resp, body, row.words[i].status, row.words[i].code, text)
				if record := f.records.last(t); (record.Principal != "") != (row.name == "not_permitted") {
					t.Errorf("recorded principal %q", record.Principal)
				}
			})
		}
	}
}

func TestAccepted(t *testing.T) {
	f := serve(t, Config{})
	own := sigv4.Credentials{AccessKeyID: testKeyID, Secret: testSecret}
	for _, d := range dialects {
		for _, form := range []string{"header", "presigned", "behind_14_minutes"} {
			t.Run(d.name+"/"+form, func(t *testing.T) {
				r, sent := d.build("http://"+f.addr, "a%2Fb", "hello")
				r.Header.Set("User-Agent", "test/1")
				switch form {
				case "header":
					sign(r, sent, d.service)
				case "presigned":
					u, err := sigv4.Presign(r, sha256.Sum256(sent), own, testRegion, d.service, time.Minute, time.Now())
					if err != nil {
						t.Fatal(err)
					}
					r.URL, _ = r.URL.Parse(u)
				default:
					signAs(r, sent, own, testRegion, d.service, time.Now().Add(-14*time.Minute))
				}
				resp, body := do(t, r)
				if resp.StatusCode != 200 || !bytes.Contains(body, []byte("hello")) || !bytes.Contains(body, []byte(testRoot)) || !bytes.Contains(body, []byte("127.0.0.1")) {
					t.Fatalf("answered %d %s", resp.StatusCode, body)
				}
				got := f.records.last(t)
				if got.Principal != testRoot || got.Account != testAccount || got.AccessKeyID != testKeyID || got.Service != d.service ||
					!strings.HasSuffix(got.Action, ":PutNote") || !strings.Contains(got.Resource, ":"+testAccount+":apps/a") ||
					got.SourceIP.String() != "127.0.0.1" || got.UserAgent != "test/1" || got.Host != f.addr || got.TLS ||
					got.Region != testRegion || got.SignedRegion != testRegion || got.Status != 200 || got.ErrorCode != "" ||
					got.RequestID != resp.Header.Get("X-Amzn-RequestId") || got.Duration <= 0 || time.Since(got.Time) > time.Minute {
					t.Errorf("recorded %+v", got)
				}
			})
		}
	}
}

func TestContentLengthMayBeSigned(t *testing.T) {
	f := serve(t, Config{})
	d := dialects[0]
	r, sent := d.build("http://"+f.addr, "a", "hello")
	// The Go SDK signs the length. Sign leaves it out, so it is signed under
	// another name and put back by hand.
	text := func() string {
		c := *r
		c.Header = r.Header.Clone()
		c.Header.Set("Content-Length", fmt.Sprint(len(sent)))
		return head(&c)
	}
	sign(r, sent, d.service)
	conn := dial(t, f.addr)
	conn.send(t, text()+"\r\n"+string(sent))
	if resp, body := conn.response(t); resp.StatusCode != 200 {
		t.Fatalf("answered %d %s", resp.StatusCode, body)
	}
	// The header is there for a signature that names it: named and unsigned, it
	// is a mismatch and not an absent header.
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "SignedHeaders=", "SignedHeaders=content-length;", 1))
	conn.send(t, text()+"\r\n"+string(sent))
	resp, body := conn.response(t)
	f.check(t, d, resp, body, 403, "InvalidSignatureException", "The request signature we calculated does not match*")
}

func TestUnsignedOperation(t *testing.T) {
	f := serve(t, Config{})
	r := newRequest("POST", "http://"+f.addr+"/", []byte("Action=OpenNote&Version=2010-05-08&Text=hello"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, body := do(t, r)
	if resp.StatusCode != 200 || !bytes.Contains(body, []byte("hello")) {
		t.Fatalf("answered %d %s", resp.StatusCode, body)
	}
	if got := f.records.last(t); got.Principal != "" || got.Account != "" || got.Action != "iam:OpenNote" {
		t.Errorf("recorded %+v", got)
	}
}

func TestAuthenticationComesBeforeValidation(t *testing.T) {
	f := serve(t, Config{})
	for _, row := range []struct {
		name, method, path string
		signed             bool
		status             int
		code               string
	}{
		{"unsigned_missing_route", "GET", "/v1/nowhere", false, 403, "MissingAuthenticationTokenException"},
		{"signed_missing_route", "GET", "/v1/nowhere", true, 404, ""},
		{"unsigned_wrong_method", "DELETE", "/v1/apps/a/note", false, 403, "MissingAuthenticationTokenException"},
		{"signed_wrong_method", "DELETE", "/v1/apps/a/note", true, 405, ""},
		{"signed_bad_body", "PUT", "/v1/apps/a/note", true, 400, "BadRequestException"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sent := []byte{}
			if row.method == "PUT" {
				sent = []byte("{")
			}
			r := newRequest(row.method, "http://"+f.addr+row.path, sent)
			if row.signed {
				sign(r, sent, "mobiletargeting")
			}
			resp, body := do(t, r)
			if resp.StatusCode != row.status || row.code != "" && resp.Header.Get("X-Amzn-ErrorType") != row.code {
				t.Errorf("answered %d %s %s", resp.StatusCode, resp.Header.Get("X-Amzn-ErrorType"), body)
			}
			if got := f.records.last(t); got.Status != row.status || got.ErrorCode != resp.Header.Get("X-Amzn-ErrorType") {
				t.Errorf("recorded %+v", got)
			}
		})
	}
	t.Run("head", func(t *testing.T) {
		r := newRequest("HEAD", "http://"+f.addr+"/v1/apps/a/note", nil)
		sign(r, nil, "mobiletargeting")
		if resp, _ := do(t, r); resp.StatusCode != 405 {
			t.Errorf("answered %d", resp.StatusCode)
		}
	})
	t.Run("options_star", func(t *testing.T) {
		conn := dial(t, f.addr)
		conn.send(t, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp, _ := conn.response(t); resp.StatusCode != 403 || resp.Header.Get("X-Amzn-ErrorType") != "MissingAuthenticationTokenException" {
			t.Errorf("answered %d", resp.StatusCode)
		}
	})
}

func TestRegionsAndHosts(t *testing.T) {
	f := serve(t, Config{RegionsAccepted: []string{"eu-west-1"}, Hosts: []string{"Pinpoint.us-east-1.amazonaws.com"}})
	own := sigv4.Credentials{AccessKeyID: testKeyID, Secret: testSecret}
	for _, row := range []struct {
		name, host, region string
		dialect            int
		ok                 bool
	}{
		{"own", "", testRegion, 0, true},
		{"accepted", "", "eu-west-1", 0, true},
		{"foreign", "", "us-east-1", 0, false},
		{"additional_host", "pinpoint.us-east-1.amazonaws.com", "us-east-1", 0, true},
		{"additional_host_with_port", "PINPOINT.us-east-1.amazonaws.com:443", "us-east-1", 0, true},
		{"additional_host_own_region", "pinpoint.us-east-1.amazonaws.com", testRegion, 0, true},
		{"additional_host_other_region", "pinpoint.us-east-1.amazonaws.com", "us-west-2", 0, false},
		{"unlisted_host", "pinpoint.us-west-2.amazonaws.com", "us-west-2", 0, false},
		{"global_service", "", "us-east-1", 2, true},
		{"global_service_foreign", "", "us-west-2", 2, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := dialects[row.dialect]
			r, sent := d.build("http://"+f.addr, "a", "hello")
			if row.host != "" {
				r.Host = row.host
			}
			signAs(r, sent, own, row.region, d.service, time.Now())
			resp, body := do(t, r)
			if ok := resp.StatusCode == 200; ok != row.ok {
				t.Fatalf("answered %d %s", resp.StatusCode, body)
			}
			if got := f.records.last(t); got.SignedRegion != row.region || got.Region != testRegion {
				t.Errorf("recorded Regions %s, %s", got.Region, got.SignedRegion)
			}
		})
	}
}

func TestBodyTimeAndSize(t *testing.T) {
	t.Run("slow_body", func(t *testing.T) {
		f := serve(t, Config{BodyTimeout: 50 * time.Millisecond})
		for _, d := range dialects {
			r, sent := d.build("http://"+f.addr, "a", "hello")
			sign(r, sent, d.service)
			conn := dial(t, f.addr)
			conn.send(t, head(r)+fmt.Sprintf("Content-Length: %d\r\n\r\n", len(sent))+string(sent[:len(sent)-2]))
			resp, body := conn.response(t)
			_, message, _ := d.read(t, resp, body)
			if resp.StatusCode != 400 || message != "The request body did not arrive within 50ms." {
				t.Errorf("%s answered %d %q", d.name, resp.StatusCode, message)
			}
			conn.closed(t)
		}
	})
	t.Run("a_slow_body_does_not_spoil_the_next_request", func(t *testing.T) {
		f := serve(t, Config{BodyTimeout: 100 * time.Millisecond})
		d := dialects[0]
		r, sent := d.build("http://"+f.addr, "a", "wait")
		sign(r, sent, d.service)
		conn := dial(t, f.addr)
		text := head(r) + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(sent)) + string(sent)
		conn.send(t, text)
		<-f.entered
		// The operation outlasts the time its body had.
		timer := time.NewTimer(200 * time.Millisecond)
		<-timer.C
		f.gate <- struct{}{}
		if resp, body := conn.response(t); resp.StatusCode != 200 {
			t.Fatalf("answered %d %s", resp.StatusCode, body)
		}
		conn.send(t, text)
		<-f.entered
		f.gate <- struct{}{}
		if resp, body := conn.response(t); resp.StatusCode != 200 {
			t.Fatalf("answered %d %s", resp.StatusCode, body)
		}
	})
	t.Run("cut_body", func(t *testing.T) {
		f := serve(t, Config{})
		d := dialects[0]
		r, sent := d.build("http://"+f.addr, "a", "hello")
		sign(r, sent, d.service)
		conn := dial(t, f.addr)
		conn.send(t, head(r)+"Transfer-Encoding: chunked\r\n\r\n5\r\n"+string(sent[:5])+"\r\nzz\r\n")
		resp, body := conn.response(t)
		f.check(t, d, resp, body, 400, "BadRequestException", "The request body ended before it was complete.")
	})
	t.Run("claimed_length", func(t *testing.T) {
		f := serve(t, Config{})
		for _, d := range dialects {
			r, sent := d.build("http://"+f.addr, "a", "hello")
			sign(r, sent, d.service)
			conn := dial(t, f.addr)
			conn.send(t, head(r)+fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", 7<<20+1))
			resp, body := conn.response(t) // and no 100 before it
			_, message, _ := d.read(t, resp, body)
			if resp.StatusCode != 413 || message != "The request body is larger than 7340032 bytes." {
				t.Errorf("%s answered %d %q", d.name, resp.StatusCode, message)
			}
		}
	})
	t.Run("chunked", func(t *testing.T) {
		f := serve(t, Config{BodyBytesMax: 10000})
		for _, d := range dialects {
			for _, size := range []int{9000, 20000} {
				r, sent := d.build("http://"+f.addr, "a", strings.Repeat("x", size))
				sign(r, sent, d.service)
				r.ContentLength, r.Body = -1, io.NopCloser(bytes.NewReader(sent))
				resp, body := do(t, r)
				if size < 10000 {
					if resp.StatusCode != 200 || !bytes.Contains(body, bytes.Repeat([]byte("x"), size)) {
						t.Errorf("%s answered %d", d.name, resp.StatusCode)
					}
					continue
				}
				_, message, _ := d.read(t, resp, body)
				if resp.StatusCode != 413 || message != "The request body is larger than 10000 bytes." {
					t.Errorf("%s answered %d %q", d.name, resp.StatusCode, message)
				}
			}
		}
		if held := f.door.bodiesBytes.Load(); held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
	})
	t.Run("stalled_after_the_refusal", func(t *testing.T) {
		// The answer comes at once. The server reads on for the client's sake, but
		// not for the half minute that a body may take.
		f := serve(t, Config{BodyBytesMax: 1000})
		d := dialects[0]
		fastest := time.Hour
		for range 3 {
			r, sent := d.build("http://"+f.addr, "a", strings.Repeat("x", 2000))
			sign(r, sent, d.service)
			conn := dial(t, f.addr)
			begun := time.Now()
			conn.send(t, head(r)+fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(sent), sent))
			resp, body := conn.response(t)
			fastest = min(fastest, time.Since(begun))
			f.check(t, d, resp, body, 413, "PayloadTooLargeException", "The request body is larger than 1000 bytes.")
			if !resp.Close {
				t.Error("the connection is not announced to end")
			}
			conn.closed(t)
		}
		if fastest >= lingerTimeout {
			t.Errorf("the fastest of three answers took %v", fastest)
		}
	})
	t.Run("all_bodies", func(t *testing.T) {
		f := serve(t, Config{BodiesBytesMax: 8000})
		for _, d := range dialects {
			r, sent := d.build("http://"+f.addr, "a", strings.Repeat("x", 20000))
			sign(r, sent, d.service)
			resp, body := do(t, r)
			_, message, _ := d.read(t, resp, body)
			if resp.StatusCode != 503 || message != "Too many request bodies at once. Please retry." || resp.Header.Get("Retry-After") != "1" {
				t.Errorf("%s answered %d %q", d.name, resp.StatusCode, message)
			}
		}
	})
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

func TestCompressedBodies(t *testing.T) {
	f := serve(t, Config{BodyBytesMax: 1 << 20})
	for _, d := range dialects {
		_, plain := d.build("http://"+f.addr, "a", "hello")
		_, bomb := d.build("http://"+f.addr, "a", strings.Repeat("x", 2<<20))
		for _, row := range []struct {
			name, encoding string
			body           []byte
			unsigned       bool
			status         int
			message        string
		}{
			{"gzip", "gzip", zip(plain), false, 200, ""},
			{"identity", "identity", plain, false, 200, ""},
			{"bomb", "gzip", zip(bomb), false, 413, "The request body is larger than 1048576 bytes."},
			{"not_gzip", "gzip", plain, false, 400, "The request body is not valid gzip."},
			{"cut_gzip", "gzip", zip(plain)[:20], false, 400, "The request body is not valid gzip."},
			{"other", "br", plain, false, 400, "The Content-Encoding of the body is not supported; send gzip or none."},
			{"twice", "gzip, gzip", zip(zip(plain)), false, 400, "The Content-Encoding of the body is not supported; send gzip or none."},
		} {
			t.Run(d.name+"/"+row.name, func(t *testing.T) {
				r, _ := d.build("http://"+f.addr, "a", "")
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(row.body)), int64(len(row.body))
				r.Header.Set("Content-Encoding", row.encoding)
				sign(r, row.body, d.service)
				resp, body := do(t, r)
				if resp.StatusCode != row.status {
					t.Fatalf("answered %d %s", resp.StatusCode, body)
				}
				if row.status == 200 {
					if !bytes.Contains(body, []byte("hello")) {
						t.Errorf("answered %s", body)
					}
					return
				}
				if _, message, _ := d.read(t, resp, body); message != row.message {
					t.Errorf("answered %q", message)
				}
			})
		}
	}
	t.Run("not_for_strangers", func(t *testing.T) {
		d := dialects[0]
		r, _ := d.build("http://"+f.addr, "a", "")
		bomb := zip(make([]byte, 2<<20))
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(bomb)), int64(len(bomb))
		r.Header.Set("Content-Encoding", "gzip")
		resp, body := do(t, r)
		f.check(t, d, resp, body, 403, "MissingAuthenticationTokenException", "Missing Authentication Token")
	})
}

func TestHeaders(t *testing.T) {
	f := serve(t, Config{HeaderBytesMax: 8 << 10, HeaderTimeout: 200 * time.Millisecond})
	t.Run("flood", func(t *testing.T) {
		conn := dial(t, f.addr)
		// The server may stop reading before everything is sent.
		_, _ = io.WriteString(conn, "GET /v1/apps HTTP/1.1\r\nHost: h\r\n"+strings.Repeat("X-Flood: "+strings.Repeat("x", 100)+"\r\n", 200))
		resp, err := http.ReadResponse(conn.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answered %d", resp.StatusCode)
		}
	})
	t.Run("slow", func(t *testing.T) {
		conn := dial(t, f.addr)
		conn.send(t, "GET /v1/apps HTTP/1.1\r\nHost: h\r\nX-Slow: ")
		conn.closed(t)
	})
}

func TestExpectContinue(t *testing.T) {
	f := serve(t, Config{})
	for _, d := range dialects {
		r, sent := d.build("http://"+f.addr, "a", "hello")
		sign(r, sent, d.service)
		conn := dial(t, f.addr)
		conn.send(t, head(r)+fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(sent)))
		if line, err := conn.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			t.Fatalf("%s: %q, %v", d.name, line, err)
		}
		if _, err := conn.in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		conn.send(t, string(sent))
		if resp, body := conn.response(t); resp.StatusCode != 200 {
			t.Errorf("%s answered %d %s", d.name, resp.StatusCode, body)
		}
	}
}

func TestRequestsInProgressAreBounded(t *testing.T) {
	f := serve(t, Config{RequestsMax: 1})
	r, sent := dialects[0].build("http://"+f.addr, "a", "wait")
	sign(r, sent, dialects[0].service)
	first := make(chan int, 1)
	go func() {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			first <- 0
			return
		}
		defer resp.Body.Close()
		first <- resp.StatusCode
	}()
	<-f.entered
	for i, d := range dialects {
		r, sent := d.build("http://"+f.addr, "a", "hello")
		sign(r, sent, d.service)
		resp, body := do(t, r)
		code, message, _ := d.read(t, resp, body)
		if resp.StatusCode != 503 || message != "Too many requests in progress. Please retry." || resp.Header.Get("Retry-After") != "1" || code == "" {
			t.Errorf("dialect %d answered %d %s %q", i, resp.StatusCode, code, message)
		}
		if got := f.records.last(t); got.Status != 503 || got.ErrorCode != code || got.Principal != "" {
			t.Errorf("recorded %+v", got)
		}
	}
	// Probes are not counted.
	if resp, _ := do(t, newRequest("GET", "http://"+f.addr+"/healthz", nil)); resp.StatusCode != 200 {
		t.Errorf("healthz answered %d", resp.StatusCode)
	}
	f.gate <- struct{}{}
	if status := <-first; status != 200 {
		t.Errorf("the first answered %d", status)
	}
	// The slot is given back before the response is complete on the wire, or a moment after.
	deadline := time.Now().Add(10 * time.Second)
	for {
		r, sent := dialects[0].build("http://"+f.addr, "a", "hello")
		sign(r, sent, dialects[0].service)
		resp, _ := do(t, r)
		if resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %d", resp.StatusCode)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	f := serve(t, Config{ConnectionsMax: 1})
	const probe = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
	first := dial(t, f.addr)
	first.send(t, probe)
	first.response(t)
	second := dial(t, f.addr)
	second.send(t, probe)
	_ = second.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := second.in.ReadByte(); !isTimeout(err) {
		t.Fatalf("the second connection was served: %v", err)
	}
	first.Close()
	_ = second.SetReadDeadline(time.Now().Add(20 * time.Second))
	if resp, _ := second.response(t); resp.StatusCode != 200 {
		t.Errorf("answered %d", resp.StatusCode)
	}
}

func TestInternalErrorsTellNothing(t *testing.T) {
	f := serve(t, Config{})
	for _, key := range []string{"AKIABROKEN", "AKIAPANIC"} {
		for _, d := range dialects {
			r, sent := d.build("http://"+f.addr, "a", "hello")
			signAs(r, sent, sigv4.Credentials{AccessKeyID: key, Secret: testSecret}, testRegion, d.service, time.Now())
			resp, body := do(t, r)
			if resp.StatusCode != 500 || bytes.Contains(body, []byte("store")) || bytes.Contains(body, []byte("luck")) {
				t.Errorf("%s answered %d %s", key, resp.StatusCode, body)
			}
		}
	}
	for _, text := range []string{"the key store is gone", "no such luck"} {
		if !strings.Contains(f.logged.String(), text) {
			t.Errorf("%q was not logged", text)
		}
	}
	if strings.Contains(f.logged.String(), string(testSecret)) {
		t.Error("the log holds a secret")
	}
}

func TestProbesAndPlainHandlers(t *testing.T) {
	var broken error
	f := newDoor(t, Config{Ready: func(context.Context) error { return broken }})
	f.door.Handle("/console/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "folder ", r.URL.Path) }))
	f.door.Handle("/metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "exact") }))
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		f.door.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return w.Code, w.Body.String()
	}
	for _, row := range []struct {
		path   string
		status int
		body   string
	}{
		{"/healthz", 200, "ok\n"},
		{"/readyz", 200, "ready\n"},
		{"/metrics", 200, "exact"},
		{"/console/", 200, "folder /console/"},
		{"/console/a/b.js", 200, "folder /console/a/b.js"},
	} {
		if status, body := get(row.path); status != row.status || body != row.body {
			t.Errorf("%s answered %d %q", row.path, status, body)
		}
	}
	for _, path := range []string{"/metrics/x", "/healthz/", "/console", "/"} {
		if status, _ := get(path); status != 403 {
			t.Errorf("%s answered %d", path, status)
		}
	}
	broken = errors.New("the store is opening")
	if status, body := get("/readyz"); status != 503 || body != "not ready: the store is opening\n" {
		t.Errorf("readyz answered %d %q", status, body)
	}
	if status, _ := get("/healthz"); status != 200 {
		t.Errorf("healthz answered %d", status)
	}
}

func TestSource(t *testing.T) {
	f := newDoor(t, Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, row := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:99", []string{"198.51.100.1"}, "192.0.2.1"},
		{"10.0.0.1:99", nil, "10.0.0.1"},
		{"10.0.0.1:99", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"nonsense"}, "10.0.0.1"},
		{"[::ffff:192.0.2.1]:99", nil, "192.0.2.1"},
		{"pipe", nil, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: row.peer, Header: http.Header{"X-Forwarded-For": row.forwarded}}
		if got := f.door.source(r).String(); got != row.want {
			t.Errorf("%s with %v is %s, want %s", row.peer, row.forwarded, got, row.want)
		}
	}
}

func TestTarget(t *testing.T) {
	for line, want := range map[string][2]string{
		"/a%2Fb?x=1?y": {"/a%2Fb", "x=1?y"}, "http://h/a?b": {"/a", "b"}, "http://h": {"", ""}, "http://h?b": {"", "b"},
		"*": {"*", ""}, "/a://b?c": {"/a://b", "c"}, "h:443": {"h:443", ""},
	} {
		path, query := target(&http.Request{RequestURI: line})
		if path != want[0] || query != want[1] {
			t.Errorf("%q is %q, %q", line, path, query)
		}
	}
}

func TestStaticKeys(t *testing.T) {
	good := StaticKey{AccessKeyID: testKeyID, Secret: testSecret, Account: testAccount, Principal: "arn:aws:iam::123456789012:user/ada"}
	for name, change := range map[string]func(k *StaticKey){
		"short id": func(k *StaticKey) { k.AccessKeyID = "AKIA" }, "id with a slash": func(k *StaticKey) { k.AccessKeyID += "/" },
		"short secret": func(k *StaticKey) { k.Secret = "short-secret" }, "account": func(k *StaticKey) { k.Account = "12345678901x" },
		"foreign principal": func(k *StaticKey) { k.Principal = "arn:aws:iam::999999999999:root" }, "no ARN": func(k *StaticKey) { k.Principal = "ada" },
	} {
		k := good
		change(&k)
		_, err := NewStaticKeys(k)
		if err == nil {
			t.Errorf("%s was accepted", name)
		} else if strings.Contains(err.Error(), string(k.Secret)) {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
	if _, err := NewStaticKeys(good, good); err == nil {
		t.Error("the same key twice was accepted")
	}
	if text := fmt.Sprintf("%v %+v %#v", good, good, good); strings.Contains(text, string(testSecret)) {
		t.Errorf("printed %s", text)
	}

	keys, err := NewStaticKeys(good)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if got, err := keys.Identity(ctx, testKeyID, ""); err != nil || got.Principal != good.Principal || got.Account != testAccount || got.Secret.Key != testSecret {
		t.Errorf("identity %v, %v", got, err)
	}
	for _, bad := range [][2]string{{"AKIAOTHER", ""}, {testKeyID, "token"}} {
		if _, err := keys.Identity(ctx, bad[0], sigv4.SecretKey(bad[1])); aws.KindOf(err) != aws.KindUnknownKey {
			t.Errorf("%v: %v", bad, err)
		}
	}
	caller := aws.Caller{Account: testAccount, Principal: good.Principal, AccessKeyID: testKeyID}
	own := "arn:aws:mobiletargeting:us-east-1:123456789012:apps/a"
	for _, row := range []struct {
		change           func(c *aws.Caller)
		action, resource string
		ok               bool
	}{
		{func(*aws.Caller) {}, "mobiletargeting:GetApp", own, true},
		{func(*aws.Caller) {}, "mobiletargeting:GetApps", "*", true},
		{func(*aws.Caller) {}, "", own, false},
		{func(*aws.Caller) {}, "mobiletargeting:GetApp", strings.Replace(own, testAccount, "999999999999", 1), false},
		{func(*aws.Caller) {}, "mobiletargeting:GetApp", "arn:nonsense", false},
		{func(c *aws.Caller) { c.AccessKeyID = "AKIAOTHER" }, "mobiletargeting:GetApp", own, false},
		{func(c *aws.Caller) { c.Account = "999999999999" }, "mobiletargeting:GetApp", own, false},
		{func(c *aws.Caller) { c.Account = "999999999999" }, "mobiletargeting:GetApps", "*", false},
		{func(c *aws.Caller) { c.Principal = testRoot }, "mobiletargeting:GetApp", own, false},
		{func(c *aws.Caller) { *c = aws.Caller{} }, "mobiletargeting:GetApps", "*", false},
	} {
		c := caller
		row.change(&c)
		err := keys.Allow(ctx, c, row.action, row.resource)
		if (err == nil) != row.ok || err != nil && aws.KindOf(err) != aws.KindDenied {
			t.Errorf("%+v %s %s: %v", c, row.action, row.resource, err)
		}
	}
}

func TestDeniedMessage(t *testing.T) {
	c := aws.Caller{Principal: testRoot}
	if got := Denied(c, "a:B", "*").Error(); got != "User: "+testRoot+" is not authorized to perform: a:B" {
		t.Error(got)
	}
	if got := Denied(c, "a:B", "arn:x%d").Error(); got != "User: "+testRoot+" is not authorized to perform: a:B on resource: arn:x%d" {
		t.Error(got)
	}
}
