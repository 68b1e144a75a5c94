package events

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/store"
)

var discard = slog.New(slog.DiscardHandler)

// place is a directory of event files with the destination that writes there.
type place struct {
	*Files
	t   *testing.T
	dir string
}

func newPlace(t *testing.T, r *room, cfg FilesConfig) *place {
	cfg.Dir = filepath.Join(t.TempDir(), "events")
	return &place{NewFiles(cfg, r.store, r.now, discard), t, cfg.Dir}
}

// restart is another process over the same files.
func (p *place) restart() { p.Files = NewFiles(p.cfg, p.store, p.now, discard) }

func (p *place) give(state json.RawMessage, facts ...eventlog.Fact) json.RawMessage {
	p.t.Helper()
	out, err := p.deliver(p.t.Context(), facts, state)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// shows lists the files with their lines: "name: line line".
func (p *place) shows() string {
	p.t.Helper()
	names, err := filepath.Glob(p.dir + "/*/*/*.jsonl")
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			p.t.Fatal(err)
		}
		short, _ := filepath.Rel(p.dir, name)
		out = append(out, strings.TrimSuffix(short, ".jsonl")+": "+strings.Join(strings.Fields(string(text)), " "))
	}
	return strings.Join(out, "\n")
}

func (p *place) check(what, want string) {
	p.t.Helper()
	if got := p.shows(); got != want {
		p.t.Errorf("%s\n got %s\nwant %s", what, got, want)
	}
}

func fact(app, data string) eventlog.Fact {
	return eventlog.Fact{ID: data, Account: "1", App: app, Type: "x", Data: []byte(data)}
}

func TestFiles_one_for_each_app_and_day_rotated_by_size(t *testing.T) {
	r := newRoom(t, Config{}, "")
	p := newPlace(t, r, FilesConfig{AllApps: true, FileBytesMax: 10})
	state := p.give(nil, fact("a", `"one"`), fact("b", `"two"`))
	p.check("two apps", "1/a/2026-11-02-1: \"one\"\n1/b/2026-11-02-1: \"two\"")
	// Six bytes a line with its end: a second one would be two too many.
	state = p.give(state, fact("a", `"six"`), fact("a", `"x"`), fact("a", `"much-longer-than-a-file"`), fact("a", `1`))
	p.check("full files", "1/a/2026-11-02-1: \"one\"\n1/a/2026-11-02-2: \"six\" \"x\"\n1/a/2026-11-02-3: \"much-longer-than-a-file\"\n"+
		"1/a/2026-11-02-4: 1\n1/b/2026-11-02-1: \"two\"")
	// Another process goes on where this one was.
	p.restart()
	state = p.give(state, fact("a", `2`))
	*r.clock = r.clock.Add(24 * time.Hour)
	state = p.give(state, fact("b", "{\n\"k\": 1}"))
	*r.clock = r.clock.Add(-24 * time.Hour)
	p.give(state, fact("a", `3`), eventlog.Fact{Data: []byte("no app")}, fact("../a", `"climbs"`))
	p.check("the next day, and a clock that goes back", "1/a/2026-11-02-1: \"one\"\n1/a/2026-11-02-2: \"six\" \"x\"\n"+
		"1/a/2026-11-02-3: \"much-longer-than-a-file\"\n1/a/2026-11-02-4: 1 2\n1/a/2026-11-03-1: 3\n1/b/2026-11-02-1: \"two\"\n1/b/2026-11-03-1: {\"k\":1}")
}

func TestFiles_hold_apps_with_an_event_stream(t *testing.T) {
	r := newRoom(t, Config{}, "")
	p := newPlace(t, r, FilesConfig{})
	state := p.give(nil, fact(app, `1`), fact("other", `2`))
	p.check("no stream", "")
	r.expect("POST", "/eventstream", `{"DestinationStreamArn":"arn:aws:kinesis:us-east-1:`+account+`:stream/x","RoleArn":"arn:aws:iam::`+account+`:role/x"}`, 200, "")
	state = p.give(state, fact(app, `3`), fact("other", `4`))
	p.check("a stream", "1/"+app+"/2026-11-02-1: 3")
	r.expect("DELETE", "/eventstream", "", 200, "")
	p.give(state, fact(app, `5`))
	p.check("no longer", "1/"+app+"/2026-11-02-1: 3")
}

