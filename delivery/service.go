package delivery

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/mail"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// Config says how messages leave.
type Config struct {
	// Node names this node in the ledger. Required.
	Node string
	// Workers is how many blocks are in work at once; 0 means 8.
	Workers int
	// ChunkMax is how many messages share an intent's commit; 0 means 64.
	ChunkMax int
	// Senders are the addresses and domains that mail may come from. Nil allows
	// any: for trying things out.
	Senders []string
	// Numbers are the origination numbers and sender ids that SMS go out from.
	Numbers []Number
	// AttemptsMax is how often a deferred message is tried; 0 means 12.
	AttemptsMax int
	// RetryFor is how long after its claim a deferred message is tried; 0 means 12 h.
	RetryFor time.Duration
	// RetryDelay is the first wait after a deferral; it doubles up to an hour,
	// with full jitter; 0 means 30 s.
	RetryDelay time.Duration
	// SendTimeout bounds one attempt on the wire; 0 means 2 minutes.
	SendTimeout time.Duration
}

// Number is an origination identity of the configuration.
type Number struct {
	Number         string  // E.164, short code, or sender id
	Type           string  // SHORT_CODE, LONG_CODE, TEN_DLC, TOLL_FREE, SENDER_ID, SIMULATOR
	Country        string  // ISO 3166-1 alpha-2
	PartsPerSecond float64 // 0: no limit
	Route          string  // the SMPP route that carries it
}

// Routes are the couriers: one for mail, SMS by route.
type Routes struct {
	Mail courier.Courier
	Text map[string]courier.Courier
}

// Service is delivery. Register it with Mount, keep the queue running.
type Service struct {
	cfg    Config
	store  *store.Store
	queue  *queue.Queue
	routes Routes
	now    func() time.Time
	log    *slog.Logger

	duty     group.Duty
	onClaim  func(plan string, members []Member)
	made     func(r store.Reader, record string) ([]Made, error)
	ordered  func(p *Plan) bool
	stopped  func(r store.Reader, p *Plan) (bool, error)
	ended    func(r store.Reader, p *Plan) (bool, error)
	window   *window
	breakers map[string]*breaker
	paces    map[string]pacer // by number

	mu        sync.Mutex
	rnd       *rand.Rand
	plans     map[string]*compiled // of campaigns
	planPaces map[string]pacer     // of campaigns that have a rate
}

// New returns delivery over its couriers, for a Region with a duty. told says how
// far the other Regions have the ledger; nil: nobody has to.
func New(
	cfg Config, st *store.Store, q *queue.Queue, duty group.Duty, told Told, routes Routes, now func() time.Time, rnd *rand.Rand, log *slog.Logger,
) *Service {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&cfg.Workers, 8)
	set(&cfg.ChunkMax, 64)
	set(&cfg.AttemptsMax, 12)
	if cfg.RetryFor == 0 {
		cfg.RetryFor = 12 * time.Hour
	}
	if cfg.RetryDelay == 0 {
		cfg.RetryDelay = 30 * time.Second
	}
	if cfg.SendTimeout == 0 {
		cfg.SendTimeout = 2 * time.Minute
	}
	s := &Service{
		cfg: cfg, store: st, queue: q, routes: routes, now: now, log: log.With("component", "delivery"), rnd: rnd,
		duty: duty, onClaim: func(string, []Member) {}, window: newWindow(st, told), plans: map[string]*compiled{}, planPaces: map[string]pacer{},
		ordered: func(*Plan) bool { return false }, stopped: func(store.Reader, *Plan) (bool, error) { return false, nil },
		breakers: map[string]*breaker{"mail": {now: now}}, paces: map[string]pacer{},
	}
	for route := range routes.Text {
		s.breakers[route] = &breaker{now: now}
	}
	for _, n := range cfg.Numbers {
		s.paces[n.Number] = newPacer(n.PartsPerSecond)
	}
	return s
}

// Mount registers delivery's work with the queue.
// Direct calls have workers of their own: they need not wait for campaigns.
func (s *Service) Mount() {
	queue.HandleWhile(s.queue, workBlock, s.cfg.Workers, s.duty.Here, s.block)
	queue.HandleWhile(s.queue, workCall, s.cfg.Workers, s.duty.Here, s.block)
}

// OnClaim has f called after claims of another Region were merged. It is called
// before Mount, once.
func (s *Service) OnClaim(f func(plan string, members []Member)) { s.onClaim = f }

// Calls says which plans were made of the call of a record, in an order that is the
// same everywhere. It is called before Mount, once.
func (s *Service) Calls(made func(r store.Reader, record string) ([]Made, error)) { s.made = made }

// Stops says of which plans messages do not go out: they wait while ordered says so,
// which is asked before every message and cheap, and those of a campaign are held
// when stopped does. It is called before Mount, once.
func (s *Service) Stops(ordered func(p *Plan) bool, stopped func(r store.Reader, p *Plan) (bool, error)) {
	s.ordered, s.stopped = ordered, stopped
}

