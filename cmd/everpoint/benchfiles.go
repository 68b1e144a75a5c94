package main

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
)

// buffered writes text and remembers the first error.
type buffered struct {
	w   *bufio.Writer
	c   io.Closer
	err error
}

func newBuffered(f io.WriteCloser) *buffered {
	return &buffered{w: bufio.NewWriterSize(f, 1<<20), c: f}
}

func (b *buffered) print(format string, args ...any) {
	if b.err == nil {
		_, b.err = fmt.Fprintf(b.w, format, args...)
	}
}

func (b *buffered) close() error {
	if err := b.w.Flush(); b.err == nil {
		b.err = err
	}
	if err := b.c.Close(); b.err == nil {
		b.err = err
	}
	return b.err
}

// newDatabase makes an empty database on a PostgreSQL server and returns its URL.
func newDatabase(ctx context.Context, server, name string) (string, error) {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", err
	}
	cfg := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", cfg.User, cfg.Password, name, cfg.Host, cfg.Port), nil
}
