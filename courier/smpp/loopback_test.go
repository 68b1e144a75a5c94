package smpp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smpp"
	"github.com/everpoint/everpoint/courier/smpp/smpptest"
)

// loopback runs a double on a loopback port and a client of it, until the test ends.
func loopback(t testing.TB, cfg smpp.Config, double smpptest.Config, listen func(net.Listener) net.Listener) (*smpp.Client, *smpptest.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addresses, cfg.SystemID = []string{l.Addr().String()}, "ever"
	if listen != nil {
		l = listen(l)
	}
	server := smpptest.New(double)
	client, err := smpp.New(cfg, newInbox(), nil, rand.New(rand.NewPCG(1, 2)), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { server.Serve(ctx, l) })
	clientCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(clientCtx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
	return client, server
}

func TestTLS(t *testing.T) {
	certified := httptest.NewTLSServer(nil) // for its certificate
	defer certified.Close()
	secure := func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: certified.TLS.Certificates})
	}
	t.Run("a_known_authority_is_accepted", func(t *testing.T) {
		roots := x509.NewCertPool()
		roots.AddCert(certified.Certificate())
		client, _ := loopback(t, smpp.Config{TLS: &tls.Config{RootCAs: roots}}, smpptest.Config{}, secure)
		if o := client.Send(context.Background(), text("x")); o.Status != courier.Accepted {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("an_unknown_one_is_not", func(t *testing.T) {
		client, server := loopback(t, smpp.Config{TLS: &tls.Config{RootCAs: x509.NewCertPool()}, BindPatience: 300 * time.Millisecond}, smpptest.Config{}, secure)
		if o := client.Send(context.Background(), text("x")); o.Status != courier.Deferred || o.Code != "conn" {
			t.Errorf("got %+v", o)
		}
		if server.Binds() != 0 {
			t.Error("the password was sent")
		}
	})
}

// BenchmarkSubmit sends short texts over loopback TCP, four binds with windows of
// ten, and a sink that only counts.
func BenchmarkSubmit(b *testing.B) {
	client, _ := loopback(b, smpp.Config{Binds: 4, Window: 10}, smpptest.Config{}, nil)
	m := text("Your code is 123456")
	m.Text.WantsReceipt = false
	if o := client.Send(context.Background(), m); o.Status != courier.Accepted {
		b.Fatalf("%+v", o)
	}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if o := client.Send(context.Background(), m); o.Status != courier.Accepted {
				b.Errorf("%+v", o)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "submits/s")
}
