package smtptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a conversation. Source: RFC 5321 4.5.3.1.
const (
	lineBytesMax  = 2048 // a command line
	recipientsMax = 100
	mistakesMax   = 20
	readBytes     = 32 << 10
)

// errOver ends a conversation.
var errOver = errors.New("conversation is over")

// talk is one conversation. Replies gather in w and leave when the client has
// nothing more to be read, so a pipelined batch is answered in one write. Source:
// RFC 2920 section 3.2.
type talk struct {
	ctx  context.Context //nolint:containedctx // a conversation is a call: this is Serve's own
	s    *Server
	conn net.Conn
	n    int
	r    *bufio.Reader
	w    *bufio.Writer

	helo     string
	user     string
	tls      bool
	mistakes int

	// The transaction.
	mail      bool
	attempt   Attempt
	from      string
	to        []string
	body8     bool
	utf8      bool
	sizeGiven int
}

func newTalk(ctx context.Context, s *Server, conn net.Conn, n int) *talk {
	t := &talk{ctx: ctx, s: s, conn: conn, n: n}
	t.use(conn)
	return t
}

func (t *talk) use(conn net.Conn) {
	t.conn = conn
	t.r = bufio.NewReaderSize(conn, readBytes)
	t.w = bufio.NewWriterSize(conn, 4096)
}

func (t *talk) say(line string) {
	t.w.WriteString(line)
	t.w.WriteString("\r\n")
}

func (t *talk) flush() error {
	if t.w.Buffered() == 0 {
		return nil
	}
	t.conn.SetWriteDeadline(time.Now().Add(t.s.cfg.Idle))
	return t.w.Flush()
}

// await lets replies go before a read that will block.
func (t *talk) await() error {
	if t.r.Buffered() > 0 {
		return nil
	}
	if err := t.flush(); err != nil {
		return err
	}
	return t.conn.SetReadDeadline(time.Now().Add(t.s.cfg.Idle))
}

func (t *talk) run() {
	t.say("220 " + t.s.cfg.Name + " ESMTP")
	for {
		line, err := t.line()
		if err == nil {
			err = t.command(line)
		}
		if err == nil && t.mistakes > mistakesMax {
			t.say("421 4.7.0 too many mistakes")
			err = errOver
		}
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				t.say("421 4.4.2 silent for too long")
			}
			t.flush()
			return
		}
	}
}

// line reads a command line without its end. The slice is valid until the next
// read. A line that is too long is read to its end and answered here.
func (t *talk) line() ([]byte, error) {
	for {
		if err := t.await(); err != nil {
			return nil, err
		}
		line, err := t.readSlice()
		tooLong := len(line) > lineBytesMax
		for errors.Is(err, bufio.ErrBufferFull) {
			tooLong = true
			_, err = t.r.ReadSlice('\n')
		}
		if err != nil {
			return nil, err
		}
		if !tooLong {
			return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
		}
		t.mistake("500 5.5.6 line too long")
	}
}

// readSlice reads up to a line feed. When only a part of the line is there, the
// replies so far go out first, for the client may be waiting for them.
func (t *talk) readSlice() ([]byte, error) {
	if t.w.Buffered() > 0 {
		b, _ := t.r.Peek(t.r.Buffered())
		if bytes.IndexByte(b, '\n') < 0 {
			if err := t.flush(); err != nil {
				return nil, err
			}
		}
	}
	return t.r.ReadSlice('\n')
}

func (t *talk) mistake(line string) {
	t.mistakes++
	t.say(line)
}

