package events

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/store"
)

const (
	stamp  = `"Timestamp":"2026-11-02T09:29:00.000Z"`
	simple = `{"EventType":"menu.opened",` + stamp + `}`
)

// facts reads every fact that was appended, with its record.
func (r *room) facts() []eventlog.Fact {
	r.t.Helper()
	blocks, err := r.store.Blocks(r.t.Context(), store.Events, 0, 100_000)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []eventlog.Fact
	for _, b := range blocks {
		for _, rec := range b.Records {
			all = append(all, decodeFact(r.t, rec))
		}
	}
	return all
}

// decodeFact reads what eventlog.Append wrote: five texts with their lengths
// (none here is as long as 128 bytes), then the record.
func decodeFact(t testing.TB, b []byte) eventlog.Fact {
	t.Helper()
	var texts [5]string
	for i := range texts {
		if len(b) == 0 || b[0] >= 128 || int(b[0]) >= len(b) {
			t.Fatalf("fact is not in the expected form: %q", b)
		}
		texts[i], b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	return eventlog.Fact{ID: texts[0], Account: texts[1], App: texts[2], Type: texts[3], Client: texts[4], Data: b}
}

func (r *room) types() (types []string) {
	r.t.Helper()
	for _, f := range r.facts() {
		types = append(types, f.Type)
	}
	return types
}

// events puts one batch of one endpoint and returns its answer without the
// wrapping.
func (r *room) events(endpoint, patch, events string) string {
	r.t.Helper()
	status, text := r.call("POST", "/events", fmt.Sprintf(`{"BatchItem":{%q:{"Endpoint":%s,"Events":%s}}}`, endpoint, patch, events))
	if status != 202 {
		return fmt.Sprint(status, " ", text)
	}
	inner, ok := strings.CutPrefix(text, fmt.Sprintf(`{"Results":{%q:`, endpoint))
	if !ok {
		r.t.Fatal(text)
	}
	return strings.TrimSuffix(inner, `}}`)
}

const okItem = `{"Message":"Accepted","StatusCode":202}`

func answer(endpoint, events string) string {
	return `{"EndpointItemResponse":` + endpoint + `,"EventsItemResponse":` + events + `}`
}

func bad(message string) string {
	return fmt.Sprintf(`{"Message":%q,"StatusCode":400}`, message)
}

func TestPutEvents_record_is_the_specification_s(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		*r.clock = time.UnixMilli(1700000061250).UTC()
		got := r.events("ep-31", `{"ChannelType":"GCM","Address":"t0k","Demographic":{"AppVersion":"2.4","Make":"Example","Model":"One","Platform":"android",`+
			`"PlatformVersion":"14","Locale":"en_GB"},"User":{"UserId":"u9"}}`,
			`{"e1":{"EventType":"_session.stop","Timestamp":"2023-11-14T22:14:20.000Z","Attributes":{"screen":"me\"nu"},"Metrics":{"items":3,"half":0.5},`+
				`"Session":{"Id":"s-77","Duration":60000,"StartTimestamp":"2023-11-14T22:13:20.000Z","StopTimestamp":"2023-11-14T22:14:20.000Z"},`+
				`"AppPackageName":"net.example.tea","AppTitle":"Tea","AppVersionCode":"24","SdkName":"amplify-js","ClientSdkVersion":"6.0.2"}}`)
		if want := answer(okItem, `{"e1":`+okItem+`}`); got != want {
			t.Fatalf("answer %s, want %s", got, want)
		}
		facts := r.facts()
		if len(facts) != 1 {
			t.Fatalf("%d facts", len(facts))
		}
		want := `{"event_type":"_session.stop","event_timestamp":1700000060000,"arrival_timestamp":1700000061250,"event_version":"3.0",` +
			`"application":{"app_id":"` + app + `","package_name":"net.example.tea","sdk":{"name":"amplify-js","version":"6.0.2"},"title":"Tea",` +
			`"version_code":"24","version_name":"2.4"},"client":{"client_id":"ep-31"},` +
			`"device":{"locale":{"code":"en_GB","country":"GB","language":"en"},"make":"Example","model":"One","platform":{"name":"android","version":"14"}},` +
			`"session":{"session_id":"s-77","start_timestamp":1700000000000,"stop_timestamp":1700000060000},` +
			`"attributes":{"screen":"me\"nu"},"metrics":{"half":0.5,"items":3.0},` +
			`"client_context":{"custom":{"endpoint":"{\"ChannelType\":\"GCM\",\"EndpointStatus\":\"ACTIVE\",\"OptOut\":\"NONE\",\"RequestId\":\"req-1\",` +
			`\"EffectiveDate\":\"2023-11-14T22:14:21.250Z\",\"Demographic\":{\"AppVersion\":\"2.4\",\"Locale\":\"en_GB\",\"Make\":\"Example\",` +
			`\"Model\":\"One\",\"Platform\":\"android\",\"PlatformVersion\":\"14\"},\"User\":{\"UserId\":\"u9\"}}"}},"awsAccountId":"` + account + `"}`
		f := facts[0]
		if string(f.Data) != want {
			t.Errorf("record\n got %s\nwant %s", f.Data, want)
		}
		if f.Account != account || f.App != app || f.Type != "_session.stop" || f.Client != "ep-31" || len(f.ID) != 32 {
			t.Errorf("fact %+v", f)
		}
		// Bare: what is not known is left out.
		*r.clock = time.UnixMilli(1700000062000).UTC()
		r.events("bare", `{}`, `{"e1":{"EventType":"x","Timestamp":"2023-11-14T22:14:20Z"}}`)
		want = `{"event_type":"x","event_timestamp":1700000060000,"arrival_timestamp":1700000062000,"event_version":"3.0","application":{"app_id":"` + app +
			`","sdk":{}},"client":{"client_id":"bare"},"device":{"platform":{}},"session":{},"attributes":{},"metrics":{},"client_context":{"custom":{"endpoint":` +
			`"{\"EndpointStatus\":\"ACTIVE\",\"OptOut\":\"ALL\",\"RequestId\":\"req-1\",\"EffectiveDate\":\"2023-11-14T22:14:22.000Z\"}"}},"awsAccountId":"` + account + `"}`
		if got := string(r.facts()[1].Data); got != want {
			t.Errorf("bare record\n got %s\nwant %s", got, want)
		}
	})
}

