package campaigns

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/delivery"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

func TestRun_sends_to_everyone_once_and_says_so(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		want := w.people(1000)
		w.one("out", "EMAIL", "out@tea.example", map[string]string{"OptOut": "ALL"})
		w.one("asleep", "EMAIL", "asleep@tea.example", map[string]string{"EndpointStatus": "INACTIVE"})
		w.one("texter", "SMS", "+12065550123", nil)
		w.one("twin-a", "EMAIL", "twin@tea.example", nil)
		w.one("twin-b", "EMAIL", "twin@tea.example", nil)
		want = append(want, "twin@tea.example")
		c := w.create(`{"Name":"menu",` + mailing + `,` + now + `}`)
		if c.State.CampaignStatus != pinpoint.CampaignStatusScheduled || c.SegmentVersion != 3 {
			t.Errorf("a fresh campaign is %s, version %d of its segment", c.State.CampaignStatus, c.SegmentVersion)
		}
		w.pass(time.Minute)
		if got := w.mail.to(); !slices.Equal(got, want) {
			t.Errorf("sent to %d, want %d", len(got), len(want))
		}
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusCompleted {
			t.Errorf("campaign is %s", got.State.CampaignStatus)
		}
		list := w.activities(c.Id)
		if len(list) != 1 {
			t.Fatalf("%d activities", len(list))
		}
		a := list[0]
		if *a.State != "COMPLETED" || *a.Result != "SUCCESS" || a.Start == nil || a.End == nil || *a.TreatmentId != "0" {
			t.Errorf("activity %+v", a)
		}
		// 1005 members: one inactive, one a duplicate.
		if *a.TotalEndpointCount != 1003 || *a.SuccessfulEndpointCount != 1001 {
			t.Errorf("%d targeted, %d reached", *a.TotalEndpointCount, *a.SuccessfulEndpointCount)
		}
		metrics := map[string]string{
			"ENDPOINT_PRODUCED": "1005", "ENDPOINT_OPT_OUT": "1", "ENDPOINT_INACTIVE": "1",
			"ENDPOINT_CHANNEL_MISMATCH": "1", "DUPLICATE_ENDPOINT": "1",
		}
		if !maps.Equal(a.ExecutionMetrics, metrics) {
			t.Errorf("metrics %v, want %v", a.ExecutionMetrics, metrics)
		}
		if run := w.running(c.Id); run.State != everpoint.RunStateCompleted || run.Sent != 1001 || run.Claimed != 1005 ||
			run.StartedAt == nil || run.CompletedAt == nil || len(run.Activities) != 1 {
			t.Errorf("run %+v", run)
		}
		w.balanced(c.Id, 1005)
		if n, err := w.queue.Depth(w.store.Reader(t.Context()), 10); err != nil || n != 0 {
			t.Errorf("%d pieces of work are left, %v", n, err)
		}
	})
}

