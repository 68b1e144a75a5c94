package endpoints

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

const addressed = `"Address":"a@example.com","ChannelType":"EMAIL"`

// TestMerge writes bodies one after another to one endpoint.
func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		writes []string
		want   string // as show gives it
	}{
		"bare endpoint wants nothing by default": {
			[]string{`{}`},
			`{"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{}}`,
		},
		"addressed endpoint receives by default": {
			[]string{`{` + addressed + `}`},
			`{"Address":"a@example.com","ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"NONE","User":{}}`,
		},
		"only supplied members change": {
			[]string{
				`{` + addressed + `,"Attributes":{"a":["1"],"b":["2"]},"Metrics":{"m":1,"n":2},"Demographic":{"Make":"Acme","Model":"One"},"Location":{"City":"Oslo","Country":"NO"}}`,
				`{"Attributes":{"b":["3","4"]},"Metrics":{"n":5.5},"Demographic":{"Model":"Two"},"Location":{"City":"Bergen"}}`,
			},
			`{"Address":"a@example.com","Attributes":{"a":["1"],"b":["3","4"]},"ChannelType":"EMAIL","Demographic":{"Make":"Acme","Model":"Two"},"EndpointStatus":"ACTIVE","Location":{"City":"Bergen","Country":"NO"},"Metrics":{"m":1,"n":5.5},"OptOut":"NONE","User":{}}`,
		},
		"empty array removes the name, and it may come back": {
			[]string{
				`{"Attributes":{"a":["1"],"b":["2"]},"User":{"UserId":"u","UserAttributes":{"x":["1"],"y":["2"]}}}`,
				`{"Attributes":{"a":[]},"User":{"UserAttributes":{"x":[]}}}`,
				`{"Attributes":{"b":[]}}`,
				`{"Attributes":{"b":["9"]}}`,
			},
			`{"Attributes":{"b":["9"]},"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{"UserAttributes":{"y":["2"]},"UserId":"u"}}`,
		},
		"bare strings are lists of one": {
			[]string{`{"Attributes":{"a":"1"},"User":{"UserId":"u","UserAttributes":{"x":"2"}}}`},
			`{"Attributes":{"a":["1"]},"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{"UserAttributes":{"x":["2"]},"UserId":"u"}}`,
		},
		"coordinates keep one decimal": {
			[]string{`{"Location":{"Latitude":47.61,"Longitude":-122.35}}`, `{"Location":{"Latitude":-47.66}}`},
			`{"EndpointStatus":"ACTIVE","Location":{"Latitude":-47.7,"Longitude":-122.4},"OptOut":"ALL","User":{}}`,
		},
		"empty model is not a model": {
			[]string{`{"Demographic":{"Make":"Acme","Model":"One"}}`, `{"Demographic":{"Model":""}}`},
			`{"Demographic":{"Make":"Acme"},"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{}}`,
		},
		"a write revives": {
			[]string{`{` + addressed + `,"EndpointStatus":"INACTIVE"}`, `{"Attributes":{"a":["1"]}}`},
			`{"Address":"a@example.com","Attributes":{"a":["1"]},"ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"NONE","User":{}}`,
		},
		"unless it says INACTIVE": {
			[]string{`{` + addressed + `}`, `{"EndpointStatus":"INACTIVE"}`},
			`{"Address":"a@example.com","ChannelType":"EMAIL","EndpointStatus":"INACTIVE","OptOut":"NONE","User":{}}`,
		},
		"default opt-out ends with an address": {
			[]string{`{}`, `{` + addressed + `}`},
			`{"Address":"a@example.com","ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"NONE","User":{}}`,
		},
		"default never revokes an explicit opt-out": {
			[]string{`{"OptOut":"ALL"}`, `{` + addressed + `}`, `{"Attributes":{"a":["1"]}}`},
			`{"Address":"a@example.com","Attributes":{"a":["1"]},"ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"ALL","User":{}}`,
		},
		"explicit opt-in revokes": {
			[]string{`{` + addressed + `,"OptOut":"ALL"}`, `{"OptOut":"NONE"}`},
			`{"Address":"a@example.com","ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"NONE","User":{}}`,
		},
		"user attributes wait for their user": {
			[]string{
				`{"User":{"UserAttributes":{"x":["1"],"y":["2"]}}}`,
				`{"User":{"UserId":"u","UserAttributes":{"y":["3"]}}}`,
			},
			`{"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{"UserAttributes":{"x":["1"],"y":["3"]},"UserId":"u"}}`,
		},
		"empty user id detaches": {
			[]string{`{"User":{"UserId":"u","UserAttributes":{"x":["1"]}}}`, `{"User":{"UserId":""}}`},
			`{"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{}}`,
		},
		"what Amplify sends": {
			[]string{`{"Attributes":{},"ChannelType":"IN_APP","Demographic":{"AppVersion":"1","Make":"Firefox","Model":"","Platform":"web"},"Location":{},"Metrics":{},"User":{"UserId":"eu-west-1:6b","UserAttributes":{}}}`},
			`{"ChannelType":"IN_APP","Demographic":{"AppVersion":"1","Make":"Firefox","Platform":"web"},"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{"UserId":"eu-west-1:6b"}}`,
		},
		"unknown members are ignored": {
			[]string{`{"Colour":"red","Attributes":{"a":["1"]}}`},
			`{"Attributes":{"a":["1"]},"EndpointStatus":"ACTIVE","OptOut":"ALL","User":{}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, Limits{})
			for _, body := range c.writes {
				r.put("e", body, "")
			}
			if got := r.show("e"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("é", 51)
	value := strings.Repeat("é", 101)
	values := `"` + strings.Repeat(`v","`, 50) + `v"`
	for name, c := range map[string]struct{ before, body, message string }{
		"opt-in without an address": {"", `{"OptOut":"NONE"}`, "Missing Address"},
		"opt-in of a bare endpoint": {"{}", `{"OptOut":"NONE"}`, "Missing Address"},
		"opt-in that clears the address": {
			`{` + addressed + `}`, `{"OptOut":"NONE","Address":""}`, "Missing Address",
		},
		"address without a channel":   {"", `{"Address":"a@example.com"}`, "Missing ChannelType"},
		"unknown channel":             {"", `{"ChannelType":"FAX"}`, ""},
		"unknown status":              {"", `{"EndpointStatus":"ASLEEP"}`, ""},
		"unknown opt-out":             {"", `{"OptOut":"SOME"}`, ""},
		"date that is none":           {"", `{"EffectiveDate":"yesterday"}`, "EffectiveDate"},
		"attribute name of 51":        {"", `{"Attributes":{"` + long + `":["1"]}}`, "Attributes: a name is longer"},
		"metric name of 51":           {"", `{"Metrics":{"` + long + `":1}}`, "Metrics: a name is longer"},
		"user attribute name of 51":   {"", `{"User":{"UserId":"u","UserAttributes":{"` + long + `":["1"]}}}`, "UserAttributes: a name is longer"},
		"empty name":                  {"", `{"Attributes":{"":["1"]}}`, "Attributes: a name is empty"},
		"value of 101":                {"", `{"Attributes":{"a":["` + value + `"]}}`, "Attributes.a: a value is longer"},
		"user value of 101":           {"", `{"User":{"UserId":"u","UserAttributes":{"a":["` + value + `"]}}}`, "UserAttributes.a: a value is longer"},
		"51 values":                   {"", `{"Attributes":{"a":[` + values + `]}}`, "Attributes.a: more than 50 values"},
		"user id of 1025":             {"", `{"User":{"UserId":"` + strings.Repeat("u", 1025) + `"}}`, "User.UserId: longer"},
		"attribute that is an object": {"", `{"Attributes":{"a":{}}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, Limits{})
			before := ""
			if c.before != "" {
				r.put("e", c.before, "")
				before = r.show("e")
			}
			status, text := r.call("PUT", "/endpoints/e", c.body)
			r.judge(c.body, status, text, 400, c.message)
			if got := r.show("e"); got != before {
				t.Errorf("a refused write left %s, want %s", got, before)
			}
		})
	}
}

