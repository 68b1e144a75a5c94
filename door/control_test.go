package door

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/pinpoint"
	"github.com/aws/aws-sdk-go-v2/service/pinpoint/types"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/aws/wire"
)

// CreateNote is a control-plane operation of each of the three services.
var (
	createdOutput = &wire.Schema{Name: "Created", Type: wire.Structure, Members: []wire.Member{
		{Name: "Region", Shape: "string"},
		{Name: "Source", Shape: "string"},
		{Name: "Text", Shape: "string"},
	}}
	_ = wire.Link([]*wire.Schema{createdOutput})

	restCreate  = wire.Define[restNote, created](wire.Op{Name: "CreateNote", Method: "POST", URI: "/v1/apps/{ApplicationId}/note", Service: restService, Input: restInput, Output: createdOutput, Plane: wire.ControlPlane})
	restStop    = wire.Define[restNote, created](wire.Op{Name: "StopNote", Method: "DELETE", URI: "/v1/apps/{ApplicationId}/running-note", Service: restService, Input: restInput, Output: createdOutput, Plane: wire.ControlPlane})
	jsonCreate  = wire.Define[bodyNote, created](wire.Op{Name: "CreateNote", Service: jsonService, Input: bodyInput, Output: createdOutput, Plane: wire.ControlPlane})
	queryCreate = wire.Define[bodyNote, created](wire.Op{Name: "CreateNote", Service: queryService, Input: bodyInput, Output: createdOutput, Plane: wire.ControlPlane})
	jsonLater   = wire.Define[bodyNote, created](wire.Op{Name: "CreateLater", Service: jsonService, Input: bodyInput, Output: createdOutput, Plane: wire.ControlPlane})
)

// What needs no signature can be written in any way.
var (
	jsonOpen     = wire.Define[bodyNote, created](wire.Op{Name: "OpenNote", Service: jsonService, Input: bodyInput, Output: createdOutput, Plane: wire.ControlPlane, Unsigned: true})
	queryOpenToo = wire.Define[bodyNote, created](wire.Op{Name: "OpenNoteToo", Service: queryService, Input: bodyInput, Output: createdOutput, Plane: wire.ControlPlane, Unsigned: true})
)

type created struct{ Region, Source, Text *string }

// seats is a Control that a test moves.
type seats struct {
	mu   sync.Mutex
	seat Seat
	err  error
}

func (s *seats) Seat(context.Context) (Seat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seat, s.err
}

func (s *seats) set(seat Seat, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seat, s.err = seat, err
}

// region is one of two Regions: its door, and the listener of its peers.
type region struct {
	name    string
	door    *Door
	base    string // of the door: "https://127.0.0.1:1234"
	client  *http.Transport
	control *seats
	records *records
	logged  *lockedBuffer
	made    atomic.Int64  // calls that CreateNote has carried out
	gate    chan struct{} // CreateNote with Text "wait" waits here
	entered chan struct{} // and says so here
	orders  orders        // that StopNote was given

	certificate tls.Certificate
	pool        *x509.CertPool
	certFile    string
	keyFile     string
	peers       *http.Server
	peersURL    string
	conns       sync.Map // of the peers' listener
	stop        func()
}

const east, west = "eu-central-1", "us-west-2"

// twoRegions opens two Regions, of which the second has control. The settings
// of each pass through change, if there is one.
func twoRegions(t *testing.T, change func(name string, cfg *Config)) (e, w *region) {
	t.Helper()
	e, w = newRegion(t, east), newRegion(t, west)
	trust := x509.NewCertPool()
	for _, r := range []*region{e, w} {
		leaf, err := x509.ParseCertificate(r.certificate.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		trust.AddCert(leaf)
	}
	for _, r := range []*region{e, w} {
		r.open(t, trust, change)
	}
	e.control.set(Seat{Region: west, URL: w.peersURL, Epoch: 7}, nil)
	w.control.set(Seat{Region: west, Epoch: 7}, nil)
	return e, w
}

// orders are where a room would order.
type orders struct {
	given, withdrawn atomic.Int64
	was              chan struct{} // hears of each
	refused          atomic.Bool   // none can be given
	partly           atomic.Bool   // what is given is not all that was asked for
}

func (o *orders) give(context.Context, *restNote) (*created, func(context.Context), error) {
	if o.refused.Load() {
		return nil, nil, aws.Unavailable("no majority")
	}
	o.given.Add(1)
	o.was <- struct{}{}
	withdraw := func(context.Context) { o.withdrawn.Add(1) }
	if o.partly.Load() {
		return nil, withdraw, aws.Unavailable("the rest was not written")
	}
	return &created{Text: new("ordered")}, withdraw, nil
}

// over lets Regions call each other by one version of HTTP.
func over(version string) func(string, *Config) {
	return func(_ string, cfg *Config) {
		p := new(http.Protocols)
		p.SetHTTP1(version == "HTTP/1.1")
		p.SetHTTP2(version == "HTTP/2")
		cfg.ControlTransport.(*http.Transport).Protocols = p
	}
}

func newRegion(t *testing.T, name string) *region {
	t.Helper()
	dir := t.TempDir()
	r := &region{
		name: name, control: &seats{}, records: &records{}, logged: &lockedBuffer{},
		gate: make(chan struct{}), entered: make(chan struct{}, 16), orders: orders{was: make(chan struct{}, 16)},
		certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"),
	}
	r.pool = certificate(t, r.certFile, r.keyFile, name, ecdsaKey(t))
	var err error
	if r.certificate, err = tls.LoadX509KeyPair(r.certFile, r.keyFile); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *region) open(t *testing.T, trust *x509.CertPool, change func(string, *Config)) {
	t.Helper()
	static, err := NewStaticKeys(StaticKey{AccessKeyID: testKeyID, Secret: testSecret, Account: testAccount})
	if err != nil {
		t.Fatal(err)
	}
	mutual := &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: trust, ClientCAs: trust, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{r.certificate},
	}
	outward := &http.Transport{TLSClientConfig: mutual.Clone(), ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(outward.CloseIdleConnections)
	cfg := Config{
		Listen: "127.0.0.1:0", CertFile: r.certFile, KeyFile: r.keyFile, Region: r.name, RegionsAccepted: []string{east, west},
		ControlPatience: -1, Control: r.control, ControlTransport: outward,
	}
	if change != nil {
		change(r.name, &cfg)
	}
	keys := testKeys{static}
	log := slog.New(slog.NewTextHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mux := r.mux()
	mux.Log = log
	if r.door, err = New(cfg, mux, keys, keys, r.records, aws.NewIDs(rand.Reader), log); err != nil {
		t.Fatal(err)
	}
	addr, err := r.door.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.base = "https://" + addr.String()
	r.client = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.pool, MinVersion: tls.VersionTLS12}, DisableCompression: true}
	t.Cleanup(r.client.CloseIdleConnections)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.door.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		stop()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("Run did not return")
		}
	})
	t.Cleanup(r.stop)

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	forwarded := r.door.Forwarded(func(req *http.Request) (string, error) {
		name := req.TLS.VerifiedChains[0][0].Subject.CommonName
		if name != east && name != west {
			return "", errors.New("no Region of the group")
		}
		return name, nil
	})
	rest := http.NewServeMux()
	r.peers = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if IsForwarded(req) {
				forwarded.ServeHTTP(w, req)
				return
			}
			rest.ServeHTTP(w, req)
		}),
		ConnState: func(c net.Conn, _ http.ConnState) { r.conns.Store(c, true) },
		TLSConfig: mutual, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 128 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	r.peersURL = "https://" + listener.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { _ = r.peers.ServeTLS(listener, "", "") })
	t.Cleanup(func() { r.peers.Close(); serving.Wait() })
}

