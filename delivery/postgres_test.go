package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/group"
	"github.com/everpoint/everpoint/state/queue"
	"github.com/everpoint/everpoint/state/store"
)

// reviewDatabase makes an empty database; empty when there is no server.
func reviewDatabase(t *testing.T) (cfg *pgx.ConnConfig, name string) {
	t.Helper()
	url := os.Getenv("TEST_POSTGRES_URL")
	if url == "" {
		t.Log("TEST_POSTGRES_URL is not set: nothing to hold")
		return nil, ""
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name = fmt.Sprintf("review_%d_%d", os.Getpid(), rand.Uint32())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return cfg, name
}

func reviewURL(cfg *pgx.ConnConfig, host, name string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", host, cfg.Port, cfg.User, name)
}

// cutter stands between a store and its server; when armed it lets a COMMIT
// through, waits for the server's answer, and closes the connection instead of
// passing it on: what a server or a proxy that is killed there looks like.
func cutter(t *testing.T, cfg *pgx.ConnConfig) (dir string, armed *atomic.Bool) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cut")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := fmt.Sprintf(".s.PGSQL.%d", cfg.Port)
	l, err := net.Listen("unix", filepath.Join(dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	armed = &atomic.Bool{}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", filepath.Join(cfg.Host, socket))
			if err != nil {
				in.Close()
				continue
			}
			var cut atomic.Bool
			go func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := in.Read(buf)
					if armed.Load() && bytes.Contains(buf[:n], []byte("COMMIT")) && armed.CompareAndSwap(true, false) {
						cut.Store(true)
					}
					if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
						out.Close()
						return
					}
				}
			}()
			go func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := out.Read(buf)
					if err != nil && err != io.EOF || cut.Load() || n == 0 {
						in.Close()
						out.Close()
						return
					}
					if _, err := in.Write(buf[:n]); err != nil {
						out.Close()
						return
					}
				}
			}()
		}
	}()
	return dir, armed
}

func TestFault_a_connection_closed_in_COMMIT_is_looked_into(t *testing.T) {
	cfg, name := reviewDatabase(t)
	if cfg == nil {
		return
	}
	dir, armed := cutter(t, cfg)
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: reviewURL(cfg, dir, name)}, keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	defer run.Wait()
	defer cancel()
	kind := store.Kind{Name: "review", Rule: changelog.RuleAppend}
	armed.Store(true)
	err = s.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(kind, "k", []byte("v")) })
	if armed.Load() {
		t.Fatal("no COMMIT was cut")
	}
	body, gerr := s.Reader(t.Context()).Get(kind, "k")
	if err != nil && body != nil {
		t.Errorf("the row is there (%v), the update answered %v (%T)", gerr, err, errors.Unwrap(err))
	}
}

func TestFault_a_receipt_that_comes_to_another_node_counts(t *testing.T) {
	cfg, name := reviewDatabase(t)
	if cfg == nil {
		return
	}
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	var stall atomic.Bool
	stalled, goOn := make(chan struct{}), make(chan struct{})
	text := &carrier{answer: func(int, *courier.Message) courier.Outcome {
		stall.Store(true) // the next commit of this node is the outcome's
		return courier.Outcome{Status: courier.Accepted, Code: "0x00000000", Parts: 1, ProviderIDs: []string{"p1"}}
	}}
	numbers := []Number{{Number: "+12065550100", Type: "LONG_CODE", Country: "US", Route: "main"}}
	start := func(node string, fault func(string) error, c courier.Courier) (*store.Store, *Service) {
		log := slog.New(slog.DiscardHandler)
		s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Region: "us-east-1", PostgresURL: reviewURL(cfg, cfg.Host, name), Fault: fault}, keys, time.Now, log)
		if err != nil {
			t.Fatal(err)
		}
		q := queue.New(queue.Config{Node: node}, s, time.Now, rand.New(rand.NewPCG(1, 1)), log)
		d := New(Config{Node: node, Numbers: numbers}, s, q, group.Alone(s.Region()), nil, Routes{Text: map[string]courier.Courier{"main": c}}, time.Now, rand.New(rand.NewPCG(2, 2)), log)
		if c != nil {
			d.Mount()
		}
		stored, stopStore := context.WithCancel(context.Background())
		queued, stopQueue := context.WithCancel(context.Background())
		var a, b sync.WaitGroup
		a.Go(func() { _ = s.Run(stored) })
		b.Go(func() { _ = q.Run(queued) })
		t.Cleanup(func() { stopQueue(); b.Wait(); stopStore(); a.Wait() })
		return s, d
	}
	a, da := start("n1", func(p string) error {
		if p == "write" && stall.CompareAndSwap(true, false) {
			close(stalled)
			<-goOn
		}
		return nil
	}, text)
	_, db := start("n2", nil, nil)
	if err := a.Update(t.Context(), func(tx *store.Tx) error {
		p := &Plan{ID: "call", Account: "111122223333", App: testApp, Call: &Call{Operation: "SendMessages"}, SMS: &SMS{Body: "code"}}
		if err := da.PutPlan(tx, p); err != nil {
			return err
		}
		return da.Claim(tx, p.ID, 1, []Member{{Channel: ChannelSMS, Address: "+12065550177", MessageID: "m"}})
	}); err != nil {
		t.Fatal(err)
	}
	<-stalled
	heard := make(chan error, 1)
	go func() {
		heard <- db.Receipt(t.Context(), courier.Receipt{Route: "main", ProviderID: "p1", State: "DELIVRD"})
	}()
	select {
	case err := <-heard:
		heard <- err
	case <-time.After(2 * time.Second): // it waits for the first node's commit: that would be right
	}
	close(goOn)
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	var sum *Tally
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if sum, err = da.TallyOf(a.Reader(t.Context()), "call"); err != nil {
			t.Fatal(err)
		}
		if sum.Sent == 1 && sum.BlocksDone == 1 {
			break
		}
	}
	if sum.Delivered != 1 {
		t.Errorf("the receipt was acknowledged to the carrier and counts nowhere: %+v", sum)
	}
}
