package door

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/aws/wire"
)

// Three small services, one per protocol, whose operations tell what the door
// told them.

var (
	restService  = &wire.Service{Name: "Pinpoint", Package: "rest", Version: "2016-12-01", SigningName: "mobiletargeting", ARNNamespace: "mobiletargeting", Protocol: wire.RestJSON1}
	jsonService  = &wire.Service{Name: "Pinpoint SMS Voice V2", Package: "json", Version: "2022-03-31", SigningName: "sms-voice", ARNNamespace: "sms-voice", Protocol: wire.AWSJSON10, TargetPrefix: "PinpointSMSVoiceV2"}
	queryService = &wire.Service{Name: "IAM", Package: "query", Version: "2010-05-08", SigningName: "iam", ARNNamespace: "iam", Global: true, Protocol: wire.AWSQuery, XMLNamespace: "https://iam.amazonaws.com/doc/2010-05-08/"}

	restInput = &wire.Schema{Name: "RestNote", Type: wire.Structure, Members: []wire.Member{
		{Name: "ApplicationId", Shape: "string", In: wire.InLabel, Required: true},
		{Name: "Text", Shape: "string"},
	}}
	bodyInput = &wire.Schema{Name: "Note", Type: wire.Structure, Members: []wire.Member{
		{Name: "ApplicationId", Shape: "string"},
		{Name: "Text", Shape: "string"},
	}}
	seenOutput = &wire.Schema{Name: "Seen", Type: wire.Structure, Members: []wire.Member{
		{Name: "Principal", Shape: "string"},
		{Name: "Source", Shape: "string"},
		{Name: "Text", Shape: "string"},
	}}
	_ = wire.Link([]*wire.Schema{restInput, bodyInput, seenOutput})

	restGet   = wire.Define[restNote, restSeen](wire.Op{Name: "GetNote", Method: "GET", URI: "/v1/apps/{ApplicationId}/note", Service: restService, Input: restInput, Output: seenOutput})
	restPut   = wire.Define[restNote, restSeen](wire.Op{Name: "PutNote", Method: "PUT", URI: "/v1/apps/{ApplicationId}/note", Service: restService, Input: restInput, Output: seenOutput})
	jsonPut   = wire.Define[bodyNote, restSeen](wire.Op{Name: "PutNote", Service: jsonService, Input: bodyInput, Output: seenOutput})
	queryPut  = wire.Define[bodyNote, restSeen](wire.Op{Name: "PutNote", Service: queryService, Input: bodyInput, Output: seenOutput})
	queryOpen = wire.Define[bodyNote, restSeen](wire.Op{Name: "OpenNote", Service: queryService, Input: bodyInput, Output: seenOutput, Unsigned: true})
)

type restNote struct {
	ApplicationId string
	Text          *string
}

type bodyNote struct{ ApplicationId, Text *string }

type restSeen struct{ Principal, Source, Text *string }

const (
	testKeyID   = "AKIAIOSFODNN7EXAMPLE"
	testSecret  = sigv4.SecretKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
	testAccount = "123456789012"
	testRoot    = "arn:aws:iam::123456789012:root"
	testRegion  = "eu-central-1"

	overKeyID = "ASIAIOSFODNN7EXAMPLE" // a session that is over
)

// testKeys is StaticKeys with a session that is over, a lookup that fails, one
// that panics, and a resource that is denied.
type testKeys struct{ *StaticKeys }

func (k testKeys) Identity(ctx context.Context, id string, token sigv4.SecretKey) (Identity, error) {
	switch id {
	case overKeyID:
		return Identity{Secret: sigv4.Secret{Key: testSecret, Expires: time.Now().Add(-time.Second)}}, nil
	case "AKIABROKEN":
		return Identity{}, errors.New("the key store is gone")
	case "AKIAPANIC":
		panic("no such luck")
	}
	return k.StaticKeys.Identity(ctx, id, token)
}

func (k testKeys) Allow(ctx context.Context, c aws.Caller, action, resource string) error {
	if strings.HasSuffix(resource, "/forbidden") {
		return Denied(c, action, resource)
	}
	return k.StaticKeys.Allow(ctx, c, action, resource)
}

