package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// errDead is what a dead store and a cut cable answer.
var errDead = errors.New("sim: the node is dead")

// Region is one Region under simulation: a disk, the carriers, and the node
// while it lives.
type Region struct {
	seed uint64
	rnd  *rand.Rand
	dir  string

	relay  *smtptest.Server
	centre *smpptest.Server
	mail   *smtptest.Pipe
	text   *smpptest.Pipes
	outbox *carriers.Outbox

	mu      sync.Mutex
	refused map[string]bool // addresses that a carrier refused for good
	life    int
	lives   int
	dead    bool
	commit  int // commit points passed in this life
	fatal   int // the one that kills; 0: none
	died    chan struct{}
	cables  []net.Conn

	node *node.Node
	stop func()
}

// NewRegion makes a disk and carriers that misbehave as the seed says.
func NewRegion(seed uint64, dir string) (*Region, error) {
	r := &Region{
		seed: seed, rnd: rand.New(rand.NewPCG(seed, 0x5eed)), dir: dir,
		mail: smtptest.NewPipe(), text: smpptest.NewPipes(), outbox: &carriers.Outbox{BodyBytes: 200},
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		return nil, err
	}
	r.refused = map[string]bool{}
	r.relay = smtptest.New(smtptest.Config{MailboxMax: -1}, r.outbox.Mail)
	r.relay.SetRules(r.mailFaults()...)
	r.centre = smpptest.New(smpptest.Config{
		Sink: r.outbox.Text, Decide: r.textFaults(), Receipts: []smpptest.Receipt{{State: "DELIVRD", After: time.Second, Copies: 1 + r.rnd.IntN(2)}},
	})
	return r, nil
}

// mailFaults draws what goes wrong at the relay: each fault a few times, at
// random moments.
func (r *Region) mailFaults() []smtptest.Rule {
	nth := func(first int) func(smtptest.Attempt) bool {
		n := first + r.rnd.IntN(60)
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
		if r.rnd.IntN(2) == 0 {
			rule.Times, rule.Match = 1+r.rnd.IntN(2), nth(1)
			if strings.HasPrefix(rule.Reply, "5") {
				rule.Match = r.refusing(rule.Match)
			}
			out = append(out, rule)
		}
	}
	return out
}

// refusing remembers whom a rule is used on.
func (r *Region) refusing(match func(smtptest.Attempt) bool) func(smtptest.Attempt) bool {
	return func(a smtptest.Attempt) bool {
		if !match(a) {
			return false
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.refused[a.To] = true
		return true
	}
}

// textFaults draws what goes wrong at the SMS centre.
func (r *Region) textFaults() func(smpptest.Submit) smpptest.Action {
	rnd := rand.New(rand.NewPCG(r.rnd.Uint64(), 1))
	often := r.rnd.IntN(12)
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
			r.mu.Lock()
			r.refused[sub.To] = true
			r.mu.Unlock()
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

// serve runs the carriers until ctx ends.
func (r *Region) serve(ctx context.Context) (wait func()) {
	var done sync.WaitGroup
	done.Go(func() { _ = r.relay.Serve(ctx, r.mail) })
	done.Go(func() { _ = r.centre.Serve(ctx, r.text) })
	return done.Wait
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

// fault counts commit points and kills the node at the fatal one.
func (r *Region) fault(life int) func(string) error {
	return func(string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.life != life || r.dead {
			return errDead
		}
		if r.commit++; r.fatal > 0 && r.commit == r.fatal {
			r.kill()
			return errDead
		}
		return nil
	}
}

// kill ends this life: nothing more is written, and the cables are cut. r.mu is
// held.
func (r *Region) kill() {
	r.dead = true
	for _, c := range r.cables {
		_ = c.Close()
	}
	r.cables = nil
	close(r.died)
}

// Start begins a life that ends at the fatal commit point, or lasts when it is 0.
func (r *Region) Start(ctx context.Context, fatal int) error {
	r.mu.Lock()
	r.lives++
	r.life = r.lives
	r.dead, r.commit, r.fatal, r.died = false, 0, fatal, make(chan struct{})
	life := r.life
	r.mu.Unlock()
	cfg := &node.Config{
		Node: "sim-1", Region: region, Dir: filepath.Join(r.dir, "data"), KeysDir: filepath.Join(r.dir, "keys"), Local: true,
		Account: []node.Account{{ID: account, AccessKeyID: keyID, SecretFile: filepath.Join(r.dir, "secret")}},
		Mail:    &node.Mail{Addr: "relay:25", Name: region + ".sim", TLS: "off"},
		Routes:  []node.Route{{Name: "centre", Addresses: []string{"centre:2775"}, SystemID: region}},
		Numbers: []node.Number{{Number: "+12065550100", Type: "LONG_CODE", Country: "US", Route: "centre"}},
	}
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.seed>>(i%8)) + byte(life)
	}
	n, err := node.New(ctx, cfg, node.World{
		Random: rand.NewChaCha8(seed), Chance: rand.New(rand.NewPCG(r.seed, uint64(life))), Dial: r.cable(life), Fault: r.fault(life),
		NoDoor: true, Tune: func(c *delivery.Config) { c.RetryDelay = 2 * time.Second },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("start life %d: %w", life, err)
	}
	running, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { _ = n.Run(running) })
	r.node = n
	r.stop = func() {
		cancel()
		done.Wait()
	}
	return nil
}

// Died is closed when this life ends at its fatal commit point.
func (r *Region) Died() <-chan struct{} { return r.died }

// Stop ends what is left of this life.
func (r *Region) Stop() { r.stop() }

// Call sends a signed request through the node's door and decodes the answer.
func (r *Region) Call(service, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req := httptest.NewRequestWithContext(context.Background(), method, "http://node.sim"+path, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if err := sigv4.Sign(req, sha256.Sum256(body), sigv4.Credentials{AccessKeyID: keyID, Secret: secret}, region, service, time.Now()); err != nil {
		return err
	}
	w := httptest.NewRecorder()
	r.node.Door.Handler().ServeHTTP(w, req)
	if w.Code >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s answered %d: %s", method, path, w.Code, w.Body.String())
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), out)
}
