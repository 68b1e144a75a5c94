package messages

import (
	"context"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/senders/channels"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

// recipientsMax bounds the addresses and endpoints, or the users, of a call.
// Source: engagement 9.1, 9.2.
const recipientsMax = 100

// result is what a recipient is told, in the form of the API's.
type result = pinpoint.EndpointMessageResult

// draft is a call in the making: what will be sent to whom.
type draft struct {
	s       *Service
	app     string
	content *content
	plan    *delivery.Plan
	members []delivery.Member
	seen    map[string]bool // channel and address
	// refusal says why nothing can be sent on a channel; empty when it can.
	emailRefusal, smsRefusal string
}

// begin reads what all recipients of a call have in common.
func (s *Service) begin(
	r store.Reader, caller aws.Caller, app string, of *delivery.Call, m *pinpoint.DirectMessageConfiguration, t *pinpoint.TemplateConfiguration,
) (*draft, error) {
	ok, err := apps.Exists(r, caller.Account, app)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, apps.NotFound()
	}
	c, err := s.resolve(r, caller.Account, m, t)
	if err != nil {
		return nil, err
	}
	d := &draft{
		s: s, app: app, content: c, seen: map[string]bool{},
		plan: &delivery.Plan{ID: s.ids.Hex(), Account: caller.Account, App: app, Created: s.now().UTC(), Call: of},
	}
	return d, d.channels(r)
}

// channels reads the channels' settings: whether they may be used, and who the
// messages are from unless they say so themselves.
//
// Source: channels-and-events 1, Sending to a disabled channel.
func (d *draft) channels(r store.Reader) error {
	email, err := channels.Email(r, d.app)
	if err != nil {
		return err
	}
	switch from := &d.content.email.From; {
	case email == nil:
		d.emailRefusal = "The EMAIL channel is not set up"
	case !email.Enabled:
		d.emailRefusal = "The EMAIL channel is disabled"
	case *from == "" && email.Email.FromAddress == "":
		d.emailRefusal = "The EMAIL channel has no FromAddress"
	case *from == "":
		*from = email.Email.FromAddress
	}
	if d.emailRefusal == "" && !d.s.delivery.MaySend(d.content.email.From) {
		d.emailRefusal = "The FromAddress is not one that mail may come from"
	}
	sms, err := channels.SMS(r, d.app)
	if err != nil {
		return err
	}
	switch x := d.content.sms; {
	case sms == nil:
		d.smsRefusal = "The SMS channel is not set up"
	case !sms.Enabled:
		d.smsRefusal = "The SMS channel is disabled"
	case x.SenderID != "" || x.OriginationNumber != "":
	case sms.SMS.SenderID != "":
		x.SenderID = sms.SMS.SenderID
	default:
		x.OriginationNumber = sms.SMS.ShortCode
	}
	return nil
}

func refused(code int, why string) result {
	return result{DeliveryStatus: pinpoint.DeliveryStatusPermanentFailure, StatusCode: code, StatusMessage: &why}
}

func told(status pinpoint.DeliveryStatus, why string) result {
	return result{DeliveryStatus: status, StatusCode: 200, StatusMessage: &why}
}

// has reports whether the call says anything on a channel.
func (d *draft) has(channel string, o *delivery.Override) bool {
	switch channel {
	case delivery.ChannelEmail:
		return d.content.hasEmail || o.Body != ""
	case delivery.ChannelSMS:
		return d.content.hasSMS || o.Body != ""
	}
	return d.content.others[channel]
}

// endpoint judges an endpoint and, if it may be sent to, makes it a member. An
// INACTIVE one may: who names it explicitly reaches it.
//
// Source: engagement 9.4, 13.21.
func (d *draft) endpoint(key string, e *endpoints.Endpoint, o *delivery.Override) result {
	if e == nil {
		return refused(404, "There is no such endpoint")
	}
	var out result
	switch {
	case e.Address == "":
		out = refused(400, "The endpoint has no address")
	case e.ChannelType == "":
		out = refused(400, "The endpoint has no ChannelType")
	case e.OptedOut:
		out = told(pinpoint.DeliveryStatusOptOut, "The endpoint has opted out")
	default:
		out = d.add(delivery.Member{Key: []byte(key), Hash: segments.DispatchHash(d.app, e.ChannelType, e.Address)},
			e.ChannelType, e.Address, o)
	}
	if e.Address != "" {
		out.Address = &e.Address
	}
	return out
}

