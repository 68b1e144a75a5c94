package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

var errUnbalanced = errors.New("the sample does not add up")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := perform(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}

func perform(ctx context.Context) error {
	n := flag.Int("endpoints", 10_000, "how many endpoints to make up and import")
	seed := flag.Uint64("seed", 1, "the same seed makes the same endpoints")
	kill := flag.String("kill", "", `NAME:PERCENT: kill -9 that process of the local directory at that progress, and
start it again; control is the Region that has control, other one that has not`)
	dir := flag.String("dir", filepath.Dir(os.Getenv("EVERPOINT_BUCKETS")), "directory of the `everpoint local`, for -kill")
	command := flag.String("everpoint", "bin/everpoint", "the everpoint binary, for -kill")
	timeout := flag.Duration("timeout", 10*time.Minute, "when to give up")
	flag.Parse()
	if flag.NArg() > 0 || *n < 100 || *n > endpointsMax {
		flag.Usage()
		return fmt.Errorf("-endpoints must be 100 to %d, and there are no further arguments", endpointsMax)
	}
	victim, err := parseVictim(*kill, *dir, *command)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	s, err := connect(ctx)
	if err != nil {
		return err
	}
	p := &play{service: s, out: os.Stdout, people: People(*n, *seed), kill: victim}
	if err := p.perform(ctx); err != nil {
		return err
	}
	p.say("\nevery recipient is accounted for, nobody lost, and nobody written to twice without being listed: app %s, campaign %s", p.app, p.campaign)
	return nil
}
