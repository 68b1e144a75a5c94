package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/api/pinpointemail"
	"github.com/everpoint/everpoint/api/smsvoicev2"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

func TestFindPath(t *testing.T) {
	m := wire.NewMux(services...)
	tests := map[string]struct{ method, path, want string }{
		"an app":                               {"GET", "/v1/apps/a1", "pinpoint.GetApp"},
		"the list beside it":                   {"GET", "/v1/apps", "pinpoint.GetApps"},
		"a longer prefix is another service":   {"GET", "/v1/email/account", "pinpointemail.GetAccount"},
		"and another":                          {"GET", "/v1/sms-voice/configuration-sets", "smsvoice.ListConfigurationSets"},
		"our own":                              {"GET", "/everpoint/v1/node", "everpoint.GetNodeStatus"},
		"a literal wins over a label":          {"POST", "/v1/apps/a1/events", "pinpoint.PutEvents"},
		"the beacon of older web SDKs":         {"POST", "/v1/apps/a1/events/legacy", "pinpoint.PutEvents"},
		"a template by its type":               {"GET", "/v1/templates/welcome/email", "pinpoint.GetEmailTemplate"},
		"in any case":                          {"GET", "/v1/templates/welcome/EMAIL", "pinpoint.GetEmailTemplate"},
		"back from the literal to the label":   {"GET", "/v1/templates/welcome/email/versions", "pinpoint.ListTemplateVersions"},
		"as SDKs send it":                      {"GET", "/v1/templates/welcome/EMAIL/versions", "pinpoint.ListTemplateVersions"},
		"the active version":                   {"PUT", "/v1/templates/welcome/SMS/active-version", "pinpoint.UpdateTemplateActiveVersion"},
		"a template named like a literal":      {"GET", "/v1/templates/email/email", "pinpoint.GetEmailTemplate"},
		"an ARN is one segment":                {"GET", "/v1/tags/arn%3Aaws%3Amobiletargeting%3Aus-east-1%3A123456789012%3Aapps%2Fa1", "pinpoint.ListTagsForResource"},
		"an app whose id is a word of paths":   {"GET", "/v1/apps/campaigns/campaigns", "pinpoint.GetCampaigns"},
		"Personalize has no prefix of its own": {"POST", "/recommendations", "personalizeruntime.GetRecommendations"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			match, err := m.Find(&wire.Request{Method: tt.method, RawPath: tt.path, Header: http.Header{}})
			if err != nil {
				t.Fatal(err)
			}
			if got := match.Op.Key(); got != tt.want {
				t.Errorf("found %s, want %s", got, tt.want)
			}
		})
	}
}

