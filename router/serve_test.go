package router

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestServe_killed_Region kills a Region in the middle of a loop of signed calls.
// Those that are idempotent or remembered never fail; those that are neither are
// never executed twice, and each that fails says so.
func TestServe_killed_Region(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2_%v", two), func(t *testing.T) {
			s := newSite(t, 2, Config{})
			s.run()
			client := s.client(two)
			const workers, rounds = 8, 60
			var all sync.WaitGroup
			var done, failed atomic.Int64
			kill := sync.OnceFunc(s.regions[1].kill)
			var plain sync.Map // invocation of each call without memory, and its status
			for w := range workers {
				all.Go(func() {
					for i := range rounds {
						id := fmt.Sprintf("%d-%d", w, i)
						calls := []*http.Request{
							s.signed("PUT", "/v1/apps/A/endpoints/e"+id, `{"Address":"a"}`, "put-"+id),
							s.signed("GET", "/v1/apps/A/endpoints/e"+id, "", "get-"+id),
							s.signed("DELETE", "/v1/apps/A/endpoints/e"+id, "", "del-"+id),
							s.signed("POST", "/v1/apps/A/messages", `{"n":"`+id+`"}`, "send-"+id),
							s.signed("POST", "/v1/apps/A/events", `{"n":"`+id+`"}`, "event-"+id),
						}
						for _, r := range calls {
							if code, region, body := s.call(client, r); code != 200 || region == "" {
								t.Errorf("%s %s: %d by %q: %s", r.Method, r.URL, code, region, body)
							}
						}
						code, _, _ := s.call(client, s.signed("POST", "/v1/apps/A/campaigns", `{"n":"`+id+`"}`, "plain-"+id))
						plain.Store("plain-"+id, code)
						if code != 200 {
							failed.Add(1)
						}
						if done.Add(1) == workers*rounds/3 {
							kill()
						}
					}
				})
			}
			all.Wait()
			plain.Range(func(id, code any) bool {
				n := s.executions(id.(string))
				if n > 1 || code == 200 && n != 1 || code == 503 && n != 0 {
					t.Errorf("%s was answered %d and executed %d times", id, code, n)
				}
				return true
			})
			for _, reg := range s.regions {
				if len(reg.refused) > 0 {
					t.Errorf("%s refused signatures: %.5q", reg.name, reg.refused)
				}
				if len(reg.executed) < workers*rounds/3 {
					t.Errorf("%s executed %d calls only", reg.name, len(reg.executed))
				}
			}
			st := s.rt.Status()
			if st.Regions[1].State != Down || st.Retries == 0 {
				t.Errorf("status %+v", st)
			}
			t.Logf("%d retries; %d of %d calls without memory failed", st.Retries, failed.Load(), workers*rounds)
		})
	}
}

// TestServe_repeats drives one call of each sort into a Region that fails it in
// each way, and counts what was executed.
func TestServe_repeats(t *testing.T) {
	calls := []struct {
		name, method, path, body, invocation string
		safe                                 bool
	}{
		{"get", "GET", "/v1/apps/A/endpoints/%d", "", "", true},
		{"put", "PUT", "/v1/apps/A/endpoints/%d", "{}", "", true},
		{"send", "POST", "/v1/apps/A/messages", "{}", "i", true},
		{"send_without_invocation", "POST", "/v1/apps/A/messages", "{}", "", false},
		{"create", "POST", "/v1/apps", "{}", "i", false},
		{"patch", "PATCH", "/v1/apps", "{}", "i", false},
	}
	cut := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}
	ways := []struct {
		name   string
		answer http.HandlerFunc
		status int // what the client sees if the call is not repeated
	}{
		{"connection_lost", cut, 502},
		{"answers_502", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, 502},
		{"answers_503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, 503},
		{"answers_504", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(504) }, 504},
	}
	for _, way := range ways {
		for _, call := range calls {
			t.Run(way.name+"/"+call.name, func(t *testing.T) {
				// No matter which Region is met first, it fails, and the other does not.
				s := newSite(t, 2, Config{Health: Health{FailuresMin: 1000}})
				var tried atomic.Int64
				for _, reg := range s.regions {
					reg.do(func(w http.ResponseWriter, r *http.Request) {
						if tried.Add(1) == 1 {
							way.answer(w, r)
							return
						}
						reg.execute(w, r)
					})
				}
				path := call.path
				if strings.Contains(path, "%d") {
					path = fmt.Sprintf(path, 7)
				}
				code, region, body := s.call(s.h2, s.signed(call.method, path, call.body, call.invocation))
				if call.safe && (code != 200 || tried.Load() != 2 || s.rt.Status().Retries != 1) {
					t.Errorf("%d by %q after %d attempts: %s", code, region, tried.Load(), body)
				}
				if !call.safe && (code != way.status || tried.Load() != 1) {
					t.Errorf("%d by %q after %d attempts: %s", code, region, tried.Load(), body)
				}
				for _, reg := range s.regions {
					if len(reg.refused) > 0 {
						t.Errorf("refused: %q", reg.refused)
					}
				}
			})
		}
	}
}

