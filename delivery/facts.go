package delivery

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/store"
)

// record is an event record as destinations get it. Members without content are
// left out; sdk, platform and session are empty objects.
//
// Source: channels-and-events 9.1.
type record struct {
	EventType     string             `json:"event_type"`
	Timestamp     int64              `json:"event_timestamp"`
	Arrival       int64              `json:"arrival_timestamp"`
	Version       string             `json:"event_version"`
	Application   application        `json:"application"`
	Client        client             `json:"client"`
	Device        device             `json:"device"`
	Session       struct{}           `json:"session"`
	Attributes    map[string]string  `json:"attributes"`
	Metrics       map[string]float64 `json:"metrics,omitempty"`
	ClientContext *clientContext     `json:"client_context,omitempty"`
	Account       string             `json:"awsAccountId"`
	Facets        *facets            `json:"facets,omitempty"`
}

type application struct {
	AppID string   `json:"app_id"`
	SDK   struct{} `json:"sdk"`
}

type client struct {
	ID string `json:"client_id"`
}

type device struct {
	Platform struct{} `json:"platform"`
}

type clientContext struct {
	Custom map[string]string `json:"custom"`
}

type facets struct {
	Email struct {
		Event map[string]any `json:"mail_event"`
	} `json:"email_channel"`
}

// telling is what the facts of one message have in common.
type telling struct {
	plan      *Plan
	messageID string
	channel   string
	address   string
	endpoint  *endpoints.Endpoint // nil for a raw address
	member    *Member
	override  *Override
	from      string // sender, once it is known
	subject   string
	at        time.Time
}

func (t *telling) clientID() string {
	if t.endpoint != nil {
		return t.endpoint.ID
	}
	return t.messageID
}

func (t *telling) base(eventType string) *record {
	return &record{
		EventType: eventType, Timestamp: t.at.UnixMilli(), Arrival: t.at.UnixMilli(), Version: "3.1",
		Application: application{AppID: t.plan.App}, Client: client{t.clientID()},
		Attributes: t.attributes(), Account: t.plan.Account,
	}
}

func (t *telling) attributes() map[string]string {
	a := map[string]string{}
	if c := t.plan.Campaign; c != nil {
		a["campaign_id"], a["campaign_activity_id"], a["treatment_id"] = c.ID, c.Activity, c.Treatment
	}
	return a
}

// context is what a direct call carries along, the recipient's own values first.
func (t *telling) context() map[string]string {
	if t.plan.Call == nil {
		return nil
	}
	out := map[string]string{}
	for k, v := range t.plan.Call.Context {
		out[k] = v
	}
	if t.override != nil {
		for k, v := range t.override.Context {
			out[k] = v
		}
	}
	return out
}

// tell appends a fact. Its id is made from the message and what happened, so
// that the same happening told twice is one fact to whoever drops repeats.
func tell(tx *store.Tx, t *telling, r *record, happening string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	eventlog.Append(tx, eventlog.Fact{
		ID: t.messageID + "/" + happening, Account: t.plan.Account, App: t.plan.App,
		Type: r.EventType, Client: t.clientID(), Data: data,
	})
	return nil
}

// tellCampaignSend appends _campaign.send, one for each attempted endpoint and
// for those held for a reason that has a status. Source: channels 9.3.
func tellCampaignSend(tx *store.Tx, t *telling, status, code, message string) error {
	if t.plan.Campaign == nil {
		return nil
	}
	r := t.base("_campaign.send")
	r.Attributes["delivery_type"] = t.channel
	r.Attributes["campaign_send_status"] = status
	if code != "" {
		r.Attributes["campaign_send_status_code"] = code
	}
	if message != "" {
		r.Attributes["campaign_send_status_message"] = message
	}
	if e := t.endpoint; e != nil {
		if e.UserID != "" {
			r.Attributes["user_id"] = e.UserID
		}
		custom, err := json.Marshal(endpointContext(e))
		if err != nil {
			return err
		}
		r.ClientContext = &clientContext{map[string]string{"endpoint": string(custom)}}
	}
	return tell(tx, t, r, "campaign.send/"+status)
}

