package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// rig is a client and a double in one bubble.
type rig struct {
	t      *testing.T
	server *smtptest.Server
	client *smtp.Client
	stop   func() // ends the client's Run and waits for it
}

func newRig(t *testing.T, cfg smtp.Config, scfg smtptest.Config, rules ...smtptest.Rule) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := smtptest.NewPipe()
	server := smtptest.New(scfg, nil)
	server.SetRules(rules...)
	cfg.Addr, cfg.Name = "relay.example:25", "everpoint.example"
	if cfg.TLS == "" {
		cfg.TLS = smtp.TLSOff
	}
	client, err := smtp.New(cfg, l.DialContext)
	if err != nil {
		t.Fatal(err)
	}
	var serving, running sync.WaitGroup
	serving.Go(func() { server.Serve(ctx, l) })
	clientCtx, stopClient := context.WithCancel(ctx)
	running.Go(func() {
		if err := client.Run(clientCtx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	stop := func() { stopClient(); running.Wait() }
	t.Cleanup(func() {
		stop()
		cancel()
		serving.Wait()
		if open := client.Stats().Open; open != 0 {
			t.Errorf("%d connections are open after Run", open)
		}
	})
	return &rig{t, server, client, stop}
}

func message(n int, to string) *courier.Message {
	return &courier.Message{ID: fmt.Sprint(n), From: "news@shop.example", To: to, Mail: &courier.Mail{
		Data: fmt.Appendf(nil, "Message-ID: <%d@shop.example>\r\nSubject: %d\r\n\r\n.Hello\r\n.\r\n", n, n),
	}}
}

// start sends in a goroutine and returns once the message is on its way.
func (r *rig) start(ctx context.Context, m *courier.Message) <-chan courier.Outcome {
	out := make(chan courier.Outcome, 1)
	go func() { out <- r.client.Send(ctx, m) }()
	synctest.Wait()
	return out
}

func (r *rig) stored(n int) int {
	return len(r.server.ByMessageID(fmt.Sprintf("<%d@shop.example>", n)))
}

// Every kind of reply at every stage of the second of three messages, with and
// without PIPELINING: the outcome is the contract's, the mailbox agrees with it,
// and the neighbours are untouched.
func TestEveryReplyAtEveryStage(t *testing.T) {
	type want struct {
		status courier.Status
		code   string
		stored int
	}
	deferredBy := func(code string) want { return want{courier.Deferred, code, 0} }
	refusedBy := func(code string) want { return want{courier.Refused, code, 0} }
	stages := map[string]smtptest.Stage{
		"MAIL": smtptest.AtMail, "RCPT": smtptest.AtRcpt, "DATA": smtptest.AtData,
		"354": smtptest.AfterData, "content": smtptest.InContent, "dot": smtptest.AtDot, "stored": smtptest.AfterStore,
	}
	for _, without := range []string{"", "PIPELINING"} {
		for stage, at := range stages {
			for _, reply := range []string{
				"421 4.3.2 closing", "450 4.2.1 busy", "451 4.7.1 later", "452 4.2.2 full", "500 5.5.1 what", "521 5.2.1 never",
				"550 5.1.1 gone", "552 5.3.4 large", "554 5.7.1 no", "nonsense", "drop",
			} {
				code, _, _ := strings.Cut(reply, " ")
				w := deferredBy(code)
				switch {
				case stage == "stored" && (reply == "drop" || reply == "nonsense"):
					w = want{courier.Unknown, smtp.CodeConn, 1}
				case stage == "stored":
					// The double stores and then denies it. Nobody could know better.
					w.stored = 1
					if reply[0] == '5' {
						w.status = courier.Refused
					}
				case stage == "dot" && (reply == "drop" || reply == "nonsense"):
					w = want{courier.Unknown, smtp.CodeConn, 0}
				case stage == "354":
					// Said or dropped behind the 354 before any content could be written.
					w = deferredBy(smtp.CodeConn)
				case stage == "content" && (reply == "drop" || reply == "nonsense"):
					// The whole message, dot included, leaves in one write; how much of it was read only the server knows.
					w = want{courier.Unknown, smtp.CodeConn, 0}
				case reply == "drop" || reply == "nonsense":
					// Nothing of the content was written, so Send tried again elsewhere.
					w = want{courier.Accepted, "250", 1}
				case reply[:3] == "421" && (stage == "MAIL" || stage == "RCPT" || stage == "DATA"):
					w = want{courier.Accepted, "250", 1}
				case reply[0] == '5':
					w = refusedBy(code)
				}
				name := fmt.Sprintf("%s_%s/without_%s", stage, strings.Fields(reply)[0], without)
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						once := smtptest.Rule{At: at, Match: func(a smtptest.Attempt) bool { return a.N == 2 }, Times: 1, Reply: reply}
						if reply == "drop" {
							once.Reply, once.Drop = "", true
						}
						hold := make(chan struct{})
						r := newRig(t, smtp.Config{Connections: 1}, smtptest.Config{Without: []string{without}},
							once, smtptest.Rule{At: smtptest.AtMail, Match: smtptest.Nth(1), Stall: hold})
						var outs []<-chan courier.Outcome
						for n := 1; n <= 3; n++ {
							outs = append(outs, r.start(t.Context(), message(n, fmt.Sprintf("p%d@people.example", n))))
						}
						close(hold)
						for i, out := range outs {
							o := <-out
							if i != 1 {
								if o.Status != courier.Accepted || r.stored(i+1) != 1 {
									t.Errorf("neighbour %d: %+v, stored %d times", i+1, o, r.stored(i+1))
								}
								continue
							}
							if o.Status != w.status || o.Code != w.code || o.Parts != 1 {
								t.Errorf("%+v, want %s %s", o, w.status, w.code)
							}
							if w.code == code && w.code != "250" && (o.Enhanced == "" || o.Detail == "") {
								t.Errorf("the server's reason is lost: %+v", o)
							}
							if got := r.stored(2); got != w.stored {
								t.Errorf("stored %d times, want %d", got, w.stored)
							}
						}
					})
				})
			}
		}
	}
}

