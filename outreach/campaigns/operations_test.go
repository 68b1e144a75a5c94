package campaigns

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/state/store"
)

// later is a schedule that stays ahead while a test runs.
const later = `"Schedule":{"StartTime":"2000-03-01T09:00:00Z"}` // a bubble's time starts on 2000-01-01

func TestCreate_answers_as_a_fresh_campaign_was_seen(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		status, text := w.call("POST", base, `{"Name":"menu","tags":{"team":"tea"},`+mailing+`,`+later+`}`)
		if status != 201 {
			t.Fatalf("%d %s", status, text)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		id, _ := got["Id"].(string)
		arn := "arn:aws:mobiletargeting:us-east-1:" + testAccount + ":apps/" + testApp + "/campaigns/" + id
		want := map[string]string{
			"Arn": `"` + arn + `"`, "AdditionalTreatments": "[]", "Limits": "{}", "HoldoutPercent": "0", "IsPaused": "false",
			"State": `{"CampaignStatus":"SCHEDULED"}`, "Version": "1", "SegmentVersion": "3", "tags": `{"team":"tea"}`,
			"Schedule": `{"IsLocalTime":false,"StartTime":"2000-03-01T09:00:00Z","Timezone":"UTC"}`,
		}
		for name, v := range want {
			if b, _ := json.Marshal(got[name]); string(b) != v {
				t.Errorf("%s is %s, want %s", name, b, v)
			}
		}
		if len(id) != 32 || got["DefaultState"] != nil || got["Account"] != nil || got["LastModifiedDate"] != got["CreationDate"] {
			t.Errorf("answer %s", text)
		}
		if status, same := w.call("GET", base+"/"+id, ""); status != 200 || same != text {
			t.Errorf("GET says %d %s", status, same)
		}
	})
}