// TestServe_never_reached shows that a call without memory goes elsewhere too
// when no connection came about, and only then; and that 500 is the caller's.
func TestServe_never_reached(t *testing.T) {
	s := newSite(t, 2, Config{})
	s.regions[0].kill()
	for i := range 20 {
		id := fmt.Sprint(i)
		if code, region, _ := s.call(s.h2, s.signed("POST", "/v1/apps", "{}", id)); code != 200 || region != "eu-2-1" || s.executions(id) != 1 {
			t.Fatalf("call %d: %d by %q, executed %d times", i, code, region, s.executions(id))
		}
	}
	if rs := s.rt.Status().Regions[0]; rs.State != Down || rs.Ended["unreached"] != 2 {
		t.Errorf("two refused connections are enough: %+v", rs)
	}
	s.regions[1].do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	for range 20 {
		if code, region, _ := s.call(s.h2, s.signed("GET", "/v1/apps", "", "")); code != 500 || region != "eu-2-1" {
			t.Fatalf("%d by %q", code, region)
		}
	}
	if rs := s.rt.Status().Regions[1]; rs.State != Up || rs.Failed != 0 {
		t.Errorf("500 is the caller's business: %+v", rs)
	}
}

// TestServe_the_control_Region_is_another: what a Region says of the control Region
// is not held against it.
func TestServe_the_control_Region_is_another(t *testing.T) {
	s := newSite(t, 2, Config{})
	for _, reg := range s.regions {
		reg.do(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerControl, "region-9")
			w.WriteHeader(503)
		})
	}
	for range 30 {
		if status, _, _ := s.call(s.h1, s.signed("PUT", "/v1/apps/a/settings", "{}", "")); status != 503 {
			t.Fatalf("answered %d", status)
		}
	}
	tried := uint64(0)
	for _, reg := range s.rt.Status().Regions {
		tried += reg.Ended["answered"]
		if reg.State != Up || reg.Failed != 0 {
			t.Errorf("%+v", reg)
		}
	}
	if tried != 30 {
		t.Errorf("30 calls were tried %d times", tried)
	}
}

func TestServe_all_answer_503(t *testing.T) {
	s := newSite(t, 2, Config{})
	for _, reg := range s.regions {
		reg.do(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "from "+reg.name)
		})
	}
	for range 30 {
		resp, err := s.h1.Do(s.signed("GET", "/v1/apps", "", ""))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Header.Get(headerRegion); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "7" || string(body) != "from "+got {
			t.Fatalf("%d by %q, body %q: a Region's answer is better than ours", resp.StatusCode, got, body)
		}
	}
	await(t, "nothing in flight", func() bool { return s.rt.Status().Regions[0].InFlight+s.rt.Status().Regions[1].InFlight == 0 })
}