// command obeys one line. An error ends the conversation.
func (t *talk) command(line []byte) error {
	verb, rest, _ := bytes.Cut(line, []byte(" "))
	switch {
	case is(verb, "MAIL"):
		return t.mailFrom(rest)
	case is(verb, "RCPT"):
		return t.rcptTo(rest)
	case is(verb, "DATA"):
		return t.data(rest)
	case is(verb, "EHLO"):
		t.hello(rest, true)
	case is(verb, "HELO"):
		t.hello(rest, false)
	case is(verb, "RSET"):
		t.forget()
		t.say("250 2.0.0 OK")
	case is(verb, "NOOP"):
		t.say("250 2.0.0 OK")
	case is(verb, "VRFY"):
		t.say("252 2.5.2 send it and see")
	case is(verb, "STARTTLS"):
		return t.startTLS()
	case is(verb, "AUTH"):
		return t.auth(string(rest))
	case is(verb, "QUIT"):
		t.say("221 2.0.0 bye")
		return errOver
	default:
		t.mistake("500 5.5.1 command not known")
	}
	return nil
}

// is compares a verb without case.
func is(verb []byte, name string) bool {
	return len(verb) == len(name) && strings.EqualFold(string(verb), name)
}

// forget ends the transaction.
func (t *talk) forget() {
	t.mail, t.from, t.to, t.body8, t.utf8, t.sizeGiven = false, "", nil, false, false, 0
}

func (t *talk) hello(rest []byte, extended bool) {
	if len(bytes.TrimSpace(rest)) == 0 {
		t.mistake("501 5.5.4 name expected")
		return
	}
	t.forget()
	t.helo = string(rest)
	if !extended {
		t.say("250 " + t.s.cfg.Name)
		return
	}
	lines := []string{t.s.cfg.Name, "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE " + strconv.Itoa(t.s.cfg.SizeMax)}
	if t.s.cfg.TLS != nil && !t.tls {
		lines = append(lines, "STARTTLS")
	}
	if t.s.cfg.Users != nil {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	lines = slices.DeleteFunc(lines, func(l string) bool {
		keyword, _, _ := strings.Cut(l, " ")
		return slices.Contains(t.s.cfg.Without, keyword)
	})
	for i, l := range lines {
		if i < len(lines)-1 {
			t.say("250-" + l)
		} else {
			t.say("250 " + l)
		}
	}
}

// obey runs the rule of a stage. said means the stage's own reply was replaced,
// ok that the replacement was 2xx or 3xx.
func (t *talk) obey(at Stage) (said, ok bool, err error) {
	r := t.s.rule(at, t.attempt)
	if r == nil {
		return false, true, nil
	}
	if r.StallFor > 0 || r.Stall != nil {
		if err := t.flush(); err != nil {
			return false, false, err
		}
		if !r.wait(t.ctx) {
			return false, false, errOver
		}
	}
	if r.Drop {
		// What was said before the drop was said; then silence.
		t.flush()
		return false, false, errOver
	}
	if r.Reply == "" {
		return false, true, nil
	}
	t.say(r.Reply)
	if strings.HasPrefix(r.Reply, "421") {
		return true, false, errOver
	}
	return true, r.Reply[0] == '2' || r.Reply[0] == '3', nil
}

func (t *talk) mailFrom(rest []byte) error {
	if t.helo == "" || t.mail {
		t.mistake("503 5.5.1 out of order")
		return nil
	}
	if t.s.cfg.Users != nil && t.user == "" {
		t.mistake("530 5.7.0 authentication required")
		return nil
	}
	addr, params, ok := path(rest, "FROM:")
	if !ok {
		t.mistake("501 5.1.7 MAIL FROM:<address> expected")
		return nil
	}
	t.forget()
	for p := range bytes.FieldsSeq(params) {
		key, value, _ := strings.Cut(string(p), "=")
		switch strings.ToUpper(key) {
		case "SIZE":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				t.mistake("501 5.5.4 SIZE is not a number")
				return nil
			}
			if n > t.s.cfg.SizeMax {
				t.say("552 5.3.4 message too large")
				return nil
			}
			t.sizeGiven = n
		case "BODY":
			t.body8 = strings.EqualFold(value, "8BITMIME")
		case "SMTPUTF8":
			t.utf8 = true
		case "AUTH", "RET", "ENVID": // accepted and ignored
		default:
			t.mistake("555 5.5.4 parameter not known")
			return nil
		}
	}
	if above127(addr) && !t.utf8 {
		t.say("553 5.6.7 address needs SMTPUTF8")
		return nil
	}
	t.from = string(addr)
	t.attempt = Attempt{N: int(t.s.mails.Add(1)), Conn: t.n, From: t.from}
	said, ok, err := t.obey(AtMail)
	if err != nil {
		return err
	}
	t.mail = ok
	if !said {
		t.say("250 2.1.0 OK")
	}
	return nil
}