// address judges a raw address.
func (d *draft) address(address, channel string, o *delivery.Override) result {
	if channel == "" {
		return refused(400, "The address has no ChannelType")
	}
	if channel == delivery.ChannelSMS && address != "" && address[0] != '+' {
		address = "+" + address
	}
	m := delivery.Member{Channel: channel, Address: address, Hash: segments.DispatchHash(d.app, channel, address)}
	return d.add(m, channel, address, o)
}

// add judges a recipient by channel, content and address, and takes it in.
func (d *draft) add(m delivery.Member, channel, address string, o *delivery.Override) result {
	refusal := ""
	switch channel {
	case delivery.ChannelEmail:
		refusal = d.emailRefusal
	case delivery.ChannelSMS:
		refusal = d.smsRefusal
	default:
		refusal = "The channel " + channel + " cannot be sent on yet"
	}
	if refusal == "" && !d.has(channel, o) {
		refusal = "The request has no message for the channel " + channel
	}
	if refusal == "" {
		refusal = checkAddress(channel, address)
	}
	if refusal == "" {
		refusal = checkOverride(channel, o)
	}
	if refusal != "" {
		return refused(400, refusal)
	}
	at := channel + "\x00" + address
	if d.seen[at] {
		return told(pinpoint.DeliveryStatusDuplicate, "The address occurs more than once in the request")
	}
	d.seen[at] = true
	m.MessageID = d.s.ids.UUID()
	m.Override = d.override(o)
	message := m.MessageID
	if channel == delivery.ChannelEmail {
		d.plan.Email = d.content.email
	} else {
		d.plan.SMS = d.content.sms
		message = "MessageId: " + m.MessageID
	}
	d.members = append(d.members, m)
	return result{DeliveryStatus: pinpoint.DeliveryStatusSuccessful, StatusCode: 200, MessageId: &m.MessageID, StatusMessage: &message}
}

// override writes down what is said of one recipient only, and returns its place.
func (d *draft) override(o *delivery.Override) int {
	if o.Body == "" && o.Title == "" && len(o.Substitutions) == 0 && len(o.Context) == 0 {
		return 0
	}
	d.plan.Overrides = append(d.plan.Overrides, *o)
	return len(d.plan.Overrides)
}

// checkAddress says what is wrong with an address; empty when nothing is.
func checkAddress(channel, address string) string {
	if channel == delivery.ChannelEmail {
		if _, err := mail.ParseAddress(address); err != nil {
			return "The address is not a mailbox"
		}
		return ""
	}
	digits := strings.TrimPrefix(address, "+")
	if n := len(digits); n < 3 || n > 15 || strings.Trim(digits, "0123456789") != "" {
		return "The address is not a phone number in E.164 form"
	}
	return ""
}

// checkOverride says what is wrong with a recipient's own content.
func checkOverride(channel string, o *delivery.Override) string {
	html := channel == delivery.ChannelEmail
	if _, err := templates.Parse(o.Body, templates.Options{HTML: html}); err != nil {
		return "BodyOverride: " + err.Error()
	}
	if _, err := templates.Parse(o.Title, templates.Options{}); err != nil {
		return "TitleOverride: " + err.Error()
	}
	if err := checkChars("BodyOverride", o.Body); err != nil && !html {
		return err.Error()
	}
	return ""
}

func checkChars(member, body string) error {
	if utf8.RuneCountInString(body) > smsBodyMax {
		return aws.InvalidMember(member, "%s: longer than %d characters", member, smsBodyMax)
	}
	return nil
}

func overrideOf(body, title *string, substitutions map[string][]string, context map[string]string) *delivery.Override {
	return &delivery.Override{Body: deref(body), Title: deref(title), Substitutions: substitutions, Context: context}
}

