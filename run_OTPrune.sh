#!/usr/bin/env bash
# The main job. Sets itself up on a fresh machine, then runs what the harness can run so far: every
# selection method on visual tokens of real photos, with its distance to the full set and its time.
# The benchmarks join here with the model and the harness room. Arguments go to the study:
#   bash run_OTPrune.sh --keep-ratio 0.2
set -euo pipefail
cd "$(dirname "$0")"
bash scripts/setup.sh
exec .venv/bin/python scripts/study_transport.py "$@"
