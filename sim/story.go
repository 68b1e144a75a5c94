package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
)

// person is an endpoint of the story.
type person struct {
	id, channel, address string
	barred               string    // why the campaign must hold them; empty: it must not
	out                  time.Time // when their opt-out was acknowledged; zero: never
	unsure               bool      // an opt-out was not acknowledged, and may count
}

// Story is what happened in one run, for the judges.
type Story struct {
	Seed     uint64
	People   []*person
	App      string
	Campaign string
	// Acknowledged are endpoint updates that were answered 202: id to the value
	// of the metric Round.
	Acknowledged map[string]float64
	// Direct are messages that SendMessages answered SUCCESSFUL: id to address.
	Direct map[string]string
	// Refused are the addresses that a carrier refused for good.
	Refused map[string]bool
	// Crashes is how many lives ended at a commit point.
	Crashes int

	Run       everpoint.CampaignRun
	Balance   everpoint.Reconciliation
	Ambiguous []everpoint.AmbiguousSend
	Found     map[string]float64 // the metric Round as the node reads it at the end
	Outbox    []sent
}

type sent struct {
	channel, to, id string
	at              time.Time
	region, subject string
}

type object = map[string]any

// Tell plays one run from a seed in dir. sabotage, when it is not nil, is done
// to the disk between two lives.
func Tell(ctx context.Context, seed uint64, dir string, sabotage func(dir string) error) (*Story, error) {
	r, err := NewRegion(seed, dir)
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(ctx)
	wait := r.serve(serving)
	defer func() {
		stop()
		wait()
	}()
	if err := r.Start(ctx, 0); err != nil {
		return nil, err
	}
	defer func() { r.Stop() }()
	s := &Story{Seed: seed, Acknowledged: map[string]float64{}, Direct: map[string]string{}, Found: map[string]float64{}}
	if err := s.opening(r); err != nil {
		return nil, err
	}
	if err := s.middle(ctx, r, sabotage); err != nil {
		return nil, err
	}
	return s, s.end(r)
}

// opening makes the app, its people and the campaign.
func (s *Story) opening(r *Region) error {
	var app pinpoint.ApplicationResponse
	if err := r.Call("mobiletargeting", "POST", "/v1/apps", object{"Name": "sim"}, &app); err != nil {
		return err
	}
	s.App = app.Id
	base := "/v1/apps/" + s.App
	if err := r.Call("mobiletargeting", "PUT", base+"/channels/email", object{
		"FromAddress": "news@tea.example", "Identity": "arn:aws:ses:" + region + ":" + account + ":identity/tea.example", "Enabled": true,
	}, nil); err != nil {
		return err
	}
	if err := r.Call("mobiletargeting", "PUT", base+"/channels/sms", object{"Enabled": true}, nil); err != nil {
		return err
	}
	count := 40 + r.rnd.IntN(120)
	var items []object
	for i := range count {
		p := &person{id: fmt.Sprintf("e%d", i), channel: "EMAIL", address: fmt.Sprintf("p%d@tea.example", i)}
		if r.rnd.IntN(3) == 0 {
			p.channel, p.address = "SMS", fmt.Sprintf("+1206555%04d", i)
		}
		item := object{"Id": p.id, "ChannelType": p.channel, "Address": p.address, "Metrics": object{"Round": 0}}
		switch r.rnd.IntN(12) {
		case 0:
			item["OptOut"], p.barred = "ALL", "opt-out"
		case 1:
			item["EndpointStatus"], p.barred = "INACTIVE", "inactive"
		}
		s.People = append(s.People, p)
		items = append(items, item)
	}
	for len(items) > 0 {
		n := min(100, len(items))
		if err := r.Call("mobiletargeting", "PUT", base+"/endpoints", object{"Item": items[:n]}, nil); err != nil {
			return err
		}
		items = items[n:]
	}
	var seg pinpoint.SegmentResponse
	if err := r.Call("mobiletargeting", "POST", base+"/segments", object{"Name": "all", "Dimensions": object{}}, &seg); err != nil {
		return err
	}
	var c pinpoint.CampaignResponse
	if err := r.Call("mobiletargeting", "POST", base+"/campaigns", object{
		"Name": "sim", "SegmentId": seg.Id, "Schedule": object{"StartTime": "IMMEDIATE"},
		"MessageConfiguration": object{
			"EmailMessage": object{"Title": "Hello {{Id}}", "Body": "Dear {{Id}}"},
			"SMSMessage":   object{"Body": "Hello {{Id}}", "MessageType": "PROMOTIONAL"},
		},
	}, &c); err != nil {
		return err
	}
	s.Campaign = c.Id
	if r.rnd.IntN(2) == 0 {
		return r.Call("everpoint", "PUT", "/everpoint/v1/apps/"+s.App+"/sending-policy", object{"AmbiguousSends": "RESEND"}, nil)
	}
	return nil
}

