package tags

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/aws/wire"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

const account = "111122223333"

// thing is the resource of a small owner: things/{}/parts/{} of an account.
type thing struct{ Tags map[string]string }

var kind = store.Kind{Name: "thing", Rule: changelog.RuleDocument}

func keyOf(account string, names []string) string { return account + "/" + strings.Join(names, "/") }

// room is the room over a store of its own and one owner.
type room struct {
	t     *testing.T
	store *store.Store
	mux   *wire.Mux
	sets  int // how often tags were replaced
}

func newRoom(t *testing.T) *room {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1"}, keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r := &room{t: t, store: st, mux: wire.NewMux(pinpoint.Service)}
	New(Config{Regions: []string{"eu-west-1"}}, st, Owner{
		Pattern: "things/{}/parts/{}",
		Tags: func(r store.Reader, account string, names []string) (map[string]string, error) {
			th, err := store.Load[thing](r, kind, keyOf(account, names))
			if err != nil {
				return nil, err
			}
			if th == nil {
				return nil, aws.NotFound("Resource not found")
			}
			return th.Tags, nil
		},
		SetTags: func(tx *store.Tx, account string, names []string, tags map[string]string) error {
			r.sets++
			return store.Save(tx, kind, keyOf(account, names), &thing{tags})
		},
	}).Mount(r.mux)
	return r
}

