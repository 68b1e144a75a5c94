package store

import (
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PostgreSQL plans a statement once and for all when it has seen it a few times, which
// may be when the table was empty. What was then as good as an index is a walk over
// millions of rows later, for every single look at a row.
func TestPostgres_finds_rows_by_index_however_the_table_grew(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: SQLite only")
		return
	}
	h := home{Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: newDatabase(t, url)}, newTestKeys(t)}
	s, stop := h.start(t)
	read := func(keys int) {
		for i := range 20 {
			key := fmt.Sprint("k", i)
			var touch []Touch
			for k := range keys {
				touch = append(touch, Touch{Kind: kindRec, Key: fmt.Sprint("k", i+k)})
			}
			if err := s.Update(t.Context(), func(tx *Tx) error {
				_, err := tx.Get(kindRec, key)
				return err
			}, touch...); err != nil {
				t.Fatal(err)
			}
			get(t, s, kindRec, key)
			if _, err := s.Reader(t.Context()).List(kindRec, key, "", 10); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Reader(t.Context()).Lookup(kindRec, Index{Name: "user", Value: key}, 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	read(50)
	const rows = 5000
	if err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range rows {
			if err := tx.Put(kindLocal, fmt.Sprint("row", i), []byte("x")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	read(1)
	stop() // the server counts when connections end
	conn, err := pgx.Connect(t.Context(), h.cfg.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var walked int64
	if err := conn.QueryRow(t.Context(), "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'doc'").Scan(&walked); err != nil {
		t.Fatal(err)
	}
	if walked > rows {
		t.Errorf("%d rows were walked over to find a few", walked)
	}
}