func TestLargestAccepted(t *testing.T) {
	r := newRoom(t, Limits{})
	name, value := strings.Repeat("é", 50), strings.Repeat("é", 100)
	values := make([]string, 50)
	for i := range values {
		values[i] = value
	}
	body, _ := json.Marshal(map[string]any{"Attributes": map[string]any{name: values}})
	r.put("e", string(body), "")
	body, _ = json.Marshal(map[string]any{"Attributes": map[string]any{"b": values}})
	r.put("e", string(body), "The endpoint has")
	// The user's attributes count as well.
	body, _ = json.Marshal(map[string]any{"User": map[string]any{"UserId": "u", "UserAttributes": map[string]any{"b": values}}})
	r.put("e", string(body), "The endpoint has")
	if n := strings.Count(r.show("e"), value); n != 50 {
		t.Errorf("%d values are left, want 50", n)
	}
}

func TestEndpointID(t *testing.T) {
	r := newRoom(t, Limits{})
	for _, id := range []string{"a$", "a{b", "}", strings.Repeat("x", 1025)} {
		r.put(id, "{}", "Id")
	}
	r.put("Mixed-Case", `{"Attributes":{"a":["1"]}}`, "")
	r.put("mixed-CASE", `{"Attributes":{"b":["2"]}}`, "")
	if got := r.field("MIXED-case", "Id"); got != "Mixed-Case" {
		t.Errorf("id is returned as %q, want as first written", got)
	}
	if got := r.field("mixed-case", "Attributes"); got != "map[a:[1] b:[2]]" {
		t.Errorf("attributes %s: the two writes met different endpoints", got)
	}
}

