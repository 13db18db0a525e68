#!/usr/bin/env bash
# What is too long for ./launch/test.sh, in a temporary folder, with a summary:
#
#     ./launch/test_nightly.sh
#
# the tests marked slow or long, the whole quickstart from a fresh environment, with its
# wall time and figures, the whole life cycle, and the benchmarks in their short forms.
# --python=3.11 as there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
. launch/venv.sh

for word in "$@"; do
  case "$word" in
  --any-python) ANY_PYTHON=1 ;;
  --python=*) PYTHON_VERSION="${word#*=}" ;;
  *) fail "got $word; want --python=VERSION or --any-python" ;;
  esac
done

summary=()
failed=0
# Runs "$@" under the title $1, and notes how it went and how long it took.
part() {
  local title="$1" start=$SECONDS result=ok
  shift
  say "=== $title"
  "$@" || result="FAILED with exit code $?"
  [ "$result" = ok ] || failed=1
  summary+=("$(printf '%-24s %5d s  %s' "$title" $((SECONDS - start)) "$result")")
}

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# shellcheck disable=SC2317,SC2329  # `part` calls these two
# A clone without environment or runs, so that the install is timed with the rest.
fresh_quickstart() {
  git clone -q . "$scratch/clone" &&
    "$scratch/clone/launch/quickstart.sh" ${ANY_PYTHON:+--any-python}
}
# shellcheck disable=SC2317,SC2329
figures() {
  "$PYTHON" - "$scratch/clone/runs/quickstart/evaluate.json" <<'PY'
import json, sys
found = json.load(open(sys.argv[1]))
for name in ("bits_per_byte", "perplexity", "token_accuracy", "syntax_valid_rate"):
    print(f"{name:20} {found[name]:.4f}")
PY
}

# shellcheck disable=SC2317,SC2329
# Corpus to server at its full size, then again: nothing is to be done twice.
life() {
  local words=(-m llm.main --config=configs/lifecycle.py "--workdir=$scratch/life")
  "$PYTHON" "${words[@]}" && "$PYTHON" "${words[@]}" >"$scratch/again.txt" &&
    ! grep -v "done before\|^page: " "$scratch/again.txt" | grep "([0-9]*/"
}

make_venv test
install_oracle
part "slow and long tests" "$PYTHON" -m pytest -n 2 --dist loadfile -m "slow or long"
part "fresh quickstart" fresh_quickstart
part "its figures" figures
part "life cycle" life
if "$PYTHON" -c 'import transformers, torch' 2>/dev/null; then
  part "benchmark train_step" "$PYTHON" benchmarks/train_step.py --sizes=1m --rounds=3
else
  summary+=("benchmark train_step      skipped: it needs the oracle extra")
fi

# Any text will do for a look at whether ours still learns faster; here, our own code.
cat llm/*.py llm/*/*.py >"$scratch/code.txt"
part "benchmark learning" "$PYTHON" benchmarks/learning.py --text="$scratch/code.txt" \
  --tokens=307200

say "=== summary of $(git describe --always --dirty), $("$PYTHON" --version)"
printf '%s\n' "${summary[@]}"
exit "$failed"
