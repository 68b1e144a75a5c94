package campaigns

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// The rows this room owns. Keys start with the app's id and a slash, so that
// they go with the app; versions and activities follow their campaign's id.
var (
	kindCampaign = store.Kind{Name: "campaign", Rule: changelog.RuleDocument, Safety: true}
	kindVersion  = store.Kind{Name: "campaign.version", Rule: changelog.RuleDocument, Safety: true}
	kindActivity = store.Kind{Name: "campaign.activity", Rule: changelog.RuleDocument, Safety: true}
	kindPart     = store.Kind{Name: "campaign.part", Rule: changelog.RuleDocument, Safety: true}
)

// Campaign is a campaign as it is stored: what the API shows, and what it does
// not. Arn is empty; it names the Region that answers.
type Campaign struct {
	pinpoint.CampaignResponse
	Account string
	// DefaultStatus is the status of the default treatment.
	DefaultStatus pinpoint.CampaignStatus
	// AppLimits and AppQuietTime are the app's defaults when the campaign was made.
	AppLimits    *pinpoint.CampaignLimits `json:",omitempty"`
	AppQuietTime *pinpoint.QuietTime      `json:",omitempty"`
	// Activities are the ids of the present run's activities, by treatment.
	Activities []string `json:",omitempty"`
	DeletedAt  string   `json:",omitempty"` // empty while it lives
}

// FindSegment finds a version of an app's segment, the latest for version 0; nil
// when there is none.
type FindSegment func(r store.Reader, app, id string, version int) (*pinpoint.SegmentResponse, error)

// Config bounds what the room does.
type Config struct {
	// ActiveMax is how many active campaigns an account may have; 0 means 200.
	ActiveMax int
	// Workers is how many activities this node walks at once; 0 means 16.
	Workers int
	// BlocksAhead is how many full blocks of recipients may be claimed and not
	// yet have a fate; 0 means 8.
	BlocksAhead int
	// PollInterval is how often a run that waits looks again; 0 means 20 ms.
	PollInterval time.Duration
}

// Service answers the campaign operations and runs campaigns. Create it with
// New; it is safe for concurrent use.
type Service struct {
	cfg      Config
	store    *store.Store
	queue    *queue.Queue
	delivery *delivery.Service
	duty     group.Duty
	orders   Orders
	index    *segments.Index
	segment  FindSegment
	tokens   *wire.Tokens
	ids      *aws.IDs
	now      func() time.Time
	log      *slog.Logger

	mu   sync.Mutex
	kept map[string]*seen // by activity, of runs that this node works
}

// New returns the room. It starts nothing: call Mount, and keep the queue running.
func New(
	cfg Config, st *store.Store, q *queue.Queue, d *delivery.Service, duty group.Duty, index *segments.Index, segment FindSegment,
	tokens *wire.Tokens, ids *aws.IDs, now func() time.Time, log *slog.Logger,
) *Service {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&cfg.ActiveMax, 200)
	set(&cfg.Workers, 16)
	set(&cfg.BlocksAhead, 8)
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = 20 * time.Millisecond
	}
	s := &Service{
		cfg: cfg, store: st, queue: q, delivery: d, duty: duty, orders: (*quorum.Quorum)(nil), index: index, segment: segment,
		tokens: tokens, ids: ids, now: now, log: log.With("component", "campaigns"), kept: map[string]*seen{},
	}
	d.OnClaim(s.claimed)
	d.Stops(s.ordered, stopped)
	d.Ended(s.ended)
	return s
}