func (r *region) mux() *wire.Mux {
	mux := wire.NewMux(restService, jsonService, queryService, pinpoint.Service)
	answer := func(ctx context.Context, app, text *string) (*created, error) {
		c := aws.CallerFrom(ctx)
		if text == nil {
			text = new(string)
		}
		switch *text {
		case "wait":
			r.entered <- struct{}{}
			<-r.gate
		case "fail":
			return nil, aws.NotFound("app %s", *app)
		case "epoch":
			epoch, ok := aws.ControlEpochFrom(ctx)
			*text = fmt.Sprint(epoch, ok)
		case "much":
			*text = strings.Repeat("x", 1<<20)
		}
		r.made.Add(1)
		source := c.SourceIP.String()
		if len(*text) > 1<<20 {
			*text = fmt.Sprint(len(*text))
		}
		return &created{Region: &c.Region, Source: &source, Text: text}, nil
	}
	wire.Handle(mux, restCreate, "apps/{ApplicationId}", func(ctx context.Context, in *restNote) (*created, error) {
		return answer(ctx, &in.ApplicationId, in.Text)
	})
	wire.Handle(mux, restStop, "apps/{ApplicationId}", func(ctx context.Context, in *restNote) (*created, error) {
		return answer(ctx, &in.ApplicationId, &in.ApplicationId)
	})
	wire.Order(mux, restStop, r.orders.give)
	body := func(ctx context.Context, in *bodyNote) (*created, error) {
		return answer(ctx, in.ApplicationId, in.Text)
	}
	wire.Handle(mux, jsonCreate, "apps/{ApplicationId}", body)
	wire.Handle(mux, queryCreate, "apps/{ApplicationId}", body)
	wire.Handle(mux, jsonOpen, "*", body)
	wire.Handle(mux, queryOpenToo, "*", body)

	wire.Handle(mux, restGet, "apps/{ApplicationId}", func(ctx context.Context, _ *restNote) (*restSeen, error) {
		c := aws.CallerFrom(ctx)
		source := c.SourceIP.String()
		return &restSeen{Principal: &c.Principal, Source: &source, Text: &c.Region}, nil
	})
	wire.Handle(mux, pinpoint.CreateApp, "apps", func(ctx context.Context, in *pinpoint.CreateAppRequest) (*pinpoint.CreateAppResponse, error) {
		r.made.Add(1)
		return &pinpoint.CreateAppResponse{ApplicationResponse: &pinpoint.ApplicationResponse{
			Arn: "arn:aws:mobiletargeting:" + aws.CallerFrom(ctx).Region + ":123456789012:apps/1", Id: "1", Name: in.CreateApplicationRequest.Name,
		}}, nil
	})
	wire.Handle(mux, pinpoint.GetApp, "apps/{ApplicationId}", func(ctx context.Context, in *pinpoint.GetAppRequest) (*pinpoint.GetAppResponse, error) {
		return &pinpoint.GetAppResponse{ApplicationResponse: &pinpoint.ApplicationResponse{
			Arn: "arn:aws:mobiletargeting:" + aws.CallerFrom(ctx).Region + ":123456789012:apps/1", Id: in.ApplicationId, Name: "n",
		}}, nil
	})
	wire.Handle(mux, pinpoint.DeleteApp, "apps/{ApplicationId}", func(_ context.Context, in *pinpoint.DeleteAppRequest) (*pinpoint.DeleteAppResponse, error) {
		return nil, aws.NotFound("app %s", in.ApplicationId)
	})
	return mux
}