// records keeps what the door recorded.
type records struct {
	mu  sync.Mutex
	all []Record
}

func (r *records) Record(_ context.Context, record Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, record)
}

func (r *records) last(t *testing.T) Record {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		t.Fatal("nothing was recorded")
	}
	return r.all[len(r.all)-1]
}

// fixture is a door that serves on a loopback port until the test ends.
type fixture struct {
	door    *Door
	addr    string
	records *records
	logged  *lockedBuffer
	gate    chan struct{} // PutNote with Text "wait" waits here
	entered chan struct{} // and says so here
	stop    context.CancelFunc
	ended   chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newDoor(t testing.TB, cfg Config) *fixture {
	t.Helper()
	f := &fixture{records: &records{}, logged: &lockedBuffer{}, gate: make(chan struct{}), entered: make(chan struct{}, 16)}
	mux := wire.NewMux(restService, jsonService, queryService)
	answer := func(ctx context.Context, app, text string) (*restSeen, error) {
		switch text {
		case "wait":
			f.entered <- struct{}{}
			select {
			case <-f.gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case "fail":
			return nil, aws.NotFound("app %s", app)
		}
		c := aws.CallerFrom(ctx)
		source := c.SourceIP.String()
		return &restSeen{Text: &text, Principal: &c.Principal, Source: &source}, nil
	}
	str := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	rest := func(ctx context.Context, in *restNote) (*restSeen, error) {
		return answer(ctx, in.ApplicationId, str(in.Text))
	}
	body := func(ctx context.Context, in *bodyNote) (*restSeen, error) {
		return answer(ctx, str(in.ApplicationId), str(in.Text))
	}
	wire.Handle(mux, restGet, "apps/{ApplicationId}", rest)
	wire.Handle(mux, restPut, "apps/{ApplicationId}", rest)
	wire.Handle(mux, jsonPut, "apps/{ApplicationId}", body)
	wire.Handle(mux, queryPut, "apps/{ApplicationId}", body)
	wire.Handle(mux, queryOpen, "*", body)
	static, err := NewStaticKeys(StaticKey{AccessKeyID: testKeyID, Secret: testSecret, Account: testAccount})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Region == "" {
		cfg.Region = testRegion
	}
	log := slog.New(slog.NewTextHandler(f.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mux.Log = log
	keys := testKeys{static}
	f.door, err = New(cfg, mux, keys, keys, f.records, aws.NewIDs(rand.Reader), log)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// serve opens a door on a loopback port, without TLS unless cfg says otherwise.
func serve(t *testing.T, cfg Config) *fixture {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	cfg.PlainLoopback = cfg.CertFile == ""
	f := newDoor(t, cfg)
	addr, err := f.door.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.addr = addr.String()
	ctx, stop := context.WithCancel(context.Background())
	f.stop, f.ended = stop, make(chan error, 1)
	go func() { f.ended <- f.door.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-f.ended:
		case <-time.After(30 * time.Second):
			t.Error("Run did not return")
		}
	})
	return f
}

// dialect is how one protocol asks for PutNote and how it writes errors.
type dialect struct {
	name    string
	service string
	build   func(base, app, text string) (*http.Request, []byte)
	read    func(t *testing.T, resp *reply, body []byte) (code, message, requestID string)
}

func newRequest(method, url string, body []byte) *http.Request {
	r, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	return r
}

var dialects = []dialect{
	{"restJson1", "mobiletargeting", func(base, app, text string) (*http.Request, []byte) {
		body, _ := json.Marshal(map[string]string{"Text": text})
		r := newRequest("PUT", base+"/v1/apps/"+app+"/note", body)
		r.Header.Set("Content-Type", "application/json")
		return r, body
	}, func(t *testing.T, resp *reply, body []byte) (string, string, string) {
		var b map[string]string
		if err := json.Unmarshal(body, &b); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
		return resp.Header.Get("X-Amzn-ErrorType"), b["message"] + b["Message"], resp.Header.Get("X-Amzn-RequestId")
	}},
	{"awsJson", "sms-voice", func(base, app, text string) (*http.Request, []byte) {
		body, _ := json.Marshal(map[string]string{"ApplicationId": app, "Text": text})
		r := newRequest("POST", base+"/", body)
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("X-Amz-Target", "PinpointSMSVoiceV2.PutNote")
		return r, body
	}, func(t *testing.T, resp *reply, body []byte) (string, string, string) {
		var b map[string]string
		if err := json.Unmarshal(body, &b); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
		_, code, ok := strings.Cut(b["__type"], "#")
		if !ok {
			code = b["__type"]
		}
		return code, b["message"] + b["Message"], resp.Header.Get("X-Amzn-RequestId")
	}},
	{"awsQuery", "iam", func(base, app, text string) (*http.Request, []byte) {
		body := []byte("Action=PutNote&Version=2010-05-08&ApplicationId=" + app + "&Text=" + text)
		r := newRequest("POST", base+"/", body)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		return r, body
	}, func(t *testing.T, resp *reply, body []byte) (string, string, string) {
		var b struct {
			XMLName xml.Name `xml:"https://iam.amazonaws.com/doc/2010-05-08/ ErrorResponse"`
			Error   struct{ Type, Code, Message string }
			ID      string `xml:"RequestId"`
		}
		if err := xml.Unmarshal(body, &b); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
		if b.ID != resp.Header.Get("X-Amzn-RequestId") {
			t.Errorf("request id %q in the body, %q in the header", b.ID, resp.Header.Get("X-Amzn-RequestId"))
		}
		return b.Error.Code, b.Error.Message, b.ID
	}},
}

// sign signs r as the configured key for our own Region, now.
func sign(r *http.Request, body []byte, service string) {
	signAs(r, body, sigv4.Credentials{AccessKeyID: testKeyID, Secret: testSecret}, testRegion, service, time.Now())
}

func signAs(r *http.Request, body []byte, c sigv4.Credentials, region, service string, now time.Time) {
	if err := sigv4.Sign(r, sha256.Sum256(body), c, region, service, now); err != nil {
		panic(err)
	}
}

// do sends r on a connection of its own.
func do(t *testing.T, r *http.Request) (*reply, []byte) {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, resp)
}

// reply is a response whose body has been read and closed.
type reply struct {
	StatusCode, ProtoMajor int
	Header                 http.Header
	Close                  bool // the server said that it hangs up
}

func readAll(t *testing.T, resp *http.Response) (*reply, []byte) {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &reply{resp.StatusCode, resp.ProtoMajor, resp.Header, resp.Close}, body
}

// check judges an error answer: its words, and what every answer carries.
func (f *fixture) check(t *testing.T, d dialect, resp *reply, body []byte, status int, code, message string) {
	t.Helper()
	gotCode, gotMessage, id := d.read(t, resp, body)
	if resp.StatusCode != status || gotCode != code || !matches(gotMessage, message) {
		t.Errorf("answered %d %s %q\nwant %d %s %q", resp.StatusCode, gotCode, gotMessage, status, code, message)
	}
	if len(id) != 36 {
		t.Errorf("request id %q", id)
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("Date %q", resp.Header.Get("Date"))
	}
	record := f.records.last(t)
	if record.RequestID != id || record.Status != status || record.ErrorCode != code {
		t.Errorf("recorded %+v", record)
	}
}

// matches compares a message with a text in which "*" stands for anything.
func matches(got, want string) bool {
	head, tail, any := strings.Cut(want, "*")
	if !any {
		return got == want
	}
	return strings.HasPrefix(got, head) && strings.HasSuffix(got, tail)
}

// raw is a client that writes bytes as they are.
type raw struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *raw {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{conn, bufio.NewReader(conn)}
}

func (c *raw) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func (c *raw) response(t *testing.T) (*reply, []byte) {
	t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, resp)
}

// closed checks that the server hangs up without another byte.
func (c *raw) closed(t *testing.T) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c.in); n != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("read %d more bytes: %v", n, err)
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// head writes a request's line and headers; the caller ends them.
func head(r *http.Request) string {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.URL.RequestURI() + " HTTP/1.1\r\nHost: " + r.Host + "\r\n")
	_ = r.Header.Write(&b)
	return b.String()
}
