package api_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/cloudtrail"
	"github.com/everpoint/everpoint/api/cognitoidentity"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/iam"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/api/pinpointemail"
	"github.com/everpoint/everpoint/api/smsvoice"
	"github.com/everpoint/everpoint/api/smsvoicev2"
	"github.com/everpoint/everpoint/api/sts"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

func mountIAM(m *wire.Mux) {
	wire.Handle(m, iam.GetUser, "user/{UserName}", nothing[iam.GetUserRequest, iam.GetUserResponse])
}

func p[T any](v T) *T { return &v }

// exchange mounts h on op, sends r, and returns the response and what h was given.
func exchange[I, O any](t *testing.T, op *wire.Operation[I, O], r *wire.Request, h func(*I) (*O, error)) (*wire.Response, *I) {
	t.Helper()
	m := wire.NewMux(services...)
	var log bytes.Buffer
	m.Log = slog.New(slog.NewTextHandler(&log, nil))
	var got *I
	wire.Handle(m, op, "*", func(_ context.Context, in *I) (*O, error) {
		got = in
		return h(in)
	})
	if r.Header == nil {
		r.Header = http.Header{}
	}
	match, err := m.Find(r)
	if err != nil {
		return match.Fail(requestID, err), nil
	}
	if match.Op != &op.Op {
		t.Fatalf("found %s", match.Op.Key())
	}
	resp := match.Invoke(ctx(), r)
	if got != nil && !reflect.DeepEqual(match.Input, any(got)) {
		t.Error("the match does not keep the input")
	}
	return resp, got
}

func empty[I, O any](*I) (*O, error) { return nil, nil }

func wantResponse(t *testing.T, resp *wire.Response, status int, contentType, body string) {
	t.Helper()
	if resp.Status != status || resp.Header.Get("Content-Type") != contentType || string(resp.Body) != body {
		t.Errorf("got  %d %s %s\nwant %d %s %s", resp.Status, resp.Header.Get("Content-Type"), resp.Body, status, contentType, body)
	}
	if resp.Header.Get("x-amzn-RequestId") != requestID {
		t.Error("no request id")
	}
}

// restJson1, both directions. Source: engagement 0 and 12, models/README.md.

func TestRestPayloadIsTheBody(t *testing.T) {
	resp, in := exchange(t, pinpoint.CreateApp, &wire.Request{Method: "POST", RawPath: "/v1/apps", Body: []byte(` {"Name":"n","tags":{"a":"b"},"Unknown":1} `)},
		func(in *pinpoint.CreateAppRequest) (*pinpoint.CreateAppResponse, error) {
			return &pinpoint.CreateAppResponse{ApplicationResponse: &pinpoint.ApplicationResponse{
				Arn: "arn:x", Id: "1", Name: in.CreateApplicationRequest.Name, Tags: in.CreateApplicationRequest.Tags,
			}}, nil
		})
	wantResponse(t, resp, 201, "application/json", `{"Arn":"arn:x","Id":"1","Name":"n","tags":{"a":"b"}}`)
	if in.CreateApplicationRequest.Tags["a"] != "b" {
		t.Errorf("input %+v", in.CreateApplicationRequest)
	}
}

