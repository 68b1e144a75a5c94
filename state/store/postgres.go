package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresEngine keeps the database in PostgreSQL, where other nodes of the
// Region may write too. One connection writes, a pool reads.
type postgresEngine struct {
	url   string
	texts map[string]string
	pool  *pgxpool.Pool

	// The writer's alone.
	conn    *pgx.Conn // nil when it has to be made again
	ids     int64     // the next id of the run this node holds
	last    int64     // the last id of the run
	node    string    // this opening of the database, in the table writer
	commits int64     // numbers its commits; some are never done

	confirmMax time.Duration
}

// idRun is the increment of the sequence doc_id.
const idRun = 1000

// Time limits of a writing connection. A node that is stopped in mid-commit
// holds the streams' head rows; the server ends its transaction after idleMax.
const (
	idleMax      = 5 * time.Second
	statementMax = 60 * time.Second
	connectMax   = 10 * time.Second
)

// confirmMax is how long a commit that lost its connection is asked after: more
// than idleMax, and than a server takes to start again; confirmWaitMin, doubled
// each time up to confirmWaitMax, is waited between two questions.
const (
	confirmMax     = 20 * time.Second
	confirmWaitMin = 20 * time.Millisecond
	confirmWaitMax = 250 * time.Millisecond
)

func openPostgres(ctx context.Context, url string) (*postgresEngine, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	cfg.MaxConns = 6
	cfg.ConnConfig.ConnectTimeout = connectMax
	byIndex(cfg.ConnConfig)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	node := hex.EncodeToString(randomBytes(8))
	return &postgresEngine{url: url, texts: statements(postgresText), pool: pool, node: node, confirmMax: confirmMax}, nil
}

// byIndex has every row be found by an index. A prepared statement is planned for good
// after a few uses, by what the tables held then; on an empty database that is a walk
// over all rows, and stays one until the server looks at the table again.
func byIndex(cfg *pgx.ConnConfig) {
	for _, way := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin"} {
		cfg.RuntimeParams[way] = "off"
	}
}

func (e *postgresEngine) connect(ctx context.Context) (*pgx.Conn, error) {
	if e.conn != nil && !e.conn.IsClosed() {
		return e.conn, nil
	}
	cfg, err := pgx.ParseConfig(e.url)
	if err != nil {
		return nil, err
	}
	cfg.ConnectTimeout = connectMax
	byIndex(cfg)
	cfg.RuntimeParams["application_name"] = "everpoint"
	cfg.RuntimeParams["synchronous_commit"] = "on"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint(idleMax.Milliseconds())
	cfg.RuntimeParams["statement_timeout"] = fmt.Sprint(statementMax.Milliseconds())
	e.conn, err = pgx.ConnectConfig(ctx, cfg)
	return e.conn, err
}

// setupLock is the advisory lock under which one node at a time makes the schema.
const setupLock = 0x65766572 // "ever"

func (e *postgresEngine) prepare(ctx context.Context, incarnation string) error {
	conn, err := e.connect(ctx)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", setupLock); err != nil {
			return err
		}
		// The schema is several statements, so it goes by the simple protocol.
		if _, err := tx.Conn().PgConn().Exec(ctx, e.texts["schema"]).ReadAll(); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, e.texts["writer_prune"]); err != nil {
			return err
		}
		for _, st := range streams {
			_, err := scanHead(tx.QueryRow(ctx, e.texts["head"], string(st)))
			if errors.Is(err, pgx.ErrNoRows) {
				_, err = tx.Exec(ctx, e.texts["head_set"], string(st), incarnation, 0, []byte{})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func scanHead(row pgx.Row) (head, error) {
	var h head
	err := row.Scan(&h.incarnation, &h.n, &h.hash)
	return h, err
}

func (e *postgresEngine) shared() bool { return true }

func (e *postgresEngine) close() error {
	e.pool.Close()
	if e.conn != nil {
		return e.conn.Close(context.Background())
	}
	return nil
}

func (e *postgresEngine) size(ctx context.Context) (int64, error) {
	var n int64
	err := e.pool.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&n)
	return n, err
}

func collect(rows pgx.Rows, err error) ([]stored, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (stored, error) {
		var r stored
		var key []byte
		err := row.Scan(&r.id, &r.kind, &key, &r.rev, &r.body)
		r.key = string(key)
		return r, err
	})
}

