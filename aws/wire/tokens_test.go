package wire

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/aws"
)

func TestTokens(t *testing.T) {
	now := time.Date(2026, 11, 14, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	a := NewTokens([]byte("0123456789abcdef"), clock)
	twin := NewTokens([]byte("0123456789abcdef"), clock)
	other := NewTokens([]byte("0123456789abcdeX"), clock)

	token := a.Seal("apps/1 GetCampaigns", "cursor\x00é")
	if strings.Contains(token, "cursor") || strings.ContainsAny(token, "+/= ") {
		t.Errorf("token %q is not opaque and safe in a URL", token)
	}
	if got, err := twin.Open("apps/1 GetCampaigns", token); err != nil || got != "cursor\x00é" {
		t.Errorf("a node with the same key reads %q, %v", got, err)
	}
	refuse := func(name string, tk *Tokens, scope, token, want string) {
		t.Helper()
		_, err := tk.Open(scope, token)
		f, ok := errors.AsType[*aws.Fault](err)
		if !ok || f.Kind != aws.KindInvalid || f.Member != "NextToken" || !strings.Contains(f.Message, want) {
			t.Errorf("%s: got %v, want a fault that names the token and says %q", name, err, want)
		}
	}
	refuse("another key", other, "apps/1 GetCampaigns", token, "not valid")
	refuse("another scope", a, "apps/2 GetCampaigns", token, "not valid")
	refuse("garbage", a, "s", "garbage!", "not valid")
	refuse("short", a, "s", "YQ", "not valid")
	refuse("huge", a, "s", strings.Repeat("a", 5000), "not valid")
	for i := range len(token) {
		c := byte('A')
		if token[i] == c {
			c = 'B'
		}
		if got, err := a.Open("apps/1 GetCampaigns", token[:i]+string(c)+token[i+1:]); err == nil {
			t.Errorf("changed at %d, it opens as %q", i, got)
		}
	}
	now = now.Add(tokenLife - time.Second)
	if _, err := a.Open("apps/1 GetCampaigns", token); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	now = now.Add(time.Second)
	refuse("after 24 hours", a, "apps/1 GetCampaigns", token, "expired")

	if got := a.Seal("s", ""); got != "" {
		t.Errorf("the empty cursor seals to %q", got)
	}
	if got, err := a.Open("s", ""); got != "" || err != nil {
		t.Errorf("the empty token opens as %q, %v", got, err)
	}
}

func TestPage(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "100": 100, "500": 500, "501": 500, "1000": 500, "": 100} {
		if n, err := Page(&text); err != nil || n != want {
			t.Errorf("Page(%q) = %d, %v; want %d", text, n, err, want)
		}
	}
	if n, err := Page(nil); err != nil || n != 100 {
		t.Errorf("Page(nil) = %d, %v", n, err)
	}
	for _, text := range []string{"0", "-1", "x", "1.5", "99999999999999999999"} {
		_, err := Page(&text)
		if f, ok := errors.AsType[*aws.Fault](err); !ok || f.Member != "PageSize" {
			t.Errorf("Page(%q): %v, want a fault that names PageSize", text, err)
		}
	}
}

func FuzzTokens(f *testing.F) {
	tk := NewTokens([]byte("0123456789abcdef"), func() time.Time { return time.Unix(1, 0) })
	f.Add("scope", tk.Seal("scope", "cursor"))
	f.Add("scope", "AAAA")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, scope, token string) {
		// The seed's own token opens; nothing else that a fuzzer finds does.
		if c, err := tk.Open(scope, token); err == nil && token != "" && (scope != "scope" || c != "cursor") {
			t.Fatalf("forged %q for %q: %q", token, scope, c)
		}
		if token != "" && len(token) <= cursorMax {
			c, err := tk.Open(scope, tk.Seal(scope, token))
			if err != nil || c != token {
				t.Fatalf("sealed %q opens as %q, %v", token, c, err)
			}
		}
	})
}
