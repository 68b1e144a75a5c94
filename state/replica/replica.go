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
	"time"

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
	// MergedAll, when set, is called once for each commit of merged changes, of
	// streams and rows alike, in the same update and after all of them were merged.
	// Like any update's function it may run again.
	MergedAll func(*store.Tx, []changelog.Change) error
	// Group names the other Regions that must have safety data before a write of
	// it is answered, each with the incarnation of its database, or "" for any; an
	// error is why that is not known. Nil means none.
	Group func() (map[string]string, error)
	// Index is how far this node has applied what the Regions decide together; it is
	// told with each heartbeat. Nil means 0.
	Index func() uint64
	// Member is the epoch of a Region's stay in the set, as far as this node knows,
	// and 0 for one that is out of it. It is told with each acknowledgement to that
	// Region. Nil means 0, and that there is no in-sync set.
	Member func(region string) uint64
	// Voice says which of the Region's nodes pulls from the others, answers their
	// pulls and judges what they acknowledge. Nil: every node answers and judges by
	// what it was told itself, and one at a time pulls.
	Voice Voice
	// Colleague fails for a request that does not come from this Region's own nodes.
	// Nil: nobody is one.
	Colleague func(*http.Request) error
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
	if c.MergedAll == nil {
		c.MergedAll = func(*store.Tx, []changelog.Change) error { return nil }
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

// Voice says which node speaks for its Region; see [quorum.Quorum.Speaks].
type Voice interface {
	// Speaks reports whether this node does, and since which generation.
	Speaks() (generation uint64, ok bool)
	// Confirm fails when another node has begun to speak since the generation.
	Confirm(ctx context.Context, generation uint64) error
	// Speaker is the base URL of the other node that does; empty when none is known.
	Speaker() string
	// Route is the base URL from which another Region's voice was last heard; empty
	// for that of Peers.
	Route(region string) string
	// Wait returns when what the Regions decided after an index is applied here.
	Wait(ctx context.Context, index uint64) error
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

	mu     sync.Mutex
	merged chan struct{} // closed and replaced when a peer's cursor moves
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
	r.acks.moved, r.merged = make(chan struct{}), make(chan struct{})
	for _, p := range cfg.Peers {
		if p.Region == "" || p.Region == cfg.Region || r.peers[p.Region] != nil {
			return nil, fmt.Errorf("replica: peer %q is not another Region, named once", p.Region)
		}
		r.peers[p.Region] = &peer{Peer: p, r: r, calls: make(chan struct{}, 1), at: map[store.Stream]cursor{}, heads: map[store.Stream]int64{}}
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
