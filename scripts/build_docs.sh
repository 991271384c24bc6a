#!/usr/bin/env bash
# Build the site of docs/ into site/. A link that leads nowhere, or a page without a place, fails.
#   bash scripts/build_docs.sh            build
#   bash scripts/build_docs.sh serve      build and show at http://127.0.0.1:8000, anew when a page changes
# The tools have an environment of their own, .venv-docs: ten seconds once. Building needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."

# mkdocs-material advertises its successor at each build.
export NO_MKDOCS_2_WARNING=1

wanted=$(cksum < scripts/docs/requirements.txt)
stamp=.venv-docs/.installed
if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  rm -rf .venv-docs
  "${PYTHON:-python3}" -m venv .venv-docs
  .venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    -r scripts/docs/requirements.txt
  echo "$wanted" > "$stamp"
fi
if [ "${1:-}" = serve ]; then exec .venv-docs/bin/mkdocs serve; fi
exec .venv-docs/bin/mkdocs build --clean
