package aws

import (
	"context"
	"net/netip"
)

// Caller is who makes a request, as the door established it.
type Caller struct {
	Account     string     // 12 digits
	Region      string     // the Region that processes the request
	Principal   string     // ARN of the user, session or root
	AccessKeyID string     // the key that signed
	SourceIP    netip.Addr // the peer, or what a trusted hop said of it
	RequestID   string     // also in the response header x-amzn-RequestId

	// InvocationID is the header amz-sdk-invocation-id: AWS SDKs keep it equal
	// across the retries of one call. Empty when the client sent none.
	InvocationID string
	// BodyHash is the hex SHA-256 of the request's body as it was received.
	BodyHash string
}

type (
	callerKey struct{}
	epochKey  struct{}
)

// WithCaller returns a context that carries c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that the door put into ctx; the zero Caller if none.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// WithControlEpoch returns a context of a call that was admitted at an epoch of
// control: what it writes is written at that epoch or not at all.
func WithControlEpoch(ctx context.Context, epoch uint64) context.Context {
	return context.WithValue(ctx, epochKey{}, epoch)
}

// WithoutControlEpoch returns a context for work that a call leaves behind, which
// is to be done whoever has control by then.
func WithoutControlEpoch(ctx context.Context) context.Context {
	return context.WithValue(ctx, epochKey{}, nil)
}

// ControlEpochFrom returns the epoch of control at which the call of ctx was
// admitted; ok is false for what is not bound to one.
func ControlEpochFrom(ctx context.Context) (epoch uint64, ok bool) {
	epoch, ok = ctx.Value(epochKey{}).(uint64)
	return epoch, ok
}
