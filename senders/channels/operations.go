package channels

import (
	"context"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

func own(r store.Reader, account, app string) error {
	ok, err := apps.Exists(r, account, app)
	if err == nil && !ok {
		err = apps.NotFound()
	}
	return err
}

func notFound() error { return aws.NotFound("Resource not found") }

// find returns a channel of the caller's app.
func find(r store.Reader, account, app string, t Type) (*Channel, error) {
	if err := own(r, account, app); err != nil {
		return nil, err
	}
	c, err := Load(r, app, t)
	if err == nil && c == nil {
		err = notFound()
	}
	return c, err
}

// get answers the Get operations.
func (s *Service) get(ctx context.Context, app string, t Type) (*Channel, error) {
	return find(s.store.Reader(ctx), aws.CallerFrom(ctx).Account, app, t)
}

// put answers the Update operations.
func (s *Service) put(ctx context.Context, app string, t Type, enabled *bool, apply change) (*Channel, error) {
	caller, now := aws.CallerFrom(ctx), aws.Timestamp(s.now())
	var is *Channel
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := own(tx, caller.Account, app); err != nil {
			return err
		}
		was, err := Load(tx, app, t)
		if err != nil {
			return err
		}
		if is, err = next(was, caller, t, app, now, enabled, apply); err != nil {
			return err
		}
		return store.Save(tx, kind, key(app, t), is)
	}, store.Touch{Kind: kind, Key: key(app, t)})
	return is, err
}

// delete answers the Delete operations with the channel as it was, switched off.
func (s *Service) delete(ctx context.Context, app string, t Type) (*Channel, error) {
	var was *Channel
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if was, err = find(tx, aws.CallerFrom(ctx).Account, app, t); err != nil {
			return err
		}
		was.Enabled = false
		return tx.Remove(kind, key(app, t))
	}, store.Touch{Kind: kind, Key: key(app, t)})
	return was, err
}

// channelsMax is above the number of types there are.
const channelsMax = 16

// list answers GetChannels with those that were put.
func (s *Service) list(ctx context.Context, in *pinpoint.GetChannelsRequest) (*pinpoint.GetChannelsResponse, error) {
	r := s.store.Reader(ctx)
	if err := own(r, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
		return nil, err
	}
	rows, err := r.List(kind, in.ApplicationId+"/", "", channelsMax)
	if err != nil {
		return nil, err
	}
	all := map[string]pinpoint.ChannelResponse{}
	for _, row := range rows {
		c, err := store.Decode[Channel](kind, row.Body)
		if err != nil {
			return nil, err
		}
		all[string(c.Type)] = c.shown()
	}
	return &pinpoint.GetChannelsResponse{ChannelsResponse: &pinpoint.ChannelsResponse{Channels: all}}, nil
}

// Mount hangs the room's operations on the mux. The channels differ in their
// shapes only.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.GetChannels, "apps/{ApplicationId}/channels", s.list)
	s.mountAdm(m)
	s.mountApns(m)
	s.mountApnsSandbox(m)
	s.mountApnsVoip(m)
	s.mountApnsVoipSandbox(m)
	s.mountBaidu(m)
	s.mountEmail(m)
	s.mountGcm(m)
	s.mountSms(m)
	s.mountVoice(m)
}

