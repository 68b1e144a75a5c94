package router

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// judged is a health with defaults, at a time of its own.
func judged(t *testing.T) (*health, time.Time) {
	t.Helper()
	var cfg Health
	if err := cfg.settle(); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_000_000_000, 0)
	h := newHealth(&cfg, now)
	return &h, now
}

func TestHealth_falls(t *testing.T) {
	type event struct {
		what  string // passed, failed, or an outcome
		times int
		after time.Duration // between two
	}
	tests := []struct {
		name   string
		events []event
		down   bool
	}{
		{"two refused connections at once", []event{{"unreached", 2, 0}}, true},
		{"one refused connection", []event{{"unreached", 1, 0}}, false},
		{"refused, answered, refused", []event{{"unreached", 1, 0}, {"answered", 1, 0}, {"unreached", 1, 0}}, false},
		{"two failed checks", []event{{"failed", 2, time.Second}}, true},
		{"failed, passed, failed", []event{{"failed", 1, 0}, {"passed", 1, 0}, {"failed", 1, 0}}, false},
		{"five lost connections", []event{{"lost", 5, 0}}, true},
		{"four lost connections", []event{{"lost", 4, 0}}, false},
		{"five 503 among nine", []event{{"answered", 4, 0}, {"ill", 5, 0}}, true},
		{"five 503 among eleven", []event{{"answered", 6, 0}, {"ill", 5, 0}}, false},
		{"failures far apart", []event{{"lost", 20, 3 * time.Second}}, false},
		{"a hundred answers", []event{{"answered", 100, time.Millisecond}}, false},
		{"five without an answer", []event{{"silent", 5, 0}}, true},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			h, now := judged(t)
			changed := false
			for _, e := range tt.events {
				for range e.times {
					now = now.Add(e.after)
					switch e.what {
					case "passed":
						changed = h.checked(now, "") || changed
					case "failed":
						changed = h.checked(now, "answered 503") || changed
					default:
						for o, name := range outcomeNames {
							if name == e.what {
								changed = h.observed(now, outcome(o), time.Millisecond) || changed
							}
						}
					}
				}
			}
			if down := h.state == Down; down != tt.down || changed != tt.down {
				t.Errorf("state %s (%s), changed %v; want down %v", h.state, h.reason, changed, tt.down)
			}
		})
	}
}

func TestHealth_slow(t *testing.T) {
	h, now := judged(t)
	for range 20 {
		h.observed(now, answered, time.Millisecond)
	}
	if h.slow(now, 9) {
		t.Error("9 slow of 20 are fewer than half")
	}
	if !h.slow(now, 1) || h.state != Down {
		t.Errorf("10 slow of 20: %s", h.state)
	}
}

func TestHealth_returns(t *testing.T) {
	h, now := judged(t)
	h.observed(now, unreached, 0)
	h.observed(now, unreached, 0)
	var seen []string
	last := 0.0
	for s := range 60 {
		now = now.Add(time.Second)
		h.checked(now, "")
		if share := h.share(); share != last {
			seen, last = append(seen, fmt.Sprintf("%ds %.0f%%", s+1, 100*share)), share
		}
	}
	if got, want := strings.Join(seen, ", "), "5s 10%, 15s 25%, 25s 50%, 35s 100%"; got != want {
		t.Errorf("it returned %s, want %s", got, want)
	}
	if h.state != Up {
		t.Errorf("state %s", h.state)
	}
}