// send sends a request to the Region's door.
func (r *region) send(t *testing.T, req *http.Request) (*reply, []byte) {
	t.Helper()
	resp, err := r.client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, resp)
}

// create is a signed CreateNote in a dialect.
func create(d dialect, base, app, text string) *http.Request {
	r, body := unsignedCreate(d, base, app, text)
	sign(r, body, d.service)
	return r
}

func unsignedCreate(d dialect, base, app, text string) (*http.Request, []byte) {
	r, body := d.build(base, app, text)
	switch d.name {
	case "restJson1":
		r.Method = http.MethodPost
	case "awsJson":
		r.Header.Set("X-Amz-Target", "PinpointSMSVoiceV2.CreateNote")
	case "awsQuery":
		body = []byte(strings.Replace(string(body), "PutNote", "CreateNote", 1))
		h := r.Header
		r = newRequest("POST", r.URL.String(), body)
		r.Header = h
	}
	return r, body
}

// readCreated reads a successful answer.
func readCreated(t *testing.T, d dialect, body []byte) created {
	t.Helper()
	var out created
	var err error
	if d.name == "awsQuery" {
		var x struct{ CreateNoteResult created }
		err, out = xml.Unmarshal(body, &x), x.CreateNoteResult
	} else {
		err = json.Unmarshal(body, &out)
	}
	if err != nil || out.Region == nil || out.Source == nil || out.Text == nil {
		t.Fatalf("answered %s: %v", body, err)
	}
	return out
}

// refused checks a 503 that the Region's door gave, in its dialect.
func (r *region) refused(t *testing.T, d dialect, resp *reply, body []byte, message string) {
	t.Helper()
	code := "ServiceUnavailableException"
	if d.name == "awsQuery" {
		code = "ServiceUnavailable"
	}
	(&fixture{records: r.records}).check(t, d, resp, body, http.StatusServiceUnavailable, code, message)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestControlCallsAreForwarded(t *testing.T) {
	for _, version := range []string{"HTTP/2", "HTTP/1.1"} {
		e, w := twoRegions(t, over(version))
		for _, d := range dialects {
			for _, form := range []string{"header", "presigned", "gzip"} {
				t.Run(version+"/"+d.name+"/"+form, func(t *testing.T) {
					before := w.made.Load()
					r, body := unsignedCreate(d, e.base, "a", "hello")
					r.Header.Set("User-Agent", "test/1")
					switch form {
					case "presigned":
						u, err := sigv4.Presign(r, sha256.Sum256(body), sigv4.Credentials{AccessKeyID: testKeyID, Secret: testSecret},
							testRegion, d.service, time.Minute, time.Now())
						if err != nil {
							t.Fatal(err)
						}
						r.URL, _ = r.URL.Parse(u)
					case "gzip":
						packed := zip(body)
						h := r.Header
						r, body = newRequest(r.Method, r.URL.String(), packed), packed
						r.Header = h
						r.Header.Set("Content-Encoding", "gzip")
						fallthrough
					default:
						sign(r, body, d.service)
					}
					resp, answer := e.send(t, r)
					if resp.StatusCode != http.StatusOK {
						t.Fatalf("answered %d %s", resp.StatusCode, answer)
					}
					out := readCreated(t, d, answer)
					if *out.Region != west || *out.Source != "127.0.0.1" || *out.Text != "hello" {
						t.Errorf("answered %s", answer)
					}
					if got := resp.Header.Get("X-Everpoint-Control-Region"); got != west {
						t.Errorf("X-Everpoint-Control-Region %q", got)
					}
					for name := range resp.Header {
						if strings.HasPrefix(name, "Everpoint-") {
							t.Errorf("the answer carries %s", name)
						}
					}
					if w.made.Load() != before+1 || e.made.Load() != 0 {
						t.Errorf("carried out %d times in %s and %d in %s", w.made.Load()-before, west, e.made.Load(), east)
					}
					here, there := e.records.last(t), w.records.last(t)
					id := resp.Header.Get("X-Amzn-RequestId")
					if len(id) != 36 || here.RequestID != id || there.RequestID != id {
						t.Errorf("request ids %q, %q and %q", id, here.RequestID, there.RequestID)
					}
					if here.ForwardedTo != west || here.ForwardedBy != "" || here.Region != east {
						t.Errorf("recorded here: %+v", here)
					}
					if there.ForwardedTo != "" || there.ForwardedBy != east || there.Region != west || there.SignedRegion != east {
						t.Errorf("recorded there: %+v", there)
					}
					for _, record := range []Record{here, there} {
						if record.Principal != testRoot || !strings.HasSuffix(record.Action, ":CreateNote") || record.Status != 200 || !record.TLS ||
							record.SourceIP.String() != "127.0.0.1" || record.UserAgent != "test/1" || record.Host != strings.TrimPrefix(e.base, "https://") {
							t.Errorf("recorded %+v", record)
						}
					}
				})
			}
		}
	}
}

func TestWhatIsNotForwarded(t *testing.T) {
	e, w := twoRegions(t, nil)
	served := func(t *testing.T, r *http.Request, status int) []byte {
		t.Helper()
		before := len(w.records.all)
		resp, body := e.send(t, r)
		if resp.StatusCode != status || resp.Header.Get("X-Everpoint-Control-Region") != "" {
			t.Errorf("answered %d %s, control region %q", resp.StatusCode, body, resp.Header.Get("X-Everpoint-Control-Region"))
		}
		if len(w.records.all) != before || e.records.last(t).ForwardedTo != "" {
			t.Error("was forwarded")
		}
		return body
	}
	t.Run("a_read", func(t *testing.T) {
		r := newRequest("GET", e.base+"/v1/apps/a/note", nil)
		sign(r, nil, "mobiletargeting")
		if body := served(t, r, 200); !strings.Contains(string(body), east) {
			t.Errorf("answered %s", body)
		}
	})
	t.Run("an_unsigned_call", func(t *testing.T) {
		r, _ := unsignedCreate(dialects[0], e.base, "a", "x")
		served(t, r, 403)
	})
	t.Run("a_call_that_is_denied", func(t *testing.T) {
		served(t, create(dialects[0], e.base, "forbidden", "x"), 403)
	})
	t.Run("a_call_that_is_not_built", func(t *testing.T) {
		r, body := unsignedCreate(dialects[1], e.base, "a", "x")
		r.Header.Set("X-Amz-Target", "PinpointSMSVoiceV2."+jsonLater.Name)
		sign(r, body, dialects[1].service)
		served(t, r, 501)
	})
	t.Run("a_call_when_control_is_here", func(t *testing.T) {
		e.control.set(Seat{Region: east, Epoch: 8}, nil)
		served(t, create(dialects[0], e.base, "a", "x"), 200)
		if e.made.Load() != 1 {
			t.Error("not carried out here")
		}
	})
}

func TestForwardedFailuresReadAsTheirOwn(t *testing.T) {
	e, w := twoRegions(t, nil)
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			resp, body := e.send(t, create(d, e.base, "a", "fail"))
			_, message, id := d.read(t, resp, body)
			if resp.StatusCode/100 != 4 || message != "app a" || id != w.records.last(t).RequestID {
				t.Errorf("answered %d %s", resp.StatusCode, body)
			}
			if here, there := e.records.last(t), w.records.last(t); here.ErrorCode == "" || here.ErrorCode != there.ErrorCode || here.Status != there.Status {
				t.Errorf("recorded %d %q here and %d %q there", here.Status, here.ErrorCode, there.Status, there.ErrorCode)
			}
		})
	}
}