func (s *Service) mountAdm(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/adm"
	show := func(c *Channel) *pinpoint.ADMChannelResponse { return c.adm() }
	wire.Handle(m, pinpoint.GetAdmChannel, resource,
		func(ctx context.Context, in *pinpoint.GetAdmChannelRequest) (*pinpoint.GetAdmChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeADM)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetAdmChannelResponse{ADMChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateAdmChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateAdmChannelRequest) (*pinpoint.UpdateAdmChannelResponse, error) {
			r := in.ADMChannelRequest
			c, err := s.put(ctx, in.ApplicationId, TypeADM, r.Enabled, changeADM(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateAdmChannelResponse{ADMChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteAdmChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteAdmChannelRequest) (*pinpoint.DeleteAdmChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeADM)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteAdmChannelResponse{ADMChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountApns(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/apns"
	show := func(c *Channel) *pinpoint.APNSChannelResponse { return c.apns() }
	wire.Handle(m, pinpoint.GetApnsChannel, resource,
		func(ctx context.Context, in *pinpoint.GetApnsChannelRequest) (*pinpoint.GetApnsChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeAPNS)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetApnsChannelResponse{APNSChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateApnsChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateApnsChannelRequest) (*pinpoint.UpdateApnsChannelResponse, error) {
			r := in.APNSChannelRequest
			c, err := s.put(ctx, in.ApplicationId, TypeAPNS, r.Enabled, changeAPNS(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateApnsChannelResponse{APNSChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteApnsChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteApnsChannelRequest) (*pinpoint.DeleteApnsChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeAPNS)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteApnsChannelResponse{APNSChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountApnsSandbox(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/apns_sandbox"
	show := func(c *Channel) *pinpoint.APNSSandboxChannelResponse {
		return (*pinpoint.APNSSandboxChannelResponse)(c.apns())
	}
	wire.Handle(m, pinpoint.GetApnsSandboxChannel, resource,
		func(ctx context.Context, in *pinpoint.GetApnsSandboxChannelRequest) (*pinpoint.GetApnsSandboxChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeAPNSSandbox)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetApnsSandboxChannelResponse{APNSSandboxChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateApnsSandboxChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateApnsSandboxChannelRequest) (*pinpoint.UpdateApnsSandboxChannelResponse, error) {
			r := (*pinpoint.APNSChannelRequest)(in.APNSSandboxChannelRequest)
			c, err := s.put(ctx, in.ApplicationId, TypeAPNSSandbox, r.Enabled, changeAPNS(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateApnsSandboxChannelResponse{APNSSandboxChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteApnsSandboxChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteApnsSandboxChannelRequest) (*pinpoint.DeleteApnsSandboxChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeAPNSSandbox)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteApnsSandboxChannelResponse{APNSSandboxChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountApnsVoip(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/apns_voip"
	show := func(c *Channel) *pinpoint.APNSVoipChannelResponse {
		return (*pinpoint.APNSVoipChannelResponse)(c.apns())
	}
	wire.Handle(m, pinpoint.GetApnsVoipChannel, resource,
		func(ctx context.Context, in *pinpoint.GetApnsVoipChannelRequest) (*pinpoint.GetApnsVoipChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeAPNSVoip)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetApnsVoipChannelResponse{APNSVoipChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateApnsVoipChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateApnsVoipChannelRequest) (*pinpoint.UpdateApnsVoipChannelResponse, error) {
			r := (*pinpoint.APNSChannelRequest)(in.APNSVoipChannelRequest)
			c, err := s.put(ctx, in.ApplicationId, TypeAPNSVoip, r.Enabled, changeAPNS(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateApnsVoipChannelResponse{APNSVoipChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteApnsVoipChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteApnsVoipChannelRequest) (*pinpoint.DeleteApnsVoipChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeAPNSVoip)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteApnsVoipChannelResponse{APNSVoipChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountApnsVoipSandbox(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/apns_voip_sandbox"
	show := func(c *Channel) *pinpoint.APNSVoipSandboxChannelResponse {
		return (*pinpoint.APNSVoipSandboxChannelResponse)(c.apns())
	}
	wire.Handle(m, pinpoint.GetApnsVoipSandboxChannel, resource,
		func(ctx context.Context, in *pinpoint.GetApnsVoipSandboxChannelRequest) (*pinpoint.GetApnsVoipSandboxChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeAPNSVoipSandbox)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetApnsVoipSandboxChannelResponse{APNSVoipSandboxChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateApnsVoipSandboxChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateApnsVoipSandboxChannelRequest) (*pinpoint.UpdateApnsVoipSandboxChannelResponse, error) {
			r := (*pinpoint.APNSChannelRequest)(in.APNSVoipSandboxChannelRequest)
			c, err := s.put(ctx, in.ApplicationId, TypeAPNSVoipSandbox, r.Enabled, changeAPNS(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateApnsVoipSandboxChannelResponse{APNSVoipSandboxChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteApnsVoipSandboxChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteApnsVoipSandboxChannelRequest) (*pinpoint.DeleteApnsVoipSandboxChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeAPNSVoipSandbox)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteApnsVoipSandboxChannelResponse{APNSVoipSandboxChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountBaidu(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/baidu"
	show := func(c *Channel) *pinpoint.BaiduChannelResponse { return c.baidu() }
	wire.Handle(m, pinpoint.GetBaiduChannel, resource,
		func(ctx context.Context, in *pinpoint.GetBaiduChannelRequest) (*pinpoint.GetBaiduChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeBaidu)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetBaiduChannelResponse{BaiduChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateBaiduChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateBaiduChannelRequest) (*pinpoint.UpdateBaiduChannelResponse, error) {
			r := in.BaiduChannelRequest
			c, err := s.put(ctx, in.ApplicationId, TypeBaidu, r.Enabled, changeBaidu(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateBaiduChannelResponse{BaiduChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteBaiduChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteBaiduChannelRequest) (*pinpoint.DeleteBaiduChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeBaidu)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteBaiduChannelResponse{BaiduChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountEmail(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/email"
	show := func(c *Channel) *pinpoint.EmailChannelResponse { return c.email(&s.cfg) }
	wire.Handle(m, pinpoint.GetEmailChannel, resource,
		func(ctx context.Context, in *pinpoint.GetEmailChannelRequest) (*pinpoint.GetEmailChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeEmail)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetEmailChannelResponse{EmailChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateEmailChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateEmailChannelRequest) (*pinpoint.UpdateEmailChannelResponse, error) {
			r := in.EmailChannelRequest
			c, err := s.put(ctx, in.ApplicationId, TypeEmail, r.Enabled, changeEmail(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateEmailChannelResponse{EmailChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteEmailChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteEmailChannelRequest) (*pinpoint.DeleteEmailChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeEmail)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteEmailChannelResponse{EmailChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountGcm(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/gcm"
	show := func(c *Channel) *pinpoint.GCMChannelResponse { return c.gcm() }
	wire.Handle(m, pinpoint.GetGcmChannel, resource,
		func(ctx context.Context, in *pinpoint.GetGcmChannelRequest) (*pinpoint.GetGcmChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeGCM)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetGcmChannelResponse{GCMChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateGcmChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateGcmChannelRequest) (*pinpoint.UpdateGcmChannelResponse, error) {
			r := in.GCMChannelRequest
			c, err := s.put(ctx, in.ApplicationId, TypeGCM, r.Enabled, changeGCM(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateGcmChannelResponse{GCMChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteGcmChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteGcmChannelRequest) (*pinpoint.DeleteGcmChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeGCM)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteGcmChannelResponse{GCMChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountSms(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/sms"
	show := func(c *Channel) *pinpoint.SMSChannelResponse { return c.sms(&s.cfg) }
	wire.Handle(m, pinpoint.GetSmsChannel, resource,
		func(ctx context.Context, in *pinpoint.GetSmsChannelRequest) (*pinpoint.GetSmsChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeSMS)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetSmsChannelResponse{SMSChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateSmsChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateSmsChannelRequest) (*pinpoint.UpdateSmsChannelResponse, error) {
			r := in.SMSChannelRequest
			c, err := s.put(ctx, in.ApplicationId, TypeSMS, r.Enabled, changeSMS(r))
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateSmsChannelResponse{SMSChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteSmsChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteSmsChannelRequest) (*pinpoint.DeleteSmsChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeSMS)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteSmsChannelResponse{SMSChannelResponse: show(c)}, nil
		})
}

func (s *Service) mountVoice(m *wire.Mux) {
	const resource = "apps/{ApplicationId}/channels/voice"
	show := func(c *Channel) *pinpoint.VoiceChannelResponse { return c.voice() }
	wire.Handle(m, pinpoint.GetVoiceChannel, resource,
		func(ctx context.Context, in *pinpoint.GetVoiceChannelRequest) (*pinpoint.GetVoiceChannelResponse, error) {
			c, err := s.get(ctx, in.ApplicationId, TypeVoice)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetVoiceChannelResponse{VoiceChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.UpdateVoiceChannel, resource,
		func(ctx context.Context, in *pinpoint.UpdateVoiceChannelRequest) (*pinpoint.UpdateVoiceChannelResponse, error) {
			c, err := s.put(ctx, in.ApplicationId, TypeVoice, in.VoiceChannelRequest.Enabled, changeVoice)
			if err != nil {
				return nil, err
			}
			return &pinpoint.UpdateVoiceChannelResponse{VoiceChannelResponse: show(c)}, nil
		})
	wire.Handle(m, pinpoint.DeleteVoiceChannel, resource,
		func(ctx context.Context, in *pinpoint.DeleteVoiceChannelRequest) (*pinpoint.DeleteVoiceChannelResponse, error) {
			c, err := s.delete(ctx, in.ApplicationId, TypeVoice)
			if err != nil {
				return nil, err
			}
			return &pinpoint.DeleteVoiceChannelResponse{VoiceChannelResponse: show(c)}, nil
		})
}