// TestHealth_flapping lets a Region fall as soon as it is back: it is held longer
// each time, up to a bound, and less again once it has been well for long.
func TestHealth_flapping(t *testing.T) {
	h, now := judged(t)
	var held []time.Duration
	fall := func() {
		began := now
		h.checked(now, "answered 503")
		h.checked(now, "answered 503")
		if h.state != Down {
			t.Fatalf("two failed checks: %s", h.state)
		}
		for h.state == Down {
			now = now.Add(time.Second)
			h.checked(now, "")
		}
		held = append(held, now.Sub(began))
	}
	for range 7 {
		fall()
	}
	for range 60 + 5*60 {
		now = now.Add(time.Second)
		h.checked(now, "")
	}
	fall()
	want := []time.Duration{5, 10, 20, 40, 80, 120, 120, 5}
	for i := range want {
		if held[i] != want[i]*time.Second {
			t.Fatalf("held %v, want %v seconds", held, want)
		}
	}
	if h.falls != len(want) {
		t.Errorf("%d falls", h.falls)
	}
	// On its way back one failed check is enough.
	if h.state != Returning || !h.checked(now, "answered 503") || h.state != Down {
		t.Errorf("a failed check while returning: %s", h.state)
	}
}

func TestHealth_settings(t *testing.T) {
	for _, bad := range []Health{
		{Path: "readyz"},
		{Interval: -1},
		{FailureRatio: 1.5},
		{Steps: []float64{0}},
		{Steps: []float64{1}},
		{ChecksDown: -1},
		{Steps: make([]float64, 17)},
		{Window: 5},
	} {
		if err := bad.settle(); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for ms := range 1000 {
		h[bucket(time.Duration(ms+1)*time.Millisecond)]++
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || float64(got) > 1.19*float64(want) {
			t.Errorf("quantile %g: %v, want %v or up to 19 %% more", q, got, want)
		}
	}
	if bucket(0) != 0 || bucket(time.Hour) != histogramBuckets-1 {
		t.Error("what is out of range has no bucket")
	}
}

// bubble is a group of Regions over pipes, so that time can be virtual.
type bubble struct {
	t       *testing.T
	rt      *Router
	regions map[string]*bubbleRegion
}

// bubbleRegion is a server whose network and health a test decides.
type bubbleRegion struct {
	pipes    chan net.Conn
	refuses  atomic.Bool // connections
	hangs    atomic.Bool // accepts, and never answers
	ready    atomic.Bool
	received atomic.Int64 // calls that were answered

	switches atomic.Pointer[string] // what it tells of them; nil: 404

	mu    sync.Mutex
	conns []net.Conn
}

func (b *bubbleRegion) tell(w http.ResponseWriter) {
	s := b.switches.Load()
	if s == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, *s)
}

// kill refuses connections and breaks those there are.
func (b *bubbleRegion) kill() {
	b.refuses.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

func (b *bubbleRegion) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if b.hangs.Load() {
		<-r.Context().Done()
		return
	}
	if r.URL.Path == "/readyz" {
		if !b.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return
	}
	if r.URL.Path == SwitchesPath {
		b.tell(w)
		return
	}
	b.received.Add(1)
}

// pipeListener accepts what dial gives it.
type pipeListener struct {
	pipes chan net.Conn
	done  chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.pipes:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// inBubble runs f with a router and Regions 127.0.0.1 (named eu-1-1), … under
// virtual time.
func inBubble(t *testing.T, n int, mode Mode, f func(b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, regions: map[string]*bubbleRegion{}}
		cfg := Config{Mode: mode}
		byAddr := map[string]*bubbleRegion{}
		done := make(chan struct{})
		var served sync.WaitGroup
		for i := range n {
			reg := &bubbleRegion{pipes: make(chan net.Conn)}
			reg.ready.Store(true)
			name, addr := fmt.Sprintf("eu-%d-1", i+1), fmt.Sprintf("127.0.0.%d:80", i+1)
			b.regions[name], byAddr[addr] = reg, reg
			cfg.Regions = append(cfg.Regions, Region{Name: name, URL: "http://" + addr})
			srv := &http.Server{Handler: reg, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
			served.Go(func() { _ = srv.Serve(pipeListener{reg.pipes, done}) })
			defer srv.Close()
		}
		defer served.Wait()
		defer close(done)
		tr := NewTransport(nil, Limits{})
		tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
			reg := byAddr[addr]
			if reg.refuses.Load() {
				return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")}
			}
			here, there := net.Pipe()
			reg.pipes <- there
			reg.mu.Lock()
			defer reg.mu.Unlock()
			reg.conns = append(reg.conns, there)
			return here, nil
		}
		defer tr.CloseIdleConnections()
		rt, err := New(cfg, tr, time.Now, rand.New(rand.NewPCG(1, 2)), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		b.rt = rt
		ctx, stop := context.WithCancel(t.Context())
		var watched sync.WaitGroup
		watched.Go(func() { _ = rt.Run(ctx) })
		defer watched.Wait()
		defer stop()
		f(b)
	})
}

