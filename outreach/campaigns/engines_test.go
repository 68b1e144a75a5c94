package campaigns

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/api/pinpoint"
)

var databases atomic.Int64

// newDatabase makes an empty database on the server for one test.
func newDatabase(t *testing.T, url string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := fmt.Sprintf("campaigns_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	c := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", c.User, c.Password, name, c.Host, c.Port)
}

// until polls a condition for at most half a minute.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within half a minute", what)
		}
	}
}

// TestEngines runs a campaign with treatments, a restart in the middle of it,
// on each database under real time.
func TestEngines_tell_the_same_history(t *testing.T) {
	urls := map[string]string{"sqlite": ""}
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		urls["postgres"] = newDatabase(t, url)
	} else {
		t.Log("TEST_POSTGRES_URL is not set: SQLite only")
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.url, w.blocks = url, 2
			w.start()
			defer func() { w.stop() }()
			want := w.people(3000)
			c := w.create(`{` + mailing + `,` + now + `,"AdditionalTreatments":[{"SizePercent":40}]}`)
			until(t, "a third is sent to", func() bool { return len(w.mail.to()) > 1000 })
			w.stop()
			w.start()
			until(t, "the campaign is over", func() bool {
				return w.campaign(c.Id).State.CampaignStatus == pinpoint.CampaignStatusCompleted
			})
			if got := w.mail.to(); !slices.Equal(got, want) {
				t.Errorf("sent to %d, want %d", len(got), len(want))
			}
			w.balanced(c.Id, 3000)
			for _, a := range w.activities(c.Id) {
				if *a.Result != "SUCCESS" || a.ExecutionMetrics["ENDPOINT_PRODUCED"] != "3000" {
					t.Errorf("activity %+v", a)
				}
			}
		})
	}
}
