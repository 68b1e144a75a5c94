package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
)

// kill ends a process by SIGKILL.
func (d *bed) kill(name string) error {
	pid := d.pid(name)
	if pid == 0 {
		return fmt.Errorf("%s does not run", name)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// sdk is the AWS SDK as it comes, told only whom to call and whom to trust.
func (d *bed) sdk() *sdk.Client {
	return sdk.NewFromConfig(aws.Config{
		Region: localRegion, BaseEndpoint: aws.String(d.client.endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(d.client.creds.AccessKeyID, string(d.client.creds.Secret), ""),
		HTTPClient:  awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.TLSClientConfig = d.tls }),
	})
}

// sdkCall is one kind of call that the SDK makes in its loop.
type sdkCall struct {
	name string
	make func(c *sdk.Client, i int) error

	mu      sync.Mutex
	calls   int
	failed  int
	why     error         // the first failure
	longest time.Duration // of those since the kill
}

// sdkCalls are what is called: an endpoint's update and opt-out, a message, a read,
// and a change of the control plane.
func sdkCalls(ctx context.Context, app string) []*sdkCall {
	update := func(c *sdk.Client, i int, optOut string) error {
		id := fmt.Sprint(strings.ToLower(optOut), i)
		_, err := c.UpdateEndpoint(ctx, &sdk.UpdateEndpointInput{
			ApplicationId: &app, EndpointId: &id,
			EndpointRequest: &types.EndpointRequest{Address: aws.String(id + "@tea.example"), ChannelType: types.ChannelTypeEmail, OptOut: &optOut},
		})
		return err
	}
	return []*sdkCall{
		{name: "UpdateEndpoint", make: func(c *sdk.Client, i int) error { return update(c, i, "NONE") }},
		{name: "GetEndpoint", make: func(c *sdk.Client, _ int) error {
			_, err := c.GetEndpoint(ctx, &sdk.GetEndpointInput{ApplicationId: &app, EndpointId: aws.String("read")})
			return err
		}},
		{name: "UpdateEndpoint of an opt-out", make: func(c *sdk.Client, i int) error { return update(c, i, "ALL") }},
		{name: "SendMessages", make: func(c *sdk.Client, i int) error {
			out, err := c.SendMessages(ctx, &sdk.SendMessagesInput{ApplicationId: &app, MessageRequest: &types.MessageRequest{
				Addresses: map[string]types.AddressConfiguration{fmt.Sprintf("direct%d@tea.example", i): {ChannelType: types.ChannelTypeEmail}},
				MessageConfiguration: &types.DirectMessageConfiguration{EmailMessage: &types.EmailMessage{SimpleEmail: &types.SimpleEmail{
					Subject: &types.SimpleEmailPart{Data: aws.String("Tea")}, TextPart: &types.SimpleEmailPart{Data: aws.String("is ready")},
				}}},
			}})
			if err != nil {
				return err
			}
			for _, r := range out.MessageResponse.Result {
				if r.DeliveryStatus != types.DeliveryStatusSuccessful {
					return fmt.Errorf("%w: delivery status %s: %s", errAnswer, r.DeliveryStatus, aws.ToString(r.StatusMessage))
				}
			}
			return nil
		}},
		{name: "UpdateApplicationSettings", make: func(c *sdk.Client, i int) error {
			settings := &types.WriteApplicationSettingsRequest{Limits: &types.CampaignLimits{Daily: aws.Int32(int32(i%90 + 1))}}
			_, err := c.UpdateApplicationSettings(ctx, &sdk.UpdateApplicationSettingsInput{ApplicationId: &app, WriteApplicationSettingsRequest: settings})
			return err
		}},
	}
}

const (
	sdkLoops   = 2                // of each kind of call
	killBefore = 2 * time.Second  // how long the calls go well before a kill
	killAfter  = 12 * time.Second // how long they are watched after it
)

// killed measures what clients of the router see when a Region is killed: first the
// one that has control, then the other.
func (b *benchmark) killed(ctx context.Context) error {
	d, err := b.site(ctx, "kill")
	if err != nil {
		return err
	}
	defer d.stop()
	app, err := d.sharedApp(d.doors()...)
	if err != nil {
		return err
	}
	if err := d.mail(app); err != nil {
		return err
	}
	calls := sdkCalls(ctx, app)
	if _, err := d.sdk().UpdateEndpoint(ctx, &sdk.UpdateEndpointInput{
		ApplicationId: &app, EndpointId: aws.String("read"),
		EndpointRequest: &types.EndpointRequest{Address: aws.String("read@tea.example"), ChannelType: types.ChannelTypeEmail},
	}); err != nil {
		return err
	}
	if err := d.even(); err != nil {
		return err
	}
	var longest time.Duration
	failed := 0
	var told []string
	for k, victim := range []string{localRegions[0], localRegions[1]} {
		if k > 0 {
			if err := d.start(ctx, localRegions[0]); err != nil {
				return err
			}
			if _, err := d.gather(ctx); err != nil {
				return err
			}
		}
		if err := d.watch(calls, victim); err != nil {
			return err
		}
		var each []string
		for _, c := range calls {
			longest, failed = max(longest, c.longest), failed+c.failed
			each = append(each, fmt.Sprintf("%s %s, %d of %d failed", c.name, round(c.longest), c.failed, c.calls))
			if c.why != nil {
				fmt.Fprintf(b.err, "%s killed, %s: %v\n", victim, c.name, c.why)
			}
		}
		told = append(told, fmt.Sprintf("%s killed: %s", victim, strings.Join(each, "; ")))
		fmt.Fprintln(b.err, told[k])
	}
	b.note("kill -9 of a Region, seen through the router", fmt.Sprintf("longest call %s, %d failed", round(longest), failed), "5 s, 0 failed", "-",
		fmt.Sprintf("the AWS SDK as it comes, %d clients a kind of call, %s after each kill; %s; SQLite", sdkLoops, killAfter, strings.Join(told, "; ")))
	return nil
}

// watch makes calls in loops, kills a Region, and notes what becomes of them. A call
// counts if it ended after the kill.
func (d *bed) watch(calls []*sdkCall, victim string) error {
	watching, stop := context.WithTimeout(d.ctx, killBefore+killAfter)
	defer stop()
	var dead atomic.Bool
	var loops sync.WaitGroup
	for _, c := range calls {
		c.calls, c.failed, c.why, c.longest = 0, 0, nil, 0
		for range sdkLoops {
			client := d.sdk()
			loops.Go(func() {
				for watching.Err() == nil {
					begin := time.Now()
					err := c.make(client, int(begin.UnixNano()))
					if !dead.Load() && err == nil {
						continue
					}
					c.mu.Lock()
					c.calls++
					c.longest = max(c.longest, time.Since(begin))
					if err != nil {
						c.failed++
						if c.why == nil {
							c.why = err
						}
					}
					c.mu.Unlock()
				}
			})
		}
	}
	select {
	case <-time.After(killBefore):
	case <-d.ctx.Done():
	}
	err := d.kill(victim)
	dead.Store(true)
	loops.Wait()
	return errors.Join(err, d.ctx.Err())
}
