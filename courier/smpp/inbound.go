package smpp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// inbox hands inbound texts to the Receiver, whole and each under one id.
//
// A text that stands alone is handed over at once. A part is kept in memory and
// its deliver_sm left unanswered, so that the provider stays responsible, until
//
//	the last part arrives     the whole is handed over and every part answered
//	hold has passed           the part is answered "try again", but kept: a provider
//	                          that waits for each answer can now send the next one
//	age has passed            what is there is handed over incomplete, because a text
//	                          may begin with STOP and its other half be lost for good
//
// A repeat of a part or text that was handed over is answered without handing
// it over under a new id. Nothing here survives the process; the provider still has
// what was not answered.
type inbox struct {
	route    string
	receiver courier.Receiver
	now      func() time.Time
	hold     time.Duration // how long a part stays unanswered
	age      time.Duration // how long an incomplete text is kept
	timeout  time.Duration // for one call of the Receiver

	expiring sync.WaitGroup // hand-overs that a timer started

	mu     sync.Mutex
	closed bool
	texts  map[inboundKey]*inboundText
	octets int // of all parts in texts
	recent map[string]*recentText
	order  []string // keys of recent, oldest first
}

// Bounds of an inbox. Past them a part is answered "try again".
const (
	inboxTextsMax  = 4096
	inboxOctetsMax = 8 << 20
	inboxRecentMax = 16384
	// inboxWindow is the span in which equal texts are asked whether they are a
	// repeat; ids of single texts name the window they arrived in.
	inboxWindow = 5 * time.Minute
	// inboxLongWindow is the same for long texts, whose reference tells them apart.
	inboxLongWindow = time.Hour
)

var errInboxFull = errors.New("too many inbound parts are waiting")

type inboundKey struct {
	from, to   string
	ref, total int
}

// inboundText is a long text that is not whole yet, or was handed over lately.
type inboundText struct {
	parts   map[int]string // by number; nil once taken
	sums    map[int]string // what taken parts were, to know a repeat from a new text
	first   time.Time
	busy    bool          // the Receiver is being asked
	taken   bool          // the Receiver has it
	settled chan struct{} // closed when an attempt to hand over ended
	err     error         // of the last attempt
	expiry  *time.Timer
}

// recentText remembers a single text, so that a repeat gets the same id.
type recentText struct {
	id       string
	at       time.Time
	honest   int  // how many equal texts came before in the window, each answered
	answered bool // the answer goes out in good time
	dead     func() bool
}

func newInbox(route string, receiver courier.Receiver, now func() time.Time, hold, age, timeout time.Duration) *inbox {
	return &inbox{
		route: route, receiver: receiver, now: now, hold: hold, age: age, timeout: timeout,
		texts: make(map[inboundKey]*inboundText), recent: make(map[string]*recentText),
	}
}

// take returns nil when the text may be answered with status 0. sessionDead says
// whether the connection it came on is gone; it is asked when an equal text comes.
// answered must be called before an answer that goes out in good time is written.
func (b *inbox) take(ctx context.Context, m *ShortMessage, sessionDead func() bool) (answered func(), err error) {
	part, err := m.Part()
	if err != nil {
		return nil, err
	}
	from, to := m.Source.String(), m.Destination.String()
	if part.Total == 1 {
		return b.takeSingle(ctx, m, from, to, part.Text, sessionDead)
	}
	return func() {}, b.takePart(ctx, inboundKey{from, to, part.Ref, part.Total}, part)
}

func (b *inbox) takeSingle(ctx context.Context, m *ShortMessage, from, to, body string, dead func() bool) (func(), error) {
	ref, _ := m.TLVs.Get(TagUserMessageRef)
	content := inboundID(from, to, string(ref), m.TLVs.Text(TagReceiptedMessageID), body)
	now := b.now()
	b.mu.Lock()
	r := b.recent[content]
	switch {
	case r == nil || now.Sub(r.at) > inboxWindow:
		r = b.remember(content, now, 0, dead)
	case r.answered && !r.dead():
		// The provider had the answer to the last one: the person said it again.
		r = b.remember(content, now, r.honest+1, dead)
	default:
		r.dead = dead
	}
	id := r.id
	b.mu.Unlock()

	in := courier.Inbound{Route: b.route, ID: id, From: from, To: to, Body: body, At: now.UTC()}
	if err := b.handOver(ctx, in); err != nil {
		return nil, err
	}
	return func() {
		b.mu.Lock()
		r.answered = true
		b.mu.Unlock()
	}, nil
}