// sendMessages answers SendMessages. Source: engagement 9.1.
func (s *Service) sendMessages(ctx context.Context, in *pinpoint.SendMessagesRequest) (*pinpoint.SendMessagesResponse, error) {
	const operation = "SendMessages"
	req, caller, app := in.MessageRequest, aws.CallerFrom(ctx), in.ApplicationId
	switch n := len(req.Addresses) + len(req.Endpoints); {
	case n == 0:
		return nil, aws.InvalidMember("Addresses", "Addresses or Endpoints: a message needs a recipient")
	case n > recipientsMax:
		return nil, aws.InvalidMember("Addresses", "Addresses and Endpoints: %d recipients, at most %d", n, recipientsMax)
	}
	r := s.store.Reader(ctx)
	key := s.callKey(caller, operation, app)
	out, err := again[pinpoint.MessageResponse](ctx, s, key)
	if err != nil {
		return nil, err
	}
	if out == nil {
		of := &delivery.Call{Operation: operation, TraceID: deref(req.TraceId), Context: req.Context}
		d, err := s.begin(r, caller, app, of, req.MessageConfiguration, req.TemplateConfiguration)
		if err != nil {
			return nil, err
		}
		answer := &pinpoint.MessageResponse{
			ApplicationId: app, RequestId: &caller.RequestID,
			Result: map[string]pinpoint.MessageResult{}, EndpointResult: map[string]result{},
		}
		for _, address := range slices.Sorted(maps.Keys(req.Addresses)) {
			c := req.Addresses[address]
			x := d.address(address, string(c.ChannelType), overrideOf(c.BodyOverride, c.TitleOverride, c.Substitutions, c.Context))
			answer.Result[address] = pinpoint.MessageResult{
				DeliveryStatus: x.DeliveryStatus, StatusCode: x.StatusCode, MessageId: x.MessageId, StatusMessage: x.StatusMessage,
			}
		}
		for _, id := range slices.Sorted(maps.Keys(req.Endpoints)) {
			c := req.Endpoints[id]
			k := endpoints.Key(s.store, app, id)
			e, err := endpoints.LoadKey(r, k)
			if err != nil {
				return nil, err
			}
			answer.EndpointResult[id] = d.endpoint(k, e, overrideOf(c.BodyOverride, c.TitleOverride, c.Substitutions, c.Context))
		}
		if out, err = commit(ctx, s, key, operation, d, answer); err != nil {
			return nil, err
		}
	}
	// Of the two results those are present that were asked for.
	if len(req.Addresses) == 0 {
		out.Result = nil
	}
	if len(req.Endpoints) == 0 {
		out.EndpointResult = nil
	}
	return &pinpoint.SendMessagesResponse{MessageResponse: out}, nil
}

// sendUsersMessages answers SendUsersMessages: every active endpoint of each
// user whose channel the call says something on. Source: engagement 9.2.
func (s *Service) sendUsersMessages(ctx context.Context, in *pinpoint.SendUsersMessagesRequest) (*pinpoint.SendUsersMessagesResponse, error) {
	const operation = "SendUsersMessages"
	req, caller, app := in.SendUsersMessageRequest, aws.CallerFrom(ctx), in.ApplicationId
	switch n := len(req.Users); {
	case n == 0:
		return nil, aws.InvalidMember("Users", "Users: a message needs a recipient")
	case n > recipientsMax:
		return nil, aws.InvalidMember("Users", "Users: %d users, at most %d", n, recipientsMax)
	}
	r := s.store.Reader(ctx)
	key := s.callKey(caller, operation, app)
	out, err := again[pinpoint.SendUsersMessageResponse](ctx, s, key)
	if err != nil || out != nil {
		return &pinpoint.SendUsersMessagesResponse{SendUsersMessageResponse: out}, err
	}
	of := &delivery.Call{Operation: operation, TraceID: deref(req.TraceId), Context: req.Context}
	d, err := s.begin(r, caller, app, of, req.MessageConfiguration, req.TemplateConfiguration)
	if err != nil {
		return nil, err
	}
	answer := &pinpoint.SendUsersMessageResponse{
		ApplicationId: app, RequestId: &caller.RequestID, Result: map[string]map[string]result{},
	}
	for _, user := range slices.Sorted(maps.Keys(req.Users)) {
		c := req.Users[user]
		results := map[string]result{}
		answer.Result[user] = results
		all, err := endpoints.UserEndpoints(r, app, user)
		if err != nil {
			return nil, err
		}
		o := overrideOf(c.BodyOverride, c.TitleOverride, c.Substitutions, c.Context)
		for _, e := range all {
			if e.Active() && d.has(e.ChannelType, o) {
				results[e.ID] = d.endpoint(endpoints.Key(s.store, app, e.ID), e, o)
			}
		}
	}
	if out, err = commit(ctx, s, key, operation, d, answer); err != nil {
		return nil, err
	}
	return &pinpoint.SendUsersMessagesResponse{SendUsersMessageResponse: out}, nil
}
