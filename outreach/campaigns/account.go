package campaigns

import (
	"context"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/store"
)

// standing is a campaign's present run, added up over its activities.
type standing struct {
	campaign   *Campaign
	activities []*Activity
	parts      []*Part           // beside activities, the Regions' together
	tallies    []*delivery.Tally // beside activities
}

// standingOf reads a campaign's present run. A deleted campaign's can be read
// too: who was sent to is still asked.
func (s *Service) standingOf(ctx context.Context, app, campaign string) (*standing, error) {
	r := s.store.Reader(ctx)
	if err := checkApp(r, aws.CallerFrom(ctx).Account, app); err != nil {
		return nil, err
	}
	c, err := load(r, app, campaign)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, apps.NotFound()
	}
	st := &standing{campaign: c}
	for _, id := range c.Activities {
		a, p, t, err := s.activityNow(r, app, campaign, id)
		if err != nil {
			return nil, err
		}
		if a != nil {
			st.activities, st.parts, st.tallies = append(st.activities, a), append(st.parts, p), append(st.tallies, t)
		}
	}
	return st, nil
}

// activityNow reads an activity, its parts together, and its tally as they stood
// at one moment: a claim moves all in one commit, so it reads again when one came
// between. A run that claims without a pause is shown a claim apart.
func (s *Service) activityNow(r store.Reader, app, campaign, id string) (a *Activity, p *Part, t *delivery.Tally, err error) {
	for range 20 {
		if a, err = loadActivity(r, app, campaign, id); err != nil || a == nil {
			return nil, nil, nil, err
		}
		if p, err = together(r, a); err != nil {
			return nil, nil, nil, err
		}
		if t, err = s.delivery.TallyOf(r, id); err != nil {
			break
		}
		// Who was superseded counts where they were claimed again.
		p.Claimed -= t.Superseded
		p.Produced -= t.Superseded
		if t.Claimed == p.Claimed {
			break
		}
	}
	return a, p, t, err
}

// targets is how many recipients an activity has: those it claimed once its
// walk is over, until then an estimate from the segment's size and the
// treatment's part of the cohorts.
func (st *standing) targets(i int) int64 {
	a, p := st.activities[i], st.parts[i]
	if !a.Walked.IsZero() || a.over() {
		return p.Claimed
	}
	t := st.campaign.treatment(a.Treatment)
	if t == nil {
		return p.Claimed
	}
	part := t.to - t.from
	if a.Treatment == "0" {
		part += st.campaign.holdout()
	}
	return max(p.Claimed, p.Members*int64(part)/cohorts)
}

func stateOf(a *Activity) everpoint.RunState {
	switch {
	case a.State == statePending:
		return everpoint.RunStatePending
	case a.State == stateRunning:
		return everpoint.RunStateRunning
	case a.State == stateCompleted && a.Result != resultFail:
		return everpoint.RunStateCompleted
	}
	return everpoint.RunStateFailed // it failed, or was cancelled
}

// runState is a run's state from its activities': running while one of them is
// under way or only some are over, failed when one failed.
func runState(all []*Activity) everpoint.RunState {
	count := map[everpoint.RunState]int{}
	for _, a := range all {
		count[stateOf(a)]++
	}
	switch {
	case count[everpoint.RunStatePending] == len(all):
		return everpoint.RunStatePending
	case count[everpoint.RunStatePending]+count[everpoint.RunStateRunning] > 0:
		return everpoint.RunStateRunning
	case count[everpoint.RunStateFailed] > 0:
		return everpoint.RunStateFailed
	}
	return everpoint.RunStateCompleted
}

