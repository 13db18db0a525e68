#!/usr/bin/env bash
# Compiles the training step of the sizes for TPU pods, without a TPU, and compares bytes
# and cycles with tests/golden/aot.json; takes minutes for each:
#
#     ./launch/test_aot.sh            # --small: two tiny steps only, half a minute
#
# --python=3.11 as in test.sh; other arguments go to pytest, such as -k v5e.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
. launch/venv.sh

rest=() marks=(-m "aot or long")
for word in "$@"; do
  case "$word" in
  --small) marks=() ;;
  --any-python) ANY_PYTHON=1 ;;
  --python=*) PYTHON_VERSION="${word#*=}" ;;
  --help | -h)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' launch/test_aot.sh
    exit
    ;;
  *) rest+=("$word") ;;
  esac
done

make_venv test,tpu
# libtpu looks for a TPU, and complains, in any process that is not told to take the CPU.
export JAX_PLATFORMS=cpu
exec "$PYTHON" -m pytest ${marks[@]+"${marks[@]}"} tests/test_{aot,topology}.py ${rest[@]+"${rest[@]}"}