func TestPutEvents_endpoint_is_patched_before_its_events(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		accept := answer(okItem, `{"e1":`+okItem+`}`)
		event := `{"e1":` + simple + `}`
		check := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s\n got %s\nwant %s", what, got, want)
			}
		}
		check("a new endpoint", r.events("Ep", `{"ChannelType":"EMAIL","Address":"a@tea.example","Attributes":{"plan":["gold"]}}`, event), accept)
		*r.clock = r.clock.Add(time.Hour)
		check("an empty patch", r.events("ep", `{}`, `{"e1":{"EventType":"later",`+stamp+`}}`), accept)
		_, text := r.call("GET", "/endpoints/EP", "")
		for _, part := range []string{`"Address":"a@tea.example"`, `"plan":["gold"]`, `"EffectiveDate":"2026-11-02T10:30:00.000Z"`, `"Id":"Ep"`} {
			if !strings.Contains(text, part) {
				t.Errorf("after an empty patch: %s, want %s", text, part)
			}
		}
		facts := r.facts()
		if last := facts[len(facts)-1]; last.Client != "Ep" || !strings.Contains(string(last.Data), `\"ChannelType\":\"EMAIL\"`) {
			t.Errorf("an event finds the endpoint by its id in any case: %s", last.Data)
		}
		// Texts that clients match; the event is taken all the same.
		check("no channel", r.events("b", `{"Address":"x"}`, event), answer(bad("Missing ChannelType"), `{"e1":`+okItem+`}`))
		facts = r.facts()
		if last := facts[len(facts)-1]; last.Client != "b" || strings.Contains(string(last.Data), "client_context") {
			t.Errorf("an event without endpoint: %s", last.Data)
		}
		for i := range 15 {
			r.events(fmt.Sprint("u", i), fmt.Sprintf(`{"ChannelType":"SMS","Address":"+1%d","User":{"UserId":"u"}}`, i), `{}`)
		}
		check("the sixteenth", r.events("u16", `{"ChannelType":"SMS","Address":"+199","User":{"UserId":"u"}}`, `{}`),
			answer(bad("Exceeded maximum endpoint per user count: 15"), `{}`))
		check("a foreign channel", r.events("c", `{"ChannelType":"PIGEON"}`, event),
			answer(bad("ChannelType: unknown channel type"), `{"e1":`+okItem+`}`))
		check("an id that cannot be", r.events("${x}", `{}`, event),
			answer(bad("Id: an endpoint id may not contain $, { or }"), `{"e1":`+bad("Id: an endpoint id may not contain $, { or }")+`}`))
		// No endpoint in the item is an empty one; several items are judged one by one.
		status, text := r.call("POST", "/events", `{"BatchItem":{"n1":{"Events":{"e":`+simple+`}},"n2":{"Endpoint":{"Address":"x"},"Events":{}},"n3":{"Endpoint":{}}}}`)
		want := `{"Results":{"n1":` + answer(okItem, `{"e":`+okItem+`}`) + `,"n2":` + answer(bad("Missing ChannelType"), `{}`) + `,"n3":` + answer(okItem, `{}`) + `}}`
		if status != 202 || text != want {
			t.Errorf("three items: %d %s, want %s", status, text, want)
		}
		for id, want := range map[string]int{"n1": 200, "n2": 404, "n3": 200, "b": 404, "u16": 404} {
			if status, text := r.call("GET", "/endpoints/"+id, ""); status != want {
				t.Errorf("endpoint %s: %d %s, want %d", id, status, text, want)
			}
		}
	})
}

