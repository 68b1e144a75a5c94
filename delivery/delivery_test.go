package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

const testApp = "0123456789abcdef0123456789abcdef"

// carrier is a courier small enough to read: it records what it is given and
// answers as it is told.
type carrier struct {
	mu     sync.Mutex
	got    []*courier.Message
	answer func(n int, m *courier.Message) courier.Outcome // nil: accepted
}

func (c *carrier) Send(_ context.Context, m *courier.Message) courier.Outcome {
	c.mu.Lock()
	c.got = append(c.got, m)
	n := len(c.got)
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		return answer(n, m)
	}
	return courier.Outcome{Status: courier.Accepted, Code: "250", Parts: 1, ProviderIDs: []string{fmt.Sprintf("p%d", n)}}
}

func (c *carrier) to() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, m := range c.got {
		out = append(out, m.To)
	}
	slices.Sort(out)
	return out
}

// world is one node: store, queue and delivery over carriers of its own.
type world struct {
	t    *testing.T
	dir  string
	keys *store.Keys
	mail *carrier
	text *carrier

	region  string
	duty    group.Duty
	stopped func(r store.Reader, p *Plan) (bool, error) // nil: nobody stops a run
	fault   atomic.Pointer[func(string) error]          // fails the store's commit points

	store   *store.Store
	queue   *queue.Queue
	service *Service
	stop    func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir(), keys: keys, mail: &carrier{}, text: &carrier{}, region: "us-east-1", duty: group.Alone("us-east-1")}
	w.start()
	return w
}

// inject has the store fail as f says; nil stops that.
func (w *world) inject(f func(point string) error) {
	if f == nil {
		w.fault.Store(nil)
		return
	}
	w.fault.Store(&f)
}

func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	w.store, err = store.Open(w.t.Context(), store.Config{Dir: w.dir, Region: w.region, Fault: func(p string) error {
		if f := w.fault.Load(); f != nil {
			return (*f)(p)
		}
		return nil
	}}, w.keys, time.Now, log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.queue = queue.New(queue.Config{Node: "n1"}, w.store, time.Now, rand.New(rand.NewPCG(1, 1)), log)
	w.service = New(Config{Node: "n1", Numbers: []Number{{Number: "+12065550100", Type: "LONG_CODE", Country: "US", Route: "main"}}},
		w.store, w.queue, w.duty, nil, Routes{Mail: w.mail, Text: map[string]courier.Courier{"main": w.text}}, time.Now,
		rand.New(rand.NewPCG(2, 2)), log)
	if w.stopped != nil {
		w.service.Stops(func(*Plan) bool { return false }, w.stopped)
	}
	w.service.Mount()
	storeCtx, stopStore := context.WithCancel(context.Background())
	queueCtx, stopQueue := context.WithCancel(context.Background())
	var stored, queued sync.WaitGroup
	stored.Go(func() { _ = w.store.Run(storeCtx) })
	queued.Go(func() { _ = w.queue.Run(queueCtx) })
	queued.Go(func() { _ = w.service.Run(queueCtx) })
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			stopQueue()
			queued.Wait()
			stopStore()
			stored.Wait()
		})
	}
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// endpoint writes an endpoint and returns it as a member of a block.
func (w *world) endpoint(id, channel, address string, more map[string]string) Member {
	w.t.Helper()
	key := endpoints.Key(w.store, testApp, id)
	w.update(func(tx *store.Tx) error {
		var r changelog.Record
		at := tx.Stamp()
		r.Set("Id", []byte(id), at)
		r.Set("ChannelType", []byte(channel), at)
		if address != "" {
			r.Set("Address", []byte(address), at)
		}
		for path, value := range more {
			if path == "OptOut" {
				r.OptOut = r.OptOut.Record(at)
				continue
			}
			r.Set(path, []byte(value), at)
		}
		return tx.Put(endpoints.KindEndpoint, key, changelog.AppendRecord(nil, &r))
	})
	return Member{Key: []byte(key), Hash: uint64(len(address))}
}

