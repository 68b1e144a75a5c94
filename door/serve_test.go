package door

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

// certificate writes a self-signed certificate for 127.0.0.1 to the two files.
func certificate(t *testing.T, certFile, keyFile, name string, key any) *x509.CertPool {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment,
	}
	public := func() any {
		if k, ok := key.(*rsa.PrivateKey); ok {
			return &k.PublicKey
		}
		return &key.(*ecdsa.PrivateKey).PublicKey
	}()
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(certFile, "CERTIFICATE", der)
	write(keyFile, "PRIVATE KEY", private)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

func ecdsaKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]any{"rsa": rsaKey, "ecdsa": ecdsaKey(t)} {
		certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
		pool := certificate(t, certFile, keyFile, "localhost", key)
		f := serve(t, Config{CertFile: certFile, KeyFile: keyFile})
		good, weak := uint16(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), []uint16{
			tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
			tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA,
		}
		if name == "ecdsa" {
			good = tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
			weak = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}
		}
		handshake := func(cfg *tls.Config) error {
			cfg.RootCAs = pool
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", f.addr)
			if err == nil {
				conn.Close()
			}
			return err
		}
		if err := handshake(&tls.Config{}); err != nil {
			t.Errorf("%s, TLS 1.3: %v", name, err)
		}
		if err := handshake(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{good}}); err != nil {
			t.Errorf("%s, a good suite of TLS 1.2: %v", name, err)
		}
		if err := handshake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
			t.Errorf("%s: TLS 1.1 was accepted", name)
		}
		for _, suite := range weak {
			if err := handshake(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}); err == nil {
				t.Errorf("%s: suite %s was accepted", name, tls.CipherSuiteName(suite))
			}
		}
		for _, http2 := range []bool{false, true} {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: http2}
			for _, d := range dialects {
				r, sent := d.build("https://"+f.addr, "a", "hello")
				sign(r, sent, d.service)
				answer, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				resp, body := readAll(t, answer)
				if resp.StatusCode != 200 || (resp.ProtoMajor == 2) != http2 || !bytes.Contains(body, []byte("hello")) {
					t.Errorf("%s answered HTTP/%d %d %s", d.name, resp.ProtoMajor, resp.StatusCode, body)
				}
				if got := f.records.last(t); !got.TLS {
					t.Error("recorded as plain")
				}
			}
			transport.CloseIdleConnections()
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	pool := certificate(t, certFile, keyFile, "localhost", ecdsaKey(t))
	f := serve(t, Config{CertFile: certFile, KeyFile: keyFile, StreamsMax: 3})
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}}}
	conn, err := dialer.DialContext(t.Context(), "tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	// The client's preface with empty settings; the server answers with its own.
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	var frame [9]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil || frame[3] != 4 {
		t.Fatalf("frame %x: %v", frame, err)
	}
	settings := make([]byte, int(frame[1])<<8|int(frame[2]))
	if _, err := io.ReadFull(conn, settings); err != nil {
		t.Fatal(err)
	}
	// SETTINGS_MAX_CONCURRENT_STREAMS is 3. Source: RFC 9113 6.5.2.
	if !bytes.Contains(settings, []byte{0, 3, 0, 0, 0, 3}) {
		t.Errorf("settings %x", settings)
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	certificate(t, certFile, keyFile, "first", ecdsaKey(t))
	logged := &lockedBuffer{}
	c, err := readCertificates(certFile, keyFile, slog.New(slog.NewTextHandler(logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.every = 0
	name := func() string {
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Leaf.Subject.CommonName
	}
	touch := func(ahead time.Duration) {
		for _, f := range []string{certFile, keyFile} {
			if err := os.Chtimes(f, time.Time{}, time.Now().Add(ahead)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := name(); got != "first" {
		t.Fatalf("served %s", got)
	}
	// Half of a change is no certificate: the old one stays.
	if err := os.WriteFile(keyFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, b := name(), name(); a != "first" || b != "first" || strings.Count(logged.String(), "not readable") != 1 {
		t.Errorf("served %s, %s, logged %s", a, b, logged)
	}
	certificate(t, certFile, keyFile, "second", ecdsaKey(t))
	touch(time.Minute)
	if got := name(); got != "second" {
		t.Errorf("served %s", got)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "second" {
		t.Errorf("served %s", got)
	}
	// Between looks the files are not looked at.
	c.every = time.Hour
	certificate(t, certFile, keyFile, "third", ecdsaKey(t))
	touch(2 * time.Minute)
	if got := name(); got != "second" {
		t.Errorf("served %s", got)
	}
}

func TestUnsafeSettingsAreRefused(t *testing.T) {
	mux := wire.NewMux(restService)
	keys, err := NewStaticKeys()
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no region":           {},
		"odd region":          {Region: "Frankfurt"},
		"host without region": {Region: testRegion, Hosts: []string{"example.com"}},
		"plain everywhere":    {Region: testRegion, PlainLoopback: true, Listen: ":0"},
		"plain on any":        {Region: testRegion, PlainLoopback: true, Listen: "0.0.0.0:0"},
		"plain on any v6":     {Region: testRegion, PlainLoopback: true, Listen: "[::]:0"},
		"plain abroad":        {Region: testRegion, PlainLoopback: true, Listen: "192.0.2.1:0"},
		"plain and TLS":       {Region: testRegion, PlainLoopback: true, Listen: "127.0.0.1:0", CertFile: "c", KeyFile: "k"},
		"plain unasked":       {Region: testRegion, Listen: "127.0.0.1:0"},
		"no key":              {Region: testRegion, Listen: "127.0.0.1:0", CertFile: "c"},
		"no files":            {Region: testRegion, Listen: "127.0.0.1:0", CertFile: "c", KeyFile: "k"},
	} {
		if _, err := New(cfg, mux, keys, keys, &records{}, aws.NewIDs(rand.Reader), slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	good := Config{Region: testRegion, PlainLoopback: true, Listen: "localhost:0"}
	if _, err := New(good, mux, keys, keys, &records{}, aws.NewIDs(rand.Reader), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	if _, err := New(good, mux, keys, nil, &records{}, aws.NewIDs(rand.Reader), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a door without authoriser was made")
	}
}

func TestRunDrains(t *testing.T) {
	f := serve(t, Config{})
	r, sent := dialects[0].build("http://"+f.addr, "a", "wait")
	sign(r, sent, dialects[0].service)
	answered := make(chan int, 1)
	go func() {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-f.entered
	f.stop()
	deadline := time.Now().Add(10 * time.Second)
	for !f.door.draining.Load() {
		if time.Now().After(deadline) {
			t.Fatal("not draining")
		}
		<-time.After(time.Millisecond)
	}
	select {
	case err := <-f.ended:
		t.Fatalf("Run returned %v with a request in progress", err)
	default:
	}
	f.gate <- struct{}{}
	if status := <-answered; status != 200 {
		t.Errorf("answered %d", status)
	}
	if err := <-f.ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	f.ended <- nil
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.addr); err == nil {
		t.Error("still listening")
	}
}

func TestRunGivesUpOnRequestsThatDoNotEnd(t *testing.T) {
	f := serve(t, Config{DrainTimeout: 50 * time.Millisecond})
	r, sent := dialects[0].build("http://"+f.addr, "a", "wait")
	sign(r, sent, dialects[0].service)
	var client sync.WaitGroup
	client.Go(func() {
		if resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r); err == nil {
			resp.Body.Close()
		}
	})
	<-f.entered
	f.stop()
	err := <-f.ended
	if err == nil || !strings.Contains(err.Error(), "still in progress") {
		t.Errorf("Run returned %v", err)
	}
	f.ended <- nil
	client.Wait()
	// The operation's context ended, so the request left its slot before Run returned.
	if n := len(f.door.slots); n != 0 {
		t.Errorf("%d requests are still inside", n)
	}
}

func TestOperationTimeout(t *testing.T) {
	f := serve(t, Config{OperationTimeout: 30 * time.Millisecond})
	for _, d := range dialects {
		r, sent := d.build("http://"+f.addr, "a", "wait")
		sign(r, sent, d.service)
		resp, body := do(t, r)
		if _, message, _ := d.read(t, resp, body); resp.StatusCode != 503 || message != "The request could not be completed in time." || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("%s answered %d %s", d.name, resp.StatusCode, body)
		}
	}
}

func TestReadyzWhileDraining(t *testing.T) {
	f := newDoor(t, Config{})
	f.door.draining.Store(true)
	conn, server := net.Pipe()
	srv := &http.Server{Handler: f.door.Handler(), ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(&onePipe{conn: server, closed: make(chan struct{})}) }()
	go io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(text, []byte("HTTP/1.1 503 ")) || !bytes.HasSuffix(text, []byte("not ready: shutting down\n")) {
		t.Errorf("answered %q, %v", text, err)
	}
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-done
}

// onePipe is a listener with a single connection.
type onePipe struct {
	mu     sync.Mutex
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *onePipe) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *onePipe) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *onePipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
