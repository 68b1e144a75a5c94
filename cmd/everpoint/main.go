package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// command is one subcommand. run gets the arguments after its name and returns
// when it is done; tests call it.
type command struct {
	name    string
	summary string // one line, for help
	run     func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// commands lists every subcommand.
func commands() []command {
	return []command{
		{"serve", "run a node", serve},
		{"region", "show the Regions of a group, and switch, drain and resume them", region},
		{"router", "run the global endpoint before the Regions of a group", runRouter},
		{"witness", "run a voter without data, so that two Regions can decide", runWitness},
		{"local", "run two Regions on this machine, with carriers that only pretend", local},
		{"carriers", "run the pretended carriers alone: SMTP relay, SMS centre, outbox", runCarriers},
		{"campaign", "show a campaign's run and reconcile it", campaign},
		{"ambiguous", "list sends whose outcome is not known", ambiguous},
		{"segment", "count an unsaved segment exactly", segment},
		{"config", "show a node's resolved configuration", config},
		{"bench", "measure this machine and print the table", bench},
		{"version", "print the version", version},
	}
}

// errUsage says that the command line was wrong; what is wrong was printed.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "everpoint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		help(stdout)
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "everpoint: no command %q; `everpoint help` lists them\n", args[0])
	return errUsage
}

func help(w io.Writer) {
	fmt.Fprint(w, "everpoint: engagement messaging behind the Pinpoint API, on your own machines\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\n`everpoint COMMAND -h` says more.\n")
}

// flags returns a flag set whose usage starts with a sentence, and a parse
// function: -h prints it and is no error.
func flags(name, usage string, stderr io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "usage: everpoint %s\n\nflags:\n", strings.TrimSpace(usage))
		fs.PrintDefaults()
	}
	return fs
}

// parse reads flags; done is true when the command has nothing left to do.
func parse(fs *flag.FlagSet, args []string) (done bool, err error) {
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return true, nil
	case err != nil:
		return true, errUsage
	}
	return false, nil
}
