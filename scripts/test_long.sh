#!/usr/bin/env bash
# The tests that scripts/test.sh leaves out because they take long. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" PYTHONHASHSEED=0
for package in LLaVA lmms_eval; do
  (cd "$package" && python -m pytest -q -m long "$@")
done
bash scripts/test_wrappers.sh
bash scripts/test_transformers_versions.sh
bash scripts/check_wheels.sh
bash scripts/test_serving.sh
# All parts with small models on a CPU.
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bash scripts/gpu_check.sh --tiny --device cpu --out "$out"