func TestFindRefuses(t *testing.T) {
	m := wire.NewMux(services...)
	target := func(v string) http.Header {
		return http.Header{"X-Amz-Target": {v}, "Content-Type": {"application/x-amz-json-1.0"}}
	}
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	tests := map[string]struct {
		req    wire.Request
		status int
		code   string
		body   string
	}{
		"another verb":               {wire.Request{Method: "PATCH", RawPath: "/v1/apps"}, 405, "MethodNotAllowedException", `{"Message":"The method PATCH is not allowed here.","RequestID":"` + requestID + `"}`},
		"an unknown path":            {wire.Request{Method: "GET", RawPath: "/v1/nope"}, 404, "UnknownOperationException", `"RequestID"`},
		"an empty label":             {wire.Request{Method: "PUT", RawPath: "/v1/apps/a1/endpoints/"}, 404, "UnknownOperationException", ""},
		"an unknown path of email":   {wire.Request{Method: "GET", RawPath: "/v1/email/nope"}, 404, "UnknownOperationException", `{"message":`},
		"a path of nobody":           {wire.Request{Method: "GET", RawPath: "/nobody"}, 404, "UnknownOperationException", `{"message":`},
		"a bad escape":               {wire.Request{Method: "GET", RawPath: "/v1/apps/%zz"}, 400, "BadRequestException", "percent-encoding"},
		"a control character":        {wire.Request{Method: "GET", RawPath: "/v1/apps/a%00b"}, 400, "BadRequestException", "control character"},
		"invalid UTF-8":              {wire.Request{Method: "GET", RawPath: "/v1/apps/%ff"}, 400, "BadRequestException", "UTF-8"},
		"no path":                    {wire.Request{Method: "GET", RawPath: "*"}, 400, "BadRequestException", ""},
		"a very deep path":           {wire.Request{Method: "GET", RawPath: "/v1" + strings.Repeat("/a", 100)}, 404, "UnknownOperationException", ""},
		"the root without action":    {wire.Request{Method: "GET", RawPath: "/"}, 404, "UnknownOperationException", ""},
		"an unknown target":          {wire.Request{Method: "POST", RawPath: "/", Header: target("Nobody.Op")}, 400, "", `{"__type":"UnknownOperationException"`},
		"an operation of newer v2":   {wire.Request{Method: "POST", RawPath: "/", Header: target("PinpointSMSVoiceV2.CarrierLookup")}, 400, "", `{"__type":"UnknownOperationException","Message":"The operation CarrierLookup is not recognized by the service."}`},
		"a target with another verb": {wire.Request{Method: "GET", RawPath: "/", Header: target("PinpointSMSVoiceV2.SendTextMessage")}, 400, "", `{"__type":"MethodNotAllowedException"`},
		"an unknown action":          {wire.Request{Method: "POST", RawPath: "/", Header: form, Body: []byte("Action=Nope&Version=2010-05-08")}, 400, "", "<Code>InvalidAction</Code>"},
		"an action that never was":   {wire.Request{Method: "POST", RawPath: "/", Header: form, Body: []byte("Action=CreateSAMLProvider&Version=2010-05-08")}, 400, "", "<Code>InvalidAction</Code>"},
		"a version of nobody":        {wire.Request{Method: "POST", RawPath: "/", Header: form, Body: []byte("Action=GetUser&Version=1999-01-01")}, 400, "", "<Code>InvalidAction</Code>"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.req.Header == nil {
				tt.req.Header = http.Header{}
			}
			match, err := m.Find(&tt.req)
			if err == nil {
				t.Fatalf("found %s", match.Op.Key())
			}
			resp := match.Fail(requestID, err)
			if resp.Status != tt.status || resp.Header.Get("x-amzn-ErrorType") != tt.code || !strings.Contains(string(resp.Body), tt.body) {
				t.Errorf("got %d %q %s", resp.Status, resp.Header.Get("x-amzn-ErrorType"), resp.Body)
			}
			if resp.Header.Get("x-amzn-RequestId") != requestID {
				t.Error("the response has no request id")
			}
		})
	}
}

