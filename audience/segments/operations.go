package segments

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/account/tags"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/store"
)

// in returns the caller if their account has the app.
func (s *Service) in(ctx context.Context, r store.Reader, app string) (aws.Caller, error) {
	caller := aws.CallerFrom(ctx)
	ok, err := s.apps.Exists(r, caller.Account, app)
	if err == nil && !ok {
		err = notFound()
	}
	return caller, err
}

// create answers CreateSegment. Source: engagement 3.
func (s *Service) create(ctx context.Context, in *pinpoint.CreateSegmentRequest) (*pinpoint.CreateSegmentResponse, error) {
	req := in.WriteSegmentRequest
	if err := checkName(req.Name); err != nil {
		return nil, err
	}
	if err := tags.Check(req.Tags); err != nil {
		return nil, err
	}
	at := aws.Timestamp(s.now())
	seg := &pinpoint.SegmentResponse{
		ApplicationId: in.ApplicationId, Id: s.ids.Hex(), Name: req.Name, SegmentType: pinpoint.SegmentTypeDimensional,
		Dimensions: req.Dimensions, SegmentGroups: req.SegmentGroups, Tags: req.Tags,
		CreationDate: at, LastModifiedDate: &at, Version: new(1),
	}
	var caller aws.Caller
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if caller, err = s.in(ctx, tx, in.ApplicationId); err != nil {
			return err
		}
		if _, err := CompileSegment(seg, &sources{tx, in.ApplicationId, seg}, s.now()); err != nil {
			return err
		}
		return save(tx, seg)
	})
	if err != nil {
		return nil, err
	}
	return &pinpoint.CreateSegmentResponse{SegmentResponse: response(caller, seg)}, nil
}

// update answers UpdateSegment: it makes the next version. Tags are not part of
// an update. Source: engagement 1.3, 3.
func (s *Service) update(ctx context.Context, in *pinpoint.UpdateSegmentRequest) (*pinpoint.UpdateSegmentResponse, error) {
	req := in.WriteSegmentRequest
	if err := checkName(req.Name); err != nil {
		return nil, err
	}
	var caller aws.Caller
	var seg *pinpoint.SegmentResponse
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if caller, err = s.in(ctx, tx, in.ApplicationId); err != nil {
			return err
		}
		if seg, err = own(tx, in.ApplicationId, in.SegmentId); err != nil {
			return err
		}
		if seg.SegmentType == pinpoint.SegmentTypeImport {
			return aws.InvalidMember("SegmentId", "SegmentId: segment %s was imported; it changes only by another import", seg.Id)
		}
		at := aws.Timestamp(s.now())
		seg.LastModifiedDate, seg.Version = &at, new(*seg.Version+1)
		seg.Dimensions, seg.SegmentGroups = req.Dimensions, req.SegmentGroups
		if req.Name != nil {
			seg.Name = req.Name
		}
		if _, err := CompileSegment(seg, &sources{tx, in.ApplicationId, seg}, s.now()); err != nil {
			return err
		}
		return save(tx, seg)
	}, store.Touch{Kind: KindSegment, Key: key(in.ApplicationId, in.SegmentId)})
	if err != nil {
		return nil, err
	}
	return &pinpoint.UpdateSegmentResponse{SegmentResponse: response(caller, seg)}, nil
}

