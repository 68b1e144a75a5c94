package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
)

// calls are a first campaign, in order.
func (s *shop) calls() []call {
	return []call{
		{"CreateApp", s.createApp},
		{"UpdateEmailChannel, UpdateSmsChannel", s.enableChannels},
		{"UpdateEndpoint, GetEndpoint", s.endpoint},
		{"CreateImportJob, GetImportJob", s.importFile},
		{"CreateSegment", s.createSegment},
		{"CreateEmailTemplate", s.createTemplate},
		{"CreateCampaign, GetCampaign", s.campaignRun},
		{"GetCampaignActivities", s.activities},
		{"SendMessages", s.send},
		{"PutEvents", s.putEvents},
	}
}

// want compares what is with what should be.
func want[T comparable](what string, got, wanted T) error {
	if got != wanted {
		return fmt.Errorf("%s is %v, want %v", what, got, wanted)
	}
	return nil
}

func (s *shop) createApp(ctx context.Context) error {
	out, err := s.CreateApp(ctx, &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{
		Name: aws.String("Tea"), Tags: map[string]string{"made-by": "sdk-go"},
	}})
	if err != nil {
		return err
	}
	s.app = *out.ApplicationResponse.Id
	return want("the name", *out.ApplicationResponse.Name, "Tea")
}

func (s *shop) enableChannels(ctx context.Context) error {
	mail, err := s.UpdateEmailChannel(ctx, &pinpoint.UpdateEmailChannelInput{ApplicationId: &s.app, EmailChannelRequest: &types.EmailChannelRequest{
		Enabled: aws.Bool(true), FromAddress: aws.String("shop@tea.example"),
		Identity: aws.String("arn:aws:ses:" + s.cfg.Region + ":" + s.account + ":identity/tea.example"),
	}})
	if err != nil {
		return err
	}
	if _, err := s.UpdateSmsChannel(ctx, &pinpoint.UpdateSmsChannelInput{
		ApplicationId: &s.app, SMSChannelRequest: &types.SMSChannelRequest{Enabled: aws.Bool(true)},
	}); err != nil {
		return err
	}
	return want("the email channel's Enabled", aws.ToBool(mail.EmailChannelResponse.Enabled), true)
}

func (s *shop) endpoint(ctx context.Context) error {
	out, err := s.UpdateEndpoint(ctx, &pinpoint.UpdateEndpointInput{
		ApplicationId: &s.app, EndpointId: aws.String("alice"),
		EndpointRequest: &types.EndpointRequest{
			ChannelType: types.ChannelTypeEmail, Address: aws.String("alice@tea.example"),
			Attributes: map[string][]string{"likes": {"oolong"}}, Metrics: map[string]float64{"orders": 3},
			Location: &types.EndpointLocation{Latitude: aws.Float64(47.61)},
			User:     &types.EndpointUser{UserId: aws.String("alice"), UserAttributes: map[string][]string{"name": {"Alice"}}},
		},
	})
	if err != nil {
		return err
	}
	if err := want("the message", *out.MessageBody.Message, "Accepted"); err != nil {
		return err
	}
	read, err := s.GetEndpoint(ctx, &pinpoint.GetEndpointInput{ApplicationId: &s.app, EndpointId: aws.String("alice")})
	if err != nil {
		return err
	}
	e := read.EndpointResponse
	got := fmt.Sprint(*e.Address, " ", e.ChannelType, " ", *e.EndpointStatus, " ", *e.OptOut, " ",
		e.Attributes, " ", e.Metrics, " ", e.User.UserAttributes, " ", *e.Location.Latitude)
	return want("the endpoint", got, "alice@tea.example EMAIL ACTIVE NONE map[likes:[oolong]] map[orders:3] map[name:[Alice]] 47.6")
}

func (s *shop) importFile(ctx context.Context) error {
	dir := filepath.Join(s.buckets, "sdk-go", s.app)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	const lines = "Id,ChannelType,Address,Attributes.likes,User.UserId\n" +
		"bob,SMS,+12535550001,oolong,bob\ncarol,EMAIL,carol@tea.example,oolong,carol\ndan,EMAIL,dan@tea.example,sencha,dan\n"
	if err := os.WriteFile(filepath.Join(dir, "three.csv"), []byte(lines), 0o600); err != nil {
		return err
	}
	made, err := s.CreateImportJob(ctx, &pinpoint.CreateImportJobInput{ApplicationId: &s.app, ImportJobRequest: &types.ImportJobRequest{
		Format: types.FormatCsv, S3Url: aws.String("s3://sdk-go/" + s.app + "/"), RegisterEndpoints: aws.Bool(true),
		RoleArn: aws.String("arn:aws:iam::" + s.account + ":role/import"),
	}})
	if err != nil {
		return err
	}
	return until(ctx, "the import", func() (bool, error) {
		out, err := s.GetImportJob(ctx, &pinpoint.GetImportJobInput{ApplicationId: &s.app, JobId: made.ImportJobResponse.Id})
		if err != nil {
			return false, err
		}
		j := out.ImportJobResponse
		if j.JobStatus != types.JobStatusCompleted && j.JobStatus != types.JobStatusFailed {
			return false, nil
		}
		return true, want("the job", fmt.Sprint(j.JobStatus, " ", aws.ToInt32(j.TotalProcessed), " ", aws.ToInt32(j.TotalFailures)), "COMPLETED 3 0")
	})
}

