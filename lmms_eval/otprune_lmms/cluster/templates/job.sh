#!/usr/bin/env bash
@DIRECTIVES@
# Written by otprune slurm; submit.sh beside it submits it.
@SAYS@
set -euo pipefail

say() { printf '%s %s: %s\n' "$(date '+%F %T')" @TASK@ "$*"; }

requeue() {
  if [ "${SLURM_RESTART_COUNT:-0}" -ge @RESTARTS@ ]; then
    say "$1, and requeued ${SLURM_RESTART_COUNT:-0} times already: giving up"
    exit 1
  fi
  say "$1: back into the queue"
  scontrol requeue @JOB@
  # Slurm ends this script.
  sleep 600
  exit 1
}

# What Slurm and launchers tell a process is not meant for those that it starts itself.
scrub=()
while IFS= read -r name; do
  case $name in
    SLURM_CONF) ;;
    SLURM_* | SLURMD_* | SBATCH_* | SRUN_* | PMI_* | PMIX_* | OMPI_* | MV2_*) scrub+=(-u "$name") ;;
    MASTER_* | RANK | *_RANK | WORLD_SIZE | *_WORLD_SIZE) scrub+=(-u "$name") ;;
  esac
done < <(compgen -e)

@SETUP@export OMP_NUM_THREADS=@THREADS@
command=(
  @COMMAND@
)
say "start ${SLURM_RESTART_COUNT:-0} on $(hostname), in $PWD: ${command[*]@Q}"
env "${scrub[@]}" "${command[@]}" &
child=$!

near=no
again=yes
on_signal() {
  near=yes
  again=yes
  say "the time limit is near"
  kill -TERM "$child" 2> /dev/null || true
}
trap on_signal USR1
while [ "$again" = yes ]; do
  # A signal ends the wait, not the child.
  again=no
  status=0
  wait "$child" || status=$?
done

if [ "$status" -eq 0 ]; then
  say "done"
elif [ "$near" = yes ]; then
  requeue "stopped before its time limit"
elif [ "$status" -gt 128 ]; then
  requeue "killed by signal $((status - 128))"
else
  say "failed with status $status"
fi
exit "$status"
