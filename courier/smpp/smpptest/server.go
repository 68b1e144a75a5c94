package smpptest

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/everpoint/everpoint/courier/smpp"
)

// IDForm is how message ids are written.
type IDForm uint8

// The forms of ids.
const (
	Hex     IDForm = iota // eight lower-case hex digits
	Decimal               // decimal digits
)

func (f IDForm) write(n uint64) string {
	if f == Decimal {
		return strconv.FormatUint(n, 10)
	}
	return fmt.Sprintf("%08x", n)
}

// Config is how a Server behaves when it is not told otherwise.
type Config struct {
	// SystemID and Password are asked of each bind; both empty accept any.
	SystemID string
	Password smpp.Secret
	// Sink gets each complete message before its last part is answered. When it
	// fails, the part is answered ESME_RSYSERR. It is called from many
	// goroutines. Nil keeps nothing.
	Sink func(Message) error
	// Decide says what to do with a submit_sm when no Action is queued; nil accepts.
	Decide func(Submit) Action
	// IDs is the form of ids in submit_sm_resp, ReceiptIDs in receipts. Default Hex.
	IDs, ReceiptIDs IDForm
	// FirstID is the number of the first message id. Default 1.
	FirstID uint64
	// Receipts are the receipts of each part that asks for one. Nil sends none.
	Receipts []Receipt
	// NoReceiptTLVs leaves receipted_message_id and message_state out, and
	// NoReceiptText the text.
	NoReceiptTLVs, NoReceiptText bool
	// Window is how many deliver_sm may wait for their answers on one bind, those
	// of BeforeAnswer aside. Default 10.
	Window int
	// RetryEvery is the time before a deliver_sm that was refused, or not answered,
	// or had no bind, is sent again, on average: each time is drawn between half
	// and one and a half of it. Default 1 s. TriesMax bounds it. Default 100.
	RetryEvery time.Duration
	TriesMax   int
	// Chance draws those times and is the server's own from now on. Nil draws the
	// same ones in every run.
	Chance *rand.Rand
	// ReferenceTag is the TLV read into Message.Reference. Default 0x1501.
	ReferenceTag smpp.Tag
	// PartsKeptMax bounds the incomplete messages; past it the oldest is
	// forgotten. Default 10,000.
	PartsKeptMax int
}

// Submit is one submit_sm as Decide sees it.
type Submit struct {
	From, To  string
	Text      string // of this part
	Reference string
	// Ref ties parts together and is -1 for a text that stands alone; Number
	// counts from 1 to Total.
	Ref, Total, Number int
	Nth                int // how many submit_sm the server had heard, this one included
	Body               *smpp.ShortMessage
}

// Message is a complete message as the sink sees it.
type Message struct {
	ID        string   // of the first part
	IDs       []string // of each part, as written in its submit_sm_resp
	From, To  string   // E.164 with "+", or as sent
	Body      string
	Reference string // from the vendor TLV; empty when there was none
	Parts     int
	At        time.Time          // when the last part came
	SystemID  string             // who was bound
	First     *smpp.ShortMessage // the submit_sm that came first
}

// Receipt is one receipt to send for a part.
type Receipt struct {
	State string // DELIVRD, UNDELIV, …; see courier.Receipt
	Error string // three digits; default 000
	// After is the time between answering the part and the receipt.
	After time.Duration
	// BeforeAnswer sends the receipt just ahead of the submit_sm_resp.
	BeforeAnswer bool
	// Copies is how often the receipt is sent. Default 1.
	Copies int
}

// Action is what to do with one submit_sm. The zero Action accepts it.
type Action struct {
	// Status other than 0 refuses the part with it; nothing is stored.
	Status smpp.Status
	// Nack answers with generic_nack instead of submit_sm_resp.
	Nack bool
	// Delay passes before the answer, while other submits go on.
	Delay time.Duration
	// Discard stores nothing and sends no receipt: with Drop, the connection
	// breaks before storing instead of after.
	Discard bool
	// Silent never answers.
	Silent bool
	// Drop closes the connection instead of answering.
	Drop bool
	// Receipts replaces Config.Receipts when it is not nil.
	Receipts []Receipt
}

