package campaigns

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/quorum"
)

// board is where stop orders stand in tests.
type board struct {
	mu    sync.Mutex
	halts map[string]quorum.Halt
	epoch uint64
	full  bool
}

func (b *board) Halted(keys ...string) (quorum.Halt, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		if h, ok := b.halts[k]; ok {
			return h, true
		}
	}
	return quorum.Halt{}, false
}

func (b *board) Order(_ context.Context, key string, h quorum.Halt) (func(context.Context), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return nil, errors.New("no majority")
	}
	b.epoch++
	h.Epoch = b.epoch
	if b.halts == nil {
		b.halts = map[string]quorum.Halt{}
	}
	b.halts[key] = h
	return func(ctx context.Context) { _ = b.Lift(ctx, key, h.Epoch) }, nil
}

func (b *board) Lift(_ context.Context, key string, upTo uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.halts[key].Epoch <= upTo {
		delete(b.halts, key)
	}
	return nil
}

// ordering gives the room a board.
func (w *world) ordering() *board {
	b := &board{}
	w.room.Orders(b)
	return b
}

// order makes a call by its order, and reports whether one was given.
func (w *world) order(method, path, body string) (status int, text string, given bool) {
	w.t.Helper()
	req := &wire.Request{Method: method, RawPath: path, Body: []byte(body)}
	m, err := w.mux.Find(req)
	if err != nil || !m.Orders() {
		w.t.Fatalf("%s %s cannot be ordered: %v", method, path, err)
	}
	ctx := aws.WithCaller(w.t.Context(), aws.Caller{Account: testAccount, Region: "us-east-1", RequestID: "req-1"})
	resp, withdraw := m.Order(ctx, req)
	if withdraw == nil {
		return 0, "", false
	}
	return resp.Status, string(resp.Body), true
}

// carryOut does what the node does about orders in the Region with control.
func (w *world) carryOut(b *board, id string) {
	w.t.Helper()
	h, ok := b.Halted(campaignKey(testApp, id))
	if !ok {
		w.t.Fatal("no order stands")
	}
	if err := w.room.CarryOut(w.t.Context(), testApp, id, h); err != nil {
		w.t.Fatal(err)
	}
	_ = b.Lift(w.t.Context(), campaignKey(testApp, id), h.Epoch)
}

func TestStops_hold_a_run_and_then_end_it(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		b := w.ordering()
		w.people(3000)
		c := w.create(`{` + mailing + `,` + now + `,"Limits":{"MessagesPerSecond":50}}`)
		w.pass(10 * time.Second)
		status, text, given := w.order("DELETE", base+"/"+c.Id, "")
		if !given || status != 200 || !strings.Contains(text, `"CampaignStatus":"DELETED"`) {
			t.Fatalf("answered %d %s, given: %v", status, text, given)
		}
		before := len(w.mail.to())
		w.pass(10 * time.Second)
		if after := len(w.mail.to()); before == 0 || after != before {
			t.Errorf("%d mails when it was ordered, %d later", before, after)
		}
		if got := w.campaign(c.Id).State.CampaignStatus; got != pinpoint.CampaignStatusExecuting {
			t.Errorf("nobody has carried the order out, and the campaign is %s", got)
		}
		w.carryOut(b, c.Id)
		w.pass(30 * time.Second)
		if after := len(w.mail.to()); after != before {
			t.Errorf("%d mails when it was ordered, %d after it was carried out", before, after)
		}
		if status, _ := w.call("GET", base+"/"+c.Id, ""); status != 404 {
			t.Errorf("the campaign answers %d", status)
		}
	})
}

func TestStops_a_withdrawn_order_leaves_nobody_out(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		b := w.ordering()
		want := w.people(600)
		c := w.create(`{` + mailing + `,` + now + `,"Limits":{"MessagesPerSecond":50}}`)
		w.pass(3 * time.Second)
		withdraw, err := b.Order(t.Context(), testApp, quorum.Halt{Kind: quorum.Delete})
		if err != nil {
			t.Fatal(err)
		}
		before := len(w.mail.to())
		w.pass(5 * time.Second)
		if after := len(w.mail.to()); after != before {
			t.Errorf("%d mails when the app was ordered to be deleted, %d later", before, after)
		}
		withdraw(t.Context())
		w.pass(3 * time.Minute)
		if got := w.mail.to(); len(got) != len(want) {
			t.Errorf("sent to %d of %d", len(got), len(want))
		}
		w.balanced(c.Id, 600)
	})
}

