package endpoints

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// importRoom is a room with imports from a bucket directory.
type importRoom struct {
	*room
	imports  *Imports
	dir      string // of the bucket named bucket
	segments *segmentDouble
}

// segmentDouble keeps segments in the store, as the room of segments does.
type segmentDouble struct{}

// kindDouble is safety data only when a segment is finished, as there.
var kindDouble = store.Kind{Name: "segment-double", Rule: changelog.RuleDocument}

type doubledSegment struct {
	Name      string
	Endpoints []string
	Users     []string
	Channels  map[string]int
	Finished  bool
}

func (d *segmentDouble) load(r store.Reader, id string) (*doubledSegment, error) {
	return store.Load[doubledSegment](r, kindDouble, id)
}

func (d *segmentDouble) CreateImport(tx *store.Tx, _ string, s ImportSegment) (string, error) {
	id := s.ID
	if id == "" {
		id = "segment-of-" + s.JobID
	} else if old, err := d.load(tx, id); err != nil || old == nil {
		return "", errors.Join(err, aws.NotFound("there is no such segment"))
	}
	return id, store.Save(tx, kindDouble, id, &doubledSegment{Name: s.Name, Channels: map[string]int{}})
}

func (d *segmentDouble) AddMembers(tx *store.Tx, _, id string, m ImportMembers) error {
	s, err := d.load(tx, id)
	if err != nil {
		return err
	}
	if len(m.EndpointKeys) != len(m.EndpointIDs) {
		return fmt.Errorf("%d keys of %d endpoints", len(m.EndpointKeys), len(m.EndpointIDs))
	}
	for i, id := range m.EndpointIDs {
		e, err := LoadKey(tx, m.EndpointKeys[i])
		if err != nil || e == nil || e.ID != id {
			return fmt.Errorf("the key of %s leads to %+v, %w", id, e, err)
		}
	}
	s.Endpoints = append(s.Endpoints, m.EndpointIDs...)
	s.Users = append(s.Users, m.UserIDs...)
	for c, n := range m.Channels {
		s.Channels[c] += n
	}
	return store.Save(tx, kindDouble, id, s)
}

func (d *segmentDouble) FinishImport(tx *store.Tx, _, id string) error {
	s, err := d.load(tx, id)
	if err != nil {
		return err
	}
	if s.Finished {
		return aws.NotFound("no import into segment %s is under way", id)
	}
	s.Finished = true
	return store.Save(tx, safely(kindDouble), id, s)
}

func newImportRoom(t testing.TB, cfg ImportConfig) *importRoom {
	t.Helper()
	r := &importRoom{room: newRoom(t, Limits{}), segments: &segmentDouble{}}
	cfg.BucketDir = t.TempDir()
	r.dir = filepath.Join(cfg.BucketDir, "bucket")
	r.imports = NewImports(cfg, r.Service, r.segments, discard)
	r.imports.Mount(r.mux)
	return r
}

func (r *importRoom) file(name, text string) {
	r.t.Helper()
	writeFile(r.t, filepath.Join(r.dir, name), []byte(text))
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pack(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const role = "arn:aws:iam::" + account + ":role/import"

// start creates a job from members of the request and returns its id.
func (r *importRoom) start(request string) string {
	r.t.Helper()
	status, text := r.call("POST", "/jobs/import", `{"RoleArn":"`+role+`",`+request+`}`)
	var out pinpoint.ImportJobResponse
	if err := json.Unmarshal([]byte(text), &out); err != nil || status != 201 {
		r.t.Fatalf("create: %d %s, %v", status, text, err)
	}
	return out.Id
}

// once runs what may run, to its end.
func (r *importRoom) once() {
	r.t.Helper()
	runOnce(r.t, context.Background(), r.imports)
}

func runOnce(t testing.TB, ctx context.Context, im *Imports) {
	t.Helper()
	var jobs sync.WaitGroup
	err := im.dispatch(ctx, &jobs, make(chan struct{}, im.cfg.RunningPerNode))
	jobs.Wait()
	if err != nil {
		t.Error(err)
	}
}

func (r *importRoom) job(id string) *pinpoint.ImportJobResponse {
	r.t.Helper()
	status, text := r.call("GET", "/jobs/import/"+id, "")
	out := new(pinpoint.ImportJobResponse)
	if err := json.Unmarshal([]byte(text), out); err != nil || status != 200 {
		r.t.Fatalf("get: %d %s, %v", status, text, err)
	}
	return out
}

// run imports the bucket's files below "in" and returns the job at its end.
func (r *importRoom) run(format string) *pinpoint.ImportJobResponse {
	r.t.Helper()
	id := r.start(`"Format":"` + format + `","RegisterEndpoints":true,"S3Url":"s3://bucket/in"`)
	r.once()
	return r.job(id)
}

func (r *importRoom) expectJob(j *pinpoint.ImportJobResponse, status pinpoint.JobStatus, pieces, failedPieces, processed, failures int) {
	r.t.Helper()
	if j.JobStatus != status || *j.TotalPieces != pieces || *j.FailedPieces != failedPieces ||
		*j.CompletedPieces+*j.FailedPieces != pieces || *j.TotalProcessed != processed || *j.TotalFailures != failures {
		text, _ := json.Marshal(j)
		r.t.Errorf("job %s, want %s, %d pieces, %d failed, %d lines, %d failures", text, status, pieces, failedPieces, processed, failures)
	}
}

func TestImportCSV(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	r.put("known", `{"Address":"k@example.com","ChannelType":"EMAIL","Attributes":{"old":["1"]}}`, "")
	r.file("in/a.csv", "\ufeffId,Address,ChannelType,Attributes.Ride,Attributes.Ride,Metrics.n,Location.Latitude,Demographic.Make,OptOut,User.UserId,User.UserAttributes.x,EndpointStatus\r\n"+
		`e1,"a,1@example.com",EMAIL,Bus,"The ""Tram""",2.5,47.66,Acme,ALL,u1,y,INACTIVE`+"\r\n"+
		"\r\n"+
		`known,,,Bus,,,,,,,,`+"\n"+
		`,+4790000000,SMS,,,,,,,,,`)
	j := r.run("CSV")
	r.expectJob(j, "COMPLETED", 1, 0, 3, 0)
	if j.CompletionDate == nil || j.Type != "IMPORT" || j.Definition.S3Url != "s3://bucket/in" || *j.Definition.DefineSegment {
		t.Errorf("job %+v, definition %+v", j, j.Definition)
	}
	for id, want := range map[string]string{
		"e1":    `{"Address":"a,1@example.com","Attributes":{"Ride":["Bus","The \"Tram\""]},"ChannelType":"EMAIL","Demographic":{"Make":"Acme"},"EndpointStatus":"ACTIVE","Location":{"Latitude":47.7},"Metrics":{"n":2.5},"OptOut":"ALL","User":{"UserAttributes":{"x":["y"]},"UserId":"u1"}}`,
		"known": `{"Address":"k@example.com","Attributes":{"Ride":["Bus"],"old":["1"]},"ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"NONE","User":{}}`,
	} {
		if got := r.show(id); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", id, got, want)
		}
	}
	rows, err := r.store.Reader(t.Context()).Lookup(KindEndpoint, ByAddress(app, "SMS", "+4790000000"), 2)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d endpoints have the number, %v", len(rows), err)
	}
	if e, err := Read(app, rows[0].Body); err != nil || len(e.ID) != 32 || e.RequestID != j.Id {
		t.Errorf("line without an id became %+v, %v", e, err)
	}
}