func TestPutEvents_rules(t *testing.T) {
	r := newRoom(t, Config{}, "")
	long := func(n int) string { return strings.Repeat("é", n) }
	session := func(members string) string {
		return `{"EventType":"x",` + stamp + `,"Session":{` + members + `}}`
	}
	keys := func(n int) string {
		var k []string
		for i := range n {
			k = append(k, fmt.Sprintf(`"_k%d":"v"`, i))
		}
		return strings.Join(k, ",")
	}
	const times = `"Id":"s","StartTimestamp":"2026-11-02T09:00:00.000Z","StopTimestamp":"2026-11-02T09:00:01.500Z"`
	for i, c := range []struct{ event, why string }{
		{`{` + stamp + `}`, "Missing EventType"},
		{`{"EventType":"",` + stamp + `}`, "Missing EventType"},
		{`{"EventType":"` + long(257) + `",` + stamp + `}`, "EventType is longer than 256 characters"},
		{`{"EventType":"x"}`, "Missing Timestamp"},
		{`{"EventType":"x","Timestamp":"yesterday"}`, "Timestamp is not an ISO 8601 instant"},
		{`{"EventType":"x","Timestamp":"2026-11-02"}`, "Timestamp is not an ISO 8601 instant"},
		{`{"EventType":"x",` + stamp + `,"Attributes":{` + keys(40) + `}}`, ""},
		{`{"EventType":"x",` + stamp + `,"Attributes":{` + keys(40) + `},"Metrics":{"_m":1}}`, "The event has 41 attributes and metrics, more than 40"},
		{`{"EventType":"x",` + stamp + `,"Attributes":{"` + long(50) + `":"` + long(200) + `"}}`, ""},
		{`{"EventType":"x",` + stamp + `,"Attributes":{"` + long(51) + `":"v"}}`, "The name of an attribute is longer than 50 characters"},
		{`{"EventType":"x",` + stamp + `,"Attributes":{"a":"` + long(201) + `"}}`, "The value of an attribute is longer than 200 characters"},
		{`{"EventType":"x",` + stamp + `,"Metrics":{"` + long(51) + `":1}}`, "The name of a metric is longer than 50 characters"},
		{`{"EventType":"x",` + stamp + `,"Metrics":{"":1}}`, "The name of a metric is empty"},
		{`{"EventType":"x",` + stamp + `,"AppTitle":"` + strings.Repeat("x", 1000<<10) + `"}`, "The event has more than 1024000 bytes"},
		{session(times + `,"Duration":1500`), ""},
		{session(times + `,"Duration":1499`), durationText},
		{session(times + `,"Duration":0`), durationText},
		{session(times), ""},
		{session(`"Id":"s","StartTimestamp":"2026-11-02T09:00:00.000Z","Duration":7`), ""},
		{session(`"StartTimestamp":"2026-11-02T09:00:00.000Z"`), "Missing Session Id"},
		{session(`"Id":"s"`), "Missing Session StartTimestamp"},
		{session(`"Id":"s","StartTimestamp":"x"`), "Session StartTimestamp is not an ISO 8601 instant"},
		{session(`"Id":"s","StartTimestamp":"2026-11-02T09:00:00.000Z","StopTimestamp":"x"`), "Session StopTimestamp is not an ISO 8601 instant"},
		{`{"EventType":"_anything.new",` + stamp + `}`, ""},
		{`{"EventType":"_campaign.opened_notification",` + stamp + `,"Attributes":{"campaign_id":"c"}}`, ""},
		{`{"EventType":"_campaign.send",` + stamp + `}`, "EventType is one that the service itself reports"},
		{`{"EventType":"_journey.send",` + stamp + `}`, "EventType is one that the service itself reports"},
		{`{"EventType":"_email.hardbounce",` + stamp + `}`, "EventType is one that the service itself reports"},
		{`{"EventType":"_SMS.SUCCESS",` + stamp + `}`, "EventType is one that the service itself reports"},
	} {
		// A good neighbour is not disturbed.
		id := fmt.Sprint("e", i)
		before := len(r.facts())
		got := r.events("ep", `{}`, `{"`+id+`":`+c.event+`,"good`+id+`":`+simple+`}`)
		want, told := okItem, 2
		if c.why != "" {
			want, told = bad(c.why), 1
		}
		if got != answer(okItem, `{"`+id+`":`+want+`,"good`+id+`":`+okItem+`}`) {
			t.Errorf("%.120s\n got %s\nwant %s", c.event, got, want)
		}
		if n := len(r.facts()) - before; n != told {
			t.Errorf("%.120s: %d facts, want %d", c.event, n, told)
		}
	}
}

