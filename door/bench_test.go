package door

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkAnswer is one signed write with a 1 KB body through the whole door,
// without the network.
func BenchmarkAnswer(b *testing.B) {
	f := newDoor(b, Config{})
	d := dialects[0]
	r, sent := d.build("http://h", "a", strings.Repeat("x", 1024))
	sign(r, sent, d.service)
	h := f.door.Handler()
	b.ReportAllocs()
	for b.Loop() {
		in := httptest.NewRequestWithContext(b.Context(), "PUT", r.URL.RequestURI(), strings.NewReader(string(sent)))
		in.Host, in.Header = r.Host, r.Header
		w := httptest.NewRecorder()
		h.ServeHTTP(w, in)
		if w.Code != 200 {
			b.Fatalf("answered %d %s", w.Code, w.Body)
		}
		f.records.all = f.records.all[:0]
	}
}
