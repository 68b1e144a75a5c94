package group

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// standing waits until a Region may claim as many shards, and returns its place.
func (m *member) standing(shards int) Standing {
	m.w.t.Helper()
	var s Standing
	m.w.until(fmt.Sprintf("%s may claim %d shards", m.name, shards), func() bool {
		var err error
		s, err = m.group.Standing()
		return err == nil && s.Shards.Count() == shards
	})
	return s
}

func TestDuty_is_divided_and_taken_over(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.members["a"], w.members["b"]
	sa, sb := a.standing(32), b.standing(32)
	if sa.Shards&sb.Shards != 0 || sa.Shards|sb.Shards != AllShards {
		t.Errorf("a may claim %x, b %x", sa.Shards, sb.Shards)
	}
	if !sa.Grouped || len(sa.Others) != 1 || sa.Others[0] != "b" || sa.Leads == sb.Leads {
		t.Errorf("a is %+v, b %+v", sa, sb)
	}
	if err := b.group.Claim(t.Context(), sb.Epoch, func() error { return b.put(t.Context(), "b's") }); err != nil {
		t.Fatal(err)
	}
	if !a.has("b's") || !a.group.Holds("b", sb.Epoch) || a.group.Orphaned("b", sb.Epoch) {
		t.Errorf("a has the claim: %v, which holds: %v", a.has("b's"), a.group.Holds("b", sb.Epoch))
	}
	changed := a.group.Changed()
	began := time.Now()
	b.die()
	s := a.standing(64)
	took := time.Since(began)
	t.Logf("taken over after %v; removal takes %v, the lease %v", took, removeAfter, leaseTime)
	if took < leaseTime/2 || took > removeAfter+leaseTime+2*time.Second {
		t.Errorf("taken over after %v", took)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told that the duty is another")
	}
	if a.group.Holds("b", sb.Epoch) || !a.group.Orphaned("b", sb.Epoch) || s.Epoch != sa.Epoch || len(s.Others) != 0 || !s.Leads || !s.Grouped {
		t.Errorf("b's claims hold %v, orphaned %v; a is %+v", a.group.Holds("b", sb.Epoch), a.group.Orphaned("b", sb.Epoch), s)
	}
	// Alone it marks.
	if err := a.group.Mark(t.Context(), s.Epoch, []quorum.Mark{{Shard: 1, Key: "run/1", To: 7}, {Shard: 2, Key: "run/2", To: 8}}); err != nil {
		t.Fatal(err)
	}
	if marks := a.group.Marks("run/2"); len(marks) != 1 || marks["run/2"] != 8 {
		t.Errorf("marks %v", marks)
	}
	if err := a.group.DropMarks(t.Context(), "run/"); aws.KindOf(err) != aws.KindConflict || len(a.group.Marks("")) != 2 {
		t.Errorf("alone it drops marks: %v", err)
	}
	if err := a.group.Mark(t.Context(), s.Epoch+1, []quorum.Mark{{Shard: 1, Key: "run/1", To: 9}}); aws.KindOf(err) != aws.KindUnavailable {
		t.Errorf("a mark of another epoch: %v", err)
	}
	b.start()
	sb2 := b.standing(32)
	a.standing(32)
	if sb2.Epoch <= sb.Epoch || !a.group.Orphaned("b", sb.Epoch) || !b.group.Orphaned("b", sb.Epoch) || !b.group.Holds("b", sb2.Epoch) {
		t.Errorf("b was a member at %d and is at %d", sb.Epoch, sb2.Epoch)
	}
	if err := b.group.Claim(t.Context(), sb.Epoch, func() error { t.Error("written"); return nil }); aws.KindOf(err) != aws.KindUnavailable {
		t.Errorf("a claim of an old epoch: %v", err)
	}
	if err := a.group.DropMarks(t.Context(), "run/"); err != nil {
		t.Error(err)
	}
	w.until("b hears of it", func() bool { return len(b.group.Marks("")) == 0 })
}