func campaignPlan() *Plan {
	return &Plan{
		ID: "activity1", Account: "111122223333", App: testApp, Created: time.Now(),
		Campaign: &Campaign{ID: "campaign1", Activity: "activity1", Treatment: "0", CohortTo: 100},
		Email:    &Email{From: "Tea <news@tea.example>", Subject: "Menu for {{Id}}", HTML: "<p>Hello {{Id}} &amp; co</p>", Text: "Hello {{Id}}"},
		SMS:      &SMS{Body: "Hello {{Id}}", Promotional: true},
	}
}

func (w *world) submit(p *Plan, members ...Member) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		if err := w.service.PutPlan(tx, p); err != nil {
			return err
		}
		return w.service.Claim(tx, p.ID, 1, members)
	})
}

func (w *world) tally(plan string) *Tally {
	w.t.Helper()
	sum, err := w.service.TallyOf(w.store.Reader(w.t.Context()), plan)
	if err != nil {
		w.t.Fatal(err)
	}
	return sum
}

func (w *world) ambiguous() []Ambiguous {
	w.t.Helper()
	list, _, err := w.service.AmbiguousSends(w.store.Reader(w.t.Context()), testApp, "", "", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// facts lists the types of the facts that were told, sorted.
func (w *world) facts() []string {
	w.t.Helper()
	blocks, err := w.store.Blocks(w.t.Context(), store.Events, 0, 100000)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, b := range blocks {
		for _, rec := range b.Records {
			for _, name := range []string{"_campaign.send", "_email.send", "_email.hardbounce", "_email.softbounce", "_email.rendering_failure", "_SMS.BUFFERED", "_SMS.SUCCESS", "_SMS.FAILURE"} {
				if strings.Contains(string(rec), `"event_type":"`+name+`"`) {
					out = append(out, name)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// in runs a test of a node under virtual time.
func in(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer func() { w.stop() }()
		test(t, w)
	})
}

func TestBlock_every_recipient_is_sent_to_once_and_told_once(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		var members []Member
		var want []string
		for i := range 150 {
			channel, address := ChannelEmail, fmt.Sprintf("p%03d@tea.example", i)
			if i%3 == 0 {
				channel, address = ChannelSMS, fmt.Sprintf("+1206555%04d", i)
			}
			m := w.endpoint(fmt.Sprintf("e%d", i), channel, address, nil)
			m.Hash = uint64(i)
			members, want = append(members, m), append(want, address)
		}
		w.submit(campaignPlan(), members...)
		time.Sleep(time.Minute)
		got := append(w.mail.to(), w.text.to()...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("sent to %d recipients: %v", len(got), got)
		}
		if sum := w.tally("activity1"); sum.Sent != 150 || sum.Claimed != 150 || sum.InFlight() != 0 || sum.BlocksDone != 1 {
			t.Errorf("tally %+v", sum)
		}
		count := map[string]int{}
		for _, f := range w.facts() {
			count[f]++
		}
		if count["_campaign.send"] != 150 || count["_email.send"] != 100 || count["_SMS.BUFFERED"] != 50 || len(count) != 3 {
			t.Errorf("facts %v", count)
		}
		if n := w.service.InFlight(); n != 0 {
			t.Errorf("%d tokens are still out", n)
		}
	})
}

func TestBlock_holds_whom_it_must_not_reach_and_says_why(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		p := campaignPlan()
		p.QuietFrom, p.QuietTo = "00:00", "23:59"
		p.SMS = nil
		first := w.endpoint("first", ChannelEmail, "same@tea.example", nil)
		second := w.endpoint("second", ChannelEmail, "same@tea.example", nil)
		first.Hash, second.Hash = 7, 7
		w.submit(p,
			w.endpoint("out", ChannelEmail, "out@tea.example", map[string]string{"OptOut": "ALL"}),
			w.endpoint("inactive", ChannelEmail, "inactive@tea.example", map[string]string{"EndpointStatus": "INACTIVE"}),
			w.endpoint("homeless", ChannelEmail, "", nil),
			w.endpoint("texter", ChannelSMS, "+12065550111", nil),
			w.endpoint("asleep", ChannelEmail, "asleep@tea.example", map[string]string{"Demographic.Timezone": "Europe/Lisbon"}),
			first, second,
			Member{Key: []byte("nobody"), Hash: 99},
		)
		time.Sleep(time.Minute)
		if got := w.mail.to(); !slices.Equal(got, []string{"same@tea.example"}) {
			t.Errorf("sent to %v", got)
		}
		want := map[string]int64{
			ReasonOptOut: 1, ReasonInactive: 1, ReasonMissingAddress: 1, ReasonChannelMismatch: 1,
			ReasonQuietTime: 1, ReasonDuplicate: 1, ReasonGone: 1,
		}
		sum := w.tally(p.ID)
		if fmt.Sprint(sum.Held) != fmt.Sprint(want) || sum.InFlight() != 0 {
			t.Errorf("held %v, want %v, in flight %d", sum.Held, want, sum.InFlight())
		}
	})
}

func TestBlock_an_opt_out_after_the_claim_is_seen_by_the_last_check(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.stop() // claimed while nobody sends
		w.start()
		w.stop()
		m := func() Member {
			w.start()
			defer w.stop()
			return w.endpoint("late", ChannelEmail, "late@tea.example", nil)
		}()
		w.start()
		w.update(func(tx *store.Tx) error {
			if err := w.service.PutPlan(tx, campaignPlan()); err != nil {
				return err
			}
			if err := w.service.Claim(tx, "activity1", 1, []Member{m}); err != nil {
				return err
			}
			// In the same commit: nobody can have looked before.
			var r changelog.Record
			body, err := tx.Get(endpoints.KindEndpoint, string(m.Key))
			if err != nil {
				return err
			}
			if r, err = changelog.DecodeRecord(body); err != nil {
				return err
			}
			r.OptOut = r.OptOut.Record(tx.Stamp(r.Latest()))
			return tx.Put(endpoints.KindEndpoint, string(m.Key), changelog.AppendRecord(nil, &r))
		})
		time.Sleep(time.Minute)
		if got := w.mail.to(); len(got) != 0 {
			t.Errorf("sent to %v", got)
		}
		if sum := w.tally("activity1"); sum.Held[ReasonOptOut] != 1 {
			t.Errorf("tally %+v", sum)
		}
	})
}

