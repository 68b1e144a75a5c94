package campaigns

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/audience/segments"
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
	everyone    = "11111111111111111111111111111111" // the segment that holds all
)

// carrier is a courier small enough to read: it records whom it is given and
// answers as it is told.
type carrier struct {
	mu     sync.Mutex
	got    []*courier.Message
	answer func(n int) courier.Outcome // nil: accepted
}

func (c *carrier) Send(_ context.Context, m *courier.Message) courier.Outcome {
	c.mu.Lock()
	c.got = append(c.got, m)
	n := len(c.got)
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		return answer(n)
	}
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

// saved are the segments that the neighbour would keep.
type saved struct {
	mu       sync.Mutex
	segments map[string]*pinpoint.SegmentResponse
}

func (s *saved) Segment(_ store.Reader, _, id string, version int) (*pinpoint.SegmentResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.segments[id]
	if x == nil || version > *x.Version {
		return nil, nil
	}
	return x, nil
}

func (s *saved) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.segments, id)
}

func ptr[T any](v T) *T { return &v }

// world is one node with everything below the room.
type world struct {
	t      testing.TB
	dir    string
	url    string // of PostgreSQL; empty: SQLite
	keys   *store.Keys
	saved  *saved
	mail   *carrier
	text   *carrier
	fault  atomic.Pointer[func(point string) error]
	lives  byte
	active int
	blocks int  // of Config.BlocksAhead
	silent bool // delivery takes claims and sends nothing

	store    *store.Store
	queue    *queue.Queue
	delivery *delivery.Service
	index    *segments.Index
	room     *Service
	mux      *wire.Mux
	stop     func()
	unfollow func() // stops the index where it is
}

func newWorld(t testing.TB) *world {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, dir: t.TempDir(), keys: keys, mail: &carrier{}, text: &carrier{},
		saved: &saved{
			segments: map[string]*pinpoint.SegmentResponse{everyone: {
				ApplicationId: testApp, Id: everyone, SegmentType: pinpoint.SegmentTypeDimensional, Version: ptr(3),
				Dimensions: &pinpoint.SegmentDimensions{},
			}},
		},
	}
	return w
}

func (w *world) start() {
	w.t.Helper()
	w.lives++
	log := slog.New(slog.DiscardHandler)
	var err error
	cfg := store.Config{Dir: w.dir, PostgresURL: w.url, Region: "us-east-1", Fault: func(p string) error {
		if f := w.fault.Load(); f != nil {
			return (*f)(p)
		}
		return nil
	}}
	if w.store, err = store.Open(w.t.Context(), cfg, w.keys, time.Now, log); err != nil {
		w.t.Fatal(err)
	}
	seeded := func(n byte) *rand.Rand { return rand.New(rand.NewChaCha8([32]byte{w.lives, n})) }
	w.queue = queue.New(queue.Config{Node: "n1"}, w.store, time.Now, seeded(1), log)
	numbers := []delivery.Number{{Number: "+12065550100", Type: "LONG_CODE", Country: "US", Route: "main"}}
	w.delivery = delivery.New(delivery.Config{Node: "n1", Numbers: numbers}, w.store, w.queue, group.Alone(w.store.Region()), nil,
		delivery.Routes{Mail: w.mail, Text: map[string]courier.Courier{"main": w.text}}, time.Now, seeded(2), log)
	if !w.silent {
		w.delivery.Mount()
	}
	w.index = segments.NewIndex(w.store, log)
	tokens, ids := wire.NewTokens([]byte("sixteen bytes or more"), time.Now), aws.NewIDs(rand.NewChaCha8([32]byte{w.lives, 3}))
	w.room = New(Config{ActiveMax: w.active, BlocksAhead: w.blocks}, w.store, w.queue, w.delivery, group.Alone(w.store.Region()), w.index, w.saved.Segment,
		tokens, ids, time.Now, log)
	w.mux = wire.NewMux(pinpoint.Service, everpoint.Service)
	w.room.Mount(w.mux)
	templates.New(w.store, ids, tokens, time.Now).Mount(w.mux)

	storeCtx, stopStore := context.WithCancel(context.Background())
	queueCtx, stopQueue := context.WithCancel(context.Background())
	var stored, queued sync.WaitGroup
	stored.Go(func() { _ = w.store.Run(storeCtx) })
	queued.Go(func() { _ = w.queue.Run(queueCtx) })
	w.follow()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			stopQueue()
			queued.Wait()
			w.unfollow()
			stopStore()
			stored.Wait()
		})
	}
	channels.New(channels.Config{}, w.store, time.Now).Mount(w.mux)
	if w.lives == 1 {
		w.update(func(tx *store.Tx) error {
			return store.Save(tx, apps.Kind, testApp, &apps.App{Account: testAccount, ID: testApp, Name: "tea"})
		})
		w.channel("email", true)
		w.channel("sms", true)
	}
}

