package delivery

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/templates"
)

// compiled is a plan with its texts parsed; it is shared by many goroutines.
type compiled struct {
	plan        *Plan
	from        *mail.Address
	subject     *templates.Template
	html        *templates.Template
	text        *templates.Template
	headers     []compiledHeader
	defaults    templates.Defaults // of the email
	sms         *templates.Template
	smsDefaults templates.Defaults
}

type compiledHeader struct {
	name  string
	value *templates.Template
}

// compile parses a plan's texts. Its errors are Invalid faults that name the
// member.
func compile(p *Plan) (*compiled, error) {
	c := &compiled{plan: p}
	var failed error
	parse := func(member, text string, html bool) *templates.Template {
		if text == "" {
			return nil
		}
		t, err := templates.Parse(text, templates.Options{HTML: html})
		if err != nil && failed == nil {
			failed = aws.InvalidMember(member, "%s: %v", member, err)
		}
		return t
	}
	if m := p.Email; m != nil {
		var err error
		if c.from, err = mail.ParseAddress(m.From); err != nil {
			return nil, aws.InvalidMember("FromAddress", "FromAddress: %q is not a mailbox", m.From)
		}
		if c.defaults, err = templates.ParseDefaults(m.Defaults); err != nil {
			return nil, err
		}
		if err := templates.CheckHeaders(m.Headers); err != nil {
			return nil, err
		}
		c.subject = parse("Subject", m.Subject, false)
		c.html = parse("HtmlPart", m.HTML, true)
		c.text = parse("TextPart", m.Text, false)
		for _, h := range m.Headers {
			c.headers = append(c.headers, compiledHeader{h.Name, parse("Headers", h.Value, false)})
		}
	}
	if m := p.SMS; m != nil {
		var err error
		if c.smsDefaults, err = templates.ParseDefaults(m.Defaults); err != nil {
			return nil, err
		}
		c.sms = parse("Body", m.Body, false)
	}
	return c, failed
}

// unrenderable is a message that cannot be made for this recipient.
type unrenderable struct{ why string }

func (u *unrenderable) Error() string { return u.why }

// render makes the message for one recipient. The same recipient at the same
// time gives the same bytes, so that a resend is what was sent.
func (c *compiled) render(d *draft) (*courier.Message, error) {
	switch d.channel {
	case ChannelEmail:
		return c.mail(d)
	case ChannelSMS:
		return c.textMessage(d)
	default:
		return nil, &unrenderable{"channel " + d.channel + " has no courier"}
	}
}

// draft is one recipient on the way to a message.
type draft struct {
	messageID string
	channel   string
	address   string
	vars      templates.Vars // the endpoint and its user; nil for a raw address
	override  *Override      // nil: none
	at        time.Time
}

func (d *draft) layers(message templates.Substitutions) templates.Layers {
	var out templates.Layers
	if d.override != nil && d.override.Substitutions != nil {
		out = append(out, d.override.Substitutions)
	}
	if message != nil {
		out = append(out, message)
	}
	if d.vars != nil {
		out = append(out, d.vars)
	}
	return out
}

func (d *draft) context(defaults templates.Defaults) templates.Context {
	return templates.Context{Now: d.at, UUID: templates.UUIDsFrom(d.messageID), Defaults: defaults}
}

// fill renders a text; strict refuses one with a name that has no value.
func fill(t *templates.Template, member string, vars templates.Vars, c templates.Context, strict bool) (string, error) {
	if t == nil {
		return "", nil
	}
	out, res, err := t.Append(nil, vars, c)
	if err != nil {
		return "", &unrenderable{fmt.Sprintf("%s: %v", member, err)}
	}
	if strict && !res.Complete() {
		return "", &unrenderable{fmt.Sprintf("%s: no value for %s", member, strings.Join(append(res.Missing, res.Unusable...), ", "))}
	}
	return string(out), nil
}