// put makes the thing a/parts/b.
func (r *room) put(tags map[string]string) {
	r.t.Helper()
	err := r.store.Update(r.t.Context(), func(tx *store.Tx) error {
		return store.Save(tx, kind, keyOf(account, []string{"a", "b"}), &thing{tags})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.sets = 0
}

func (r *room) call(method, arn, query, body string) (int, string) {
	r.t.Helper()
	req := &wire.Request{Method: method, RawPath: "/v1/tags/" + url.PathEscape(arn), RawQuery: query, Header: http.Header{}, Body: []byte(body)}
	m, err := r.mux.Find(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, arn, err)
	}
	if got := m.Resource("us-east-1", account); strings.HasPrefix(arn, "arn:aws:") && got != arn {
		r.t.Errorf("policies would judge %s, not %s", got, arn)
	}
	ctx := aws.WithCaller(r.t.Context(), aws.Caller{Account: account, Region: "us-east-1", RequestID: "req-1"})
	resp := m.Invoke(ctx, req)
	return resp.Status, string(resp.Body)
}

func (r *room) expect(method, query, body string, status int, want string) {
	r.t.Helper()
	if got, text := r.call(method, thingARN, query, body); got != status || !strings.Contains(text, want) || want == "" && text != "" {
		r.t.Errorf("%s ?%s %s: %d %s, want %d %s", method, query, body, got, text, status, want)
	}
}

const thingARN = "arn:aws:mobiletargeting:us-east-1:" + account + ":things/a/parts/b"

func TestTags_merge_and_go(t *testing.T) {
	r := newRoom(t)
	r.put(nil)
	r.expect("GET", "", "", 200, `{"tags":{}}`)
	r.expect("POST", "", `{"tags":{"team":"growth","Team":"tea"}}`, 204, "")
	r.expect("POST", "", `{"tags":{"team":"core","note":""}}`, 204, "")
	r.expect("GET", "", "", 200, `{"tags":{"Team":"tea","note":"","team":"core"}}`)
	r.expect("DELETE", "tagKeys=Team&tagKeys=absent", "", 204, "")
	r.expect("GET", "", "", 200, `{"tags":{"note":"","team":"core"}}`)

	r.sets = 0
	r.expect("POST", "", `{"tags":{"team":"core"}}`, 204, "")
	r.expect("POST", "", `{"tags":{}}`, 204, "")
	r.expect("DELETE", "tagKeys=absent", "", 204, "")
	if r.sets != 0 {
		t.Errorf("tags were written %d times, and nothing changed", r.sets)
	}
	r.expect("DELETE", "tagKeys=team&tagKeys=note", "", 204, "")
	r.expect("GET", "", "", 200, `{"tags":{}}`)
}

func TestTags_reserved_ones_stay_and_do_not_count(t *testing.T) {
	r := newRoom(t)
	const reserved = "aws:cloudformation:stack-name"
	tags := map[string]string{reserved: "s"}
	for i := range tagsMax - 1 {
		tags[fmt.Sprint("k", i)] = "v"
	}
	r.put(tags)
	r.expect("POST", "", `{"tags":{"last":"v"}}`, 204, "")
	r.expect("POST", "", `{"tags":{"more":"v"}}`, 400, "51 tags, more than 50")
	r.expect("POST", "", `{"tags":{"last":"w"}}`, 204, "") // one that is there
	r.expect("DELETE", "tagKeys="+reserved, "", 400, "tagKeys: keys that start with aws: are reserved")
	r.expect("POST", "", `{"tags":{"`+reserved+`":"t"}}`, 400, "tags: keys that start with aws: are reserved")
	r.expect("GET", "", "", 200, `"`+reserved+`":"s"`)
	r.expect("GET", "", "", 200, `"last":"w"`)
}

func TestTags_whose_ARN_is_answered(t *testing.T) {
	r := newRoom(t)
	r.put(map[string]string{"k": "v"})
	for arn, want := range map[string]int{
		thingARN: 200,
		"arn:aws:mobiletargeting:eu-west-1:" + account + ":things/a/parts/b":    200, // a Region of ours
		"arn:aws:mobiletargeting:eu-west-2:" + account + ":things/a/parts/b":    403,
		"arn:aws:mobiletargeting::" + account + ":things/a/parts/b":             403,
		"arn:aws-cn:mobiletargeting:us-east-1:" + account + ":things/a/parts/b": 403,
		"arn:aws:mobiletargeting:us-east-1:444455556666:things/a/parts/b":       403,
		"arn:aws:mobiletargeting:us-east-1:444455556666:things/a/parts/none":    403,
		"arn:aws:mobiletargeting:us-east-1::things/a/parts/b":                   403,
		"arn:aws:mobiletargeting:us-east-1:" + account + ":things/a/parts/none": 404,
		"arn:aws:mobiletargeting:us-east-1:" + account + ":things/a/parts/":     400,
		"arn:aws:mobiletargeting:us-east-1:" + account + ":things/a/parts/b/c":  400,
		"arn:aws:mobiletargeting:us-east-1:" + account + ":things/a":            400,
		"arn:aws:mobiletargeting:us-east-1:" + account + ":Things/a/parts/b":    400,
		"arn:aws:ses:us-east-1:" + account + ":things/a/parts/b":                400,
		"things/a/parts/b": 400,
		"arn:aws":          400,
	} {
		for method, ask := range map[string]struct {
			query, body string
			ok          int
		}{
			"GET":    {ok: 200},
			"POST":   {body: `{"tags":{"k":"v"}}`, ok: 204},
			"DELETE": {query: "tagKeys=absent", ok: 204},
		} {
			want := want
			if want == 200 {
				want = ask.ok
			}
			if got, text := r.call(method, arn, ask.query, ask.body); got != want {
				t.Errorf("%s %s: %d %s, want %d", method, arn, got, text, want)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	many := map[string]string{}
	for i := range tagsMax {
		many[fmt.Sprint("k", i)] = "v"
	}
	tooMany := maps.Clone(many)
	tooMany["one"] = "more"
	for name, tt := range map[string]struct {
		tags map[string]string
		want string
	}{
		"none":                    {nil, ""},
		"fifty":                   {many, ""},
		"fifty-one":               {tooMany, "more than 50"},
		"every character":         {map[string]string{"Ünï code_.:/=+-@٣": "日本 1"}, ""},
		"an empty value":          {map[string]string{"k": ""}, ""},
		"an empty key":            {map[string]string{"": "v"}, "1 to 128"},
		"a key of 128 letters":    {map[string]string{strings.Repeat("é", 128): "v"}, ""},
		"a key of 129":            {map[string]string{strings.Repeat("k", 129): "v"}, "1 to 128"},
		"a value of 256 letters":  {map[string]string{"k": strings.Repeat("é", 256)}, ""},
		"a value of 257":          {map[string]string{"k": strings.Repeat("v", 257)}, "at most 256"},
		"a reserved key":          {map[string]string{"aws:k": "v"}, "reserved"},
		"reserved in other case":  {map[string]string{"AWS:k": "v"}, "reserved"},
		"aws without colon":       {map[string]string{"awsome": "aws:v"}, ""},
		"a semicolon in a key":    {map[string]string{"a;b": "v"}, "letters, digits"},
		"a line break in a value": {map[string]string{"k": "a\nb"}, "letters, digits"},
		"the first in order":      {map[string]string{"b;": "v", "aws:a": "v", "c": strings.Repeat("v", 257)}, "reserved"},
	} {
		err := Check(tt.tags)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && aws.KindOf(err) != aws.KindInvalid {
			t.Errorf("%s: kind %d, want an invalid request", name, aws.KindOf(err))
		}
	}
}