// pass lets virtual time pass.
func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// call performs a call for the i-th endpoint and returns the status and the
// Region that answered.
func (b *bubble) call(method string, i int) (int, string) {
	r := httptest.NewRequest(method, fmt.Sprintf("/v1/apps/A/endpoints/%d", i), nil)
	w := httptest.NewRecorder()
	b.rt.ServeHTTP(w, r)
	return w.Code, w.Header().Get(headerRegion)
}

// shares performs n calls, each of which must succeed, and returns who answered.
func (b *bubble) shares(n int) map[string]int {
	b.t.Helper()
	got := map[string]int{}
	for i := range n {
		code, region := b.call("GET", i)
		if code != 200 {
			b.t.Fatalf("a call fails with %d", code)
		}
		got[region]++
	}
	return got
}

func (b *bubble) state(name string) RegionStatus {
	for _, rs := range b.rt.Status().Regions {
		if rs.Name == name {
			return rs
		}
	}
	b.t.Fatalf("the status has no Region %q", name)
	return RegionStatus{}
}

func TestRouter_killed_Region_is_diverted_at_once_and_returns_by_steps(t *testing.T) {
	inBubble(t, 2, ActiveActive, func(b *bubble) {
		two := b.regions["eu-2-1"]
		if got := b.shares(400); got["eu-2-1"] < 160 || got["eu-2-1"] > 240 {
			t.Fatalf("an even split: %v", got)
		}
		two.kill()
		began := time.Now()
		if got := b.shares(400); got["eu-1-1"] != 400 {
			t.Fatalf("after the kill: %v", got)
		}
		if rs := b.state("eu-2-1"); rs.State != Down || time.Since(began) > 0 {
			t.Fatalf("after the calls: %s, %v later", rs.State, time.Since(began))
		}
		time.Sleep(time.Minute)
		if rs := b.state("eu-2-1"); rs.State != Down || !strings.Contains(rs.Check.Problem, "refused") || rs.Share != 0 {
			t.Fatalf("a minute later: %+v", rs)
		}

		two.refuses.Store(false)
		last, steps := -1.0, ""
		for range 80 {
			time.Sleep(500 * time.Millisecond)
			rs := b.state("eu-2-1")
			if rs.Health == last {
				continue
			}
			if last = rs.Health; last > 0 {
				got := b.shares(1000)["eu-2-1"]
				steps += fmt.Sprintf("%.0f%% ", 100*last)
				if want := 500 * last; float64(got) < 0.7*want || float64(got) > 1.3*want {
					t.Errorf("at %.0f %% of its share it gets %d of 1000 calls", 100*last, got)
				}
			}
		}
		if steps != "10% 25% 50% 100% " {
			t.Errorf("it returned by %s", steps)
		}
	})
}

