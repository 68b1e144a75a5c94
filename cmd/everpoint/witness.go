package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// witnessConfig is a witness: the file of `everpoint witness`, or the member
// Witness of a router's file. Relative paths are below the file's directory.
type witnessConfig struct {
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

// settle checks values; base is what paths are relative to, and prefix what
// members are called by.
func (c *witnessConfig) settle(base, prefix string) error {
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

func loadWitnessConfig(path string) (*witnessConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c := &witnessConfig{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("parse configuration %s: %w", filepath.Base(path), err)
	}
	return c, c.settle(filepath.Dir(path), "")
}

func runWitness(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("witness", `witness -config FILE

Runs a witness alone: it votes with the Regions of a group and holds no data, so
that two Regions can decide safely. It belongs on a machine that fails with
neither of them. FILE is JSON: Name, Dir, Listen, CAFile, CertFile, KeyFile,
Peers (URLs by name, its own included), Founder. A router can run it in its own
process instead: there the same is the member Witness.`, stderr)
	file := fs.String("config", "", "configuration file")
	if done, err := parse(fs, args); done {
		return err
	}
	if *file == "" || fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
	cfg, err := loadWitnessConfig(*file)
	if err != nil {
		return err
	}
	w, err := newWitness(ctx, cfg, slog.New(slog.NewJSONHandler(stderr, nil)))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "witness %s serves on %s\n", cfg.Name, cfg.Listen)
	return w.run(ctx)
}

// witness is a voter without a Region.
type witness struct {
	cfg    *witnessConfig
	store  *store.Store
	quorum *quorum.Quorum
	server *http.Server
}

// newWitness opens a witness's database and binds nothing else.
func newWitness(ctx context.Context, cfg *witnessConfig, log *slog.Logger) (*witness, error) {
	log = log.With("witness", cfg.Name)
	certificates, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	keys, err := store.LoadKeys(filepath.Join(cfg.Dir, "keys"))
	if err != nil {
		return nil, fmt.Errorf("load the witness's keys: %w", err)
	}
	st, err := store.Open(ctx, store.Config{Dir: cfg.Dir, Region: cfg.Name}, keys, time.Now, log)
	if err != nil {
		return nil, fmt.Errorf("open the witness's store: %w", err)
	}
	w := &witness{cfg: cfg, store: st}
	chance := mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), uint64(os.Getpid())))
	w.quorum, err = quorum.New(quorum.Config{
		Name: cfg.Name, Witness: true, Node: cfg.Name, Peers: cfg.Peers, Founder: cfg.Founder,
	}, st, replica.Client(certificates), time.Now, chance, log)
	if err != nil {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		return nil, errors.Join(err, st.Run(ended)) // Run closes the store; nobody will
	}
	mux := http.NewServeMux()
	mux.Handle(quorum.Path, w.known(w.quorum.Handler()))
	w.server = &http.Server{
		Handler: mux, TLSConfig: certificates, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.With("component", "peers").Handler(), slog.LevelDebug),
	}
	return w, nil
}

// known lets only those through whose certificate names a voter.
func (w *witness) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		name, err := replica.ByCertificate(req)
		if err == nil && w.cfg.Peers[name] == "" {
			err = fmt.Errorf("%s is not of this group", name)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(rw, req)
	})
}

// run votes until ctx ends, and closes the store last. It ends with an error when
// it cannot be reached any more.
func (w *witness) run(ctx context.Context) error {
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
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", w.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for the Regions: %w", err)
	}
	floors[1].Go(func() { failed <- w.server.ServeTLS(l, "", "") })
	floors[1].Go(func() { _ = w.quorum.Run(voting) }) // ends with nil, and only then
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("witness %s: %w", w.cfg.Name, err)
	}
}

// tls is how the witness listens to the Regions and calls them.
func (c *witnessConfig) tls() (*tls.Config, error) {
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the group's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the witness's CAFile: no certificate in it")
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the witness's certificate: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{cert},
	}, nil
}
