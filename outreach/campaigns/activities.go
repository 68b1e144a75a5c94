package campaigns

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// Activity is one treatment's part of a run, and how far it has come.
type Activity struct {
	ID, App, Campaign string
	Account           string
	Treatment         string
	Version           int // of the campaign
	ScheduledStart    time.Time
	Start, End        time.Time `json:",omitzero"`
	State             activityState
	Result            string `json:",omitempty"` // SUCCESS or FAIL, at the end
	Reason            string `json:",omitempty"` // why it failed

	// Sweeping says that the members were walked once and are walked again, for
	// those who moved behind the walk meanwhile.
	Sweeping bool      `json:",omitempty"`
	Walked   time.Time `json:",omitzero"` // when that was over, too
	// Superseded is how many recipients of claims that came late were known when the
	// second walk began: those are among whom it is for.
	Superseded int64 `json:",omitempty"`
}

// Part is what one Region has done of an activity: of the walk over the segment,
// in the order of dispatch hashes, it does the shards that are its duty.
type Part struct {
	After    uint64       // everything in this hash's shard up to it is done
	Done     group.Shards // walked to their ends
	Seq      int64        // of the last block that was claimed
	Members  int64        // of the segment when the walk last began or went on
	Produced int64        // members walked
	Claimed  int64        // of them given to delivery
	Others   int64        // of them in other treatments' cohorts
	Takes    int          // how often a worker began or went on
	// Of the second walk, which the Region with control does alone.
	Swept     uint64       `json:",omitempty"`
	SweptDone group.Shards `json:",omitempty"`
	SweptFor  int64        `json:",omitempty"` // the activity's Superseded that it was begun for
}

// swept is how far this Region is with the activity's present sweep.
func (p *Part) swept(a *Activity) (after uint64, done group.Shards) {
	if p.SweptFor != a.Superseded {
		return 0, 0 // that was an earlier one
	}
	return p.Swept, p.SweptDone
}

func (a *Activity) partKey(region string) string { return a.key() + "/" + region }

func loadPart(r store.Reader, a *Activity, region string) (*Part, error) {
	p, err := store.Load[Part](r, kindPart, a.partKey(region))
	if p == nil {
		p = &Part{}
	}
	return p, err
}

func savePart(tx *store.Tx, a *Activity, region string, p *Part) error {
	return store.Save(tx, kindPart, a.partKey(region), p)
}

// partsMax bounds the Regions whose parts are added up.
const partsMax = 100

// together adds up the Regions' parts of an activity: what was walked, and whom
// it found.
func together(r store.Reader, a *Activity) (*Part, error) {
	rows, err := r.List(kindPart, a.key()+"/", "", partsMax)
	if err != nil {
		return nil, err
	}
	sum := &Part{}
	for _, row := range rows {
		p, err := store.Decode[Part](kindPart, row.Body)
		if err != nil {
			return nil, err
		}
		sum.Done |= p.Done
		sum.Members = max(sum.Members, p.Members)
		sum.Produced += p.Produced
		sum.Claimed += p.Claimed
		sum.Others += p.Others
	}
	return sum, nil
}

type activityState string

// The states. Source: engagement 7.7.
const (
	statePending   activityState = "PENDING"
	stateRunning   activityState = "RUNNING"
	stateCompleted activityState = "COMPLETED"
	stateCancelled activityState = "CANCELLED"
)

const (
	resultSuccess = "SUCCESS"
	resultFail    = "FAIL"
)

func (a *Activity) over() bool { return a.State == stateCompleted || a.State == stateCancelled }

func (a *Activity) end(state activityState, result, reason string, now time.Time) {
	a.State, a.Result, a.Reason, a.End = state, result, reason, now.UTC()
}

func activityKey(app, campaign, activity string) string { return app + "/" + campaign + "/" + activity }

func (a *Activity) key() string { return activityKey(a.App, a.Campaign, a.ID) }

func loadActivity(r store.Reader, app, campaign, activity string) (*Activity, error) {
	return store.Load[Activity](r, kindActivity, activityKey(app, campaign, activity))
}

// ended reports whether a plan's activity is over.
func (s *Service) ended(r store.Reader, p *delivery.Plan) (bool, error) {
	a, err := loadActivity(r, p.App, p.Campaign.ID, p.ID)
	return err == nil && (a == nil || a.over()), err
}

func saveActivity(tx *store.Tx, a *Activity) error { return store.Save(tx, kindActivity, a.key(), a) }

// schedule makes a pending activity for each treatment, in place of those that
// are pending now, and the work that runs them. ids has one for each treatment.
func (s *Service) schedule(tx *store.Tx, c *Campaign, ids []string) error {
	for _, id := range c.Activities {
		a, err := loadActivity(tx, c.ApplicationId, c.Id, id)
		if err != nil {
			return err
		}
		if a != nil && a.State == statePending {
			// Its work finds nothing to do and goes.
			if err := tx.Remove(kindActivity, a.key()); err != nil {
				return err
			}
		}
	}
	c.Activities = nil
	if enabled(c.IsPaused) {
		return nil
	}
	for i, t := range c.treatments() {
		a := &Activity{
			ID: ids[i], App: c.ApplicationId, Campaign: c.Id, Account: c.Account, Treatment: t.id, Version: *c.Version,
			ScheduledStart: startOf(t.schedule, tx.Now()).UTC(), State: statePending,
		}
		if err := saveActivity(tx, a); err != nil {
			return err
		}
		c.Activities = append(c.Activities, a.ID)
		if err := s.enqueue(tx, a); err != nil {
			return err
		}
	}
	return nil
}

