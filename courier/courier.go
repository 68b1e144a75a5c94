package courier

import (
	"context"
	"log/slog"
	"time"
)

// Status is what became of one attempt.
type Status uint8

// The statuses of an attempt; see the package comment.
const (
	Unknown Status = iota // the zero value promises nothing
	Delivered
	Accepted
	Deferred
	Refused
)

// String names the status in lower case, as logs and the outbox show it.
func (s Status) String() string {
	switch s {
	case Delivered:
		return "delivered"
	case Accepted:
		return "accepted"
	case Deferred:
		return "deferred"
	case Refused:
		return "refused"
	default:
		return "unknown"
	}
}

// Message is one thing to send to one recipient.
//
// Exactly one of Mail and Text is set, by the courier's kind.
type Message struct {
	ID   string // the ledger's message id; stable across attempts
	From string // envelope sender, or origination number, short code or sender id
	To   string // one mailbox, or an E.164 number with "+"

	Mail *Mail
	Text *Text
}

// LogValue keeps addresses and bodies out of logs.
func (m *Message) LogValue() slog.Value { return slog.StringValue("message " + m.ID) }

// Mail is an email ready for the wire.
type Mail struct {
	// Data is the whole RFC 5322 message with CRLF line ends, not dot-stuffed,
	// Message-ID included. The courier only reads it.
	Data []byte
	// EightBit says that Data has bytes above 127, so 8BITMIME is needed.
	EightBit bool
	// UTF8 says that an address is not ASCII, so SMTPUTF8 is needed.
	UTF8 bool
}

// Text is an SMS.
type Text struct {
	Body          string        // any text; the courier splits and encodes it
	Promotional   bool          // otherwise transactional
	Validity      time.Duration // how long the carrier may try; 0 means 72 h
	EntityID      string        // India DLT principal entity; may be empty
	TemplateID    string        // India DLT template; may be empty
	WantsReceipt  bool          // ask for delivery receipts
	ReferenceText string        // our own reference, sent in a vendor TLV so that doubles and ledger can join attempts
}

// Outcome is what became of one attempt, with the provider's reason.
type Outcome struct {
	Status Status
	// Code is the protocol's own code: "250", "550", "0x0000000b", "conn".
	Code string
	// Enhanced is the RFC 3463 status ("5.1.1"); empty when there is none.
	Enhanced string
	// Detail is the provider's text, bounded to 512 bytes. It may hold an
	// address: it goes to the ledger and to events, never to a log.
	Detail string
	// ProviderIDs are the provider's message ids, one for each part in order;
	// receipts refer to them. Empty when the provider gave none.
	ProviderIDs []string
	// Parts is how many parts went out; 1 for mail.
	Parts int
	// RetryAfter is how long the provider asks to wait; 0 when it did not say.
	RetryAfter time.Duration
	// Throttled says that a Deferred is the provider's rate limit.
	Throttled bool
}

// Courier hands messages to one provider. Send blocks until the outcome is
// known, ctx ends, or the courier closes; it is called from many goroutines at
// once and may share connections among them. When ctx ends after the message
// may have been handed over, the outcome is Unknown, otherwise Deferred.
type Courier interface {
	Send(ctx context.Context, m *Message) Outcome
}

// Receiver takes what a provider says later. The courier acknowledges to the
// provider only after the method returned nil, so it must return only when the
// fact is durable; a provider may repeat itself, so both must be idempotent.
type Receiver interface {
	Receipt(ctx context.Context, r Receipt) error
	Inbound(ctx context.Context, in Inbound) error
}

// Receipt is a delivery receipt for one part of a message.
type Receipt struct {
	Route      string // which courier heard it
	ProviderID string // as the receipt writes it
	// Forms are other ways to write the same id, most likely first: providers
	// give it in hexadecimal in one place and in decimal in another.
	Forms     []string
	State     string // ENROUTE, DELIVRD, EXPIRED, DELETED, UNDELIV, ACCEPTD, UNKNOWN, REJECTD
	ErrorCode string // the carrier's error code; may be empty
	At        time.Time
	Detail    string
}

// Inbound is a message from a person, reassembled.
type Inbound struct {
	Route string
	ID    string // made from source, destination and reference, so that a repeat is seen
	From  string
	To    string
	Body  string
	At    time.Time
}