func TestOutcome_decides_what_becomes_of_a_message(t *testing.T) {
	type want struct {
		sends                      int
		sent, failed, left, resent int64
		ambiguous                  int
		facts                      string
	}
	outcome := func(s courier.Status, code string) courier.Outcome {
		return courier.Outcome{Status: s, Code: code, Detail: "5.1.1 said"}
	}
	once := func(first courier.Outcome) func(int, *courier.Message) courier.Outcome {
		return func(n int, _ *courier.Message) courier.Outcome {
			if n == 1 {
				return first
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250"}
		}
	}
	for name, c := range map[string]struct {
		answer func(int, *courier.Message) courier.Outcome
		policy Policy
		want   want
	}{
		"accepted":               {once(outcome(courier.Accepted, "250")), "", want{sends: 1, sent: 1, facts: "_campaign.send _email.send"}},
		"refused":                {once(outcome(courier.Refused, "550")), "", want{sends: 1, failed: 1, facts: "_campaign.send _email.hardbounce _email.send"}},
		"deferred then accepted": {once(outcome(courier.Deferred, "451")), "", want{sends: 2, sent: 1, facts: "_campaign.send _email.send"}},
		"deferred for ever": {
			func(int, *courier.Message) courier.Outcome { return outcome(courier.Deferred, "451") }, "",
			want{sends: 12, failed: 1, facts: "_campaign.send _email.send _email.softbounce"},
		},
		"unknown and left": {once(outcome(courier.Unknown, "conn")), "", want{sends: 1, left: 1, ambiguous: 1, facts: "_campaign.send"}},
		"unknown and sent again": {
			once(outcome(courier.Unknown, "conn")), Resend,
			want{sends: 2, sent: 1, resent: 1, ambiguous: 1, facts: "_campaign.send _email.send"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.mail.answer = c.answer
				if c.policy != "" {
					w.update(func(tx *store.Tx) error { return w.service.SetPolicy(tx, testApp, "campaign1", c.policy) })
				}
				w.submit(campaignPlan(), w.endpoint("e", ChannelEmail, "e@tea.example", nil))
				for range 13 * 60 {
					if time.Sleep(time.Minute); w.tally("activity1").InFlight() == 0 {
						break
					}
				}
				sum := w.tally("activity1")
				got := want{len(w.mail.got), sum.Sent, sum.Failed, sum.Left, sum.Resent, len(w.ambiguous()), strings.Join(w.facts(), " ")}
				if got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				if sum.InFlight() != 0 {
					t.Errorf("%d in flight", sum.InFlight())
				}
				ids := map[string]bool{}
				for _, m := range w.mail.got {
					line := string(m.Mail.Data[strings.Index(string(m.Mail.Data), "Message-ID:"):])
					ids[line[:strings.Index(line, "\r\n")]] = true
				}
				if len(ids) != 1 {
					t.Errorf("attempts carry different Message-IDs: %v", ids)
				}
			})
		})
	}
}