// Ended says whether the activity of a campaign's plan is over. It is called before
// Mount, once.
func (s *Service) Ended(ended func(r store.Reader, p *Plan) (bool, error)) { s.ended = ended }

// InFlight is how many attempts of this node lie between intent and an entry that
// every Region of the set has.
func (s *Service) InFlight() int64 { return s.window.open() }

func (s *Service) jitter(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rnd.Float64() * float64(d))
}

// plansMax bounds the compiled plans that are kept, and pacesMax the rates.
const (
	plansMax = 256
	pacesMax = 10_000
)

// plan returns a plan, compiled.
func (s *Service) plan(r store.Reader, id string) (*compiled, error) {
	s.mu.Lock()
	c := s.plans[id]
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	p, err := store.Load[Plan](r, kindPlan, id)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, fmt.Errorf("delivery: no plan %s", id)
	}
	if c, err = compile(p); err != nil {
		return nil, err
	}
	if p.Campaign == nil {
		return c, nil // a call's plan is read once
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	evict(s.plans, plansMax)
	s.plans[id] = c
	return c, nil
}

// paceOf is a plan's rate; it outlives the compiled plan.
func (s *Service) paceOf(p *Plan) pacer {
	if p.PerSecond <= 0 {
		return pacer{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pace, ok := s.planPaces[p.ID]
	if !ok {
		evict(s.planPaces, pacesMax)
		pace = newPacer(float64(p.PerSecond))
		s.planPaces[p.ID] = pace
	}
	return pace
}

// evict makes room for one more; which goes is chance.
func evict[V any](m map[string]V, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}

// MaySend reports whether mail may come from an address: a mailbox, with or
// without a name. A domain covers its subdomains and every mailbox; it and the
// address are compared without case.
//
// Source: channels 4, Identities; spec README, "sender address".
func (s *Service) MaySend(from string) bool {
	if s.cfg.Senders == nil {
		return true
	}
	a, err := mail.ParseAddress(from)
	if err != nil {
		return false
	}
	address := strings.ToLower(a.Address)
	_, domain, _ := strings.Cut(address, "@")
	for _, allowed := range s.cfg.Senders {
		allowed = strings.ToLower(allowed)
		if allowed == address || !strings.Contains(allowed, "@") && (domain == allowed || strings.HasSuffix(domain, "."+allowed)) {
			return true
		}
	}
	return false
}

// origin chooses the number a text goes out from: the one that is asked for,
// else the sender id, else the first number of the destination's country, else
// the first of any. ok is false when there is none.
//
// Source: channels 5.1, thin: the operator's configuration is the inventory.
func (s *Service) origin(m *SMS, to string) (n Number, ok bool) {
	byName := func(name string) (Number, bool) {
		for _, n := range s.cfg.Numbers {
			if n.Number == name {
				return n, true
			}
		}
		return Number{}, false
	}
	if m.OriginationNumber != "" {
		return byName(m.OriginationNumber)
	}
	if m.SenderID != "" {
		if n, ok := byName(m.SenderID); ok {
			return n, true
		}
		// A sender id needs no number of its own: any route may carry it.
		for _, n := range s.cfg.Numbers {
			return Number{Number: m.SenderID, Type: "SENDER_ID", PartsPerSecond: n.PartsPerSecond, Route: n.Route}, true
		}
		return Number{}, false
	}
	country := countryOf(to)
	for _, n := range s.cfg.Numbers {
		if n.Country == country {
			return n, true
		}
	}
	if len(s.cfg.Numbers) > 0 {
		return s.cfg.Numbers[0], true
	}
	return Number{}, false
}

// countryOf guesses a number's country from its calling code, for the codes
// whose country is certain; empty when it is not.
func countryOf(number string) string {
	for _, c := range [...]struct{ code, country string }{
		{"+44", "GB"},
		{"+49", "DE"},
		{"+33", "FR"},
		{"+34", "ES"},
		{"+39", "IT"},
		{"+61", "AU"},
		{"+81", "JP"},
		{"+91", "IN"},
		{"+55", "BR"},
		{"+52", "MX"},
		{"+31", "NL"},
		{"+32", "BE"},
		{"+41", "CH"},
		{"+43", "AT"},
		{"+46", "SE"},
		{"+47", "NO"},
		{"+45", "DK"},
		{"+48", "PL"},
		{"+351", "PT"},
		{"+353", "IE"},
		{"+358", "FI"},
	} {
		if strings.HasPrefix(number, c.code) {
			return c.country
		}
	}
	// +1 is shared; without numbering data the United States is the likely one.
	if strings.HasPrefix(number, "+1") {
		return "US"
	}
	return ""
}
