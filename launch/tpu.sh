#!/usr/bin/env bash
# Runs a training on a Cloud TPU, on all of its workers, until it is done:
#
#     cp launch/tpu.example launch/tpu.settings    # and say there what and where
#     ./launch/tpu.sh watch
#
# `watch` does all of it: create, setup, run; when the VM is preempted it makes another
# and the run goes on from its checkpoint, as it does when a worker hangs or crashes, some
# times; when the run ends it brings the logs and ends with its exit code. The VM is
# yours, and costs, until `delete`. One at a time:
#
#     create    the VM, or a queued resource, and wait until it is there
#     setup     the committed code of this checkout, and what it needs, on all workers
#     run       start the command on all workers; it goes on when this machine sleeps
#     logs      bring the log of each worker
#     status    what is running in the zone, and what it costs an hour
#     delete    the VM and its queued resource
#
# A run goes on from its checkpoint on another VM only if --workdir lies on a disk that
# outlives the first one: DISK and MOUNT of the settings. Elsewhere a warning says so.
#
# --settings=FILE instead of launch/tpu.settings; --dry-run prints every command that
# would be run, and runs none. Needs gcloud, logged in.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PAUSE="${LAUNCH_PAUSE:-30}" # seconds between two looks
PATIENCE="${LAUNCH_PATIENCE:-20}" # looks that may fail in a row
CRASHES="${LAUNCH_CRASHES:-5}" # of a run, none of which took an hour, until it is left

say() { printf 'tpu: %s\n' "$*"; }
fail() {
  printf 'tpu: %s\n' "$*" >&2
  exit 2
}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$HERE/tpu.sh"; }

# --- settings

KEYS="NAME PROJECT ZONE TYPE RUNTIME QUEUED SPOT COMMAND DISK MOUNT LOGS"

read_settings() {
  local line key number=0
  [ -f "$1" ] || fail "got no $1; want settings: cp launch/tpu.example $1"
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    case "$line" in '' | '#'*) continue ;; esac
    key="${line%%=*}"
    if [ "$key" = "$line" ] || [[ " $KEYS " != *" $key "* ]]; then
      fail "got '$line' in line $number of $1; want KEY=VALUE with one of $KEYS"
    fi
    printf -v "$key" '%s' "${line#*=}"
  done <"$1"
  for key in NAME ZONE TYPE COMMAND; do
    [ -n "${!key:-}" ] || fail "got no $key in $1; want $key=VALUE"
  done
  for key in QUEUED SPOT; do
    case "${!key:-no}" in yes | no) ;; *) fail "got $key=${!key}; want yes or no" ;; esac
  done
  # shellcheck disable=SC2153 # set above, by its name
  [[ "$NAME" =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] ||
    fail "got NAME=$NAME; want small letters, digits and '-', a letter first"
  # shellcheck disable=SC2153
  chips "$TYPE" >/dev/null
  [ -n "${RUNTIME:-}" ] || RUNTIME="$(runtime)"
  WHERE=("--zone=$ZONE")
  [ -z "${PROJECT:-}" ] || WHERE+=("--project=$PROJECT")
}

# Chips of an accelerator type: before v5e, its number counts cores, two a chip.
chips() {
  local count="${1##*-}"
  case "$1" in
  v[234]-[0-9]* | v5p-[0-9]*) printf '%s\n' $((count / 2)) ;;
  v5litepod-[0-9]* | v6e-[0-9]* | tpu7x-[0-9]*) printf '%s\n' "$count" ;;
  *) fail "got TYPE=$1; want v2-8, v3-8, v4-8, v5litepod-8, v5p-8, v6e-8, ..." ;;
  esac
}

runtime() {
  case "$TYPE" in
  v5litepod-*) echo v2-alpha-tpuv5-lite ;;
  v5p-*) echo v2-alpha-tpuv5 ;;
  v6e-*) echo v2-alpha-tpuv6e ;;
  *) echo tpu-ubuntu2204-base ;;
  esac
}

# Dollars an hour of an accelerator type, on demand, from the table of llm/planning/flops.py;
# nothing where there is no price.
price() {
  local name="${1%%-*}"
  [ "$name" = v5litepod ] && name=v5e
  awk -v name="\"$name\": Chip(" -v chips="$(chips "$1")" '
    index($0, name) { getline; split($0, field, ","); gsub(/ /, "", field[5])
      if (field[5] + 0 > 0) printf "%.2f\n", field[5] * chips }' "$HERE/../llm/planning/flops.py"
}

# --- gcloud

