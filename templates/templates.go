package templates

import (
	"context"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// Service answers the template operations. Create it with New; it is safe for
// concurrent use.
type Service struct {
	store  *store.Store
	ids    *aws.IDs
	tokens *wire.Tokens
	now    func() time.Time
}

// New returns the room over a store.
func New(st *store.Store, ids *aws.IDs, tokens *wire.Tokens, now func() time.Time) *Service {
	return &Service{store: st, ids: ids, tokens: tokens, now: now}
}

// ARN names a template in the Region that processes a request.
//
// Source: engagement 1.3.
func ARN(region, account, name string, t Type) string {
	return aws.ARN{Service: "mobiletargeting", Region: region, Account: account, Resource: "templates/" + name + "/" + string(t)}.String()
}

// Mount hangs the room's operations on the mux. The five types differ in their
// shapes only: each operation turns its own into a draft or a view.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.ListTemplates, "templates", s.list)
	wire.Handle(m, pinpoint.ListTemplateVersions, "templates/{TemplateName}/{TemplateType|upper}", s.listVersions)
	wire.Handle(m, pinpoint.UpdateTemplateActiveVersion, "templates/{TemplateName}/{TemplateType|upper}", s.activate)
	s.mountEmail(m)
	s.mountSMS(m)
	s.mountVoice(m)
	s.mountPush(m)
	s.mountInApp(m)
}

func (s *Service) mountEmail(m *wire.Mux) {
	const resource = "templates/{TemplateName}/EMAIL"
	wire.Handle(m, pinpoint.CreateEmailTemplate, resource,
		func(ctx context.Context, in *pinpoint.CreateEmailTemplateRequest) (*pinpoint.CreateEmailTemplateResponse, error) {
			b, err := s.create(ctx, in.TemplateName, emailContent(in.EmailTemplateRequest))
			if err != nil {
				return nil, err
			}
			return &pinpoint.CreateEmailTemplateResponse{CreateTemplateMessageBody: b}, nil
		})
	wire.Handle(m, pinpoint.GetEmailTemplate, resource,
		func(ctx context.Context, in *pinpoint.GetEmailTemplateRequest) (*pinpoint.GetEmailTemplateResponse, error) {
			v, err := s.get(ctx, in.TemplateName, Email, in.Version)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetEmailTemplateResponse{EmailTemplateResponse: v.email()}, nil
		})
	wire.Handle(m, pinpoint.UpdateEmailTemplate, resource,
		func(ctx context.Context, in *pinpoint.UpdateEmailTemplateRequest) (*pinpoint.UpdateEmailTemplateResponse, error) {
			b, err := s.update(ctx, in.TemplateName, emailContent(in.EmailTemplateRequest), in.Version, in.CreateNewVersion)
			return &pinpoint.UpdateEmailTemplateResponse{MessageBody: b}, err
		})
	wire.Handle(m, pinpoint.DeleteEmailTemplate, resource,
		func(ctx context.Context, in *pinpoint.DeleteEmailTemplateRequest) (*pinpoint.DeleteEmailTemplateResponse, error) {
			b, err := s.delete(ctx, in.TemplateName, Email, in.Version)
			return &pinpoint.DeleteEmailTemplateResponse{MessageBody: b}, err
		})
}

func (s *Service) mountSMS(m *wire.Mux) {
	const resource = "templates/{TemplateName}/SMS"
	wire.Handle(m, pinpoint.CreateSmsTemplate, resource,
		func(ctx context.Context, in *pinpoint.CreateSmsTemplateRequest) (*pinpoint.CreateSmsTemplateResponse, error) {
			b, err := s.create(ctx, in.TemplateName, smsContent(in.SMSTemplateRequest))
			if err != nil {
				return nil, err
			}
			return &pinpoint.CreateSmsTemplateResponse{CreateTemplateMessageBody: b}, nil
		})
	wire.Handle(m, pinpoint.GetSmsTemplate, resource,
		func(ctx context.Context, in *pinpoint.GetSmsTemplateRequest) (*pinpoint.GetSmsTemplateResponse, error) {
			v, err := s.get(ctx, in.TemplateName, SMS, in.Version)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetSmsTemplateResponse{SMSTemplateResponse: v.sms()}, nil
		})
	wire.Handle(m, pinpoint.UpdateSmsTemplate, resource,
		func(ctx context.Context, in *pinpoint.UpdateSmsTemplateRequest) (*pinpoint.UpdateSmsTemplateResponse, error) {
			b, err := s.update(ctx, in.TemplateName, smsContent(in.SMSTemplateRequest), in.Version, in.CreateNewVersion)
			return &pinpoint.UpdateSmsTemplateResponse{MessageBody: b}, err
		})
	wire.Handle(m, pinpoint.DeleteSmsTemplate, resource,
		func(ctx context.Context, in *pinpoint.DeleteSmsTemplateRequest) (*pinpoint.DeleteSmsTemplateResponse, error) {
			b, err := s.delete(ctx, in.TemplateName, SMS, in.Version)
			return &pinpoint.DeleteSmsTemplateResponse{MessageBody: b}, err
		})
}

