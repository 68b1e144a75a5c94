package channels

import "github.com/everpoint/everpoint/api/pinpoint"

// The responses show everything but secrets. Those of the four APNs channels
// have one shape under four names.

// shown is what all responses have in common.
func (c *Channel) shown() pinpoint.ChannelResponse {
	credential, archived, id := c.HasCredential(), false, c.Type.id()
	return pinpoint.ChannelResponse{
		ApplicationId: &c.App, CreationDate: &c.CreationDate, Enabled: &c.Enabled, HasCredential: &credential,
		Id: &id, IsArchived: &archived, LastModifiedBy: given(c.LastModifiedBy),
		LastModifiedDate: &c.LastModifiedDate, Version: &c.Version,
	}
}

func (c *Channel) adm() *pinpoint.ADMChannelResponse {
	s := c.shown()
	return &pinpoint.ADMChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type),
	}
}

func (c *Channel) apns() *pinpoint.APNSChannelResponse {
	s := c.shown()
	hasKey := c.APNS.TokenKey != ""
	return &pinpoint.APNSChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type), DefaultAuthenticationMethod: given(c.APNS.DefaultMethod), HasTokenKey: &hasKey,
	}
}

func (c *Channel) baidu() *pinpoint.BaiduChannelResponse {
	s := c.shown()
	return &pinpoint.BaiduChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type), Credential: string(c.Baidu.APIKey),
	}
}

func (c *Channel) email(cfg *Config) *pinpoint.EmailChannelResponse {
	s, e := c.shown(), c.Email
	return &pinpoint.EmailChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type), FromAddress: &e.FromAddress, Identity: &e.Identity, ConfigurationSet: given(e.ConfigurationSet),
		RoleArn: given(e.RoleARN), OrchestrationSendingRoleArn: given(e.OrchestrationRoleARN), MessagesPerSecond: rate(cfg.EmailPerSecond),
	}
}

func (c *Channel) gcm() *pinpoint.GCMChannelResponse {
	s := c.shown()
	method, hasService := c.GCM.Method(), c.GCM.ServiceJSON != ""
	return &pinpoint.GCMChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type), Credential: given(string(c.GCM.APIKey)), DefaultAuthenticationMethod: &method, HasFcmServiceCredentials: &hasService,
	}
}

func (c *Channel) sms(cfg *Config) *pinpoint.SMSChannelResponse {
	s := c.shown()
	return &pinpoint.SMSChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type), SenderId: given(c.SMS.SenderID), ShortCode: given(c.SMS.ShortCode),
		PromotionalMessagesPerSecond: rate(cfg.SMSPromotionalPerSecond), TransactionalMessagesPerSecond: rate(cfg.SMSTransactionalPerSecond),
	}
}

func (c *Channel) voice() *pinpoint.VoiceChannelResponse {
	s := c.shown()
	return &pinpoint.VoiceChannelResponse{
		ApplicationId: s.ApplicationId, CreationDate: s.CreationDate, Enabled: s.Enabled, HasCredential: s.HasCredential, Id: s.Id,
		IsArchived: s.IsArchived, LastModifiedBy: s.LastModifiedBy, LastModifiedDate: s.LastModifiedDate, Version: s.Version,
		Platform: string(c.Type),
	}
}

func rate(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}
