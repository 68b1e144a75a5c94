package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
)

// site starts what `everpoint local` does: two Regions, the router with the
// witness, and carriers, each a process. Its client calls the router.
func (b *benchmark) site(ctx context.Context, name string) (*bed, error) {
	d, err := b.settled(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, p := range d.processes() {
		if err := d.start(ctx, p); err != nil {
			d.stop()
			return nil, err
		}
	}
	_, err = d.gather(ctx)
	if err = errors.Join(err, d.connect(d.address(portAPI))); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// doors are the addresses of the Regions' doors.
func (d *bed) doors() []string { return []string{d.door(0), d.door(1)} }

// mail lets a project send mail.
func (d *bed) mail(app string) error {
	if err := d.client.call(d.ctx, "mobiletargeting", http.MethodPut, "/v1/apps/"+app+"/channels/email", nil, map[string]any{
		"FromAddress": "news@tea.example", "Identity": "arn:aws:ses:" + localRegion + ":" + localAccount + ":identity/tea.example", "Enabled": true,
	}, nil); err != nil {
		return err
	}
	for _, door := range d.doors() {
		if err := d.wait(startTimeout, "the channel is not everywhere", func() error {
			return d.at(door).call(d.ctx, "mobiletargeting", http.MethodGet, "/v1/apps/"+app+"/channels/email", nil, nil, nil)
		}); err != nil {
			return err
		}
	}
	return nil
}

// groupWrites measures what waiting for the group adds to an UpdateEndpoint: new
// endpoints by one client, each other of them an opt-out.
func (b *benchmark) groupWrites(ctx context.Context) error {
	d, err := b.site(ctx, "group")
	if err != nil {
		return err
	}
	defer d.stop()
	app, err := d.sharedApp(d.doors()...)
	if err != nil {
		return err
	}
	c, err := d.at(d.door(0)).caller(ctx, d.tls)
	if err != nil {
		return err
	}
	defer c.close()
	var took [2][]time.Duration
	begin := time.Now()
	for i := 0; time.Since(begin) < b.time && ctx.Err() == nil; i++ {
		body := endpointBody(i)
		if i%2 == 1 {
			body = []byte(strings.Replace(string(body), `"OptOut":"NONE"`, `"OptOut":"ALL"`, 1))
		}
		called := time.Now()
		if err := c.call(http.MethodPut, fmt.Sprintf("/v1/apps/%s/endpoints/e%07d", app, i), body, http.StatusAccepted); err != nil {
			return err
		}
		took[i%2] = append(took[i%2], time.Since(called))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	local, group := quantile(took[0], 0.5), quantile(took[1], 0.5)
	b.note("group acknowledgement added to UpdateEndpoint", fmt.Sprintf("%s at p50", round(group-local)), "under 2 ms", "-",
		fmt.Sprintf("signed HTTPS into one Region by one client, %d calls, each other an opt-out; local p50 %s, p99 %s; group p50 %s, p99 %s; two Regions and witness on loopback; SQLite",
			len(took[0])+len(took[1]), round(local), round(quantile(took[0], 0.99)), round(group), round(quantile(took[1], 0.99))))
	return nil
}

const (
	turnTime    = 2 * time.Second
	turnClients = 32
)

// routed measures the throughput through the router against that of the doors, in
// turns, and lets the Regions get even between two.
func (b *benchmark) routed(ctx context.Context) error {
	d, err := b.site(ctx, "router")
	if err != nil {
		return err
	}
	defer d.stop()
	app, err := d.sharedApp(d.doors()...)
	if err != nil {
		return err
	}
	ways := [2][]string{d.doors(), {d.address(portAPI)}}
	var callers [2][]*caller
	for w, addresses := range ways {
		for i := range turnClients {
			c, err := d.at(addresses[i%len(addresses)]).caller(ctx, d.tls)
			if err != nil {
				return err
			}
			defer c.close()
			callers[w] = append(callers[w], c)
		}
	}
	measured := func(method string, call func(c *caller, i int) error) (rates [2]float64, err error) {
		turns := max(4, int(b.time/turnTime)&^3)
		for turn := range turns + 2 {
			w := (turn + 1) / 2 % 2 // the one, the other twice, the one
			rate, err := d.turn(callers[w], call)
			if err != nil {
				return rates, err
			}
			if turn > 1 { // each way is warm
				rates[w] += rate / float64(turns/2)
				fmt.Fprintf(b.err, "%s %s: %.0f/s\n", method, [...]string{"direct", "routed"}[w], rate)
			}
			if err := d.even(); err != nil {
				return rates, err
			}
		}
		return rates, nil
	}
	path := func(i int) string { return fmt.Sprintf("/v1/apps/%s/endpoints/e%07d", app, i%updateSpread) }
	puts, err := measured("PUT", func(c *caller, i int) error {
		return c.call(http.MethodPut, path(i), endpointBody(i), http.StatusAccepted)
	})
	if err != nil {
		return err
	}
	gets, err := measured("GET", func(c *caller, i int) error {
		return c.call(http.MethodGet, path(i), nil, http.StatusOK, http.StatusNotFound)
	})
	if err != nil {
		return err
	}
	b.note("UpdateEndpoint through the router against direct", fmt.Sprintf("%.0f %%, %.0f/s", 100*puts[1]/puts[0], puts[1]), "60 %",
		fmt.Sprintf("%.0f/s direct to both doors", puts[0]),
		fmt.Sprintf("%d clients in turns of %s; GetEndpoint %.0f %%, %.0f/s of %.0f/s; two Regions, each following the other, router and clients on the same cores; SQLite",
			turnClients, turnTime, 100*gets[1]/gets[0], gets[1], gets[0]))
	return nil
}

// turn makes calls with each caller for the time of a turn.
func (d *bed) turn(callers []*caller, call func(c *caller, i int) error) (rate float64, err error) {
	failed := make(chan error, len(callers))
	var n atomic.Int64
	begin := time.Now()
	var done sync.WaitGroup
	for _, c := range callers {
		done.Go(func() {
			for time.Since(begin) < turnTime && d.ctx.Err() == nil {
				if err := call(c, int(n.Add(1))*7919); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	done.Wait()
	rate = float64(n.Load()) / time.Since(begin).Seconds()
	select {
	case err = <-failed:
	default:
		err = d.ctx.Err()
	}
	return rate, err
}

// even waits until neither Region lags behind the other.
func (d *bed) even() error {
	for _, door := range d.doors() {
		if err := d.wait(startTimeout, "the Regions do not get even", func() error {
			var s everpoint.NodeStatus
			if err := d.at(door).call(d.ctx, adminService, http.MethodGet, nodePath, nil, nil, &s); err != nil {
				return err
			}
			return until(len(s.Peers) == 1 && s.Peers[0].LagMilliseconds == 0)
		}); err != nil {
			return err
		}
	}
	return nil
}