func TestRestRequiredListIsWrittenEmpty(t *testing.T) {
	resp, in := exchange(t, pinpoint.GetApps, &wire.Request{Method: "GET", RawPath: "/v1/apps", RawQuery: "page-size=5&token=a%2Bb+c", Header: http.Header{"Content-Type": {"application/json"}}},
		func(*pinpoint.GetAppsRequest) (*pinpoint.GetAppsResponse, error) {
			return &pinpoint.GetAppsResponse{ApplicationsResponse: &pinpoint.ApplicationsResponse{}}, nil
		})
	// GetApps of an empty account. Source: clients, small habits; Item is not a
	// required member of its model, so the room gives an empty list.
	wantResponse(t, resp, 200, "application/json", `{}`)
	if *in.PageSize != "5" || *in.Token != "a+b c" {
		t.Errorf("input %+v", in)
	}
	resp, _ = exchange(t, pinpoint.GetApps, &wire.Request{Method: "GET", RawPath: "/v1/apps"},
		func(*pinpoint.GetAppsRequest) (*pinpoint.GetAppsResponse, error) {
			return &pinpoint.GetAppsResponse{ApplicationsResponse: &pinpoint.ApplicationsResponse{Item: []pinpoint.ApplicationResponse{}}}, nil
		})
	wantResponse(t, resp, 200, "application/json", `{"Item":[]}`)
	resp, _ = exchange(t, pinpoint.GetCampaigns, &wire.Request{Method: "GET", RawPath: "/v1/apps/a/campaigns"},
		func(*pinpoint.GetCampaignsRequest) (*pinpoint.GetCampaignsResponse, error) {
			return &pinpoint.GetCampaignsResponse{CampaignsResponse: &pinpoint.CampaignsResponse{}}, nil
		})
	wantResponse(t, resp, 200, "application/json", `{"Item":[]}`)
	resp, _ = exchange(t, pinpoint.ListTagsForResource, &wire.Request{Method: "GET", RawPath: "/v1/tags/arn%3Aaws%3Ax"},
		func(in *pinpoint.ListTagsForResourceRequest) (*pinpoint.ListTagsForResourceResponse, error) {
			return &pinpoint.ListTagsForResourceResponse{TagsModel: &pinpoint.TagsModel{}}, nil
		})
	wantResponse(t, resp, 200, "application/json", `{"tags":{}}`)
}

func TestRestLabelsQueryAndTimes(t *testing.T) {
	_, in := exchange(t, pinpoint.GetCampaignDateRangeKpi, &wire.Request{
		Method: "GET", RawPath: "/v1/apps/a%2520b/campaigns/c%2Fd/kpis/daterange/k", RawQuery: "start-time=2026-01-01T00%3A00%3A00Z&end-time=2026-01-02T00:00:00.5Z&start-time-x=1&X-Amz-Signature=zz",
	}, empty)
	want := pinpoint.GetCampaignDateRangeKpiRequest{
		ApplicationId: "a%20b", CampaignId: "c/d", KpiName: "k",
		StartTime: p(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), EndTime: p(time.Date(2026, 1, 2, 0, 0, 0, 5e8, time.UTC)),
	}
	if !reflect.DeepEqual(*in, want) {
		t.Errorf("got %+v", *in)
	}
}

func TestRestListsInTheQuery(t *testing.T) {
	resp, in := exchange(t, pinpoint.UntagResource, &wire.Request{Method: "DELETE", RawPath: "/v1/tags/arn%3Aaws%3Ax", RawQuery: "tagKeys=b&tagKeys=a%20c&tagKeys="}, empty)
	wantResponse(t, resp, 204, "", "")
	if !reflect.DeepEqual(in.TagKeys, []string{"b", "a c", ""}) {
		t.Errorf("keys %q", in.TagKeys)
	}
	resp, _ = exchange(t, pinpoint.UntagResource, &wire.Request{Method: "DELETE", RawPath: "/v1/tags/arn%3Aaws%3Ax"}, empty)
	wantResponse(t, resp, 400, "application/json", `{"Message":"TagKeys: required but missing","RequestID":"`+requestID+`"}`)
}

func TestRestBodyBesideLabels(t *testing.T) {
	// A member that the path carries is not taken from the body as well.
	resp, in := exchange(t, pinpointemail.PutEmailIdentityDkimAttributes, &wire.Request{
		Method: "PUT", RawPath: "/v1/email/identities/example.com/dkim", Body: []byte(`{"SigningEnabled":true,"EmailIdentity":"other.com"}`),
	}, empty)
	wantResponse(t, resp, 200, "application/json", `{}`)
	if in.EmailIdentity != "example.com" || !in.SigningEnabled {
		t.Errorf("input %+v", in)
	}
}

