package campaigns

import (
	"errors"
	"net/mail"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/senders/channels"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

// content is what a treatment says on each channel; nil where it says nothing.
type content struct {
	email *delivery.Email
	sms   *delivery.SMS
}

// compose joins a treatment's message with its templates: the message's members
// win one by one, the template fills the rest, and the default message stands in
// for a channel that has neither.
//
// Source: engagement 7.2, 13.26.
func compose(m *pinpoint.MessageConfiguration, email, sms *templates.Content) content {
	if m == nil {
		m = &pinpoint.MessageConfiguration{}
	}
	d := m.DefaultMessage
	if d == nil {
		d = &pinpoint.Message{}
	}
	var out content
	if m.EmailMessage != nil || email != nil || filled(d.Body) && filled(d.Title) {
		e := &delivery.Email{}
		if email != nil {
			e.Subject, e.HTML, e.Text, e.Headers = email.Subject, email.HtmlPart, email.TextPart, email.Headers
			e.Defaults, e.Template = email.DefaultSubstitutions, email.Name
		}
		if x := m.EmailMessage; x != nil {
			over(&e.From, x.FromAddress)
			over(&e.Subject, x.Title)
			over(&e.HTML, x.HtmlBody)
			over(&e.Text, x.Body)
			if len(x.Headers) > 0 {
				e.Headers = headers(x.Headers)
			}
		}
		under(&e.Subject, d.Title)
		if e.HTML == "" {
			under(&e.Text, d.Body)
		}
		if e.HTML != "" || e.Text != "" {
			out.email = e
		}
	}
	if m.SMSMessage != nil || sms != nil || filled(d.Body) {
		x := &delivery.SMS{Promotional: true}
		if sms != nil {
			x.Body, x.Defaults, x.Template = sms.Body, sms.DefaultSubstitutions, sms.Name
		}
		if y := m.SMSMessage; y != nil {
			over(&x.Body, y.Body)
			over(&x.OriginationNumber, y.OriginationNumber)
			over(&x.SenderID, y.SenderId)
			over(&x.EntityID, y.EntityId)
			over(&x.TemplateID, y.TemplateId)
			x.Promotional = y.MessageType != pinpoint.MessageTypeTransactional
		}
		under(&x.Body, d.Body)
		if x.Body != "" {
			out.sms = x
		}
	}
	return out
}

func over(p *string, v *string) {
	if filled(v) {
		*p = *v
	}
}

func under(p *string, v *string) {
	if *p == "" && v != nil {
		*p = *v
	}
}

func headers(in []pinpoint.MessageHeader) []templates.Header {
	var out []templates.Header
	for _, h := range in {
		out = append(out, templates.Header{Name: deref(h.Name), Value: deref(h.Value)})
	}
	return out
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// compose reads a treatment's templates, the active version of those that are
// not pinned, and joins them with its message. A missing template is a fault.
func (s *Service) compose(r store.Reader, account string, t *treatment) (content, error) {
	read := func(ref *pinpoint.Template, kind templates.Type) (*templates.Content, error) {
		if ref == nil {
			return nil, nil
		}
		return templates.Resolve(r, account, deref(ref.Name), kind, deref(ref.Version))
	}
	var email, sms *templates.Content
	if t.template != nil {
		var err error
		if email, err = read(t.template.EmailTemplate, templates.Email); err != nil {
			return content{}, err
		}
		if sms, err = read(t.template.SMSTemplate, templates.SMS); err != nil {
			return content{}, err
		}
	}
	return compose(t.message, email, sms), nil
}

// checkContent refuses a campaign that has nothing to say, or that names a
// template which is not there.
func (s *Service) checkContent(r store.Reader, c *Campaign) error {
	for _, t := range c.treatments() {
		if t.template != nil {
			for _, ref := range []struct {
				template *pinpoint.Template
				kind     templates.Type
			}{{t.template.EmailTemplate, templates.Email}, {t.template.SMSTemplate, templates.SMS}} {
				if ref.template == nil {
					continue
				}
				if err := templates.Exists(r, c.Account, deref(ref.template.Name), ref.kind, deref(ref.template.Version)); err != nil {
					return err
				}
			}
		}
		x, err := s.compose(r, c.Account, &t)
		if err != nil {
			return err
		}
		if x.email == nil && x.sms == nil {
			return aws.InvalidMember("MessageConfiguration", "MessageConfiguration: treatment %s has no message that can be sent", t.id)
		}
		if x.email != nil && x.email.From != "" {
			if _, err := mail.ParseAddress(x.email.From); err != nil {
				return aws.InvalidMember("FromAddress", "FromAddress: %q is not a mailbox", short(x.email.From))
			}
		}
	}
	return nil
}

// errNoChannel: a campaign's messages have no channel to go out on.
var errNoChannel = errors.New("no channel of the campaign's messages is enabled")

// plan makes what delivery needs to know of an activity. Its errors that are
// Invalid or NotFound faults, or errNoChannel, mean that the campaign cannot run.
func (s *Service) plan(r store.Reader, c *Campaign, a *Activity, t *treatment) (*delivery.Plan, error) {
	x, err := s.compose(r, c.Account, t)
	if err != nil {
		return nil, err
	}
	if x.email != nil {
		ch, err := channels.Email(r, c.ApplicationId)
		if err != nil {
			return nil, err
		}
		if ch == nil || !ch.Enabled {
			x.email = nil
		} else if under(&x.email.From, &ch.Email.FromAddress); x.email.From == "" {
			x.email = nil
		}
	}
	if x.sms != nil {
		ch, err := channels.SMS(r, c.ApplicationId)
		if err != nil {
			return nil, err
		}
		switch {
		case ch == nil || !ch.Enabled:
			x.sms = nil
		case x.sms.OriginationNumber != "" || x.sms.SenderID != "":
		case ch.SMS.SenderID != "":
			x.sms.SenderID = ch.SMS.SenderID
		default:
			x.sms.OriginationNumber = ch.SMS.ShortCode
		}
	}
	if x.email == nil && x.sms == nil {
		return nil, errNoChannel
	}
	l := c.limits()
	p := &delivery.Plan{
		ID: a.ID, Account: c.Account, App: c.ApplicationId, Created: s.now().UTC(),
		Campaign: &delivery.Campaign{
			ID: c.Id, Activity: a.ID, Treatment: t.id, Holdout: c.holdout(), CohortFrom: t.from, CohortTo: t.to,
		},
		Email: x.email, SMS: x.sms,
		PerSecond: share(l.perSecond, t, c.holdout()), Daily: l.daily, Total: l.total,
	}
	if l.duration > 0 {
		p.Deadline = a.ScheduledStart.Add(l.duration)
	}
	p.QuietFrom, p.QuietTo = c.quiet(t)
	return p, nil
}

func enabled(b *bool) bool { return b != nil && *b }

type limits struct {
	daily, total, perSecond int
	duration                time.Duration
}

// limits are the campaign's own, each that it does not set the app's.
//
// Source: engagement 1.2.
func (c *Campaign) limits() limits {
	pick := func(of func(*pinpoint.CampaignLimits) *int) int {
		for _, l := range []*pinpoint.CampaignLimits{c.Limits, c.AppLimits} {
			if l == nil {
				continue
			}
			if v := of(l); v != nil {
				return *v
			}
		}
		return 0
	}
	return limits{
		daily:     pick(func(l *pinpoint.CampaignLimits) *int { return l.Daily }),
		total:     pick(func(l *pinpoint.CampaignLimits) *int { return l.Total }),
		perSecond: pick(func(l *pinpoint.CampaignLimits) *int { return l.MessagesPerSecond }),
		duration:  time.Duration(pick(func(l *pinpoint.CampaignLimits) *int { return l.MaximumDuration })) * time.Second,
	}
}

// share divides a campaign's rate among its treatments by their size: the limit
// is the campaign's. Each gets at least one a second.
func share(perSecond int, t *treatment, holdout int) int {
	sent := cohorts - holdout
	if perSecond == 0 || sent == 0 {
		return perSecond
	}
	return max(1, perSecond*(t.to-t.from)/sent)
}

// quiet is a treatment's quiet time: its schedule's, else the campaign's, else
// the app's. An empty object means none.
func (c *Campaign) quiet(t *treatment) (from, to string) {
	q := c.AppQuietTime
	if c.Schedule != nil && c.Schedule.QuietTime != nil {
		q = c.Schedule.QuietTime
	}
	if t.schedule != nil && t.schedule.QuietTime != nil {
		q = t.schedule.QuietTime
	}
	if q == nil || !filled(q.Start) || !filled(q.End) {
		return "", ""
	}
	return *q.Start, *q.End
}

func number(n int64) *int {
	v := int(n)
	return &v
}

func text(n int64) string { return strconv.FormatInt(n, 10) }
