package delivery

import (
	"context"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// reference finds the message that a provider's id belongs to.
type reference struct {
	Plan   string
	Block  string
	Member int
	From   string
	Parts  int
	States map[string]string `json:",omitempty"` // by provider id: the last state that counted
}

// referenceKey hides nothing: provider ids are the carrier's, not a person's.
func referenceKey(route, id string) string { return route + "/" + id }

// refer remembers a text's provider ids, and takes up receipts that came before
// the answer to the submit.
func (s *Service) refer(tx *store.Tx, j *job, t *telling, e *Entry) error {
	if len(e.ProviderIDs) == 0 {
		return nil
	}
	n, ok := s.origin(j.plan.plan.SMS, t.address)
	if !ok {
		return nil
	}
	ref := &reference{Plan: j.block.Plan, Block: j.key, Member: e.Member, From: t.from, Parts: e.Parts}
	for _, id := range e.ProviderIDs {
		key := referenceKey(n.Route, id)
		early, err := store.Load[courier.Receipt](tx, kindOrphan, key)
		if err != nil {
			return err
		}
		if err := store.Save(tx, kindReference, key, ref); err != nil {
			return err
		}
		if early == nil {
			continue
		}
		if err := tx.Remove(kindOrphan, key); err != nil {
			return err
		}
		if err := s.takeReceipt(tx, key, ref, j.plan.plan, t, *early); err != nil {
			return err
		}
	}
	return nil
}

// Receipt writes down a delivery receipt. It returns when that is durable.
// Repeats change nothing.
func (s *Service) Receipt(ctx context.Context, r courier.Receipt) error {
	key := referenceKey(r.Route, r.ProviderID)
	return s.store.Update(ctx, func(tx *store.Tx) error {
		ref, err := store.Load[reference](tx, kindReference, key)
		if err != nil {
			return err
		}
		if ref == nil {
			// It came before the submit's answer was written, or is not ours; the
			// former is taken up by refer.
			return store.Save(tx, kindOrphan, key, &r)
		}
		plan, err := s.plan(tx, ref.Plan)
		if err != nil {
			return err
		}
		b, err := store.Load[Block](tx, kindClaim, ref.Block)
		if err != nil || b == nil {
			return err
		}
		j := &job{s: s, key: ref.Block, block: b, plan: plan}
		c, err := j.candidate(tx, ref.Member)
		if err != nil {
			return err
		}
		t := j.telling(ref.Member, c, tx.Now())
		t.from = ref.From
		return s.takeReceipt(tx, key, ref, plan.plan, t, r)
	}, store.Touch{Kind: kindReference, Key: key})
}

// receiptEvent maps a receipt's state to an event and record_status; final is
// false for states that another will follow. Source: channels 2.5, DLR table.
func receiptEvent(r *courier.Receipt) (event, status string, final bool) {
	switch r.State {
	case "DELIVRD":
		return "SUCCESS", "DELIVERED", true
	case "ACCEPTD", "ENROUTE":
		return "", "", false
	case "EXPIRED":
		return "FAILURE", "TTL_EXPIRED", true
	case "UNDELIV":
		return "FAILURE", "UNREACHABLE", true
	case "REJECTD":
		return "FAILURE", "CARRIER_BLOCKED", true
	default:
		return "FAILURE", "UNKNOWN", true
	}
}

func (s *Service) takeReceipt(tx *store.Tx, key string, ref *reference, p *Plan, t *telling, r courier.Receipt) error {
	event, status, final := receiptEvent(&r)
	if !final || ref.States[r.ProviderID] != "" {
		return nil // nothing new
	}
	next := *ref
	next.States = map[string]string{r.ProviderID: status}
	if err := store.Save(tx, kindReference, key, &next); err != nil {
		return err
	}
	if !r.At.IsZero() {
		t.at = r.At
	}
	if status == "DELIVERED" {
		if err := s.tally(tx, p.ID, &Tally{Delivered: 1}); err != nil {
			return err
		}
	}
	return tellSMS(tx, t, event, status, countryOf(t.address), ref.Parts)
}

var kindInbound = store.Kind{Name: "inbound", Rule: changelog.RuleAppend}

// inboundRow is a text from a person, kept until keywords and two-way targets
// take it up.
type inboundRow struct {
	Route, From, To, Body string
	At                    time.Time
}

// Inbound writes down a text from a person; a repeat changes nothing.
func (s *Service) Inbound(ctx context.Context, in courier.Inbound) error {
	return s.store.Update(ctx, func(tx *store.Tx) error {
		was, err := tx.Get(kindInbound, in.ID)
		if err != nil || was != nil {
			return err
		}
		return store.Save(tx, kindInbound, in.ID, &inboundRow{in.Route, in.From, in.To, in.Body, in.At})
	})
}

var _ courier.Receiver = (*Service)(nil)
