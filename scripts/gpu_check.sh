#!/usr/bin/env bash
# On a CUDA GPU: is Qwen2.5-VL-7B at real size pruned rightly in bfloat16, and what does pruning save? Needs no hub, since
# the weights are random, and some minutes. Writes results/gpu/qwen2_5_vl_7b.md. Arguments go to scripts/gpu_check.py.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
PYTHONHASHSEED=0 .venv/bin/python scripts/gpu_check.py "$@"
