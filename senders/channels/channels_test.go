package channels

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

const (
	started  = "2026-11-02T09:30:00.000Z"
	identity = "arn:aws:ses:us-east-1:" + account + ":identity/tea.example"
	service  = `{\"project_id\":\"p\",\"client_email\":\"e\",\"private_key\":\"top-secret\",\"token_uri\":\"u\"}`
)

// members reads an answer, and drops those that every channel has alike.
func (r *room) members(method, channel, body string) string {
	r.t.Helper()
	status, text := r.call(method, channel, body)
	if status != 200 {
		return fmt.Sprint(status, " ", text)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		r.t.Fatal(err)
	}
	for name, want := range map[string]any{
		"ApplicationId": app, "CreationDate": started, "IsArchived": false, "LastModifiedBy": user,
		"Id": channel, "Platform": strings.ToUpper(channel),
	} {
		if m[name] != want {
			r.t.Errorf("%s %s: %s is %v, want %v", method, channel, name, m[name], want)
		}
		delete(m, name)
	}
	delete(m, "LastModifiedDate")
	out, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(out)
}

func (r *room) check(method, channel, body, want string) {
	r.t.Helper()
	if got := r.members(method, channel, body); got != want {
		r.t.Errorf("%s %s %s\n got %s\nwant %s", method, channel, body, got, want)
	}
}

const gone = `404 {"Message":"Resource not found","RequestID":"req-1"}`

func TestChannel_of_each_type_lives_and_dies(t *testing.T) {
	apnsBody := `{"BundleId":"b","TeamId":"t","TokenKey":"top-secret","TokenKeyId":"k"}`
	apnsShown := `"HasCredential":true,"HasTokenKey":true,`
	cases := []struct {
		channel, body string
		enabled       bool // after the first put, which does not say
		before, after string
	}{
		{"adm", `{"ClientId":"c","ClientSecret":"top-secret"}`, true, ``, `"HasCredential":true,`},
		{"apns", apnsBody, true, ``, apnsShown},
		{"apns_sandbox", apnsBody, true, ``, apnsShown},
		{"apns_voip", apnsBody, true, ``, apnsShown},
		{"apns_voip_sandbox", apnsBody, true, ``, apnsShown},
		{"baidu", `{"ApiKey":"a","SecretKey":"top-secret"}`, true, `"Credential":"a",`, `"HasCredential":true,`},
		{
			"email", `{"FromAddress":"Tea <news@tea.example>","Identity":"` + identity + `","ConfigurationSet":"main"}`, true,
			`"ConfigurationSet":"main",`, `"FromAddress":"Tea \u003cnews@tea.example\u003e","HasCredential":true,"Identity":"` + identity + `","MessagesPerSecond":14,`,
		},
		{
			"gcm", `{"ApiKey":"a","ServiceJson":"` + service + `"}`, true,
			`"Credential":"a","DefaultAuthenticationMethod":"KEY",`, `"HasCredential":true,"HasFcmServiceCredentials":true,`,
		},
		{
			"sms", `{"SenderId":"TEA","ShortCode":"12345"}`, true, ``,
			`"HasCredential":true,"PromotionalMessagesPerSecond":20,"SenderId":"TEA","ShortCode":"12345","TransactionalMessagesPerSecond":30,`,
		},
		{"voice", `{}`, false, ``, `"HasCredential":true,`},
	}
	rooms(t, func(t *testing.T, r *room) {
		for _, c := range cases {
			want := func(enabled bool, version int) string {
				return fmt.Sprintf(`{%s"Enabled":%v,%s"Version":%d}`, c.before, enabled, c.after, version)
			}
			r.check("GET", c.channel, "", gone)
			r.check("DELETE", c.channel, "", gone)
			r.check("PUT", c.channel, c.body, want(c.enabled, 1))
			r.check("GET", c.channel, "", want(c.enabled, 1))
			// Saying nothing about Enabled leaves it.
			off := strings.TrimSuffix(c.body, "}")
			if off != "{" {
				off += ","
			}
			r.check("PUT", c.channel, off+`"Enabled":false}`, want(false, 2))
			r.check("PUT", c.channel, c.body, want(false, 3))
			r.check("PUT", c.channel, off+`"Enabled":true}`, want(true, 4))
			if _, text := r.call("GET", c.channel, ""); strings.Contains(text, "top-secret") {
				t.Errorf("%s: a secret comes back: %s", c.channel, text)
			}
			on, err := Enabled(r.store.Reader(t.Context()), app, Type(strings.ToUpper(c.channel)))
			if err != nil || !on {
				t.Errorf("%s: enabled: %v, %v", c.channel, on, err)
			}
			r.check("DELETE", c.channel, "", want(false, 4))
			r.check("GET", c.channel, "", gone)
			on, err = Enabled(r.store.Reader(t.Context()), app, Type(strings.ToUpper(c.channel)))
			if err != nil || on {
				t.Errorf("%s: enabled after its deletion: %v, %v", c.channel, on, err)
			}
			r.check("PUT", c.channel, c.body, want(c.enabled, 1))
		}
		status, text := r.as(account, "GET", "/v1/apps/"+app+"/channels", "")
		var all struct{ Channels map[string]map[string]any }
		if err := json.Unmarshal([]byte(text), &all); err != nil || status != 200 || len(all.Channels) != len(cases) {
			t.Fatalf("GetChannels: %d %s", status, text)
		}
		for _, c := range cases {
			if got := all.Channels[strings.ToUpper(c.channel)]; got["Id"] != c.channel || got["Enabled"] != c.enabled || got["Version"] != 1.0 || got["HasCredential"] != true {
				t.Errorf("GetChannels has %s as %v", c.channel, got)
			}
		}
	})
}

