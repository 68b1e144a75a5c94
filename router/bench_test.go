package router

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws/sigv4"
)

// BenchmarkRouter puts the same signed calls to the Regions directly and through
// the router, in turns of a quarter second so that both see the same machine, and
// prints the throughput of each and the ratio.
//
// The Regions verify the signature, as doors do, and answer with a document: less
// than a real Region does for any call, so that a real ratio is better than this.
func BenchmarkRouter(b *testing.B) {
	for _, mode := range []struct {
		name string
		work int // hashes of 1 KiB, about a microsecond each, that stand for a room's work
	}{{"signature_only", 0}, {"with_a_room", 100}} {
		b.Run(mode.name, func(b *testing.B) { benchmark(b, mode.work) })
	}
}

func benchmark(b *testing.B, work int) {
	s := newSite(b, 2, Config{})
	document := bytes.Repeat([]byte("x"), 1024)
	for _, reg := range s.regions {
		reg.do(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			path, query, _ := target(r)
			if _, err := reg.verifier.Verify(r.Context(), testKeys{}, &sigv4.Request{
				Method: r.Method, RawPath: path, RawQuery: query, Host: r.Host, Header: r.Header, BodySHA256: sha256.Sum256(body), TLS: true,
				Now: time.Now(), Regions: func(string) bool { return true }, Services: []string{"mobiletargeting"},
			}); err != nil {
				b.Error(err)
			}
			for range work {
				sha256.Sum256(document)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(document[:300])
		})
	}
	const clients = 16
	body := bytes.Repeat([]byte("y"), 600)
	run := func(base func(i int) string, limit time.Duration) (calls int64, took time.Duration) {
		var n atomic.Int64
		began := time.Now()
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				for i := c; time.Since(began) < limit; i += clients {
					r, _ := http.NewRequest("PUT", base(i)+fmt.Sprintf("/v1/apps/A/endpoints/%d", i), bytes.NewReader(body))
					_ = sigv4.Sign(r, sha256.Sum256(body), testCredentials, "eu-1-1", "mobiletargeting", time.Now())
					resp, err := s.h1.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != 200 {
						b.Errorf("status %d", resp.StatusCode)
						return
					}
					n.Add(1)
				}
			})
		}
		all.Wait()
		return n.Load(), time.Since(began)
	}
	direct := func(i int) string { return s.regions[i%2].srv.URL }
	routed := func(int) string { return s.front.URL }
	run(direct, 100*time.Millisecond)
	run(routed, 100*time.Millisecond)
	var d, r float64 // calls a second, summed over the turns
	turns := 0
	for b.Loop() {
		n, took := run(direct, 250*time.Millisecond)
		d += float64(n) / took.Seconds()
		n, took = run(routed, 250*time.Millisecond)
		r += float64(n) / took.Seconds()
		turns++
	}
	b.ReportMetric(d/float64(turns), "direct/s")
	b.ReportMetric(r/float64(turns), "routed/s")
	b.ReportMetric(r/d, "ratio")
}