func TestRestEmptyBody(t *testing.T) {
	resp, in := exchange(t, pinpoint.UpdateVoiceChannel, &wire.Request{Method: "PUT", RawPath: "/v1/apps/a/channels/voice"}, empty)
	wantResponse(t, resp, 200, "application/json", `{}`)
	if in.VoiceChannelRequest == nil {
		t.Error("the payload is nil")
	}
	resp, _ = exchange(t, pinpoint.CreateApp, &wire.Request{Method: "POST", RawPath: "/v1/apps", Body: []byte(" \n")}, empty)
	wantResponse(t, resp, 400, "application/json", `{"Message":"Name: required but missing","RequestID":"`+requestID+`"}`)
}

func TestRestFoldsTemplateTypes(t *testing.T) {
	_, in := exchange(t, pinpoint.ListTemplateVersions, &wire.Request{Method: "GET", RawPath: "/v1/templates/t/email/versions"}, empty)
	if in == nil || in.TemplateType != pinpoint.TemplateTypeEmail {
		t.Errorf("input %+v", in)
	}
	resp, _ := exchange(t, pinpoint.ListTemplateVersions, &wire.Request{Method: "GET", RawPath: "/v1/templates/t/fax/versions"}, empty)
	wantResponse(t, resp, 400, "application/json", `{"Message":"TemplateType: \"FAX\" is not one of EMAIL, SMS, VOICE, PUSH, INAPP","RequestID":"`+requestID+`"}`)
}

