package delivery

import (
	"maps"

	"github.com/everpoint/everpoint/state/store"
)

// Tally counts what became of a plan's recipients. Every recipient of a block
// is in exactly one of Sent, Failed, Held and Left, or still on its way.
type Tally struct {
	Claimed    int64
	Blocks     int64
	BlocksDone int64
	Sent       int64
	Failed     int64            // refused, or attempts used up, or could not be rendered
	Held       map[string]int64 `json:",omitempty"` // by reason; see the guard
	Left       int64            // ambiguous and left
	Resent     int64            // ambiguous and sent again: a note, not a fate
	Delivered  int64            `json:",omitempty"` // receipts that say so
	Superseded int64            `json:",omitempty"` // of claims that came late: they count nowhere else
}

// add adds u times n.
func (t *Tally) add(u *Tally, n int64) {
	t.Claimed += n * u.Claimed
	t.Blocks += n * u.Blocks
	t.BlocksDone += n * u.BlocksDone
	t.Sent += n * u.Sent
	t.Failed += n * u.Failed
	t.Left += n * u.Left
	t.Resent += n * u.Resent
	t.Delivered += n * u.Delivered
	t.Superseded += n * u.Superseded
	for reason, v := range u.Held {
		if t.Held == nil {
			t.Held = map[string]int64{}
		}
		if t.Held[reason] += n * v; t.Held[reason] == 0 {
			delete(t.Held, reason)
		}
	}
}

func (t *Tally) equal(u *Tally) bool {
	return t.Claimed == u.Claimed && t.Blocks == u.Blocks && t.BlocksDone == u.BlocksDone && t.Sent == u.Sent &&
		t.Failed == u.Failed && t.Superseded == u.Superseded && t.Left == u.Left && t.Resent == u.Resent && maps.Equal(t.Held, u.Held)
}

// HeldTotal is how many recipients were held, for whatever reason.
func (t *Tally) HeldTotal() int64 {
	var n int64
	for _, v := range t.Held {
		n += v
	}
	return n
}

// InFlight is how many claimed recipients have no fate yet.
func (t *Tally) InFlight() int64 { return t.Claimed - t.Sent - t.Failed - t.HeldTotal() - t.Left }

// counts is what a block adds to its plan's tally: a function of the claim, nil
// while it has not come, and the entries, so that all Regions come to count the
// same.
func counts(b *Block, entries []Entry) (*Tally, error) {
	n := 0
	if b != nil {
		n = len(b.Members)
	}
	for i := range entries {
		n = max(n, entries[i].Member+1)
	}
	stand, err := fold(n, nil, entries)
	if err != nil {
		return nil, err
	}
	t := &Tally{}
	settled := 0
	for i := range stand {
		if stand[i].settled() {
			settled++
		}
		switch st := &stand[i]; st.fate {
		case FateSent:
			t.Sent++
		case FateFailed:
			t.Failed++
		case FateAmbiguous:
			t.Left++
		case FateHeld:
			if st.reason == ReasonSuperseded {
				t.Superseded++
				continue
			}
			if t.Held == nil {
				t.Held = map[string]int64{}
			}
			t.Held[st.reason]++
		}
	}
	resent := map[attemptOf]bool{} // two Regions may have listed the same
	for _, e := range entries {
		if e.Fate == FateAmbiguous && Policy(e.Reason) == Resend {
			resent[e.of()] = true
		}
	}
	t.Resent = int64(len(resent))
	if b != nil {
		t.Claimed, t.Blocks = int64(n)-t.Superseded, 1
		if settled == n {
			t.BlocksDone = 1
		}
	}
	return t, nil
}

// countRow is what this Region has counted of a block.
type countRow struct {
	Tally Tally
	Open  string `json:",omitempty"` // the key of its row among the open blocks
	Late  bool   `json:",omitempty"` // see openRow
}

// count makes the plan's tally count what is known of a block by now. b is nil
// while the claim has not come. It does not matter how often it is called.
func (s *Service) count(tx *store.Tx, key string, b *Block, entries []Entry) error {
	row, err := store.Load[countRow](tx, kindCount, key)
	if err != nil {
		return err
	}
	isNew := row == nil
	if isNew {
		row = &countRow{}
	}
	now, err := counts(b, entries)
	if err != nil {
		return err
	}
	if b != nil && row.Tally.Blocks == 0 {
		row.Late = s.duty.Past(b.Region, b.Epoch)
	}
	if b != nil && row.Late {
		taken, late, err := firstTaken(tx, key)
		if err != nil {
			return err
		}
		if taken {
			row.Late = late
		}
	}
	open := ""
	if b != nil && now.BlocksDone == 0 {
		h, err := holderOf(tx, key, b)
		if err != nil {
			return err
		}
		open = openKey(h, key)
	}
	if !isNew && now.equal(&row.Tally) && open == row.Open {
		return nil
	}
	if open != row.Open {
		if row.Open != "" {
			if err := tx.Remove(kindOpen, row.Open); err != nil {
				return err
			}
		}
		if open != "" {
			if err := store.Save(tx, kindOpen, open, &openRow{Block: key, Late: row.Late}); err != nil {
				return err
			}
		}
	}
	delta := *now
	delta.Held = maps.Clone(now.Held)
	delta.add(&row.Tally, -1)
	plan, region := splitBlockKey(key)
	if err := s.tally(tx, plan+"/"+region, &delta); err != nil {
		return err
	}
	row.Tally, row.Open = *now, open
	return store.Save(tx, kindCount, key, row)
}

// tally adds to the counts that this node keeps of a plan's blocks of a Region;
// each node has a row of its own, so nodes do not wait for each other.
func (s *Service) tally(tx *store.Tx, of string, delta *Tally) error {
	key := of + "/" + s.cfg.Node
	t, err := store.Load[Tally](tx, kindTally, key)
	if err != nil {
		return err
	}
	if t == nil {
		t = &Tally{}
	}
	t.add(delta, 1)
	return store.Save(tx, kindTally, key, t)
}

// nodesMax bounds the nodes of all Regions whose counts are added up.
const nodesMax = 1000

// TallyOf adds up what is known of all of a plan's blocks.
func (s *Service) TallyOf(r store.Reader, plan string) (*Tally, error) {
	sum, err := s.sum(r, plan+"/")
	if err != nil {
		return nil, err
	}
	rows, err := r.List(kindDelivered, plan+"/", "", nodesMax)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		n, err := store.Decode[int64](kindDelivered, row.Body)
		if err != nil {
			return nil, err
		}
		sum.Delivered += *n
	}
	return sum, nil
}

// TallyHere adds up what is known of the blocks that this Region claimed.
func (s *Service) TallyHere(r store.Reader, plan string) (*Tally, error) {
	return s.sum(r, plan+"/"+s.store.Region()+"/")
}

func (s *Service) sum(r store.Reader, prefix string) (*Tally, error) {
	rows, err := r.List(kindTally, prefix, "", nodesMax)
	if err != nil {
		return nil, err
	}
	sum := &Tally{}
	for _, row := range rows {
		t, err := store.Decode[Tally](kindTally, row.Body)
		if err != nil {
			return nil, err
		}
		sum.add(t, 1)
	}
	return sum, nil
}

// delivered counts a receipt that says so, in a row of this node's.
func (s *Service) delivered(tx *store.Tx, plan string) error {
	key := plan + "/" + s.store.Region() + "/" + s.cfg.Node
	n, err := store.Load[int64](tx, kindDelivered, key)
	if err != nil {
		return err
	}
	if n == nil {
		n = new(int64)
	}
	*n++
	return store.Save(tx, kindDelivered, key, n)
}