func TestDates(t *testing.T) {
	r := newRoom(t, Limits{})
	r.put("e", `{"Attributes":{"a":["1"]}}`, "")
	created := "2026-11-02T09:30:00.000Z"
	check := func(what, effective, a, request string) {
		t.Helper()
		for name, want := range map[string]string{"CreationDate": created, "EffectiveDate": effective, "Attributes": "map[a:[" + a + "]]", "RequestId": request} {
			if got := r.field("e", name); got != want {
				t.Errorf("%s: %s is %s, want %s", what, name, got, want)
			}
		}
	}
	request := func() string { return fmt.Sprint("req-", r.n) }
	check("created", created, "1", "req-1")
	*r.clock = r.clock.Add(time.Hour)
	r.put("e", `{"EffectiveDate":"2026-11-02T10:00:00+00:00","Attributes":{"a":["2"]}}`, "")
	check("own date", "2026-11-02T10:00:00.000Z", "2", request())
	last := fmt.Sprint("req-", r.n-4)
	r.put("e", `{"EffectiveDate":"2026-11-02T09:59:59.999Z","Attributes":{"a":["3"]},"OptOut":"ALL"}`, "")
	check("older: accepted, ignored", "2026-11-02T10:00:00.000Z", "2", last)
	if got := r.field("e", "OptOut"); got != "ALL" {
		t.Errorf("an opt-out that came late was lost: OptOut is %s", got)
	}
	r.put("e", `{"EffectiveDate":"2026-11-02T09:59:59.999Z","OptOut":"NONE"}`, "")
	if got := r.field("e", "OptOut"); got != "ALL" {
		t.Errorf("an opt-in from the past revoked the opt-out: OptOut is %s", got)
	}
	r.put("e", `{"EffectiveDate":"2031-01-01T00:00:00Z","Attributes":{"a":["4"]}}`, "")
	check("ahead: clamped to now", "2026-11-02T10:30:00.000Z", "4", request())
	*r.clock = r.clock.Add(time.Second)
	r.put("e", `{"Attributes":{"a":["5"]},"RequestId":"mine"}`, "")
	check("without a date: now", "2026-11-02T10:30:01.000Z", "5", "mine")
}

