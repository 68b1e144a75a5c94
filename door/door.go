package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/aws/wire"
)

// Config holds the door's settings. Region is required; every other zero value
// is a working default.
type Config struct {
	// Listen is the address to serve on, "host:port". Empty means that Run is
	// not used, and the Handler serves elsewhere.
	Listen string

	// CertFile and KeyFile name the PEM files of the TLS certificate (with its
	// chain) and its key. They are read again when either file's modification
	// time changes.
	CertFile, KeyFile string

	// PlainLoopback serves plain HTTP instead of TLS; Listen must then be a
	// loopback address.
	PlainLoopback bool

	// Region is the one that processes the requests.
	Region string

	// RegionsAccepted lists further Regions that a signature may be scoped to,
	// such as those of the group. Empty means only Region.
	RegionsAccepted []string

	// Hosts lists additional host names whose signatures are accepted for the
	// Region in the name, such as pinpoint.us-east-1.amazonaws.com, for clients
	// that cannot be pointed elsewhere but by DNS.
	Hosts []string

	// TrustedProxies are the peers whose X-Forwarded-For is believed. Empty means
	// none: the source of a request is its peer.
	TrustedProxies []netip.Prefix

	// AllowUnsignedPayload accepts the payload hash UNSIGNED-PAYLOAD over TLS.
	AllowUnsignedPayload bool

	// SigningKeysMax bounds the derived signing keys in memory; 0 means 4096.
	SigningKeysMax int

	// BodyBytesMax bounds one request body, as sent and after decompression; 0
	// means 7 MB (7,340,032 bytes).
	BodyBytesMax int64

	// BodiesBytesMax bounds the bodies of all requests together, in memory; 0
	// means 256 MiB.
	BodiesBytesMax int64

	// BodyTimeout is how long a body may take to arrive; 0 means 30 s.
	BodyTimeout time.Duration

	// RequestsMax bounds the requests in progress; 0 means 512. One more is
	// answered 503 with Retry-After.
	RequestsMax int

	// ConnectionsMax bounds the open connections; 0 means 4096. More wait to be
	// accepted.
	ConnectionsMax int

	// StreamsMax bounds the concurrent HTTP/2 streams of one connection; 0 means
	// 128.
	StreamsMax int

	// HeaderBytesMax bounds request line and headers; 0 means 64 KiB.
	HeaderBytesMax int

	// HeaderTimeout is how long headers may take to arrive; 0 means 10 s.
	HeaderTimeout time.Duration

	// IdleTimeout is how long a connection may wait for its next request; 0
	// means 120 s.
	IdleTimeout time.Duration

	// OperationTimeout is when the context of an operation ends; 0 means 60 s.
	OperationTimeout time.Duration

	// WriteTimeout is how long a response may take to leave; 0 means 30 s.
	WriteTimeout time.Duration

	// DrainTimeout is how long Run waits for requests in progress when it is
	// told to stop; 0 means 20 s.
	DrainTimeout time.Duration

	// Control says where control-plane calls are served. Nil means that this
	// Region is alone and serves everything.
	Control Control

	// ControlTransport carries calls to the control Region: by mutual TLS, since
	// its peers' listener takes them from Regions only. Required with Control.
	ControlTransport http.RoundTripper

	// ControlPatience is how long a call waits for control to move, when nobody has
	// it or the Region that has it cannot be reached and nothing was sent; 0 means 5 s,
	// negative not at all.
	ControlPatience time.Duration
	// ControlTimeout is how long the control Region may take to answer; shorter
	// than OperationTimeout. 0 means three quarters of that.
	ControlTimeout time.Duration

	// OrderAfter is how long a call that stops something may go unanswered before the
	// stop is ordered beside it, where the mux has an order for it; 0 means 500 ms.
	OrderAfter time.Duration

	// ForwardsMax bounds the calls that wait for the control Region, so that the
	// data plane goes on when it hangs; 0 means a quarter of RequestsMax. One more
	// is answered 503.
	ForwardsMax int

	// Ready says whether the process can serve; nil means always. Its error's
	// text is shown at /readyz.
	Ready func(context.Context) error

	// Now is the clock that signatures and the Date header go by; nil means
	// time.Now.
	Now func() time.Time
}

// Identity is who an access key stands for.
type Identity struct {
	Secret    sigv4.Secret
	Account   string // 12 digits
	Principal string // ARN of the user, session or root
}

// Authenticator knows the access keys.
type Authenticator interface {
	// Identity returns the holder of an active key. The session token is empty if
	// none was sent. It fails as [sigv4.Keys] says.
	Identity(ctx context.Context, accessKeyID string, sessionToken sigv4.SecretKey) (Identity, error)
}

// Authorizer decides who may do what.
type Authorizer interface {
	// Allow returns nil if the caller may perform the action
	// ("mobiletargeting:GetApp") on the resource (an ARN, or "*"), and the fault
	// to answer with otherwise; see [Denied].
	Allow(ctx context.Context, caller aws.Caller, action, resource string) error
}

// Denied returns the fault for what no policy allows. Source: access 1.9.
func Denied(caller aws.Caller, action, resource string) *aws.Fault {
	text := "User: " + caller.Principal + " is not authorized to perform: " + action
	if resource != "*" {
		text += " on resource: " + resource
	}
	return aws.Denied("%s", text)
}

