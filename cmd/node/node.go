package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/account/tags"
	"github.com/everpoint/everpoint/api/cloudtrail"
	"github.com/everpoint/everpoint/api/cloudwatch"
	"github.com/everpoint/everpoint/api/cognitoidentity"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/iam"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/api/pinpointemail"
	"github.com/everpoint/everpoint/api/smsvoice"
	"github.com/everpoint/everpoint/api/smsvoicev2"
	"github.com/everpoint/everpoint/api/sts"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/door"
	"github.com/everpoint/everpoint/insight/events"
	"github.com/everpoint/everpoint/outreach/campaigns"
	"github.com/everpoint/everpoint/outreach/messages"
	"github.com/everpoint/everpoint/senders/channels"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

// World is what a simulation replaces; its zero value is the real one.
type World struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random seeds identifiers; nil means crypto/rand.
	Random io.Reader
	// Chance decides about jitter; nil means a seed of its own.
	Chance *mathrand.Rand
	// Dial opens every connection to a carrier; nil means the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialPeer opens every connection to another Region or the witness; nil means the
	// network.
	DialPeer func(ctx context.Context, network, addr string) (net.Conn, error)
	// Peers wraps what carries calls to the other Regions and the witness; nil means
	// that nothing is between.
	Peers func(http.RoundTripper) http.RoundTripper
	// Listen opens what the other Regions call; nil means the network.
	Listen func(ctx context.Context, network, addr string) (net.Listener, error)
	// Fault fails the store's commit points; see store.Config.
	Fault func(point string) error
	// Duty wraps what says what this Region may send; nil: nothing is between.
	Duty func(group.Duty) group.Duty
	// Tune changes delivery's settings.
	Tune func(*delivery.Config)
	// NoDoor leaves the door unopened: requests come through its Handler.
	NoDoor bool
}

func (w World) withDefaults() World {
	if w.Now == nil {
		w.Now = time.Now
	}
	if w.Random == nil {
		w.Random = rand.Reader
	}
	if w.Chance == nil {
		w.Chance = mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), uint64(os.Getpid())))
	}
	if w.Dial == nil {
		w.Dial = new(net.Dialer).DialContext
	}
	if w.Listen == nil {
		w.Listen = new(net.ListenConfig).Listen
	}
	return w
}

// peers returns a client that calls the other Regions with a certificate.
func (w World) peers(certificates *tls.Config) *http.Client {
	c := replica.Client(certificates)
	if t, ok := c.Transport.(*http.Transport); ok && w.DialPeer != nil {
		t.DialContext = w.DialPeer
	}
	if w.Peers != nil {
		c.Transport = w.Peers(c.Transport)
	}
	return c
}

// chance makes a room's own source: it is not safe for several at once.
func (w World) chance() *mathrand.Rand {
	return mathrand.New(mathrand.NewPCG(w.Chance.Uint64(), w.Chance.Uint64()))
}

// Node is an assembled node. Make it with New, then Run it once.
type Node struct {
	Config   *Config
	Store    *store.Store
	Queue    *queue.Queue
	Index    *segments.Index
	Delivery *delivery.Service
	Door     *door.Door
	Mux      *wire.Mux
	Replica  *replica.Replica // nil when the Region is alone
	Quorum   *quorum.Quorum   // nil where the Regions do not vote
	Duty     group.Duty

	// merged hears of each commit of what other Regions changed, in its update. Rooms
	// add theirs in assemble; see [replica.Config.MergedAll].
	merged  []func(*store.Tx, []changelog.Change) error
	control *control // nil as Quorum
	log     *slog.Logger
	started time.Time
	now     func() time.Time
	// floors lists what runs, from the ground up; a floor stops before the one
	// below it.
	floors [][]runner
}

type runner struct {
	name string
	run  func(ctx context.Context) error
}

// tokenKey is what page tokens are signed with: the same on every node of a
// Region, made from its hashing keyset.
func tokenKey(st *store.Store) []byte {
	return []byte(st.Blind("page-tokens", "1") + st.Blind("page-tokens", "2"))
}

