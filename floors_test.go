package everpoint_test

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// The house, from the street down to the ground. A room imports what its line
// says and nothing else of ours; packages below a room belong to it. A line
// names rooms by path, and those of a whole shelf by "shelf/*".
//
// Calls go down, so every line points to lower floors, save the few steps to a
// neighbour that are written out. Who must reach upward appends a fact, enqueues
// work, or declares an interface of one method for cmd to fill.
var house = []room{
	// Composition: may import anything. What is assembled stands on floor 7, and
	// those who start it, whom nothing imports, on floor 8.
	{8, "cmd/everpoint", "*"},
	{8, "sim", "*"},
	{8, "test/processes", "*"},
	{8, "examples/*", "*"},
	{7, "cmd/node", "*"},
	{7, "cmd/carriers", "*"},
	{7, "cmd/apigen", "*"},

	// The street side: never a room.
	{6, "door", specifications},
	{6, "router", specifications},
	{6, "failover", ground},
	{6, "apply", specifications + "api/* "},
	{6, "console", ""},

	// Rooms that decide to speak.
	{5, "outreach/messages", people + described + "courier delivery"},
	{5, "outreach/campaigns", people + described + "courier delivery"},
	{5, "outreach/journeys", people + described + "courier delivery"},
	// Rooms that tell what happened: they read the log, and never send.
	{5, "insight/events", people + described + "courier"},
	{5, "insight/analytics", people + described + "courier"},
	{5, "insight/audit", people + described + "courier"},

	// The one way out.
	{4, "delivery", people + described + "courier"},

	// Rooms that describe whom, what, and from where.
	{3, "audience/endpoints", people},
	{3, "audience/segments", people + "audience/endpoints"},
	{3, "templates", people},
	{3, "senders/channels", people},
	{3, "senders/numbers", people},
	{3, "senders/identities", people},
	{3, "senders/configsets", people},
	{3, "senders/guard", people},

	// Whose it is, and who may.
	{2, "account/iam", ground + "account/tags"},
	{2, "account/apps", ground + "account/tags"},
	{2, "account/tags", ground},

	// Truth, and the wires to the world.
	{1, "state/group", "aws state/changelog state/store state/replica state/quorum"},
	{1, "state/quorum", "aws state/changelog state/store state/queue state/eventlog state/replica"},
	{1, "state/replica", "aws state/changelog state/store state/queue state/eventlog"},
	{1, "state/eventlog", "aws state/changelog state/store state/queue"},
	{1, "state/queue", "aws state/changelog state/store"},
	{1, "state/store", "aws state/changelog"},
	{1, "state/changelog", "aws"},
	{1, "courier/*", "courier"},
	{1, "courier", ""},

	// Specifications: the standard library only.
	{0, "api", "aws aws/* api/*"},                 // what holds for every generated package
	{0, "api/everpoint", "aws/wire api/pinpoint"}, // ours speaks of segments and channels in the original's shapes
	{0, "api/*", "aws/wire"},
	{0, "aws/wire", "aws"},
	{0, "aws/sigv4", "aws"},
	{0, "aws/policy", "aws"},
	{0, "aws", ""},
}

// What the lines of the plan have in common.
const (
	specifications = "aws aws/* "
	ground         = specifications + "api/* state/* "
	people         = ground + "account/* "
	described      = "audience/* templates senders/* "
)

// librariesFrom is the lowest floor that may use third-party libraries; besides,
// the couriers' contract and the merge rules do without.
const librariesFrom = 1

var withoutLibraries = []string{"courier", "state/changelog"}

// A room is one line of the plan.
type room struct {
	floor int
	path  string // "courier/*" stands for a room each
	may   string // what it imports, separated by spaces; "*" is anything
}

// An arrow says that a room imports another, and where first seen.
type arrow struct{ from, to string }

func TestFloors(t *testing.T) {
	arrows := map[arrow]string{}
	for _, s := range sources(t) {
		if s.dir == "." {
			continue // this test
		}
		from, ok := roomOf(s.dir)
		if !ok {
			t.Errorf("%s is in no room of the house: put it in one, or add its room to the plan in floors_test.go", s.path)
			continue
		}
		for _, name := range s.imports {
			if why := climbs(s, from, name); why != "" {
				t.Errorf("%s imports %s: %s", s.path, name, why)
			}
			if to, ours := strings.CutPrefix(name, module+"/"); ours && !s.test {
				if to, ok := roomOf(to); ok && to.path != from.path {
					arrows[arrow{from.path, to.path}] = s.path
				}
			}
		}
	}
	t.Logf("the arrows, from the street down:\n%s", drawing(arrows))
}

