package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// An intent that was refused and put off makes the late plan as good as the sent one.
func TestCall_of_which_an_attempt_was_put_off_is_not_the_one_that_was_sent(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.calls()
		p.c.refusing(true)
		p.a.call(nil) // cut off: intent written here, refused, put off
		pass(5 * time.Second)
		p.c.set("a", 0)
		p.c.refusing(false)
		p.b.call(nil)
		pass(time.Minute)
		if n := len(p.b.mail.to()); n != 1 {
			t.Fatalf("b sent %d", n)
		}
		p.ship(p.b, p.a)
		p.c.set("a", 5)
		p.c.set("b", 0) // before it hears of a's plan
		p.b.stop()
		pass(10 * time.Minute)
		t.Logf("times %v, listed %v", p.times(), len(p.a.ambiguous()))
		if n := p.times()["one@tea.example"]; n != 1 {
			t.Errorf("sent %d times, listed %d", n, len(p.a.ambiguous()))
		}
	})
}

// An intent that was superseded counts as attempted.
func TestCall_of_which_an_attempt_was_superseded_is_not_the_one_that_stands(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.calls()
		no := func(func() error) error { return aws.Unavailable("no") }
		written, heard := make(chan struct{}), make(chan struct{})
		first := true
		p.a.duty.(*seat).instead = no
		p.b.duty.(*seat).instead = func(write func() error) error {
			err := write()
			if first {
				first = false
				close(written)
				<-heard
			}
			return err
		}
		p.b.call(nil)
		p.a.call(nil)
		<-written
		p.ship(p.a, p.b)
		p.ship(p.b, p.a)
		close(heard)
		pass(2 * time.Second)
		t.Logf("b's plan at b: %+v", p.b.tally("b's"))
		p.ship(p.b, p.a)
		p.b.duty.(*seat).instead = no // b is paused, or its relay is down
		p.c.set("a", 0)
		pass(time.Second)
		p.a.duty.(*seat).instead = nil
		p.c.set("a", 5)
		p.c.set("b", 0)
		pass(10 * time.Minute)
		t.Logf("times %v; a's %+v b's %+v; listed %d", p.times(), p.a.tally("a's"), p.a.tally("b's"), len(p.a.ambiguous()))
		if n := p.times()["one@tea.example"]; n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
}

// A takeover that nobody had in time decides over a later one.
func TestTakeover_that_nobody_had_in_time_does_not_undo_what_was_sent(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		members := p.people(20)
		p.c.refusing(true)
		p.a.submit(campaignPlan(), members...)
		pass(10 * time.Second)
		p.c.set("a", 0)
		p.c.refusing(false)
		pass(10 * time.Second)
		p.c.set("a", 5)
		p.ship(p.a, p.b) // b takes it over as void; a never hears
		pass(2 * time.Second)
		p.c.set("b", 0)
		pass(10 * time.Minute)
		if n := len(p.times()); n != 20 {
			t.Logf("a alone sent to %d", n)
		}
		p.c.set("b", 9)
		p.exchange()
		a, b := p.a.tally("activity1"), p.b.tally("activity1")
		kept := 0
		_ = p.a.service.Claimed(p.a.store.Reader(t.Context()), "activity1", func(b *Block) error { kept += len(b.Members); return nil })
		t.Logf("sent %d; a %+v b %+v; claimed members that the second walk skips: %d", len(p.times()), a, b, kept)
		if n := len(p.times()); int(a.Sent) != n || kept != n {
			t.Errorf("%d were sent to, %d count as sent, %d are skipped by the second walk", n, a.Sent, kept)
		}
	})
}

