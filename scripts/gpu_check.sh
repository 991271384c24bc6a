#!/usr/bin/env bash
# On a CUDA GPU, in nine minutes at most: tests that need one, selection, LLaVA-1.5-7B and Qwen2.5-VL-7B of random weights
# pruned and unpruned, the harness. Needs no hub. Writes results/gpu/. Arguments go to scripts/gpu_check.py.
#   bash scripts/gpu_check.sh --no-setup ...    with the machine's own Python and packages, where nothing can be installed.
# Needs torch 2.6, jaxtyping, typer and packaging; `tests` also pytest and hypothesis; `answers`, `prefill` and `flash` also
# transformers 5.18 or newer; `harness` transformers 5.23 and what lmms_eval/pyproject.toml lists. A part whose needs are not
# met says so and the others run. With PYTHONPATH=FOLDER pure Python packages can be brought along:
# pip install --no-deps --target FOLDER transformers==5.23.0
# Where only a small tree can be copied to: of results/ and of the two checkpoints' model.safetensors (76 MB) nothing is read;
# without them the tree is 46 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --no-setup ]; then
  shift
  python=${PYTHON:-python3}
  # Added behind what is there.
  export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD/src:$PWD/LLaVA:$PWD/lmms_eval"
else
  bash scripts/setup.sh
  python=.venv/bin/python
fi
"$python" -c 'import jaxtyping, packaging, torch, typer' || {
  echo "gpu_check.sh: $python must have torch, jaxtyping, typer and packaging" >&2
  exit 2
}
PYTHONHASHSEED=0 "$python" scripts/gpu_check.py "$@"
