package endpoints

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// ImportConfig says where imports read and how much they may. A zero bound
// means its default.
//
// Source: engagement 4.3, 10 (Import).
type ImportConfig struct {
	// Node names the node within its Region: leases carry it, so that a node which
	// was killed goes on with its jobs as soon as it starts again. No two nodes may
	// have one name. Empty waits until the lease has run out.
	Node string
	// BucketDir holds local buckets: s3://name/key is BucketDir/name/key. It is
	// asked first; a bucket that it does not have is read from S3Endpoint.
	BucketDir string
	// S3Endpoint is the address of an S3-compatible service, called path style;
	// empty means that there is none.
	S3Endpoint string
	S3Region   string // of its signatures; default us-east-1
	// S3Credentials gives a key id, a secret and perhaps a session token; nil
	// calls unsigned.
	S3Credentials func(context.Context) (id, secret, session string, err error)
	// Leads says, where Regions decide together, whether this one has control: that
	// one runs every job, from wherever another left it. It must be quick. Nil: this
	// Region runs the jobs that were started in it, and no others.
	Leads func() bool

	BytesMax          int64         // of one job's files, and of what they hold unpacked; default 1 GiB
	FilesMax          int           // of one job; default 10,000
	LineBytesMax      int           // default 1 MiB
	RunningPerAccount int           // in this Region; default 10
	RunningPerNode    int           // default 2
	ChunkRows         int           // rows committed together; default 1000
	ChunkTouches      int           // rows and index values that they read; default 4000, see below
	Lease             time.Duration // how long a node's silence is believed to be work; default 15 s
}

// withDefaults fills in the bounds.
//
// A chunk is how long another caller's write may have to wait, and larger ones
// do not load faster.
//
// On PostgreSQL each row or index value that a chunk reads is a lock, of which
// a server with default settings has 6400 for everybody.
func (c ImportConfig) withDefaults() ImportConfig {
	if c.S3Region == "" {
		c.S3Region = "us-east-1"
	}
	if c.BytesMax <= 0 {
		c.BytesMax = 1 << 30
	}
	if c.Lease <= 0 {
		c.Lease = 15 * time.Second
	}
	for _, d := range []struct {
		to    *int
		value int
	}{
		{&c.FilesMax, 10000},
		{&c.LineBytesMax, 1 << 20},
		{&c.RunningPerAccount, 10},
		{&c.RunningPerNode, 2},
		{&c.ChunkRows, 1000},
		{&c.ChunkTouches, 4000},
	} {
		if *d.to <= 0 {
			*d.to = d.value
		}
	}
	return c
}

// SegmentWriter makes the segment that an import defines. Its calls are part
// of the update that imports the rows, so it must write through tx only.
type SegmentWriter interface {
	// CreateImport makes an import segment, or empties the one with s.ID, and
	// returns its id. A fault (no such segment, not an import segment) fails the
	// job.
	CreateImport(tx *store.Tx, app string, s ImportSegment) (id string, err error)
	// AddMembers adds members; some may be in it already.
	AddMembers(tx *store.Tx, app, id string, m ImportMembers) error
	// FinishImport makes the segment ready for use. It is not called for an
	// import that failed.
	FinishImport(tx *store.Tx, app, id string) error
}

// ImportSegment is what an import says of the segment it defines.
type ImportSegment struct {
	ID         string // of the segment to replace; empty for a new one
	Name       string
	Account    string
	JobID      string
	Definition pinpoint.ImportJobResource
}

// ImportMembers are rows that an import adds to its segment.
type ImportMembers struct {
	EndpointIDs  []string       // as written in the file, or made for it
	EndpointKeys []string       // their store keys, one for each
	UserIDs      []string       // each stands for all endpoints of the user
	Channels     map[string]int // rows by ChannelType
}

// The rows of imports. A job and the list of its files are documents that every
// Region can show, and another can go on from; its creation is safety data, its
// progress is not. Failures are numbered, so importing a chunk again changes none.
var (
	kindImport        = store.Kind{Name: "import-job", Rule: changelog.RuleDocument}
	kindImportFiles   = store.Kind{Name: "import-list", Rule: changelog.RuleDocument}
	kindImportFailure = store.Kind{Name: "import-fault", Rule: changelog.RuleAppend}
)

