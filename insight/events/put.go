package events

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/store"
)

// put answers PutEvents. Whatever is wrong with single items, the answer to the
// request is 202.
//
// Source: channels-and-events 10.
func (s *Service) put(ctx context.Context, in *pinpoint.PutEventsRequest) (*pinpoint.PutEventsResponse, error) {
	b, err := s.prepare(aws.CallerFrom(ctx), in, s.now())
	if err != nil {
		return nil, err
	}
	if err := s.store.Update(ctx, b.write, b.touches()...); err != nil {
		return nil, err
	}
	return &pinpoint.PutEventsResponse{EventsResponse: b.response()}, nil
}

// batch is a request on its way: checked and encoded as far as can be done
// without the store, so that little is left to do inside the update.
type batch struct {
	s       *Service
	account string
	app     string
	now     time.Time
	items   []item // in the order of endpoint ids
	buf     []byte // backs the records
}

// item is an endpoint and its events.
type item struct {
	id     string // of the endpoint, as the request writes it
	key    string // of the endpoint's row
	patch  *endpoints.Patch
	broken *verdict // of an endpoint that the request alone shows to be wrong
	judged verdict  // of the endpoint, after the update
	events []event
}

// event is one event and its verdict. Of its record the beginning and the end
// are ready; what is between them tells of the endpoint.
type event struct {
	id              string
	in              pinpoint.Event
	broken          bool // the request alone shows it to be wrong
	judged          verdict
	id128           [16]byte // see identify
	start, mid, end int      // of the record's parts in batch.buf
}

// verdict is what an item of the answer says.
type verdict struct {
	status  int
	message string
}

var (
	statusAccepted, statusInvalid = 202, 400
	messageAccepted               = "Accepted"
	accepted                      = verdict{statusAccepted, messageAccepted}
)

func invalid(message string) verdict { return verdict{statusInvalid, message} }

// verdictOf turns the fault of an endpoint into its verdict; ok is false for
// what is not the endpoint's fault but the whole request's.
func verdictOf(err error) (v verdict, ok bool) {
	f, is := errors.AsType[*aws.Fault](err)
	if !is {
		return verdict{}, false
	}
	switch f.Kind {
	case aws.KindInvalid, aws.KindQuota, aws.KindTooLarge, aws.KindConflict, aws.KindForbidden:
		return invalid(f.Message), true
	case aws.KindThrottled:
		return verdict{429, f.Message}, true
	}
	return verdict{}, false
}

// prepare checks a request as far as the request alone can tell. Its faults are
// those of the request as a whole.
func (s *Service) prepare(caller aws.Caller, in *pinpoint.PutEventsRequest, now time.Time) (*batch, error) {
	all := in.EventsRequest.BatchItem
	if len(all) > s.limits.EventsPerRequest {
		return nil, aws.InvalidMember("BatchItem", "BatchItem: more than %d endpoints", s.limits.EventsPerRequest)
	}
	n, size := 0, 0
	for id, it := range all {
		n += len(it.Events)
		size += len(id)
		for id, e := range it.Events {
			size += len(id) + bytesOf(&e)
		}
	}
	if n > s.limits.EventsPerRequest {
		return nil, aws.InvalidMember("BatchItem", "BatchItem: more than %d events", s.limits.EventsPerRequest)
	}
	if size > s.limits.RequestBytes {
		return nil, aws.TooLarge("The events have more than %d bytes", s.limits.RequestBytes)
	}
	b := &batch{
		s: s, account: caller.Account, app: in.ApplicationId, now: now,
		items: make([]item, 0, len(all)), buf: make([]byte, 0, size*3/2+n*recordBytes),
	}
	events := make([]event, 0, n)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		batchItem := all[id]
		it := item{id: id, key: endpoints.Key(s.store, b.app, id)}
		start := len(events)
		for _, eventID := range slices.Sorted(maps.Keys(batchItem.Events)) {
			events = append(events, event{id: eventID, in: batchItem.Events[eventID]})
		}
		it.events = events[start:len(events):len(events)]
		request := (*pinpoint.EndpointRequest)(batchItem.Endpoint)
		if request == nil {
			request = &pinpoint.EndpointRequest{}
		}
		var err error
		if it.patch, err = s.endpoints.Prepare(b.app, id, request, caller.RequestID); err != nil {
			v, ok := verdictOf(err)
			if !ok {
				return nil, err
			}
			it.broken = &v
		}
		for i := range it.events {
			b.prepareEvent(&it, &it.events[i])
		}
		b.items = append(b.items, it)
	}
	return b, nil
}

