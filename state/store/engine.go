package store

import (
	"context"
	_ "embed" // the SQL texts
	"errors"
	"strings"
)

// engine is a database. It sees kinds, keys, keyed hashes and sealed bodies.
type engine interface {
	// prepare makes the schema and, for a new database, the first incarnation.
	prepare(ctx context.Context, incarnation string) error
	// begin opens the session of one commit. One session is open at a time.
	begin(ctx context.Context) (session, error)

	get(ctx context.Context, p place) (*stored, error)
	list(ctx context.Context, kind, after, before string, limit int) ([]stored, error)
	scan(ctx context.Context, after int64, limit int, yield func(*stored) error) error
	lookup(ctx context.Context, hash string, limit int) ([]stored, error)
	head(ctx context.Context, s Stream) (head, error)
	blocks(ctx context.Context, s Stream, after int64, limit int) ([]sealedBlock, error)
	blockHash(ctx context.Context, s Stream, n int64) ([]byte, error)
	// trim removes blocks, at most trimMax; the writer calls it, between sessions.
	trim(ctx context.Context, s Stream, upTo int64, beforeMillis int64) (int64, error)
	// reincarnate gives every stream a new incarnation unless another node did.
	reincarnate(ctx context.Context, from, to string) error
	// shared says whether other processes may write the same database.
	shared() bool
	size(ctx context.Context) (int64, error)
	close() error
}

// session is one commit in the making.
type session interface {
	// prefetch takes the locks, then reads rows and look-ups.
	prefetch(ctx context.Context, locks []int64, places []place, hashes []string) ([]stored, map[string][]stored, error)
	list(ctx context.Context, kind, after, before string, limit int) ([]stored, error)
	nextID(ctx context.Context) (int64, error)
	// write writes everything and returns the streams' new heads in the order of
	// the blocks. errConflict means that another node changed a row first.
	write(ctx context.Context, b *batch) ([]head, error)
	// commit makes what was written durable. After an error nothing was written,
	// but after errDoubt, which says that nobody could be asked.
	commit(ctx context.Context) error
	rollback()
}

// stored is a row as the engine holds it.
type stored struct {
	id   int64
	kind string
	key  string
	rev  int64
	body []byte
}

type head struct {
	stream      Stream
	incarnation string
	n           int64
	hash        []byte
}

type indexRow struct {
	hash string
	doc  int64
}

type sealedBlock struct {
	stream      Stream
	n           int64
	incarnation string
	at          int64 // Unix milliseconds
	hash        []byte
	body        []byte
}

// batch is what one commit writes; every slice is sorted by key or id, so that
// two nodes take row locks in one order.
type batch struct {
	inserts, updates, deletes []stored
	indexAdds, indexDrops     []indexRow
	logged                    bool // there are blocks
	// blocks waits for the blocks, which are made beside the rest.
	blocks func() ([]sealedBlock, error)
}

func (b *batch) empty() bool {
	return len(b.inserts)+len(b.updates)+len(b.deletes) == 0 && !b.logged
}

// engineError is a failure of the database inside an update's function: the
// whole commit fails with it, not just that update.
type engineError struct{ err error }

func (e *engineError) Error() string { return e.err.Error() }
func (e *engineError) Unwrap() error { return e.err }

var (
	// errConflict: another node changed what this commit read; run it again.
	errConflict = errors.New("store: another node changed a row first")
	// errForeign: the stream's incarnation is not the one this node knows.
	errForeign = errors.New("store: the stream has another incarnation")
	// errDoubt: the connection broke in a COMMIT, and the database did not come back.
	errDoubt = errors.New("store: it is not known whether a commit was done")
)

//go:embed sql/sqlite.sql
var sqliteText string

//go:embed sql/postgres.sql
var postgresText string

// statements cuts a text into its named statements, without the comments.
func statements(text string) map[string]string {
	out := map[string]string{}
	for _, part := range strings.Split(text, "-- name: ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		var lines []string
		for line := range strings.Lines(body) {
			if !strings.HasPrefix(line, "--") {
				lines = append(lines, line)
			}
		}
		out[strings.TrimSpace(name)] = strings.TrimSuffix(strings.TrimSpace(strings.Join(lines, "")), ";")
	}
	return out
}
