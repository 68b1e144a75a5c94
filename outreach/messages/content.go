package messages

import (
	"bytes"
	"net/mail"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

// Bounds of a message. Source: engagement 5.1, 10; channels-and-events 5.2.
const (
	smsBodyMax    = 1600 // characters
	emailBytesMax = 10 << 20
	replyToMax    = 50
)

// content is what a call says on the channels that can be sent, and on which
// others it says something.
type content struct {
	email    *delivery.Email
	sms      *delivery.SMS
	hasEmail bool // there is a body for recipients without an override
	hasSMS   bool
	others   map[string]bool // channels that have a message but cannot be sent
}

// compose works out the content of a call: the channel's message, else the
// default message, else the template. Substitutions likewise, name by name.
// Its errors are faults that name the member.
//
// Source: engagement 9.3, Precedence.
func compose(m *pinpoint.DirectMessageConfiguration, email, sms *templates.Content) (*content, error) {
	d := m.DefaultMessage
	if d == nil {
		d = &pinpoint.DefaultMessage{}
	}
	c := &content{others: others(m, filled(d.Body))}
	var err error
	if c.email, err = composeEmail(m.EmailMessage, d, email); err != nil {
		return nil, err
	}
	c.hasEmail = c.email.HTML != "" || c.email.Text != "" || c.email.Raw != nil
	c.sms = composeSMS(m.SMSMessage, d, sms)
	c.hasSMS = c.sms.Body != ""
	if err := checkChars("SMSMessage.Body", c.sms.Body); err != nil {
		return nil, err
	}
	return c, nil
}

// others are the channels without a courier that a call has a message for.
func others(m *pinpoint.DirectMessageConfiguration, byDefault bool) map[string]bool {
	push := byDefault || m.DefaultPushNotificationMessage != nil
	out := map[string]bool{
		"GCM": push || m.GCMMessage != nil, "ADM": push || m.ADMMessage != nil, "BAIDU": push || m.BaiduMessage != nil,
		"VOICE": byDefault || m.VoiceMessage != nil,
	}
	for _, name := range []string{"APNS", "APNS_SANDBOX", "APNS_VOIP", "APNS_VOIP_SANDBOX"} {
		out[name] = push || m.APNSMessage != nil
	}
	return out
}

func composeEmail(m *pinpoint.EmailMessage, d *pinpoint.DefaultMessage, t *templates.Content) (*delivery.Email, error) {
	e := &delivery.Email{}
	if t != nil {
		e.Subject, e.HTML, e.Text, e.Headers = t.Subject, t.HtmlPart, t.TextPart, t.Headers
		e.Defaults, e.Template = t.DefaultSubstitutions, t.Name
	}
	if filled(d.Body) {
		e.HTML, e.Text = "", *d.Body
	}
	if m == nil {
		e.Substitutions = merge(d.Substitutions, nil)
		return e, nil
	}
	e.Substitutions = merge(d.Substitutions, m.Substitutions)
	e.From = deref(m.FromAddress)
	if len(m.ReplyToAddresses) > replyToMax {
		return nil, aws.InvalidMember("ReplyToAddresses", "EmailMessage.ReplyToAddresses: more than %d addresses", replyToMax)
	}
	for _, text := range m.ReplyToAddresses {
		a, err := mail.ParseAddress(text)
		if err != nil {
			return nil, aws.InvalidMember("ReplyToAddresses", "EmailMessage.ReplyToAddresses: one is not a mailbox")
		}
		e.ReplyTo = append(e.ReplyTo, a.String()) // in our own writing: a header ends where we end it
	}
	if m.RawEmail != nil && m.SimpleEmail != nil {
		return nil, aws.InvalidMember("RawEmail", "EmailMessage: give RawEmail or SimpleEmail, not both")
	}
	if m.RawEmail != nil {
		return e, raw(e, m.RawEmail.Data)
	}
	html, body := "", deref(m.Body)
	if x := m.SimpleEmail; x != nil {
		html = part(x.HtmlPart)
		if text := part(x.TextPart); text != "" {
			body = text
		}
		if subject := part(x.Subject); subject != "" {
			e.Subject = subject
		}
		if len(x.Headers) > 0 {
			e.Headers = nil
			for _, h := range x.Headers {
				e.Headers = append(e.Headers, templates.Header{Name: deref(h.Name), Value: deref(h.Value)})
			}
		}
	}
	if html != "" || body != "" {
		e.HTML, e.Text = html, body
	}
	return e, nil
}

// raw takes a whole message over; without a FromAddress its own From counts.
func raw(e *delivery.Email, data []byte) error {
	e.HTML, e.Text, e.Raw = "", "", delivery.DecodeRaw(data)
	if len(e.Raw) > emailBytesMax {
		return aws.InvalidMember("RawEmail", "EmailMessage.RawEmail.Data: more than %d bytes", emailBytesMax)
	}
	m, err := mail.ReadMessage(bytes.NewReader(e.Raw))
	if err != nil {
		return aws.InvalidMember("RawEmail", "EmailMessage.RawEmail.Data: not a MIME message")
	}
	if e.From == "" {
		if from, err := m.Header.AddressList("From"); err == nil && len(from) > 0 {
			e.From = from[0].String()
		}
	}
	return nil
}

func part(p *pinpoint.SimpleEmailPart) string {
	if p == nil {
		return ""
	}
	return deref(p.Data)
}

func composeSMS(m *pinpoint.SMSMessage, d *pinpoint.DefaultMessage, t *templates.Content) *delivery.SMS {
	x := &delivery.SMS{Promotional: true}
	if t != nil {
		x.Body, x.Defaults, x.Template = t.Body, t.DefaultSubstitutions, t.Name
	}
	if filled(d.Body) {
		x.Body = *d.Body
	}
	if m == nil {
		x.Substitutions = merge(d.Substitutions, nil)
		return x
	}
	if filled(m.Body) {
		x.Body = *m.Body
	}
	// Promotional is the default. Source: channels-and-events 5.2.
	x.Promotional = m.MessageType != pinpoint.MessageTypeTransactional
	x.OriginationNumber, x.SenderID, x.Keyword = deref(m.OriginationNumber), deref(m.SenderId), deref(m.Keyword)
	x.EntityID, x.TemplateID = deref(m.EntityId), deref(m.TemplateId)
	x.Substitutions = merge(d.Substitutions, m.Substitutions)
	return x
}

// merge lays the values of over above those of under.
func merge(under, over map[string][]string) templates.Substitutions {
	if len(under)+len(over) == 0 {
		return nil
	}
	out := templates.Substitutions{}
	for name, v := range under {
		out[name] = v
	}
	for name, v := range over {
		out[name] = v
	}
	return out
}

func filled(s *string) bool { return s != nil && *s != "" }

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// resolve reads the templates that a call names, the active version of those
// that name none, and joins them with its messages.
func (s *Service) resolve(
	r store.Reader, account string, m *pinpoint.DirectMessageConfiguration, t *pinpoint.TemplateConfiguration,
) (*content, error) {
	read := func(ref *pinpoint.Template, kind templates.Type) (*templates.Content, error) {
		if ref == nil {
			return nil, nil
		}
		if err := templates.Exists(r, account, deref(ref.Name), kind, deref(ref.Version)); err != nil {
			return nil, err
		}
		return templates.Resolve(r, account, deref(ref.Name), kind, deref(ref.Version))
	}
	if t == nil {
		t = &pinpoint.TemplateConfiguration{}
	}
	email, err := read(t.EmailTemplate, templates.Email)
	if err != nil {
		return nil, err
	}
	sms, err := read(t.SMSTemplate, templates.SMS)
	if err != nil {
		return nil, err
	}
	c, err := compose(m, email, sms)
	if err != nil {
		return nil, err
	}
	if t.PushTemplate != nil {
		for _, name := range []string{"GCM", "ADM", "BAIDU", "APNS", "APNS_SANDBOX", "APNS_VOIP", "APNS_VOIP_SANDBOX"} {
			c.others[name] = true
		}
	}
	if t.VoiceTemplate != nil {
		c.others["VOICE"] = true
	}
	return c, nil
}
