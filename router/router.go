package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

// Mode says how the Regions share the requests.
type Mode string

// The modes of a group. Source: design 2, group.
const (
	ActiveActive Mode = "active-active" // every Region takes its share by weight
	WarmStandby  Mode = "warm-standby"  // the primary takes all; the others when it cannot
)

// regionsMax bounds the Regions of a group.
const regionsMax = 16

// Config holds the router's settings. Regions is required; every other zero
// value is a working default.
type Config struct {
	// Regions are the Regions of the group, 1 to 16 of them.
	Regions []Region

	// Mode is how they share the requests; empty means active-active.
	Mode Mode

	// Primary names the Region that takes all requests in warm-standby; empty
	// means the first.
	Primary string

	Health Health // how a Region is judged
	Limits Limits // what a request may take

	// Remembered says whether the Regions would answer a repetition of this call
	// as they answered the first, instead of executing it again. It is asked about
	// POST calls that carry an amz-sdk-invocation-id. Nil: none would; see [Remembers].
	Remembered func(Call) bool
}

// A Region is where requests can go.
type Region struct {
	Name string // as us-east-1; told to clients in Everpoint-Region
	URL  string // scheme and host of its door; plain HTTP on loopback addresses only

	// Weight is its share relative to the others; 0 means 1.
	Weight float64
}

// Limits bound what requests may take of the router.
type Limits struct {
	// RequestsMax bounds the requests in progress; 0 means 1024. One more is
	// answered 503 with Retry-After.
	RequestsMax int

	// RegionRequestsMax bounds those in progress in one Region, so that one which
	// hangs does not hold all; 0 means three quarters of RequestsMax.
	RegionRequestsMax int

	// HeaderBytesMax bounds request line and headers; 0 means 64 KiB.
	HeaderBytesMax int

	// BodyBytesMax bounds a request's body; 0 means 64 MiB.
	BodyBytesMax int64

	// ReplayBytesMax bounds a body that is kept so that it can be sent again; 0
	// means 1 MiB. Longer ones, and those of unknown length, are streamed, and
	// their requests are never sent twice.
	ReplayBytesMax int64

	// ReplaysBytesMax bounds all kept bodies together; 0 means 64 MiB. Beyond it
	// bodies are streamed.
	ReplaysBytesMax int64

	// BodyTimeout is how long a kept body may take to arrive, and how long a
	// streamed one may stand still; 0 means 30 s.
	BodyTimeout time.Duration

	// AnswerTimeout is how long the Regions together may take to begin their
	// answer; 0 means 90 s. A streamed body extends it as it moves.
	AnswerTimeout time.Duration

	// StreamTimeout is how long an answer may stand still on its way, on either
	// side; 0 means 30 s.
	StreamTimeout time.Duration

	// RequestTimeout is how long a request may take in all; 0 means 5 min.
	RequestTimeout time.Duration

	// HeaderTimeout is how long headers may take to arrive; 0 means 10 s.
	HeaderTimeout time.Duration

	// IdleTimeout is how long a client's connection may wait for its next request;
	// 0 means 120 s.
	IdleTimeout time.Duration

	// StreamsMax bounds the concurrent HTTP/2 streams of one connection; 0 means
	// 128.
	StreamsMax int
}

// A Router spreads requests over Regions. It is safe for concurrent use.
type Router struct {
	cfg     Config
	behind  http.RoundTripper
	now     func() time.Time
	log     *slog.Logger
	started time.Time
	mux     *wire.Mux // without services: it knows how each protocol words a refusal
	ids     *aws.IDs
	buffers buffers

	regions []*region
	view    atomic.Pointer[view] // what requests go by
	turn    atomic.Uint64        // counts calls that go in turn

	inFlight  atomic.Int64
	refusals  atomic.Uint64 // answered 503 because the router was full
	retries   atomic.Uint64
	abandoned atomic.Uint64 // clients that left before their answer

	hearing sync.Mutex // held while switches that were heard are taken over; before mu

	mu       sync.Mutex // guards what follows, and the order of views
	switches Switches   // complete: every Region has an entry
	heard    heard      // where they come from
	chance   *rand.Rand
}