// Text is a message from a person.
type Text struct {
	From, To string // E.164 with "+", or a short code
	Body     string
	// Ref is the reference of a long text; parts use the 8-bit header.
	Ref byte
	// Reverse sends the parts of a long text last first.
	Reverse bool
	// Copies is how often each part is sent. Default 1.
	Copies int
	// Only sends only the part with this number, when it is not 0.
	Only int
}

// Server is the message centre. It is safe for concurrent use.
type Server struct {
	cfg Config

	mu       sync.Mutex
	closed   bool
	sessions map[*session]bool
	changed  chan struct{} // closed and renewed when sessions change
	queued   []Action
	refuse   smpp.Status // of binds
	mute     bool        // enquire_link gets no answer
	id       uint64
	submits  int
	gather   map[gatherKey]*gathering
	oldest   []gatherKey
	binds    int

	running context.Context // of Serve; nil before
	stop    context.CancelFunc
	work    sync.WaitGroup
}

type gatherKey struct {
	system, from, to string
	ref, total       int
}

// gathering is a message whose parts are not all there.
type gathering struct {
	first *smpp.ShortMessage
	parts map[int]Submit
	ids   map[int]string
}

// New returns a server that does nothing until Serve.
func New(cfg Config) *Server {
	if cfg.FirstID == 0 {
		cfg.FirstID = 1
	}
	if cfg.Window <= 0 {
		cfg.Window = 10
	}
	if cfg.Chance == nil {
		cfg.Chance = rand.New(rand.NewPCG(1, 1))
	}
	if cfg.RetryEvery == 0 {
		cfg.RetryEvery = time.Second
	}
	if cfg.TriesMax == 0 {
		cfg.TriesMax = 100
	}
	if cfg.ReferenceTag == 0 {
		cfg.ReferenceTag = smpp.TagReference
	}
	if cfg.PartsKeptMax == 0 {
		cfg.PartsKeptMax = 10_000
	}
	s := &Server{
		cfg: cfg, id: cfg.FirstID, sessions: make(map[*session]bool), changed: make(chan struct{}),
		gather: make(map[gatherKey]*gathering),
	}
	s.running, s.stop = context.WithCancel(context.Background())
	return s
}

// Serve accepts connections until ctx ends or the listener fails, closes what is
// open, and returns when all it started has ended: nil after ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	unhook := context.AfterFunc(ctx, func() { l.Close() })
	defer unhook()
	var err error
	for {
		var conn net.Conn
		if conn, err = l.Accept(); err != nil {
			break
		}
		s.work.Go(func() { s.serveConn(conn) })
	}
	l.Close()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.Disconnect()
	s.work.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Next queues actions for the submit_sm to come, one each, ahead of Decide.
func (s *Server) Next(actions ...Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued = append(s.queued, actions...)
}

// RefuseBinds answers binds with status from now on; 0 accepts them again.
func (s *Server) RefuseBinds(status smpp.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

// Mute leaves enquire_links unanswered from now on, or answers them again.
func (s *Server) Mute(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// Disconnect closes every connection without a word.
func (s *Server) Disconnect() {
	for _, session := range s.list() {
		session.conn.Close()
	}
}

// Unbind sends an unbind on every connection.
func (s *Server) Unbind() {
	for _, session := range s.list() {
		session.ask(smpp.Unbind, nil)
	}
}

// Bound is how many sessions are bound now.
func (s *Server) Bound() int {
	n := 0
	for _, session := range s.list() {
		if session.mode != 0 {
			n++
		}
	}
	return n
}

// Binds is how many binds were accepted so far.
func (s *Server) Binds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.binds
}

// Submits is how many submit_sm were heard so far.
func (s *Server) Submits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.submits
}

func (s *Server) list() (all []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session := range s.sessions {
		all = append(all, session)
	}
	return all
}

// admit judges a bind.
func (s *Server) admit(b *smpp.Bind) smpp.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.refuse != 0:
		return s.refuse
	case s.cfg.SystemID == "" && s.cfg.Password == "":
	case b.SystemID != s.cfg.SystemID:
		return smpp.StatusInvalidSystemID
	case subtle.ConstantTimeCompare([]byte(b.Password), []byte(s.cfg.Password)) != 1:
		return smpp.StatusInvalidPassword
	}
	s.binds++
	return smpp.StatusOK
}

