package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/cmd/carriers"
)

// shardMails is how many mails the campaign of the shards figure has at least.
const shardMails = 60_000

// shards measures how soon the survivor sends on the shards of a Region that was
// killed in the middle of a campaign.
func (b *benchmark) shards(ctx context.Context) error {
	d, err := b.site(ctx, "shards")
	if err != nil {
		return err
	}
	defer d.stop()
	app, err := d.sharedApp(d.doors()...)
	if err != nil {
		return err
	}
	if err := d.mail(app); err != nil {
		return err
	}
	mails := max(b.mails, shardMails)
	if _, err := d.importRows(ctx, app, mails); err != nil {
		return err
	}
	if err := d.even(); err != nil {
		return err
	}
	seg, err := d.everybody(app)
	if err != nil {
		return err
	}
	var campaign pinpoint.CampaignResponse
	if err := d.client.call(ctx, "mobiletargeting", http.MethodPost, "/v1/apps/"+app+"/campaigns", nil, map[string]any{
		"Name": "bench", "SegmentId": seg, "Schedule": map[string]any{"StartTime": "IMMEDIATE"},
		"MessageConfiguration": map[string]any{"EmailMessage": map[string]any{"Title": "Tea for {{User.UserId}}", "Body": "Come for a cup of tea."}},
	}, &campaign); err != nil {
		return err
	}
	victim, survivor := localRegions[1], localRegions[0]
	o := &outbox{d: d, app: app, shards: map[string]map[int]int{survivor: {}, victim: {}}}
	// In the middle: the Region that dies has sent a tenth of its part.
	if err := d.wait(startTimeout, "the campaign does not begin in both Regions", func() error {
		if err := o.read(); err != nil {
			return err
		}
		return until(o.sent[victim] >= mails/20 && o.sent[survivor] > 0)
	}); err != nil {
		return err
	}
	if err := d.kill(victim); err != nil {
		return err
	}
	died := time.Now()
	if err := o.read(); err != nil {
		return err
	}
	theirs, before := o.shards[victim], o.n
	var first, last time.Time
	err = d.wait(startTimeout, "nobody sends on the dead Region's shards", func() error {
		if err := o.readEach(func(m *carriers.Message, shard int) {
			if m.Region == survivor && theirs[shard] > 0 && first.IsZero() {
				first = m.Time
			}
		}); err != nil {
			return err
		}
		return until(!first.IsZero())
	})
	if err != nil {
		return err
	}
	// Then until all are there: each has one, but for those of the kill.
	_ = d.wait(startTimeout, "the campaign does not end", func() error {
		if err := o.readEach(func(m *carriers.Message, _ int) { last = m.Time }); err != nil {
			return err
		}
		return until(o.n >= mails)
	})
	b.note("a dead Region's shards are sent on", round(first.Sub(died)).String()+" after the kill", "15 s", "-",
		fmt.Sprintf("campaign of %d mails in two Regions, one killed after %d of them, of which it had sent %d on %d shards; "+
			"by the relay, the other's first mail on one of these shards; %d mails %s after the kill; SQLite",
			mails, before, o.sent[victim], len(theirs), o.n, round(last.Sub(died))))
	return nil
}

// everybody makes a segment of all.
func (d *bed) everybody(app string) (id string, err error) {
	var seg pinpoint.SegmentResponse
	err = d.client.call(d.ctx, "mobiletargeting", http.MethodPost, "/v1/apps/"+app+"/segments", nil, map[string]any{"Name": "all", "Dimensions": map[string]any{}}, &seg)
	return seg.Id, err
}

// outbox follows what the carriers got.
type outbox struct {
	d      *bed
	app    string
	n      int // read so far
	sent   map[string]int
	shards map[string]map[int]int // mails by Region and dispatch shard
}

func (o *outbox) read() error { return o.readEach(func(*carriers.Message, int) {}) }

// readEach reads what is new.
func (o *outbox) readEach(each func(m *carriers.Message, shard int)) error {
	if o.sent == nil {
		o.sent = map[string]int{}
	}
	for {
		req, err := http.NewRequestWithContext(o.d.ctx, http.MethodGet, "http://"+o.d.address(portOutbox)+"/?format=json&after="+strconv.Itoa(o.n), http.NoBody)
		if err != nil {
			return err
		}
		resp, err := o.d.client.http.Do(req)
		if err != nil {
			return err
		}
		var page []carriers.Message
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return err
		}
		for i := range page {
			m := &page[i]
			shard := segments.Shard(segments.DispatchHash(o.app, m.Channel, m.To))
			o.n = m.N
			o.sent[m.Region]++
			if o.shards[m.Region] != nil {
				o.shards[m.Region][shard]++
			}
			each(m, shard)
		}
		if len(page) == 0 {
			return nil
		}
	}
}