func (t *talk) rcptTo(rest []byte) error {
	if !t.mail {
		t.mistake("503 5.5.1 MAIL first")
		return nil
	}
	addr, _, ok := path(rest, "TO:")
	switch {
	case !ok || len(addr) == 0:
		t.mistake("501 5.1.3 RCPT TO:<address> expected")
		return nil
	case above127(addr) && !t.utf8:
		t.say("553 5.6.7 address needs SMTPUTF8")
		return nil
	case len(t.to) == recipientsMax:
		t.say("452 4.5.3 too many recipients")
		return nil
	}
	before := t.attempt.To
	t.attempt.To = string(addr)
	said, ok, err := t.obey(AtRcpt)
	if err != nil {
		return err
	}
	if ok {
		t.to = append(t.to, t.attempt.To)
	} else {
		t.attempt.To = before
	}
	if !said {
		t.say("250 2.1.5 OK")
	}
	return nil
}

func (t *talk) data(rest []byte) error {
	switch {
	case len(rest) > 0:
		t.mistake("501 5.5.4 DATA takes nothing")
		return nil
	case !t.mail:
		t.mistake("503 5.5.1 MAIL first")
		return nil
	case len(t.to) == 0:
		t.say("554 5.5.1 no valid recipients")
		return nil
	}
	said, ok, err := t.obey(AtData)
	if err != nil || !ok {
		return err
	}
	if !said {
		t.say("354 go ahead")
	}
	if err := t.early(AfterData); err != nil {
		return err
	}
	content, fault, err := t.content()
	if err != nil {
		return err
	}
	if fault != "" {
		t.say(fault)
		t.forget()
		return nil
	}
	said, ok, err = t.obey(AtDot)
	if err != nil {
		return err
	}
	if !ok {
		t.forget()
		return nil
	}
	got := Received{
		From: t.from, To: t.to, Data: content,
		Helo: t.helo, User: t.user, TLS: t.tls, At: time.Now(), Label: t.s.cfg.Label,
	}
	t.s.sink(got)
	t.s.keep(&got)
	t.forget()
	if !said {
		if said, _, err = t.obey(AfterStore); err != nil {
			return err
		}
	}
	if !said {
		t.w.WriteString("250 2.0.0 OK: queued as ")
		t.w.Write(strconv.AppendInt(t.w.AvailableBuffer(), int64(t.attempt.N), 16))
		t.w.WriteString("\r\n")
	}
	return nil
}

// early obeys a rule in the middle of DATA, where a reply means giving up.
func (t *talk) early(at Stage) error {
	said, _, err := t.obey(at)
	if err == nil && said {
		return errOver
	}
	return err
}

// content reads up to the final dot. A fault is the refusal that the content
// itself deserves.
func (t *talk) content() (data []byte, fault string, err error) {
	data = make([]byte, 0, min(max(t.sizeGiven, 512), t.s.cfg.SizeMax))
	ruled, tooLarge, bare := t.s.ruled.Load(), false, false
	lineStart := true
	halfEnd := false // the last piece of a long line ended in its CR
	for {
		if err := t.await(); err != nil {
			return nil, "", err
		}
		line, err := t.readSlice()
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, "", err
		}
		ended := bytes.HasSuffix(line, []byte("\r\n")) || halfEnd && line[0] == '\n'
		bare = bare || err == nil && !ended
		halfEnd = err != nil && line[len(line)-1] == '\r'
		if lineStart && line[0] == '.' {
			if ended && len(line) == 3 {
				break
			}
			line = line[1:]
		}
		lineStart = ended
		if len(data)+len(line) > t.s.cfg.SizeMax {
			tooLarge = true
			data = data[:0]
		}
		if !tooLarge {
			data = append(data, line...)
		}
		if ruled {
			if err := t.early(InContent); err != nil {
				return nil, "", err
			}
			ruled = false
		}
	}
	switch {
	case tooLarge:
		return nil, "552 5.3.4 message too large", nil
	case bare:
		return nil, "550 5.6.11 line feed without carriage return", nil
	case !t.body8 && above127(data):
		return nil, "554 5.6.1 content needs BODY=8BITMIME", nil
	}
	return data, "", nil
}