// getRun answers GetCampaignRun.
func (s *Service) getRun(ctx context.Context, in *everpoint.GetCampaignRunRequest) (*everpoint.GetCampaignRunResponse, error) {
	st, err := s.standingOf(ctx, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	out := &everpoint.CampaignRun{
		ApplicationId: in.ApplicationId, CampaignId: in.CampaignId, Activities: []everpoint.ActivityRun{},
		Held: map[string]int64{}, State: runState(st.activities),
	}
	for i, a := range st.activities {
		t := st.tallies[i]
		out.Activities = append(out.Activities, everpoint.ActivityRun{
			ActivityId: a.ID, TreatmentId: &a.Treatment, State: stateOf(a), Sent: t.Sent, Targets: st.targets(i),
		})
		out.Targets += st.targets(i)
		out.Claimed += t.Claimed
		out.Sent += t.Sent
		out.Failed += t.Failed
		out.Ambiguous += t.Left
		out.InFlight += t.InFlight()
		for reason, n := range t.Held {
			out.Held[reason] += n
		}
		if !a.Start.IsZero() && (out.StartedAt == nil || a.Start.Before(*out.StartedAt)) {
			out.StartedAt = &a.Start
		}
		if !a.End.IsZero() && (out.CompletedAt == nil || a.End.After(*out.CompletedAt)) {
			out.CompletedAt = &a.End
		}
	}
	if out.State == everpoint.RunStatePending || out.State == everpoint.RunStateRunning {
		out.CompletedAt = nil
	}
	return &everpoint.GetCampaignRunResponse{CampaignRun: out}, nil
}

// reconcile answers GetCampaignReconciliation: every target has exactly one
// fate, or is on its way or yet to be claimed. Targets are counted by the walk,
// fates by delivery; what the one knows and the other does not is unaccounted.
func (s *Service) reconcile(ctx context.Context, in *everpoint.GetCampaignReconciliationRequest) (*everpoint.GetCampaignReconciliationResponse, error) {
	st, err := s.standingOf(ctx, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	out := &everpoint.Reconciliation{Held: map[string]int64{}}
	var held int64
	for i, t := range st.tallies {
		targets := st.targets(i)
		out.Targets += targets
		out.Sent += t.Sent
		out.Failed += t.Failed
		out.AmbiguousLeft += t.Left
		out.AmbiguousResent += t.Resent
		out.InFlight += t.InFlight() + targets - st.parts[i].Claimed
		held += t.HeldTotal()
		for reason, n := range t.Held {
			out.Held[reason] += n
		}
	}
	out.Unaccounted = out.Targets - out.Sent - out.Failed - out.AmbiguousLeft - held - out.InFlight
	out.Balanced = out.Unaccounted == 0 && out.InFlight >= 0
	return &everpoint.GetCampaignReconciliationResponse{Reconciliation: out}, nil
}

// getPolicy answers GetSendingPolicy: what is set for the app, else the default
// for campaigns.
func (s *Service) getPolicy(ctx context.Context, in *everpoint.GetSendingPolicyRequest) (*everpoint.GetSendingPolicyResponse, error) {
	r := s.store.Reader(ctx)
	if err := checkApp(r, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
		return nil, err
	}
	p, err := s.delivery.PolicyOf(r, in.ApplicationId, "")
	if err != nil {
		return nil, err
	}
	if p == "" {
		p = delivery.Leave
	}
	return &everpoint.GetSendingPolicyResponse{SendingPolicy: policy(p)}, nil
}

func policy(p delivery.Policy) *everpoint.SendingPolicy {
	return &everpoint.SendingPolicy{AmbiguousSends: everpoint.AmbiguousPolicy(p)}
}

// putPolicy answers PutSendingPolicy.
func (s *Service) putPolicy(ctx context.Context, in *everpoint.PutSendingPolicyRequest) (*everpoint.PutSendingPolicyResponse, error) {
	account := aws.CallerFrom(ctx).Account
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := checkApp(tx, account, in.ApplicationId); err != nil {
			return err
		}
		return s.delivery.SetPolicy(tx, in.ApplicationId, "", delivery.Policy(in.SendingPolicy.AmbiguousSends))
	})
	if err != nil {
		return nil, err
	}
	return &everpoint.PutSendingPolicyResponse{SendingPolicy: in.SendingPolicy}, nil
}

