package events

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/state/eventlog"
	"github.com/everpoint/everpoint/state/store"
)

// FilesConfig says where event files go.
type FilesConfig struct {
	// Dir is where they go, made when it is missing. Required. It must belong to
	// one Region's nodes alone; when several nodes run, to all of them.
	Dir string
	// AllApps writes the events of all apps, not only of those that have an
	// event stream.
	AllApps bool
	// FileBytesMax is how large a file may get; 0 means 64 MiB. A record is never
	// cut in two.
	FileBytesMax int64
}

const fileBytesDefault = 64 << 20

// Files is the destination of event streams that needs no broker: a file for
// each app and day, and further ones when a file is full, with one record as
// JSON on each line:
//
//	DIR/ACCOUNT/APP/2026-11-02-1.jsonl
//
// Each fact is there exactly once, whenever the process is killed. The cursor
// of the follower holds which file of each app is open and how long it is, and
// moves only when that much is on disk; whoever starts cuts the files back to
// it. Files that a batch makes are written down in DIR/.creating first, so that
// those of a batch that did not count can be taken away. A file never changes
// once a later one of its app exists or its day is over.
//
// Source: channels-and-events 9.1, 11.
type Files struct {
	cfg   FilesConfig
	store *store.Store
	now   func() time.Time
	log   *slog.Logger

	// The last batch that this process wrote; when it is not the cursor's, the
	// files hold more than counts.
	batch int64
	clean bool
}

// NewFiles returns the destination. Register it before the log runs.
func NewFiles(cfg FilesConfig, st *store.Store, now func() time.Time, log *slog.Logger) *Files {
	if cfg.FileBytesMax <= 0 {
		cfg.FileBytesMax = fileBytesDefault
	}
	return &Files{cfg: cfg, store: st, now: now, log: log.With("component", "event-files")}
}

// Register has the log deliver to the files.
func (f *Files) Register(l *eventlog.Log) { eventlog.Deliver(l, "event-files", f.deliver) }

// filesState is what the cursor holds.
type filesState struct {
	Batch int64               // how many batches were written
	Day   string              // of the open files
	Open  map[string]openFile // by account/app
}

type openFile struct {
	N    int   // of the day
	Size int64 // bytes that count
}

// deliver writes a batch of facts and returns once it is on disk.
func (f *Files) deliver(ctx context.Context, facts []eventlog.Fact, raw json.RawMessage) (json.RawMessage, error) {
	var was filesState
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &was); err != nil {
			return nil, fmt.Errorf("read the state of the event files: %w", err)
		}
	}
	if !f.clean || f.batch != was.Batch {
		if err := f.resume(&was); err != nil {
			return nil, fmt.Errorf("resume event files: %w", err)
		}
	}
	f.clean = false
	w := &filesBatch{f: f, state: filesState{Batch: was.Batch + 1, Day: was.Day, Open: map[string]openFile{}}, lines: map[string][]byte{}}
	// A clock that went back must not open a day again that is over.
	if day := f.now().UTC().Format(time.DateOnly); day > was.Day {
		w.state.Day = day
	} else {
		maps.Copy(w.state.Open, was.Open)
	}
	wanted := map[string]bool{}
	r := f.store.Reader(ctx)
	for i := range facts {
		fact := &facts[i]
		want, known := wanted[fact.App]
		if !known {
			var err error
			if want, err = f.wants(r, fact); err != nil {
				return nil, err
			}
			wanted[fact.App] = want
		}
		if !want {
			continue
		}
		if err := w.add(fact); err != nil {
			return nil, fmt.Errorf("write event files: %w", err)
		}
	}
	if err := w.flushAll(); err != nil {
		return nil, fmt.Errorf("write event files: %w", err)
	}
	state, err := json.Marshal(&w.state)
	if err != nil {
		return nil, err
	}
	f.batch, f.clean = w.state.Batch, true
	return state, nil
}

// wants reports whether an app's facts are to be written.
func (f *Files) wants(r store.Reader, fact *eventlog.Fact) (bool, error) {
	if fact.App == "" {
		return false, nil
	}
	if !isFileName(fact.App) || !isFileName(fact.Account) {
		f.log.Warn("facts of an app whose id cannot name a directory are not written to files", "app_id", fact.App)
		return false, nil
	}
	if f.cfg.AllApps {
		return true, nil
	}
	s, err := StreamOf(r, fact.App)
	return s != nil, err
}

// isFileName reports whether s is safe as the name of a directory.
func isFileName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == ""
}

func (f *Files) path(name string) string { return filepath.Join(f.cfg.Dir, filepath.FromSlash(name)) }

// fileName is a file's path below Dir.
func fileName(app, day string, n int) string { return fmt.Sprintf("%s/%s-%d.jsonl", app, day, n) }

// filesBatch is a batch on its way to disk.
type filesBatch struct {
	f       *Files
	state   filesState
	lines   map[string][]byte // by account/app, not written yet
	created int
}

// flushBytes is how much is kept in memory of one app's lines.
const flushBytes = 1 << 20