func TestCreate_refuses_what_cannot_be(t *testing.T) {
	const message = `"SegmentId":"` + everyone + `","MessageConfiguration":`
	for name, c := range map[string]struct{ body, want string }{
		"no segment":           {`{"MessageConfiguration":{"SMSMessage":{"Body":"x"}},` + later + `}`, "SegmentId"},
		"no such segment":      {`{"SegmentId":"nope","MessageConfiguration":{"SMSMessage":{"Body":"x"}},` + later + `}`, "SegmentId"},
		"no such version":      {`{"SegmentVersion":9,` + mailing + `,` + later + `}`, "SegmentId"},
		"no message":           {`{"SegmentId":"` + everyone + `",` + later + `}`, "MessageConfiguration"},
		"empty message":        {`{` + message + `{"EmailMessage":{"Title":"x"}},` + later + `}`, "MessageConfiguration"},
		"no schedule":          {`{` + mailing + `}`, "Schedule"},
		"start has passed":     {`{` + mailing + `,"Schedule":{"StartTime":"1999-12-31T00:00:00Z"}}`, "Schedule.StartTime"},
		"start is no time":     {`{` + mailing + `,"Schedule":{"StartTime":"tomorrow"}}`, "Schedule.StartTime"},
		"end before start":     {`{` + mailing + `,"Schedule":{"StartTime":"2000-03-01T09:00:00Z","EndTime":"2000-02-01T09:00:00Z"}}`, "Schedule.EndTime"},
		"daily":                {`{` + mailing + `,"Schedule":{"StartTime":"2000-03-01T09:00:00Z","Frequency":"DAILY"}}`, "Schedule.Frequency: DAILY is not available yet"},
		"event":                {`{` + mailing + `,"Schedule":{"StartTime":"2000-03-01T09:00:00Z","Frequency":"EVENT"}}`, "not available yet"},
		"local time":           {`{` + mailing + `,"Schedule":{"StartTime":"2000-03-01T09:00:00Z","IsLocalTime":true}}`, "Schedule.IsLocalTime: not available yet"},
		"zone":                 {`{` + mailing + `,"Schedule":{"StartTime":"2000-03-01T09:00:00Z","Timezone":"Europe/Paris"}}`, "Schedule.Timezone"},
		"half a quiet time":    {`{` + mailing + `,"Schedule":{"StartTime":"IMMEDIATE","QuietTime":{"Start":"10:00"}}}`, "QuietTime"},
		"quiet time":           {`{` + mailing + `,"Schedule":{"StartTime":"IMMEDIATE","QuietTime":{"Start":"25:00","End":"1:00"}}}`, "QuietTime"},
		"hook":                 {`{` + mailing + `,` + later + `,"Hook":{"LambdaFunctionName":"f","Mode":"FILTER"}}`, "Hook: not available yet"},
		"custom":               {`{` + mailing + `,` + later + `,"CustomDeliveryConfiguration":{"DeliveryUri":"https://x.example"}}`, "CustomDeliveryConfiguration: not"},
		"push":                 {`{` + message + `{"GCMMessage":{"Body":"x"}},` + later + `}`, "MessageConfiguration.GCMMessage: not available yet"},
		"in-app":               {`{` + message + `{"InAppMessage":{"Body":"x"}},` + later + `}`, "MessageConfiguration.InAppMessage: not"},
		"push template":        {`{` + mailing + `,"TemplateConfiguration":{"PushTemplate":{"Name":"x"}},` + later + `}`, "TemplateConfiguration.PushTemplate: not"},
		"template not there":   {`{` + mailing + `,"TemplateConfiguration":{"EmailTemplate":{"Name":"x"}},` + later + `}`, `\"x\"`},
		"push and in-app":      {`{` + mailing + `,"TemplateConfiguration":{"PushTemplate":{"Name":"x"},"InAppTemplate":{"Name":"x"}},` + later + `}`, "TemplateConfiguration.InAppTemplate: not"},
		"two without a name":   {`{` + mailing + `,"TemplateConfiguration":{"SMSTemplate":{},"EmailTemplate":{}},` + later + `}`, "EmailTemplate.Name"},
		"template no name":     {`{` + mailing + `,"TemplateConfiguration":{"SMSTemplate":{}},` + later + `}`, "SMSTemplate.Name"},
		"bad template text":    {`{` + message + `{"EmailMessage":{"Title":"x","HtmlBody":"{{#if"}},` + later + `}`, "EmailMessage.HtmlBody"},
		"from":                 {`{` + message + `{"EmailMessage":{"Body":"x","FromAddress":"nobody"}},` + later + `}`, "FromAddress"},
		"header":               {`{` + message + `{"EmailMessage":{"Body":"x","Headers":[{"Name":"a b","Value":"c"}]}},` + later + `}`, "header"},
		"long SMS":             {`{` + message + `{"SMSMessage":{"Body":"` + strings.Repeat("x", 1601) + `"}},` + later + `}`, "SMSMessage.Body"},
		"long default":         {`{` + message + `{"DefaultMessage":{"Body":"` + strings.Repeat("x", 201) + `"}},` + later + `}`, "DefaultMessage.Body"},
		"five treatments":      {`{` + mailing + `,` + later + `,"AdditionalTreatments":[` + strings.Repeat(`{"SizePercent":1},`, 4) + `{"SizePercent":1}]}`, "AdditionalTreatments"},
		"more than all":        {`{` + mailing + `,` + later + `,"HoldoutPercent":50,"AdditionalTreatments":[{"SizePercent":51}]}`, "add up to 101"},
		"treatment's schedule": {`{` + mailing + `,` + later + `,"AdditionalTreatments":[{"SizePercent":1,"Schedule":{"StartTime":"x"}}]}`, "AdditionalTreatments.0.Schedule.StartTime"},
		"treatment's message":  {`{` + mailing + `,` + later + `,"AdditionalTreatments":[{"SizePercent":1,"MessageConfiguration":{}}]}`, "treatment 1"},
		"priority":             {`{` + mailing + `,` + later + `,"Priority":6}`, "Priority"},
		"rate":                 {`{` + mailing + `,` + later + `,"Limits":{"MessagesPerSecond":20001}}`, "MessagesPerSecond"},
		"duration":             {`{` + mailing + `,` + later + `,"Limits":{"MaximumDuration":59}}`, "MaximumDuration"},
		"paused at once":       {`{` + mailing + `,` + now + `,"IsPaused":true}`, "cannot be paused"},
		"tags":                 {`{` + mailing + `,` + later + `,"tags":{"aws:x":"y"}}`, "tags"},
		"name":                 {`{` + mailing + `,` + later + `,"Name":"` + strings.Repeat("x", 257) + `"}`, "Name"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				status, text := w.call("POST", base, c.body)
				if status != 400 || !strings.Contains(text, c.want) {
					t.Errorf("%d %s, want 400 and %q", status, text, c.want)
				}
				var list pinpoint.CampaignsResponse
				if w.ask(&list, "GET", base, ""); len(list.Item) != 0 {
					t.Errorf("%d campaigns were made", len(list.Item))
				}
			})
		})
	}
}

