package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	IDs    []string // of all its parts
}

// heard is what receipts have said of a message, by part.
type heard struct {
	Final map[string]string // record_status by provider id
}

// referenceKey is the key of a provider's id, which hides nothing: it is the
// carrier's, not a person's. Case and leading zeros do not count, for providers
// are not particular about them.
func referenceKey(route, id string) string {
	return route + "/" + strings.TrimLeft(strings.ToLower(id), "0")
}

// refer remembers a text's provider ids, and takes up receipts that came before
// the answer to the submit.
func (s *Service) refer(tx *store.Tx, j *job, t *telling, e *Entry, route string) error {
	ref := &reference{Plan: j.block.Plan, Block: j.key, Member: e.Member, From: t.from, IDs: e.ProviderIDs}
	for _, id := range e.ProviderIDs {
		key := referenceKey(route, id)
		early, err := store.Load[orphan](tx, kindOrphan, key)
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
		if err := s.takeReceipt(tx, key, ref, j.plan.plan, t, early.Receipt); err != nil {
			return err
		}
	}
	return nil
}

// Receipt writes down a delivery receipt. It returns when that is durable.
// Repeats change nothing.
func (s *Service) Receipt(ctx context.Context, r courier.Receipt) error {
	keys := []string{referenceKey(r.Route, r.ProviderID)}
	for _, form := range r.Forms {
		if key := referenceKey(r.Route, form); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	touch := make([]store.Touch, 0, len(keys))
	for _, key := range keys {
		touch = append(touch, store.Touch{Kind: kindReference, Key: key}, store.Touch{Kind: kindOrphan, Key: key})
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		var ref *reference
		var key string
		for _, key = range keys {
			var err error
			if ref, err = store.Load[reference](tx, kindReference, key); err != nil {
				return err
			}
			if ref != nil {
				break
			}
		}
		if ref == nil {
			return s.keepOrphan(tx, keys, r)
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
	}, touch...)
}

// orphan is a receipt that belongs to no message we know of.
type orphan struct {
	Receipt courier.Receipt
	At      time.Time // when it came
}

// orphanTime is how long such a receipt is kept: it may have come before the
// submit's answer was written, and is then taken up by refer.
const orphanTime = time.Hour

// orphansSwept is how many old ones each new one looks at, so that they do not
// pile up.
const orphansSwept = 4

func (s *Service) keepOrphan(tx *store.Tx, keys []string, r courier.Receipt) error {
	old, err := tx.List(kindOrphan, "", keys[0], orphansSwept)
	if err == nil && len(old) < orphansSwept {
		old, err = tx.List(kindOrphan, "", "", orphansSwept)
	}
	if err != nil {
		return err
	}
	for _, row := range old {
		o, err := store.Decode[orphan](kindOrphan, row.Body)
		if err != nil {
			return err
		}
		if tx.Now().Sub(o.At) > orphanTime {
			if err := tx.Remove(kindOrphan, row.Key); err != nil {
				return err
			}
		}
	}
	for _, key := range keys {
		if err := store.Save(tx, kindOrphan, key, &orphan{r, tx.Now()}); err != nil {
			return err
		}
	}
	return nil
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

// takeReceipt counts a receipt. A message of several parts has its fate when the
// last of them has, and the worst of theirs.
func (s *Service) takeReceipt(tx *store.Tx, key string, ref *reference, p *Plan, t *telling, r courier.Receipt) error {
	_, status, final := receiptEvent(&r)
	if !final {
		return nil
	}
	row := fmt.Sprintf("%s/%d", ref.Block, ref.Member)
	h, err := store.Load[heard](tx, kindHeard, row)
	if err != nil {
		return err
	}
	if h == nil {
		h = &heard{Final: map[string]string{}}
	}
	if h.Final[key] != "" {
		return nil // a repeat
	}
	h.Final[key] = status
	if err := store.Save(tx, kindHeard, row, h); err != nil {
		return err
	}
	if len(h.Final) < len(ref.IDs) {
		return nil
	}
	event := "SUCCESS"
	for _, part := range h.Final {
		if part != "DELIVERED" {
			event, status = "FAILURE", part
		}
	}
	if !r.At.IsZero() {
		t.at = r.At
	}
	if event == "SUCCESS" {
		status = "DELIVERED"
		if err := s.delivered(tx, p.ID); err != nil {
			return err
		}
	}
	return tellSMS(tx, t, event, status, countryOf(t.address), len(ref.IDs))
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