// add takes up a fact, and turns to the next file when the one there is full.
func (w *filesBatch) add(fact *eventlog.Fact) error {
	app := fact.Account + "/" + fact.App
	lines := w.lines[app]
	open := w.state.Open[app]
	size := open.Size + int64(len(lines))
	if open.N == 0 || size > 0 && size+int64(len(fact.Data))+1 > w.f.cfg.FileBytesMax {
		if err := w.flush(app); err != nil {
			return err
		}
		last, err := w.f.last(app, w.state.Day)
		if err != nil {
			return err
		}
		if err := w.create(app, max(last, open.N)+1); err != nil {
			return err
		}
		lines = w.lines[app]
	}
	if bytes.IndexByte(fact.Data, '\n') >= 0 {
		var line bytes.Buffer
		if err := json.Compact(&line, fact.Data); err != nil {
			return fmt.Errorf("record of fact %s: %w", fact.ID, err)
		}
		lines = append(lines, line.Bytes()...)
	} else {
		lines = append(lines, fact.Data...)
	}
	w.lines[app] = append(lines, '\n')
	if len(w.lines[app]) >= flushBytes {
		return w.flush(app)
	}
	return nil
}

// last returns the number of the last file that an app has of a day, 0 for none.
func (f *Files) last(app, day string) (int, error) {
	entries, err := os.ReadDir(f.path(app))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	last := 0
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".jsonl")
		if !ok {
			continue
		}
		if number, ok := strings.CutPrefix(name, day+"-"); ok {
			if n, err := strconv.Atoi(number); err == nil {
				last = max(last, n)
			}
		}
	}
	return last, nil
}

// create makes the app's next file, after writing down that it will.
func (w *filesBatch) create(app string, n int) error {
	name := fileName(app, w.state.Day, n)
	if err := w.f.announce(w.state.Batch, w.created == 0, name); err != nil {
		return err
	}
	w.created++
	path := w.f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	// The file's name is durable when its directory is, and so on upward.
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := syncFile(dir); err != nil {
			return err
		}
		if len(dir) <= len(filepath.Clean(w.f.cfg.Dir)) {
			break
		}
	}
	w.state.Open[app] = openFile{N: n}
	return nil
}

// flush writes an app's lines and has them on disk when it returns.
func (w *filesBatch) flush(app string) error {
	lines := w.lines[app]
	if len(lines) == 0 {
		return nil
	}
	open := w.state.Open[app]
	file, err := os.OpenFile(w.f.path(fileName(app, w.state.Day, open.N)), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.Write(lines)
	if err == nil {
		err = file.Sync()
	}
	if err := cmp.Or(err, file.Close()); err != nil {
		return err
	}
	open.Size += int64(len(lines))
	w.state.Open[app] = open
	w.lines[app] = lines[:0]
	return nil
}

func (w *filesBatch) flushAll() error {
	for _, app := range slices.Sorted(maps.Keys(w.lines)) {
		if err := w.flush(app); err != nil {
			return err
		}
	}
	return nil
}

// The list of files that a batch makes: its number, then a name on each line. A
// line counts when it has its end.
const creatingName = ".creating"

// announce adds a name to the list; the first of a batch starts it anew.
func (f *Files) announce(batch int64, first bool, name string) error {
	flags, text := os.O_WRONLY|os.O_APPEND, name+"\n"
	if first {
		if err := os.MkdirAll(f.cfg.Dir, 0o700); err != nil {
			return err
		}
		flags, text = os.O_WRONLY|os.O_CREATE|os.O_TRUNC, strconv.FormatInt(batch, 10)+"\n"+text
	}
	file, err := os.OpenFile(f.path(creatingName), flags, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err == nil {
		err = file.Sync()
	}
	if err := cmp.Or(err, file.Close()); err != nil || !first {
		return err
	}
	return syncFile(f.cfg.Dir)
}

// resume takes away what was written after the state: the files of batches that
// did not count, and what the open ones have beyond their size.
func (f *Files) resume(st *filesState) error {
	list, err := os.ReadFile(f.path(creatingName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range createdAfter(list, st.Batch) {
		err := os.Remove(f.path(name))
		if err == nil {
			err = syncFile(filepath.Dir(f.path(name)))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for app, open := range st.Open {
		name := fileName(app, st.Day, open.N)
		info, err := os.Stat(f.path(name))
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err != nil || info.Size() < open.Size:
			f.log.Warn("an event file is gone or cut short; its app goes on in another", "file", name)
			open.Size = f.cfg.FileBytesMax // full, as it were
			st.Open[app] = open
		case info.Size() > open.Size:
			if err := os.Truncate(f.path(name), open.Size); err != nil {
				return err
			}
			if err := syncFile(f.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// createdAfter reads the list of files made: those of a batch above the given
// one, none otherwise. Names that lead out of the directory do not count.
func createdAfter(list []byte, batch int64) (names []string) {
	head, rest, ok := bytes.Cut(list, []byte{'\n'})
	if n, err := strconv.ParseInt(string(head), 10, 64); !ok || err != nil || n <= batch {
		return nil
	}
	for {
		line, more, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok {
			return names
		}
		if name := string(line); filepath.IsLocal(filepath.FromSlash(name)) && strings.HasSuffix(name, ".jsonl") {
			names = append(names, name)
		}
		rest = more
	}
}

// syncFile has a file, or the entries of a directory, on disk.
func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return cmp.Or(file.Sync(), file.Close())
}
