package node

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/store"
)

// asked asks the page as somebody on this machine does.
func (p *page) asked(method, path, host, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://"+host+path, http.NoBody)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// shown asks for the page, as HTML and as JSON.
func (p *page) shown(t *testing.T) (text string, view groupPage) {
	t.Helper()
	html := p.asked("GET", "/", "127.0.0.1:9", "text/html,application/xhtml+xml")
	data, err := io.ReadAll(html.Body)
	if err != nil || html.Code != http.StatusOK || html.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("answered %d %v, %v", html.Code, html.Header(), err)
	}
	if !strings.HasSuffix(strings.TrimSpace(string(data)), "</html>") {
		t.Fatalf("the page breaks off: %s", data[max(0, len(data)-200):])
	}
	answer := p.asked("GET", "/", "localhost", "application/json")
	if err := json.NewDecoder(answer.Body).Decode(&view); err != nil || answer.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("JSON: %v, %v", err, answer.Header())
	}
	return string(data), view
}

// newPages is a page of a node whose Region votes alone, or has no group.
func newPages(t *testing.T, votes bool) (*page, regions) {
	t.Helper()
	g, _ := newRegions(t, votes)
	n := g.a.n
	n.Config.Region, n.Config.Node = "us-east-1", "n1"
	n.log, n.started = slog.New(slog.DiscardHandler), time.Now()
	if n.Store == nil {
		keys, err := store.NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		if n.Store, err = store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1"}, keys, time.Now, n.log); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		ended := make(chan error, 1)
		go func() { ended <- n.Store.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			<-ended
		})
	}
	return newPage(n), g
}

func TestPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newPages(t, true)
		if text, view := p.shown(t); view.Problem == "" || !strings.Contains(text, "No majority: ") || !strings.Contains(text, "No Region has joined") {
			t.Errorf("before there is a group: %q, %s", view.Problem, text)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p, g := newPages(t, true)
		time.Sleep(10 * time.Second)
		g.propose(t, quorum.Join{Region: "us-east-1", Incarnation: "0123456789abcdef"})
		p.shown(t)
		time.Sleep(time.Minute)
		began := time.Now().UTC()
		g.propose(
			t, quorum.Join{Region: "eu-west-1", Incarnation: "b"}, quorum.TakeLease{Region: "us-east-1", Node: "n1", Millis: 1000},
			quorum.Raise{Region: "us-east-1", Lease: 1, Duty: 1, Marks: []quorum.Mark{{Shard: 3, Key: "run/3", To: 0xabc}}},
			quorum.Stop{Key: "app/c", Halt: quorum.Halt{Kind: quorum.Pause, By: "arn:root", AtMillis: 1}},
			quorum.SetSwitch{Region: "eu-west-1", Switch: quorum.Switch{Position: quorum.Draining, Weight: 40, Reason: "<b>disk</b>", By: "arn:root", AtMillis: 1000}},
		)
		text, view := p.shown(t)
		east, west := view.Regions[1], view.Regions[0]
		if !view.Votes || view.Problem != "" || view.Control.Region != "us-east-1" || len(view.Duty.Shards) != quorum.Shards || view.Duty.Shards[9].Region != "us-east-1" {
			t.Errorf("the page has %+v", view)
		}
		if !east.InSync || !east.Here || !east.Control || east.Shards != quorum.Shards || east.Lease.Node != "n1" || !east.SinceBefore || !east.Since.Before(began) {
			t.Errorf("this Region is %+v", east)
		}
		if west.InSync || west.Reason != "has not caught up yet" || west.Switch.Weight != 40 || west.SinceBefore || west.Since.Before(began) {
			t.Errorf("the other is %+v, and it came at %s", west, began)
		}
		if view.Marks.Total != 1 || view.Marks.First[0] != (pageMark{"run/3", 0xabc}) || view.Stops.Total != 1 || view.Stops.First[0].Halt.Kind != quorum.Pause {
			t.Errorf("marks %+v, stops %+v", view.Marks, view.Stops)
		}
		for _, want := range []string{
			"1 of 2", "has not caught up yet", "draining", "40 % of its part", "&lt;b&gt;disk&lt;/b&gt;", "this one, control", "0123456789ab<",
			"run/3", "0000000000000abc", "app/c", "shard 9: us-east-1 since duty epoch 1", `http-equiv="refresh"`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		if strings.Contains(text, "<script") || strings.Contains(text, "ZgotmplZ") {
			t.Error("the page has scripts, or what its template refused")
		}
	})
}

func TestPage_of_a_Region_without_a_group(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newPages(t, false)
		text, view := p.shown(t)
		if view.Votes || !strings.Contains(text, "do not vote") || !strings.Contains(text, "This Region is alone") {
			t.Errorf("%+v\n%s", view, text)
		}
	})
}

func TestPage_refuses(t *testing.T) {
	p := newPage(&Node{})
	for _, c := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "/", "evil.example:9", http.StatusForbidden},
		{"GET", "/", "localhost.evil.example", http.StatusForbidden},
		{"GET", "/", "10.0.0.1:9", http.StatusForbidden},
		{"POST", "/", "127.0.0.1:9", http.StatusMethodNotAllowed},
		{"DELETE", "/", "[::1]:9", http.StatusMethodNotAllowed},
		{"GET", "/everpoint/v1/node", "[::1]", http.StatusNotFound},
	} {
		if resp := p.asked(c.method, c.path, c.host, ""); resp.Code != c.status {
			t.Errorf("%s %s of %s answers %d, want %d", c.method, c.path, c.host, resp.Code, c.status)
		}
	}
}

func TestPage_bounds_its_lists(t *testing.T) {
	marks := map[string]uint64{}
	for i := range 3 * pageListMax {
		marks[string(rune('a'+i))] = uint64(i)
	}
	if got := first(marks, func(k string, to uint64) pageMark { return pageMark{k, to} }); got.Total != 3*pageListMax || len(got.First) != pageListMax || got.First[1].To != 1 {
		t.Errorf("%+v", got)
	}
}
