package sim

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
)

// overtaking is a transport whose requests overtake each other while
// [Network.Shuffle] says so. A connection keeps its bytes in order, so this is done
// to whole requests, as two connections and a lost packet do it.
type overtaking struct {
	n    *Network
	ctx  context.Context // of the process
	next http.RoundTripper
}

func (o overtaking) RoundTrip(req *http.Request) (*http.Response, error) {
	there, back, late := o.n.holds()
	if there == 0 && back == 0 {
		return o.next.RoundTrip(req)
	}
	if late && strings.HasPrefix(req.URL.Path, quorum.Path+"messages") {
		return nil, o.late(req, there)
	}
	if err := pause(req.Context(), there); err != nil {
		return nil, err
	}
	resp, err := o.next.RoundTrip(req)
	if err == nil && pause(req.Context(), back) != nil {
		_ = resp.Body.Close()
		return nil, req.Context().Err()
	}
	return resp, err
}

// late tells the sender that the connection is lost, and delivers the request
// afterwards. The voters' messages may come late, twice or never.
func (o overtaking) late(req *http.Request, hold time.Duration) error {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	_ = req.Body.Close()
	go func() {
		if pause(o.ctx, hold) != nil {
			return
		}
		again := req.Clone(o.ctx)
		again.Body = io.NopCloser(bytes.NewReader(body))
		if resp, err := o.next.RoundTrip(again); err == nil {
			_ = resp.Body.Close()
		}
	}()
	return syscall.ECONNRESET
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CloseIdleConnections is what the client calls when its process ends.
func (o overtaking) CloseIdleConnections() {
	if t, ok := o.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
