#!/usr/bin/env bash
# A sweep on all GPUs of this machine: one process each, which share the documents (torchrun).
#   bash scripts/multi_gpu.sh configs/paper/*.yaml
#   PROCESSES=4 bash scripts/multi_gpu.sh configs/paper.yaml --limit 100
# Arguments are those of otprune sweep. Run again after an interruption and it goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
processes=${PROCESSES:-$(.venv/bin/python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
echo "$processes processes" >&2
exec .venv/bin/python -m torch.distributed.run --standalone --nproc_per_node "$processes" \
  -m otprune_lmms sweep "$@"
