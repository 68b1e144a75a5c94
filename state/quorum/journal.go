package quorum

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// The rows of a voter. All belong to this Region alone.
var (
	kindVoter    = store.Kind{Name: "quorum.voter", Rule: changelog.RuleLocal}    // one row: who runs it, its identity, its vote
	kindEntry    = store.Kind{Name: "quorum.entry", Rule: changelog.RuleLocal}    // the log after the snapshot, by index
	kindSnapshot = store.Kind{Name: "quorum.snapshot", Rule: changelog.RuleLocal} // one row: an image
)

const (
	rowKey   = "self"
	rowsPage = 500
)

// identity is the voter's row.
type identity struct {
	// Generation rises each time a node takes the voter: whoever holds an older one
	// can write nothing any more. Beat rises with every write within it.
	Generation, Beat uint64
	Node             string // that runs the voter
	URL              string // where the Region's other nodes reach it

	Incarnation string // of the store when this life of the voter began
	Life        string
	ID          uint64
	Cluster     string // empty until it founded one or was admitted

	Term, Vote, Commit uint64
	First, Last        uint64 // the snapshot's index, and that of the last entry
	Leader             string // as known at the last write, for the Region's other nodes
}

// fresh says that the voter never had a part in a cluster: it has no log and
// promised nothing.
func (i *identity) fresh() bool { return i.Term == 0 && i.Last == 0 }

// change is what one turn of the voter makes durable.
type change struct {
	Term, Vote, Commit uint64
	Cluster, Leader    string
	Entries            []*pb.Entry // replace everything from the first one's index on
	Image              []byte      // replaces the log up to ImageIndex, and with Reset all of it
	ImageIndex         uint64
	Reset              bool
}

var (
	// errFenced: another node runs the voter now.
	errFenced = errors.New("another node runs the voter")
	// errWentBack: the rows are older than what this node wrote, or belong to
	// another life of the store. What the voter promised is not known any more.
	errWentBack = errors.New("the voter's rows are not those that it wrote")
)

// journal is where a voter's promises are durable. What it acknowledged is there
// after a crash; what failed may be there or not.
type journal interface {
	// identity reads the row; nil when there is none.
	identity(ctx context.Context) (*identity, error)
	// take makes the node the one that runs the voter, unless the row is not seen
	// any more. With rebirth, or in another life of the store, the voter begins a new
	// life, without a log.
	take(ctx context.Context, seen *identity, by claim) (*identity, error)
	// load reads the image, nil when there is none, and the entries after an index,
	// at most limit; 0 is all.
	load(ctx context.Context, after uint64, limit int) (image []byte, entries []*pb.Entry, err error)
	// save writes the change if the row is still as in now, and updates now.
	save(ctx context.Context, now *identity, c change) error
}

// claim is who takes a voter.
type claim struct {
	Name, Node, URL string
	Life            string // of the voter, if it begins a new one
	Rebirth         bool
}

// next returns the row after a node took the voter.
func (c claim) next(old *identity, incarnation string) *identity {
	n := identity{Generation: 1}
	if old != nil {
		n = *old
		n.Generation++
	}
	n.Node, n.URL = c.Node, c.URL
	n.Beat++
	if old == nil || c.Rebirth || old.Incarnation != incarnation {
		n = identity{
			Generation: n.Generation, Beat: n.Beat, Node: n.Node, URL: n.URL,
			Incarnation: incarnation, Life: c.Life, ID: voterID(c.Name, incarnation, c.Life),
		}
	}
	return &n
}

// voterID is the name by which the library knows one life of a voter.
func voterID(name, incarnation, life string) uint64 {
	h := fnv.New64a()
	for _, s := range []string{name, incarnation, life} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	// 0 is nobody, and the highest two are the library's own.
	return max(1, min(h.Sum64(), math.MaxUint64-2))
}

// stands reports why a writer that knows the row as mine may not go on, seeing it
// as it is in the database.
func (i *identity) stands(row *identity, incarnation string) error {
	switch {
	case row == nil, row.Generation < i.Generation, row.Incarnation != incarnation:
		return errWentBack
	case row.Generation > i.Generation:
		return errFenced
	case row.Beat != i.Beat:
		return errWentBack
	}
	return nil
}

// after returns the row with the change made.
func (i *identity) after(c change) identity {
	n := *i
	n.Beat++
	n.Cluster, n.Leader = c.Cluster, c.Leader
	n.Term, n.Vote, n.Commit = c.Term, c.Vote, c.Commit
	if c.Image != nil {
		n.First = c.ImageIndex
		if c.Reset {
			n.Last = c.ImageIndex
		}
	}
	if len(c.Entries) > 0 {
		n.Last = c.Entries[len(c.Entries)-1].GetIndex()
	}
	return n
}

