#!/usr/bin/env bash
# Lint, types, the direction of imports and tests of all packages. Arguments go to pytest: bash scripts/test.sh -k greedy
# Tests are shared out among as many processes as there are cores, at most eight.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" PYTHONHASHSEED=0

ruff check .
ruff format --check .
lint-imports --no-cache
# Beside the first tests, which leave parts of the cores idle.
pyright --warnings & types=$!
trap 'kill "$types" 2> /dev/null || true' EXIT
for folder in . LLaVA lmms_eval; do
  if [ -d "$folder/tests" ]; then
    echo "tests in $folder" >&2
    (cd "$folder" && python -m pytest -q -n logical --maxprocesses=8 --dist=worksteal "$@")
  fi
  if [ "$folder" = . ]; then wait "$types"; fi
done
