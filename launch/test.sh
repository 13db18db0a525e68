#!/usr/bin/env bash
# Runs the tests:
#
#     ./launch/test.sh            # the suite
#     ./launch/test.sh --all      # also the long ones, the oracle extra, the browser and
#                                 # every command that the documents and the configs promise
#
# in .venv (Python 3.12, else 3.11; newer only with --any-python), or in .venv-3.11 with
# --python=3.11. Other arguments go to pytest, such as tests/test_plan.py or -k resume.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
. launch/venv.sh

all=""
rest=()
for word in "$@"; do
  case "$word" in
  --all) all=1 ;;
  --any-python) ANY_PYTHON=1 ;;
  --python=*) PYTHON_VERSION="${word#*=}" ;;
  --help | -h)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' launch/test.sh
    exit
    ;;
  *) rest+=("$word") ;;
  esac
done

make_venv test
if [ -n "$all" ]; then
  install_oracle
  install_browser
  # The last -m wins: everything but what belongs to the nightly run.
  rest=(-m "not slow and not aot" ${rest[@]+"${rest[@]}"})
fi
# Compilation gives much memory back to the system and takes it again: without that, the
# suite is a tenth faster.
export MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_TOP_PAD_=67108864
# Two processes, each of which takes whole files: most of the time is compilation.
exec "$PYTHON" -m pytest -n 2 --dist loadfile ${rest[@]+"${rest[@]}"}