// get answers GetSegment with the latest version.
func (s *Service) get(ctx context.Context, in *pinpoint.GetSegmentRequest) (*pinpoint.GetSegmentResponse, error) {
	r := s.store.Reader(ctx)
	caller, err := s.in(ctx, r, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	seg, err := own(r, in.ApplicationId, in.SegmentId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetSegmentResponse{SegmentResponse: response(caller, seg)}, nil
}

// getVersion answers GetSegmentVersion.
func (s *Service) getVersion(ctx context.Context, in *pinpoint.GetSegmentVersionRequest) (*pinpoint.GetSegmentVersionResponse, error) {
	r := s.store.Reader(ctx)
	caller, err := s.in(ctx, r, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(in.Version)
	if err != nil || number < 1 {
		return nil, aws.InvalidMember("Version", "Version: expected a number from 1")
	}
	seg, err := Load(r, in.ApplicationId, in.SegmentId, number)
	if err != nil {
		return nil, err
	}
	if seg == nil {
		return nil, notFound()
	}
	return &pinpoint.GetSegmentVersionResponse{SegmentResponse: response(caller, seg)}, nil
}

// list answers GetSegments: each at its latest version, in the order of their ids.
func (s *Service) list(ctx context.Context, in *pinpoint.GetSegmentsRequest) (*pinpoint.GetSegmentsResponse, error) {
	r := s.store.Reader(ctx)
	caller, err := s.in(ctx, r, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	scope := strings.Join([]string{"GetSegments", caller.Account, in.ApplicationId}, "\x00")
	out, err := s.page(r, caller, KindSegment, prefix(in.ApplicationId), scope, in.PageSize, in.Token)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetSegmentsResponse{SegmentsResponse: out}, nil
}

// listVersions answers GetSegmentVersions, in the order of the versions.
func (s *Service) listVersions(ctx context.Context, in *pinpoint.GetSegmentVersionsRequest) (*pinpoint.GetSegmentVersionsResponse, error) {
	r := s.store.Reader(ctx)
	caller, err := s.in(ctx, r, in.ApplicationId)
	if err != nil {
		return nil, err
	}
	seg, err := own(r, in.ApplicationId, in.SegmentId)
	if err != nil {
		return nil, err
	}
	scope := strings.Join([]string{"GetSegmentVersions", caller.Account, in.ApplicationId, in.SegmentId}, "\x00")
	out, err := s.page(r, caller, KindVersion, key(in.ApplicationId, in.SegmentId)+"/", scope, in.PageSize, in.Token)
	if err != nil {
		return nil, err
	}
	for i := range out.Item {
		out.Item[i].Tags = seg.Tags
	}
	return &pinpoint.GetSegmentVersionsResponse{SegmentsResponse: out}, nil
}

// page reads one page of the rows of a kind whose keys start with prefix.
func (s *Service) page(r store.Reader, caller aws.Caller, k store.Kind, prefix, scope string, pageSize, token *string) (*pinpoint.SegmentsResponse, error) {
	size, err := wire.Page(pageSize)
	if err != nil {
		return nil, err
	}
	after := ""
	if token != nil {
		if after, err = s.tokens.Open(scope, *token); err != nil {
			return nil, err
		}
	}
	rows, err := r.List(k, prefix, after, size+1)
	if err != nil {
		return nil, err
	}
	out := &pinpoint.SegmentsResponse{Item: []pinpoint.SegmentResponse{}}
	if len(rows) > size {
		rows = rows[:size]
		next := s.tokens.Seal(scope, rows[size-1].Key)
		out.NextToken = &next
	}
	for _, row := range rows {
		seg, err := store.Decode[pinpoint.SegmentResponse](k, row.Body)
		if err != nil {
			return nil, err
		}
		out.Item = append(out.Item, *response(caller, seg))
	}
	return out, nil
}

// delete answers DeleteSegment with the segment as it was. Its versions, and the
// members of an imported one, go after it, some at a time.
func (s *Service) delete(ctx context.Context, in *pinpoint.DeleteSegmentRequest) (*pinpoint.DeleteSegmentResponse, error) {
	var caller aws.Caller
	var seg *pinpoint.SegmentResponse
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if caller, err = s.in(ctx, tx, in.ApplicationId); err != nil {
			return err
		}
		if seg, err = own(tx, in.ApplicationId, in.SegmentId); err != nil {
			return err
		}
		if err := tx.Remove(kindImport, key(in.ApplicationId, in.SegmentId)); err != nil {
			return err
		}
		return tx.Remove(KindSegment, key(in.ApplicationId, in.SegmentId))
	}, store.Touch{Kind: KindSegment, Key: key(in.ApplicationId, in.SegmentId)})
	if err != nil {
		return nil, err
	}
	// The caller may go away, and control may move; the segment is gone already.
	if err := s.purge(aws.WithoutControlEpoch(context.WithoutCancel(ctx)), in.ApplicationId, in.SegmentId); err != nil {
		return nil, err
	}
	return &pinpoint.DeleteSegmentResponse{SegmentResponse: response(caller, seg)}, nil
}

const purgeBatch = 200 // rows removed in one update

// purge removes the versions and members of a segment.
func (s *Service) purge(ctx context.Context, app, id string) error {
	for _, k := range []store.Kind{KindVersion, KindMember} {
		for more := true; more; {
			err := s.store.Update(ctx, func(tx *store.Tx) error {
				rows, err := tx.List(k, key(app, id)+"/", "", purgeBatch)
				if err != nil {
					return err
				}
				for _, row := range rows {
					if err := tx.Remove(k, row.Key); err != nil {
						return err
					}
				}
				more = len(rows) == purgeBatch
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// countWait bounds how long a count waits for the index to catch up.
const countWait = 5 * time.Second

// count answers CountSegment: exactly how many endpoints the segment would have
// now, everything included that was written before the call.
func (s *Service) count(ctx context.Context, in *everpoint.CountSegmentRequest) (*everpoint.CountSegmentResponse, error) {
	r := s.store.Reader(ctx)
	if _, err := s.in(ctx, r, in.ApplicationId); err != nil {
		return nil, err
	}
	req := in.SegmentCountRequest
	c, err := Compile(req.Dimensions, req.SegmentGroups, SourcesOf(r, in.ApplicationId), s.now())
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, countWait)
	defer cancel()
	if err := s.index.Fresh(wait); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil, aws.Unavailable("the audience index of this node has not caught up within %s", countWait)
		}
		return nil, err
	}
	start := s.now()
	n, eligible, err := s.index.Count(ctx, in.ApplicationId, c)
	if err != nil {
		return nil, err
	}
	return &everpoint.CountSegmentResponse{SegmentCount: &everpoint.SegmentCount{
		Count: int64(n), Eligible: int64(eligible), ElapsedMicroseconds: s.now().Sub(start).Microseconds(),
	}}, nil
}