func TestCampaigns_of_another_account_or_app_do_not_exist(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		c := w.create(`{` + mailing + `,` + later + `}`)
		w.update(func(tx *store.Tx) error {
			return store.Save(tx, apps.Kind, testApp, &apps.App{Account: "999999999999", ID: testApp, Name: "theirs"})
		})
		for _, path := range []string{
			base, base + "/" + c.Id, base + "/" + c.Id + "/versions", base + "/" + c.Id + "/versions/1", base + "/" + c.Id + "/activities",
			"/everpoint" + base + "/" + c.Id + "/run", "/everpoint" + base + "/" + c.Id + "/reconciliation",
			"/everpoint" + base + "/" + c.Id + "/sending-policy", "/everpoint/v1/apps/" + testApp + "/sending-policy",
			"/everpoint/v1/apps/" + testApp + "/ambiguous-sends",
		} {
			if status, text := w.call("GET", path, ""); status != 404 {
				t.Errorf("GET %s: %d %s", path, status, text)
			}
		}
		for _, call := range [][2]string{{"POST", base}, {"PUT", base + "/" + c.Id}} {
			if status, text := w.call(call[0], call[1], `{`+mailing+`,`+later+`}`); status != 404 {
				t.Errorf("%v: %d %s", call, status, text)
			}
		}
		if status, _ := w.call("DELETE", base+"/"+c.Id, ""); status != 404 {
			t.Errorf("DELETE: %d", status)
		}
	})
}

func TestUpdate_makes_versions_and_plans_the_run_again(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(2)
		c := w.create(`{"Name":"one",` + mailing + `,"Schedule":{"StartTime":"` + inAnHour() + `"}}`)
		first := w.activities(c.Id)[0]
		var u pinpoint.CampaignResponse
		w.ask(&u, "PUT", base+"/"+c.Id, `{"Name":"two","tags":{"ignored":"yes"}}`)
		if *u.Version != 2 || *u.Name != "two" || u.MessageConfiguration == nil || len(u.Tags) != 0 {
			t.Errorf("update answers %+v", u)
		}
		w.ask(&u, "PUT", base+"/"+c.Id, `{"IsPaused":true}`)
		if u.State.CampaignStatus != pinpoint.CampaignStatusPaused || len(w.activities(c.Id)) != 0 {
			t.Errorf("paused: %s, %d activities", u.State.CampaignStatus, len(w.activities(c.Id)))
		}
		w.pass(2 * time.Hour)
		if got := w.mail.to(); len(got) != 0 {
			t.Fatalf("a paused campaign sent to %v", got)
		}
		if status, text := w.call("PUT", base+"/"+c.Id, `{"IsPaused":false}`); status != 400 || !strings.Contains(text, "Schedule.StartTime") {
			t.Errorf("resuming after the start: %d %s", status, text)
		}
		w.ask(&u, "PUT", base+"/"+c.Id, `{"IsPaused":false,"Schedule":{"StartTime":"`+inAnHour()+`"}}`)
		if u.State.CampaignStatus != pinpoint.CampaignStatusScheduled || *u.Version != 4 {
			t.Errorf("resumed: %s, version %d", u.State.CampaignStatus, *u.Version)
		}
		if a := w.activities(c.Id); len(a) != 1 || a[0].Id == first.Id {
			t.Errorf("activities %+v", a)
		}
		w.pass(2 * time.Hour)
		if got := w.mail.to(); len(got) != 2 {
			t.Errorf("sent to %v", got)
		}
		if status, text := w.call("PUT", base+"/"+c.Id, `{"Name":"late"}`); status != 400 {
			t.Errorf("changing a completed campaign: %d %s", status, text)
		}
		var v pinpoint.CampaignsResponse
		w.ask(&v, "GET", base+"/"+c.Id+"/versions?page-size=3", "")
		if len(v.Item) != 3 || *v.Item[0].Name != "one" || *v.Item[2].IsPaused != true || v.NextToken == nil {
			t.Errorf("versions %+v", v)
		}
		token := *v.NextToken
		v = pinpoint.CampaignsResponse{}
		w.ask(&v, "GET", base+"/"+c.Id+"/versions?page-size=3&token="+token, "")
		if len(v.Item) != 1 || v.NextToken != nil || v.Item[0].State.CampaignStatus != pinpoint.CampaignStatusCompleted {
			t.Errorf("last page %+v", v)
		}
		var one pinpoint.CampaignResponse
		if w.ask(&one, "GET", base+"/"+c.Id+"/versions/1", ""); *one.Name != "one" || one.Arn != u.Arn {
			t.Errorf("version 1 is %+v", one)
		}
		for path, want := range map[string]int{"/versions/5": 404, "/versions/x": 400, "/versions/0": 400} {
			if status, _ := w.call("GET", base+"/"+c.Id+path, ""); status != want {
				t.Errorf("%s: %d", path, status)
			}
		}
	})
}