// TestFiles_batches_that_did_not_count leaves the cursor behind after a batch,
// as a process does that dies before it moves, and gives the batch again.
func TestFiles_batches_that_did_not_count(t *testing.T) {
	r := newRoom(t, Config{}, "")
	for _, restarts := range []bool{true, false} {
		p := newPlace(t, r, FilesConfig{AllApps: true, FileBytesMax: 4})
		again := func(state json.RawMessage, facts ...eventlog.Fact) json.RawMessage {
			t.Helper()
			for range 2 {
				p.give(state, facts...)
				if restarts {
					p.restart()
				}
			}
			return p.give(state, facts...)
		}
		state := again(nil, fact("a", `1`))
		p.check("the very first", "1/a/2026-11-02-1: 1")
		state = again(state, fact("a", `2`), fact("a", `3`), fact("a", `4`), fact("a", `5`), fact("b", `6`))
		want := "1/a/2026-11-02-1: 1 2\n1/a/2026-11-02-2: 3 4\n1/a/2026-11-02-3: 5\n1/b/2026-11-02-1: 6"
		p.check("one that fills files", want)
		// A batch after which the process died early: lines and files, but no state.
		p.give(state, fact("b", `7`), fact("b", `8`), fact("c", `9`))
		*r.clock = r.clock.Add(24 * time.Hour)
		state = again(state, fact("b", `7`))
		*r.clock = r.clock.Add(-24 * time.Hour)
		p.check("one that comes again on another day", want+"\n1/b/2026-11-03-1: 7")
		p.give(state, fact("a", `8`))
	}
}

