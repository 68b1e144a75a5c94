package aws

import (
	"errors"
	"fmt"
)

// Kind says what sort of thing went wrong, independent of any API's own names.
type Kind uint8

// The kinds a room may return. The wire maps each to the called service's
// modelled exception; see the table in aws/wire.
const (
	KindInternal         Kind = iota // a defect or an unexpected failure; carries no detail to the caller
	KindInvalid                      // the request is wrong; the message names the member
	KindNotFound                     // the named resource does not exist
	KindConflict                     // the resource's state forbids it, or it exists already
	KindForbidden                    // the product forbids it (suspended, not allowed in this state)
	KindTooLarge                     // body, batch or document above its bound
	KindThrottled                    // too many requests
	KindQuota                        // a resource limit is reached
	KindMethodNotAllowed             // the path exists, the verb does not
	KindUnknownOperation             // no such operation
	KindNotImplemented               // modelled, but not built yet
	KindUnavailable                  // the node cannot serve it now; retrying may help

	// Authentication and authorisation. Source: access 1.7 and 1.9.

	KindMissingToken        // nothing signed
	KindIncompleteSignature // a signature that cannot be parsed
	KindUnknownKey          // key unknown, inactive, or its token wrong
	KindBadSignature        // mismatch, wrong scope, or clock outside the window
	KindExpiredToken        // the session is over
	KindRequestExpired      // a presigned request has lapsed
	KindDenied              // policy does not allow it
)

// A Fault is an error that may be told to the caller. Anything that is not a
// Fault (or a generated exception) leaves the door as an internal error with a
// request id and no detail.
type Fault struct {
	Kind    Kind
	Message string // one sentence for the caller; never holds secrets
	Member  string // the offending input member, as a path ("Endpoint.Metrics.x"); may be empty
}

// Error returns the message, so that logs and callers read the same sentence.
func (f *Fault) Error() string { return f.Message }

// Is lets errors.Is compare faults by kind: errors.Is(err, aws.NotFound("")).
func (f *Fault) Is(target error) bool {
	t, ok := target.(*Fault)
	return ok && t.Kind == f.Kind
}

func fault(k Kind, format string, args []any) *Fault {
	if len(args) == 0 {
		return &Fault{Kind: k, Message: format}
	}
	return &Fault{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// Invalid reports a wrong request; name the member in the sentence.
func Invalid(format string, args ...any) *Fault { return fault(KindInvalid, format, args) }

// InvalidMember reports a wrong member by its path.
func InvalidMember(member, format string, args ...any) *Fault {
	f := fault(KindInvalid, format, args)
	f.Member = member
	return f
}

// NotFound reports a resource that does not exist; say which.
func NotFound(format string, args ...any) *Fault { return fault(KindNotFound, format, args) }

// Conflict reports a request that the resource's present state forbids.
func Conflict(format string, args ...any) *Fault { return fault(KindConflict, format, args) }

// Forbidden reports what the product itself forbids, whatever the policies say.
func Forbidden(format string, args ...any) *Fault { return fault(KindForbidden, format, args) }

// Denied reports what policy does not allow.
func Denied(format string, args ...any) *Fault { return fault(KindDenied, format, args) }

// TooLarge reports a body, batch or document above its bound.
func TooLarge(format string, args ...any) *Fault { return fault(KindTooLarge, format, args) }

// Throttled reports a request above its rate.
func Throttled(format string, args ...any) *Fault { return fault(KindThrottled, format, args) }

// Quota reports a resource limit that is reached.
func Quota(format string, args ...any) *Fault { return fault(KindQuota, format, args) }

// Unavailable reports that the node cannot serve this now: a full disk, a lost
// database, a missing quorum. Retrying later, or elsewhere, may help.
func Unavailable(format string, args ...any) *Fault { return fault(KindUnavailable, format, args) }

// NotImplemented reports a modelled operation that is not built yet.
func NotImplemented(format string, args ...any) *Fault {
	return fault(KindNotImplemented, format, args)
}

// KindOf returns the kind of the first Fault in err's chain, or KindInternal.
func KindOf(err error) Kind {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Kind
	}
	return KindInternal
}
