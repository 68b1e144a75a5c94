package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

// run generates into the tree at -root, or with -check reports what differs.
func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("apigen", flag.ContinueOnError)
	root := flags.String("root", ".", "the repository's root")
	check := flags.Bool("check", false, "write nothing; fail if a generated file differs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	files, err := generate(*root)
	if err != nil {
		return err
	}
	stale, err := strays(*root, files)
	if err != nil {
		return err
	}
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(*root, name)
		have, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read generated file: %w", err)
		}
		if err == nil && bytes.Equal(have, files[name]) {
			continue
		}
		differ = append(differ, name)
		if *check {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		fmt.Fprintln(stdout, "wrote", name)
	}
	for _, name := range stale {
		differ = append(differ, name)
		if *check {
			continue
		}
		if err := os.Remove(filepath.Join(*root, name)); err != nil {
			return fmt.Errorf("remove stale file: %w", err)
		}
		fmt.Fprintln(stdout, "removed", name)
	}
	if *check && len(differ) > 0 {
		return fmt.Errorf("not as generated: %s; run make generate", strings.Join(differ, ", "))
	}
	return nil
}

// generate returns every generated file by its path below the root.
func generate(root string) (map[string][]byte, error) {
	models, err := load(filepath.Join(root, "models"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, m := range models {
		g, err := newGenerator(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.file, err)
		}
		for name, write := range map[string]func() string{
			"types": g.types, "schemas": g.schemas, "operations": g.operations,
		} {
			text, err := formatted(write())
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", m.file, name, err)
			}
			files["api/"+m.pkg+"/"+name+".gen.go"] = text
		}
	}
	page, err := coverage(root, models)
	if err != nil {
		return nil, err
	}
	files["docs/reference/coverage.md"] = page
	return files, nil
}

// strays lists generated Go files that nothing generates any more.
func strays(root string, files map[string][]byte) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(root, "api", "*", "*.gen.go"))
	if err != nil {
		return nil, fmt.Errorf("list generated files: %w", err)
	}
	var stale []string
	for _, f := range found {
		rel, err := filepath.Rel(root, f)
		if err != nil {
			return nil, fmt.Errorf("list generated files: %w", err)
		}
		if name := filepath.ToSlash(rel); files[name] == nil {
			stale = append(stale, name)
		}
	}
	return stale, nil
}

func checksum(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
