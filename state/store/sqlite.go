package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteEngine keeps the database in one file: one connection writes, a few read.
type sqliteEngine struct {
	writer  *sql.DB
	readers *sql.DB
	copier  *sql.DB   // checkpoints
	conn    *sql.Conn // the writer's only connection
	texts   map[string]string
	write   map[string]*sql.Stmt
	many    map[string]*sql.Stmt // the same for manyRows rows at once
	read    map[string]*sql.Stmt
	lastID  int64
	path    string
	young   *young
	known   known
	aside   sync.WaitGroup // who fills a filter, who copies the log
	end     context.CancelFunc
	ended   context.Context

	committed chan struct{} // holds one once something was
}

// manyRows is how many rows one multi-row statement takes.
const manyRows = 32

const readersMax = 4

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	// A process that was killed holds its locks until its last thread is gone.
	for try := 0; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if try == lockTries {
			f.Close()
			return nil, fmt.Errorf("another process uses the store in %s: %w", dir, err)
		}
		time.Sleep(lockDelay)
	}
}

const (
	lockTries = 20
	lockDelay = 50 * time.Millisecond
)

// private makes the database's file before the engine does, readable by its
// owner alone; the engine gives its companions the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make database file: %w", err)
	}
	return f.Close()
}

func openSQLite(path string, cfg Config) (*sqliteEngine, error) {
	cache := cfg.SQLiteCacheMiB
	if cache == 0 {
		cache = 64
	}
	dsn := func(pragmas ...string) string {
		base := []string{"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)", "temp_store(memory)"}
		q := "file:" + path + "?_pragma=page_size(4096)"
		for _, p := range append(base, pragmas...) {
			q += "&_pragma=" + p
		}
		return q
	}
	if err := private(path); err != nil {
		return nil, err
	}
	e := &sqliteEngine{texts: statements(sqliteText), path: path, young: newYoung(cfg.SQLiteYoungMax), committed: make(chan struct{}, 1)}
	e.ended, e.end = context.WithCancel(context.Background())
	pragmas := []string{fmt.Sprintf("cache_size(-%d)", cache<<10), fmt.Sprintf("wal_autocheckpoint(%d)", logPagesMax)}
	if cfg.SQLitePagesMax > 0 {
		pragmas = append(pragmas, fmt.Sprintf("max_page_count(%d)", cfg.SQLitePagesMax))
	}
	var err error
	if e.writer, err = sql.Open("sqlite", dsn(pragmas...)); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	e.writer.SetMaxOpenConns(1)
	if e.readers, err = sql.Open("sqlite", dsn("query_only(1)", "cache_size(-8192)")); err != nil {
		return nil, fmt.Errorf("open database for reading: %w", err)
	}
	e.readers.SetMaxOpenConns(readersMax)
	e.readers.SetMaxIdleConns(readersMax)
	if e.copier, err = sql.Open("sqlite", dsn("cache_size(-256)")); err != nil {
		return nil, fmt.Errorf("open database for checkpoints: %w", err)
	}
	e.copier.SetMaxOpenConns(1)
	return e, nil
}

func (e *sqliteEngine) prepare(ctx context.Context, incarnation string) error {
	var err error
	if e.conn, err = e.writer.Conn(ctx); err != nil {
		return err
	}
	if _, err := e.conn.ExecContext(ctx, e.texts["schema"]); err != nil {
		return err
	}
	e.write, e.many, e.read = map[string]*sql.Stmt{}, map[string]*sql.Stmt{}, map[string]*sql.Stmt{}
	for name, text := range e.texts {
		if name == "schema" {
			continue
		}
		if e.write[name], err = e.conn.PrepareContext(ctx, text); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
		if strings.HasPrefix(text, "SELECT") {
			if e.read[name], err = e.readers.PrepareContext(ctx, text); err != nil {
				return fmt.Errorf("prepare %s: %w", name, err)
			}
		}
	}
	for name, columns := range map[string]int{"insert": 5, "entry_add": 2, "rows": 1, "under_many": 1} {
		if e.many[name], err = e.conn.PrepareContext(ctx, manyOf(e.texts[name], columns)); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
	}
	for _, st := range streams {
		var h head
		err := e.write["head"].QueryRowContext(ctx, string(st)).Scan(&h.incarnation, &h.n, &h.hash)
		if errors.Is(err, sql.ErrNoRows) {
			_, err = e.write["head_set"].ExecContext(ctx, string(st), incarnation, 0, []byte{})
		}
		if err != nil {
			return err
		}
	}
	if err := e.write["max_id"].QueryRowContext(ctx).Scan(&e.lastID); err != nil {
		return err
	}
	if err := e.openIndex(); err != nil {
		return err
	}
	e.aside.Go(e.copyLog)
	return nil
}