// New assembles a node. It opens the database and binds nothing else.
func New(ctx context.Context, cfg *Config, world World, log *slog.Logger) (*Node, error) {
	w := world.withDefaults()
	keys, err := store.LoadKeys(cfg.KeysDir)
	if err != nil {
		return nil, fmt.Errorf("load keys: %w", err)
	}
	postgres, err := secret(cfg.PostgresURLFile)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, store.Config{
		Dir: cfg.Dir, PostgresURL: postgres, Region: cfg.Region, Fault: w.Fault,
	}, keys, w.Now, log)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	n := &Node{Config: cfg, Store: st, log: log, started: w.Now(), now: w.Now}
	if err := n.assemble(w); err != nil {
		// Run closes the store; nobody will.
		ended, cancel := context.WithCancel(ctx)
		cancel()
		return nil, errors.Join(err, st.Run(ended))
	}
	return n, nil
}

// Services are the APIs that a node answers.
func Services() []*wire.Service {
	return []*wire.Service{
		pinpoint.Service, smsvoicev2.Service, smsvoice.Service, pinpointemail.Service, everpoint.Service,
		iam.Service, sts.Service, cloudtrail.Service, cloudwatch.Service, cognitoidentity.Service,
	}
}

func (n *Node) assemble(w World) error {
	cfg, st, log := n.Config, n.Store, n.log
	ids := aws.NewIDs(w.Random)
	tokens := wire.NewTokens(tokenKey(st), w.Now)
	n.Mux = wire.NewMux(Services()...)
	n.Mux.Log = log

	// Floor 1: work and facts.
	n.Queue = queue.New(queue.Config{Node: cfg.Node}, st, w.Now, w.chance(), log)
	facts := eventlog.New(eventlog.Config{Node: cfg.Node}, st, w.Now, log)

	// Floors 2 and 3: whose it is; whom, what, and from where.
	appRoom := apps.New(apps.Config{}, st, tokens, ids, w.Now, log)
	endpointRoom := endpoints.New(endpoints.Config{}, st, tokens, ids, w.Now, log)
	n.Index = segments.NewIndex(st, log)
	segmentRoom := segments.New(st, n.Index, segments.AppsFunc(apps.Exists), ids, tokens, w.Now)
	reading, err := cfg.imports()
	if err != nil {
		return err
	}
	if cfg.Group != nil && cfg.Group.votes() {
		reading.Leads = n.leads
	}
	imports := endpoints.NewImports(reading, endpointRoom, segmentRoom, log)
	templateRoom := templates.New(st, ids, tokens, w.Now)
	channelRoom := channels.New(cfg.channels(), st, w.Now)

	// What the Regions do together: who of them may send is asked from here on.
	peers, err := n.group(w, appRoom)
	if err != nil {
		return fmt.Errorf("group: %w", err)
	}
	if w.Duty != nil {
		n.Duty = w.Duty(n.Duty)
	}

	// Floor 4: the one way out.
	heard := &hearing{}
	routes, carriers, err := n.couriers(w, heard)
	if err != nil {
		return err
	}
	tuning := delivery.Config{Node: cfg.Node, Numbers: cfg.numbers(), Senders: cfg.senders()}
	if w.Tune != nil {
		w.Tune(&tuning)
	}
	n.Delivery = delivery.New(tuning, st, n.Queue, n.Duty, n.told(), routes, w.Now, w.chance(), log)
	heard.to.Store(n.Delivery)
	n.Delivery.Mount()

	// Floor 5: who decides to speak, and who tells what happened.
	campaignRoom := campaigns.New(campaigns.Config{}, st, n.Queue, n.Delivery, n.Duty, n.Index, segments.Load, tokens, ids, w.Now, log)
	n.merged = append(n.merged, n.Delivery.Merged, campaignRoom.Merged)
	var orders []runner
	if n.Quorum != nil {
		appRoom.Orders(n.Quorum)
		campaignRoom.Orders(n.Quorum)
		orders = append(orders, runner{"stops", (&stops{n, appRoom, campaignRoom}).Run})
	}
	tagRoom := tags.New(tags.Config{Regions: cfg.Door.RegionsAccepted}, st, tagOwners()...)
	messageRoom := messages.New(st, n.Delivery, ids, w.Now, log)
	eventRoom := events.New(events.Config{}, st, endpointRoom, w.Now, log)
	if cfg.Events.Dir != "" {
		events.NewFiles(events.FilesConfig{Dir: cfg.Events.Dir, AllApps: cfg.Events.AllApps}, st, w.Now, log).Register(facts)
	}

	for _, room := range []interface{ Mount(*wire.Mux) }{
		appRoom, endpointRoom, segmentRoom, imports, templateRoom, channelRoom, campaignRoom, messageRoom, eventRoom,
		tagRoom, &administration{n, tokens},
	} {
		room.Mount(n.Mux)
	}
	for _, contents := range [][]apps.Content{
		endpoints.Contents(), endpoints.ImportContents(), segments.Contents(), channels.Contents(), campaigns.Contents(),
		messages.Contents(), events.Contents(),
	} {
		appRoom.Contains(contents...)
	}

	// Floor 6: the street side.
	keys, err := cfg.accessKeys()
	if err != nil {
		return err
	}
	d := cfg.Door
	street := door.Config{
		Listen: d.Listen, CertFile: d.CertFile, KeyFile: d.KeyFile, PlainLoopback: d.PlainLoopback, Region: cfg.Region,
		RegionsAccepted: d.RegionsAccepted, Hosts: d.Hosts, RequestsMax: d.RequestsMax, Ready: n.ready, Now: w.Now,
	}
	if n.control != nil {
		street.Control, street.ControlTransport = n.control, n.control.transport
	}
	n.Door, err = door.New(street, n.Mux, keys, keys, recorder{log.With("component", "audit")}, ids, log)
	if err != nil {
		return fmt.Errorf("door: %w", err)
	}
	n.Door.Handle(switchesPath, http.HandlerFunc(n.switches))

	n.floors = [][]runner{
		{{"store", st.Run}, {"collector", tuneCollector}},
		carriers,
		{{"audience index", n.Index.Run}},
		peers,
		n.lease(),
		append(orders, []runner{
			{"queue", n.Queue.Run},
			{"delivery", n.Delivery.Run},
			{"imports", imports.Run},
			{"apps", appRoom.Run},
			{"endpoints", endpointRoom.Run},
			{"events", eventRoom.Run},
			{"eventlog", facts.Run},
		}...),
	}
	if cfg.Admin != "" {
		n.floors = append(n.floors, []runner{{"page", newPage(n).Run}})
	}
	if !w.NoDoor {
		n.floors = append(n.floors, []runner{{"door", n.Door.Run}})
	}
	return nil
}