func TestImportJSONAndGzip(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	exported := `{"Id":"e1","ApplicationId":"x","CohortId":"12","CreationDate":"2020-01-01T00:00:00Z","EndpointStatus":"INACTIVE","Address":"a@example.com","ChannelType":"EMAIL","Attributes":{"Ride":["Bus","Tram"],"one":"word"},"Metrics":{"n":1e2},"Location":{"Country":"NO"},"User":{"UserId":"u","UserAttributes":{"x":["y"]}}}`
	r.file("in/deep/er/a.json.gz", pack(t, exported+"\n\n"+`{"Id":"e2","ChannelType":"SMS","Address":"+1"}`+"\n"))
	r.file("in/b.json", `{"Id":"e3","ChannelType":"SMS","Address":"+2"}`)
	r.file("inn.json", `{"Id":"e4","ChannelType":"SMS","Address":"+3"}`) // a prefix is not a directory
	r.file("other/c.json", `{"Id":"e5","ChannelType":"SMS","Address":"+4"}`)
	r.expectJob(r.run("JSON"), "COMPLETED", 3, 0, 4, 0)
	want := `{"Address":"a@example.com","Attributes":{"Ride":["Bus","Tram"],"one":["word"]},"ChannelType":"EMAIL","EndpointStatus":"ACTIVE","Location":{"Country":"NO"},"Metrics":{"n":100},"OptOut":"NONE","User":{"UserAttributes":{"x":["y"]},"UserId":"u"}}`
	if got := r.show("e1"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for id, there := range map[string]bool{"e2": true, "e3": true, "e4": true, "e5": false} {
		if got := r.show(id) != ""; got != there {
			t.Errorf("%s is there: %v, want %v", id, got, there)
		}
	}
}

func TestImportBrokenLines(t *testing.T) {
	const secret = "secret@example.com"
	r := newImportRoom(t, ImportConfig{LineBytesMax: 200})
	r.file("in/a.csv", strings.Join([]string{
		"Id,Address,ChannelType,Metrics.n",
		"good1,1@example.com,EMAIL,1",
		"a," + secret + ",EMAIL,one",       // 3
		"b," + secret + ",EMAIL",           // 4
		`c,"` + secret + `,EMAIL,1`,        // 5
		`d,` + secret + `"x,EMAIL,1`,       // 6
		"e," + secret + ",FAX,1",           // 7
		"f," + secret + ",,1",              // 8
		"unknown,,EMAIL,1",                 // 9
		"g," + strings.Repeat("x", 300),    // 10
		"h{," + secret + ",EMAIL,1",        // 11
		`"i"j,` + secret + `,EMAIL,1`,      // 12
		"k," + secret + ",EMAIL,NaN",       // 13
		"good2,2@example.com,EMAIL,2",      // 14
		"l,\xe9" + secret + ",EMAIL,1", "", // 15
	}, "\n"))
	r.file("in/b.csv", "Id,Colour\nx,red\n")
	r.file("in/c.csv", "Id,Id\nx,y\n")
	r.file("in/d.csv", "")
	r.file("in/e.csv", pack(t, "Id,Address,ChannelType\n"+strings.Repeat("x,a,EMAIL\n", 100))[:40])
	r.file("in/f.csv", "Id,Address,ChannelType\ngood3,3@example.com,EMAIL")
	j := r.run("CSV")
	r.expectJob(j, "FAILED", 6, 4, 15, 16)
	for _, id := range []string{"good1", "good2", "good3"} {
		if r.show(id) == "" {
			t.Errorf("%s was not imported", id)
		}
	}
	want := []string{
		"in/a.csv line 3: Metrics.n: expected a number",
		"in/a.csv line 4: 3 fields, where the header has 4",
		"in/a.csv line 5: a quote is not closed on its line",
		"in/a.csv line 6: a quote stands inside a field that does not begin with one",
		"in/a.csv line 7: ChannelType: unknown channel type",
		"in/a.csv line 8: Missing ChannelType",
		"in/a.csv line 9: Missing Address: a new endpoint needs Address and ChannelType",
		"in/a.csv line 10: the line is longer than 200 bytes",
		"in/a.csv line 11: Id: an endpoint id may not contain $, { or }",
		"in/a.csv line 12: text follows a closing quote",
		"in/a.csv line 13: Metrics.n: expected a number",
		"in/a.csv line 15: the line is not UTF-8",
		"in/b.csv: column 2: not a name that an import file may have",
		"in/c.csv: column 2: Id may stand in the header once",
		"in/d.csv: the file has no header",
		"in/e.csv: the compressed file is damaged or cut short",
	}
	if !slices.Equal(j.Failures, want) {
		t.Errorf("failures:\n%s\nwant:\n%s", strings.Join(j.Failures, "\n"), strings.Join(want, "\n"))
	}
	if text, _ := json.Marshal(j); strings.Contains(string(text), secret) {
		t.Error("the job repeats an address")
	}
	if got := r.failures(j.Id, 4); !slices.Equal(got, want) {
		t.Errorf("ListImportFailures:\n%s", strings.Join(got, "\n"))
	}
}

// failures reads ListImportFailures page by page.
func (r *importRoom) failures(job string, size int) (all []string) {
	r.t.Helper()
	path := fmt.Sprintf("/everpoint/v1/apps/%s/jobs/import/%s/failures?page-size=%d", app, job, size)
	for token := ""; ; {
		status, text := r.as(account, "GET", path+token, "")
		var out struct {
			Item      []failure
			NextToken string
		}
		if err := json.Unmarshal([]byte(text), &out); err != nil || status != 200 {
			r.t.Fatalf("%d %s %v", status, text, err)
		}
		for _, f := range out.Item {
			all = append(all, f.String())
		}
		if out.NextToken == "" {
			return all
		}
		token = "&token=" + out.NextToken
	}
}

func TestImportFailuresAreBounded(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	r.file("in/a.csv", "Id,Address,ChannelType\n"+strings.Repeat("x\n", failuresListed+5))
	j := r.run("CSV")
	r.expectJob(j, "COMPLETED", 1, 0, failuresListed+5, failuresListed+5)
	got := r.failures(j.Id, 500)
	last := fmt.Sprintf("in/a.csv line %d: 1 fields, where the header has 3", failuresListed+1)
	if len(j.Failures) != 100 || len(got) != failuresListed || got[failuresListed-1] != last {
		t.Errorf("%d failures in the job, %d listed, the last %q", len(j.Failures), len(got), got[len(got)-1])
	}
}

// TestImportLarge fills several chunks with endpoints that take each other's
// addresses, within a chunk and across.
func TestImportLarge(t *testing.T) {
	r := newImportRoom(t, ImportConfig{ChunkRows: 6000, ChunkTouches: 24000})
	const rows = 9000
	var text strings.Builder
	text.WriteString("Id,Address,ChannelType,User.UserId,User.UserAttributes.n\n")
	for i := range rows {
		fmt.Fprintf(&text, "e%d,a%d@example.com,EMAIL,u%d,%d\n", i, i%5000, i%3000, i)
	}
	r.file("in/a.csv", text.String())
	r.expectJob(r.run("CSV"), "COMPLETED", 1, 0, rows, 0)
	for _, i := range []int{0, 1, 3999, 4000, 4999, 8999} {
		want := "ACTIVE"
		if i < rows-5000 {
			want = "INACTIVE"
		}
		if got := r.field(fmt.Sprint("e", i), "EndpointStatus"); got != want {
			t.Errorf("e%d is %s, want %s", i, got, want)
		}
	}
	all, err := UserEndpoints(r.store.Reader(t.Context()), app, "u7")
	if err != nil || len(all) != 3 {
		t.Errorf("u7 has %d endpoints, %v", len(all), err)
	}
	if u, err := r.LoadUser(r.store.Reader(t.Context()), app, "u7"); err != nil || !slices.Equal(u.Attributes["n"], []string{"6007"}) {
		t.Errorf("u7 is %+v, %v", u, err)
	}
}

func TestImportDefinesSegment(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	r.put("e1", `{"Address":"1@example.com","ChannelType":"EMAIL","User":{"UserId":"u1"}}`, "")
	r.put("e2", `{"Address":"2@example.com","ChannelType":"EMAIL"}`, "")
	run := func(request, format, file string) (*pinpoint.ImportJobResponse, *doubledSegment) {
		t.Helper()
		r.file("in/a", file)
		id := r.start(`"Format":"` + format + `","DefineSegment":true,"S3Url":"s3://bucket/in/a"` + request)
		r.once()
		j := r.job(id)
		if j.Definition.SegmentId == nil {
			return j, nil
		}
		s, err := r.segments.load(r.store.Reader(t.Context()), *j.Definition.SegmentId)
		if err != nil {
			t.Fatal(err)
		}
		return j, s
	}
	expect := func(s *doubledSegment, want string) {
		t.Helper()
		if got, _ := json.Marshal(s); string(got) != want {
			t.Errorf("segment %s, want %s", got, want)
		}
	}
	j, s := run(`,"RegisterEndpoints":true,"SegmentName":"New"`, "CSV", "Id,Address,ChannelType\ne3,3@example.com,EMAIL\ne4,+1,SMS\ne5,x,FAX\n")
	r.expectJob(j, "COMPLETED", 1, 0, 3, 1)
	expect(s, `{"Name":"New","Endpoints":["e3","e4"],"Users":null,"Channels":{"EMAIL":1,"SMS":1},"Finished":true}`)

	// Without registering, stored endpoints are members by id or by address; nothing is written.
	before := r.show("e1")
	j, s = run(`,"RegisterEndpoints":false`, "CSV", "Id,Address,ChannelType,Attributes.a\ne1,9@example.com,EMAIL,1\n,2@example.com,EMAIL,1\nnew,8@example.com,EMAIL,1\n,7@example.com,EMAIL,1\n")
	r.expectJob(j, "COMPLETED", 1, 0, 4, 2)
	expect(s, `{"Name":"","Endpoints":["e1","e2"],"Users":null,"Channels":{"EMAIL":2},"Finished":true}`)
	if r.show("e1") != before || r.show("new") != "" {
		t.Error("an import without RegisterEndpoints wrote endpoints")
	}

	// User-id files.
	first := *j.Definition.SegmentId
	j, s = run(`,"SegmentId":"`+first+`"`, "CSV", "User.UserId\nu1 nobody\n")
	r.expectJob(j, "COMPLETED", 1, 0, 2, 1)
	expect(s, `{"Name":"","Endpoints":null,"Users":["u1"],"Channels":{"EMAIL":1},"Finished":true}`)
	j, s = run(``, "JSON", `{"User":{"UserId":"u1"}}`+"\n"+`{"User":{"UserId":"nobody"}}`)
	r.expectJob(j, "COMPLETED", 1, 0, 2, 1)
	expect(s, `{"Name":"","Endpoints":null,"Users":["u1"],"Channels":{"EMAIL":1},"Finished":true}`)

	_, text := r.call("GET", "/segments/"+first+"/jobs/import", "")
	if n := strings.Count(text, `"JobStatus"`); n != 2 {
		t.Errorf("%d jobs of the segment, want 2: %s", n, text)
	}
	if j, s := run(`,"RegisterEndpoints":true`, "CSV", "Id,Colour\n"); j.JobStatus != "FAILED" || s.Finished {
		t.Errorf("a failed import: %+v, segment %+v", j, s)
	}
	if j, _ := run(`,"SegmentId":"none"`, "CSV", "Id\ne1\n"); j.JobStatus != "FAILED" || len(j.Failures) != 1 {
		t.Errorf("import into no segment: %+v", j)
	}
}

func TestImportRequests(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	good := map[string]string{"Format": `"CSV"`, "RegisterEndpoints": "true", "S3Url": `"s3://bucket/in"`, "RoleArn": `"` + role + `"`}
	for name, c := range map[string]struct {
		member, value string
		status        int
	}{
		"both flags false":   {"RegisterEndpoints", "false", 400},
		"unknown format":     {"Format", `"XML"`, 400},
		"no url":             {"S3Url", `""`, 400},
		"http url":           {"S3Url", `"http://bucket/in"`, 400},
		"path traversal":     {"S3Url", `"s3://bucket/../x"`, 400},
		"bucket traversal":   {"S3Url", `"s3://../x"`, 400},
		"not an arn":         {"RoleArn", `"role"`, 400},
		"arn of a user":      {"RoleArn", `"arn:aws:iam::` + account + `:user/x"`, 400},
		"role of a stranger": {"RoleArn", `"arn:aws:iam::999999999999:role/x"`, 403},
		"role with a path":   {"RoleArn", `"arn:aws:iam::` + account + `:role/service-role/x"`, 201},
	} {
		var parts []string
		for k, v := range good {
			if k == c.member {
				v = c.value
			}
			parts = append(parts, `"`+k+`":`+v)
		}
		if status, text := r.call("POST", "/jobs/import", "{"+strings.Join(parts, ",")+"}"); status != c.status {
			t.Errorf("%s: %d %s, want %d", name, status, text, c.status)
		}
	}
	if status, _ := r.as("999999999999", "GET", "/v1/apps/"+app+"/jobs/import", ""); status != 404 {
		t.Errorf("jobs of another account's app: %d", status)
	}
	for _, id := range []string{"nonsense", strings.Repeat("0", 32)} {
		if status, _ := r.call("GET", "/jobs/import/"+id, ""); status != 404 {
			t.Errorf("job %s: %d", id, status)
		}
	}
}

func TestImportList(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	var want []string
	for range 5 {
		*r.clock = r.clock.Add(time.Millisecond)
		want = slices.Insert(want, 0, r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://bucket/in"`))
	}
	var got []string
	for token := ""; ; {
		_, text := r.call("GET", "/jobs/import?page-size=2"+token, "")
		var out pinpoint.ImportJobsResponse
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatal(err)
		}
		for _, j := range out.Item {
			got = append(got, j.Id)
		}
		if out.NextToken == nil {
			break
		}
		token = "&token=" + *out.NextToken
	}
	if !slices.Equal(got, want) {
		t.Errorf("jobs %v, want the newest first: %v", got, want)
	}
}

func TestImportSources(t *testing.T) {
	r := newImportRoom(t, ImportConfig{FilesMax: 3, BytesMax: 200})
	fails := func(url, why string) {
		t.Helper()
		id := r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"` + url + `"`)
		r.once()
		j := r.job(id)
		if j.JobStatus != "FAILED" || len(j.Failures) != 1 || !strings.Contains(j.Failures[0], why) {
			t.Errorf("%s: %s %v, want failed because %q", url, j.JobStatus, j.Failures, why)
		}
	}
	fails("s3://bucket/in", "no such bucket")
	r.file("in/a.csv", "Id\n")
	fails("s3://bucket/nothing/here", "no file of that name")
	fails("s3://other-bucket/in", "no such bucket")
	// A link out of the bucket is not followed.
	writeFile(t, filepath.Join(r.dir, "../outside/secret.csv"), []byte("Id,Address,ChannelType\nsecret,a,EMAIL\n"))
	for _, link := range []string{"link.csv", "out/link.csv"} {
		if err := os.MkdirAll(filepath.Join(r.dir, "out"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(r.dir, "../outside/secret.csv"), filepath.Join(r.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	fails("s3://bucket/link.csv", "no file of that name")
	fails("s3://bucket/out", "no file of that name")
	r.file("in/b.csv", strings.Repeat("x", 300))
	fails("s3://bucket/in", "bytes")
	r.file("in/b.csv", pack(t, "Id,Address,ChannelType\n"+strings.Repeat("x,1,SMS\n", 300)))
	r.expectFail("s3://bucket/in/b.csv", "in/b.csv: the files hold more than 200 bytes")
	for _, name := range []string{"c", "d", "e"} {
		r.file("in/"+name, "Id\n")
	}
	fails("s3://bucket/in", "more than 3 files")
}

func (r *importRoom) expectFail(url, want string) {
	r.t.Helper()
	id := r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"` + url + `"`)
	r.once()
	j := r.job(id)
	if j.JobStatus != "FAILED" || *j.FailedPieces != 1 || len(j.Failures) == 0 || j.Failures[len(j.Failures)-1] != want {
		r.t.Errorf("%s: %s %v, want %q", url, j.JobStatus, j.Failures, want)
	}
}

// TestImportResumes crashes the store at every commit point of an import, in
// turn, and has another life take the job up. Whatever the crash, every line is
// imported once.
func TestImportResumes(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, point := range []string{"begin", "write", "commit", "committed"} {
			if packed && point != "commit" {
				continue // what a crash leaves does not depend on how a file is packed
			}
			t.Run(fmt.Sprintf("%s_packed_%v", point, packed), func(t *testing.T) {
				for crash := 1; ; crash++ {
					if importWithCrash(t, point, crash, packed) {
						return // the import ended before the crash
					}
					if crash > 60 {
						t.Fatal("the import does not end")
					}
				}
			})
		}
	}
}

