package events

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// Limits bound what PutEvents accepts. A zero member means its default.
//
// Source: channels-and-events 10, 13; engagement 10.
type Limits struct {
	EventsPerRequest int // and items; default 100
	RequestBytes     int // of all names and values together; default 4 MiB
	EventBytes       int // of one event's names and values; default 1,000 KiB
	KeysPerEvent     int // attributes and metrics; default 40
	KeyLength        int // characters; default 50
	ValueLength      int // characters of an attribute's value; default 200
	EventTypes       int // custom ones, of an app; default 1,500
	AttributeKeys    int // custom ones, of an app; default 500
	MetricKeys       int // custom ones, of an app; default 500
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		to    *int
		value int
	}{
		{&l.EventsPerRequest, 100},
		{&l.RequestBytes, 4 << 20},
		{&l.EventBytes, 1000 << 10},
		{&l.KeysPerEvent, 40},
		{&l.KeyLength, 50},
		{&l.ValueLength, 200},
		{&l.EventTypes, 1500},
		{&l.AttributeKeys, 500},
		{&l.MetricKeys, 500},
	} {
		if *d.to <= 0 {
			*d.to = d.value
		}
	}
	return l
}

// Config says what the room may do.
type Config struct {
	Limits Limits
	// Regions are those of the group, whose streams an app may name besides the
	// ones of the Region that processes the request.
	Regions []string
}

// Service answers PutEvents and the event stream operations. Create it with
// New; it is safe for concurrent use.
type Service struct {
	limits    Limits
	regions   []string
	store     *store.Store
	endpoints *endpoints.Service
	now       func() time.Time
	log       *slog.Logger
	owners    owners
	names     namesMemory
}

// New returns the room over a store. It starts nothing: call Mount, and Run
// for what it does in the background.
func New(cfg Config, st *store.Store, ep *endpoints.Service, now func() time.Time, log *slog.Logger) *Service {
	return &Service{
		limits: cfg.Limits.withDefaults(), regions: cfg.Regions, store: st, endpoints: ep, now: now,
		log: log.With("component", "events"),
	}
}

// Mount hangs the room's operations on the mux.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.PutEvents, "apps/{ApplicationId}/events", s.put)
	wire.Handle(m, pinpoint.PutEventStream, "apps/{ApplicationId}/eventstream", s.putStream)
	wire.Handle(m, pinpoint.GetEventStream, "apps/{ApplicationId}/eventstream", s.getStream)
	wire.Handle(m, pinpoint.DeleteEventStream, "apps/{ApplicationId}/eventstream", s.deleteStream)
}

// Contents names the rows that belong to an app and go with it. What is
// remembered of its events goes by itself.
func Contents() []apps.Content {
	prefix := func(app string) string { return app }
	return []apps.Content{{Kind: kindNames, Prefix: prefix}, {Kind: kindStream, Prefix: prefix}}
}

// Run forgets what is too old to be a repeat until ctx ends. Any number of
// nodes may run it.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(forgetInterval)
	defer tick.Stop()
	for {
		if err := s.forget(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "old event ids not forgotten; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// owners remembers whose an app is, by the bytes of its row, so that it need
// not be decoded for each request and is never out of date.
type owners struct {
	mu   sync.Mutex
	apps map[string]owner
}

type owner struct {
	body    []byte
	account string // empty when the app is deleted
}

// rememberedMax bounds what is remembered of apps; it starts over when full.
const rememberedMax = 4096

// check returns the fault that the account has no such app, if it has none.
func (o *owners) check(r store.Reader, account, app string) error {
	body, err := r.Get(apps.Kind, app)
	if err != nil {
		return err
	}
	if body == nil {
		return apps.NotFound()
	}
	o.mu.Lock()
	known, ok := o.apps[app]
	o.mu.Unlock()
	if !ok || !bytes.Equal(known.body, body) {
		a, err := apps.Decode(body)
		if err != nil {
			return err
		}
		known = owner{body: body, account: a.Account}
		if a.DeletedAt != "" {
			known.account = ""
		}
		o.mu.Lock()
		if o.apps == nil || len(o.apps) >= rememberedMax {
			o.apps = map[string]owner{}
		}
		o.apps[strings.Clone(app)] = known
		o.mu.Unlock()
	}
	if known.account == "" || known.account != account {
		return apps.NotFound()
	}
	return nil
}
