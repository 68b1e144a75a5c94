package processes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"
)

var signing = credentials.NewStaticCredentialsProvider(accessKeyID, secretKey, "")

// client is the public SDK's, pointed at the ith node.
func (w *world) client(i int) *pinpoint.Client {
	return pinpoint.NewFromConfig(aws.Config{
		Region: region, Credentials: signing, BaseEndpoint: aws.String("http://" + w.listens[i]), HTTPClient: w.http,
	})
}

// admin calls Everpoint's own API on the ith node; in nil sends no body.
func (w *world) admin(i int, method, path string, query url.Values, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	target := "http://" + w.listens[i] + "/everpoint/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	keys, err := signing.Retrieve(context.Background())
	if err != nil {
		return err
	}
	hash := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), keys, req, hex.EncodeToString(hash[:]), "everpoint", region, time.Now()); err != nil {
		return err
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, answer)
	}
	return json.Unmarshal(answer, out)
}

// app is a project in a world.
type app struct {
	*world
	t  *testing.T
	c  *pinpoint.Client // of the node that is asked
	id string
	at int // which that is
}

// ask has the ith node be asked from now on.
func (a *app) ask(i int) { a.at, a.c = i, a.client(i) }

// newApp makes a project that can send mail and texts.
func newApp(t *testing.T, w *world) *app {
	t.Helper()
	a := &app{world: w, t: t, c: w.client(0)}
	ctx := t.Context()
	out, err := a.c.CreateApp(ctx, &pinpoint.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: aws.String("Tea")}})
	if err != nil {
		t.Fatal(err)
	}
	a.id = *out.ApplicationResponse.Id
	_, err = a.c.UpdateEmailChannel(ctx, &pinpoint.UpdateEmailChannelInput{ApplicationId: &a.id, EmailChannelRequest: &types.EmailChannelRequest{
		Enabled: aws.Bool(true), FromAddress: aws.String("shop@tea.example"),
		Identity: aws.String("arn:aws:ses:" + region + ":" + account + ":identity/tea.example"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.c.UpdateSmsChannel(ctx, &pinpoint.UpdateSmsChannelInput{
		ApplicationId: &a.id, SMSChannelRequest: &types.SMSChannelRequest{Enabled: aws.Bool(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// optedOutEvery says which recipients of a made-up audience opted out.
const optedOutEvery = 50

// audience imports n endpoints, half of them mail, and returns the addresses
// that must be reached; the others opted out.
func (a *app) audience(n int) (reach map[string]bool) {
	a.t.Helper()
	reach = map[string]bool{}
	var file bytes.Buffer
	file.WriteString("Id,ChannelType,Address,OptOut,User.UserId,Attributes.tea\n")
	for i := range n {
		channel, address, out := "EMAIL", fmt.Sprintf("member.%05d@tea.example", i), ""
		if i%2 == 1 {
			channel, address = "SMS", fmt.Sprintf("+1253%07d", 5550000+i)
		}
		if i%optedOutEvery == optedOutEvery-1 || i%optedOutEvery == 0 {
			out = "ALL"
		} else {
			reach[address] = true
		}
		fmt.Fprintf(&file, "e%05d,%s,%s,%s,u%05d,oolong\n", i, channel, address, out, i)
	}
	a.write("buckets/test/"+a.id+".csv", file.Bytes())
	job := a.importFile("s3://test/" + a.id + ".csv")
	if job.JobStatus != types.JobStatusCompleted || aws.ToInt32(job.TotalProcessed) != int32(n) || aws.ToInt32(job.TotalFailures) != 0 {
		a.t.Fatalf("the import is %s: %d of %d lines, failures %v", job.JobStatus, aws.ToInt32(job.TotalProcessed), n, job.Failures)
	}
	return reach
}

// importFile imports a CSV file and waits for the end of the job.
func (a *app) importFile(url string) *types.ImportJobResponse {
	a.t.Helper()
	made := a.startImport(url, false)
	job := made
	until(a.t, "the import does not end", func() bool {
		job = a.importJob(*made.Id)
		return job != nil && (job.JobStatus == types.JobStatusCompleted || job.JobStatus == types.JobStatusFailed)
	})
	return job
}

func (a *app) startImport(url string, segment bool) *types.ImportJobResponse {
	a.t.Helper()
	req := &types.ImportJobRequest{
		Format: types.FormatCsv, S3Url: &url, RoleArn: aws.String("arn:aws:iam::" + account + ":role/import"),
		RegisterEndpoints: aws.Bool(true), DefineSegment: &segment,
	}
	if segment {
		req.SegmentName = aws.String("imported")
	}
	out, err := a.c.CreateImportJob(a.t.Context(), &pinpoint.CreateImportJobInput{ApplicationId: &a.id, ImportJobRequest: req})
	if err != nil {
		a.t.Fatal(err)
	}
	return out.ImportJobResponse
}

// importJob reads a job; nil while the node does not answer.
func (a *app) importJob(id string) *types.ImportJobResponse {
	out, err := a.c.GetImportJob(a.t.Context(), &pinpoint.GetImportJobInput{ApplicationId: &a.id, JobId: &id})
	if err != nil {
		return nil
	}
	return out.ImportJobResponse
}

// campaign starts a campaign over mail and SMS to everybody who likes oolong.
// The policy, LEAVE or RESEND, is what becomes of ambiguous sends.
func (a *app) campaign(policy string) (id string) {
	a.t.Helper()
	ctx := a.t.Context()
	type sendingPolicy struct{ AmbiguousSends string }
	if err := a.admin(a.at, http.MethodPut, "/apps/"+a.id+"/sending-policy", nil, sendingPolicy{policy}, &sendingPolicy{}); err != nil {
		a.t.Fatal(err)
	}
	segment, err := a.c.CreateSegment(ctx, &pinpoint.CreateSegmentInput{ApplicationId: &a.id, WriteSegmentRequest: &types.WriteSegmentRequest{
		Name: aws.String("oolong"),
		Dimensions: &types.SegmentDimensions{Attributes: map[string]types.AttributeDimension{
			"tea": {AttributeType: types.AttributeTypeInclusive, Values: []string{"oolong"}},
		}},
	}})
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := a.c.CreateCampaign(ctx, &pinpoint.CreateCampaignInput{ApplicationId: &a.id, WriteCampaignRequest: &types.WriteCampaignRequest{
		Name: aws.String("First harvest"), SegmentId: segment.SegmentResponse.Id, Schedule: &types.Schedule{StartTime: aws.String("IMMEDIATE")},
		MessageConfiguration: &types.MessageConfiguration{
			EmailMessage: &types.CampaignEmailMessage{
				Title: aws.String("The first {{Attributes.tea}} is here"), Body: aws.String("Dear {{User.UserId}}, come and taste."),
			},
			SMSMessage: &types.CampaignSmsMessage{
				Body: aws.String("Dear {{User.UserId}}, the first {{Attributes.tea}} is here."), MessageType: types.MessageTypePromotional,
			},
		},
	}})
	if err != nil {
		a.t.Fatal(err)
	}
	return *out.CampaignResponse.Id
}

// run is how far a campaign is.
type run struct {
	State                                      string
	Targets, Sent, Failed, Ambiguous, InFlight int64
	Held                                       map[string]int64
}

// runOf asks the first node that answers, from the one that is asked on.
func (a *app) runOf(campaign string) (*run, error) {
	var err error
	for i := range a.nodes {
		r := &run{}
		if err = a.admin((a.at+i)%len(a.nodes), http.MethodGet, "/apps/"+a.id+"/campaigns/"+campaign+"/run", nil, nil, r); err == nil {
			return r, nil
		}
	}
	return nil, err
}

// finish waits until the campaign is over by itself.
func (a *app) finish(campaign string) {
	a.t.Helper()
	var last *run
	var lastErr error
	defer func() {
		if a.t.Failed() {
			a.t.Logf("the run when it was last asked: %+v %v", last, lastErr)
		}
	}()
	untilEvery(a.t, 50*time.Millisecond, "the campaign does not end", func() bool {
		last, lastErr = a.runOf(campaign)
		if lastErr == nil && last.State == "FAILED" {
			a.t.Fatal("the campaign failed")
		}
		return lastErr == nil && last.State == "COMPLETED"
	})
}

// ambiguousSend is a send whose outcome is not known, or was not for a while.
type ambiguousSend struct {
	MessageId, EndpointId, Channel, Address, Decision, Resolution string
	IntentAt                                                      time.Time
}

func (a *app) ambiguousSends(campaign string) (all []ambiguousSend) {
	a.t.Helper()
	query := url.Values{"page-size": {strconv.Itoa(500)}}
	if campaign != "" {
		query.Set("campaign-id", campaign)
	}
	for {
		var page struct {
			Item      []ambiguousSend
			NextToken string
		}
		if err := a.admin(a.at, http.MethodGet, "/apps/"+a.id+"/ambiguous-sends", query, nil, &page); err != nil {
			a.t.Fatal(err)
		}
		if all = append(all, page.Item...); page.NextToken == "" {
			return all
		}
		query.Set("token", page.NextToken)
	}
}
