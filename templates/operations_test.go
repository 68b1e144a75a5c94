package templates

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

const (
	acceptedBody = `{"Message":"Accepted","RequestID":"req-1"}`
	started      = "2026-11-02T09:30:00.000Z"
)

func TestTemplate_of_each_type_comes_back_as_it_was_given(t *testing.T) {
	cases := []struct{ kind, members string }{
		{
			"email", `"Subject":"Tea {{User.UserAttributes.Name.[0]}}","HtmlPart":"<p>{{x}}</p>","TextPart":"{{x}}","DefaultSubstitutions":"{\"x\":\"leaf\"}",` +
				`"Headers":[{"Name":"List-Unsubscribe","Value":"<https://tea.example/{{Id}}>"}],"RecommenderId":"r1"`,
		},
		{"sms", `"Body":"Your tea, {{x}}","DefaultSubstitutions":"{\"x\":\"leaf\"}","RecommenderId":"r1"`},
		{"voice", `"Body":"Your tea","LanguageCode":"en-US","VoiceId":"Joanna"`},
		{
			"push", `"Default":{"Action":"OPEN_APP","Body":"b","Title":"t"},"APNS":{"Body":"a","RawContent":"{\"aps\":{\"alert\":{\"body\":\"{{x}}\"}}}"},` +
				`"ADM":{"Body":"d"},"Baidu":{"Body":"u"},"GCM":{"Body":"g","ImageUrl":"https://tea.example/i.png"}`,
		},
		{
			"inapp", `"Content":[{"BackgroundColor":"#fff","BodyConfig":{"Alignment":"LEFT","Body":"hi","TextColor":"#000"},` +
				`"HeaderConfig":{"Alignment":"CENTER","Header":"h","TextColor":"#000"},"PrimaryBtn":{"DefaultConfig":{"ButtonAction":"CLOSE","Text":"ok"}}}],` +
				`"CustomConfig":{"k":"v"},"Layout":"TOP_BANNER"`,
		},
	}
	rooms(t, func(t *testing.T, r *room) {
		for _, c := range cases {
			path := "/v1/templates/Offer_1/" + c.kind
			kind := strings.ToUpper(c.kind)
			arn := "arn:aws:mobiletargeting:us-east-1:" + account + ":templates/Offer_1/" + kind
			r.expect("POST", path, `{`+c.members+`,"TemplateDescription":"d","tags":{"team":"growth"}}`, 201,
				`{"Arn":"`+arn+`","Message":"Created","RequestID":"req-1"}`)
			status, text := r.call("GET", "/v1/templates/Offer_1/"+kind, "")
			var got, want map[string]any
			fixed := `"Arn":"` + arn + `","CreationDate":"` + started + `","LastModifiedDate":"` + started + `","TemplateDescription":"d",` +
				`"TemplateName":"Offer_1","TemplateType":"` + kind + `","Version":"1","tags":{"team":"growth"}`
			if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 {
				t.Fatalf("%s: %d %s", c.kind, status, text)
			}
			if err := json.Unmarshal([]byte(`{`+c.members+`,`+fixed+`}`), &want); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s:\n got %v\nwant %v", c.kind, got, want)
			}
			r.refused("POST", path, `{}`, "already")
			r.expect("PUT", path, `{`+c.members+`}`, 202, acceptedBody)
			r.expect("DELETE", path, "", 202, acceptedBody)
			r.expect("GET", path, "", 404, `{"Message":"Resource not found","RequestID":"req-1"}`)
			r.expect("DELETE", path, "", 404, "")
			r.expect("PUT", path, `{`+c.members+`}`, 404, "")
		}
	})
}

