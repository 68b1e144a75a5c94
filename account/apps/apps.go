package apps

import (
	"log/slog"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Kind is the family of app rows; their key is the app's id.
var Kind = store.Kind{Name: "app", Rule: changelog.RuleDocument, Safety: true}

// An App is an app as it is stored.
type App struct {
	Account      string            // 12 digits; whose it is
	ID           string            // 32 hex digits
	Name         string            // 1 to 64 characters; empty in a tombstone
	Tags         map[string]string `json:",omitempty"`
	CreationDate string            // in the form of the wire
	DeletedAt    string            `json:",omitempty"` // of a tombstone; empty while the app lives
	Settings     Settings
}

// Settings are the defaults that an app gives to its campaigns and journeys.
// A nil member was never set.
type Settings struct {
	CampaignHook             *pinpoint.CampaignHook                     `json:",omitempty"`
	Limits                   *pinpoint.CampaignLimits                   `json:",omitempty"`
	QuietTime                *pinpoint.QuietTime                        `json:",omitempty"`
	JourneyLimits            *pinpoint.ApplicationSettingsJourneyLimits `json:",omitempty"`
	CloudWatchMetricsEnabled bool                                       `json:",omitempty"`
	EventTaggingEnabled      bool                                       `json:",omitempty"` // kept, without effect
	LastModifiedDate         string                                     `json:",omitempty"`
}

// Config bounds what an account may have.
type Config struct {
	// AppsMax is how many apps an account may have in this Region; 0 means 100,
	// the original's quota. At most 1000.
	AppsMax int
}

const (
	appsMaxDefault = 100
	appsMaxCeiling = 1000 // of rows under one index value that an update sees
	nameLengthMax  = 64   // characters. Source: engagement 1.1
)

// Service answers the app operations and purges what deleted apps leave
// behind. Create it with New; it is safe for concurrent use.
type Service struct {
	cfg      Config
	store    *store.Store
	tokens   *wire.Tokens
	ids      *aws.IDs
	now      func() time.Time
	log      *slog.Logger
	contents []Content
	orders   Orders // nil: none can be given
	wake     chan struct{}
}

// New returns the room over a store. It starts nothing: call Mount, and Run
// for the purge.
func New(cfg Config, st *store.Store, tokens *wire.Tokens, ids *aws.IDs, now func() time.Time, log *slog.Logger) *Service {
	if cfg.AppsMax <= 0 {
		cfg.AppsMax = appsMaxDefault
	}
	cfg.AppsMax = min(cfg.AppsMax, appsMaxCeiling)
	return &Service{
		cfg: cfg, store: st, tokens: tokens, ids: ids, now: now,
		log:  log.With("component", "apps"),
		wake: make(chan struct{}, 1),
	}
}

// Mount hangs the room's operations on the mux.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.CreateApp, "apps", s.create)
	wire.Handle(m, pinpoint.GetApps, "apps", s.list)
	wire.Handle(m, pinpoint.GetApp, "apps/{ApplicationId}", s.get)
	wire.Handle(m, pinpoint.DeleteApp, "apps/{ApplicationId}", s.delete)
	if s.orders != nil {
		wire.Order(m, pinpoint.DeleteApp, s.orderDelete)
	}
	wire.Handle(m, pinpoint.GetApplicationSettings, "apps/{ApplicationId}", s.getSettings)
	wire.Handle(m, pinpoint.UpdateApplicationSettings, "apps/{ApplicationId}", s.updateSettings)
}

// Decode reads a row of Kind, which may be a tombstone.
func Decode(body []byte) (*App, error) { return store.Decode[App](Kind, body) }

// Get returns a living app whosever it is, for work that already knows it; nil
// when there is none.
func Get(r store.Reader, app string) (*App, error) {
	a, err := store.Load[App](r, Kind, app)
	if err != nil || a == nil || a.DeletedAt != "" {
		return nil, err
	}
	return a, nil
}

// Exists reports whether the account has the app. Another account's app does
// not exist for it.
func Exists(r store.Reader, account, app string) (bool, error) {
	a, err := Get(r, app)
	return a != nil && a.Account == account, err
}

// SettingsOf returns a living app's settings; nil when there is no such app.
func SettingsOf(r store.Reader, app string) (*Settings, error) {
	a, err := Get(r, app)
	if a == nil {
		return nil, err
	}
	return &a.Settings, nil
}

// TagsOf returns the tags of an account's app.
func TagsOf(r store.Reader, account, app string) (map[string]string, error) {
	a, err := own(r, account, app)
	if err != nil {
		return nil, err
	}
	return a.Tags, nil
}

// SetTags replaces the tags of an account's app.
func SetTags(tx *store.Tx, account, app string, tags map[string]string) error {
	a, err := own(tx, account, app)
	if err != nil {
		return err
	}
	a.Tags = tags
	return save(tx, a)
}

// NotFound is the fault for an app that the caller does not have.
//
// Source: engagement 12, "Resource not found".
func NotFound() error { return aws.NotFound("Resource not found") }

// own returns the account's app, or the fault that there is none.
func own(r store.Reader, account, app string) (*App, error) {
	a, err := Get(r, app)
	if err != nil {
		return nil, err
	}
	if a == nil || a.Account != account {
		return nil, NotFound()
	}
	return a, nil
}

func byAccount(account string) store.Index { return store.Index{Name: "account", Value: account} }

func save(tx *store.Tx, a *App) error { return store.Save(tx, Kind, a.ID, a, byAccount(a.Account)) }

// ARN names an app in the Region that processes a request.
func ARN(region, account, app string) string {
	return aws.ARN{Service: "mobiletargeting", Region: region, Account: account, Resource: "apps/" + app}.String()
}
