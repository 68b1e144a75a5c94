package router

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// dialTimeout and handshakeTimeout bound how long a Region may take to accept a
// connection: one that does not within them is better gone around.
const (
	dialTimeout      = 2 * time.Second
	handshakeTimeout = 2 * time.Second
)

// NewTransport returns what the router sends requests through: HTTP/1.1 over
// pooled connections, so that each request has a connection of its own and none
// suffers from another's. A Region's certificate is verified against the host in
// its URL, as trust says; nil means the system's roots.
func NewTransport(trust *tls.Config, l Limits) *http.Transport {
	l.settle()
	trust = trust.Clone()
	if trust == nil {
		trust = &tls.Config{}
	}
	trust.MinVersion = max(trust.MinVersion, tls.VersionTLS12)
	if trust.ClientSessionCache == nil {
		trust.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        trust,
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConns:           regionsMax * l.RequestsMax,
		MaxIdleConnsPerHost:    l.RequestsMax,
		IdleConnTimeout:        60 * time.Second, // before the doors would close them
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		WriteBufferSize:        16 << 10, // a usual request is one write
		ReadBufferSize:         16 << 10,
		Protocols:              protocols,
	}
}

// Server returns a server for the router's front with its limits set: HTTP/1.1
// and HTTP/2. The caller gives it certificates and a listener.
func (rt *Router) Server(certificates *tls.Config) *http.Server {
	l := rt.cfg.Limits
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:                      rt,
		TLSConfig:                    certificates,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            l.HeaderTimeout,
		IdleTimeout:                  l.IdleTimeout,
		MaxHeaderBytes:               l.HeaderBytesMax,
		ErrorLog:                     slog.NewLogLogger(rt.log.Handler(), slog.LevelDebug),
		Protocols:                    protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: l.StreamsMax,
			SendPingTimeout:      l.IdleTimeout,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     l.StreamTimeout,
		},
	}
}
