package endpoints

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

const (
	account = "123456789012"
	app     = "0123456789abcdef0123456789abcdef"
)

var discard = slog.New(slog.DiscardHandler)

// room is the room over a store of its own, with one app and a clock that a
// test may turn.
type room struct {
	*Service
	t     testing.TB
	mux   *wire.Mux
	clock *time.Time
	n     int // requests made
}

func openStore(t testing.TB, cfg store.Config, keys *store.Keys, now func() time.Time) *store.Store {
	t.Helper()
	if cfg.PostgresURL = newDatabase(t); cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	st, err := store.Open(context.Background(), cfg, keys, now, discard)
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
	return st
}

func newKeys(t testing.TB) *store.Keys {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func addApp(t testing.TB, st *store.Store, acct, id string) {
	t.Helper()
	err := st.Update(context.Background(), func(tx *store.Tx) error {
		return store.Save(tx, apps.Kind, id, &apps.App{Account: acct, ID: id, Name: "Tea"})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newRoom(t testing.TB, limits Limits) *room {
	t.Helper()
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	r := &room{t: t, clock: &at}
	now := func() time.Time { return *r.clock }
	st := openStore(t, store.Config{Dir: t.TempDir()}, newKeys(t), now)
	addApp(t, st, account, app)
	ids := aws.NewIDs(rand.NewChaCha8([32]byte{1}))
	r.Service = New(Config{Limits: limits}, st, wire.NewTokens([]byte("sixteen bytes or more"), now), ids, now, discard)
	r.mux = wire.NewMux(pinpoint.Service, everpoint.Service)
	r.Mount(r.mux)
	return r
}

// as calls an operation through the wire and returns status and body.
func (r *room) as(acct, method, path, body string) (int, string) {
	r.t.Helper()
	r.n++
	p, q, _ := strings.Cut(path, "?")
	req := &wire.Request{Method: method, RawPath: p, RawQuery: q, Header: http.Header{}, Body: []byte(body)}
	m, err := r.mux.Find(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	ctx := aws.WithCaller(context.Background(), aws.Caller{Account: acct, Region: "us-east-1", RequestID: fmt.Sprint("req-", r.n)})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

func (r *room) call(method, path, body string) (int, string) {
	r.t.Helper()
	return r.as(account, method, "/v1/apps/"+app+path, body)
}

// put updates an endpoint and expects the message; empty means accepted.
func (r *room) put(id, body, message string) {
	r.t.Helper()
	status, text := r.call("PUT", "/endpoints/"+url.PathEscape(id), body)
	r.judge("put "+id+" "+body, status, text, 202, message)
}

func (r *room) judge(what string, status int, text string, good int, message string) {
	r.t.Helper()
	if message == "" {
		if status != good {
			r.t.Errorf("%s: %d %s, want %d", what, status, text, good)
		}
		return
	}
	var got struct{ Message string }
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		r.t.Fatalf("%s: %s: %v", what, text, err)
	}
	if status != 400 || !strings.HasPrefix(got.Message, message) {
		r.t.Errorf("%s: %d %q, want 400 %q", what, status, got.Message, message)
	}
}

// show reads an endpoint as the API shows it, without what changes with every
// write or never; empty when there is none.
func (r *room) show(id string) string {
	r.t.Helper()
	status, text := r.call("GET", "/endpoints/"+url.PathEscape(id), "")
	if status == 404 {
		return ""
	}
	if status != 200 {
		r.t.Fatalf("get %s: %d %s", id, status, text)
	}
	return plain(r.t, []byte(text))
}

func plain(t testing.TB, text []byte) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"ApplicationId", "CohortId", "CreationDate", "EffectiveDate", "RequestId", "Id"} {
		delete(m, k)
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// field reads one top-level member of an endpoint as text.
func (r *room) field(id, name string) string {
	r.t.Helper()
	_, text := r.call("GET", "/endpoints/"+url.PathEscape(id), "")
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		r.t.Fatal(err)
	}
	if m[name] == nil {
		return ""
	}
	return fmt.Sprint(m[name])
}

// Nobody who wants no more messages is turned away; whoever opts in, or is
// deleted, is, unless the other Regions hear of it.
func TestOptOut_without_the_group(t *testing.T) {
	r := newRoom(t, Limits{})
	r.put("e", `{"Address":"a@example.com","ChannelType":"EMAIL"}`, "")
	r.put("out", `{"Address":"b@example.com","ChannelType":"EMAIL","OptOut":"ALL"}`, "")
	r.put("other", `{"Address":"d@example.com","ChannelType":"EMAIL","OptOut":"ALL"}`, "")
	r.store.Acknowledge(func(context.Context, int64) error { return aws.Unavailable("there is no majority") })
	batch := func(items string) string { return `{"Item":[` + items + `]}` }
	const (
		optOut = `{"Id":"e","OptOut":"ALL","Attributes":{"a":["1"]}}`
		optIn  = `{"Id":"out","OptOut":"NONE","Address":"b@example.com","ChannelType":"EMAIL"}`
	)
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/endpoints/e", `{"OptOut":"ALL","Attributes":{"a":["1"]}}`, 202},
		{"PUT", "/endpoints/e", `{"OptOut":"ALL","EffectiveDate":"2020-01-01T00:00:00Z"}`, 202},
		{"PUT", "/endpoints/fresh", `{"Address":"c@example.com","ChannelType":"EMAIL","OptOut":"ALL"}`, 202},
		{"PUT", "/endpoints/e", `{"Attributes":{"a":["2"]}}`, 202},
		{"PUT", "/endpoints", batch(optOut), 202},
		{"PUT", "/endpoints", batch(optOut + "," + optIn), 503},
		{"PUT", "/endpoints/other", `{"OptOut":"NONE","Address":"d@example.com","ChannelType":"EMAIL"}`, 503},
		{"DELETE", "/endpoints/fresh", "", 503},
		{"DELETE", "/users/nobody", "", 404},
	} {
		if status, text := r.call(tt.method, tt.path, tt.body); status != tt.status {
			t.Errorf("%s %s %s: %d %s, want %d", tt.method, tt.path, tt.body, status, text, tt.status)
		}
	}
	if m := r.store.Marked(); m.OptOuts != 3 {
		t.Errorf("%+v, want three: the second did not change anything", m)
	}
}
