#!/usr/bin/env bash
# Make .venv and install every room that is present. Idempotent; safe to interrupt and to run again.
#   PYTHON=python3.12 bash scripts/setup.sh    another interpreter (>= 3.11)
#   bash scripts/setup.sh --force              install again even if nothing changed
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/.installed
rooms=()
for room in . LLaVA lmms_eval; do
  [ -f "$room/pyproject.toml" ] && rooms+=("$room")
done

# The stamp holds what the installation was made from; it is written last, so a killed run installs again.
fingerprint=$(
  {
    "$python" -c 'import sys; print(sys.version, sys.prefix)'
    pwd
    for room in "${rooms[@]}"; do cat "$room/pyproject.toml"; done
    cat constraints.txt scripts/setup.sh
  } | cksum
)
if [ "${1:-}" != --force ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ]; then
  exit 0
fi

"$python" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"otprune needs Python >= 3.11, {sys.executable} is {sys.version.split()[0]}; set PYTHON=python3.11")
PY

echo "setting up .venv (about two minutes the first time)" >&2
rm -f "$stamp"
[ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null || { rm -rf .venv; "$python" -m venv .venv; }

# torch first and alone: with it in place nothing below can pull in another build of it.
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
targets=(-e ".[dev,transport]")
for room in "${rooms[@]}"; do
  [ "$room" = . ] || targets+=(-e "./$room")
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "${targets[@]}"
echo "$fingerprint" > "$stamp"
echo "ready: .venv/bin/python" >&2
