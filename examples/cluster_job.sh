#!/usr/bin/env bash
# Write the Slurm scripts of a sweep in eight parts, and show them. Nothing is submitted.
#   bash examples/cluster_job.sh [FOLDER]     default: logs/slurm/mini
# Then, on a cluster: bash FOLDER/submit.sh. The parts share one journal of answers, so that a part
# that is killed goes on where it stopped, and the job for the tables waits for all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-logs/slurm/mini}

.venv/bin/otprune slurm configs/mini.yaml --shards 8 --dir "$folder" \
  --gpus-per-task 0 --cpus-per-task 4 --mem 8G --time 2:00:00
ls "$folder"
cat "$folder/submit.sh"