// submit does what is to be done with one submit_sm and returns how.
func (s *Server) submit(system string, m *smpp.ShortMessage) (id string, action Action, receipts []Receipt) {
	part, err := m.Part()
	if err != nil {
		return "", Action{Status: smpp.StatusInvalidMessageLength}, nil
	}
	in := Submit{
		From: m.Source.String(), To: m.Destination.String(), Text: part.Text, Reference: m.TLVs.Text(s.cfg.ReferenceTag),
		Ref: part.Ref, Total: part.Total, Number: part.Number, Body: m,
	}
	s.mu.Lock()
	s.submits++
	in.Nth = s.submits
	decided := false
	if len(s.queued) > 0 {
		action, s.queued, decided = s.queued[0], s.queued[1:], true
	}
	s.mu.Unlock()
	if !decided && s.cfg.Decide != nil {
		action = s.cfg.Decide(in)
	}
	if action.Status != smpp.StatusOK {
		return "", action, nil
	}
	s.mu.Lock()
	number := s.id
	s.id++
	s.mu.Unlock()
	id = s.cfg.IDs.write(number)
	if action.Discard {
		return id, action, nil
	}
	complete, forget := s.collect(system, in, id)
	if complete != nil {
		if s.cfg.Sink != nil && s.cfg.Sink(*complete) != nil {
			return "", Action{Status: smpp.StatusSystemError}, nil
		}
		forget()
	}
	if m.RegisteredDelivery&3 == 0 {
		return id, action, nil
	}
	receipts = s.cfg.Receipts
	if action.Receipts != nil {
		receipts = action.Receipts
	}
	return id, action, receipts
}

// collect keeps a part and returns the message when it is complete, and what
// forgets its parts once the sink has it.
func (s *Server) collect(system string, in Submit, id string) (m *Message, forget func()) {
	m = &Message{
		ID: id, IDs: []string{id}, From: in.From, To: in.To, Body: in.Text, Reference: in.Reference,
		Parts: 1, At: time.Now().UTC(), SystemID: system, First: in.Body,
	}
	if in.Total == 1 {
		return m, func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := gatherKey{system, in.From, in.To, in.Ref, in.Total}
	g := s.gather[key]
	if g == nil {
		for len(s.gather) >= s.cfg.PartsKeptMax {
			delete(s.gather, s.oldest[0])
			s.oldest = s.oldest[1:]
		}
		g = &gathering{first: in.Body, parts: make(map[int]Submit), ids: make(map[int]string)}
		s.gather[key] = g
		s.oldest = append(s.oldest, key)
	}
	g.parts[in.Number], g.ids[in.Number] = in, id
	if len(g.parts) < in.Total {
		return nil, nil
	}
	m.First, m.Parts, m.Body, m.IDs = g.first, in.Total, "", nil
	for n := 1; n <= in.Total; n++ {
		m.Body += g.parts[n].Text
		m.IDs = append(m.IDs, g.ids[n])
	}
	m.ID = m.IDs[0]
	return m, func() { s.forget(key) }
}

func (s *Server) forget(key gatherKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.gather, key)
	for i, k := range s.oldest {
		if k == key {
			s.oldest = append(s.oldest[:i], s.oldest[i+1:]...)
			return
		}
	}
}

var errNoBind = errors.New("no bind that receives")

// receiver returns the bound session of system that receives and has the most room
// in its window; empty system is any.
func (s *Server) receiver(system string) (freest *session, err error) {
	for _, session := range s.list() {
		if session.mode != smpp.BindReceiver && session.mode != smpp.BindTransceiver || system != "" && session.system != system {
			continue
		}
		if freest == nil || len(session.window) < len(freest.window) {
			freest = session
		}
	}
	if freest == nil {
		return nil, errNoBind
	}
	return freest, nil
}

// retryAfter draws the time before a deliver_sm is sent again.
func (s *Server) retryAfter() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.RetryEvery/2 + time.Duration(s.cfg.Chance.Int64N(int64(s.cfg.RetryEvery)+1))
}