func (s *Service) mountVoice(m *wire.Mux) {
	const resource = "templates/{TemplateName}/VOICE"
	wire.Handle(m, pinpoint.CreateVoiceTemplate, resource,
		func(ctx context.Context, in *pinpoint.CreateVoiceTemplateRequest) (*pinpoint.CreateVoiceTemplateResponse, error) {
			b, err := s.create(ctx, in.TemplateName, voiceContent(in.VoiceTemplateRequest))
			if err != nil {
				return nil, err
			}
			return &pinpoint.CreateVoiceTemplateResponse{CreateTemplateMessageBody: b}, nil
		})
	wire.Handle(m, pinpoint.GetVoiceTemplate, resource,
		func(ctx context.Context, in *pinpoint.GetVoiceTemplateRequest) (*pinpoint.GetVoiceTemplateResponse, error) {
			v, err := s.get(ctx, in.TemplateName, Voice, in.Version)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetVoiceTemplateResponse{VoiceTemplateResponse: v.voice()}, nil
		})
	wire.Handle(m, pinpoint.UpdateVoiceTemplate, resource,
		func(ctx context.Context, in *pinpoint.UpdateVoiceTemplateRequest) (*pinpoint.UpdateVoiceTemplateResponse, error) {
			b, err := s.update(ctx, in.TemplateName, voiceContent(in.VoiceTemplateRequest), in.Version, in.CreateNewVersion)
			return &pinpoint.UpdateVoiceTemplateResponse{MessageBody: b}, err
		})
	wire.Handle(m, pinpoint.DeleteVoiceTemplate, resource,
		func(ctx context.Context, in *pinpoint.DeleteVoiceTemplateRequest) (*pinpoint.DeleteVoiceTemplateResponse, error) {
			b, err := s.delete(ctx, in.TemplateName, Voice, in.Version)
			return &pinpoint.DeleteVoiceTemplateResponse{MessageBody: b}, err
		})
}

func (s *Service) mountPush(m *wire.Mux) {
	const resource = "templates/{TemplateName}/PUSH"
	wire.Handle(m, pinpoint.CreatePushTemplate, resource,
		func(ctx context.Context, in *pinpoint.CreatePushTemplateRequest) (*pinpoint.CreatePushTemplateResponse, error) {
			b, err := s.create(ctx, in.TemplateName, pushContent(in.PushNotificationTemplateRequest))
			if err != nil {
				return nil, err
			}
			return &pinpoint.CreatePushTemplateResponse{CreateTemplateMessageBody: b}, nil
		})
	wire.Handle(m, pinpoint.GetPushTemplate, resource,
		func(ctx context.Context, in *pinpoint.GetPushTemplateRequest) (*pinpoint.GetPushTemplateResponse, error) {
			v, err := s.get(ctx, in.TemplateName, Push, in.Version)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetPushTemplateResponse{PushNotificationTemplateResponse: v.push()}, nil
		})
	wire.Handle(m, pinpoint.UpdatePushTemplate, resource,
		func(ctx context.Context, in *pinpoint.UpdatePushTemplateRequest) (*pinpoint.UpdatePushTemplateResponse, error) {
			b, err := s.update(ctx, in.TemplateName, pushContent(in.PushNotificationTemplateRequest), in.Version, in.CreateNewVersion)
			return &pinpoint.UpdatePushTemplateResponse{MessageBody: b}, err
		})
	wire.Handle(m, pinpoint.DeletePushTemplate, resource,
		func(ctx context.Context, in *pinpoint.DeletePushTemplateRequest) (*pinpoint.DeletePushTemplateResponse, error) {
			b, err := s.delete(ctx, in.TemplateName, Push, in.Version)
			return &pinpoint.DeletePushTemplateResponse{MessageBody: b}, err
		})
}

func (s *Service) mountInApp(m *wire.Mux) {
	const resource = "templates/{TemplateName}/INAPP"
	wire.Handle(m, pinpoint.CreateInAppTemplate, resource,
		func(ctx context.Context, in *pinpoint.CreateInAppTemplateRequest) (*pinpoint.CreateInAppTemplateResponse, error) {
			b, err := s.create(ctx, in.TemplateName, inAppContent(in.InAppTemplateRequest))
			if err != nil {
				return nil, err
			}
			return &pinpoint.CreateInAppTemplateResponse{TemplateCreateMessageBody: (*pinpoint.TemplateCreateMessageBody)(b)}, nil
		})
	wire.Handle(m, pinpoint.GetInAppTemplate, resource,
		func(ctx context.Context, in *pinpoint.GetInAppTemplateRequest) (*pinpoint.GetInAppTemplateResponse, error) {
			v, err := s.get(ctx, in.TemplateName, InApp, in.Version)
			if err != nil {
				return nil, err
			}
			return &pinpoint.GetInAppTemplateResponse{InAppTemplateResponse: v.inApp()}, nil
		})
	wire.Handle(m, pinpoint.UpdateInAppTemplate, resource,
		func(ctx context.Context, in *pinpoint.UpdateInAppTemplateRequest) (*pinpoint.UpdateInAppTemplateResponse, error) {
			b, err := s.update(ctx, in.TemplateName, inAppContent(in.InAppTemplateRequest), in.Version, in.CreateNewVersion)
			return &pinpoint.UpdateInAppTemplateResponse{MessageBody: b}, err
		})
	wire.Handle(m, pinpoint.DeleteInAppTemplate, resource,
		func(ctx context.Context, in *pinpoint.DeleteInAppTemplateRequest) (*pinpoint.DeleteInAppTemplateResponse, error) {
			b, err := s.delete(ctx, in.TemplateName, InApp, in.Version)
			return &pinpoint.DeleteInAppTemplateResponse{MessageBody: b}, err
		})
}