func TestTakeover(t *testing.T) {
	r := newRoom(t, Limits{})
	status := func(want map[string]string) {
		t.Helper()
		for id, s := range want {
			if got := r.field(id, "EndpointStatus"); got != s {
				t.Errorf("%s is %s, want %s", id, got, s)
			}
		}
	}
	sms := `{"Address":"+4790000000","ChannelType":"SMS"}`
	r.put("one", sms, "")
	r.put("voice", `{"Address":"+4790000000","ChannelType":"VOICE"}`, "")
	r.put("two", sms, "")
	status(map[string]string{"one": "INACTIVE", "two": "ACTIVE", "voice": "ACTIVE"})
	// The earlier holder writes again and takes the address back.
	r.put("one", `{"Attributes":{"a":["1"]}}`, "")
	status(map[string]string{"one": "ACTIVE", "two": "INACTIVE"})
	// An inactive write takes nothing.
	r.put("three", `{"Address":"+4790000000","ChannelType":"SMS","EndpointStatus":"INACTIVE"}`, "")
	status(map[string]string{"one": "ACTIVE", "three": "INACTIVE"})
	// Who changes to another address lets go of the first, and takes the other.
	r.put("four", `{"Address":"+4790000001","ChannelType":"SMS"}`, "")
	r.put("one", `{"Address":"+4790000001"}`, "")
	status(map[string]string{"one": "ACTIVE", "four": "INACTIVE"})
	r.put("two", `{}`, "")
	status(map[string]string{"one": "ACTIVE", "two": "ACTIVE"})
	// The loser's status has the winner's stamp.
	one, four := r.record("one"), r.record("four")
	if a, b := one.StampOf(pathAddress), four.StampOf(pathStatus); a != b || a.IsZero() {
		t.Errorf("winner's address at %s, loser's status at %s", a, b)
	}
}

