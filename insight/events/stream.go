package events

import (
	"context"
	"regexp"
	"slices"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// kindStream rows are keyed by app.
var kindStream = store.Kind{Name: "event-stream", Rule: changelog.RuleDocument, Safety: true}

// A Stream says where an app's events go besides.
type Stream struct {
	App              string
	DestinationARN   string // of a Kinesis stream or a Firehose
	RoleARN          string
	LastModifiedDate string
	LastUpdatedBy    string `json:",omitempty"` // ARN of a principal
}

// StreamOf returns an app's event stream; nil when it has none.
func StreamOf(r store.Reader, app string) (*Stream, error) {
	return store.Load[Stream](r, kindStream, app)
}

// The forms of what an event stream names. Source: channels-and-events 11.
var (
	kinesisResource  = regexp.MustCompile(`^stream/[A-Za-z0-9_.-]{1,128}$`)
	firehoseResource = regexp.MustCompile(`^deliverystream/[A-Za-z0-9_.-]{1,64}$`)
	roleResource     = regexp.MustCompile(`^role/([!-~]{1,510}/)?[A-Za-z0-9_+=,.@-]{1,64}$`)
)

// checkStream reports a destination or a role that has not the form of one, or
// is not the caller's. Whether the role may write is found when events are
// handed on.
//
// Source: channels-and-events 11; engagement 12; spec README, RoleArn.
func (s *Service) checkStream(caller aws.Caller, w *pinpoint.WriteEventStream) error {
	arn, err := aws.ParseARN(w.DestinationStreamArn)
	if err != nil || !(arn.Service == "kinesis" && kinesisResource.MatchString(arn.Resource) ||
		arn.Service == "firehose" && firehoseResource.MatchString(arn.Resource)) {
		return aws.InvalidMember("DestinationStreamArn",
			"DestinationStreamArn: expected arn:aws:kinesis:REGION:ACCOUNT:stream/NAME or arn:aws:firehose:REGION:ACCOUNT:deliverystream/NAME")
	}
	role, err := aws.ParseARN(w.RoleArn)
	if err != nil || role.Service != "iam" || role.Region != "" || !roleResource.MatchString(role.Resource) {
		return aws.InvalidMember("RoleArn", "RoleArn: expected arn:aws:iam::ACCOUNT:role/NAME")
	}
	if arn.Account != caller.Account {
		return aws.Forbidden("DestinationStreamArn: the stream is not of this account")
	}
	if arn.Region != caller.Region && !slices.Contains(s.regions, arn.Region) {
		return aws.Forbidden("DestinationStreamArn: the stream is not in this Region")
	}
	if role.Account != caller.Account {
		return aws.Forbidden("RoleArn: the role is not of this account")
	}
	return nil
}

// putStream answers PutEventStream: it replaces what there was.
func (s *Service) putStream(ctx context.Context, in *pinpoint.PutEventStreamRequest) (*pinpoint.PutEventStreamResponse, error) {
	caller := aws.CallerFrom(ctx)
	if err := s.checkStream(caller, in.WriteEventStream); err != nil {
		return nil, err
	}
	stream := &Stream{
		App: in.ApplicationId, DestinationARN: in.WriteEventStream.DestinationStreamArn, RoleARN: in.WriteEventStream.RoleArn,
		LastModifiedDate: aws.Timestamp(s.now()), LastUpdatedBy: caller.Principal,
	}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.owners.check(tx, caller.Account, in.ApplicationId); err != nil {
			return err
		}
		return store.Save(tx, kindStream, in.ApplicationId, stream)
	}, store.Touch{Kind: kindStream, Key: in.ApplicationId})
	if err != nil {
		return nil, err
	}
	return &pinpoint.PutEventStreamResponse{EventStream: stream.response()}, nil
}

// find returns the stream of the caller's app.
func (s *Service) find(r store.Reader, account, app string) (*Stream, error) {
	if err := s.owners.check(r, account, app); err != nil {
		return nil, err
	}
	stream, err := StreamOf(r, app)
	if err == nil && stream == nil {
		err = aws.NotFound("Resource not found")
	}
	return stream, err
}

// getStream answers GetEventStream.
func (s *Service) getStream(ctx context.Context, in *pinpoint.GetEventStreamRequest) (*pinpoint.GetEventStreamResponse, error) {
	stream, err := s.find(s.store.Reader(ctx), aws.CallerFrom(ctx).Account, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetEventStreamResponse{EventStream: stream.response()}, nil
}

// deleteStream answers DeleteEventStream with the stream as it was.
func (s *Service) deleteStream(ctx context.Context, in *pinpoint.DeleteEventStreamRequest) (*pinpoint.DeleteEventStreamResponse, error) {
	var was *Stream
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if was, err = s.find(tx, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
			return err
		}
		return tx.Remove(kindStream, in.ApplicationId)
	}, store.Touch{Kind: kindStream, Key: in.ApplicationId})
	if err != nil {
		return nil, err
	}
	return &pinpoint.DeleteEventStreamResponse{EventStream: was.response()}, nil
}

func (s *Stream) response() *pinpoint.EventStream {
	out := &pinpoint.EventStream{
		ApplicationId: s.App, DestinationStreamArn: s.DestinationARN, RoleArn: s.RoleARN, LastModifiedDate: &s.LastModifiedDate,
	}
	if s.LastUpdatedBy != "" {
		out.LastUpdatedBy = &s.LastUpdatedBy
	}
	return out
}
