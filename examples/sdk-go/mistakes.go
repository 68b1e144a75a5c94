package main

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
	"github.com/aws/smithy-go/middleware"
)

const nobody = "00000000000000000000000000000000"

// mistakes are ten calls that must be refused, and how.
func (s *shop) mistakes() []mistake {
	const bad, missing = "BadRequestException", "NotFoundException"
	isBad, isMissing := isA[*types.BadRequestException], isA[*types.NotFoundException]
	return []mistake{
		{"a wrong app", missing, "not found", isMissing, func(ctx context.Context) error {
			_, err := s.GetApp(ctx, &pinpoint.GetAppInput{ApplicationId: aws.String(nobody)})
			return err
		}},
		{"a bad enum", bad, "ChannelType", isBad, func(ctx context.Context) error {
			return s.update(ctx, "fax", &types.EndpointRequest{ChannelType: "FAX", Address: aws.String("1")})
		}},
		{"a missing member", bad, "Format", isBad, s.withoutFormat},
		{"a bad signature", "InvalidSignatureException", "signature", nil, s.badlySigned},
		{"the 16th endpoint of a user", bad, "^Exceeded maximum endpoint per user count: 15", isBad, s.sixteen},
		{"a bad template", bad, "TextPart", isBad, func(ctx context.Context) error {
			_, err := s.CreateEmailTemplate(ctx, &pinpoint.CreateEmailTemplateInput{
				TemplateName: aws.String("bad-" + s.app), EmailTemplateRequest: &types.EmailTemplateRequest{
					Subject: aws.String("x"), TextPart: aws.String("{{#if Attributes.likes}} and no end"),
				},
			})
			return err
		}},
		{"too many recipients", bad, "100", isBad, func(ctx context.Context) error {
			to := map[string]types.AddressConfiguration{}
			for i := range 101 {
				to[fmt.Sprintf("+1253555%04d", i)] = types.AddressConfiguration{ChannelType: types.ChannelTypeSms}
			}
			_, err := s.SendMessages(ctx, &pinpoint.SendMessagesInput{ApplicationId: &s.app, MessageRequest: &types.MessageRequest{
				Addresses: to, MessageConfiguration: &types.DirectMessageConfiguration{SMSMessage: &types.SMSMessage{Body: aws.String("x")}},
			}})
			return err
		}},
		{"a bad segment", bad, "Dimensions|SegmentGroups", isBad, func(ctx context.Context) error {
			_, err := s.CreateSegment(ctx, &pinpoint.CreateSegmentInput{ApplicationId: &s.app, WriteSegmentRequest: &types.WriteSegmentRequest{
				Name:          aws.String("both"),
				Dimensions:    &types.SegmentDimensions{Attributes: map[string]types.AttributeDimension{"a": {Values: []string{"b"}}}},
				SegmentGroups: &types.SegmentGroupList{Groups: []types.SegmentGroup{}, Include: types.IncludeAll},
			}})
			return err
		}},
		{"a bad paging token", bad, "[Tt]oken", isBad, func(ctx context.Context) error {
			_, err := s.GetApps(ctx, &pinpoint.GetAppsInput{Token: aws.String("not-one-of-ours")})
			return err
		}},
		{"an unknown job", missing, "not found", isMissing, func(ctx context.Context) error {
			_, err := s.GetImportJob(ctx, &pinpoint.GetImportJobInput{ApplicationId: &s.app, JobId: aws.String(nobody)})
			return err
		}},
	}
}

// badlySigned calls with the right key and the wrong secret. It needs a client of
// its own: one that has signed before remembers the key that it derived.
func (s *shop) badlySigned(ctx context.Context) error {
	keys, err := s.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	cfg := s.cfg.Copy()
	cfg.Credentials = credentials.NewStaticCredentialsProvider(keys.AccessKeyID, "wrong", "")
	_, err = pinpoint.NewFromConfig(cfg).GetApp(ctx, &pinpoint.GetAppInput{ApplicationId: &s.app})
	return err
}

func (s *shop) update(ctx context.Context, id string, e *types.EndpointRequest) error {
	_, err := s.UpdateEndpoint(ctx, &pinpoint.UpdateEndpointInput{ApplicationId: &s.app, EndpointId: &id, EndpointRequest: e})
	return err
}

// withoutFormat leaves a required member out. The SDK would notice, so its own
// check is taken out of the call.
func (s *shop) withoutFormat(ctx context.Context) error {
	_, err := s.CreateImportJob(ctx, &pinpoint.CreateImportJobInput{ApplicationId: &s.app, ImportJobRequest: &types.ImportJobRequest{
		S3Url: aws.String("s3://sdk-go/x"), RoleArn: aws.String("arn:aws:iam::" + s.account + ":role/import"),
	}}, pinpoint.WithAPIOptions(func(stack *middleware.Stack) error {
		_, err := stack.Initialize.Remove("OperationInputValidation")
		return err
	}))
	return err
}

// sixteen gives one user fifteen endpoints, which works, and one more.
func (s *shop) sixteen(ctx context.Context) error {
	endpoint := func(i int) (id string, e types.EndpointRequest) {
		return fmt.Sprintf("many-%d", i), types.EndpointRequest{
			ChannelType: types.ChannelTypeEmail, Address: aws.String(fmt.Sprintf("many%d@tea.example", i)),
			User: &types.EndpointUser{UserId: aws.String("many")},
		}
	}
	var items []types.EndpointBatchItem
	for i := range 15 {
		id, e := endpoint(i)
		items = append(items, types.EndpointBatchItem{Id: &id, ChannelType: e.ChannelType, Address: e.Address, User: e.User})
	}
	if _, err := s.UpdateEndpointsBatch(ctx, &pinpoint.UpdateEndpointsBatchInput{
		ApplicationId: &s.app, EndpointBatchRequest: &types.EndpointBatchRequest{Item: items},
	}); err != nil {
		return fmt.Errorf("fifteen: %v", err) //nolint:errorlint // it must not pass for the refusal that is wanted
	}
	// Each Region counts what it has heard of. The next one may meet the Region that
	// has not heard of the fifteen yet, and one a little later does not.
	for i := 15; i < 25; i++ {
		id, e := endpoint(i)
		if err := s.update(ctx, id, &e); err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