// TestServe_broken_answer shows that an answer which breaks off is passed on as
// broken, and not repeated.
func TestServe_broken_answer(t *testing.T) {
	for _, length := range []bool{false, true} {
		s := newSite(t, 2, Config{})
		var calls atomic.Int64
		for _, reg := range s.regions {
			reg.do(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				if length {
					w.Header().Set("Content-Length", "1000")
				}
				_, _ = io.WriteString(w, "half of it")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
		}
		for _, c := range []*http.Client{s.h1, s.h2} {
			calls.Store(0)
			resp, err := c.Do(s.signed("GET", "/v1/apps", "", ""))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil || string(body) != "half of it" || calls.Load() != 1 {
				t.Errorf("length %v: body %q, error %v, %d calls", length, body, err, calls.Load())
			}
		}
	}
}

// rawAnswer is an answer, read to its end.
type rawAnswer struct {
	StatusCode int
	Header     http.Header
	body       string
}

// raw sends bytes to the router and returns the answer.
func (s *site) raw(text string) (*rawAnswer, error) {
	c, err := tls.Dial("tcp", s.front.Listener.Addr().String(), s.trust)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &rawAnswer{resp.StatusCode, resp.Header, string(body)}, err
}

var nastyPaths = []string{
	"/v1/apps/A/endpoints/%2F%2f..%2E", "/v1//apps", "//v1/apps", "//evil.example/x", "///", "//x{y}", "/v1/../apps", "/v1/./apps/.", "/a;b=c;d",
	"/a%20b+c", "/a:b@c!$&'()*,=", "/{x}|^`\"<>\\", "/\xff\xfe", "/a%00", "/a?", "/a?b", "/a?b=c&b=d&a=%zz;x", "/?%2B+%20", "/a?b#c", "/a%3Fb", "/http://x/y",
	"/a??", "/v1/tags/arn%3Aaws%3Amobiletargeting", "/é", "/.", "/a//", "/%61",
}

// TestServe_request_line sends nasty paths, and asks that they arrive to the byte.
func TestServe_request_line(t *testing.T) {
	s := newSite(t, 1, Config{})
	var got, host atomic.Pointer[string]
	s.regions[0].do(func(_ http.ResponseWriter, r *http.Request) { got.Store(&r.RequestURI); host.Store(&r.Host) })
	for _, path := range nastyPaths {
		resp, err := s.raw("GET " + path + " HTTP/1.1\r\nHost: Pinpoint.EU-1-1.example:99\r\n\r\n")
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%q: %+v %v", path, resp, err)
			continue
		}
		want := path
		if path == "//x{y}" { // no other way through net/http; it means the same
			want = "https://Pinpoint.EU-1-1.example:99" + path
		}
		if *got.Load() != want || *host.Load() != "Pinpoint.EU-1-1.example:99" {
			t.Errorf("%q arrived as %q for %q", path, *got.Load(), *host.Load())
		}
	}
	// The absolute form loses its host to Host, as RFC 9112 3.2.2 says.
	if resp, err := s.raw("GET https://other.example/a//b?c HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil || resp.StatusCode != 200 ||
		*got.Load() != "/a//b?c" || *host.Load() != "other.example" {
		t.Errorf("%+v %v: %q for %q", resp, err, *got.Load(), *host.Load())
	}
}

// TestServe_signed_nasty_paths signs them, and asks that the signatures hold, over
// HTTP/2 too.
func TestServe_signed_nasty_paths(t *testing.T) {
	s := newSite(t, 2, Config{})
	for _, path := range []string{
		"/v1/apps/A/endpoints/%2F%2f..%2E", "/a;b=c", "/a%20b", "/v1/tags/arn%3Aaws%3Aa", "/a?b=c&a=%2F&b", "/a%3Fb?x", "/a:b@c!$&'()*,=",
	} {
		for _, c := range []*http.Client{s.h1, s.h2} {
			for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
				body := ""
				if method == "PUT" || method == "POST" {
					body = "{}"
				}
				if code, _, text := s.call(c, s.signed(method, path, body, "")); code != 200 {
					t.Errorf("%s %s: %d %s", method, path, code, text)
				}
			}
		}
	}
	for _, reg := range s.regions {
		if len(reg.refused) > 0 {
			t.Errorf("refused: %q", reg.refused)
		}
	}
}

