package smtp_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// TestNothingLostNothingTwice sends from many goroutines to a double that fails
// at random, and judges by the mailbox alone: Accepted is there once, Deferred
// and Refused are not there, Unknown is there at most once.
func TestNothingLostNothingTwice(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := mathrand.New(mathrand.NewPCG(seed, 1))
				var rules []smtptest.Rule
				for at := smtptest.AtMail; at <= smtptest.AfterStore; at++ {
					for _, fail := range []smtptest.Rule{
						{Drop: true}, {Reply: "421 4.3.2 closing"}, {Reply: "450 4.2.1 busy"}, {Reply: "550 5.1.1 gone"}, {StallFor: time.Hour}, {StallFor: time.Second},
					} {
						if at == smtptest.AfterStore && fail.Reply != "" {
							continue // A server that stores and denies it deceives everyone.
						}
						fail.At = at
						every := 20 + rng.IntN(400)
						fail.Match = func(a smtptest.Attempt) bool { return a.N%every == every-1 }
						rules = append(rules, fail)
					}
				}
				without := []string{"", "", "PIPELINING"}[rng.IntN(3)]
				r := newRig(t,
					smtp.Config{Connections: 1 + rng.IntN(6), MessagesPerConnection: 1 + rng.IntN(100), Idle: time.Second},
					smtptest.Config{Without: []string{without}, MailboxMax: 10_000}, rules...)
				const senders, each = 16, 40
				outcomes := make([]courier.Outcome, senders*each)
				cut := make([]time.Duration, senders*each)
				for i := range cut {
					if rng.IntN(10) == 0 {
						cut[i] = time.Duration(1 + rng.IntN(int(2*time.Second)))
					}
				}
				var sending sync.WaitGroup
				for s := range senders {
					sending.Go(func() {
						for n := s * each; n < (s+1)*each; n++ {
							ctx, cancel := t.Context(), context.CancelFunc(func() {})
							if cut[n] > 0 {
								ctx, cancel = context.WithTimeout(ctx, cut[n])
							}
							outcomes[n] = r.client.Send(ctx, message(n, fmt.Sprintf("p%d@people.example", n)))
							cancel()
						}
					})
				}
				sending.Wait()
				r.stop()
				time.Sleep(2 * time.Hour) // Whatever the double still holds up comes to its end.
				synctest.Wait()
				seen := map[courier.Status]int{}
				for n, o := range outcomes {
					stored := r.stored(n)
					seen[o.Status]++
					switch {
					case o.Status == courier.Accepted && stored == 1:
					case (o.Status == courier.Deferred || o.Status == courier.Refused) && stored == 0:
					case o.Status == courier.Unknown && stored <= 1:
					default:
						t.Errorf("message %d was stored %d times: %+v", n, stored, o)
					}
				}
				if seen[courier.Accepted] < senders*each/2 || seen[courier.Delivered] > 0 {
					t.Errorf("outcomes are %v", seen)
				}
			})
		})
	}
}

