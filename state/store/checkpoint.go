package store

import (
	"context"
	"database/sql"
	"time"
)

// A checkpoint copies the write-ahead log into the database. SQLite makes one by
// itself at the end of each commit while the log has logPagesMax pages or more, and
// the writer waits for it. So a connection of its own copies most of the log beside
// the writer, as soon as copyPages wait.
//
// The log starts anew when the writer finds all of it copied, which happens under
// load in its own checkpoint only: a short one, since little is left to it.
const (
	logPagesMax = 8000
	copyPages   = 2000
	copyEvery   = 50 * time.Millisecond
)

// copyLog copies the log until the engine ends, whenever something was committed.
// What fails here fails, and is told, in the writer's own checkpoint.
func (e *sqliteEngine) copyLog() {
	for {
		select {
		case <-e.committed:
		case <-e.ended.Done():
			return
		}
		select {
		case <-time.After(copyEvery):
		case <-e.ended.Done():
			return
		}
		if waiting, err := checkpoint(e.ended, e.copier, "NOOP"); err == nil && waiting >= copyPages {
			_, _ = checkpoint(e.ended, e.copier, "PASSIVE")
		}
	}
}

// checkpoint returns how many pages of the log are not copied yet. Its modes are
// SQLite's; NOOP only counts.
func checkpoint(ctx context.Context, db *sql.DB, mode string) (waiting int, err error) {
	var busy, pages, copied int
	err = db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &copied)
	return pages - copied, err
}
