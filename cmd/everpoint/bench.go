package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smtp"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/store"
)

// bench measures this machine. Every figure stands beside its target and, where
// there is one, its ceiling measured in the same run.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("bench", `bench [flags]

Measures nodes and carriers that it starts on this machine, each its own process,
and prints a table: figure, target, ceiling, settings. With TEST_POSTGRES_URL it
measures PostgreSQL too. Of two Regions it measures how they follow each other
(lag, apply, catchup, group) in its own process, where it can look into their
stores, and the rest (router, kill, shards) as everpoint local runs them. Everything
lies in a temporary directory.`, stderr)
	b := &benchmark{out: stdout, err: stderr}
	fs.DurationVar(&b.time, "time", 10*time.Second, "how long the rates are measured")
	fs.IntVar(&b.rows, "rows", 1_000_000, "endpoints to import and count")
	fs.IntVar(&b.mails, "mails", 60_000, "mails of the campaign")
	fs.IntVar(&b.missed, "missed", 500_000, "updates that a Region missed and catches up with")
	only := fs.String("only", "", "comma-separated parts: "+strings.Join(b.names(), ", "))
	if done, err := parse(fs, args); done {
		return err
	}
	b.only = map[string]bool{}
	for _, p := range strings.Split(*only, ",") {
		switch {
		case p == "":
		case slices.Contains(b.names(), p):
			b.only[p] = true
		default:
			return fmt.Errorf("-only: no part %q; there are %s", p, strings.Join(b.names(), ", "))
		}
	}
	dir, err := os.MkdirTemp("", "everpoint-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	return b.run(ctx)
}

type benchmark struct {
	dir      string
	time     time.Duration
	rows     int
	mails    int
	missed   int
	only     map[string]bool
	out, err io.Writer
	table    [][]string
}

// part is a measurement that can be asked for by its name.
type part struct {
	name string
	run  func(context.Context) error
}

// parts are all, in the order in which they are measured; that of the import counts
// too.
func (b *benchmark) parts() []part {
	return []part{
		{"idle", b.idle},
		{"update", b.update},
		{"postgres", b.postgres},
		{"import", b.imports},
		{"campaign", b.campaign},
		{"lag", b.lag},
		{"apply", b.apply},
		{"catchup", b.catchUp},
		{"group", b.groupWrites},
		{"router", b.routed},
		{"kill", b.killed},
		{"shards", b.shards},
	}
}

// names are what -only takes.
func (b *benchmark) names() []string {
	names := []string{"count"}
	for _, p := range b.parts() {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

func (b *benchmark) wants(part string) bool { return len(b.only) == 0 || b.only[part] }

func (b *benchmark) note(figure, measured, target, ceiling, settings string) {
	b.table = append(b.table, []string{figure, measured, target, ceiling, settings})
	fmt.Fprintf(b.err, "%s: %s (target %s; ceiling %s)\n", figure, measured, target, ceiling)
}

func (b *benchmark) run(ctx context.Context) error {
	b.table = [][]string{{"FIGURE", "MEASURED", "AT LEAST", "CEILING, SAME RUN", "SETTINGS"}}
	for _, part := range b.parts() {
		if !b.wants(part.name) && !(part.name == "import" && b.wants("count")) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Fprintf(b.out, "\n%d cores, %s, %s\n\n", runtime.NumCPU(), runtime.Version(), node.Version())
	return table(b.out, b.table)
}

// freePorts finds a run of ports that nobody listens on.
func freePorts(n int) (int, error) {
	for range 200 {
		base := 20000 + rand.IntN(30000)
		free := true
		for i := range n {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i))) //nolint:noctx // closed at once
			if err != nil {
				free = false
				break
			}
			l.Close()
		}
		if free {
			return base, nil
		}
	}
	return 0, errors.New("no free ports")
}

// bed is one local edition under measurement.
type bed struct {
	*laptop
	client *client
	tls    *tls.Config
	ctx    context.Context // of the measurement that the bed belongs to
}

func (b *benchmark) bed(ctx context.Context, name, postgres string) (*bed, error) {
	base, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	l := &laptop{dir: filepath.Join(b.dir, name), portBase: base, regions: []string{localRegion}, bodies: -1, out: io.Discard}
	if postgres != "" {
		l.postgres = []string{postgres}
	}
	if err := l.settle(); err != nil {
		return nil, err
	}
	if err := l.write(); err != nil {
		return nil, err
	}
	d := &bed{laptop: l, ctx: ctx}
	for _, p := range []string{localCarriers, localRegion} {
		if err := l.start(ctx, p); err != nil {
			l.stop()
			return nil, err
		}
	}
	return d, d.connect(l.address(portAPI))
}

// connect makes the client, which calls what listens at an address.
func (d *bed) connect(address string) error {
	secret, err := d.secret()
	if err != nil {
		return err
	}
	to := target{endpoint: "https://" + address, region: localRegion, ca: d.path("ca.pem")}
	if d.tls, err = to.tls(); err != nil {
		return err
	}
	d.client = &client{
		endpoint: to.endpoint, region: localRegion,
		creds: sigv4.Credentials{AccessKeyID: localKey, Secret: sigv4.SecretKey(secret)},
		http: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
			TLSClientConfig: d.tls, MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256, ForceAttemptHTTP2: false,
		}},
	}
	return nil
}

// at is the client of another address.
func (d *bed) at(address string) *client {
	c := *d.client
	c.endpoint = "https://" + address
	return &c
}

func (d *bed) app() (string, error) {
	var app pinpoint.ApplicationResponse
	err := d.client.call(d.ctx, "mobiletargeting", "POST", "/v1/apps", nil, map[string]string{"Name": "bench"}, &app)
	return app.Id, err
}

// resident is the node's resident memory, in MiB.
func (d *bed) resident(peak bool) float64 {
	field := "VmRSS:"
	if peak {
		field = "VmHWM:"
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid(localRegion)))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// clockTicks is the kernel's unit of process time. Source: sysconf(_SC_CLK_TCK), 100 on Linux.
const clockTicks = 100

// cpu is the processor time of the node so far.
func (d *bed) cpu() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid(localRegion)))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks
}

// idle measures a node that has nothing to do.
func (b *benchmark) idle(ctx context.Context) error {
	d, err := b.bed(ctx, "idle", "")
	if err != nil {
		return err
	}
	defer d.stop()
	// Long enough for its start to be over and a collection to have passed.
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	b.note("idle node, resident", fmt.Sprintf("%.0f MiB", d.resident(false)), "under 100 MiB", "-", "5 s after its start")
	return nil
}

const clients = 64

// endpointBody is the document of the update figures: about 600 bytes.
func endpointBody(i int) []byte {
	return fmt.Appendf(nil, `{"Address":"person%07d@tea.example","ChannelType":"EMAIL","OptOut":"NONE",`+
		`"Attributes":{"Interests":["tea","travel"],"Plan":["gold"],"City":["Porto"]},"Metrics":{"Orders":%d,"Spend":%d.5},`+
		`"Demographic":{"AppVersion":"2.4","Locale":"en_GB","Make":"Example","Model":"One","Platform":"android","PlatformVersion":"14","Timezone":"Europe/Lisbon"},`+
		`"Location":{"City":"Porto","Country":"PT","Latitude":41.1,"Longitude":-8.6,"PostalCode":"4000","Region":"13"},`+
		`"User":{"UserId":"user-%06d"}}`, i, i%90, i%1000, i)
}

// load is what a measurement of calls found.
type load struct {
	rate         float64       // calls per second
	node, client time.Duration // processor time of a call
	failed       error         // the first failure
}

// updates drives UpdateEndpoint from many clients.
func (d *bed) updates(app string, total time.Duration, spread int) load {
	var n atomic.Int64
	failed := make(chan error, clients)
	begin, node, own := time.Now(), d.cpu(), ownCPU()
	end := begin.Add(total)
	var done sync.WaitGroup
	for c := range clients {
		done.Go(func() {
			caller, err := d.client.caller(d.ctx, d.tls)
			if err != nil {
				failed <- err
				return
			}
			defer caller.close()
			rnd := rand.New(rand.NewPCG(uint64(c), 1))
			for time.Now().Before(end) && d.ctx.Err() == nil {
				i := rnd.IntN(spread)
				path := fmt.Sprintf("/v1/apps/%s/endpoints/e%07d", app, i)
				if err := caller.call(http.MethodPut, path, endpointBody(i), http.StatusAccepted); err != nil {
					failed <- err
					return
				}
				n.Add(1)
			}
		})
	}
	done.Wait()
	calls := n.Load()
	l := load{rate: float64(calls) / time.Since(begin).Seconds()}
	if calls > 0 {
		l.node, l.client = (d.cpu()-node)/time.Duration(calls), (ownCPU()-own)/time.Duration(calls)
	}
	select {
	case l.failed = <-failed:
	default:
	}
	return l
}

const updateSpread = 20_000

// store opens and runs a store of this process.
func (b *benchmark) store(ctx context.Context, name, postgres string, oneByOne bool) (st *store.Store, stop func(), err error) {
	keys, err := store.NewKeys()
	if err != nil {
		return nil, nil, err
	}
	st, err = store.Open(ctx, store.Config{
		Dir: filepath.Join(b.dir, name), PostgresURL: postgres, Region: localRegion, OneByOne: oneByOne,
	}, keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- st.Run(running) }()
	return st, func() { cancel(); <-ended }, nil
}

// storeAlone is the ceiling of the update figures: the same rows, sealed, with
// their changes and a fact each, written straight into a store of this process.
func (b *benchmark) storeAlone(ctx context.Context, name, postgres string, oneByOne bool) (float64, error) {
	st, stop, err := b.store(ctx, name, postgres, oneByOne)
	if err != nil {
		return 0, err
	}
	defer stop()
	quiet := slog.New(slog.DiscardHandler)
	tokens, ids := wire.NewTokens(make([]byte, 32), time.Now), aws.NewIDs(rand.NewChaCha8([32]byte{1}))
	room := endpoints.New(endpoints.Config{}, st, tokens, ids, time.Now, quiet)
	app := fmt.Sprintf("%032x", 0xbe9c)
	var n atomic.Int64
	var firstErr error
	var once sync.Once
	begin := time.Now()
	end := begin.Add(b.time)
	fact := eventlog.Fact{ID: "f", Account: localAccount, App: app, Type: "_endpoint.updated", Client: "e", Data: []byte(`{"event_type":"_endpoint.updated"}`)}
	var done sync.WaitGroup
	for c := range clients {
		done.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 1))
			for time.Now().Before(end) {
				i := rnd.IntN(updateSpread)
				id := fmt.Sprintf("e%07d", i)
				var req pinpoint.EndpointRequest
				err := json.Unmarshal(endpointBody(i), &req)
				if err == nil {
					err = st.Update(ctx, func(tx *store.Tx) error {
						eventlog.Append(tx, fact)
						return room.Upsert(tx, app, id, &req, "r")
					}, room.Touches(app, id, &req)...)
				}
				if err != nil {
					once.Do(func() { firstErr = err })
					return
				}
				n.Add(1)
			}
		})
	}
	done.Wait()
	return float64(n.Load()) / time.Since(begin).Seconds(), firstErr
}

func (b *benchmark) update(ctx context.Context) error {
	alone, err := b.storeAlone(ctx, "alone", "", false)
	if err != nil {
		return err
	}
	d, err := b.bed(ctx, "update", "")
	if err != nil {
		return err
	}
	defer d.stop()
	app, err := d.app()
	if err != nil {
		return err
	}
	l := d.updates(app, b.time, updateSpread)
	if l.failed != nil {
		return l.failed
	}
	b.note("UpdateEndpoint, signed HTTPS, SQLite", fmt.Sprintf("%.0f/s", l.rate), "5,000/s and half the ceiling",
		fmt.Sprintf("%.0f/s store alone (%.0f %%)", alone, 100*l.rate/alone),
		fmt.Sprintf("%d clients, %d endpoints of 600 bytes, %s, durable; clients on the same cores: a call costs the node %d us, its client %d us",
			clients, updateSpread, b.time, l.node.Microseconds(), l.client.Microseconds()))
	return nil
}

func (b *benchmark) postgres(ctx context.Context) error {
	server := os.Getenv("TEST_POSTGRES_URL")
	if server == "" {
		b.note("UpdateEndpoint, signed HTTPS, PostgreSQL", "not measured", "twice one by one", "-", "TEST_POSTGRES_URL is not set")
		return nil
	}
	var rates [2]float64
	for i, one := range []bool{false, true} {
		name := "postgres-" + strconv.Itoa(i)
		fresh, err := newDatabase(ctx, server, fmt.Sprintf("bench_%d_%d", os.Getpid(), i))
		if err != nil {
			return err
		}
		if one {
			if rates[i], err = b.storeAlone(ctx, name, fresh, true); err != nil {
				return err
			}
			continue
		}
		d, err := b.bed(ctx, name, fresh)
		if err != nil {
			return err
		}
		app, err := d.app()
		if err != nil {
			d.stop()
			return err
		}
		l := d.updates(app, b.time, updateSpread)
		d.stop()
		if l.failed != nil {
			return l.failed
		}
		rates[i] = l.rate
	}
	b.note("UpdateEndpoint, signed HTTPS, PostgreSQL", fmt.Sprintf("%.0f/s", rates[0]), "twice one by one",
		fmt.Sprintf("%.0f/s one statement a call, store alone (%.1f times)", rates[1], rates[0]/rates[1]),
		fmt.Sprintf("%d clients, coalesced; fsync on; everything on the same cores", clients))
	return nil
}

// loadAlone is the ceiling of the import figure: as many rows of that size, each
// sealed, under a key and two index values, with its change, written straight
// into a store of this process, four thousand in an update.
func (b *benchmark) loadAlone(ctx context.Context) (float64, error) {
	st, stop, err := b.store(ctx, "load-alone", "", false)
	if err != nil {
		return 0, err
	}
	defer stop()
	const each = 4000
	kind := store.Kind{Name: "row", Rule: changelog.RuleRecord}
	body := make([]byte, 480)
	begin := time.Now()
	for from := 0; from < b.rows; from += each {
		n := min(each, b.rows-from)
		keys, indexes, touches := make([]string, n), make([][2]store.Index, n), make([]store.Touch, 0, 3*n)
		for i := range n {
			name := strconv.Itoa(from + i)
			keys[i] = st.Blind(name)
			for x, index := range [...]string{"address", "user"} {
				indexes[i][x] = st.Hashed(kind, store.Index{Name: index, Value: name})
				touches = append(touches, store.Touch{Kind: kind, Index: indexes[i][x]})
			}
			touches = append(touches, store.Touch{Kind: kind, Key: keys[i]})
		}
		if err := st.Update(ctx, func(tx *store.Tx) error {
			for i := range n {
				if err := tx.Put(kind, keys[i], append(body[:470:480], keys[i][:10]...), indexes[i][:]...); err != nil {
					return err
				}
			}
			return nil
		}, touches...); err != nil {
			return 0, err
		}
	}
	return float64(b.rows) / time.Since(begin).Seconds(), nil
}

// imports measures the import of many rows, then counts over them.
func (b *benchmark) imports(ctx context.Context) error {
	alone, err := b.loadAlone(ctx)
	if err != nil {
		return err
	}
	d, err := b.bed(ctx, "import", "")
	if err != nil {
		return err
	}
	defer d.stop()
	app, err := d.app()
	if err != nil {
		return err
	}
	took, err := d.importRows(ctx, app, b.rows)
	if err != nil {
		return err
	}
	rate := float64(b.rows) / took.Seconds()
	b.note("import of CSV, SQLite", fmt.Sprintf("%.0f rows/s, %.0f MiB peak", rate, d.resident(true)), "25,000 rows/s under 1.5 GiB",
		fmt.Sprintf("%.0f rows/s into the store alone (%.0f %%)", alone, 100*rate/alone), fmt.Sprintf("%d rows of 3 attributes, 2 metrics, a user; %s", b.rows, took.Round(100*time.Millisecond)))
	if !b.wants("count") {
		return nil
	}
	return b.count(ctx, d, app)
}

// importRows writes a file of rows, imports it, and returns how long that took.
func (d *bed) importRows(ctx context.Context, app string, rows int) (time.Duration, error) {
	if err := writeCSV(filepath.Join(d.path("buckets"), "bench"), rows); err != nil {
		return 0, err
	}
	begin := time.Now()
	var job pinpoint.ImportJobResponse
	if err := d.client.call(ctx, "mobiletargeting", "POST", "/v1/apps/"+app+"/jobs/import", nil, map[string]any{
		"Format": "CSV", "S3Url": "s3://bench/rows.csv", "RoleArn": "arn:aws:iam::" + localAccount + ":role/import", "RegisterEndpoints": true,
	}, &job); err != nil {
		return 0, err
	}
	for job.JobStatus != pinpoint.JobStatusCompleted {
		if job.JobStatus == pinpoint.JobStatusFailed {
			return 0, fmt.Errorf("import failed: %v", job.Failures)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := d.client.call(ctx, "mobiletargeting", "GET", "/v1/apps/"+app+"/jobs/import/"+job.Id, nil, nil, &job); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// updatesPerSecond is the load under which segments are counted.
const updatesPerSecond = 2000

// count asks for a three-condition segment again and again while endpoints
// change, and takes the node's own measure of each evaluation.
func (b *benchmark) count(ctx context.Context, d *bed, app string) error {
	criteria := `{"Dimensions":{"Attributes":{"Plan":{"AttributeType":"EXCLUSIVE","Values":["gold"]}},` +
		`"Metrics":{"Orders":{"ComparisonOperator":"GREATER_THAN","Value":40}},` +
		`"Demographic":{"Platform":{"DimensionType":"INCLUSIVE","Values":["android"]}}}}`
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var sent atomic.Int64
	var load sync.WaitGroup
	const batch = 50
	load.Go(func() {
		tick := time.NewTicker(time.Second * batch / updatesPerSecond)
		defer tick.Stop()
		rnd := rand.New(rand.NewPCG(5, 5))
		for {
			select {
			case <-tick.C:
			case <-loading.Done():
				return
			}
			load.Go(func() {
				var items []json.RawMessage
				for range batch {
					i := rnd.IntN(b.rows)
					items = append(items, fmt.Appendf(nil, `{"Id":"e%07d","Metrics":{"Orders":%d}}`, i, rand.IntN(90)))
				}
				if d.client.call(loading, "mobiletargeting", "PUT", "/v1/apps/"+app+"/endpoints", nil, map[string]any{"Item": items}, nil) == nil {
					sent.Add(batch)
				}
			})
		}
	})
	var took []time.Duration
	var last everpoint.SegmentCount
	begin := time.Now()
	for time.Since(begin) < b.time {
		var out everpoint.SegmentCount
		if err := d.client.call(ctx, adminService, "POST", "/everpoint/v1/apps/"+app+"/segment-counts", nil, rawJSON(criteria), &out); err != nil {
			return err
		}
		took = append(took, time.Duration(out.ElapsedMicroseconds)*time.Microsecond)
		last = out
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	elapsed := time.Since(begin)
	stop()
	load.Wait()
	slices.Sort(took)
	at := func(q float64) time.Duration {
		return took[min(len(took)-1, int(q*float64(len(took))))].Round(10 * time.Microsecond)
	}
	b.note("count of a three-condition segment", fmt.Sprintf("p50 %s, p99 %s", at(0.5), at(0.99)), "20 ms at p99",
		fmt.Sprintf("%s to compare three arrays of %d", scanAlone(b.rows), b.rows),
		fmt.Sprintf("%d endpoints, %d counts of %d members, during %.0f updates/s", b.rows, len(took), last.Count, float64(sent.Load())/elapsed.Seconds()))
	return nil
}

// scanAlone is the floor of the count figure: three comparisons for each of n
// endpoints, of numbers that lie side by side, without groups, sets or updates.
// It returns the median of some tries.
func scanAlone(n int) time.Duration {
	plan, platform, orders := make([]uint32, n), make([]uint32, n), make([]float64, n)
	for i := range n {
		plan[i], platform[i], orders[i] = uint32(i%4), uint32(i%3), float64(i%90)
	}
	var took []time.Duration
	for range 21 {
		begin, count := time.Now(), 0
		for i := range n {
			if plan[i] == 0 && orders[i] > 40 && platform[i] == 1 {
				count++
			}
		}
		if took = append(took, time.Since(begin)); count == n {
			return 0 // cannot be; it keeps the loop
		}
	}
	slices.Sort(took)
	return took[len(took)/2].Round(10 * time.Microsecond)
}

// writeCSV writes the rows of the import figure.
func writeCSV(dir string, rows int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "rows.csv"))
	if err != nil {
		return err
	}
	w := newBuffered(f)
	w.print("Id,ChannelType,Address,User.UserId,Attributes.Interests,Attributes.Plan,Attributes.City,Metrics.Orders,Metrics.Spend,Demographic.Platform,Location.Country\n")
	plans := [...]string{"gold", "silver", "bronze", "none"}
	platforms := [...]string{"ios", "android", "web"}
	cities := [...]string{"Porto", "Lisboa", "Leeds", "Lyon", "Torino"}
	countries := [...]string{"PT", "GB", "FR", "IT"}
	for i := range rows {
		w.print("e%07d,EMAIL,person%07d@tea.example,user-%06d,tea,%s,%s,%d,%d.25,%s,%s\n",
			i, i, i, plans[i%len(plans)], cities[i%len(cities)], i%90, i%1000, platforms[i%len(platforms)], countries[i%len(countries)])
	}
	return w.close()
}

// campaign measures a campaign by mail.
func (b *benchmark) campaign(ctx context.Context) error {
	d, err := b.bed(ctx, "campaign", "")
	if err != nil {
		return err
	}
	defer d.stop()
	ceiling, err := d.relayAlone(b.time / 2)
	if err != nil {
		return err
	}
	app, err := d.app()
	if err != nil {
		return err
	}
	if _, err := d.importRows(ctx, app, b.mails); err != nil {
		return err
	}
	type m = map[string]any
	call := func(method, path string, in, out any) error {
		return d.client.call(ctx, "mobiletargeting", method, path, nil, in, out)
	}
	body := "<html><body><h1>Dear {{User.UserId}}</h1>" + strings.Repeat("<p>Your {{Attributes.Plan}} plan in {{Attributes.City}} has {{Metrics.Orders}} orders. Come for a cup of tea.</p>\n", 45) + "</body></html>"
	if err := call("PUT", "/v1/apps/"+app+"/channels/email", m{
		"FromAddress": "news@tea.example", "Identity": "arn:aws:ses:" + localRegion + ":" + localAccount + ":identity/tea.example", "Enabled": true,
	}, nil); err != nil {
		return err
	}
	var seg pinpoint.SegmentResponse
	if err := call("POST", "/v1/apps/"+app+"/segments", m{"Name": "all", "Dimensions": m{}}, &seg); err != nil {
		return err
	}
	before := d.cpu()
	begin := time.Now()
	var campaign pinpoint.CampaignResponse
	if err := call("POST", "/v1/apps/"+app+"/campaigns", m{
		"Name": "bench", "SegmentId": seg.Id, "Schedule": m{"StartTime": "IMMEDIATE"},
		"MessageConfiguration": m{"EmailMessage": m{"Title": "Tea for {{User.UserId}}", "HtmlBody": body}},
	}, &campaign); err != nil {
		return err
	}
	var run everpoint.CampaignRun
	for run.State != everpoint.RunStateCompleted {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		path := "/everpoint/v1/apps/" + app + "/campaigns/" + url.PathEscape(campaign.Id) + "/run"
		if err := d.client.call(ctx, adminService, "GET", path, nil, nil, &run); err != nil {
			return err
		}
		if run.State == everpoint.RunStateFailed {
			return fmt.Errorf("the campaign failed after %d messages", run.Sent)
		}
	}
	took := time.Since(begin)
	cpu := d.cpu() - before
	b.note("email campaign to a loopback relay", fmt.Sprintf("%.0f messages/s, %.3f ms CPU each, %.0f MiB peak",
		float64(run.Sent)/took.Seconds(), cpu.Seconds()*1000/float64(max(run.Sent, 1)), d.resident(true)),
		"4,000/s, 0.25 ms, under 300 MiB", fmt.Sprintf("%.0f/s through the courier alone", ceiling),
		fmt.Sprintf("%d personalised mails of 5 KB, ledger on, relay on the same cores", run.Sent))
	return nil
}

// relayAlone is the ceiling of the campaign figure: the courier and the relay
// with messages of the same size, without rendering, ledger or store.
func (d *bed) relayAlone(total time.Duration) (float64, error) {
	c, err := smtp.New(smtp.Config{Addr: d.address(1), Name: "bench.everpoint", TLS: smtp.TLSOff}, nil)
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(d.ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	defer func() { stop(); <-ended }()
	data := []byte("From: news@tea.example\r\nTo: person@tea.example\r\nSubject: Tea\r\nMessage-ID: <bench@tea.example>\r\n\r\n" +
		strings.Repeat("Your gold plan in Porto has 40 orders. Come for a cup of tea, said the host once more.\r\n", 58))
	var n atomic.Int64
	begin := time.Now()
	end := begin.Add(total)
	var done sync.WaitGroup
	for range 256 {
		done.Go(func() {
			for time.Now().Before(end) {
				o := c.Send(d.ctx, &courier.Message{ID: "bench", From: "news@tea.example", To: "person@tea.example", Mail: &courier.Mail{Data: data}})
				if o.Status == courier.Accepted {
					n.Add(1)
				}
			}
		})
	}
	done.Wait()
	return float64(n.Load()) / time.Since(begin).Seconds(), nil
}