var errCrash = errors.New("crash")

// importWithCrash reports whether the job was done before the crash-th commit.
func importWithCrash(t *testing.T, point string, crash int, packed bool) (done bool) {
	t.Helper()
	const rows = 17
	buckets, dir, keys := t.TempDir(), t.TempDir(), newKeys(t)
	var text strings.Builder
	text.WriteString("Address,ChannelType,Metrics.n,User.UserId\n")
	for i := range rows {
		fmt.Fprintf(&text, "a%d@example.com,EMAIL,%d,u%d\nbroken\n", i, i, i)
	}
	for i, part := range []string{text.String(), "Id,Address,ChannelType\nlast,z@example.com,EMAIL\n"} {
		if packed {
			part = pack(t, part)
		}
		writeFile(t, filepath.Join(buckets, "bucket", fmt.Sprint("in/", i)), []byte(part))
	}
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	now := func() time.Time { return at }
	lives := byte(0)
	life := func(cfg store.Config, then func(context.Context, *Imports, *store.Store)) {
		lives++
		cfg.Dir, cfg.Region = dir, "us-east-1"
		st, err := store.Open(t.Context(), cfg, keys, now, discard)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		stopped := make(chan error, 1)
		go func() { stopped <- st.Run(ctx) }()
		ids := aws.NewIDs(rand.NewChaCha8([32]byte{lives}))
		s := New(Config{}, st, wire.NewTokens([]byte("sixteen bytes or more"), now), ids, now, discard)
		im := NewImports(ImportConfig{Node: "a", BucketDir: buckets, ChunkRows: 10}, s, &segmentDouble{}, discard)
		then(ctx, im, st)
		cancel()
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
	}
	ctx := aws.WithCaller(t.Context(), aws.Caller{Account: account})
	yes := true
	life(store.Config{}, func(_ context.Context, im *Imports, st *store.Store) {
		addApp(t, st, account, app)
		_, err := im.create(ctx, &pinpoint.CreateImportJobRequest{ApplicationId: app, ImportJobRequest: &pinpoint.ImportJobRequest{
			Format: "CSV", RoleArn: role, S3Url: "s3://bucket/in", RegisterEndpoints: &yes, DefineSegment: &yes,
		}})
		if err != nil {
			t.Fatal(err)
		}
	})
	crashed := false
	var mu sync.Mutex
	hits := 0
	runCtx, kill := context.WithCancel(context.Background())
	life(store.Config{Fault: func(p string) error {
		mu.Lock()
		defer mu.Unlock()
		if p == point {
			hits++
		}
		if hits >= crash {
			// From here on nothing is written, as after kill -9.
			if !crashed {
				crashed = true
				kill()
			}
			return errCrash
		}
		return nil
	}}, func(_ context.Context, im *Imports, _ *store.Store) {
		var jobs sync.WaitGroup
		_ = im.dispatch(runCtx, &jobs, make(chan struct{}, 1))
		jobs.Wait()
	})
	kill()
	// No time passes: the node knows its own lease.
	life(store.Config{}, func(_ context.Context, im *Imports, st *store.Store) {
		if err := im.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		runOnce(t, context.Background(), im)
		out, err := im.list(ctx, &pinpoint.GetImportJobsRequest{ApplicationId: app})
		if err != nil {
			t.Fatal(err)
		}
		j := out.ImportJobsResponse.Item[0]
		if j.JobStatus != "COMPLETED" || *j.TotalProcessed != 2*rows+1 || *j.TotalFailures != rows || *j.CompletedPieces != 2 {
			t.Errorf("crash %d at %s: %s, %d lines, %d failures, %d pieces", crash, point, j.JobStatus, *j.TotalProcessed, *j.TotalFailures, *j.CompletedPieces)
		}
		all, err := st.Reader(t.Context()).List(KindEndpoint, AppPrefix(app), "", 1000)
		if err != nil || len(all) != rows+1 {
			t.Errorf("crash %d at %s: %d endpoints, %v, want %d", crash, point, len(all), err, rows+1)
		}
		for _, row := range all {
			if e, err := Read(app, row.Body); err != nil || !e.Active() {
				t.Errorf("crash %d at %s: %+v, %v: its line was imported twice", crash, point, e, err)
			}
		}
		failures, err := st.Reader(t.Context()).List(kindImportFailure, "", "", 1000)
		if err != nil || len(failures) != rows {
			t.Errorf("crash %d at %s: %d failures are listed, %v, want %d", crash, point, len(failures), err, rows)
		}
		s, err := im.segments.(*segmentDouble).load(st.Reader(t.Context()), *j.Definition.SegmentId)
		if err != nil || !s.Finished || len(s.Endpoints) != rows+1 || s.Channels["EMAIL"] != rows+1 {
			t.Errorf("crash %d at %s: segment %+v, %v", crash, point, s, err)
		}
	})
	return !crashed
}

