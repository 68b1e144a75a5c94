package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Config says which Regions there are and how one may be reached.
type Config struct {
	Region string // this one
	Node   string
	Peers  []Peer

	// Caller says which Region a pull comes from, by its certificate.
	Caller func(*http.Request) (region string, err error)
	// Indexes are the index values of a record that two Regions had both changed.
	Indexes func(kind, key string, body []byte) ([]store.Index, error)
	// Merged, when set, is called after each change was merged, in the same update.
	Merged func(*store.Tx, changelog.Change) error
	// Group names the other Regions that must have safety data before a write of
	// it is answered, each with the incarnation of its database, or "" for any; an
	// error is why that is not known. Nil means none.
	Group func() (map[string]string, error)
	// Index is how far this node has applied what the Regions decide together; it is
	// told with each heartbeat. Nil means 0.
	Index func() uint64
	// Late is called when a write has waited for a Region for LateAfter, and again
	// after as long. It must not block. Nil means nobody wants to know.
	Late func(region string)

	Heartbeat time.Duration // default 250 ms
	Timeout   time.Duration // of a peer that neither tells nor reads; default 5 s
	AckMax    time.Duration // that a write waits for the group; default 10 s
	LateAfter time.Duration // default 3 s
	LeaseTime time.Duration // of a peer's pull among a Region's nodes; default 5 s
	Retention time.Duration // of other Regions' facts and of tombstones; default 30 days
	RetryMin  time.Duration // default 100 ms
	RetryMax  time.Duration // default 5 s
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		d *time.Duration
		v time.Duration
	}{
		{&c.Heartbeat, 250 * time.Millisecond},
		{&c.Timeout, 5 * time.Second},
		{&c.AckMax, 10 * time.Second},
		{&c.LateAfter, 3 * time.Second},
		{&c.LeaseTime, 5 * time.Second},
		{&c.Retention, 30 * 24 * time.Hour},
		{&c.RetryMin, 100 * time.Millisecond},
		{&c.RetryMax, 5 * time.Second},
	} {
		if *d.d <= 0 {
			*d.d = d.v
		}
	}
	if c.Indexes == nil {
		c.Indexes = func(string, string, []byte) ([]store.Index, error) { return nil, nil }
	}
	if c.Merged == nil {
		c.Merged = func(*store.Tx, changelog.Change) error { return nil }
	}
	if c.Group == nil {
		c.Group = func() (map[string]string, error) { return nil, nil }
	}
	if c.Index == nil {
		c.Index = func() uint64 { return 0 }
	}
	if c.Late == nil {
		c.Late = func(string) {}
	}
	return c
}

// Peer is another Region.
type Peer struct {
	Region string
	URL    string // of its peer listener, without a path
}

// shipped are the streams that Regions tell each other, the most urgent first.
var shipped = [...]store.Stream{store.Safety, store.Changes, store.Events}

var (
	kindCursor = store.Kind{Name: "replica.cursor", Rule: changelog.RuleLocal}
	// kindConflict keeps what a merge decided between two writes.
	kindConflict = store.Kind{Name: "conflict", Rule: changelog.RuleLocal}
)

// Replica pulls the other Regions' changes and tells them this one's. Make it
// with New, keep Run going, serve Handler; it is safe for concurrent use.
type Replica struct {
	cfg    Config
	store  *store.Store
	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	codec  *codec
	acks   acks

	peers map[string]*peer
}

// New returns a replica over the store. The client presents this Region's
// certificate and speaks HTTP/2; see [Client].
func New(cfg Config, st *store.Store, client *http.Client, now func() time.Time, log *slog.Logger) (*Replica, error) {
	if cfg.Caller == nil {
		return nil, errors.New("replica: nothing says which Region a pull comes from")
	}
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	r := &Replica{
		cfg: cfg.withDefaults(), store: st, client: client, now: now, codec: c,
		log: log.With("component", "replica"), peers: map[string]*peer{},
	}
	r.acks.moved = make(chan struct{})
	for _, p := range cfg.Peers {
		if p.Region == "" || p.Region == cfg.Region || r.peers[p.Region] != nil {
			return nil, fmt.Errorf("replica: peer %q is not another Region, named once", p.Region)
		}
		r.peers[p.Region] = &peer{Peer: p, r: r, at: map[store.Stream]cursor{}, heads: map[store.Stream]int64{}}
	}
	return r, nil
}

