package store

import (
	"encoding/binary"

	"github.com/everpoint/everpoint/state/changelog"
)

// Kind names a family of rows and says how Regions merge them. A room declares
// one for each thing it keeps:
//
//	var kindApp = store.Kind{Name: "app", Rule: changelog.RuleDocument}
type Kind struct {
	Name   string
	Rule   changelog.Rule
	Safety bool // its changes travel in the safety stream, ahead of the others
	// OptOut says of safety data that it is an opt-out: an update of nothing else is
	// accepted when the group cannot have it, and marked; see [Store.Marked].
	OptOut bool
}

func (k Kind) stream() Stream {
	switch {
	case k.Rule == changelog.RuleLocal:
		return ""
	case k.Safety:
		return Safety
	default:
		return Changes
	}
}

// Stream names one of the logs that the database keeps.
type Stream string

// The streams; see the package comment.
const (
	Safety  Stream = "safety"
	Changes Stream = "change"
	Events  Stream = "event"
	Heard   Stream = "heard" // other Regions' facts
)

var streams = [...]Stream{Safety, Changes, Events, Heard}

// Index is a value that a row is found by without being read: an address, a
// user id. The engine sees only a keyed hash of it.
type Index struct {
	Name  string // unique within the kind
	Value string
	hash  string // when it was made in advance
}

// Row is one row as a reader sees it. Body is in the form of the kind's rule.
type Row struct {
	Kind string
	Key  string
	Body []byte
}

// Touch names a row, or the rows with an index value, that an update will read,
// so that they are fetched, and on PostgreSQL locked, with its neighbours'.
type Touch struct {
	Kind  Kind
	Key   string // a row; or
	Index Index  // an index value, when Key is empty
}

// Reader reads rows: of the committed state ([Store.Reader]) or of an update's
// own view ([Tx]). Bodies must not be changed.
type Reader interface {
	// Get returns the row's body; nil when there is none.
	Get(k Kind, key string) ([]byte, error)
	// List returns rows of a kind in key order whose key starts with prefix and
	// is above after, at most limit.
	List(k Kind, prefix, after string, limit int) ([]Row, error)
	// Lookup returns the rows of a kind with an index value, in the order they
	// were first written, at most limit.
	Lookup(k Kind, x Index, limit int) ([]Row, error)
}

type place struct{ kind, key string }

func (p place) aad() string { return "doc\x00" + p.kind + "\x00" + p.key }

func appendLength(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

// prefixEnd returns the first key above every key that starts with prefix.
func prefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return string([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
}
