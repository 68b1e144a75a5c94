package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// holder is the Region that sends a block: the one that claimed it or the last
// that took it over, and the epoch of its membership then.
type holder struct {
	Region string
	Epoch  uint64
}

// takenRow says that a Region has taken a block over. Its key is the block's and
// the epoch, so that of two the later comes last.
//
// Late is what the Region that took the block over knew of its claim: who reads the
// rows anew, after its disk was lost, hears of all old claims late.
type takenRow struct {
	Region string
	Epoch  uint64
	At     time.Time
	Late   bool `json:",omitempty"`
}

func takenKey(block string, epoch uint64) string { return fmt.Sprintf("%s/%016x", block, epoch) }

// takenMax bounds the takeovers of one block that are read.
const takenMax = 1000

// firstTaken reads what was decided of a block's claim when it was first taken over.
func firstTaken(r store.Reader, key string) (taken, late bool, err error) {
	rows, err := r.List(kindTaken, key+"/", "", 1)
	if err != nil || len(rows) == 0 {
		return false, false, err
	}
	t, err := store.Decode[takenRow](kindTaken, rows[0].Body)
	if err != nil {
		return false, false, err
	}
	return true, t.Late, nil
}

func holderOf(r store.Reader, key string, b *Block) (holder, error) {
	rows, err := r.List(kindTaken, key+"/", "", takenMax)
	if err != nil || len(rows) == 0 {
		return holder{b.Region, b.Epoch}, err
	}
	t, err := store.Decode[takenRow](kindTaken, rows[len(rows)-1].Body)
	if err != nil {
		return holder{}, err
	}
	return holder{t.Region, t.Epoch}, nil
}

// openRow is a block of which some recipients have no fate yet. Late says that its
// claim came when it did not hold any more: its Region never learnt that another
// had it, so nothing of it was put on the wire, and its recipients may be claimed
// by others.
type openRow struct {
	Block string
	Late  bool `json:",omitempty"`
}

// Open blocks are listed by holder: what one Region left behind lies together.
func openPrefix(h holder) string            { return fmt.Sprintf("%s/%016x/", h.Region, h.Epoch) }
func openKey(h holder, block string) string { return openPrefix(h) + block }

func splitOpen(key string) (h holder, ok bool) {
	region, rest, _ := strings.Cut(key, "/")
	epoch, _, ok := strings.Cut(rest, "/")
	if !ok {
		return h, false
	}
	_, err := fmt.Sscanf(epoch, "%x", &h.Epoch)
	h.Region = region
	return h, err == nil
}

func splitBlockKey(key string) (plan, region string) {
	plan, rest, _ := strings.Cut(key, "/")
	region, _, _ = strings.Cut(rest, "/")
	return plan, region
}

const (
	takeoverInterval = time.Second
	takeoverPage     = 256
)