// TestServe_headers shows what a Region sees of the headers, and the client of
// the answer's.
func TestServe_headers(t *testing.T) {
	s := newSite(t, 1, Config{})
	var got atomic.Pointer[http.Request]
	s.regions[0].do(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r)
		h := w.Header()
		h["Content-Type"] = nil
		h.Set("X-Amzn-Requestid", "r")
		h["Set-Cookie"] = []string{"a", "b"}
		h.Set("Connection", "X-Secret")
		h.Set("X-Secret", "s")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set(headerRegion, "another")
		_, _ = io.WriteString(w, "<html>")
	})
	resp, err := s.raw("DELETE /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nX-Amz-Date:  a  b \r\nx-multi: 1\r\nX-Multi: 2\r\n" +
		"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: junk\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\n" +
		"Proxy-Authorization: secret\r\nUpgrade: websocket\r\nAuthorization: AWS4-HMAC-SHA256 x\r\n\r\n")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%+v %v", resp, err)
	}
	h := got.Load().Header
	want := map[string]string{
		"X-Amz-Date": "a  b", "X-Multi": "1|2", "Authorization": "AWS4-HMAC-SHA256 x", "Content-Length": "0",
		"X-Forwarded-For": "1.2.3.4, junk, 127.0.0.1",
	}
	for name := range h {
		if strings.Join(h[name], "|") != want[name] {
			t.Errorf("the Region sees %s: %q, want %q", name, h[name], want[name])
		}
	}
	if len(h) != len(want) {
		t.Errorf("the Region sees %v", h)
	}
	back := resp.Header
	if back.Get("Connection") != "" || back.Get("X-Secret") != "" || back.Get("Keep-Alive") != "" || back.Get("Proxy-Authenticate") != "" ||
		back.Get("Content-Type") != "" || fmt.Sprint(back["Set-Cookie"]) != "[a b]" || fmt.Sprint(back[headerRegion]) != "[eu-1-1]" {
		t.Errorf("the client sees %v", back)
	}
	// GET and HEAD with a length of nothing keep it, for it may be signed.
	if _, err := s.raw("GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"); err != nil || got.Load().Header.Get("Content-Length") != "0" {
		t.Errorf("%v %v", err, got.Load().Header)
	}
}

// TestServe_streams_up sends a body far longer than what is kept.
func TestServe_streams_up(t *testing.T) {
	s := newSite(t, 2, Config{Limits: Limits{ReplayBytesMax: 1 << 10}})
	const length = 48 << 20
	var most atomic.Uint64
	for _, reg := range s.regions {
		reg.do(func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, err, r.Header.Get("Expect"))
		})
	}
	for _, c := range []*http.Client{s.h1, s.h2} {
		for _, known := range []bool{true, false} {
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			src := &zeros{left: length, every: 8 << 20, at: func() {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most.Store(max(most.Load(), m.HeapAlloc-min(before.HeapAlloc, m.HeapAlloc)))
			}}
			r, _ := http.NewRequest("POST", s.front.URL+"/v1/apps/A/import", src)
			if known {
				r.ContentLength = length
				r.Header.Set("Expect", "100-continue")
			}
			code, _, body := s.call(c, r)
			want := fmt.Sprint(length, nil)
			if known && c == s.h1 { // over HTTP/2 the server has answered it
				want += "100-continue"
			}
			if code != 200 || strings.ReplaceAll(body, " ", "") != strings.ReplaceAll(want, " ", "") {
				t.Errorf("known %v: %d %q, want %q", known, code, body, want)
			}
		}
	}
	if most.Load() > length/3 {
		t.Errorf("the heap grew by %d MiB while %d passed", most.Load()>>20, length>>20)
	}
	// A streamed request is never repeated, remembered though it be.
	var calls atomic.Int64
	for _, reg := range s.regions {
		reg.do(func(http.ResponseWriter, *http.Request) { calls.Add(1); panic(http.ErrAbortHandler) })
	}
	if code, _, _ := s.call(s.h1, s.signed("PUT", "/x", strings.Repeat("x", 2<<10), "i")); code != 502 || calls.Load() != 1 || s.rt.Status().Retries != 0 {
		t.Errorf("%d after %d calls and %d retries", code, calls.Load(), s.rt.Status().Retries)
	}
}

// zeros is a long body that tells how it goes.
type zeros struct {
	left, every, last int
	at                func()
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	clear(p[:n])
	z.left -= n
	if z.last += n; z.last >= z.every {
		z.last = 0
		z.at()
	}
	return n, nil
}

