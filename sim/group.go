package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// The hosts of a group.
const (
	near        = "eu-west-1"
	far         = "us-east-1"
	witnessName = "witness"
	relayHost   = "relay"
	centreHost  = "centre"
)

var (
	regionNames = []string{near, far}
	voterNames  = []string{near, far, witnessName}
)

func otherOf(region string) string {
	if region == near {
		return far
	}
	return near
}

// Group is two Regions, a witness, the network between them, and carriers.
type Group struct {
	*Carriers
	seed    uint64
	dir     string
	net     *Network
	regions map[string]*Member
	witness *Voter
	log     *slog.Logger
	// tap, when it is set, stands between a Region and what it hears of others: a
	// seam for planted bugs.
	tap *tap
	// duty, when it is set, stands between a Region and its place in the group: another
	// such seam.
	duty func(group.Duty) group.Duty
}

// Member is a Region of a group.
type Member struct {
	Region
	g    *Group
	skew atomic.Int64 // what its clock is ahead by
	// diary is what the disk held besides the database when the process died: the
	// process that is being stopped must not bring it up to date.
	diary map[string][]byte
}

// Voter is the witness of a group.
type Voter struct {
	process
	g    *Group
	node *node.Witness
	stop func()
}

// skewMax bounds by how much the clocks of two Regions are apart.
const skewMax = 400 * time.Millisecond