func collectList(kind string, rows pgx.Rows, err error) ([]stored, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (stored, error) {
		r := stored{kind: kind}
		var key []byte
		err := row.Scan(&r.id, &key, &r.rev, &r.body)
		r.key = string(key)
		return r, err
	})
}

func collectHits(rows pgx.Rows, err error) (map[string][]stored, error) {
	if err != nil {
		return nil, err
	}
	hits := map[string][]stored{}
	defer rows.Close()
	for rows.Next() {
		var r stored
		var hash, key []byte
		if err := rows.Scan(&hash, &r.id, &r.kind, &key, &r.rev, &r.body); err != nil {
			return nil, err
		}
		r.key = string(key)
		hits[string(hash)] = append(hits[string(hash)], r)
	}
	return hits, rows.Err()
}

func keysOfPlaces(places []place) (kinds []string, keys [][]byte) {
	for _, p := range places {
		kinds, keys = append(kinds, p.kind), append(keys, []byte(p.key))
	}
	return kinds, keys
}

func asBytes(values []string) [][]byte {
	out := make([][]byte, len(values))
	for i, v := range values {
		out[i] = []byte(v)
	}
	return out
}

func (e *postgresEngine) get(ctx context.Context, p place) (*stored, error) {
	kinds, keys := keysOfPlaces([]place{p})
	rows, err := collect(e.pool.Query(ctx, e.texts["get"], kinds, keys))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

func (e *postgresEngine) list(ctx context.Context, kind, from, before string, limit int) ([]stored, error) {
	rows, err := e.pool.Query(ctx, e.texts["list"], kind, []byte(from), []byte(before), limit)
	return collectList(kind, rows, err)
}

func (e *postgresEngine) lookup(ctx context.Context, hash string, limit int) ([]stored, error) {
	hits, err := collectHits(e.pool.Query(ctx, e.texts["lookup"], [][]byte{[]byte(hash)}, limit))
	return hits[hash], err
}

func (e *postgresEngine) scan(ctx context.Context, after int64, limit int, yield func(*stored) error) error {
	for {
		rows, err := collect(e.pool.Query(ctx, e.texts["scan"], after, limit))
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
}

func (e *postgresEngine) head(ctx context.Context, s Stream) (head, error) {
	return scanHead(e.pool.QueryRow(ctx, e.texts["head"], string(s)))
}

func (e *postgresEngine) blocks(ctx context.Context, s Stream, after int64, limit int) ([]sealedBlock, error) {
	rows, err := e.pool.Query(ctx, e.texts["blocks"], string(s), after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (sealedBlock, error) {
		b := sealedBlock{stream: s}
		err := row.Scan(&b.n, &b.incarnation, &b.at, &b.hash, &b.body)
		return b, err
	})
}

func (e *postgresEngine) blockHash(ctx context.Context, s Stream, n int64) ([]byte, error) {
	var hash []byte
	err := e.pool.QueryRow(ctx, e.texts["block_hash"], string(s), n).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return hash, err
}

// confirm says whether one of this node's commits was done, its last that
// reached the server: the answer after a connection broke in a COMMIT. It waits
// for a commit that is still under way, and for a server that starts again.
func (e *postgresEngine) confirm(ctx context.Context, commit int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, e.confirmMax)
	defer cancel()
	for wait := confirmWaitMin; ; wait = min(2*wait, confirmWaitMax) {
		var last int64
		err := e.pool.QueryRow(ctx, e.texts["writer_get"], e.node).Scan(&last)
		if err == nil {
			return last == commit, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, err
		}
	}
}

func (e *postgresEngine) trim(ctx context.Context, s Stream, upTo, before int64) (int64, error) {
	tag, err := e.pool.Exec(ctx, e.texts["trim"], string(s), upTo, before, trimMax)
	return tag.RowsAffected(), err
}

func (e *postgresEngine) reincarnate(ctx context.Context, from, to string) error {
	return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", setupLock); err != nil {
			return err
		}
		for _, st := range streams {
			h, err := scanHead(tx.QueryRow(ctx, e.texts["head"]+" FOR UPDATE", string(st)))
			if err != nil {
				return err
			}
			if h.incarnation != from {
				return nil // another node noticed first
			}
			if _, err := tx.Exec(ctx, e.texts["head_set"], string(st), to, h.n, h.hash); err != nil {
				return err
			}
		}
		return nil
	})
}