// enqueue makes the work by which this Region does its part of an activity.
func (s *Service) enqueue(tx *store.Tx, a *Activity) error {
	return s.queue.Enqueue(tx, queue.Work{Kind: workRun, ID: a.ID, Due: a.ScheduledStart, Body: reference(a)})
}

// Merged has this Region do its part of the activities that were merged from
// another. It is what [replica.Config.MergedAll] wants.
func (s *Service) Merged(tx *store.Tx, changes []changelog.Change) error {
	for i := range changes {
		if changes[i].Kind != kindActivity.Name {
			continue
		}
		a, err := store.Load[Activity](tx, kindActivity, changes[i].Key)
		if err != nil {
			return err
		}
		if a == nil || a.over() {
			continue // its work, if there is any, finds nothing to do and goes
		}
		if err := s.enqueue(tx, a); err != nil {
			return err
		}
	}
	return nil
}

// activitiesMax bounds the activities of one campaign that are read at once.
const activitiesMax = 10_000

// activitiesOf lists a campaign's activities in the order of their starts.
func activitiesOf(r store.Reader, app, campaign string) ([]*Activity, error) {
	rows, err := r.List(kindActivity, activityKey(app, campaign, ""), "", activitiesMax)
	if err != nil {
		return nil, err
	}
	out := make([]*Activity, 0, len(rows))
	for _, row := range rows {
		a, err := store.Decode[Activity](kindActivity, row.Body)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *Activity) int {
		return cmp.Or(a.ScheduledStart.Compare(b.ScheduledStart), cmp.Compare(a.Treatment, b.Treatment), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// listActivities answers GetCampaignActivities.
func (s *Service) listActivities(ctx context.Context, in *pinpoint.GetCampaignActivitiesRequest) (*pinpoint.GetCampaignActivitiesResponse, error) {
	r := s.store.Reader(ctx)
	caller := aws.CallerFrom(ctx)
	if _, err := own(r, caller.Account, in.ApplicationId, in.CampaignId); err != nil {
		return nil, err
	}
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	scope := "GetCampaignActivities\x00" + caller.Account + "\x00" + in.ApplicationId + "\x00" + in.CampaignId
	after, err := s.tokens.Open(scope, deref(in.Token))
	if err != nil {
		return nil, err
	}
	all, err := activitiesOf(r, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	if after != "" {
		i := slices.IndexFunc(all, func(a *Activity) bool { return a.ID == after })
		if i < 0 {
			return nil, apps.NotFound()
		}
		all = all[i+1:]
	}
	out := &pinpoint.ActivitiesResponse{Item: []pinpoint.ActivityResponse{}}
	for i, a := range all {
		if i == size {
			token := s.tokens.Seal(scope, all[i-1].ID)
			out.NextToken = &token
			break
		}
		t, err := s.delivery.TallyOf(r, a.ID)
		if err != nil {
			return nil, err
		}
		p, err := together(r, a)
		if err != nil {
			return nil, err
		}
		out.Item = append(out.Item, *a.response(p, t))
	}
	return &pinpoint.GetCampaignActivitiesResponse{ActivitiesResponse: out}, nil
}

// metricOf names a reason of delivery as the admission metrics do; the others
// have one name. Source: engagement 11.4.
var metricOf = map[string]string{delivery.ReasonDuplicate: "DUPLICATE_ENDPOINT"}

// response is the activity as the API shows it.
//
// Source: engagement 7.7, 11.4.
func (a *Activity) response(p *Part, t *delivery.Tally) *pinpoint.ActivityResponse {
	out := &pinpoint.ActivityResponse{
		ApplicationId: a.App, CampaignId: a.Campaign, Id: a.ID, TreatmentId: &a.Treatment,
		State: (*string)(&a.State), TimezonesTotalCount: new(int), TimezonesCompletedCount: new(int),
		ExecutionMetrics: map[string]string{"ENDPOINT_PRODUCED": text(p.Produced)},
		// Whom the run set out to reach: neither duplicates nor inactive ones.
		TotalEndpointCount: number(p.Claimed - t.Held[delivery.ReasonDuplicate] -
			t.Held[delivery.ReasonInactive] - t.Held[delivery.ReasonGone]),
		SuccessfulEndpointCount: number(t.Sent),
	}
	stamp := func(to **string, at time.Time) {
		if !at.IsZero() {
			v := aws.Timestamp(at)
			*to = &v
		}
	}
	stamp(&out.ScheduledStart, a.ScheduledStart)
	stamp(&out.Start, a.Start)
	stamp(&out.End, a.End)
	if a.Result != "" {
		out.Result = &a.Result
	}
	for reason, n := range t.Held {
		name := reason
		if m := metricOf[reason]; m != "" {
			name = m
		}
		out.ExecutionMetrics[name] = text(n)
	}
	if p.Others > 0 {
		out.ExecutionMetrics[delivery.ReasonTreatment] = text(p.Others + t.Held[delivery.ReasonTreatment])
	}
	return out
}
