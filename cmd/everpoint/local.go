package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/router"
)

// The processes of `everpoint local`; each has NAME.pid, NAME.log and, but for the
// carriers, NAME.json in the directory. The witness is in the router's process.
const (
	localRouter   = "router"
	localWitness  = "witness"
	localCarriers = "carriers"
)

// What belongs to everybody who tries things out.
const (
	localAccount = "111122223333"
	localKey     = "AKIAEVERPOINTLOCAL01"
	localNumber  = "+12065550100"
)

// localRegion is the Region that is always there, and localRegions are all that
// can be, in the order in which they are taken.
const localRegion = "us-east-1"

var localRegions = []string{localRegion, "eu-west-1"}

// The ports, counted from -port-base. One Region alone has its door at portAPI,
// and uses the first four.
const (
	portAPI = iota
	portSMTP
	portSMPP
	portOutbox
	portDoors
	portPeers   = portDoors + 2
	portWitness = portPeers + 2
	portStatus  = portWitness + 1
	portPages   = portStatus + 1
	portsEnd    = portPages + 2
)

func local(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "start" {
		return localStart(ctx, args[1:], stdout, stderr)
	}
	fs := flags("local", `local [flags]
       everpoint local start [flags] NAME

Runs two Regions that hold the same, a router with the witness in its process
before them, and carriers that only pretend, each a process of its own, so that
one can be killed. Clients call the router. Writes local.env with everything a
client needs, prints a line with "ready" when everything answers, and stops them
all when it ends. With -regions 1 one Region is there alone, and called itself.

With "start", starts a process of a running local again after it died: us-east-1,
eu-west-1, router or carriers. Its process id is in NAME.pid in the directory, its
log in NAME.log.

It is made for trying things out: any sender address may be used, quotas are
lifted, and the credentials lie in files.`, stderr)
	l := &laptop{out: stdout}
	n := l.flags(fs)
	if done, err := parse(fs, args); done {
		return err
	}
	switch {
	case fs.NArg() > 0:
		fs.Usage()
		return errUsage
	case *n < 1 || *n > len(localRegions):
		return fmt.Errorf("-regions %d: there can be 1 or %d", *n, len(localRegions))
	case len(l.postgres) > 0 && len(l.postgres) != *n:
		return fmt.Errorf("-postgres-url is given %d times, and there are %d Regions: each needs a database of its own", len(l.postgres), *n)
	}
	l.regions = localRegions[:*n]
	return l.run(ctx)
}

func localStart(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("local start", "local start [flags] NAME\n\nStarts a process of a local directory again after it died.", stderr)
	l := &laptop{out: stdout}
	l.dirFlag(fs)
	if done, err := parse(fs, args); done {
		return err
	}
	if fs.NArg() != 1 {
		fs.Usage()
		return errUsage
	}
	name := fs.Arg(0)
	if err := l.settle(); err != nil {
		return err
	}
	recorded, err := l.recall()
	if err != nil {
		return err
	}
	l.portBase, l.bodies, l.regions = recorded.PortBase, recorded.Bodies, localRegions[:recorded.regions()]
	if !slices.Contains(l.processes(), name) {
		return fmt.Errorf("no process %q: there are %s", name, strings.Join(l.processes(), ", "))
	}
	if l.alive(name) {
		return fmt.Errorf("%s is running", name)
	}
	return l.start(ctx, name)
}

// laptop is the local edition.
type laptop struct {
	dir      string
	portBase int
	regions  []string // one, or those of a group
	postgres []string // URL for each Region; none: SQLite
	bodies   int
	out      io.Writer
}

func (l *laptop) dirFlag(fs *flag.FlagSet) {
	fs.StringVar(&l.dir, "dir", ".local/everpoint", "directory for data, configuration, logs and pids")
}

// flags defines the flags; what it returns is how many Regions are wanted.
func (l *laptop) flags(fs *flag.FlagSet) *int {
	l.dirFlag(fs)
	fs.IntVar(&l.portBase, "port-base", 7480, `first of the ports to use on 127.0.0.1: API, SMTP, SMPP, outbox; with two Regions
eight more: their doors, their peers, witness, router's status, their pages`)
	fs.Func("postgres-url", "keep the Region in this PostgreSQL instead of SQLite; once for each Region", func(s string) error {
		l.postgres = append(l.postgres, s)
		return nil
	})
	fs.IntVar(&l.bodies, "outbox-body-bytes", 0, "how much of each body the outbox keeps; 0 means 4096, -1 none")
	return fs.Int("regions", len(localRegions), "how many Regions there are: 1 or 2")
}

// grouped says that there are several Regions, with router and witness.
func (l *laptop) grouped() bool { return len(l.regions) > 1 }

