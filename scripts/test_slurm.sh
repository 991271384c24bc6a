#!/usr/bin/env bash
# A sweep on a real Slurm: starts one of its own on this machine (munge, slurmctld, slurmd; nothing
# of another Slurm is touched), runs a 3-task array on two cores, kills one task's process with
# SIGKILL and has Slurm requeue another one, and compares with a run without Slurm. Takes minutes.
#   bash scripts/test_slurm.sh           needs root; installs slurm-wlm and munge where they are missing
#   KEEP=1 bash scripts/test_slurm.sh    leaves its folder
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=$root/.venv/bin/python
patience=${PATIENCE:-3600} # seconds; a requeued task waits two minutes unless `release` starts it

[ "$(id -u)" -eq 0 ] || { echo "test_slurm.sh must run as root, to start Slurm" >&2; exit 2; }
if ! { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null; then
  echo "installing slurm-wlm and munge" >&2
  apt-get update -qq
  # Their services cannot start in a container, and need not.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge > /dev/null
fi

began=$SECONDS
say() { printf '%4d s: %s\n' "$((SECONDS - began))" "$*" >&2; }
fail() {
  echo "test_slurm.sh: $*" >&2
  exit 1
}

# Slurm's own paths know no spaces; every path that the scripts see has one.
service=$(mktemp -d /tmp/test-slurm.XXXXXX)
dir=$(mktemp -d "${TMPDIR:-/tmp}/test slurm.XXXXXX")
chmod 755 "$service" "$dir"
daemons=()
clean() {
  status=$?
  if [ "${#daemons[@]}" -gt 0 ]; then
    scancel --quiet --user root 2> /dev/null || true
    sleep 2
    kill "${daemons[@]}" 2> /dev/null || true
    wait "${daemons[@]}" 2> /dev/null || true
  fi
  rm -rf "$service"
  if [ "$status" -ne 0 ]; then
    tail -n 25 "$dir"/jobs/log/*.out >&2 2> /dev/null || true
  fi
  if [ -n "${KEEP:-}" ]; then echo "left: $dir" >&2; else rm -rf "$dir"; fi
  exit "$status"
}
trap clean EXIT

start_slurm() {
  local host control node
  host=$(hostname -s)
  control=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  node=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  mkdir "$service/state" "$service/spool" "$service/log"
  (umask 077 && head -c 1024 /dev/urandom > "$service/munge.key")
  cat > "$service/slurm.conf" << EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$service/munge.socket
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$control
SlurmdPort=$node
StateSaveLocation=$service/state
SlurmdSpoolDir=$service/spool
SlurmctldPidFile=$service/slurmctld.pid
SlurmdPidFile=$service/slurmd.pid
SlurmctldLogFile=$service/log/slurmctld.log
SlurmdLogFile=$service/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
  export SLURM_CONF=$service/slurm.conf
  munged --foreground --force --key-file="$service/munge.key" --socket="$service/munge.socket" \
    --pid-file="$service/munged.pid" --log-file="$service/log/munged.log" \
    --seed-file="$service/munge.seed" 2> "$service/log/munged.err" &
  daemons+=($!)
  for _ in $(seq 100); do [ -S "$service/munge.socket" ] && break || sleep 0.2; done
  slurmctld -D 2> /dev/null &
  daemons+=($!)
  slurmd -D 2> /dev/null &
  daemons+=($!)
  for _ in $(seq 300); do
    if sinfo --noheader --format=%T 2> /dev/null | grep -q idle; then return; fi
    sleep 0.2
  done
  tail -n 20 "$service"/log/* >&2
  fail "Slurm did not start"
}

# until_true SECONDS COMMAND...: wait for a command to succeed.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then return 1; fi
    sleep 0.3
  done
}

answers() { cat "$journal"/part-*.jsonl 2> /dev/null | grep -c '"kind":"answer"' || true; }

# Process of a shard; nothing if it does not run.
worker() { pgrep -f -- "otprune_lmms sweep $dir/.* --shard $1/3 " || true; }

# A shard's process has written more than ten answers; its file may hold those of another one.
seen_by=none
at_work() {
  local pid part count
  release
  pid=$(worker "$1")
  part=$(open_part "$pid")
  [ -n "$part" ] || return 1
  count=$(grep -c '"kind":"answer"' "$part" || true)
  if [ "$seen_by" != "$pid" ]; then
    seen_by=$pid
    seen=$count
  fi
  [ "$((count - seen))" -gt 10 ]
}

# Journal file that a process holds open; nothing if there is none yet.
open_part() {
  if [ -z "$1" ]; then return; fi
  find "/proc/$1/fd" -lname "$journal/part-*" -printf '%l\n' 2> /dev/null | head -n 1 || true
}

# A requeued task is held for two minutes; not here.
release() {
  squeue --noheader --states=PENDING --format='%i %r' | while read -r id reason; do
    if [ "$reason" = BeginTime ]; then scontrol update "JobId=$id" StartTime=now || true; fi
  done
}

finished() {
  release
  [ -z "$(squeue --noheader)" ]
}

journal=$dir/journal
cat > "$dir/try.yaml" << EOF
name: try
title: A sweep on Slurm
suite: mini
java: optional
models:
  - {name: llava-mini, pretrained: $root/LLaVA/checkpoints/llava-mini, dtype: float32, batch_size: 4}
tasks: [pope, mme]
pruning:
  keep_ratios: [0.05, 0.098, 0.2, 0.4]
  methods: [otprune, {method: random, seeds: [0, 1]}]
EOF
sed 's/name: try/name: more/; s/\[0.05, 0.098, 0.2, 0.4\]/[0.098, 0.6]/' "$dir/try.yaml" > "$dir/more.yaml"
sweep=("$dir/try.yaml" "$dir/more.yaml" --no-report)

start_slurm
say "Slurm $(sinfo --version | cut -d' ' -f2) is up"

"$python" -m otprune_lmms slurm "${sweep[@]}" --shards 3 --gpus-per-task 0 --cpus-per-task 1 \
  --max-parallel 2 --time 2:00:00 --journal "$journal" --output-dir "$dir/by slurm" --dir "$dir/jobs"
(cd / && bash "$dir/jobs/submit.sh")
array=$(squeue --noheader --array --format='%F' | sort -n | head -1)
say "array job $array submitted"

until_true "$patience" at_work 2 || fail "task 2 never began"
kill -KILL "$(worker 2)"
say "task 2 killed with SIGKILL, after $(answers) answers of all tasks"
until_true 120 grep -q "killed by signal 9: back into the queue" "$dir"/jobs/log/*_2.out ||
  fail "task 2 did not go back into the queue"

until_true "$patience" at_work 3 || fail "task 3 never began"
scontrol requeue "${array}_3"
say "task 3 requeued by Slurm, after $(answers) answers of all tasks"
"$python" -m otprune_lmms status "$dir/try.yaml" "$dir/more.yaml" --journal "$journal" >&2

until_true "$patience" finished || fail "jobs did not end in $patience s: $(squeue --noheader)"
say "all jobs have ended"
for task in 2 3; do
  grep -q "start 1 on" "$dir"/jobs/log/*_"$task".out || fail "task $task was not started again"
done
for log in "$dir"/jobs/log/*.out; do
  tail -n 1 "$log" | grep -q ": done$" || fail "$log does not end well"
done

"$python" -m otprune_lmms sweep "${sweep[@]}" --quiet --journal "$dir/plain journal" \
  --output-dir "$dir/plain" > /dev/null
say "the same without Slurm"
for name in try more; do
  for file in records.csv table.csv; do
    cmp "$dir/by slurm/$name/$file" "$dir/plain/$name/$file"
  done
done
"$python" - "$journal" "$dir/plain journal" << 'EOF'
import sys
from pathlib import Path

from otprune_lmms.journal import Journal

slurm, plain = (Journal(Path(folder), readonly=True) for folder in sys.argv[1:])
if slurm.report.repeated or slurm.report.skipped or slurm.report.torn:
    sys.exit(f"the journal is not clean: {slurm.report}")
if {one.key: one.text for one in slurm} != {one.key: one.text for one in plain}:
    sys.exit("other answers than without Slurm")
print(f"{len(slurm)} answers, each once, in {slurm.report.files} files", file=sys.stderr)
EOF
say "the tables are the same, and no answer is there twice"
