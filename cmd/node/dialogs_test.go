package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/sigv4"
	"github.com/everpoint/everpoint/aws/wire"
)

// A dialog is a file of testdata/dialogs: what is said to the door of an
// assembled node, and what it answers, to the byte.
//
// The first line of the file says what it is about: the operation of the last
// request, the fault, and what the last answer must be whatever -update writes:
// "CreateApp, malformed JSON: 400 BadRequestException". The comment ends with the
// sections of the specification that the answers follow. Sections of the file:
//
//	-- given --       calls that must succeed first, one a line; see given
//	-- bucket/B/K --  the object K of the bucket B, for imports
//	-- request --     directives, request line, headers, blank line, body
//	-- response --    status, headers, blank line, body
//
// Requests and responses follow each other in pairs. In a request {now} is the
// clock, {now+15m} another time, {account} the caller's account and {name} what
// was saved under a name; <<list 101: {"Id":"e#"}>> repeats what it holds with
// commas between and numbers for #; <<text 51>> is a text of 51 letters.
// Directives:
//
//	!unsigned         no signature
//	!badsig           another signature than the right one
//	!tampered         a byte added to the body once it was signed
//	!key=NAME         the caller: owner (default), other (of another account), unknown
//	!service=NAME     the signing name in the scope; default: the operation's
//	!region=NAME      the Region in the scope; default: the node's
//	!skew=-20m        how far the client's clock is off
//	!presign=60s      the signature is in the query and good for this long
//	!later=25h        the clock moves on before the request
//	!fault=POINT      the store fails at this commit point, as on a full disk
//	!body-bytes=N     a body of so many bytes
//	!save=NAME.MEMBER keeps a member of the response under a name
//	!until=MEMBER=X   asks again until the response has this member so
//
// In a response, what was saved stands as {name}; other ids, page tokens and
// the request id as {id}, {token} and {request}; the clock as {now}. JSON is
// indented. The headers are all but Date, Content-Length and the request id,
// which are checked apart.
//
// go test ./cmd/node -run Dialogs -update writes the responses anew. They are
// golden: each change of one is a change of the wire.
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogs/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("there are no dialogs")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			newDialog(t, archive).hold(archive)
			if *update && !t.Failed() {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

var update = flag.Bool("update", false, "write the golden files of dialogs and mounted operations anew")

const (
	dialogRegion = "us-east-1"
	dialogSecret = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
	dialogSeed   = "everpoint dialogs: one seed here" // 32 bytes
	untilMax     = 20 * time.Second
	untilTick    = 5 * time.Millisecond
)

// dialogCaller is an account and its key.
type dialogCaller struct{ key, account string }

var dialogCallers = map[string]dialogCaller{
	"owner":   {"AKIAOWNEROWNEROWNER1", "111122223333"},
	"other":   {"AKIAOTHEROTHEROTHER2", "444455556666"},
	"unknown": {"AKIAUNKNOWNUNKNOWN33", "111122223333"},
}

var dialogStart = time.Date(2026, time.November, 2, 12, 0, 0, 0, time.UTC)

// dialog is a node and what was said to it.
type dialog struct {
	t     *testing.T
	node  *Node
	clock atomic.Int64 // nanoseconds since 1970
	fault atomic.Pointer[string]
	asked atomic.Int64 // how often the group was waited for
	saved map[string]string
}

// newDialog assembles and runs a node for one dialog.
func newDialog(t *testing.T, archive *txtar.Archive) *dialog {
	t.Helper()
	d := &dialog{t: t, saved: map[string]string{}}
	d.clock.Store(dialogStart.UnixNano())
	dir := t.TempDir()
	buckets := filepath.Join(dir, "buckets")
	for _, f := range archive.Files {
		if key, ok := strings.CutPrefix(f.Name, "bucket/"); ok {
			path := filepath.Join(buckets, filepath.FromSlash(key))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte(dialogSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &Config{
		Node: "n1", Region: dialogRegion, Dir: filepath.Join(dir, "data"),
		Door:   Door{PlainLoopback: true},
		Import: Import{BucketDir: buckets},
		Mail:   &Mail{Addr: "relay.test:25", Senders: []string{"example.com"}, EmailPerSecond: 50},
	}
	for _, name := range []string{"owner", "other"} {
		c := dialogCallers[name]
		cfg.Account = append(cfg.Account, Account{ID: c.account, AccessKeyID: c.key, SecretFile: secretFile})
	}
	if err := cfg.settle(dir); err != nil {
		t.Fatal(err)
	}
	var seed [32]byte
	copy(seed[:], dialogSeed)
	n, err := New(t.Context(), cfg, World{
		Now:    d.now,
		Random: rand.NewChaCha8(seed),
		Chance: rand.New(rand.NewPCG(1, 2)),
		Fault:  d.failing,
		Dial:   nowhere,
		NoDoor: true,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.node = n
	n.Store.Acknowledge(func(context.Context, int64) error {
		d.asked.Add(1)
		return nil
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the node ended: %v", err)
		}
	})
	return d
}

func (d *dialog) now() time.Time { return time.Unix(0, d.clock.Load()).UTC() }

// nowhere is the network of a dialog: no carrier answers.
func nowhere(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("no carrier answers in a dialog")
}

// failing is the store's fault seam.
func (d *dialog) failing(point string) error {
	if at := d.fault.Load(); at != nil && *at == point {
		return aws.Unavailable("The disk is full.")
	}
	return nil
}

// hold says everything in the file, and compares what is answered, or with
// -update writes it down.
func (d *dialog) hold(archive *txtar.Archive) {
	d.t.Helper()
	about := titleLine.FindStringSubmatch(firstLine(string(archive.Comment)))
	if about == nil || !strings.Contains(string(archive.Comment), "\nSource: ") {
		d.t.Fatal("the comment names no operation, fault and status, or no source")
	}
	last := answer{}
	var kept []txtar.File
	asked := 0
	for i, f := range archive.Files {
		switch {
		case f.Name == "given":
			for line := range strings.Lines(string(f.Data)) {
				d.given(strings.TrimSpace(line))
			}
		case f.Name == "request":
			asked++
			last = d.ask(string(f.Data))
			got := last.text
			want := ""
			if i+1 < len(archive.Files) && archive.Files[i+1].Name == "response" {
				want = string(archive.Files[i+1].Data)
			}
			if !*update && got != want {
				d.t.Errorf("request %d: %s\nanswered:\n%s\nwanted:\n%s", asked, firstLine(string(f.Data)), got, want)
			}
			kept = append(kept, f, txtar.File{Name: "response", Data: []byte(got)})
			continue
		case f.Name == "response":
			continue // beside its request
		case !strings.HasPrefix(f.Name, "bucket/"):
			d.t.Fatalf("there is no section %q", f.Name)
		}
		kept = append(kept, f)
	}
	if asked == 0 {
		d.t.Fatal("the dialog asks nothing")
	}
	if last.operation != about[1] {
		d.t.Errorf("the last request is %s, and must be %s", last.operation, about[1])
	}
	if last.verdict != about[2] {
		d.t.Errorf("the last answer is %s, and must be %s", last.verdict, about[2])
	}
	archive.Files = kept
}

// titleLine is "Operation, fault: 400 Exception", or "Operation, case: 200".
var titleLine = regexp.MustCompile(`^([A-Za-z ]+), [^:]+: ([0-9]{3}(?: [A-Za-z]+)?)$`)

func firstLine(s string) string {
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "!") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// givenLine is a call: "name.Member = 3x until Member=X PUT /v1/... {body}", of
// which only method and path are needed. Member is Id when it is left out, and
// may be a path such as Item.0.Id.
var givenLine = regexp.MustCompile(`^(?:([a-z][a-z0-9]*)(?:\.([A-Za-z0-9.]+))? = )?(?:([0-9]+)x )?(?:until ([A-Za-z0-9.]+)=(\S+) )?([A-Z]+) (\S+)(?: (.*))?$`)

// given makes one call that must succeed.
func (d *dialog) given(line string) {
	d.t.Helper()
	if line == "" {
		return
	}
	m := givenLine.FindStringSubmatch(line)
	if m == nil {
		d.t.Fatalf("given: cannot read %q", line)
	}
	name, member, times, body := m[1], m[2], 1, d.fill(m[8])
	if member == "" {
		member = "Id"
	}
	if m[3] != "" {
		times, _ = strconv.Atoi(m[3])
	}
	for i := range times {
		path, body := strings.ReplaceAll(d.fill(m[7]), "#", strconv.Itoa(i)), strings.ReplaceAll(body, "#", strconv.Itoa(i))
		call := &said{
			method: m[6], target: path, body: []byte(body), caller: "owner", region: dialogRegion, untilMember: m[4], untilEquals: m[5],
		}
		d.about(call)
		resp := d.exchange(call)
		if resp.Code >= 300 {
			d.t.Fatalf("given: %s: %d %s", line, resp.Code, resp.Body)
		}
		if name != "" {
			d.save(name, member, resp.Body.Bytes())
		}
	}
}

func (d *dialog) save(name, member string, body []byte) {
	d.t.Helper()
	value := memberOf(body, member)
	if value == "" {
		d.t.Fatalf("the response has no %s to save: %s", member, body)
	}
	d.saved[name] = value
}

// memberOf reads a text of a JSON document, such as Item.0.Id; "" if none.
func memberOf(body []byte, path string) string {
	var at any
	if json.Unmarshal(body, &at) != nil {
		return ""
	}
	for name := range strings.SplitSeq(path, ".") {
		switch in := at.(type) {
		case map[string]any:
			at = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(in) {
				return ""
			}
			at = in[i]
		default:
			return ""
		}
	}
	text, _ := at.(string)
	return text
}

var (
	placeholder = regexp.MustCompile(`\{([a-z][a-z0-9]*)([+-][0-9a-z]+)?\}`)
	repeated    = regexp.MustCompile(`(?s)<<list ([0-9]+): (.*?)>>`)
	letters     = regexp.MustCompile(`<<text ([0-9]+)>>`)
)

// fill puts values in the places of a request.
func (d *dialog) fill(text string) string {
	d.t.Helper()
	text = repeated.ReplaceAllStringFunc(text, func(s string) string {
		m := repeated.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[1])
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(m[2], "#", strconv.Itoa(i))
		}
		return strings.Join(items, ",")
	})
	text = letters.ReplaceAllStringFunc(text, func(s string) string {
		n, _ := strconv.Atoi(letters.FindStringSubmatch(s)[1])
		return strings.Repeat("a", n)
	})
	return placeholder.ReplaceAllStringFunc(text, func(s string) string {
		m := placeholder.FindStringSubmatch(s)
		at := d.now()
		switch {
		case m[1] == "now" && m[2] != "":
			by, err := time.ParseDuration(m[2])
			if err != nil {
				d.t.Fatalf("%s: %v", s, err)
			}
			return aws.Timestamp(at.Add(by))
		case m[1] == "now":
			return aws.Timestamp(at)
		case m[1] == "account":
			return dialogCallers["owner"].account
		}
		if value, ok := d.saved[m[1]]; ok && m[2] == "" {
			return value
		}
		return s // a variable of a template
	})
}

// said is a request as it is to be sent.
type said struct {
	method, target string
	header         http.Header
	body           []byte

	caller, service, region  string
	unsigned, bad, tampered  bool
	skew, presign            time.Duration
	fault                    string
	saves                    [][2]string // name and member
	untilMember, untilEquals string
}

// answer is what came back.
type answer struct {
	operation string // that was asked
	verdict   string // status and exception
	text      string // all of it
}

// ask sends what a request section says.
func (d *dialog) ask(text string) answer {
	d.t.Helper()
	s := d.read(text)
	a := answer{operation: d.about(s)}
	resp := d.exchange(s)
	for _, as := range s.saves {
		d.save(as[0], as[1], resp.Body.Bytes())
	}
	a.verdict, a.text = strconv.Itoa(resp.Code), d.told(resp)
	if name := exceptionOf(resp); name != "" {
		a.verdict += " " + name
	}
	return a
}

var xmlCode = regexp.MustCompile(`<Code>([A-Za-z]+)</Code>`)

// exceptionOf is the name of the exception, where each protocol has it.
func exceptionOf(resp *httptest.ResponseRecorder) string {
	if name := resp.Header().Get("X-Amzn-Errortype"); name != "" {
		return name
	}
	if m := xmlCode.FindSubmatch(resp.Body.Bytes()); m != nil {
		return string(m[1])
	}
	return memberOf(resp.Body.Bytes(), "__type")
}

// exchange sends a request, and again until the response is as it says.
func (d *dialog) exchange(s *said) *httptest.ResponseRecorder {
	d.t.Helper()
	resp := d.send(s)
	if s.untilMember == "" {
		return resp
	}
	deadline, tick := time.Now().Add(untilMax), time.NewTicker(untilTick)
	defer tick.Stop()
	for memberOf(resp.Body.Bytes(), s.untilMember) != s.untilEquals {
		if time.Now().After(deadline) {
			d.t.Fatalf("%s did not become %s: %s", s.untilMember, s.untilEquals, resp.Body)
		}
		<-tick.C
		resp = d.send(s)
	}
	return resp
}

// read takes a request section apart.
func (d *dialog) read(text string) *said {
	d.t.Helper()
	s := &said{caller: "owner", region: dialogRegion}
	bodyBytes := 0
	for strings.HasPrefix(text, "!") {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		name, value, _ := strings.Cut(strings.TrimSpace(line[1:]), "=")
		var err error
		switch name {
		case "unsigned":
			s.unsigned = true
		case "badsig":
			s.bad = true
		case "tampered":
			s.tampered = true
		case "key":
			s.caller = value
		case "service":
			s.service = value
		case "region":
			s.region = value
		case "skew":
			s.skew, err = time.ParseDuration(value)
		case "presign":
			s.presign, err = time.ParseDuration(value)
		case "later":
			var by time.Duration
			by, err = time.ParseDuration(value)
			d.clock.Add(int64(by))
		case "fault":
			s.fault = value
		case "body-bytes":
			bodyBytes, err = strconv.Atoi(value)
		case "save":
			to, member, _ := strings.Cut(value, ".")
			s.saves = append(s.saves, [2]string{to, member})
		case "until":
			s.untilMember, s.untilEquals, _ = strings.Cut(value, "=")
		default:
			d.t.Fatalf("there is no directive !%s", name)
		}
		if err != nil {
			d.t.Fatalf("!%s: %v", name, err)
		}
	}
	head, body, _ := strings.Cut(text, "\n\n")
	line, fields, _ := strings.Cut(head+"\n", "\n")
	s.method, s.target, _ = strings.Cut(strings.TrimSpace(line), " ")
	s.target = d.fill(s.target)
	if strings.ContainsAny(s.target, "{}") {
		d.t.Fatalf("%s: nothing was saved under a name in this path", line)
	}
	s.header = http.Header{}
	for field := range strings.Lines(strings.TrimSpace(d.fill(fields))) {
		name, value, ok := strings.Cut(strings.TrimSpace(field), ":")
		if !ok {
			d.t.Fatalf("%q is no header", field)
		}
		s.header.Add(name, strings.TrimSpace(value))
	}
	s.body = []byte(strings.TrimSuffix(d.fill(body), "\n"))
	if bodyBytes > 0 {
		s.body = bytes.Repeat([]byte{' '}, bodyBytes)
	}
	return s
}

// about returns the operation that a request is, "no operation" if none, and
// fills in the service that it is signed for.
func (d *dialog) about(s *said) string {
	d.t.Helper()
	r := d.request(s)
	match, _ := d.node.Mux.Find(&wire.Request{
		Method: r.Method, RawPath: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header, Body: s.body,
	})
	if s.service == "" && match.Service != nil {
		s.service = match.Service.SigningName
	}
	if match.Op == nil {
		return "no operation"
	}
	return match.Op.Name
}

// request makes the request, unsigned.
func (d *dialog) request(s *said) *http.Request {
	d.t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(s.method + " " + s.target + " HTTP/1.1\r\nHost: everpoint.test\r\n\r\n")))
	if err != nil {
		d.t.Fatalf("%s %s: %v", s.method, s.target, err)
	}
	for name, values := range s.header {
		r.Header[name] = slices.Clone(values)
	}
	if len(s.body) > 0 && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// send signs a request, sends it through the door and returns what comes back.
func (d *dialog) send(s *said) *httptest.ResponseRecorder {
	d.t.Helper()
	r := d.request(s)
	service := s.service
	if service == "" {
		service = "mobiletargeting"
	}
	caller, ok := dialogCallers[s.caller]
	if !ok {
		d.t.Fatalf("there is no caller %q", s.caller)
	}
	hash := sha256.Sum256(s.body)
	credentials := sigv4.Credentials{AccessKeyID: caller.key, Secret: dialogSecret}
	at := d.now().Add(s.skew)
	switch {
	case s.unsigned:
	case s.presign > 0:
		url, err := sigv4.Presign(r, hash, credentials, s.region, service, s.presign, at)
		if err != nil {
			d.t.Fatal(err)
		}
		if r.URL, err = r.URL.Parse(url); err != nil {
			d.t.Fatal(err)
		}
		r.RequestURI = r.URL.RequestURI()
	default:
		if err := sigv4.Sign(r, hash, credentials, s.region, service, at); err != nil {
			d.t.Fatal(err)
		}
	}
	if s.bad {
		was := r.Header.Get("Authorization")
		end := "0"
		if strings.HasSuffix(was, end) {
			end = "1"
		}
		r.Header.Set("Authorization", was[:len(was)-1]+end)
	}
	body := s.body
	if s.tampered {
		body = append(slices.Clone(body), ' ')
	}
	r.Body, r.ContentLength = http.NoBody, int64(len(body))
	if len(body) > 0 {
		r.Body = readCloser{bytes.NewReader(body)}
	}
	if s.fault != "" {
		d.fault.Store(&s.fault)
		defer d.fault.Store(nil)
	}
	w, asked := httptest.NewRecorder(), d.asked.Load()
	d.node.Door.Handler().ServeHTTP(w, r.WithContext(d.t.Context()))
	if w.Code < 300 && d.asked.Load() == asked {
		d.unasked(s)
	}
	return w
}

// unasked reports a control-plane call that was answered without the group having
// what it wrote.
//
// Source: design 5, Two planes.
func (d *dialog) unasked(s *said) {
	d.t.Helper()
	r := d.request(s)
	match, err := d.node.Mux.Find(&wire.Request{
		Method: r.Method, RawPath: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header, Body: s.body,
	})
	if err == nil && match.Op.Plane == wire.ControlPlane {
		d.t.Errorf("%s %s: %s was answered before the group had it", s.method, s.target, match.Op.Name)
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

var (
	requestID  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	uuids      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	ids        = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	pageTokens = regexp.MustCompile(`("NextToken": ?)"[A-Za-z0-9_-]{40,}"`)
)

// told is a response as text. What every response must have is checked here.
func (d *dialog) told(resp *httptest.ResponseRecorder) string {
	d.t.Helper()
	h := resp.Header().Clone()
	id := h.Get("X-Amzn-Requestid")
	if !requestID.MatchString(id) {
		d.t.Errorf("x-amzn-RequestId: %q is no request id", id)
	}
	if date := d.now().Format(http.TimeFormat); h.Get("Date") != date {
		d.t.Errorf("Date: %q, and the node's clock says %q", h.Get("Date"), date)
	}
	if n := h.Get("Content-Length"); resp.Code != http.StatusNoContent && n != strconv.Itoa(resp.Body.Len()) {
		d.t.Errorf("Content-Length: %q, and the body has %d bytes", n, resp.Body.Len())
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d %s\n", resp.Code, http.StatusText(resp.Code))
	for _, name := range []string{"X-Amzn-Requestid", "Date", "Content-Length"} {
		h.Del(name)
	}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&out, "%s: %s\n", name, strings.Join(h[name], ", "))
	}
	body := resp.Body.Bytes()
	var pretty bytes.Buffer
	if json.Indent(&pretty, body, "", "  ") == nil {
		body = pretty.Bytes()
	} else if strings.HasPrefix(h.Get("Content-Type"), "application/") && len(body) > 0 {
		d.t.Errorf("the body is no JSON: %s", body)
	}
	text := string(body)
	if id != "" {
		text = strings.ReplaceAll(text, id, "{request}")
	}
	for _, name := range slices.Sorted(maps.Keys(d.saved)) {
		text = strings.ReplaceAll(text, d.saved[name], "{"+name+"}")
	}
	text = strings.ReplaceAll(text, aws.Timestamp(d.now()), "{now}")
	text = pageTokens.ReplaceAllString(text, `$1"{token}"`)
	text = ids.ReplaceAllString(uuids.ReplaceAllString(text, "{uuid}"), "{id}")
	out.WriteString("\n" + strings.TrimSuffix(text, "\n"))
	if text != "" {
		out.WriteString("\n")
	}
	return out.String()
}