// getCampaignPolicy answers GetCampaignSendingPolicy with the policy in effect:
// the campaign's, the app's, or the default of what it sends.
//
// Source: spec README, "ambiguous sends".
func (s *Service) getCampaignPolicy(
	ctx context.Context, in *everpoint.GetCampaignSendingPolicyRequest,
) (*everpoint.GetCampaignSendingPolicyResponse, error) {
	r := s.store.Reader(ctx)
	c, err := own(r, aws.CallerFrom(ctx).Account, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	p, err := s.delivery.PolicyOf(r, in.ApplicationId, in.CampaignId)
	if err == nil && p == "" {
		p, err = s.delivery.PolicyOf(r, in.ApplicationId, "")
	}
	if err != nil {
		return nil, err
	}
	if p == "" {
		x, err := s.compose(r, c.Account, c.treatment("0"))
		if err != nil && !cannotRun(err) {
			return nil, err
		}
		p = delivery.Leave
		if x.email == nil && x.sms != nil && !x.sms.Promotional {
			p = delivery.Resend
		}
	}
	return &everpoint.GetCampaignSendingPolicyResponse{SendingPolicy: policy(p)}, nil
}

// putCampaignPolicy answers PutCampaignSendingPolicy.
func (s *Service) putCampaignPolicy(
	ctx context.Context, in *everpoint.PutCampaignSendingPolicyRequest,
) (*everpoint.PutCampaignSendingPolicyResponse, error) {
	account := aws.CallerFrom(ctx).Account
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := own(tx, account, in.ApplicationId, in.CampaignId); err != nil {
			return err
		}
		return s.delivery.SetPolicy(tx, in.ApplicationId, in.CampaignId, delivery.Policy(in.SendingPolicy.AmbiguousSends))
	})
	if err != nil {
		return nil, err
	}
	return &everpoint.PutCampaignSendingPolicyResponse{SendingPolicy: in.SendingPolicy}, nil
}

// listAmbiguous answers ListAmbiguousSends: campaigns' and direct calls' alike.
func (s *Service) listAmbiguous(ctx context.Context, in *everpoint.ListAmbiguousSendsRequest) (*everpoint.ListAmbiguousSendsResponse, error) {
	caller := aws.CallerFrom(ctx)
	r := s.store.Reader(ctx)
	if err := checkApp(r, caller.Account, in.ApplicationId); err != nil {
		return nil, err
	}
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	scope := "ListAmbiguousSends\x00" + caller.Account + "\x00" + in.ApplicationId + "\x00" + deref(in.CampaignId)
	after, err := s.tokens.Open(scope, deref(in.Token))
	if err != nil {
		return nil, err
	}
	page, next, err := s.delivery.AmbiguousSends(r, in.ApplicationId, deref(in.CampaignId), after, size)
	if err != nil {
		return nil, err
	}
	out := &everpoint.AmbiguousSendsResponse{Item: []everpoint.AmbiguousSend{}}
	for i := range page {
		out.Item = append(out.Item, ambiguous(&page[i]))
	}
	if next != "" {
		token := s.tokens.Seal(scope, next)
		out.NextToken = &token
	}
	return &everpoint.ListAmbiguousSendsResponse{AmbiguousSendsResponse: out}, nil
}

func ambiguous(a *delivery.Ambiguous) everpoint.AmbiguousSend {
	out := everpoint.AmbiguousSend{
		MessageId: a.MessageID, Channel: a.Channel, Address: a.Address, IntentAt: a.IntentAt, Region: a.Region,
		Decision: everpoint.AmbiguousDecisionLeft, CampaignId: some(a.Campaign), ActivityId: some(a.Activity),
		CallId: some(a.Call), EndpointId: some(a.EndpointID), Resolution: some(a.Resolution),
	}
	if a.Decision == delivery.Resend {
		out.Decision = everpoint.AmbiguousDecisionResent
	}
	if !a.ResolvedAt.IsZero() {
		out.ResolvedAt = &a.ResolvedAt
	}
	return out
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