// postgresSession is one transaction on the writer's connection.
type postgresSession struct {
	e      *postgresEngine
	conn   *pgx.Conn
	begun  bool
	number int64 // the commit's, once it was written
}

func (e *postgresEngine) begin(ctx context.Context) (session, error) {
	conn, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &postgresSession{e: e, conn: conn}, nil
}

// open adds the transaction's beginning to the first batch that goes out.
func (s *postgresSession) open(b *pgx.Batch) {
	if !s.begun {
		s.begun = true
		b.Queue("BEGIN")
	}
}

// prefetch takes the locks and reads in one round trip. Each statement has a
// snapshot of its own (READ COMMITTED), so the rows are those after the locks.
func (s *postgresSession) prefetch(ctx context.Context, locks []int64, places []place, hashes []string) ([]stored, map[string][]stored, error) {
	b := &pgx.Batch{}
	s.open(b)
	if len(locks) > 0 {
		b.Queue(s.e.texts["lock"], locks)
	}
	var rows []stored
	hits := map[string][]stored{}
	if len(places) > 0 {
		kinds, keys := keysOfPlaces(places)
		b.Queue(s.e.texts["get"], kinds, keys).Query(func(r pgx.Rows) (err error) {
			rows, err = collect(r, nil)
			return err
		})
	}
	if len(hashes) > 0 {
		b.Queue(s.e.texts["lookup"], asBytes(hashes), lookupMax*len(hashes)).Query(func(r pgx.Rows) (err error) {
			hits, err = collectHits(r, nil)
			return err
		})
	}
	if err := s.conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, nil, err
	}
	return rows, hits, nil
}

func (s *postgresSession) list(ctx context.Context, kind, from, before string, limit int) ([]stored, error) {
	if err := s.ensure(ctx); err != nil {
		return nil, err
	}
	rows, err := s.conn.Query(ctx, s.e.texts["list"], kind, []byte(from), []byte(before), limit)
	return collectList(kind, rows, err)
}

func (s *postgresSession) ensure(ctx context.Context) error {
	if s.begun {
		return nil
	}
	s.begun = true
	_, err := s.conn.Exec(ctx, "BEGIN")
	return err
}

func (s *postgresSession) nextID(ctx context.Context) (int64, error) {
	if s.e.ids == s.e.last {
		if err := s.ensure(ctx); err != nil {
			return 0, err
		}
		var first int64
		if err := s.conn.QueryRow(ctx, s.e.texts["ids"]).Scan(&first); err != nil {
			return 0, err
		}
		s.e.ids, s.e.last = first-1, first-1+idRun
	}
	s.e.ids++
	return s.e.ids, nil
}