// What the overlay says of Pinpoint's plain strings and numbers.
func TestPinpointOverlay(t *testing.T) {
	update := func(body string) *wire.Response {
		t.Helper()
		resp, _ := exchange(t, pinpoint.UpdateEndpoint, &wire.Request{Method: "PUT", RawPath: "/v1/apps/a/endpoints/e", Body: []byte(body)}, empty)
		return resp
	}
	for body, want := range map[string]string{
		`{"OptOut":"SOME"}`:           `OptOut: \"SOME\" is not one of ALL, NONE`,
		`{"EndpointStatus":"x"}`:      `EndpointStatus: \"x\" is not one of ACTIVE, INACTIVE`,
		`{"Metrics":{"x":"1"}}`:       `Metrics.x: expected a number`,
		`{"ChannelType":"PIGEON"}`:    `ChannelType: \"PIGEON\" is not one of`,
		`{"Location":{"Latitude":{}}`: `not valid JSON`,
		`{"User":{"UserAttributes":7`: `not valid JSON`,
		`{"Attributes":{"a":7}}`:      `Attributes.a: expected an array`,
	} {
		if resp := update(body); resp.Status != 400 || !strings.Contains(string(resp.Body), want) || resp.Header.Get("x-amzn-ErrorType") != "BadRequestException" {
			t.Errorf("%s: %d %s", body, resp.Status, resp.Body)
		}
	}
	_, in := exchange(t, pinpoint.UpdateEndpoint, &wire.Request{
		Method: "PUT", RawPath: "/v1/apps/a/endpoints/e", Body: []byte(`{"Attributes":{"a":"x"},"User":{"UserAttributes":{"b":"y","c":["z"]}}}`),
	}, empty)
	if e := in.EndpointRequest; !reflect.DeepEqual(e.Attributes, map[string][]string{"a": {"x"}}) || !reflect.DeepEqual(e.User.UserAttributes, map[string][]string{"b": {"y"}, "c": {"z"}}) {
		t.Errorf("bare strings read as %+v %+v", e.Attributes, e.User)
	}
	// The items of PutEvents are judged one by one, by their room.
	resp, ev := exchange(t, pinpoint.PutEvents, &wire.Request{
		Method: "POST", RawPath: "/v1/apps/a/events", Body: []byte(`{"BatchItem":{"e":{"Endpoint":{"ChannelType":"PIGEON","OptOut":"x"},"Events":{"1":{"Session":{}}}}}}`),
	}, empty)
	if resp.Status != 202 || ev.EventsRequest.BatchItem["e"].Endpoint.ChannelType != "PIGEON" {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
	resp, _ = exchange(t, pinpoint.SendOTPMessage, &wire.Request{Method: "POST", RawPath: "/v1/apps/a/otp", Body: []byte(
		`{"BrandName":"a brand that is much too long","Channel":"SMS","CodeLength":9,"DestinationIdentity":"+1","OriginationIdentity":"+1","ReferenceId":"","ValidityPeriod":61}`)}, empty)
	if want := `BrandName: must have 1 to 20 characters; CodeLength: must be between 5 and 8; ReferenceId: must have 1 to 48 characters; ValidityPeriod: must be between 5 and 60`; !strings.Contains(string(resp.Body), want) {
		t.Errorf("%s", resp.Body)
	}
	resp, _ = exchange(t, pinpoint.CreateSmsTemplate, &wire.Request{Method: "POST", RawPath: "/v1/templates/-x/sms", Body: []byte(`{}`)}, empty)
	if resp.Status != 400 || !strings.Contains(string(resp.Body), "TemplateName: does not match") {
		t.Errorf("%s", resp.Body)
	}
}

// awsJson1_0 and 1_1. Source: channels-and-events 0, 6.1, 6.2.

func jsonRequest(target, body string) *wire.Request {
	return &wire.Request{Method: "POST", RawPath: "/", Header: http.Header{"X-Amz-Target": {target}}, Body: []byte(body)}
}

func TestAWSJSON(t *testing.T) {
	created := time.Date(2026, 11, 14, 22, 13, 20, 120e6, time.UTC)
	resp, in := exchange(t, smsvoicev2.CreatePool, jsonRequest("PinpointSMSVoiceV2.CreatePool",
		`{"OriginationIdentity":"phone-1","IsoCountryCode":"US","MessageType":"TRANSACTIONAL","Tags":[{"Key":"k","Value":""}],"Newer":{}}`),
		func(*smsvoicev2.CreatePoolRequest) (*smsvoicev2.CreatePoolResult, error) {
			return &smsvoicev2.CreatePoolResult{PoolId: p("pool-1"), Status: smsvoicev2.PoolStatusActive, CreatedTimestamp: &created}, nil
		})
	wantResponse(t, resp, 200, "application/x-amz-json-1.0",
		`{"CreatedTimestamp":1794694400.12,"DeletionProtectionEnabled":false,"PoolId":"pool-1","SelfManagedOptOutsEnabled":false,"SharedRoutesEnabled":false,"Status":"ACTIVE","TwoWayEnabled":false}`)
	if in.DeletionProtectionEnabled != nil || len(in.Tags) != 1 || in.Tags[0].Key != "k" {
		t.Errorf("input %+v", in)
	}
	resp, _ = exchange(t, cloudtrail.LookupEvents, jsonRequest("com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents", `{"StartTime":1794694400}`), empty)
	wantResponse(t, resp, 200, "application/x-amz-json-1.1", `{}`)
	resp, in2 := exchange(t, cloudtrail.LookupEvents, jsonRequest("CloudTrail_20131101.LookupEvents", ``), empty)
	if resp.Status != 200 || in2.StartTime != nil {
		t.Errorf("%d %+v", resp.Status, in2)
	}
	resp, _ = exchange(t, cognitoidentity.UnlinkIdentity, jsonRequest("AWSCognitoIdentityService.UnlinkIdentity", `{"IdentityId":"us-east-1:0b8a1e6e-0000-4000-8000-000000000000","Logins":{"a":"t"},"LoginsToRemove":["a"]}`), empty)
	wantResponse(t, resp, 200, "application/x-amz-json-1.1", `{}`)
}

func TestAWSJSONFaults(t *testing.T) {
	call := func(body string, err error) string {
		t.Helper()
		resp, _ := exchange(t, smsvoicev2.DeletePool, jsonRequest("PinpointSMSVoiceV2.DeletePool", body),
			func(*smsvoicev2.DeletePoolRequest) (*smsvoicev2.DeletePoolResult, error) { return nil, err })
		if resp.Header.Get("x-amzn-ErrorType") != "" {
			t.Error("awsJson names its errors in the body")
		}
		return fmt.Sprint(resp.Status, " ", string(resp.Body))
	}
	const ok = `{"PoolId":"p"}`
	for name, tt := range map[string]struct {
		body string
		err  error
		want string
	}{
		"missing":         {`{}`, nil, `400 {"__type":"ValidationException","Message":"PoolId: required but missing","Reason":"MISSING_PARAMETER","Fields":[{"Name":"PoolId","Message":"required but missing"}]}`},
		"wrong":           {`{"PoolId":1}`, nil, `400 {"__type":"ValidationException","Message":"PoolId: expected a string","Reason":"INVALID_PARAMETER","Fields":[{"Name":"PoolId","Message":"expected a string"}]}`},
		"unreadable":      {`{`, nil, `400 {"__type":"ValidationException","Message":"the body is not valid JSON: unexpected end at byte 1","Reason":"CANNOT_PARSE"}`},
		"a member":        {ok, aws.InvalidMember("NextToken", "bad"), `400 {"__type":"ValidationException","Message":"bad","Reason":"INVALID_NEXT_TOKEN","Fields":[{"Name":"NextToken","Message":"bad"}]}`},
		"not found":       {ok, aws.NotFound("pool p"), `400 {"__type":"ResourceNotFoundException","Message":"pool p"}`},
		"conflict":        {ok, aws.Conflict("busy"), `400 {"__type":"ConflictException","Message":"busy","Reason":"RESOURCE_MODIFICATION_NOT_ALLOWED"}`},
		"throttled":       {ok, aws.Throttled("slow"), `400 {"__type":"ThrottlingException","Message":"slow"}`},
		"quota":           {ok, aws.Quota("full"), `400 {"__type":"ServiceQuotaExceededException","Message":"full"}`},
		"unavailable":     {ok, aws.Unavailable("later"), `503 {"__type":"ServiceUnavailableException","Message":"later"}`},
		"not implemented": {ok, aws.NotImplemented("not yet"), `501 {"__type":"NotImplementedException","Message":"not yet"}`},
		"denied":          {ok, aws.Denied("User: x"), `400 {"__type":"AccessDeniedException","Message":"User: x"}`},
		"an exception": {
			ok, &smsvoicev2.ConflictException{Message: "full", Reason: smsvoicev2.ConflictExceptionReasonResourceNotEmpty, ResourceType: smsvoicev2.ResourceTypePool, ResourceId: "p"},
			`400 {"__type":"ConflictException","Message":"full","Reason":"RESOURCE_NOT_EMPTY","ResourceId":"p","ResourceType":"pool"}`,
		},
		"a wrapped exception": {
			ok, fmt.Errorf("delete: %w", &smsvoicev2.InternalServerException{Message: "oh"}),
			`500 {"__type":"InternalServerException","Message":"oh","RequestId":"` + requestID + `"}`,
		},
		"anything else": {
			ok, errors.New("secret detail"),
			`500 {"__type":"InternalServerException","Message":"An internal error occurred. The request id identifies it in the server's log.","RequestId":"` + requestID + `"}`,
		},
	} {
		if got := call(tt.body, tt.err); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tt.want)
		}
	}
}

