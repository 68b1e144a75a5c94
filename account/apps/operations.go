package apps

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/everpoint/everpoint/account/tags"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// create answers CreateApp. Source: engagement 1.1, 1.3, 10 (Projects).
func (s *Service) create(ctx context.Context, in *pinpoint.CreateAppRequest) (*pinpoint.CreateAppResponse, error) {
	caller := aws.CallerFrom(ctx)
	req := in.CreateApplicationRequest
	if err := checkName(req.Name); err != nil {
		return nil, err
	}
	if err := tags.Check(req.Tags); err != nil {
		return nil, err
	}
	a := &App{
		Account: caller.Account, ID: s.ids.Hex(), Name: req.Name, Tags: req.Tags,
		CreationDate: aws.Timestamp(s.now()),
	}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		rows, err := tx.Lookup(Kind, byAccount(caller.Account), s.cfg.AppsMax)
		if err != nil {
			return err
		}
		if len(rows) >= s.cfg.AppsMax {
			return aws.Quota("The account has %d projects, the most it may have", len(rows))
		}
		return save(tx, a)
	}, store.Touch{Kind: Kind, Index: byAccount(caller.Account)})
	if err != nil {
		return nil, err
	}
	return &pinpoint.CreateAppResponse{ApplicationResponse: response(caller, a)}, nil
}

// get answers GetApp.
func (s *Service) get(ctx context.Context, in *pinpoint.GetAppRequest) (*pinpoint.GetAppResponse, error) {
	caller := aws.CallerFrom(ctx)
	a, err := own(s.store.Reader(ctx), caller.Account, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetAppResponse{ApplicationResponse: response(caller, a)}, nil
}

// list answers GetApps, in the order of the apps' ids. An account has few
// enough apps to read them at once.
func (s *Service) list(ctx context.Context, in *pinpoint.GetAppsRequest) (*pinpoint.GetAppsResponse, error) {
	caller := aws.CallerFrom(ctx)
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	scope := "GetApps\x00" + caller.Account
	after, err := s.tokens.Open(scope, deref(in.Token))
	if err != nil {
		return nil, err
	}
	rows, err := s.store.Reader(ctx).Lookup(Kind, byAccount(caller.Account), appsMaxCeiling)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b store.Row) int { return strings.Compare(a.Key, b.Key) })
	out := &pinpoint.ApplicationsResponse{Item: []pinpoint.ApplicationResponse{}}
	for _, row := range rows {
		if row.Key <= after {
			continue
		}
		if len(out.Item) == size {
			token := s.tokens.Seal(scope, out.Item[size-1].Id)
			out.NextToken = &token
			break
		}
		a, err := Decode(row.Body)
		if err != nil {
			return nil, err
		}
		out.Item = append(out.Item, *response(caller, a))
	}
	return &pinpoint.GetAppsResponse{ApplicationsResponse: out}, nil
}

// delete answers DeleteApp with the app as it was.
func (s *Service) delete(ctx context.Context, in *pinpoint.DeleteAppRequest) (*pinpoint.DeleteAppResponse, error) {
	caller := aws.CallerFrom(ctx)
	var was *App
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		a, err := own(tx, caller.Account, in.ApplicationId)
		if err != nil {
			return err
		}
		was = a
		return s.remove(tx, a)
	}, store.Touch{Kind: Kind, Key: in.ApplicationId})
	if err != nil {
		return nil, err
	}
	return &pinpoint.DeleteAppResponse{ApplicationResponse: response(caller, was)}, nil
}

// remove writes an app's tombstone, and that its rows are to be purged.
func (s *Service) remove(tx *store.Tx, a *App) error {
	now := aws.Timestamp(s.now())
	// Without an index value: the account no longer has it.
	if err := store.Save(tx, Kind, a.ID, &App{Account: a.Account, ID: a.ID, DeletedAt: now}); err != nil {
		return err
	}
	tx.AfterCommit(s.rouse)
	return store.Save(tx, kindPurge, a.ID, &purge{DeletedAt: s.now().UnixMilli()})
}