// NewGroup makes disks, a network and carriers that misbehave as the seed says.
// Clocks are apart by less than apart.
func NewGroup(seed uint64, dir string, apart time.Duration, log *slog.Logger) (*Group, error) {
	rnd := mathrand.New(mathrand.NewPCG(seed, 0x6a0b))
	g := &Group{Carriers: NewCarriers(rnd), seed: seed, dir: dir, net: NewNetwork(), regions: map[string]*Member{}, log: log}
	certificates, err := groupCertificates()
	if err != nil {
		return nil, err
	}
	for name, data := range certificates {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	for i, name := range regionNames {
		m := &Member{g: g, Region: Region{Carriers: g.Carriers, name: name, seed: seed<<1 + uint64(i), dir: filepath.Join(dir, name), log: log.With("region", name)}}
		if apart > 0 {
			m.skew.Store(rnd.Int64N(int64(apart)))
		}
		m.die = m.gone
		m.freeze = func() { g.net.Freeze(name, true) }
		for _, sub := range []string{"data", "keys"} {
			if err := os.MkdirAll(filepath.Join(m.dir, sub), 0o700); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(filepath.Join(m.dir, "keys", "hashing.json"), certificates["hashing.json"], 0o600); err != nil {
			return nil, err
		}
		if err := writeSecret(m.dir); err != nil {
			return nil, err
		}
		g.regions[name] = m
	}
	g.witness = &Voter{g: g}
	g.witness.die = func() { g.net.Gone(witnessName) }
	return g, nil
}

// groupCertificates makes, once for the process, what all groups share: an
// authority, a certificate for each voter, and the hashing keyset.
var groupCertificates = sync.OnceValues(func() (map[string][]byte, error) {
	out := map[string][]byte{}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "simulated group"},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, err
	}
	out["ca.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for i, name := range voterNames {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, DNSNames: []string{name},
			URIs: []*url.URL{replica.CertificateURI(name)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if der, err = x509.CreateCertificate(rand.Reader, leaf, ca, own.Public(), key); err != nil {
			return nil, err
		}
		secret, err := x509.MarshalPKCS8PrivateKey(own)
		if err != nil {
			return nil, err
		}
		out[name+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		out[name+".key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	}
	keys, err := os.MkdirTemp("", "sim-keys")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(keys)
	if _, err := store.LoadKeys(keys); err != nil {
		return nil, err
	}
	out["hashing.json"], err = os.ReadFile(filepath.Join(keys, "hashing.json"))
	return out, err
})

func peerURL(name string) string { return "https://" + peerAddr(name) }

func peerAddr(name string) string { return name + ":7443" }

func (g *Group) file(name string) string { return filepath.Join(g.dir, name) }

// serve runs the carriers until ctx ends.
func (g *Group) serve(ctx context.Context) (wait func(), err error) {
	mail, err := g.net.Listen(relayHost + ":25")
	if err != nil {
		return nil, err
	}
	text, err := g.net.Listen(centreHost + ":2775")
	if err != nil {
		return nil, err
	}
	return g.Carriers.serve(ctx, mail, text), nil
}

// world is what a process of the group is given in place of the world. thawed
// ends with the process.
func (g *Group) world(ctx context.Context, host string, skew *atomic.Int64, fault func(string) error, alive func() bool, pass func()) node.World {
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		if !alive() {
			return nil, errDead
		}
		return g.net.Dial(ctx, host, addr)
	}
	peers := func(next http.RoundTripper) http.RoundTripper {
		if g.tap != nil {
			next = tapped{g.tap, ctx, host, next}
		}
		return overtaking{g.net, ctx, next}
	}
	return node.World{
		Peers: peers, Duty: g.duty,
		Now:  func() time.Time { return time.Now().Add(time.Duration(skew.Load())) },
		Dial: dial, DialPeer: dial,
		Listen: func(_ context.Context, _, addr string) (net.Listener, error) { return g.net.Listen(addr) },
		Fault: func(point string) error {
			pass()
			// A frozen process writes nothing; it is dead or thawed when it goes on.
			_ = g.net.Thawed(ctx, host)
			return fault(point)
		},
	}
}

// Start begins a Region's life, which ends at the fatal commit point, or lasts
// when it is 0.
func (m *Member) Start(ctx context.Context, fatal int) error {
	life := m.begin(fatal)
	other := otherOf(m.name)
	cfg := m.config()
	cfg.Mail.Addr, cfg.Routes[0].Addresses = relayHost+":25", []string{centreHost + ":2775"}
	cfg.Door.RegionsAccepted = []string{near, far}
	cfg.Group = &node.Group{
		Listen: peerAddr(m.name), URL: peerURL(m.name), CAFile: m.g.file("ca.pem"), CertFile: m.g.file(m.name + ".pem"), KeyFile: m.g.file(m.name + ".key"),
		Peers: []node.Peer{{Region: other, URL: peerURL(other)}}, Witness: &node.Peer{Region: witnessName, URL: peerURL(witnessName)},
	}
	running, cancel := context.WithCancel(ctx)
	alive := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !m.dead && m.life == life
	}
	if err := m.start(running, life, cfg, m.g.world(running, m.name, &m.skew, m.fault(life), alive, m.pass)); err != nil {
		cancel()
		return err
	}
	stop := m.stop
	m.stop = func() {
		cancel()
		m.g.net.Gone(m.name) // nobody else breaks the connections that it had made
		stop()
	}
	return nil
}

// gone cuts a dead Region off. m.mu is held.
func (m *Member) gone() {
	m.diary = map[string][]byte{}
	for _, name := range []string{"lineage.json", "clock"} {
		if data, err := os.ReadFile(filepath.Join(m.dir, "data", name)); err == nil {
			m.diary[name] = data
		}
	}
	m.g.net.Gone(m.name)
}

// Crash ends the Region's life now, if no commit point did.
func (m *Member) Crash() error {
	m.mu.Lock()
	if !m.dead {
		m.kill()
	}
	m.mu.Unlock()
	m.stop()
	for name, data := range m.diary {
		if err := os.WriteFile(filepath.Join(m.dir, "data", name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Call makes a call to a Region; while the Region is frozen it waits, and the answer
// of one that died meanwhile is lost.
func (m *Member) Call(ctx context.Context, service, method, path string, in, out any) error {
	return m.repeat(ctx, "", service, method, path, in, out)
}

// repeat is Call with what the repetitions of a call have in common.
func (m *Member) repeat(ctx context.Context, invocation, service, method, path string, in, out any) error {
	if err := m.g.net.Thawed(ctx, m.name); err != nil {
		return err
	}
	m.mu.Lock()
	n, life, dead := m.node, m.life, m.dead
	m.mu.Unlock()
	if dead || n == nil {
		return errDead
	}
	err := call(n, invocation, service, method, path, in, out)
	_ = m.g.net.Thawed(ctx, m.name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead || m.life != life {
		return errDead
	}
	return err
}

// Backup copies the database while the Region runs.
func (m *Member) Backup(ctx context.Context) error {
	path := m.backup()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(m.dir, "data", "everpoint.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", path)
	return err
}

func (m *Member) backup() string { return filepath.Join(m.dir, "backup.db") }

// Restore puts the last backup in the place of the database of a Region that is
// not running. It reports whether there was one.
func (m *Member) Restore() (bool, error) {
	data, err := os.ReadFile(m.backup())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	path := filepath.Join(m.dir, "data", "everpoint.db")
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, os.WriteFile(path, data, 0o600)
}

// LoseDisk empties the disk of a Region that is not running; its configuration
// and keys are elsewhere.
func (m *Member) LoseDisk() error {
	return os.RemoveAll(filepath.Join(m.dir, "data"))
}

// Start begins the witness's life.
func (v *Voter) Start(ctx context.Context) error {
	life := v.begin(0)
	peers := map[string]string{}
	for _, name := range voterNames {
		peers[name] = peerURL(name)
	}
	running, cancel := context.WithCancel(ctx)
	world := v.g.world(running, witnessName, new(atomic.Int64), v.fault(life), func() bool { return !v.isDead() }, func() {})
	world.Chance = mathrand.New(mathrand.NewPCG(v.g.seed, uint64(1000+life)))
	w, err := node.NewWitness(ctx, &node.WitnessConfig{
		Name: witnessName, Dir: v.g.file(witnessName), Listen: peerAddr(witnessName), Peers: peers,
		CAFile: v.g.file("ca.pem"), CertFile: v.g.file(witnessName + ".pem"), KeyFile: v.g.file(witnessName + ".key"),
	}, world, v.g.log)
	if err != nil {
		cancel()
		return fmt.Errorf("start life %d of the witness: %w", life, err)
	}
	var done sync.WaitGroup
	done.Go(func() { _ = w.Run(running) })
	v.node = w
	v.stop = func() {
		cancel()
		v.g.net.Gone(witnessName)
		done.Wait()
	}
	return nil
}

// Crash ends the witness's life.
func (v *Voter) Crash() {
	v.mu.Lock()
	if !v.dead {
		v.kill()
	}
	v.mu.Unlock()
	v.stop()
}

// Start begins everybody's life.
func (g *Group) Start(ctx context.Context) error {
	if err := g.witness.Start(ctx); err != nil {
		return err
	}
	for _, name := range regionNames {
		if err := g.regions[name].Start(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends everybody's life, and the network.
func (g *Group) Stop() {
	defer g.net.Shut()
	for _, m := range g.regions {
		if m.stop != nil {
			m.Stop()
		}
	}
	if g.witness.stop != nil {
		g.witness.stop()
	}
}

// states are what each voter that runs knows of what was decided, and how far.
func (g *Group) states() (states []quorum.State, newest quorum.State) {
	index := uint64(0)
	hear := func(q *quorum.Quorum) {
		s, n := q.State()
		if states = append(states, s); n > index {
			newest, index = s, n
		}
	}
	for _, m := range g.regions {
		if m.node != nil && !m.isDead() {
			hear(m.node.Quorum)
		}
	}
	if g.witness.node != nil && !g.witness.isDead() {
		hear(g.witness.node.Quorum)
	}
	return states, newest
}

// whole says that every voter knows that all have their votes, and that both Regions
// are in sync as they now are, so that whichever disk is lost, another has all that
// was promised.
func (g *Group) whole() bool {
	states, state := g.states()
	if len(states) != len(voterNames) {
		return false
	}
	for _, known := range states {
		if len(known.Voters) != len(voterNames) {
			return false
		}
		for name, v := range known.Voters {
			if v.Learner || v.ID != state.Voters[name].ID {
				return false
			}
		}
	}
	for name, m := range g.regions {
		if r := state.Regions[name]; m.isDead() || !r.InSync || r.Incarnation != m.node.Store.Incarnation() {
			return false
		}
	}
	return true
}
