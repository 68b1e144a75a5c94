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

// kindCall rows remember what calls that sent something were answered. A key is the
// app's id, a keyed hash of the call ([callKey]), and the database that made the record:
// a call that was repeated in another Region has one of each when neither had heard of
// the other's.
var kindCall = store.Kind{Name: "call", Rule: changelog.RuleAppend, Safety: true}

// call is a call's record.
type call struct {
	Operation string
	Plan      string // the call's id in the ledger
	Region    string // that made it
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
	d.Calls(made)
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

// callKey names the records of a call; empty when the client does not say which
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

// recordsMax bounds the records of one call that are read: there is one for each life
// of a database that a client met.
const recordsMax = 16

// recorded reads the records of a call, and the plans that they name.
func recorded(r store.Reader, key string) (calls []*call, plans []delivery.Made, err error) {
	rows, err := r.List(kindCall, key+"/", "", recordsMax)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		c, err := store.Decode[call](kindCall, row.Body)
		if err != nil {
			return nil, nil, err
		}
		calls, plans = append(calls, c), append(plans, delivery.Made{Plan: c.Plan, Region: c.Region})
	}
	return calls, plans, nil
}

// made is recorded for delivery.
func made(r store.Reader, key string) ([]delivery.Made, error) {
	_, plans, err := recorded(r, key)
	return plans, err
}

// again is what a call was answered before, once the group has its record: who was to
// be answered may have heard that the group had not. It is nil when the call is new.
func again[T any](ctx context.Context, s *Service, key string) (*T, error) {
	if key == "" {
		return nil, nil
	}
	r := s.store.Reader(ctx)
	calls, plans, err := recorded(r, key)
	if err != nil {
		return nil, err
	}
	i, err := s.delivery.Stands(r, plans)
	if err != nil || i < 0 {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(calls[i].Answer, v); err != nil {
		return nil, fmt.Errorf("read the answer of a call: %w", err)
	}
	if err := s.store.Acknowledged(ctx); err != nil {
		return nil, err
	}
	return v, nil
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
	own := key + "/" + s.store.Region() + "/" + s.store.Incarnation()
	if key != "" {
		d.plan.Call.Record = []byte(key)
		touch = append(touch, store.Touch{Kind: kindCall, Key: own})
	}
	repeated := false
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		repeated = false
		if key != "" {
			was, _, err := recorded(tx, key)
			if err != nil || len(was) > 0 {
				repeated = len(was) > 0
				return err
			}
			record := &call{Operation: operation, Plan: d.plan.ID, Region: s.store.Region(), At: tx.Now().UTC(), Answer: body}
			if err := store.Save(tx, kindCall, own, record); err != nil {
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
	switch {
	case err != nil:
		return nil, err
	case repeated:
		was, err := again[T](ctx, s, key)
		if err == nil && was == nil {
			err = apps.NotFound() // and with it the record
		}
		return was, err
	}
	return answer, nil
}