// getSettings answers GetApplicationSettings.
func (s *Service) getSettings(ctx context.Context, in *pinpoint.GetApplicationSettingsRequest) (*pinpoint.GetApplicationSettingsResponse, error) {
	a, err := own(s.store.Reader(ctx), aws.CallerFrom(ctx).Account, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetApplicationSettingsResponse{ApplicationSettingsResource: settingsResponse(a)}, nil
}

// updateSettings answers UpdateApplicationSettings: a member that is left out
// stays, an empty object clears it. Ranges, and the form of times, are the
// model's.
//
// Source: engagement 1.2.
func (s *Service) updateSettings(ctx context.Context, in *pinpoint.UpdateApplicationSettingsRequest) (*pinpoint.UpdateApplicationSettingsResponse, error) {
	caller := aws.CallerFrom(ctx)
	if err := checkQuietTime(in.WriteApplicationSettingsRequest.QuietTime); err != nil {
		return nil, err
	}
	var out *pinpoint.ApplicationSettingsResource
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		a, err := own(tx, caller.Account, in.ApplicationId)
		if err != nil {
			return err
		}
		a.Settings.merge(in.WriteApplicationSettingsRequest)
		a.Settings.LastModifiedDate = aws.Timestamp(s.now())
		out = settingsResponse(a)
		return save(tx, a)
	}, store.Touch{Kind: Kind, Key: in.ApplicationId})
	if err != nil {
		return nil, err
	}
	return &pinpoint.UpdateApplicationSettingsResponse{ApplicationSettingsResource: out}, nil
}

// merge takes over the members that the request has, each whole.
func (s *Settings) merge(req *pinpoint.WriteApplicationSettingsRequest) {
	if req.CampaignHook != nil {
		s.CampaignHook = req.CampaignHook
	}
	if req.Limits != nil {
		s.Limits = req.Limits
	}
	if req.QuietTime != nil {
		s.QuietTime = req.QuietTime
	}
	if req.JourneyLimits != nil {
		s.JourneyLimits = req.JourneyLimits
	}
	if req.CloudWatchMetricsEnabled != nil {
		s.CloudWatchMetricsEnabled = *req.CloudWatchMetricsEnabled
	}
	if req.EventTaggingEnabled != nil {
		s.EventTaggingEnabled = *req.EventTaggingEnabled
	}
}

func response(caller aws.Caller, a *App) *pinpoint.ApplicationResponse {
	return &pinpoint.ApplicationResponse{
		Arn:          ARN(caller.Region, a.Account, a.ID),
		CreationDate: &a.CreationDate,
		Id:           a.ID,
		Name:         a.Name,
		Tags:         a.Tags,
	}
}

// settingsResponse always has CampaignHook, Limits and QuietTime as objects:
// clients read through all three. Source: clients, Terraform.
func settingsResponse(a *App) *pinpoint.ApplicationSettingsResource {
	out := &pinpoint.ApplicationSettingsResource{
		ApplicationId: a.ID,
		CampaignHook:  a.Settings.CampaignHook,
		JourneyLimits: a.Settings.JourneyLimits,
		Limits:        a.Settings.Limits,
		QuietTime:     a.Settings.QuietTime,
	}
	if out.CampaignHook == nil {
		out.CampaignHook = &pinpoint.CampaignHook{}
	}
	if out.Limits == nil {
		out.Limits = &pinpoint.CampaignLimits{}
	}
	if out.QuietTime == nil {
		out.QuietTime = &pinpoint.QuietTime{}
	}
	modified := a.Settings.LastModifiedDate
	if modified == "" {
		modified = a.CreationDate
	}
	out.LastModifiedDate = &modified
	return out
}

func checkName(name string) error {
	if strings.TrimSpace(name) == "" {
		return aws.InvalidMember("Name", "Name: expected a name of 1 to %d characters", nameLengthMax)
	}
	if utf8.RuneCountInString(name) > nameLengthMax {
		return aws.InvalidMember("Name", "Name: longer than %d characters", nameLengthMax)
	}
	return nil
}

// checkQuietTime reports a quiet time of which only one end is given: nobody
// could say when it is over. Source: engagement 1.2.
func checkQuietTime(q *pinpoint.QuietTime) error {
	if q == nil {
		return nil
	}
	start, end := deref(q.Start) != "", deref(q.End) != ""
	switch {
	case start && !end:
		return aws.InvalidMember("QuietTime.End", "QuietTime.End: required beside QuietTime.Start")
	case end && !start:
		return aws.InvalidMember("QuietTime.Start", "QuietTime.Start: required beside QuietTime.End")
	}
	return nil
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