// Mount hangs the room's operations on the mux and its work on the queue.
func (s *Service) Mount(m *wire.Mux) {
	const app, one = "apps/{ApplicationId}", "apps/{ApplicationId}/campaigns/{CampaignId}"
	wire.Handle(m, pinpoint.CreateCampaign, app, s.create)
	wire.Handle(m, pinpoint.GetCampaigns, app, s.list)
	wire.Handle(m, pinpoint.GetCampaign, one, s.get)
	wire.Handle(m, pinpoint.UpdateCampaign, one, s.update)
	wire.Handle(m, pinpoint.DeleteCampaign, one, s.delete)
	wire.Handle(m, pinpoint.GetCampaignVersion, one, s.getVersion)
	wire.Handle(m, pinpoint.GetCampaignVersions, one, s.listVersions)
	wire.Handle(m, pinpoint.GetCampaignActivities, one, s.listActivities)

	wire.Order(m, pinpoint.UpdateCampaign, s.orderUpdate)
	wire.Order(m, pinpoint.DeleteCampaign, s.orderDelete)

	wire.Handle(m, everpoint.GetCampaignRun, one, s.getRun)
	wire.Handle(m, everpoint.GetCampaignReconciliation, one, s.reconcile)
	wire.Handle(m, everpoint.GetCampaignSendingPolicy, one, s.getCampaignPolicy)
	wire.Handle(m, everpoint.PutCampaignSendingPolicy, one, s.putCampaignPolicy)
	wire.Handle(m, everpoint.GetSendingPolicy, app, s.getPolicy)
	wire.Handle(m, everpoint.PutSendingPolicy, app, s.putPolicy)
	wire.Handle(m, everpoint.ListAmbiguousSends, app, s.listAmbiguous)

	queue.HandleWhile(s.queue, workRun, s.cfg.Workers, s.duty.Here, s.run)
}

// Contents names the rows that belong to an app and go with it.
func Contents() []apps.Content {
	var all []apps.Content
	for _, k := range []store.Kind{kindCampaign, kindVersion, kindActivity, kindPart} {
		all = append(all, apps.Content{Kind: k, Prefix: func(app string) string { return app + "/" }})
	}
	return all
}

// TagsOf returns the tags of an account's campaign.
func TagsOf(r store.Reader, account, app, campaign string) (map[string]string, error) {
	c, err := own(r, account, app, campaign)
	if err != nil {
		return nil, err
	}
	return c.Tags, nil
}

// SetTags replaces the tags of an account's campaign.
func SetTags(tx *store.Tx, account, app, campaign string, tags map[string]string) error {
	c, err := own(tx, account, app, campaign)
	if err != nil {
		return err
	}
	c.Tags = tags
	return save(tx, c)
}

func campaignKey(app, campaign string) string { return app + "/" + campaign }

// load returns a campaign, deleted or not; nil when there never was one.
func load(r store.Reader, app, campaign string) (*Campaign, error) {
	return store.Load[Campaign](r, kindCampaign, campaignKey(app, campaign))
}

// own returns an account's living campaign, or the fault that there is none.
func own(r store.Reader, account, app, campaign string) (*Campaign, error) {
	if err := checkApp(r, account, app); err != nil {
		return nil, err
	}
	c, err := load(r, app, campaign)
	if err != nil {
		return nil, err
	}
	if c == nil || c.DeletedAt != "" {
		return nil, apps.NotFound()
	}
	return c, nil
}

func checkApp(r store.Reader, account, app string) error {
	ok, err := apps.Exists(r, account, app)
	if err == nil && !ok {
		err = apps.NotFound()
	}
	return err
}

// byActive finds an account's active campaigns.
func byActive(account string) store.Index { return store.Index{Name: "active", Value: account} }

func save(tx *store.Tx, c *Campaign) error {
	var x []store.Index
	if c.DeletedAt == "" && active(c.State.CampaignStatus) {
		x = append(x, byActive(c.Account))
	}
	return store.Save(tx, kindCampaign, campaignKey(c.ApplicationId, c.Id), c, x...)
}

// active campaigns count toward the account's bound. Source: engagement 7.6.
func active(s pinpoint.CampaignStatus) bool {
	switch s {
	case pinpoint.CampaignStatusScheduled, pinpoint.CampaignStatusExecuting, pinpoint.CampaignStatusPendingNextRun:
		return true
	}
	return false
}

// logStopped is what an operator wants to know of a run that ended early.
func (s *Service) logStopped(ctx context.Context, a *Activity, why string) {
	s.log.WarnContext(ctx, "campaign run stopped", "app_id", a.App, "campaign_id", a.Campaign, "activity_id", a.ID, "reason", why)
}
