package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/cmd/carriers"
	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/courier/smpp"
	"github.com/everpoint/everpoint/courier/smpp/smpptest"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
	"github.com/everpoint/everpoint/delivery"
)

const (
	region  = "us-east-1"
	account = "111122223333"
	keyID   = "AKIASIMULATION000001"
	secret  = "a-secret-for-simulated-requests"
)

// Carriers are the doubles that receive what is sent, and misbehave.
type Carriers struct {
	rnd    *rand.Rand
	relay  *smtptest.Server
	centre *smpptest.Server
	outbox *carriers.Outbox

	refusals sync.Mutex
	refused  map[string]bool // addresses that a carrier refused for good
}

// NewCarriers makes carriers that misbehave as rnd says.
func NewCarriers(rnd *rand.Rand) *Carriers {
	c := &Carriers{rnd: rnd, outbox: &carriers.Outbox{BodyBytes: 200}, refused: map[string]bool{}}
	c.relay = smtptest.New(smtptest.Config{MailboxMax: -1}, c.outbox.Mail)
	c.relay.SetRules(c.mailFaults()...)
	c.centre = smpptest.New(smpptest.Config{
		Sink: c.outbox.Text, Decide: c.textFaults(), Receipts: []smpptest.Receipt{{State: "DELIVRD", After: time.Second, Copies: 1 + c.rnd.IntN(2)}},
	})
	return c
}

// refuse remembers an address that is refused for good.
func (c *Carriers) refuse(address string) {
	c.refusals.Lock()
	defer c.refusals.Unlock()
	c.refused[address] = true
}

// Refused are the addresses that were refused for good.
func (c *Carriers) Refused() map[string]bool {
	c.refusals.Lock()
	defer c.refusals.Unlock()
	return maps.Clone(c.refused)
}

// serve runs the carriers until ctx ends.
func (c *Carriers) serve(ctx context.Context, mail, text net.Listener) (wait func()) {
	var done sync.WaitGroup
	done.Go(func() { _ = c.relay.Serve(ctx, mail) })
	done.Go(func() { _ = c.centre.Serve(ctx, text) })
	return done.Wait
}

// Region is one Region under simulation: a disk, the carriers, and the node
// while it lives.
type Region struct {
	*Carriers
	process
	name string
	seed uint64
	dir  string
	mail *smtptest.Pipe
	text *smpptest.Pipes

	cables []net.Conn // process.mu is held

	node *node.Node
	stop func()
	log  *slog.Logger
}

// NewRegion makes a disk and carriers that misbehave as the seed says.
func NewRegion(seed uint64, dir string) (*Region, error) {
	r := &Region{
		Carriers: NewCarriers(rand.New(rand.NewPCG(seed, 0x5eed))), name: region, seed: seed, dir: dir,
		mail: smtptest.NewPipe(), text: smpptest.NewPipes(), log: slog.New(slog.DiscardHandler),
	}
	r.die = r.cut
	return r, writeSecret(dir)
}

// writeSecret writes the file that the configuration names.
func writeSecret(dir string) error {
	return os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600)
}

// mailFaults draws what goes wrong at the relay: each fault a few times, at
// random moments.
func (c *Carriers) mailFaults() []smtptest.Rule {
	nth := func(first int) func(smtptest.Attempt) bool {
		n := first + c.rnd.IntN(60)
		return func(a smtptest.Attempt) bool { return a.N >= n }
	}
	all := []smtptest.Rule{
		{At: smtptest.AtDot, Drop: true},
		{At: smtptest.AfterStore, Drop: true},
		{At: smtptest.InContent, Drop: true},
		{At: smtptest.AtMail, Drop: true},
		{At: smtptest.AtRcpt, Reply: "451 4.3.0 try again"},
		{At: smtptest.AtRcpt, Reply: "550 5.1.1 nobody"},
		{At: smtptest.AtMail, Reply: "421 4.3.2 closing"},
		{At: smtptest.AfterStore, StallFor: 700 * time.Millisecond},
	}
	var out []smtptest.Rule
	for _, rule := range all {
		if c.rnd.IntN(2) == 0 {
			rule.Times, rule.Match = 1+c.rnd.IntN(2), nth(1)
			if strings.HasPrefix(rule.Reply, "5") {
				rule.Match = c.refusing(rule.Match)
			}
			out = append(out, rule)
		}
	}
	return out
}

// refusing remembers whom a rule is used on.
func (c *Carriers) refusing(match func(smtptest.Attempt) bool) func(smtptest.Attempt) bool {
	return func(a smtptest.Attempt) bool {
		if !match(a) {
			return false
		}
		c.refuse(a.To)
		return true
	}
}

