package sim

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/store"
)

// TestJudges_find_planted_bugs plays stories of groups with a bug that the code has
// not, planted where a Region meets its disk or its peers. The judges know nothing
// of it and must object within some seeds.
func TestJudges_find_planted_bugs(t *testing.T) {
	for name, c := range map[string]struct {
		seeds     uint64
		objection string // what the judges say, among other things
		sabotage  func() Sabotage
	}{
		"a merge that is not commutative":         {10, "", lastHeardWins},
		"an acknowledgement before the commit":    {60, "", acknowledgedAtOnce},
		"a cursor outside of the transaction":     {40, "", cursorAhead},
		"log ids that are visible out of order":   {10, "", passedOver},
		"a restored Region that reuses its ids":   {100, "", idsReused},
		"a voter that forgets its vote":           {5, "the voters do not agree", voteForgotten},
		"a claim sent before the peer has it":     {100, "times and is not listed", acknowledgedAtOnce},
		"a claim of an older epoch accepted":      {5, "times and is not listed", oldClaims},
		"an opt-out that the sender does not see": {60, "and was sent", acknowledgedAtOnce},
		"a retry executed in both Regions":        {5, "times and is not listed", retriesApart},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range c.seeds {
				_, wrong := chronicle(t, 1+seed, c.sabotage())
				for _, w := range wrong {
					if strings.Contains(w, c.objection) {
						t.Logf("seed %d: %.300s", 1+seed, w)
						return
					}
				}
			}
			t.Errorf("the judges found nothing in %d seeds", c.seeds)
		})
	}
}

// TestJudges_find_nobody_sent_to_twice_without_the_bug holds the bug of [oldClaims]
// apart from what is done to bring it out. Opt-outs that were accepted while the
// Region was cut off are not known to the other, so they are not judged.
func TestJudges_find_nobody_sent_to_twice_without_the_bug(t *testing.T) {
	for seed := range uint64(5) {
		s := oldClaims()
		planted := s.Group
		s.Group = func(g *Group) {
			planted(g)
			g.duty = nil
		}
		_, wrong := chronicle(t, 1+seed, s)
		for _, w := range wrong {
			if !strings.Contains(w, "opted out") {
				t.Errorf("seed %d: %s", 1+seed, w)
			}
		}
	}
}

// retriesApart: what a client or router repeats is another call to the Regions.
func retriesApart() Sabotage { return Sabotage{Retries: true} }

// voteForgotten: the witness has voted with one Region, and does not know it when
// the other asks.
func voteForgotten() Sabotage {
	return Sabotage{Faults: func(ctx context.Context, _ *Chronicle, g *Group) error {
		older := filepath.Join(g.dir, "older")
		g.witness.Crash()
		if err := os.CopyFS(older, os.DirFS(g.file(witnessName))); err != nil {
			return err
		}
		if err := g.witness.Start(ctx); err != nil {
			return err
		}
		until(ctx, 30*time.Second, g.whole)
		out := func(knows, name string) func() bool {
			return func() bool {
				s, _ := g.regions[knows].node.Quorum.State()
				return !s.Regions[name].InSync
			}
		}
		g.isolate(far, true)
		until(ctx, 60*time.Second, out(near, far))
		g.isolate(near, true)
		g.witness.Crash()
		if err := os.RemoveAll(g.file(witnessName)); err != nil {
			return err
		}
		if err := os.CopyFS(g.file(witnessName), os.DirFS(older)); err != nil {
			return err
		}
		if err := g.witness.Start(ctx); err != nil {
			return err
		}
		g.net.Cut(far, witnessName, false)
		g.net.Cut(witnessName, far, false)
		until(ctx, 60*time.Second, out(far, near))
		return nil
	}}
}

// oldClaims: a Region takes claims of another for good that come when the claimant's
// stay is over. The claimant is cut off from everybody while its first claim of a run is
// on the way, and heals when the other has claimed the same people and sent.
func oldClaims() Sabotage {
	var cut atomic.Pointer[string] // who was cut off
	return Sabotage{
		Group: func(g *Group) {
			g.duty = func(d group.Duty) group.Duty { return trusting{d} }
			g.tap = &tap{hear: func(puller, stream string, _ int64, records [][]byte) [][]byte {
				claimant := otherOf(puller)
				if stream == string(store.Safety) && slices.ContainsFunc(records, claimsMany) && cut.CompareAndSwap(nil, &claimant) {
					g.isolate(claimant, true)
					_ = pause(context.Background(), 10*time.Second) // the connection is given up meanwhile, and with it what was read
				}
				return records
			}}
		},
		Faults: func(ctx context.Context, _ *Chronicle, g *Group) error {
			if !until(ctx, turmoil, func() bool { return cut.Load() != nil }) {
				return nil
			}
			_ = pause(ctx, 20*time.Second)
			g.isolate(*cut.Load(), false)
			return nil
		},
	}
}

// trusting is a duty that takes no claim for late.
type trusting struct{ group.Duty }

