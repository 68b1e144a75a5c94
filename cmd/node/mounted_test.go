package node

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// The ledger of operations, as it is published.
const (
	mountedFile  = "../../docs/reference/mounted.txt"
	coverageFile = "../../docs/reference/coverage.md"

	mountedHead = "# The operations that rooms answer, \"package.Operation\" a line, sorted.\n" +
		"# A test beside the assembly compares this list with the running mux;\n" +
		"# cmd/apigen writes coverage.md from it.\n"
)

// TestMounted compares the published list of operations with the assembled mux.
// With -update it writes the list; go run ./cmd/apigen then writes coverage.md.
func TestMounted(t *testing.T) {
	mux := newDialog(t, &txtar.Archive{}).node.Mux
	got := mountedHead
	for _, key := range mux.Mounted() {
		got += key + "\n"
	}
	if *update {
		if err := os.WriteFile(mountedFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(mountedFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal([]byte(got), want) {
		t.Errorf("%s and the mux differ: %s\ngo test ./cmd/node -run Mounted -update && go run ./cmd/apigen writes both pages anew",
			mountedFile, difference(strings.Split(string(want), "\n"), strings.Split(got, "\n")))
	}
}

// difference lists what two sorted lists do not share.
func difference(published, running []string) string {
	var out []string
	for _, line := range running {
		if !slices.Contains(published, line) {
			out = append(out, "\n+ "+line)
		}
	}
	for _, line := range published {
		if !slices.Contains(running, line) {
			out = append(out, "\n- "+line)
		}
	}
	return strings.Join(out, "")
}

// coverageRow is a line of coverage.md about one operation.
var coverageRow = regexp.MustCompile(`^\| ([A-Za-z0-9]+) \| (.+) \| (.+) \|$`)

// TestCoverage checks the page that accounts for all operations: each operation of each model
// that the node serves is answered, not built yet, or never to be, and the page
// says which.
func TestCoverage(t *testing.T) {
	mux := newDialog(t, &txtar.Archive{}).node.Mux
	mounted := map[string]bool{}
	for _, key := range mux.Mounted() {
		mounted[key] = true
	}
	page, err := os.ReadFile(coverageFile)
	if err != nil {
		t.Fatal(err)
	}
	said, section := map[string]string{}, ""
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
		}
		if m := coverageRow.FindStringSubmatch(line); m != nil && section != "" && m[1] != "operation" {
			said[section+"."+m[1]] = m[3]
		}
	}
	t.Run("every operation is accounted for", func(t *testing.T) {
		for _, s := range mux.Services() {
			if len(s.Operations) == 0 {
				t.Errorf("%s has no operations", s.Name)
			}
			for _, op := range s.Operations {
				want := "not built yet: NotImplemented, 501"
				switch {
				case mounted[op.Key()]:
					want = "answers"
				case op.Absent:
					want = "never: "
				}
				if got := said[s.Name+"."+op.Name]; got == "" || !strings.HasPrefix(got, want) {
					t.Errorf("%s: coverage.md says %q, and the node %q", op.Key(), got, want)
				}
			}
		}
	})
	t.Run("the totals are those of the rows", func(t *testing.T) {
		for _, s := range mux.Services() {
			answered := 0
			for _, op := range s.Operations {
				if mounted[op.Key()] {
					answered++
				}
			}
			row := fmt.Sprintf("](#%s) | %d | %d | ", strings.ReplaceAll(strings.ToLower(s.Name), " ", "-"), len(s.Operations), answered)
			if !strings.Contains(string(page), row) {
				t.Errorf("coverage.md does not say that %d of %d operations of %s answer", answered, len(s.Operations), s.Name)
			}
		}
	})
}
