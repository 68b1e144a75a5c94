package smpp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// Config is one route. Only Addresses and SystemID have no default.
type Config struct {
	// Route names the route in receipts, inbound texts and logs. Default "smpp".
	Route string
	// Addresses are the provider's host:port, tried in turn.
	Addresses []string
	// TLS encrypts the connections; nil means plain TCP, as most providers
	// inside a VPN expect. An empty ServerName is taken from the address.
	TLS *tls.Config

	SystemID   string // at most 15 octets
	Password   Secret // at most 8 octets
	SystemType string // at most 12 octets; often empty
	// AddressRange asks for the inbound texts of these numbers; often empty.
	AddressRange string

	// Binds is how many binds are kept, 1 to 64. Default 2.
	Binds int
	// Pair binds a transmitter and a receiver instead of each transceiver.
	Pair bool
	// Window is how many submit_sm may wait for answers on one bind, 1 to 1000. Default 10.
	Window int
	// Deliveries is how many deliver_sm of one bind may be under way; some
	// thousands more wait, and past those reading stops. Default 64.
	Deliveries int

	// EnquireEvery is the time between enquire_links. Default 30 s.
	EnquireEvery time.Duration
	// AnswerWithin is the time a provider has for an answer, and a Receiver for a
	// fact. Default 20 s.
	AnswerWithin time.Duration
	// ConnectWithin is the time for connecting, TLS and binding. Default 10 s.
	ConnectWithin time.Duration
	// BindPatience is how long Send waits while there is no bind. Default 5 s.
	BindPatience time.Duration
	// PacePatience is how long Send waits on a throttled route. Default 5 s.
	PacePatience time.Duration
	// ReconnectMin and ReconnectMax bound the wait before a new connection: it
	// is drawn between half of Min and a bound that doubles from Min to Max.
	// Default 1 s and 60 s.
	ReconnectMin, ReconnectMax time.Duration
	// HoldPart is how long a part of an inbound text stays unanswered while the
	// others are missing; less than the provider's response time-out. Default 5 s.
	HoldPart time.Duration
	// KeepParts is how long an incomplete inbound text is kept before it is
	// handed over as it is. Default 5 min.
	KeepParts time.Duration

	// Concatenation is how parts are tied together. Default UDH8.
	Concatenation Concatenation
	// ServiceType is sent with each submit_sm; at most 5 octets, often empty.
	ServiceType string
	// The numbering of senders by kind and of recipients. Nil means 1/1 for
	// E.164, 5/0 for names, 3/0 for short codes. Source: channels 2.5, Addresses.
	International, Alphanumeric, ShortCode, Recipient *Numbering
	// TrafficTag is the TLV that tells promotional from transactional texts by
	// the two values; 0 sends none.
	TrafficTag                           Tag
	PromotionalValue, TransactionalValue string
	// EntityTag, TemplateTag and ReferenceTag carry the DLT ids and our reference
	// when a text has them. 0 means 0x1400, 0x1401 and 0x1501; TagNone sends none.
	EntityTag, TemplateTag, ReferenceTag Tag
	// Statuses overrides [Status.Outcome] for the provider's own codes.
	Statuses map[Status]courier.Status
	// ReceiptZone is the zone of the dates in receipts. Default UTC.
	ReceiptZone *time.Location
}

// TagNone in a Config sends no such TLV.
const TagNone Tag = 0xffff

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// complete fills the defaults in and checks the rest.
func (cfg *Config) complete() error {
	orDefault(&cfg.Route, "smpp")
	orDefault(&cfg.Binds, 2)
	orDefault(&cfg.Window, 10)
	orDefault(&cfg.Deliveries, 64)
	orDefault(&cfg.EnquireEvery, 30*time.Second)
	orDefault(&cfg.AnswerWithin, 20*time.Second)
	orDefault(&cfg.ConnectWithin, 10*time.Second)
	orDefault(&cfg.BindPatience, 5*time.Second)
	orDefault(&cfg.PacePatience, 5*time.Second)
	orDefault(&cfg.ReconnectMin, time.Second)
	orDefault(&cfg.ReconnectMax, time.Minute)
	orDefault(&cfg.HoldPart, 5*time.Second)
	orDefault(&cfg.KeepParts, 5*time.Minute)
	orDefault(&cfg.International, &international)
	orDefault(&cfg.Alphanumeric, &alphanumeric)
	orDefault(&cfg.ShortCode, &shortCode)
	orDefault(&cfg.Recipient, &international)
	orDefault(&cfg.EntityTag, TagEntityID)
	orDefault(&cfg.TemplateTag, TagTemplateID)
	orDefault(&cfg.ReferenceTag, TagReference)
	orDefault(&cfg.ReceiptZone, time.UTC)
	for _, d := range []time.Duration{
		cfg.EnquireEvery, cfg.AnswerWithin, cfg.ConnectWithin, cfg.BindPatience, cfg.PacePatience,
		cfg.ReconnectMin, cfg.HoldPart, cfg.KeepParts,
	} {
		if d < 0 {
			return errors.New("smpp: a duration is negative")
		}
	}
	for status, outcome := range cfg.Statuses {
		if status == StatusOK || outcome != courier.Accepted && outcome != courier.Deferred && outcome != courier.Refused {
			return fmt.Errorf("smpp: status %s cannot mean %s", status, outcome)
		}
	}
	switch {
	case len(cfg.Addresses) == 0:
		return errors.New("smpp: no address to connect to")
	case cfg.SystemID == "":
		return errors.New("smpp: no system id")
	case cfg.Binds < 1 || cfg.Binds > 64:
		return fmt.Errorf("smpp: %d binds, 1 to 64 are allowed", cfg.Binds)
	case cfg.Window < 1 || cfg.Window > 1000:
		return fmt.Errorf("smpp: a window of %d, 1 to 1000 is allowed", cfg.Window)
	case cfg.Deliveries < 1:
		return fmt.Errorf("smpp: %d deliveries at once", cfg.Deliveries)
	case cfg.ReconnectMax < cfg.ReconnectMin:
		return errors.New("smpp: ReconnectMax is below ReconnectMin")
	case cfg.Concatenation > Payload:
		return fmt.Errorf("smpp: no concatenation %d", cfg.Concatenation)
	case len(cfg.ServiceType) > 5:
		return fmt.Errorf("smpp: service type %q has more than 5 octets", cfg.ServiceType)
	}
	// What the codec refuses in a bind is refused now, not at every connection.
	if _, err := Append(nil, PDU{Command: BindTransceiver, Sequence: 1, Body: cfg.bind()}); err != nil {
		return fmt.Errorf("smpp: %w", err)
	}
	return nil
}

// bind is the body of the route's bind requests.
func (cfg *Config) bind() *Bind {
	return &Bind{
		SystemID: cfg.SystemID, Password: cfg.Password, SystemType: cfg.SystemType,
		InterfaceVersion: 0x34, AddressRange: cfg.AddressRange,
	}
}
