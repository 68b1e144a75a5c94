package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/state/store"
)

// groupPorts is how many ports a local of two Regions takes.
const groupPorts = portsEnd

// settled writes the settings of two Regions, a witness and a router, and starts
// none of them.
func (b *benchmark) settled(ctx context.Context, name string) (*bed, error) {
	base, err := freePorts(groupPorts)
	if err != nil {
		return nil, err
	}
	l := &laptop{dir: filepath.Join(b.dir, name), portBase: base, regions: localRegions, bodies: -1, out: io.Discard}
	if err := l.settle(); err != nil {
		return nil, err
	}
	return &bed{laptop: l, ctx: ctx}, l.write()
}

// pair is two Regions and a witness in this process, each with a door and without
// carriers.
type pair struct {
	*bed
	regions [2]*pairRegion // nil while it is stopped
	witness func()         // stops it
}

// pairRegion is a Region that runs.
type pairRegion struct {
	*node.Node
	stop func()
}

func (b *benchmark) pair(ctx context.Context, name string) (*pair, error) {
	d, err := b.settled(ctx, name)
	if err != nil {
		return nil, err
	}
	p := &pair{bed: d}
	if err := p.startAll(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pair) startAll() error {
	if err := p.connect(p.door(0)); err != nil {
		return err
	}
	c, err := loadRouterConfig(p.path(localRouter + ".json"))
	if err != nil {
		return err
	}
	w, err := node.NewWitness(p.ctx, c.Witness, node.World{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	p.witness = running(p.ctx, w.Run)
	for i := range p.regions {
		if err := p.startRegion(i); err != nil {
			return err
		}
	}
	return p.gather()
}

// running runs a component and returns what stops it.
func running(ctx context.Context, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() { cancel(); <-ended }
}

func (p *pair) startRegion(i int) error {
	cfg, err := node.LoadConfig(p.path(p.laptop.regions[i] + ".json"))
	if err != nil {
		return err
	}
	cfg.Mail, cfg.Routes, cfg.Numbers = nil, nil, nil
	n, err := node.New(p.ctx, cfg, node.World{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	p.regions[i] = &pairRegion{n, running(p.ctx, n.Run)}
	return nil
}

func (p *pair) stopRegion(i int) {
	if r := p.regions[i]; r != nil {
		r.stop()
		p.regions[i] = nil
	}
}

func (p *pair) close() {
	if p.client != nil {
		p.client.http.CloseIdleConnections()
	}
	p.stopRegion(1)
	p.stopRegion(0)
	if p.witness != nil {
		p.witness()
	}
}

// merged is how far the second Region has the first one's changes.
func (p *pair) merged() int64 {
	return p.regions[1].Replica.Status()[0].Streams[store.Changes].Merged
}

// gather waits until the first Region says that both are in sync and all vote.
func (p *pair) gather() error {
	return p.wait(startTimeout, "the Regions do not gather", func() error {
		g := &everpoint.Group{}
		if err := p.client.call(p.ctx, adminService, http.MethodGet, groupPath, nil, nil, g); err != nil {
			return err
		}
		return gathered(g, len(p.regions))
	})
}

var errNotYet = errors.New("not yet")

// until is no error when something is so.
func until(so bool) error {
	if so {
		return nil
	}
	return errNotYet
}

// wait asks again and again until there is no reason to wait any more.
func (d *bed) wait(most time.Duration, what string, reason func() error) error {
	ctx, cancel := context.WithTimeout(d.ctx, most)
	defer cancel()
	for {
		err := reason()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(err, context.Cause(ctx)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sharedApp makes a project and waits until all the addresses know it.
func (d *bed) sharedApp(addresses ...string) (string, error) {
	app, err := d.app()
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if err := d.wait(startTimeout, "the project is not everywhere", func() error {
			return d.at(a).call(d.ctx, "mobiletargeting", http.MethodGet, "/v1/apps/"+app, nil, nil, nil)
		}); err != nil {
			return "", err
		}
	}
	return app, nil
}

// updatesACommit is how many updates of a backlog are in one commit, as in a call
// of UpdateEndpointsBatch.
const updatesACommit = 100

// update writes n updates of so many endpoints in the ith Region, past its door.
func (p *pair) update(i int, app string, n, spread int) error {
	st := p.regions[i].Store
	tokens, ids := wire.NewTokens(make([]byte, 32), time.Now), aws.NewIDs(rand.NewChaCha8([32]byte{1}))
	room := endpoints.New(endpoints.Config{}, st, tokens, ids, time.Now, slog.New(slog.DiscardHandler))
	for from := 0; from < n; from += updatesACommit {
		count := min(updatesACommit, n-from)
		names, requests := make([]string, count), make([]pinpoint.EndpointRequest, count)
		var touches []store.Touch
		for k := range count {
			e := (from + k) % spread
			names[k] = fmt.Sprintf("e%07d", e)
			// The body changes from one update of an endpoint to its next.
			if err := json.Unmarshal(endpointBody(e), &requests[k]); err != nil {
				return err
			}
			requests[k].Metrics["Orders"] = float64((from + k) / spread)
			touches = append(touches, room.Touches(app, names[k], &requests[k])...)
		}
		if err := st.Update(p.ctx, func(tx *store.Tx) error {
			for k := range count {
				if err := room.Upsert(tx, app, names[k], &requests[k], "r"); err != nil {
					return err
				}
			}
			return nil
		}, touches...); err != nil {
			return err
		}
	}
	return nil
}
