package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// WitnessConfig is a witness: the file of `everpoint witness`, or the member
// Witness of a router's file. Relative paths are below the file's directory.
type WitnessConfig struct {
	Name   string // as in the Regions' Group.Witness.Region. Required
	Dir    string // of its own small database: what it has promised. Required
	Listen string // host:port, where the Regions reach it. Required

	// CAFile, CertFile and KeyFile are PEM, and required: the authority of the
	// group, and the witness's certificate and key. It names the witness by the URI
	// everpoint://region/{Name}, and the host that the Regions call.
	CAFile, CertFile, KeyFile string

	// Peers are the URLs of all who vote by name, the witness included: of the
	// Regions their Group.URL. Required.
	Peers map[string]string
	// Founder is as in the Regions' Group. Default: the first in the order of names.
	Founder string
}

// Settle checks values; base is what paths are relative to, and prefix what
// members are called by.
func (c *WitnessConfig) Settle(base, prefix string) error {
	for _, m := range []struct{ name, value string }{
		{"Name", c.Name}, {"Dir", c.Dir}, {"Listen", c.Listen}, {"CAFile", c.CAFile}, {"CertFile", c.CertFile}, {"KeyFile", c.KeyFile},
	} {
		if m.value == "" {
			return fmt.Errorf("member %s%s: required", prefix, m.name)
		}
	}
	for name, u := range c.Peers {
		if p, err := url.Parse(u); err != nil || p.Scheme != "https" || p.Host == "" || p.Path != "" {
			return fmt.Errorf("member %sPeers: %s at %q is not https://host:port", prefix, name, u)
		}
	}
	if len(c.Peers) < 3 {
		return fmt.Errorf("member %sPeers: %d vote, and fewer than 3 decide nothing when one is gone", prefix, len(c.Peers))
	}
	if c.Peers[c.Name] == "" {
		return fmt.Errorf("member %sPeers: the witness itself, %s, is not among them", prefix, c.Name)
	}
	if c.Founder != "" && c.Peers[c.Founder] == "" {
		return fmt.Errorf("member %sFounder: %q is not among Peers", prefix, c.Founder)
	}
	for _, p := range []*string{&c.Dir, &c.CAFile, &c.CertFile, &c.KeyFile} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	return nil
}

// Witness is a voter without a Region. Make it with NewWitness, then Run it once.
type Witness struct {
	cfg    *WitnessConfig
	store  *store.Store
	Quorum *quorum.Quorum
	server *http.Server
	listen func(ctx context.Context, network, addr string) (net.Listener, error)
}

// NewWitness opens a witness's database and binds nothing else. Of the world it
// takes the clock, chance, faults and the peers' network.
func NewWitness(ctx context.Context, cfg *WitnessConfig, world World, log *slog.Logger) (*Witness, error) {
	log = log.With("witness", cfg.Name)
	world = world.withDefaults()
	certificates, err := peerTLS(cfg.CAFile, cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	keys, err := store.LoadKeys(filepath.Join(cfg.Dir, "keys"))
	if err != nil {
		return nil, fmt.Errorf("load the witness's keys: %w", err)
	}
	st, err := store.Open(ctx, store.Config{Dir: cfg.Dir, Region: cfg.Name, Fault: world.Fault}, keys, world.Now, log)
	if err != nil {
		return nil, fmt.Errorf("open the witness's store: %w", err)
	}
	w := &Witness{cfg: cfg, store: st, listen: world.Listen}
	w.Quorum, err = quorum.New(quorum.Config{
		Name: cfg.Name, Witness: true, Node: cfg.Name, Peers: cfg.Peers, Founder: cfg.Founder,
	}, st, world.peers(certificates), world.Now, world.chance(), log)
	if err != nil {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		return nil, errors.Join(err, st.Run(ended)) // Run closes the store; nobody will
	}
	mux := http.NewServeMux()
	mux.Handle(quorum.Path, known(cfg.Peers, w.Quorum.Handler()))
	w.server = &http.Server{
		Handler: mux, TLSConfig: certificates, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.With("component", "peers").Handler(), slog.LevelDebug),
	}
	return w, nil
}

// Run votes until ctx ends, and closes the store last. It ends with an error when
// it cannot be reached any more.
func (w *Witness) Run(ctx context.Context) error {
	var floors [2]sync.WaitGroup // the store, and above it the voter
	under, closeStore := context.WithCancel(context.WithoutCancel(ctx))
	voting, stopVoting := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 2)
	floors[0].Go(func() {
		if err := w.store.Run(under); err != nil && under.Err() == nil {
			failed <- fmt.Errorf("the witness's store: %w", err)
		}
	})
	defer func() {
		w.server.Close()
		stopVoting()
		floors[1].Wait()
		closeStore()
		floors[0].Wait()
	}()
	l, err := w.listen(ctx, "tcp", w.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for the Regions: %w", err)
	}
	floors[1].Go(func() { failed <- w.server.ServeTLS(l, "", "") })
	floors[1].Go(func() { _ = w.Quorum.Run(voting) }) // ends with nil, and only then
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("witness %s: %w", w.cfg.Name, err)
	}
}
