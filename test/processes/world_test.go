package processes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/cmd/carriers"
	"github.com/everpoint/everpoint/cmd/node"
)

// The tenant of every test.
const (
	region      = "us-east-1"
	account     = "111122223333"
	accessKeyID = "AKIAEVERPOINTTEST001"
	secretKey   = "a-secret-of-the-tests-that-nobody-may-read"
	origin      = "+12065550100" // texts go out from it
)

// waitMax bounds every wait for something that must happen.
const waitMax = 2 * time.Minute

var binary string // the product, built once

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "everpoint-processes")
	if err == nil {
		binary = filepath.Join(dir, "everpoint")
		build := exec.Command("go", "build", "-o", binary, "github.com/everpoint/everpoint/cmd/everpoint")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, e := build.CombinedOutput(); e != nil {
			err = fmt.Errorf("build everpoint: %w\n%s", e, out)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// seeded returns the test's chance, and prints its seed.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("EVERPOINT_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("EVERPOINT_TEST_SEED: %v", err)
		}
	}
	t.Logf("EVERPOINT_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// until waits for a condition, which is asked every few milliseconds.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	untilEvery(t, 10*time.Millisecond, what, condition)
}

func untilEvery(t *testing.T, every time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(waitMax)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v: %s", waitMax, what)
		}
	}
}

// process is one running program.
type process struct {
	name string
	args []string
	log  string // file

	cmd  *exec.Cmd
	gone chan struct{} // closed when it ended
	err  error         // why, once gone
}

func (p *process) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	cmd, gone := p.cmd, make(chan struct{})
	p.gone = gone
	go func() {
		p.err = cmd.Wait()
		close(gone)
	}()
}

// kill ends the process by SIGKILL and waits until it is gone.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.gone
}