func TestPutEvents_request_that_is_wrong_as_a_whole(t *testing.T) {
	r := newRoom(t, Config{}, "")
	many := func(n int, each string) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"i%d":%s`, i, each))
		}
		return `{` + strings.Join(list, ",") + `}`
	}
	if got := r.events("ep", `{}`, many(100, simple)); strings.Count(got, `202`) != 101 {
		t.Errorf("a hundred events: %.200s", got)
	}
	r.refused("POST", "/events", `{"BatchItem":{"ep":{"Endpoint":{},"Events":`+many(101, simple)+`}}}`, "more than 100 events")
	r.refused("POST", "/events", `{"BatchItem":{"a":{"Endpoint":{},"Events":`+many(60, simple)+`},"b":{"Endpoint":{},"Events":`+many(41, simple)+`}}}`, "more than 100 events")
	r.refused("POST", "/events", `{"BatchItem":`+many(101, `{"Endpoint":{}}`)+`}`, "more than 100 endpoints")
	r.refused("POST", "/events", `{}`, "BatchItem")
	r.refused("POST", "/events", ``, "required")
	r.refused("POST", "/eventstream", ``, "required")
	r.refused("POST", "/events", `{"BatchItem":{"ep":{"Events":7}}}`, "Events")
	big := `{"EventType":"x",` + stamp + `,"AppTitle":"` + strings.Repeat("x", 900<<10) + `"}`
	if status, text := r.call("POST", "/events", `{"BatchItem":{"ep":{"Endpoint":{},"Events":`+many(5, big)+`}}}`); status != 413 {
		t.Errorf("above 4 MB: %d %.200s", status, text)
	}
	r.expect("POST", "/events", `{"BatchItem":{}}`, 202, `{"Results":{}}`)
	for _, who := range []string{app[:31] + "0", strings.Repeat("f", 32), "nonsense"} {
		if status, text := r.as(account, "POST", "/v1/apps/"+who+"/events", `{"BatchItem":{"ep":{"Endpoint":{},"Events":{"e":`+simple+`}}}}`); status != 404 {
			t.Errorf("app %s: %d %s, want 404", who, status, text)
		}
	}
	if n := len(r.facts()); n != 100 {
		t.Errorf("%d facts, want those of the first request", n)
	}
	// The path of a browser's beacon.
	if status, text := r.call("POST", "/events/legacy", `{"BatchItem":{"ep":{"Endpoint":{},"Events":{"beacon":`+simple+`}}}}`); status != 202 || !strings.Contains(text, okItem) {
		t.Errorf("beacon: %d %s", status, text)
	}
}

func TestPutEvents_repeats_are_told_once(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		put := func(what, endpoint, id, event string, told int) {
			t.Helper()
			before := len(r.facts())
			if got, want := r.events(endpoint, `{}`, `{"`+id+`":`+event+`}`), answer(okItem, `{"`+id+`":`+okItem+`}`); got != want {
				t.Errorf("%s: %s", what, got)
			}
			if n := len(r.facts()) - before; n != told {
				t.Errorf("%s: %d facts, want %d", what, n, told)
			}
		}
		other := strings.Replace(simple, "menu", "bill", 1)
		*r.clock = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
		put("first", "ep", "e1", simple, 1)
		put("again", "ep", "e1", simple, 0)
		put("again, with the id in another case", "EP", "e1", simple, 0)
		put("another id", "ep", "e2", simple, 1)
		put("another endpoint", "ep2", "e1", simple, 1)
		put("the same id for something else", "ep", "e1", other, 1)
		put("the same id at another time", "ep", "e1", strings.Replace(simple, "29:00", "29:01", 1), 1)
		*r.clock = r.clock.Add(24*time.Hour - time.Second)
		put("nearly a day later", "ep", "e1", simple, 0)
		*r.clock = r.clock.Add(12*time.Hour + 2*time.Second)
		put("two midnights later", "ep", "e1", simple, 1)
		if n := len(r.seenRows()); n != 3 {
			t.Errorf("%d rows of what was seen, want two of the first day and one of today", n)
		}
		if err := r.forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(r.seenRows()); n != 1 {
			t.Errorf("%d rows after forgetting, want 1", n)
		}
		ids := map[string]bool{}
		for _, f := range r.facts()[:5] {
			ids[f.ID] = true
		}
		if len(ids) != 5 || r.facts()[0].ID != r.facts()[5].ID {
			t.Errorf("the ids of facts do not follow from what they tell: %v", ids)
		}
	})
}

func (r *room) seenRows() []store.Row {
	r.t.Helper()
	rows, err := r.store.Reader(r.t.Context()).List(kindSeen, "", "", 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return rows
}

func TestMemory_is_bounded_and_forgets_the_oldest(t *testing.T) {
	r := newRoom(t, Config{}, "")
	id := func(n int) (id [16]byte) { copy(id[:], fmt.Sprintf("%08d", n)); return id }
	add := func(from, to int) (fresh int) {
		t.Helper()
		err := r.store.Update(t.Context(), func(tx *store.Tx) error {
			m, err := recall(tx, "endpoint", r.now())
			if err != nil {
				return err
			}
			fresh = 0
			for n := from; n < to; n++ {
				if m.add(id(n)) {
					fresh++
				}
			}
			return m.save(tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		return fresh
	}
	if n := add(0, seenMax); n != seenMax {
		t.Errorf("%d of %d are new", n, seenMax)
	}
	if n := add(0, seenMax); n != 0 {
		t.Errorf("%d are new the second time", n)
	}
	if n := add(seenMax, seenMax+10); n != 10 {
		t.Errorf("%d of 10 are new", n)
	}
	if n := len(r.seenRows()[0].Body); n != seenMax*seenBytes {
		t.Errorf("the row has %d bytes, want %d", n, seenMax*seenBytes)
	}
	if n := add(10, seenMax+10); n != 0 {
		t.Errorf("%d of the latest are new", n)
	}
	if n := add(0, 1); n != 1 {
		t.Error("the oldest is still known")
	}
}

func TestPutEvents_custom_names_are_bounded(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		r.limits = Limits{EventTypes: 3, AttributeKeys: 2, MetricKeys: 1}.withDefaults()
		put := func(event, message string) {
			t.Helper()
			want := okItem
			if message != "" {
				want = bad(message)
			}
			if got := r.events("ep", `{}`, `{"e":{`+event+`,`+stamp+`}}`); got != answer(okItem, `{"e":`+want+`}`) {
				t.Errorf("%s: %s, want %s", event, got, want)
			}
		}
		put(`"EventType":"a","Attributes":{"k1":"v","k2":"v"},"Metrics":{"m":1}`, "")
		put(`"EventType":"b","Attributes":{"k3":"v"}`, "Too many event attributes")
		put(`"EventType":"b","Metrics":{"n":1}`, "Too many event metrics")
		put(`"EventType":"b"`, "")
		// Refused events have not used up names.
		put(`"EventType":"c"`, "")
		put(`"EventType":"d"`, "Too many event types")
		put(`"EventType":"_d","Attributes":{"_k":"v"},"Metrics":{"_m":1}`, "")
		put(`"EventType":"a","Attributes":{"k1":"w"}`, "")
		// Two in one request count together.
		r.limits.EventTypes = 4
		got := r.events("ep", `{}`, `{"e1":{"EventType":"e",`+stamp+`},"e2":{"EventType":"f",`+stamp+`}}`)
		if got != answer(okItem, `{"e1":`+okItem+`,"e2":`+bad("Too many event types")+`}`) {
			t.Errorf("two new types with room for one: %s", got)
		}
		n, err := r.names.load(r.store.Reader(t.Context()), app)
		if err != nil || len(n.used[eventTypes]) != 4 || len(n.used[attributeKeys]) != 2 || len(n.used[metricKeys]) != 1 {
			t.Errorf("the app's names: %v, %v", n.used, err)
		}
	})
}

// TestPutEvents_callers_that_meet puts events of one endpoint from many callers
// at once; what they have in common is told once.
func TestPutEvents_callers_that_meet(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		const callers = 16
		answers := make(chan string, callers)
		for i := range callers {
			go func() {
				answers <- r.events("ep", `{}`, fmt.Sprintf(`{"same":%s,"own%d":%s}`, simple, i, simple))
			}()
		}
		for range callers {
			if got := <-answers; strings.Count(got, okItem) != 3 {
				t.Error(got)
			}
		}
		if n := len(r.facts()); n != callers+1 {
			t.Errorf("%d facts, want %d", n, callers+1)
		}
	})
}

func TestAppendNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.0", 3: "3.0", -7: "-7.0", 0.5: "0.5", 1e21: "1e+21", 123456789012345: "123456789012345.0", 1.5e-9: "1.5e-09",
		math.Inf(1): "0.0", math.MaxFloat64: "1.7976931348623157e+308",
	} {
		if got := string(appendNumber(nil, v)); got != want || !json.Valid([]byte(got)) {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// FuzzAppendString holds the writer to the library's reader.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "tea", `"\`, "\x00\x1f\n\r\t\x7f", "é\u2028🍵", "\xff\xfe a\xc3", "{\"a\":\"b\"}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := wire.AppendString(nil, s)
		var back string
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatalf("%q: %q: %v", s, out, err)
		}
		if want := string([]rune(s)); back != want {
			t.Errorf("%q came back as %q, want %q", s, back, want)
		}
		if string(wire.AppendString(nil, []byte(s))) != string(out) {
			t.Errorf("%q: bytes and text differ", s)
		}
	})
}