func TestChannels_are_the_app_s_own(t *testing.T) {
	r := newRoom(t, "")
	r.check("PUT", "voice", `{"Enabled":true}`, `{"Enabled":true,"HasCredential":true,"Version":1}`)
	if status, text := r.as(account, "GET", "/v1/apps/"+strings.Repeat("f", 32)+"/channels", ""); status != 404 {
		t.Errorf("another account's app: %d %s", status, text)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if status, text := r.as(other, method, "/v1/apps/"+app+"/channels/voice", "{}"); status != 404 {
			t.Errorf("%s by another account: %d %s", method, status, text)
		}
	}
	if status, text := r.as(other, "GET", "/v1/apps/"+strings.Repeat("f", 32)+"/channels", ""); status != 200 || text != `{"Channels":{}}` {
		t.Errorf("an app without channels: %d %s", status, text)
	}
}

func TestSecrets_stay_until_their_set_is_named(t *testing.T) {
	r := newRoom(t, "")
	load := func(channel Type) *Channel {
		t.Helper()
		c, err := Load(r.store.Reader(t.Context()), app, channel)
		if err != nil || c == nil {
			t.Fatal(c, err)
		}
		return c
	}
	put := func(channel, body string) {
		t.Helper()
		if status, text := r.call("PUT", channel, body); status != 200 {
			t.Fatalf("%s %s: %d %s", channel, body, status, text)
		}
	}
	put("apns", `{"BundleId":"b","TeamId":"t","TokenKey":"key","TokenKeyId":"k"}`)
	put("apns", `{"Certificate":"cert","PrivateKey":"private","DefaultAuthenticationMethod":"CERTIFICATE"}`)
	put("apns", `{"Enabled":false}`)
	a := load(TypeAPNS).APNS
	if *a != (APNSSettings{"b", "t", "key", "k", "cert", "private", "CERTIFICATE"}) || !a.Token() || !a.Certified() || a.UsesToken() {
		t.Errorf("both sets were put: %+v, certificate %q", a, string(a.Certificate))
	}
	put("apns", `{"TokenKey":"other"}`)
	a = load(TypeAPNS).APNS
	if a.Token() || a.TeamID != "" || a.TokenKey != "other" || !a.Certified() || a.BundleID != "b" {
		t.Errorf("one member of the key's set was put: %+v", a)
	}
	put("apns", `{"Certificate":"","PrivateKey":""}`)
	if c := load(TypeAPNS); c.APNS.Certified() || c.HasCredential() {
		t.Errorf("the certificate was cleared: %+v", c.APNS)
	}
	put("apns_voip", `{}`)
	r.check("GET", "apns_voip", "", `{"Enabled":false,"HasCredential":false,"HasTokenKey":false,"Version":1}`)

	put("gcm", `{"ServiceJson":"`+service+`"}`)
	r.check("GET", "gcm", "", `{"DefaultAuthenticationMethod":"TOKEN","Enabled":true,"HasCredential":true,"HasFcmServiceCredentials":true,"Version":1}`)
	put("gcm", `{"ApiKey":"a"}`)
	if g := load(TypeGCM).GCM; g.ServiceJSON == "" || g.APIKey != "a" || g.Method() != "KEY" {
		t.Errorf("both credentials were put: %+v", g)
	}
	put("gcm", `{"Enabled":true,"DefaultAuthenticationMethod":"token"}`)
	if g := load(TypeGCM).GCM; g.ServiceJSON == "" || g.APIKey != "a" || g.Method() != "TOKEN" {
		t.Errorf("only the method was put: %+v", g)
	}

	put("sms", `{"SenderId":"TEA","ShortCode":"12345"}`)
	put("sms", `{"Enabled":true}`)
	if s := load(TypeSMS).SMS; *s != (SMSSettings{"TEA", "12345"}) {
		t.Errorf("only Enabled was put: %+v", s)
	}
	put("sms", `{"SenderId":"TEA"}`)
	if s := load(TypeSMS).SMS; *s != (SMSSettings{"TEA", ""}) {
		t.Errorf("only the sender was put: %+v", s)
	}
}

