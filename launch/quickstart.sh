#!/usr/bin/env bash
# From a fresh clone to a trained, measured, talking language model of Python:
#
#     ./launch/quickstart.sh
#
# makes .venv (Python 3.12, else 3.11; newer only with --any-python), installs the
# project and runs configs/quickstart.py in runs/quickstart. Run it again to go on where
# it stopped. Other arguments go to the run, such as --config.train.steps=100 or
# --workdir=runs/other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
. launch/venv.sh

rest=()
for word in "$@"; do
  case "$word" in
  --any-python) ANY_PYTHON=1 ;;
  --help | -h)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' launch/quickstart.sh
    exit
    ;;
  *) rest+=("$word") ;;
  esac
done

make_venv ""
exec "$PYTHON" -m llm.main --config=configs/quickstart.py --workdir=runs/quickstart \
  ${rest[@]+"${rest[@]}"}
