package sim

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/segments"
)

// A run with a rate is half way; people change their addresses meanwhile; nothing crashes. Everybody must be reached once.
func TestFault_people_who_move_while_a_run_waits_are_reached_once(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		r, err := NewRegion(1, dir)
		must(err)
		r.relay.SetRules()
		serving, stop := context.WithCancel(t.Context())
		wait := r.serve(serving)
		defer wait()
		defer stop()
		must(r.Start(t.Context(), 0))
		defer func() { r.Stop() }()
		var app pinpoint.ApplicationResponse
		must(r.Call("mobiletargeting", "POST", "/v1/apps", object{"Name": "sim"}, &app))
		base := "/v1/apps/" + app.Id
		must(r.Call("mobiletargeting", "PUT", base+"/channels/email", object{
			"FromAddress": "news@tea.example", "Identity": "arn:aws:ses:" + region + ":" + account + ":identity/tea.example", "Enabled": true,
		}, nil))
		hash := func(address string) uint64 { return segments.DispatchHash(app.Id, "EMAIL", address) }
		const people = 2600
		low, high := 0, 0
		address := func(i int) string { return fmt.Sprintf("p%d@tea.example", i) }
		for from := 0; from < people; from += 100 {
			var items []object
			for i := from; i < from+100; i++ {
				items = append(items, object{"Id": fmt.Sprint("e", i), "ChannelType": "EMAIL", "Address": address(i)})
				if hash(address(i)) < hash(address(low)) {
					low = i
				}
				if hash(address(i)) > hash(address(high)) {
					high = i
				}
			}
			must(r.Call("mobiletargeting", "PUT", base+"/endpoints", object{"Item": items}, nil))
		}
		var seg pinpoint.SegmentResponse
		must(r.Call("mobiletargeting", "POST", base+"/segments", object{"Name": "all", "Dimensions": object{}}, &seg))
		var c pinpoint.CampaignResponse
		must(r.Call("mobiletargeting", "POST", base+"/campaigns", object{
			"Name": "sim", "SegmentId": seg.Id, "Limits": object{"MessagesPerSecond": 50}, "Schedule": object{"StartTime": "IMMEDIATE"},
			"MessageConfiguration": object{"EmailMessage": object{"Title": "Hello", "Body": "Dear"}},
		}, &c))
		time.Sleep(8 * time.Second)

		// The first of the walk moves behind its cursor, the last before it.
		find := func(ok func(h uint64) bool) string {
			for i := 0; ; i++ {
				if a := fmt.Sprintf("moved%d@tea.example", i); ok(hash(a)) {
					return a
				}
			}
		}
		late := find(func(h uint64) bool { return h > 0xfc<<56 })
		early := find(func(h uint64) bool { return h < 0x04<<56 })
		must(r.Call("mobiletargeting", "PUT", base+fmt.Sprint("/endpoints/e", low), object{"Address": late}, nil))
		must(r.Call("mobiletargeting", "PUT", base+fmt.Sprint("/endpoints/e", high), object{"Address": early}, nil))
		time.Sleep(3 * time.Minute)

		var run everpoint.CampaignRun
		must(r.Call("everpoint", "GET", "/everpoint/v1/apps/"+app.Id+"/campaigns/"+c.Id+"/run", nil, &run))
		var list everpoint.AmbiguousSendsResponse
		must(r.Call("everpoint", "GET", "/everpoint/v1/apps/"+app.Id+"/ambiguous-sends?page-size=500", nil, &list))
		times, ids := map[string]int{}, map[string]int{}
		for after := 0; ; {
			page := r.outbox.Messages(after, time.Time{}, "", 1000)
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				times[m.To]++
				ids[m.MessageID]++
				after = m.N
			}
		}
		for id, n := range ids {
			if n > 1 {
				t.Errorf("message %s went out %d times; %d sends are listed", id, n, len(list.Item))
			}
		}
		if n := times[late] + times[address(low)]; n != 1 {
			t.Errorf("the one who moved behind the cursor got %d mails", n)
		}
		if n := times[early] + times[address(high)]; n != 1 {
			t.Errorf("the one who moved before the cursor got %d mails", n)
		}
		t.Logf("run %+v; people reached %d of %d", run.State, len(times), people)
	})
}
