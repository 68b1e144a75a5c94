package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const repository = "../.."

// The committed files are what the models say. "make verify" asks the same.
func TestCommittedFilesAreCurrent(t *testing.T) {
	if err := run([]string{"-root", repository, "--check"}, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestGenerationIsDeterministic(t *testing.T) {
	first, err := generate(repository)
	if err != nil {
		t.Fatal(err)
	}
	second, err := generate(repository)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 3*len(packages)+1 {
		t.Errorf("%d files", len(first))
	}
	for name, text := range first {
		if !bytes.Equal(text, second[name]) {
			t.Errorf("%s differs between two runs", name)
		}
	}
}

// tree is a copy of the models in a directory of its own.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "models"), os.DirFS(filepath.Join(repository, "models"))); err != nil {
		t.Fatal(err)
	}
	return root
}

func edit(t *testing.T, path, old, new string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s does not contain %s", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsDifferences(t *testing.T) {
	root := tree(t)
	if err := run([]string{"-root", root, "-check"}, io.Discard); err == nil {
		t.Fatal("nothing is generated, and the check passes")
	}
	if _, err := os.Stat(filepath.Join(root, "api")); err == nil {
		t.Fatal("the check has written files")
	}
	if err := run([]string{"-root", root}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-root", root, "-check"}, io.Discard); err != nil {
		t.Fatalf("just generated: %v", err)
	}
	stray := filepath.Join(root, "api", "pinpoint", "stray.gen.go")
	if err := os.WriteFile(stray, []byte("package pinpoint\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(root, "api", "sts", "types.gen.go"), "type AssumeRoleRequest struct", "type AssumeRoleQuestion struct")
	edit(t, filepath.Join(root, "models", "overlay", "pinpoint.json"), `"values": ["ALL", "NONE"]`, `"values": ["ALL", "NONE", "SOME"]`)
	err := run([]string{"-root", root, "-check"}, io.Discard)
	for _, want := range []string{"stray.gen.go", "api/sts/types.gen.go", "api/pinpoint/schemas.gen.go"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the check does not name %s: %v", want, err)
		}
	}
	if err := run([]string{"-root", root}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); err == nil {
		t.Error("the stray file is still there")
	}
}

func TestMistakesInTheDataAreRefused(t *testing.T) {
	tests := map[string]struct{ file, old, new, want string }{
		"a misspelt member":        {"overlay/pinpoint.json", `"Daily": {"range"`, `"Dayly": {"range"`, "shape CampaignLimits has no member Dayly"},
		"a misspelt shape":         {"overlay/pinpoint-email.json", `"MaxItems"`, `"MaxItem"`, "no shape MaxItem"},
		"a misspelt operation":     {"overlay/pinpoint.json", `"PutEvents"`, `"PutEvent"`, "no operation PutEvent"},
		"a key nobody reads":       {"overlay/pinpoint.json", `"scalarAsList"`, `"scalarAsLists"`, `unknown field "scalarAsLists"`},
		"an unknown shape":         {"everpoint.json", `"type": "RunState"`, `"type": "RunStates"`, `no shape "RunStates"`},
		"an unknown use":           {"everpoint.json", `"SegmentGroupList"]`, `"SegmentGroupLists"]`, "uses pinpoint.SegmentGroupLists"},
		"a look-around":            {"overlay/iam.json", `^[a-z0-9](-?[a-z0-9])*$`, `^(?!x)[a-z]+$`, "needs a replacement in the overlay"},
		"a reason without its own": {"overlay/sts.json", `"AssumeRoot"`, `"AssumeRoots"`, "absent operation AssumeRoots"},
		"no such plane":            {"overlay/sts.json", `"data": [`, `"date": [`, `no plane "date"`},
		"a misspelt one on it":     {"overlay/sts.json", `"GetCallerIdentity"`, `"GetCallersIdentity"`, "plane data: no operation GetCallersIdentity"},
		"a misspelt memory":        {"overlay/pinpoint.json", `"remembered": ["SendMessages"`, `"remembered": ["SendMessage"`, "remembered: no operation SendMessage"},
		"one on two planes":        {"overlay/everpoint.json", `"data": [`, `"data": ["PutSendingPolicy",`, "PutSendingPolicy is on the planes control and data"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := tree(t)
			edit(t, filepath.Join(root, "models", tt.file), tt.old, tt.new)
			if _, err := generate(root); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}

func TestCoverage(t *testing.T) {
	root := tree(t)
	mounted := filepath.Join(root, "docs", "reference", "mounted.txt")
	if err := os.MkdirAll(filepath.Dir(mounted), 0o755); err != nil {
		t.Fatal(err)
	}
	page := func(list string) (string, error) {
		t.Helper()
		if err := os.WriteFile(mounted, []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
		files, err := generate(root)
		return string(files["docs/reference/coverage.md"]), err
	}
	text, err := page("# a comment\n\npinpoint.GetApp\nsts.GetCallerIdentity\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| [Pinpoint](#pinpoint) | 122 | 1 | 121 | 0 |\n",
		"| [STS](#sts) | 9 | 1 | 6 | 2 |\n",
		"| GetApp | `GET /v1/apps/{ApplicationId}` | answers |\n",
		"| GetApps | `GET /v1/apps` | not built yet: NotImplemented, 501 |\n",
		"| AssumeRoot | awsQuery | never: there are no organizations; InvalidAction, 400 |\n",
		"| Personalize Runtime | GetActionRecommendations, GetPersonalizedRanking, GetRecommendations | recommenders",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(text, "## Personalize Runtime") || strings.Contains(text, "[Personalize Runtime]") {
		t.Error("the page counts an API that is not served")
	}
	for list, want := range map[string]string{
		"pinpoint.GetApp\npinpoint.GetApp\n":      "twice",
		"pinpoint.Nope\n":                         "pinpoint.Nope, which no model has",
		"personalizeruntime.GetRecommendations\n": "its overlay says that the API is only called",
		"sts.AssumeRoot\n":                        "is mounted, and its overlay says why it is absent",
	} {
		if _, err := page(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error that says %q", list, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for v, want := range map[string]string{
		"APNS_VOIP_SANDBOX": "ApnsVoipSandbox", "de-DE": "DeDE", "endpoint-user-attributes": "EndpointUserAttributes",
		"IN_APP": "InApp", "ApiCallRateInsight": "ApiCallRateInsight", "HR_24": "Hr24", "": "Empty",
	} {
		if got := constant(v); got != want {
			t.Errorf("constant(%q) = %s, want %s", v, got, want)
		}
	}
	for v, want := range map[string]string{"tags": "Tags", "__EndpointTypesElement": "EndpointTypesElement", "userName": "UserName"} {
		if got := exported(v); got != want {
			t.Errorf("exported(%q) = %s, want %s", v, got, want)
		}
	}
	if p, err := pattern(`^[\u0020-\u00FF]+$`); err != nil || p != `^[\x{0020}-\x{00FF}]+$` {
		t.Errorf("pattern: %s, %v", p, err)
	}
}
