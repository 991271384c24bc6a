#!/usr/bin/env bash
# Make .venv and install every package that is present. Idempotent; safe to interrupt and to run again.
#   bash scripts/setup.sh            nothing to do if nothing changed
#   bash scripts/setup.sh --force    install again
#   bash scripts/setup.sh --without-hashes    take what the package index has: mirrors may build their own
#   PYTHON=python3.12 bash scripts/setup.sh    another interpreter (3.11 or newer)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "otprune needs Python 3.11 or newer, $python is $("$python" -V 2>&1); set PYTHON=python3.11" >&2
  exit 1
}

# One set-up at a time: several jobs may start in one shared folder.
exec 9> .setup.lock
if command -v flock > /dev/null; then flock 9; fi

hashes=yes force=no
for option in "$@"; do
  case $option in
    --force) force=yes ;;
    --without-hashes) hashes=no ;;
    *)
      echo "setup.sh: unknown option $option" >&2
      exit 2
      ;;
  esac
done

packages=()
for package in . LLaVA lmms_eval; do
  if [ -f "$package/pyproject.toml" ]; then packages+=("$package"); fi
done

# The published torchvision, and timm, which needs it, cannot be loaded with a CPU build of torch, and
# transformers and accelerate import them if they are installed. What can be loaded stays.
remove_broken_torchvision() {
  local found
  found=$(find .venv/lib -maxdepth 3 -type d \( -name torchvision -o -name timm \) 2> /dev/null || true)
  if [ -z "$found" ] || .venv/bin/python -c 'import torchvision' 2> /dev/null; then return 0; fi
  echo "removing torchvision and timm from .venv: this torch cannot load them" >&2
  .venv/bin/python -m pip uninstall --quiet --disable-pip-version-check -y torchvision timm
}

# An environment cannot be moved, nor change its interpreter: either makes a new one.
base=$("$python" -c 'import os, sys; print(sys.version, sys.base_prefix, os.getcwd())' | cksum)
wanted="$base $(for package in "${packages[@]}"; do cat "$package/pyproject.toml"; done | cat - constraints.txt hashes.txt scripts/setup.sh | cksum)"
stamp=.venv/.installed
if [ "$force" = no ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  remove_broken_torchvision
  exit 0
fi

echo "setting up .venv (some minutes the first time)" >&2
rm -f "$stamp"
if ! [ -f .venv/.base ] || [ "$(cat .venv/.base)" != "$base" ]; then
  # It may be the very one that is removed, where that is active.
  python=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
  rm -rf .venv
  "$python" -m venv .venv
  echo "$base" > .venv/.base
fi

install() {
  .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt "$@"
}
# pip compiles on one core, and everything; this leaves out what is hardly ever imported.
compile() { .venv/bin/python -m compileall -q -j 0 -x '/tests?/|/testing/|transformers/models/' .venv/lib || true; }
# torch first and alone: with it in place nothing below can pull in another build of it.
install torch setuptools
# While pip, on one core, finds and installs the rest.
compile & compiling=$!
# By hash: a file that is not what was published is refused. Without requirements, since the list is
# whole; lmms_eval's own would pull in a torchvision that no CPU build of torch can load.
if [ "$hashes" = yes ]; then
  .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps \
    --require-hashes -r hashes.txt || {
    echo "setup.sh: a package is not the published one, or the index has none for this machine;" \
      "bash scripts/setup.sh --without-hashes installs without looking at hashes" >&2
    exit 1
  }
fi
targets=(-e ".[dev,transport]")
for package in "${packages[@]}"; do
  if [ "$package" != . ]; then targets+=(-e "./$package[dev]"); fi
done
# Adds what another Python or platform needs besides.
install --no-build-isolation "${targets[@]}"
install --no-deps lmms_eval
remove_broken_torchvision

wait "$compiling"
compile

# Written last: an interrupted run installs again.
echo "$wanted" > "$stamp"
echo "ready: .venv/bin/python" >&2