func TestVersions(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		const path = "/v1/templates/offer/sms"
		body := func(s string) string { return `{"Body":"` + s + `"}` }
		shows := func(query, version, text string) {
			t.Helper()
			if v, b := r.member("GET", path+query, "Version"), r.member("GET", path+query, "Body"); v != version || b != text {
				t.Errorf("GET %s: version %q says %q, want %q says %q", query, v, b, version, text)
			}
		}
		r.expect("POST", path, `{"Body":"one","tags":{"a":"b"}}`, 201, "")
		// An update overwrites the latest version, here the active one.
		*r.clock = r.clock.Add(time.Hour)
		r.expect("PUT", path, `{"Body":"uno","tags":{"c":"d"}}`, 202, acceptedBody)
		shows("", "1", "uno")
		if got := r.member("GET", path, "tags"); got != "map[a:b]" {
			t.Errorf("an update changed the tags to %s", got)
		}
		if c, m := r.member("GET", path, "CreationDate"), r.member("GET", path, "LastModifiedDate"); c != started || m != "2026-11-02T10:30:00.000Z" {
			t.Errorf("created %s, modified %s", c, m)
		}
		// A new version leaves the active one alone.
		r.expect("PUT", path+"?create-new-version=true", body("two"), 202, acceptedBody)
		shows("", "1", "uno")
		shows("?version=2", "2", "two")
		// The latest is now 2: an update without flag goes there.
		r.expect("PUT", path+"?create-new-version=false", body("dos"), 202, "")
		r.expect("PUT", path+"?version=2", body("deux"), 202, "")
		shows("?version=2", "2", "deux")
		shows("", "1", "uno")
		r.refused("PUT", path+"?version=1", body("x"), "only the latest version, 2")
		r.refused("PUT", path+"?version=2&create-new-version=true", body("x"), "not named when a new one is created")
		for _, bad := range []string{"0", "-1", "x", "01", "1.0", "latest"} {
			r.refused("GET", path+"?version="+bad, "", "is not the number of a version")
		}
		r.expect("GET", path+"?version=3", "", 404, "")
		// Setting the active version, in any case of the path's type.
		active := "/v1/templates/offer/sMs/active-version"
		r.expect("PUT", active, `{"Version":"latest"}`, 200, acceptedBody)
		shows("", "2", "deux")
		r.expect("PUT", "/v1/templates/offer/SMS/active-version", `{"Version":"1"}`, 200, acceptedBody)
		shows("", "1", "uno")
		r.expect("PUT", active, `{"Version":"9"}`, 404, "")
		r.refused("PUT", active, `{"Version":"newest"}`, "not the number")
		r.refused("PUT", active, `{}`, "Version")
		r.expect("PUT", "/v1/templates/none/SMS/active-version", `{"Version":"latest"}`, 404, "")
		// Deleting the active version makes the latest active; numbers are not used again.
		r.expect("PUT", path+"?create-new-version=true", body("three"), 202, "")
		r.expect("PUT", active, `{"Version":"3"}`, 200, "")
		r.expect("DELETE", path+"?version=3", "", 202, acceptedBody)
		shows("", "2", "deux")
		r.expect("GET", path+"?version=3", "", 404, "")
		r.expect("DELETE", path+"?version=3", "", 404, "")
		r.expect("PUT", active, `{"Version":"3"}`, 404, "")
		r.expect("PUT", path+"?create-new-version=true", body("four"), 202, "")
		shows("?version=4", "4", "four")
		r.expect("DELETE", path+"?version=1", "", 202, "")
		shows("", "2", "deux")
		list := `{"Item":[` +
			`{"CreationDate":"2026-11-02T10:30:00.000Z","LastModifiedDate":"2026-11-02T10:30:00.000Z","TemplateName":"offer","TemplateType":"SMS","Version":"2"},` +
			`{"CreationDate":"2026-11-02T10:30:00.000Z","LastModifiedDate":"2026-11-02T10:30:00.000Z","TemplateName":"offer","TemplateType":"SMS","Version":"4"}` +
			`],"Message":"Accepted","RequestID":"req-1"}`
		r.expect("GET", "/v1/templates/offer/sms/versions", "", 200, list)
		r.expect("GET", "/v1/templates/none/sms/versions", "", 404, "")
		// With its last version the template goes.
		r.expect("DELETE", path+"?version=4", "", 202, "")
		r.expect("DELETE", path+"?version=2", "", 202, "")
		r.expect("GET", path, "", 404, "")
		if got := r.member("GET", "/v1/templates", "Item"); got != "[]" {
			t.Errorf("the account still lists %s", got)
		}
	})
}