// TestImportRepeatsSafely has the store fail now and then, before a commit and
// after: a chunk whose commit was not heard of is not imported again.
func TestImportRepeatsSafely(t *testing.T) {
	for _, point := range []string{"begin", "commit", "committed"} {
		t.Run(point, func(t *testing.T) {
			buckets, hits, armed := t.TempDir(), 0, false
			st := openStore(t, store.Config{Dir: t.TempDir(), Fault: func(p string) error {
				if p == point && armed {
					if hits++; hits%3 == 0 {
						return errCrash
					}
				}
				return nil
			}}, newKeys(t), time.Now)
			addApp(t, st, account, app)
			ids := aws.NewIDs(rand.NewChaCha8([32]byte{}))
			s := New(Config{}, st, wire.NewTokens([]byte("sixteen bytes or more"), time.Now), ids, time.Now, discard)
			im := NewImports(ImportConfig{BucketDir: buckets, ChunkRows: 10}, s, nil, discard)
			var text strings.Builder
			text.WriteString("Address,ChannelType\n")
			for i := range 50 {
				fmt.Fprintf(&text, "a%d,EMAIL\nbroken\n", i)
			}
			writeFile(t, filepath.Join(buckets, "bucket/in"), []byte(text.String()))
			yes := true
			out, err := im.create(aws.WithCaller(t.Context(), aws.Caller{Account: account}), &pinpoint.CreateImportJobRequest{
				ApplicationId:    app,
				ImportJobRequest: &pinpoint.ImportJobRequest{Format: "CSV", RoleArn: role, S3Url: "s3://bucket/in", RegisterEndpoints: &yes},
			})
			if err != nil {
				t.Fatal(err)
			}
			// No update is under way, so the writer does not look at it.
			armed = true
			key := jobKey(app, out.ImportJobResponse.Id)
			j, err := im.claim(t.Context(), key, true)
			if err != nil {
				t.Fatal(err)
			}
			im.run(t.Context(), j)
			j, err = store.Load[importJob](st.Reader(t.Context()), kindImport, key)
			if err != nil || j.Status != pinpoint.JobStatusCompleted || j.Processed != 100 || j.Failed != 50 || hits < 9 {
				t.Errorf("after %d hits: %+v, %v", hits, j, err)
			}
		})
	}
}

