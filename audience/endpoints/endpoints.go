package endpoints

import (
	"log/slog"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// Config says what the room may do.
type Config struct {
	Limits Limits
}

// Service answers the endpoint and user operations, and writes endpoints for
// the rooms above. Create it with New; it is safe for concurrent use.
type Service struct {
	limits Limits
	store  *store.Store
	tokens *wire.Tokens
	ids    *aws.IDs
	now    func() time.Time
	log    *slog.Logger
	memory memory
	wake   chan struct{}
}

// New returns the room over a store. It starts nothing: call Mount, and Run
// for what it does in the background.
func New(cfg Config, st *store.Store, tokens *wire.Tokens, ids *aws.IDs, now func() time.Time, log *slog.Logger) *Service {
	return &Service{
		limits: cfg.Limits.withDefaults(), store: st, tokens: tokens, ids: ids, now: now,
		log:  log.With("component", "endpoints"),
		wake: make(chan struct{}, 1),
	}
}

// Mount hangs the room's operations on the mux.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.GetEndpoint, "apps/{ApplicationId}/endpoints/{EndpointId}", s.get)
	wire.Handle(m, pinpoint.UpdateEndpoint, "apps/{ApplicationId}/endpoints/{EndpointId}", s.update)
	wire.Handle(m, pinpoint.UpdateEndpointsBatch, "apps/{ApplicationId}", s.updateBatch)
	wire.Handle(m, pinpoint.DeleteEndpoint, "apps/{ApplicationId}/endpoints/{EndpointId}", s.delete)
	wire.Handle(m, pinpoint.GetUserEndpoints, "apps/{ApplicationId}/users/{UserId}", s.getUser)
	wire.Handle(m, pinpoint.DeleteUserEndpoints, "apps/{ApplicationId}/users/{UserId}", s.deleteUser)
	wire.Handle(m, pinpoint.RemoveAttributes, "apps/{ApplicationId}/attributes/{AttributeType}", s.removeAttributes)
}

// Contents names the rows that belong to an app and go with it.
func Contents() []apps.Content {
	var all []apps.Content
	for _, k := range []store.Kind{KindEndpoint, KindUser, kindNames, kindStrip} {
		all = append(all, apps.Content{Kind: k, Prefix: AppPrefix, App: AppOfKey})
	}
	return all
}

// Load returns an app's endpoint; nil when there is none.
func (s *Service) Load(r store.Reader, app, id string) (*Endpoint, error) {
	return LoadKey(r, Key(s.store, app, id))
}

// LoadKey returns the endpoint of a store key; nil when there is none.
func LoadKey(r store.Reader, key string) (*Endpoint, error) {
	body, err := r.Get(KindEndpoint, key)
	if err != nil || body == nil {
		return nil, err
	}
	return Read(AppOfKey(key), body)
}

// LoadUser returns what is known of a user beyond their endpoints; nil when
// that is nothing.
func (s *Service) LoadUser(r store.Reader, app, userID string) (*User, error) {
	body, err := r.Get(KindUser, UserKey(s.store, app, userID))
	if err != nil || body == nil {
		return nil, err
	}
	return ReadUser(app, body)
}

// UserEndpoints returns a user's endpoints, active or not, at most 1000; none
// when there is no such user.
func UserEndpoints(r store.Reader, app, userID string) ([]*Endpoint, error) {
	rows, err := r.Lookup(KindEndpoint, ByUser(app, userID), holdersMax)
	if err != nil {
		return nil, err
	}
	out := make([]*Endpoint, 0, len(rows))
	for _, row := range rows {
		e, err := Read(app, row.Body)
		if err != nil {
			return nil, err
		}
		if e != nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// Response is the endpoint as the API shows it, joined with its user, who may
// be nil. Absent members are left out, save User, which is then empty.
//
// Source: engagement 2.1.
func Response(e *Endpoint, u *User) *pinpoint.EndpointResponse {
	cohort := e.CohortID()
	out := &pinpoint.EndpointResponse{
		Address:        text(e.Address),
		ApplicationId:  &e.App,
		Attributes:     e.Attributes,
		ChannelType:    pinpoint.ChannelType(e.ChannelType),
		CohortId:       &cohort,
		CreationDate:   text(e.CreationDate),
		EffectiveDate:  text(e.EffectiveDate),
		EndpointStatus: pinpoint.EndpointStatus(e.Status),
		Id:             &e.ID,
		Metrics:        e.Metrics,
		OptOut:         pinpoint.OptOutNone,
		RequestId:      text(e.RequestID),
		User:           &pinpoint.EndpointUser{UserId: text(e.UserID), UserAttributes: e.UserAttributes},
	}
	if e.OptedOut {
		out.OptOut = pinpoint.OptOutAll
	}
	if u != nil && len(u.Attributes) > 0 {
		out.User.UserAttributes = u.Attributes
	}
	if d := e.Demographic; d != nil {
		out.Demographic = &pinpoint.EndpointDemographic{
			AppVersion: text(d["AppVersion"]), Locale: text(d["Locale"]), Make: text(d["Make"]), Model: text(d["Model"]),
			ModelVersion: text(d["ModelVersion"]), Platform: text(d["Platform"]),
			PlatformVersion: text(d["PlatformVersion"]), Timezone: text(d["Timezone"]),
		}
	}
	if l := e.Location; l != nil || e.HasLatitude || e.HasLongitude {
		out.Location = &pinpoint.EndpointLocation{
			City: text(l["City"]), Country: text(l["Country"]), PostalCode: text(l["PostalCode"]), Region: text(l["Region"]),
		}
		if e.HasLatitude {
			out.Location.Latitude = &e.Latitude
		}
		if e.HasLongitude {
			out.Location.Longitude = &e.Longitude
		}
	}
	return out
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
