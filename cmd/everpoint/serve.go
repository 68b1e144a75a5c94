package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/everpoint/everpoint/cmd/node"
)

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("serve", `serve -config FILE

Runs a node until it is told to stop (SIGTERM), then finishes what is under way.
FILE is JSON; docs/reference/configuration.md lists its members.`, stderr)
	file := fs.String("config", "", "configuration file")
	if done, err := parse(fs, args); done {
		return err
	}
	if *file == "" || fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
	cfg, err := node.LoadConfig(*file)
	if err != nil {
		return err
	}
	var level slog.Level
	if cfg.LogLevel != "" {
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return err
		}
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})).With("node", cfg.Node, "region", cfg.Region)
	n, err := node.New(ctx, cfg, node.World{}, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "node %s of %s serves on %s\n", cfg.Node, cfg.Region, cfg.Door.Listen)
	return n.Run(ctx)
}

func config(_ context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("config", `config show FILE
       everpoint config reference

show prints a node's configuration as it is used: with defaults filled in and
paths resolved; secrets stay in their files. reference prints the page on every
member.`, stderr)
	if len(args) == 1 && args[0] == "reference" {
		page, err := node.Reference()
		if err != nil {
			return err
		}
		_, err = io.WriteString(stdout, page)
		return err
	}
	if len(args) == 0 || args[0] != "show" {
		fs.Usage()
		return errUsage
	}
	if done, err := parse(fs, args[1:]); done {
		return err
	}
	if fs.NArg() != 1 {
		fs.Usage()
		return errUsage
	}
	cfg, err := node.LoadConfig(fs.Arg(0))
	if err != nil {
		return err
	}
	return printJSON(stdout, cfg)
}