// importJob is a job with its progress. What was read up to the position, and
// nothing beyond it, is in the store.
type importJob struct {
	ID, App, Account, Region string
	Definition               pinpoint.ImportJobResource
	Status                   pinpoint.JobStatus
	Created                  string
	Completed                string `json:",omitempty"`

	Pieces, CompletedPieces, FailedPieces int
	Processed, Failed                     int
	Failures                              []string `json:",omitempty"` // the first failuresShown

	Listed    bool     // the files are known
	Position  position // where reading goes on
	SegmentID string   `json:",omitempty"`

	Lease      string `json:",omitempty"` // token of this run of the job
	LeaseNode  string `json:",omitempty"` // the node that runs it
	LeaseUntil int64  `json:",omitempty"` // milliseconds since 1970
}

// position is a place between two lines of a job's files.
type position struct {
	File   int   // index
	Offset int64 // bytes of the unpacked file before it
	Line   int64 // lines before it
	Read   int64 // bytes of all files before it
}

const (
	failuresShown  = 100    // in the job. Source: engagement 4.3
	failuresListed = 10_000 // by ListImportFailures
)

func (j *importJob) over() bool {
	return j.Status == pinpoint.JobStatusCompleted || j.Status == pinpoint.JobStatusFailed
}

func (j *importJob) key() string { return jobKey(j.App, j.ID) }

// jobKey is empty when the id is none that the service gave out.
func jobKey(app, id string) string {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != 16 {
		return ""
	}
	return AppPrefix(app) + string(raw)
}

// Index values of jobs: open ones together, by Region and by account, all by
// segment.
func openAll() store.Index              { return store.Index{Name: "open"} }
func openIn(region string) store.Index  { return store.Index{Name: "region", Value: region} }
func openOf(account string) store.Index { return store.Index{Name: "account", Value: account} }
func ofSegment(app, id string) store.Index {
	return store.Index{Name: "segment", Value: app + "\x00" + id}
}

func saveJob(tx *store.Tx, j *importJob) error { return saveJobAs(tx, kindImport, j) }

func saveJobAs(tx *store.Tx, k store.Kind, j *importJob) error {
	var x []store.Index
	if !j.over() {
		x = append(x, openAll(), openIn(j.Region), openOf(j.Account))
	}
	if j.SegmentID != "" {
		x = append(x, ofSegment(j.App, j.SegmentID))
	}
	return store.Save(tx, k, j.key(), j, x...)
}

// Imports answers the import operations and runs the jobs. Create it with
// NewImports; it is safe for concurrent use.
type Imports struct {
	cfg      ImportConfig
	rooms    *Service
	segments SegmentWriter
	buckets  []bucket
	log      *slog.Logger
	wake     chan struct{}
}

// NewImports returns the import jobs over a room. It starts nothing: call
// Mount, and Run on each node that shall run jobs.
func NewImports(cfg ImportConfig, s *Service, segments SegmentWriter, log *slog.Logger) *Imports {
	cfg = cfg.withDefaults()
	im := &Imports{cfg: cfg, rooms: s, segments: segments, log: log.With("component", "imports"), wake: make(chan struct{}, 1)}
	if cfg.BucketDir != "" {
		im.buckets = append(im.buckets, localBucket{cfg.BucketDir})
	}
	if cfg.S3Endpoint != "" {
		im.buckets = append(im.buckets, newS3Bucket(cfg))
	}
	return im
}

// Mount hangs the import operations on the mux.
func (im *Imports) Mount(m *wire.Mux) {
	wire.Handle(m, pinpoint.CreateImportJob, "apps/{ApplicationId}", im.create)
	wire.Handle(m, pinpoint.GetImportJobs, "apps/{ApplicationId}", im.list)
	wire.Handle(m, pinpoint.GetImportJob, "apps/{ApplicationId}/jobs/import/{JobId}", im.get)
	wire.Handle(m, pinpoint.GetSegmentImportJobs, "apps/{ApplicationId}/segments/{SegmentId}", im.listOfSegment)
	wire.Handle(m, everpoint.ListImportFailures, "apps/{ApplicationId}/jobs/import/{JobId}", im.listFailures)
}

// ImportContents names the rows of imports that go with an app.
func ImportContents() []apps.Content {
	var all []apps.Content
	for _, k := range []store.Kind{kindImport, kindImportFiles, kindImportFailure} {
		all = append(all, apps.Content{Kind: k, Prefix: AppPrefix, App: AppOfKey})
	}
	return all
}

