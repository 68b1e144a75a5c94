package segments

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

const testAccount = "123456789012"

// room is a Region: a store, the endpoints' room, an index that follows, and
// the segments' room.
type room struct {
	*Service
	t    testing.TB
	dir  string
	keys *store.Keys
	st   *store.Store
	ix   *Index
	ep   *endpoints.Service
	mux  *wire.Mux
	now  time.Time
	ids  *aws.IDs
	stop func()
}

func newRoom(t testing.TB) *room {
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	r := &room{t: t, dir: t.TempDir(), keys: keys, now: testNow, ids: aws.NewIDs(rand.NewChaCha8([32]byte{1}))}
	r.start()
	t.Cleanup(func() { r.stop() })
	r.update(func(tx *store.Tx) error {
		return store.Save(tx, apps.Kind, testApp, &apps.App{Account: testAccount, ID: testApp, Name: "Tea"})
	})
	return r
}

// start opens the store and builds the rooms over it, as after a restart.
func (r *room) start() {
	now := func() time.Time { return r.now }
	st, err := store.Open(r.t.Context(), store.Config{Dir: r.dir, Region: "us-east-1"}, r.keys, now, quiet)
	if err != nil {
		r.t.Fatal(err)
	}
	r.st, r.ix = st, NewIndex(st, quiet)
	tokens := wire.NewTokens([]byte("sixteen bytes or more"), now)
	r.ep = endpoints.New(endpoints.Config{}, st, tokens, r.ids, now, quiet)
	r.Service = New(st, r.ix, AppsFunc(apps.Exists), r.ids, tokens, now)
	r.mux = wire.NewMux(pinpoint.Service, everpoint.Service)
	r.ep.Mount(r.mux)
	r.Mount(r.mux)

	// The index stops first: it reads the store.
	storeCtx, stopStore := context.WithCancel(context.Background())
	indexCtx, stopIndex := context.WithCancel(context.Background())
	storeDone, indexDone := make(chan error, 1), make(chan error, 1)
	go func() { storeDone <- st.Run(storeCtx) }()
	go func() { indexDone <- r.ix.Run(indexCtx) }()
	r.stop = func() {
		stopIndex()
		if err := <-indexDone; err != nil {
			r.t.Error(err)
		}
		stopStore()
		if err := <-storeDone; err != nil {
			r.t.Error(err)
		}
	}
}

func (r *room) update(fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.st.Update(r.t.Context(), fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) fresh() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if err := r.ix.Fresh(ctx); err != nil {
		r.t.Fatalf("the index is at %+v of %+v: %v", r.ix.Position(), r.ix.head(), err)
	}
}

