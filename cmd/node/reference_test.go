package node

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/senders/channels"
)

var updateReference = flag.Bool("update-reference", false, "write docs/reference/configuration.md")

func TestReference_is_what_is_committed(t *testing.T) {
	want, err := Reference()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "docs", "reference", "configuration.md")
	if *updateReference {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/reference/configuration.md is old: go test ./cmd/node -run Reference -update-reference")
	}
	for _, line := range strings.Split(want, "\n") {
		if strings.HasPrefix(line, "| `") && strings.HasSuffix(line, "|  |") {
			t.Errorf("a member without a comment: %s", line)
		}
	}
}

func TestLoadConfig_names_what_is_wrong(t *testing.T) {
	const good = `{"Region":"us-east-1","Dir":"data","Account":[{"ID":"111122223333","AccessKeyID":"AKIA","SecretFile":"s"}]`
	const (
		group  = good + `,"Group":{"Listen":"127.0.0.1:1","CAFile":"ca","CertFile":"c","KeyFile":"k"`
		peer   = `{"Region":"eu-west-1","URL":"https://eu:1"}`
		self   = `{"Region":"us-east-1","URL":"https://us:1"}]}}`
		plain  = `{"Region":"eu-west-1","URL":"http://eu:1"}]}}`
		twice  = peer + `,` + peer + `]}}`
		joined = peer + `]}}`
	)
	for body, want := range map[string]string{
		good + `}`:                                                "",
		`{"Region":"us-east-1"`:                                   "parse",
		good + `,"Colour":"red"}`:                                 "Colour",
		`{"Dir":"d"}`:                                             "Region",
		`{"Region":"us-east-1"}`:                                  "Dir",
		good + `,"LogLevel":"loud"}`:                              "LogLevel",
		good + `,"Admin":"0.0.0.0:80"}`:                           "Admin",
		good + `,"Admin":"localhost:80"}`:                         "Admin",
		good + `,"Admin":"[::1]:80"}`:                             "",
		good + `,"Routes":[{"Name":"a"}]}`:                        "Routes[0]",
		good + `,"Numbers":[{"Number":"+1","Route":"none"}]}`:     "Numbers[0]",
		good + `,"Mail":{}}`:                                      "Mail.Addr",
		good + `,"Mail":{"Addr":"relay:25","EmailPerSecond":-1}}`: "Mail.EmailPerSecond",
		good + `,"Routes":[{"Name":"a","Addresses":["a:1"]}],"Numbers":[{"Number":"+1","Route":"a","PartsPerSecond":-1}]}`: "Numbers[0].PartsPerSecond",
		`{"Region":"us-east-1","Dir":"d","Account":[{"ID":"12"}]}`:                                                         "Account[0].ID",
		good + `,"Group":{}}`:         "Group.Listen",
		group + `}}`:                  "Group.Peers:",
		group + `,"Peers":[{}]}}`:     "Group.Peers[0].Region",
		group + `,"Peers":[` + self:   "Group.Peers[0].Region",
		group + `,"Peers":[` + plain:  "Group.Peers[0].URL",
		group + `,"Peers":[` + twice:  "Group.Peers[1].Region",
		group + `,"Peers":[` + joined: "",
	} {
		path := filepath.Join(t.TempDir(), "node.json")
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := LoadConfig(path)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", body, err)
		case want == "" && cfg.Dir != filepath.Join(filepath.Dir(path), "data"):
			t.Errorf("Dir is %q, not below the file", cfg.Dir)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want it to name %q", body, err, want)
		}
	}
}

func TestConfig_channels_tell_their_speed(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want channels.Config
	}{
		"nothing configured":       {Config{}, channels.Config{}},
		"mail without a number":    {Config{Mail: &Mail{}}, channels.Config{}},
		"mail":                     {Config{Mail: &Mail{EmailPerSecond: 50}}, channels.Config{EmailPerSecond: 50}},
		"numbers add up":           {Config{Numbers: []Number{{PartsPerSecond: 2.5}, {PartsPerSecond: 10}}}, channels.Config{SMSPromotionalPerSecond: 12, SMSTransactionalPerSecond: 12}},
		"a slow number":            {Config{Numbers: []Number{{PartsPerSecond: 0.2}}}, channels.Config{SMSPromotionalPerSecond: 1, SMSTransactionalPerSecond: 1}},
		"one number without limit": {Config{Numbers: []Number{{PartsPerSecond: 2}, {}}}, channels.Config{}},
		"more than a client reads": {Config{Numbers: []Number{{PartsPerSecond: 1e300}}}, channels.Config{SMSPromotionalPerSecond: 1<<31 - 1, SMSTransactionalPerSecond: 1<<31 - 1}},
	} {
		if got := c.cfg.channels(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
