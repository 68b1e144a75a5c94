package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/door"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// group joins the node to the other Regions: it returns what pulls from them and
// what answers their pulls. It sets Duty.
func (n *Node) group(w World, appRoom *apps.Service) ([]runner, error) {
	g := n.Config.Group
	n.Duty = group.Alone(n.Config.Region)
	if g == nil {
		return nil, nil
	}
	certificates, err := peerTLS(g.CAFile, g.CertFile, g.KeyFile)
	if err != nil {
		return nil, err
	}
	cfg := replica.Config{
		Region: n.Config.Region, Node: n.Config.Node, Indexes: endpoints.Indexes,
		Merged: func(tx *store.Tx, c changelog.Change) error { return appRoom.Merged(tx, c.Kind, c.Key, c.Body) },
		MergedAll: func(tx *store.Tx, changes []changelog.Change) error {
			for _, hear := range n.merged {
				if err := hear(tx, changes); err != nil {
					return err
				}
			}
			return nil
		},
	}
	var names []string
	for _, p := range g.Peers {
		cfg.Peers = append(cfg.Peers, replica.Peer{Region: p.Region, URL: p.URL})
		names = append(names, p.Region)
	}
	cfg.Caller = func(req *http.Request) (string, error) {
		region, err := replica.ByCertificate(req)
		if err == nil && !slices.Contains(names, region) {
			err = fmt.Errorf("region %s is not of this group", region)
		}
		return region, err
	}
	var parts []runner
	mux := http.NewServeMux()
	switch {
	case g.votes():
		voters := g.voters(n.Config.Region)
		n.Quorum, err = quorum.New(quorum.Config{
			Name: n.Config.Region, Node: n.Config.Node, URL: n.Config.nodeURL(), Peers: voters, Founder: g.Founder,
		}, n.Store, w.peers(certificates), w.Now, w.chance(), n.log)
		if err != nil {
			return nil, err
		}
		place := group.New(group.Config{Region: n.Config.Region}, n.Store, n.Quorum, w.Now, n.log)
		cfg.Group, cfg.Index, cfg.Late, cfg.Member = place.Together, place.Index, place.Late, place.Member
		cfg.Voice, cfg.Colleague = n.Quorum, n.colleague
		if n.Replica, err = n.replica(cfg, w, certificates); err != nil {
			return nil, err
		}
		place.Follow(n.Replica)
		n.Duty = place
		n.control = &control{region: n.Config.Region, urls: voters, quorum: n.Quorum, transport: w.peers(certificates).Transport}
		n.Store.Control(n.control.epoch)
		mux.Handle(quorum.Path, known(voters, n.Quorum.Handler()))
		parts = append(parts, runner{"quorum", n.Quorum.Run}, runner{"group", place.Run})
	case g.Together:
		all := map[string]string{}
		for _, name := range names {
			all[name] = ""
		}
		cfg.Group = func() (map[string]string, error) { return all, nil }
		fallthrough
	default:
		if n.Replica, err = n.replica(cfg, w, certificates); err != nil {
			return nil, err
		}
	}
	mux.Handle("/", n.Replica.Handler())
	parts = append(parts, runner{"replica", n.Replica.Run})
	// The door is made after this, and served before anybody calls.
	forwarded := sync.OnceValue(func() http.Handler { return n.Door.Forwarded(cfg.Caller) })
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if door.IsForwarded(req) {
				forwarded().ServeHTTP(w, req)
			} else {
				mux.ServeHTTP(w, req)
			}
		}),
		TLSConfig: certificates, ReadHeaderTimeout: peerHeaderTimeout, MaxHeaderBytes: peerHeaderBytes,
		ErrorLog: slog.NewLogLogger(n.log.With("component", "peers").Handler(), slog.LevelDebug),
	}
	return append(parts, runner{"peers", func(ctx context.Context) error { return serve(ctx, w.Listen, g.Listen, server) }}), nil
}

// told is who says how far the other Regions have the ledger; nil where they do
// not vote.
func (n *Node) told() delivery.Told {
	if n.Quorum == nil {
		return nil
	}
	return n.Replica
}

// colleague fails for a request that does not come from this Region's own nodes.
func (n *Node) colleague(req *http.Request) error {
	region, err := replica.ByCertificate(req)
	if err == nil && region != n.Config.Region {
		err = fmt.Errorf("%s is not this Region", region)
	}
	return err
}

// nodeURL is where the Region's other nodes reach this one; empty when it can have
// none.
func (c *Config) nodeURL() string {
	switch {
	case c.PostgresURLFile == "":
		return ""
	case c.Group.NodeURL == "":
		return c.Group.URL
	}
	return c.Group.NodeURL
}

// lease keeps the Region's lease: below the rooms that claim, so that it is given
// back after they have stopped, and above the quorum that takes it back.
func (n *Node) lease() []runner {
	if n.Quorum == nil {
		return nil
	}
	return []runner{{"lease", n.Quorum.KeepLease}}
}

// replica makes what pulls from the other Regions; where cfg names those that have
// to have safety data, writes of it wait for them.
func (n *Node) replica(cfg replica.Config, w World, certificates *tls.Config) (*replica.Replica, error) {
	r, err := replica.New(cfg, n.Store, w.peers(certificates), w.Now, n.log)
	if err == nil && cfg.Group != nil {
		n.Store.Acknowledge(r.Acknowledge)
	}
	return r, err
}

// known lets only those through whose certificate names a voter.
func known(voters map[string]string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, err := replica.ByCertificate(req)
		if err == nil && voters[name] == "" {
			err = fmt.Errorf("%s is not of this group", name)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, req)
	})
}

const (
	peerHeaderTimeout = 5 * time.Second
	peerHeaderBytes   = 128 << 10 // a forwarded call brings the client's headers, twice what the door takes
)

// control knows where the control plane is served.
type control struct {
	region    string            // this one
	urls      map[string]string // peers' listeners, by Region
	quorum    *quorum.Quorum
	transport http.RoundTripper
}

// Seat tells what the quorum says. Without a majority nobody has control: the
// Region that had it may have lost it without knowing.
func (c *control) Seat(context.Context) (door.Seat, error) {
	state, _ := c.quorum.State()
	reason := c.quorum.Status().Reason
	switch {
	case reason != "":
		return door.Seat{}, aws.Unavailable("The control plane cannot be used now: %s.", reason)
	case state.Control.Region == "":
		return door.Seat{}, aws.Unavailable("The control plane cannot be used yet: no Region has joined the group.")
	}
	seat := door.Seat{Region: state.Control.Region, Epoch: state.Control.Epoch}
	if seat.Region != c.region {
		seat.URL = c.urls[seat.Region]
	}
	return seat, nil
}

// epoch is the epoch of control, as far as this node knows.
func (c *control) epoch() uint64 {
	state, _ := c.quorum.State()
	return state.Control.Epoch
}

// serve answers peers until ctx ends. Pulls last as long as the Regions do, so
// they are cut, not waited for.
func serve(ctx context.Context, open func(context.Context, string, string) (net.Listener, error), listen string, server *http.Server) error {
	l, err := open(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// peerTLS is how a Region or the witness listens to the others and calls them: both
// sides show a certificate of the group's authority.
func peerTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the group's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("member CAFile of the group: no certificate in it")
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate for the group: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{cert},
	}, nil
}