func TestRun_divides_people_among_treatments_and_holds_out(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := w.people(1000)
		c := w.create(`{` + mailing + `,` + now + `,"HoldoutPercent":10,"AdditionalTreatments":[
			{"SizePercent":20,"MessageConfiguration":{"EmailMessage":{"Title":"B","HtmlBody":"b"}}},
			{"SizePercent":30,"TreatmentName":"late","Schedule":{"StartTime":"` + inAnHour() + `"}}]}`)
		if c.DefaultState == nil || len(c.AdditionalTreatments) != 2 || c.AdditionalTreatments[1].Id != "2" {
			t.Errorf("fresh %+v", c)
		}
		w.pass(10 * time.Minute)
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusExecuting ||
			got.DefaultState.CampaignStatus != pinpoint.CampaignStatusCompleted ||
			got.AdditionalTreatments[1].State.CampaignStatus != pinpoint.CampaignStatusScheduled {
			t.Errorf("before the last treatment: %s, %s, %s", got.State.CampaignStatus, got.DefaultState.CampaignStatus,
				got.AdditionalTreatments[1].State.CampaignStatus)
		}
		w.pass(time.Hour)
		var want []string
		count := map[string]int64{}
		for i, address := range all {
			switch cohort := endpoints.Cohort(testApp, fmt.Sprintf("e%d", i)); {
			case cohort < 10:
				count["held"]++
				continue
			case cohort < 30:
				count["1"]++
			case cohort < 60:
				count["2"]++
			default:
				count["0"]++
			}
			want = append(want, address)
		}
		if got := w.mail.to(); !slices.Equal(got, want) {
			t.Errorf("sent to %d, want %d", len(got), len(want))
		}
		if r := w.balanced(c.Id, 1000); r.Held["HOLDOUT"] != count["held"] {
			t.Errorf("held %v, want %d", r.Held, count["held"])
		}
		for _, a := range w.activities(c.Id) {
			id := *a.TreatmentId
			if int64(*a.SuccessfulEndpointCount) != count[id] {
				t.Errorf("treatment %s reached %d, want %d", id, *a.SuccessfulEndpointCount, count[id])
			}
			others := 1000 - count[id]
			if id == "0" {
				others -= count["held"]
			}
			if a.ExecutionMetrics["TREATMENT_HOLDOUT"] != fmt.Sprint(others) || a.ExecutionMetrics["ENDPOINT_PRODUCED"] != "1000" {
				t.Errorf("treatment %s: %v, want %d others", id, a.ExecutionMetrics, others)
			}
		}
		subjects := 0
		for _, m := range w.mail.got {
			if strings.Contains(string(m.Mail.Data), "Subject: B\r\n") {
				subjects++
			}
		}
		if int64(subjects) != count["1"] {
			t.Errorf("%d mails of the second message, want %d", subjects, count["1"])
		}
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusCompleted {
			t.Errorf("campaign is %s", got.State.CampaignStatus)
		}
	})
}

func inAnHour() string { return time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z") }

func TestRun_starts_when_it_is_due_and_uses_the_template_of_that_moment(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(3)
		var ignored map[string]any
		template := `{"Subject":"From the template","HtmlPart":"<p>old</p>","TextPart":"old"}`
		w.ask(&ignored, "POST", "/v1/templates/menu/email", template)
		c := w.create(`{"SegmentId":"` + everyone + `","Schedule":{"StartTime":"` + inAnHour() + `"},
			"TemplateConfiguration":{"EmailTemplate":{"Name":"menu"}},"MessageConfiguration":{"EmailMessage":{"HtmlBody":"<p>inline</p>"}}}`)
		w.pass(59 * time.Minute)
		if got := w.mail.to(); len(got) != 0 {
			t.Fatalf("sent to %v before the start", got)
		}
		if a := w.activities(c.Id); len(a) != 1 || *a[0].State != "PENDING" {
			t.Errorf("activities %+v", a)
		}
		w.one("late", "EMAIL", "late@tea.example", nil)
		w.ask(&ignored, "PUT", "/v1/templates/menu/email", `{"Subject":"Newer","HtmlPart":"<p>new</p>","TextPart":"new"}`)
		w.pass(2 * time.Minute)
		if got := w.mail.to(); len(got) != 4 {
			t.Fatalf("sent to %v", got)
		}
		data := string(w.mail.got[0].Mail.Data)
		for _, want := range []string{"Subject: Newer\r\n", "<p>inline</p>", "new\r\n", `From: "Tea" <news@tea.example>`} {
			if !strings.Contains(data, want) {
				t.Errorf("no %q in %s", want, data)
			}
		}
	})
}

func TestRun_limits_are_the_campaigns_or_else_the_apps(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(300)
		// Ten a second for a minute: half of them are late.
		start := time.Now()
		c := w.create(`{` + mailing + `,` + now + `,"Limits":{"MessagesPerSecond":2,"MaximumDuration":60}}`)
		w.pass(30 * time.Minute)
		r := w.balanced(c.Id, 300)
		if r.Sent < 100 || r.Sent > 130 || r.Held["EXPIRED"] != 300-r.Sent {
			t.Errorf("at 2 a second for a minute %d were sent, held %v", r.Sent, r.Held)
		}
		if a := w.activities(c.Id)[0]; *a.Result != "SUCCESS" {
			t.Errorf("activity %+v after %v", a, time.Since(start))
		}
	})
}

