package smtp

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/everpoint/everpoint/courier"
)

var update = flag.Bool("update", false, "rewrite testdata/dialogs from what happens")

// dialog is one file of testdata/dialogs: what is configured and sent, then the
// bytes on the wire, then what became of each message.
//
//	# comment
//	config KEY=VALUE ...
//	send FROM TO [8bit] [utf8] [dots]
//	=== connection
//	S: what the scripted server says in one write
//	C: what the client says in one write
//	=== outcomes
//	FROM TO: status code enhanced "detail"
//
// The server reads one write after each of its own. "S: <close>" closes the
// connection and "S: <silence>" only reads. "C: <close>" is the client closing.
type dialog struct {
	comments []string
	config   string
	sends    []string
	conns    [][]string // the server's blocks, by connection
}

func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = parseDialog(t, string(want)).play(t) })
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("the conversation went differently; it was:\n%s", got)
			}
		})
	}
}

func parseDialog(t *testing.T, text string) dialog {
	var d dialog
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "=== outcomes":
			return d
		case line == "=== connection":
			d.conns = append(d.conns, nil)
		case kind == "#":
			d.comments = append(d.comments, rest)
		case kind == "config":
			d.config = rest
		case kind == "send":
			d.sends = append(d.sends, rest)
		case kind == "S:":
			n := len(d.conns) - 1
			if last != "S:" {
				d.conns[n] = append(d.conns[n], "")
			}
			d.conns[n][len(d.conns[n])-1] += rest + "\r\n"
		case kind == "C:":
		default:
			t.Fatalf("no meaning in line %q", line)
		}
		last = kind
	}
	return d
}

// play holds the conversation and writes the file that describes it.
func (d dialog) play(t *testing.T) string {
	var out strings.Builder
	for _, c := range d.comments {
		fmt.Fprintf(&out, "# %s\n", c)
	}
	fmt.Fprintf(&out, "config %s\n", d.config)
	for _, s := range d.sends {
		fmt.Fprintf(&out, "send %s\n", s)
	}

	ready := make(chan struct{})
	transcripts := make([]string, len(d.conns))
	dials := 0
	var serving, running sync.WaitGroup
	dial := func(context.Context, string, string) (net.Conn, error) {
		if dials == len(d.conns) {
			return nil, errors.New("nobody listens")
		}
		near, far := net.Pipe()
		n := dials
		dials++
		serving.Go(func() {
			<-ready
			transcripts[n] = converse(far, d.conns[n])
		})
		return near, nil
	}
	c, err := New(dialogConfig(t, d.config), dial)
	if err != nil {
		t.Fatal(err)
	}
	c.nonce = func() string { return "rOprNGfwEbeRWgbNEkqO" }
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { c.Run(ctx) })
	synctest.Wait()

	outcomes := make([]string, len(d.sends))
	var sending sync.WaitGroup
	for i, s := range d.sends {
		words := strings.Fields(s)
		from := words[0]
		if from == "<>" {
			from = ""
		}
		data := fmt.Sprintf("Subject: %d\r\n\r\nHello.\r\n", i+1)
		if slices.Contains(words, "dots") {
			data = "Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nlast line without an end ."
		}
		m := &courier.Message{ID: "m", From: from, To: words[1], Mail: &courier.Mail{
			Data:     []byte(data),
			EightBit: slices.Contains(words, "8bit"),
			UTF8:     slices.Contains(words, "utf8"),
		}}
		sending.Go(func() {
			o := c.Send(t.Context(), m)
			outcomes[i] = fmt.Sprintf("%s %s: %s %s %s %q", words[0], words[1], o.Status, o.Code, o.Enhanced, o.Detail)
			if o.Throttled {
				outcomes[i] += " throttled"
			}
			if len(o.ProviderIDs) > 0 {
				outcomes[i] += " as " + strings.Join(o.ProviderIDs, ",")
			}
		})
		synctest.Wait()
	}
	close(ready)
	sending.Wait() // Time-outs pass at once in the bubble.
	cancel()
	running.Wait()
	serving.Wait()

	for _, text := range transcripts {
		out.WriteString("=== connection\n" + text)
	}
	out.WriteString("=== outcomes\n" + strings.Join(outcomes, "\n") + "\n")
	return out.String()
}

// converse is the scripted server.
func converse(conn net.Conn, blocks []string) string {
	defer conn.Close()
	var out strings.Builder
	in := make([]byte, 1<<20)
	for _, block := range blocks {
		for line := range strings.SplitSeq(strings.TrimSuffix(block, "\r\n"), "\r\n") {
			fmt.Fprintf(&out, "S: %s\n", line)
		}
		said, closes := strings.CutSuffix(block, "<close>\r\n")
		if said != "" && said != "<silence>\r\n" {
			if _, err := conn.Write([]byte(said)); err != nil {
				return out.String()
			}
		}
		if closes {
			return out.String()
		}
		n, err := conn.Read(in)
		if err != nil {
			out.WriteString("C: <close>\n")
			return out.String()
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(in[:n]), "\r\n"), "\r\n") {
			fmt.Fprintf(&out, "C: %s\n", line)
		}
	}
	return out.String()
}

func dialogConfig(t *testing.T, text string) Config {
	cfg := Config{Addr: "relay.example:25", Name: "everpoint.example", TLS: TLSOff, Connections: 1}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "tls":
			cfg.TLS = TLSMode(value)
		case "user":
			cfg.Username, cfg.InsecureAuth = value, true
		case "password":
			cfg.Password = Secret(value)
		case "mechanism":
			cfg.Mechanism = value
		case "nopipelining":
			cfg.NoPipelining = true
		case "messages":
			fmt.Sscan(value, &cfg.MessagesPerConnection)
		default:
			t.Fatalf("no config %q", word)
		}
	}
	return cfg
}
