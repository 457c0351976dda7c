#!/usr/bin/env bash
# Installs the wheel into a project that has gymnasium 1.x, NumPy 2.x and the newest Stable-Baselines3, and checks that
# nothing of the project changes. usage: tests/packaging/check_pipeline.sh [PYTHON]
#   TORCH: what to give pip for PyTorch (torch==2.13.0); WORK: a folder to keep, else a temporary one is removed.
set -euo pipefail
python=$(command -v "${1:-python3}") || { echo "check_pipeline: error: there is no ${1:-python3}" >&2; exit 1; }
case $python in /*) ;; *) python=$PWD/$python ;; esac
torch=${TORCH:-torch==2.13.0}
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ -n "${WORK:-}" ]; then work=$WORK; mkdir -p "$work"; else work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
unset PYTHONPATH
cd "$work"

say() { echo "check_pipeline: $*"; }
fail() { echo "check_pipeline: error: $*" >&2; exit 1; }
quiet_pip() { "$1" -m pip --disable-pip-version-check "${@:2}" 2>pip.log >&2 || { cat pip.log >&2; fail "pip ${*:2}"; }; }
packages() { project/bin/python -m pip --disable-pip-version-check freeze --all | grep -v '^srwm-agents' | sort; }
files() { (cd project/lib/python*/site-packages && find . -type f ! -name '*.pyc' | sort); }
# Packages that the second list has beside the first; an error if one of the first is missing or has another version.
added() {
  [ -z "$(comm -23 "$1" "$2")" ] || fail "changed or removed: $(comm -23 "$1" "$2" | tr '\n' ' ')"
  comm -13 "$1" "$2" | sed 's/[= ].*//' | tr '\n' ' '
}

# Building writes into the folder that it builds from, so this is a copy.
mkdir tree
tar -C "$root" -c --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist --exclude=./train_dir \
  --exclude=./data --exclude=./shared --exclude='*.egg-info' --exclude=__pycache__ . | tar -C tree -x

"$python" -m venv tools
quiet_pip tools/bin/python install -q "build>=1.2" "twine>=6"
tools/bin/python -m build --outdir dist tree >build.log 2>&1 || { tail -20 build.log >&2; fail "python -m build"; }
tools/bin/python -m twine check --strict dist/*
wheel=$(echo dist/*.whl)
say "built $(basename "$wheel"): $(du -k "$wheel" | cut -f1) KiB, $(basename dist/*.tar.gz): $(du -k dist/*.tar.gz | cut -f1) KiB"

# The project, with a top-level package `envs` of its own.
"$python" -m venv project
mkdir -p theirs/envs
echo 'WHOSE = "theirs"' >theirs/envs/__init__.py
cat >theirs/pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "their-project"
version = "1.0"
[tool.setuptools]
packages = ["envs"]
TOML
quiet_pip project/bin/python install -q "$torch" "gymnasium>=1" "numpy>=2" stable-baselines3 ./theirs
packages >before.txt
files >files_before.txt
say "the project has: $(grep -iE '^(torch|gymnasium|numpy|stable)' before.txt | tr '\n' ' ')"

quiet_pip project/bin/python install -q "$wheel"
packages >after.txt
new=$(added before.txt after.txt)
[ "$new" = "safetensors " ] || fail "installing the wheel added: $new, expected safetensors alone"
say "installing the wheel changed no version and added: srwm-agents $new"
project/bin/python "$root/tests/packaging/use_base.py"

quiet_pip project/bin/python install -q "$wheel[sb3]"
packages >with_sb3.txt
new=$(added after.txt with_sb3.txt)
[ "$new" = "sb3_contrib " ] || [ "$new" = "sb3-contrib " ] || fail "the extra sb3 added: $new, expected sb3-contrib alone"
say "the extra sb3 changed no version and added: $new"
project/bin/python "$root/tests/packaging/use_sb3.py"

quiet_pip project/bin/python uninstall -q -y srwm-agents safetensors sb3-contrib
files >files_after.txt
cmp files_before.txt files_after.txt || fail "uninstalling left other files than there were"
[ "$(project/bin/python -c 'import envs; print(envs.WHOSE)')" = theirs ] || fail "their envs is gone"
say "uninstalled: every file of the project is there, and none of ours"
say "passed"