func TestActive_campaigns_are_bounded(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.stop()
		w.active = 3
		w.start()
		var ids []string
		for range 3 {
			ids = append(ids, w.create(`{`+mailing+`,`+later+`}`).Id)
		}
		refused := func(method, path, body string) {
			t.Helper()
			if status, text := w.call(method, path, body); status != 400 || !strings.Contains(text, `"Too many active campaigns"`) {
				t.Errorf("%s: %d %s", method, status, text)
			}
		}
		refused("POST", base, `{`+mailing+`,`+later+`}`)
		paused := w.create(`{` + mailing + `,` + later + `,"IsPaused":true}`)
		refused("PUT", base+"/"+paused.Id, `{"IsPaused":false}`)
		var out pinpoint.CampaignResponse
		w.ask(&out, "PUT", base+"/"+ids[0], `{"Name":"an active one may change"}`)
		w.ask(&out, "DELETE", base+"/"+ids[0], "")
		w.ask(&out, "PUT", base+"/"+paused.Id, `{"IsPaused":false}`)
	})
}

func TestList_pages_over_the_living(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		living := map[string]bool{}
		for i := range 25 {
			c := w.create(fmt.Sprintf(`{"Name":"c%d",%s,%s}`, i, mailing, later))
			if i%3 == 0 {
				var out pinpoint.CampaignResponse
				w.ask(&out, "DELETE", base+"/"+c.Id, "")
				continue
			}
			living[c.Id] = true
		}
		seen := map[string]bool{}
		pages, token := 0, ""
		for {
			var list pinpoint.CampaignsResponse
			w.ask(&list, "GET", base+"?page-size=4"+token, "")
			pages++
			for _, c := range list.Item {
				seen[c.Id] = true
			}
			if list.NextToken == nil {
				break
			}
			token = "&token=" + *list.NextToken
		}
		if !maps.Equal(seen, living) || pages != 4 {
			t.Errorf("%d of %d campaigns on %d pages", len(seen), len(living), pages)
		}
		if status, _ := w.call("GET", base+"?token=forged", ""); status != 400 {
			t.Errorf("a forged token: %d", status)
		}
	})
}

