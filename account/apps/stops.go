package apps

import (
	"context"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// Orders is where stop orders stand until the Region with control has carried
// them out. The key of an app's is its id.
type Orders interface {
	Order(ctx context.Context, key string, h quorum.Halt) (withdraw func(context.Context), err error)
}

// Orders says where stop orders are given. It is called before Mount, once.
func (s *Service) Orders(o Orders) { s.orders = o }

// callerBytesMax bounds how an order names who gave it.
const callerBytesMax = 128

// orderDelete orders what DeleteApp does: until it is done nothing is sent for the
// app any more.
func (s *Service) orderDelete(ctx context.Context, in *pinpoint.DeleteAppRequest) (*pinpoint.DeleteAppResponse, func(context.Context), error) {
	caller := aws.CallerFrom(ctx)
	a, err := store.Load[App](s.store.Reader(ctx), Kind, in.ApplicationId)
	if err == nil && (a == nil || a.Account != caller.Account) {
		err = NotFound()
	}
	if err != nil {
		return nil, nil, err
	}
	p := caller.Principal
	withdraw, err := s.orders.Order(ctx, a.ID, quorum.Halt{
		Kind: quorum.Delete, By: p[max(0, len(p)-callerBytesMax):], AtMillis: s.now().UnixMilli(),
	})
	if err != nil {
		return nil, nil, err
	}
	return &pinpoint.DeleteAppResponse{ApplicationResponse: response(caller, a)}, withdraw, nil
}

// CarryOut deletes an app that was ordered to be deleted, in the Region with
// control. When it returns without an error the other Regions of the set have it, so
// the order may be lifted. A tombstone is written once more, for that.
func (s *Service) CarryOut(ctx context.Context, app string) error {
	return s.store.Update(ctx, func(tx *store.Tx) error {
		a, err := store.Load[App](tx, Kind, app)
		switch {
		case err != nil || a == nil:
			return err
		case a.DeletedAt != "":
			return store.Save(tx, Kind, app, a)
		}
		return s.remove(tx, a)
	}, store.Touch{Kind: Kind, Key: app})
}
