package messages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/senders/channels"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

const (
	testAccount = "111122223333"
	testApp     = "0123456789abcdef0123456789abcdef"
	sendPath    = "/v1/apps/" + testApp + "/messages"
	usersPath   = "/v1/apps/" + testApp + "/users-messages"
)

// carrier is a courier small enough to read: it records what it is given.
type carrier struct {
	mu  sync.Mutex
	got []*courier.Message
}

func (c *carrier) Send(_ context.Context, m *courier.Message) courier.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, m)
	return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1}
}

func (c *carrier) to() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, m := range c.got {
		out = append(out, m.To)
	}
	slices.Sort(out)
	return out
}

// world is one node with everything below the room.
type world struct {
	t      testing.TB
	dir    string
	url    string // of PostgreSQL; empty: SQLite
	keys   *store.Keys
	mail   *carrier
	text   *carrier
	fault  atomic.Pointer[func(point string) error]
	lives  byte
	silent bool // delivery takes claims and sends nothing

	store    *store.Store
	delivery *delivery.Service
	mux      *wire.Mux
	stop     func()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, dir: t.TempDir(), keys: keys, mail: &carrier{}, text: &carrier{}}
}

func (w *world) start() {
	w.t.Helper()
	w.lives++
	log := slog.New(slog.DiscardHandler)
	cfg := store.Config{Dir: w.dir, PostgresURL: w.url, Region: "us-east-1", Fault: func(p string) error {
		if f := w.fault.Load(); f != nil {
			return (*f)(p)
		}
		return nil
	}}
	var err error
	if w.store, err = store.Open(w.t.Context(), cfg, w.keys, time.Now, log); err != nil {
		w.t.Fatal(err)
	}
	seeded := func(n byte) *rand.Rand { return rand.New(rand.NewChaCha8([32]byte{w.lives, n})) }
	q := queue.New(queue.Config{Node: "n1"}, w.store, time.Now, seeded(1), log)
	numbers := []delivery.Number{
		{Number: "+12065550100", Type: "LONG_CODE", Country: "US", Route: "main"},
		{Number: "TEA", Type: "SENDER_ID", Country: "DE", Route: "main"},
	}
	w.delivery = delivery.New(delivery.Config{Node: "n1", Numbers: numbers}, w.store, q, group.Alone(w.store.Region()), nil,
		delivery.Routes{Mail: w.mail, Text: map[string]courier.Courier{"main": w.text}}, time.Now, seeded(2), log)
	if !w.silent {
		w.delivery.Mount()
	}
	tokens, ids := wire.NewTokens([]byte("sixteen bytes or more"), time.Now), aws.NewIDs(rand.NewChaCha8([32]byte{w.lives, 3}))
	w.mux = wire.NewMux(pinpoint.Service)
	New(w.store, w.delivery, ids, time.Now, log).Mount(w.mux)
	templates.New(w.store, ids, tokens, time.Now).Mount(w.mux)
	channels.New(channels.Config{}, w.store, time.Now).Mount(w.mux)

	storeCtx, stopStore := context.WithCancel(context.Background())
	queueCtx, stopQueue := context.WithCancel(context.Background())
	var stored, queued sync.WaitGroup
	stored.Go(func() { _ = w.store.Run(storeCtx) })
	queued.Go(func() { _ = q.Run(queueCtx) })
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			stopQueue()
			queued.Wait()
			stopStore()
			stored.Wait()
		})
	}
	if w.lives == 1 {
		w.update(func(tx *store.Tx) error {
			return store.Save(tx, apps.Kind, testApp, &apps.App{Account: testAccount, ID: testApp, Name: "tea"})
		})
		identity := "arn:aws:ses:us-east-1:" + testAccount + ":identity/tea.example"
		w.must("PUT", "/v1/apps/"+testApp+"/channels/email", `{"Enabled":true,"FromAddress":"Tea <news@tea.example>","Identity":"`+identity+`"}`)
		w.must("PUT", "/v1/apps/"+testApp+"/channels/sms", `{"Enabled":true}`)
	}
}

// in runs a test of a node under virtual time.
func in(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		defer func() { w.stop() }()
		test(t, w)
	})
}

// pass lets virtual time pass, and with it the node's work.
func (w *world) pass(d time.Duration) { time.Sleep(d) }

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// endpoint writes an endpoint, of a user when one is given.
func (w *world) endpoint(id, channel, address, user string, more map[string]string) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		var r changelog.Record
		at := tx.Stamp()
		r.Set("Id", []byte(id), at)
		if channel != "" {
			r.Set("ChannelType", []byte(channel), at)
		}
		if address != "" {
			r.Set("Address", []byte(address), at)
		}
		var x []store.Index
		if user != "" {
			r.Set("User.UserId", []byte(user), at)
			x = append(x, endpoints.ByUser(testApp, user))
		}
		for path, value := range more {
			if path == "OptOut" {
				r.OptOut = r.OptOut.Record(at)
				continue
			}
			r.Set(path, []byte(value), at)
		}
		return tx.Put(endpoints.KindEndpoint, endpoints.Key(tx, testApp, id), changelog.AppendRecord(nil, &r), x...)
	})
}

// caller is who calls; each call has an id of its own unless a test gives one.
type caller struct {
	account, principal, invocation string
}

var callerDefault = caller{testAccount, "arn:aws:iam::" + testAccount + ":user/ann", ""}

// call sends a request through the wire, as the door would hand it over.
func (w *world) call(who caller, method, path, body string) (int, string) {
	w.t.Helper()
	req := &wire.Request{Method: method, RawPath: path, Header: http.Header{}, Body: []byte(body)}
	m, err := w.mux.Find(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	hash := sha256.Sum256([]byte(body))
	ctx := aws.WithCaller(w.t.Context(), aws.Caller{
		Account: who.account, Principal: who.principal, Region: "us-east-1", RequestID: fmt.Sprintf("req-%d", requests.Add(1)),
		InvocationID: who.invocation, BodyHash: hex.EncodeToString(hash[:]),
	})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

var requests atomic.Int64

func (w *world) must(method, path, body string) string {
	w.t.Helper()
	status, text := w.call(callerDefault, method, path, body)
	if status/100 != 2 {
		w.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return text
}

func (w *world) send(body string) *pinpoint.MessageResponse {
	w.t.Helper()
	out := &pinpoint.MessageResponse{}
	if err := json.Unmarshal([]byte(w.must("POST", sendPath, body)), out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) sendUsers(body string) *pinpoint.SendUsersMessageResponse {
	w.t.Helper()
	out := &pinpoint.SendUsersMessageResponse{}
	if err := json.Unmarshal([]byte(w.must("POST", usersPath, body)), out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// mailTo is the mail that an address got, as text; empty when it got none.
func (w *world) mailTo(address string) string {
	w.mail.mu.Lock()
	defer w.mail.mu.Unlock()
	for _, m := range w.mail.got {
		if m.To == address {
			return string(m.Mail.Data)
		}
	}
	return ""
}

// textTo is the SMS that a number got; empty when it got none.
func (w *world) textTo(number string) string {
	w.text.mu.Lock()
	defer w.text.mu.Unlock()
	for _, m := range w.text.got {
		if m.To == number {
			return m.Text.Body
		}
	}
	return ""
}

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(text, s) {
			t.Errorf("no %q in\n%s", s, text)
		}
	}
}

var databases atomic.Int64

// newDatabase makes an empty database on the server for one test.
func newDatabase(t *testing.T, url string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := fmt.Sprintf("messages_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	c := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", c.User, c.Password, name, c.Host, c.Port)
}