// climbs says why the source s, in room from, may not import the package name;
// "" when it may.
//
// Tests may besides import any room of a lower floor, and libraries; never one
// above, so that a room can be tested where only what is below it works.
func climbs(s source, from room, name string) string {
	target, ours := strings.CutPrefix(name, module+"/")
	if !ours {
		if s.test || !thirdParty(name) {
			return ""
		}
		if from.floor < librariesFrom || slices.Contains(withoutLibraries, from.path) {
			return fmt.Sprintf("%s uses the standard library only", from.path)
		}
		return ""
	}
	to, ok := roomOf(target)
	if !ok {
		return "no room of the house"
	}
	if isDouble(target) && !s.test && !isDouble(s.dir) && from.may != "*" {
		return "a double is for tests, other doubles, and cmd"
	}
	switch {
	case to.path == from.path, to.floor < from.floor && from.may == "*", from.names(to.path):
		return ""
	case s.test && to.floor < from.floor:
		return ""
	case to.floor > from.floor:
		return fmt.Sprintf("climbs from floor %d to floor %d", from.floor, to.floor)
	case to.floor == from.floor:
		return fmt.Sprintf("%s is a neighbour on floor %d", to.path, to.floor)
	}
	return fmt.Sprintf("%s (floor %d) may not import %s (floor %d)", from.path, from.floor, to.path, to.floor)
}

// roomOf finds the room that the package in dir belongs to: the longest path of
// the plan that leads to it, and of two as long the upper. A room of "courier/*"
// answers to its own name.
func roomOf(dir string) (best room, ok bool) {
	steps := strings.Split(dir, "/")
	for _, r := range house {
		want := strings.Split(r.path, "/")
		if len(want) > len(steps) {
			continue
		}
		candidate := path.Join(steps[:len(want)]...)
		if !matches(r.path, candidate) || len(candidate) <= len(best.path) {
			continue
		}
		best, ok = room{r.floor, candidate, r.may}, true
	}
	return best, ok
}

// names reports whether the room's line allows the room at p.
func (r room) names(p string) bool {
	return slices.ContainsFunc(strings.Fields(r.may), func(pattern string) bool {
		return pattern != "*" && matches(pattern, p)
	})
}

// matches reports whether p is the pattern, or a direct child of "shelf/*".
func matches(pattern, p string) bool {
	shelf, all := strings.CutSuffix(pattern, "/*")
	return pattern == p || all && path.Dir(p) == shelf
}

// isDouble reports whether a package doubles an outside service or tests a
// contract: smtptest, storetest.
func isDouble(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }

// thirdParty reports whether an import is from outside the standard library,
// whose paths have no dot in their first step.
func thirdParty(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return strings.Contains(first, ".")
}