func TestRules(t *testing.T) {
	r := newRoom(t, "")
	email := func(from, id, more string) string {
		return `{"FromAddress":"` + from + `","Identity":"` + id + `"` + more + `}`
	}
	const from = "news@tea.example"
	role := `,"RoleArn":"arn:aws:iam::` + account + `:role/team/mail"`
	for _, c := range []struct {
		channel, body string
		status        int
		why           string
	}{
		{"adm", ``, 400, "required"},
		{"voice", `null`, 200, ""},
		{"apns_voip_sandbox", ``, 200, ""},
		{"adm", `{"ClientId":"c"}`, 400, "ClientSecret"},
		{"adm", `{"ClientId":"","ClientSecret":""}`, 400, "ClientId"},
		{"adm", `{"ClientId":"c","ClientSecret":"` + strings.Repeat("x", secretBytesMax+1) + `"}`, 400, "ClientSecret: longer"},
		{"baidu", `{"ApiKey":"a","SecretKey":""}`, 400, "SecretKey"},
		{"baidu", `{}`, 400, "ApiKey"},
		{"apns", `{"DefaultAuthenticationMethod":"password"}`, 400, "DefaultAuthenticationMethod"},
		{"apns", `{"BundleId":"` + strings.Repeat("x", nameCharsMax+1) + `"}`, 400, "BundleId: longer"},
		{"apns", `{"DefaultAuthenticationMethod":"key"}`, 200, ""},
		{"gcm", `{"ServiceJson":"secret words"}`, 400, "ServiceJson: expected"},
		{"gcm", `{"ServiceJson":"null"}`, 400, "ServiceJson: expected"},
		{"gcm", `{"ServiceJson":"{\"project_id\":\"p\",\"client_email\":\"e\",\"private_key\":7}"}`, 400, "has no private_key"},
		{"gcm", `{"DefaultAuthenticationMethod":"certificate"}`, 400, "TOKEN or KEY"},
		{"email", `{"FromAddress":"` + from + `"}`, 400, "Identity"},
		{"email", `{"Identity":"` + identity + `"}`, 400, "FromAddress"},
		{"email", email("tea", identity, ""), 400, "FromAddress"},
		{"email", email(from, "tea.example", ""), 400, "Identity: expected"},
		{"email", email(from, "arn:aws:ses:us-east-1:"+account+":configuration-set/x", ""), 400, "Identity: expected"},
		{"email", email(from, "arn:aws:sns:us-east-1:"+account+":identity/x", ""), 400, "Identity: expected"},
		{"email", email(from, "arn:aws:ses:us-east-1:"+account+":identity/", ""), 400, "Identity: expected"},
		{"email", email(from, "arn:aws:ses::"+account+":identity/x", ""), 400, "Identity: expected"},
		{"email", email(from, "arn:aws:ses:us-east-1:"+other+":identity/tea.example", ""), 403, "not of this account"},
		{"email", email(from, identity, `,"RoleArn":"arn:aws:iam::`+other+`:role/x"`), 403, "RoleArn"},
		{"email", email(from, identity, `,"RoleArn":"arn:aws:iam::`+account+`:user/x"`), 400, "RoleArn: expected"},
		{"email", email(from, identity, `,"OrchestrationSendingRoleArn":"arn:aws:iam:us-east-1:`+account+`:role/x"`), 400, "OrchestrationSendingRoleArn: expected"},
		{"email", email(from, identity, role), 200, ""},
		{"email", email("ann@tea.example", "arn:aws:ses:eu-west-1:"+account+":identity/ann@tea.example", role), 200, ""},
		{"sms", `{"SenderId":"TWELVELETTER"}`, 400, "SenderId"},
		{"sms", `{"SenderId":"TEA!"}`, 400, "SenderId"},
		{"sms", `{"ShortCode":"12a45"}`, 400, "ShortCode"},
		{"sms", `{"SenderId":"","ShortCode":""}`, 200, ""},
	} {
		status, text := r.call("PUT", c.channel, c.body)
		if status != c.status || !strings.Contains(text, c.why) || strings.Contains(text, "secret words") {
			t.Errorf("PUT %s %.150s\n got %d %s\nwant %d with %q", c.channel, c.body, status, text, c.status, c.why)
		}
	}
	// The email channel is replaced as a whole.
	r.check("PUT", "email", email(from, identity, ""),
		`{"Enabled":true,"FromAddress":"`+from+`","HasCredential":true,"Identity":"`+identity+`","MessagesPerSecond":14,"Version":3}`)
	c, err := Email(r.store.Reader(t.Context()), app)
	if err != nil || c == nil || c.Email.FromAddress != from || !c.Enabled {
		t.Errorf("Email: %+v, %v", c, err)
	}
	s, err := SMS(r.store.Reader(t.Context()), app)
	if err != nil || s == nil || s.SMS.SenderID != "" {
		t.Errorf("SMS: %+v, %v", s, err)
	}
}

