package channels

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// A Type names a channel in the API's words. Source: channels-and-events 1.
type Type string

// The types.
const (
	TypeADM             Type = "ADM"
	TypeAPNS            Type = "APNS"
	TypeAPNSSandbox     Type = "APNS_SANDBOX"
	TypeAPNSVoip        Type = "APNS_VOIP"
	TypeAPNSVoipSandbox Type = "APNS_VOIP_SANDBOX"
	TypeBaidu           Type = "BAIDU"
	TypeEmail           Type = "EMAIL"
	TypeGCM             Type = "GCM"
	TypeSMS             Type = "SMS"
	TypeVoice           Type = "VOICE"
)

// id is the channel's name as it stands in paths and in the member Id.
func (t Type) id() string { return strings.ToLower(string(t)) }

// kind rows are keyed by app and type.
var kind = store.Kind{Name: "channel", Rule: changelog.RuleDocument, Safety: true}

func key(app string, t Type) string { return app + "/" + string(t) }

// Contents names the rows that belong to an app and go with it.
func Contents() []apps.Content {
	return []apps.Content{{Kind: kind, Prefix: func(app string) string { return app + "/" }}}
}

// A Channel is a channel's settings as they are stored. Of the pointers only
// that of its type is set; of VOICE none.
type Channel struct {
	App              string
	Type             Type
	Enabled          bool
	Version          int // from 1
	CreationDate     string
	LastModifiedDate string
	LastModifiedBy   string `json:",omitempty"` // ARN of a principal

	ADM   *ADMSettings   `json:",omitempty"`
	APNS  *APNSSettings  `json:",omitempty"` // of all four
	Baidu *BaiduSettings `json:",omitempty"`
	Email *EmailSettings `json:",omitempty"`
	GCM   *GCMSettings   `json:",omitempty"`
	SMS   *SMSSettings   `json:",omitempty"`
}

// A Secret is a credential. It does not print; what needs its text converts it.
type Secret string

const hidden = "***"

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format hides the secret from every verb of package fmt.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue hides the secret from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// ADMSettings are a client of Amazon Device Messaging.
type ADMSettings struct {
	ClientID     Secret
	ClientSecret Secret
}

// APNSSettings hold an app's names at Apple and either of two credentials.
type APNSSettings struct {
	BundleID string `json:",omitempty"`

	// The signing key (.p8) of a team.
	TeamID     string `json:",omitempty"`
	TokenKey   Secret `json:",omitempty"`
	TokenKeyID string `json:",omitempty"`

	// A certificate of the app and its key, in PEM.
	Certificate Secret `json:",omitempty"`
	PrivateKey  Secret `json:",omitempty"`

	DefaultMethod string `json:",omitempty"` // as given: key or certificate
}

// Token reports whether messages can be signed with a key.
func (a *APNSSettings) Token() bool {
	return a.BundleID != "" && a.TeamID != "" && a.TokenKey != "" && a.TokenKeyID != ""
}

// Certified reports whether connections can be made with a certificate.
func (a *APNSSettings) Certified() bool { return a.Certificate != "" && a.PrivateKey != "" }

// UsesToken reports which of the two credentials the channel prefers: the
// default that was set, else the one there is; a key when there are both.
func (a *APNSSettings) UsesToken() bool {
	switch strings.ToLower(a.DefaultMethod) {
	case methodKey:
		return true
	case methodCertificate:
		return false
	}
	return a.Token() || !a.Certified()
}

// APNs' and FCM's authentication methods, in lower case.
const (
	methodKey         = "key"
	methodCertificate = "certificate"
	methodToken       = "token"
)

// BaiduSettings are an app's keys at Baidu.
type BaiduSettings struct {
	APIKey    Secret
	SecretKey Secret
}

// GCMSettings are an app's credentials at Firebase.
type GCMSettings struct {
	APIKey        Secret `json:",omitempty"` // of the interface that Google switched off
	ServiceJSON   Secret `json:",omitempty"` // text of a service-account file
	DefaultMethod string `json:",omitempty"` // as given: TOKEN or KEY
}

// Method is TOKEN or KEY: what was set, else KEY, unless only a service account
// is there. Source: channels-and-events 1, 14.
func (g *GCMSettings) Method() string {
	switch {
	case g.DefaultMethod != "":
		return strings.ToUpper(g.DefaultMethod)
	case g.ServiceJSON != "" && g.APIKey == "":
		return "TOKEN"
	}
	return "KEY"
}

// EmailSettings say who an app's mail is from.
type EmailSettings struct {
	FromAddress          string // may hold a display name
	Identity             string // ARN of an email address or a domain
	ConfigurationSet     string `json:",omitempty"`
	RoleARN              string `json:",omitempty"`
	OrchestrationRoleARN string `json:",omitempty"`
}

// SMSSettings say who an app's SMS are from, unless a message says it.
type SMSSettings struct {
	SenderID  string `json:",omitempty"`
	ShortCode string `json:",omitempty"`
}

// HasCredential reports whether there is what a message of the channel needs.
//
// Source: channels-and-events 1, HasCredential.
func (c *Channel) HasCredential() bool {
	switch {
	case c.APNS != nil:
		return c.APNS.Token() || c.APNS.Certified()
	case c.GCM != nil:
		return c.GCM.APIKey != "" || c.GCM.ServiceJSON != ""
	case c.ADM != nil:
		return c.ADM.ClientID != "" && c.ADM.ClientSecret != ""
	case c.Baidu != nil:
		return c.Baidu.APIKey != "" && c.Baidu.SecretKey != ""
	}
	return true // an email identity and numbers are the account's
}

// Load returns an app's channel with its secrets; nil when it was never put.
func Load(r store.Reader, app string, t Type) (*Channel, error) {
	return store.Load[Channel](r, kind, key(app, t))
}

// Email returns an app's email channel, whose Email is set; nil when there is none.
func Email(r store.Reader, app string) (*Channel, error) { return Load(r, app, TypeEmail) }

// SMS returns an app's SMS channel, whose SMS is set; nil when there is none.
func SMS(r store.Reader, app string) (*Channel, error) { return Load(r, app, TypeSMS) }

// Enabled reports whether an app may send by the channel: it exists, is
// switched on and has what it needs.
func Enabled(r store.Reader, app string, t Type) (bool, error) {
	c, err := Load(r, app, t)
	return c != nil && c.Enabled && c.HasCredential(), err
}

// Config says what the channels of an installation can do.
type Config struct {
	// EmailPerSecond is shown as the email channel's MessagesPerSecond; 0 shows none.
	EmailPerSecond int
	// SMSPromotionalPerSecond and SMSTransactionalPerSecond are shown by the SMS
	// channel; 0 shows none.
	SMSPromotionalPerSecond   int
	SMSTransactionalPerSecond int
}

// Service answers the channel operations. Create it with New; it is safe for
// concurrent use.
type Service struct {
	cfg   Config
	store *store.Store
	now   func() time.Time
}

// New returns the room over a store.
func New(cfg Config, st *store.Store, now func() time.Time) *Service {
	return &Service{cfg: cfg, store: st, now: now}
}

// ARN names a channel in the Region that processes a request.
func ARN(region, account, app string, t Type) string {
	return aws.ARN{Service: "mobiletargeting", Region: region, Account: account, Resource: "apps/" + app + "/channels/" + t.id()}.String()
}