func TestControlThatMovedIsRefused(t *testing.T) {
	e, w := twoRegions(t, nil)
	for name, row := range map[string]struct {
		seat Seat
		err  error
		text string
	}{
		"away":             {Seat{Region: east, URL: e.peersURL, Epoch: 8}, nil, "Control moved while the Region eu-central-1 forwarded the call: it is with eu-central-1 since epoch 8.*"},
		"away_and_back":    {Seat{Region: west, Epoch: 9}, nil, "Control moved while the Region eu-central-1 forwarded the call: it is with us-west-2 since epoch 9.*"},
		"not_heard_yet":    {Seat{Region: west, Epoch: 6}, nil, "Control moved, and the Region us-west-2 has not heard of epoch 7 yet.*"},
		"never_was_there":  {Seat{Region: east, URL: e.peersURL, Epoch: 7}, nil, "Control is with the Region eu-central-1, not with us-west-2.*"},
		"no_quorum_there":  {Seat{}, aws.Unavailable("No quorum."), "No quorum."},
		"believes_in_east": {Seat{Region: east, URL: e.peersURL, Epoch: 6}, nil, "Control moved, and*"},
	} {
		for _, d := range dialects {
			t.Run(name+"/"+d.name, func(t *testing.T) {
				w.control.set(row.seat, row.err)
				before := len(e.records.all)
				resp, body := e.send(t, create(d, e.base, "a", "x"))
				e.refused(t, d, resp, body, row.text)
				if w.made.Load() != 0 || e.made.Load() != 0 {
					t.Error("carried out")
				}
				if len(e.records.all) != before+1 {
					t.Error("was forwarded again")
				}
				if got := resp.Header.Get("X-Everpoint-Control-Region"); got != west {
					t.Errorf("X-Everpoint-Control-Region %q", got)
				}
			})
		}
	}
}

func TestCallsCarryTheEpochOfTheirAdmission(t *testing.T) {
	e, w := twoRegions(t, nil)
	for from, r := range map[string]*region{"forwarded": e, "at_the_door": w} {
		for _, d := range dialects {
			t.Run(from+"/"+d.name, func(t *testing.T) {
				resp, body := r.send(t, create(d, r.base, "a", "epoch"))
				if resp.StatusCode != 200 {
					t.Fatalf("answered %d %s", resp.StatusCode, body)
				}
				if out := readCreated(t, d, body); *out.Text != "7 true" {
					t.Errorf("the operation heard of epoch %s", *out.Text)
				}
			})
		}
	}
}

func TestWithoutControlTheDataPlaneGoesOn(t *testing.T) {
	e, w := twoRegions(t, nil)
	e.control.set(Seat{}, aws.Unavailable("No quorum: 1 of 3 voters can be reached."))
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			resp, body := e.send(t, create(d, e.base, "a", "x"))
			e.refused(t, d, resp, body, "No quorum: 1 of 3 voters can be reached.")
		})
	}
	r := newRequest("GET", e.base+"/v1/apps/a/note", nil)
	sign(r, nil, "mobiletargeting")
	if resp, body := e.send(t, r); resp.StatusCode != 200 {
		t.Errorf("a read answered %d %s", resp.StatusCode, body)
	}
	if len(w.records.all) != 0 || w.made.Load()+e.made.Load() != 0 {
		t.Error("carried out")
	}
}