// Run takes over, until ctx ends, the blocks that their holders left behind and
// whose dispatch shard is this Region's. A holder that returned does not take its
// own blocks up again, for it does not know which of its claims the others had in
// time; for the shards that are its again another Region does. Only when it is alone
// it does, when whoever may have taken them over is lost: what that one may have
// sent is below its marks.
//
// Source: design 5, Takeover.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(takeoverInterval)
	defer tick.Stop()
	for {
		changed := s.duty.Changed() // before it is looked at
		standing, err := s.duty.Standing()
		if err == nil && standing.Grouped { // it has duty now, and somebody to inherit from
			if err := s.takeOver(ctx, standing); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "blocks left behind are not taken over yet", "error", err)
			}
			if err := s.sweepMarks(ctx, standing); err != nil && ctx.Err() == nil {
				s.log.InfoContext(ctx, "marks that are of no more use are not removed yet", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// takeOver looks at every holder once.
func (s *Service) takeOver(ctx context.Context, standing group.Standing) error {
	r := s.store.Reader(ctx)
	for after := ""; ; {
		rows, err := r.List(kindOpen, "", after, 1)
		if err != nil || len(rows) == 0 {
			return err
		}
		h, ok := splitOpen(rows[0].Key)
		if !ok {
			return fmt.Errorf("delivery: open block %q names no holder", rows[0].Key)
		}
		if s.duty.Orphaned(h.Region, h.Epoch) {
			if err := s.inherit(ctx, h, standing); err != nil {
				return err
			}
		}
		after = openPrefix(h) + "\xff"
	}
}

// inherit takes over what one holder left behind.
func (s *Service) inherit(ctx context.Context, h holder, standing group.Standing) error {
	r := s.store.Reader(ctx)
	taken := 0
	for after := ""; ; {
		rows, err := r.List(kindOpen, openPrefix(h), after, takeoverPage)
		if err != nil {
			return err
		}
		var mine []openRow
		for _, row := range rows {
			after = row.Key
			o, err := store.Decode[openRow](kindOpen, row.Body)
			if err != nil {
				return err
			}
			b, err := store.Load[Block](r, kindClaim, o.Block)
			if err != nil {
				return err
			}
			if b != nil && s.inherits(standing, h, b.shard()) {
				mine = append(mine, *o)
			}
		}
		for part := range slices.Chunk(mine, takeoverChunk) {
			if err := s.inheritBlocks(ctx, h, standing, part); err != nil {
				return err
			}
			taken += len(part)
		}
		if len(rows) < takeoverPage {
			break
		}
	}
	if taken > 0 {
		s.log.InfoContext(ctx, "blocks left behind were taken over", "peer", h.Region, "epoch", h.Epoch, "blocks", taken)
	}
	return nil
}

// inherits reports whether it is this Region that takes a holder's block over.
func (s *Service) inherits(standing group.Standing, h holder, shard int) bool {
	if h.Region == s.store.Region() {
		return len(standing.Others) == 0 && standing.Shards.Has(shard)
	}
	if s.duty.Owner(shard) != h.Region {
		return standing.Shards.Has(shard)
	}
	others := slices.DeleteFunc(slices.Clone(standing.Others), func(region string) bool { return region == h.Region })
	return slices.Min(append(others, s.store.Region())) == s.store.Region()
}

// takeoverChunk is how many blocks one update takes over.
const takeoverChunk = 16

func (s *Service) inheritBlocks(ctx context.Context, h holder, standing group.Standing, blocks []openRow) error {
	return s.duty.Claim(ctx, standing.Epoch, func() error {
		now, err := s.duty.Standing() // duty does not move from here on
		if err != nil {
			return err
		}
		return s.store.Update(ctx, func(tx *store.Tx) error {
			for _, o := range blocks {
				if err := s.inheritBlock(tx, h, now, o); err != nil {
					return fmt.Errorf("block %s: %w", o.Block, err)
				}
			}
			return nil
		})
	})
}

// inheritBlock writes that the block is this Region's, and lists what its holder
// may have sent. What remains is queued.
//
// Of a campaign's claim that came late, or of a call's of which another plan stands,
// nothing remains: no other Region had it while its own was
// in the set, so its intents were not on the wire, but for what that Region marked
// while it was alone. That is listed and left, for others may have been sent to in
// its place.
func (s *Service) inheritBlock(tx *store.Tx, h holder, standing group.Standing, o openRow) error {
	b, err := store.Load[Block](tx, kindClaim, o.Block)
	if err != nil || b == nil || !s.inherits(standing, h, b.shard()) {
		return err
	}
	now, err := holderOf(tx, o.Block, b)
	if err != nil || now != h {
		return err // another was faster
	}
	plan, err := s.plan(tx, b.Plan)
	if err != nil {
		return err
	}
	taken, late, err := firstTaken(tx, o.Block)
	if err != nil {
		return err
	}
	if taken {
		o.Late = late
	} else if o.Late && plan.plan.Call != nil {
		// Nobody else claims its recipients, unless the call was repeated.
		stands, err := s.stands(tx, plan.plan)
		if err != nil {
			return err
		}
		o.Late = !stands
	}
	t := &takenRow{Region: s.store.Region(), Epoch: standing.Epoch, At: tx.Now().UTC(), Late: o.Late}
	if err := store.Save(tx, kindTaken, takenKey(o.Block, t.Epoch), t); err != nil {
		return err
	}
	intents, entries, err := readLedger(tx, o.Block)
	if err != nil {
		return err
	}
	if b.Lost {
		intents = append(intents, b.lostIntent())
	}
	j := &job{s: s, key: o.Block, block: b, plan: plan}
	if j.stand, err = fold(len(b.Members), intents, entries); err != nil {
		return err
	}
	j.addMarks(o.Late, entries)
	alone := s.upTo(b.Plan, func(of holder) bool { return of == holder{b.Region, b.Epoch} })
	var found []Entry
	left := 0
	for i := range j.stand {
		st, hash := &j.stand[i], b.Members[i].Hash
		to, marked := alone[segments.Shard(hash)]
		void := o.Late && (!marked || hash > to)
		switch {
		case st.open > 0 && !void:
			c, err := j.candidate(tx, i)
			if err != nil {
				return err
			}
			list := j.ambiguous
			if o.Late {
				list = j.leave
			}
			e, err := list(tx, i, st.openAttempt(), time.UnixMilli(st.openAt), c)
			if err != nil {
				return err
			}
			if Policy(e.Reason) == Resend {
				left++
			}
			found = append(found, e)
		case o.Late && (!st.settled() || st.fate == FateHeld && st.reason != ReasonSuperseded):
			found = append(found, Entry{Member: i, Attempt: st.attempts, At: tx.Now().UnixMilli(), Fate: FateHeld, Reason: ReasonSuperseded})
		case !st.settled():
			left++
		}
	}
	if err := j.write(tx, entries, found); err != nil {
		return err
	}
	// Also without news: it is another's now.
	if err := s.count(tx, o.Block, b, append(slices.Clip(entries), found...)); err != nil || left == 0 {
		return err
	}
	work := workBlock
	if plan.plan.Call != nil {
		work = workCall
	}
	return s.queue.Enqueue(tx, queue.Work{Kind: work, ID: o.Block, Due: tx.Now()})
}

// Merged takes note of what was merged from another Region: counts follow the
// ledger, and late outcomes shorten the list of ambiguous sends. It is what
// [replica.Config.MergedAll] wants.
//
// Claims are not merged before this node has heard of the quorum since it started:
// whether the claimant's stay was over when its claim came could not be told.
func (s *Service) Merged(tx *store.Tx, changes []changelog.Change) error {
	var keys []string
	fresh := map[string][]Entry{}
	for i := range changes {
		c := &changes[i]
		key := ""
		switch c.Kind {
		case kindClaim.Name:
			key = c.Key
			if c.Body != nil {
				if err := s.duty.Heard(); err != nil {
					return fmt.Errorf("a claim is not merged yet: %w", err)
				}
				b, err := store.Decode[Block](kindClaim, c.Body)
				if err != nil {
					return err
				}
				if !s.duty.Past(b.Region, b.Epoch) {
					tx.AfterCommit(func() { s.onClaim(b.Plan, b.Members) })
				}
			}
		case kindTaken.Name, kindEntries.Name:
			if cut := strings.LastIndexByte(c.Key, '/'); cut > 0 {
				key = c.Key[:cut]
			}
		}
		if key == "" || c.Body == nil {
			continue
		}
		if _, ok := fresh[key]; !ok {
			keys = append(keys, key)
			fresh[key] = nil
		}
		if c.Kind == kindEntries.Name {
			list, err := store.Decode[[]Entry](kindEntries, c.Body)
			if err != nil {
				return err
			}
			fresh[key] = append(fresh[key], *list...)
		}
	}
	for _, key := range keys {
		if err := s.recount(tx, key, fresh[key]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) recount(tx *store.Tx, key string, fresh []Entry) error {
	b, err := store.Load[Block](tx, kindClaim, key)
	if err != nil {
		return err
	}
	entries, err := readEntries(tx, key)
	if err != nil {
		return err
	}
	if err := s.count(tx, key, b, entries); err != nil || b == nil {
		return err
	}
	row, err := store.Load[countRow](tx, kindCount, key)
	if err != nil || row == nil {
		return err
	}
	for _, e := range fresh {
		if e.Fate == FateAmbiguous || e.Fate == FateHeld || e.Member < 0 || e.Member >= len(b.Members) {
			continue
		}
		listed := row.Late || slices.ContainsFunc(entries, func(o Entry) bool {
			return o.Fate == FateAmbiguous && o.Member == e.Member && o.Attempt == e.Attempt && (o.Region == e.Region || o.Region == "")
		})
		if !listed {
			continue
		}
		p, err := s.plan(tx, b.Plan)
		if err != nil {
			return err
		}
		if err := s.unlist(tx, p.plan, &b.Members[e.Member], e); err != nil {
			return err
		}
	}
	return nil
}

// unlist notes what became of an ambiguous send.
func (s *Service) unlist(tx *store.Tx, p *Plan, m *Member, e Entry) error {
	for _, region := range []string{e.Region, ""} { // as that Region's, or known by its mark alone
		key := ambiguousKey(p.App, p.ID, s.messageID(p.ID, m), e.Attempt, region)
		a, err := store.Load[Ambiguous](tx, kindAmbiguous, key)
		if err != nil {
			return err
		}
		if a == nil || a.Resolution != "" {
			continue
		}
		a.ResolvedAt, a.Resolution = tx.Now().UTC(), string(e.Fate)
		return store.Save(tx, kindAmbiguous, key, a)
	}
	return nil
}