// Silence at each stage, judged by the clock of the bubble.
func TestEveryStageHasItsTimeOut(t *testing.T) {
	limits := smtp.Timeouts{Connect: time.Second, Greeting: 2 * time.Second, Command: 3 * time.Second, DataInit: 4 * time.Second, DataBlock: 5 * time.Second, DataEnd: 6 * time.Second}
	for name, c := range map[string]struct {
		at     smtptest.Stage
		status courier.Status
		after  time.Duration
	}{
		"MAIL":  {smtptest.AtMail, courier.Deferred, 3 * time.Second},
		"RCPT":  {smtptest.AtRcpt, courier.Deferred, 3 * time.Second},
		"DATA":  {smtptest.AtData, courier.Deferred, 4 * time.Second},
		"dot":   {smtptest.AtDot, courier.Unknown, 6 * time.Second},
		"store": {smtptest.AfterStore, courier.Unknown, 6 * time.Second},
		// The double stops reading after the 354. The pipe holds nothing, so our write stands still.
		"content": {smtptest.AfterData, courier.Deferred, 5*time.Second + 5*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, smtp.Config{Connections: 1, Timeouts: limits}, smtptest.Config{}, smtptest.Rule{At: c.at, StallFor: time.Hour})
				began := time.Now()
				o := r.client.Send(t.Context(), message(1, "ann@people.example"))
				if o.Status != c.status || o.Code != smtp.CodeConn || time.Since(began) != c.after {
					t.Errorf("%+v after %v, want %s after %v", o, time.Since(began), c.status, c.after)
				}
			})
		})
	}
	t.Run("greeting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			o := sendTo(t, smtp.Config{Timeouts: limits}, func(context.Context, string, string) (net.Conn, error) {
				near, _ := net.Pipe()
				return near, nil
			})
			if o.Status != courier.Deferred || time.Since(began) != 2*time.Second {
				t.Errorf("%+v after %v", o, time.Since(began))
			}
		})
	})
	t.Run("connect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			o := sendTo(t, smtp.Config{Timeouts: limits}, func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if o.Status != courier.Deferred || o.Code != smtp.CodeConn || time.Since(began) != time.Second {
				t.Errorf("%+v after %v", o, time.Since(began))
			}
		})
	})
}

