package sim

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/state/quorum"
)

// A campaign is half way in both Regions when the cable between them is cut. It is
// deleted in a Region that cannot tell the other; the other hears of it by the
// quorum, and sends no more.
func TestStops_reach_a_Region_by_the_quorum(t *testing.T) {
	for name, c := range map[string]struct {
		// cut cuts the cable, and returns the Region that is asked.
		cut func(t *testing.T, g *Group, control string) (asked string)
	}{
		"asked where control was": {func(_ *testing.T, g *Group, control string) string {
			g.net.Cut(control, otherOf(control), true) // the other does not hear it, and removes it
			return control
		}},
		"asked where control is, and the other is removed": {func(_ *testing.T, g *Group, control string) string {
			g.net.Cut(otherOf(control), control, true)
			return control
		}},
		"asked where the other has control, and sends alone": {func(t *testing.T, g *Group, control string) string {
			// Control goes where the quorum is led from, so that the other is cut off from both.
			leader := g.witness.node.Quorum.Status().Leader
			if leader != control && leader != witnessName {
				_, state := g.states()
				if _, err := g.regions[leader].node.Quorum.Propose(t.Context(), quorum.SetControl{Region: leader, Epoch: state.Control.Epoch}); err != nil {
					t.Fatal(err)
				}
				control = leader
			}
			other := otherOf(control)
			g.net.Cut(other, control, true)
			if !until(t.Context(), 10*time.Second, func() bool {
				_, state := g.states()
				return !state.Regions[other].InSync
			}) {
				t.Fatal("nobody was removed")
			}
			g.net.Cut(control, other, true)
			time.Sleep(12 * time.Second) // until the other's claims are over, and this one's shards all
			return other
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := disk(t)
			if _, err := groupCertificates(); err != nil { // outside of the bubble, once
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				ctx := t.Context()
				g, err := NewGroup(1, dir, 0, quiet())
				must(err)
				g.relay.SetRules()
				serving, stop := context.WithCancel(ctx)
				defer stop()
				wait, err := g.serve(serving)
				must(err)
				defer wait()
				defer stop()
				defer g.Stop()
				must(g.Start(ctx))
				if !until(ctx, 30*time.Second, g.whole) {
					t.Fatal("the group did not form")
				}
				story := &Chronicle{}
				must(story.opening(ctx, g))
				base := "/v1/apps/" + story.App
				m := g.regions[near]
				for from := 0; from < 3000; from += 100 {
					var items []object
					for i := from; i < from+100; i++ {
						items = append(items, object{"Id": fmt.Sprint("n", i), "ChannelType": "EMAIL", "Address": fmt.Sprintf("n%d@tea.example", i), "Attributes": object{"Member": []string{"yes"}}})
					}
					must(m.Call(ctx, "mobiletargeting", "PUT", base+"/endpoints", object{"Item": items}, nil))
				}
				time.Sleep(time.Second)
				var campaign pinpoint.CampaignResponse
				must(m.Call(ctx, "mobiletargeting", "POST", base+"/campaigns", object{
					"Name": "sim", "SegmentId": story.segment, "Limits": object{"MessagesPerSecond": 50}, "Schedule": object{"StartTime": "IMMEDIATE"},
					"MessageConfiguration": object{"EmailMessage": object{"Title": "Hello", "Body": "Dear"}},
				}, &campaign))
				time.Sleep(8 * time.Second)
				_, state := g.states()
				asked := c.cut(t, g, state.Control.Region)
				at := time.Now()
				before := len(g.outbox.Messages(0, time.Time{}, "", 10_000))
				var answer pinpoint.CampaignResponse
				must(g.regions[asked].Call(ctx, "mobiletargeting", "DELETE", base+"/campaigns/"+campaign.Id, nil, &answer))
				took := time.Since(at)
				if answer.State == nil || answer.State.CampaignStatus != pinpoint.CampaignStatusDeleted || took > 5*time.Second {
					t.Errorf("after %s the answer is %+v", took, answer.State)
				}
				time.Sleep(30 * time.Second)
				sends := g.outbox.Messages(0, time.Time{}, "", 10_000)
				if before == 0 || len(sends) > 2500 {
					t.Fatalf("%d mails before the campaign was deleted, %d in the end: nothing was stopped", before, len(sends))
				}
				last := sends[len(sends)-1].Time.Sub(at)
				if last > 1500*time.Millisecond {
					t.Errorf("the last mail went out %s after the campaign was deleted", last)
				}
				t.Logf("answered after %s; %d mails before, %d in the end, the last after %s", took, before, len(sends), last)

				g.net.Heal()
				if !until(ctx, time.Minute, func() bool {
					_, state := g.states()
					return g.whole() && len(state.Stops) == 0
				}) {
					_, state := g.states()
					t.Errorf("the order stands still: %v", state.Stops)
				}
				for name, m := range g.regions {
					if err := m.Call(ctx, "mobiletargeting", "GET", base+"/campaigns/"+campaign.Id, nil, nil); err == nil {
						t.Errorf("the campaign is there in %s", name)
					}
				}
				if now := g.outbox.Messages(0, time.Time{}, "", 10_000); len(now) != len(sends) {
					t.Errorf("%d mails went out after the cable was mended", len(now)-len(sends))
				}
			})
		})
	}
}
