"""Sweeps through submitit, on this machine; the sweep itself is a stand-in."""

import gc
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest
import submitit

from helpers import wait_until
from otprune_lmms.cluster.submit import Command, CommandError, submit
from otprune_lmms.environment import child_environment

SWEEP = """\
import json, os, sys, time
shard = sys.argv[sys.argv.index("--shard") + 1] if "--shard" in sys.argv else "tables"
name = shard.replace("/", "of")
with open(f"begun-{name}", "a") as begun:
    print(os.getppid(), file=begun)
seen = sorted(n for n in os.environ if n.startswith(("SLURM_", "PMI")) or n == "RANK")
report = {"arguments": sys.argv[1:], "seen": seen, "there": sorted(os.listdir("."))}
while os.path.exists(f"wait-{name}"):
    time.sleep(0.05)
if os.path.exists(f"fail-{name}"):
    sys.exit(3)
json.dump(report, open(f"done-{name}", "w"))
"""


# submitit leaves log files open and does not wait for processes that have said what they found.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stand-in.py").write_text(SWEEP)
    yield tmp_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def send(folder, cluster, shards=2, **more):
    given = {"arguments": ("--limit", "2"), "program": ("stand-in.py",), "root": folder, **more}
    return submit([Path("a b.yaml")], shards, folder / "jobs", cluster=cluster, **given)


def report(folder, name):
    return json.loads((folder / f"done-{name}").read_text())


def test_all_shards_run_and_the_tables_after_them(folder, monkeypatch):
    for name in ("SLURM_PROCID", "PMI_SIZE", "RANK"):
        monkeypatch.setenv(name, "1")
    submitted = send(folder, "debug", shards=3, shard_by="configs")
    assert [job.result() for job in (*submitted.shards, submitted.tables)] == [0] * 4
    done = [f"{index}of3" for index in (1, 2, 3)]
    for name in done:
        wanted = ["sweep", "a b.yaml", "--limit", "2", "--shard", name.replace("of", "/")]
        assert report(folder, name)["arguments"] == [*wanted, "--shard-by", "configs"]
    tables = report(folder, "tables")
    assert tables["arguments"] == ["sweep", "a b.yaml", "--limit", "2"]
    assert {f"done-{name}" for name in done} <= set(tables["there"])
    assert tables["seen"] == report(folder, done[0])["seen"] == []


def test_a_shard_that_fails_leaves_no_tables(folder, monkeypatch):
    monkeypatch.setattr("pdb.post_mortem", lambda: None)
    (folder / "fail-2of2").touch()
    with pytest.raises(CommandError, match="--shard 2/2 --shard-by documents ended with status 3"):
        send(folder, "debug")
    assert (folder / "done-1of2").exists()
    assert not (folder / "begun-tables").exists()


def test_a_task_whose_time_is_up_ends_its_command_and_starts_it_again(folder):
    (folder / "wait-1of1").touch()
    executor = submitit.AutoExecutor(folder / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    words = (sys.executable, "stand-in.py", "sweep", "--shard", "1/1")
    job = executor.submit(Command(words, folder))
    begun = folder / "begun-1of1"
    wait_until(lambda: begun.exists() and begun.read_text().endswith("\n"))
    # submitit's own `_interrupt` speaks to the process that looks after the task, which it ends.
    os.kill(int(begun.read_text()), signal.SIGUSR2)
    wait_until(lambda: begun.read_text().count("\n") == 2)
    first, second = begun.read_text().split()
    assert first != second
    (folder / "wait-1of1").unlink()
    assert job.result() == 0
    assert report(folder, "1of1")["arguments"] == ["sweep", "--shard", "1/1"]


def test_a_command_that_is_left_does_not_run_on(tmp_path):
    code = "import time; open('begun', 'w').close(); time.sleep(60); open('late', 'w').close()"

    def leave(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Command((sys.executable, "-c", code), tmp_path)()
        assert time.monotonic() - begin < 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not (tmp_path / "late").exists()


def test_several_processes_of_a_task_are_torchrun_s(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(Command, "__call__", lambda self: seen.append(self.words) or 0)
    submitted = send(folder, "debug", shards=1, processes=4)
    assert submitted.tables.result() == 0
    start = ("-m", "torch.distributed.run", "--standalone", "--max-restarts=2")
    assert seen[0][1:6] == (*start, "--nproc_per_node=4")
    assert seen[0][6] == "stand-in.py"
    assert "torch.distributed.run" not in seen[1]


def test_on_slurm_the_tables_depend_on_the_array(folder, monkeypatch):
    """Without Slurm: what submitit gets, and what it would give to sbatch."""
    sent = []

    class Sent:
        def __init__(self, job_id):
            self.job_id = job_id

    def submit_array(self, commands):
        sent.append(([one.words[-3:] for one in commands], dict(self._executor.parameters)))
        return [Sent(f"77_{index}") for index in range(len(commands))]

    def submit_one(self, command):
        sent.append((command.words[-2:], dict(self._executor.parameters)))
        return Sent("78")

    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(submitit.AutoExecutor, "submit_array", submit_array)
    monkeypatch.setattr(submitit.AutoExecutor, "submit", submit_one)
    parameters = {"slurm_partition": "gpu", "timeout_min": 60, "slurm_array_parallelism": 2}
    submitted = send(folder, "slurm", parameters=parameters)
    assert [job.job_id for job in submitted.shards] == ["77_0", "77_1"]
    (shards, first), (tables, second) = sent
    assert [words[0] for words in shards] == ["1/2", "2/2"]
    assert "dependency" not in first
    assert second["dependency"] == "afterok:77"
    assert (second["partition"], second["time"]) == ("gpu", 60)
    assert tables == ("--limit", "2")


def test_impossible_numbers_are_refused(folder):
    with pytest.raises(ValueError, match="1 <= i <= N"):
        send(folder, "debug", shards=0)
    with pytest.raises(ValueError, match="processes must be >= 1, got 0"):
        send(folder, "debug", processes=0)


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        *((name, False) for name in ("SLURM_JOB_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE")),
        *((name, False) for name in ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "PMIX_RANK")),
        *((name, True) for name in ("SLURM_CONF", "HOME", "FRANK", "CUDA_VISIBLE_DEVICES")),
    ],
)
def test_a_child_s_environment_has_no_launcher_in_it(name, stays, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert (name in child_environment()) == stays
