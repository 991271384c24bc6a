#!/usr/bin/env bash
# Submits a sweep: an array job that answers, and a job for the tables once all of it has ended
# well. Submitted again it goes on where it stopped. Written by otprune slurm.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"/../../..
mkdir -p -- scripts/slurm/example/log
array=$(sbatch --parsable scripts/slurm/example/array.sbatch)
array=${array%%;*}
tables=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes scripts/slurm/example/tables.sbatch)
echo "array job $array, then tables in job ${tables%%;*}; output in "scripts/slurm/example/log
