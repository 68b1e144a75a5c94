#!/usr/bin/env bash
# A throw-away PostgreSQL cluster for tests and for trying things out.
#
#   scripts/postgres.sh install           install the server where it is missing (Debian, as root)
#   scripts/postgres.sh with COMMAND...   run COMMAND with TEST_POSTGRES_URL set, then remove the cluster
#   scripts/postgres.sh start             keep a cluster under .local/postgres and print its URL
#   scripts/postgres.sh stop              stop that cluster and remove it
#
# The cluster listens on a Unix socket inside its own directory, which nobody
# else may enter, and on no network address, so any number of clusters run side
# by side. fsync stays on: a test that measures durable writes measures them.
#
# `with` uses the server that TEST_POSTGRES_URL names when it is set already.
# What `with` starts goes away however it ends, by its own kill -9 too: a
# watchdog in a session of its own waits for the end of a pipe that only this
# script holds open.
set -euo pipefail

connections_max=300 # go test runs packages side by side, and each test opens its own pool
start_seconds_max=60
socket_bytes_max=90 # sun_path holds 108, and the server adds a name and a suffix

say() { printf 'postgres.sh: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# find_bin sets bin to the directory that holds initdb, pg_ctl and postgres: the
# one on PATH, else the newest that Debian's packages have put aside.
find_bin() {
  local found dir
  bin=
  if found=$(command -v initdb) && command -v postgres >/dev/null; then
    bin=$(dirname "$(readlink -f "$found")")
    return
  fi
  while read -r dir; do
    if [[ -x $dir/initdb && -x $dir/postgres ]]; then bin=$dir; fi
  done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
  [[ -n $bin ]]
}

install_server() {
  if [[ -n ${TEST_POSTGRES_URL:-} ]] || find_bin; then return; fi
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    die "no PostgreSQL server found on PATH or under /usr/lib/postgresql." \
      "Install one (Debian: apt-get install postgresql), or set TEST_POSTGRES_URL to a server that tests may fill."
  fi
  say "installing the Debian package postgresql"
  apt-get update -qq </dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql </dev/null >/dev/null
  find_bin || die "the package postgresql is installed, yet there is no initdb under /usr/lib/postgresql"
}

# choose_user sets as to the words that run a command as the cluster's owner. The
# server refuses to run as root, so root lends it the account postgres, else nobody.
choose_user() {
  owner=$(id -un)
  as=()
  if [[ $(id -u) != 0 ]]; then return; fi
  owner=nobody
  if id -u postgres >/dev/null 2>&1; then owner=postgres; fi
  as=(setpriv --reuid "$owner" --regid "$(id -gn "$owner")" --clear-groups --)
}

# start_cluster makes and starts a cluster in the empty directory $1 and sets url.
start_cluster() {
  local dir=$1
  ((${#dir} <= socket_bytes_max)) || die "$dir is too long a path for a Unix socket: set TMPDIR to a shorter one"
  find_bin || die "no PostgreSQL server found: run '$0 install' first"
  choose_user
  mkdir "$dir/data"
  chmod 0700 "$dir"
  if [[ $owner != "$(id -un)" ]]; then chown -R "$owner:" "$dir"; fi
  # From the cluster's directory, for its owner may not be able to enter the caller's.
  cd "$dir"
  if ! "${as[@]}" env -i PATH="$bin:/usr/bin:/bin" LC_ALL=C TZ=UTC "$bin/initdb" --pgdata=data --username=everpoint \
    --auth=trust --encoding=UTF8 --locale=C --no-instructions >initdb.log 2>&1; then
    cat initdb.log >&2
    die "initdb failed in $dir"
  fi
  cat >>data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
unix_socket_permissions = 0700
max_connections = $connections_max
shared_buffers = 128MB
logging_collector = off
CONF
  if ! "${as[@]}" env -i PATH="$bin:/usr/bin:/bin" LC_ALL=C TZ=UTC "$bin/pg_ctl" start --pgdata=data --log=server.log \
    --wait --timeout="$start_seconds_max" --silent >pg_ctl.log 2>&1 </dev/null 9>&-; then
    cat pg_ctl.log server.log >&2
    die "the server did not start in $dir within $start_seconds_max s"
  fi
  cd "$OLDPWD"
  url="postgres://everpoint@/postgres?host=$dir&sslmode=disable"
}

# remove_cluster stops what runs in directory $1, at once and without a last
# checkpoint, and removes the directory. It is content when there is nothing.
remove_cluster() {
  local dir=$1
  [[ -d $dir ]] || return 0
  if [[ -e $dir/data/postmaster.pid ]] && find_bin; then
    choose_user
    (cd "$dir" && "${as[@]}" "$bin/pg_ctl" stop --pgdata=data --mode=immediate --wait --silent) >/dev/null 2>&1 || true
  fi
  rm -rf -- "$dir"
}

with_cluster() {
  [[ $# -gt 0 ]] || die "with: which command?"
  if [[ -n ${TEST_POSTGRES_URL:-} ]]; then
    say "TEST_POSTGRES_URL is set: using that server"
    exec "$@"
  fi
  local dir status=0
  dir=$(mktemp -d "${TMPDIR:-/tmp}/everpoint-pg.XXXXXX")
  # The watchdog starts before the server, so there is no moment without one.
  coproc WATCHDOG { exec setsid "$BASH" "${BASH_SOURCE[0]}" watch "$dir"; }
  watchdog=$WATCHDOG_PID
  exec 9>&"${WATCHDOG[1]}" {WATCHDOG[1]}>&-
  trap 'exec 9>&-; wait "$watchdog" || true' EXIT
  # Bash runs a trap only once the command in front has ended; a terminal's
  # interrupt reaches that command too.
  trap 'status=130' INT
  trap 'status=143' TERM HUP
  start_cluster "$dir"
  if [[ $status == 0 ]]; then
    TEST_POSTGRES_URL=$url "$@" 9>&- || status=$?
  fi
  exit "$status"
}

kept="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.local/postgres"

case ${1:-} in
install) install_server ;;
with)
  shift
  with_cluster "$@"
  ;;
start)
  if [[ -e $kept/data/postmaster.pid ]]; then
    say "already running"
    url="postgres://everpoint@/postgres?host=$kept&sslmode=disable"
  else
    remove_cluster "$kept"
    mkdir -p "$kept"
    start_cluster "$kept"
  fi
  printf "export TEST_POSTGRES_URL='%s'\n" "$url"
  ;;
stop) remove_cluster "$kept" ;;
watch) # for `with` alone: outlive it, then clean up
  trap '' INT TERM HUP
  cat >/dev/null || true
  remove_cluster "$2"
  ;;
*)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit 2
  ;;
esac