func (c *compiled) textMessage(d *draft) (*courier.Message, error) {
	m := c.plan.SMS
	t := c.sms
	if d.override != nil && d.override.Body != "" {
		var err error
		if t, err = templates.Parse(d.override.Body, templates.Options{}); err != nil {
			return nil, &unrenderable{"BodyOverride: " + err.Error()}
		}
	}
	body, err := fill(t, "Body", d.layers(m.Substitutions), d.context(c.smsDefaults), false)
	if err != nil {
		return nil, err
	}
	if body == "" {
		return nil, &unrenderable{"Body: the message is empty"}
	}
	return &courier.Message{ID: d.messageID, To: d.address, Text: &courier.Text{
		Body: body, Promotional: m.Promotional, EntityID: m.EntityID, TemplateID: m.TemplateID,
		WantsReceipt: true, ReferenceText: d.messageID,
	}}, nil
}

// mail makes an RFC 5322 message. A missing name in a mail is a rendering
// failure. Source: engagement 5.3.
func (c *compiled) mail(d *draft) (*courier.Message, error) {
	m := c.plan.Email
	to, err := mail.ParseAddress(d.address)
	if err != nil {
		return nil, &unrenderable{"Address: not a mailbox"}
	}
	if m.Raw != nil {
		return &courier.Message{ID: d.messageID, From: c.from.Address, To: to.Address, Mail: withMessageID(m.Raw, c.messageIDHeader(d))}, nil
	}
	vars, ctx := d.layers(m.Substitutions), d.context(c.defaults)
	subject, html, text := c.subject, c.html, c.text
	if o := d.override; o != nil {
		if o.Title != "" {
			if subject, err = templates.Parse(o.Title, templates.Options{}); err != nil {
				return nil, &unrenderable{"TitleOverride: " + err.Error()}
			}
		}
		if o.Body != "" {
			if html, err = templates.Parse(o.Body, templates.Options{HTML: true}); err != nil {
				return nil, &unrenderable{"BodyOverride: " + err.Error()}
			}
			text = nil
		}
	}
	var e letter
	if e.subject, err = fill(subject, "Subject", vars, ctx, true); err != nil {
		return nil, err
	}
	if e.html, err = fill(html, "HtmlPart", vars, ctx, true); err != nil {
		return nil, err
	}
	if e.text, err = fill(text, "TextPart", vars, ctx, true); err != nil {
		return nil, err
	}
	for _, h := range c.headers {
		value, err := fill(h.value, "Headers", vars, ctx, true)
		if err != nil {
			return nil, err
		}
		if err := templates.CheckHeaderValue(h.name, value); err != nil {
			return nil, &unrenderable{err.Error()}
		}
		e.headers = append(e.headers, templates.Header{Name: h.name, Value: value})
	}
	e.from, e.to, e.replyTo, e.date, e.messageID = c.from, to, m.ReplyTo, d.at, c.messageIDHeader(d)
	e.boundary = "=_" + strings.ReplaceAll(d.messageID, "-", "")
	data, err := e.write()
	if err != nil {
		return nil, &unrenderable{err.Error()}
	}
	return &courier.Message{ID: d.messageID, From: c.from.Address, To: to.Address, Mail: &courier.Mail{
		Data: data, UTF8: !ascii(to.Address) || !ascii(c.from.Address),
	}}, nil
}

