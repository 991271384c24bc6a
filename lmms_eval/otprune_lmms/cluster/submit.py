"""Sweeps through submitit: from Python to Slurm, or to this machine.

    submitted = submit([Path("configs/paper.yaml")], 8, Path("logs/submitit"),
                       parameters={"slurm_partition": "gpu", "slurm_gres": "gpu:1"})
    submitted.tables.result()

Tasks start ``otprune sweep`` as a process of its own, as the scripts of `cluster.slurm` do. Needs
``pip install -e lmms_eval[cluster]``.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otprune_lmms.cluster.slurm import no_option
from otprune_lmms.environment import child_environment
from otprune_lmms.experiments.shard import By, Shard

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

PROGRAM = ("-m", "otprune_lmms")

_PATIENCE = 30.0
"""Seconds between SIGTERM and SIGKILL for a process that does not end."""


class CommandError(RuntimeError):
    """A command that ended with a status other than 0."""


@dataclass(frozen=True)
class Command:
    """A command that submitit runs, and that may be stopped and started again.

    Attributes:
        words: program and arguments.
        folder: working folder.
    """

    words: tuple[str, ...]
    folder: Path

    def __call__(self) -> int:
        """Run the command and wait for it; if this process is interrupted, the command is ended.

        Raises:
            CommandError: it ended with a status other than 0.
        """
        child = subprocess.Popen(self.words, cwd=self.folder, env=child_environment())
        try:
            status = child.wait()
        finally:
            _end(child)
        if status:
            raise CommandError(f"{' '.join(self.words)} ended with status {status}")
        return status

    def checkpoint(self) -> "DelayedSubmission":
        """Return what submitit requeues shortly before the task's time limit: the same command."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@dataclass(frozen=True)
class Submitted:
    """The jobs of a submitted sweep.

    Attributes:
        shards: the job of each shard.
        tables: the job that makes the tables.
    """

    shards: "tuple[Job[int], ...]"
    tables: "Job[int]"


def submit(
    configs: Sequence[Path],
    shards: int,
    folder: Path,
    *,
    shard_by: By = "documents",
    arguments: Sequence[str] = (),
    processes: int = 1,
    cluster: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    root: Path | None = None,
    program: Sequence[str] = PROGRAM,
) -> Submitted:
    """Submit a sweep: an array of shards, and a job for the tables that depends on it.

    Without Slurm (``cluster`` "local" or "debug") the shards run on this machine, and the call
    waits for them before the tables' job is submitted; an error of a shard is raised as submitit
    passes it on.

    Args:
        configs: experiment files.
        shards: number of array tasks.
        folder: folder of submitit's own files and the jobs' output.
        shard_by: "documents" or "configs", see `Shard`.
        arguments: further arguments of ``otprune sweep``.
        processes: processes of torchrun in a task.
        cluster: as in submitit; None for Slurm if it is installed, else this machine.
        parameters: as in submitit's ``update_parameters``: ``timeout_min``, ``slurm_partition``,
            ``slurm_array_parallelism``, ``slurm_gres``, ``cpus_per_task``, ``mem_gb``.
        root: folder that the jobs run in; None for the current one.
        program: arguments of Python that start ``otprune``; tests replace them.

    Raises:
        ValueError: shards below 1, processes below 1.
        ImportError: submitit is not installed.
    """
    from submitit import AutoExecutor

    if processes < 1:
        raise ValueError(f"processes must be >= 1, got {processes}")
    parts = [Shard(number, shards, shard_by) for number in range(1, max(1, shards) + 1)]
    where = root or Path.cwd()
    sweep = ["sweep", *(no_option(str(one)) for one in configs), *arguments]
    launcher = [] if processes == 1 else _torchrun(processes)
    executor = AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**{"name": "otprune", **(parameters or {})})
    commands = [
        Command((sys.executable, *launcher, *program, *sweep, *_options(part)), where)
        for part in parts
    ]
    jobs = executor.submit_array(commands)
    _after(executor, jobs)
    tables = executor.submit(Command((sys.executable, *program, *sweep), where))
    return Submitted(tuple(jobs), tables)


def _torchrun(processes: int) -> list[str]:
    options = ["--standalone", "--max-restarts=2", f"--nproc_per_node={processes}"]
    return ["-m", "torch.distributed.run", *options]


def _options(part: Shard) -> list[str]:
    return ["--shard", str(part), "--shard-by", part.by]


def _after(executor: "AutoExecutor", jobs: "Sequence[Job[int]]") -> None:
    """Let the next job wait until others have succeeded."""
    if executor.cluster == "slurm":
        array = jobs[0].job_id.partition("_")[0]
        executor.update_parameters(slurm_dependency=f"afterok:{array}")
        return
    for job in jobs:
        job.result()