func TestControlRegionThatIsDead(t *testing.T) {
	e, w := twoRegions(t, nil)
	if err := w.peers.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			resp, body := e.send(t, create(d, e.base, "a", "x"))
			e.refused(t, d, resp, body, "The control Region us-west-2 cannot be reached. The call was not carried out.")
			if e.records.last(t).ForwardedTo != west || resp.Header.Get("X-Everpoint-Control-Region") != west {
				t.Errorf("recorded %+v", e.records.last(t))
			}
		})
	}
	if !strings.Contains(e.logged.String(), "control region not heard") {
		t.Error("not logged")
	}
}

const notKnown = "The control Region us-west-2 did not answer. It is not known whether the call was carried out."

func TestControlRegionThatHangs(t *testing.T) {
	e, w := twoRegions(t, func(name string, cfg *Config) {
		if name == east {
			cfg.ControlTimeout = 200 * time.Millisecond
		}
	})
	began := time.Now()
	resp, body := e.send(t, create(dialects[0], e.base, "a", "wait"))
	<-w.entered
	close(w.gate)
	e.refused(t, dialects[0], resp, body, notKnown)
	if waited := time.Since(began); waited > 30*time.Second { // half of OperationTimeout
		t.Errorf("waited %v", waited)
	}
}

// A connection that breaks while the control Region works on the call leaves it
// unknown, and the call is not sent a second time: over either protocol, on a
// connection that was used before, and even by a GET, which transports repeat.
func TestLostAnswersAreNotAskedForTwice(t *testing.T) {
	for _, version := range []string{"HTTP/2", "HTTP/1.1"} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(version+"/"+method, func(t *testing.T) {
				e, w := twoRegions(t, over(version))
				d := dialects[2]
				ask := func(text string) *http.Request {
					r := create(d, e.base, "a", text)
					if method == "GET" {
						r = newRequest("GET", e.base+"/?Action=CreateNote&Version=2010-05-08&ApplicationId=a&Text="+text, nil)
						sign(r, nil, d.service)
					}
					r.Header.Set("Idempotency-Key", "1")
					return r
				}
				if resp, body := e.send(t, ask("x")); resp.StatusCode != 200 {
					t.Fatalf("answered %d %s", resp.StatusCode, body)
				}
				var calls sync.WaitGroup
				var resp *reply
				var body []byte
				calls.Go(func() {
					got, err := e.client.RoundTrip(ask("wait"))
					if err != nil {
						t.Error(err)
						return
					}
					resp, body = readAll(t, got)
				})
				<-w.entered
				w.conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true }) // it listens on
				calls.Wait()
				if resp != nil {
					e.refused(t, d, resp, body, notKnown)
				}
				close(w.gate)
				if len(w.entered) != 0 {
					t.Error("sent twice")
				}
			})
		}
	}
}

func TestBodiesOfTheMaximumSize(t *testing.T) {
	e, w := twoRegions(t, nil)
	d := dialects[0]
	frame := len(`{"Text":""}`)
	resp, body := e.send(t, create(d, e.base, "a", strings.Repeat("x", 7<<20-frame)))
	if resp.StatusCode != 200 || *readCreated(t, d, body).Text != fmt.Sprint(7<<20-frame) {
		t.Errorf("answered %d %.200s", resp.StatusCode, body)
	}
	if got := e.door.bodiesBytes.Load() + w.door.bodiesBytes.Load(); got != 0 {
		t.Errorf("%d bytes of bodies still held", got)
	}
	forwarded := len(w.records.all)
	if resp, body = e.send(t, create(d, e.base, "a", strings.Repeat("x", 7<<20-frame+1))); resp.StatusCode != 413 {
		t.Errorf("one byte more answered %d %.200s", resp.StatusCode, body)
	}
	if len(w.records.all) != forwarded {
		t.Error("was forwarded")
	}
}

func TestAnswersAreBounded(t *testing.T) {
	e, w := twoRegions(t, func(name string, cfg *Config) {
		if name == east {
			cfg.BodyBytesMax = 64 << 10
		}
	})
	resp, body := e.send(t, create(dialects[0], e.base, "a", "much"))
	e.refused(t, dialects[0], resp, body, "The answer of the control Region us-west-2 could not be read to its end. It is not known whether the call was carried out.")
	if w.made.Load() != 1 {
		t.Errorf("carried out %d times", w.made.Load())
	}
	if got := e.door.bodiesBytes.Load(); got != 0 {
		t.Errorf("%d bytes of bodies still held", got)
	}
}

// Calls that wait for the control Region do not take all the door has.
func TestForwardsAreBounded(t *testing.T) {
	e, w := twoRegions(t, func(name string, cfg *Config) {
		if name == east {
			cfg.ForwardsMax = 1
		}
	})
	var calls sync.WaitGroup
	calls.Go(func() {
		resp, err := e.client.RoundTrip(create(dialects[0], e.base, "a", "wait"))
		if err != nil {
			t.Error(err)
			return
		}
		if reply, body := readAll(t, resp); reply.StatusCode != 200 {
			t.Errorf("answered %d %s", reply.StatusCode, body)
		}
	})
	<-w.entered
	resp, body := e.send(t, create(dialects[0], e.base, "a", "x"))
	e.refused(t, dialects[0], resp, body, "Too many calls are waiting for the control Region us-west-2. Please retry.")
	r := newRequest("GET", e.base+"/v1/apps/a/note", nil)
	sign(r, nil, "mobiletargeting")
	if resp, body := e.send(t, r); resp.StatusCode != 200 {
		t.Errorf("a read answered %d %s", resp.StatusCode, body)
	}
	close(w.gate)
	calls.Wait()
	if resp, body := e.send(t, create(dialects[0], e.base, "a", "x")); resp.StatusCode != 200 {
		t.Errorf("answered %d %s", resp.StatusCode, body)
	}
}