// processes are the names of all, in the order in which they start.
func (l *laptop) processes() []string {
	names := append([]string{localCarriers}, l.regions...)
	if l.grouped() {
		names = append(names, localRouter)
	}
	return names
}

// voters are who decides in the group.
func (l *laptop) voters() []string { return append(slices.Clone(l.regions), localWitness) }

// door is the address of the ith Region's door.
func (l *laptop) door(i int) string {
	if !l.grouped() {
		return l.address(portAPI)
	}
	return l.address(portDoors + i)
}

// peerURL is where a voter is called by the others.
func (l *laptop) peerURL(name string) string {
	port := portWitness
	if i := slices.Index(l.regions, name); i >= 0 {
		port = portPeers + i
	}
	return "https://" + l.address(port)
}

func (l *laptop) settle() error {
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return err
	}
	l.dir = dir
	return os.MkdirAll(dir, 0o700)
}

// recorded is what `local start` and a later local have to know of the one that
// ran.
type recorded struct{ PortBase, Bodies, Regions int }

// regions is how many there are; a record that does not say has one.
func (r recorded) regions() int { return min(max(r.Regions, 1), len(localRegions)) }

// record keeps it in the directory, and recall reads it.
func (l *laptop) record() error {
	return writeJSON(l.path("local.json"), recorded{l.portBase, l.bodies, len(l.regions)})
}

func (l *laptop) recall() (r recorded, err error) {
	data, err := os.ReadFile(l.path("local.json"))
	if errors.Is(err, os.ErrNotExist) {
		return r, fmt.Errorf("%w in %s", errNoLocal, l.dir)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", l.path("local.json"), err)
	}
	return r, nil
}

var errNoLocal = errors.New("no local was started")

func (l *laptop) path(name string) string { return filepath.Join(l.dir, name) }

// address is the nth of the ports.
func (l *laptop) address(n int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.portBase+n))
}