func (b *batch) prepareEvent(it *item, e *event) {
	if it.broken != nil && !isEndpointID(it.id) {
		e.broken, e.judged = true, *it.broken
		return
	}
	at, why := b.s.limits.check(&e.in)
	if why != "" {
		e.broken, e.judged = true, invalid(why)
		return
	}
	e.start = len(b.buf)
	b.buf = appendStart(b.buf, b, &e.in, at)
	e.mid = len(b.buf)
	b.buf = appendSaid(b.buf, &e.in)
	e.end = len(b.buf)
	e.id128 = identify(b, it, e, at)
}

// touches are the rows that the update reads for each endpoint.
func (b *batch) touches() []store.Touch {
	t := make([]store.Touch, 0, 6*len(b.items))
	for i := range b.items {
		it := &b.items[i]
		if it.patch != nil {
			t = append(t, it.patch.Touches()...)
		}
		if len(it.events) > 0 {
			day := dayOf(b.now)
			t = append(t, store.Touch{Kind: kindSeen, Key: seenKey(day, it.key)}, store.Touch{Kind: kindSeen, Key: seenKey(day-1, it.key)})
		}
	}
	return t
}

// write is the update: endpoints first, each before its events are evaluated.
// It may run more than once.
func (b *batch) write(tx *store.Tx) error {
	if err := b.s.owners.check(tx, b.account, b.app); err != nil {
		return err
	}
	names, err := b.s.names.load(tx, b.app)
	if err != nil {
		return err
	}
	use := usage{names: names, limits: &b.s.limits}
	var scratch scratch
	for i := range b.items {
		if err := b.writeItem(tx, &b.items[i], &use, &scratch); err != nil {
			return err
		}
	}
	return use.save(tx, b.app)
}

func (b *batch) writeItem(tx *store.Tx, it *item, use *usage, scratch *scratch) error {
	it.judged = accepted
	if it.broken != nil {
		it.judged = *it.broken
	} else if err := b.s.endpoints.Write(tx, it.patch); err != nil {
		v, ok := verdictOf(err)
		if !ok {
			return err
		}
		it.judged = v
	}
	var seen *memory
	for i := range it.events {
		e := &it.events[i]
		if e.broken {
			continue
		}
		if seen == nil {
			var err error
			if seen, err = recall(tx, it.key, b.now); err != nil {
				return err
			}
			who, err := endpoints.LoadKey(tx, it.key)
			if err != nil {
				return err
			}
			scratch.endpoint(b, it, who)
		}
		if why := use.admit(&e.in); why != "" {
			e.judged = invalid(why)
			continue
		}
		e.judged = accepted
		if seen.add(e.id128) {
			eventlog.Append(tx, eventlog.Fact{
				ID: factID(e.id128), Account: b.account, App: b.app, Type: e.in.EventType,
				Client: scratch.client, Data: scratch.record(b, e),
			})
		}
	}
	if seen == nil {
		return nil
	}
	return seen.save(tx)
}

// response tells the verdicts.
func (b *batch) response() *pinpoint.EventsResponse {
	out := &pinpoint.EventsResponse{Results: make(map[string]pinpoint.ItemResponse, len(b.items))}
	for i := range b.items {
		it := &b.items[i]
		item := pinpoint.ItemResponse{
			EndpointItemResponse: &pinpoint.EndpointItemResponse{Message: &it.judged.message, StatusCode: &it.judged.status},
			EventsItemResponse:   make(map[string]pinpoint.EventItemResponse, len(it.events)),
		}
		for j := range it.events {
			v := &it.events[j].judged
			item.EventsItemResponse[it.events[j].id] = pinpoint.EventItemResponse{Message: &v.message, StatusCode: &v.status}
		}
		out.Results[it.id] = item
	}
	return out
}