func TestRun_that_cannot_run_is_invalid(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(3)
		w.channel("email", false)
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(time.Minute)
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusInvalid {
			t.Errorf("campaign is %s", got.State.CampaignStatus)
		}
		if a := w.activities(c.Id)[0]; *a.Result != "FAIL" || *a.State != "COMPLETED" {
			t.Errorf("activity %+v", a)
		}
		if r := w.running(c.Id); r.State != everpoint.RunStateFailed {
			t.Errorf("run %+v", r)
		}
		// Put right, it runs.
		w.channel("email", true)
		var u pinpoint.CampaignResponse
		w.ask(&u, "PUT", base+"/"+c.Id, `{"Name":"again"}`)
		w.pass(time.Minute)
		if got := w.mail.to(); len(got) != 3 {
			t.Errorf("sent to %v", got)
		}
	})
}

func TestRun_goes_on_after_a_crash_and_sends_to_nobody_twice(t *testing.T) {
	for _, crash := range []int{3, 7, 12, 20, 40, 77} {
		t.Run(fmt.Sprint(crash), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.blocks = 2
				w.stop()
				w.start()
				want := w.people(900)
				c := w.create(`{` + mailing + `,` + now + `}`)
				// From some commit on nothing is written any more.
				commits, dead := 0, false
				fail := func(point string) error {
					if point == "commit" {
						commits++
					}
					if dead = dead || commits >= crash; dead {
						return errors.New("power cut")
					}
					return nil
				}
				w.fault.Store(&fail)
				w.pass(30 * time.Second)
				before := w.mail.to()
				w.stop()
				w.fault.Store(nil)
				w.start()
				w.pass(5 * time.Minute)
				got := w.mail.to()
				var amb everpoint.AmbiguousSendsResponse
				w.ask(&amb, "GET", "/everpoint/v1/apps/"+testApp+"/ambiguous-sends?page-size=500&campaign-id="+c.Id, "")
				listed := map[string]bool{}
				for _, a := range amb.Item {
					listed[a.Address] = true
				}
				for i := 1; i < len(got); i++ {
					if got[i] == got[i-1] {
						t.Errorf("%s was sent to twice", got[i])
					}
				}
				for _, address := range want {
					if _, ok := slices.BinarySearch(got, address); !ok && !listed[address] {
						t.Errorf("%s was lost", address)
					}
				}
				r := w.balanced(c.Id, 900)
				if r.AmbiguousLeft != int64(len(listed)) {
					t.Errorf("%d left, %d listed; before the crash %d were sent", r.AmbiguousLeft, len(listed), len(before))
				}
			})
		})
	}
}

func TestRun_keeps_endpoints_of_one_address_in_one_block(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		var want []string
		for i := range 300 {
			address := fmt.Sprintf("triple%03d@tea.example", i)
			want = append(want, address)
			for j := range 3 {
				w.one(fmt.Sprintf("e%d-%d", i, j), "EMAIL", address, nil)
			}
		}
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(time.Minute)
		if got := w.mail.to(); !slices.Equal(got, want) {
			t.Errorf("%d mails to %d addresses", len(got), len(want))
		}
		if r := w.balanced(c.Id, 900); r.Held["DUPLICATE_ADDRESS"] != 600 {
			t.Errorf("held %v", r.Held)
		}
	})
}

func TestRun_goes_past_an_address_that_more_endpoints_have_than_a_block_holds(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		want := w.people(400)
		w.update(func(tx *store.Tx) error {
			for i := range 600 {
				if err := putEndpoint(tx, fmt.Sprintf("crowd%d", i), "EMAIL", "crowd@tea.example", nil); err != nil {
					return err
				}
			}
			return nil
		})
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(time.Minute)
		got := w.mail.to()
		if rest := slices.DeleteFunc(slices.Clone(got), func(to string) bool { return to == "crowd@tea.example" }); !slices.Equal(rest, want) {
			t.Errorf("%d others were sent to, want %d", len(rest), len(want))
		}
		// One for each block that the crowd takes.
		if n := len(got) - len(want); n != 3 {
			t.Errorf("%d mails to the crowd", n)
		}
		w.balanced(c.Id, 1000)
	})
}