DRY=""
quoted() { printf '%q ' "$@"; }
# Runs a command, or prints it.
act() {
  if [ -n "$DRY" ]; then
    printf '%s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}
tpus() { act gcloud compute tpus "$@" "${WHERE[@]}"; }
ssh_all() { tpus tpu-vm ssh "$NAME" --worker=all --quiet "--command=$1"; }

# Again where a connection failed (255), as the first ones to a new VM do.
patiently() {
  local code tries=0
  while true; do
    code=0
    "$@" || code=$?
    [ "$code" = 0 ] && return
    tries=$((tries + 1))
    if [ "$code" != 255 ] || [ "$tries" -ge "$PATIENCE" ]; then return "$code"; fi
    say "no connection to $NAME, try $tries of $PATIENCE"
    sleep "$PAUSE"
  done
}

# State of the VM (READY, CREATING, PREEMPTED, ...), ABSENT, or UNKNOWN where gcloud
# cannot say.
state() {
  local said
  if said="$(gcloud compute tpus tpu-vm describe "$NAME" "${WHERE[@]}" \
    '--format=value(state)' 2>&1)"; then
    printf '%s\n' "${said##*$'\n'}"
  elif [[ "$said" == *NOT_FOUND* || "$said" == *"not found"* ]]; then
    echo ABSENT
  else
    printf 'tpu: %s\n' "${said##*$'\n'}" >&2
    echo UNKNOWN
  fi
}

# The same of the queued resource; ABSENT where none is used.
queue_state() {
  local said
  if [ "${QUEUED:-no}" = no ]; then
    echo ABSENT
  elif said="$(gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" \
    '--format=value(state.state)' 2>&1)"; then
    printf '%s\n' "${said##*$'\n'}"
  elif [[ "$said" == *NOT_FOUND* || "$said" == *"not found"* ]]; then
    echo ABSENT
  else
    printf 'tpu: %s\n' "${said##*$'\n'}" >&2
    echo UNKNOWN
  fi
}