func (s *shop) createSegment(ctx context.Context) error {
	out, err := s.CreateSegment(ctx, &pinpoint.CreateSegmentInput{ApplicationId: &s.app, WriteSegmentRequest: &types.WriteSegmentRequest{
		Name: aws.String("oolong"), Dimensions: &types.SegmentDimensions{Attributes: map[string]types.AttributeDimension{
			"likes": {AttributeType: types.AttributeTypeInclusive, Values: []string{"oolong"}},
		}},
	}})
	if err != nil {
		return err
	}
	s.segment = *out.SegmentResponse.Id
	return want("the type", out.SegmentResponse.SegmentType, types.SegmentTypeDimensional)
}

func (s *shop) templateName() *string { return aws.String("tea-" + s.app) }

func (s *shop) createTemplate(ctx context.Context) error {
	out, err := s.CreateEmailTemplate(ctx, &pinpoint.CreateEmailTemplateInput{
		TemplateName: s.templateName(),
		EmailTemplateRequest: &types.EmailTemplateRequest{
			Subject: aws.String("{{User.UserAttributes.name}}, it is here"), TextPart: aws.String("The first {{Attributes.likes.[0]}} of the year."),
			DefaultSubstitutions: aws.String(`{"User.UserAttributes.name":"Tea lover"}`),
		},
	})
	if err != nil {
		return err
	}
	return want("the ARN", *out.CreateTemplateMessageBody.Arn,
		"arn:aws:mobiletargeting:"+s.cfg.Region+":"+s.account+":templates/"+*s.templateName()+"/EMAIL")
}

func (s *shop) campaignRun(ctx context.Context) error {
	out, err := s.CreateCampaign(ctx, &pinpoint.CreateCampaignInput{ApplicationId: &s.app, WriteCampaignRequest: &types.WriteCampaignRequest{
		Name: aws.String("First harvest"), SegmentId: &s.segment, Schedule: &types.Schedule{StartTime: aws.String("IMMEDIATE")},
		TemplateConfiguration: &types.TemplateConfiguration{EmailTemplate: &types.Template{Name: s.templateName()}},
		MessageConfiguration: &types.MessageConfiguration{SMSMessage: &types.CampaignSmsMessage{
			Body: aws.String("It is here, {{User.UserId}}"), MessageType: types.MessageTypePromotional,
		}},
	}})
	if err != nil {
		return err
	}
	s.campaign = *out.CampaignResponse.Id
	return until(ctx, "the campaign", func() (bool, error) {
		now, err := s.GetCampaign(ctx, &pinpoint.GetCampaignInput{ApplicationId: &s.app, CampaignId: &s.campaign})
		if err != nil {
			return false, err
		}
		switch status := now.CampaignResponse.State.CampaignStatus; status {
		case types.CampaignStatusCompleted:
			return true, nil
		case types.CampaignStatusScheduled, types.CampaignStatusExecuting:
			return false, nil
		default:
			return false, fmt.Errorf("the campaign is %s", status)
		}
	})
}

func (s *shop) activities(ctx context.Context) error {
	out, err := s.GetCampaignActivities(ctx, &pinpoint.GetCampaignActivitiesInput{ApplicationId: &s.app, CampaignId: &s.campaign})
	if err != nil {
		return err
	}
	if err := want("the number of activities", len(out.ActivitiesResponse.Item), 1); err != nil {
		return err
	}
	a := out.ActivitiesResponse.Item[0]
	return want("the activity",
		fmt.Sprint(*a.State, " ", *a.Result, " ", aws.ToInt32(a.TotalEndpointCount), " ", aws.ToInt32(a.SuccessfulEndpointCount)), "COMPLETED SUCCESS 3 3")
}

func (s *shop) send(ctx context.Context) error {
	const to = "+12535550002"
	out, err := s.SendMessages(ctx, &pinpoint.SendMessagesInput{ApplicationId: &s.app, MessageRequest: &types.MessageRequest{
		Addresses: map[string]types.AddressConfiguration{to: {ChannelType: types.ChannelTypeSms}},
		MessageConfiguration: &types.DirectMessageConfiguration{SMSMessage: &types.SMSMessage{
			Body: aws.String("Your code is 4711"), MessageType: types.MessageTypeTransactional,
		}},
	}})
	if err != nil {
		return err
	}
	r := out.MessageResponse.Result[to]
	return want("the result", fmt.Sprint(r.DeliveryStatus, " ", aws.ToInt32(r.StatusCode)), "SUCCESSFUL 200")
}

func (s *shop) putEvents(ctx context.Context) error {
	out, err := s.PutEvents(ctx, &pinpoint.PutEventsInput{ApplicationId: &s.app, EventsRequest: &types.EventsRequest{
		BatchItem: map[string]types.EventsBatch{"alice": {
			Endpoint: &types.PublicEndpoint{Metrics: map[string]float64{"visits": 1}},
			Events: map[string]types.Event{"1": {
				EventType: aws.String("tea.tasted"), Timestamp: aws.String(time.Now().UTC().Format("2006-01-02T15:04:05.000Z")),
			}},
		}},
	}})
	if err != nil {
		return err
	}
	r := out.EventsResponse.Results["alice"]
	return want("the result",
		fmt.Sprint(aws.ToInt32(r.EndpointItemResponse.StatusCode), " ", aws.ToInt32(r.EventsItemResponse["1"].StatusCode)), "202 202")
}