// A Door serves the operations of a mux. Handle must not be called once it
// serves; otherwise it is safe for concurrent use.
type Door struct {
	cfg      Config
	mux      *wire.Mux
	auth     Authenticator
	authz    Authorizer
	audit    Recorder
	ids      *aws.IDs
	log      *slog.Logger
	verifier *sigv4.Verifier

	regions     map[string]bool   // accepted from everybody
	hosts       map[string]string // additional host names and their Regions
	services    []string          // every signing name, for requests that name no operation
	plain       map[string]http.Handler
	slots       chan struct{} // one per request in progress
	forwards    chan struct{} // one per call that waits for the control Region
	inside      sync.RWMutex  // read-held by every request
	bodiesBytes atomic.Int64  // held by all bodies
	draining    atomic.Bool
	listener    listener
}

// New returns a door that does not listen yet. It fails on settings that cannot
// work or would be unsafe.
func New(cfg Config, mux *wire.Mux, auth Authenticator, authz Authorizer, audit Recorder, ids *aws.IDs, log *slog.Logger) (*Door, error) {
	if mux == nil || auth == nil || authz == nil || audit == nil || ids == nil || log == nil {
		return nil, errors.New("door: a dependency is missing")
	}
	if regionIn(cfg.Region) != cfg.Region || cfg.Region == "" {
		return nil, fmt.Errorf("door: region %q is not like us-east-1", cfg.Region)
	}
	or(&cfg.BodyBytesMax, 7<<20)
	or(&cfg.BodiesBytesMax, 256<<20)
	or(&cfg.BodyTimeout, 30*time.Second)
	or(&cfg.RequestsMax, 512)
	or(&cfg.ConnectionsMax, 4096)
	or(&cfg.StreamsMax, 128)
	or(&cfg.HeaderBytesMax, 64<<10)
	or(&cfg.HeaderTimeout, 10*time.Second)
	or(&cfg.IdleTimeout, 120*time.Second)
	or(&cfg.OperationTimeout, 60*time.Second)
	or(&cfg.WriteTimeout, 30*time.Second)
	or(&cfg.DrainTimeout, 20*time.Second)
	if err := settleControl(&cfg); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context) error { return nil }
	}
	d := &Door{
		cfg: cfg, mux: mux, auth: auth, authz: authz, audit: audit, ids: ids,
		log: log.With("component", "door"),
		verifier: sigv4.NewVerifier(sigv4.Config{
			SigningKeysMax: cfg.SigningKeysMax, AllowUnsignedPayload: cfg.AllowUnsignedPayload,
		}),
		regions: map[string]bool{cfg.Region: true},
		hosts:   map[string]string{},
		plain:   map[string]http.Handler{},
		slots:   make(chan struct{}, cfg.RequestsMax), forwards: make(chan struct{}, cfg.ForwardsMax),
	}
	for _, region := range cfg.RegionsAccepted {
		d.regions[region] = true
	}
	for _, host := range cfg.Hosts {
		region := regionIn(host)
		if region == "" {
			return nil, fmt.Errorf("door: host name %q holds no Region, as pinpoint.us-east-1.amazonaws.com does", host)
		}
		d.hosts[strings.ToLower(host)] = region
	}
	for _, s := range mux.Services() {
		d.services = append(d.services, s.SigningName)
	}
	if err := d.checkListen(); err != nil {
		return nil, err
	}
	d.Handle("/healthz", http.HandlerFunc(d.healthy))
	d.Handle("/readyz", http.HandlerFunc(d.ready))
	return d, nil
}

func or[T comparable](setting *T, otherwise T) {
	var zero T
	if *setting == zero {
		*setting = otherwise
	}
}

// Handle serves a path outside the APIs, unauthenticated: exactly this path, or
// everything below it if it ends in a slash. The handler bounds itself; only
// connections and headers are bounded for it, and its response must leave
// within the door's time-outs unless it extends the deadline.
func (d *Door) Handle(path string, h http.Handler) { d.plain[path] = h }

// Handler returns the whole door as a handler, for tests and for simulations
// that bring their own connections.
func (d *Door) Handler() http.Handler { return http.HandlerFunc(d.serve) }

func (d *Door) serve(w http.ResponseWriter, r *http.Request) {
	// Like setReadDeadline.
	_ = http.NewResponseController(w).SetWriteDeadline(
		time.Now().Add(d.cfg.BodyTimeout + d.cfg.OperationTimeout + d.cfg.WriteTimeout))
	if h := d.plainHandler(r.URL.Path); h != nil {
		h.ServeHTTP(w, r)
		if hasBody(r) { // the server reads what the handler did not
			setReadDeadline(w, time.Now().Add(lingerTimeout))
		}
		return
	}
	d.answer(w, r, nil)
}

// plainHandler finds the handler mounted on the path, or on the longest folder
// above it.
func (d *Door) plainHandler(path string) http.Handler {
	if h := d.plain[path]; h != nil {
		return h
	}
	for i := strings.LastIndexByte(path, '/'); i >= 0; i = strings.LastIndexByte(path[:i], '/') {
		if h := d.plain[path[:i+1]]; h != nil {
			return h
		}
	}
	return nil
}

func (d *Door) healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

func (d *Door) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), d.cfg.OperationTimeout)
	defer cancel()
	err := d.cfg.Ready(ctx)
	if d.draining.Load() {
		err = errors.New("shutting down")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("not ready: " + err.Error() + "\n"))
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}
