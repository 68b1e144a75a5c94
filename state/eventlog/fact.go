package eventlog

import (
	"encoding/binary"
	"errors"

	"github.com/everpoint/everpoint/state/store"
)

// Fact is one thing that happened.
type Fact struct {
	ID      string // unique; consumers drop repeats by it
	Account string
	App     string
	Type    string // "_campaign.send", "_email.send", "menu.opened", …
	Client  string // the endpoint it is about; consumers keep its order
	Data    []byte // the event record as JSON; see channels-and-events 9.1
}

// Append adds a fact to the caller's update.
func Append(tx *store.Tx, f Fact) { tx.Append(encode(f)) }

func encode(f Fact) []byte {
	n := len(f.Data)
	for _, s := range []string{f.ID, f.Account, f.App, f.Type, f.Client} {
		n += len(s) + binary.MaxVarintLen32
	}
	b := make([]byte, 0, n)
	for _, s := range []string{f.ID, f.Account, f.App, f.Type, f.Client} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, f.Data...)
}

var errCorrupt = errors.New("eventlog: fact is corrupt")

func decode(b []byte) (Fact, error) {
	var f Fact
	for _, s := range []*string{&f.ID, &f.Account, &f.App, &f.Type, &f.Client} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return Fact{}, errCorrupt
		}
		*s = string(b[k : k+int(n)])
		b = b[k+int(n):]
	}
	f.Data = b
	return f, nil
}
