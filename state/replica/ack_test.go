package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

func TestSaid_is_read_as_it_is_written(t *testing.T) {
	s := said{n: 1 << 40, head: 3, member: 1 << 63}
	var b [saidBytes]byte
	if n := copy(b[:], s.append(nil)); n != saidBytes || decodeSaid(&b) != s {
		t.Errorf("%d bytes are read as %+v", n, decodeSaid(&b))
	}
}

// claimants are two Regions of which the first waits for the second, which says to
// know it as a member at an epoch.
func claimants(t *testing.T) (g *group, a, b *region, member *atomic.Uint64) {
	g, member = newGroup(t, "", "us-east-1", "eu-west-1"), &atomic.Uint64{}
	a, b = g.regions[0], g.regions[1]
	a.tune = func(c *Config) {
		c.Group, c.AckMax = func() (map[string]string, error) { return map[string]string{"eu-west-1": b.store.Incarnation()}, nil }, 2*time.Second
	}
	b.tune = func(c *Config) { c.Member = func(string) uint64 { return member.Load() } }
	b.start()
	a.start()
	return g, a, b, member
}

func (r *region) claim(key string) error {
	return r.store.Update(context.Background(), func(tx *store.Tx) error { return tx.Put(kindClaim, key, []byte("mine")) })
}

func TestHandshake_is_at_one_epoch(t *testing.T) {
	_, a, _, member := claimants(t)
	member.Store(7)
	if err := a.claim("c1"); err != nil {
		t.Fatal(err)
	}
	if err := a.replica.Handshake(t.Context(), 7); err != nil {
		t.Errorf("at the epoch that the other knows: %v", err)
	}
	for _, epoch := range []uint64{6, 8} {
		if err := a.replica.Handshake(t.Context(), epoch); aws.KindOf(err) != aws.KindUnavailable {
			t.Errorf("at epoch %d: %v", epoch, err)
		}
	}
	// Who left the set is told so with the next block.
	member.Store(0)
	if err := a.claim("c2"); err != nil {
		t.Fatal(err)
	}
	if err := a.replica.Handshake(t.Context(), 7); aws.KindOf(err) != aws.KindUnavailable {
		t.Errorf("after a removal: %v", err)
	}
	// One who hears of it later is waited for, and says so without another block.
	done := make(chan error, 1)
	go func() { done <- a.replica.Handshake(t.Context(), 9) }()
	member.Store(9)
	if err := <-done; err != nil {
		t.Errorf("when the other hears of the return: %v", err)
	}
}

// TestHandshake_waits_for_what_the_other_had_acknowledged: the other has an
// opt-out when it has the claim, and this Region must know it before it sends.
func TestHandshake_waits_for_what_the_other_had_acknowledged(t *testing.T) {
	_, a, b, member := claimants(t)
	member.Store(7)
	if err := a.claim("first"); err != nil {
		t.Fatal(err)
	}
	b.cut() // a does not hear b; b hears a
	if err := b.claim("opt-out"); err != nil {
		t.Fatal(err)
	}
	if err := a.claim("c"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.replica.Handshake(ctx, 7); err == nil {
		t.Error("done before what the other had acknowledged is here")
	}
	b.join()
	if err := a.replica.Handshake(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if body, err := a.store.Reader(t.Context()).Get(kindClaim, "opt-out"); err != nil || body == nil {
		t.Errorf("it is not here: %v", err)
	}
}

func TestAcked_is_what_every_Region_of_the_group_has(t *testing.T) {
	_, a, b, _ := claimants(t)
	if err := a.claim("c"); err != nil {
		t.Fatal(err)
	}
	n := a.store.Head(store.Safety)
	if !a.replica.Acked(store.Safety, n) || a.replica.Acked(store.Safety, n+1) {
		t.Error("a block that was acknowledged is not, or one that is not written is")
	}
	if !b.replica.Acked(store.Events, 1000) {
		t.Error("there is nobody who lacks it")
	}
	for {
		changed := a.replica.AckChanged()
		if a.replica.Acked(store.Changes, a.store.Head(store.Changes)) {
			break
		}
		<-changed
	}
}

// TestHeartbeats_come_between_blocks: who waits for what the other has heard of
// must hear it while the streams are busy too.
func TestHeartbeats_come_between_blocks(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	var index atomic.Uint64
	a.tune = func(c *Config) { c.Index, c.Heartbeat = index.Load, 500*time.Millisecond }
	a.start()
	b.start()
	ctx, stop := context.WithCancel(t.Context())
	writing := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			err := a.store.Update(ctx, func(tx *store.Tx) error {
				tx.Append([]byte("fact"))
				if err := setIn(tx, fmt.Sprint(i%10), "user", fmt.Sprint(i)); err != nil {
					return err
				}
				return tx.Put(kindClaim, fmt.Sprint(i), []byte("mine"))
			})
			if err != nil {
				writing <- err
				return
			}
		}
	}()
	g.eventually("blocks come", func() bool { return b.replica.Status()[0].Streams[store.Events].Merged > 10 })
	index.Store(5)
	catching, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := b.replica.CatchUp(catching, map[string]string{"us-east-1": a.store.Incarnation()}, 5); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-writing; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestMergedAll_is_told_of_each_commit sees in the update what was merged, of
// streams and of rows.
func TestMergedAll_is_told_of_each_commit(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	a.start()
	if err := a.claim("row"); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 100)
	b.tune = func(c *Config) {
		c.MergedAll = func(tx *store.Tx, changes []changelog.Change) error {
			for _, change := range changes {
				body, err := tx.Get(kindClaim, change.Key)
				if err != nil || body == nil {
					t.Errorf("%s is not there: %v", change.Key, err)
				}
				seen <- change.Key
			}
			return nil
		}
	}
	b.start()
	if got := <-seen; got != "row" {
		t.Errorf("of the rows %q", got)
	}
	g.agree()
	if err := a.claim("block"); err != nil {
		t.Fatal(err)
	}
	for got := range seen {
		if got == "block" {
			break
		}
	}
}
