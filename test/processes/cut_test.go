package processes

import (
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// pauseMin is how long a Region is stopped at least: longer than its lease, its
// removal and an election together.
const pauseMin = 30 * time.Second

// A Region is cut off from the others in the middle of a campaign, and runs on, with
// its carriers in reach; or it is stopped for 30 seconds where it is. The other
// finishes the campaign. What the first sends late is listed, and no claims overlap.
func TestRegionThatIsCutOff(t *testing.T) {
	rnd := seeded(t)
	for _, tt := range []struct {
		name    string
		stopped bool
	}{{"cut", false}, {"stopped", true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newCut(t)
			a := newApp(t, w)
			reach := a.audience(recipientsOfTakeover)
			victim := rnd.IntN(2)
			policy := []string{"LEAVE", "RESEND"}[rnd.IntN(2)]
			campaign := a.campaign(policy)
			healed := a.cutAfter(victim, 1+rnd.IntN(len(reach)*6/10), tt.stopped, rnd.IntN(2) == 0)
			began := time.Now()
			a.ask(1 - victim)
			w.only(1 - victim)
			a.finish(campaign)
			t.Logf("%s was cut off (stopped %v) from a campaign to %d, %s; finished %s later", w.nodes[victim].name, tt.stopped, len(reach), policy, time.Since(began).Round(time.Millisecond))
			before := a.judge(campaign, recipientsOfTakeover, reach)
			if before.listed > 2*ambiguousPerKillMax {
				t.Errorf("%d are listed", before.listed)
			}
			if tt.stopped {
				untilEvery(t, time.Second, "time stands still", func() bool { return time.Since(began) > pauseMin })
			}
			healed()
			a.agreed(campaign, before.says.Sent)
			after := a.judge(campaign, recipientsOfTakeover, reach)
			if after.listed != before.listed {
				t.Errorf("%d were listed, and %d once the Region was back", before.listed, after.listed)
			}
			if n := len(w.messages()) - before.messages; n > 0 {
				t.Logf("%d left late", n)
			}
			for _, i := range []int{here, there} {
				w.nodes[i].stop(t)
			}
			for _, i := range []int{here, there} {
				w.claimsAreApart(i, recipientsOfTakeover)
			}
		})
	}
}

// claimsAreApart looks into a stopped Region's database: each of n recipients is
// in one claim that stood, of one Region and one stay.
func (w *world) claimsAreApart(i, n int) {
	t := w.t
	t.Helper()
	name := w.nodes[i].name
	w.database(i, func(st *store.Store) {
		void := map[string]map[int]bool{} // by block: members whose claim came late
		every(t, st, "ledger", func(key string, entries *[]delivery.Entry) {
			block := key[:strings.LastIndexByte(key, '/')]
			for _, e := range *entries {
				if e.Reason == delivery.ReasonSuperseded {
					if void[block] == nil {
						void[block] = map[int]bool{}
					}
					void[block][e.Member] = true
				}
			}
		})
		claimed := map[string]string{}
		every(t, st, "claim", func(key string, b *delivery.Block) {
			for m := range b.Members {
				to := string(b.Members[m].Key)
				if void[key][m] || b.Lost {
					continue
				}
				if other := claimed[to]; other != "" {
					t.Errorf("%s: %q is in the claims %s and %s", name, to, other, key)
				}
				claimed[to] = key
			}
		})
		if len(claimed) != n {
			t.Errorf("%s knows claims of %d recipients, want %d", name, len(claimed), n)
		}
	})
}

// every hands the rows of a kind to look.
func every[T any](t *testing.T, st *store.Store, kind string, look func(key string, v *T)) {
	t.Helper()
	const page = 500
	k := store.Kind{Name: kind, Rule: changelog.RuleAppend}
	for after := ""; ; {
		rows, err := st.Reader(t.Context()).List(k, "", after, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			after = row.Key
			v, err := store.Decode[T](k, row.Body)
			if err != nil {
				t.Fatal(err)
			}
			look(row.Key, v)
		}
		if len(rows) < page {
			return
		}
	}
}