// Client returns an HTTP client for talking to peers: HTTP/2 with the given
// certificate and authorities, and a connection that notices a dead peer.
func Client(cfg *tls.Config) *http.Client {
	t := &http.Transport{
		TLSClientConfig: cfg, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, DisableCompression: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 3 * time.Second},
	}
	return &http.Client{Transport: t}
}

// certificateScheme starts the URI by which a certificate names a Region.
const certificateScheme = "everpoint"

// CertificateURI is the URI that a Region's certificate has among its names.
func CertificateURI(region string) *url.URL {
	return &url.URL{Scheme: certificateScheme, Host: "region", Path: "/" + region}
}

// ByCertificate says which Region a request comes from: the one that its verified
// certificate names.
func ByCertificate(req *http.Request) (string, error) {
	if req.TLS == nil || len(req.TLS.VerifiedChains) == 0 {
		return "", errors.New("a certificate of the group is needed")
	}
	for _, u := range req.TLS.VerifiedChains[0][0].URIs {
		if region, ok := strings.CutPrefix(u.Path, "/"); ok && u.Scheme == certificateScheme && u.Host == "region" && region != "" {
			return region, nil
		}
	}
	return "", errors.New("the certificate names no Region")
}

// Run pulls until ctx ends.
func (r *Replica) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, p := range r.peers {
		all.Go(func() { p.run(ctx) })
	}
	all.Go(func() { r.sweep(ctx) })
	all.Wait()
	return nil
}

// Acknowledge returns when every Region of the group has block n of the safety
// stream on disk. It is what [store.Store.Acknowledge] wants.
func (r *Replica) Acknowledge(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.AckMax)
	defer cancel()
	tick := time.NewTicker(r.cfg.Heartbeat) // the group may have changed
	defer tick.Stop()
	late := time.NewTicker(r.cfg.LateAfter)
	defer late.Stop()
	for {
		moved := r.acks.changed() // before the group is looked at
		group, err := r.cfg.Group()
		missing := ""
		if err == nil {
			if missing = r.acks.missing(store.Safety, r.store.Incarnation(), n, group); missing == "" {
				return nil
			}
		}
		select {
		case <-moved:
		case <-tick.C:
		case <-late.C:
			if missing != "" {
				r.cfg.Late(missing)
			}
		case <-ctx.Done():
			if err != nil {
				return aws.Unavailable("written in Region %s; whether the other Regions need to have it is not known: %v", r.cfg.Region, err)
			}
			return aws.Unavailable("written in Region %s, but Region %s has not said in time that it has it", r.cfg.Region, missing)
		}
	}
}

// acks is how far the other Regions say that they have this one's streams.
type acks struct {
	mu    sync.Mutex
	have  map[ackKey]ack
	open  map[ackKey]int // pulls that are being answered
	moved chan struct{}  // closed and replaced when one changes
}

type ackKey struct {
	region string
	stream store.Stream
}

type ack struct {
	as string // the incarnation of the database that has it
	of string // the incarnation of this one whose blocks they are
	n  int64
}

// pulling is one request that is being answered.
type pulling struct {
	key  ackKey
	as   string
	of   string
	told atomic.Int64 // the last block that went out
}

func (a *acks) begin(region string, st store.Stream, as, of string, n int64) *pulling {
	p := &pulling{key: ackKey{region, st}, as: as, of: of}
	p.told.Store(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have == nil {
		a.have, a.open = map[ackKey]ack{}, map[ackKey]int{}
	}
	a.have[p.key] = ack{as, of, n}
	a.open[p.key]++
	a.signal()
	return p
}

func (a *acks) end(p *pulling) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[p.key]--
}

// set notes that the other Region has block n. It reports whether that may be: it
// cannot have what it was not told.
func (a *acks) set(p *pulling, n int64) bool {
	if n > p.told.Load() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if have := a.have[p.key]; have.as == p.as && have.of == p.of && n > have.n {
		have.n = n
		a.have[p.key] = have
		a.signal()
	}
	return true
}

func (a *acks) signal() {
	close(a.moved)
	a.moved = make(chan struct{})
}

// changed returns a channel that is closed when something is said.
func (a *acks) changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.moved
}

// missing returns a Region that has not said that it has block n, at the
// incarnation at which it is asked for.
func (a *acks) missing(st store.Stream, of string, n int64, regions map[string]string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for region, as := range regions {
		if have := a.have[ackKey{region, st}]; have.of != of || have.n < n || as != "" && have.as != as {
			return region
		}
	}
	return ""
}