// drawing prints a line for each room: its floor, its name, what it imports.
func drawing(arrows map[arrow]string) string {
	to := map[string][]string{}
	for a := range arrows {
		to[a.from] = append(to[a.from], a.to)
	}
	from := slices.SortedFunc(maps.Keys(to), func(a, b string) int {
		ra, _ := roomOf(a)
		rb, _ := roomOf(b)
		if ra.floor != rb.floor {
			return rb.floor - ra.floor
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	for _, name := range from {
		r, _ := roomOf(name)
		fmt.Fprintf(&b, "%d  %-22s → %s\n", r.floor, name, strings.Join(slices.Sorted(slices.Values(to[name])), ", "))
	}
	return b.String()
}

// TestFloors_the_plan_goes_down holds the plan itself to the rule that it is for.
func TestFloors_the_plan_goes_down(t *testing.T) {
	for _, r := range house {
		for pattern := range strings.FieldsSeq(r.may) {
			found := pattern == "*"
			for _, to := range house {
				if !matches(pattern, to.path) && !matches(to.path, pattern) {
					continue
				}
				found = true
				if to.floor > r.floor {
					t.Errorf("the plan lets %s (floor %d) import %s (floor %d)", r.path, r.floor, to.path, to.floor)
				}
			}
			if !found {
				t.Errorf("the plan lets %s import %s, which is no room", r.path, pattern)
			}
		}
	}
}

// TestFloors_climbs shows the rule at work on imports that nobody has written.
func TestFloors_climbs(t *testing.T) {
	tests := []struct {
		file, imports, want string
	}{
		{"outreach/campaigns/run.go", "delivery", ""},
		{"outreach/campaigns/run.go", "state/queue", ""},
		{"outreach/campaigns/run.go", "outreach/journeys", "outreach/journeys is a neighbour on floor 5"},
		{"insight/events/put.go", "delivery", "insight/events (floor 5) may not import delivery (floor 4)"},
		{"account/apps/apps.go", "account/tags", ""},
		{"account/tags/tags.go", "account/apps", "account/apps is a neighbour on floor 2"},
		{"account/apps/apps.go", "outreach/campaigns", "climbs from floor 2 to floor 5"},
		{"account/apps/apps_test.go", "outreach/campaigns", "climbs from floor 2 to floor 5"},
		{"audience/segments/jobs.go", "audience/endpoints", ""},
		{"audience/endpoints/put.go", "audience/segments", "audience/segments is a neighbour on floor 3"},
		{"state/queue/claim.go", "state/store", ""},
		{"state/store/store.go", "state/queue", "state/queue is a neighbour on floor 1"},
		{"state/store/store_test.go", "state/queue", "state/queue is a neighbour on floor 1"},
		{"state/store/sqlite/tx.go", "state/store", ""},
		{"courier/smtp/client.go", "courier", ""},
		{"courier/smtp/client.go", "courier/smpp", "courier/smpp is a neighbour on floor 1"},
		{"courier/smtp/client.go", "aws", "courier/smtp (floor 1) may not import aws (floor 0)"},
		{"courier/smtp/client_test.go", "courier/smtp/smtptest", ""},
		{"courier/smtp/smtptest/server.go", "courier/smtp", ""},
		{"courier/smtp/client.go", "courier/smtp/smtptest", "a double is for tests, other doubles, and cmd"},
		{"delivery/attempt.go", "courier/smtp", "delivery (floor 4) may not import courier/smtp (floor 1)"},
		{"delivery/attempt_test.go", "courier/smtp/smtptest", ""},
		{"cmd/everpoint/local.go", "courier/smtp/smtptest", ""},
		{"door/door.go", "account/iam", "door (floor 6) may not import account/iam (floor 2)"},
		{"door/door.go", "cmd/everpoint", "climbs from floor 6 to floor 8"},
		{"sim/sim.go", "cmd/everpoint", "cmd/everpoint is a neighbour on floor 8"},
		{"api/pinpoint/types.go", "aws/wire", ""},
		{"api/pinpoint/types.go", "aws/policy", "aws/policy is a neighbour on floor 0"},
		{"aws/wire/mux.go", "state/store", "climbs from floor 0 to floor 1"},
		{"aws/wire/mux.go", "common", "no room of the house"},
	}
	for _, tt := range tests {
		s := source{path: tt.file, dir: path.Dir(tt.file), test: strings.HasSuffix(tt.file, "_test.go")}
		from, ok := roomOf(s.dir)
		if !ok {
			t.Errorf("%s is in no room", tt.file)
			continue
		}
		if got := climbs(s, from, module+"/"+tt.imports); got != tt.want {
			t.Errorf("%s imports %s: got %q, want %q", tt.file, tt.imports, got, tt.want)
		}
	}

	const library = "example.org/somebody/library"
	for file, free := range map[string]bool{
		"aws/sigv4/verify.go":          false,
		"aws/sigv4/verify_test.go":     true,
		"api/pinpoint/types.gen.go":    false,
		"courier/courier.go":           false,
		"state/changelog/changelog.go": false,
		"courier/smtp/client.go":       true,
		"state/store/store.go":         true,
	} {
		s := source{path: file, dir: path.Dir(file), test: strings.HasSuffix(file, "_test.go")}
		from, _ := roomOf(s.dir)
		if got := climbs(s, from, library); (got == "") != free {
			t.Errorf("%s imports a library: got %q, want it allowed: %v", file, got, free)
		}
		if got := climbs(s, from, "net/http"); got != "" {
			t.Errorf("%s imports net/http: got %q, want it allowed", file, got)
		}
	}
	if _, ok := roomOf("common/clock"); ok {
		t.Error("common/clock has a room")
	}
}