// ready says whether the node can serve: the audience index has caught up.
func (n *Node) ready(context.Context) error {
	if !n.Index.Ready() {
		return errors.New("the audience index is loading")
	}
	return nil
}

// Run runs the node until ctx ends, then stops it from the top floor down. It
// returns the first error of a part that ended by itself.
func (n *Node) Run(ctx context.Context) error {
	failed := make(chan error, 16)
	stops := make([]func(), len(n.floors))
	for i, floor := range n.floors {
		running, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var done sync.WaitGroup
		for _, r := range floor {
			done.Go(func() {
				err := r.run(running)
				if running.Err() == nil {
					failed <- fmt.Errorf("%s ended: %w", r.name, errors.Join(err, errEnded))
				} else if err != nil && !errors.Is(err, context.Canceled) {
					n.log.Error("part did not stop cleanly", "part", r.name, "error", err)
				}
			})
		}
		stops[i] = func() {
			cancel()
			done.Wait()
		}
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	return err
}

var errEnded = errors.New("it should run as long as the node")

// recorder writes the audit record of each request to the log. Reads are told
// at debug level: they are many.
type recorder struct{ log *slog.Logger }

// Record writes one record.
func (r recorder) Record(ctx context.Context, rec door.Record) {
	level := slog.LevelDebug
	if rec.Status >= http.StatusBadRequest {
		level = slog.LevelInfo
	}
	r.log.Log(ctx, level, "request", "request_id", rec.RequestID, "account", rec.Account, "principal", rec.Principal,
		"action", rec.Action, "resource", rec.Resource, "source", rec.SourceIP.String(), "status", rec.Status,
		"error_code", rec.ErrorCode, "forwarded_to", rec.ForwardedTo, "forwarded_by", rec.ForwardedBy, "duration_us", rec.Duration.Microseconds())
}