// rows is the journal in a store.
type rows struct{ store *store.Store }

func entryKey(index uint64) string { return fmt.Sprintf("%016x", index) }

func (r rows) identity(ctx context.Context) (*identity, error) {
	return store.Load[identity](r.store.Reader(ctx), kindVoter, rowKey)
}

func (r rows) take(ctx context.Context, seen *identity, by claim) (*identity, error) {
	var taken *identity
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		row, err := store.Load[identity](tx, kindVoter, rowKey)
		if err != nil {
			return err
		}
		if (row == nil) != (seen == nil) || row != nil && (row.Generation != seen.Generation || row.Beat != seen.Beat) {
			return errFenced
		}
		taken = by.next(row, r.store.Incarnation())
		if row != nil && row.Life != taken.Life {
			if err := forget(tx); err != nil {
				return err
			}
		}
		return store.Save(tx, kindVoter, rowKey, taken)
	}, store.Touch{Kind: kindVoter, Key: rowKey}, store.Touch{Kind: kindSnapshot, Key: rowKey})
	if err != nil {
		return nil, fmt.Errorf("take the voter: %w", err)
	}
	return taken, nil
}

// forget removes a voter's log.
func forget(tx *store.Tx) error {
	for {
		page, err := tx.List(kindEntry, "", "", rowsPage)
		if err != nil {
			return err
		}
		for _, row := range page {
			if err := tx.Remove(kindEntry, row.Key); err != nil {
				return err
			}
		}
		if len(page) < rowsPage {
			return tx.Remove(kindSnapshot, rowKey)
		}
	}
}

func (r rows) load(ctx context.Context, after uint64, limit int) ([]byte, []*pb.Entry, error) {
	reader := r.store.Reader(ctx)
	image, err := reader.Get(kindSnapshot, rowKey)
	if err != nil {
		return nil, nil, fmt.Errorf("load the quorum's snapshot: %w", err)
	}
	var entries []*pb.Entry
	for {
		page, err := reader.List(kindEntry, "", entryKey(after), rowsPage)
		if err != nil {
			return nil, nil, fmt.Errorf("load the quorum's log: %w", err)
		}
		for _, row := range page {
			e := &pb.Entry{}
			if err := proto.Unmarshal(row.Body, e); err != nil {
				return nil, nil, fmt.Errorf("load the quorum's log: entry %s: %w", row.Key, err)
			}
			if index, err := strconv.ParseUint(row.Key, 16, 64); err != nil || e.GetIndex() != index {
				return nil, nil, fmt.Errorf("load the quorum's log: row %s holds entry %d", row.Key, e.GetIndex())
			}
			entries, after = append(entries, e), e.GetIndex()
		}
		if len(page) < rowsPage || limit > 0 && len(entries) >= limit {
			return image, entries, nil
		}
	}
}

func (r rows) save(ctx context.Context, now *identity, c change) error {
	next := now.after(c)
	touch := []store.Touch{{Kind: kindVoter, Key: rowKey}}
	if c.Image != nil {
		touch = append(touch, store.Touch{Kind: kindSnapshot, Key: rowKey})
	}
	for _, e := range c.Entries {
		touch = append(touch, store.Touch{Kind: kindEntry, Key: entryKey(e.GetIndex())})
	}
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		row, err := store.Load[identity](tx, kindVoter, rowKey)
		if err != nil {
			return err
		}
		if err := now.stands(row, r.store.Incarnation()); err != nil {
			return err
		}
		if err := r.write(tx, now, c); err != nil {
			return err
		}
		return store.Save(tx, kindVoter, rowKey, &next)
	}, touch...)
	if err != nil {
		return fmt.Errorf("save the voter's promises: %w", err)
	}
	*now = next
	return nil
}

// write writes what of the change is not in the voter's row.
func (r rows) write(tx *store.Tx, now *identity, c change) error {
	drop := func(from, to uint64) error { // both are dropped
		for i := from; i <= to; i++ {
			if err := tx.Remove(kindEntry, entryKey(i)); err != nil {
				return err
			}
		}
		return nil
	}
	if c.Image != nil {
		if err := tx.Put(kindSnapshot, rowKey, c.Image); err != nil {
			return err
		}
		upTo := c.ImageIndex
		if c.Reset {
			upTo = now.Last
		}
		if err := drop(now.First+1, min(upTo, now.Last)); err != nil {
			return err
		}
	}
	if len(c.Entries) == 0 {
		return nil
	}
	for _, e := range c.Entries {
		body, err := proto.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode entry %d: %w", e.GetIndex(), err)
		}
		if err := tx.Put(kindEntry, entryKey(e.GetIndex()), body); err != nil {
			return err
		}
	}
	if c.Reset {
		return nil
	}
	return drop(c.Entries[len(c.Entries)-1].GetIndex()+1, now.Last)
}
