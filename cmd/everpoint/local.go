package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
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

	"github.com/everpoint/everpoint/cmd/node"
)

// The processes of `everpoint local`; each has NAME.pid, NAME.log and, for a
// node, NAME.json in the directory.
const (
	localRegion   = "us-east-1"
	localCarriers = "carriers"
	localAccount  = "111122223333"
	localNumber   = "+12065550100"
)

func local(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "start" {
		return localStart(ctx, args[1:], stdout, stderr)
	}
	fs := flags("local", `local [flags]
       everpoint local start [flags] NAME

Runs a node and carriers that only pretend, each its own process, so that one can
be killed. Writes local.env with everything a client needs, prints a line with
"ready" when everything answers, and stops them all when it ends. With
"start", starts a process of a running local again after it died.

It is made for trying things out: any sender address may be used, quotas are
lifted, and the credentials lie in files.`, stderr)
	l := &laptop{out: stdout}
	l.flags(fs)
	if done, err := parse(fs, args); done {
		return err
	}
	if fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
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
	if name != localRegion && name != localCarriers {
		return fmt.Errorf("no process %q: it is %s or %s", name, localRegion, localCarriers)
	}
	if err := l.settle(); err != nil {
		return err
	}
	if err := l.recall(); err != nil {
		return err
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
	postgres string
	bodies   int
	out      io.Writer
}

func (l *laptop) dirFlag(fs *flag.FlagSet) {
	fs.StringVar(&l.dir, "dir", ".local/everpoint", "directory for data, configuration, logs and pids")
}

func (l *laptop) flags(fs *flag.FlagSet) {
	l.dirFlag(fs)
	fs.IntVar(&l.portBase, "port-base", 7480, "first of the ports to use on 127.0.0.1: API, SMTP, SMPP, outbox")
	fs.StringVar(&l.postgres, "postgres-url", "", "keep the Region in this PostgreSQL instead of SQLite")
	fs.IntVar(&l.bodies, "outbox-body-bytes", 0, "how much of each body the outbox keeps; 0 means 4096, -1 none")
}

func (l *laptop) settle() error {
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return err
	}
	l.dir = dir
	return os.MkdirAll(dir, 0o700)
}

// recorded is what `local start` has to know of the local that runs.
type recorded struct{ PortBase, Bodies int }

// record keeps it in the directory, and recall reads it.
func (l *laptop) record() error {
	data, err := json.Marshal(recorded{l.portBase, l.bodies})
	if err != nil {
		return err
	}
	return os.WriteFile(l.path("local.json"), data, 0o600)
}

func (l *laptop) recall() error {
	data, err := os.ReadFile(l.path("local.json"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no local was started in %s", l.dir)
	}
	if err != nil {
		return err
	}
	var r recorded
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("%s: %w", l.path("local.json"), err)
	}
	l.portBase, l.bodies = r.PortBase, r.Bodies
	return nil
}

func (l *laptop) path(name string) string { return filepath.Join(l.dir, name) }

// address is the nth of the ports.
func (l *laptop) address(n int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.portBase+n))
}

func (l *laptop) run(ctx context.Context) error {
	if err := l.settle(); err != nil {
		return err
	}
	if l.alive(localRegion) || l.alive(localCarriers) {
		return fmt.Errorf("a local is running in %s", l.dir)
	}
	if err := l.write(); err != nil {
		return err
	}
	defer l.stop()
	for _, name := range []string{localCarriers, localRegion} {
		if err := l.start(ctx, name); err != nil {
			return err
		}
	}
	fmt.Fprintf(l.out, "everpoint local is ready: API https://%s, outbox http://%s/, settings in %s\n", l.address(0), l.address(3), l.path("local.env"))
	<-ctx.Done()
	return nil
}