// manyOf turns a statement with one row of VALUES into one with manyRows of them.
func manyOf(text string, columns int) string {
	head, rest, _ := strings.Cut(text, "VALUES (")
	_, tail, _ := strings.Cut(rest, ")")
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", columns), ", ") + ")"
	return head + "VALUES " + strings.TrimSuffix(strings.Repeat(row+", ", manyRows), ", ") + tail
}

func (e *sqliteEngine) shared() bool { return false }

func (e *sqliteEngine) close() error {
	e.end()
	e.aside.Wait()
	var errs []error
	for _, set := range []map[string]*sql.Stmt{e.write, e.many, e.read} {
		for _, st := range set {
			if st != nil {
				errs = append(errs, st.Close())
			}
		}
	}
	if e.conn != nil {
		errs = append(errs, e.conn.Close())
	}
	return errors.Join(append(errs, e.readers.Close(), e.copier.Close(), e.writer.Close())...)
}

func (e *sqliteEngine) size(context.Context) (int64, error) {
	var total int64
	for _, suffix := range []string{"", "-wal"} {
		if st, err := os.Stat(e.path + suffix); err == nil {
			total += st.Size()
		}
	}
	return total, nil
}

func rowsOf(st *sql.Stmt, scan func(*sql.Rows, *stored) error, args ...any) ([]stored, error) {
	rows, err := st.Query(args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []stored
	for rows.Next() {
		var r stored
		if err := scan(rows, &r); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

func scanFull(rows *sql.Rows, r *stored) error {
	var key []byte
	err := rows.Scan(&r.id, &r.kind, &key, &r.rev, &r.body)
	r.key = string(key)
	return err
}

// The engine's statements are short and bounded, so they take no context: a
// cancelled one would only interrupt work that is nearly done.

func (e *sqliteEngine) get(_ context.Context, p place) (*stored, error) {
	rows, err := e.under(e.read, keyEntry(p), 1)
	// A row that was removed meanwhile may have left its number to another.
	if len(rows) == 0 || rows[0].kind != p.kind || rows[0].key != p.key {
		return nil, err
	}
	return &rows[0], err
}

func (e *sqliteEngine) list(_ context.Context, kind, from, before string, limit int) ([]stored, error) {
	return e.between(e.read, kind, from, before, limit)
}

func (e *sqliteEngine) lookup(_ context.Context, hash string, limit int) ([]stored, error) {
	return e.under(e.read, hashEntry(hash), limit)
}

func (e *sqliteEngine) scan(ctx context.Context, after int64, limit int, yield func(*stored) error) error {
	for ctx.Err() == nil {
		rows, err := rowsOf(e.read["scan"], scanFull, after, limit)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := yield(&rows[i]); err != nil {
				return err
			}
			after = rows[i].id
		}
		if len(rows) < limit {
			return nil
		}
	}
	return ctx.Err()
}

func (e *sqliteEngine) head(_ context.Context, s Stream) (head, error) {
	var h head
	err := e.read["head"].QueryRow(string(s)).Scan(&h.incarnation, &h.n, &h.hash)
	return h, err
}

func (e *sqliteEngine) blocks(_ context.Context, s Stream, after int64, limit int) ([]sealedBlock, error) {
	rows, err := e.read["blocks"].Query(string(s), after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []sealedBlock
	for rows.Next() {
		b := sealedBlock{stream: s}
		if err := rows.Scan(&b.n, &b.incarnation, &b.at, &b.hash, &b.body); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

func (e *sqliteEngine) blockHash(_ context.Context, s Stream, n int64) ([]byte, error) {
	var hash []byte
	err := e.read["block_hash"].QueryRow(string(s), n).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return hash, err
}

func (e *sqliteEngine) trim(_ context.Context, s Stream, upTo, before int64) (int64, error) {
	res, err := e.write["trim"].Exec(string(s), upTo, before, trimMax)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (e *sqliteEngine) reincarnate(ctx context.Context, _, to string) error {
	ses, err := e.begin(ctx)
	if err != nil {
		return err
	}
	if err := e.rename(to); err != nil {
		ses.rollback()
		return err
	}
	return ses.commit(ctx)
}

// rename gives every stream another incarnation.
func (e *sqliteEngine) rename(to string) error {
	for _, st := range streams {
		var h head
		if err := e.write["head"].QueryRow(string(st)).Scan(&h.incarnation, &h.n, &h.hash); err != nil {
			return err
		}
		// An empty blob is read as nil, which would be written as NULL.
		if _, err := e.write["head_set"].Exec(string(st), to, h.n, append([]byte{}, h.hash...)); err != nil {
			return err
		}
	}
	return nil
}

// sqliteSession is one transaction on the writer's connection.
type sqliteSession struct {
	e    *sqliteEngine
	step step // what becomes of the young postings when it is committed
}

func (e *sqliteEngine) begin(context.Context) (session, error) {
	if _, err := e.conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	return &sqliteSession{e: e}, nil
}

// prefetch needs no locks: one process writes.
func (s *sqliteSession) prefetch(_ context.Context, _ []int64, places []place, hashes []string) ([]stored, map[string][]stored, error) {
	entries := make([]string, 0, len(places)+len(hashes))
	for _, p := range places {
		entries = append(entries, keyEntry(p))
	}
	for _, h := range hashes {
		entries = append(entries, hashEntry(h))
	}
	found, err := s.e.underAll(entries)
	if err != nil {
		return nil, nil, err
	}
	var rows []stored
	for _, entry := range entries[:len(places)] {
		rows = append(rows, found[entry]...)
	}
	hits := make(map[string][]stored, len(hashes))
	for i, h := range hashes {
		hits[h] = found[entries[len(places)+i]]
	}
	return rows, hits, nil
}

// lookupMax bounds the rows an update sees under one index value.
const lookupMax = 1000

func (s *sqliteSession) list(_ context.Context, kind, from, before string, limit int) ([]stored, error) {
	return s.e.between(s.e.write, kind, from, before, limit)
}

func (s *sqliteSession) nextID(context.Context) (int64, error) {
	s.e.lastID++
	return s.e.lastID, nil
}

// inRuns executes rows many at a time and the rest one by one. args appends a
// row's arguments.
func (s *sqliteSession) inRuns(name string, n int, args func(all []any, i int) []any) error {
	var all []any
	for i := 0; i < n; {
		run, st := manyRows, s.e.many[name]
		if n-i < manyRows {
			run, st = 1, s.e.write[name]
		}
		all = all[:0]
		for range run {
			all = args(all, i)
			i++
		}
		if _, err := st.Exec(all...); err != nil {
			return err
		}
	}
	return nil
}

func (s *sqliteSession) write(_ context.Context, b *batch) ([]head, error) {
	if err := s.inRuns("insert", len(b.inserts), func(all []any, i int) []any {
		r := &b.inserts[i]
		return append(all, r.id, r.kind, []byte(r.key), r.rev, r.body)
	}); err != nil {
		return nil, err
	}
	for i := range b.updates {
		r := &b.updates[i]
		if _, err := s.e.write["update"].Exec(r.id, r.rev+1, r.body); err != nil {
			return nil, err
		}
	}
	for i := range b.deletes {
		if _, err := s.e.write["delete"].Exec(b.deletes[i].id); err != nil {
			return nil, err
		}
	}
	if err := s.writeIndex(b); err != nil {
		return nil, err
	}
	blocks, err := b.blocks()
	if err != nil {
		return nil, err
	}
	heads := make([]head, 0, len(blocks))
	for i := range blocks {
		bl := &blocks[i]
		h := head{stream: bl.stream}
		if err := s.e.write["head"].QueryRow(string(bl.stream)).Scan(&h.incarnation, &h.n, &h.hash); err != nil {
			return nil, err
		}
		if h.incarnation != bl.incarnation {
			return nil, errForeign
		}
		h.n++
		h.hash = chain(h.hash, bl.body)
		if _, err := s.e.write["block_add"].Exec(string(bl.stream), h.n, h.incarnation, bl.at, h.hash, bl.body); err != nil {
			return nil, err
		}
		if _, err := s.e.write["head_set"].Exec(string(bl.stream), h.incarnation, h.n, h.hash); err != nil {
			return nil, err
		}
		heads = append(heads, h)
	}
	return heads, nil
}

func (s *sqliteSession) commit(context.Context) error {
	s.e.young.announce(s.step.adds)
	_, err := s.e.conn.ExecContext(context.Background(), "COMMIT")
	if err != nil {
		s.rollback()
		return err
	}
	select {
	case s.e.committed <- struct{}{}:
	default:
	}
	s.e.young.take(s.step)
	if s.e.known.worn() {
		s.e.fillKnown()
	}
	return nil
}

func (s *sqliteSession) rollback() {
	s.e.young.announce(nil)
	// A failed statement may have ended the transaction already.
	_, _ = s.e.conn.ExecContext(context.Background(), "ROLLBACK")
	_ = s.e.write["max_id"].QueryRow().Scan(&s.e.lastID)
}

func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

func isFull(err error) bool {
	return sqliteCode(err) == sqlite3.SQLITE_FULL || errors.Is(err, syscall.ENOSPC) || postgresCode(err) == "53100"
}

func isLost(err error) bool {
	c := sqliteCode(err)
	return c == sqlite3.SQLITE_IOERR || c == sqlite3.SQLITE_CANTOPEN || c == sqlite3.SQLITE_READONLY || postgresLost(err)
}
