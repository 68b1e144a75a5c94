package smtp_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// BenchmarkSend sends 5 KB mails over loopback and four connections to the
// double, from as many goroutines as each case says. Client and server share the
// machine and the processor time that is reported.
func BenchmarkSend(b *testing.B) {
	for _, senders := range []int{4, 64, 256} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			server := smtptest.New(smtptest.Config{}, nil)
			client, err := smtp.New(smtp.Config{Addr: l.Addr().String(), Name: "bench.example", MessagesPerConnection: 1 << 30}, nil)
			if err != nil {
				b.Fatal(err)
			}
			var running sync.WaitGroup
			running.Go(func() { server.Serve(ctx, l) })
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
			if server.Count() != b.N {
				b.Fatalf("the server took %d messages of %d", server.Count(), b.N)
			}
		})
	}
}

// cpu is the processor time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
