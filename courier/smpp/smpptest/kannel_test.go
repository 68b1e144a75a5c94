package smpptest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/courier/smpp/smpptest"
)

// kannel is the configuration of Kannel 1.4: bearerbox, an SMPP client bound to
// the double, and smsbox, whose HTTP interface takes messages.
const kannel = `
group = core
admin-port = %[1]d
admin-password = admin
admin-interface = 127.0.0.1
smsbox-port = %[2]d
smsbox-interface = 127.0.0.1
box-allow-ip = 127.0.0.1
box-deny-ip = *.*.*.*

group = smsc
smsc = smpp
smsc-id = double
host = 127.0.0.1
port = %[3]d
transceiver-mode = true
smsc-username = kannel
smsc-password = secret
system-type = VMA
enquire-link-interval = 1
msg-id-type = 0x01
source-addr-ton = 3
source-addr-npi = 0
dest-addr-ton = 1
dest-addr-npi = 1

group = smsbox
bearerbox-host = 127.0.0.1
bearerbox-port = %[2]d
sendsms-port = %[4]d
sendsms-interface = 127.0.0.1

group = sendsms-user
username = tester
password = foobar
concatenation = true
max-messages = 4

group = sms-service
keyword = default
get-url = "%[5]s/text?from=%%p&to=%%P&body=%%b"
max-messages = 0
catch-all = true
`

// freePort is a loopback port that nobody had a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run starts a program until the test ends, and shows what it said if the test fails.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	var said bytes.Buffer
	command := exec.Command(program, args...)
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(program), said.String())
		}
	})
}

// eventually polls until done, for at most half a minute.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	over := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// TestKannel holds the double against a client that is not ours: Kannel binds,
// submits a short and a long text, gets receipts, and gets a text from a person.
// It runs when EVERPOINT_FOREIGN_PEERS is 1 and then needs bearerbox and smsbox
// (Debian package kannel).
func TestKannel(t *testing.T) {
	if os.Getenv("EVERPOINT_FOREIGN_PEERS") != "1" {
		t.Log("EVERPOINT_FOREIGN_PEERS is not 1: foreign peers are not asked")
		return
	}
	find := func(name string) string {
		for _, path := range []string{name, "/usr/sbin/" + name} {
			if found, err := exec.LookPath(path); err == nil {
				return found
			}
		}
		t.Fatalf("EVERPOINT_FOREIGN_PEERS is 1, but there is no %s (Debian package kannel)", name)
		return ""
	}
	bearerbox, smsbox := find("bearerbox"), find("smsbox")

	receipts := make(chan url.Values, 16)
	texts := make(chan url.Values, 16)
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/receipt":
			receipts <- r.URL.Query()
		case "/text":
			texts <- r.URL.Query()
		}
		io.WriteString(w, "ok")
	}))
	defer hooks.Close()

	messages := make(chan smpptest.Message, 16)
	double := smpptest.New(smpptest.Config{
		SystemID: "kannel", Password: "secret", FirstID: 0xa1b2,
		Receipts: []smpptest.Receipt{{State: "DELIVRD", After: 100 * time.Millisecond}},
		Sink: func(m smpptest.Message) error {
			messages <- m
			return nil
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- double.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	sendPort := freePort(t)
	conf := filepath.Join(t.TempDir(), "kannel.conf")
	text := fmt.Sprintf(kannel, freePort(t), freePort(t), l.Addr().(*net.TCPAddr).Port, sendPort, hooks.URL)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, bearerbox, "-v", "1", conf)
	eventually(t, "the bind of bearerbox", func() bool { return double.Bound() == 1 })
	run(t, smsbox, "-v", "1", conf)

	send := func(body string) {
		t.Helper()
		query := url.Values{
			"username": {"tester"}, "password": {"foobar"}, "from": {"24273"}, "to": {"13035550144"}, "text": {body},
			"charset": {"UTF-8"}, "coding": {"0"}, "dlr-mask": {"3"}, "dlr-url": {hooks.URL + "/receipt?type=%d&to=%p&answer=%A"},
		}
		if strings.Contains(body, "я") {
			query.Set("coding", "2")
		}
		request := fmt.Sprintf("http://127.0.0.1:%d/cgi-bin/sendsms?%s", sendPort, query.Encode())
		eventually(t, "sendsms", func() bool {
			response, err := http.Get(request)
			if err != nil {
				return false // smsbox is not there yet
			}
			defer response.Body.Close()
			said, _ := io.ReadAll(response.Body)
			if response.StatusCode != http.StatusAccepted {
				t.Fatalf("sendsms answered %s: %s", response.Status, said)
			}
			return true
		})
	}
	receive := func(body string, parts int) {
		t.Helper()
		select {
		case m := <-messages:
			if m.From != "24273" || m.To != "+13035550144" || m.Body != body || m.Parts != parts || m.SystemID != "kannel" {
				t.Errorf("the double has %+v", m)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no message reached the double")
		}
		select {
		case r := <-receipts:
			if r.Get("type") != "1" { // Kannel's word for delivered
				t.Errorf("the receipt says %v", r)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no receipt came back")
		}
	}
	for _, c := range []struct {
		body  string
		parts int
	}{
		{"Hello {world} @ 5€", 1},
		{strings.Repeat("0123456789", 20), 2},
		{"я пишу " + strings.Repeat("ж", 80), 2},
	} {
		send(c.body)
		receive(c.body, c.parts)
	}

	answered, err := double.Text(smpptest.Text{From: "+13035550144", To: "24273", Body: "YES please"})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-texts:
		if got.Get("body") != "YES please" || !strings.HasSuffix(got.Get("from"), "13035550144") || got.Get("to") != "24273" {
			t.Errorf("Kannel has %v", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no text reached Kannel")
	}
	<-answered
}
