package processes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// moments draws n moments of a run, as the number of messages that went out
// before each, in order. Two may be so close that the second kill comes while
// the node still starts.
func moments(rnd *rand.Rand, n, messages int) []int {
	var all []int
	for range n {
		all = append(all, messages/50+rnd.IntN(messages-messages/20))
	}
	slices.Sort(all)
	return all
}

// A node is killed twenty times in the middle of a campaign to 20,000, and
// whatever was not known each time is sent again: nobody is lost, nobody hears
// twice without being listed.
func TestKills(t *testing.T) {
	const recipients, kills = 20_000, 20
	rnd := seeded(t)
	w := newWorld(t, setting{})
	a := newApp(t, w)
	reach := a.audience(recipients)
	began := time.Now()
	campaign := a.campaign("RESEND")
	var at []time.Time
	for i, moment := range moments(rnd, kills, len(reach)) {
		untilEvery(t, 2*time.Millisecond, fmt.Sprintf("the run does not come to %d messages for kill %d", moment, i+1), func() bool {
			if w.nodes[0].ended() {
				t.Fatalf("the node ended by itself: %v\n%s", w.nodes[0].err, w.nodes[0].tail())
			}
			return w.wentOut() >= moment
		})
		w.nodes[0].kill()
		at = append(at, time.Now())
		w.nodes[0].start(t)
	}
	w.ready(0)
	a.finish(campaign)
	t.Logf("%d recipients, %d kills, %.1f s", recipients, kills, time.Since(began).Seconds())
	v := a.judge(campaign, recipients, reach)
	if v.recipients != len(reach) {
		t.Errorf("%d of %d were reached, although what is not known is sent again", v.recipients, len(reach))
	}
	a.perKill(campaign, at)
}

// Of two nodes on one database, one is killed each time while the other goes on.
// What is not known is left, and listed.
func TestTwoNodes(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: two nodes need a database to share")
		return
	}
	const recipients, kills = 5000, 10
	rnd := seeded(t)
	w := newWorld(t, setting{nodes: 2, postgres: newDatabase(t, url)})
	a := newApp(t, w)
	reach := a.audience(recipients)
	began := time.Now()
	campaign := a.campaign("LEAVE")
	var at []time.Time
	for i, moment := range moments(rnd, kills, len(reach)) {
		// Some of the last may be left unsent, so a late moment never comes.
		untilEvery(t, 2*time.Millisecond, fmt.Sprintf("the run does not come to %d messages for kill %d", moment, i+1), func() bool {
			if w.wentOut() >= moment {
				return true
			}
			r, err := a.runOf(campaign)
			return err == nil && r.State == "COMPLETED"
		})
		victim := rnd.IntN(2)
		w.nodes[victim].kill()
		at = append(at, time.Now())
		w.nodes[victim].start(t)
	}
	w.ready(0)
	w.ready(1)
	a.finish(campaign)
	t.Logf("%d recipients, %d kills, %.1f s", recipients, kills, time.Since(began).Seconds())
	v := a.judge(campaign, recipients, reach)
	if v.duplicates > 0 {
		t.Errorf("%d duplicates, although what is not known is left", v.duplicates)
	}
	a.perKill(campaign, at)
}

var databases atomic.Int64

// newDatabase makes a database for one test on the server that the URL names.
func newDatabase(t *testing.T, server string) string {
	t.Helper()
	ctx := context.Background()
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("processes_%d_%d", os.Getpid(), databases.Add(1))
	do := func(statement string) {
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	do("CREATE DATABASE " + name)
	t.Cleanup(func() { do("DROP DATABASE " + name + " WITH (FORCE)") })
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", cfg.User, cfg.Password, name, cfg.Host, cfg.Port)
}
