package door

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// FuzzStrangers sends what a stranger may send: whatever it is, the answer is
// complete, refuses, and is recorded.
func FuzzStrangers(f *testing.F) {
	f.Add("GET", "/v1/apps/a/note", "", "", "", "", "")
	f.Add("POST", "/", "application/x-www-form-urlencoded", "gzip", "", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e", "Action=PutNote&Version=2010-05-08")
	f.Add("POST", "/?X-Amz-Signature=%zz&Action=PutNote", "application/x-amz-json-1.0", "", "PinpointSMSVoiceV2.PutNote", "Bearer x", "{")
	f.Add("OPTIONS", "*", "text/plain", "br", ".", "", "\x1f\x8b")
	f.Add("GET", "http://h/v1/../%2e%2e/?", "", "identity", "a.b.c", "AWS4-HMAC-SHA256", "")
	door := newDoor(f, Config{BodyBytesMax: 1 << 12})
	handler := door.door.Handler()
	f.Fuzz(func(t *testing.T, method, line, contentType, encoding, target, authorization, body string) {
		r := &http.Request{
			Method: method, RequestURI: line, URL: &url.URL{Path: "/v1"}, Host: "h", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody, RemoteAddr: "192.0.2.1:1", ContentLength: int64(len(body)),
		}
		if body != "" {
			r.Body = io.NopCloser(strings.NewReader(body))
		}
		for name, value := range map[string]string{"Content-Type": contentType, "Content-Encoding": encoding, "X-Amz-Target": target, "Authorization": authorization, "X-Forwarded-For": authorization} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if strings.Contains(body, "OpenNote") || strings.Contains(line, "OpenNote") {
			return // the one operation that is open to strangers
		}
		before := len(door.records.all)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 400 || w.Code == 500 || len(w.Header().Get("X-Amzn-Requestid")) != 36 || w.Body.Len() == 0 {
			t.Fatalf("answered %d %v %q", w.Code, w.Header(), w.Body)
		}
		if len(door.records.all) != before+1 || door.records.all[before].Principal != "" || door.records.all[before].ErrorCode == "" {
			t.Fatalf("recorded %+v", door.records.all[before:])
		}
		door.records.all = door.records.all[:0]
		if held := door.door.bodiesBytes.Load(); held != 0 {
			t.Fatalf("%d bytes are still held", held)
		}
	})
}

// FuzzHandover reads what a peer may send beside a forwarded call: whatever it
// is, it is refused or means what writing it again says.
func FuzzHandover(f *testing.F) {
	id := "6bd0a4f5-0000-4000-8000-000000000001"
	f.Add("7", "192.0.2.1", "https", id, "Host: a", "X: a: b")
	f.Add("18446744073709551615", "", "http", id, "X:", "X:  two")
	f.Add("-1", "fe80::1%eth0", "gopher", "", ":", "no colon")
	f.Fuzz(func(t *testing.T, epoch, source, proto, requestID, one, other string) {
		sent := http.Header{
			headerEpoch: {epoch}, headerSource: {source}, headerProto: {proto}, headerRequestID: {requestID}, headerHeader: {one, other},
		}
		from, client, err := readHandover(sent)
		if err != nil {
			return
		}
		again := http.Header{}
		from.write(again, client)
		twice, same, err := readHandover(again)
		if err != nil || *twice != *from || !reflect.DeepEqual(same, client) {
			t.Errorf("read %+v with %q, and again %+v with %q: %v", from, client, twice, same, err)
		}
	})
}
