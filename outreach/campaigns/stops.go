package campaigns

import (
	"context"
	"reflect"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// Orders is where stop orders stand until the Region with control has carried
// them out. Keys are an app's id, or a campaign's behind it.
type Orders interface {
	Halted(keys ...string) (quorum.Halt, bool)
	Order(ctx context.Context, key string, h quorum.Halt) (withdraw func(context.Context), err error)
	Lift(ctx context.Context, key string, upTo uint64) error
}

// Orders says where stop orders stand; without, there are none. It is called before
// Mount, once.
func (s *Service) Orders(o Orders) { s.orders = o }

// halted reports whether a stop order holds a version of a campaign.
func (s *Service) halted(app, campaign string, version int) bool {
	h, ok := s.orders.Halted(app, campaignKey(app, campaign))
	return ok && means(h, version)
}

// means reports whether an order is about a version.
func means(h quorum.Halt, version int) bool {
	return h.Version == 0 || h.Kind != quorum.Pause || version <= h.Version
}

// ordered reports whether a plan's messages have to wait for an order to be carried
// out. It is a look into memory.
func (s *Service) ordered(p *delivery.Plan) bool {
	keys := []string{p.App}
	if p.Campaign != nil {
		keys = append(keys, campaignKey(p.App, p.Campaign.ID))
	}
	_, ok := s.orders.Halted(keys...)
	return ok
}

// stopped reports whether the run that a plan belongs to was stopped: its campaign
// or app was deleted, or it was paused by an order.
func stopped(r store.Reader, p *delivery.Plan) (bool, error) {
	app, err := apps.Get(r, p.App)
	if err != nil || app == nil {
		return err == nil, err
	}
	a, err := loadActivity(r, p.App, p.Campaign.ID, p.Campaign.Activity)
	return a == nil || a.State == stateCancelled, err
}

// callerBytesMax bounds how an order names who gave it.
const callerBytesMax = 128

func (s *Service) halt(ctx context.Context, kind quorum.HaltKind, version int) quorum.Halt {
	p := aws.CallerFrom(ctx).Principal
	return quorum.Halt{Kind: kind, Version: version, By: p[max(0, len(p)-callerBytesMax):], AtMillis: s.now().UnixMilli()}
}

// known returns an account's campaign for an order about it, deleted or not: this
// Region may have written what the others have not heard of.
func known(r store.Reader, account, app, campaign string) (*Campaign, error) {
	if err := checkApp(r, account, app); err != nil {
		return nil, err
	}
	c, err := load(r, app, campaign)
	if err == nil && c == nil {
		err = apps.NotFound()
	}
	return c, err
}

// orderUpdate orders what UpdateCampaign stops: it answers for a request that only
// pauses, and says of any other what was not written.
func (s *Service) orderUpdate(ctx context.Context, in *pinpoint.UpdateCampaignRequest) (*pinpoint.UpdateCampaignResponse, func(context.Context), error) {
	caller, req := aws.CallerFrom(ctx), in.WriteCampaignRequest
	if req == nil || !enabled(req.IsPaused) {
		return nil, nil, nil
	}
	c, err := known(s.store.Reader(ctx), caller.Account, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, nil, err
	}
	if c.DeletedAt != "" {
		return nil, nil, apps.NotFound()
	}
	version := 0
	if place, err := s.duty.Standing(); err == nil && place.Leads && enabled(c.IsPaused) {
		version = *c.Version // this Region has paused it, and waits for the others
	}
	withdraw, err := s.orders.Order(ctx, campaignKey(in.ApplicationId, in.CampaignId), s.halt(ctx, quorum.Pause, version))
	if err != nil {
		return nil, nil, err
	}
	if version == 0 && !reflect.DeepEqual(req, &pinpoint.WriteCampaignRequest{IsPaused: req.IsPaused}) {
		return nil, withdraw, aws.Unavailable("The campaign is ordered to pause. The rest of the change was not written: the control Region does not answer.")
	}
	c.IsPaused = req.IsPaused
	c.setAll(pinpoint.CampaignStatusPaused)
	return &pinpoint.UpdateCampaignResponse{CampaignResponse: c.response(caller.Region)}, withdraw, nil
}

// orderDelete orders what DeleteCampaign does.
func (s *Service) orderDelete(ctx context.Context, in *pinpoint.DeleteCampaignRequest) (*pinpoint.DeleteCampaignResponse, func(context.Context), error) {
	caller := aws.CallerFrom(ctx)
	c, err := known(s.store.Reader(ctx), caller.Account, in.ApplicationId, in.CampaignId)
	if err != nil {
		return nil, nil, err
	}
	withdraw, err := s.orders.Order(ctx, campaignKey(in.ApplicationId, in.CampaignId), s.halt(ctx, quorum.Delete, 0))
	if err != nil {
		return nil, nil, err
	}
	c.setAll(pinpoint.CampaignStatusDeleted)
	return &pinpoint.DeleteCampaignResponse{CampaignResponse: c.response(caller.Region)}, withdraw, nil
}

// CarryOut does what an order for a campaign asks for, in the Region with control.
// When it returns without an error the other Regions of the set have it, so the
// order may be lifted. What is stopped already is written once more, for that.
func (s *Service) CarryOut(ctx context.Context, app, campaign string, h quorum.Halt) error {
	return s.store.Update(ctx, func(tx *store.Tx) error {
		if now, ok := s.orders.Halted(campaignKey(app, campaign)); !ok || now.Epoch < h.Epoch {
			return nil // it was lifted meanwhile
		}
		c, err := load(tx, app, campaign)
		if err != nil || c == nil {
			return err
		}
		over := c.State.CampaignStatus == pinpoint.CampaignStatusCompleted
		switch {
		case c.DeletedAt != "":
			return save(tx, c)
		case h.Kind != quorum.Pause:
			return s.remove(tx, c)
		case enabled(c.IsPaused), over, !means(h, *c.Version):
			return save(tx, c)
		}
		if err := s.cancel(tx, c, "the campaign was ordered to pause"); err != nil {
			return err
		}
		c.IsPaused, c.Version, c.LastModifiedDate = new(true), new(*c.Version+1), aws.Timestamp(tx.Now())
		c.setAll(pinpoint.CampaignStatusPaused)
		if err := s.schedule(tx, c, nil); err != nil {
			return err
		}
		if err := store.Save(tx, kindVersion, versionKey(app, campaign, *c.Version), &c.CampaignResponse); err != nil {
			return err
		}
		return save(tx, c)
	}, store.Touch{Kind: kindCampaign, Key: campaignKey(app, campaign)})
}

// settle carries out the order that stands for a campaign, if there is one, before
// a later call changes it.
func (s *Service) settle(ctx context.Context, app, campaign string) error {
	key := campaignKey(app, campaign)
	h, ok := s.orders.Halted(key)
	if !ok {
		return nil
	}
	if err := s.CarryOut(ctx, app, campaign, h); err != nil {
		return err
	}
	return s.orders.Lift(ctx, key, h.Epoch)
}