func TestRun_waits_for_an_index_that_is_behind(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(3)
		w.pass(time.Second)
		w.unfollow()
		w.one("new", "EMAIL", "new@tea.example", nil)
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(10 * time.Second)
		if got := w.mail.to(); len(got) != 0 {
			t.Errorf("sent to %v from an index that is behind", got)
		}
		w.follow()
		w.pass(time.Minute)
		if got := w.mail.to(); len(got) != 4 {
			t.Errorf("sent to %v", got)
		}
		w.balanced(c.Id, 4)
	})
}

func TestDecide(t *testing.T) {
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(s *situation)
		want   step
	}{
		"replaced":             {func(s *situation) { s.activity = nil }, stepDrop},
		"campaign gone":        {func(s *situation) { s.campaign = nil }, stepDrop},
		"no place":             {func(s *situation) { s.place = group.Standing{} }, stepAwait},
		"due elsewhere":        {func(s *situation) { s.activity.State, s.place.Leads = statePending, false }, stepAwait},
		"ours to walk":         {func(s *situation) { s.place.Leads, s.place.Shards = false, 1 }, stepClaim},
		"our shards walked":    {func(s *situation) { s.place.Leads, s.place.Shards, s.done = false, 1, 1 }, stepAwait},
		"all walked":           {func(s *situation) { s.done = group.AllShards }, stepSweep},
		"all walked elsewhere": {func(s *situation) { s.done, s.place.Leads = group.AllShards, false }, stepAwait},
		"to sweep":             {func(s *situation) { s.done, s.activity.Sweeping = group.AllShards, true }, stepClaim},
		"swept elsewhere": {func(s *situation) {
			s.done, s.activity.Sweeping, s.place.Leads = group.AllShards, true, false
		}, stepAwait},
		"ended elsewhere":       {func(s *situation) { s.activity.Walked, s.place.Leads = at, false }, stepAwait},
		"campaign deleted":      {func(s *situation) { s.campaign.DeletedAt = "x" }, stepDrop},
		"over":                  {func(s *situation) { s.activity.State = stateCancelled }, stepDrop},
		"not due":               {func(s *situation) { s.activity.ScheduledStart = at.Add(time.Second) }, stepAwait},
		"segment gone":          {func(s *situation) { s.segment = false }, stepFail},
		"segment gone too late": {func(s *situation) { s.segment, s.activity.Walked = false, at }, stepFinish},
		"due":                   {func(s *situation) { s.activity.State = statePending }, stepStart},
		"room":                  {func(*situation) {}, stepClaim},
		"full":                  {func(s *situation) { s.here.Claimed = 1025 }, stepAwait},
		"just room":             {func(s *situation) { s.here.Claimed = 768 }, stepClaim},
		"too many unfinished":   {func(s *situation) { s.here.Blocks = unfinishedMax }, stepAwait},
		"walked, on the way":    {func(s *situation) { s.activity.Walked, s.tally.Claimed = at, 1 }, stepAwait},
		"walked, not closed":    {func(s *situation) { s.activity.Walked, s.tally.Blocks = at, 1 }, stepAwait},
		"walked":                {func(s *situation) { s.activity.Walked = at }, stepFinish},
	} {
		t.Run(name, func(t *testing.T) {
			s := &situation{
				campaign: &Campaign{}, segment: true, tally: &delivery.Tally{}, here: &delivery.Tally{}, window: 1024, part: &Part{},
				place:    group.Standing{Epoch: 1, Shards: group.AllShards, Leads: true},
				activity: &Activity{State: stateRunning, ScheduledStart: at},
			}
			c.change(s)
			if d := decide(at, s); d.step != c.want {
				t.Errorf("%+v, want %s", d, c.want)
			}
		})
	}
}

func TestRun_work_that_was_queued_twice_claims_once(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.people(600)
		c := w.create(`{` + mailing + `,` + now + `}`)
		w.pass(time.Minute)
		id := w.activities(c.Id)[0].Id
		w.update(func(tx *store.Tx) error {
			a, err := loadActivity(tx, testApp, c.Id, id)
			if err != nil {
				return err
			}
			return w.queue.Enqueue(tx, queue.Work{Kind: workRun, ID: a.ID, Due: tx.Now(), Body: reference(a)})
		})
		w.pass(time.Minute)
		if got := w.mail.to(); len(got) != 600 {
			t.Errorf("sent %d mails", len(got))
		}
	})
}