// TestServe_streams_down asks that each piece of an answer comes when it was
// written, and trailers after it.
func TestServe_streams_down(t *testing.T) {
	s := newSite(t, 1, Config{})
	next := make(chan string)
	s.regions[0].do(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Content-Type", "text/plain")
		_ = http.NewResponseController(w).Flush()
		for piece := range next {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("X-Sum", "42")
	})
	for _, c := range []*http.Client{s.h1, s.h2} {
		next = make(chan string, 1)
		resp, err := c.Do(s.signed("GET", "/x", "", ""))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for _, want := range []string{"one", "two", "three"} {
			next <- want // only now: what came before, and the headers, were not held back
			if n, err := io.ReadFull(resp.Body, buf[:len(want)]); err != nil || string(buf[:n]) != want {
				t.Fatalf("piece %q, want %q: %v", buf[:n], want, err)
			}
		}
		close(next)
		if _, err := io.ReadAll(resp.Body); err != nil || resp.Trailer.Get("X-Sum") != "42" {
			t.Errorf("trailer %v, error %v", resp.Trailer, err)
		}
		resp.Body.Close()
	}
}

// TestServe_request_trailers passes them with a streamed body.
func TestServe_request_trailers(t *testing.T) {
	s := newSite(t, 1, Config{})
	s.regions[0].do(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Trailer)
	})
	for _, c := range []*http.Client{s.h1, s.h2} {
		r, _ := http.NewRequest("POST", s.front.URL+"/x", io.MultiReader(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Sum": {"42"}}
		if _, _, body := s.call(c, r); body != "map[X-Sum:[42]]" {
			t.Errorf("trailers arrived as %s", body)
		}
	}
}

// TestServe_early_answer gives an answer while the body is still on its way.
func TestServe_early_answer(t *testing.T) {
	s := newSite(t, 1, Config{})
	s.regions[0].do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) })
	for _, c := range []*http.Client{s.h1, s.h2} {
		body, feed := io.Pipe()
		go func() {
			for {
				if _, err := feed.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}()
		r, _ := http.NewRequest("POST", s.front.URL+"/x", body)
		if resp, err := c.Do(r); err == nil {
			if resp.StatusCode != 413 {
				t.Errorf("status %d", resp.StatusCode)
			}
			resp.Body.Close()
		} else if c == s.h2 { // a sender over HTTP/1.1 may meet the closed connection first
			t.Error(err)
		}
		body.Close()
	}
	if rs := s.rt.Status().Regions[0]; rs.State != Up {
		t.Errorf("%+v", rs)
	}
}

// TestServe_cancellation asks that a client that leaves ends its request in the
// Region, at no charge to it.
func TestServe_cancellation(t *testing.T) {
	s := newSite(t, 1, Config{Health: Health{FailuresMin: 1}})
	began, ended := make(chan bool, 1), make(chan bool, 1)
	s.regions[0].do(func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		<-r.Context().Done()
		ended <- true
	})
	for _, c := range []*http.Client{s.h1, s.h2} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		resp, err := c.Do(s.signed("GET", "/x", "", "").WithContext(ctx))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if err == nil {
			resp.Body.Close()
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the Region still works for a client that has left")
		}
		cancel()
	}
	await(t, "nothing in flight", func() bool { return s.rt.Status().InFlight == 0 })
	if st := s.rt.Status(); st.Regions[0].State != Up || st.Regions[0].Requests != 0 || st.Abandoned != 2 {
		t.Errorf("%+v", st)
	}
}

