package store

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Keys seals what the engine stores and makes the keyed hashes it is found by.
// Create it with LoadKeys or NewKeys; it is safe for concurrent use.
type Keys struct {
	seal    tink.AEAD
	blind   sync.Pool // of *blinder
	sealing *keyset.Handle
	hashing *keyset.Handle
}

// blindBytes is the length of a keyed hash: 128 bits, so that two values
// collide with a chance of 1 in 10^24 among ten million.
const blindBytes = 16

// NewKeys makes fresh keysets: AES-256-GCM for sealing, HMAC-SHA-256 for hashes.
func NewKeys() (*Keys, error) {
	sealing, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make sealing keyset: %w", err)
	}
	hashing, err := keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make hashing keyset: %w", err)
	}
	return keysOf(sealing, hashing)
}

func keysOf(sealing, hashing *keyset.Handle) (*Keys, error) {
	seal, err := aead.New(sealing)
	if err != nil {
		return nil, fmt.Errorf("use sealing keyset: %w", err)
	}
	derive, err := prf.NewPRFSet(hashing)
	if err != nil {
		return nil, fmt.Errorf("use hashing keyset: %w", err)
	}
	// Hashes are many, so their key is derived once and its HMAC states are kept.
	key, err := derive.ComputePrimaryPRF([]byte("everpoint blind index 1"), sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive hashing key: %w", err)
	}
	k := &Keys{seal: seal, sealing: sealing, hashing: hashing}
	k.blind.New = func() any { return &blinder{mac: hmac.New(sha256.New, key)} }
	return k, nil
}

// blinder is a keyed hash in the making, used by one goroutine at a time.
type blinder struct {
	mac hash.Hash
	buf []byte
}

// LoadKeys reads the keysets sealing.json and hashing.json below dir, making
// (mode 0600) what is not there. The nodes of a Region share both; the Regions of
// a group share hashing.json, which is copied before a Region's first start.
// Whoever holds these files can read the database; back them up apart from it.
func LoadKeys(dir string) (*Keys, error) {
	sealing, err := readKeyset(filepath.Join(dir, "sealing.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return makeKeys(dir)
	}
	if err != nil {
		return nil, err
	}
	hashing, err := readKeyset(filepath.Join(dir, "hashing.json"))
	if err != nil {
		return nil, err
	}
	return keysOf(sealing, hashing)
}

// makeKeys makes the sealing keyset and, unless it was brought, the hashing one.
func makeKeys(dir string) (*Keys, error) {
	k, err := NewKeys()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key directory: %w", err)
	}
	path := filepath.Join(dir, "hashing.json")
	switch hashing, err := readKeyset(path); {
	case err == nil:
		if k, err = keysOf(k.sealing, hashing); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		if err := writeKeyset(path, k.hashing); err != nil {
			return nil, err
		}
	}
	// The sealing keyset is written last: its presence says that both are there.
	if err := writeKeyset(filepath.Join(dir, "sealing.json"), k.sealing); err != nil {
		return nil, err
	}
	return k, nil
}

func readKeyset(path string) (*keyset.Handle, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("parse keyset %s: %w", filepath.Base(path), err)
	}
	return h, nil
}

func writeKeyset(path string, h *keyset.Handle) error {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&buf)); err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	return writeFile(path, buf.Bytes(), 0o600)
}

// writeFile replaces path with data so that a crash leaves the old or the new.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	// Without this, a power failure may bring the old file back.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Seal encrypts plain, bound to its place: unsealing with another place fails.
func (k *Keys) Seal(plain []byte, place string) ([]byte, error) {
	return k.seal.Encrypt(plain, []byte(place))
}

// Unseal decrypts what Seal made for the same place.
func (k *Keys) Unseal(sealed []byte, place string) ([]byte, error) {
	return k.seal.Decrypt(sealed, []byte(place))
}

// Blind returns the 16-byte keyed hash of the parts. The same parts give the
// same hash in every Region that shares the keyset, and tell nothing without it.
func (k *Keys) Blind(parts ...string) string {
	b := k.blind.Get().(*blinder)
	defer k.blind.Put(b)
	b.buf = b.buf[:0]
	for _, p := range parts {
		b.buf = append(appendLength(b.buf, len(p)), p...)
	}
	b.mac.Reset()
	b.mac.Write(b.buf)
	b.buf = b.mac.Sum(b.buf[:0])
	return string(b.buf[:blindBytes])
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		panic(fmt.Sprintf("store: read randomness: %v", err)) // crypto/rand does not fail
	}
	return b
}
