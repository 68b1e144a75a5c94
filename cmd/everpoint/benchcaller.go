package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/everpoint/everpoint/aws/sigv4"
)

// caller is one client of a measurement: it signs, sends over a TLS connection of
// its own and waits for the answer. Nothing stands between it and the socket, so
// that the processors which it shares with the node are spent on the node.
type caller struct {
	client *client
	host   string
	conn   *tls.Conn
	in     *bufio.Reader
	out    *bufio.Writer
}

func (c *client) caller(ctx context.Context, config *tls.Config) (*caller, error) {
	host := strings.TrimPrefix(c.endpoint, "https://")
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &caller{
		client: c, host: host, conn: conn.(*tls.Conn),
		in: bufio.NewReader(conn), out: bufio.NewWriterSize(conn, 8<<10),
	}, nil
}

func (c *caller) close() { c.conn.Close() }

// errAnswer is that a call was answered with another status than is wanted.
var errAnswer = errors.New("answered otherwise")

// call fails unless the answer has a wanted status; after other failures than
// errAnswer the caller is of no more use.
func (c *caller) call(method, path string, body []byte, wanted ...int) error {
	req := &http.Request{
		Method: method, URL: &url.URL{Scheme: "https", Host: c.host, Path: path}, Host: c.host,
		Header:        http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	if err := sigv4.Sign(req, sha256.Sum256(body), c.client.creds, c.client.region, "mobiletargeting", time.Now()); err != nil {
		return err
	}
	if err := req.Write(c.out); err != nil {
		return err
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !slices.Contains(wanted, resp.StatusCode) {
		return fmt.Errorf("%s %s: %w: %d: %s", method, path, errAnswer, resp.StatusCode, answer)
	}
	return nil
}

// ownCPU is the processor time of this process so far.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