func TestCrash_between_intent_and_entry_leaves_exactly_those_ambiguous(t *testing.T) {
	for _, policy := range []Policy{Leave, Resend} {
		t.Run(string(policy), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.update(func(tx *store.Tx) error { return w.service.SetPolicy(tx, testApp, "", policy) })
				var members []Member
				for i := range 200 {
					m := w.endpoint(fmt.Sprintf("e%d", i), ChannelEmail, fmt.Sprintf("e%d@tea.example", i), nil)
					m.Hash = uint64(i)
					members = append(members, m)
				}
				// After the 70th message was taken nothing can be written any more.
				var crashed atomic.Bool
				boom := errors.New("power cut")
				w.inject(func(string) error {
					if crashed.Load() {
						return boom
					}
					return nil
				})
				w.mail.answer = func(n int, _ *courier.Message) courier.Outcome {
					if n >= 70 {
						crashed.Store(true)
					}
					return courier.Outcome{Status: courier.Accepted, Code: "250"}
				}
				w.submit(campaignPlan(), members...)
				time.Sleep(2 * time.Minute)
				first := w.mail.to()
				w.stop()
				w.mail.answer = nil
				w.inject(nil)
				w.start()
				time.Sleep(2 * time.Minute)
				list := w.ambiguous()
				if len(list) == 0 || len(list) > windowMax {
					t.Fatalf("%d ambiguous after the crash", len(list))
				}
				listed := map[string]bool{}
				for _, a := range list {
					listed[a.Address] = true
					if a.Decision != policy || a.Region != "us-east-1" || a.EndpointID == "" {
						t.Errorf("row %+v", a)
					}
				}
				times := map[string]int{}
				for _, to := range w.mail.to() {
					times[to]++
				}
				for i := range 200 {
					to := fmt.Sprintf("e%d@tea.example", i)
					switch n := times[to]; {
					case n == 0 && !listed[to]:
						t.Errorf("%s was lost", to)
					case n > 1 && !listed[to]:
						t.Errorf("%s was sent to %d times and is not listed", to, n)
					case n > 1 && policy == Leave:
						t.Errorf("%s was left and sent to %d times", to, n)
					}
				}
				sum := w.tally("activity1")
				if sum.InFlight() != 0 || sum.Left+sum.Resent != int64(len(list)) {
					t.Errorf("tally %+v with %d listed; before the crash %d were sent", sum, len(list), len(first))
				}
			})
		})
	}
}

func TestReceipts_count_once_whenever_they_come(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		receipt := courier.Receipt{Route: "main", ProviderID: "p1", State: "DELIVRD"}
		hear := func() {
			if err := w.service.Receipt(context.Background(), receipt); err != nil {
				t.Error(err)
			}
		}
		w.text.answer = func(int, *courier.Message) courier.Outcome {
			hear() // before the submit's answer
			return courier.Outcome{Status: courier.Accepted, Code: "0x00000000", ProviderIDs: []string{"p1"}, Parts: 1}
		}
		w.submit(campaignPlan(), w.endpoint("e", ChannelSMS, "+12065550123", nil))
		time.Sleep(time.Minute)
		hear()
		hear()
		if got := strings.Join(w.facts(), " "); got != "_SMS.BUFFERED _SMS.SUCCESS _campaign.send" {
			t.Errorf("facts %s", got)
		}
		if sum := w.tally("activity1"); sum.Delivered != 1 {
			t.Errorf("tally %+v", sum)
		}
	})
}