// remember notes a single text; the caller holds mu.
func (b *inbox) remember(content string, now time.Time, honest int, dead func() bool) *recentText {
	window := now.Truncate(inboxWindow).Unix()
	r := &recentText{id: inboundID(content, fmt.Sprint(window), fmt.Sprint(honest)), at: now, honest: honest, dead: dead}
	if _, known := b.recent[content]; !known {
		b.order = append(b.order, content)
	}
	b.recent[content] = r
	for len(b.order) > 0 {
		oldest := b.order[0]
		if len(b.order) <= inboxRecentMax && now.Sub(b.recent[oldest].at) <= inboxWindow {
			break
		}
		delete(b.recent, oldest)
		b.order = b.order[1:]
	}
	if b.recent[content] == nil { // it was the oldest, renewed
		b.recent[content] = r
		b.order = append(b.order, content)
	}
	return r
}

func (b *inbox) takePart(ctx context.Context, key inboundKey, part Part) error {
	b.mu.Lock()
	t := b.texts[key]
	if t != nil && t.taken {
		if t.sums[part.Number] == inboundID(part.Text) {
			b.mu.Unlock()
			return nil
		}
		b.forget(key, t) // phones use a reference again
		t = nil
	}
	if t == nil {
		if len(b.texts) >= inboxTextsMax {
			b.mu.Unlock()
			return errInboxFull
		}
		now := b.now()
		t = &inboundText{parts: make(map[int]string), first: now, settled: make(chan struct{})}
		t.expiry = time.AfterFunc(b.age, func() { b.expire(key, t) })
		b.texts[key] = t
	}
	if old, known := t.parts[part.Number]; !known || old != part.Text {
		grown := len(part.Text) - len(old)
		if b.octets+grown > inboxOctetsMax {
			b.mu.Unlock()
			return errInboxFull
		}
		b.octets += grown
		t.parts[part.Number] = part.Text
	}
	if len(t.parts) == key.total && !t.busy {
		t.busy = true
		b.mu.Unlock()
		return b.settle(ctx, key, t)
	}
	settled := t.settled
	b.mu.Unlock()

	hold := time.NewTimer(b.hold)
	defer hold.Stop()
	select {
	case <-settled:
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.taken {
			return nil
		}
		return t.err
	case <-hold.C:
		return errors.New("the other parts have not come yet")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle hands a text over, whole or not, and wakes whoever waits for it. The
// caller has set busy.
func (b *inbox) settle(ctx context.Context, key inboundKey, t *inboundText) error {
	b.mu.Lock()
	var body strings.Builder
	for n := 1; n <= key.total; n++ {
		body.WriteString(t.parts[n])
	}
	window := t.first.Truncate(inboxLongWindow).Unix()
	in := courier.Inbound{
		Route: b.route, From: key.from, To: key.to, Body: body.String(), At: t.first.UTC(),
		ID: inboundID(key.from, key.to, fmt.Sprint(key.ref), fmt.Sprint(key.total), fmt.Sprint(window), body.String()),
	}
	b.mu.Unlock()

	err := b.handOver(ctx, in)

	b.mu.Lock()
	defer b.mu.Unlock()
	t.busy, t.err, t.taken = false, err, err == nil
	if t.taken {
		t.sums = make(map[int]string, len(t.parts))
		for n, text := range t.parts {
			t.sums[n] = inboundID(text)
		}
		b.forgetParts(t)
		t.expiry.Reset(b.age) // keep the key that long, to know repeats
	}
	close(t.settled)
	t.settled = make(chan struct{})
	return err
}

// expire runs when a text has been kept for age: it hands an incomplete text over,
// and forgets a text that was handed over, or could not be.
func (b *inbox) expire(key inboundKey, t *inboundText) {
	b.mu.Lock()
	if b.closed || b.texts[key] != t {
		b.mu.Unlock()
		return
	}
	if t.busy {
		t.expiry.Reset(b.hold)
		b.mu.Unlock()
		return
	}
	if t.taken || t.err != nil {
		b.forget(key, t)
		b.mu.Unlock()
		return
	}
	t.busy = true
	b.expiring.Add(1)
	b.mu.Unlock()
	defer b.expiring.Done()
	if b.settle(context.Background(), key, t) != nil {
		b.mu.Lock()
		b.forget(key, t) // the provider still has its parts, unanswered
		b.mu.Unlock()
	}
}

// close stops the timers and waits for what they started; parts that wait stay
// the provider's.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	for key, t := range b.texts {
		b.forget(key, t)
	}
	b.mu.Unlock()
	b.expiring.Wait()
}

func (b *inbox) forget(key inboundKey, t *inboundText) {
	t.expiry.Stop()
	b.forgetParts(t)
	if b.texts[key] == t {
		delete(b.texts, key)
	}
}

func (b *inbox) forgetParts(t *inboundText) {
	for _, text := range t.parts {
		b.octets -= len(text)
	}
	t.parts = nil
}

func (b *inbox) handOver(ctx context.Context, in courier.Inbound) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	return b.receiver.Inbound(ctx, in)
}

// inboundID makes an id from what tells a text apart; fields cannot run into each other.
func inboundID(fields ...string) string {
	h := sha256.New()
	for _, f := range fields {
		fmt.Fprintf(h, "%d:%s", len(f), f)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