// loopback runs a client of a server that listens on l.
func loopback(t *testing.T, cfg smtp.Config, l net.Listener) *smtp.Client {
	t.Helper()
	cfg.Addr, cfg.Name = l.Addr().String(), "everpoint.example"
	c, err := smtp.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return c
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func double(t *testing.T, cfg smtptest.Config, l net.Listener) *smtptest.Server {
	t.Helper()
	s := smtptest.New(cfg, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	return s
}

// certificate is a fresh one for 127.0.0.1, and the roots that trust it.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

func TestTLSAndAuth(t *testing.T) {
	served, roots := certificate(t)
	trusting := &tls.Config{RootCAs: roots}
	users := map[string]string{"shop": "s3cret"}
	for name, c := range map[string]struct {
		server   smtptest.Config
		client   smtp.Config
		implicit bool
		status   courier.Status
		tls      bool
		user     string
		detail   string
	}{
		"required":                              {smtptest.Config{TLS: served}, smtp.Config{TLS: smtp.TLSRequired, TLSConfig: trusting}, false, courier.Accepted, true, "", ""},
		"required, unknown root":                {smtptest.Config{TLS: served}, smtp.Config{TLS: smtp.TLSRequired}, false, courier.Deferred, false, "", "TLS handshake: "},
		"required, not offered":                 {smtptest.Config{}, smtp.Config{TLS: smtp.TLSRequired, TLSConfig: trusting}, false, courier.Deferred, false, "", "STARTTLS: not offered"},
		"opportunistic, unknown root":           {smtptest.Config{TLS: served}, smtp.Config{}, false, courier.Accepted, true, "", ""},
		"opportunistic, not offered":            {smtptest.Config{}, smtp.Config{}, false, courier.Accepted, false, "", ""},
		"opportunistic, handshake fails":        {smtptest.Config{TLS: &tls.Config{}}, smtp.Config{}, false, courier.Accepted, false, "", ""},
		"off, offered":                          {smtptest.Config{TLS: served}, smtp.Config{TLS: smtp.TLSOff}, false, courier.Accepted, false, "", ""},
		"implicit":                              {smtptest.Config{}, smtp.Config{TLS: smtp.TLSImplicit, TLSConfig: trusting}, true, courier.Accepted, false, "", ""},
		"implicit to a server in the clear":     {smtptest.Config{}, smtp.Config{TLS: smtp.TLSImplicit, TLSConfig: trusting, Timeouts: smtp.Timeouts{Connect: time.Second}}, false, courier.Deferred, false, "", "TLS handshake: "},
		"AUTH is PLAIN where there is no SCRAM": {smtptest.Config{TLS: served, Users: users}, smtp.Config{TLSConfig: trusting, Username: "shop", Password: "s3cret"}, false, courier.Accepted, true, "shop", ""},
		"AUTH LOGIN":                            {smtptest.Config{TLS: served, Users: users}, smtp.Config{TLSConfig: trusting, Username: "shop", Password: "s3cret", Mechanism: "LOGIN"}, false, courier.Accepted, true, "shop", ""},
		"AUTH with a wrong password":            {smtptest.Config{TLS: served, Users: users}, smtp.Config{TLSConfig: trusting, Username: "shop", Password: "wrong"}, false, courier.Deferred, false, "", "AUTH: 535"},
		"AUTH not offered":                      {smtptest.Config{TLS: served}, smtp.Config{TLSConfig: trusting, Username: "shop", Password: "s3cret"}, false, courier.Deferred, false, "", "AUTH: server offers no mechanism"},
		"no AUTH where it is demanded":          {smtptest.Config{Users: users}, smtp.Config{}, false, courier.Refused, false, "", "authentication required"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			l := listen(t)
			if c.implicit {
				l = tls.NewListener(l, served)
			}
			server := double(t, c.server, l)
			o := loopback(t, c.client, l).Send(t.Context(), message(1, "ann@people.example"))
			if o.Status != c.status || !strings.HasPrefix(o.Detail, c.detail) {
				t.Fatalf("%+v, want %s, %q", o, c.status, c.detail)
			}
			got := server.Messages()
			if o.Status != courier.Accepted {
				if len(got) != 0 {
					t.Errorf("it was stored: %+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].TLS != c.tls || got[0].User != c.user || got[0].Helo != "everpoint.example" {
				t.Errorf("stored %+v", got)
			}
		})
	}
}

// TestAnySizeArrivesAsItWas covers contents around the buffers' sizes, in the
// clear and over TLS.
func TestAnySizeArrivesAsItWas(t *testing.T) {
	served, roots := certificate(t)
	for _, mode := range []smtp.TLSMode{smtp.TLSOff, smtp.TLSRequired} {
		t.Run(string(mode), func(t *testing.T) {
			l := listen(t)
			server := double(t, smtptest.Config{TLS: served}, l)
			client := loopback(t, smtp.Config{TLS: mode, TLSConfig: &tls.Config{RootCAs: roots}, Connections: 2}, l)
			rng := mathrand.New(mathrand.NewPCG(1, 2))
			var sending sync.WaitGroup
			want := map[string][]byte{}
			for n, size := range []int{1, 100, 4 << 10, 32<<10 - 200, 32<<10 - 5, 32 << 10, 33 << 10, 64 << 10, 200_000, 5 << 20} {
				m := message(n, "ann@people.example")
				m.Mail.EightBit = true
				for len(m.Mail.Data) < size {
					line := bytes.Repeat([]byte{'.'}, rng.IntN(4))
					for range rng.IntN(200) {
						line = append(line, " .abcäö"[rng.IntN(9)])
					}
					m.Mail.Data = append(append(m.Mail.Data, line...), "\r\n"...)
				}
				// One line longer than any buffer, ending across its edge.
				m.Mail.Data = append(m.Mail.Data, bytes.Repeat([]byte("x"), size%40_000)...)
				m.Mail.Data = append(m.Mail.Data, "\r\n.\r\n..\r\n"...)
				want[fmt.Sprintf("<%d@shop.example>", n)] = m.Mail.Data
				sending.Go(func() {
					if o := client.Send(t.Context(), m); o.Status != courier.Accepted {
						t.Errorf("%d bytes: %+v", len(m.Mail.Data), o)
					}
				})
			}
			sending.Wait()
			for id, data := range want {
				got := server.ByMessageID(id)
				if len(got) != 1 || !bytes.Equal(got[0].Data, data) {
					t.Errorf("%s of %d bytes arrived %d times or changed", id, len(data), len(got))
				}
			}
		})
	}
}

// --- a foreign server: emersion/go-smtp

type foreign struct {
	mu  sync.Mutex
	got map[string]int // by content
}

func (f *foreign) NewSession(*gosmtp.Conn) (gosmtp.Session, error) {
	return &foreignSession{foreign: f}, nil
}

type foreignSession struct {
	*foreign
	authenticated bool
}

func (s *foreignSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *foreignSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "shop" || password != "s3cret" {
			return gosmtp.ErrAuthFailed
		}
		s.authenticated = true
		return nil
	}), nil
}
func (s *foreignSession) Reset()        {}
func (s *foreignSession) Logout() error { return nil }

func (s *foreignSession) Mail(string, *gosmtp.MailOptions) error {
	if !s.authenticated {
		return gosmtp.ErrAuthRequired
	}
	return nil
}

func (s *foreignSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	switch {
	case strings.HasPrefix(to, "gone"):
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	case strings.HasPrefix(to, "busy"):
		return &gosmtp.SMTPError{Code: 450, EnhancedCode: gosmtp.EnhancedCode{4, 2, 1}, Message: "later"}
	}
	return nil
}

func (s *foreignSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if bytes.Contains(b, []byte("Subject: spam")) {
		return &gosmtp.SMTPError{Code: 554, EnhancedCode: gosmtp.EnhancedCode{5, 7, 1}, Message: "spam"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got[string(b)]++
	return nil
}

func TestForeignGoSMTP(t *testing.T) {
	served, roots := certificate(t)
	f := &foreign{got: map[string]int{}}
	server := gosmtp.NewServer(f)
	server.Domain, server.TLSConfig, server.EnableSMTPUTF8, server.MaxMessageBytes = "relay.example", served, true, 1<<20
	server.ErrorLog = log.New(io.Discard, "", 0)
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, gosmtp.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { server.Close(); serving.Wait() })
	client := loopback(t, smtp.Config{Username: "shop", Password: "s3cret", TLSConfig: &tls.Config{RootCAs: roots}, Connections: 2, MessagesPerConnection: 50}, l)

	var sending sync.WaitGroup
	want := make([]string, 300)
	for n := range want {
		to, status, enhanced := "änn@people.example", courier.Accepted, "2.0.0"
		m := message(n, "")
		switch {
		case n%10 == 3:
			to, status, enhanced = "gone@people.example", courier.Refused, "5.1.1"
		case n%10 == 5:
			to, status, enhanced = "busy@people.example", courier.Deferred, "4.2.1"
		case n%10 == 7:
			to, status, enhanced = "bob@people.example", courier.Refused, "5.7.1"
			m.Mail.Data = append([]byte("Subject: spam\r\n"), m.Mail.Data...)
		}
		m.To = to
		if status == courier.Accepted {
			want[n] = string(m.Mail.Data)
		}
		sending.Go(func() {
			if o := client.Send(t.Context(), m); o.Status != status || o.Enhanced != enhanced {
				t.Errorf("message %d to %s: %+v", n, to, o)
			}
		})
	}
	sending.Wait()
	accepted := 0
	for n, data := range want {
		if data == "" {
			continue
		}
		accepted++
		if f.got[data] != 1 {
			t.Errorf("message %d arrived %d times", n, f.got[data])
		}
	}
	if len(f.got) != accepted {
		t.Errorf("%d messages arrived, %d were accepted", len(f.got), accepted)
	}
	if s := client.Stats(); s.Pipelined == 0 || s.Open > 2 {
		t.Errorf("the pool did not do its work: %+v", s)
	}
}

// TestForeignSMTPSink speaks to Postfix's smtp-sink (Debian: postfix). It runs
// when EVERPOINT_FOREIGN_PEERS=1 says that the machine has it, and then fails
// where it is missing.
func TestForeignSMTPSink(t *testing.T) {
	if os.Getenv("EVERPOINT_FOREIGN_PEERS") != "1" {
		return
	}
	sink, err := exec.LookPath("smtp-sink")
	if err != nil {
		sink = "/usr/sbin/smtp-sink"
	}
	if _, err := os.Stat(sink); err != nil {
		t.Fatalf("EVERPOINT_FOREIGN_PEERS=1, but there is no smtp-sink: %v", err)
	}
	free := listen(t)
	addr := free.Addr().String()
	free.Close()
	dir := t.TempDir()
	// The sink gives up root before it writes, so the way there must be open.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	args := []string{"-d", filepath.Join(dir, "%M.")}
	if os.Getuid() == 0 {
		args = append(args, "-u", "nobody")
	}
	cmd := exec.Command(sink, append(args, addr, "100")...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("smtp-sink said: %s", &said)
		}
	})

	for deadline := time.Now().Add(5 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("smtp-sink does not listen: %v", err)
		}
	}
	client := loopback(t, smtp.Config{TLS: smtp.TLSOff, Connections: 3}, fixedAddr{free, addr})
	const n = 500
	var sending sync.WaitGroup
	for i := range n {
		sending.Go(func() {
			if o := client.Send(t.Context(), message(i, "ann@people.example")); o.Status != courier.Accepted {
				t.Errorf("message %d: %+v", i, o)
			}
		})
	}
	sending.Wait()
	if s := client.Stats(); s.Pipelined == 0 {
		t.Errorf("nothing was pipelined: %+v", s)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	seen := map[string]int{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if bytes.Contains(b, fmt.Appendf(nil, "<%d@shop.example>", i)) {
				seen[fmt.Sprint(i)]++
			}
		}
		if !bytes.Contains(b, []byte("\n.Hello\n.\n")) && !bytes.Contains(b, []byte("\r\n.Hello\r\n.\r\n")) {
			t.Errorf("%s changed on its way:\n%s", file, b)
		}
	}
	if len(files) != n || len(seen) != n {
		t.Errorf("%d files with %d different messages, want %d", len(files), len(seen), n)
	}
}

// fixedAddr is a listener that only knows its address.
type fixedAddr struct {
	net.Listener
	addr string
}

func (f fixedAddr) Addr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", f.addr)
	return a
}