// TestDuty_of_a_Region_that_was_alone_and_is_lost goes to another by an operator's
// word, with its marks, and what it had claimed is nobody's.
func TestDuty_of_a_Region_that_was_alone_and_is_lost(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.members["a"], w.members["b"]
	a.standing(32)
	b.standing(32)
	b.cut(true)
	w.set("a")
	s := a.standing(64)
	if err := a.group.Mark(t.Context(), s.Epoch, []quorum.Mark{{Shard: 1, Key: "run/a/01", To: 7}}); err != nil {
		t.Fatal(err)
	}
	lost := quorum.Succeed{Region: "a", Incarnation: a.store.Incarnation(), Successor: "b", SuccessorIncarnation: b.store.Incarnation()}
	a.die()
	b.cut(false)
	succeed := func() error { _, err := b.quorum.Propose(t.Context(), lost); return err }
	w.until("there is a majority again", func() bool { return b.quorum.Reason() == "" })
	if err := succeed(); aws.KindOf(err) != aws.KindConflict {
		t.Errorf("while the lease lasts: %v", err)
	}
	if _, err := b.group.Standing(); err == nil {
		t.Error("b may claim, and does not know what a had")
	}
	w.until("the lease of a is over", func() bool { return succeed() == nil })
	sb := b.standing(64)
	if sb.Epoch <= s.Epoch || !sb.Grouped || !sb.Leads || len(sb.Others) != 0 {
		t.Errorf("a was a member at %d, and b is %+v", s.Epoch, sb)
	}
	if !b.group.Orphaned("a", s.Epoch) || b.group.Holds("a", s.Epoch) || b.group.Marks("run/")["run/a/01"] != 7 {
		t.Errorf("what a claimed is orphaned: %v, holds: %v; marks %v", b.group.Orphaned("a", s.Epoch), b.group.Holds("a", s.Epoch), b.group.Marks(""))
	}
	if err := b.put(t.Context(), "alone"); err != nil {
		t.Errorf("b does not acknowledge: %v", err)
	}
	// It was not lost: it comes back as one that is new.
	a.start()
	if sa := a.standing(32); sa.Epoch <= sb.Epoch || !a.has("alone") || !b.group.Orphaned("a", s.Epoch) {
		t.Errorf("b is a member since %d, and a %+v", sb.Epoch, sa)
	}
	b.standing(32)
}

// TestDuty_moves_when_what_was_claimed_is_written: claims begun before the loser
// heard of a new map hold the handover up until they are written, and no shard is
// ever claimable in two Regions.
func TestDuty_moves_when_what_was_claimed_is_written(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.members["a"], w.members["b"]
	s := a.standing(32)
	b.standing(32)
	writing, write := make(chan Shards), make(chan struct{})
	claimed := make(chan error, 1)
	go func() {
		claimed <- a.group.Claim(t.Context(), s.Epoch, func() error {
			s, err := a.group.Standing()
			writing <- s.Shards
			<-write
			if err != nil {
				return err
			}
			return a.put(t.Context(), "under the old map")
		})
	}()
	under := <-writing
	moved, err := a.quorum.Propose(t.Context(), quorum.SetMode{Mode: quorum.ActiveActive, Weights: map[string]int{"a": 0, "b": 1}})
	if err != nil {
		t.Fatal(err)
	}
	w.until("a may claim nothing any more", func() bool { s, err := a.group.Standing(); return err == nil && s.Shards == 0 })
	watch, stop := time.After(500*time.Millisecond), false
	for !stop {
		select {
		case <-watch:
			stop = true
		case <-time.After(5 * time.Millisecond):
		}
		if s, err := b.group.Standing(); err == nil && s.Shards&under != 0 {
			t.Fatalf("b may claim %x while a writes claims of %x", s.Shards, under)
		}
	}
	if told := a.group.Index(); told >= moved.Index {
		t.Errorf("a told index %d, and the map moved at %d", told, moved.Index)
	}
	close(write)
	if err := <-claimed; err != nil {
		t.Errorf("claim: %v", err)
	}
	b.standing(64)
	if !b.has("under the old map") {
		t.Error("b may claim what it does not know to be claimed")
	}
}

