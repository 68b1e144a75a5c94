package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws/sigv4"
)

// site is a router before real Regions: TLS on loopback, in front HTTP/1.1 and
// HTTP/2.
type site struct {
	t       testing.TB
	regions []*siteRegion
	rt      *Router
	front   *httptest.Server
	trust   *tls.Config
	h1, h2  *http.Client
}

// siteRegion is one Region of a site: it verifies signatures and counts what it
// executes.
type siteRegion struct {
	t        testing.TB
	name     string
	srv      *httptest.Server
	verifier *sigv4.Verifier

	// answer, if set, answers instead of the plain 200.
	answer atomic.Pointer[http.HandlerFunc]

	mu       sync.Mutex
	executed map[string]int // by invocation id
	refused  []string       // what was wrong with signatures
	seen     []string       // method, request target and hash of the body
}

var testCredentials = sigv4.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}

type testKeys struct{}

func (testKeys) Secret(context.Context, string, sigv4.SecretKey) (sigv4.Secret, error) {
	return sigv4.Secret{Key: testCredentials.Secret}, nil
}

func newSiteRegion(t testing.TB, name string) *siteRegion {
	s := &siteRegion{t: t, name: name, verifier: sigv4.NewVerifier(sigv4.Config{}), executed: map[string]int{}}
	s.srv = httptest.NewUnstartedServer(s)
	s.srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.srv.StartTLS()
	return s
}

func (s *siteRegion) do(f http.HandlerFunc) { s.answer.Store(&f) }

func (s *siteRegion) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/readyz" {
		return
	}
	if r.URL.Path == SwitchesPath {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if f := s.answer.Load(); f != nil {
		(*f)(w, r)
		return
	}
	s.execute(w, r)
}

// execute verifies the request, as a door does, and counts it.
func (s *siteRegion) execute(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client broke off
	}
	path, query, _ := target(r)
	hash := sha256.Sum256(body)
	_, err = s.verifier.Verify(r.Context(), testKeys{}, &sigv4.Request{
		Method: r.Method, RawPath: path, RawQuery: query, Host: r.Host, Header: r.Header, BodySHA256: hash, TLS: true, Now: time.Now(),
		Regions: func(string) bool { return true }, Services: []string{"mobiletargeting"},
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, fmt.Sprintf("%s %s %x", r.Method, r.RequestURI, hash[:4]))
	if err != nil {
		s.refused = append(s.refused, fmt.Sprintf("%s %s: %v", r.Method, r.RequestURI, err))
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.executed[r.Header.Get("Amz-Sdk-Invocation-Id")]++
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

// kill ends the Region as a kill of its process would.
func (s *siteRegion) kill() {
	s.srv.Listener.Close()
	s.srv.CloseClientConnections()
}

func newSite(t testing.TB, n int, cfg Config) *site {
	s := &site{t: t}
	pool := x509.NewCertPool()
	for i := range n {
		reg := newSiteRegion(t, fmt.Sprintf("eu-%d-1", i+1))
		t.Cleanup(func() { reg.kill(); reg.srv.Close() })
		s.regions = append(s.regions, reg)
		pool.AddCert(reg.srv.Certificate())
		cfg.Regions = append(cfg.Regions, Region{Name: reg.name, URL: reg.srv.URL})
	}
	s.trust = &tls.Config{RootCAs: pool}
	cfg.Remembered = Remembers(restService, jsonService)
	tr := NewTransport(s.trust, cfg.Limits)
	t.Cleanup(tr.CloseIdleConnections)
	rt, err := New(cfg, tr, time.Now, rand.New(rand.NewPCG(1, 2)), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.rt = rt
	s.front = httptest.NewUnstartedServer(nil)
	s.front.Config = rt.Server(nil)
	s.front.EnableHTTP2 = true
	s.front.StartTLS()
	t.Cleanup(func() { s.front.CloseClientConnections(); s.front.Close() })
	pool.AddCert(s.front.Certificate())
	s.h1, s.h2 = s.client(false), s.client(true)
	return s
}

// client returns a client that never repeats a request by itself.
func (s *site) client(two bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!two)
	p.SetHTTP2(two)
	tr := &http.Transport{TLSClientConfig: s.trust.Clone(), Protocols: p, MaxIdleConnsPerHost: 64, DisableCompression: true}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// run lets the router check health until the test ends.
func (s *site) run() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.rt.Run(ctx) }()
	s.t.Cleanup(func() { stop(); <-done })
}

// signed makes a signed request for a path, given as it shall stand on the wire.
func (s *site) signed(method, path, body, invocation string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequest(method, s.front.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		r.ContentLength = int64(len(body))
		r.Body = io.NopCloser(strings.NewReader(body)) // without GetBody: sent once
	}
	if invocation != "" {
		r.Header.Set("Amz-Sdk-Invocation-Id", invocation)
	}
	r.Header.Set("X-Odd", "a,  b;c=\"d\"")
	if err := sigv4.Sign(r, sha256.Sum256([]byte(body)), testCredentials, "eu-1-1", "mobiletargeting", time.Now()); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// call sends a request and returns its status, the Region that answered, and the
// body.
func (s *site) call(c *http.Client, r *http.Request) (int, string, string) {
	s.t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		return 0, "", ""
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, resp.Body); err != nil {
		s.t.Errorf("%s %s: body: %v", r.Method, r.URL, err)
	}
	return resp.StatusCode, resp.Header.Get(headerRegion), b.String()
}

// executions returns how often a call was executed, in all Regions together.
func (s *site) executions(invocation string) (n int) {
	for _, reg := range s.regions {
		reg.mu.Lock()
		n += reg.executed[invocation]
		reg.mu.Unlock()
	}
	return n
}

// await fails unless the condition comes true soon.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