func TestActionAndResource(t *testing.T) {
	m := wire.NewMux(services...)
	wire.Handle(m, pinpoint.GetCampaign, "apps/{ApplicationId}/campaigns/{CampaignId}", nothing[pinpoint.GetCampaignRequest, pinpoint.GetCampaignResponse])
	wire.Handle(m, pinpoint.GetApps, "apps", nothing[pinpoint.GetAppsRequest, pinpoint.GetAppsResponse])
	wire.Handle(m, pinpoint.TagResource, "{ResourceArn}", nothing[pinpoint.TagResourceRequest, wire.Empty])
	wire.Handle(m, pinpoint.ListTemplateVersions, "templates/{TemplateName}/{TemplateType|upper}", nothing[pinpoint.ListTemplateVersionsRequest, pinpoint.ListTemplateVersionsResponse])
	wire.Handle(m, smsvoicev2.DeletePool, "pool/{PoolId}", nothing[smsvoicev2.DeletePoolRequest, smsvoicev2.DeletePoolResult])
	wire.Handle(m, pinpointemail.ListTagsForResource, "{ResourceArn}", nothing[pinpointemail.ListTagsForResourceRequest, pinpointemail.ListTagsForResourceResponse])
	mountIAM(m)
	pool := http.Header{"X-Amz-Target": {"PinpointSMSVoiceV2.DeletePool"}}
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	tests := map[string]struct {
		req              wire.Request
		action, resource string
	}{
		"labels":                      {wire.Request{Method: "GET", RawPath: "/v1/apps/a1/campaigns/c1"}, "mobiletargeting:GetCampaign", "arn:aws:mobiletargeting:us-east-1:123456789012:apps/a1/campaigns/c1"},
		"labels are decoded once":     {wire.Request{Method: "GET", RawPath: "/v1/apps/a%252F1/campaigns/c%2F1"}, "mobiletargeting:GetCampaign", "arn:aws:mobiletargeting:us-east-1:123456789012:apps/a%2F1/campaigns/c/1"},
		"a collection":                {wire.Request{Method: "GET", RawPath: "/v1/apps"}, "mobiletargeting:GetApps", "arn:aws:mobiletargeting:us-east-1:123456789012:apps"},
		"an ARN in the path":          {wire.Request{Method: "POST", RawPath: "/v1/tags/arn%3Aaws%3Amobiletargeting%3Aus-east-1%3A123456789012%3Aapps%2Fa1"}, "mobiletargeting:TagResource", "arn:aws:mobiletargeting:us-east-1:123456789012:apps/a1"},
		"upper case":                  {wire.Request{Method: "GET", RawPath: "/v1/templates/t/email/versions"}, "mobiletargeting:ListTemplateVersions", "arn:aws:mobiletargeting:us-east-1:123456789012:templates/t/EMAIL"},
		"a member of the body":        {wire.Request{Method: "POST", RawPath: "/", Header: pool, Body: []byte(`{"x":[{}],"PoolId":"pool-1"}`)}, "sms-voice:DeletePool", "arn:aws:sms-voice:us-east-1:123456789012:pool/pool-1"},
		"the last of equal members":   {wire.Request{Method: "POST", RawPath: "/", Header: pool, Body: []byte(`{"PoolId":"pool-1","PoolId":"pool-2"}`)}, "sms-voice:DeletePool", "arn:aws:sms-voice:us-east-1:123456789012:pool/pool-2"},
		"an ARN in the body":          {wire.Request{Method: "POST", RawPath: "/", Header: pool, Body: []byte(`{"PoolId":"arn:aws:sms-voice:eu-west-1:210987654321:pool/p"}`)}, "sms-voice:DeletePool", "arn:aws:sms-voice:eu-west-1:210987654321:pool/p"},
		"an ARN of another kind":      {wire.Request{Method: "POST", RawPath: "/", Header: pool, Body: []byte(`{"PoolId":"arn:aws:sms-voice:us-east-1:1:opt-out-list/p"}`)}, "sms-voice:DeletePool", "arn:aws:sms-voice:us-east-1:123456789012:pool/arn:aws:sms-voice:us-east-1:1:opt-out-list/p"},
		"an ARN in place of an id":    {wire.Request{Method: "GET", RawPath: "/v1/apps/arn%3Aaws%3Amobiletargeting%3Aus-east-1%3A1%3Aapps%2Fa/campaigns/c"}, "mobiletargeting:GetCampaign", "arn:aws:mobiletargeting:us-east-1:123456789012:apps/arn:aws:mobiletargeting:us-east-1:1:apps/a/campaigns/c"},
		"an unreadable body":          {wire.Request{Method: "POST", RawPath: "/", Header: pool, Body: []byte(`{"PoolId":"pool-1`)}, "sms-voice:DeletePool", "arn:aws:sms-voice:us-east-1:123456789012:pool/*"},
		"a member of the query":       {wire.Request{Method: "GET", RawPath: "/v1/email/tags", RawQuery: "ResourceArn=arn%3Aaws%3Ases%3Aus-east-1%3A123456789012%3Aidentity%2Fx"}, "ses:ListTagsForResource", "arn:aws:ses:us-east-1:123456789012:identity/x"},
		"a parameter, without Region": {wire.Request{Method: "POST", RawPath: "/", Header: form, Body: []byte("Action=GetUser&Version=2010-05-08&UserName=ada")}, "iam:GetUser", "arn:aws:iam::123456789012:user/ada"},
		"what was not mounted":        {wire.Request{Method: "GET", RawPath: "/v1/apps/a1"}, "mobiletargeting:GetApp", "*"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.req.Header == nil {
				tt.req.Header = http.Header{}
			}
			match, err := m.Find(&tt.req)
			if err != nil {
				t.Fatal(err)
			}
			if got := match.Action(); got != tt.action {
				t.Errorf("action %s, want %s", got, tt.action)
			}
			if got := match.Resource("us-east-1", "123456789012"); got != tt.resource {
				t.Errorf("resource %s, want %s", got, tt.resource)
			}
		})
	}
}

