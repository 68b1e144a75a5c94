package events

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

const (
	account = "123456789012"
	other   = "999999999999"
	app     = "0123456789abcdef0123456789abcdef"
	user    = "arn:aws:iam::123456789012:user/ann"
)

// room is the room over a store of its own, with a clock that a test may turn.
type room struct {
	*Service
	t     testing.TB
	mux   *wire.Mux
	clock *time.Time
}

// rooms runs a test on SQLite and, when TEST_POSTGRES_URL is set, on PostgreSQL.
func rooms(t *testing.T, test func(t *testing.T, r *room)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newRoom(t, Config{}, "")) })
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		t.Run("postgres", func(t *testing.T) { test(t, newRoom(t, Config{}, newDatabase(t, url))) })
	}
}

func newRoom(t testing.TB, cfg Config, postgresURL string) *room {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	r := &room{t: t, clock: &at}
	now := func() time.Time { return *r.clock }
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: postgresURL}, keys, now, slog.New(slog.DiscardHandler))
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
	log := slog.New(slog.DiscardHandler)
	ids, tokens := aws.NewIDs(rand.NewChaCha8([32]byte{1})), wire.NewTokens([]byte("sixteen bytes or more"), now)
	ep := endpoints.New(endpoints.Config{}, st, tokens, ids, now, log)
	r.Service = New(cfg, st, ep, now, log)
	for acct, id := range map[string]string{account: app, other: strings.Repeat("f", 32)} {
		err := st.Update(t.Context(), func(tx *store.Tx) error {
			return store.Save(tx, apps.Kind, id, &apps.App{Account: acct, ID: id, Name: "Tea"})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.mux = wire.NewMux(pinpoint.Service)
	ep.Mount(r.mux)
	r.Mount(r.mux)
	return r
}

var databases atomic.Int64

// newDatabase makes an empty database on the server for one test.
func newDatabase(t *testing.T, url string) string {
	t.Helper()
	run := func(ctx context.Context, sql string) (*pgx.ConnConfig, error) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, sql)
		return conn.Config(), err
	}
	name := fmt.Sprintf("events_%d_%d", os.Getpid(), databases.Add(1))
	cfg, err := run(t.Context(), "CREATE DATABASE "+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := run(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", cfg.User, cfg.Password, name, cfg.Host, cfg.Port)
}

// as sends a request through the wire and returns status and body.
func (r *room) as(acct, method, path, body string) (int, string) {
	r.t.Helper()
	p, q, _ := strings.Cut(path, "?")
	req := &wire.Request{Method: method, RawPath: p, RawQuery: q, Header: http.Header{}, Body: []byte(body)}
	m, err := r.mux.Find(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	ctx := aws.WithCaller(r.t.Context(), aws.Caller{Account: acct, Region: "us-east-1", Principal: user, RequestID: "req-1"})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

// call sends a request about the app.
func (r *room) call(method, path, body string) (int, string) {
	r.t.Helper()
	return r.as(account, method, "/v1/apps/"+app+path, body)
}

// expect checks a whole answer; an empty want leaves the body alone.
func (r *room) expect(method, path, body string, status int, want string) {
	r.t.Helper()
	got, text := r.call(method, path, body)
	if got != status || want != "" && text != want {
		r.t.Errorf("%s %s %s\n got %d %s\nwant %d %s", method, path, body, got, text, status, want)
	}
}

// refused checks that a request is wrong and that the answer says why.
func (r *room) refused(method, path, body, why string) {
	r.t.Helper()
	got, text := r.call(method, path, body)
	if got != 400 || !strings.Contains(text, why) {
		r.t.Errorf("%s %s %.200s\n got %d %s\nwant 400 with %q", method, path, body, got, text, why)
	}
}