func (c *compiled) messageIDHeader(d *draft) string {
	_, domain, _ := strings.Cut(c.from.Address, "@")
	return "<" + d.messageID + "@" + domain + ">"
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// letter is a mail's parts before they are put on paper.
type letter struct {
	from, to            *mail.Address
	replyTo             []string
	subject, html, text string
	headers             []templates.Header
	date                time.Time
	messageID           string
	boundary            string
}

var errNoBody = errors.New("the mail has neither an HTML nor a text part")

// write lays the letter out: header, then one part or multipart/alternative with
// the text first. Source: RFC 5322, RFC 2046 5.1.4.
func (l *letter) write() ([]byte, error) {
	if l.html == "" && l.text == "" {
		return nil, errNoBody
	}
	b := bytes.NewBuffer(make([]byte, 0, 1024+len(l.html)*9/8+len(l.text)*9/8))
	field := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	field("From", l.from.String())
	field("To", l.to.String())
	if len(l.replyTo) > 0 {
		field("Reply-To", strings.Join(l.replyTo, ", "))
	}
	field("Subject", encodeWords(l.subject))
	field("Date", l.date.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000"))
	field("Message-ID", l.messageID)
	for _, h := range l.headers {
		field(h.Name, encodeWords(h.Value))
	}
	field("MIME-Version", "1.0")
	switch {
	case l.html == "":
		return bytesOf(b, writePart(b, "text/plain", l.text))
	case l.text == "":
		return bytesOf(b, writePart(b, "text/html", l.html))
	}
	field("Content-Type", `multipart/alternative; boundary="`+l.boundary+`"`)
	b.WriteString("\r\n--" + l.boundary + "\r\n")
	if err := writePart(b, "text/plain", l.text); err != nil {
		return nil, err
	}
	b.WriteString("\r\n--" + l.boundary + "\r\n")
	if err := writePart(b, "text/html", l.html); err != nil {
		return nil, err
	}
	b.WriteString("\r\n--" + l.boundary + "--\r\n")
	return b.Bytes(), nil
}

func bytesOf(b *bytes.Buffer, err error) ([]byte, error) { return b.Bytes(), err }

// encodeWords makes a header value of any text: one line, RFC 2047 where it is
// not ASCII.
func encodeWords(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return mime.QEncoding.Encode("utf-8", s)
}

// lineMax is the longest line of a message body. Source: RFC 5322 2.1.1.
const lineMax = 998

// writePart writes a part's fields and body: as it is when it is ASCII in lines
// that fit, else quoted-printable.
func writePart(b *bytes.Buffer, contentType, body string) error {
	plain, line := true, 0
	for i := range len(body) {
		switch c := body[i]; {
		case c == '\n':
			line = -1
		case c >= 0x80 || c == '\r' || c == 0:
			plain = false
		}
		if line++; line > lineMax {
			plain = false
		}
		if !plain {
			break
		}
	}
	if plain {
		b.WriteString("Content-Type: " + contentType + "; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n")
		for {
			i := strings.IndexByte(body, '\n')
			if i < 0 {
				b.WriteString(body)
				b.WriteString("\r\n")
				return nil
			}
			b.WriteString(body[:i])
			b.WriteString("\r\n")
			body = body[i+1:]
		}
	}
	b.WriteString("Content-Type: " + contentType + "; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	w := quotedprintable.NewWriter(b)
	if _, err := w.Write([]byte(body)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b.WriteString("\r\n")
	return nil
}

// withMessageID puts our Message-ID into a message that a client composed, in
// place of any it has, and gives it CRLF line ends.
func withMessageID(raw []byte, id string) *courier.Mail {
	text := strings.ReplaceAll(string(raw), "\r\n", "\n")
	head, body, found := strings.Cut(text, "\n\n")
	if !found {
		head, body = text, ""
	}
	var out strings.Builder
	out.Grow(len(raw) + len(raw)/32 + 100)
	out.WriteString("Message-ID: " + id + "\r\n")
	skipping := false
	for line := range strings.SplitSeq(head, "\n") {
		if skipping = skipping && strings.HasPrefix(line, " ") || strings.HasPrefix(strings.ToLower(line), "message-id:"); skipping {
			continue
		}
		out.WriteString(line + "\r\n")
	}
	out.WriteString("\r\n" + strings.ReplaceAll(body, "\n", "\r\n"))
	data := out.String()
	return &courier.Mail{Data: []byte(data), EightBit: !ascii(data)}
}

// DecodeRaw reads RawEmail.Data, which clients send as base64 within base64 or
// plainly; the wire has taken the outer layer off.
func DecodeRaw(data []byte) []byte {
	if inner, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data))); err == nil && len(inner) > 0 {
		return inner
	}
	return data
}