func TestAnswersOfSomethingElseAreNotPassedOn(t *testing.T) {
	e, w := twoRegions(t, nil)
	w.peers.Handler = http.NotFoundHandler()
	resp, body := e.send(t, create(dialects[0], e.base, "a", "x"))
	e.refused(t, dialects[0], resp, body, "The control Region us-west-2 did not take the call (HTTP status 404). It was not carried out.")
}

func TestDoorsThatCloseTakeNoForwardedCalls(t *testing.T) {
	e, w := twoRegions(t, nil)
	var calls sync.WaitGroup
	calls.Go(func() {
		resp, err := e.client.RoundTrip(create(dialects[0], e.base, "a", "wait"))
		if err != nil {
			t.Error(err)
			return
		}
		if reply, body := readAll(t, resp); reply.StatusCode != 200 {
			t.Errorf("the call in progress answered %d %s", reply.StatusCode, body)
		}
	})
	<-w.entered
	stopped := make(chan struct{})
	go func() { w.stop(); close(stopped) }()
	for { // until the door does not listen any more
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.base, "https://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	resp, body := e.send(t, create(dialects[0], e.base, "a", "x"))
	e.refused(t, dialects[0], resp, body, "The control Region us-west-2 did not take the call (HTTP status 503). It was not carried out.")
	select {
	case <-stopped:
		t.Error("Run did not wait for the call in progress")
	default:
	}
	close(w.gate)
	calls.Wait()
	<-stopped
}

// What a client sends under the names that Regions use among themselves means
// nothing at the door, and hinders nothing, signed or not.
func TestForgedHandoversAreIgnoredAtTheDoor(t *testing.T) {
	e, w := twoRegions(t, nil)
	forge := func(r *http.Request, id string) {
		r.Header.Set("Everpoint-Forwarded-Epoch", "7")
		r.Header.Set("Everpoint-Forwarded-For", "203.0.113.9")
		r.Header.Set("Everpoint-Forwarded-Proto", "http")
		r.Header.Set("Everpoint-Forwarded-Request", id)
		r.Header.Add("Everpoint-Forwarded-Header", "Host: example.com")
		r.Header.Add("Everpoint-Forwarded-Header", "X-Amz-Target: PinpointSMSVoiceV2.PutNote")
		r.Header.Set("Everpoint-Served", east)
		r.Header.Set("X-Forwarded-For", "203.0.113.10")
		r.Header.Set("X-Everpoint-Control-Region", "mars")
	}
	const id = "6bd0a4f5-0000-4000-8000-000000000001"
	for _, signed := range []bool{true, false} {
		for _, at := range []*region{e, w} {
			t.Run(fmt.Sprintf("signed_%t/at_%s", signed, at.name), func(t *testing.T) {
				r, sent := unsignedCreate(dialects[0], at.base, "a", "x")
				if signed {
					forge(r, id)
				}
				sign(r, sent, "mobiletargeting")
				if !signed {
					forge(r, id)
				} else if !strings.Contains(r.Header.Get("Authorization"), "everpoint-forwarded-for") {
					t.Fatal("not signed")
				}
				resp, body := at.send(t, r)
				if resp.StatusCode != 200 {
					t.Fatalf("answered %d %s", resp.StatusCode, body)
				}
				out := readCreated(t, dialects[0], body)
				if *out.Source != "127.0.0.1" || *out.Region != west {
					t.Errorf("answered %s", body)
				}
				for _, rec := range []*records{at.records, w.records} {
					if record := rec.last(t); record.SourceIP.String() != "127.0.0.1" || record.RequestID == id || !record.TLS {
						t.Errorf("recorded %+v", record)
					}
				}
				if at == w && w.records.last(t).ForwardedBy != "" {
					t.Error("the control Region's own door believed that a call was forwarded")
				}
			})
		}
	}
	// Nor does the door of another Region then serve what it should forward.
	if e.made.Load() != 0 {
		t.Error("carried out where control is not")
	}
}

// The client is who the forwarding Region's door found it to be.
func TestForwardedCallsKeepTheirSource(t *testing.T) {
	e, w := twoRegions(t, func(name string, cfg *Config) {
		if name == east {
			cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
	})
	r := create(dialects[0], e.base, "a", "x")
	r.Header.Set("X-Forwarded-For", "203.0.113.1, 198.51.100.7")
	resp, body := e.send(t, r)
	if resp.StatusCode != 200 || *readCreated(t, dialects[0], body).Source != "198.51.100.7" {
		t.Errorf("answered %d %s", resp.StatusCode, body)
	}
	for _, at := range []*region{e, w} {
		if got := at.records.last(t).SourceIP.String(); got != "198.51.100.7" {
			t.Errorf("recorded %s in %s", got, at.name)
		}
	}
}

// A payload without a hash is for clients that came by TLS, all the way.
func TestForwardedCallsKeepTheirTLSFlag(t *testing.T) {
	_, w := twoRegions(t, func(_ string, cfg *Config) { cfg.AllowUnsignedPayload = true })
	for status, byTLS := range map[int]bool{200: true, 403: false} {
		signed, body := unsignedCreate(dialects[0], w.base, "a", "x")
		signed.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		sign(signed, body, "mobiletargeting")
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/apps/a/note", bytes.NewReader(body))
		r.Host = signed.URL.Host
		handover{requestID: "6bd0a4f5-0000-4000-8000-000000000001", epoch: 7, tls: byTLS}.write(r.Header, signed.Header)
		r.TLS = &tls.ConnectionState{} // of the peer, always
		answer := httptest.NewRecorder()
		w.door.Forwarded(func(*http.Request) (string, error) { return east, nil }).ServeHTTP(answer, r)
		if answer.Code != status {
			t.Errorf("by TLS %t: answered %d %s", byTLS, answer.Code, answer.Body)
		}
	}
}

func TestPeersListenerBelievesRegionsOnly(t *testing.T) {
	e, w := twoRegions(t, nil)
	call := func(t *testing.T, transport *http.Transport, change func(http.Header)) (*http.Response, error) {
		t.Helper()
		signed := create(dialects[0], e.base, "a", "x")
		r := newRequest("POST", w.peersURL+"/v1/apps/a/note", []byte(`{"Text":"x"}`))
		r.Host = strings.TrimPrefix(e.base, "https://")
		handover{requestID: "6bd0a4f5-0000-4000-8000-000000000001", epoch: 7, tls: true}.write(r.Header, signed.Header)
		if change != nil {
			change(r.Header)
		}
		return transport.RoundTrip(r)
	}
	as := func(name string, certificates ...tls.Certificate) *http.Transport {
		transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.pool, ServerName: name, Certificates: certificates}}
		t.Cleanup(transport.CloseIdleConnections)
		return transport
	}
	peer := as(west, e.certificate)
	status := func(t *testing.T, change func(http.Header)) int {
		t.Helper()
		resp, err := call(t, peer, change)
		if err != nil {
			t.Fatal(err)
		}
		reply, _ := readAll(t, resp)
		return reply.StatusCode
	}
	if got := status(t, nil); got != 200 {
		t.Fatalf("a Region was answered %d", got)
	}
	w.made.Store(0)

	if resp, err := call(t, as(west), nil); err == nil {
		resp.Body.Close()
		t.Error("a call without a certificate was answered")
	}
	stranger := newRegion(t, "stranger")
	if resp, err := call(t, as(west, stranger.certificate), nil); err == nil {
		resp.Body.Close()
		t.Error("a call with a certificate of nobody was answered")
	}
	for name, change := range map[string]func(http.Header){
		"no_epoch":        func(h http.Header) { h.Set("Everpoint-Forwarded-Epoch", "") },
		"negative_epoch":  func(h http.Header) { h.Set("Everpoint-Forwarded-Epoch", "-7") },
		"two_epochs":      func(h http.Header) { h.Add("Everpoint-Forwarded-Epoch", "8") },
		"no_address":      func(h http.Header) { h.Del("Everpoint-Forwarded-For") },
		"a_wrong_address": func(h http.Header) { h.Set("Everpoint-Forwarded-For", "nowhere") },
		"a_wrong_proto":   func(h http.Header) { h.Set("Everpoint-Forwarded-Proto", "gopher") },
		"no_request_id":   func(h http.Header) { h.Set("Everpoint-Forwarded-Request", "1") },
		"a_wrong_field":   func(h http.Header) { h.Add("Everpoint-Forwarded-Header", "no colon") },
	} {
		if got := status(t, change); got != 400 {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	if got := status(t, func(h http.Header) { h.Del("Everpoint-Forwarded-Header") }); got != 403 {
		t.Errorf("without the client's signature: answered %d", got)
	}
	if w.made.Load() != 0 {
		t.Error("carried out")
	}
}

// However a client writes its request, the control Region reads the same.
func TestForwardedToTheByte(t *testing.T) {
	for _, version := range []string{"HTTP/2", "HTTP/1.1"} {
		e, w := twoRegions(t, over(version))
		var seen struct {
			line, host, body string
			header           http.Header
		}
		serve := w.peers.Handler
		w.peers.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			seen.line, seen.host, seen.body = r.Method+" "+r.RequestURI, r.Host, string(body)
			if r.ProtoMajor == 1 { // an absolute form is what HTTP/1.1 has for two slashes
				seen.line = strings.Replace(seen.line, " https://"+r.Host, " ", 1)
			}
			_, seen.header, _ = readHandover(r.Header)
			serve.ServeHTTP(rw, r)
		})
		for _, target := range []string{
			"/", "/a%2fb%2Fc", "//double//slash", "/dots/../and/./more", "/sp%20ace?b=2&a=1&a=0", "/?", "/?x", "/?a=%2B+;",
			"/" + strings.Repeat("p", 4000), "//%7euser", "//a%2fb/", "/%C3%A9?%C3%A9=%e2", "/ütf", "/a|b^c", "/a:b@c",
		} {
			for _, method := range []string{"POST", "GET"} {
				fields := "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: PinpointSMSVoiceV2.OpenNote\r\nX-Twice: b\r\nX-Twice: a\r\n" +
					"X-Empty:\r\nConnection: keep-alive, X-Named\r\nX-Named: by it\r\nCookie: a=1;b=2;   c=3\r\nTe: trailers, deflate\r\n" +
					"Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Colons: a: b:c\r\nX-Bytes: \xe9\r\nX-Inside: a  b\tc\r\n"
				body := `{"Text":"x"}`
				if method == "GET" { // of awsQuery, which has no body
					if strings.Contains(target, "?") || target != "/" {
						continue
					}
					target, body = "/?Version=2010-05-08&Action=OpenNoteToo&Text=x%20y&ApplicationId=%61", ""
					fields = "X-Twice: b\r\nX-Twice: a\r\nContent-Length: 0\r\n"
				} else {
					fields += fmt.Sprintf("Content-Length: %d\r\n", len(body))
				}
				t.Run(version+" "+method+" "+target[:min(len(target), 30)], func(t *testing.T) {
					conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: e.pool, MinVersion: tls.VersionTLS12}}).
						DialContext(t.Context(), "tcp", strings.TrimPrefix(e.base, "https://"))
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					c := &raw{conn, bufio.NewReader(conn)}
					c.send(t, method+" "+target+" HTTP/1.1\r\nHost: Some.Host:80\r\n"+fields+"\r\n"+body)
					if resp, answer := c.response(t); resp.StatusCode != 200 {
						t.Fatalf("answered %d %s", resp.StatusCode, answer)
					}
					if seen.line != method+" "+target || seen.host != "Some.Host:80" || seen.body != body {
						t.Errorf("read %s of %s with %q", seen.line, seen.host, seen.body)
					}
					want := http.Header{}
					for field := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n"), "\r\n") {
						name, value, _ := strings.Cut(field, ":")
						want.Add(name, strings.TrimSpace(value))
					}
					if !reflect.DeepEqual(seen.header, want) {
						t.Errorf("read %q\nwant %q", seen.header, want)
					}
				})
			}
		}
	}
}

