package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
)

// Config says where the database is and how the store behaves.
type Config struct {
	// Dir holds the SQLite file, its lock, the lineage file and, below keys/, the
	// keysets unless Keys are given. Required.
	Dir string
	// PostgresURL selects PostgreSQL; empty means SQLite in Dir.
	PostgresURL string
	// Region names the Region whose stamps this store takes.
	Region string
	// GroupMax bounds the updates that one commit gathers; 0 means 512.
	GroupMax int
	// SQLiteCacheMiB is the page cache of the writer; 0 means 64.
	SQLiteCacheMiB int
	// SQLitePagesMax bounds the SQLite file, in pages of 4 KiB; 0 means no bound
	// but the disk's. Writes beyond it are refused as on a full disk.
	SQLitePagesMax int
	// SQLiteYoungMax is how many new index entries are kept in memory before they
	// are taken over into SQLite's table; 0 means 200,000.
	SQLiteYoungMax int
	// LogRetention is how long the blocks of the streams safety and change are
	// kept, for Regions that are away; 0 means 7 days. The last of each stays.
	LogRetention time.Duration
	// OneByOne makes every update a commit of its own: a measure to compare with.
	OneByOne bool
	// Fault, when set, is asked at each commit point ("begin", "write", "commit",
	// "committed") and may fail it; simulation injects crashes here.
	Fault func(point string) error
}

// Store keeps rows and logs. Open it, keep Run going, then use it; it is safe
// for concurrent use.
type Store struct {
	cfg    Config
	keys   *Keys
	engine engine
	clock  *changelog.Clock
	now    func() time.Time
	log    *slog.Logger

	requests chan *request
	stopped  chan struct{}
	lock     *os.File

	doubt       atomic.Bool // a commit may have been done that the heads do not tell of
	learning    sync.Mutex  // held while the heads are read
	mu          sync.Mutex
	incarnation string
	heads       map[Stream]head
	moved       chan struct{} // closed and replaced when a head moves
	groups      Stats
	acknowledge func(context.Context, int64) error
	control     func() uint64
	marked      Marked
	marking     chan struct{} // something was marked

	lineage []byte // the file as it was last written; watch's alone, then Run's

	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// Stats counts what the writer did since Open.
type Stats struct {
	Commits int64 // groups committed
	Updates int64 // updates in them
	Retries int64 // groups run again because another node was first
}

// Bounds of the logs. A commit with more cuts a stream's records into several
// blocks; an update with a longer record is refused.
const (
	blockBytesMax     = 16 << 20           // of one block's records with their lengths
	recordBytesMax    = blockBytesMax - 64 // of a fact, or of a change's kind, key and body
	blockReadBytesMax = 64 << 20           // after decompression; a longer block is corrupt
)

// Open opens the database, making it when it is new, and checks its lineage.
// It starts nothing: call Run.
func Open(ctx context.Context, cfg Config, keys *Keys, now func() time.Time, log *slog.Logger) (*Store, error) {
	if cfg.GroupMax == 0 {
		cfg.GroupMax = 512
	}
	if cfg.LogRetention == 0 {
		cfg.LogRetention = logRetention
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	s := &Store{
		cfg:      cfg,
		keys:     keys,
		clock:    changelog.NewClock(cfg.Region, now),
		now:      now,
		log:      log.With("component", "store"),
		requests: make(chan *request, cfg.GroupMax),
		stopped:  make(chan struct{}),
		heads:    map[Stream]head{},
		moved:    make(chan struct{}),
		marking:  make(chan struct{}, 1),
	}
	var err error
	if s.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	if s.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(blockReadBytesMax), zstd.WithDecoderLowmem(true)); err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	if cfg.PostgresURL == "" {
		if s.lock, err = lockDir(cfg.Dir); err != nil {
			return nil, err
		}
		s.engine, err = openSQLite(filepath.Join(cfg.Dir, "everpoint.db"), cfg)
	} else {
		s.engine, err = openPostgres(ctx, cfg.PostgresURL)
	}
	if err == nil {
		err = s.keepClock()
	}
	if err == nil {
		err = s.settle(ctx)
	}
	if err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// settle makes the schema, learns the heads and checks the lineage.
func (s *Store) settle(ctx context.Context) error {
	if err := s.engine.prepare(ctx, newIncarnation()); err != nil {
		return fmt.Errorf("prepare database: %w", err)
	}
	if err := s.checkLineage(ctx); err != nil {
		return fmt.Errorf("check lineage: %w", err)
	}
	return s.learnHeads(ctx)
}

// Run commits updates until ctx ends and the last of them is answered, then
// closes the database.
func (s *Store) Run(ctx context.Context) error {
	defer s.release()
	var done sync.WaitGroup
	done.Go(func() { s.watch(ctx) })
	done.Go(func() { s.keepMarks(ctx) })
	s.write(ctx)
	done.Wait()
	return s.saveLineage()
}

func (s *Store) release() {
	if s.engine != nil {
		if err := s.engine.close(); err != nil {
			s.log.Warn("database did not close cleanly", "error", err)
		}
	}
	if s.lock != nil {
		s.lock.Close()
	}
	// The decoder stays open, for somebody may still be reading: it has no goroutine
	// of its own.
}

// watch keeps the lineage file and, where other nodes write too, the heads.
func (s *Store) watch(ctx context.Context) {
	var heads <-chan time.Time
	if s.engine.shared() {
		ticker := time.NewTicker(headPollInterval)
		defer ticker.Stop()
		heads = ticker.C
	}
	lineage := time.NewTicker(lineageInterval)
	defer lineage.Stop()
	trim := time.NewTicker(trimInterval)
	defer trim.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heads:
			if err := s.learnHeads(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "stream heads not read", "error", err)
			}
		case <-trim.C:
			if err := s.trimLogs(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "old blocks not removed", "error", err)
			}
		case <-lineage.C:
			if s.doubt.Load() {
				s.resolve(ctx)
			}
			if err := s.saveLineage(); err != nil {
				s.log.WarnContext(ctx, "lineage not saved", "error", err)
			}
		}
	}
}

