package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

// voices is a Region of several nodes over one database, as its nodes know which
// of them speaks.
type voices struct {
	mu         sync.Mutex
	generation uint64 // of the database's row
}

// voice is one node's knowledge of it.
type voice struct {
	all     *voices
	mu      sync.Mutex
	since   uint64 // 0: another node speaks
	speaker string
	waited  uint64
}

func (v *voice) Speaks() (uint64, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.since, v.since > 0
}

func (v *voice) Confirm(_ context.Context, generation uint64) error {
	v.all.mu.Lock()
	defer v.all.mu.Unlock()
	if v.all.generation != generation {
		return aws.Unavailable("another node speaks now")
	}
	return nil
}

func (v *voice) Speaker() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.speaker
}

func (v *voice) Route(string) string { return "" }

func (v *voice) Wait(_ context.Context, index uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waited = index
	return nil
}

func (v *voice) is(since uint64, speaker string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since, v.speaker = since, speaker
}

// Of a Region's nodes one judges whether the group has a block. The others ask
// it, and what a node judged that was not the last to speak does not count.
func TestAcknowledge_among_the_nodes_of_a_Region(t *testing.T) {
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1"}, keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := st.Run(running); err != nil {
			t.Error(err)
		}
	})
	defer done.Wait()
	defer stop()

	all := &voices{generation: 1}
	var group sync.Map // what the node that speaks knows of the set
	from := "us-east-1"
	node := func() (*Replica, *voice, string) {
		v := &voice{all: all}
		r, err := New(Config{
			Region: "us-east-1", AckMax: 300 * time.Millisecond, RetryMin: time.Millisecond, Heartbeat: 10 * time.Millisecond, Voice: v,
			Caller: func(*http.Request) (string, error) { return "eu-west-1", nil },
			Colleague: func(*http.Request) error {
				if from != "us-east-1" {
					return errors.New(from + " is not this Region")
				}
				return nil
			},
			Index: func() uint64 { return 7 },
			Group: func() (map[string]string, error) {
				m := map[string]string{}
				group.Range(func(region, _ any) bool { m[region.(string)] = ""; return true })
				return m, nil
			},
		}, st, http.DefaultClient, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(r.Handler())
		t.Cleanup(server.Close)
		return r, v, server.URL
	}
	one, oneVoice, oneURL := node()
	two, twoVoice, twoURL := node()

	acknowledged := func(r *Replica, want string) {
		t.Helper()
		err := r.Acknowledge(t.Context(), 0)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || aws.KindOf(err) != aws.KindUnavailable) {
			t.Errorf("acknowledged with %v, want %q", err, want)
		}
	}
	acknowledged(one, "no node is known to speak")
	oneVoice.is(1, "")
	twoVoice.is(0, oneURL)
	acknowledged(one, "")
	acknowledged(two, "")
	if twoVoice.waited != 6 {
		t.Errorf("the node that asked waited for what comes after %d, want after 6", twoVoice.waited)
	}
	group.Store("eu-west-1", true) // which never says anything
	acknowledged(one, "Region eu-west-1 has not said")
	acknowledged(two, "has not said")
	group.Clear()

	// The first was paused: another speaks since generation 2, and it does not know.
	all.generation = 2
	acknowledged(one, "another node speaks")
	acknowledged(two, "another node speaks")
	twoVoice.is(2, "")
	acknowledged(two, "")
	oneVoice.is(0, twoURL)
	acknowledged(one, "")

	for _, tt := range []struct {
		name, query, from string
		at                string
		want              int
	}{
		{"another Region", "n=0&incarnation=" + st.Incarnation(), "eu-west-1", twoURL, http.StatusForbidden},
		{"no number", "n=x&incarnation=" + st.Incarnation(), "us-east-1", twoURL, http.StatusBadRequest},
		{"another incarnation", "n=0&incarnation=x", "us-east-1", twoURL, http.StatusConflict},
		{"a node that does not speak", "n=0&incarnation=" + st.Incarnation(), "us-east-1", oneURL, http.StatusMisdirectedRequest},
	} {
		from = tt.from
		resp, err := http.Post(fmt.Sprintf("%s%sacknowledged?%s", tt.at, path, tt.query), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %s, want %d", tt.name, resp.Status, tt.want)
		}
	}
	// Nor does it tell the other Regions anything.
	for method, what := range map[string]string{http.MethodGet: "rows?after=0", http.MethodPost: "stream/safety?after=0"} {
		req, err := http.NewRequestWithContext(t.Context(), method, oneURL+path+what, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
}