func nothing[I, O any](context.Context, *I) (*O, error) { return nil, nil }

func TestHandleRefusesDefects(t *testing.T) {
	panics := func(name, want string, f func()) {
		t.Helper()
		defer func() {
			if p, _ := recover().(string); !strings.Contains(p, want) {
				t.Errorf("%s: panic %q, want one that says %q", name, p, want)
			}
		}()
		f()
	}
	m := wire.NewMux(pinpoint.Service)
	mountAll(m, pinpoint.GetApp)
	panics("twice", "mounted twice", func() { mountAll(m, pinpoint.GetApp) })
	panics("a foreign service", "does not have its service", func() { mountAll(m, smsvoicev2.DeletePool) })
	panics("an unknown label", `no member "AppId"`, func() {
		wire.Handle(m, pinpoint.DeleteApp, "apps/{AppId}", nothing[pinpoint.DeleteAppRequest, pinpoint.DeleteAppResponse])
	})
	panics("no resource", "the resource is empty", func() {
		wire.Handle(m, pinpoint.DeleteApp, "", nothing[pinpoint.DeleteAppRequest, pinpoint.DeleteAppResponse])
	})
	if got := m.Mounted(); len(got) != 1 || got[0] != "pinpoint.GetApp" {
		t.Errorf("mounted %v", got)
	}
}

// FuzzFind: no request panics the mux, and what a path is found to be does not
// change when its labels are written out again.
func FuzzFind(f *testing.F) {
	f.Add("GET", "/v1/apps/a1/campaigns/c1", "token=x", "", "")
	f.Add("PUT", "/v1/templates/x/EMAIL/active-version", "", "", "")
	f.Add("POST", "/", "", "PinpointSMSVoiceV2.SendTextMessage", `{"DestinationPhoneNumber":"+1"}`)
	f.Add("POST", "/", "", "", "Action=GetUser&Version=2010-05-08&UserName=ada")
	f.Add("GET", "/", "Action=GetCallerIdentity&Version=2011-06-15", "", "")
	f.Add("GET", "/v1/tags/arn%3Aaws%3A%2F", "", "", "")
	f.Add("GET", "//v1//apps/%2e%2e/%", "", "a.b.c", "")
	m := wire.NewMux(services...)
	f.Fuzz(func(t *testing.T, method, path, query, target, body string) {
		r := &wire.Request{Method: method, RawPath: path, RawQuery: query, Header: http.Header{}, Body: []byte(body)}
		if target != "" {
			r.Header.Set("X-Amz-Target", target)
		}
		match, err := m.Find(r)
		if match == nil {
			t.Fatal("no match")
		}
		if err != nil {
			if resp := match.Fail(requestID, err); resp.Status < 400 || aws.KindOf(err) == aws.KindInternal {
				t.Fatalf("%v: %d %s", err, resp.Status, resp.Body)
			}
			return
		}
		if resp := match.Invoke(ctx(), r); resp.Status != 501 {
			t.Fatalf("%s: %d %s", match.Op.Key(), resp.Status, resp.Body)
		}
		for i := range match.Op.Input.Members {
			match.Label(match.Op.Input.Members[i].Name)
		}
	})
}