func endpointContext(e *endpoints.Endpoint) any {
	type user struct {
		UserID string `json:"UserId"`
	}
	c := struct {
		ChannelType    string
		EndpointStatus string
		OptOut         string
		RequestID      string            `json:"RequestId,omitempty"`
		EffectiveDate  string            `json:",omitempty"`
		Demographic    map[string]string `json:",omitempty"`
		User           *user             `json:",omitempty"`
	}{e.ChannelType, e.Status, optOutOf(e), e.RequestID, e.EffectiveDate, e.Demographic, nil}
	if e.UserID != "" {
		c.User = &user{e.UserID}
	}
	return c
}

// tellEmail appends an _email.* fact. member is the typed part of the facet,
// such as "send" or "bounce". Source: channels 9.5.
func tellEmail(tx *store.Tx, t *telling, event, feedback, member string, detail map[string]any) error {
	r := t.base("_email." + event)
	r.Attributes["feedback"] = feedback
	for k, v := range t.context() {
		r.Attributes[k] = v
	}
	r.ClientContext = &clientContext{map[string]string{"legacy_identifier": t.plan.App}}
	if detail == nil {
		detail = map[string]any{}
	}
	r.Facets = &facets{}
	r.Facets.Email.Event = map[string]any{
		"mail": map[string]any{
			"message_id": t.messageID, "message_send_timestamp": t.at.UnixMilli(), "from_address": t.from,
			"destination": []string{t.address}, "headers_truncated": false,
			"headers":        []map[string]string{{"name": "Subject", "value": t.subject}},
			"common_headers": map[string]any{"from": t.from, "to": []string{t.address}, "subject": t.subject},
		},
		member: detail,
	}
	return tell(tx, t, r, "email."+event)
}

// bounce is the facet of _email.hardbounce and _email.softbounce.
func (t *telling) bounce(kind, subType string, e *Entry) map[string]any {
	status := "5.0.0"
	if kind == "Transient" {
		status = "4.0.0"
	}
	if code, rest, ok := strings.Cut(e.Detail, " "); ok && looksEnhanced(code) {
		status = code
		_ = rest
	}
	return map[string]any{
		"bounce_type": kind, "bounce_sub_type": subType, "feedback_id": t.messageID,
		"bounced_recipients": []map[string]string{{
			"email_address": t.address, "action": "failed", "status": status,
			"diagnostic_code": strings.TrimSpace("smtp; " + e.Code + " " + e.Detail),
		}},
	}
}

func looksEnhanced(s string) bool {
	return len(s) >= 5 && (s[0] == '2' || s[0] == '4' || s[0] == '5') && s[1] == '.'
}

// tellSMS appends an _SMS.* fact. Source: channels 9.6.
func tellSMS(tx *store.Tx, t *telling, event, status, country string, parts int) error {
	r := t.base("_SMS." + event)
	r.Attributes["sender_request_id"] = t.messageID
	r.Attributes["origination_phone_number"] = t.from
	r.Attributes["destination_phone_number"] = t.address
	r.Attributes["record_status"] = status
	r.Attributes["number_of_message_parts"] = strconv.Itoa(max(parts, 1))
	r.Attributes["message_id"] = t.messageID
	r.Attributes["message_type"] = "Transactional"
	if t.plan.SMS != nil && t.plan.SMS.Promotional {
		r.Attributes["message_type"] = "Promotional"
	}
	if country != "" {
		r.Attributes["iso_country_code"] = country
	}
	if t.plan.SMS != nil && t.plan.SMS.Keyword != "" {
		r.Attributes["keyword"] = t.plan.SMS.Keyword
	}
	if c := t.context(); len(c) > 0 {
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		r.Attributes["customer_context"] = string(text)
	}
	return tell(tx, t, r, "sms."+event+"/"+status)
}
