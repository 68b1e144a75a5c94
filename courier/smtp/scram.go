package smtp

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The iteration counts a server may ask for. Fewer would make the proof cheap
// to guess (RFC 7677 section 4); more would let a server burn our time.
const (
	scramIterationsMin = 4096
	scramIterationsMax = 1 << 20
)

var errScramUnproven = errors.New("server accepted SCRAM without proving that it knows the password")

// scram is the client's side of one SCRAM-SHA-256 exchange, without channel
// binding. User and password are taken as prepared UTF-8 (RFC 4013 is left to
// whoever sets them). Source: RFC 5802, RFC 7677.
type scram struct {
	user, password, nonce string

	auth   string // the AuthMessage, once final was called
	salted []byte
}

func scramNonce() string { return rand.Text() }

func (x *scram) bare() string {
	return "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(x.user) + ",r=" + x.nonce
}

// first is the client's first message.
func (x *scram) first() string { return "n,," + x.bare() }

// final answers the server's first message.
func (x *scram) final(challenge string) (string, error) {
	fields := strings.Split(challenge, ",")
	if len(fields) < 3 || !strings.HasPrefix(fields[0], "r=") || !strings.HasPrefix(fields[1], "s=") || !strings.HasPrefix(fields[2], "i=") {
		return "", errors.New("SCRAM challenge is not r=,s=,i=")
	}
	nonce := fields[0][2:]
	if !strings.HasPrefix(nonce, x.nonce) || len(nonce) == len(x.nonce) {
		return "", errors.New("SCRAM challenge does not extend our nonce")
	}
	salt, err := base64.StdEncoding.DecodeString(fields[1][2:])
	if err != nil || len(salt) == 0 {
		return "", errors.New("SCRAM challenge has no salt in base64")
	}
	n, err := strconv.Atoi(fields[2][2:])
	if err != nil || n < scramIterationsMin || n > scramIterationsMax {
		return "", fmt.Errorf("SCRAM challenge asks for iterations outside %d to %d", scramIterationsMin, scramIterationsMax)
	}
	x.salted, err = pbkdf2.Key(sha256.New, x.password, salt, n, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("SCRAM key: %w", err)
	}
	unproven := "c=biws,r=" + nonce
	x.auth = x.bare() + "," + challenge + "," + unproven

	key := mac(x.salted, "Client Key")
	stored := sha256.Sum256(key)
	for i, b := range mac(stored[:], x.auth) {
		key[i] ^= b
	}
	return unproven + ",p=" + base64.StdEncoding.EncodeToString(key), nil
}

// verify checks the server's proof.
func (x *scram) verify(final string) error {
	v, _, _ := strings.Cut(final, ",")
	got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(v, "v="))
	if err != nil || !strings.HasPrefix(v, "v=") || !hmac.Equal(got, mac(mac(x.salted, "Server Key"), x.auth)) {
		return errScramUnproven
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