func TestLimits_and_quiet_time_are_the_apps_at_creation(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		settings := func(s apps.Settings) {
			w.update(func(tx *store.Tx) error {
				return store.Save(tx, apps.Kind, testApp, &apps.App{Account: testAccount, ID: testApp, Settings: s})
			})
		}
		settings(apps.Settings{
			Limits:    &pinpoint.CampaignLimits{Daily: ptr(1), MessagesPerSecond: ptr(70)},
			QuietTime: &pinpoint.QuietTime{Start: ptr("22:00"), End: ptr("06:00")},
		})
		c := w.create(`{` + mailing + `,` + later + `,"Limits":{"Total":5},"AdditionalTreatments":[{"SizePercent":30,
			"Schedule":{"StartTime":"IMMEDIATE","QuietTime":{}}}]}`)
		settings(apps.Settings{Limits: &pinpoint.CampaignLimits{Daily: ptr(9)}})
		if c.Limits.Daily != nil || *c.Limits.Total != 5 {
			t.Errorf("shown limits %+v", c.Limits)
		}
		stored, err := load(w.store.Reader(t.Context()), testApp, c.Id)
		if err != nil {
			t.Fatal(err)
		}
		if got := stored.limits(); got.daily != 1 || got.total != 5 || got.perSecond != 70 || got.duration != 0 {
			t.Errorf("limits %+v", got)
		}
		arms := stored.treatments()
		if from, to := stored.quiet(&arms[0]); from != "22:00" || to != "06:00" {
			t.Errorf("quiet %s to %s", from, to)
		}
		if from, to := stored.quiet(&arms[1]); from != "" || to != "" {
			t.Errorf("a treatment that says none is quiet %s to %s", from, to)
		}
		if a, b := share(70, &arms[0], 0), share(70, &arms[1], 0); a != 49 || b != 21 {
			t.Errorf("70 a second are %d and %d", a, b)
		}
		settings(apps.Settings{CampaignHook: &pinpoint.CampaignHook{WebUrl: ptr("https://x.example")}})
		if status, text := w.call("POST", base, `{`+mailing+`,`+later+`}`); status != 400 || !strings.Contains(text, "CampaignHook") {
			t.Errorf("an app with a hook: %d %s", status, text)
		}
	})
}

func TestSendingPolicy(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		texts := w.create(`{"SegmentId":"` + everyone + `",` + later + `,
			"MessageConfiguration":{"SMSMessage":{"Body":"code","MessageType":"TRANSACTIONAL"}}}`)
		mails := w.create(`{` + mailing + `,` + later + `}`)
		policies := func(want ...everpoint.AmbiguousPolicy) {
			t.Helper()
			for i, path := range []string{"", "/campaigns/" + texts.Id, "/campaigns/" + mails.Id} {
				var got everpoint.SendingPolicy
				w.ask(&got, "GET", "/everpoint/v1/apps/"+testApp+path+"/sending-policy", "")
				if got.AmbiguousSends != want[i] {
					t.Errorf("policy of %q is %s, want %s", path, got.AmbiguousSends, want[i])
				}
			}
		}
		const leave, resend = everpoint.AmbiguousPolicyLeave, everpoint.AmbiguousPolicyResend
		var out everpoint.SendingPolicy
		policies(leave, resend, leave)
		w.ask(&out, "PUT", "/everpoint"+base+"/"+mails.Id+"/sending-policy", `{"AmbiguousSends":"RESEND"}`)
		policies(leave, resend, resend)
		w.ask(&out, "PUT", "/everpoint/v1/apps/"+testApp+"/sending-policy", `{"AmbiguousSends":"LEAVE"}`)
		policies(leave, leave, resend)
		if status, _ := w.call("PUT", "/everpoint/v1/apps/"+testApp+"/sending-policy", `{"AmbiguousSends":"HOPE"}`); status != 400 {
			t.Errorf("an unknown policy: %d", status)
		}
	})
}