func (t *talk) startTLS() error {
	if t.s.cfg.TLS == nil || t.tls {
		t.mistake("502 5.5.1 not offered")
		return nil
	}
	t.say("220 2.0.0 go ahead")
	buffered := t.r.Buffered() > 0
	if err := t.flush(); err != nil || buffered {
		return errOver // RFC 3207: nothing may be pipelined behind STARTTLS.
	}
	conn := tls.Server(t.conn, t.s.cfg.TLS)
	t.conn.SetDeadline(time.Now().Add(t.s.cfg.Idle))
	if err := conn.HandshakeContext(t.ctx); err != nil {
		return errOver
	}
	t.use(conn)
	t.tls, t.helo, t.user = true, "", ""
	t.forget()
	return nil
}

// auth is AUTH PLAIN and LOGIN. Source: RFC 4954, RFC 4616.
func (t *talk) auth(rest string) error {
	if t.s.cfg.Users == nil || t.user != "" || t.mail || t.helo == "" {
		t.mistake("503 5.5.1 out of order")
		return nil
	}
	mechanism, initial, given := strings.Cut(rest, " ")
	var user, password string
	var err error
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		if !given {
			if initial, err = t.ask(""); err != nil {
				return err
			}
		}
		parts := strings.Split(decoded(initial), "\x00")
		if len(parts) != 3 {
			t.mistake("501 5.5.2 not base64 of three parts")
			return nil
		}
		user, password = parts[1], parts[2]
	case "LOGIN":
		if !given {
			if initial, err = t.ask("Username:"); err != nil {
				return err
			}
		}
		user = decoded(initial)
		answer, err := t.ask("Password:")
		if err != nil {
			return err
		}
		password = decoded(answer)
	default:
		t.mistake("504 5.5.4 mechanism not known")
		return nil
	}
	want, ok := t.s.cfg.Users[user]
	if subtle.ConstantTimeCompare([]byte(want), []byte(password)) != 1 || !ok {
		t.mistake("535 5.7.8 user or password is wrong")
		return nil
	}
	t.user = user
	t.say("235 2.7.0 welcome")
	return nil
}

func (t *talk) ask(question string) (string, error) {
	t.say(fmt.Sprintf("334 %s", base64.StdEncoding.EncodeToString([]byte(question))))
	line, err := t.line()
	return string(line), err
}

// decoded is base64's content, empty if it is none.
func decoded(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}

// path takes "FROM:<a@b> PARAMS" apart.
func path(rest []byte, keyword string) (addr, params []byte, ok bool) {
	if len(rest) < len(keyword) || !strings.EqualFold(string(rest[:len(keyword)]), keyword) {
		return nil, nil, false
	}
	rest = bytes.TrimLeft(rest[len(keyword):], " ")
	if len(rest) < 2 || rest[0] != '<' {
		return nil, nil, false
	}
	// A quoted local part may hold '>', so the path ends at the first one outside quotes.
	quoted := false
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			params = rest[i+1:]
			if len(params) > 0 && params[0] != ' ' {
				return nil, nil, false
			}
			return rest[1:i], params, true
		}
	}
	return nil, nil, false
}

// above127 says whether any byte is not ASCII, eight bytes at a look.
func above127(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return true
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