// create answers CreateImportJob. Source: engagement 4.1, 4.3.
func (im *Imports) create(ctx context.Context, in *pinpoint.CreateImportJobRequest) (*pinpoint.CreateImportJobResponse, error) {
	caller := aws.CallerFrom(ctx)
	now := im.rooms.now()
	definition, err := define(in.ImportJobRequest, caller.Account)
	if err != nil {
		return nil, err
	}
	if *definition.DefineSegment && im.segments == nil {
		return nil, aws.NotImplemented("DefineSegment: segments are not served here")
	}
	j := &importJob{
		ID: im.newID(now), App: in.ApplicationId, Account: caller.Account, Region: im.rooms.store.Region(),
		Definition: definition, Status: pinpoint.JobStatusCreated, Created: aws.Timestamp(now),
	}
	if definition.SegmentId != nil {
		j.SegmentID = *definition.SegmentId
	}
	err = im.rooms.store.Update(ctx, func(tx *store.Tx) error {
		if err := im.rooms.memory.own(tx, caller.Account, in.ApplicationId); err != nil {
			return err
		}
		tx.AfterCommit(im.rouse)
		// The job itself is a control write; how far it is comes with the rows it made.
		return saveJobAs(tx, safely(kindImport), j)
	})
	if err != nil {
		return nil, err
	}
	return &pinpoint.CreateImportJobResponse{ImportJobResponse: &pinpoint.ImportJobResponse{
		ApplicationId: j.App, CreationDate: j.Created, Definition: &j.Definition, Id: j.ID, JobStatus: j.Status, Type: "IMPORT",
	}}, nil
}

// newID makes a job's id: 32 hex digits of which the first twelve count down
// with time, so that the newest job comes first in every list.
func (im *Imports) newID(now time.Time) string {
	return fmt.Sprintf("%012x", (1<<48-1)-now.UnixMilli()) + im.rooms.ids.Hex()[12:]
}

var roleResource = regexp.MustCompile(`^role/([!-~]+/)?[A-Za-z0-9+=,.@_-]{1,64}$`)

// define checks a request and completes it with the defaults.
func define(req *pinpoint.ImportJobRequest, account string) (pinpoint.ImportJobResource, error) {
	register := req.RegisterEndpoints != nil && *req.RegisterEndpoints
	segment := req.DefineSegment != nil && *req.DefineSegment
	d := pinpoint.ImportJobResource{
		DefineSegment: &segment, ExternalId: req.ExternalId, Format: req.Format, RegisterEndpoints: &register,
		RoleArn: req.RoleArn, S3Url: req.S3Url, SegmentId: req.SegmentId, SegmentName: req.SegmentName,
	}
	if !register && !segment {
		return d, aws.InvalidMember("RegisterEndpoints", "RegisterEndpoints and DefineSegment: at least one must be true")
	}
	if req.Format != pinpoint.FormatCsv && req.Format != pinpoint.FormatJson {
		return d, aws.InvalidMember("Format", "Format: expected CSV or JSON")
	}
	if _, _, err := splitURL(req.S3Url); err != nil {
		return d, err
	}
	role, err := aws.ParseARN(req.RoleArn)
	if err != nil || role.Service != "iam" || role.Region != "" || !roleResource.MatchString(role.Resource) {
		return d, aws.InvalidMember("RoleArn", "RoleArn: expected the ARN of a role")
	}
	if role.Account != account {
		return d, aws.Forbidden("RoleArn: the role belongs to another account")
	}
	return d, nil
}

// get answers GetImportJob.
func (im *Imports) get(ctx context.Context, in *pinpoint.GetImportJobRequest) (*pinpoint.GetImportJobResponse, error) {
	j, err := im.find(ctx, in.ApplicationId, in.JobId)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetImportJobResponse{ImportJobResponse: jobResponse(j)}, nil
}

func (im *Imports) find(ctx context.Context, app, id string) (*importJob, error) {
	r := im.rooms.store.Reader(ctx)
	if err := im.rooms.memory.own(r, aws.CallerFrom(ctx).Account, app); err != nil {
		return nil, err
	}
	key := jobKey(app, id)
	if key == "" {
		return nil, notFound()
	}
	j, err := store.Load[importJob](r, kindImport, key)
	if err == nil && j == nil {
		err = notFound()
	}
	return j, err
}

// list answers GetImportJobs, the newest job first.
func (im *Imports) list(ctx context.Context, in *pinpoint.GetImportJobsRequest) (*pinpoint.GetImportJobsResponse, error) {
	out, err := im.page(ctx, in.ApplicationId, "", in.PageSize, in.Token)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetImportJobsResponse{ImportJobsResponse: out}, nil
}

