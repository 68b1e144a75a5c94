package smtptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata/dialogs from what happens")

// serve runs a server on a pipe until the test ends.
func serve(t *testing.T, cfg Config, sink func(Received)) (*Server, *Pipe) {
	t.Helper()
	l := NewPipe()
	s := New(cfg, sink)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	return s, l
}

// terminal is a client that a person might type into.
type terminal struct {
	conn net.Conn
	mu   sync.Mutex
	said bytes.Buffer
	over bool
}

func dialTerminal(t *testing.T, l *Pipe) *terminal {
	t.Helper()
	conn, err := l.DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{conn: conn}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			term.mu.Lock()
			term.said.Write(b[:n])
			term.over = err != nil
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return term
}

// take is what was said since the last take.
func (t *terminal) take() string {
	synctest.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.said.String()
	t.said.Reset()
	if t.over {
		s += "<close>\r\n"
	}
	return s
}

// say writes s and takes the answer, which is whole when all goroutines of the
// bubble stand still.
func (t *terminal) say(s string) string {
	go io.WriteString(t.conn, s)
	return t.take()
}

// TestDialogs replays testdata/dialogs: each run of C lines is one write of the
// client, the S lines are the whole answer to it, and at the end stands what was
// stored.
func TestDialogs(t *testing.T) {
	files, _ := filepath.Glob("testdata/dialogs/*.txt")
	if len(files) == 0 {
		t.Fatal("no dialogs")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			synctest.Test(t, func(t *testing.T) {
				s, l := serve(t, Config{Name: "double.example", SizeMax: 1000, Users: users(string(want))}, nil)
				s.SetRules(
					Rule{At: AtRcpt, Match: ToRecipient("gone@people.example"), Reply: "550 5.1.1 no such user"},
					Rule{At: AtRcpt, Match: ToRecipient("once@people.example"), Reply: "451 4.7.1 greylisted", Times: 1},
				)
				term := dialTerminal(t, l)
				answer := term.take()
				block := ""
				flush := func() {
					if block != "" {
						answer = term.say(block)
						block = ""
					}
					for line := range strings.SplitSeq(strings.TrimSuffix(answer, "\r\n"), "\r\n") {
						if answer != "" {
							fmt.Fprintf(&got, "S: %s\n", line)
						}
					}
					answer = ""
				}
				for line := range strings.Lines(string(want)) {
					if strings.HasPrefix(line, "# stored") {
						break
					}
					kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
					switch kind {
					case "#":
						got.WriteString(line)
					case "C:":
						if block == "" {
							flush()
						}
						block += rest + "\r\n"
						got.WriteString(line)
					case "S:":
						if block != "" {
							flush()
						}
					}
				}
				flush()
				for _, m := range s.Messages() {
					fmt.Fprintf(&got, "# stored from <%s> to %v by %q: %q\n", m.From, m.To, m.User, m.Data)
				}
			})
			text := got.String()
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if text != string(want) {
				t.Errorf("it went differently:\n%s", text)
			}
		})
	}
}

func users(text string) map[string]string {
	if strings.Contains(text, "C: AUTH") {
		return map[string]string{"shop": "s3cret"}
	}
	return nil
}

const oneMail = "EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@people.example>\r\nDATA\r\nMessage-ID: <1@b>\r\n\r\nHello.\r\n.\r\n"

// Drops and stalls leave the message stored exactly when they come after AtDot.
func TestRuleStages(t *testing.T) {
	for at, c := range map[Stage]struct {
		said   string // the last reply before the drop
		stored int
	}{
		AtMail: {"250 SIZE", 0}, AtRcpt: {"250 2.1.0", 0}, AtData: {"250 2.1.5", 0}, AfterData: {"354", 0},
		InContent: {"354", 0}, AtDot: {"354", 0}, AfterStore: {"354", 1},
	} {
		t.Run(fmt.Sprintf("drop_at_%d", at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sunk := 0
				s, l := serve(t, Config{}, func(Received) { sunk++ })
				s.SetRules(Rule{At: at, Drop: true})
				term := dialTerminal(t, l)
				term.take()
				lines := strings.Split(term.say(oneMail), "\r\n")
				if n := len(lines); n < 3 || lines[n-2] != "<close>" || !strings.HasPrefix(lines[n-3], c.said) {
					t.Errorf("it said %q", lines)
				}
				if s.Count() != c.stored || sunk != c.stored || len(s.ByMessageID("<1@b>")) != c.stored {
					t.Errorf("stored %d, sunk %d, want %d", s.Count(), sunk, c.stored)
				}
			})
		})
		t.Run(fmt.Sprintf("stall_at_%d", at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := serve(t, Config{}, nil)
				hold := make(chan struct{})
				s.SetRules(Rule{At: at, Stall: hold, StallFor: time.Minute})
				term := dialTerminal(t, l)
				term.take()
				lines := strings.Split(term.say(oneMail), "\r\n")
				if n := len(lines); n < 2 || !strings.HasPrefix(lines[n-2], c.said) || s.Count() != c.stored {
					t.Errorf("while it stalls it said %q and stored %d", lines, s.Count())
				}
				time.Sleep(59 * time.Second)
				close(hold)
				if more := term.take(); more != "" {
					t.Errorf("it went on early: %q", more)
				}
				time.Sleep(2 * time.Second)
				if more := term.take(); !strings.HasSuffix(more, "250 2.0.0 OK: queued as 1\r\n") || s.Count() != 1 {
					t.Errorf("then it said %q", more)
				}
			})
		})
	}
}

func TestClosingEndsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := serve(t, Config{}, nil)
		s.SetRules(Rule{At: AtDot, Stall: make(chan struct{})})
		term := dialTerminal(t, l)
		term.say(oneMail)
		// serve's clean-up ends the server; the bubble would deadlock if it waited.
		t.Cleanup(func() {
			if s.Count() != 0 {
				t.Error("the stalled message was stored")
			}
		})
	})
}

func TestSilenceAndCrowds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := serve(t, Config{Idle: time.Minute, ConnectionsMax: 2}, nil)
		first := dialTerminal(t, l)
		a := first.take()
		second := dialTerminal(t, l)
		b := second.take()
		if c := dialTerminal(t, l).take(); !strings.HasPrefix(a, "220") || !strings.HasPrefix(b, "220") || c != "421 4.3.2 too many connections\r\n<close>\r\n" {
			t.Errorf("%q %q %q", a, b, c)
		}
		time.Sleep(50 * time.Second)
		second.say("NOOP\r\n")
		time.Sleep(20 * time.Second)
		if a, b := first.take(), second.take(); a != "421 4.4.2 silent for too long\r\n<close>\r\n" || b != "" {
			t.Errorf("%q %q", a, b)
		}
		if d := dialTerminal(t, l).take(); !strings.HasPrefix(d, "220") {
			t.Errorf("after one left: %q", d)
		}
	})
}

func TestMailboxIsBounded(t *testing.T) {
	s := New(Config{MailboxMax: 3}, nil)
	for n := range 8 {
		s.keep(&Received{Data: fmt.Appendf(nil, "Subject: x\r\nmessage-id:\r\n <%d@b>\r\n\r\nMessage-ID: <body>\r\n", n/2)})
	}
	var ids []string
	for _, m := range s.Messages() {
		ids = append(ids, m.MessageID())
	}
	if got := strings.Join(ids, " "); got != "<2@b> <3@b> <3@b>" || s.Count() != 8 {
		t.Errorf("kept %s of %d", got, s.Count())
	}
	for id, want := range map[string]int{"<1@b>": 0, "<2@b>": 1, "<3@b>": 2, "<body>": 0} {
		if got := len(s.ByMessageID(id)); got != want {
			t.Errorf("%s: %d, want %d", id, got, want)
		}
	}
	if len(s.byID) != 2 {
		t.Errorf("the index holds %d ids", len(s.byID))
	}
	none := New(Config{MailboxMax: -1}, nil)
	none.keep(&Received{})
	if none.Count() != 1 || len(none.Messages()) != 0 {
		t.Error("a mailbox of none keeps something")
	}
}

// The standard library's client is a foreign one.
func TestForeignNetSMTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var got []Received
	s := New(Config{Users: map[string]string{"shop": "s3cret"}, Label: "us-east-1"}, func(r Received) { got = append(got, r) })
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(ctx, l) })
	body := "Subject: hi\r\n\r\n.dot\r\n..\r\n.\r\n"
	auth := smtp.PlainAuth("", "shop", "s3cret", "127.0.0.1")
	if err := smtp.SendMail(l.Addr().String(), auth, "a@b.example", []string{"c@d.example", "e@f.example"}, []byte(body)); err != nil {
		t.Error(err)
	}
	if err := smtp.SendMail(l.Addr().String(), smtp.PlainAuth("", "shop", "wrong", "127.0.0.1"), "a@b.example", []string{"c@d.example"}, []byte(body)); err == nil || !strings.Contains(err.Error(), "535") {
		t.Errorf("a wrong password: %v", err)
	}
	cancel()
	serving.Wait()
	if len(got) != 1 || string(got[0].Data) != body || fmt.Sprint(got[0].To) != "[c@d.example e@f.example]" || got[0].User != "shop" || got[0].Label != "us-east-1" || got[0].At.IsZero() {
		t.Errorf("it took %+v", got)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	l := NewPipe()
	l.Close()
	if err := New(Config{}, nil).Serve(t.Context(), l); err == nil {
		t.Error("no error")
	}
}

// FuzzServeConn: whatever a client says, every reply is well formed, nothing
// grows without bound and the conversation ends with the connection.
func FuzzServeConn(f *testing.F) {
	for _, s := range []string{
		oneMail + "QUIT\r\n", "HELO\r\nMAIL FROM:<\">\"@b> SIZE=3 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<>\r\n", "DATA\r\n", "AUTH PLAIN\r\nAHNob3AAczNjcmV0\r\n",
		"EHLO x\r\nAUTH LOGIN c2hvcA==\r\nczNjcmV0\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n\r\n.\n.\r\r\n.\r\n", "STARTTLS\r\n\x16\x03\x01", strings.Repeat("x", 5000) + "\r\nNOOP\r\n", "\n\n\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s := New(Config{SizeMax: 200, MailboxMax: 5, Users: map[string]string{"shop": "s3cret"}, TLS: &tls.Config{}}, func(r Received) {
			if len(r.Data) > 200 || len(r.To) == 0 || len(r.To) > recipientsMax || r.User != "shop" {
				t.Errorf("out of bounds: %+v", r)
			}
		})
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); s.ServeConn(context.Background(), far) }()
		go func() { near.Write(in); near.SetReadDeadline(time.Now().Add(5 * time.Millisecond)) }()
		for r := bufio.NewReader(near); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				break
			}
			// After STARTTLS the server may say a TLS alert, which has no lines.
			wellFormed := len(line) >= 6 && '2' <= line[0] && line[0] <= '5' && strings.HasSuffix(line, "\r\n")
			if !wellFormed && !strings.Contains(strings.ToUpper(string(in)), "STARTTLS") {
				t.Errorf("it said %q", line)
			}
		}
		near.Close()
		<-done
	})
}