// middle kills the node a few times while calls go on, and lets it finish.
func (s *Story) middle(ctx context.Context, r *Region, sabotage func(string) error) error {
	// The first life goes on from the opening; it dies too.
	r.doom(1 + r.rnd.IntN(60))
	for range 1 + r.rnd.IntN(3) {
		if !s.live(ctx, r, time.Now().Add(2*time.Minute)) {
			break // the life outlived its work
		}
		s.Crashes++
		r.Stop()
		if sabotage != nil {
			if err := sabotage(r.dir); err != nil {
				return err
			}
		}
		if err := r.Start(ctx, 1+r.rnd.IntN(70)); err != nil {
			return err
		}
	}
	r.Stop()
	if err := r.Start(ctx, 0); err != nil {
		return err
	}
	s.live(ctx, r, time.Now().Add(20*time.Minute))
	return nil
}

// live makes calls until the node dies, and reports whether it did.
func (s *Story) live(ctx context.Context, r *Region, until time.Time) bool {
	tick := time.NewTicker(time.Duration(20+r.rnd.IntN(200)) * time.Millisecond)
	defer tick.Stop()
	calls := 30
	for time.Now().Before(until) {
		select {
		case <-r.Died():
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if calls--; calls > 0 {
			s.call(r)
		}
	}
	return false
}

// call makes one random call and remembers what was acknowledged.
func (s *Story) call(r *Region) {
	p := s.People[r.rnd.IntN(len(s.People))]
	path := "/v1/apps/" + s.App + "/endpoints/" + p.id
	switch r.rnd.IntN(4) {
	case 0:
		switch err := r.Call("mobiletargeting", "PUT", path, object{"OptOut": "ALL"}, nil); {
		case err != nil:
			p.unsure = true // it may have been written, and the answer lost
		case p.out.IsZero():
			p.out = time.Now()
		}
	case 1:
		var out pinpoint.MessageResponse
		to := fmt.Sprintf("d%d@tea.example", r.rnd.IntN(1_000_000))
		err := r.Call("mobiletargeting", "POST", "/v1/apps/"+s.App+"/messages", object{
			"Addresses":            object{to: object{"ChannelType": "EMAIL"}},
			"MessageConfiguration": object{"EmailMessage": object{"SimpleEmail": object{"Subject": object{"Data": "Direct"}, "TextPart": object{"Data": "Hello"}}}},
		}, &out)
		if res, ok := out.Result[to]; err == nil && ok && res.DeliveryStatus == pinpoint.DeliveryStatusSuccessful && res.MessageId != nil {
			s.Direct[*res.MessageId] = to
		}
	default:
		if p.barred == "inactive" {
			return // an update would make the endpoint active again
		}
		round := s.Acknowledged[p.id] + 1
		if r.Call("mobiletargeting", "PUT", path, object{"Metrics": object{"Round": round}}, nil) == nil {
			s.Acknowledged[p.id] = round
		}
	}
}

// end asks the node what it thinks happened.
func (s *Story) end(r *Region) error {
	admin := "/everpoint/v1/apps/" + s.App
	if err := r.Call("everpoint", "GET", admin+"/campaigns/"+s.Campaign+"/run", nil, &s.Run); err != nil {
		return err
	}
	if err := r.Call("everpoint", "GET", admin+"/campaigns/"+s.Campaign+"/reconciliation", nil, &s.Balance); err != nil {
		return err
	}
	query := "?page-size=500"
	for {
		var page everpoint.AmbiguousSendsResponse
		if err := r.Call("everpoint", "GET", admin+"/ambiguous-sends"+query, nil, &page); err != nil {
			return err
		}
		s.Ambiguous = append(s.Ambiguous, page.Item...)
		if page.NextToken == nil || *page.NextToken == "" {
			break
		}
		query = "?page-size=500&token=" + strings.ReplaceAll(*page.NextToken, "+", "%2B")
	}
	for _, p := range s.People {
		var e pinpoint.EndpointResponse
		if err := r.Call("mobiletargeting", "GET", "/v1/apps/"+s.App+"/endpoints/"+p.id, nil, &e); err != nil {
			return err
		}
		s.Found[p.id] = e.Metrics["Round"]
	}
	s.Refused = r.Refused()
	for after := 0; ; {
		page := r.outbox.Messages(after, time.Time{}, "", 1000)
		if len(page) == 0 {
			return nil
		}
		for _, m := range page {
			s.Outbox = append(s.Outbox, sent{m.Channel, m.To, m.MessageID, m.Time, m.Region, m.Subject})
			after = m.N
		}
	}
}
