#!/usr/bin/env bash
# Plays the sample on this machine: starts `everpoint local` with two Regions and a
# router, imports 10,000 endpoints, sends them a campaign, ends the Region that has
# control by kill -9 in the middle, adds up what became of every recipient when the
# other is done, starts the dead one again, and adds up once more when it has caught
# up. Then it stays up to be looked at, until Ctrl-C. `make run` builds bin/everpoint
# and calls it.
#
#   examples/run.sh [--exit] [--regions 1|2] [--endpoints N] [--seed N] [--kill NAME:PERCENT | --no-kill]
#   examples/run.sh [--regions 1|2] --do COMMAND...
#
#   --exit     end when the sample has, with its exit code: 1 if somebody was lost, or
#              written to twice without being listed
#   --regions  1: a Region alone, which is killed and started again at once
#   --kill     NAME is a process of the local: us-east-1, eu-west-1, router; or
#              control, the Region that has control, or other, the one that has not
#   --no-kill  let all live
#   --do       in place of the sample run COMMAND with the settings in its
#              environment, and end with its exit code
#
# It needs Go and nothing else. What it keeps is below .local and goes away with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ports_first=7480 # of twelve; `everpoint local -h` says what each is for
ports_last=7980
start_seconds_max=60

endpoints=10000 seed=1 regions=2 kill=control:50 leave=
usage() {
  sed -n '2,/^set /{/^#/!d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}
while [[ $# -gt 0 ]]; do
  case $1 in
  --exit) leave=1 ;;
  --no-kill) kill= ;;
  --do)
    shift
    [[ $# -gt 0 ]] || usage
    break
    ;;
  --endpoints | --seed | --regions | --kill)
    [[ $# -ge 2 ]] || usage
    declare "${1#--}=$2"
    shift
    ;;
  *) usage ;;
  esac
  shift
done
[[ -x bin/everpoint ]] || {
  echo "run.sh: bin/everpoint is not there: run 'make build' first" >&2
  exit 1
}

mkdir -p .local
dir=$(mktemp -d "$PWD/.local/run.XXXXXX")
local_pid=
cleanup() {
  trap - EXIT
  if [[ -n $local_pid ]]; then
    command kill -TERM "$local_pid" 2>/dev/null || true
    wait "$local_pid" 2>/dev/null || true
  fi
  rm -rf -- "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# taken says whether somebody listens on a port of this machine.
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_local starts the processes on the first ten ports that are free.
start_local() {
  local base port deadline
  for ((base = ports_first; base < ports_last; base += 12)); do
    for ((port = base; port < base + 12; port++)); do
      if taken "$port"; then continue 2; fi
    done
    bin/everpoint local -regions "$regions" -dir "$dir" -port-base "$base" >"$dir/local.out" 2>&1 &
    local_pid=$!
    deadline=$((SECONDS + start_seconds_max))
    while command kill -0 "$local_pid" 2>/dev/null && ((SECONDS < deadline)); do
      if grep -qs ready "$dir/local.out"; then return; fi
      sleep 0.1
    done
    command kill -TERM "$local_pid" 2>/dev/null || true
    wait "$local_pid" || true
    local_pid=
    # Somebody else may have been quicker to take a port; another reason is for people.
    if ! grep -qs "address already in use" "$dir"/*.log; then
      cat "$dir/local.out" "$dir"/*.log >&2
      exit 1
    fi
    rm -f "$dir"/*.log
  done
  echo "run.sh: no twelve free ports in a row from $ports_first to $ports_last" >&2
  exit 1
}

[[ $# -gt 0 ]] || go build -o "$dir/sample" ./examples/sample
start_local
cat "$dir/local.out"
echo
# shellcheck disable=SC1091
. "$dir/local.env"

status=0
if [[ $# -gt 0 ]]; then
  "$@" || status=$?
  exit "$status"
fi
"$dir/sample" -endpoints "$endpoints" -seed "$seed" -dir "$dir" -everpoint "$PWD/bin/everpoint" ${kill:+-kill "$kill"} |
  tee "$dir/sample.out" || status=${PIPESTATUS[0]}
if [[ -n $leave ]]; then exit "$status"; fi

app=$(awk '$1 == "app" { print $2; exit }' "$dir/sample.out")
campaign=$(awk '$1 == "campaign" && NF == 2 { print $2; exit }' "$dir/sample.out")
cat <<TEXT

API      $AWS_ENDPOINT_URL
outbox   $EVERPOINT_OUTBOX_URL
settings $dir/local.env

Try, in another shell:

  cd $PWD && . $dir/local.env
  aws --endpoint-url $AWS_ENDPOINT_URL --ca-bundle $AWS_CA_BUNDLE pinpoint get-apps
  aws --endpoint-url $AWS_ENDPOINT_URL --ca-bundle $AWS_CA_BUNDLE pinpoint get-campaign-activities \\
    --application-id ${app:-APP} --campaign-id ${campaign:-CAMPAIGN}
  aws --endpoint-url $AWS_ENDPOINT_URL --ca-bundle $AWS_CA_BUNDLE pinpoint get-endpoint \\
    --application-id ${app:-APP} --endpoint-id tea-00000-email
  bin/everpoint region status
  bin/everpoint campaign reconcile ${app:-APP} ${campaign:-CAMPAIGN}
  bin/everpoint ambiguous -campaign ${campaign:-CAMPAIGN} ${app:-APP}
  curl --silent --header 'Accept: application/json' '${EVERPOINT_OUTBOX_URL}?limit=3'

It goes on until Ctrl-C, and leaves nothing behind.
TEXT
wait "$local_pid" || true
exit "$status"
