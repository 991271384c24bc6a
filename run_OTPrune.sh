#!/usr/bin/env bash
# The main job: sets itself up on a fresh machine, then runs experiments and prints their tables.
#   bash run_OTPrune.sh                        with a CUDA GPU configs/paper.yaml, else configs/mini.yaml
#   bash run_OTPrune.sh configs/mini.yaml      the experiment of your choice, or several
#   bash run_OTPrune.sh configs/mini.yaml --limit 8 --batch-size 4
#   bash run_OTPrune.sh --help                 all options
# Run again after an interruption and it goes on where it stopped. Several GPUs share the documents.
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")"
bash scripts/setup.sh

chosen=no
arguments=()
for argument in "$@"; do
  case $argument in
    *.yaml | *.yml)
      chosen=yes
      # From another folder an experiment of its own may be meant.
      if [ "$caller" != "$PWD" ] && [ -f "$caller/$argument" ]; then argument=$caller/$argument; fi
      ;;
    -h | --help) chosen=yes ;;
    *) if [ -f "configs/$argument.yaml" ]; then chosen=yes; fi ;; # an embedded one, by name
  esac
  arguments+=("$argument")
done

gpus=$(.venv/bin/python -c 'import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)')
if [ "$chosen" = no ]; then
  if [ "$gpus" -gt 0 ]; then
    experiment=configs/paper.yaml
    echo "CUDA GPUs found: $gpus. Running $experiment: the paper's models and benchmarks, from the hub." >&2
    echo "The embedded model and data instead: bash run_OTPrune.sh configs/mini.yaml" >&2
  else
    experiment=configs/mini.yaml
    echo "No CUDA GPU found. Running $experiment: the embedded model on the embedded data." >&2
    echo "The paper's models and benchmarks instead: bash run_OTPrune.sh configs/paper.yaml" >&2
  fi
  arguments=("$experiment" "${arguments[@]}")
fi

launcher=()
if [ "$gpus" -gt 1 ]; then
  launcher=(-m torch.distributed.run --standalone --nproc_per_node "$gpus")
fi
exec .venv/bin/python "${launcher[@]}" -m otprune_lmms run "${arguments[@]}"
