package smtp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// BenchmarkSend sends 5 KB mails over loopback and four connections, from as many
// goroutines as each case says. Client and server share the machine and the
// processor time that is reported.
func BenchmarkSend(b *testing.B) {
	lean := func(without ...string) func() benchServer {
		return func() benchServer {
			s := smtptest.New(smtptest.Config{Without: without}, nil)
			return benchServer{func(ctx context.Context, l net.Listener) { s.Serve(ctx, l) }, s.Count}
		}
	}
	for _, c := range []struct {
		name    string
		senders int
		server  func() benchServer
	}{
		{"double/senders=4", 4, lean()},
		{"double/senders=64", 64, lean()},
		{"double/senders=256", 256, lean()},
		{"double_without_pipelining/senders=64", 64, lean("PIPELINING")},
		{"go-smtp/senders=64", 64, goSMTP},
	} {
		senders := c.senders
		b.Run(c.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			server := c.server()
			client, err := smtp.New(smtp.Config{Addr: l.Addr().String(), Name: "bench.example", MessagesPerConnection: 1 << 30}, nil)
			if err != nil {
				b.Fatal(err)
			}
			var running sync.WaitGroup
			running.Go(func() { server.serve(ctx, l) })
			clientCtx, stopClient := context.WithCancel(ctx)
			var clientRunning sync.WaitGroup
			clientRunning.Go(func() { client.Run(clientCtx) })
			defer running.Wait()
			defer cancel()
			defer clientRunning.Wait()
			defer stopClient()

			line := []byte("Nothing is so fine as a line of seventy-six characters that ends in a CRLF.\r\n")
			head := "From: <news@shop.example>\r\nSubject: News\r\nMessage-ID: <%08d@shop.example>\r\n\r\n"
			body := bytes.Repeat(line, 5000/len(line))
			work := make(chan int, senders)
			var sending sync.WaitGroup
			before := cpu()
			b.ResetTimer()
			for range senders {
				sending.Go(func() {
					for i := range work {
						data := append(fmt.Appendf(make([]byte, 0, 5200), head, i), body...)
						out := client.Send(ctx, &courier.Message{ID: "m", From: "news@shop.example", To: "one@people.example", Mail: &courier.Mail{Data: data}})
						if out.Status != courier.Accepted {
							b.Errorf("message %d: %+v", i, out)
							return
						}
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			sending.Wait()
			b.StopTimer()
			took := b.Elapsed()
			b.ReportMetric(float64(b.N)/took.Seconds(), "messages/s")
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/message")
			b.ReportMetric(float64(cpu()-before)/float64(took)/float64(runtime.NumCPU())*100, "%cpu")
			if got := server.count(); got != b.N {
				b.Fatalf("the server took %d messages of %d", got, b.N)
			}
		})
	}
}

type benchServer struct {
	serve func(context.Context, net.Listener)
	count func() int
}

// goSMTP is the server that the double was weighed against.
func goSMTP() benchServer {
	var taken atomic.Int64
	s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &countingSession{&taken}, nil }))
	return benchServer{func(ctx context.Context, l net.Listener) {
		defer context.AfterFunc(ctx, func() { s.Close() })()
		s.Serve(l)
	}, func() int { return int(taken.Load()) }}
}

type countingSession struct{ taken *atomic.Int64 }

func (countingSession) Reset()                                 {}
func (countingSession) Logout() error                          { return nil }
func (countingSession) Mail(string, *gosmtp.MailOptions) error { return nil }
func (countingSession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }

func (s countingSession) Data(r io.Reader) error {
	_, err := io.ReadAll(r)
	s.taken.Add(1)
	return err
}

// cpu is the processor time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