func (r *room) call(account, method, path, body string) (int, string) {
	r.t.Helper()
	p, q, _ := strings.Cut(path, "?")
	req := &wire.Request{Method: method, RawPath: p, RawQuery: q, Header: http.Header{}, Body: []byte(body)}
	m, err := r.mux.Find(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	ctx := aws.WithCaller(r.t.Context(), aws.Caller{Account: account, Region: "us-east-1", RequestID: "req-1"})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

func (r *room) expect(method, path, body string, status int, want string) string {
	r.t.Helper()
	got, text := r.call(testAccount, method, path, body)
	if got != status || want != "" && text != want {
		r.t.Fatalf("%s %s: %d %s, want %d %s", method, path, got, text, status, want)
	}
	return text
}

func (r *room) put(id, body string) {
	r.t.Helper()
	r.expect("PUT", "/v1/apps/"+testApp+"/endpoints/"+id, body, 202, "")
}

// segment creates a segment and returns its id.
func (r *room) segment(body string) string {
	r.t.Helper()
	var out struct{ Id string }
	if err := json.Unmarshal([]byte(r.expect("POST", "/v1/apps/"+testApp+"/segments", body, 201, "")), &out); err != nil {
		r.t.Fatal(err)
	}
	return out.Id
}

func (r *room) counted(body string) (count, eligible int) {
	r.t.Helper()
	var out struct{ Count, Eligible int }
	text := r.expect("POST", "/everpoint/v1/apps/"+testApp+"/segment-counts", body, 200, "")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		r.t.Fatal(err)
	}
	return out.Count, out.Eligible
}

// optOut opts an endpoint out, and tells so in the safety stream.
func (r *room) optOut(id string) {
	r.t.Helper()
	safety := endpoints.KindEndpoint
	safety.Safety = true
	key := endpoints.Key(r.st, testApp, id)
	r.update(func(tx *store.Tx) error {
		body, err := tx.Get(safety, key)
		if err != nil || body == nil {
			return err
		}
		rec, err := changelog.DecodeRecord(body)
		if err != nil {
			return err
		}
		rec.OptOut = rec.OptOut.Record(tx.Stamp(rec.Latest()))
		return tx.Put(safety, key, changelog.AppendRecord(nil, &rec))
	})
}

// random writes to the store what clients, and peers, might.
func (r *room) random(g *gen) {
	id := g.id()
	switch g.IntN(8) {
	case 0:
		r.call(testAccount, "DELETE", "/v1/apps/"+testApp+"/endpoints/"+id, "")
	case 1:
		r.call(testAccount, "DELETE", "/v1/apps/"+testApp+"/users/"+g.userID(), "")
	case 2:
		r.optOut(id)
	default:
		e := g.endpoint(id, r.now)
		req := map[string]any{"Attributes": e.Attributes, "Metrics": e.Metrics, "EndpointStatus": e.Status}
		location := map[string]any{}
		if v, ok := e.Location["Country"]; ok {
			location["Country"] = v
		}
		if e.HasCoordinates {
			location["Latitude"], location["Longitude"] = e.Latitude, e.Longitude
		}
		delete(e.Demographic, "DeviceType")
		req["Location"], req["Demographic"] = location, e.Demographic
		if e.ChannelType != "" && e.Address != "" {
			req["ChannelType"], req["Address"] = e.ChannelType, e.Address
			req["OptOut"] = g.pick([]string{"ALL", "NONE"})
		}
		if e.UserID != "" {
			req["User"] = map[string]any{"UserId": e.UserID, "UserAttributes": g.attributes()}
		}
		body, err := json.Marshal(req)
		if err != nil {
			r.t.Fatal(err)
		}
		// Some are refused (a sixteenth endpoint, a missing address); so be it.
		r.call(testAccount, "PUT", "/v1/apps/"+testApp+"/endpoints/"+id, string(body))
	}
	if g.IntN(10) == 0 {
		r.now = r.now.Add(time.Duration(g.IntN(48)) * time.Hour)
	}
}

// world reads the documents of the store for the naive evaluator.
func (r *room) world(g *gen) *world {
	r.t.Helper()
	r.fresh()
	w := newWorld(r.t, g)
	w.ix, w.blind, w.naive.now = r.ix, r.st, r.now
	g.now = r.now
	rd := r.st.Reader(r.t.Context())
	for _, k := range []store.Kind{endpoints.KindEndpoint, endpoints.KindUser} {
		rows, err := rd.List(k, "", "", 100_000)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, row := range rows {
			if k.Name == endpoints.KindUser.Name {
				u, err := endpoints.ReadUser(testApp, row.Body)
				if err != nil {
					r.t.Fatal(err)
				}
				if u != nil {
					w.naive.users[u.ID] = u
				}
				continue
			}
			e, err := endpoints.Read(testApp, row.Body)
			if err != nil {
				r.t.Fatal(err)
			}
			if e != nil {
				w.all[e.ID] = e
			}
		}
	}
	return w
}

func TestIndex_follows_the_store_and_is_the_same_after_a_restart(t *testing.T) {
	seed := rand.Uint64()
	g := newGen(seed)
	r := newRoom(t)
	list := importedList{}
	for range 20 {
		list.endpoints = append(list.endpoints, g.id())
	}
	for range 3 {
		list.users = append(list.users, g.userID())
	}
	imported := &pinpoint.SegmentResponse{Id: "imported", SegmentType: pinpoint.SegmentTypeImport, Version: new(1)}
	r.update(func(tx *store.Tx) error {
		if err := store.Save(tx, KindSegment, key(testApp, "imported"), &pinpoint.SegmentResponse{
			ApplicationId: testApp, Id: "imported", SegmentType: pinpoint.SegmentTypeImport, Version: new(0),
		}); err != nil {
			return err
		}
		if _, err := r.CreateImport(tx, testApp, endpoints.ImportSegment{ID: "imported"}); err != nil {
			return err
		}
		for i, id := range list.endpoints {
			m := endpoints.ImportMembers{EndpointIDs: []string{strings.ToUpper(id)}}
			if i < len(list.users) {
				m.UserIDs = list.users[i : i+1]
			}
			if err := r.AddMembers(tx, testApp, "imported", m); err != nil {
				return err
			}
		}
		return r.FinishImport(tx, testApp, "imported")
	})
	judge := func() {
		t.Helper()
		w := r.world(g)
		w.naive.members["imported"] = list
		w.naive.segments.save(imported)
		w.judge(imported, seed)
		var dimensional []string
		ids := []string{"imported"}
		for i := range 15 {
			w.judge(w.segment(i, &dimensional, &ids), seed)
		}
	}
	for range 6 {
		for range 60 {
			r.random(g)
		}
		judge()
	}
	r.stop()
	r.start()
	judge()
	for range 60 {
		r.random(g)
	}
	judge()
}

func TestIndex_forgets_a_deleted_app(t *testing.T) {
	r := newRoom(t)
	r.put("a", `{"ChannelType":"SMS","Address":"+491701234567"}`)
	r.fresh()
	if n := r.ix.Len(testApp); n != 1 {
		t.Fatalf("%d endpoints, want 1", n)
	}
	r.update(func(tx *store.Tx) error {
		return store.Save(tx, apps.Kind, testApp, &apps.App{Account: testAccount, ID: testApp, DeletedAt: aws.Timestamp(r.now)})
	})
	r.fresh()
	if n := r.ix.Len(testApp); n != 0 {
		t.Errorf("%d endpoints of a deleted app, want none", n)
	}
}

// The two streams have no common order: a row that the safety stream told of
// first may have changed since.
func TestIndex_reads_what_the_safety_stream_names_as_it_is_now(t *testing.T) {
	r := newRoom(t)
	r.put("a", `{"ChannelType":"SMS","Address":"+491701234567","Attributes":{"Ride":["Bus"]}}`)
	ix := NewIndex(r.st, quiet)
	if err := ix.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := ix.Position()
	r.optOut("a")
	r.put("a", `{"Attributes":{"Ride":["Car"]}}`)
	if err := ix.advance(t.Context(), from, ix.head()); err != nil {
		t.Fatal(err)
	}
	c, err := Compile(&pinpoint.SegmentDimensions{Attributes: map[string]pinpoint.AttributeDimension{"Ride": {Values: []string{"Car"}}}}, nil, nil, r.now)
	if err != nil {
		t.Fatal(err)
	}
	if count, eligible, err := ix.Count(t.Context(), testApp, c); err != nil || count != 1 || eligible != 0 {
		t.Errorf("count %d, eligible %d, error %v; want the one that rides a car, opted out", count, eligible, err)
	}
}

// A node that was away longer than the log is kept builds the index again.
func TestIndex_builds_again_when_the_log_was_trimmed(t *testing.T) {
	r := newRoom(t)
	r.put("a", `{"ChannelType":"SMS","Address":"+491701234567"}`)
	r.fresh()
	r.put("b", `{"ChannelType":"SMS","Address":"+491701234568"}`)
	r.fresh()
	if _, err := r.st.Trim(t.Context(), store.Changes, r.st.Head(store.Changes), r.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	// As if the index had never heard of b, and the log had gone since.
	r.ix.Remove(endpoints.Key(r.st, testApp, "b"))
	r.ix.moveTo(Position{0, 0})
	r.put("c", `{"ChannelType":"SMS","Address":"+491701234569"}`)
	r.fresh()
	if n := r.ix.Len(testApp); n != 3 {
		t.Errorf("%d endpoints, want 3", n)
	}
}

func TestIndex_answers_unavailable_before_it_is_built(t *testing.T) {
	r := newRoom(t)
	ix := NewIndex(r.st, quiet)
	c, err := Compile(&pinpoint.SegmentDimensions{}, nil, nil, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ix.Count(t.Context(), testApp, c); aws.KindOf(err) != aws.KindUnavailable || ix.Ready() {
		t.Errorf("ready %t, error %v, want unavailable", ix.Ready(), err)
	}
}

func TestSegment_life(t *testing.T) {
	r := newRoom(t)
	base := "/v1/apps/" + testApp + "/segments"
	r.expect("GET", base, "", 200, `{"Item":[]}`)
	id := r.segment(`{"Name":"Bus","tags":{"team":"growth"},"Dimensions":{"Attributes":{"Ride":{"AttributeType":"INCLUSIVE","Values":["Bus"]}}}}`)
	const (
		one = `"Dimensions":{"Attributes":{"Ride":{"AttributeType":"INCLUSIVE","Values":["Bus"]}}}`
		two = `"Name":"Everybody","SegmentGroups":{"Groups":[{"Dimensions":[],"SourceSegments":[],"Type":"ANY"}],"Include":"ALL"},"SegmentType":"DIMENSIONAL"`
	)
	arn := fmt.Sprintf("arn:aws:mobiletargeting:us-east-1:%s:apps/%s/segments/%s", testAccount, testApp, id)
	first := fmt.Sprintf(`{"ApplicationId":"%s","Arn":"%s","CreationDate":"2026-11-20T12:00:00.000Z",%s,"Id":"%s",`+
		`"LastModifiedDate":"2026-11-20T12:00:00.000Z","Name":"Bus","SegmentType":"DIMENSIONAL","Version":1,"tags":{"team":"growth"}}`, testApp, arn, one, id)
	r.expect("GET", base+"/"+id, "", 200, first)
	r.expect("GET", base, "", 200, `{"Item":[`+first+`]}`)

	r.now = r.now.Add(time.Hour)
	second := fmt.Sprintf(`{"ApplicationId":"%s","Arn":"%s","CreationDate":"2026-11-20T12:00:00.000Z","Id":"%s",`+
		`"LastModifiedDate":"2026-11-20T13:00:00.000Z",%s,"Version":2,"tags":{"team":"growth"}}`, testApp, arn, id, two)
	// Tags in an update are ignored.
	r.expect("PUT", base+"/"+id, `{"Name":"Everybody","tags":{"team":"none"},"SegmentGroups":{"Groups":[{"Type":"ANY"}],"Include":"ALL"}}`, 200, second)
	r.expect("GET", base+"/"+id, "", 200, second)
	r.expect("GET", base+"/"+id+"/versions/1", "", 200, first)
	r.expect("GET", base+"/"+id+"/versions/2", "", 200, second)
	r.expect("GET", base+"/"+id+"/versions", "", 200, `{"Item":[`+first+`,`+second+`]}`)
	r.expect("GET", base+"/"+id+"/versions/3", "", 404, "")
	r.expect("GET", base+"/"+id+"/versions/latest", "", 400, "")

	r.update(func(tx *store.Tx) error { return SetTags(tx, testApp, id, map[string]string{"team": "core"}) })
	if text := r.expect("GET", base+"/"+id+"/versions/1", "", 200, ""); !strings.Contains(text, `"tags":{"team":"core"}`) || !strings.Contains(text, `"Version":1`) {
		t.Errorf("version 1 after a tag was set: %s", text)
	}
	r.expect("DELETE", base+"/"+id, "", 200, strings.Replace(second, "growth", "core", 1))
	r.expect("GET", base+"/"+id, "", 404, `{"Message":"Resource not found","RequestID":"req-1"}`)
	r.expect("GET", base+"/"+id+"/versions/1", "", 404, "")
	r.expect("DELETE", base+"/"+id, "", 404, "")
	for _, k := range []store.Kind{KindSegment, KindVersion} {
		if rows, err := r.st.Reader(t.Context()).List(k, "", "", 10); err != nil || len(rows) != 0 {
			t.Errorf("%d %s rows are left, error %v", len(rows), k.Name, err)
		}
	}
}

func TestSegment_operations_refuse(t *testing.T) {
	r := newRoom(t)
	base := "/v1/apps/" + testApp + "/segments"
	id := r.segment(`{"Dimensions":{}}`)
	for _, c := range []struct {
		claim, method, path, body string
		status                    int
	}{
		{"neither dimensions nor groups", "POST", base, `{"Name":"x"}`, 400},
		{"both", "POST", base, `{"Dimensions":{},"SegmentGroups":{"Groups":[]}}`, 400},
		{"an unknown source", "POST", base, `{"SegmentGroups":{"Groups":[{"SourceSegments":[{"Id":"nowhere"}]}]}}`, 400},
		{"a segment that builds on itself", "PUT", base + "/" + id, `{"SegmentGroups":{"Groups":[{"SourceSegments":[{"Id":"` + id + `"}]}]}}`, 400},
		{"a reserved tag", "POST", base, `{"Dimensions":{},"tags":{"aws:x":"y"}}`, 400},
		{"a long name", "POST", base, `{"Dimensions":{},"Name":"` + strings.Repeat("x", 257) + `"}`, 400},
		{"a foreign token", "GET", base + "?token=abc", "", 400},
		{"a page size of nothing", "GET", base + "?page-size=0", "", 400},
		{"an unknown app", "GET", "/v1/apps/ffffffffffffffffffffffffffffffff/segments", "", 404},
		{"an unknown app to create in", "POST", "/v1/apps/ffffffffffffffffffffffffffffffff/segments", `{"Dimensions":{}}`, 404},
		{"an unknown app to count in", "POST", "/everpoint/v1/apps/ffffffffffffffffffffffffffffffff/segment-counts", `{"Dimensions":{}}`, 404},
		{"a count of neither", "POST", "/everpoint/v1/apps/" + testApp + "/segment-counts", `{}`, 400},
		{"an unknown segment", "PUT", base + "/nowhere", `{"Dimensions":{}}`, 404},
	} {
		t.Run(c.claim, func(t *testing.T) {
			if status, text := r.call(testAccount, c.method, c.path, c.body); status != c.status {
				t.Errorf("%d %s, want %d", status, text, c.status)
			}
		})
	}
	if status, _ := r.call("999999999999", "GET", base+"/"+id, ""); status != 404 {
		t.Errorf("another account is answered %d, want 404", status)
	}
}

func TestSegments_come_in_pages(t *testing.T) {
	r := newRoom(t)
	base := "/v1/apps/" + testApp + "/segments"
	want := map[string]bool{}
	for range 7 {
		want[r.segment(`{"Dimensions":{}}`)] = true
	}
	got, token := map[string]bool{}, ""
	for pages := 1; ; pages++ {
		var out struct {
			Item      []struct{ Id string }
			NextToken string
		}
		path := base + "?page-size=3"
		if token != "" {
			path += "&token=" + token
		}
		if err := json.Unmarshal([]byte(r.expect("GET", path, "", 200, "")), &out); err != nil {
			t.Fatal(err)
		}
		for _, item := range out.Item {
			got[item.Id] = true
		}
		if token = out.NextToken; token == "" {
			if pages != 3 || len(got) != len(want) {
				t.Errorf("%d segments on %d pages, want 7 on 3", len(got), pages)
			}
			return
		}
	}
}

// A count includes what was written just before it.
func TestCountSegment_is_exact_right_after_a_write(t *testing.T) {
	r := newRoom(t)
	for i := range 20 {
		r.put(fmt.Sprintf("e%d", i), fmt.Sprintf(`{"ChannelType":"SMS","Address":"+4917012345%02d","OptOut":"%s","Attributes":{"Ride":["Bus"]}}`,
			i, []string{"NONE", "ALL"}[i%2]))
		count, eligible := r.counted(`{"Dimensions":{"Attributes":{"Ride":{"Values":["Bus"]}}}}`)
		if count != i+1 || eligible != i/2+1 {
			t.Fatalf("counted %d, eligible %d; want %d and %d", count, eligible, i+1, i/2+1)
		}
	}
}

func TestImport_into_no_segment_says_which(t *testing.T) {
	r := newRoom(t)
	var refused error
	r.update(func(tx *store.Tx) error {
		_, refused = r.CreateImport(tx, testApp, endpoints.ImportSegment{ID: "none" + strings.Repeat("x", 100)})
		return nil
	})
	if want := "SegmentId: there is no segment none" + strings.Repeat("x", 60); aws.KindOf(refused) != aws.KindNotFound || refused.Error() != want {
		t.Errorf("got %v, want not found: %s", refused, want)
	}
}

func TestImport_makes_versions_of_members(t *testing.T) {
	r := newRoom(t)
	for _, id := range []string{"a", "b", "c", "d"} {
		r.put(id, fmt.Sprintf(`{"ChannelType":"EMAIL","Address":"%s@example.com","User":{"UserId":"user-%s"}}`, id, id))
	}
	begin := func(in endpoints.ImportSegment, members endpoints.ImportMembers) (id string) {
		t.Helper()
		in.Definition = pinpoint.ImportJobResource{Format: "CSV", S3Url: "s3://bucket/file", RoleArn: "arn:aws:iam::123456789012:role/x"}
		r.update(func(tx *store.Tx) (err error) {
			if id, err = r.CreateImport(tx, testApp, in); err != nil {
				return err
			}
			return r.AddMembers(tx, testApp, id, members)
		})
		return id
	}
	finish := func(id string) {
		t.Helper()
		r.update(func(tx *store.Tx) error { return r.FinishImport(tx, testApp, id) })
	}
	members := func(id string, version int) string {
		t.Helper()
		r.fresh()
		src := SourcesOf(r.st.Reader(t.Context()), testApp)
		seg, err := src.Segment(id, version)
		if err != nil || seg == nil {
			t.Fatalf("segment %v, error %v", seg, err)
		}
		c, err := CompileSegment(seg, src, r.now)
		if err != nil {
			t.Fatal(err)
		}
		if c.Dynamic() {
			t.Error("an imported segment is taken for a dynamic one")
		}
		set, err := r.ix.Evaluate(t.Context(), testApp, c)
		if err != nil {
			t.Fatal(err)
		}
		var in []string
		for _, e := range []string{"a", "b", "c", "d"} {
			if set.Has(endpoints.Key(r.st, testApp, e)) {
				in = append(in, e)
			}
		}
		return strings.Join(in, " ")
	}

	id := begin(endpoints.ImportSegment{Name: "List", JobID: "job-1"}, endpoints.ImportMembers{
		EndpointIDs: []string{"a", "A", "gone"}, UserIDs: []string{"user-c"}, Channels: map[string]int{"EMAIL": 3},
	})
	r.expect("GET", "/v1/apps/"+testApp+"/segments/"+id, "", 404, "") // not ready yet
	finish(id)
	text := r.expect("GET", "/v1/apps/"+testApp+"/segments/"+id, "", 200, "")
	want := `"ImportDefinition":{"ChannelCounts":{"EMAIL":3},"ExternalId":"","Format":"CSV","RoleArn":"arn:aws:iam::123456789012:role/x","S3Url":"s3://bucket/file","Size":4}`
	if !strings.Contains(text, want) || !strings.Contains(text, `"SegmentType":"IMPORT"`) {
		t.Errorf("imported segment %s, want in it %s", text, want)
	}
	if got := members(id, 0); got != "a c" {
		t.Errorf("members %q, want a c", got)
	}
	r.expect("PUT", "/v1/apps/"+testApp+"/segments/"+id, `{"Dimensions":{}}`, 400, "")

	// One that fails half way changes nothing; the next one makes version 2.
	many := make([]string, 0, 2*chunkMax+5)
	for i := range cap(many) {
		many = append(many, fmt.Sprintf("nobody-%d", i))
	}
	begin(endpoints.ImportSegment{ID: id, JobID: "job-2"}, endpoints.ImportMembers{EndpointIDs: append(many, "d")})
	if got := members(id, 0); got != "a c" {
		t.Errorf("members %q during an import, want a c", got)
	}
	begin(endpoints.ImportSegment{ID: id, JobID: "job-3"}, endpoints.ImportMembers{EndpointIDs: append(many[:chunkMax:chunkMax], "b")})
	finish(id)
	if got := members(id, 0); got != "b" {
		t.Errorf("members %q after another import, want b", got)
	}
	if got := members(id, 1); got != "a c" {
		t.Errorf("members %q of version 1, want a c", got)
	}

	// A user stands for the endpoints that the user has when it is asked.
	r.put("d", `{"User":{"UserId":"user-c"}}`)
	if got := members(id, 1); got != "a c d" {
		t.Errorf("members %q after d moved to user-c, want a c d", got)
	}
	based := `{"SegmentGroups":{"Groups":[{"SourceSegments":[{"Id":"` + id + `","Version":1}],"Dimensions":[{"UserAttributes":{"x":{"AttributeType":"EXCLUSIVE","Values":["y"]}}}]}]}}`
	if count, _ := r.counted(based); count != 3 {
		t.Errorf("%d endpoints of a segment that builds on the list, want 3", count)
	}

	r.expect("DELETE", "/v1/apps/"+testApp+"/segments/"+id, "", 200, "")
	if rows, err := r.st.Reader(t.Context()).List(KindMember, "", "", 10); err != nil || len(rows) != 0 {
		t.Errorf("%d chunks of members are left, error %v", len(rows), err)
	}
}

// A Region that has the segment, but not yet its members, must not take the few
// it has for all.
func TestImport_is_unavailable_until_all_members_arrived(t *testing.T) {
	r := newRoom(t)
	r.update(func(tx *store.Tx) error {
		return save(tx, &pinpoint.SegmentResponse{ApplicationId: testApp, Id: "list", SegmentType: pinpoint.SegmentTypeImport, Version: new(1)})
	})
	body := `{"SegmentGroups":{"Groups":[{"SourceSegments":[{"Id":"list"}]}]}}`
	r.put("a", `{"ChannelType":"SMS","Address":"+491701234567"}`)
	if status, text := r.call(testAccount, "POST", "/everpoint/v1/apps/"+testApp+"/segment-counts", body); status != 503 {
		t.Errorf("%d %s, want 503", status, text)
	}
}

func TestContents_name_every_row_of_an_app(t *testing.T) {
	var names []string
	for _, c := range Contents() {
		if c.Prefix("x") != "x/" {
			t.Errorf("prefix %q of %s", c.Prefix("x"), c.Kind.Name)
		}
		names = append(names, c.Kind.Name)
	}
	if want := []string{"segment", "segmentversion", "segmentmember", "segmentimport"}; !slices.Equal(names, want) {
		t.Errorf("kinds %v, want %v", names, want)
	}
}