# Where the run directory lies on the disk of the VM, which goes with the VM: says so.
# It is kept below a path that MOUNT names (not a device), and in a bucket.
warn_of_loss() {
  local workdir="" word
  # shellcheck disable=SC2153 # set by its name
  [[ "$COMMAND" =~ --?workdir[=\ ][\'\"]?([^\'\"\ ]+) ]] && workdir="${BASH_REMATCH[1]}"
  case "$workdir" in '' | *://*) return 0 ;; esac
  for word in ${MOUNT:-}; do
    word="${word//[\'\";]/}"
    case "$word" in
    /dev/* | /) ;;
    /*) case "$workdir/" in "${word%/}"/*) return 0 ;; esac ;;
    esac
  done
  printf 'tpu: WARNING: %s lies on the own disk of the VM, and is lost with its checkpoints when the VM is preempted or deleted; to keep it, set MOUNT (and DISK) in %s and put --workdir below the mounted path\n' \
    "--workdir=$workdir" "$settings" >&2
}

# --- the steps

# Exit code 3: no chips now. Other failures, such as a quota, do not mend themselves.
create() {
  local words=(--accelerator-type="$TYPE") errors code=0
  [ "${SPOT:-no}" = no ] || words+=(--spot)
  [ -z "${DISK:-}" ] || words+=("--data-disk=$DISK")
  if [ "${QUEUED:-no}" = yes ]; then
    words=(queued-resources create "$NAME" --node-id="$NAME"
      --runtime-version="$RUNTIME" "${words[@]}")
  else
    words=(tpu-vm create "$NAME" --version="$RUNTIME" "${words[@]}")
  fi
  if [ -n "$DRY" ]; then
    tpus "${words[@]}"
    return
  fi
  say "asking for $NAME, $TYPE in $ZONE, $(cost "$TYPE")"
  errors="$(mktemp)"
  tpus "${words[@]}" 2> >(tee "$errors" >&2) || code=$?
  if [ "$code" != 0 ]; then
    code=2
    if grep -qiE 'no more capacity|not enough (resources|capacity)|UNAVAILABLE|stockout' "$errors"
    then code=3; fi
    grep -qi 'already exists' "$errors" && code=0
  fi
  rm -f "$errors"
  return "$code"
}

cost() {
  local dollars
  dollars="$(price "$1")"
  if [ -z "$dollars" ]; then
    printf 'of unknown price'
  else
    printf '%s an hour at most' "\$$dollars"
  fi
}

# Waits until the VM is there; 3 if the request ended without one.
wait_ready() {
  local vm queue before="" unknown=0
  [ -z "$DRY" ] || return 0
  while true; do
    vm="$(state)"
    [ "$vm" = READY ] && return
    queue="$(queue_state)"
    case "$vm/$queue" in
    *UNKNOWN*) unknown=$((unknown + 1)) ;;
    *) unknown=0 ;;
    esac
    [ "$unknown" -lt "$PATIENCE" ] || fail "gcloud did not say how $NAME is in $unknown looks"
    case "$vm/$queue" in
    */FAILED | */SUSPEND* | PREEMPTED/* | TERMINATED/*) return 3 ;;
    ABSENT/ABSENT) return 3 ;;
    esac
    [ "$vm/$queue" = "$before" ] || say "VM ${vm,,}, request ${queue,,}"
    before="$vm/$queue"
    sleep "$PAUSE"
  done
}

# What is to be done on each worker. $HOME is that of the worker.
# shellcheck disable=SC2016
SETUP='mkdir -p llm-run/code; tar -xzf llm-run.tar.gz -C llm-run/code
cd llm-run/code; . launch/venv.sh
if ! (find_python) >/dev/null 2>&1; then
  sudo apt-get update -qq; sudo apt-get install -y -qq python3.11 python3.11-venv
fi
make_venv tpu'
# shellcheck disable=SC2016
STATE='cd llm-run 2>/dev/null || { echo "run: none"; exit 0; }
if [ -f run.exit ]; then echo "run: exit $(cat run.exit)"
elif [ -f run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; then echo "run: going"
else echo "run: none"; fi'

setup() {
  local code
  code="${TMPDIR:-/tmp}/llm-run-$$.tar.gz"
  if [ -n "$(git -C "$HERE/.." status --porcelain --untracked-files=no)" ]; then
    say "what is changed and not committed does not come along"
  fi
  act git -C "$HERE/.." archive --format=tar.gz "--output=$code" HEAD
  # In a condition `set -e` is off, here and in what is called: so each says itself
  # whether it went on.
  patiently tpus tpu-vm scp "$code" "$NAME:llm-run.tar.gz" --worker=all --quiet || {
    rm -f "$code"
    return 1
  }
  rm -f "$code"
  patiently ssh_all "set -e; ${MOUNT:+$MOUNT; }$SETUP"
}

run() {
  local command
  # shellcheck disable=SC2153
  printf -v command '%q' \
    ".venv/bin/python -m llm.main $COMMAND; echo \$? >../run.tmp; mv ../run.tmp ../run.exit"
  # A run that goes on is left alone.
  patiently ssh_all "cd llm-run/code || exit 1
if [ -f ../run.pid ] && [ ! -f ../run.exit ] && kill -0 \"\$(cat ../run.pid)\" 2>/dev/null
then echo 'already running'; exit 0; fi
rm -f ../run.exit
nohup setsid bash -c $command >>../run.log 2>&1 </dev/null &
echo \$! >../run.pid"
}

logs() {
  local worker count
  act mkdir -p "${LOGS:-logs}/$NAME"
  if [ -n "$DRY" ]; then
    tpus tpu-vm scp "$NAME:llm-run/run.log" "${LOGS:-logs}/$NAME/worker-0.log" \
      --worker=0 --quiet
    return
  fi
  count="$(workers)" || fail "got no VM $NAME in $ZONE; want one that is there: status"
  for ((worker = 0; worker < count; worker++)); do
    patiently tpus tpu-vm scp "$NAME:llm-run/run.log" \
      "${LOGS:-logs}/$NAME/worker-$worker.log" --worker="$worker" --quiet || return
  done
  say "logs of $worker workers in ${LOGS:-logs}/$NAME"
}

workers() {
  gcloud compute tpus tpu-vm describe "$NAME" "${WHERE[@]}" \
    '--format=value(networkEndpoints.len())'
}

delete() {
  if [ "${QUEUED:-no}" = yes ]; then
    tpus queued-resources delete "$NAME" --force --quiet
  else
    tpus tpu-vm delete "$NAME" --quiet
  fi
}

status() {
  local listed name type vm dollars total=0
  if [ -n "$DRY" ]; then
    tpus tpu-vm list '--format=value(name,acceleratorType,state)'
    return
  fi
  listed="$(tpus tpu-vm list '--format=value(name,acceleratorType,state)')"
  while read -r name type vm; do
    [ -n "$name" ] || continue
    dollars="$( (price "$type") 2>/dev/null || true)"
    printf '%-24s %-14s %-12s %s\n' "$name" "$type" "$vm" \
      "${dollars:+\$$dollars an hour at most}"
    case "$vm" in PREEMPTED | TERMINATED | STOPPED) continue ;; esac
    total="$(awk -v a="$total" -v b="${dollars:-0}" 'BEGIN { printf "%.2f", a + b }')"
  done <<<"$listed"
  say "$ZONE: \$$total an hour at most, at the prices on demand of llm/planning/flops.py"
}

# Create, setup, run; again where chips are taken away or there are none yet.
obtain() {
  local code
  while true; do
    code=0
    case "$(state)/$(queue_state)" in
    READY/*) ;;
    ABSENT/ABSENT) create || code=$? ;;
    PREEMPTED/* | TERMINATED/* | STOPPED/* | */FAILED | */SUSPEND*)
      say "$NAME is gone; asking for another"
      delete || true
      create || code=$?
      ;;
    esac
    [ "$code" = 0 ] && { wait_ready || code=$?; }
    [ "$code" = 0 ] && return
    [ "$code" = 3 ] || fail "gcloud would not make $NAME; see the lines above"
    say "no $TYPE in $ZONE now; asking again in $PAUSE s"
    sleep "$PAUSE"
  done
}

begun=0 # when
refused=0 # beginnings in a row that failed
# Begins with what is given, and gives up where that never succeeds.
begin() {
  begun=$SECONDS
  if "$@"; then
    refused=0
    say "running: $COMMAND"
    return
  fi
  refused=$((refused + 1))
  [ "$refused" -lt "$PATIENCE" ] || fail "could not begin on $NAME in $refused tries"
  say "could not begin on $NAME; looking again"
  sleep "$PAUSE"
}
all_of_it() { setup && run; }

# What a run has ended with, of the codes of its workers: the first that running it again
# does not mend; else, that it is to be run again, 75, or that it crashed (a step that
# hung or a lost worker, 76, and signals); else 0.
verdict() {
  local code found=0
  for code in "$@"; do
    case "$code" in
    0) ;;
    75) [ "$found" != 0 ] || found=75 ;;
    76 | 134 | 135 | 137 | 139) found=$code ;;
    *)
      printf '%s\n' "$code"
      return
      ;;
    esac
  done
  printf '%s\n' "$found"
}