func (r *room) record(id string) changelog.Record {
	r.t.Helper()
	body, err := r.store.Reader(r.t.Context()).Get(KindEndpoint, Key(r.store, app, id))
	if err != nil {
		r.t.Fatal(err)
	}
	rec, err := changelog.DecodeRecord(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

func TestUserIsShared(t *testing.T) {
	r := newRoom(t, Limits{})
	r.put("one", `{"User":{"UserId":"u","UserAttributes":{"x":["1"]}}}`, "")
	r.put("two", `{"User":{"UserId":"u","UserAttributes":{"y":["2"]}}}`, "")
	r.put("two", `{"User":{"UserAttributes":{"y":["3"]}}}`, "") // without repeating the id
	want := "map[UserAttributes:map[x:[1] y:[3]] UserId:u]"
	for _, id := range []string{"one", "two"} {
		if got := r.field(id, "User"); got != want {
			t.Errorf("user of %s is %s, want %s", id, got, want)
		}
	}
	r.put("one", `{"User":{"UserId":"v"}}`, "")
	if got := r.field("one", "User"); got != "map[UserId:v]" {
		t.Errorf("after moving, user is %s", got)
	}
	for user, n := range map[string]int{"u": 1, "v": 1, "w": 0} {
		got, err := UserEndpoints(r.store.Reader(t.Context()), app, user)
		if err != nil || len(got) != n {
			t.Errorf("%s has %d endpoints, %v, want %d", user, len(got), err, n)
		}
	}
}

func TestSixteenth(t *testing.T) {
	const full = "Exceeded maximum endpoint per user count: 15"
	fill := func(r *room, channel func(i int) string) {
		for i := range 15 {
			*r.clock = r.clock.Add(time.Second)
			r.put(fmt.Sprint("e", i), fmt.Sprintf(`{"Address":"a%d","ChannelType":"%s","User":{"UserId":"u"}}`, i, channel(i)), "")
		}
	}
	sixteenth := func(channel string) string {
		return `{"Address":"new","ChannelType":"` + channel + `","User":{"UserId":"u"}}`
	}
	mixed := func(i int) string { return []string{"EMAIL", "GCM", "SMS", "APNS"}[i%4] }
	t.Run("channels that never make room", func(t *testing.T) {
		r := newRoom(t, Limits{})
		fill(r, mixed)
		for _, c := range []string{"SMS", "PUSH", "VOICE", "EMAIL", "CUSTOM", "IN_APP"} {
			r.put("new", sixteenth(c), full)
		}
		if r.show("new") != "" {
			t.Error("a refused endpoint exists")
		}
		r.put("e3", `{"Attributes":{"a":["1"]},"User":{"UserId":"u"}}`, "") // one of the fifteen
	})
	t.Run("none to make room", func(t *testing.T) {
		r := newRoom(t, Limits{})
		fill(r, func(int) string { return "EMAIL" })
		r.put("new", sixteenth("GCM"), full)
	})
	for _, c := range []string{"ADM", "GCM", "APNS", "APNS_SANDBOX", "APNS_VOIP", "APNS_VOIP_SANDBOX", "BAIDU"} {
		t.Run(c+" makes room", func(t *testing.T) {
			r := newRoom(t, Limits{})
			fill(r, mixed)
			r.put("e1", `{}`, "") // the oldest push endpoint is no longer the oldest
			r.put("new", sixteenth(c), "")
			if got := r.field("e3", "EndpointStatus") + r.field("e3", "User"); got != "INACTIVEmap[]" {
				t.Errorf("the oldest is %s, want inactive and without its user", got)
			}
			all, err := UserEndpoints(r.store.Reader(t.Context()), app, "u")
			if err != nil || len(all) != 15 || !slices.ContainsFunc(all, func(e *Endpoint) bool { return e.ID == "new" && e.Active() }) {
				t.Errorf("the user has %d endpoints, %v", len(all), err)
			}
			// It is revived by an update that names the user again: someone else leaves.
			r.put("e3", `{"User":{"UserId":"u"}}`, "")
			if got := r.field("e3", "EndpointStatus"); got != "ACTIVE" {
				t.Errorf("revived endpoint is %s", got)
			}
		})
	}
}

func TestNames(t *testing.T) {
	r := newRoom(t, Limits{NamesPerApp: 4})
	r.put("e", `{"Attributes":{"a":["1"]},"Metrics":{"a":1},"User":{"UserId":"u","UserAttributes":{"a":["1"]}}}`, "")
	r.put("f", `{"Attributes":{"a":["2"],"b":["2"]}}`, "")
	const many = "Too many custom attributes"
	r.put("e", `{"Attributes":{"c":["1"]}}`, many)
	r.put("g", `{"Metrics":{"c":1}}`, many)
	r.put("e", `{"User":{"UserAttributes":{"c":["1"]}}}`, many)
	r.put("e", `{"Attributes":{"c":[]}}`, "") // removing is no use
	r.put("e", `{"Attributes":{"b":["1"]}}`, "")
	// A fresh service over the same store knows the names too.
	again := New(Config{Limits: Limits{NamesPerApp: 4}}, r.store, r.tokens, r.ids, r.now, discard)
	name := "c"
	err := r.store.Update(t.Context(), func(tx *store.Tx) error {
		return again.Upsert(tx, app, "e", &pinpoint.EndpointRequest{Attributes: map[string][]string{name: {"1"}}}, "req")
	})
	if err == nil || err.Error() != many {
		t.Errorf("after a restart: %v", err)
	}
	// What is blocked does not count.
	status, text := r.call("PUT", "/attributes/endpoint-custom-attributes", `{"Blacklist":["b"]}`)
	r.judge("block", status, text, 200, "")
	r.put("e", `{"Attributes":{"c":["1"],"b":["7"]}}`, "")
	if got := r.field("e", "Attributes"); got != "map[a:[1] b:[1] c:[1]]" {
		t.Errorf("attributes %s: a blocked name was written", got)
	}
}

func TestRemoveAttributes(t *testing.T) {
	r := newRoom(t, Limits{})
	for i := range stripBatch + 3 {
		r.put(fmt.Sprint("e", i), `{"Address":"a`+fmt.Sprint(i)+`","ChannelType":"EMAIL","Attributes":{"ride_a":["1"],"ride_b":["1"],"keep":["1"]},"Metrics":{"ride_a":1},"User":{"UserId":"u`+fmt.Sprint(i)+`","UserAttributes":{"ride_a":["1"]}}}`, "")
	}
	remove := func(kind, body, want string) {
		t.Helper()
		status, text := r.call("PUT", "/attributes/"+kind, body)
		if want == "" {
			if status != 400 {
				t.Errorf("%s %s: %d %s, want 400", kind, body, status, text)
			}
			return
		}
		full := `{"ApplicationId":"` + app + `","AttributeType":"` + kind + `","Attributes":` + want + `}`
		if status != 200 || text != full {
			t.Errorf("%s %s: %d %s, want %s", kind, body, status, text, full)
		}
	}
	remove("endpoint-custom-attributes", `{"Blacklist":["ride_*"]}`, `["ride_*"]`)
	remove("endpoint-custom-attributes", `{"Blacklist":["z","ride_*"]}`, `["ride_*","z"]`)
	remove("endpoint-custom-attributes", `{}`, "")
	remove("endpoint-custom-attributes", `{"Blacklist":[""]}`, "")
	remove("endpoint-colours", `{"Blacklist":["a"]}`, "")
	last := fmt.Sprint("e", stripBatch+2)
	if err := r.stripOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e0", last} {
		if got := r.field(id, "Attributes") + r.field(id, "Metrics"); got != "map[keep:[1]]map[ride_a:1]" {
			t.Errorf("%s after the strip: %s", id, got)
		}
	}
	remove("endpoint-user-attributes", `{"Blacklist":["ride_?"]}`, `["ride_?"]`)
	if err := r.stripOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.field(last, "User"); got != "map[UserId:u"+last[1:]+"]" {
		t.Errorf("user after the strip: %s", got)
	}
	// Stripping keeps the index: the address still has its holder.
	r.put("thief", `{"Address":"a0","ChannelType":"EMAIL"}`, "")
	if got := r.field("e0", "EndpointStatus"); got != "INACTIVE" {
		t.Errorf("the holder of a taken address is %s", got)
	}
	rows, err := r.store.Reader(t.Context()).List(kindStrip, "", "", 10)
	if err != nil || len(rows) != 0 {
		t.Errorf("%d strips are left, %v", len(rows), err)
	}
	remove("endpoint-custom-attributes", `{"Blacklist":[]}`, `[]`)
	r.put("e0", `{"Attributes":{"ride_a":["2"]}}`, "")
	if got := r.field("e0", "Attributes"); got != "map[keep:[1] ride_a:[2]]" {
		t.Errorf("after the block was lifted: %s", got)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "a", true},
		{"a*", "abc", true},
		{"*c", "abc", true},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abcd", false},
		{"?b", "ab", true},
		{"?", "", false},
		{"**", "", true},
		{"[a]", "a", false},
		{"*a*a*a*a*a*a*b", strings.Repeat("a", 60), false},
	} {
		if got := match(c.pattern, c.name); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestDelete(t *testing.T) {
	r := newRoom(t, Limits{})
	r.put("one", `{`+addressed+`,"OptOut":"ALL","User":{"UserId":"u","UserAttributes":{"x":["1"]}}}`, "")
	r.put("two", `{"User":{"UserId":"u"}}`, "")
	shown := r.show("one")
	status, text := r.call("DELETE", "/endpoints/ONE", "")
	if status != 202 || plain(t, []byte(text)) != shown {
		t.Errorf("delete: %d %s, want 202 and %s", status, text, shown)
	}
	if r.show("one") != "" {
		t.Error("the deleted endpoint is there")
	}
	if status, text := r.call("DELETE", "/endpoints/one", ""); status != 404 || !strings.Contains(text, `"Message":"Resource not found"`) {
		t.Errorf("second delete: %d %s", status, text)
	}
	// The user stays for the other endpoint; the opt-out outlives the endpoint.
	if got := r.field("two", "User"); got != "map[UserAttributes:map[x:[1]] UserId:u]" {
		t.Errorf("user of the other endpoint: %s", got)
	}
	r.put("one", `{`+addressed+`}`, "")
	if got := r.show("one"); got != `{"Address":"a@example.com","ChannelType":"EMAIL","EndpointStatus":"ACTIVE","OptOut":"ALL","User":{}}` {
		t.Errorf("made again: %s", got)
	}
	// With the last endpoint goes the user.
	if status, _ := r.call("DELETE", "/endpoints/two", ""); status != 202 {
		t.Error(status)
	}
	r.put("two", `{"User":{"UserId":"u"}}`, "")
	if got := r.field("two", "User"); got != "map[UserId:u]" {
		t.Errorf("user made again: %s", got)
	}
}

func TestUsers(t *testing.T) {
	r := newRoom(t, Limits{})
	for i := range 3 {
		r.put(fmt.Sprint("e", i), `{"User":{"UserId":"u/1","UserAttributes":{"x":["1"]}}}`, "")
	}
	r.put("other", `{"User":{"UserId":"v"}}`, "")
	items := func(text string) (ids []string) {
		t.Helper()
		var out struct {
			Item []struct {
				ID   string `json:"Id"`
				User struct{ UserAttributes map[string][]string }
			}
		}
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatal(err)
		}
		for _, i := range out.Item {
			ids = append(ids, i.ID+i.User.UserAttributes["x"][0])
		}
		return ids
	}
	want := []string{"e01", "e11", "e21"}
	for _, c := range []struct {
		method string
		status int
	}{{"GET", 200}, {"DELETE", 202}} {
		status, text := r.call(c.method, "/users/u%2F1", "")
		if status != c.status || !slices.Equal(items(text), want) {
			t.Errorf("%s: %d %s", c.method, status, text)
		}
	}
	for _, method := range []string{"GET", "DELETE"} {
		if status, _ := r.call(method, "/users/u%2F1", ""); status != 404 {
			t.Errorf("%s after the deletion: %d", method, status)
		}
	}
	if r.show("e1") != "" || r.show("other") == "" {
		t.Error("the deletion took the wrong endpoints")
	}
	if u, err := r.LoadUser(r.store.Reader(t.Context()), app, "u/1"); u != nil || err != nil {
		t.Errorf("the deleted user's attributes are left: %v, %v", u, err)
	}
}

func TestBatch(t *testing.T) {
	r := newRoom(t, Limits{})
	batch := func(message string, items ...string) {
		t.Helper()
		status, text := r.call("PUT", "/endpoints", `{"Item":[`+strings.Join(items, ",")+`]}`)
		r.judge(strings.Join(items, ","), status, text, 202, message)
		if want := fmt.Sprintf(`{"Message":"Accepted","RequestID":"req-%d"}`, r.n); message == "" && text != want {
			t.Errorf("answer %s, want %s", text, want)
		}
	}
	batch("", `{"Id":"a",`+addressed+`}`, `{"Id":"b","Attributes":{"k":["1"]}}`, `{"Id":"A","Attributes":{"k":["2"]}}`)
	if got := r.field("a", "Attributes") + r.field("b", "Attributes"); got != "map[k:[2]]map[k:[1]]" {
		t.Errorf("after the batch: %s", got)
	}
	// One bad item, and nothing of the batch is written.
	batch("Missing ChannelType (Item[1])", `{"Id":"c"}`, `{"Id":"d","Address":"x"}`)
	batch("Id: an endpoint needs an id (Item[1])", `{"Id":"c"}`, `{}`)
	batch("Missing Address (Item[2])", `{"Id":"c"}`, `{"Id":"b"}`, `{"Id":"b","OptOut":"NONE"}`)
	if r.show("c") != "" || r.show("d") != "" {
		t.Error("a refused batch left endpoints")
	}
	items := make([]string, 101)
	for i := range items {
		items[i] = fmt.Sprintf(`{"Id":"n%d"}`, i)
	}
	batch("Item", items...)
	batch("", items[:100]...)
	sixteen := make([]string, 16)
	for i := range sixteen {
		sixteen[i] = fmt.Sprintf(`{"Id":"u%d","ChannelType":"SMS","User":{"UserId":"u"}}`, i)
	}
	batch("Exceeded maximum endpoint per user count: 15", sixteen...)
}

func TestStrangers(t *testing.T) {
	r := newRoom(t, Limits{})
	r.put("e", `{"User":{"UserId":"u"}}`, "")
	other := "ffffffffffffffffffffffffffffffff"
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/endpoints/e", ""},
		{"PUT", "/endpoints/e", "{}"},
		{"PUT", "/endpoints", `{"Item":[{"Id":"e"}]}`},
		{"DELETE", "/endpoints/e", ""},
		{"GET", "/users/u", ""},
		{"DELETE", "/users/u", ""},
		{"PUT", "/attributes/endpoint-custom-attributes", `{"Blacklist":["a"]}`},
	} {
		if status, _ := r.as("999999999999", c.method, "/v1/apps/"+app+c.path, c.body); status != 404 {
			t.Errorf("%s %s by another account: %d", c.method, c.path, status)
		}
		for _, id := range []string{other, "nonsense"} {
			if status, _ := r.as(account, c.method, "/v1/apps/"+id+c.path, c.body); status != 404 {
				t.Errorf("%s %s in app %s: %d", c.method, c.path, id, status)
			}
		}
	}
	if status, _ := r.call("GET", "/endpoints/unknown", ""); status != 404 {
		t.Errorf("unknown endpoint: %d", status)
	}
	if r.show("e") == "" {
		t.Error("a stranger deleted the endpoint")
	}
}

