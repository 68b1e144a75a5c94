package router

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/aws/wire"
)

// views makes a view of well Regions a, b, c, … with these weights.
func viewOf(weights ...float64) *view {
	v := &view{healthy: len(weights)}
	for i, w := range weights {
		name := fmt.Sprintf("eu-%c-1", 'a'+i)
		v.places = append(v.places, place{region: &region{index: i, name: name}, seed: mix(uint64(hashStart.text(name))), weight: w, share: 1})
		v.weights += w
	}
	return v
}

// firsts returns the first place of each of n endpoints.
func firsts(v *view, n int) []uint8 {
	at := make([]uint8, n)
	for i := range at {
		key, ok := resource(fmt.Sprintf("/v1/apps/0123456789abcdef/endpoints/endpoint-%d", i))
		if !ok {
			panic("an endpoint has no key")
		}
		at[i] = v.sticky(key).at[0]
	}
	return at
}

func parts(at []uint8) (p [regionsMax]float64) {
	for _, i := range at {
		p[i] += 1 / float64(len(at))
	}
	return p
}

// near fails unless got is within four standard deviations of a share among n.
func near(t *testing.T, what string, got, want float64, n int) {
	t.Helper()
	if tolerance := 4*math.Sqrt(want*(1-want)/float64(n)) + 1e-9; math.Abs(got-want) > tolerance {
		t.Errorf("%s: %.4f, want %.4f ± %.4f", what, got, want, tolerance)
	}
}

func TestSpread_weights(t *testing.T) {
	const n = 20000
	for _, weights := range [][]float64{{1, 1}, {3, 1}, {1, 1, 1}, {5, 3, 2}, {1}} {
		v := viewOf(weights...)
		p := parts(firsts(v, n))
		for i, w := range weights {
			near(t, fmt.Sprintf("sticky %v[%d]", weights, i), p[i], w/v.weights, n)
		}
		turns := make([]uint8, n)
		for i := range turns {
			turns[i] = v.inTurn(1<<60 + uint64(i)).at[0]
		}
		// In turn is even over any short run, not only on the average.
		for from := 0; from+100 <= n; from += 50 {
			p := parts(turns[from : from+100])
			for i, w := range weights {
				if math.Abs(p[i]-w/v.weights) > 0.035 {
					t.Fatalf("in turn %v: Region %d got %.2f of calls %d to %d", weights, i, p[i], from, from+100)
				}
			}
		}
	}
}

func TestSpread_key_is_where_it_was(t *testing.T) {
	v := viewOf(1, 1, 1)
	// Another router makes the same view: no seed of its own, no order of its own.
	other := viewOf(1, 1, 1)
	other.places[0], other.places[2] = other.places[2], other.places[0]
	for i := range uint64(1000) {
		key := mix(i)
		a, b := v.sticky(key), other.sticky(key)
		for rank := range 3 {
			if x, y := v.places[a.at[rank]].region.name, other.places[b.at[rank]].region.name; x != y {
				t.Fatalf("key %d, rank %d: one router says %s, another %s", i, rank, x, y)
			}
		}
	}
}

func TestSpread_least_movement(t *testing.T) {
	const n = 20000
	v := viewOf(1, 1, 1)
	before := firsts(v, n)

	v.places[1].share = 0
	for i, at := range firsts(v, n) {
		if before[i] != 1 && at != before[i] {
			t.Fatalf("endpoint %d moved from %d to %d though 1 fell", i, before[i], at)
		}
		if at == 1 {
			t.Fatalf("endpoint %d goes to the Region that fell", i)
		}
	}
	moved := parts(firsts(v, n))
	near(t, "share of 0 while 1 is down", moved[0], 0.5, n)

	// It returns: each step takes exactly its part, keeps what it had, and takes
	// nothing that was not its own.
	had := make([]bool, n)
	for _, share := range []float64{0.10, 0.25, 0.50, 1} {
		v.places[1].share = share
		now := firsts(v, n)
		for i, at := range now {
			switch {
			case at == 1 && before[i] != 1:
				t.Fatalf("endpoint %d was never 1's", i)
			case had[i] && at != 1:
				t.Fatalf("endpoint %d left 1 again", i)
			case at != 1 && before[i] != 1 && at != before[i]:
				t.Fatalf("endpoint %d moved between 0 and 2", i)
			}
			had[i] = at == 1
		}
		near(t, fmt.Sprintf("share of 1 at %.2f", share), parts(now)[1], share/3, n)
	}

	// A weight that grows only takes; nothing moves among the others.
	v.weights += 0.5
	v.places[0].weight = 1.5
	for i, at := range firsts(v, n) {
		if at != before[i] && at != 0 {
			t.Fatalf("endpoint %d moved from %d to %d though 0 grew", i, before[i], at)
		}
	}
}