const (
	headPollInterval = 50 * time.Millisecond // how late a node hears of another's commit at most
	lineageInterval  = time.Second
	trimInterval     = 10 * time.Minute
	logRetention     = 7 * 24 * time.Hour
)

// trimLogs removes blocks that only a Region which was away for long would ask
// for; it takes the rows instead. The last block tells a position's hash.
func (s *Store) trimLogs(ctx context.Context) error {
	before := s.now().Add(-s.cfg.LogRetention)
	for _, st := range []Stream{Safety, Changes} {
		if _, err := s.Trim(ctx, st, s.Head(st)-1, before); err != nil {
			return err
		}
	}
	return nil
}

// Region is the Region this store belongs to.
func (s *Store) Region() string { return s.cfg.Region }

// Clock takes the Region's stamps.
func (s *Store) Clock() *changelog.Clock { return s.clock }

// Incarnation identifies this life of the database; see the package comment.
func (s *Store) Incarnation() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.incarnation
}

// Stats returns the writer's counts.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups
}

// Size returns the bytes the database occupies.
func (s *Store) Size(ctx context.Context) (int64, error) { return s.engine.size(ctx) }

// Blind returns the 16-byte keyed hash of the parts, for keys that a person
// could be found by.
func (s *Store) Blind(parts ...string) string { return s.keys.Blind(parts...) }

// Hashed returns the index value of a kind with its keyed hash, for an update
// that uses it more than once.
func (s *Store) Hashed(k Kind, x Index) Index {
	x.hash = s.indexHash(k.Name, x)
	return x
}

func (s *Store) indexHash(kind string, x Index) string {
	if x.hash != "" {
		return x.hash
	}
	return s.Blind("index", kind, x.Name, x.Value)
}

// Reader reads the committed state. It is safe for concurrent use while ctx lasts.
func (s *Store) Reader(ctx context.Context) Reader { return &reader{s, ctx} }

type reader struct {
	s   *Store
	ctx context.Context // a Reader is one call's view; it does not outlive it
}

func (r *reader) Get(k Kind, key string) ([]byte, error) {
	row, err := r.s.engine.get(r.ctx, place{k.Name, key})
	if err != nil || row == nil {
		return nil, r.s.readError(err)
	}
	o, err := r.s.open(row)
	return o.body, err
}

func (r *reader) List(k Kind, prefix, after string, limit int) ([]Row, error) {
	rows, err := r.s.engine.list(r.ctx, k.Name, firstKey(prefix, after), prefixEnd(prefix), limit)
	if err != nil {
		return nil, r.s.readError(err)
	}
	return r.s.openAll(rows)
}

func (r *reader) Lookup(k Kind, x Index, limit int) ([]Row, error) {
	h := r.s.indexHash(k.Name, x)
	rows, err := r.s.engine.lookup(r.ctx, h, limit)
	if err != nil {
		return nil, r.s.readError(err)
	}
	out := make([]Row, 0, len(rows))
	for i := range rows {
		o, err := r.s.open(&rows[i])
		if err != nil {
			return nil, err
		}
		// A row that was just written may be under the value no more.
		if slices.Contains(o.hashes, h) {
			out = append(out, Row{rows[i].kind, rows[i].key, o.body})
		}
	}
	return out, nil
}

