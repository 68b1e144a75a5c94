package endpoints

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// postgresServer is where openStore makes its databases; empty means SQLite.
var postgresServer string

// TestOnPostgres runs the tests that depend on the store once more.
func TestOnPostgres(t *testing.T) {
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: SQLite only")
		return
	}
	postgresServer = url
	defer func() { postgresServer = "" }()
	for name, test := range map[string]func(*testing.T){
		"Takeover": TestTakeover, "UserIsShared": TestUserIsShared, "Sixteenth": TestSixteenth, "Names": TestNames,
		"RemoveAttributes": TestRemoveAttributes, "Delete": TestDelete, "Users": TestUsers, "Batch": TestBatch,
		"UpsertIsAllOrNothing": TestUpsertIsAllOrNothing, "ImportCSV": TestImportCSV, "ImportLarge": TestImportLarge,
		"ImportBrokenLines": TestImportBrokenLines, "ImportDefinesSegment": TestImportDefinesSegment, "ImportLease": TestImportLease,
	} {
		t.Run(name, test)
	}
}

var databases atomic.Int64

// newDatabase makes an empty database for one test; empty means SQLite.
func newDatabase(t testing.TB) string {
	t.Helper()
	if postgresServer == "" {
		return ""
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, postgresServer)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("endpoints_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	cfg := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", cfg.User, cfg.Password, name, cfg.Host, cfg.Port)
}
