package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"everpoint": func() {
			err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
			switch {
			case err == nil:
			case errors.Is(err, errUsage):
				os.Exit(2)
			default:
				fmt.Fprintln(os.Stderr, "everpoint:", err)
				os.Exit(1)
			}
		},
	})
}

// TestScripts runs the command line as testdata/script tells it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