// restJson1 faults. Source: engagement 12, channels-and-events 0, access 1.7.
func TestRestFaults(t *testing.T) {
	call := func(err error) string {
		resp, _ := exchange(t, pinpoint.GetApp, &wire.Request{Method: "GET", RawPath: "/v1/apps/a"},
			func(*pinpoint.GetAppRequest) (*pinpoint.GetAppResponse, error) { return nil, err })
		return fmt.Sprint(resp.Status, " ", resp.Header.Get("x-amzn-ErrorType"), " ", string(resp.Body))
	}
	both := func(message string) string { return `{"Message":"` + message + `","RequestID":"` + requestID + `"}` }
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"invalid":         {aws.Invalid("x"), "400 BadRequestException " + both("x")},
		"not found":       {aws.NotFound("Resource not found"), "404 NotFoundException " + both("Resource not found")},
		"conflict":        {aws.Conflict("x"), "409 ConflictException " + both("x")},
		"forbidden":       {aws.Forbidden("x"), "403 ForbiddenException " + both("x")},
		"too large":       {aws.TooLarge("x"), "413 PayloadTooLargeException " + both("x")},
		"throttled":       {aws.Throttled("x"), "429 TooManyRequestsException " + both("x")},
		"quota":           {aws.Quota("x"), "400 BadRequestException " + both("x")},
		"unavailable":     {aws.Unavailable("x"), "503 ServiceUnavailableException " + both("x")},
		"not implemented": {aws.NotImplemented("x"), "501 NotImplementedException " + both("x")},
		"out of time":     {fmt.Errorf("read app: %w", context.DeadlineExceeded), "503 ServiceUnavailableException " + both("The request could not be completed in time.")},
		"unexpected":      {errors.New("disk"), "500 InternalServerErrorException " + both("An internal error occurred. The request id identifies it in the server's log.")},
		"an exception":    {&pinpoint.ConflictException{Message: "x"}, "409 ConflictException " + both("x")},
		"denied":          {aws.Denied("User: x"), `403 AccessDeniedException {"Message":"User: x"}`},
		"missing token":   {&aws.Fault{Kind: aws.KindMissingToken}, `403 MissingAuthenticationTokenException {"message":"Missing Authentication Token"}`},
		"incomplete":      {&aws.Fault{Kind: aws.KindIncompleteSignature, Message: "x"}, `403 IncompleteSignatureException {"message":"x"}`},
		"unknown key":     {&aws.Fault{Kind: aws.KindUnknownKey, Message: "x"}, `403 UnrecognizedClientException {"message":"x"}`},
		"mismatch":        {&aws.Fault{Kind: aws.KindBadSignature, Message: "x"}, `403 InvalidSignatureException {"message":"x"}`},
		"expired session": {&aws.Fault{Kind: aws.KindExpiredToken, Message: "x"}, `403 ExpiredTokenException {"message":"x"}`},
		"lapsed":          {&aws.Fault{Kind: aws.KindRequestExpired, Message: "x"}, `403 InvalidSignatureException {"message":"x"}`},
	} {
		if got := call(tt.err); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		resp *wire.Response
		want string
	}{
		{rest(t, pinpointemail.GetAccount, "/v1/email/account", aws.NotFound("x")), `404 NotFoundException {"message":"x"}`},
		{rest(t, pinpointemail.GetAccount, "/v1/email/account", aws.Conflict("x")), `400 AlreadyExistsException {"message":"x"}`},
		{rest(t, pinpointemail.GetAccount, "/v1/email/account", &pinpointemail.ConcurrentModificationException{Message: "x"}), `500 ConcurrentModificationException {"message":"x"}`},
		{rest(t, smsvoice.ListConfigurationSets, "/v1/sms-voice/configuration-sets", aws.Quota("x")), `412 LimitExceededException {"Message":"x"}`},
		{rest(t, smsvoice.ListConfigurationSets, "/v1/sms-voice/configuration-sets", aws.Conflict("x")), `409 AlreadyExistsException {"Message":"x"}`},
		{rest(t, everpoint.GetNodeStatus, "/everpoint/v1/node", aws.Unavailable("x")), `503 ServiceUnavailableException ` + both("x")},
	} {
		if got := fmt.Sprint(tt.resp.Status, " ", tt.resp.Header.Get("x-amzn-ErrorType"), " ", string(tt.resp.Body)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func rest[I, O any](t *testing.T, op *wire.Operation[I, O], path string, err error) *wire.Response {
	t.Helper()
	resp, _ := exchange(t, op, &wire.Request{Method: "GET", RawPath: path}, func(*I) (*O, error) { return nil, err })
	return resp
}

// awsQuery. Source: models/README.md, access 1.7.

func formRequest(body string) *wire.Request {
	return &wire.Request{
		Method: "POST", RawPath: "/", Body: []byte(body),
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}},
	}
}