func TestStops_pause(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		b := w.ordering()
		w.people(10)
		c := w.create(`{` + mailing + `,"Schedule":{"StartTime":"2000-01-01T01:00:00Z"}}`)
		path := base + "/" + c.Id
		if _, _, given := w.order("PUT", path, `{"Name":"x"}`); given {
			t.Error("an update that does not pause was ordered")
		}
		if _, _, given := w.order("PUT", base+"/ffffffffffffffffffffffffffffffff", `{"IsPaused":true}`); given {
			t.Error("a campaign that is not known was ordered to pause")
		}
		b.full = true
		if _, _, given := w.order("PUT", path, `{"IsPaused":true}`); given {
			t.Error("given without a quorum")
		}
		b.full = false
		if status, text, _ := w.order("PUT", path, `{"IsPaused":true,"Name":"x"}`); status != 503 || !strings.Contains(text, "The rest of the change was not written") {
			t.Errorf("an update that does more: %d %s", status, text)
		}
		if status, text, _ := w.order("PUT", path, `{"IsPaused":true}`); status != 200 || !strings.Contains(text, `"CampaignStatus":"PAUSED"`) {
			t.Errorf("answered %d %s", status, text)
		}
		w.carryOut(b, c.Id)
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusPaused || *got.Version != 2 {
			t.Errorf("carried out: %s, version %d", got.State.CampaignStatus, *got.Version)
		}

		// An update that comes after an order finds it carried out.
		var out pinpoint.CampaignResponse
		w.ask(&out, "PUT", path, `{"IsPaused":false}`)
		w.order("PUT", path, `{"IsPaused":true}`)
		w.ask(&out, "PUT", path, `{"IsPaused":false}`)
		if _, stands := b.Halted(campaignKey(testApp, c.Id)); stands || *out.Version != 5 || out.State.CampaignStatus != pinpoint.CampaignStatusScheduled {
			t.Errorf("resumed: version %d, %s, the order stands: %v", *out.Version, out.State.CampaignStatus, stands)
		}

		// An order for an older version is not about this one.
		if _, err := b.Order(t.Context(), campaignKey(testApp, c.Id), quorum.Halt{Kind: quorum.Pause, Version: 4}); err != nil {
			t.Fatal(err)
		}
		w.carryOut(b, c.Id)
		if got := w.campaign(c.Id); got.State.CampaignStatus != pinpoint.CampaignStatusScheduled || *got.Version != 5 {
			t.Errorf("after an order that came late: %s, version %d", got.State.CampaignStatus, *got.Version)
		}

		// And it runs.
		w.pass(2 * time.Hour)
		if got := w.campaign(c.Id).State.CampaignStatus; got != pinpoint.CampaignStatusCompleted || len(w.mail.to()) != 10 {
			t.Errorf("in the end: %s, %d mails", got, len(w.mail.to()))
		}
	})
}

func TestStops_pause_a_run_that_has_begun(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		b := w.ordering()
		w.people(1000)
		c := w.create(`{` + mailing + `,` + now + `,"Limits":{"MessagesPerSecond":50}}`)
		w.pass(5 * time.Second)
		if _, _, given := w.order("PUT", base+"/"+c.Id, `{"IsPaused":true}`); !given {
			t.Fatal("not given")
		}
		w.carryOut(b, c.Id)
		before := len(w.mail.to())
		w.pass(time.Minute)
		if got := w.campaign(c.Id).State.CampaignStatus; got != pinpoint.CampaignStatusPaused || len(w.mail.to()) != before {
			t.Errorf("%s; %d mails when it was carried out, %d later", got, before, len(w.mail.to()))
		}
		if a := w.activities(c.Id); len(a) != 1 || *a[0].State != "CANCELLED" {
			t.Errorf("activities %+v", a)
		}
	})
}