// The public SDK signs for its own Region and is answered by another.
func TestSDKIsAnsweredByTheControlRegion(t *testing.T) {
	e, w := twoRegions(t, nil)
	client := sdk.New(sdk.Options{
		Region: east, BaseEndpoint: sdkaws.String(e.base), HTTPClient: &http.Client{Transport: e.client},
		Credentials: credentials.NewStaticCredentialsProvider(testKeyID, string(testSecret), ""), RetryMaxAttempts: 1,
	})
	made, err := client.CreateApp(t.Context(), &sdk.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: sdkaws.String("näme")}})
	if err != nil {
		t.Fatal(err)
	}
	if got := made.ApplicationResponse; *got.Name != "näme" || !strings.Contains(*got.Arn, west) || w.made.Load() != 1 || e.made.Load() != 0 {
		t.Errorf("answered %+v", got)
	}
	read, err := client.GetApp(t.Context(), &sdk.GetAppInput{ApplicationId: sdkaws.String("1")})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(*read.ApplicationResponse.Arn, east) {
		t.Errorf("a read was answered by %s", *read.ApplicationResponse.Arn)
	}
	_, err = client.DeleteApp(t.Context(), &sdk.DeleteAppInput{ApplicationId: sdkaws.String("a b/ü")})
	if missing, ok := errors.AsType[*types.NotFoundException](err); !ok || *missing.Message != "app a b/ü" {
		t.Errorf("deleting what is not there: %v", err)
	}
	e.control.set(Seat{}, aws.Unavailable("No quorum."))
	_, err = client.CreateApp(t.Context(), &sdk.CreateAppInput{CreateApplicationRequest: &types.CreateApplicationRequest{Name: sdkaws.String("n")}})
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "No quorum.") {
		t.Errorf("without control: %v", err)
	}
}