// TestServe_bounds meets each bound of a request.
func TestServe_bounds(t *testing.T) {
	s := newSite(t, 1, Config{Limits: Limits{
		HeaderBytesMax: 8 << 10, BodyBytesMax: 1 << 20, ReplayBytesMax: 64 << 10, BodyTimeout: 100 * time.Millisecond,
		AnswerTimeout: 300 * time.Millisecond, HeaderTimeout: 200 * time.Millisecond,
	}, Health: Health{FailuresMin: 1000}})
	s.regions[0].do(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
	})
	status := func(name string, want int, r *rawAnswer, err error) {
		t.Helper()
		if err != nil || r.StatusCode != want {
			t.Errorf("%s: %+v %v, want %d", name, r, err, want)
			return
		}
		if want >= 500 || want == 413 || want == 400 {
			var told struct{ Message string }
			if json.Unmarshal([]byte(r.body), &told) != nil || told.Message == "" || r.Header.Get("X-Amzn-Errortype") == "" {
				t.Errorf("%s: %v %s", name, r.Header, r.body)
			}
		}
	}
	resp, err := s.raw("GET /x HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-Bomb: "+strings.Repeat("b", 1000)+"\r\n", 20) + "\r\n")
	if err != nil || resp.StatusCode != 431 {
		t.Errorf("many headers: %+v %v", resp, err)
	}
	if _, err := s.raw("GET /x HTTP/1.1\r\nHost: h\r\nX-Slow:"); err == nil {
		t.Error("headers that never end were waited for")
	}
	resp, err = s.raw("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n")
	status("a claimed length beyond the bound", 413, resp, err)
	resp, err = s.raw("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
	status("a kept body that does not come", 400, resp, err)
	resp, err = s.raw("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	status("a streamed body that stands still", 400, resp, err)
	resp, err = s.raw("GET /hang HTTP/1.1\r\nHost: h\r\n\r\n")
	status("a Region that does not answer", 504, resp, err)
	for _, c := range []*http.Client{s.h1, s.h2} {
		r, _ := http.NewRequest("POST", s.front.URL+"/x", io.MultiReader(bytes.NewReader(make([]byte, 2<<20))))
		if resp, err := c.Do(r); err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			status("a streamed body beyond the bound", 413, &rawAnswer{resp.StatusCode, resp.Header, string(body)}, nil)
		} else if c == s.h2 {
			t.Error(err)
		}
	}
	if rs := s.rt.Status().Regions[0]; rs.Ended["lost"] != 0 || rs.Ended["silent"] != 1 {
		t.Errorf("what clients did wrong was held against the Region: %+v", rs)
	}
}

// TestServe_slow_client does not let one that reads nothing hold a Region's answer.
func TestServe_slow_client(t *testing.T) {
	s := newSite(t, 1, Config{Limits: Limits{StreamTimeout: 200 * time.Millisecond}})
	s.regions[0].do(func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, 64<<10)
		for range 1 << 12 { // 256 MiB, more than sockets hold
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	c, err := tls.Dial("tcp", s.front.Listener.Addr().String(), s.trust)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	await(t, "the request", func() bool { return s.rt.Status().InFlight == 1 })
	await(t, "its end", func() bool { return s.rt.Status().InFlight == 0 })
	if rs := s.rt.Status().Regions[0]; rs.Failed != 0 || rs.InFlight != 0 {
		t.Errorf("%+v", rs)
	}
}

// TestServe_full answers 503 in the caller's protocol when too many are inside.
func TestServe_full(t *testing.T) {
	s := newSite(t, 1, Config{Limits: Limits{RequestsMax: 3, RegionRequestsMax: 2}})
	inside, leave := make(chan bool, 3), make(chan bool)
	s.regions[0].do(func(http.ResponseWriter, *http.Request) { inside <- true; <-leave })
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if code, _, _ := s.call(s.h1, s.signed("GET", "/x", "", "")); code != 200 {
				t.Errorf("inside: %d", code)
			}
		})
		<-inside
	}
	tests := []struct{ header, method, kind, body string }{
		{"", "GET", "application/json", `{"message":"Too many requests in progress. Please retry."}`},
		{"X-Amz-Target: PinpointSMSVoiceV2.DescribePools\r\nContent-Type: application/x-amz-json-1.0\r\n", "POST", "application/x-amz-json-1.0", `"__type":"ServiceUnavailableException"`},
		{"Content-Type: application/x-www-form-urlencoded\r\n", "POST", "text/xml", `<Code>ServiceUnavailable</Code>`},
	}
	for _, tt := range tests {
		resp, err := s.raw(tt.method + " / HTTP/1.1\r\nHost: h\r\n" + tt.header + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		body := resp.body
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Content-Type") != tt.kind || !strings.Contains(body, tt.body) {
			t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
		}
		if resp.Header.Get("X-Amzn-Requestid") == "" || resp.Header.Get(headerRegion) != "" {
			t.Errorf("%v", resp.Header)
		}
	}
	if st := s.rt.Status(); st.Refusals != 3 || st.InFlight != 2 {
		t.Errorf("%+v", st)
	}
	close(leave)
	all.Wait()
	if code, _, _ := s.call(s.h1, s.signed("GET", "/x", "", "")); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
}