func TestResolve(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		const path = "/v1/templates/offer/email"
		check := func(when, version, want string) {
			t.Helper()
			if got := r.resolve("offer", Email, version); got != want {
				t.Errorf("%s: version %q resolves to %q, want %q", when, version, got, want)
			}
		}
		exists := func(when, version string, want bool) {
			t.Helper()
			err := Exists(r.store.Reader(t.Context()), account, "offer", Email, version)
			if (err == nil) != want || err != nil && aws.KindOf(err) != aws.KindInvalid {
				t.Errorf("%s: version %q exists: %v, want %v", when, version, err, want)
			}
		}
		exists("before", "", false)
		check("before", "", `error: There is no EMAIL template "offer"`)
		r.expect("POST", path, `{"Subject":"one"}`, 201, "")
		r.expect("PUT", path+"?create-new-version=true", `{"Subject":"two"}`, 202, "")
		check("two versions", "", "1 one")
		check("two versions", "2", "2 two")
		check("two versions", "3", `error: The EMAIL template "offer" has no version 3`)
		exists("two versions", "2", true)
		exists("two versions", "3", false)
		r.expect("PUT", "/v1/templates/offer/EMAIL/active-version", `{"Version":"2"}`, 200, "")
		check("another active", "", "2 two")
		// Of another type or account there is none.
		if got := r.resolve("offer", SMS, ""); !strings.HasPrefix(got, "error") {
			t.Errorf("an SMS template: %s", got)
		}
		if _, err := Resolve(r.store.Reader(t.Context()), other, "offer", Email, ""); aws.KindOf(err) != aws.KindNotFound {
			t.Errorf("another account resolves it: %v", err)
		}
		// What was configured before a deletion is sent after it.
		r.expect("DELETE", path+"?version=1", "", 202, "")
		exists("version deleted", "1", false)
		check("version deleted", "1", "1 one")
		r.expect("DELETE", path, "", 202, "")
		exists("deleted", "", false)
		check("deleted", "", "2 two")
		// A new template of the name starts over.
		r.expect("POST", path, `{"Subject":"new"}`, 201, "")
		check("made again", "", "1 new")
		check("made again", "2", `error: The EMAIL template "offer" has no version 2`)
	})
}

func TestTombstones_are_forgotten_in_time(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		rows := func() (n int) {
			for _, k := range []store.Kind{kindHead, kindVersion, kindContent, kindSweep} {
				got, err := r.store.Reader(t.Context()).List(k, "", "", 1000)
				if err != nil {
					t.Fatal(err)
				}
				n += len(got)
			}
			return n
		}
		const path = "/v1/templates/old/sms"
		r.expect("POST", path, `{"Body":"v"}`, 201, "")
		for range sweepVersions + 3 {
			r.expect("PUT", path+"?create-new-version=true", `{"Body":"v"}`, 202, "")
		}
		r.expect("DELETE", path+"?version=2", "", 202, "")
		r.expect("DELETE", path, "", 202, "")
		before := rows()
		*r.clock = r.clock.Add(tombstoneLife - time.Minute)
		r.expect("POST", "/v1/templates/new/sms", `{"Body":"v"}`, 201, "")
		if got := rows(); got != before+3 {
			t.Errorf("before their time: %d rows, want %d", got, before+3)
		}
		if got := r.resolve("old", SMS, "2"); got != "2 v" {
			t.Errorf("before their time version 2 is %q", got)
		}
		*r.clock = r.clock.Add(2 * time.Minute)
		for range 4 {
			r.expect("PUT", "/v1/templates/new/sms", `{"Body":"v"}`, 202, "")
		}
		if got := rows(); got != 3 {
			t.Errorf("after their time: %d rows, want the 3 of the living template", got)
		}
	})
}