// FuzzPutEvents gives the room foreign bodies: whatever it accepts is JSON.
func FuzzPutEvents(f *testing.F) {
	f.Add([]byte(`{"BatchItem":{"ep":{"Endpoint":{},"Events":{"e":` + simple + `}}}}`))
	f.Add(benchBody("ep", 1))
	f.Add([]byte(`{"BatchItem":{"":{"Endpoint":null,"Events":{"":{"EventType":"\u0000","Timestamp":"9999-12-31T23:59:59Z","Session":{"Id":"x"}}}}}}`))
	r := newRoom(f, Config{}, "")
	f.Fuzz(func(t *testing.T, body []byte) {
		here := *r
		here.t = t
		status, text := here.as(account, "POST", "/v1/apps/"+app+"/events", string(body))
		if status != 202 && status != 400 && status != 413 || !json.Valid([]byte(text)) {
			t.Errorf("%d %s", status, text)
		}
		blocks, err := r.store.Blocks(t.Context(), store.Events, r.store.Head(store.Events)-1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			for _, rec := range b.Records {
				// Within a record the quotes of a text are escaped.
				if i := strings.LastIndex(string(rec), `{"event_type"`); i < 0 || !json.Valid(rec[i:]) {
					t.Errorf("record %q", rec)
				}
			}
		}
	})
}

