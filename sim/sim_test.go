package sim

import (
	"bufio"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	_ "modernc.org/sqlite" // the saboteur's way to the disk
)

var (
	oneSeed  = flag.Uint64("seed", 0, "run this seed alone")
	seeds    = flag.Int("seeds", 100, "how many seeds to run of one Region")
	groups   = flag.Int("groups", 500, "how many seeds to run of a group")
	oneGroup = flag.Uint64("group", 0, "run this seed of a group alone")
)

// story plays one seed under virtual time and returns what the judges say.
func story(t *testing.T, seed uint64, sabotage func(string) error) (wrong []string) {
	t.Helper()
	dir := disk(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := Tell(t.Context(), seed, dir, sabotage)
		if err != nil {
			wrong = []string{fmt.Sprintf("the story broke off: %v", err)}
			return
		}
		wrong = Judge(s)
	})
	return wrong
}

func TestSeeds_keep_every_promise(t *testing.T) {
	if *oneGroup != 0 {
		t.Skip("a group's seed was asked for")
	}
	if *oneSeed != 0 {
		for _, w := range story(t, *oneSeed, nil) {
			t.Errorf("seed %d: %s", *oneSeed, w)
		}
		return
	}
	run := func(seed uint64) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			for _, w := range story(t, seed, nil) {
				t.Errorf("seed %d: %s (repeat with: make sim SEED=%d)", seed, w, seed)
			}
		})
	}
	for _, seed := range remembered(t, "seeds") {
		run(seed)
	}
	for i := range *seeds {
		run(uint64(i + 1))
	}
}

// remembered are seeds that once failed.
func remembered(t *testing.T, name string) []uint64 {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []uint64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("testdata/%s: %v", name, err)
		}
		out = append(out, seed)
	}
	return out
}

// TestJudges_find_a_broken_ledger plays stories over a disk that forgets part
// of the ledger at each crash. The judges know nothing of it and must object.
func TestJudges_find_a_broken_ledger(t *testing.T) {
	forget := func(kind string) func(string) error {
		return func(dir string) error {
			db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "data", "everpoint.db"))
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.Exec("DELETE FROM doc WHERE kind = ?", kind)
			return err
		}
	}
	for name, c := range map[string]struct{ kind, objection string }{
		"intents forgotten": {"intent", "went out 2 times and is not listed"},
		"work forgotten":    {"work", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(40) {
				for _, w := range story(t, 1000+seed, forget(c.kind)) {
					if strings.Contains(w, c.objection) {
						t.Logf("seed %d: %s", 1000+seed, w)
						return
					}
				}
			}
			t.Errorf("forty stories over a ledger that forgets its %s rows, and the judges found nothing", c.kind)
		})
	}
}