// TestServe_draining lets what is in flight finish, and gives nothing new.
func TestServe_draining(t *testing.T) {
	s := newSite(t, 2, Config{})
	inside, leave := make(chan bool), make(chan bool)
	s.regions[1].do(func(w http.ResponseWriter, _ *http.Request) {
		inside <- true
		<-leave
		_, _ = io.WriteString(w, "finished")
	})
	if err := s.rt.SetSwitches(Switches{Mode: WarmStandby, Primary: "eu-2-1"}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if code, region, body := s.call(s.h2, s.signed("POST", "/v1/apps", "{}", "")); code != 200 || region != "eu-2-1" || body != "finished" {
			t.Errorf("in flight: %d by %q: %s", code, region, body)
		}
	})
	<-inside
	if err := s.rt.SetSwitches(Switches{Regions: map[string]Switch{"eu-2-1": {State: Draining}}}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if code, region, _ := s.call(s.h2, s.signed("GET", "/v1/apps", "", "")); code != 200 || region != "eu-1-1" {
			t.Errorf("new: %d by %q", code, region)
		}
	}
	if rs := s.rt.Status().Regions[1]; rs.InFlight != 1 || rs.Switch != Draining {
		t.Errorf("%+v", rs)
	}
	close(leave)
	all.Wait()
	await(t, "the drain", func() bool { return s.rt.Status().Regions[1].InFlight == 0 })
}

// TestServe_kept_bodies_return asks that all memory lent for bodies comes back.
func TestServe_kept_bodies_return(t *testing.T) {
	s := newSite(t, 2, Config{})
	s.regions[0].do(func(_ http.ResponseWriter, r *http.Request) { // answers before it has read the body, now and then
		if r.ContentLength%2 == 0 {
			panic(http.ErrAbortHandler)
		}
	})
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 50 {
				n := (i*w*997)%70000 + 1
				s.call(s.h1, s.signed("PUT", fmt.Sprintf("/v1/apps/A/endpoints/%d-%d", w, i), strings.Repeat("y", n), ""))
			}
		})
	}
	all.Wait()
	await(t, "the memory", func() bool { return s.rt.buffers.lent.Load() == 0 })
	if len(s.regions[1].refused) > 0 {
		t.Errorf("bodies did not arrive as they were: %q", s.regions[1].refused)
	}
}

func TestServe_connect_is_refused(t *testing.T) {
	s := newSite(t, 1, Config{})
	if resp, err := s.raw("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"); err != nil || resp.StatusCode != 405 {
		t.Errorf("%+v %v", resp, err)
	}
}

// TestServe_upgrade_is_not_passed_on: a Region that switches protocols unasked
// is answered for.
func TestServe_upgrade_is_not_passed_on(t *testing.T) {
	s := newSite(t, 1, Config{})
	s.regions[0].do(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		_ = rw.Flush()
		c.(interface{ NetConn() net.Conn }).NetConn().Close()
	})
	if resp, err := s.raw("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"); err != nil || resp.StatusCode != 502 {
		t.Errorf("%+v %v", resp, err)
	}
}

func TestAdmin(t *testing.T) {
	s := newSite(t, 2, Config{})
	for i := range 10 {
		s.call(s.h1, s.signed("PUT", fmt.Sprintf("/v1/apps/A/endpoints/%d", i), "{}", ""))
	}
	get := func(method, path string) (int, Status) {
		w := &recorder{header: http.Header{}}
		r, _ := http.NewRequest(method, path, nil)
		s.rt.Admin().ServeHTTP(w, r)
		var st Status
		_ = json.Unmarshal(w.body.Bytes(), &st)
		return w.status, st
	}
	code, st := get("GET", StatusPath)
	if code != 200 || len(st.Regions) != 2 || st.Mode != ActiveActive || st.Regions[0].Share < 0.45 || st.Regions[0].Share > 0.55 {
		t.Errorf("%d %+v", code, st)
	}
	total := uint64(0)
	for _, rs := range st.Regions {
		total += rs.Ended["answered"]
		if rs.Requests > 0 && (rs.P50Millis <= 0 || rs.P99Millis < rs.P50Millis) {
			t.Errorf("%+v", rs)
		}
	}
	if total != 10 {
		t.Errorf("%d answers", total)
	}
	if code, _ := get("POST", StatusPath); code != 405 {
		t.Errorf("POST: %d", code)
	}
	if code, _ := get("GET", "/"); code != 404 {
		t.Errorf("elsewhere: %d", code)
	}
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header  { return r.header }
func (r *recorder) WriteHeader(code int) { r.status = code }
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = 200
	}
	return r.body.Write(p)
}