func (trusting) Past(string, uint64) bool { return false }

// claimsMany reports whether a record is a claim of a run.
func claimsMany(record []byte) bool {
	c, err := changelog.DecodeChange(record)
	if err != nil || c.Kind != "claim" || c.Body == nil {
		return false
	}
	b, err := store.Decode[delivery.Block](store.Kind{Name: c.Kind, Rule: c.Rule}, c.Body)
	return err == nil && len(b.Members) > 1
}

// isolate cuts a voter off from all others, or heals that.
func (g *Group) isolate(name string, cut bool) {
	for _, other := range voterNames {
		if other != name {
			g.net.Cut(name, other, cut)
			g.net.Cut(other, name, cut)
		}
	}
}

// lastHeardWins: what is heard of a record is written over what is there, as if it
// were written now.
func lastHeardWins() Sabotage {
	return Sabotage{Group: func(g *Group) {
		g.tap = &tap{hear: func(puller, stream string, _ int64, records [][]byte) [][]byte {
			for i := range records {
				c, err := changelog.DecodeChange(records[i])
				if err != nil || c.Rule != changelog.RuleRecord || c.Body == nil {
					continue
				}
				r, err := changelog.DecodeRecord(c.Body)
				if err != nil {
					continue
				}
				for j := range r.Registers {
					r.Registers[j].At.Clock = uint64(time.Now().UnixMilli()) << 16
				}
				c.Body = changelog.AppendRecord(nil, &r)
				records[i] = changelog.AppendChange(nil, c)
			}
			return records
		}}
	}}
}

// opened is when a story is past its opening.
const opened = 8 * time.Second

// acknowledgedAtOnce: a Region says that it has safety data, and writes it later.
func acknowledgedAtOnce() Sabotage {
	return Sabotage{Group: func(g *Group) {
		began := time.Now()
		g.tap = &tap{hold: func(_, stream string) time.Duration {
			if stream == string(store.Safety) && time.Since(began) > opened {
				return 8 * time.Second
			}
			return 0
		}}
	}}
}

// passedOver: of some blocks the records are not seen, as if the number had been
// visible before them.
func passedOver() Sabotage {
	return Sabotage{Group: func(g *Group) {
		g.tap = &tap{hear: func(_, _ string, n int64, records [][]byte) [][]byte {
			if n%20 == 19 {
				return nil
			}
			return records
		}}
	}}
}

// cursorAhead: a Region that dies had noted blocks as merged that it had not.
func cursorAhead() Sabotage {
	return Sabotage{Restarted: func(m *Member) error {
		other := m.g.regions[otherOf(m.name)]
		if other.isDead() {
			return nil
		}
		return m.edit(func(tx *store.Tx) error {
			for _, st := range []store.Stream{store.Safety, store.Changes} {
				kind, key := store.Kind{Name: "replica.cursor", Rule: changelog.RuleLocal}, other.name+"\x00"+string(st)
				at, err := store.Load[cursor](tx, kind, key)
				if err != nil || at == nil {
					return err
				}
				theirs := other.node.Store
				if at.Incarnation != theirs.Incarnation() {
					return nil
				}
				at.N = theirs.Head(st)
				if at.Hash, err = theirs.Hash(context.Background(), st, at.N); err != nil {
					return err
				}
				if err := store.Save(tx, kind, key, at); err != nil {
					return err
				}
			}
			return nil
		})
	}}
}

// cursor is a row of state/replica.
type cursor struct {
	Incarnation string
	N           int64
	Hash        []byte
}

// edit changes rows of a Region that is not running.
func (m *Member) edit(f func(*store.Tx) error) error {
	if _, err := os.Stat(filepath.Join(m.dir, "data", "everpoint.db")); err != nil {
		return nil // its disk was lost
	}
	keys, err := store.LoadKeys(filepath.Join(m.dir, "keys"))
	if err != nil {
		return err
	}
	st, err := store.Open(context.Background(), store.Config{Dir: filepath.Join(m.dir, "data"), Region: m.name}, keys, time.Now, m.log)
	if err != nil {
		return fmt.Errorf("open the disk of %s: %w", m.name, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- st.Run(ctx) }()
	err = st.Update(ctx, f)
	stop()
	return errors.Join(err, <-ended)
}

// idsReused: a database that went back does not notice it, nor do the others tell.
func idsReused() Sabotage {
	return Sabotage{
		Group: func(g *Group) {
			g.tap = &tap{ask: func(puller, stream string, q url.Values) {
				n, _ := strconv.ParseInt(q.Get("after"), 10, 64)
				there, err := g.regions[otherOf(puller)].node.Store.Hash(context.Background(), store.Stream(stream), n)
				if err == nil && hex.EncodeToString(there) != q.Get("hash") {
					q.Del("hash")
				}
			}}
		},
		Restarted: func(m *Member) error {
			err := os.Remove(filepath.Join(m.dir, "data", "lineage.json"))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		},
	}
}
