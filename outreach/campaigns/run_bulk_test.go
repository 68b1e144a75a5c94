//go:build !race

package campaigns

import (
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/store"
)

// What is here sends to thousands over many minutes of virtual time; the race
// detector would make it take minutes of real time too.

func TestRun_pace_does_not_claim_further_ahead_than_its_window(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(3000)
		c := w.create(`{` + mailing + `,` + now + `,"Limits":{"MessagesPerSecond":20}}`)
		most := int64(0)
		for range 100 {
			w.pass(1700 * time.Millisecond)
			run := w.running(c.Id)
			most = max(most, run.InFlight)
			if run.State == everpoint.RunStateRunning && run.Targets != 3000 {
				t.Fatalf("run %+v", run)
			}
		}
		if most > 8*delivery.BlockMax || most < 7*delivery.BlockMax {
			t.Errorf("%d recipients were ahead of delivery", most)
		}
		if run := w.running(c.Id); run.Sent < 150*20 {
			t.Errorf("only %d sent in 170 s at 20 a second", run.Sent)
		}
		w.pass(time.Minute)
		w.balanced(c.Id, 3000)
	})
}

func TestRun_stops_when_its_campaign_or_segment_is_deleted(t *testing.T) {
	for _, what := range []string{"campaign", "segment", "app"} {
		t.Run(what, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.people(4000)
				c := w.create(`{` + mailing + `,` + now + `,"Limits":{"MessagesPerSecond":50}}`)
				w.pass(10 * time.Second)
				switch what {
				case "campaign":
					var d pinpoint.CampaignResponse
					w.ask(&d, "DELETE", base+"/"+c.Id, "")
					if d.State.CampaignStatus != pinpoint.CampaignStatusDeleted {
						t.Errorf("deleted campaign is %s", d.State.CampaignStatus)
					}
					if status, _ := w.call("GET", base+"/"+c.Id, ""); status != 404 {
						t.Errorf("GET of a deleted campaign: %d", status)
					}
				case "segment":
					w.saved.drop(everyone)
				case "app":
					w.update(func(tx *store.Tx) error { return tx.Remove(kindCampaign, campaignKey(testApp, c.Id)) })
				}
				w.pass(10 * time.Minute)
				sent := len(w.mail.to())
				if sent < 400 || sent > 400+9*delivery.BlockMax+1000 {
					t.Errorf("%d were sent to", sent)
				}
				if n, _ := w.queue.Depth(w.store.Reader(t.Context()), 10); n != 0 {
					t.Errorf("%d pieces of work are left", n)
				}
				if what == "segment" {
					if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusDeleted {
						t.Errorf("campaign is %s", got.State.CampaignStatus)
					}
					if a := w.activities(c.Id)[0]; *a.Result != "FAIL" {
						t.Errorf("activity %+v", a)
					}
				}
			})
		})
	}
}

func TestRun_one_slow_recipient_in_each_block_does_not_hold_it_up(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(6000)
		w.mail.answer = func(n int) courier.Outcome {
			if n%100 == 0 && n <= 6000 {
				return courier.Outcome{Status: courier.Deferred, Code: "451", RetryAfter: 10 * time.Minute}
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250"}
		}
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(time.Minute)
		if run := w.running(c.Id); run.Claimed != 6000 || run.Sent < 5900 {
			t.Errorf("after a minute %+v", run)
		}
		w.pass(30 * time.Minute)
		w.balanced(c.Id, 6000)
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusCompleted {
			t.Errorf("campaign is %s", got.State.CampaignStatus)
		}
	})
}
