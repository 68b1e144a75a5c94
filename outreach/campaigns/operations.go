package campaigns

import (
	"context"
	"fmt"
	"strconv"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/account/tags"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// create answers CreateCampaign. Source: engagement 7.1, 7.6.
func (s *Service) create(ctx context.Context, in *pinpoint.CreateCampaignRequest) (*pinpoint.CreateCampaignResponse, error) {
	caller := aws.CallerFrom(ctx)
	req := in.WriteCampaignRequest
	if err := tags.Check(req.Tags); err != nil {
		return nil, err
	}
	id, ids := s.ids.Hex(), s.activityIDs()
	var c *Campaign
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		app, err := apps.Get(tx, in.ApplicationId)
		if err != nil {
			return err
		}
		if app == nil || app.Account != caller.Account {
			return apps.NotFound()
		}
		if err := checkHook("CampaignHook", app.Settings.CampaignHook); err != nil {
			return err
		}
		now := aws.Timestamp(s.now())
		c = &Campaign{Account: caller.Account, AppLimits: app.Settings.Limits, AppQuietTime: app.Settings.QuietTime}
		c.ApplicationId, c.Id, c.CreationDate, c.Tags = in.ApplicationId, id, now, req.Tags
		return s.write(tx, c, req, ids)
	},
		store.Touch{Kind: apps.Kind, Key: in.ApplicationId}, store.Touch{Kind: kindCampaign, Index: byActive(caller.Account)})
	if err != nil {
		return nil, err
	}
	return &pinpoint.CreateCampaignResponse{CampaignResponse: c.response(caller.Region)}, nil
}

// update answers UpdateCampaign: members that are left out stay.
func (s *Service) update(ctx context.Context, in *pinpoint.UpdateCampaignRequest) (*pinpoint.UpdateCampaignResponse, error) {
	caller := aws.CallerFrom(ctx)
	ids := s.activityIDs()
	if err := s.settle(ctx, in.ApplicationId, in.CampaignId); err != nil {
		return nil, err
	}
	var c *Campaign
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if c, err = own(tx, caller.Account, in.ApplicationId, in.CampaignId); err != nil {
			return err
		}
		switch status := c.State.CampaignStatus; status {
		case pinpoint.CampaignStatusScheduled, pinpoint.CampaignStatusPaused, pinpoint.CampaignStatusInvalid:
		default:
			return aws.Invalid("The campaign is %s: it can be changed only before its first send", status)
		}
		return s.write(tx, c, in.WriteCampaignRequest, ids)
	},
		store.Touch{Kind: kindCampaign, Key: campaignKey(in.ApplicationId, in.CampaignId)},
		store.Touch{Kind: apps.Kind, Key: in.ApplicationId}, store.Touch{Kind: kindCampaign, Index: byActive(caller.Account)})
	if err != nil {
		return nil, err
	}
	return &pinpoint.UpdateCampaignResponse{CampaignResponse: c.response(caller.Region)}, nil
}

// activityIDs makes ids enough for a run, outside the update, which may run twice.
func (s *Service) activityIDs() []string {
	ids := make([]string, 1+treatmentsMax)
	for i := range ids {
		ids[i] = s.ids.Hex()
	}
	return ids
}