func TestStream_dialogs(t *testing.T) {
	rooms(t, func(t *testing.T, r *room) {
		const path = "/eventstream"
		gone := `{"Message":"Resource not found","RequestID":"req-1"}`
		r.expect("GET", path, "", 404, gone)
		r.expect("DELETE", path, "", 404, gone)
		kinesis, firehose := "arn:aws:kinesis:us-east-1:"+account+":stream/tea.events", "arn:aws:firehose:us-east-1:"+account+":deliverystream/tea"
		role := "arn:aws:iam::" + account + ":role/service/events"
		body := func(stream, role string) string {
			return `{"DestinationStreamArn":"` + stream + `","RoleArn":"` + role + `"}`
		}
		shown := func(stream, at string) string {
			return `{"ApplicationId":"` + app + `","DestinationStreamArn":"` + stream + `","LastModifiedDate":"` + at + `","LastUpdatedBy":"` + user + `","RoleArn":"` + role + `"}`
		}
		first := shown(kinesis, "2026-11-02T09:30:00.000Z")
		r.expect("POST", path, body(kinesis, role), 200, first)
		r.expect("GET", path, "", 200, first)
		*r.clock = r.clock.Add(time.Hour)
		second := shown(firehose, "2026-11-02T10:30:00.000Z")
		r.expect("POST", path, body(firehose, role), 200, second)
		if status, text := r.as(other, "GET", "/v1/apps/"+app+path, ""); status != 404 {
			t.Errorf("another account: %d %s", status, text)
		}
		for _, c := range []struct {
			stream, role string
			status       int
			why          string
		}{
			{"", role, 400, "DestinationStreamArn"},
			{"tea", role, 400, "DestinationStreamArn: expected"},
			{"arn:aws:sqs:us-east-1:" + account + ":stream/x", role, 400, "DestinationStreamArn: expected"},
			{"arn:aws:kinesis:us-east-1:" + account + ":deliverystream/x", role, 400, "DestinationStreamArn: expected"},
			{"arn:aws:firehose:us-east-1:" + account + ":stream/x", role, 400, "DestinationStreamArn: expected"},
			{"arn:aws:kinesis:us-east-1:" + account + ":stream/a b", role, 400, "DestinationStreamArn: expected"},
			{"arn:aws:firehose:us-east-1:" + account + ":deliverystream/" + strings.Repeat("x", 65), role, 400, "DestinationStreamArn: expected"},
			{"arn:aws:kinesis:us-east-1:" + other + ":stream/x", role, 403, "not of this account"},
			{"arn:aws:kinesis:eu-west-1:" + account + ":stream/x", role, 403, "not in this Region"},
			{kinesis, "arn:aws:iam::" + account + ":user/x", 400, "RoleArn: expected"},
			{kinesis, "arn:aws:iam:us-east-1:" + account + ":role/x", 400, "RoleArn: expected"},
			{kinesis, "arn:aws:iam::" + account + ":role/", 400, "RoleArn: expected"},
			{kinesis, "arn:aws:iam::" + other + ":role/x", 403, "RoleArn: the role is not of this account"},
		} {
			if status, text := r.call("POST", path, body(c.stream, c.role)); status != c.status || !strings.Contains(text, c.why) {
				t.Errorf("%s %s: %d %s, want %d with %q", c.stream, c.role, status, text, c.status, c.why)
			}
		}
		r.refused("POST", path, `{"DestinationStreamArn":"`+kinesis+`"}`, "RoleArn")
		r.expect("GET", path, "", 200, second)
		r.expect("DELETE", path, "", 200, second)
		r.expect("GET", path, "", 404, gone)
		if status, text := r.as(account, "POST", "/v1/apps/"+strings.Repeat("f", 32)+path, body(kinesis, role)); status != 404 {
			t.Errorf("another account's app: %d %s", status, text)
		}
	})
	r := newRoom(t, Config{Regions: []string{"us-east-1", "eu-west-1"}}, "")
	r.expect("POST", "/eventstream", `{"DestinationStreamArn":"arn:aws:kinesis:eu-west-1:`+account+`:stream/x","RoleArn":"arn:aws:iam::`+account+`:role/x"}`, 200, "")
}