func TestLists_go_by_name_in_pages(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		for _, path := range []string{"beta/sms", "alpha/email", "alpha/sms", "alphabet/push", "gone/sms"} {
			r.expect("POST", "/v1/templates/"+path, `{}`, 201, "")
		}
		r.expect("DELETE", "/v1/templates/gone/sms", "", 202, "")
		if status, text := r.as(other, "GET", "/v1/templates", ""); status != 200 || text != `{"Item":[]}` {
			t.Errorf("another account sees %d %s", status, text)
		}
		pages := func(query string) (names []string) {
			t.Helper()
			token := ""
			for range 20 {
				q := query
				if token != "" {
					q += "&next-token=" + token
				}
				status, text := r.call("GET", "/v1/templates?"+q, "")
				var page struct {
					Item      []struct{ TemplateName, TemplateType, Version, Arn string }
					NextToken string
				}
				if err := json.Unmarshal([]byte(text), &page); err != nil || status != 200 {
					t.Fatalf("%s: %d %s", q, status, text)
				}
				for _, item := range page.Item {
					if item.Version != "1" || item.Arn != "" {
						t.Errorf("item %+v", item)
					}
					names = append(names, item.TemplateName+"/"+item.TemplateType)
				}
				if token = page.NextToken; token == "" {
					return names
				}
			}
			t.Fatal("the pages do not end")
			return nil
		}
		all := []string{"alpha/EMAIL", "alpha/SMS", "alphabet/PUSH", "beta/SMS"}
		for query, want := range map[string][]string{
			"page-size=1": all, "page-size=2": all, "page-size=3": all, "page-size=4": all, "page-size=100": all,
			"page-size=1&prefix=alpha": all[:3], "prefix=alphab": {"alphabet/PUSH"}, "prefix=Alpha": nil,
			"page-size=1&template-type=SMS": {"alpha/SMS", "beta/SMS"}, "template-type=sms&prefix=b": {"beta/SMS"},
			"template-type=VOICE": nil,
		} {
			if got := pages(query); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", query, got, want)
			}
		}
		token := r.member("GET", "/v1/templates?page-size=1", "NextToken")
		r.refused("GET", "/v1/templates?prefix=alpha&next-token="+token, "", "NextToken")
		r.refused("GET", "/v1/templates?next-token=nonsense", "", "NextToken")
		r.refused("GET", "/v1/templates?page-size=0", "", "PageSize")
		for range 4 {
			r.expect("PUT", "/v1/templates/beta/sms?create-new-version=true", `{}`, 202, "")
		}
		r.expect("DELETE", "/v1/templates/beta/sms?version=3", "", 202, "")
		first := r.member("GET", "/v1/templates/beta/sms/versions?page-size=2", "NextToken")
		_, text := r.call("GET", "/v1/templates/beta/sms/versions?page-size=2&next-token="+first, "")
		if strings.Count(text, `"Version":`) != 2 || !strings.Contains(text, `"Version":"4"`) || !strings.Contains(text, `"Version":"5"`) || strings.Contains(text, "NextToken") {
			t.Errorf("second page of versions: %s", text)
		}
	})
}

func TestContent_that_breaks_a_rule_is_refused(t *testing.T) {
	r := newRoom(t, "")
	long := func(n int) string { return strings.Repeat("é", n) }
	tooMany := strings.Repeat(`{"Name":"X-A","Value":"v"},`, HeadersMax) + `{"Name":"X-B","Value":"v"}`
	for _, c := range []struct{ path, body, why string }{
		{"offer/sms", `{"Body":"{{#if x}}"}`, "Body"},
		{"offer/sms", `{"Body":"` + long(1601) + `"}`, "1601 characters; the limit is 1600"},
		{"offer/voice", `{"Body":"` + long(10_001) + `"}`, "the limit is 10000"},
		{"offer/push", `{"GCM":{"Body":"` + long(2000) + `","Title":"` + long(2001) + `"}}`, "GCM has 4001 characters"},
		{"offer/push", `{"ADM":{"RawContent":"` + long(6001) + `"}}`, "ADM has 6001"},
		{"offer/push", `{"APNS":{"Title":"{{nope"}}`, "APNS.Title"},
		{"offer/inapp", `{"Content":[{"HeaderConfig":{"Alignment":"LEFT","Header":"` + long(65) + `","TextColor":"#000"}}]}`, "limit is 64"},
		{"offer/inapp", `{"Content":[{"BodyConfig":{"Alignment":"LEFT","Body":"` + long(151) + `","TextColor":"#000"}}]}`, "limit is 150"},
		{"offer/inapp", `{"Content":[{"PrimaryBtn":{"DefaultConfig":{"ButtonAction":"CLOSE","Text":"` + long(65) + `"}}}]}`, "limit is 64"},
		{"offer/inapp", `{"Content":[{},{},{},{},{},{}]}`, "Content"},
		{"offer/inapp", `{"Layout":"SIDEWAYS"}`, "Layout"},
		{"offer/email", `{"Subject":"` + long(600_000) + `","TextPart":"x"}`, "600001 characters"},
		{"offer/email", `{"Headers":[` + tooMany + `]}`, "Headers"},
		{"offer/email", `{"Headers":[{"Name":"X:Y","Value":"v"}]}`, "X:Y"},
		{"offer/email", `{"DefaultSubstitutions":"[]"}`, "DefaultSubstitutions"},
		{"offer/email", `{"TemplateDescription":"` + long(501) + `"}`, "TemplateDescription"},
		{"offer/email", `{"tags":{"aws:x":"y"}}`, "reserved"},
		{"offer/email", `{"tags":{"":"y"}}`, "key"},
		{"offer/email", `{"tags":{"x":"#"}}`, "letters"},
		{"offer/push", `[]`, "object"},
		{"-offer/email", `{}`, "TemplateName"},
		{"of%20fer/email", `{}`, "TemplateName"},
		{strings.Repeat("x", 129) + "/email", `{}`, "TemplateName"},
	} {
		r.refused("POST", "/v1/templates/"+c.path, c.body, c.why)
	}
	// A body that is not there is an empty one.
	r.expect("POST", "/v1/templates/bare/email", "", 201, "")
	r.expect("POST", "/v1/templates/offer/sms", `{"Body":"`+long(1600)+`"}`, 201, "")
	r.refused("PUT", "/v1/templates/offer/sms", `{"Body":"{{/if}}"}`, "Body")
	r.expect("POST", "/v1/templates/"+strings.Repeat("x", 128)+"/sms", `{}`, 201, "")
	if got := r.member("GET", "/v1/templates/offer/sms", "Body"); got != long(1600) {
		t.Errorf("a refused update changed the body to %d characters", len(got))
	}
}