// New returns a router that checks nobody's health yet; see [Router.Run].
//
// What goes to the Regions goes through behind, which should be made by
// [NewTransport], or at least tell package httptrace when it asks for a
// connection and when it has one: a request is believed not to have reached a
// Region only if behind said so. New fails on settings that cannot work.
func New(cfg Config, behind http.RoundTripper, now func() time.Time, chance *rand.Rand, log *slog.Logger) (*Router, error) {
	if behind == nil || now == nil || chance == nil || log == nil {
		return nil, errors.New("router: a dependency is missing")
	}
	if n := len(cfg.Regions); n < 1 || n > regionsMax {
		return nil, fmt.Errorf("router: %d Regions: 1 to %d are possible", n, regionsMax)
	}
	or(&cfg.Mode, ActiveActive)
	or(&cfg.Primary, cfg.Regions[0].Name)
	cfg.Limits.settle()
	if err := cfg.Limits.check(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	if err := cfg.Health.settle(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	rt := &Router{cfg: cfg, behind: behind, now: now, log: log.With("component", "router"), started: now(), mux: wire.NewMux()}
	rt.chance = chance
	rt.ids = aws.NewIDs(&dice{rt: rt})
	rt.turn.Store(chance.Uint64())
	rt.buffers.bytesMax = cfg.Limits.ReplaysBytesMax
	rt.switches.Regions = map[string]Switch{}
	rt.cfg.Regions = slices.Clone(cfg.Regions)
	for i := range rt.cfg.Regions {
		r := &rt.cfg.Regions[i]
		base, err := r.check()
		if err != nil {
			return nil, fmt.Errorf("router: Region %q: %w", r.Name, err)
		}
		if _, twice := rt.switches.Regions[r.Name]; twice {
			return nil, fmt.Errorf("router: Region %q: named twice", r.Name)
		}
		or(&r.Weight, 1)
		rt.regions = append(rt.regions, newRegion(i, *r, base, &rt.cfg, rt.started))
		rt.switches.Regions[r.Name] = Switch{State: On, Weight: r.Weight}
	}
	if err := rt.SetSwitches(Switches{Mode: cfg.Mode, Primary: cfg.Primary}); err != nil {
		return nil, err
	}
	return rt, nil
}

// check returns the URL of a Region whose settings can work.
func (r Region) check() (*url.URL, error) {
	if r.Name == "" || len(r.Name) > 64 {
		return nil, errors.New("the name must have 1 to 64 characters")
	}
	for _, c := range []byte(r.Name) {
		if c <= ' ' || c > '~' {
			return nil, errors.New("the name must be printable ASCII without blanks")
		}
	}
	if !(r.Weight >= 0 && r.Weight <= weightMax) {
		return nil, fmt.Errorf("weight %g is not from 0 to %g", r.Weight, float64(weightMax))
	}
	base, err := url.Parse(r.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("URL: %w", err)
	case base.Host == "" || base.Opaque != "" || base.User != nil || base.RawQuery != "" || base.Path != "" && base.Path != "/":
		return nil, fmt.Errorf("URL %q must be a scheme and a host, as https://10.0.0.1:8443", base.Redacted())
	case base.Scheme == "https":
		return base, nil
	case base.Scheme != "http":
		return nil, fmt.Errorf("URL %q: the scheme must be https", base.Redacted())
	}
	if ip := net.ParseIP(base.Hostname()); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("URL %q: plain HTTP is for loopback addresses only", base.Redacted())
	}
	return base, nil
}

func (l *Limits) settle() {
	or(&l.RequestsMax, 1024)
	or(&l.RegionRequestsMax, max(1, l.RequestsMax*3/4))
	or(&l.HeaderBytesMax, 64<<10)
	or(&l.BodyBytesMax, 64<<20)
	or(&l.ReplayBytesMax, 1<<20)
	or(&l.ReplaysBytesMax, 64<<20)
	or(&l.BodyTimeout, 30*time.Second)
	or(&l.AnswerTimeout, 90*time.Second)
	or(&l.StreamTimeout, 30*time.Second)
	or(&l.RequestTimeout, 5*time.Minute)
	or(&l.HeaderTimeout, 10*time.Second)
	or(&l.IdleTimeout, 120*time.Second)
	or(&l.StreamsMax, 128)
}

// check refuses limits below 0, by which nothing could pass.
func (l *Limits) check() error {
	for name, n := range map[string]int64{
		"RequestsMax": int64(l.RequestsMax), "RegionRequestsMax": int64(l.RegionRequestsMax), "HeaderBytesMax": int64(l.HeaderBytesMax),
		"BodyBytesMax": l.BodyBytesMax, "ReplayBytesMax": l.ReplayBytesMax, "ReplaysBytesMax": l.ReplaysBytesMax, "StreamsMax": int64(l.StreamsMax),
		"BodyTimeout": int64(l.BodyTimeout), "AnswerTimeout": int64(l.AnswerTimeout), "StreamTimeout": int64(l.StreamTimeout),
		"RequestTimeout": int64(l.RequestTimeout), "HeaderTimeout": int64(l.HeaderTimeout), "IdleTimeout": int64(l.IdleTimeout),
	} {
		if n < 0 {
			return fmt.Errorf("limits: %s is below 0", name)
		}
	}
	return nil
}

func or[T comparable](setting *T, otherwise T) {
	var zero T
	if *setting == zero {
		*setting = otherwise
	}
}

// dice makes bytes of the router's chance, for request ids.
type dice struct{ rt *Router }

var _ io.Reader = (*dice)(nil)

func (d *dice) Read(p []byte) (int, error) {
	d.rt.mu.Lock()
	defer d.rt.mu.Unlock()
	for i := range p {
		p[i] = byte(d.rt.chance.Uint32())
	}
	return len(p), nil
}

// Run checks the Regions' health and hears of their switches until ctx ends, and
// returns when all is quiet. Without it a Region that is diverted from never
// returns.
func (rt *Router) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, reg := range rt.regions {
		all.Go(func() { rt.every(ctx, reg, rt.checkOnce) })
		all.Go(func() { rt.every(ctx, reg, rt.hear) })
	}
	all.Wait()
	return nil
}
