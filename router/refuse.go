package router

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
)

// lingerTimeout is how long the server reads on after a body was refused, so
// that a client which is still sending comes to read the answer.
const lingerTimeout = time.Second

// refuse answers in the router's own name, in the protocol the caller speaks.
// status overrides the fault's own, if it is not 0: 502 says that a Region may
// have executed the call, 504 that it may be executing it still, 503 that none
// has. unread says that some of the body may be unread still.
func (rt *Router) refuse(w http.ResponseWriter, r *http.Request, status int, unread bool, fault *aws.Fault) {
	path, query, _ := target(r)
	req := &wire.Request{Method: r.Method, RawPath: path, RawQuery: query, Header: r.Header}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		req.Body = []byte("Action=unread") // names the protocol; the body stays unread
	}
	match, _ := rt.mux.Find(req)
	resp := match.Fail(rt.ids.UUID(), fault)
	or(&status, resp.Status)
	h := w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	h["Date"] = []string{rt.now().UTC().Format(http.TimeFormat)}
	h["Content-Length"] = []string{strconv.Itoa(len(resp.Body))}
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	ctrl := http.NewResponseController(w)
	if unread {
		if r.ProtoMajor == 1 { // HTTP/2 ends the stream, and keeps the connection
			h["Connection"] = []string{"close"}
		}
		_ = ctrl.SetReadDeadline(time.Now().Add(lingerTimeout))
	}
	_ = ctrl.SetWriteDeadline(time.Now().Add(rt.cfg.Limits.StreamTimeout))
	w.WriteHeader(status)
	_, _ = w.Write(resp.Body) // an error means that the client has gone
}