// write makes the campaign's next version from a request, checks it, and plans its run.
func (s *Service) write(tx *store.Tx, c *Campaign, req *pinpoint.WriteCampaignRequest, ids []string) error {
	wasActive := c.State != nil && active(c.State.CampaignStatus)
	c.apply(req)
	if err := c.check(tx.Now()); err != nil {
		return err
	}
	segment, err := s.segment(tx, c.ApplicationId, c.SegmentId, c.SegmentVersion)
	if err != nil {
		return err
	}
	if segment == nil {
		return aws.InvalidMember("SegmentId", "SegmentId: there is no segment %s with that version", short(c.SegmentId))
	}
	if c.SegmentVersion == 0 {
		c.SegmentVersion = 1
		if segment.Version != nil {
			c.SegmentVersion = *segment.Version
		}
	}
	if err := s.checkContent(tx, c); err != nil {
		return err
	}
	status := pinpoint.CampaignStatusScheduled
	if enabled(c.IsPaused) {
		status = pinpoint.CampaignStatusPaused
	}
	c.setAll(status)
	if active(status) && !wasActive {
		rows, err := tx.Lookup(kindCampaign, byActive(c.Account), s.cfg.ActiveMax)
		if err != nil {
			return err
		}
		if len(rows) >= s.cfg.ActiveMax {
			return aws.Quota("Too many active campaigns")
		}
	}
	version := 1
	if c.Version != nil {
		version = *c.Version + 1
	}
	c.Version, c.LastModifiedDate = &version, aws.Timestamp(tx.Now())
	if err := s.schedule(tx, c, ids); err != nil {
		return err
	}
	if err := store.Save(tx, kindVersion, versionKey(c.ApplicationId, c.Id, version), &c.CampaignResponse); err != nil {
		return err
	}
	return save(tx, c)
}

func versionKey(app, campaign string, version int) string {
	return fmt.Sprintf("%s/%s/%010d", app, campaign, version)
}

// response is the campaign as the API shows it.
//
// Source: engagement 7.1.
func (c *Campaign) response(region string) *pinpoint.CampaignResponse {
	out := c.CampaignResponse
	if len(out.AdditionalTreatments) > 0 {
		out.DefaultState = &pinpoint.CampaignState{CampaignStatus: c.DefaultStatus}
	}
	return shown(&out, region, c.Account)
}

func shown(out *pinpoint.CampaignResponse, region, account string) *pinpoint.CampaignResponse {
	if out.AdditionalTreatments == nil {
		out.AdditionalTreatments = []pinpoint.TreatmentResource{}
	}
	out.Arn = aws.ARN{
		Service: "mobiletargeting", Region: region, Account: account,
		Resource: "apps/" + out.ApplicationId + "/campaigns/" + out.Id,
	}.String()
	return out
}

// get answers GetCampaign.
func (s *Service) get(ctx context.Context, in *pinpoint.GetCampaignRequest) (*pinpoint.GetCampaignResponse, error) {
	caller := aws.CallerFrom(ctx)
	c, err := own(s.store.Reader(ctx), caller.Account, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetCampaignResponse{CampaignResponse: c.response(caller.Region)}, nil
}

// list answers GetCampaigns, in the order of their ids.
func (s *Service) list(ctx context.Context, in *pinpoint.GetCampaignsRequest) (*pinpoint.GetCampaignsResponse, error) {
	caller := aws.CallerFrom(ctx)
	r := s.store.Reader(ctx)
	if err := checkApp(r, caller.Account, in.ApplicationId); err != nil {
		return nil, err
	}
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	scope := "GetCampaigns\x00" + caller.Account + "\x00" + in.ApplicationId
	after, err := s.tokens.Open(scope, deref(in.Token))
	if err != nil {
		return nil, err
	}
	out := &pinpoint.CampaignsResponse{Item: []pinpoint.CampaignResponse{}}
	for {
		rows, err := r.List(kindCampaign, in.ApplicationId+"/", after, size+1)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			c, err := store.Decode[Campaign](kindCampaign, row.Body)
			if err != nil {
				return nil, err
			}
			if c.DeletedAt != "" {
				after = row.Key
				continue
			}
			if len(out.Item) == size {
				token := s.tokens.Seal(scope, after)
				out.NextToken = &token
				return &pinpoint.GetCampaignsResponse{CampaignsResponse: out}, nil
			}
			after = row.Key
			out.Item = append(out.Item, *c.response(caller.Region))
		}
		if len(rows) <= size {
			return &pinpoint.GetCampaignsResponse{CampaignsResponse: out}, nil
		}
	}
}