func TestFiles_go_on_in_another_file_when_theirs_is_gone(t *testing.T) {
	r := newRoom(t, Config{}, "")
	p := newPlace(t, r, FilesConfig{AllApps: true})
	state := p.give(nil, fact("a", `1`), fact("b", `2`))
	if err := os.Remove(filepath.Join(p.dir, "1/a/2026-11-02-1.jsonl")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(p.dir, "1/b/2026-11-02-1.jsonl"), 1); err != nil {
		t.Fatal(err)
	}
	p.restart()
	p.give(state, fact("a", `3`), fact("b", `4`))
	p.check("one gone, one cut short", "1/a/2026-11-02-2: 3\n1/b/2026-11-02-1: 2\n1/b/2026-11-02-2: 4")
	// Files that nobody announced stay.
	if err := os.WriteFile(filepath.Join(p.dir, "1/a/2026-11-02-9.jsonl"), []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.restart()
	p.give(nil, fact("a", `5`))
	if got := p.shows(); !strings.Contains(got, "1/a/2026-11-02-9: mine\n") || !strings.Contains(got, "1/a/2026-11-02-10: 5") {
		t.Errorf("beside a foreign file: %s", got)
	}
}

func TestFiles_errors_leave_nothing_behind(t *testing.T) {
	r := newRoom(t, Config{}, "")
	p := newPlace(t, r, FilesConfig{AllApps: true})
	state := p.give(nil, fact("a", `1`))
	// The directory of b cannot be made.
	if err := os.WriteFile(filepath.Join(p.dir, "1/b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.deliver(t.Context(), []eventlog.Fact{fact("a", `2`), fact("b", `3`)}, state); err == nil {
		t.Fatal("no error")
	}
	if _, err := p.deliver(t.Context(), nil, json.RawMessage(`{"Batch":"x"}`)); err == nil {
		t.Error("a broken state is no error")
	}
	if err := os.Remove(filepath.Join(p.dir, "1/b")); err != nil {
		t.Fatal(err)
	}
	p.give(state, fact("a", `2`), fact("b", `3`))
	p.check("after the error", "1/a/2026-11-02-1: 1 2\n1/b/2026-11-02-1: 3")
}

func TestCreatedAfter(t *testing.T) {
	for list, want := range map[string][]string{
		"": nil, "7": nil, "7\n": nil, "x\na.jsonl\n": nil, "5\na.jsonl\n": nil,
		"6\n1/a/x-1.jsonl\n1/a/x-2.js":                          {"1/a/x-1.jsonl"},
		"6\n../a.jsonl\n/etc/a.jsonl\nb.jsonl\nshadow\n\n":      {"b.jsonl"},
		"6\n1/a/x-1.jsonl\n1/b/../../../x.jsonl\n1/a/b.jsonl\n": {"1/a/x-1.jsonl", "1/a/b.jsonl"},
	} {
		if got := createdAfter([]byte(list), 5); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
}

func FuzzCreatedAfter(f *testing.F) {
	f.Add([]byte("6\n1/a/x-1.jsonl\n"))
	f.Add([]byte("6\n../x.jsonl\n"))
	f.Fuzz(func(t *testing.T, list []byte) {
		for _, name := range createdAfter(list, 5) {
			if path := filepath.Join("dir", name); !strings.HasPrefix(path, "dir"+string(filepath.Separator)) {
				t.Errorf("%q leads out: %q", name, path)
			}
		}
	})
}

// childEnv names, in the environment of a child process, the directory in which
// it is to append facts until it is killed.
const childEnv = "EVENTS_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child appends facts of three apps, and says each number once it is durable.
func child(dir string) error {
	ctx := context.Background()
	keys, err := store.LoadKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Config{Dir: dir, Region: "us-east-1"}, keys, time.Now, discard)
	if err != nil {
		return err
	}
	go func() { _ = st.Run(ctx) }()
	l := eventlog.New(eventlog.Config{Node: "node"}, st, time.Now, discard)
	NewFiles(FilesConfig{Dir: filepath.Join(dir, "events"), AllApps: true, FileBytesMax: 700}, st, time.Now, discard).Register(l)
	go func() { _ = l.Run(ctx) }()
	from, err := strconv.Atoi(os.Getenv(childEnv + "_FROM"))
	if err != nil {
		return err
	}
	for n := from; ; n++ {
		err := st.Update(ctx, func(tx *store.Tx) error {
			text := fmt.Sprintf(`{"n":%d}`, n)
			eventlog.Append(tx, eventlog.Fact{ID: text, Account: "1", App: "app" + strconv.Itoa(n%3), Type: "x", Data: []byte(text)})
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestFiles_exactly_once_across_kill kills a real process at chance moments,
// again and again, and counts what it left.
func TestFiles_exactly_once_across_kill(t *testing.T) {
	dir := t.TempDir()
	const rounds, apart = 12, 1_000_000
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	acknowledged := map[int]bool{}
	until := 0 // what was acknowledged up to here must be there
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s_FROM=%d", childEnv, round*apart))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wanted := 3 + chance.IntN(150)
		lines := bufio.NewScanner(out)
		for len(acknowledged) < apart && lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			acknowledged[n] = true
			if wanted--; wanted == 0 {
				if round == rounds-1 {
					// One of each app: all before them are then there as well.
					await(t, dir, n)
					await(t, dir, n-1)
					await(t, dir, n-2)
					until = n
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Killed, as it should be: an error of its own would end the lines too early.
		if err := cmd.Wait(); err == nil || wanted > 0 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
	}
	found := map[int]int{}
	for n := range 3 {
		last := -1
		for _, v := range written(t, dir, n) {
			found[v]++
			if v <= last {
				t.Errorf("app %d: %d after %d", n, v, last)
			}
			last = v
		}
	}
	for n, times := range found {
		if times > 1 {
			t.Errorf("%d is there %d times", n, times)
		}
	}
	for n := range acknowledged {
		if found[n] == 0 && n <= until {
			t.Errorf("%d was acknowledged and is not there", n)
		}
	}
	t.Logf("%d acknowledged, %d written, of %d apps", len(acknowledged), len(found), 3)
}

// written reads the numbers in an app's files, in the files' order. A line that
// the child was writing when it was killed may be cut.
func written(t *testing.T, dir string, app int) (numbers []int) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("%s/events/1/app%d/*.jsonl", dir, app))
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) int {
		base := strings.TrimSuffix(filepath.Base(name), ".jsonl")
		n, err := strconv.Atoi(base[strings.LastIndexByte(base, '-')+1:])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	slices.SortFunc(names, func(a, b string) int {
		if day := strings.Compare(filepath.Base(a)[:10], filepath.Base(b)[:10]); day != 0 {
			return day
		}
		return number(a) - number(b)
	})
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var v struct{ N int }
			if !strings.HasSuffix(line, "\n") || json.Unmarshal([]byte(line), &v) != nil {
				t.Logf("%s ends in %q", name, line)
				continue
			}
			numbers = append(numbers, v.N)
		}
	}
	return numbers
}

// await returns when the fact is in the files.
func await(t *testing.T, dir string, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !slices.Contains(written(t, dir, n%3), n) {
		select {
		case <-deadline:
			t.Fatalf("%d is not in the files", n)
		case <-tick.C:
		}
	}
}