// follow keeps the index behind the store.
func (w *world) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { _ = w.index.Run(ctx) })
	w.unfollow = func() {
		cancel()
		following.Wait()
	}
}

// channel switches a channel of the app on or off.
func (w *world) channel(name string, on bool) {
	w.t.Helper()
	more := ""
	if name == "email" {
		more = `,"FromAddress":"Tea <news@tea.example>","Identity":"arn:aws:ses:us-east-1:` + testAccount + `:identity/tea.example"`
	}
	var out map[string]any
	w.ask(&out, "PUT", "/v1/apps/"+testApp+"/channels/"+name, fmt.Sprintf(`{"Enabled":%t%s}`, on, more))
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

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func putEndpoint(tx *store.Tx, id, channel, address string, more map[string]string) error {
	var r changelog.Record
	at := tx.Stamp()
	r.Set("Id", []byte(id), at)
	r.Set("ChannelType", []byte(channel), at)
	if address != "" {
		r.Set("Address", []byte(address), at)
	}
	for path, value := range more {
		if path == "OptOut" {
			r.OptOut = r.OptOut.Record(at)
			continue
		}
		r.Set(path, []byte(value), at)
	}
	return tx.Put(endpoints.KindEndpoint, endpoints.Key(tx, testApp, id), changelog.AppendRecord(nil, &r))
}

// people writes n mail endpoints and returns their addresses, sorted.
func (w *world) people(n int) []string {
	w.t.Helper()
	var out []string
	for i := 0; i < n; {
		w.update(func(tx *store.Tx) error {
			for range 500 {
				if i == n {
					break
				}
				address := fmt.Sprintf("p%06d@tea.example", i)
				if err := putEndpoint(tx, fmt.Sprintf("e%d", i), "EMAIL", address, nil); err != nil {
					return err
				}
				out = append(out, address)
				i++
			}
			return nil
		})
	}
	return out
}

func (w *world) one(id, channel, address string, more map[string]string) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error { return putEndpoint(tx, id, channel, address, more) })
}

// call sends a request through the wire and returns status and body.
func (w *world) call(method, path, body string) (int, string) {
	w.t.Helper()
	p, q, _ := strings.Cut(path, "?")
	req := &wire.Request{Method: method, RawPath: p, RawQuery: q, Header: http.Header{}, Body: []byte(body)}
	m, err := w.mux.Find(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	ctx := aws.WithCaller(w.t.Context(), aws.Caller{Account: testAccount, Region: "us-east-1", RequestID: "req-1"})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

// ask is call that must succeed, its answer read into v.
func (w *world) ask(v any, method, path, body string) {
	w.t.Helper()
	status, text := w.call(method, path, body)
	if status/100 != 2 {
		w.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		w.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
}

const base = "/v1/apps/" + testApp + "/campaigns"

// create makes a campaign of the given members and returns it.
func (w *world) create(body string) *pinpoint.CampaignResponse {
	w.t.Helper()
	c := &pinpoint.CampaignResponse{}
	w.ask(c, "POST", base, body)
	return c
}

const (
	now     = `"Schedule":{"StartTime":"IMMEDIATE"}`
	mailing = `"SegmentId":"` + everyone + `","MessageConfiguration":{"EmailMessage":{"Title":"Menu","HtmlBody":"<p>Hello {{Id}}</p>"}}`
)

func (w *world) campaign(id string) *pinpoint.CampaignResponse {
	w.t.Helper()
	c := &pinpoint.CampaignResponse{}
	w.ask(c, "GET", base+"/"+id, "")
	return c
}

func (w *world) activities(id string) []pinpoint.ActivityResponse {
	w.t.Helper()
	var a pinpoint.ActivitiesResponse
	w.ask(&a, "GET", base+"/"+id+"/activities", "")
	return a.Item
}

func (w *world) running(id string) *everpoint.CampaignRun {
	w.t.Helper()
	r := &everpoint.CampaignRun{}
	w.ask(r, "GET", "/everpoint"+base+"/"+id+"/run", "")
	return r
}

// balanced fails the test unless everybody who was meant has exactly one fate.
func (w *world) balanced(id string, targets int) *everpoint.Reconciliation {
	w.t.Helper()
	r := &everpoint.Reconciliation{}
	w.ask(r, "GET", "/everpoint"+base+"/"+id+"/reconciliation", "")
	if !r.Balanced || r.Unaccounted != 0 || r.InFlight != 0 || r.Targets != int64(targets) {
		w.t.Errorf("reconciliation %+v, want %d targets", r, targets)
	}
	return r
}

// pass lets virtual time pass, and with it the node's work.
func (w *world) pass(d time.Duration) { time.Sleep(d) }