func TestControlSettings(t *testing.T) {
	static, err := NewStaticKeys()
	if err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]Config{
		"ControlTransport":      {Control: &seats{}},
		"not shorter than":      {Control: &seats{}, ControlTransport: http.DefaultTransport, ControlTimeout: time.Minute},
		"OperationTimeout 10ms": {ControlTimeout: time.Second, OperationTimeout: 10 * time.Millisecond},
	} {
		cfg.Region = east
		_, err := New(cfg, wire.NewMux(restService), static, static, &records{}, aws.NewIDs(rand.Reader), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

func TestHandoverReadsWhatItWrites(t *testing.T) {
	client := http.Header{"A": {"1", "2"}, "Empty": {""}, "X": {"a: b"}, "Content-Length": {"0"}}
	to := http.Header{}
	handover{requestID: strings.Repeat("a", 36), epoch: 1<<64 - 1}.write(to, client)
	from, got, err := readHandover(to)
	if err != nil || from.epoch != 1<<64-1 || from.tls || from.source.IsValid() {
		t.Fatalf("got %+v, %v", from, err)
	}
	for name := range client {
		if !slices.Equal(got[name], client[name]) {
			t.Errorf("%s: got %q, want %q", name, got[name], client[name])
		}
	}
	if len(got) != len(client) {
		t.Errorf("got %q", got)
	}
}

// The Region that had control is dead: a call waits until another has it, here this
// one, and is carried out once.
func TestCallsWaitUntilControlHasMoved(t *testing.T) {
	e, w := twoRegions(t, func(_ string, cfg *Config) { cfg.ControlPatience = time.Minute })
	if err := w.peers.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			e.control.set(Seat{Region: west, URL: w.peersURL, Epoch: 1}, nil)
			before := e.made.Load()
			moved := time.AfterFunc(300*time.Millisecond, func() {
				e.control.set(Seat{}, aws.Unavailable("nobody has control"))
				e.control.set(Seat{Region: east, Epoch: 2}, nil)
			})
			defer moved.Stop()
			resp, body := e.send(t, create(d, e.base, "a", "x"))
			if resp.StatusCode != http.StatusOK || e.made.Load() != before+1 {
				t.Errorf("%d %s, carried out %d times", resp.StatusCode, body, e.made.Load()-before)
			}
			if e.records.last(t).ForwardedTo != "" {
				t.Errorf("recorded %+v", e.records.last(t))
			}
		})
	}
}