func TestAWSQuery(t *testing.T) {
	resp, in := exchange(t, iam.CreateUser, formRequest("Action=CreateUser&Version=2010-05-08&UserName=ada&Path=%2Fteam%2F&Tags.member.1.Key=k&Tags.member.1.Value=v%3Aw"),
		func(in *iam.CreateUserRequest) (*iam.CreateUserResponse, error) {
			return &iam.CreateUserResponse{User: &iam.User{
				Arn: "arn:aws:iam::1:user/ada", UserId: "AIDA", UserName: in.UserName, Path: *in.Path, Tags: in.Tags,
				CreateDate: time.Date(2026, 11, 14, 22, 13, 20, 0, time.UTC),
			}}, nil
		})
	wantResponse(t, resp, 200, "text/xml", `<CreateUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><CreateUserResult><User>`+
		`<Arn>arn:aws:iam::1:user/ada</Arn><CreateDate>2026-11-14T22:13:20Z</CreateDate><Path>/team/</Path><Tags><member><Key>k</Key><Value>v:w</Value></member></Tags>`+
		`<UserId>AIDA</UserId><UserName>ada</UserName></User></CreateUserResult><ResponseMetadata><RequestId>`+requestID+`</RequestId></ResponseMetadata></CreateUserResponse>`)
	if in.PermissionsBoundary != nil || len(in.Tags) != 1 {
		t.Errorf("input %+v", in)
	}
	resp, _ = exchange(t, iam.DeleteUser, formRequest("Action=DeleteUser&Version=2010-05-08&UserName=ada"), empty)
	wantResponse(t, resp, 200, "text/xml", `<DeleteUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ResponseMetadata><RequestId>`+requestID+`</RequestId></ResponseMetadata></DeleteUserResponse>`)
	resp, _ = exchange(t, sts.GetCallerIdentity, &wire.Request{Method: "GET", RawPath: "/", RawQuery: "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60"},
		func(*sts.GetCallerIdentityRequest) (*sts.GetCallerIdentityResponse, error) {
			return &sts.GetCallerIdentityResponse{Account: p("123456789012")}, nil
		})
	wantResponse(t, resp, 200, "text/xml", `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>`+requestID+`</RequestId></ResponseMetadata></GetCallerIdentityResponse>`)
	if err := xml.Unmarshal(resp.Body, new(struct{})); err != nil {
		t.Errorf("not XML: %v", err)
	}
}

