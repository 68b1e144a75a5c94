package segments

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// The rows of this room besides KindMember. A segment is stored as the model's
// own shape, without its ARN, which names the Region that is asked.
var (
	// KindSegment rows are segments as they are now: app/segment.
	KindSegment = store.Kind{Name: "segment", Rule: changelog.RuleDocument, Safety: true}
	// KindVersion rows are what they were at each version: app/segment/version.
	KindVersion = store.Kind{Name: "segmentversion", Rule: changelog.RuleDocument, Safety: true}
	// kindImport rows are imports under way: app/segment.
	kindImport = store.Kind{Name: "segmentimport", Rule: changelog.RuleDocument}
)

// Contents names the rows that belong to an app and go with it.
func Contents() []apps.Content {
	var all []apps.Content
	for _, k := range []store.Kind{KindSegment, KindVersion, KindMember, kindImport} {
		all = append(all, apps.Content{Kind: k, Prefix: prefix, App: appOf})
	}
	return all
}

// Apps says which apps there are.
type Apps interface {
	// Exists reports whether the account has the app.
	Exists(r store.Reader, account, app string) (bool, error)
}

// AppsFunc makes Apps of a function such as apps.Exists.
type AppsFunc func(r store.Reader, account, app string) (bool, error)

// Exists calls f.
func (f AppsFunc) Exists(r store.Reader, account, app string) (bool, error) {
	return f(r, account, app)
}

// Service answers the segment operations and takes the segments that imports
// define. Create it with New; it is safe for concurrent use.
type Service struct {
	store  *store.Store
	index  *Index
	apps   Apps
	ids    *aws.IDs
	tokens *wire.Tokens
	now    func() time.Time
}

// New returns the room over a store and the index of its endpoints. It starts
// nothing: the index has its own Run.
func New(st *store.Store, index *Index, apps Apps, ids *aws.IDs, tokens *wire.Tokens, now func() time.Time) *Service {
	return &Service{store: st, index: index, apps: apps, ids: ids, tokens: tokens, now: now}
}

// Mount hangs the room's operations on the mux.
func (s *Service) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.CreateSegment, "apps/{ApplicationId}", s.create)
	wire.Handle(m, pinpoint.GetSegment, "apps/{ApplicationId}/segments/{SegmentId}", s.get)
	wire.Handle(m, pinpoint.GetSegments, "apps/{ApplicationId}", s.list)
	wire.Handle(m, pinpoint.UpdateSegment, "apps/{ApplicationId}/segments/{SegmentId}", s.update)
	wire.Handle(m, pinpoint.DeleteSegment, "apps/{ApplicationId}/segments/{SegmentId}", s.delete)
	wire.Handle(m, pinpoint.GetSegmentVersion, "apps/{ApplicationId}/segments/{SegmentId}", s.getVersion)
	wire.Handle(m, pinpoint.GetSegmentVersions, "apps/{ApplicationId}/segments/{SegmentId}", s.listVersions)
	wire.Handle(m, everpoint.CountSegment, "apps/{ApplicationId}", s.count)
}

// Load returns a version of an app's segment, the latest for version 0; nil when
// there is none. Its Arn is empty.
func Load(r store.Reader, app, id string, number int) (*pinpoint.SegmentResponse, error) {
	s, err := store.Load[pinpoint.SegmentResponse](r, KindSegment, key(app, id))
	if err != nil || s == nil || number == 0 || number == *s.Version {
		return s, err
	}
	old, err := store.Load[pinpoint.SegmentResponse](r, KindVersion, versionKey(app, version{id, number}))
	if old != nil {
		old.Tags = s.Tags // tags belong to the segment
	}
	return old, err
}

// SourcesOf finds the segments of an app for Compile.
func SourcesOf(r store.Reader, app string) Sources { return &sources{r: r, app: app} }

// sources are an app's segments, one of which may be about to change.
type sources struct {
	r    store.Reader
	app  string
	next *pinpoint.SegmentResponse // nil when none is
}

func (s *sources) Segment(id string, number int) (*pinpoint.SegmentResponse, error) {
	if s.next != nil && s.next.Id == id && (number == 0 || number == *s.next.Version) {
		return s.next, nil
	}
	return Load(s.r, s.app, id, number)
}

// TagsOf returns the tags of an app's segment.
func TagsOf(r store.Reader, app, id string) (map[string]string, error) {
	seg, err := own(r, app, id)
	if err != nil {
		return nil, err
	}
	return seg.Tags, nil
}

// SetTags replaces the tags of an app's segment; that makes no new version.
func SetTags(tx *store.Tx, app, id string, tags map[string]string) error {
	seg, err := own(tx, app, id)
	if err != nil {
		return err
	}
	seg.Tags = tags
	return store.Save(tx, KindSegment, key(app, id), seg)
}

func prefix(app string) string { return app + "/" }

// appOf is the app that a key belongs to.
func appOf(key string) string {
	app, _, _ := strings.Cut(key, "/")
	return app
}

func key(app, id string) string { return app + "/" + id }

// own returns the app's segment, or the fault that there is none.
func own(r store.Reader, app, id string) (*pinpoint.SegmentResponse, error) {
	seg, err := Load(r, app, id, 0)
	if err != nil {
		return nil, err
	}
	if seg == nil {
		return nil, notFound()
	}
	return seg, nil
}

// Source: engagement 12, "Resource not found".
func notFound() error { return aws.NotFound("Resource not found") }

// save writes the segment as its latest version.
func save(tx *store.Tx, seg *pinpoint.SegmentResponse) error {
	v := versionOf(seg)
	if err := store.Save(tx, KindSegment, key(seg.ApplicationId, seg.Id), seg); err != nil {
		return err
	}
	old := *seg
	old.Tags = nil
	return store.Save(tx, KindVersion, versionKey(seg.ApplicationId, v), &old)
}

// nameCharsMax bounds a segment's name; the bound is ours.
const nameCharsMax = 256

func checkName(name *string) error {
	if name != nil && utf8.RuneCountInString(*name) > nameCharsMax {
		return aws.InvalidMember("Name", "Name: longer than %d characters", nameCharsMax)
	}
	return nil
}

// response completes a stored segment for a caller.
func response(c aws.Caller, seg *pinpoint.SegmentResponse) *pinpoint.SegmentResponse {
	out := *seg
	out.Arn = aws.ARN{
		Service: "mobiletargeting", Region: c.Region, Account: c.Account,
		Resource: fmt.Sprintf("apps/%s/segments/%s", seg.ApplicationId, seg.Id),
	}.String()
	if g := seg.SegmentGroups; g != nil {
		out.SegmentGroups = &pinpoint.SegmentGroupList{Include: g.Include, Groups: make([]pinpoint.SegmentGroup, len(g.Groups))}
		for i, group := range g.Groups {
			// Lists are told even when they are empty; the stored form leaves them out.
			if group.Dimensions == nil {
				group.Dimensions = []pinpoint.SegmentDimensions{}
			}
			if group.SourceSegments == nil {
				group.SourceSegments = []pinpoint.SegmentReference{}
			}
			out.SegmentGroups.Groups[i] = group
		}
	}
	return &out
}
