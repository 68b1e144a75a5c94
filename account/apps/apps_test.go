package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

const account = "123456789012"

// room is the room over a store of its own, with a clock that a test may turn.
type room struct {
	*Service
	t     *testing.T
	mux   *wire.Mux
	clock *time.Time
}

func newRoom(t *testing.T, cfg Config) *room {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	r := &room{t: t, clock: &at}
	now := func() time.Time { return *r.clock }
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1"}, keys, now, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ids := aws.NewIDs(rand.NewChaCha8([32]byte{1}))
	r.Service = New(cfg, st, wire.NewTokens([]byte("sixteen bytes or more"), now), ids, now, log)
	r.mux = wire.NewMux(pinpoint.Service)
	r.Mount(r.mux)
	return r
}

// call sends a request through the wire and returns status and body.
func (r *room) call(acct, method, path, body string) (int, string) {
	r.t.Helper()
	p, q, _ := strings.Cut(path, "?")
	req := &wire.Request{Method: method, RawPath: p, RawQuery: q, Header: http.Header{}, Body: []byte(body)}
	m, err := r.mux.Find(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	ctx := aws.WithCaller(r.t.Context(), aws.Caller{Account: acct, Region: "us-east-1", RequestID: "req-1"})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

func (r *room) expect(method, path, body string, status int, want string) {
	r.t.Helper()
	got, text := r.call(account, method, path, body)
	if got != status || text != want {
		r.t.Errorf("%s %s: %d %s, want %d %s", method, path, got, text, status, want)
	}
}

func (r *room) make(name string) string {
	r.t.Helper()
	ctx := aws.WithCaller(r.t.Context(), aws.Caller{Account: account, Region: "us-east-1"})
	out, err := r.create(ctx, &pinpoint.CreateAppRequest{CreateApplicationRequest: &pinpoint.CreateApplicationRequest{Name: name}})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.ApplicationResponse.Id
}

func TestAppLife(t *testing.T) {
	r := newRoom(t, Config{})
	r.expect("GET", "/v1/apps", "", 200, `{"Item":[]}`)

	status, text := r.call(account, "POST", "/v1/apps", `{"Name":"Tea","tags":{"team":"growth"}}`)
	apps, err := r.store.Reader(t.Context()).List(Kind, "", "", 10)
	if err != nil || len(apps) != 1 || status != 201 {
		t.Fatalf("create: %d %s; rows %d, %v", status, text, len(apps), err)
	}
	id := apps[0].Key
	want := fmt.Sprintf(`{"Arn":"arn:aws:mobiletargeting:us-east-1:%s:apps/%s","CreationDate":"2026-11-02T09:30:00.000Z","Id":"%s","Name":"Tea","tags":{"team":"growth"}}`, account, id, id)
	if text != want {
		t.Errorf("create: %s, want %s", text, want)
	}
	r.expect("GET", "/v1/apps/"+id, "", 200, want)
	r.expect("GET", "/v1/apps", "", 200, `{"Item":[`+want+`]}`)

	for _, c := range []struct{ method, path string }{
		{"GET", "/v1/apps/" + id},
		{"DELETE", "/v1/apps/" + id},
		{"GET", "/v1/apps/" + id + "/settings"},
		{"PUT", "/v1/apps/" + id + "/settings"},
	} {
		if status, text := r.call("999999999999", c.method, c.path, "{}"); status != 404 || !strings.Contains(text, "Resource not found") {
			t.Errorf("%s %s by another account: %d %s", c.method, c.path, status, text)
		}
	}
	reader := r.store.Reader(t.Context())
	for acct, want := range map[string]bool{account: true, "999999999999": false} {
		if got, err := Exists(reader, acct, id); got != want || err != nil {
			t.Errorf("Exists for %s = %v, %v", acct, got, err)
		}
	}

	r.expect("DELETE", "/v1/apps/"+id, "", 200, want)
	r.expect("GET", "/v1/apps", "", 200, `{"Item":[]}`)
	if status, _ := r.call(account, "GET", "/v1/apps/"+id, ""); status != 404 {
		t.Errorf("get after delete: %d", status)
	}
	if status, _ := r.call(account, "DELETE", "/v1/apps/"+id, ""); status != 404 {
		t.Errorf("second delete: %d", status)
	}
	if got, err := Exists(reader, account, id); got || err != nil {
		t.Errorf("Exists after delete = %v, %v", got, err)
	}
	// The tombstone stays, in a later version, so that no Region revives the app.
	body, err := reader.Get(Kind, id)
	if err != nil || body == nil {
		t.Fatalf("tombstone: %v, %v", body, err)
	}
	if d, err := changelog.DecodeDocument(body); err != nil || d.Version != 2 {
		t.Errorf("tombstone version %d, %v", d.Version, err)
	}
}

func TestCreateRules(t *testing.T) {
	r := newRoom(t, Config{AppsMax: 3})
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprintf(`"k%d":"v"`, i)
	}
	for name, body := range map[string]string{
		"without a name":       `{}`,
		"blank name":           `{"Name":"  "}`,
		"name of 65":           `{"Name":"` + strings.Repeat("é", 65) + `"}`,
		"reserved tag":         `{"Name":"a","tags":{"aws:x":"y"}}`,
		"empty tag key":        `{"Name":"a","tags":{"":"y"}}`,
		"tag key of 129":       `{"Name":"a","tags":{"` + strings.Repeat("k", 129) + `":"y"}}`,
		"tag value of 257":     `{"Name":"a","tags":{"k":"` + strings.Repeat("v", 257) + `"}}`,
		"tag with a semicolon": `{"Name":"a","tags":{"k":"v;w"}}`,
		"51 tags":              `{"Name":"a","tags":{` + strings.Join(many, ",") + `}}`,
	} {
		if status, text := r.call(account, "POST", "/v1/apps", body); status != 400 {
			t.Errorf("%s: %d %s, want 400", name, status, text)
		}
	}
	r.expect("GET", "/v1/apps", "", 200, `{"Item":[]}`)
	for _, body := range []string{
		`{"Name":"` + strings.Repeat("é", 64) + `"}`,
		`{"Name":"a","tags":{"Ünï code_.:/=+-":"v 1"}}`,
		`{"Name":"a","tags":{` + strings.Join(many[:50], ",") + `}}`,
	} {
		if status, text := r.call(account, "POST", "/v1/apps", body); status != 201 {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if status, text := r.call(account, "POST", "/v1/apps", `{"Name":"fourth"}`); status != 400 {
		t.Errorf("app above the quota: %d %s", status, text)
	}
	if status, text := r.call("999999999999", "POST", "/v1/apps", `{"Name":"first"}`); status != 201 {
		t.Errorf("another account's first app: %d %s", status, text)
	}
}

func TestPaging(t *testing.T) {
	r := newRoom(t, Config{})
	var want []string
	for i := range 5 {
		want = append(want, r.make(fmt.Sprint("app", i)))
	}
	slices.Sort(want)
	ctx := aws.WithCaller(t.Context(), aws.Caller{Account: account})
	two, bad := "2", "x"
	var got []string
	in := &pinpoint.GetAppsRequest{PageSize: &two}
	for range 3 {
		out, err := r.list(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range out.ApplicationsResponse.Item {
			got = append(got, a.Id)
		}
		in.Token = out.ApplicationsResponse.NextToken
	}
	if !slices.Equal(got, want) || in.Token != nil {
		t.Errorf("three pages gave %v and token %v, want %v", got, in.Token, want)
	}
	for _, in := range []*pinpoint.GetAppsRequest{{PageSize: &bad}, {Token: &bad}} {
		if _, err := r.list(ctx, in); !errors.Is(err, aws.Invalid("")) {
			t.Errorf("bad page: %v", err)
		}
	}
}

func TestSettings(t *testing.T) {
	r := newRoom(t, Config{})
	id := r.make("Tea")
	path := "/v1/apps/" + id + "/settings"
	head := `{"ApplicationId":"` + id + `",`
	created, later := `"LastModifiedDate":"2026-11-02T09:30:00.000Z",`, `"LastModifiedDate":"2026-11-02T09:31:00.000Z",`
	r.expect("GET", path, "", 200, head+`"CampaignHook":{},`+created+`"Limits":{},"QuietTime":{}}`)

	*r.clock = r.clock.Add(time.Minute)
	r.expect("PUT", path, `{"Limits":{"Daily":3,"MessagesPerSecond":50},"JourneyLimits":{"DailyCap":2},"CloudWatchMetricsEnabled":true,"EventTaggingEnabled":true}`,
		200, head+`"CampaignHook":{},"JourneyLimits":{"DailyCap":2},`+later+`"Limits":{"Daily":3,"MessagesPerSecond":50},"QuietTime":{}}`)
	// What is left out stays; what is given replaces the whole member.
	r.expect("PUT", path, `{"Limits":{"Total":1},"QuietTime":{"Start":"21:00","End":"08:00"}}`,
		200, head+`"CampaignHook":{},"JourneyLimits":{"DailyCap":2},`+later+`"Limits":{"Total":1},"QuietTime":{"End":"08:00","Start":"21:00"}}`)
	// An empty object clears.
	want := head + `"CampaignHook":{"LambdaFunctionName":"f","Mode":"FILTER"},"JourneyLimits":{"DailyCap":2},` + later + `"Limits":{},"QuietTime":{}}`
	r.expect("PUT", path, `{"Limits":{},"QuietTime":{},"CampaignHook":{"LambdaFunctionName":"f","Mode":"FILTER"}}`, 200, want)
	r.expect("GET", path, "", 200, want)

	got, err := SettingsOf(r.store.Reader(t.Context()), id)
	if err != nil || !got.CloudWatchMetricsEnabled || !got.EventTaggingEnabled {
		t.Errorf("settings that are not echoed: %+v, %v", got, err)
	}
	for _, body := range []string{
		`{"Limits":{"Daily":101}}`, `{"Limits":{"Total":101}}`, `{"Limits":{"MessagesPerSecond":0}}`, `{"Limits":{"MessagesPerSecond":20001}}`,
		`{"Limits":{"MaximumDuration":59}}`, `{"QuietTime":{"Start":"24:00","End":"08:00"}}`,
		`{"QuietTime":{"Start":"21:00"}}`, `{"QuietTime":{"Start":"","End":"08:00"}}`, `{"JourneyLimits":{"TimeframeCap":{"Cap":101}}}`,
	} {
		if status, text := r.call(account, "PUT", path, body); status != 400 {
			t.Errorf("%s: %d %s, want 400", body, status, text)
		}
	}
	r.expect("GET", path, "", 200, want)
}

// given takes every order.
type given map[string]quorum.Halt

func (g given) Order(_ context.Context, key string, h quorum.Halt) (func(context.Context), error) {
	g[key] = h
	return func(context.Context) { delete(g, key) }, nil
}

func TestStops(t *testing.T) {
	r := newRoom(t, Config{})
	id := r.make("Tea")
	orders := given{}
	r.Orders(orders)
	ctx := aws.WithCaller(t.Context(), aws.Caller{Account: account, Principal: strings.Repeat("x", 200)})
	in := &pinpoint.DeleteAppRequest{ApplicationId: id}
	if _, withdraw, err := r.orderDelete(aws.WithCaller(ctx, aws.Caller{Account: "999999999999"}), in); withdraw != nil || !errors.Is(err, aws.NotFound("")) {
		t.Errorf("an order of another account: %v", err)
	}
	out, withdraw, err := r.orderDelete(ctx, in)
	if err != nil || withdraw == nil || out.ApplicationResponse.Name != "Tea" {
		t.Fatalf("answered %+v, %v", out, err)
	}
	if h := orders[id]; h.Kind != quorum.Delete || len(h.By) != callerBytesMax {
		t.Errorf("the order is %+v", h)
	}
	if status, _ := r.call(account, "GET", "/v1/apps/"+id, ""); status != 200 {
		t.Errorf("before it was carried out the app answers %d", status)
	}
	for range 2 { // and once more, for what was done already
		if err := errors.Join(r.CarryOut(ctx, id), r.CarryOut(ctx, "unknown")); err != nil {
			t.Fatal(err)
		}
		if status, _ := r.call(account, "GET", "/v1/apps/"+id, ""); status != 404 {
			t.Errorf("after it was carried out the app answers %d", status)
		}
	}
}

func TestPurge(t *testing.T) {
	r := newRoom(t, Config{})
	kind := store.Kind{Name: "thing", Rule: changelog.RuleLocal}
	r.Contains(Content{Kind: kind, Prefix: func(app string) string { return app + "/" }})
	gone, stays := r.make("gone"), r.make("stays")
	ctx := t.Context()
	const rows = purgeBatch*2 + 7
	put := func(app string, n int) {
		t.Helper()
		if err := r.store.Update(ctx, func(tx *store.Tx) error {
			for i := range n {
				if err := tx.Put(kind, fmt.Sprintf("%s/%05d", app, i), []byte("{}")); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(k store.Kind, prefix string) int {
		t.Helper()
		got, err := r.store.Reader(ctx).List(k, prefix, "", 10000)
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	put(gone, rows)
	put(stays, 3)
	if status, _ := r.call(account, "DELETE", "/v1/apps/"+gone, ""); status != 200 {
		t.Fatal(status)
	}
	// Stopped half-way: what is left is purged by the next round.
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.purgeOnce(stopped); err == nil {
		t.Error("a purge with a cancelled context reported success")
	}
	if err := r.purgeOnce(ctx); err != nil {
		t.Fatal(err)
	}
	if a, b := count(kind, gone), count(kind, stays); a != 0 || b != 3 {
		t.Errorf("after the purge the deleted app has %d rows and the other %d, want 0 and 3", a, b)
	}
	// Within the grace the row stays, and sweeps up a latecomer.
	put(gone, 1)
	if n := count(kindPurge, ""); n != 1 {
		t.Errorf("%d purge rows within the grace, want 1", n)
	}
	*r.clock = r.clock.Add(purgeGrace)
	if err := r.purgeOnce(ctx); err != nil {
		t.Fatal(err)
	}
	if a, b := count(kind, gone), count(kindPurge, ""); a != 0 || b != 0 {
		t.Errorf("after the grace %d rows and %d purge rows are left", a, b)
	}
}

// An app that another Region deleted is purged here; whatever else that Region
// told of is left alone.
func TestPurge_of_an_app_that_another_region_deleted(t *testing.T) {
	here, there := newRoom(t, Config{}), newRoom(t, Config{})
	kind := store.Kind{Name: "thing", Rule: changelog.RuleRecord}
	here.Contains(Content{
		Kind: kind, Prefix: func(app string) string { return app + "/" }, App: func(key string) string { return key[:min(len(key), 32)] },
	})
	gone := there.make("gone")
	tell := func() {
		t.Helper()
		body, err := there.store.Reader(t.Context()).Get(Kind, gone)
		if err != nil {
			t.Fatal(err)
		}
		if err := here.store.Update(t.Context(), func(tx *store.Tx) error {
			c := changelog.Change{Kind: Kind.Name, Key: gone, Rule: Kind.Rule, Body: body}
			if _, err := tx.Merge(c, false, nil); err != nil {
				return err
			}
			return errors.Join(here.Merged(tx, c.Kind, c.Key, c.Body), here.Merged(tx, kind.Name, "other", []byte("no document")))
		}); err != nil {
			t.Fatal(err)
		}
		if err := here.purgeOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int {
		t.Helper()
		rows, err := here.store.Reader(t.Context()).List(kind, gone, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	if err := here.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(kind, gone+"/1", []byte("{}")) }); err != nil {
		t.Fatal(err)
	}
	tell()
	if left() != 1 {
		t.Fatal("an app that lives is purged")
	}
	if status, _ := there.call(account, "DELETE", "/v1/apps/"+gone, ""); status != 200 {
		t.Fatal(status)
	}
	tell()
	if n := left(); n != 0 {
		t.Errorf("%d rows of an app that is gone are left", n)
	}

	// What the other Region tells of later, for the deletion goes first.
	*here.clock = here.clock.Add(purgeGrace)
	if err := here.purgeOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := here.store.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.Put(kind, gone+"/2", []byte("{}")), here.Merged(tx, kind.Name, gone+"/2", []byte("{}")))
	}); err != nil {
		t.Fatal(err)
	}
	if err := here.purgeOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 0 {
		t.Errorf("%d rows that came after the deletion are left", n)
	}
}