func (s *postgresSession) write(ctx context.Context, w *batch) ([]head, error) {
	b := &pgx.Batch{}
	s.open(b)
	s.e.commits++
	s.number = s.e.commits
	b.Queue(s.e.texts["writer_set"], s.e.node, s.number)
	conflict := false
	exactly := func(n int) func(pgconn.CommandTag) error {
		return func(tag pgconn.CommandTag) error {
			conflict = conflict || tag.RowsAffected() != int64(n)
			return nil
		}
	}
	if n := len(w.inserts); n > 0 {
		ids, kinds, keys, revs, bodies := columns(w.inserts)
		b.Queue(s.e.texts["insert"], ids, kinds, keys, revs, bodies).Exec(exactly(n))
	}
	if n := len(w.updates); n > 0 {
		ids, _, _, revs, bodies := columns(w.updates)
		b.Queue(s.e.texts["update"], ids, revs, bodies).Exec(exactly(n))
	}
	if n := len(w.deletes); n > 0 {
		ids, _, _, revs, _ := columns(w.deletes)
		b.Queue(s.e.texts["delete"], ids, revs).Exec(exactly(n))
	}
	if len(w.indexDrops) > 0 {
		hashes, docs := indexColumns(w.indexDrops)
		b.Queue(s.e.texts["index_drop"], hashes, docs)
	}
	if len(w.indexAdds) > 0 {
		hashes, docs := indexColumns(w.indexAdds)
		b.Queue(s.e.texts["index_add"], hashes, docs)
	}
	blocks, err := w.blocks()
	if err != nil {
		return nil, err
	}
	heads := make([]head, 0, len(blocks))
	foreign := false
	for i := range blocks {
		bl := &blocks[i]
		b.Queue(s.e.texts["append"], string(bl.stream), bl.incarnation, digest(bl.body), bl.at, bl.body).QueryRow(func(row pgx.Row) error {
			h := head{stream: bl.stream, incarnation: bl.incarnation}
			err := row.Scan(&h.n, &h.hash)
			if errors.Is(err, pgx.ErrNoRows) {
				foreign = true
				return nil
			}
			heads = append(heads, h)
			return err
		})
	}
	if err := s.conn.SendBatch(ctx, b).Close(); err != nil {
		switch postgresCode(err) {
		case "40001", "40P01": // serialisation failure, deadlock
			return nil, errConflict
		}
		return nil, err
	}
	if conflict {
		return nil, errConflict
	}
	if foreign {
		return nil, errForeign
	}
	return heads, nil
}

func columns(rows []stored) (ids []int64, kinds []string, keys [][]byte, revs []int64, bodies [][]byte) {
	for i := range rows {
		r := &rows[i]
		ids, kinds, keys = append(ids, r.id), append(kinds, r.kind), append(keys, []byte(r.key))
		revs, bodies = append(revs, r.rev), append(bodies, r.body)
	}
	return ids, kinds, keys, revs, bodies
}

func indexColumns(rows []indexRow) (hashes [][]byte, docs []int64) {
	for _, r := range rows {
		hashes, docs = append(hashes, []byte(r.hash)), append(docs, r.doc)
	}
	return hashes, docs
}

func (s *postgresSession) commit(ctx context.Context) error {
	_, err := s.conn.Exec(ctx, "COMMIT")
	if err == nil {
		return nil
	}
	s.drop()
	if postgresCode(err) != "" && !postgresLost(err) {
		return err // the server's own word
	}
	switch done, cerr := s.e.confirm(ctx, s.number); {
	case cerr != nil:
		return errors.Join(errDoubt, err, cerr)
	case !done:
		return err
	}
	return nil
}

func (s *postgresSession) rollback() {
	if !s.begun {
		return
	}
	if _, err := s.conn.Exec(context.Background(), "ROLLBACK"); err != nil {
		s.drop()
	}
}

// drop closes a connection whose state is not known.
func (s *postgresSession) drop() {
	_ = s.conn.Close(context.Background())
	s.e.conn = nil
}

func postgresCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// postgresLost says that the server is gone or going, not that it objects.
func postgresLost(err error) bool {
	if c := postgresCode(err); len(c) == 5 {
		return c[:2] == "08" || c[:2] == "57" || c == "25P03" || c == "53300"
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	for _, end := range []error{pgconn.ErrConnClosed, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, end) {
			return true
		}
	}
	return pgconn.Timeout(err)
}