func TestRouter_hanging_Region_is_left_within_seconds(t *testing.T) {
	inBubble(t, 2, ActiveActive, func(b *bubble) {
		b.shares(20)
		b.regions["eu-2-1"].hangs.Store(true)
		began := time.Now()
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				if code, region := b.call("PUT", i); code != 200 || region != "eu-1-1" && time.Since(began) > 0 {
					t.Errorf("endpoint %d: %d by %s", i, code, region)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 4*time.Second || took < time.Second {
			t.Errorf("calls that waited for the Region were answered elsewhere after %v", took)
		}
		if rs := b.state("eu-2-1"); rs.State != Down || rs.InFlight != 0 || rs.Rescued == 0 {
			t.Errorf("%+v", rs)
		}
	})
}

func TestRouter_slow_answers_count_though_checks_pass(t *testing.T) {
	inBubble(t, 2, ActiveActive, func(b *bubble) {
		// The doors answer checks; calls find a Region that never answers.
		behind := b.rt.behind
		b.rt.behind = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != "/readyz" && strings.HasPrefix(r.URL.Host, "127.0.0.2") {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return behind.RoundTrip(r)
		})
		began := time.Now()
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				if code, _ := b.call("PUT", i); code != 200 {
					t.Errorf("endpoint %d: %d", i, code)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took < 10*time.Second || took > 13*time.Second {
			t.Errorf("rescued after %v, want SlowAfter and a check's interval", took)
		}
		if rs := b.state("eu-2-1"); rs.State != Down || !strings.Contains(rs.Reason, "no answer") {
			t.Errorf("%+v", rs)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRouter_all_ill_are_all_tried(t *testing.T) {
	inBubble(t, 3, ActiveActive, func(b *bubble) {
		for _, reg := range b.regions {
			reg.ready.Store(false)
		}
		time.Sleep(5 * time.Second)
		for name := range b.regions {
			if rs := b.state(name); rs.State != Down || rs.Health != 0 {
				t.Fatalf("%s: %+v", name, rs)
			}
		}
		got := b.shares(300)
		for name := range b.regions {
			if got[name] < 60 {
				t.Errorf("all are ill, and still each should get its share: %v", got)
			}
			if rs := b.state(name); rs.Share < 0.3 {
				t.Errorf("the status tells another story: %+v", rs)
			}
		}
		b.regions["eu-1-1"].kill()
		b.regions["eu-2-1"].kill()
		if got := b.shares(100); got["eu-3-1"] != 100 {
			t.Errorf("two are gone: %v", got)
		}
		b.regions["eu-3-1"].kill()
		if code, region := b.call("GET", 1); code != 503 || region != "" {
			t.Errorf("nobody there: %d by %q", code, region)
		}
	})
}

func TestRouter_warm_standby(t *testing.T) {
	inBubble(t, 2, WarmStandby, func(b *bubble) {
		if got := b.shares(100); got["eu-1-1"] != 100 {
			t.Fatalf("primary first: %v", got)
		}
		b.regions["eu-1-1"].kill()
		if got := b.shares(100); got["eu-2-1"] != 100 {
			t.Fatalf("primary gone: %v", got)
		}
		b.regions["eu-1-1"].refuses.Store(false)
		time.Sleep(9 * time.Second)
		if got := b.shares(1000); got["eu-1-1"] < 60 || got["eu-1-1"] > 140 {
			t.Fatalf("the primary returns at 10 %%: %v", got)
		}
		time.Sleep(time.Minute)
		if got := b.shares(100); got["eu-1-1"] != 100 {
			t.Fatalf("the primary is back: %v", got)
		}
		if err := b.rt.SetSwitches(Switches{Primary: "eu-2-1"}); err != nil {
			t.Fatal(err)
		}
		if got := b.shares(100); got["eu-2-1"] != 100 {
			t.Fatalf("another primary: %v", got)
		}
		if err := b.rt.SetSwitches(Switches{Mode: ActiveActive}); err != nil {
			t.Fatal(err)
		}
		if got := b.shares(100); got["eu-2-1"] < 30 || got["eu-1-1"] < 30 {
			t.Fatalf("active-active: %v", got)
		}
	})
}

func TestRouter_switches(t *testing.T) {
	inBubble(t, 2, ActiveActive, func(b *bubble) {
		set := func(name string, s SwitchState) error {
			return b.rt.SetSwitches(Switches{Regions: map[string]Switch{name: {State: s}}})
		}
		for _, state := range []SwitchState{Off, Draining} {
			if err := set("eu-2-1", state); err != nil {
				t.Fatal(err)
			}
			if got := b.shares(100); got["eu-1-1"] != 100 {
				t.Fatalf("%s: %v", state, got)
			}
			// Not even when the other cannot be reached.
			b.regions["eu-1-1"].kill()
			if code, region := b.call("GET", 1); code != 503 {
				t.Fatalf("%s, and the other gone: %d by %s", state, code, region)
			}
			b.regions["eu-1-1"].refuses.Store(false)
			time.Sleep(2 * time.Minute)
		}
		if err := set("eu-2-1", On); err != nil {
			t.Fatal(err)
		}
		if rs := b.state("eu-2-1"); rs.State != Returning || rs.Health != 0.1 {
			t.Fatalf("switched on: %+v", rs)
		}
		if err := b.rt.SetSwitches(Switches{Regions: map[string]Switch{"eu-1-1": {Weight: 3}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := b.shares(1000); got["eu-2-1"] < 190 || got["eu-2-1"] > 310 {
			t.Fatalf("weights 3 and 1: %v", got)
		}

		if err := set("eu-1-1", Off); err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]Switches{
			"the last Region off": {Regions: map[string]Switch{"eu-2-1": {State: Off}}},
			"the last draining":   {Regions: map[string]Switch{"eu-2-1": {State: Draining}}},
			"an unknown Region":   {Regions: map[string]Switch{"eu-9-1": {}}},
			"an unknown state":    {Regions: map[string]Switch{"eu-2-1": {State: "half"}}},
			"a negative weight":   {Regions: map[string]Switch{"eu-2-1": {Weight: -1}}},
			"an unknown mode":     {Mode: "both"},
			"an unknown primary":  {Primary: "eu-9-1"},
			"good with bad":       {Mode: WarmStandby, Regions: map[string]Switch{"eu-1-1": {State: On}, "eu-9-1": {}}},
		} {
			if err := b.rt.SetSwitches(bad); err == nil {
				t.Errorf("%s passes", name)
			}
		}
		if s := b.rt.Status(); s.Mode != ActiveActive || s.Regions[0].Switch != Off {
			t.Errorf("a refused change left traces: %+v", s)
		}
	})
}

func TestNew_refuses(t *testing.T) {
	good := Region{Name: "eu-1-1", URL: "https://127.0.0.1:8443"}
	for name, cfg := range map[string]Config{
		"no Region":        {},
		"a Region twice":   {Regions: []Region{good, good}},
		"no name":          {Regions: []Region{{URL: good.URL}}},
		"a blank name":     {Regions: []Region{{Name: "a\nb", URL: good.URL}}},
		"plain HTTP":       {Regions: []Region{{Name: "a", URL: "http://10.0.0.1"}}},
		"a path":           {Regions: []Region{{Name: "a", URL: "https://10.0.0.1/x"}}},
		"a password":       {Regions: []Region{{Name: "a", URL: "https://a:b@10.0.0.1"}}},
		"a scheme":         {Regions: []Region{{Name: "a", URL: "ftp://10.0.0.1"}}},
		"a weight below 0": {Regions: []Region{{Name: "a", URL: good.URL, Weight: -1}}},
		"an unknown mode":  {Regions: []Region{good}, Mode: "x"},
		"a wrong primary":  {Regions: []Region{good}, Primary: "x"},
		"a wrong step":     {Regions: []Region{good}, Health: Health{Steps: []float64{2}}},
		"a limit below 0":  {Regions: []Region{good}, Limits: Limits{AnswerTimeout: -1}},
		"too many":         {Regions: make([]Region, 17)},
	} {
		if _, err := New(cfg, http.DefaultTransport, time.Now, rand.New(rand.NewPCG(1, 2)), slog.New(slog.NewTextHandler(io.Discard, nil))); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