// sendTo sends one message through a dialler of the test's own.
func sendTo(t *testing.T, cfg smtp.Config, dial smtp.Dialler) courier.Outcome {
	cfg.Addr, cfg.TLS = "relay.example:25", smtp.TLSOff
	c, err := smtp.New(cfg, dial)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	defer running.Wait()
	defer cancel()
	return c.Send(t.Context(), message(1, "ann@people.example"))
}

// A ctx that ends is answered at once; Deferred is a promise that the message
// does not arrive later, and the pool goes on.
func TestCtxEnds(t *testing.T) {
	for name, c := range map[string]struct {
		at     smtptest.Stage
		status courier.Status
		stored int
	}{
		"at MAIL":     {smtptest.AtMail, courier.Deferred, 0},
		"at RCPT":     {smtptest.AtRcpt, courier.Deferred, 0},
		"at DATA":     {smtptest.AtData, courier.Deferred, 0},
		"at the dot":  {smtptest.AtDot, courier.Unknown, 1},
		"when stored": {smtptest.AfterStore, courier.Unknown, 1},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hold := make(chan struct{})
				r := newRig(t, smtp.Config{Connections: 1}, smtptest.Config{}, smtptest.Rule{At: c.at, Times: 1, Stall: hold})
				ctx, cancel := context.WithCancelCause(t.Context())
				out := r.start(ctx, message(1, "ann@people.example"))
				began := time.Now()
				cancel(errors.New("enough"))
				o := <-out
				if o.Status != c.status || !strings.Contains(o.Detail, "enough") || time.Since(began) != 0 {
					t.Errorf("%+v after %v, want %s", o, time.Since(began), c.status)
				}
				// What is taken back is taken back now, not when the server speaks next.
				synctest.Wait()
				if open := r.client.Stats().Open; open != int64(c.stored) {
					t.Errorf("%d connections are open", open)
				}
				close(hold)
				synctest.Wait()
				if o := r.client.Send(t.Context(), message(2, "bob@people.example")); o.Status != courier.Accepted {
					t.Errorf("the next message: %+v", o)
				}
				if got := r.stored(1); got != c.stored {
					t.Errorf("stored %d times, want %d", got, c.stored)
				}
			})
		})
	}
}

// The envelope that rides behind another's dot is taken back without harm to the
// one before it.
func TestCtxEndsOfThePipelinedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, dot := make(chan struct{}), make(chan struct{})
		r := newRig(t, smtp.Config{Connections: 1}, smtptest.Config{},
			smtptest.Rule{At: smtptest.AtMail, Match: smtptest.Nth(1), Stall: hold},
			smtptest.Rule{At: smtptest.AtDot, Match: smtptest.Nth(1), Stall: dot})
		first := r.start(t.Context(), message(1, "ann@people.example"))
		ctx, cancel := context.WithCancel(t.Context())
		second := r.start(ctx, message(2, "bob@people.example"))
		close(hold)
		synctest.Wait()
		if got := r.client.Stats().Pipelined; got != 1 {
			t.Fatalf("%d envelopes were pipelined, want 1", got)
		}
		cancel()
		if o := <-second; o.Status != courier.Deferred {
			t.Errorf("second: %+v", o)
		}
		close(dot)
		if o := <-first; o.Status != courier.Accepted {
			t.Errorf("first: %+v", o)
		}
		if o := r.client.Send(t.Context(), message(3, "cyd@people.example")); o.Status != courier.Accepted {
			t.Errorf("third: %+v", o)
		}
		if r.stored(1) != 1 || r.stored(2) != 0 || r.stored(3) != 1 || r.server.Count() != 2 {
			t.Errorf("stored %d, %d, %d times, %d in all", r.stored(1), r.stored(2), r.stored(3), r.server.Count())
		}
	})
}