// write makes what the processes need: certificates, credentials, settings.
// What is there from an earlier run is kept.
func (l *laptop) write() error {
	if err := l.record(); err != nil {
		return err
	}
	if err := l.certificates(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	secret, err := os.ReadFile(l.path("secret"))
	if errors.Is(err, os.ErrNotExist) {
		b := make([]byte, 30)
		if _, err := rand.Read(b); err != nil {
			return err
		}
		secret = []byte(base64.StdEncoding.EncodeToString(b))
		err = os.WriteFile(l.path("secret"), secret, 0o600)
	}
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	buckets := l.path("buckets")
	if err := os.MkdirAll(buckets, 0o700); err != nil {
		return err
	}
	cfg := &node.Config{
		Node: localRegion + "-1", Region: localRegion, Dir: localRegion, Local: true,
		Door:    node.Door{Listen: l.address(0), CertFile: "node.pem", KeyFile: "node.key"},
		Account: []node.Account{{ID: localAccount, AccessKeyID: "AKIAEVERPOINTLOCAL01", SecretFile: "secret"}},
		Mail:    &node.Mail{Addr: l.address(1), TLS: "off"},
		Routes:  []node.Route{{Name: "centre", Addresses: []string{l.address(2)}, SystemID: localRegion, Binds: 2, Window: 32}},
		Numbers: []node.Number{{Number: localNumber, Type: "LONG_CODE", Country: "US", Route: "centre"}},
		Import:  node.Import{BucketDir: "buckets"},
		Events:  node.Events{Dir: "events", AllApps: true},
	}
	if l.postgres != "" {
		if err := os.WriteFile(l.path("postgres.url"), []byte(l.postgres), 0o600); err != nil {
			return err
		}
		cfg.PostgresURLFile = "postgres.url"
	}
	data, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.path(localRegion+".json"), data, 0o600); err != nil {
		return err
	}
	url := "https://" + l.address(0)
	env := [][2]string{
		{"AWS_ACCESS_KEY_ID", "AKIAEVERPOINTLOCAL01"},
		{"AWS_SECRET_ACCESS_KEY", strings.TrimSpace(string(secret))},
		{"AWS_REGION", localRegion},
		{"AWS_DEFAULT_REGION", localRegion},
		{"AWS_ENDPOINT_URL", url},
		{"AWS_CA_BUNDLE", l.path("ca.pem")},
		{"EVERPOINT_REGIONS", localRegion + "=" + url},
		{"EVERPOINT_ACCOUNT_ID", localAccount},
		{"EVERPOINT_OUTBOX_URL", "http://" + l.address(3) + "/"},
		{"EVERPOINT_BUCKETS", buckets},
	}
	var text bytes.Buffer
	for _, kv := range env {
		fmt.Fprintf(&text, "export %s='%s'\n", kv[0], kv[1])
	}
	return os.WriteFile(l.path("local.env"), text.Bytes(), 0o600)
}

// certificates makes a CA of our own and a certificate for this machine.
func (l *laptop) certificates() error {
	if _, err := os.Stat(l.path("node.pem")); err == nil {
		return nil
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "Everpoint local CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return err
	}
	if err := writePEM(l.path("ca.pem"), "CERTIFICATE", der); err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, authorityKey); err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(l.path("node.key"), "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	return writePEM(l.path("node.pem"), "CERTIFICATE", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

var errEndedEarly = errors.New("it did not come to answer")

// startTimeout bounds how long a process may take to answer.
const startTimeout = 60 * time.Second

// start starts a process in a session of its own and waits until it answers.
func (l *laptop) start(ctx context.Context, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"serve", "-config", l.path(name + ".json")}
	ready := func() error { return l.answers("https://" + l.address(0) + "/readyz") }
	if name == localCarriers {
		args = []string{
			"carriers", "-smtp", l.address(1), "-smpp", l.address(2), "-outbox", l.address(3),
			"-body-bytes", strconv.Itoa(l.bodies),
		}
		ready = func() error { return l.answers("http://" + l.address(3) + "/count") }
	}
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
		err := ready()
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

func (l *laptop) answers(url string) error {
	to := target{endpoint: url, region: localRegion, ca: l.path("ca.pem")}
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
	return err == nil && slices.Contains([]string{"serve", "carriers"}, argument(line, 1)) && bytes.Contains(line, []byte(l.mark(name)))
}

// mark is an argument that tells this local's processes from another's.
func (l *laptop) mark(name string) string {
	if name == localCarriers {
		return l.address(1)
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

// stop ends the processes: politely first.
func (l *laptop) stop() {
	for _, name := range []string{localRegion, localCarriers} {
		if !l.alive(name) {
			continue
		}
		pid := l.pid(name)
		_ = syscall.Kill(pid, syscall.SIGTERM)
		deadline := time.Now().Add(40 * time.Second)
		for l.alive(name) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = os.Remove(l.path(name + ".pid"))
	}
}
