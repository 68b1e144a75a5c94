package segments

import (
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

var _ endpoints.SegmentWriter = (*Service)(nil)

// importing is an import under way: what the segment's next version will be.
type importing struct {
	JobID      string
	Name       string
	Definition pinpoint.SegmentImportResource
	Version    int
	Chunks     int // of members, so far
}

// CreateImport begins the version of a segment that an import defines: the
// first of a new segment, or the next of the imported segment s.ID. Nobody sees
// it before FinishImport; the version before stays as it was. Of two imports
// into one segment at a time the later takes over.
//
// Source: engagement 3, 4.1.
func (s *Service) CreateImport(tx *store.Tx, app string, in endpoints.ImportSegment) (string, error) {
	if err := checkName(&in.Name); err != nil {
		return "", err
	}
	imp := &importing{
		JobID: in.JobID, Name: in.Name, Version: 1,
		// ExternalId is modelled as required, and empty.
		Definition: pinpoint.SegmentImportResource{
			Format: in.Definition.Format, RoleArn: in.Definition.RoleArn, S3Url: in.Definition.S3Url,
			ChannelCounts: map[string]int{},
		},
	}
	id := in.ID
	if id == "" {
		id = s.ids.Hex()
	} else {
		seg, err := Load(tx, app, id, 0)
		if err != nil {
			return "", err
		}
		if seg == nil {
			return "", aws.NotFound("SegmentId: there is no segment %.64s", id)
		}
		if seg.SegmentType != pinpoint.SegmentTypeImport {
			return "", aws.InvalidMember("SegmentId", "SegmentId: segment %s was not imported", id)
		}
		imp.Version = *seg.Version + 1
		if imp.Name == "" && seg.Name != nil {
			imp.Name = *seg.Name
		}
	}
	// What an import that failed half way had added is overwritten or, beyond
	// what this one adds, left out: the end marker says how many chunks count.
	return id, store.Save(tx, kindImport, key(app, id), imp)
}

// AddMembers adds members to the version that CreateImport began. Members may
// come more than once.
func (s *Service) AddMembers(tx *store.Tx, app, id string, m endpoints.ImportMembers) error {
	imp, err := s.importing(tx, app, id)
	if err != nil {
		return err
	}
	ch := chunk{}
	flush := func(atLeast int) error {
		if n := len(ch.endpoints) + len(ch.users); n < atLeast || n == 0 {
			return nil
		}
		err := putChunk(tx, chunkKey(app, version{id, imp.Version}, imp.Chunks), ch)
		imp.Chunks++
		ch = chunk{ch.endpoints[:0], ch.users[:0]}
		return err
	}
	for _, e := range m.EndpointIDs {
		if _, tail, ok := splitKey(endpoints.Key(tx, app, e)); ok {
			ch.endpoints = append(ch.endpoints, tail)
		}
		if err := flush(chunkMax); err != nil {
			return err
		}
	}
	for _, u := range m.UserIDs {
		if _, tail, ok := splitKey(endpoints.UserKey(tx, app, u)); ok {
			ch.users = append(ch.users, tail)
		}
		if err := flush(chunkMax); err != nil {
			return err
		}
	}
	if err := flush(1); err != nil {
		return err
	}
	imp.Definition.Size += len(m.EndpointIDs) + len(m.UserIDs)
	for channel, n := range m.Channels {
		imp.Definition.ChannelCounts[channel] += n
	}
	return store.Save(tx, kindImport, key(app, id), imp)
}

// FinishImport makes the version that CreateImport began the segment's latest.
func (s *Service) FinishImport(tx *store.Tx, app, id string) error {
	imp, err := s.importing(tx, app, id)
	if err != nil {
		return err
	}
	at := aws.Timestamp(s.now())
	seg, err := Load(tx, app, id, 0)
	if err != nil {
		return err
	}
	if seg == nil {
		seg = &pinpoint.SegmentResponse{ApplicationId: app, Id: id, SegmentType: pinpoint.SegmentTypeImport, CreationDate: at}
	}
	seg.LastModifiedDate, seg.Version, seg.ImportDefinition = &at, &imp.Version, &imp.Definition
	if imp.Name != "" {
		seg.Name = &imp.Name
	}
	if err := store.Save(tx, KindMember, endKey(app, version{id, imp.Version}), &end{imp.Chunks}); err != nil {
		return err
	}
	if err := tx.Remove(kindImport, key(app, id)); err != nil {
		return err
	}
	return save(tx, seg)
}

func (s *Service) importing(tx *store.Tx, app, id string) (*importing, error) {
	imp, err := store.Load[importing](tx, kindImport, key(app, id))
	if err == nil && imp == nil {
		err = aws.NotFound("no import into segment %s is under way", id)
	}
	if err == nil && imp.Definition.ChannelCounts == nil {
		imp.Definition.ChannelCounts = map[string]int{}
	}
	return imp, err
}

func putChunk(tx *store.Tx, key string, ch chunk) error {
	return tx.PutDocument(KindMember, key, appendChunk(nil, ch))
}
