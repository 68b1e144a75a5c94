package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/aws"
)

// Tokens seals the cursors of lists into page tokens: opaque, bound to the list
// they came from, and short-lived. Nodes that share a key read each other's
// tokens. It is safe for concurrent use.
type Tokens struct {
	aead cipher.AEAD
	now  func() time.Time
}

const (
	tokenLife     = 24 * time.Hour
	tokenVersion  = 1
	tokenBytesMax = 2048 // of a token, as text
	cursorMax     = 1024 // of a cursor
)

// NewTokens makes tokens with a secret key of any length; it panics if the key
// has less than 16 bytes.
func NewTokens(key []byte, now func() time.Time) *Tokens {
	if len(key) < 16 {
		panic("wire: the key for page tokens has less than 16 bytes")
	}
	k := sha256.Sum256(append([]byte("everpoint page tokens 1\x00"), key...))
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(fmt.Sprintf("wire: page tokens: %v", err)) // a 32-byte key cannot fail
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(fmt.Sprintf("wire: page tokens: %v", err))
	}
	return &Tokens{aead: aead, now: now}
}

// Seal returns a token for a cursor. The scope says which list of whom it
// belongs to: account, operation, parent and filters. An empty cursor gives an
// empty token: there is no next page. It panics on a cursor above 1 KiB, which
// is a defect of the room that made it.
func (t *Tokens) Seal(scope, cursor string) string {
	if cursor == "" {
		return ""
	}
	if len(cursor) > cursorMax {
		panic(fmt.Sprintf("wire: a page cursor of %d bytes", len(cursor)))
	}
	nonce := make([]byte, t.aead.NonceSize(), t.aead.NonceSize()+8+len(cursor)+t.aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		panic(fmt.Sprintf("wire: read randomness: %v", err))
	}
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(cursor)), uint64(t.now().Add(tokenLife).Unix()))
	plain = append(plain, cursor...)
	sealed := t.aead.Seal(nonce, nonce, plain, sealedScope(scope))
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// Open returns the cursor of a token that Seal made for the same scope within
// the last 24 hours; the empty token, for the first page, gives the empty
// cursor. Anything else is a fault that names the member. Which of bad, foreign
// and expired it was is not told apart, save expiry.
func (t *Tokens) Open(scope, token string) (cursor string, err error) {
	if token == "" {
		return "", nil
	}
	if len(token) > tokenBytesMax {
		return "", badToken()
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) < t.aead.NonceSize() {
		return "", badToken()
	}
	n := t.aead.NonceSize()
	plain, err := t.aead.Open(nil, sealed[:n], sealed[n:], sealedScope(scope))
	if err != nil || len(plain) < 8 {
		return "", badToken()
	}
	if t.now().Unix() >= int64(binary.BigEndian.Uint64(plain)) {
		return "", aws.InvalidMember("NextToken", "NextToken: the page token has expired")
	}
	return string(plain[8:]), nil
}

func sealedScope(scope string) []byte {
	return append([]byte{tokenVersion}, scope...)
}

func badToken() error {
	return aws.InvalidMember("NextToken", "NextToken: the page token is not valid for this request")
}

// The page sizes of operations that do not say otherwise. Source: spec of page
// sizes in engagement 0.
const (
	PageSizeDefault = 100
	PageSizeMax     = 500
)

// Page reads a page size as Pinpoint's queries carry it, text or nothing: 100
// if absent, at most 500 however much is asked for. What is not a positive
// number is a fault that names it.
func Page(size *string) (int, error) {
	if size == nil || *size == "" {
		return PageSizeDefault, nil
	}
	n, err := strconv.Atoi(*size)
	if err != nil || n < 1 {
		return 0, aws.InvalidMember("PageSize", "PageSize: expected a number from 1 to %d", PageSizeMax)
	}
	return min(n, PageSizeMax), nil
}