// TestImportLease: two nodes never run one job, and a dead node's job is taken over.
func TestImport_goes_on_when_the_group_was_late(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	r.file("in/a", "Id,Address,ChannelType\ne1,1@example.com,EMAIL\n")
	id := r.start(`"Format":"CSV","DefineSegment":true,"RegisterEndpoints":true,"S3Url":"s3://bucket/in"`)
	r.store.Acknowledge(func(context.Context, int64) error {
		return aws.Unavailable("written here, but not said in time to be elsewhere")
	})
	r.once()
	j := r.job(id)
	r.expectJob(j, "COMPLETED", 1, 0, 1, 0)
	s, err := r.segments.load(r.store.Reader(t.Context()), *j.Definition.SegmentId)
	if err != nil || !s.Finished || !slices.Equal(s.Endpoints, []string{"e1"}) {
		t.Errorf("segment %+v, %v", s, err)
	}
}

func TestImportJob_is_with_the_group_before_it_is_answered(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	r.store.Acknowledge(func(context.Context, int64) error { return aws.Unavailable("the group does not have it") })
	status, text := r.call("POST", "/jobs/import", `{"RoleArn":"`+role+`","Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://bucket/in"}`)
	if status != 503 {
		t.Errorf("%d %s", status, text)
	}
}

func TestImportLease(t *testing.T) {
	r := newImportRoom(t, ImportConfig{RunningPerAccount: 2, Lease: time.Minute})
	r.file("in/a.csv", "Id,Address,ChannelType\ne,a,EMAIL\n")
	other := NewImports(ImportConfig{BucketDir: filepath.Dir(r.dir), Lease: time.Minute, RunningPerAccount: 2}, r.Service, r.segments, discard)
	var keys []string
	for range 3 {
		keys = append(keys, jobKey(app, r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://bucket/in"`)))
	}
	claim := func(im *Imports, i int, want bool) *importJob {
		t.Helper()
		j, err := im.claim(t.Context(), keys[i], true)
		if err != nil || (j != nil) != want {
			t.Fatalf("claim of job %d: %v, %v, want %v", i, j, err, want)
		}
		return j
	}
	dead := claim(r.imports, 0, true)
	claim(other, 0, false) // it has a node
	second := claim(other, 1, true)
	claim(other, 2, false) // the account has no slot left
	if got := r.job(fmt.Sprintf("%x", keys[2][appIDBytes:])); got.JobStatus != "PENDING_JOB" {
		t.Errorf("the third job is %s", got.JobStatus)
	}
	*r.clock = r.clock.Add(30 * time.Second)
	if err := other.step(t.Context(), second, func(*store.Tx, *importJob) error { return nil }); err != nil {
		t.Fatal(err)
	}
	*r.clock = r.clock.Add(31 * time.Second)
	claim(other, 1, false) // renewed
	taken := claim(other, 0, true)
	if err := r.imports.work(t.Context(), dead); !errors.Is(err, errLost) {
		t.Errorf("a node without its lease went on: %v", err)
	}
	if err := other.work(t.Context(), taken); err != nil {
		t.Error(err)
	}
	if r.show("e") == "" {
		t.Error("the job that was taken over did nothing")
	}
	claim(r.imports, 2, true)
	claim(r.imports, 0, false) // over
}

// TestImportRestart: a node that starts again goes on with the job it was
// running when it was killed, without waiting for its own lease, and leaves
// another node's alone.
func TestImportRestart(t *testing.T) {
	r := newImportRoom(t, ImportConfig{Node: "a", RunningPerNode: 4})
	r.file("in/a.csv", "Id,Address,ChannelType\ne,a,EMAIL\n")
	named := func(node string) *Imports {
		return NewImports(ImportConfig{Node: node, BucketDir: filepath.Dir(r.dir)}, r.Service, r.segments, discard)
	}
	start := func(im *Imports) (id string, j *importJob) {
		t.Helper()
		id = r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://bucket/in"`)
		j, err := im.claim(t.Context(), jobKey(app, id), true)
		if err != nil || j == nil {
			t.Fatalf("claim: %v, %v", j, err)
		}
		return id, j
	}
	mine, killed := start(r.imports)
	others, _ := start(named("b"))
	nobodys, _ := start(named("")) // of a node that has no name, which is not one name

	for _, node := range []string{"", "a"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- named(node).Run(ctx) }()
		fresh := r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://bucket/in"`)
		for deadline := time.Now().Add(20 * time.Second); r.job(fresh).JobStatus != "COMPLETED"; {
			if time.Now().After(deadline) {
				t.Fatalf("the new job is %s", r.job(fresh).JobStatus)
			}
		}
		want := pinpoint.JobStatus("PREPARING_FOR_INITIALIZATION")
		if node == "a" {
			want = "COMPLETED"
		}
		for deadline := time.Now().Add(20 * time.Second); r.job(mine).JobStatus != want; {
			if time.Now().After(deadline) {
				t.Fatalf("node %q: the job is %s", node, r.job(mine).JobStatus)
			}
		}
		for _, id := range []string{others, nobodys} {
			if got := r.job(id).JobStatus; got != "PREPARING_FOR_INITIALIZATION" {
				t.Errorf("node %q: another's job is %s", node, got)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := r.imports.step(t.Context(), killed, func(*store.Tx, *importJob) error { return nil }); !errors.Is(err, errLost) {
		t.Errorf("the life before goes on: %v", err)
	}
}

// TestImportRun: the loop hears of a new job and ends with its context.
func TestImportRun(t *testing.T) {
	r := newImportRoom(t, ImportConfig{})
	r.file("in/a.csv", "Id,Address,ChannelType\ne,a,EMAIL\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.imports.Run(ctx) }()
	id := r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://bucket/in"`)
	for deadline := time.Now().Add(10 * time.Second); r.job(id).JobStatus != "COMPLETED"; {
		if time.Now().After(deadline) {
			t.Fatalf("job is %s", r.job(id).JobStatus)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestImportS3 reads from a double of an S3-compatible service.
func TestImportS3(t *testing.T) {
	var b strings.Builder
	b.WriteString("Id,Address,ChannelType,Attributes.pad,Attributes.pad\n")
	pad := strings.Repeat("x", 100)
	for i := range 2000 {
		fmt.Fprintf(&b, "e%d,a%d@example.com,EMAIL,%s,%s\n", i, i, pad, pad)
	}
	text := b.String()
	objects := map[string]string{"in/a.csv": text, "in/": "", "in/b.csv": "Id,Address,ChannelType\nlast,z@example.com,EMAIL\n"}
	var ranges []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasPrefix(req.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKID/") {
			w.WriteHeader(403)
			return
		}
		key, ok := strings.CutPrefix(req.URL.Path+"/", "/remote/")
		key = strings.TrimSuffix(key, "/")
		if !ok {
			w.WriteHeader(404)
			fmt.Fprint(w, `<Error><Code>NoSuchBucket</Code></Error>`)
			return
		}
		if key == "" {
			fmt.Fprint(w, `<ListBucketResult><Name>remote</Name>`)
			for _, k := range []string{"in/", "in/a.csv", "in/b.csv"} {
				if strings.HasPrefix(k, req.URL.Query().Get("prefix")) {
					fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>%d</Size><ETag>"1"</ETag></Contents>`, k, len(objects[k]))
				}
			}
			fmt.Fprint(w, `</ListBucketResult>`)
			return
		}
		if req.Header.Get("If-Match") != `"1"` {
			t.Errorf("%s was read without its version", key)
		}
		if s := req.Header.Get("Range"); s != "" {
			ranges = append(ranges, s)
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, req, "", time.Time{}, strings.NewReader(objects[key]))
	}))
	defer service.Close()
	r := newImportRoom(t, ImportConfig{S3Endpoint: service.URL, ChunkRows: 500, S3Credentials: func(context.Context) (string, string, string, error) {
		return "AKID", "secret", "", nil
	}})
	r.imports.cfg.Lease = time.Hour
	id := r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://remote/in"`)
	// Stop after the third commit of lines, and go on from there.
	ctx, cancel := context.WithCancel(t.Context())
	j, err := r.imports.claim(ctx, jobKey(app, id), true)
	if err != nil {
		t.Fatal(err)
	}
	files, err := r.imports.files(ctx, j)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	reader := &importReader{im: r.imports, job: j, files: files, yield: func(c *chunk) error {
		if n++; n == 4 {
			cancel()
			return ctx.Err()
		}
		return r.imports.step(ctx, j, func(tx *store.Tx, j *importJob) error { return r.imports.take(tx, j, c, files) }, c.touches...)
	}}
	if err := reader.read(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r.imports.release(ctx, j)
	r.once()
	r.expectJob(r.job(id), "COMPLETED", 2, 0, 2001, 0)
	if r.show("e1999") == "" || r.show("last") == "" || len(ranges) != 1 || ranges[0] == "bytes=0-" {
		t.Errorf("ranges %v", ranges)
	}
	missing := r.start(`"Format":"CSV","RegisterEndpoints":true,"S3Url":"s3://missing/in"`)
	r.once()
	if got := r.job(missing); got.JobStatus != "FAILED" || !strings.Contains(got.Failures[0], "no such bucket") {
		t.Errorf("missing bucket: %+v", got)
	}
}

// importRegion is one of two Regions with one group's keys and one bucket.
type importRegion struct {
	*room
	imports  *Imports
	segments *segmentDouble
	leads    func() bool
	epoch    uint64
	heard    map[store.Stream]int64 // of the other
}

func newImportRegions(t *testing.T, buckets string) (a, b *importRegion) {
	t.Helper()
	keys := newKeys(t)
	at := time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC)
	now := func() time.Time { return at }
	regions := make([]*importRegion, 2)
	for i, name := range []string{"us-east-1", "eu-west-1"} {
		r := &importRegion{
			room: &room{t: t, clock: &at}, segments: &segmentDouble{}, heard: map[store.Stream]int64{}, epoch: 1,
			leads: func() bool { return i == 0 },
		}
		st := openStore(t, store.Config{Dir: t.TempDir(), Region: name}, keys, now)
		st.Control(func() uint64 { return r.epoch })
		r.Service = New(Config{}, st, wire.NewTokens([]byte("sixteen bytes or more"), now), aws.NewIDs(rand.NewChaCha8([32]byte{byte(i)})), now, discard)
		r.imports = NewImports(ImportConfig{BucketDir: buckets, ChunkRows: 10, Leads: func() bool { return r.leads() }}, r.Service, r.segments, discard)
		r.mux = wire.NewMux(pinpoint.Service, everpoint.Service)
		r.Mount(r.mux)
		r.imports.Mount(r.mux)
		regions[i] = r
	}
	addApp(t, regions[0].store, account, app)
	return regions[0], regions[1]
}

// hear merges what the other Region told, but for its last blocks of a stream.
func (r *importRegion) hear(from *importRegion, lastButIn store.Stream, but int64) {
	r.t.Helper()
	for _, st := range []store.Stream{store.Safety, store.Changes} {
		to := from.store.Head(st)
		if st == lastButIn {
			to -= but
		}
		for r.heard[st] < to {
			blocks, err := from.store.Blocks(r.t.Context(), st, r.heard[st], 1)
			if err != nil {
				r.t.Fatal(err)
			}
			if err := r.store.Update(r.t.Context(), func(tx *store.Tx) error {
				for _, record := range blocks[0].Records {
					c, err := changelog.DecodeChange(record)
					if err != nil || c.Foreign {
						return err
					}
					if _, err := tx.Merge(c, st == store.Safety, func(key string, body []byte) ([]store.Index, error) { return Indexes(c.Kind, key, body) }); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				r.t.Fatal(err)
			}
			r.heard[st] = blocks[0].N
		}
	}
}

// TestImport_goes_on_in_the_Region_with_control: the other was in the middle of a
// job, and not all that it had done was known. Every line is imported and counted
// once, in both, also when the first comes back.
func TestImport_goes_on_in_the_Region_with_control(t *testing.T) {
	const rows = 40
	for steps := range 10 { // that the first Region makes before it is lost
		for behind := range int64(3) { // blocks of it that nobody has heard of
			t.Run(fmt.Sprintf("after_%d_steps_%d_behind", steps, behind), func(t *testing.T) {
				buckets := t.TempDir()
				var text strings.Builder
				text.WriteString("Id,Address,ChannelType\n")
				for i := range rows {
					fmt.Fprintf(&text, "e%d,a%d@example.com,EMAIL\nbroken\n", i, i)
				}
				writeFile(t, filepath.Join(buckets, "bucket/in/1"), []byte(text.String()))
				a, b := newImportRegions(t, buckets)
				id := (&importRoom{room: a.room}).start(`"Format":"CSV","RegisterEndpoints":true,"DefineSegment":true,"S3Url":"s3://bucket/in"`)
				created := a.store.Head(store.Changes)
				b.hear(a, "", 0)
				runOnce(t, t.Context(), b.imports)
				if got := (&importRoom{room: b.room}).job(id).JobStatus; got != "CREATED" {
					t.Fatalf("the job is %s in a Region that does not lead", got)
				}
				var made atomic.Int64
				a.leads = func() bool { return made.Add(1) <= int64(steps)+1 }
				runOnce(t, t.Context(), a.imports)
				b.hear(a, store.Changes, min(behind, a.store.Head(store.Changes)-created))

				b.epoch, b.leads = 2, func() bool { return true }
				runOnce(t, t.Context(), b.imports)
				a.leads = func() bool { return false }
				runOnce(t, t.Context(), a.imports)
				b.hear(a, "", 0)
				a.hear(b, "", 0)
				b.hear(a, "", 0)
				// Control comes back: nothing is left to do.
				a.epoch, a.leads = 3, func() bool { return true }
				runOnce(t, t.Context(), a.imports)
				for _, r := range []*importRegion{a, b} {
					j := (&importRoom{room: r.room}).job(id)
					(&importRoom{room: r.room}).expectJob(j, "COMPLETED", 1, 0, 2*rows, rows)
					for i := range rows {
						if r.show(fmt.Sprint("e", i)) == "" {
							t.Errorf("Region %s lacks line %d", r.store.Region(), i)
						}
					}
					faults, err := r.store.Reader(t.Context()).List(kindImportFailure, jobKey(app, id), "", 1000)
					if err != nil || len(faults) != rows {
						t.Errorf("Region %s lists %d failures, %v", r.store.Region(), len(faults), err)
					}
					s, err := r.segments.load(r.store.Reader(t.Context()), *j.Definition.SegmentId)
					if err != nil || !s.Finished || len(s.Endpoints) != rows {
						t.Errorf("Region %s: segment %+v, %v", r.store.Region(), s, err)
					}
				}
			})
		}
	}
}
