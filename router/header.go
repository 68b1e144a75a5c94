package router

import (
	"net"
	"net/http"
	"strings"
)

// headerRegion names the Region that answered.
const headerRegion = "Everpoint-Region"

// hopByHop are the headers that speak of one connection only. Source: RFC 9110
// 7.6.1, and Proxy-Connection, which was never standard.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// forward returns the headers as a Region should get them: every value as it
// came, less those of the connection, and with the peer added to
// X-Forwarded-For. What a client wrote there itself proves nothing, but it is
// the Regions that know which proxies they trust.
func forward(r *http.Request) http.Header {
	h := make(http.Header, len(r.Header)+2)
	for name, values := range r.Header {
		if !hopByHop[name] {
			h[name] = values
		}
	}
	dropNamed(h, r.Header["Connection"])
	if peer, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		hops := append(append(make([]string, 0, 4), h["X-Forwarded-For"]...), peer)
		h["X-Forwarded-For"] = []string{strings.Join(hops, ", ")}
	}
	if _, has := h["User-Agent"]; !has {
		h["User-Agent"] = nil // or the transport adds its own
	}
	if length := r.Header["Content-Length"]; r.ContentLength == 0 && len(length) > 0 {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch: // the transport writes it
		default:
			// It writes none for other methods. A client that sent one may have signed
			// it; under this name the transport does not take it for its own.
			h["content-length"] = length
		}
	}
	return h
}

// backward copies an answer's headers to the client, less those of the
// connection, and names the Region.
func backward(to http.Header, resp *http.Response, reg *region) {
	for name, values := range resp.Header {
		if !hopByHop[name] {
			to[name] = values
		}
	}
	dropNamed(to, resp.Header["Connection"])
	to[headerRegion] = reg.named
	if _, has := to["Content-Type"]; !has {
		to["Content-Type"] = nil // or the server guesses one
	}
}

// dropNamed removes what Connection fields name.
func dropNamed(h http.Header, fields []string) {
	for _, field := range fields {
		for name := range strings.SplitSeq(field, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" {
				delete(h, name)
			}
		}
	}
}