// textFaults draws what goes wrong at the SMS centre.
func (c *Carriers) textFaults() func(smpptest.Submit) smpptest.Action {
	rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), 1))
	often := c.rnd.IntN(12)
	var mu sync.Mutex
	return func(sub smpptest.Submit) smpptest.Action {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(100) >= often {
			return smpptest.Action{}
		}
		switch rnd.IntN(5) {
		case 0:
			return smpptest.Action{Status: smpp.Status(0x58)} // throttled
		case 1:
			c.refuse(sub.To)
			return smpptest.Action{Status: smpp.Status(0x0b)} // bad destination
		case 2:
			return smpptest.Action{Drop: true}
		case 3:
			return smpptest.Action{Drop: true, Discard: true}
		default:
			return smpptest.Action{Delay: 300 * time.Millisecond}
		}
	}
}

// serve runs the Region's own carriers until ctx ends.
func (r *Region) serve(ctx context.Context) (wait func()) {
	return r.Carriers.serve(ctx, r.mail, r.text)
}

// cable dials a carrier, and remembers the connection so that death cuts it.
func (r *Region) cable(life int) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		r.mu.Lock()
		gone := r.dead || r.life != life
		r.mu.Unlock()
		if gone {
			return nil, errDead
		}
		dial := r.mail.DialContext
		if strings.HasPrefix(addr, "centre") {
			dial = r.text.Dial
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.cables = append(r.cables, c)
		r.mu.Unlock()
		return c, nil
	}
}

// cut ends the conversations with carriers. r.mu is held.
func (r *Region) cut() {
	for _, c := range r.cables {
		_ = c.Close()
	}
	r.cables = nil
}

// Start begins a life that ends at the fatal commit point, or lasts when it is 0.
func (r *Region) Start(ctx context.Context, fatal int) error {
	life := r.begin(fatal)
	return r.start(ctx, life, r.config(), node.World{Dial: r.cable(life), Fault: r.fault(life)})
}

// config is the Region's configuration without a group.
func (r *Region) config() *node.Config {
	return &node.Config{
		Node: r.name + "-1", Region: r.name, Dir: filepath.Join(r.dir, "data"), KeysDir: filepath.Join(r.dir, "keys"), Local: true,
		Account: []node.Account{{ID: account, AccessKeyID: keyID, SecretFile: filepath.Join(r.dir, "secret")}},
		Mail:    &node.Mail{Addr: "relay:25", Name: r.name + ".sim", TLS: "off"},
		Routes:  []node.Route{{Name: "centre", Addresses: []string{"centre:2775"}, SystemID: r.name}},
		Numbers: []node.Number{{Number: "+12065550100", Type: "LONG_CODE", Country: "US", Route: "centre"}},
	}
}

// start assembles and runs a node. What world does not say, chance does.
func (r *Region) start(ctx context.Context, life int, cfg *node.Config, world node.World) error {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.seed>>(i%8)) + byte(life)
	}
	world.Random, world.Chance = rand.NewChaCha8(seed), rand.New(rand.NewPCG(r.seed, uint64(life)))
	world.NoDoor, world.Tune = true, func(c *delivery.Config) { c.RetryDelay = 2 * time.Second }
	n, err := node.New(ctx, cfg, world, r.log)
	if err != nil {
		return fmt.Errorf("start life %d of %s: %w", life, r.name, err)
	}
	running, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { _ = n.Run(running) })
	r.mu.Lock()
	r.node = n
	r.mu.Unlock()
	r.stop = func() {
		cancel()
		done.Wait()
	}
	return nil
}

// Stop ends what is left of this life.
func (r *Region) Stop() { r.stop() }

// Call sends a signed request through the node's door and decodes the answer.
func (r *Region) Call(service, method, path string, in, out any) error {
	return call(r.node, "", service, method, path, in, out)
}

// call makes a call; invocation, when it is not empty, is what its repetitions have
// in common.
func call(n *node.Node, invocation, service, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req := httptest.NewRequestWithContext(context.Background(), method, "http://node.sim"+path, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if invocation != "" {
		req.Header.Set("Amz-Sdk-Invocation-Id", invocation)
	}
	if err := sigv4.Sign(req, sha256.Sum256(body), sigv4.Credentials{AccessKeyID: keyID, Secret: secret}, n.Config.Region, service, time.Now()); err != nil {
		return err
	}
	w := httptest.NewRecorder()
	n.Door.Handler().ServeHTTP(w, req)
	if w.Code >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s answered %d: %s", method, path, w.Code, w.Body.String())
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), out)
}