func TestVerdict_of_what_is_not_the_endpoint_s_fault(t *testing.T) {
	if v, ok := verdictOf(aws.Throttled("slow down")); !ok || v.status != 429 {
		t.Errorf("throttled: %v, %v", v, ok)
	}
	for _, err := range []error{aws.Unavailable("no"), fmt.Errorf("broken"), aws.NotFound("gone")} {
		if v, ok := verdictOf(err); ok {
			t.Errorf("%v became %v", err, v)
		}
	}
}

func TestContents_name_what_goes_with_an_app(t *testing.T) {
	r := newRoom(t, Config{}, "")
	r.events("ep", `{}`, `{"e":`+simple+`}`)
	r.expect("POST", "/eventstream", `{"DestinationStreamArn":"arn:aws:kinesis:us-east-1:`+account+`:stream/x","RoleArn":"arn:aws:iam::`+account+`:role/x"}`, 200, "")
	for _, c := range Contents() {
		rows, err := r.store.Reader(t.Context()).List(c.Kind, c.Prefix(app), "", 10)
		if err != nil || len(rows) != 1 {
			t.Errorf("%s: %d rows, %v", c.Kind.Name, len(rows), err)
		}
	}
	if got := r.types(); len(got) != 1 || got[0] != "menu.opened" {
		t.Errorf("facts %v", got)
	}
}