func (l *laptop) run(ctx context.Context) error {
	if err := l.settle(); err != nil {
		return err
	}
	switch before, err := l.recall(); {
	case errors.Is(err, errNoLocal):
	case err != nil:
		return err
	case before.regions() > len(l.regions):
		return fmt.Errorf("%s holds %d Regions: leave -regions out, or give another -dir", l.dir, before.regions())
	}
	if slices.ContainsFunc(l.processes(), l.alive) {
		return fmt.Errorf("a local is running in %s", l.dir)
	}
	if err := l.write(); err != nil {
		return err
	}
	defer l.stop()
	for _, name := range l.processes() {
		if err := l.start(ctx, name); err != nil {
			return err
		}
	}
	control := ""
	if l.grouped() {
		var err error
		if control, err = l.gather(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(l.out, "everpoint local is ready: API https://%s, outbox http://%s/, settings in %s\n",
		l.address(portAPI), l.address(portOutbox), l.path("local.env"))
	if l.grouped() {
		if err := l.tell(control); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// tell prints who is where, and what to try.
func (l *laptop) tell(control string) error {
	var rows [][]string
	for i, name := range l.regions {
		row := []string{"  " + name, "https://" + l.door(i), "a Region; its page: http://" + l.address(portPages+i) + "/"}
		if name == control {
			row[2] = "a Region, has control; its page: http://" + l.address(portPages+i) + "/"
		}
		rows = append(rows, row)
	}
	rows = append(
		rows,
		[]string{"  " + localRouter, "https://" + l.address(portAPI), "before both; its status: http://" + l.address(portStatus) + router.StatusPath},
		[]string{"  " + localWitness, l.peerURL(localWitness), "votes, holds no data; in the router's process"},
	)
	if err := table(l.out, rows); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(l.out, "Try, in another shell:\n  . %s\n  %s region status\n  kill -9 $(cat %s)\n  %s local start -dir %s %s\n",
		l.path("local.env"), self, l.path(l.regions[1]+".pid"), self, l.dir, l.regions[1])
	return nil
}

// gather waits until the Regions and the witness vote and both Regions are in
// sync, and returns which one has control. That is the first one as long as nobody
// has moved it.
func (l *laptop) gather(ctx context.Context) (control string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		g, err := l.group(ctx)
		reason := err
		if err == nil {
			reason = gathered(g, len(l.regions))
		}
		switch {
		case reason != nil:
		case *g.Control.Region != l.regions[0] && g.Control.Epoch == 1:
			p, err := planControl(g, l.regions[0])
			if err != nil {
				return "", err
			}
			c, err := l.client()
			if err != nil {
				return "", err
			}
			reason = c.call(ctx, adminService, http.MethodPut, p.path, nil, p.request, nil)
		default:
			return *g.Control.Region, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the Regions do not gather: %w; see %s", errors.Join(reason, ctx.Err()), l.path("*.log"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// client calls the router with the local's credentials.
func (l *laptop) client() (*client, error) {
	secret, err := l.secret()
	if err != nil {
		return nil, err
	}
	t := target{endpoint: "https://" + l.address(portAPI), region: l.regions[0], ca: l.path("ca.pem")}
	return t.as(sigv4.Credentials{AccessKeyID: localKey, Secret: sigv4.SecretKey(secret)})
}

func (l *laptop) group(ctx context.Context) (*everpoint.Group, error) {
	c, err := l.client()
	if err != nil {
		return nil, err
	}
	defer c.http.CloseIdleConnections()
	g := &everpoint.Group{}
	return g, c.call(ctx, adminService, http.MethodGet, groupPath, nil, nil, g)
}

var errScattered = errors.New("not all are there yet")

// gathered returns what is missing until all Regions are in sync, all voters have
// a vote, and a Region has control.
func gathered(g *everpoint.Group, regions int) error {
	if err := undecided(g); err != nil {
		return err
	}
	votes := 0
	for _, v := range g.Quorum.Voters {
		if v.Admitted && !v.Learner {
			votes++
		}
	}
	inSync := 0
	for i := range g.Regions {
		if g.Regions[i].InSync {
			inSync++
		}
	}
	if inSync < regions || votes < regions+1 || g.Control.Region == nil {
		return fmt.Errorf("%w: %d of %d Regions are in sync, %d of %d voters have a vote", errScattered, inSync, regions, votes, regions+1)
	}
	return nil
}

var errEndedEarly = errors.New("it did not come to answer")

// startTimeout bounds how long a process may take to answer.
const startTimeout = 60 * time.Second

// stopTimeout bounds how long processes may take to finish what is under way.
const stopTimeout = 40 * time.Second

// start starts a process in a session of its own and waits until it answers.
func (l *laptop) start(ctx context.Context, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args, ready := l.program(name)
	log, err := os.OpenFile(l.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not CommandContext: the process outlives a `local start` that made it.
	cmd := exec.Command(self, args...) //nolint:noctx // see above
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	if err := os.WriteFile(l.path(name+".pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for {
		err := l.answers(ready)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w; see %s", name, err, l.path(name+".log"))
		}
		select {
		case err := <-exited:
			return fmt.Errorf("%s ended: %w; see %s", name, errors.Join(err, errEndedEarly), l.path(name+".log"))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// program is the command line of a process, and what answers when it is ready.
func (l *laptop) program(name string) (args []string, ready string) {
	switch name {
	case localCarriers:
		return []string{
			"carriers", "-smtp", l.address(portSMTP), "-smpp", l.address(portSMPP), "-outbox", l.address(portOutbox),
			"-body-bytes", strconv.Itoa(l.bodies),
		}, "http://" + l.address(portOutbox) + "/count"
	case localRouter:
		return []string{"router", "-config", l.path(name + ".json")}, "http://" + l.address(portStatus) + router.StatusPath
	default:
		return []string{"serve", "-config", l.path(name + ".json")}, "https://" + l.door(slices.Index(l.regions, name)) + "/readyz"
	}
}

func (l *laptop) answers(url string) error {
	to := target{endpoint: url, ca: l.path("ca.pem")}
	config, err := to.tls()
	if err != nil {
		return err
	}
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := c.Get(url) //nolint:noctx // bounded by the client's timeout
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

func (l *laptop) pid(name string) int {
	data, err := os.ReadFile(l.path(name + ".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}

// alive reports whether the process of a pid file is one of ours.
func (l *laptop) alive(name string) bool {
	pid := l.pid(name)
	if pid == 0 {
		return false
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.Contains([]string{"serve", "router", "carriers"}, argument(line, 1)) && bytes.Contains(line, []byte(l.mark(name)))
}

// mark is an argument that tells this local's processes from another's.
func (l *laptop) mark(name string) string {
	if name == localCarriers {
		return l.address(portSMTP)
	}
	return l.path(name + ".json")
}

func argument(cmdline []byte, n int) string {
	parts := bytes.Split(cmdline, []byte{0})
	if n >= len(parts) {
		return ""
	}
	return string(parts[n])
}

// stop ends the processes, politely first: the router, so that nothing new comes,
// the Regions together, and what they call last.
func (l *laptop) stop() {
	for _, names := range [][]string{{localRouter}, l.regions, {localCarriers}} {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !l.alive(name) })
		for _, name := range names {
			_ = syscall.Kill(l.pid(name), syscall.SIGTERM)
		}
		deadline := time.Now().Add(stopTimeout)
		for slices.ContainsFunc(names, l.alive) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		for _, name := range names {
			if l.alive(name) {
				_ = syscall.Kill(l.pid(name), syscall.SIGKILL)
			}
			_ = os.Remove(l.path(name + ".pid"))
		}
	}
}
