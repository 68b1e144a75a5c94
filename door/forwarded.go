package door

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// What a Region that forwards a call says beside it. They mean something on the
// peers' listener only: at the door they are headers like any others.
const (
	headerEpoch     = "Everpoint-Forwarded-Epoch"   // the sender's epoch of control; marks a forwarded call
	headerSource    = "Everpoint-Forwarded-For"     // the client's address; empty if unknown
	headerProto     = "Everpoint-Forwarded-Proto"   // "https" or "http", as the client came
	headerRequestID = "Everpoint-Forwarded-Request" // the request id
	headerHeader    = "Everpoint-Forwarded-Header"  // once per field the client sent: "Name: value"

	// headerServed is on every answer of a door to a forwarded call, and names its
	// Region: without it, the answer is of something before the door.
	headerServed = "Everpoint-Served"
)

// requestIDBytes is the length of a request id, a UUID.
const requestIDBytes = 36

// IsForwarded reports whether a request on the peers' listener is a call that a
// Region forwards; see [Door.Forwarded]. It proves nothing.
func IsForwarded(r *http.Request) bool { return len(r.Header[headerEpoch]) > 0 }

// Forwarded returns the handler of the calls that other Regions forward to this
// one because control is here. It serves them as if they had come in at the
// door, with the client's own address, headers and signature, and never forwards
// them again: if control is not here, or its epoch is not the sender's, the
// answer is 503.
//
// It must be reachable only where peers prove who they are. The peer function
// returns the Region that a connection's certificate names, or an error, which
// is answered 403; it has to refuse what is no Region of the group, such as its
// witness.
//
// A forwarded call has the path that its client signed, which can be any. Look
// for it before a mux does, which would clean the path:
//
//	forwarded := d.Forwarded(peer)
//	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		if door.IsForwarded(r) {
//			forwarded.ServeHTTP(w, r)
//			return
//		}
//		mux.ServeHTTP(w, r)
//	})
//
// The client's headers travel within headers, so the server's MaxHeaderBytes
// should be twice the door's HeaderBytesMax. Stop the server after the door: Run
// refuses new calls, waits for those in progress, and then returns.
func (d *Door) Forwarded(peer func(*http.Request) (region string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		region, err := peer(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		from, header, err := readHandover(r.Header)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		from.region = region
		if !d.inside.TryRLock() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		defer d.inside.RUnlock()
		if d.draining.Load() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		if r.ProtoMajor > 1 { // of a stream: that of a connection would outlast the call
			_ = http.NewResponseController(w).SetWriteDeadline(
				time.Now().Add(d.cfg.BodyTimeout + d.cfg.OperationTimeout + d.cfg.WriteTimeout))
		}
		original := r.WithContext(r.Context())
		original.Header = header
		w.Header().Set(headerServed, d.cfg.Region)
		d.answer(w, original, from)
	})
}

// handover is what one Region tells another of a call that it forwards.
type handover struct {
	region    string     // that forwards, as its certificate says; not written
	source    netip.Addr // of the client; invalid if unknown
	tls       bool       // the client came by TLS
	requestID string
	epoch     uint64
}

// write puts the handover and the client's headers into those of the request
// that forwards it.
func (h handover) write(to, client http.Header) {
	source, proto := "", "http"
	if h.source.IsValid() {
		source = h.source.String()
	}
	if h.tls {
		proto = "https"
	}
	to[headerEpoch] = []string{strconv.FormatUint(h.epoch, 10)}
	to[headerSource] = []string{source}
	to[headerProto] = []string{proto}
	to[headerRequestID] = []string{h.requestID}
	var fields []string
	for name, values := range client {
		for _, value := range values {
			fields = append(fields, name+": "+value)
		}
	}
	to[headerHeader] = fields
}

// readHandover reads what write has written.
func readHandover(h http.Header) (from *handover, client http.Header, err error) {
	from, client = &handover{}, make(http.Header, len(h[headerHeader]))
	for _, name := range []string{headerEpoch, headerSource, headerProto, headerRequestID} {
		if len(h[name]) != 1 {
			return nil, nil, errors.New("a forwarded call needs one " + name)
		}
	}
	if from.epoch, err = strconv.ParseUint(h[headerEpoch][0], 10, 64); err != nil {
		return nil, nil, errors.New(headerEpoch + " is not a number")
	}
	if source := h[headerSource][0]; source != "" {
		if from.source, err = netip.ParseAddr(source); err != nil {
			return nil, nil, errors.New(headerSource + " is not an address")
		}
	}
	switch h[headerProto][0] {
	case "https":
		from.tls = true
	case "http":
	default:
		return nil, nil, errors.New(headerProto + " is neither https nor http")
	}
	if from.requestID = text(h[headerRequestID][0]); len(from.requestID) != requestIDBytes {
		return nil, nil, errors.New(headerRequestID + " is not a request id")
	}
	for _, field := range h[headerHeader] {
		name, value, ok := strings.Cut(field, ":")
		if name == "" || !ok {
			return nil, nil, errors.New(headerHeader + " is not like \"Name: value\"")
		}
		client[name] = append(client[name], strings.TrimPrefix(value, " "))
	}
	return from, client, nil
}

// admit returns nil if a forwarded call is served here: control is here, and
// sender and receiver mean the same epoch of it. A sender that is ahead knows of
// a move that this Region has not heard of yet.
func (h *handover) admit(ctx context.Context, d *Door) error {
	if d.cfg.Control == nil {
		return aws.Unavailable("The Region %s has no control: it is in no group.", d.cfg.Region)
	}
	seat, err := d.cfg.Control.Seat(ctx)
	switch {
	case err != nil:
		return err
	case h.epoch < seat.Epoch:
		return aws.Unavailable("Control moved while the Region %s forwarded the call: it is with %s since epoch %d. The call was not carried out. Please retry.",
			h.region, seat.Region, seat.Epoch)
	case h.epoch > seat.Epoch:
		return aws.Unavailable("Control moved, and the Region %s has not heard of epoch %d yet. The call was not carried out. Please retry.",
			d.cfg.Region, h.epoch)
	case seat.URL != "":
		return aws.Unavailable("Control is with the Region %s, not with %s. The call was not carried out. Please retry.", seat.Region, d.cfg.Region)
	}
	return nil
}