// firstKey is the lowest key that starts with prefix and is above after.
func firstKey(prefix, after string) string {
	if after == "" {
		return prefix
	}
	return max(prefix, after+"\x00")
}

func (s *Store) openAll(rows []stored) ([]Row, error) {
	out := make([]Row, 0, len(rows))
	for i := range rows {
		o, err := s.open(&rows[i])
		if err != nil {
			return nil, err
		}
		out = append(out, Row{rows[i].kind, rows[i].key, o.body})
	}
	return out, nil
}

// opened is a row as it was written.
type opened struct {
	rule   changelog.Rule
	hashes []string // it is indexed under
	body   []byte
}

// open unseals a row: its rule, how many hashes it is indexed under, those, and
// its body.
func (s *Store) open(r *stored) (opened, error) {
	plain, err := s.keys.Unseal(r.body, place{r.kind, r.key}.aad())
	if err != nil {
		return opened{}, fmt.Errorf("unseal %s row %d: %w", r.kind, r.id, err)
	}
	if len(plain) < 2 || len(plain) < 2+int(plain[1])*blindBytes {
		return opened{}, fmt.Errorf("%s row %d is corrupt", r.kind, r.id)
	}
	o := opened{rule: changelog.Rule(plain[0])}
	n, rest := int(plain[1]), plain[2:]
	for i := range n {
		o.hashes = append(o.hashes, string(rest[i*blindBytes:(i+1)*blindBytes]))
	}
	o.body = rest[n*blindBytes:]
	return o, nil
}

// close seals a row. It uses, and returns, a buffer.
func (s *Store) close(p place, e *entry, plain []byte) (sealed, buffer []byte, err error) {
	plain = append(plain[:0], byte(e.kind.Rule), byte(len(e.hashes)))
	for _, h := range e.hashes {
		plain = append(plain, h...)
	}
	plain = append(plain, e.body...)
	sealed, err = s.keys.Seal(plain, p.aad())
	return sealed, plain, err
}

// Scan hands every row of a kind to yield, in the order they were first
// written, until it returns an error. Rows written while it runs may or may not
// be seen; their changes are above the head taken before. It reads the whole
// table: whoever wants several kinds asks [Store.ScanKinds] for all of them.
func (s *Store) Scan(ctx context.Context, k Kind, yield func(Row) error) error {
	return s.ScanKinds(ctx, []Kind{k}, yield)
}

// ScanKinds is [Store.Scan] over several kinds in one pass.
func (s *Store) ScanKinds(ctx context.Context, kinds []Kind, yield func(Row) error) error {
	wanted := map[string]bool{}
	for _, k := range kinds {
		wanted[k.Name] = true
	}
	err := s.engine.scan(ctx, 0, 2000, func(r *stored) error {
		if !wanted[r.kind] {
			return nil
		}
		o, err := s.open(r)
		if err != nil {
			return err
		}
		return yield(Row{r.kind, r.key, o.body})
	})
	return s.readError(err)
}

// Changes hands every row that other Regions may have, as a change, to yield, in
// the order they were first written and from the row after a given one, until
// yield returns an error. yield is told each row's number, to go on after it.
// Removed documents are among them, as tombstones. What is written meanwhile may
// or may not be seen; it is above the heads taken before.
func (s *Store) Changes(ctx context.Context, after int64, yield func(n int64, c changelog.Change) error) error {
	err := s.engine.scan(ctx, after, 1000, func(r *stored) error {
		o, err := s.open(r)
		if err != nil {
			return err
		}
		if r.kind == KindTombstone.Name {
			_, d, err := DecodeTombstone(o.body)
			if err != nil {
				return err
			}
			kind, key, _ := strings.Cut(r.key, "\x00")
			return yield(r.id, changelog.Change{Kind: kind, Key: key, Rule: changelog.RuleDocument, Body: changelog.AppendDocument(nil, d)})
		}
		if o.rule == changelog.RuleLocal {
			return nil
		}
		return yield(r.id, changelog.Change{Kind: r.kind, Key: r.key, Rule: o.rule, Hashes: o.hashes, Body: o.body})
	})
	return s.readError(err)
}

func (s *Store) readError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, ok := errors.AsType[*aws.Fault](err); ok {
		return err
	}
	return fmt.Errorf("read: %w", err)
}