func TestSetInactive(t *testing.T) {
	r := newRoom(t, Limits{})
	r.put("one", `{`+addressed+`}`, "")
	key := Key(r.store, app, "one")
	if err := r.store.Update(t.Context(), func(tx *store.Tx) error { return SetInactive(tx, key) }); err != nil {
		t.Fatal(err)
	}
	e, err := LoadKey(r.store.Reader(t.Context()), key)
	if err != nil || e.Active() {
		t.Errorf("%+v, %v", e, err)
	}
	if rows, err := r.store.Reader(t.Context()).Lookup(KindEndpoint, ByAddress(app, "EMAIL", "a@example.com"), 10); len(rows) != 0 || err != nil {
		t.Errorf("an inactive endpoint is found by its address: %v, %v", rows, err)
	}
}

// TestUpsertIsAllOrNothing: an update may go on after a refused endpoint.
func TestUpsertIsAllOrNothing(t *testing.T) {
	r := newRoom(t, Limits{EndpointBytes: 400})
	r.put("holder", `{`+addressed+`}`, "")
	address, big := "a@example.com", strings.Repeat("x", 90)
	bad := &pinpoint.EndpointRequest{
		Address: &address, ChannelType: "EMAIL", Attributes: map[string][]string{"fresh": {big, big, big, big}},
	}
	good := &pinpoint.EndpointRequest{Attributes: map[string][]string{"k": {"1"}}}
	err := r.store.Update(t.Context(), func(tx *store.Tx) error {
		if err := r.Upsert(tx, app, "bad", bad, "req"); aws.KindOf(err) != aws.KindQuota {
			t.Errorf("oversized endpoint: %v", err)
		}
		return r.Upsert(tx, app, "good", good, "req")
	}, append(r.Touches(app, "bad", bad), r.Touches(app, "good", good)...)...)
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.memory.namesOf(r.store.Reader(t.Context()), app)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.field("holder", "EndpointStatus"); got != "ACTIVE" || r.show("bad") != "" || r.show("good") == "" || len(n.used) != 1 {
		t.Errorf("holder %s, bad %q, good %q, %d names", got, r.show("bad"), r.show("good"), len(n.used))
	}
}

// TestAssignIsSet holds assign to what the record's own Set does.
func TestAssignIsSet(t *testing.T) {
	paths := []string{"a", "b", "c"}
	values := [][]byte{nil, []byte("1"), []byte("2")}
	at, later := changelog.Stamp{Clock: 1, Region: "x"}, changelog.Stamp{Clock: 2, Region: "x"}
	n := len(values)
	for code := range n * n * n * n * n * n {
		var r changelog.Record
		var sets []set
		for _, p := range paths {
			r.Set(p, values[code%n], at)
			sets = append(sets, set{path: p, value: values[code/n%n]})
			code /= n * n
		}
		got := assign(r.Registers, sets, true, later)
		for _, s := range sets {
			r.Set(s.path, s.value, later)
		}
		if !slices.EqualFunc(got, r.Registers, func(a, b changelog.Register) bool {
			return a.Path == b.Path && string(a.Value) == string(b.Value) && (a.Value == nil) == (b.Value == nil) && a.At == b.At && a.Over == b.Over
		}) {
			t.Fatalf("assign gave %v, Set %v", got, r.Registers)
		}
	}
}
