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
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/router"
)

// routerConfig is the router's configuration file. Relative paths are below the
// file's directory.
type routerConfig struct {
	Listen            string              // host:port that clients call. Required
	CertFile, KeyFile string              // its TLS certificate chain and key, PEM
	PlainLoopback     bool                // plain HTTP instead, on a loopback address only
	Admin             string              // host:port on loopback where the status is told; empty: nowhere
	CAFile            string              // PEM roots of the Regions' doors; default: the system's
	Regions           []router.Region     // Name, URL and Weight of each. Required
	Mode              router.Mode         // active-active or warm-standby, until the quorum's is heard. Default: active-active
	Primary           string              // of warm-standby, likewise. Default: the first
	Witness           *node.WitnessConfig // a voter in this process; none: not here
}

func loadRouterConfig(path string) (*routerConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c := &routerConfig{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("parse configuration %s: %w", filepath.Base(path), err)
	}
	for _, p := range []*string{&c.CertFile, &c.KeyFile, &c.CAFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	if c.PlainLoopback && !loopback(c.Listen) {
		return nil, fmt.Errorf("member PlainLoopback: %q is not an address of this machine alone", c.Listen)
	}
	if !c.PlainLoopback && (c.CertFile == "" || c.KeyFile == "") {
		return nil, errors.New("members CertFile and KeyFile: required, unless PlainLoopback is set")
	}
	if c.Admin != "" && !loopback(c.Admin) {
		return nil, fmt.Errorf("member Admin: %q is not an address of this machine alone", c.Admin)
	}
	if c.Witness != nil {
		return c, c.Witness.Settle(filepath.Dir(path), "Witness.")
	}
	return c, nil
}

func loopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback()
}

func runRouter(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("router", `router -config FILE

Runs the global endpoint: spreads requests over the Regions of a group, diverts
from one that fails and lets it return in steps, and follows the switches that the
Regions tell. It holds no keys; several may run. FILE is JSON: Listen, CertFile
and KeyFile (or PlainLoopback), Regions (each Name, URL, Weight), Mode, Primary,
CAFile, Admin, and Witness, which one of the routers of a group may run in its
process ("everpoint witness -h"); docs/internals/router.md says how it decides.`, stderr)
	file := fs.String("config", "", "configuration file")
	if done, err := parse(fs, args); done {
		return err
	}
	if *file == "" || fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
	cfg, err := loadRouterConfig(*file)
	if err != nil {
		return err
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return fmt.Errorf("read the Regions' authority: %w", err)
		}
		if trust.RootCAs = x509.NewCertPool(); !trust.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("member CAFile: no certificate in it")
		}
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	settings := router.Config{
		Regions: cfg.Regions, Mode: cfg.Mode, Primary: cfg.Primary, Remembered: router.Remembers(node.Services()...),
	}
	chance := mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), uint64(os.Getpid())))
	r, err := router.New(settings, router.NewTransport(trust, settings.Limits), time.Now, chance, log)
	if err != nil {
		return err
	}
	var w *node.Witness
	if cfg.Witness != nil {
		if w, err = node.NewWitness(ctx, cfg.Witness, node.World{}, log); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "witness %s serves on %s\n", cfg.Witness.Name, cfg.Witness.Listen)
	}
	fmt.Fprintf(stdout, "router serves on %s\n", cfg.Listen)
	return serveRouter(ctx, cfg, r, w)
}

// routerStopMax is how long requests under way may take when the router stops.
const routerStopMax = 20 * time.Second

// serveRouter serves until ctx ends, then finishes what is under way. A witness
// that is not nil votes until that is done.
func serveRouter(ctx context.Context, cfg *routerConfig, r *router.Router, w *node.Witness) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	failed := make(chan error, 3)
	if w != nil {
		beside.Go(func() { failed <- w.Run(running) })
	}
	r.Hear(ctx) // before the first request: what is off stays off
	beside.Go(func() { _ = r.Run(running) })
	var certs *tls.Config
	if !cfg.PlainLoopback {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return fmt.Errorf("read the router's certificate: %w", err)
		}
		certs = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	}
	servers := []*http.Server{r.Server(certs)}
	addresses := []string{cfg.Listen}
	if cfg.Admin != "" {
		servers = append(servers, &http.Server{Handler: r.Admin(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second})
		addresses = append(addresses, cfg.Admin)
	}
	for i, s := range servers {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addresses[i])
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		defer s.Close()
		go func() {
			if i == 0 && certs != nil {
				failed <- s.ServeTLS(l, "", "")
			} else {
				failed <- s.Serve(l)
			}
		}()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), routerStopMax)
	defer cancel()
	return servers[0].Shutdown(ending)
}
