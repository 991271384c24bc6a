#!/usr/bin/env bash
# The tests that scripts/test.sh leaves out because they take minutes. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" PYTHONHASHSEED=0
cd lmms_eval
python -m pytest -q -m long "$@"
