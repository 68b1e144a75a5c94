package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// A SecretKey is a secret access key or a session token. It prints, logs and
// marshals as "[redacted]"; convert it to string to use it.
type SecretKey string

const redacted = "[redacted]"

// Format writes "[redacted]" for every verb. It implements fmt.Formatter.
func (SecretKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// String returns "[redacted]".
func (SecretKey) String() string { return redacted }

// LogValue keeps the secret out of logs.
func (SecretKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the secret out of documents.
func (SecretKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// A Secret is what the verifier needs to know of an access key.
type Secret struct {
	Key     SecretKey // the secret access key
	Expires time.Time // when the session ends; zero for a long-term key
}

// Keys finds the secret of an access key.
type Keys interface {
	// Secret returns the secret of the key, which must be active. It also judges
	// the session token ("" if none was sent): a temporary key needs its own, a
	// long-term key has none. For every one of these failures it returns the same
	// fault, [UnknownKey], and takes the same time; a session that is over is
	// returned with its Expires. Other errors mean that the lookup failed.
	// Source: access 1.3 step 5.
	Secret(ctx context.Context, accessKeyID string, sessionToken SecretKey) (Secret, error)
}

// signingKey is a key derived for one scope, and the secret it came from.
type signingKey struct {
	secret SecretKey
	key    [sha256.Size]byte
}

type signingKeyID struct{ accessKeyID, date, region, service string }

// signingKeys caches derived keys in two generations: when the younger is full
// it becomes the older, and the older is dropped. A key that is used survives.
// An entry whose secret is no longer the key's own is derived anew.
type signingKeys struct {
	max int // of one generation

	mu      sync.RWMutex
	younger map[signingKeyID]signingKey
	older   map[signingKeyID]signingKey
}

func (k *signingKeys) get(accessKeyID string, scope *Scope, secret SecretKey) [sha256.Size]byte {
	id := signingKeyID{accessKeyID, scope.Date, scope.Region, scope.Service}
	k.mu.RLock()
	found, young := k.younger[id]
	ok := young
	if !young {
		found, ok = k.older[id]
	}
	k.mu.RUnlock()
	// Both secrets are our own, so that the time of the comparison tells nobody anything.
	ok = ok && found.secret == secret
	if ok && young {
		return found.key
	}
	if !ok {
		found = signingKey{secret, derive(secret, scope.Date, scope.Region, scope.Service)}
	}
	// The strings may belong to a request's headers: keep copies.
	id = signingKeyID{strings.Clone(id.accessKeyID), strings.Clone(id.date), strings.Clone(id.region), strings.Clone(id.service)}
	k.mu.Lock()
	if len(k.younger) >= k.max {
		k.older, k.younger = k.younger, make(map[signingKeyID]signingKey)
	}
	delete(k.older, id)
	k.younger[id] = found
	k.mu.Unlock()
	return found.key
}

func (k *signingKeys) forget(accessKeyID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, generation := range []map[signingKeyID]signingKey{k.younger, k.older} {
		for id := range generation {
			if id.accessKeyID == accessKeyID {
				delete(generation, id)
			}
		}
	}
}

// derive computes the signing key of one scope. Source: access 1.6.
func derive(secret SecretKey, date, region, service string) (key [sha256.Size]byte) {
	k := append([]byte("AWS4"), secret...)
	for _, part := range []string{date, region, service, terminator} {
		mac := hmac.New(sha256.New, k)
		io.WriteString(mac, part)
		k = mac.Sum(nil)
	}
	copy(key[:], k)
	return key
}