func TestSpread_order(t *testing.T) {
	names := func(v *view, o order) string {
		var s []string
		for i := range o.n {
			s = append(s, fmt.Sprint(o.at[i]))
		}
		return fmt.Sprintf("%s/%d", strings.Join(s, ""), o.alive)
	}
	for key := range uint64(500) {
		v := viewOf(1, 1, 1, 1)
		v.primary = 3
		if got := v.sticky(key); got.at[0] != 2 || got.n != 4 || got.alive != 4 {
			t.Fatalf("warm standby, key %d: %s", key, names(v, got))
		}
		if got := v.inTurn(key); got.at[0] != 2 {
			t.Fatalf("warm standby, call %d: %s", key, names(v, got))
		}
		v.places[2].share = 0
		v.places[0].share = 1e-9
		got := v.inTurn(key)
		if got.at[3] != 2 || got.at[2] != 0 || got.alive != 3 {
			t.Fatalf("the ill must be last, who returns before: %s", names(v, got))
		}
		for i := range v.places {
			v.places[i].share = 0
		}
		if got := v.sticky(key); got.at[0] != 2 || got.n != 4 || got.alive != 0 {
			t.Fatalf("all ill: %s", names(v, got))
		}
	}
	// A returning primary shares with the standby that well part which it takes.
	const n = 20000
	v := viewOf(1, 1)
	v.primary = 1
	v.places[0].share = 0.25
	near(t, "returning primary", parts(firsts(v, n))[0], 0.25, n)
}

func TestResource(t *testing.T) {
	const app = "/v1/apps/A"
	same := [][]string{
		{app + "/endpoints/e1", app + "/endpoints/e1/inappmessages", app + "/endpoints/%651", "/v1/apps/%41/endpoints/e1", app + "/endpoints/e1/"},
		{app + "/users/u%2F1", app + "/users/u%2f1"},
		{app + "/campaigns/c", app + "/campaigns/c/versions/3", "/everpoint" + app + "/campaigns/c/run", app + "/campaigns/c/kpis/daterange/k"},
		{app + "/segments/s", app + "/segments/s/jobs/import"},
		{app + "/journeys/j/runs/r/activities/a/execution-metrics", app + "/journeys/j/state"},
		{app + "/jobs/import/7"},
		{app + "/jobs/export/7"},
		{app + "/channels/sms"},
		{app + "/channels/email"},
		{app},
		{app + "/settings"},
		{app + "/eventstream"},
		{"/v1/apps/B"},
		{app + "/endpoints/a%zz"},
		{app + "/endpoints/u%2F1"},
		{"/v1/templates/T/email", "/v1/templates/T/sms/versions"},
		{"/v1/recommenders/T"},
		{"/v1/tags/arn:aws:mobiletargeting:us-east-1:1:apps%2FA", "/v1/tags/arn%3Aaws%3Amobiletargeting%3Aus-east-1%3A1%3Aapps%2fA"},
		{"/v1/email/identities/a@b.example", "/v1/email/identities/a%40b.example/dkim"},
		{"/v1/email/configuration-sets/c", "/v1/email/configuration-sets/c/sending"},
		{"/v1/sms-voice/configuration-sets/c/event-destinations"},
		{"/everpoint/v1/node", "/everpoint/v1/group", "/everpoint/v1/group/regions/eu-west-1/switch"},
	}
	seen := map[uint64]string{}
	for _, paths := range same {
		want, ok := resource(paths[0])
		if !ok {
			t.Errorf("%s has no key", paths[0])
		}
		if other, twice := seen[want]; twice {
			t.Errorf("%s and %s have one key", paths[0], other)
		}
		seen[want] = paths[0]
		for _, path := range paths[1:] {
			if key, ok := resource(path); !ok || key != want {
				t.Errorf("%s and %s have different keys", paths[0], path)
			}
		}
	}
	for _, path := range []string{
		"", "/", "*", "/v1", "/v1/", "/v1/apps", "/v1/apps/", app + "/messages", app + "/users-messages", app + "/events", app + "/otp",
		app + "/verify-otp", app + "/endpoints", app + "/endpoints/", app + "/campaigns", app + "/jobs/import", app + "/attributes/x",
		app + "//endpoints/e", "/v1/templates", "/v1/phone/number/validate", "/v1/email/outbound-emails", "/v1/email/identities",
		"/v2/apps/A/endpoints/e", "//v1/apps/A/endpoints/e", "/healthz", "/V1/apps/A/endpoints/e",
	} {
		if _, ok := resource(path); ok {
			t.Errorf("%q has a key", path)
		}
	}
}

type (
	none  struct{}
	ofApp struct{ A string }
)