watch() {
  local said failed=0 crashes=0 code codes
  if [ -n "$DRY" ]; then
    create
    setup
    run
    act gcloud compute tpus tpu-vm describe "$NAME" "${WHERE[@]}" '--format=value(state)'
    ssh_all "$STATE"
    logs
    return
  fi
  while true; do
    if [ "$(state)" != READY ]; then
      obtain
      begin all_of_it # a VM that is lost meanwhile is met at the next look
      continue
    fi
    if ! said="$(ssh_all "$STATE" 2>&1)"; then
      failed=$((failed + 1))
      [ "$failed" -lt "$PATIENCE" ] || fail "no answer of $NAME in $failed looks"
      sleep "$PAUSE"
      continue
    fi
    failed=0
    read -ra codes <<<"$(sed -n 's/.*run: exit //p' <<<"$said" | tr '\n' ' ')"
    code=""
    [ ${#codes[@]} = 0 ] || code="$(verdict "${codes[@]}")"
    if [[ "$said" == *"run: going"* ]]; then
      # One worker that failed leaves the others waiting for it.
      if [ -z "$code" ] || [ "$code" = 0 ]; then
        sleep "$PAUSE"
        continue
      fi
    fi
    case "$code" in
    '') begin all_of_it ;;
    75)
      say "preempted and saved; going on"
      begin run
      ;;
    76 | 134 | 135 | 137 | 139)
      [ $((SECONDS - begun)) -lt 3600 ] || crashes=0
      crashes=$((crashes + 1))
      if [ "$crashes" -gt "$CRASHES" ]; then
        logs || true
        say "crashed $crashes times, with exit code $code; $NAME is still there: ./launch/tpu.sh delete"
        return "$code"
      fi
      say "crashed with exit code $code, time $crashes; going on from the last checkpoint"
      begin run
      ;;
    *)
      logs || true
      say "ended with exit code $code; $NAME is still there: ./launch/tpu.sh delete"
      return "$code"
      ;;
    esac
    sleep "$PAUSE"
  done
}

# --- command line

verb=""
settings="$HERE/tpu.settings"
for word in "$@"; do
  case "$word" in
  --dry-run) DRY=1 ;;
  --settings=*) settings="${word#*=}" ;;
  --help | -h)
    usage
    exit
    ;;
  create | setup | run | watch | logs | status | delete) verb="$word" ;;
  *) fail "got $word; want create, setup, run, watch, logs, status or delete; --help" ;;
  esac
done
[ -n "$verb" ] || fail "got nothing to do; want create, setup, run, watch, logs, status or delete"
read_settings "$settings"
case "$verb" in create | run | watch) warn_of_loss ;; esac
[ -n "$DRY" ] || command -v gcloud >/dev/null || fail "got no gcloud on PATH; want the Google Cloud SDK"
case "$verb" in
create)
  code=0
  create || code=$?
  [ "$code" = 3 ] && fail "no $TYPE in $ZONE now; 'watch' asks until there is"
  [ "$code" = 0 ] || fail "gcloud would not make $NAME; see the lines above"
  wait_ready || fail "$NAME did not come; 'watch' asks again"
  [ -n "$DRY" ] || say "$NAME is ready"
  ;;
*) "$verb" ;;
esac
