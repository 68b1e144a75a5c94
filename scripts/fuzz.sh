#!/usr/bin/env bash
# Runs every fuzz test of the module, one after the other, each for the time
# given (10s). A failure leaves its input under testdata/fuzz, to be committed
# with the fix, and the rest still run.
#
#   scripts/fuzz.sh [DURATION]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
each=${1:-10s}

failed=()
while read -r package dir; do
  while read -r name; do
    printf '== %s %s\n' "$package" "$name"
    go test -vet=off -run='^$' -fuzz="^$name\$" -fuzztime="$each" "$package" </dev/null || failed+=("$package $name")
  done < <(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$dir"/*_test.go)
done < <(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./...)

if ((${#failed[@]} > 0)); then
  printf 'failed:\n' >&2
  printf '  %s\n' "${failed[@]}" >&2
  exit 1
fi
