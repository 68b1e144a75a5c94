package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/everpoint/everpoint/cmd/node"
)

func loadWitnessConfig(path string) (*node.WitnessConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c := &node.WitnessConfig{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("parse configuration %s: %w", filepath.Base(path), err)
	}
	return c, c.Settle(filepath.Dir(path), "")
}

func runWitness(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("witness", `witness -config FILE

Runs a witness alone: it votes with the Regions of a group and holds no data, so
that two Regions can decide safely. It belongs on a machine that fails with
neither of them. FILE is JSON: Name, Dir, Listen, CAFile, CertFile, KeyFile,
Peers (URLs by name, its own included), Founder. A router can run it in its own
process instead: there the same is the member Witness.`, stderr)
	file := fs.String("config", "", "configuration file")
	if done, err := parse(fs, args); done {
		return err
	}
	if *file == "" || fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
	cfg, err := loadWitnessConfig(*file)
	if err != nil {
		return err
	}
	w, err := node.NewWitness(ctx, cfg, node.World{}, slog.New(slog.NewJSONHandler(stderr, nil)))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "witness %s serves on %s\n", cfg.Name, cfg.Listen)
	return w.Run(ctx)
}
