#!/usr/bin/env bash
# Compares corpora of Apache Beam with those of the local runner. Beam wants an older
# protobuf than the rest, so it gets an environment of its own, .venv-beam:
#
#     ./launch/test_beam.sh
#
# --python=3.11 as in test.sh; other arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
. launch/venv.sh

rest=()
for word in "$@"; do
  case "$word" in
  --any-python) ANY_PYTHON=1 ;;
  --python=*) PYTHON_VERSION="${word#*=}" ;;
  --help | -h)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' launch/test_beam.sh
    exit
    ;;
  *) rest+=("$word") ;;
  esac
done

VENV=beam
CONSTRAINTS="$(mktemp)"
trap 'rm -f "$CONSTRAINTS"' EXIT
grep -v -E '^(pillow|protobuf|pyarrow)==' constraints.txt >"$CONSTRAINTS"
make_venv beam,test
JAX_PLATFORMS=cpu "$PYTHON" -m pytest tests/test_prepare_beam.py ${rest[@]+"${rest[@]}"}
