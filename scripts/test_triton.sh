#!/usr/bin/env bash
# The selection's Triton programs on a CPU: in Triton's interpreter, and compiled ahead for GPUs. 700 MB of Triton go into a
# folder that is removed at the end. On a machine with a CUDA build of torch scripts/test.sh runs the same tests on the GPU.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PYTHONHASHSEED=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$work" triton==3.9.0
run() { PYTHONPATH=$work .venv/bin/python -m pytest -q -n0 -p no:cacheprovider "$@"; }
TRITON_INTERPRET=1 run tests/greedy/test_triton.py tests/greedy/test_triton_others.py "$@"
run tests/greedy/test_triton_compiles.py "$@"