func TestReceipts_are_found_under_another_form_of_the_id(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.text.answer = func(int, *courier.Message) courier.Outcome {
			return courier.Outcome{Status: courier.Accepted, Code: "0x00000000", ProviderIDs: []string{"0000001f"}, Parts: 1}
		}
		w.submit(campaignPlan(), w.endpoint("e", ChannelSMS, "+12065550123", nil))
		time.Sleep(time.Minute)
		for range 2 {
			if err := w.service.Receipt(context.Background(), courier.Receipt{Route: "main", ProviderID: "31", Forms: []string{"31", "1f", "0000001f"}, State: "DELIVRD"}); err != nil {
				t.Fatal(err)
			}
		}
		if sum := w.tally("activity1"); sum.Delivered != 1 {
			t.Errorf("tally %+v", sum)
		}
	})
}

func TestReceipts_of_nobody_do_not_pile_up(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		for i := range 60 {
			if err := w.service.Receipt(context.Background(), courier.Receipt{Route: "main", ProviderID: fmt.Sprint("stray", i), State: "DELIVRD"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		rows, err := w.store.Reader(t.Context()).List(kindOrphan, "", "", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) > 30 {
			t.Errorf("%d stray receipts are kept after ten hours", len(rows))
		}
	})
}

func TestBreaker_spares_a_relay_that_cannot_be_reached(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		up := false
		w.mail.answer = func(int, *courier.Message) courier.Outcome {
			if !up {
				return courier.Outcome{Status: courier.Deferred, Code: "conn"}
			}
			return courier.Outcome{Status: courier.Accepted, Code: "250"}
		}
		var members []Member
		for i := range 100 {
			m := w.endpoint(fmt.Sprintf("e%d", i), ChannelEmail, fmt.Sprintf("e%d@tea.example", i), nil)
			m.Hash = uint64(i)
			members = append(members, m)
		}
		p := campaignPlan()
		p.SMS = nil
		w.submit(p, members...)
		time.Sleep(10 * time.Minute)
		tried := len(w.mail.got)
		if tried > 40*100 {
			t.Errorf("%d attempts at a dead relay in ten minutes", tried)
		}
		up = true
		time.Sleep(10 * time.Minute)
		if sum := w.tally("activity1"); sum.Sent != 100 {
			t.Errorf("tally %+v after the relay came back", sum)
		}
	})
}

func TestFold_does_not_depend_on_order_or_repetition(t *testing.T) {
	intents := []intentRow{{At: 1, Members: []int{0, 1, 2, 3}, Attempts: []int{1, 1, 1, 1}}, {At: 2, Members: []int{1, 3}, Attempts: []int{2, 2}}}
	entries := []Entry{
		{Member: 0, Attempt: 1, Fate: FateSent},
		{Member: 1, Attempt: 1, Fate: FateDeferred, RetryAt: 50},
		{Member: 2, Attempt: 1, Fate: FateAmbiguous, Reason: string(Leave)},
		{Member: 3, Attempt: 1, Fate: FateAmbiguous, Reason: string(Resend)},
		{Member: 3, Attempt: 2, Fate: FateSent},
	}
	want, err := fold(5, intents, entries)
	if err != nil {
		t.Fatal(err)
	}
	check := func(i int, fate Fate, open int) {
		t.Helper()
		if want[i].fate != fate || want[i].open != open {
			t.Errorf("member %d stands at %+v", i, want[i])
		}
	}
	check(0, FateSent, 0)
	check(1, "", 2)
	check(2, FateAmbiguous, 0)
	check(3, FateSent, 0)
	check(4, "", 0)
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		shuffled := append(slices.Clone(entries), entries[rnd.IntN(len(entries))])
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got, err := fold(5, intents, shuffled)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("fold of %v = %v, %v", shuffled, got, err)
		}
	}
	late := append(slices.Clone(entries), Entry{Member: 2, Attempt: 1, Fate: FateSent})
	if got, _ := fold(5, intents, late); got[2].fate != FateSent {
		t.Errorf("a late outcome does not resolve an ambiguous attempt: %+v", got[2])
	}
	if _, err := fold(1, nil, []Entry{{Member: 4}}); err == nil {
		t.Error("an entry for nobody was accepted")
	}
}

