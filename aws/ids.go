package aws

import (
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"
)

// IDs makes identifiers from a source of randomness that a test can seed.
// It is safe for concurrent use.
type IDs struct {
	mu  sync.Mutex
	src io.Reader
}

// NewIDs returns a generator over src: crypto/rand.Reader in a server, a seeded
// reader in a test.
func NewIDs(src io.Reader) *IDs { return &IDs{src: src} }

func (g *IDs) bytes() (b [16]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := io.ReadFull(g.src, b[:]); err != nil {
		// Without randomness no identifier is safe to hand out.
		panic(fmt.Sprintf("aws: read randomness: %v", err))
	}
	return b
}

// Hex returns 32 lower-case hex digits, the form of app, campaign, segment and
// job ids. Source: engagement 0.
func (g *IDs) Hex() string {
	b := g.bytes()
	return hex.EncodeToString(b[:])
}

// UUID returns a random (version 4) UUID, the form of request and message ids.
func (g *IDs) UUID() string {
	b := g.bytes()
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:36], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// Timestamp writes t as the Pinpoint API does: ISO 8601, UTC, milliseconds.
// Source: engagement 0.
func Timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// ParseTimestamp reads an ISO 8601 instant with or without a fraction.
func ParseTimestamp(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, Invalid("%q is not an ISO 8601 instant", s)
}
