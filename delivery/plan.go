package delivery

import (
	"fmt"
	"time"

	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

// The rows this room owns. Plans, claims and intents are with the other Regions
// before anything is on the wire; entries and ambiguous rows follow. Counts are
// each Region's own, made from what it has.
var (
	kindPlan      = store.Kind{Name: "plan", Rule: changelog.RuleAppend, Safety: true}
	kindClaim     = store.Kind{Name: "claim", Rule: changelog.RuleAppend, Safety: true}
	kindTaken     = store.Kind{Name: "taken", Rule: changelog.RuleAppend, Safety: true}
	kindIntent    = store.Kind{Name: "intent", Rule: changelog.RuleAppend, Safety: true}
	kindEntries   = store.Kind{Name: "ledger", Rule: changelog.RuleAppend}
	kindAmbiguous = store.Kind{Name: "ambiguous", Rule: changelog.RuleDocument}
	kindCount     = store.Kind{Name: "count", Rule: changelog.RuleLocal}
	kindOpen      = store.Kind{Name: "open", Rule: changelog.RuleLocal}
	kindTally     = store.Kind{Name: "tally", Rule: changelog.RuleLocal}
	kindDelivered = store.Kind{Name: "delivered", Rule: changelog.RuleDocument}
	kindPolicy    = store.Kind{Name: "sendingpolicy", Rule: changelog.RuleDocument, Safety: true}
	kindCap       = store.Kind{Name: "recipientcap", Rule: changelog.RuleDocument}
	kindReference = store.Kind{Name: "smsreference", Rule: changelog.RuleAppend}
	kindHeard     = store.Kind{Name: "smsheard", Rule: changelog.RuleDocument}
	kindOrphan    = store.Kind{Name: "orphanreceipt", Rule: changelog.RuleLocal}
)

// The queue's kinds: blocks of campaigns, and blocks of direct calls.
const (
	workBlock = "delivery.block"
	workCall  = "delivery.call"
)

// Channels that delivery can send on.
const (
	ChannelEmail = "EMAIL"
	ChannelSMS   = "SMS"
)

// Plan is everything that the messages of one campaign activity, or of one
// direct call, have in common. It does not change once written.
type Plan struct {
	ID      string // the activity's id, or the call's
	Account string
	App     string
	Created time.Time

	// Exactly one of these names what the messages belong to.
	Campaign *Campaign `json:",omitempty"`
	Call     *Call     `json:",omitempty"`

	Email *Email `json:",omitempty"` // content for EMAIL endpoints; nil: none
	SMS   *SMS   `json:",omitempty"` // content for SMS endpoints; nil: none

	Deadline  time.Time `json:",omitzero"` // nothing is attempted after it: EXPIRED
	PerSecond int       `json:",omitempty"`
	Daily     int       `json:",omitempty"` // messages an endpoint may get in 24 h; 0: no cap
	Total     int       `json:",omitempty"` // from this campaign; 0: no cap
	QuietFrom string    `json:",omitempty"` // HH:MM, both ends inclusive
	QuietTo   string    `json:",omitempty"`

	Overrides []Override `json:",omitempty"`
}

// Campaign says which activity's messages these are.
type Campaign struct {
	ID, Activity, Treatment string
	Holdout                 int // cohorts [0, Holdout) get nothing
	CohortFrom, CohortTo    int // cohorts of this treatment
}

// Call says which direct call's messages these are.
type Call struct {
	Operation string
	Record    []byte            `json:",omitempty"` // what the call's records are found by; nil: it has none
	TraceID   string            `json:",omitempty"`
	Context   map[string]string `json:",omitempty"`
}

// Email is the content of a plan's mails. Texts are templates.
type Email struct {
	From          string
	ReplyTo       []string `json:",omitempty"`
	Subject       string
	HTML          string               `json:",omitempty"`
	Text          string               `json:",omitempty"`
	Headers       []templates.Header   `json:",omitempty"`
	Raw           []byte               `json:",omitempty"` // a whole MIME message instead of the parts
	Defaults      string               `json:",omitempty"` // a template's DefaultSubstitutions
	Substitutions templatesSubstitutes `json:",omitempty"`
	Template      string               `json:",omitempty"` // its name, for events
}

// SMS is the content of a plan's texts. Body is a template.
type SMS struct {
	Body              string
	Promotional       bool                 `json:",omitempty"`
	OriginationNumber string               `json:",omitempty"`
	SenderID          string               `json:",omitempty"`
	Keyword           string               `json:",omitempty"`
	EntityID          string               `json:",omitempty"`
	TemplateID        string               `json:",omitempty"`
	Defaults          string               `json:",omitempty"`
	Substitutions     templatesSubstitutes `json:",omitempty"`
	Template          string               `json:",omitempty"`
}

type templatesSubstitutes = templates.Substitutions

// Override is what a direct call says of one recipient.
type Override struct {
	Body          string                  `json:",omitempty"`
	Title         string                  `json:",omitempty"`
	Substitutions templates.Substitutions `json:",omitempty"`
	Context       map[string]string       `json:",omitempty"`
}

// Member is one recipient of a block.
type Member struct {
	Key       []byte `json:",omitempty"` // the endpoint's store key; or
	Channel   string `json:",omitempty"` // a raw address and its channel
	Address   string `json:",omitempty"`
	Hash      uint64 `json:",omitempty"` // of channel and address, where the block's maker knew it
	Twin      bool   `json:",omitempty"` // another endpoint with this hash is in an earlier block
	MessageID string `json:",omitempty"` // empty: made from plan and key
	Override  int    `json:",omitempty"` // index into the plan's Overrides + 1; 0: none
}

// BlockMax is the most recipients one block may hold.
const BlockMax = 256

// Block is a claim on some of a plan's recipients: they are its Region's to send
// to, at the epoch of its membership, until another Region takes the block over.
type Block struct {
	Plan        string
	Seq         int64 // unique within the plan and the Region
	Epoch       uint64
	Region      string
	Incarnation string
	At          time.Time
	Members     []Member
	// Lost says that another Region may have sent to these members, and that nothing
	// is known of it but a mark.
	Lost bool `json:",omitempty"`
}

func blockKey(plan, region string, seq int64) string {
	return fmt.Sprintf("%s/%s/%012x", plan, region, seq)
}

// shard is the dispatch shard that says which Region takes the block over.
func (b *Block) shard() int {
	if len(b.Members) == 0 {
		return 0
	}
	return segments.Shard(b.Members[0].Hash)
}

// PutPlan writes a plan in the caller's update. It fails on content that could
// never be sent: a text that does not compile.
func (s *Service) PutPlan(tx *store.Tx, p *Plan) error {
	if _, err := compile(p); err != nil {
		return err
	}
	return store.Save(tx, kindPlan, p.ID, p)
}

// Claim writes a block of a plan's recipients and the work to send them, in
// the caller's update. Claiming the same (plan, seq) again changes nothing.
func (s *Service) Claim(tx *store.Tx, plan string, seq int64, members []Member) error {
	return s.claim(tx, workBlock, &Block{Plan: plan, Seq: seq, Members: members})
}

// ClaimLost is Claim for recipients to whom a Region that is lost may have sent:
// each is listed as ambiguous before anything else.
func (s *Service) ClaimLost(tx *store.Tx, plan string, seq int64, members []Member) error {
	return s.claim(tx, workBlock, &Block{Plan: plan, Seq: seq, Members: members, Lost: true})
}

// ClaimCall is Claim for the plan of a direct call.
func (s *Service) ClaimCall(tx *store.Tx, plan string, seq int64, members []Member) error {
	return s.claim(tx, workCall, &Block{Plan: plan, Seq: seq, Members: members})
}

func (s *Service) claim(tx *store.Tx, work string, b *Block) error {
	if len(b.Members) == 0 {
		return nil
	}
	if len(b.Members) > BlockMax {
		return fmt.Errorf("delivery: block of %d recipients, more than %d", len(b.Members), BlockMax)
	}
	epoch, err := s.duty.Stay()
	if err != nil {
		return err
	}
	b.Region, b.Incarnation, b.Epoch, b.At = s.store.Region(), s.store.Incarnation(), epoch, tx.Now()
	key := blockKey(b.Plan, b.Region, b.Seq)
	was, err := tx.Get(kindClaim, key)
	if err != nil || was != nil {
		return err
	}
	if err := store.Save(tx, kindClaim, key, b); err != nil {
		return err
	}
	if err := s.count(tx, key, b, nil); err != nil {
		return err
	}
	return s.queue.Enqueue(tx, queue.Work{Kind: work, ID: key, Due: tx.Now()})
}

// Claimed hands a plan's blocks to yield, those of one Region after the other's,
// in the order of their numbers. Recipients of claims that came late, whom others
// may claim, are not among their members.
func (s *Service) Claimed(r store.Reader, plan string, yield func(*Block) error) error {
	const page = 64
	for after := ""; ; {
		rows, err := r.List(kindClaim, plan+"/", after, page)
		if err != nil {
			return err
		}
		for _, row := range rows {
			b, err := store.Decode[Block](kindClaim, row.Body)
			if err != nil {
				return err
			}
			after = row.Key
			if err := s.dropSuperseded(r, row.Key, b); err != nil {
				return err
			}
			if err := yield(b); err != nil {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
	}
}

func (s *Service) dropSuperseded(r store.Reader, key string, b *Block) error {
	row, err := store.Load[countRow](r, kindCount, key)
	if err != nil || row == nil || row.Tally.Superseded == 0 && !row.Late {
		return err
	}
	entries, err := readEntries(r, key)
	if err != nil {
		return err
	}
	stand, err := fold(len(b.Members), nil, entries)
	if err != nil {
		return err
	}
	var kept []Member
	for i, m := range b.Members {
		if st := &stand[i]; st.settled() && st.reason != ReasonSuperseded {
			kept = append(kept, m)
		}
	}
	b.Members = kept
	return nil
}

// messageID is the ledger's id of a member's message: given by the call, or
// made from plan and endpoint, so that it is the same whoever computes it.
func (s *Service) messageID(plan string, m *Member) string {
	if m.MessageID != "" {
		return m.MessageID
	}
	h := []byte(s.store.Blind("message", plan, string(m.Key), m.Channel, m.Address))
	h[6] = h[6]&0x0f | 0x80 // version 8: made by the application
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// Policy says what becomes of ambiguous sends.
type Policy string

// The policies. Source: spec README, "ambiguous sends".
const (
	Leave  Policy = "LEAVE"
	Resend Policy = "RESEND"
)

type policyRow struct{ AmbiguousSends Policy }

func policyKey(app, campaign string) string { return app + "/" + campaign }

// SetPolicy writes the sending policy of an app, or of one of its campaigns.
func (s *Service) SetPolicy(tx *store.Tx, app, campaign string, p Policy) error {
	if p != Leave && p != Resend {
		return aws.InvalidMember("AmbiguousSends", "AmbiguousSends: %q is neither LEAVE nor RESEND", string(p))
	}
	return store.Save(tx, kindPolicy, policyKey(app, campaign), &policyRow{p})
}

// PolicyOf reads the sending policy that was set for an app (campaign empty) or
// for a campaign; empty when none was.
func (s *Service) PolicyOf(r store.Reader, app, campaign string) (Policy, error) {
	p, err := store.Load[policyRow](r, kindPolicy, policyKey(app, campaign))
	if err != nil || p == nil {
		return "", err
	}
	return p.AmbiguousSends, nil
}

// policyFor decides for one message: the campaign's policy, the app's, or the
// default: resend for direct messages and transactional SMS, else leave.
func (s *Service) policyFor(r store.Reader, p *Plan, channel string) (Policy, error) {
	if p.Campaign != nil {
		if set, err := s.PolicyOf(r, p.App, p.Campaign.ID); err != nil || set != "" {
			return set, err
		}
	}
	if set, err := s.PolicyOf(r, p.App, ""); err != nil || set != "" {
		return set, err
	}
	if p.Call != nil || channel == ChannelSMS && p.SMS != nil && !p.SMS.Promotional {
		return Resend, nil
	}
	return Leave, nil
}