// reread replaces a Region's disk by an empty one, which gets all the rows of the other.
func (p *pair) reread(which **world, from *world) {
	p.t.Helper()
	old := *which
	old.stop()
	w := &world{t: p.t, dir: p.t.TempDir(), keys: old.keys, mail: &carrier{}, text: &carrier{}, region: old.region, duty: &seat{c: p.c, region: old.region}}
	w.start()
	*which = w
	for _, st := range []store.Stream{store.Safety, store.Changes} {
		blocks, err := from.store.Blocks(context.Background(), st, 0, 100000)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, bl := range blocks {
			var changes []changelog.Change
			for _, record := range bl.Records {
				c, err := changelog.DecodeChange(record)
				if err != nil {
					p.t.Fatal(err)
				}
				c.Foreign = false
				changes = append(changes, c)
			}
			w.update(func(tx *store.Tx) error {
				for _, c := range changes {
					if _, err := tx.Merge(c, false, func(string, []byte) ([]store.Index, error) { return nil, nil }); err != nil {
						return err
					}
				}
				return w.service.Merged(tx, changes)
			})
		}
		p.at[old.region+string(st)] = 0
		p.at[from.region+string(st)] = blocks[len(blocks)-1].N
	}
}

func (w *world) opens() int {
	rows, err := w.store.Reader(w.t.Context()).List(kindOpen, "", "", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(rows)
}

func (p *pair) finished(t *testing.T) {
	members := p.people(20)
	for i := range 3 {
		p.a.endpoint(members20(i), ChannelEmail, members20(i)+"@tea.example", map[string]string{"OptOut": "ALL"})
	}
	p.ship(p.a, p.b)
	p.a.submit(campaignPlan(), members...)
	pass(time.Minute)
	p.exchange()
	a, b := p.a.tally("activity1"), p.b.tally("activity1")
	if !a.equal(b) || a.HeldTotal() != 3 || a.Sent != 17 || a.BlocksDone != 1 {
		t.Fatalf("a %+v b %+v", a, b)
	}
}

func members20(i int) string { return []string{"e0", "e1", "e2"}[i] }

// A lost its disk; its own finished blocks are open for ever, and are voided when it is alone.
func TestBlocks_that_are_finished_stay_so_when_their_Region_reads_them_anew(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.finished(t)
		p.c.set("a", 0)
		p.reread(&p.a, p.b)
		p.c.set("a", 5)
		pass(time.Hour)
		t.Logf("after an hour: open at a %d, at b %d; a %+v", p.a.opens(), p.b.opens(), p.a.tally("activity1"))
		if n := p.a.opens(); n != 0 {
			t.Errorf("%d finished blocks are open at a", n)
		}
		p.c.set("b", 0)
		pass(time.Minute)
		p.c.set("b", 9)
		p.exchange()
		a, b := p.a.tally("activity1"), p.b.tally("activity1")
		if a.HeldTotal() != 3 || b.HeldTotal() != 3 {
			t.Errorf("a %+v b %+v", a, b)
		}
	})
}

// A was away for a moment after the run; b loses its disk.
func TestBlocks_that_are_finished_stay_so_when_another_Region_reads_them_anew(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.finished(t)
		p.c.set("a", 0)
		pass(10 * time.Second)
		p.c.set("a", 5)
		pass(10 * time.Second)
		p.c.set("b", 0)
		p.reread(&p.b, p.a)
		p.c.set("b", 9)
		pass(time.Minute)
		p.exchange()
		a, b := p.a.tally("activity1"), p.b.tally("activity1")
		if a.HeldTotal() != 3 || b.HeldTotal() != 3 {
			t.Errorf("a %+v b %+v", a, b)
		}
	})
}

func TestFold_tells_attempts_of_two_Regions_apart(t *testing.T) {
	intents := []intentRow{{Region: "b", Members: []int{0}, Attempts: []int{1}}}
	entries := []Entry{{Member: 0, Attempt: 1, Region: "a", Fate: FateDeferred, Code: codeClaim}}
	stand, err := fold(1, intents, entries)
	if err != nil || stand[0].openAttempt() != (madeBy{1, "b"}) {
		t.Errorf("%+v, %v: b's attempt may be on the wire, whatever a says of its own", stand, err)
	}
}