func TestOverall_status_follows_from_the_treatments(t *testing.T) {
	const (
		s = pinpoint.CampaignStatusScheduled
		e = pinpoint.CampaignStatusExecuting
		c = pinpoint.CampaignStatusCompleted
		i = pinpoint.CampaignStatusInvalid
		d = pinpoint.CampaignStatusDeleted
	)
	for _, x := range []struct {
		all  []pinpoint.CampaignStatus
		want pinpoint.CampaignStatus
	}{
		{[]pinpoint.CampaignStatus{s}, s},
		{[]pinpoint.CampaignStatus{s, s}, s},
		{[]pinpoint.CampaignStatus{s, e}, e},
		{[]pinpoint.CampaignStatus{s, c}, e},
		{[]pinpoint.CampaignStatus{c, c}, c},
		{[]pinpoint.CampaignStatus{c, i}, c},
		{[]pinpoint.CampaignStatus{i, i}, i},
		{[]pinpoint.CampaignStatus{d, e}, d},
	} {
		if got := overall(x.all); got != x.want {
			t.Errorf("%v is %s, want %s", x.all, got, x.want)
		}
	}
}

func TestTreatments_divide_the_cohorts_without_gap_or_overlap(t *testing.T) {
	for _, sizes := range [][]int{{}, {0}, {100}, {10, 20, 30, 40}, {1, 1, 1, 1}, {33, 33}} {
		for _, holdout := range []int{0, 1, 50, 100} {
			c := &Campaign{}
			c.HoldoutPercent = &holdout
			sum := holdout
			for _, size := range sizes {
				sum += size
				c.AdditionalTreatments = append(c.AdditionalTreatments, pinpoint.TreatmentResource{SizePercent: size})
			}
			if sum > cohorts {
				if err := c.checkTreatments(); err == nil {
					t.Errorf("%d and %v were let pass", holdout, sizes)
				}
				continue
			}
			arms := c.treatments()
			for cohort := holdout; cohort < cohorts; cohort++ {
				n := 0
				for _, a := range arms {
					if cohort >= a.from && cohort < a.to {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%d and %v: cohort %d is in %d treatments", holdout, sizes, cohort, n)
				}
			}
			for i, size := range sizes {
				if a := arms[i+1]; a.to-a.from != size {
					t.Errorf("treatment %d has %d cohorts of %d", i+1, a.to-a.from, size)
				}
			}
		}
	}
}

func TestCompose_inline_members_win_one_by_one(t *testing.T) {
	m := func(s string) *pinpoint.MessageConfiguration {
		var out pinpoint.MessageConfiguration
		if err := json.Unmarshal([]byte(s), &out); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	for _, c := range []struct{ name, message, email, sms string }{
		{"email alone", `{"EmailMessage":{"Title":"t","HtmlBody":"h","Body":"b","FromAddress":"f@x"}}`, "f@x t h b", ""},
		{"sms alone", `{"SMSMessage":{"Body":"b","SenderId":"S"}}`, "", "b S true"},
		{"transactional", `{"SMSMessage":{"Body":"b","MessageType":"TRANSACTIONAL"}}`, "", "b  false"},
		{"default alone", `{"DefaultMessage":{"Body":"b","Title":"t"}}`, " t  b", "b  true"},
		{"default without title", `{"DefaultMessage":{"Body":"b"}}`, "", "b  true"},
		{"default fills", `{"DefaultMessage":{"Body":"b","Title":"t"},"EmailMessage":{"HtmlBody":"h"},"SMSMessage":{"Body":"s"}}`, " t h ", "s  true"},
		{"nothing", `{}`, "", ""},
	} {
		x := compose(m(c.message), nil, nil)
		email, sms := "", ""
		if e := x.email; e != nil {
			email = strings.Join([]string{e.From, e.Subject, e.HTML, e.Text}, " ")
		}
		if e := x.sms; e != nil {
			sms = fmt.Sprintf("%s %s %t", e.Body, e.SenderID, e.Promotional)
		}
		if email != c.email || sms != c.sms {
			t.Errorf("%s: %q and %q, want %q and %q", c.name, email, sms, c.email, c.sms)
		}
	}
}

func TestDeleted_run_can_still_be_reconciled(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		want := w.people(50)
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(time.Minute)
		var out pinpoint.CampaignResponse
		w.ask(&out, "DELETE", base+"/"+c.Id, "")
		if r := w.balanced(c.Id, 50); r.Sent != 50 {
			t.Errorf("%+v", r)
		}
		if got := w.mail.to(); !slices.Equal(got, want) {
			t.Errorf("sent to %d", len(got))
		}
	})
}