func TestLimits_on_numbers_of_templates_and_versions(t *testing.T) {
	r := newRoom(t, "")
	r.expect("POST", "/v1/templates/offer/sms", `{}`, 201, "")
	err := r.store.Update(t.Context(), func(tx *store.Tx) error {
		h, err := load(tx, account, "offer", SMS)
		if err != nil {
			return err
		}
		h.Versions = versionsMax
		if err := saveHead(tx, h); err != nil {
			return err
		}
		return store.Save(tx, kindCount, account, &count{Templates: templatesMax})
	})
	if err != nil {
		t.Fatal(err)
	}
	r.refused("PUT", "/v1/templates/offer/sms?create-new-version=true", `{}`, "5000 versions")
	r.expect("PUT", "/v1/templates/offer/sms", `{}`, 202, "")
	r.refused("POST", "/v1/templates/more/sms", `{}`, "20000 templates")
	r.expect("DELETE", "/v1/templates/offer/sms", "", 202, "")
	r.expect("POST", "/v1/templates/more/sms", `{}`, 201, "")
}

func TestTags(t *testing.T) {
	r := newRoom(t, "")
	r.expect("POST", "/v1/templates/offer/sms", `{"tags":{"a":"b"}}`, 201, "")
	err := r.store.Update(t.Context(), func(tx *store.Tx) error {
		return SetTags(tx, account, "offer", SMS, map[string]string{"c": "d"})
	})
	if err != nil {
		t.Fatal(err)
	}
	tags, err := TagsOf(r.store.Reader(t.Context()), account, "offer", SMS)
	if err != nil || len(tags) != 1 || tags["c"] != "d" {
		t.Errorf("tags %v, %v", tags, err)
	}
	if _, err := TagsOf(r.store.Reader(t.Context()), other, "offer", SMS); aws.KindOf(err) != aws.KindNotFound {
		t.Errorf("another account reads the tags: %v", err)
	}
}

func TestMount(t *testing.T) {
	r := newRoom(t, "")
	if got := len(r.mux.Mounted()); got != 23 {
		t.Errorf("%d operations are mounted, want 23: %v", got, r.mux.Mounted())
	}
}

// TestConcurrent_creations_leave_one holds the check for an existing name to
// what other updates of the same commit do.
func TestConcurrent_creations_leave_one(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		const callers = 8
		made := make(chan error, callers)
		ctx := aws.WithCaller(context.Background(), aws.Caller{Account: account, Region: "us-east-1"})
		for range callers {
			go func() {
				_, err := r.create(ctx, "offer", &draft{Content: Content{Type: SMS, Body: "x"}})
				made <- err
			}()
		}
		good := 0
		for range callers {
			err := <-made
			switch {
			case err == nil:
				good++
			case aws.KindOf(err) != aws.KindInvalid:
				t.Error(err)
			}
		}
		if good != 1 {
			t.Errorf("%d creations succeeded", good)
		}
	})
}
