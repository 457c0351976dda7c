#!/usr/bin/env bash
# Makes a virtual environment with the pinned requirements and this package; installs Procgen's system libraries.
# usage: scripts/setup.sh VENV     (PYTHON=/path/to/python3.12 chooses the interpreter)
set -euo pipefail
venv=${1:?usage: scripts/setup.sh VENV}
cd "$(dirname "$0")/.."

fail() { echo "setup: error: $1" >&2; exit 1; }

# Runs a command if root, else fails with the command that the user has to run.
as_root() {
  if [ "$(id -u)" = 0 ]; then DEBIAN_FRONTEND=noninteractive bash -c "$1" >/dev/null
  else fail "this needs root; run: sudo bash -c '$1'"; fi
}

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && suits "$candidate"; then echo "$candidate"; return; fi
  done
  return 1
}

python=$(find_python) || { as_root "apt-get update && apt-get install -y python3 python3-venv"; python=$(find_python); } \
  || fail "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/it"

# Procgen and OpenCV link to these two.
libraries_load() { "$python" -c 'import ctypes; [ctypes.CDLL(n) for n in ("libGL.so.1", "libglib-2.0.so.0")]' 2>/dev/null; }
libraries_load || as_root "apt-get update && apt-get install -y libgl1 libglib2.0-0"

if ! [ -x "$venv/bin/pip" ]; then
  "$python" -m venv "$venv" 2>/dev/null || {
    as_root "apt-get update && apt-get install -y python3-venv"
    "$python" -m venv "$venv"
  }
fi
echo "setup: installing the requirements into $venv (a few minutes the first time)"
"$venv/bin/pip" install -q --disable-pip-version-check --no-compile -r requirements.txt
# Compiled here, on every core; pip does it on one. Some packages ship files for other versions of Python.
"$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps -e .
