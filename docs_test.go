package everpoint_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	link       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	divergence = regexp.MustCompile(`docs/divergences\.md#([A-Za-z0-9-]+)`)
	fenced     = regexp.MustCompile("(?ms)^```.*?^```$")
)

// TestDocs_links follows every relative link of every page to a file or folder.
func TestDocs_links(t *testing.T) {
	followed := 0
	for _, file := range files(t) {
		if path.Ext(file) != ".md" {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(read(t, file)), ""), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			followed++
			to := path.Join(path.Dir(file), target)
			if !fs.ValidPath(to) {
				t.Errorf("%s links to %s, outside the checkout", file, m[1])
			} else if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
	if followed == 0 {
		t.Error("no link found: the test looks in the wrong place")
	}
}

// TestDocs_divergences asks that what code and pages cite by name is on the page.
func TestDocs_divergences(t *testing.T) {
	page := string(read(t, "docs/divergences.md"))
	for _, file := range files(t) {
		if !written(file) || file == "docs_test.go" {
			continue
		}
		for _, m := range divergence.FindAllStringSubmatch(string(read(t, file)), -1) {
			if !strings.Contains(page, `<a id="`+m[1]+`">`) {
				t.Errorf(`%s cites docs/divergences.md#%s: add a row with <a id=%q> there`, file, m[1], m[1])
			}
		}
	}
}

// TestDocs_decisions asks that the index names every page; TestDocs_links that
// every page it names is there.
func TestDocs_decisions(t *testing.T) {
	const folder = "docs/decisions/"
	index := string(read(t, folder+"README.md"))
	for _, file := range files(t) {
		name, ok := strings.CutPrefix(file, folder)
		if ok && name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("%s is not in %sREADME.md: add a line with the page and what it decides", file, folder)
		}
	}
}