// stop ends the process politely; it must end without an error.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("stop %s: %v", p.name, err)
	}
	select {
	case <-p.gone:
		if p.err != nil {
			t.Errorf("%s ended with %v\n%s", p.name, p.err, p.tail())
		}
	case <-time.After(waitMax):
		t.Fatalf("%s does not stop", p.name)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// tail is the end of its log, for a failing test.
func (p *process) tail() string {
	const lines = 30
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// world is one test's Region and what is around it.
type world struct {
	t        *testing.T
	dir      string
	smtp     string // host:port
	smpp     string // host:port
	outbox   string // URL
	local    *carriers.Carriers
	nodes    []*process
	listens  []string // of the nodes, host:port
	http     *http.Client
	clusters map[string]*cluster // PostgreSQL of the Regions that have one, by name
	network  *network            // between the processes of a voting world; nil: they reach each other directly
	told     int                 // of the outbox's messages, that count no more
}

// setting is how a world differs from one node on SQLite with carriers that run
// as a process.
type setting struct {
	nodes    int    // 0 means 1
	postgres string // URL
	nodeDir  string // of the node's database; empty means below the world's own
	inside   bool   // the carriers run in the test, which may then tell them what to do
}

func newWorld(t *testing.T, s setting) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}}
	t.Cleanup(w.close)
	if s.inside {
		w.carriersInside()
	} else {
		w.carriersProcess()
	}
	w.write("secret", []byte(secretKey))
	if err := os.MkdirAll(w.path("buckets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if s.postgres != "" {
		w.write("postgres.url", []byte(s.postgres))
	}
	for i := range max(s.nodes, 1) {
		name := fmt.Sprintf("node-%d", i+1)
		c := node.Config{
			Node: name, Region: region, Dir: name, KeysDir: "keys", Local: true,
			Door:    node.Door{Listen: freeAddress(t), PlainLoopback: true},
			Account: []node.Account{{ID: account, AccessKeyID: accessKeyID, SecretFile: "secret"}},
			Mail:    &node.Mail{Addr: w.smtp, TLS: "off"},
			Routes:  []node.Route{{Name: "centre", Addresses: []string{w.smpp}, SystemID: region, Binds: 2, Window: 32}},
			Numbers: []node.Number{{Number: origin, Type: "LONG_CODE", Country: "US", Route: "centre"}},
			Import:  node.Import{BucketDir: "buckets"},
		}
		if s.postgres != "" {
			c.PostgresURLFile = "postgres.url"
		}
		if s.nodeDir != "" {
			c.Dir = s.nodeDir
		}
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		w.write(name+".json", data)
		w.listens = append(w.listens, c.Door.Listen)
		w.nodes = append(w.nodes, &process{name: name, args: []string{"serve", "-config", w.path(name + ".json")}, log: w.path(name + ".log")})
	}
	for i := range w.nodes {
		w.start(i)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, data []byte) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start starts the ith node and waits until it is ready.
func (w *world) start(i int) {
	w.t.Helper()
	w.nodes[i].start(w.t)
	w.ready(i)
}

func (w *world) ready(i int) {
	w.t.Helper()
	n := w.nodes[i]
	until(w.t, n.name+" is not ready", func() bool {
		if n.ended() {
			w.t.Fatalf("%s ended: %v\n%s", n.name, n.err, n.tail())
		}
		return w.status("http://"+w.listens[i]+"/readyz") == http.StatusOK
	})
}

// status is the status of a GET; 0 when there is no answer.
func (w *world) status(url string) int {
	resp, err := w.http.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (w *world) close() {
	for _, n := range w.nodes {
		if w.t.Failed() && n.cmd != nil {
			w.t.Logf("the end of %s's log:\n%s", n.name, n.tail())
		}
		n.kill()
	}
}

// carriersInside runs the carriers in the test.
func (w *world) carriersInside() {
	w.t.Helper()
	const any = "127.0.0.1:0"
	w.local = carriers.New(carriers.Config{SMTP: any, SMPP: any, Outbox: any})
	if err := w.local.Listen(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := w.local.Run(ctx); err != nil {
			w.t.Errorf("carriers: %v", err)
		}
	})
	w.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	w.smtp, w.smpp, w.outbox = w.local.Addr("smtp"), w.local.Addr("smpp"), "http://"+w.local.Addr("outbox")
}

var carriersReady = regexp.MustCompile(`carriers ready: smtp (\S+), smpp (\S+), outbox (\S+)/`)

// carriersProcess runs the carriers as a process of their own.
func (w *world) carriersProcess() {
	w.t.Helper()
	const any = "127.0.0.1:0"
	p := &process{name: "carriers", args: []string{"carriers", "-smtp", any, "-smpp", any, "-outbox", any}, log: w.path("carriers.log")}
	p.start(w.t)
	w.t.Cleanup(p.kill)
	until(w.t, "the carriers are not ready", func() bool {
		data, err := os.ReadFile(p.log)
		if err != nil || p.ended() {
			w.t.Fatalf("the carriers ended: %v %v\n%s", err, p.err, data)
		}
		m := carriersReady.FindSubmatch(data)
		if m == nil {
			return false
		}
		w.smtp, w.smpp, w.outbox = string(m[1]), string(m[2]), string(m[3])
		return true
	})
}

// The ports of the nodes lie below those that the system gives to outgoing
// connections, so that nobody takes one while its node is away.
const (
	portFirst = 20_000
	portCount = 12_000
)

var portsMu sync.Mutex

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 200 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(portFirst+rand.IntN(portCount)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port found")
	return ""
}

// message is a message of the outbox.
type message struct {
	N         int    `json:"n"`
	Channel   string `json:"channel"`
	To        string `json:"to"`
	MessageID string `json:"messageId"`
}

const answerBytesMax = 64 << 20

func (w *world) fromOutbox(path string, out any) {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.outbox+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := w.http.Do(req)
	if err != nil {
		w.t.Fatalf("outbox: %v", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(out); err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("outbox: %s %v", resp.Status, err)
	}
}

// wentOut is how many messages the carriers took.
func (w *world) wentOut() (n int) {
	w.t.Helper()
	w.fromOutbox("/count", &n)
	return n
}

// messages is everything the carriers took.
func (w *world) messages() []message {
	w.t.Helper()
	var all []message
	for {
		after := w.told
		if len(all) > 0 {
			after = all[len(all)-1].N
		}
		var page []message
		w.fromOutbox(fmt.Sprintf("/?after=%d", after), &page)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}
