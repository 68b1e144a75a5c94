package endpoints

import (
	"context"
	"errors"
	"fmt"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

func notFound() error { return aws.NotFound("Resource not found") }

// accepted is the body of writes that the original processed later.
func accepted(requestID string) *pinpoint.MessageBody {
	message := "Accepted"
	return &pinpoint.MessageBody{Message: &message, RequestID: &requestID}
}

// get answers GetEndpoint.
func (s *Service) get(ctx context.Context, in *pinpoint.GetEndpointRequest) (*pinpoint.GetEndpointResponse, error) {
	r := s.store.Reader(ctx)
	if err := s.memory.own(r, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
		return nil, err
	}
	e, err := s.Load(r, in.ApplicationId, in.EndpointId)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, notFound()
	}
	u, err := s.userOf(r, e)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetEndpointResponse{EndpointResponse: Response(e, u)}, nil
}

func (s *Service) userOf(r store.Reader, e *Endpoint) (*User, error) {
	if e.UserID == "" {
		return nil, nil
	}
	return s.LoadUser(r, e.App, e.UserID)
}

// update answers UpdateEndpoint.
func (s *Service) update(ctx context.Context, in *pinpoint.UpdateEndpointRequest) (*pinpoint.UpdateEndpointResponse, error) {
	caller := aws.CallerFrom(ctx)
	p, err := s.Prepare(in.ApplicationId, in.EndpointId, in.EndpointRequest, caller.RequestID)
	if err != nil {
		return nil, err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.memory.own(tx, caller.Account, in.ApplicationId); err != nil {
			return err
		}
		return s.Write(tx, p)
	}, p.Touches()...)
	if err != nil {
		return nil, err
	}
	return &pinpoint.UpdateEndpointResponse{MessageBody: accepted(caller.RequestID)}, nil
}

// updateBatch answers UpdateEndpointsBatch: all items are written, in their
// order, or, when one cannot be, none.
func (s *Service) updateBatch(ctx context.Context, in *pinpoint.UpdateEndpointsBatchRequest) (*pinpoint.UpdateEndpointsBatchResponse, error) {
	caller := aws.CallerFrom(ctx)
	items := in.EndpointBatchRequest.Item
	if len(items) > s.limits.BatchItems {
		return nil, aws.InvalidMember("Item", "Item: more than %d endpoints", s.limits.BatchItems)
	}
	patches := make([]*Patch, len(items))
	var touches []store.Touch
	for i := range items {
		id, req := requestOf(&items[i])
		p, err := s.Prepare(in.ApplicationId, id, req, caller.RequestID)
		if err != nil {
			return nil, itemFault(i, err)
		}
		patches[i] = p
		touches = append(touches, p.Touches()...)
	}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.memory.own(tx, caller.Account, in.ApplicationId); err != nil {
			return err
		}
		for i, p := range patches {
			if err := s.Write(tx, p); err != nil {
				return itemFault(i, err)
			}
		}
		return nil
	}, touches...)
	if err != nil {
		return nil, err
	}
	return &pinpoint.UpdateEndpointsBatchResponse{MessageBody: accepted(caller.RequestID)}, nil
}

// requestOf splits a batch item into the endpoint's id and what is asked of it.
func requestOf(item *pinpoint.EndpointBatchItem) (string, *pinpoint.EndpointRequest) {
	id := ""
	if item.Id != nil {
		id = *item.Id
	}
	return id, &pinpoint.EndpointRequest{
		Address: item.Address, Attributes: item.Attributes, ChannelType: item.ChannelType,
		Demographic: item.Demographic, EffectiveDate: item.EffectiveDate, EndpointStatus: item.EndpointStatus,
		Location: item.Location, Metrics: item.Metrics, OptOut: item.OptOut, RequestId: item.RequestId, User: item.User,
	}
}