func TestAWSQueryFaults(t *testing.T) {
	call := func(body string, err error) string {
		t.Helper()
		resp, _ := exchange(t, iam.GetUser, formRequest("Action=GetUser&Version=2010-05-08"+body),
			func(*iam.GetUserRequest) (*iam.GetUserResponse, error) { return nil, err })
		if err := xml.Unmarshal(resp.Body, new(struct{})); err != nil {
			t.Errorf("not XML: %v", err)
		}
		return fmt.Sprint(resp.Status, " ", string(resp.Body))
	}
	fault := func(status int, side, code, message string) string {
		return fmt.Sprint(status, ` <ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>`+side+`</Type><Code>`+code+`</Code><Message>`+message+`</Message></Error><RequestId>`+requestID+`</RequestId></ErrorResponse>`)
	}
	for name, tt := range map[string]struct {
		body string
		err  error
		want string
	}{
		"not found":      {"", aws.NotFound("user <ada>"), fault(404, "Sender", "NoSuchEntity", "user &lt;ada&gt;")},
		"exists":         {"", aws.Conflict("x"), fault(409, "Sender", "EntityAlreadyExists", "x")},
		"an exception":   {"", &iam.DeleteConflictException{Message: "x"}, fault(409, "Sender", "DeleteConflict", "x")},
		"invalid":        {"&UserName=%20", nil, fault(400, "Sender", "ValidationError", `UserName: does not match the pattern ^[\w+=,.@-]+$`)},
		"unexpected":     {"", errors.New("disk"), fault(500, "Receiver", "ServiceFailure", "An internal error occurred. The request id identifies it in the server&#39;s log.")},
		"denied":         {"", aws.Denied("x"), fault(403, "Sender", "AccessDenied", "x")},
		"mismatch":       {"", &aws.Fault{Kind: aws.KindBadSignature, Message: "x"}, fault(403, "Sender", "SignatureDoesNotMatch", "x")},
		"incomplete":     {"", &aws.Fault{Kind: aws.KindIncompleteSignature, Message: "x"}, fault(400, "Sender", "IncompleteSignature", "x")},
		"nothing signed": {"", &aws.Fault{Kind: aws.KindMissingToken}, fault(403, "Sender", "MissingAuthenticationToken", "Request is missing Authentication Token")},
	} {
		if got := call(tt.body, tt.err); got != strings.ReplaceAll(tt.want, "&#39;", "'") {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tt.want)
		}
	}
}