// A large message is cut while its content is on the way: Deferred, and the
// server never sees a dot.
func TestCtxEndsWithinTheContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		r := newRig(t, smtp.Config{Connections: 1}, smtptest.Config{}, smtptest.Rule{At: smtptest.AfterData, Times: 1, Stall: hold})
		m := message(1, "ann@people.example")
		m.Mail.Data = append(m.Mail.Data, strings.Repeat("0123456789\r\n", 100_000)...)
		ctx, cancel := context.WithCancel(t.Context())
		out := r.start(ctx, m)
		cancel()
		if o := <-out; o.Status != courier.Deferred {
			t.Errorf("%+v", o)
		}
		synctest.Wait()
		if open := r.client.Stats().Open; open != 0 {
			t.Errorf("%d connections are open", open)
		}
		close(hold)
		synctest.Wait()
		if o := r.client.Send(t.Context(), message(2, "bob@people.example")); o.Status != courier.Accepted || r.stored(1) != 0 {
			t.Errorf("next %+v, first stored %d times", o, r.stored(1))
		}
	})
}

// Run drains: what is under way is answered, what waits is turned away, and what
// takes longer than Drain is cut with the answer that fits.
func TestRunEnds(t *testing.T) {
	for name, c := range map[string]struct {
		at     smtptest.Stage
		stall  time.Duration
		status courier.Status
		after  time.Duration
	}{
		"after what is under way": {smtptest.AtDot, 7 * time.Second, courier.Accepted, 7 * time.Second},
		"cut before content":      {smtptest.AtRcpt, time.Hour, courier.Deferred, 30 * time.Second},
		"cut after the dot":       {smtptest.AtDot, time.Hour, courier.Unknown, 30 * time.Second},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, smtp.Config{Connections: 1}, smtptest.Config{}, smtptest.Rule{At: c.at, StallFor: c.stall})
				busy := r.start(t.Context(), message(1, "ann@people.example"))
				waiting := r.start(t.Context(), message(2, "bob@people.example"))
				began := time.Now()
				r.stop()
				if took := time.Since(began); took != c.after {
					t.Errorf("Run took %v to end, want %v", took, c.after)
				}
				if o := <-busy; o.Status != c.status {
					t.Errorf("under way: %+v, want %s", o, c.status)
				}
				if o := <-waiting; o.Status != courier.Deferred || r.stored(2) != 0 {
					t.Errorf("waiting: %+v", o)
				}
				if o := r.client.Send(t.Context(), message(3, "cyd@people.example")); o.Status != courier.Deferred {
					t.Errorf("after Run: %+v", o)
				}
			})
		})
	}
}

// An idle connection is reused, closed after Idle, and one that the server closes
// is noticed before a message is put onto it.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, smtp.Config{Idle: 10 * time.Second}, smtptest.Config{Idle: 8 * time.Second})
		send := func(n int) {
			t.Helper()
			if o := r.client.Send(t.Context(), message(n, "ann@people.example")); o.Status != courier.Accepted {
				t.Fatalf("%+v", o)
			}
		}
		for n := range 5 {
			send(n)
			time.Sleep(time.Second)
		}
		if got := r.client.Stats(); got.Dialled != 1 || got.Open != 1 || got.Messages != 5 {
			t.Errorf("one at a time: %+v", got)
		}
		time.Sleep(9 * time.Second) // The server says 421 and goes.
		if got := r.client.Stats(); got.Open != 0 {
			t.Errorf("after the server's 421: %+v", got)
		}
		send(6)
		if got := r.client.Stats(); got.Dialled != 2 {
			t.Errorf("after another: %+v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, smtp.Config{Idle: 10 * time.Second}, smtptest.Config{})
		r.client.Send(t.Context(), message(1, "ann@people.example"))
		time.Sleep(9 * time.Second)
		if got := r.client.Stats(); got.Open != 1 {
			t.Errorf("before Idle: %+v", got)
		}
		time.Sleep(2 * time.Second)
		if got := r.client.Stats(); got.Open != 0 {
			t.Errorf("after Idle: %+v", got)
		}
	})
}

func TestRunTwiceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, smtp.Config{}, smtptest.Config{})
		if r.client.Run(t.Context()) == nil {
			t.Error("a second Run began")
		}
	})
}
