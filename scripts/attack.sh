#!/usr/bin/env bash
# Attacks the harness on this machine: processes killed at random moments, bad inputs, two runs compared.
#   bash scripts/attack.sh                             everything in full, half an hour on two cores
#   bash scripts/attack.sh journal --share 0.1 --seed 7    a tenth of one part, drawn from another seed
# Figures go to results/reliability (--output FOLDER: elsewhere); docs/reliability.md is made of them.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
# Children are forked from a process with everything loaded, which works in one thread.
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONHASHSEED=0 COLUMNS=200
export PYTHONPATH="$PWD/scripts:$PWD/lmms_eval/tests:$PWD/LLaVA/tests"
exec .venv/bin/python -W ignore -m attack "$@"
