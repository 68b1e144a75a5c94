package group

import (
	"math/rand/v2"
	"testing"

	"github.com/everpoint/everpoint/state/quorum"
)

// view is the quorum as one Region has applied it: some way into what was decided.
type view struct {
	Quorum
	decided *[]quorum.State
	at      int
}

func (v *view) State() (quorum.State, uint64) { return (*v.decided)[v.at], uint64(v.at) }

// TestHandover_no_shard_is_claimed_by_two: Regions that apply what was decided at
// their own pace, and jump over some of it, claim and hand over in any order.
func TestHandover_no_shard_is_claimed_by_two(t *testing.T) {
	type claim struct {
		shards Shards
		end    func()
	}
	type region struct {
		name   string
		view   *view
		h      *handover
		told   uint64
		claims []claim
		// What it waits for the others to tell of, to gain its shards.
		waits bool
		from  quorum.State
		index uint64
	}
	handed, held := 0, 0
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		names := []string{"a", "b", "c"}
		first := quorum.State{SetEpoch: 3, Regions: map[string]quorum.Region{}, Duty: quorum.Duty{Epoch: 1}}
		for i, name := range names {
			first.Regions[name] = quorum.Region{InSync: true, Member: uint64(i + 1)}
		}
		for i := range first.Duty.Shards {
			first.Duty.Shards[i], first.Duty.Since[i] = names[i%3], 1
		}
		decided := []quorum.State{first}
		var regions []*region
		for _, name := range names {
			regions = append(regions, &region{name: name, view: &view{decided: &decided}, h: newHandover()})
		}
		for step := range 3000 {
			r := regions[rnd.IntN(len(regions))]
			switch rnd.IntN(7) {
			case 0: // a new map, and entries that change nothing
				next := decided[len(decided)-1]
				if rnd.IntN(4) == 0 {
					next.Duty.Epoch++
					for range 1 + rnd.IntN(8) {
						i := rnd.IntN(4) // few shards, so that they come back
						if to := names[rnd.IntN(3)]; to != next.Duty.Shards[i] {
							next.Duty.Shards[i], next.Duty.Since[i] = to, next.Duty.Epoch
						}
					}
				}
				decided = append(decided, next)
			case 1:
				r.view.at += rnd.IntN(len(decided) - r.view.at)
			case 2:
				if len(r.claims) < 3 {
					end := r.h.begin(r.view)
					state, _ := r.view.State()
					r.claims = append(r.claims, claim{r.h.claimable(r.name, &state), end})
				}
			case 3:
				if len(r.claims) > 0 {
					i := rnd.IntN(len(r.claims))
					r.claims[i].end()
					r.claims = append(r.claims[:i], r.claims[i+1:]...)
				}
			case 4:
				was := r.told
				if r.told = r.h.index(r.view); r.told < was {
					t.Fatalf("seed %d, step %d: %s told %d, then %d", seed, step, r.name, was, r.told)
				}
				if r.told < uint64(r.view.at) {
					held++
				}
			case 5:
				if state, index := r.view.State(); !r.waits {
					if _, waiting := r.h.split(r.name, &state); waiting != 0 {
						r.waits, r.from, r.index = true, state, index
					}
				}
			case 6:
				if now, _ := r.view.State(); r.waits && moved(&r.from, &now) {
					r.waits = false
				}
				all := r.waits
				for _, o := range regions {
					all = all && (o == r || o.told >= r.index)
				}
				if all {
					r.h.take(r.name, &r.from)
					r.waits = false
					handed++
				}
			}
			var taken Shards
			for _, r := range regions {
				state, _ := r.view.State()
				mine := r.h.claimable(r.name, &state)
				for _, c := range r.claims {
					mine |= c.shards
				}
				if taken&mine != 0 {
					t.Fatalf("seed %d, step %d: shards %b are claimed twice", seed, step, taken&mine)
				}
				taken |= mine
			}
		}
	}
	if handed < 100 || held < 100 {
		t.Errorf("only %d handovers, and %d indexes held back", handed, held)
	}
}
