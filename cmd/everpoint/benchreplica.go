package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/state/store"
)

// quantile is the value below which a share q of them lie; it sorts them.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

// paced makes calls from some clients, each over a connection of its own, at a rate
// altogether. Who comes too late does not wait: the rate that was reached is told by
// the calls that were answered. It ends with ctx, and returns the first failure
// before that.
func (d *bed) paced(ctx context.Context, address string, clients, perSecond int, call func(c *caller, i int) error) error {
	failed := make(chan error, clients)
	begin := time.Now()
	var done sync.WaitGroup
	for k := range clients {
		done.Go(func() {
			c, err := d.at(address).caller(ctx, d.tls)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				failed <- err
				return
			}
			defer c.close()
			for i := k; ; i += clients {
				due := begin.Add(time.Second * time.Duration(i) / time.Duration(perSecond))
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(due)):
				}
				if err := call(c, i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	done.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

const (
	lagClients = 32
	lagWarm    = 2 * time.Second
)

// lag measures how much later than its answer an update is in the other Region.
func (b *benchmark) lag(ctx context.Context) error {
	p, err := b.pair(ctx, "lag")
	if err != nil {
		return err
	}
	defer p.close()
	app, err := p.sharedApp(p.door(1))
	if err != nil {
		return err
	}
	type mark struct {
		n  int64 // everything up to it was answered
		at time.Time
	}
	marks := make(chan mark, updatesPerSecond*int(max(b.time, time.Second)/time.Second))
	var lags []time.Duration
	var reading sync.WaitGroup
	reading.Go(func() {
		here, seen := int64(0), time.Now()
		for m := range marks {
			for here < m.n && ctx.Err() == nil {
				if here, seen = p.merged(), time.Now(); here < m.n {
					<-time.After(200 * time.Microsecond)
				}
			}
			lags = append(lags, max(0, seen.Sub(m.at)))
		}
	})
	began := time.Now().Add(lagWarm)
	loading, stop := context.WithDeadline(ctx, began.Add(b.time))
	defer stop()
	err = p.paced(loading, p.door(0), lagClients, updatesPerSecond, func(c *caller, i int) error {
		e := i * 7919 % updateSpread
		if err := c.call(http.MethodPut, fmt.Sprintf("/v1/apps/%s/endpoints/e%07d", app, e), endpointBody(i), http.StatusAccepted); err != nil {
			return err
		}
		if at := time.Now(); at.After(began) {
			marks <- mark{p.regions[0].Store.Head(store.Changes), at}
		}
		return nil
	})
	took := time.Since(began)
	close(marks)
	reading.Wait()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	rate := float64(len(lags)) / took.Seconds()
	b.note("replication lag of UpdateEndpoint", fmt.Sprintf("p50 %s, p99 %s at %.0f/s", round(quantile(lags, 0.5)), round(quantile(lags, 0.99)), rate),
		fmt.Sprintf("p99 under 1 s at %d/s", updatesPerSecond), "-",
		fmt.Sprintf("signed HTTPS into one Region, %d clients, %d endpoints of 600 bytes, %s after %s of warming; from the answer until the other Region's store has it; "+
			"both Regions, witness and clients in one process; SQLite", lagClients, updateSpread, b.time, lagWarm))
	return nil
}

// round shortens a duration to what a table needs.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	default:
		return d.Round(10 * time.Microsecond)
	}
}

// mergeMax bounds how long a backlog may take to be merged before the benchmark
// gives up.
const mergeMax = 3 * time.Minute

// backlog is what a Region missed and merged.
type backlog struct {
	rate   float64       // updates per second, while it merged
	cpu    time.Duration // processor time of an update, while it merged
	opened time.Duration // from its start until it had merged the first
	merged time.Duration // from its start until it had all that it had missed
}

// missing stops the second Region, writes n updates in the first, starts the second
// again, and waits until it has them. While it merges, meanwhile is run.
func (b *benchmark) missing(p *pair, app string, n, spread int, meanwhile func(ctx context.Context) error) (l backlog, err error) {
	head := p.regions[0].Store.Head(store.Changes)
	if err := p.wait(mergeMax, "the Regions are not even", func() error { return until(p.merged() >= head) }); err != nil {
		return l, err
	}
	before := p.merged()
	p.stopRegion(1)
	begin := time.Now()
	if err := p.update(0, app, n, spread); err != nil {
		return l, err
	}
	fmt.Fprintf(b.err, "%d updates written in %s while a Region was away\n", n, round(time.Since(begin)))
	head = p.regions[0].Store.Head(store.Changes)
	begin = time.Now()
	if err := p.startRegion(1); err != nil {
		return l, err
	}
	loading, stop := context.WithCancel(p.ctx)
	var load sync.WaitGroup
	var failed error
	load.Go(func() { failed = meanwhile(loading) })
	var first int64
	var from time.Time
	var cpu time.Duration
	err = p.wait(mergeMax, "the backlog is not merged", func() error {
		at := p.merged()
		if first == 0 && at > before {
			first, from, cpu, l.opened = at, time.Now(), ownCPU(), time.Since(begin)
		}
		return until(at >= head)
	})
	l.merged = time.Since(begin)
	if merged := float64(n) * float64(head-first) / float64(head-before); merged > 0 {
		l.rate = merged / time.Since(from).Seconds()
		l.cpu = time.Duration(float64(ownCPU()-cpu) / merged)
	}
	stop()
	load.Wait()
	return l, errors.Join(err, failed)
}

const appliedUpdates = 150_000

// apply measures how fast a Region merges what another changed.
func (b *benchmark) apply(ctx context.Context) error {
	p, err := b.pair(ctx, "apply")
	if err != nil {
		return err
	}
	defer p.close()
	app, err := p.sharedApp(p.door(1))
	if err != nil {
		return err
	}
	if err := p.update(0, app, updateSpread, updateSpread); err != nil {
		return err
	}
	l, err := b.missing(p, app, appliedUpdates, updateSpread, func(context.Context) error { return nil })
	if err != nil {
		return err
	}
	b.note("replication apply of endpoint updates", fmt.Sprintf("%.0f/s", l.rate), "15,000/s", "-",
		fmt.Sprintf("%d updates of %d endpoints of 600 bytes, %d in a commit, missed by a Region that was stopped; "+
			"from the first that it has merged (%s after its start) to the last; an update costs both %d us; both in one process; SQLite",
			appliedUpdates, updateSpread, updatesACommit, round(l.opened), l.cpu.Microseconds()))
	return nil
}

const (
	catchUpSpread    = 100_000
	catchUpClients   = 8
	catchUpPerSecond = 200
)

// catchUp measures how long a Region needs for what it missed, while both serve.
func (b *benchmark) catchUp(ctx context.Context) error {
	p, err := b.pair(ctx, "catchup")
	if err != nil {
		return err
	}
	defer p.close()
	app, err := p.sharedApp(p.door(1))
	if err != nil {
		return err
	}
	var s [2]served
	l, err := b.missing(p, app, b.missed, catchUpSpread, func(ctx context.Context) error {
		var both sync.WaitGroup
		var failed [2]error
		for i := range s {
			both.Go(func() { failed[i] = p.serve(ctx, i, app, &s[i]) })
		}
		both.Wait()
		return errors.Join(failed[:]...)
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := p.gather(); err != nil {
		return err
	}
	var told []string
	for i := range s {
		told = append(told, fmt.Sprintf("%s answered %d calls, p99 %s, failed %d", p.laptop.regions[i], len(s[i].took), round(quantile(s[i].took, 0.99)), s[i].failed.Load()))
	}
	b.note(fmt.Sprintf("catching up with %d changes", b.missed), fmt.Sprintf("%s, %d calls failed", round(l.merged), s[0].failed.Load()+s[1].failed.Load()),
		"60 s, serving meanwhile", "-",
		fmt.Sprintf("%d updates of %d endpoints of 600 bytes, %.0f/s; from the start of the Region that missed them until it has the last, in sync %s later; "+
			"meanwhile %d calls/s to each, half reads, half updates: %s; both in one process; SQLite",
			b.missed, catchUpSpread, l.rate, round(time.Since(begin)), catchUpPerSecond, strings.Join(told, "; ")))
	return nil
}

// served is what became of calls that were made beside a measurement.
type served struct {
	mu     sync.Mutex
	took   []time.Duration // of those that were answered
	failed atomic.Int64
}

// serve reads and updates endpoints in the ith Region until ctx ends.
func (p *pair) serve(ctx context.Context, i int, app string, s *served) error {
	if err := p.wait(startTimeout, "the door does not open", func() error { return p.answers("https://" + p.door(i) + "/healthz") }); err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(uint64(i), 3))
	var mu sync.Mutex
	return p.paced(ctx, p.door(i), catchUpClients, catchUpPerSecond, func(c *caller, n int) error {
		mu.Lock()
		e := rnd.IntN(catchUpSpread)
		mu.Unlock()
		begin := time.Now()
		path := fmt.Sprintf("/v1/apps/%s/endpoints/e%07d", app, e)
		var err error
		if n%2 == 0 {
			err = c.call(http.MethodPut, path, endpointBody(e), http.StatusAccepted)
		} else {
			err = c.call(http.MethodGet, path, nil, http.StatusOK, http.StatusNotFound) // it may not be there yet
		}
		switch {
		case errors.Is(err, errAnswer):
			s.failed.Add(1)
			return nil
		case err != nil:
			return err
		}
		s.mu.Lock()
		s.took = append(s.took, time.Since(begin))
		s.mu.Unlock()
		return nil
	})
}
