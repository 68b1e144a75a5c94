package door

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/everpoint/everpoint/aws/wire"
)

// A Record tells what became of one request. It never holds a body, a query or
// a credential's secret.
type Record struct {
	Time      time.Time // of arrival
	Duration  time.Duration
	RequestID string

	// Who. Principal and Account are proven and empty if the request was not
	// authenticated; AccessKeyID is then only a claim.
	Account, Principal, AccessKeyID string

	// What. Service is the signing name and Action the policies' name of the
	// operation, Resource its ARN or "*"; each is empty as far as it was not
	// found out.
	Service, Action, Resource string

	// From where.
	SourceIP  netip.Addr
	UserAgent string // at most 256 bytes
	Host      string // as sent, at most 256 bytes
	TLS       bool

	// SignedRegion is the Region the caller signed for; Region is ours.
	Region, SignedRegion string

	// ForwardedTo is the control Region that was to serve the call instead of
	// this one, and which keeps a record of its own with the same request id;
	// ForwardedBy is the Region at whose door the call came in, if it was not ours.
	// Both are empty for what came in here and was served here.
	ForwardedTo, ForwardedBy string

	Status    int    // of the response
	ErrorCode string // the exception's name on the wire; empty on success
}

// Recorder keeps audit records.
type Recorder interface {
	// Record is called once per request to the APIs, after the response is
	// complete and before it is sent, and must be quick. Requests that were not
	// authenticated are among them. The context has not ended, even if the
	// client has gone.
	Record(ctx context.Context, r Record)
}

// errorCode reads the exception's name off a response, where its protocol
// writes it: a header, "__type" in JSON, or <Code> in XML.
func errorCode(resp *wire.Response) string {
	if resp.Status < http.StatusBadRequest {
		return ""
	}
	if code := resp.Header.Get("X-Amzn-Errortype"); code != "" {
		code, _, _ = strings.Cut(code, ":")
		return code
	}
	if _, rest, ok := bytes.Cut(resp.Body, []byte("<Code>")); ok {
		code, _, _ := bytes.Cut(rest, []byte("</Code>"))
		return string(code)
	}
	var typed struct {
		Type string `json:"__type"`
	}
	if json.Unmarshal(resp.Body, &typed) != nil {
		return ""
	}
	return typed.Type[strings.LastIndexByte(typed.Type, '#')+1:]
}