// Services with some operations that are remembered.
var (
	restService = &wire.Service{Name: "Rest", Package: "rest", SigningName: "rest", Protocol: wire.RestJSON1}
	jsonService = &wire.Service{Name: "Json", Package: "json", SigningName: "json", Protocol: wire.AWSJSON10, TargetPrefix: "Json"}

	noneSchema = &wire.Schema{Name: "None", Type: wire.Structure}
	appSchema  = &wire.Schema{Name: "App", Type: wire.Structure, Members: []wire.Member{{Name: "A", Shape: "string", In: wire.InLabel, Required: true}}}
	_          = wire.Link([]*wire.Schema{noneSchema, appSchema})

	_ = wire.Define[ofApp, none](wire.Op{Name: "SendMessages", Method: "POST", URI: "/v1/apps/{A}/messages", Service: restService, Input: appSchema, Output: noneSchema, Remembered: true})
	_ = wire.Define[ofApp, none](wire.Op{Name: "PutEvents", Method: "POST", URI: "/v1/apps/{A}/events", Service: restService, Input: appSchema, Output: noneSchema, Remembered: true})
	_ = wire.Define[ofApp, none](wire.Op{Name: "CreateCampaign", Method: "POST", URI: "/v1/apps/{A}/campaigns", Service: restService, Input: appSchema, Output: noneSchema})
	_ = wire.Define[none, none](wire.Op{Name: "SendText", Service: jsonService, Input: noneSchema, Output: noneSchema, Remembered: true})
	_ = wire.Define[none, none](wire.Op{Name: "DescribePools", Service: jsonService, Input: noneSchema, Output: noneSchema})
	_ = wire.Define[none, none](wire.Op{Name: "CreatePool", Service: jsonService, Input: noneSchema, Output: noneSchema})
)

func TestRepeatable(t *testing.T) {
	rt := &Router{cfg: Config{Remembered: Remembers(restService, jsonService)}}
	tests := []struct {
		call Call
		want bool
	}{
		{Call{Method: "GET", Path: "/x"}, true},
		{Call{Method: "PUT", Path: "/x"}, true},
		{Call{Method: "DELETE", Path: "/x"}, true},
		{Call{Method: "PATCH", Path: "/x"}, false},
		{Call{Method: "POST", Path: "/v1/apps/A/messages", Invocation: "i"}, true},
		{Call{Method: "POST", Path: "/v1/apps/A/messages"}, false},
		{Call{Method: "POST", Path: "/v1/apps/A/messages/x", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/v1/apps/A/events", Invocation: "i"}, true},
		{Call{Method: "POST", Path: "/v1/apps//messages", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/v1/apps/A/campaigns", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/v1/apps", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/", Target: "Json.SendText", Invocation: "i"}, true},
		{Call{Method: "POST", Path: "/", Target: "Json.DescribePools", Invocation: "i"}, true},
		{Call{Method: "POST", Path: "/", Target: "Json.DescribePools"}, false},
		{Call{Method: "POST", Path: "/", Target: "Json.DescribeNothing", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/v1/apps/A/messages", Target: "Json.CreatePool", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/", Target: "SendText", Invocation: "i"}, false},
		{Call{Method: "POST", Path: "/", Invocation: "i"}, false},
	}
	for _, tt := range tests {
		if got := rt.repeatable(tt.call); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.call, got, tt.want)
		}
	}
	nobody := &Router{}
	if nobody.repeatable(Call{Method: "POST", Path: "/v1/apps/A/messages", Invocation: "i"}) {
		t.Error("a call that nobody remembers is repeated")
	}
}

func FuzzResource(f *testing.F) {
	for _, path := range []string{
		"/v1/apps/A/endpoints/e1", "/v1/apps/A/endpoints/%", "/v1/apps/A/users/%2", "/v1/tags/arn:a/b/c", "/everpoint/v1/apps/A",
		"//v1//apps/;a=b/..", "/v1/apps/A/jobs/import/x", "/v1/email/identities/%00", "\x00\xff",
	} {
		f.Add(path)
	}
	remembered := Remembers(restService, jsonService)
	f.Fuzz(func(t *testing.T, path string) {
		key, ok := resource(path)
		if again, still := resource(path); again != key || still != ok {
			t.Fatalf("%q: two answers", path)
		}
		if ok && !strings.HasPrefix(path, "/v1/") && !strings.HasPrefix(path, "/everpoint/v1/") {
			t.Fatalf("%q is no path of ours and has a key", path)
		}
		if ok { // what follows the resource does not matter to it, save in an ARN
			if k, o := resource(path + "/"); !o || k != key {
				t.Fatalf("%q: a slash at the end makes another key", path)
			}
		}
		v := viewOf(1, 2, 3)
		v.places[1].share = 0.5
		o := v.sticky(key)
		if o.n != 3 || o.at[0]^o.at[1]^o.at[2] != 0^1^2 {
			t.Fatalf("%q: order %v", path, o.at[:o.n])
		}
		_ = remembered(Call{Method: "POST", Path: path, Target: path, Invocation: "i"})
	})
}