// listOfSegment answers GetSegmentImportJobs, the newest job first.
func (im *Imports) listOfSegment(ctx context.Context, in *pinpoint.GetSegmentImportJobsRequest) (*pinpoint.GetSegmentImportJobsResponse, error) {
	out, err := im.page(ctx, in.ApplicationId, in.SegmentId, in.PageSize, in.Token)
	if err != nil {
		return nil, err
	}
	return &pinpoint.GetSegmentImportJobsResponse{ImportJobsResponse: out}, nil
}

// jobsOfSegmentMax bounds the jobs that are listed for one segment.
const jobsOfSegmentMax = 1000

func (im *Imports) page(ctx context.Context, app, segment string, pageSize, token *string) (*pinpoint.ImportJobsResponse, error) {
	caller := aws.CallerFrom(ctx)
	r := im.rooms.store.Reader(ctx)
	if err := im.rooms.memory.own(r, caller.Account, app); err != nil {
		return nil, err
	}
	size, err := wire.Page(pageSize)
	if err != nil {
		return nil, err
	}
	scope := strings.Join([]string{"GetImportJobs", caller.Account, app, segment}, "\x00")
	after, err := im.rooms.tokens.Open(scope, deref(token))
	if err != nil {
		return nil, err
	}
	var rows []store.Row
	if segment == "" {
		rows, err = r.List(kindImport, AppPrefix(app), after, size+1)
	} else if rows, err = r.Lookup(kindImport, ofSegment(app, segment), jobsOfSegmentMax); err == nil {
		slices.SortFunc(rows, func(a, b store.Row) int { return strings.Compare(a.Key, b.Key) })
		rows = slices.DeleteFunc(rows, func(row store.Row) bool { return row.Key <= after })
	}
	if err != nil {
		return nil, err
	}
	out := &pinpoint.ImportJobsResponse{Item: []pinpoint.ImportJobResponse{}}
	for i, row := range rows {
		if i == size {
			next := im.rooms.tokens.Seal(scope, rows[i-1].Key)
			out.NextToken = &next
			break
		}
		j, err := store.Decode[importJob](kindImport, row.Body)
		if err != nil {
			return nil, err
		}
		out.Item = append(out.Item, *jobResponse(j))
	}
	return out, nil
}

func jobResponse(j *importJob) *pinpoint.ImportJobResponse {
	out := &pinpoint.ImportJobResponse{
		ApplicationId: j.App, CreationDate: j.Created, CompletionDate: text(j.Completed),
		Definition: &j.Definition, Id: j.ID, JobStatus: j.Status, Type: "IMPORT",
		Failures: j.Failures,
	}
	if j.Listed || j.over() {
		out.TotalPieces, out.CompletedPieces, out.FailedPieces = &j.Pieces, &j.CompletedPieces, &j.FailedPieces
		out.TotalProcessed, out.TotalFailures = &j.Processed, &j.Failed
	}
	return out
}

// failure is a line, or with line 0 a file, that could not be imported.
type failure struct {
	File    string
	Line    int64
	Message string // never holds a value of the file
}

func (f failure) String() string {
	switch {
	case f.File == "":
		return f.Message
	case f.Line == 0:
		return f.File + ": " + f.Message
	default:
		return fmt.Sprintf("%s line %d: %s", f.File, f.Line, f.Message)
	}
}

// listFailures answers ListImportFailures: the first 10,000, in the order in
// which they were met.
func (im *Imports) listFailures(ctx context.Context, in *everpoint.ListImportFailuresRequest) (*everpoint.ListImportFailuresResponse, error) {
	j, err := im.find(ctx, in.ApplicationId, in.JobId)
	if err != nil {
		return nil, err
	}
	size, err := wire.Page(in.PageSize)
	if err != nil {
		return nil, err
	}
	scope := strings.Join([]string{"ListImportFailures", j.Account, j.App, j.ID}, "\x00")
	after, err := im.rooms.tokens.Open(scope, deref(in.Token))
	if err != nil {
		return nil, err
	}
	rows, err := im.rooms.store.Reader(ctx).List(kindImportFailure, j.key(), after, size+1)
	if err != nil {
		return nil, err
	}
	out := &everpoint.ImportFailuresResponse{Item: []everpoint.ImportFailure{}}
	for i, row := range rows {
		if i == size {
			next := im.rooms.tokens.Seal(scope, rows[i-1].Key)
			out.NextToken = &next
			break
		}
		f, err := store.Decode[failure](kindImportFailure, row.Body)
		if err != nil {
			return nil, err
		}
		out.Item = append(out.Item, everpoint.ImportFailure{File: f.File, Line: f.Line, Message: f.Message})
	}
	return &everpoint.ListImportFailuresResponse{ImportFailuresResponse: out}, nil
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
