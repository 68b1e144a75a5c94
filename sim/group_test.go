package sim

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// quiet discards the log unless SIM_LOG is set.
func quiet() *slog.Logger {
	if os.Getenv("SIM_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return slog.New(slog.DiscardHandler)
}

// disk makes a directory, in memory where that is possible: what is simulated does
// not lose what was not synced.
func disk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// chronicle plays one seed of a group under virtual time.
func chronicle(t *testing.T, seed uint64, sabotage Sabotage) (c *Chronicle, wrong []string) {
	t.Helper()
	dir := disk(t)
	if _, err := groupCertificates(); err != nil { // outside of the bubble, once
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var err error
		if c, err = Chronicles(t.Context(), seed, dir, sabotage, quiet()); err != nil {
			wrong = []string{fmt.Sprintf("the story broke off: %v", err)}
			return
		}
		wrong = JudgeGroup(c)
	})
	return c, wrong
}

// faultsSurely is in how many stories every kind of fault comes to pass.
const faultsSurely = 200

func TestGroups_keep_every_promise(t *testing.T) {
	var mu sync.Mutex
	drawn, played := map[string]int{}, 0
	t.Cleanup(func() {
		line := fmt.Sprintf("%d stories of groups:", played)
		for _, kind := range faultKinds {
			line += fmt.Sprintf(" %s %d,", kind, drawn[kind])
			if drawn[kind] == 0 && played >= faultsSurely {
				t.Errorf("in %d stories there was no %s", played, kind)
			}
		}
		_, _ = fmt.Fprintln(t.Output(), strings.TrimSuffix(line, ","))
	})
	run := func(seed uint64) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			c, wrong := chronicle(t, seed, Sabotage{})
			for _, w := range wrong {
				t.Errorf("seed %d: %s (repeat with: make sim GROUP=%d)", seed, w, seed)
			}
			mu.Lock()
			defer mu.Unlock()
			played++
			if c == nil {
				return
			}
			for kind, n := range c.Faults {
				drawn[kind] += n
			}
			if *oneGroup != 0 || len(wrong) > 0 {
				t.Logf("seed %d:\n%s", seed, c)
			}
		})
	}
	if *oneSeed != 0 {
		t.Skip("a seed of one Region was asked for")
	}
	if *oneGroup != 0 {
		run(*oneGroup)
		return
	}
	for _, seed := range remembered(t, "groups") {
		run(seed)
	}
	for i := range *groups {
		run(uint64(i + 1))
	}
}
