package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
)

// play is one run of the sample.
type play struct {
	*service
	out    io.Writer
	people []Endpoint
	kill   *victim // nil: nobody is killed
	lost   *loss   // a Region of several that was; nil: none yet

	app, segment, campaign string
	outboxBefore           int
	started                time.Time
}

func (p *play) say(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// perform plays the sample and adds it up.
func (p *play) perform(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"create the app", p.createApp},
		{"enable the channels", p.enableChannels},
		{"import the endpoints", p.importEndpoints},
		{"deactivate endpoints", p.deactivate},
		{"create the segment", p.createSegment},
		{"create the templates", p.createTemplates},
		{"wait for the other Region", p.settle},
		{"create the campaign", p.createCampaign},
		{"wait for the campaign", p.wait},
		{"add it up", p.addUp},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// settle waits until every Region has what was written in the others, so that all
// select the same.
func (p *play) settle(ctx context.Context) error {
	if !p.grouped() {
		return nil
	}
	began := time.Now()
	if _, err := until(ctx, settleMax, func() (string, error) { return p.level(ctx) }); err != nil {
		return err
	}
	p.say("both Regions have all of it, %.1f s later", time.Since(began).Seconds())
	return nil
}

// addUp adds up what became of everybody: as the Region says that is left, and
// when the other is back as that one says.
func (p *play) addUp(ctx context.Context) error {
	at := p.anywhere()
	if p.lost == nil && p.grouped() {
		// Whichever Region is asked has heard of all that was sent.
		if _, err := until(ctx, settleMax, func() (string, error) { return p.level(ctx) }); err != nil {
			return err
		}
	}
	if p.lost != nil {
		at = p.lost.survivor
		p.say("\nas %s says, while %s is away:", at.region, p.lost.region)
	}
	if err := p.judge(ctx, at); err != nil {
		return err
	}
	switch {
	case p.lost != nil:
		if err := p.comeBack(ctx, p.lost); err != nil {
			return err
		}
		for _, r := range p.regions {
			if r.region == p.lost.region {
				at = r
			}
		}
		p.say("\nas %s says, which is back:", at.region)
		return p.judge(ctx, at)
	case p.grouped():
		said, err := until(ctx, returnMax, func() (string, error) { return p.same(ctx) })
		if err != nil {
			return err
		}
		p.say("both Regions count the same: %s", said)
	}
	return nil
}

// judge prints the account, with what a Region says, and fails when it does not
// add up.
func (p *play) judge(ctx context.Context, at place) error {
	a, err := p.account(ctx, at)
	if err != nil {
		return err
	}
	p.say("")
	if err := a.Print(p.out); err != nil {
		return err
	}
	return a.Verdict()
}

func (p *play) createApp(ctx context.Context) error {
	out, err := p.pinpoint.CreateApp(ctx, &pinpoint.CreateAppInput{
		CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea"), Tags: map[string]string{"made-by": "sample"}},
	})
	if err != nil {
		return err
	}
	p.app = *out.ApplicationResponse.Id
	p.say("app %s", p.app)
	return nil
}

func (p *play) enableChannels(ctx context.Context) error {
	_, err := p.pinpoint.UpdateEmailChannel(ctx, &pinpoint.UpdateEmailChannelInput{
		ApplicationId: &p.app,
		EmailChannelRequest: &types.EmailChannelRequest{
			Enabled: aws.Bool(true), FromAddress: aws.String("Tea Shop <shop@tea.example>"),
			Identity: aws.String("arn:aws:ses:" + p.cfg.Region + ":" + p.service.account + ":identity/tea.example"),
		},
	})
	if err != nil {
		return fmt.Errorf("email: %w", err)
	}
	_, err = p.pinpoint.UpdateSmsChannel(ctx, &pinpoint.UpdateSmsChannelInput{
		ApplicationId: &p.app, SMSChannelRequest: &types.SMSChannelRequest{Enabled: aws.Bool(true)},
	})
	if err != nil {
		return fmt.Errorf("SMS: %w", err)
	}
	return nil
}

const bucket = "sample"

func (p *play) importEndpoints(ctx context.Context) error {
	key := p.app + "/endpoints.csv"
	if err := p.writeFile(p.bucketFile(bucket, key)); err != nil {
		return err
	}
	began := time.Now()
	made, err := p.pinpoint.CreateImportJob(ctx, &pinpoint.CreateImportJobInput{
		ApplicationId: &p.app,
		ImportJobRequest: &types.ImportJobRequest{
			Format: types.FormatCsv, S3Url: aws.String("s3://" + bucket + "/" + key),
			RoleArn:           aws.String("arn:aws:iam::" + p.service.account + ":role/import"),
			RegisterEndpoints: aws.Bool(true), DefineSegment: aws.Bool(false),
		},
	})
	if err != nil {
		return err
	}
	for {
		out, err := p.pinpoint.GetImportJob(ctx, &pinpoint.GetImportJobInput{ApplicationId: &p.app, JobId: made.ImportJobResponse.Id})
		if err != nil {
			return err
		}
		job := out.ImportJobResponse
		switch job.JobStatus {
		case types.JobStatusCompleted:
			if n := aws.ToInt32(job.TotalProcessed); int(n) != len(p.people) || aws.ToInt32(job.TotalFailures) != 0 {
				return fmt.Errorf("%d of %d lines were processed, %d failed: %v", n, len(p.people), aws.ToInt32(job.TotalFailures), job.Failures)
			}
			p.say("imported %d endpoints from s3://%s/%s in %.1f s", len(p.people), bucket, key, time.Since(began).Seconds())
			return nil
		case types.JobStatusFailed:
			return fmt.Errorf("the job failed: %v", job.Failures)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (p *play) writeFile(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(WriteCSV(f, p.people), f.Close())
}

// batchMax is how many endpoints one UpdateEndpointsBatch takes.
const batchMax = 100

func (p *play) deactivate(ctx context.Context) error {
	var items []types.EndpointBatchItem
	n := 0
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		_, err := p.pinpoint.UpdateEndpointsBatch(ctx, &pinpoint.UpdateEndpointsBatchInput{
			ApplicationId: &p.app, EndpointBatchRequest: &types.EndpointBatchRequest{Item: items},
		})
		n += len(items)
		items = items[:0]
		return err
	}
	for i := range p.people {
		e := &p.people[i]
		if !e.Deactivated {
			continue
		}
		if items = append(items, types.EndpointBatchItem{Id: &e.ID, EndpointStatus: aws.String("INACTIVE")}); len(items) == batchMax {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	p.say("set %d of them INACTIVE", n)
	return nil
}

func (p *play) createSegment(ctx context.Context) error {
	out, err := p.pinpoint.CreateSegment(ctx, &pinpoint.CreateSegmentInput{
		ApplicationId: &p.app,
		WriteSegmentRequest: &types.WriteSegmentRequest{
			Name: aws.String("First harvest club"),
			Dimensions: &types.SegmentDimensions{
				Attributes: map[string]types.AttributeDimension{
					"club": {AttributeType: types.AttributeTypeInclusive, Values: []string{clubWanted}},
				},
				Metrics: map[string]types.MetricDimension{
					"orders": {ComparisonOperator: aws.String("GREATER_THAN_OR_EQUAL"), Value: aws.Float64(ordersWanted)},
				},
			},
		},
	})
	if err != nil {
		return err
	}
	p.segment = *out.SegmentResponse.Id
	p.say("segment %s", p.segment)
	return nil
}

// Templates belong to the account, so the sample's carry the app's id.
func (p *play) templateName(kind string) string { return "first-harvest-" + kind + "-" + p.app }

func (p *play) createTemplates(ctx context.Context) error {
	_, err := p.pinpoint.CreateEmailTemplate(ctx, &pinpoint.CreateEmailTemplateInput{
		TemplateName: aws.String(p.templateName("mail")),
		EmailTemplateRequest: &types.EmailTemplateRequest{
			Subject: aws.String(subjectTemplate), HtmlPart: aws.String(htmlTemplate), TextPart: aws.String(textTemplate),
			DefaultSubstitutions: aws.String(defaultSubstitutions),
		},
	})
	if err != nil {
		return fmt.Errorf("email: %w", err)
	}
	_, err = p.pinpoint.CreateSmsTemplate(ctx, &pinpoint.CreateSmsTemplateInput{
		TemplateName: aws.String(p.templateName("text")),
		SMSTemplateRequest: &types.SMSTemplateRequest{
			Body: aws.String(smsTemplate), DefaultSubstitutions: aws.String(defaultSubstitutions),
		},
	})
	if err != nil {
		return fmt.Errorf("SMS: %w", err)
	}
	return nil
}

func (p *play) createCampaign(ctx context.Context) error {
	var err error
	if p.outboxBefore, err = p.outboxCount(ctx); err != nil {
		return err
	}
	p.started = time.Now()
	out, err := p.pinpoint.CreateCampaign(ctx, &pinpoint.CreateCampaignInput{
		ApplicationId: &p.app,
		WriteCampaignRequest: &types.WriteCampaignRequest{
			Name: aws.String("First harvest"), SegmentId: &p.segment, Schedule: &types.Schedule{StartTime: aws.String("IMMEDIATE")},
			TemplateConfiguration: &types.TemplateConfiguration{
				EmailTemplate: &types.Template{Name: aws.String(p.templateName("mail"))},
				SMSTemplate:   &types.Template{Name: aws.String(p.templateName("text"))},
			},
			MessageConfiguration: &types.MessageConfiguration{
				SMSMessage: &types.CampaignSmsMessage{MessageType: types.MessageTypePromotional},
			},
		},
	})
	if err != nil {
		return err
	}
	p.campaign = *out.CampaignResponse.Id
	p.say("campaign %s", p.campaign)
	return nil
}

// wait shows progress until the campaign is over, and kills on the way. What it
// asks while the process is away is asked again.
func (p *play) wait(ctx context.Context) error {
	toReach := 0
	for _, e := range p.people {
		if e.Fate == Reached {
			toReach++
		}
	}
	shown, killed := -1, p.kill == nil
	count, moved := -1, time.Now() // messages, and when they last became more
	var lastErr error
	for {
		out, err := p.outboxCount(ctx)
		if err != nil {
			return err
		}
		if out != count {
			count, moved = out, time.Now()
		}
		percent := 100 * (out - p.outboxBefore) / max(toReach, 1)
		if percent/10 > shown/10 || shown < 0 {
			shown = percent
			p.say("%3d %%: %d messages out after %.1f s", percent, out-p.outboxBefore, time.Since(p.started).Seconds())
		}
		if !killed && percent >= p.kill.percent {
			killed = true
			if err := p.strike(ctx); err != nil {
				return err
			}
			continue
		}
		if p.lost != nil {
			p.watch(ctx, p.lost)
		}
		r, err := p.service.run(ctx, p.app, p.campaign)
		switch {
		case err != nil:
			lastErr = err
		case r.State == "COMPLETED":
			took := time.Since(p.started)
			p.say("campaign over after %.1f s: %.0f targets a second", took.Seconds(), float64(r.Targets)/took.Seconds())
			if !killed {
				return fmt.Errorf("it was over before it came to %d %%: nobody was killed", p.kill.percent)
			}
			return nil
		case r.State == "FAILED":
			return errors.New("the campaign failed")
		}
		if time.Since(moved) > stillMax {
			return errors.Join(fmt.Errorf("the campaign has stood still at %d messages for %v and is not over", out-p.outboxBefore, stillMax), lastErr)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return errors.Join(err, lastErr)
		}
	}
}

// strike kills. A Region of several stays away until the campaign is over; what
// else was killed is started again at once.
func (p *play) strike(ctx context.Context) error {
	l, err := p.choose(ctx, p.kill)
	if err != nil {
		return err
	}
	if p.isRegion(l) {
		p.lost = l
		return p.lose(ctx, l)
	}
	p.say("       kill -9 %s", l.region)
	began := time.Now()
	if err := l.kill(ctx, l.region); err != nil {
		return err
	}
	if err := l.start(ctx, l.region); err != nil {
		return err
	}
	p.say("       %s is back after %.1f s", l.region, time.Since(began).Seconds())
	return nil
}

func (p *play) account(ctx context.Context, at place) (*Account, error) {
	says, err := p.reconciliation(ctx, at, p.app, p.campaign)
	if err != nil {
		return nil, fmt.Errorf("reconciliation: %w", err)
	}
	ambiguous, err := p.ambiguousSends(ctx, at, p.app, p.campaign)
	if err != nil {
		return nil, fmt.Errorf("ambiguous sends: %w", err)
	}
	messages, err := p.messages(ctx, p.outboxBefore)
	if err != nil {
		return nil, err
	}
	return Reconcile(p.people, messages, ambiguous, says), nil
}

// pause waits a little, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