func TestPanicsAreInternalErrors(t *testing.T) {
	m := wire.NewMux(services...)
	var log bytes.Buffer
	m.Log = slog.New(slog.NewTextHandler(&log, nil))
	wire.Handle(m, pinpoint.GetApp, "*", func(context.Context, *pinpoint.GetAppRequest) (*pinpoint.GetAppResponse, error) {
		panic("boom")
	})
	r := &wire.Request{Method: "GET", RawPath: "/v1/apps/a", Header: http.Header{}}
	match, err := m.Find(r)
	if err != nil {
		t.Fatal(err)
	}
	resp := match.Invoke(ctx(), r)
	if resp.Status != 500 || strings.Contains(string(resp.Body), "boom") {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
	if s := log.String(); !strings.Contains(s, "boom") || !strings.Contains(s, requestID) || !strings.Contains(s, "pinpoint.GetApp") {
		t.Errorf("log: %s", s)
	}
}

// An everpoint request carries Pinpoint's own shapes.
func TestEverpointUsesPinpointShapes(t *testing.T) {
	resp, in := exchange(t, everpoint.CountSegment, &wire.Request{
		Method: "POST", RawPath: "/everpoint/v1/apps/a/segment-counts",
		Body: []byte(`{"Dimensions":{"Metrics":{"m":{"ComparisonOperator":"EQUAL","Value":1}},"Attributes":{"x":{"Values":["y"]}}}}`),
	}, func(*everpoint.CountSegmentRequest) (*everpoint.CountSegmentResponse, error) {
		return &everpoint.CountSegmentResponse{SegmentCount: &everpoint.SegmentCount{Count: 3, Eligible: 2, ElapsedMicroseconds: 10}}, nil
	})
	wantResponse(t, resp, 200, "application/json", `{"Count":3,"ElapsedMicroseconds":10,"Eligible":2}`)
	var d *pinpoint.SegmentDimensions = in.SegmentCountRequest.Dimensions
	if d.Metrics["m"].ComparisonOperator != pinpoint.ComparisonOperatorEqual {
		t.Errorf("dimensions %+v", d)
	}
	resp, _ = exchange(t, everpoint.PutSendingPolicy, &wire.Request{Method: "PUT", RawPath: "/everpoint/v1/apps/a/sending-policy", Body: []byte(`{"AmbiguousSends":"MAYBE"}`)}, empty)
	wantResponse(t, resp, 400, "application/json", `{"Message":"AmbiguousSends: \"MAYBE\" is not one of LEAVE, RESEND","RequestID":"`+requestID+`"}`)
}
