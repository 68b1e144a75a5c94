#!/usr/bin/env bash
# Holds our couriers and their doubles against foreign peers: Postfix's smtp-sink
# and Kannel. They are Debian packages; as root this installs what is missing,
# without starting their services.
#
#   scripts/foreign.sh                  fail where they are missing and cannot be installed
#   scripts/foreign.sh --if-possible    say so and succeed instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
[[ -x /usr/sbin/smtp-sink ]] || missing+=(postfix)
[[ -x /usr/sbin/bearerbox ]] || missing+=(kannel)
if [[ ${#missing[@]} -gt 0 ]]; then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "foreign.sh: not held against foreign peers: install ${missing[*]} first" >&2
    [[ ${1:-} == --if-possible ]] && exit 0
    exit 1
  fi
  # Debian starts a service once it is installed, unless this says no.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq </dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi
EVERPOINT_FOREIGN_PEERS=1 go test -count=1 ./courier/smtp/... ./courier/smpp/...