func TestDates(t *testing.T) {
	r := newRoom(t, "")
	r.expect("PUT", "voice", `{}`, 200, "")
	*r.clock = r.clock.Add(time.Hour)
	r.expect("PUT", "voice", `{"Enabled":true}`, 200, `{"ApplicationId":"`+app+`","CreationDate":"`+started+`","Enabled":true,"HasCredential":true,"Id":"voice",`+
		`"IsArchived":false,"LastModifiedBy":"`+user+`","LastModifiedDate":"2026-11-02T10:30:00.000Z","Platform":"VOICE","Version":2}`)
	r.refused("PUT", "voice", `{"Enabled":"yes"}`, "Enabled")
}

func TestSecret_does_not_print(t *testing.T) {
	c := Channel{GCM: &GCMSettings{APIKey: "top-secret", ServiceJSON: "top-secret"}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", c.GCM.APIKey, "settings", *c.GCM)
	for _, text := range []string{fmt.Sprint(c.GCM.APIKey), fmt.Sprintf("%q %x %+v %#v", c.GCM.APIKey, c.GCM.APIKey, *c.GCM, c.GCM.ServiceJSON), log.String()} {
		if strings.Contains(text, "top-secret") || strings.Contains(text, "746f70") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestMount_hangs_resources_on_every_operation(t *testing.T) {
	r := newRoom(t, "")
	if got := r.mux.Mounted(); len(got) != 31 {
		t.Errorf("%d operations are mounted, want 31", len(got))
	}
	m, err := r.mux.Find(&wire.Request{Method: "PUT", RawPath: "/v1/apps/" + app + "/channels/apns_voip"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Resource("us-east-1", account), ARN("us-east-1", account, app, TypeAPNSVoip); got != want || !strings.HasSuffix(want, "/channels/apns_voip") {
		t.Errorf("resource %s, want %s", got, want)
	}
	kinds := Contents()
	if len(kinds) != 1 || !strings.HasPrefix(key(app, TypeSMS), kinds[0].Prefix(app)) {
		t.Errorf("contents: %+v", kinds)
	}
}

// TestConcurrent_puts_count_every_version runs puts that meet in one commit.
func TestConcurrent_puts_count_every_version(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		const callers = 16
		versions := make(chan int, callers)
		ctx := aws.WithCaller(t.Context(), aws.Caller{Account: account})
		for range callers {
			go func() {
				c, err := r.put(ctx, app, TypeVoice, nil, changeVoice)
				if err != nil {
					t.Error(err)
					versions <- 0
					return
				}
				versions <- c.Version
			}()
		}
		var got []int
		for range callers {
			got = append(got, <-versions)
		}
		slices.Sort(got)
		for i, v := range got {
			if v != i+1 {
				t.Fatalf("versions %v", got)
			}
		}
	})
}