// TestDuty_of_a_Region_that_was_removed: it does not know, and the others have what
// it writes; they say that it is no member.
func TestDuty_of_a_Region_that_was_removed(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.members["a"], w.members["b"]
	a.standing(32)
	s := b.standing(32)
	incarnation := b.store.Incarnation()
	err := b.group.Claim(t.Context(), s.Epoch, func() error {
		b.mu.Lock()
		b.deaf = true
		b.mu.Unlock()
		if _, err := a.quorum.Propose(t.Context(), quorum.Remove{Region: "b", Incarnation: incarnation, Reason: "test"}); err != nil {
			return err
		}
		return b.put(t.Context(), "claimed in vain")
	})
	if aws.KindOf(err) != aws.KindUnavailable || !strings.Contains(err.Error(), "since epoch 0, not") {
		t.Errorf("the claim: %v", err)
	}
	if !a.has("claimed in vain") || a.group.Holds("b", s.Epoch) {
		t.Errorf("a has the claim: %v, which holds: %v", a.has("claimed in vain"), a.group.Holds("b", s.Epoch))
	}
	a.standing(64)
	if !a.group.Orphaned("b", s.Epoch) || b.group.Valid(s.Epoch) {
		t.Errorf("a may claim all, b's claims are orphaned %v, and valid there %v", a.group.Orphaned("b", s.Epoch), b.group.Valid(s.Epoch))
	}
	// A stay that has not been heard of is nobody's orphan.
	if a.group.Orphaned("b", s.Epoch+100) || a.group.Past("b", s.Epoch+100) || !a.group.Past("b", s.Epoch) || a.group.Holds("b", 0) {
		t.Error("a claim of an epoch to come is orphaned, or one of none holds")
	}
}

// TestDuty_of_a_Region_that_is_cut_off ends before another has it, and what it
// claimed since is refused.
func TestDuty_of_a_Region_that_is_cut_off(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.members["a"], w.members["b"]
	a.standing(32)
	s := b.standing(32)
	// Never both: b's word is asked for first, so what it says is the older.
	var mu sync.Mutex
	both, lost := 0, time.Time{}
	looking, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looking)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			other, err := a.group.Standing()
			valid := b.group.Valid(s.Epoch)
			mu.Lock()
			if err == nil && other.Shards&s.Shards != 0 && valid {
				both++
			}
			if !valid && lost.IsZero() {
				lost = time.Now()
			}
			mu.Unlock()
		}
	}()
	b.cut(true)
	claimed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	go func() { claimed <- b.group.Claim(ctx, s.Epoch, func() error { return b.put(ctx, "cut off") }) }()
	a.standing(64)
	gained := time.Now()
	if err := <-claimed; err == nil {
		t.Error("a claim that nobody else has was made")
	}
	close(stop)
	<-looking
	if both > 0 || lost.IsZero() || gained.Before(lost) {
		t.Errorf("%d times both might send; b lost its duty %v before a had it", both, gained.Sub(lost))
	}
	t.Logf("b lost its duty %v before a had it", gained.Sub(lost))
	b.cut(false)
	b.standing(32)
	if b.group.Valid(s.Epoch) {
		t.Error("the old claims are valid again")
	}
}

// What one Region had committed, told to nobody yet, is in the other when that asks
// for it.
func TestDuty_fresh(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.members["a"], w.members["b"]
	w.set("a", "b")
	for i := range 20 {
		key := fmt.Sprint("note", i)
		if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return store.Save(tx, kindNote, key, &key) }); err != nil {
			t.Fatal(err)
		}
		if err := a.group.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if note, err := store.Load[string](a.store.Reader(t.Context()), kindNote, key); err != nil || note == nil {
			t.Fatalf("%s is not there: %v", key, err)
		}
	}
}

// Notes are not safety data: nobody waits until others have them.
var kindNote = store.Kind{Name: "note", Rule: changelog.RuleDocument}
