package smtp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/courier"
)

func TestReadReply(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for name, c := range map[string]struct {
		in   string
		want reply
		err  error
	}{
		"code and text":                       {"250 OK\r\n", reply{code: 250, text: "OK"}, nil},
		"code alone":                          {"250\r\n", reply{code: 250}, nil},
		"line feed alone ends a line":         {"250 OK\n", reply{code: 250, text: "OK"}, nil},
		"enhanced code":                       {"550 5.1.1 gone\r\n", reply{code: 550, enhanced: "5.1.1", text: "gone"}, nil},
		"enhanced code of three digits":       {"451 4.7.500 busy\r\n", reply{code: 451, enhanced: "4.7.500", text: "busy"}, nil},
		"enhanced code alone":                 {"250 2.0.0\r\n", reply{code: 250, enhanced: "2.0.0"}, nil},
		"class contradicts code":              {"550 2.1.1 gone\r\n", reply{code: 550, text: "2.1.1 gone"}, nil},
		"four digits are no enhanced code":    {"550 5.1.1234 gone\r\n", reply{code: 550, text: "5.1.1234 gone"}, nil},
		"an address is no enhanced code":      {"550 5.1.2.3 is blocked\r\n", reply{code: 550, text: "5.1.2.3 is blocked"}, nil},
		"lines are joined":                    {"550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n", reply{code: 550, enhanced: "5.7.1", text: "a b c"}, nil},
		"control characters become spaces":    {"550 a\tb\x00c\u0085d\r\n", reply{code: 550, text: "a b c d"}, nil},
		"broken UTF-8 becomes question marks": {"550 a\xffb\r\n", reply{code: 550, text: "a?b"}, nil},
		"no digits":                           {"OK\r\n", reply{}, errReplyForm},
		"two digits":                          {"25 OK\r\n", reply{}, errReplyForm},
		"code out of range":                   {"999 OK\r\n", reply{}, errReplyForm},
		"1xx is not SMTP":                     {"150 OK\r\n", reply{}, errReplyForm},
		"no space":                            {"250OK\r\n", reply{}, errReplyForm},
		"empty line":                          {"\r\n", reply{}, errReplyForm},
		"codes differ":                        {"250-a\r\n550 b\r\n", reply{}, errReplyMixed},
		"too many lines":                      {strings.Repeat("250-a\r\n", 101) + "250 a\r\n", reply{}, errReplyLines},
		"line too long":                       {"250 " + long + "\r\n", reply{}, errReplyLong},
		"line longer than the buffer":         {"250 " + long + long, reply{}, errReplyLong},
		"end within a line":                   {"250 O", reply{}, io.EOF},
		"end within a reply":                  {"250-OK\r\n", reply{}, io.EOF},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			got, err := readReply(bufio.NewReaderSize(strings.NewReader(c.in), 2*replyLineBytesMax), nil)
			if err != c.err || err == nil && got != c.want {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestReplyDetailIsBoundedAtACharacter(t *testing.T) {
	for _, unit := range []string{"a", "é", "€", "😀", "\x00"} {
		for lines := 1; lines < 4; lines++ {
			in := strings.Repeat("550-"+strings.Repeat(unit, 500)+"\r\n", lines) + "550 z\r\n"
			got, err := readReply(bufio.NewReaderSize(strings.NewReader(in), 2*replyLineBytesMax), nil)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got.text); n > 512 || n < 480 || strings.ContainsRune(got.text, 0xfffd) || strings.ContainsRune(got.text, 0) {
				t.Errorf("%d lines of %q: detail has %d bytes: %q", lines, unit, n, got.text)
			}
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "250-a\r\n250 2.0.0 b\r\n", "550 5.1.1 \xff\r\n", "421\n", "354-", "250-a\r\n251 b\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var lines []string
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(in), 2*replyLineBytesMax), &lines)
		if err != nil {
			return
		}
		if r.code < 200 || r.code > 599 || len(r.text) > replyDetailBytesMax || len(lines) == 0 || len(lines) > replyLinesMax {
			t.Fatalf("out of bounds: %+v, %d lines", r, len(lines))
		}
		if r.text != printable([]byte(r.text)) {
			t.Fatalf("not printable: %q", r.text)
		}
		if r.enhanced != "" && (int(r.enhanced[0]-'0') != r.code/100 || len(r.enhanced) > 9) {
			t.Fatalf("enhanced %q with code %d", r.enhanced, r.code)
		}
		// What we print is read as the same again.
		again, err := readReply(bufio.NewReaderSize(strings.NewReader(strings.TrimRight(fmt.Sprintf("%d %s %s", r.code, r.enhanced, r.text), " ")+"\r\n"), 2*replyLineBytesMax), nil)
		if r.enhanced != "" && (err != nil || again.code != r.code || again.enhanced != r.enhanced) {
			t.Fatalf("%+v was read again as %+v, %v", r, again, err)
		}
	})
}