func TestQuiet_window_holds_both_ends_and_may_cross_midnight(t *testing.T) {
	at := func(hhmm string) time.Time {
		v, err := time.Parse("15:04", hhmm)
		if err != nil {
			t.Fatal(err)
		}
		return time.Date(2026, 1, 10, v.Hour(), v.Minute(), 30, 0, time.UTC)
	}
	for _, c := range []struct {
		now, from, to, zone string
		want                bool
	}{
		{"22:00", "22:00", "06:00", "UTC", true},
		{"06:00", "22:00", "06:00", "UTC", true},
		{"06:01", "22:00", "06:00", "UTC", false},
		{"21:59", "22:00", "06:00", "UTC", false},
		{"10:00", "09:00", "10:00", "UTC", true},
		{"10:00", "09:00", "10:00", "", false},
		{"10:00", "09:00", "10:00", "Mars/Olympus", false},
		{"10:00", "", "10:00", "UTC", false},
		{"03:00", "22:00", "23:00", "America/New_York", true},
	} {
		if got := quiet(at(c.now), c.from, c.to, c.zone); got != c.want {
			t.Errorf("quiet(%s, %s-%s, %q) = %t", c.now, c.from, c.to, c.zone, got)
		}
	}
}

func TestCaps_count_a_rolling_day_and_the_campaign(t *testing.T) {
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	row := &capRow{}
	plan := func(id string, daily, total int) *Plan {
		return &Plan{Campaign: &Campaign{ID: id}, Daily: daily, Total: total}
	}
	steps := []struct {
		at   time.Duration
		plan *Plan
		want string
	}{
		{0, plan("a", 2, 0), ""},
		{time.Hour, plan("b", 2, 0), ""},
		{2 * time.Hour, plan("b", 2, 0), ReasonDailyCap},
		{24*time.Hour + time.Minute, plan("b", 2, 0), ""},
		{48 * time.Hour, plan("b", 0, 2), ReasonCampaignCap},
		{48 * time.Hour, plan("b", 0, 3), ""},
	}
	for i, s := range steps {
		if got := row.admit(now.Add(s.at), s.plan); got != s.want {
			t.Errorf("step %d: %q, want %q", i, got, s.want)
		}
	}
}

func TestMail_is_the_same_when_it_is_made_again(t *testing.T) {
	p := campaignPlan()
	p.Email.Subject = "Ünïcode {{Id}} {{uuid}}"
	p.Email.Headers = []templates.Header{{Name: "List-Unsubscribe", Value: "<https://tea.example/u?{{Id}}>"}}
	c, err := compile(p)
	if err != nil {
		t.Fatal(err)
	}
	d := &draft{
		messageID: "m-1", channel: ChannelEmail, address: "a@tea.example", at: time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC),
		vars: recipientVars{&endpoints.Endpoint{ID: "<e1>"}, nil},
	}
	first, err := c.render(d)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.render(d)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Mail.Data) != string(second.Mail.Data) {
		t.Error("a resend differs from what was sent")
	}
	text := string(first.Mail.Data)
	for _, want := range []string{
		"From: \"Tea\" <news@tea.example>\r\n", "Message-ID: <m-1@tea.example>\r\n", "List-Unsubscribe: <https://tea.example/u?<e1>>\r\n",
		"Subject: =?utf-8?q?=C3=9Cn=C3=AFcode", "<p>Hello &lt;e1&gt; &amp; co</p>", "Hello <e1>\r\n", "multipart/alternative",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	d.vars = nil
	if _, err := c.render(d); err == nil {
		t.Error("a mail with a missing name was rendered")
	}
}

func TestMaySend_knows_addresses_and_domains(t *testing.T) {
	s := &Service{cfg: Config{Senders: []string{"tea.example", "boss@corp.example"}}}
	for from, want := range map[string]bool{
		"news@tea.example": true, "Tea <NEWS@Mail.Tea.Example>": true, "boss@corp.example": true,
		"clerk@corp.example": false, "news@nottea.example": false, "news@tea.example.evil": false, "": false, "@": false,
	} {
		if got := s.MaySend(from); got != want {
			t.Errorf("MaySend(%q) = %t", from, got)
		}
	}
	s.cfg.Senders = nil
	if !s.MaySend("anybody@anywhere.example") {
		t.Error("without a list any sender is allowed")
	}
	s.cfg.Senders = []string{}
	if s.MaySend("news@tea.example") {
		t.Error("an empty list allows nobody")
	}
}