// itemFault names the item of a batch. The sentence stays in front: clients
// match its beginning.
func itemFault(i int, err error) error {
	f, ok := errors.AsType[*aws.Fault](err)
	if !ok {
		return err
	}
	named := *f
	named.Message = fmt.Sprintf("%s (Item[%d])", f.Message, i)
	named.Member = fmt.Sprintf("Item[%d].%s", i, f.Member)
	return &named
}

// delete answers DeleteEndpoint with the endpoint as it was. Its opt-outs
// outlive it. The user goes with their last endpoint.
func (s *Service) delete(ctx context.Context, in *pinpoint.DeleteEndpointRequest) (*pinpoint.DeleteEndpointResponse, error) {
	key := Key(s.store, in.ApplicationId, in.EndpointId)
	var was *pinpoint.EndpointResponse
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.memory.own(tx, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
			return err
		}
		e, err := LoadKey(tx, key)
		if err != nil {
			return err
		}
		if e == nil {
			return notFound()
		}
		u, err := s.userOf(tx, e)
		if err != nil {
			return err
		}
		was = Response(e, u)
		if err := remove(tx, KindEndpoint, key); err != nil {
			return err
		}
		if u == nil {
			return nil
		}
		left, err := tx.Lookup(KindEndpoint, ByUser(e.App, e.UserID), 1)
		if err != nil || len(left) > 0 {
			return err
		}
		return remove(tx, KindUser, UserKey(tx, e.App, e.UserID))
	}, store.Touch{Kind: KindEndpoint, Key: key})
	if err != nil {
		return nil, err
	}
	return &pinpoint.DeleteEndpointResponse{EndpointResponse: was}, nil
}

// remove leaves a record's tombstone, under no index value.
func remove(tx *store.Tx, k store.Kind, key string) error {
	body, err := tx.Get(k, key)
	if err != nil || body == nil {
		return err
	}
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return fmt.Errorf("read %s: %w", k.Name, err)
	}
	if !r.Live() {
		return nil
	}
	r.Delete(tx.Stamp(r.Latest()))
	return tx.Put(safely(k), key, encode(&r))
}

// getUser answers GetUserEndpoints.
func (s *Service) getUser(ctx context.Context, in *pinpoint.GetUserEndpointsRequest) (*pinpoint.GetUserEndpointsResponse, error) {
	r := s.store.Reader(ctx)
	if err := s.memory.own(r, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
		return nil, err
	}
	out, err := s.userResponse(r, in.ApplicationId, in.UserId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetUserEndpointsResponse{EndpointsResponse: out}, nil
}

func (s *Service) userResponse(r store.Reader, app, userID string) (*pinpoint.EndpointsResponse, error) {
	all, err := UserEndpoints(r, app, userID)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, notFound()
	}
	u, err := s.LoadUser(r, app, userID)
	if err != nil {
		return nil, err
	}
	out := &pinpoint.EndpointsResponse{Item: make([]pinpoint.EndpointResponse, 0, len(all))}
	for _, e := range all {
		out.Item = append(out.Item, *Response(e, u))
	}
	return out, nil
}

// deleteUser answers DeleteUserEndpoints with the endpoints as they were.
func (s *Service) deleteUser(ctx context.Context, in *pinpoint.DeleteUserEndpointsRequest) (*pinpoint.DeleteUserEndpointsResponse, error) {
	userKey := UserKey(s.store, in.ApplicationId, in.UserId)
	var was *pinpoint.EndpointsResponse
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.memory.own(tx, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
			return err
		}
		out, err := s.userResponse(tx, in.ApplicationId, in.UserId)
		if err != nil {
			return err
		}
		was = out
		for i := range out.Item {
			if err := remove(tx, KindEndpoint, Key(tx, in.ApplicationId, *out.Item[i].Id)); err != nil {
				return err
			}
		}
		return remove(tx, KindUser, userKey)
	}, store.Touch{Kind: KindUser, Key: userKey}, store.Touch{Kind: KindEndpoint, Index: ByUser(in.ApplicationId, in.UserId)})
	if err != nil {
		return nil, err
	}
	return &pinpoint.DeleteUserEndpointsResponse{EndpointsResponse: was}, nil
}