func TestCheckContent(t *testing.T) {
	for in, want := range map[string]string{
		"":               "message is empty",
		"a":              "",
		"a\r\n":          "",
		"a\r\n\r\nb\r\n": "",
		"a\nb":           "message has a line feed without carriage return at byte 1",
		"\n":             "message has a line feed without carriage return at byte 0",
		"a\r\nb\n.\r\n":  "message has a line feed without carriage return at byte 4",
		"a\rb":           "message has a carriage return without line feed at byte 1",
		"a\r":            "message has a carriage return without line feed at byte 1",
		"a\r\r\n":        "message has a carriage return without line feed at byte 1",
		"a\r\nb\r\n\n":   "message has a line feed without carriage return at byte 6",
	} {
		got := ""
		if err := checkContent([]byte(in)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzStuffing: whatever passes checkContent arrives as it was, judged by the
// standard library's reader, and nothing within it ends the message.
func FuzzStuffing(f *testing.F) {
	for _, s := range []string{"a", ".", "..", ".\r\n", "\r\n.\r\n", "a\r\n.\r\nMAIL FROM:<x>\r\n", "\r\n\r\n..a\r\n.", "a\n.\n", "a\r.\r"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkContent(data) != nil {
			return
		}
		var wire bytes.Buffer
		if err := writeStuffed(&wire, data); err != nil {
			t.Fatal(err)
		}
		wire.WriteString(".\r\nNEXT")
		if i := bytes.Index(append([]byte("\r\n"), wire.Bytes()...), []byte("\r\n.\r\n")); i != wire.Len()-len("\r\n.\r\nNEXT")+2 {
			t.Fatalf("%q ends at %d of %q", data, i, wire.Bytes())
		}
		for _, lenient := range []string{"\n.\n", "\r.\r", "\n.\r\nM"} {
			if bytes.Contains(bytes.TrimSuffix(wire.Bytes(), []byte(".\r\nNEXT")), []byte(lenient)) {
				t.Fatalf("%q could end early for a lenient server", data)
			}
		}
		r := bufio.NewReader(&wire)
		got, err := textproto.NewReader(r).ReadDotBytes()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(string(data), "\r\n", "\n")
		if !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if string(got) != want {
			t.Fatalf("%q arrived as %q", data, got)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "NEXT" {
			t.Fatalf("%q is left behind the final dot", rest)
		}
		if wireSize(data) != int64(len(strings.ReplaceAll(string(got), "\n", "\r\n"))) {
			t.Fatalf("SIZE of %q is %d", data, wireSize(data))
		}
	})
}

func TestCheckMailbox(t *testing.T) {
	for _, good := range []string{
		"a@b", "a.b+c@example.com", "o'neil@example.com", `"a b"@example.com`, `"a\"<>b"@example.com`, `"@"@example.com`,
		"a@[127.0.0.1]", "a@[IPv6:::1]", "ännchen@例え.jp", "a@under_score.example", strings.Repeat("x", 242) + "@example.com",
	} {
		if err := checkMailbox(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a", "@b", "a@", "a b@c", "a@b c", "a@b>", "a>@b", "<a@b", "a@b\r\nDATA", "a\r\n@b", "a\x00@b", "a@b\x7f", "a@b..c", "a@.b",
		`"a@b`, `"a"b"@c`, `"a\"@c`, "\"a\rb\"@c", "\"a\\\n\"@c", "a@[1", "a@[]", "a@[1]>]", "a@[1\r\n]", "a\xff@b", strings.Repeat("x", 243) + "@example.com",
	} {
		if checkMailbox(bad) == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func FuzzCheckMailbox(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@c`, "a@[1.2.3.4]", `"\>"@c`, "ä@b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkMailbox(s) != nil {
			return
		}
		if strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("%q would end the line", s)
		}
		// Outside quotes, nothing that ends the path or starts a parameter.
		if !strings.HasPrefix(s, `"`) && strings.ContainsAny(s, "<> ") {
			t.Fatalf("%q would end the path", s)
		}
	})
}

func TestParseExtensions(t *testing.T) {
	got := parseExtensions([]string{"relay PIPELINING", "pipelining", "SIZE 1000", "AUTH PLAIN login", "AUTH=LOGIN", "8BitMime", "", "SMTPUTF8", "STARTTLS", "XUNKNOWN a b"})
	want := extensions{pipelining: true, eightBit: true, utf8: true, size: true, startTLS: true, sizeMax: 1000, auth: []string{"PLAIN", "LOGIN"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, line := range []string{"SIZE", "SIZE 0", "SIZE -1", "SIZE many", "SIZE 99999999999999999999"} {
		if got := parseExtensions([]string{"relay", line}); !got.size || got.sizeMax != 0 {
			t.Errorf("%q: %+v", line, got)
		}
	}
	if got := parseExtensions(nil); !reflect.DeepEqual(got, extensions{}) {
		t.Errorf("no lines: %+v", got)
	}
}

// Source: RFC 7677 section 3.
func TestScram(t *testing.T) {
	const challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	x := scram{user: "user", password: "pencil", nonce: "rOprNGfwEbeRWgbNEkqO"}
	if got, want := x.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"; got != want {
		t.Errorf("first is %q", got)
	}
	got, err := x.final(challenge)
	if want := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="; got != want || err != nil {
		t.Errorf("final is %q, %v", got, err)
	}
	if err := x.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="); err != nil {
		t.Errorf("the true server is not believed: %v", err)
	}
	for _, proof := range []string{"", "v=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95F4=", "e=other-error", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="} {
		if x.verify(proof) == nil {
			t.Errorf("proof %q is believed", proof)
		}
	}
	for _, bad := range []string{
		"", "r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096", "r=other,s=W22Z,i=4096", "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096", "r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096",
		"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4095", "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=99999999", "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=x", "m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4096",
	} {
		if _, err := x.final(bad); err == nil {
			t.Errorf("challenge %q is answered", bad)
		}
	}
	if got := (&scram{user: "a=b,c", nonce: "n"}).first(); got != "n,,n=a=3Db=2Cc,r=n" {
		t.Errorf("user is not escaped: %q", got)
	}
}

func TestConfigRefusesWhatCannotWork(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Addr":                  {Addr: "relay"},
		"Name":                  {Addr: "r:25", Name: "a\r\nb"},
		"TLS":                   {Addr: "r:25", TLS: "maybe"},
		"InsecureAuth":          {Addr: "r:25", TLS: TLSOpportunistic, Username: "u"},
		"Mechanism":             {Addr: "r:25", Username: "u", Mechanism: "CRAM-MD5"},
		"Username and Password": {Addr: "r:25", Username: "u", Password: "a\x00b"},
		"Connections":           {Addr: "r:25", Connections: 257},
		"MessagesPerConnection": {Addr: "r:25", MessagesPerConnection: -1},
		"Idle":                  {Addr: "r:25", Idle: -1},
		"Timeouts.DataEnd":      {Addr: "r:25", Timeouts: Timeouts{DataEnd: -1}},
	} {
		if _, err := New(cfg, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	c, err := New(Config{Addr: "r:25", Username: "u"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.cfg.TLS != TLSRequired || c.cfg.Connections != 4 || c.cfg.Timeouts.DataEnd != 10*time.Minute {
		t.Errorf("defaults are %+v", c.cfg)
	}
}

func TestSecretRefusesToPrint(t *testing.T) {
	var log bytes.Buffer
	cfg := Config{Password: "hunter2"}
	slog.New(slog.NewJSONHandler(&log, nil)).Info("configured", "password", cfg.Password, "config", cfg)
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s %q", cfg, cfg, cfg, cfg.Password, cfg.Password), log.String()} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("the password is in %s", s)
		}
	}
}

func TestSendRefusesWhatSMTPCannotCarry(t *testing.T) {
	c, err := New(Config{Addr: "r:25"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mail := &courier.Mail{Data: []byte("a\r\n")}
	for want, m := range map[string]*courier.Message{
		"5.6.0 message holds no mail":                                                         {From: "a@b", To: "a@b", Text: &courier.Text{}},
		"5.1.7 sender: address is not local-part@domain":                                      {From: "a", To: "a@b", Mail: mail},
		"5.1.3 recipient: address is not local-part@domain":                                   {From: "a@b", To: "", Mail: mail},
		"5.6.0 message has a line feed without carriage return at byte 1":                     {From: "a@b", To: "a@b", Mail: &courier.Mail{Data: []byte("a\n")}},
		`5.1.3 recipient: byte 1 of the address, '>', cannot stand in an unquoted local part`: {From: "a@b", To: "a>\r\nDATA\r\n@b", Mail: mail},
	} {
		o := c.Send(context.Background(), m)
		if got := o.Enhanced + " " + o.Detail; o.Status != courier.Refused || o.Code != CodeLocal || got != want {
			t.Errorf("%s %s %q, want %q", o.Status, o.Code, got, want)
		}
	}
}
