"""Slurm job scripts of a sweep: one array job that answers, and one that makes the tables.

An array task answers one shard. Every answer is written as it is made, so a task that is requeued,
by Slurm or by itself shortly before its time limit, continues where it stopped. The tables' job
depends on the array (``afterok``). The scripts are plain bash, to be read and changed.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from otprune_lmms.experiments.shard import By

ARRAY, TABLES, SUBMIT = "array.sbatch", "tables.sbatch", "submit.sh"

_TEMPLATES = Path(__file__).parent / "templates"

_TIME = r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}"

_UNSAFE = r"[\x00-\x1f\x7f\"'\\]"
"""Characters that an sbatch directive cannot contain."""


@dataclass(frozen=True)
class SlurmJob:
    """A sweep as Slurm jobs.

    Attributes:
        name: name of the jobs.
        configs: experiment files, relative to the folder that the jobs run in.
        shards: number of array tasks.
        shard_by: "documents" or "configs", see `Shard`.
        arguments: further arguments of ``otprune sweep``, for array and tables.
        gpus_per_task: GPUs of an array task; the tables' job has one if this is not 0.
        processes_per_task: processes of torchrun in a task; None for one for each GPU, at least 1.
        cpus_per_task: CPU cores of a task.
        mem: memory of a task, such as ``32G``.
        time: time limit of a task, such as ``4:00:00`` or ``1-0``; a task is requeued 2 minutes
            before it.
        partition, account: as in Slurm; None for the cluster's default.
        max_parallel: array tasks at one time; None for no limit.
        max_restarts: a task that has been requeued this often fails.
        options: further options of ``sbatch``, such as ``--constraint=a100``.
        setup: shell lines before the work, such as ``module load cuda``.
        python: the interpreter, relative to the folder that the jobs run in.

    Raises:
        ValueError: a number, time or text that Slurm would not accept.
    """

    name: str
    configs: tuple[str, ...]
    shards: int
    shard_by: By = "documents"
    arguments: tuple[str, ...] = ()
    gpus_per_task: int = 1
    processes_per_task: int | None = None
    cpus_per_task: int = 4
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    max_parallel: int | None = None
    max_restarts: int = 20
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str = "python"

    def __post_init__(self) -> None:
        """Check the settings."""
        least = {"shards": 1, "gpus_per_task": 0, "cpus_per_task": 1, "max_restarts": 0}
        least |= {"processes_per_task": 1, "max_parallel": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} must be >= {lowest}, got {value}")
        if self.time is not None and not re.fullmatch(_TIME, self.time):
            raise ValueError(f"time must be as 30, 4:00:00 or 1-12:00:00, got {self.time!r}")
        if self.mem is not None and not re.fullmatch(r"\d+[KMGT]?", self.mem):
            raise ValueError(f"mem must be as 32G, got {self.mem!r}")
        if not self.configs:
            raise ValueError("configs must name at least one experiment file, got none")
        for text in (self.name, self.partition, self.account, *self.options):
            if text is not None and re.search(_UNSAFE, text):
                raise ValueError(
                    f"a value for sbatch must have no quotes or control characters, got {text!r}"
                )

    @property
    def processes(self) -> int:
        """Processes of an array task."""
        return self.processes_per_task or max(1, self.gpus_per_task)


def write_scripts(job: SlurmJob, folder: Path, root: Path) -> tuple[Path, Path, Path]:
    """Write the scripts of a sweep, and a folder ``log`` for their output; return the scripts.

    Args:
        job: the sweep.
        folder: folder of the scripts.
        root: folder that the jobs run in; relative paths start there.

    Returns:
        The paths of array script, tables script and submit script.

    Raises:
        OSError: they cannot be written.
        ValueError: the folder's name has quotes, a backslash or a newline.
    """
    logs = folder / "log"
    logs.mkdir(parents=True, exist_ok=True)
    shown = no_option(os.path.relpath(folder, root))
    paths = (folder / ARRAY, folder / TABLES, folder / SUBMIT)
    texts = (array_script(job, shown), tables_script(job, shown), submit_script(shown))
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    paths[2].chmod(0o755)
    return paths


def no_option(path: str) -> str:
    """Return a path that no program takes for an option: ``-x`` becomes ``./-x``."""
    return f"./{path}" if path.startswith("-") else path


def array_script(job: SlurmJob, folder: str) -> str:
    """Return the array job's script; ``folder`` is that of the scripts, relative to the root."""
    parallel = f"%{job.max_parallel}" if job.max_parallel else ""
    options = [
        f"--job-name={job.name}",
        f"--array=1-{job.shards}{parallel}",
        f"--output={_pattern(folder)}/log/%x-%A_%a.out",
        *_resources(job, job.gpus_per_task),
    ]
    launcher = [job.python, "-m"]
    if job.processes > 1:
        launcher += ["torch.distributed.run", "--standalone", "--max-restarts=2"]
        launcher += [f"--nproc_per_node={job.processes}", "-m"]
    command = shlex.join(
        [*launcher, "otprune_lmms", "sweep", *map(no_option, job.configs), *job.arguments]
    )
    shard = f'--shard "$SLURM_ARRAY_TASK_ID/{job.shards}" --shard-by {job.shard_by}'
    return _filled(
        "job.sh",
        DIRECTIVES=_directives(options),
        SAYS="# Answers one shard of a sweep. Every answer is on disk as it comes: a task that is\n"
        "# requeued goes on where it stopped. How far all are: otprune status.",
        TASK=f'"shard $SLURM_ARRAY_TASK_ID of {job.shards}"',
        JOB='"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
        COMMAND=f"{command}\n  {shard}",
        THREADS=max(1, job.cpus_per_task // job.processes),
        RESTARTS=job.max_restarts,
        SETUP="".join(f"{line}\n" for line in job.setup),
    )


def tables_script(job: SlurmJob, folder: str) -> str:
    """Return the script of the tables' job; see `array_script`."""
    options = [
        f"--job-name={job.name}-tables",
        f"--output={_pattern(folder)}/log/%x-%j.out",
        *_resources(job, min(1, job.gpus_per_task)),
    ]
    return _filled(
        "job.sh",
        DIRECTIVES=_directives(options),
        SAYS="# Makes the tables of a sweep from its answers, once all shards have ended well.",
        TASK="tables",
        JOB='"$SLURM_JOB_ID"',
        COMMAND=shlex.join(
            [
                job.python,
                "-m",
                "otprune_lmms",
                "sweep",
                *map(no_option, job.configs),
                *job.arguments,
            ]
        ),
        THREADS=job.cpus_per_task,
        RESTARTS=job.max_restarts,
        SETUP="".join(f"{line}\n" for line in job.setup),
    )


def submit_script(folder: str) -> str:
    """Return the script that submits both jobs, from anywhere; see `array_script`."""
    array, tables, logs = (shlex.quote(f"{folder}/{one}") for one in (ARRAY, TABLES, "log"))
    up = shlex.quote(os.path.relpath(".", folder))
    return _filled("submit.sh", UP=up, ARRAY=array, TABLES=tables, LOGS=logs)


def _resources(job: SlurmJob, gpus: int) -> list[str]:
    found = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={job.cpus_per_task}"]
    found += [f"--gres=gpu:{gpus}"] if gpus else []
    for name in ("mem", "time", "partition", "account"):
        value = getattr(job, name)
        found += [] if value is None else [f"--{name}={value}"]
    return [*found, "--requeue", "--open-mode=append", "--signal=B:USR1@120", *job.options]


def _directives(options: Sequence[str]) -> str:
    return "\n".join(f"#SBATCH {_directive(option)}" for option in options)


def _directive(option: str) -> str:
    name, equals, value = option.partition("=")
    return f'{name}="{value}"' if equals and re.search(r"\s", value) else option


def _filled(template: str, **values: object) -> str:
    """Return a template of this package, each @NAME@ replaced by its value."""
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: str(values[found[1]]), text)


def _pattern(folder: str) -> str:
    """Return a folder as part of sbatch's file name pattern, with % escaped."""
    if re.search(_UNSAFE, folder):
        raise ValueError(
            f"folder must have no quotes or control characters in its name, got {folder!r}"
        )
    return folder.replace("%", "%%")
