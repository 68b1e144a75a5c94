package messages

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// kindCall rows remember what calls that sent something were answered. A key is
// the app's id, a slash and a keyed hash; see [callKey].
var kindCall = store.Kind{Name: "call", Rule: changelog.RuleAppend, Safety: true}

// call is a call's record.
type call struct {
	Operation string
	Plan      string // the call's id in the ledger
	At        time.Time
	Answer    json.RawMessage
}

// Service answers direct sends. Create it with New; it is safe for concurrent use.
type Service struct {
	store    *store.Store
	delivery *delivery.Service
	ids      *aws.IDs
	now      func() time.Time
	log      *slog.Logger
}

// New returns the room. It starts nothing: call Mount; the work that it makes is
// delivery's.
func New(st *store.Store, d *delivery.Service, ids *aws.IDs, now func() time.Time, log *slog.Logger) *Service {
	d.Calls(stands)
	return &Service{store: st, delivery: d, ids: ids, now: now, log: log.With("component", "messages")}
}

// Mount hangs the room's operations on the mux.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.SendMessages, "apps/{ApplicationId}/messages", s.sendMessages)
	wire.Handle(m, pinpoint.SendUsersMessages, "apps/{ApplicationId}/messages", s.sendUsersMessages)
}

// Contents names the rows that belong to an app and go with it.
func Contents() []apps.Content {
	return []apps.Content{{Kind: kindCall, Prefix: func(app string) string { return app + "/" }}}
}

// callKey names the record of a call; empty when the client does not say which
// calls are the same. The body's hash is part of it: an id that comes with
// another body is another call.
//
// Source: design 5; spec README, replay protection.
func (s *Service) callKey(c aws.Caller, operation, app string) string {
	if c.InvocationID == "" || c.BodyHash == "" {
		return ""
	}
	return app + "/" + s.store.Blind("call", c.Account, c.Principal, operation, app, c.BodyHash, c.InvocationID)
}

// answered reads what a call was answered before; nil when it is new.
func answered[T any](r store.Reader, key string) (*T, error) {
	if key == "" {
		return nil, nil
	}
	was, err := store.Load[call](r, kindCall, key)
	if err != nil || was == nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(was.Answer, v); err != nil {
		return nil, fmt.Errorf("read the answer of a call: %w", err)
	}
	return v, nil
}

// stands reports whether a call's record names a plan.
func stands(r store.Reader, record, plan string) (bool, error) {
	c, err := store.Load[call](r, kindCall, record)
	if err != nil || c == nil {
		return false, err
	}
	return c.Plan == plan, nil
}

// commit writes a call's record, plan and claims in one update and returns what
// is to be answered: answer, or what a call that was the same got first.
func commit[T any](ctx context.Context, s *Service, key, operation string, d *draft, answer *T) (*T, error) {
	if len(d.members) == 0 {
		return answer, nil // it changes nothing, so it may be asked again
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("write the answer of a call: %w", err)
	}
	var touch []store.Touch
	if key != "" {
		touch = append(touch, store.Touch{Kind: kindCall, Key: key})
	}
	var out *T
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if out, err = answered[T](tx, key); err != nil || out != nil {
			return err
		}
		out = answer
		if key != "" {
			d.plan.Call.Record = []byte(key)
			record := &call{Operation: operation, Plan: d.plan.ID, At: tx.Now().UTC(), Answer: body}
			if err := store.Save(tx, kindCall, key, record); err != nil {
				return err
			}
		}
		if err := s.delivery.PutPlan(tx, d.plan); err != nil {
			return err
		}
		for seq, rest := int64(1), d.members; len(rest) > 0; seq++ {
			n := min(len(rest), delivery.BlockMax)
			if err := s.delivery.ClaimCall(tx, d.plan.ID, seq, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}, touch...)
	if err != nil {
		return nil, err
	}
	return out, nil
}