// delete answers DeleteCampaign with the campaign, whose status is DELETED. Its
// run stops, and delivery holds whom it has not written to yet.
func (s *Service) delete(ctx context.Context, in *pinpoint.DeleteCampaignRequest) (*pinpoint.DeleteCampaignResponse, error) {
	caller := aws.CallerFrom(ctx)
	var c *Campaign
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if c, err = own(tx, caller.Account, in.ApplicationId, in.CampaignId); err != nil {
			return err
		}
		return s.remove(tx, c)
	}, store.Touch{Kind: kindCampaign, Key: campaignKey(in.ApplicationId, in.CampaignId)}, store.Touch{Kind: apps.Kind, Key: in.ApplicationId})
	if err != nil {
		return nil, err
	}
	return &pinpoint.DeleteCampaignResponse{CampaignResponse: c.response(caller.Region)}, nil
}

// remove deletes a campaign and ends its run.
func (s *Service) remove(tx *store.Tx, c *Campaign) error {
	c.DeletedAt = aws.Timestamp(tx.Now())
	c.LastModifiedDate = c.DeletedAt
	c.setAll(pinpoint.CampaignStatusDeleted)
	if err := s.cancel(tx, c, "the campaign was deleted"); err != nil {
		return err
	}
	return save(tx, c)
}

// cancel ends a campaign's activities that are not over.
func (s *Service) cancel(tx *store.Tx, c *Campaign, why string) error {
	for _, id := range c.Activities {
		a, err := loadActivity(tx, c.ApplicationId, c.Id, id)
		if err != nil {
			return err
		}
		if a == nil || a.over() {
			continue
		}
		a.end(stateCancelled, "", why, tx.Now())
		if err := saveActivity(tx, a); err != nil {
			return err
		}
	}
	return nil
}

// getVersion answers GetCampaignVersion: the campaign as it was written then,
// with the status it has now if that is the present version.
func (s *Service) getVersion(ctx context.Context, in *pinpoint.GetCampaignVersionRequest) (*pinpoint.GetCampaignVersionResponse, error) {
	caller := aws.CallerFrom(ctx)
	r := s.store.Reader(ctx)
	c, err := own(r, caller.Account, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(in.Version)
	if err != nil || n < 1 {
		return nil, aws.InvalidMember("Version", "Version: expected a number from 1")
	}
	if n == *c.Version {
		return &pinpoint.GetCampaignVersionResponse{CampaignResponse: c.response(caller.Region)}, nil
	}
	v, err := store.Load[pinpoint.CampaignResponse](r, kindVersion, versionKey(in.ApplicationId, in.CampaignId, n))
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, apps.NotFound()
	}
	return &pinpoint.GetCampaignVersionResponse{CampaignResponse: shown(v, caller.Region, c.Account)}, nil
}

// listVersions answers GetCampaignVersions, the first version first.
func (s *Service) listVersions(ctx context.Context, in *pinpoint.GetCampaignVersionsRequest) (*pinpoint.GetCampaignVersionsResponse, error) {
	caller := aws.CallerFrom(ctx)
	r := s.store.Reader(ctx)
	c, err := own(r, caller.Account, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, err
	}
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	scope := "GetCampaignVersions\x00" + caller.Account + "\x00" + in.ApplicationId + "\x00" + in.CampaignId
	after, err := s.tokens.Open(scope, deref(in.Token))
	if err != nil {
		return nil, err
	}
	rows, err := r.List(kindVersion, in.ApplicationId+"/"+in.CampaignId+"/", after, size+1)
	if err != nil {
		return nil, err
	}
	out := &pinpoint.CampaignsResponse{Item: []pinpoint.CampaignResponse{}}
	for i, row := range rows {
		if i == size {
			token := s.tokens.Seal(scope, rows[i-1].Key)
			out.NextToken = &token
			break
		}
		v, err := store.Decode[pinpoint.CampaignResponse](kindVersion, row.Body)
		if err != nil {
			return nil, err
		}
		if v.Version != nil && *v.Version == *c.Version {
			v = c.response(caller.Region)
		}
		out.Item = append(out.Item, *shown(v, caller.Region, c.Account))
	}
	return &pinpoint.GetCampaignVersionsResponse{CampaignsResponse: out}, nil
}
