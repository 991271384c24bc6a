"""``otprune slurm``: job scripts of a sweep."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.options import (
    JOURNAL,
    RESULTS,
    BatchSize,
    Calibration,
    Configs,
    Limit,
    ShardBy,
    Strict,
    VisualStore,
    WithoutJava,
    path,
)
from otprune_lmms.cli.run import ReportOption
from otprune_lmms.cli.terminal import say
from otprune_lmms.cluster.slurm import SlurmJob, write_scripts

Shards = Annotated[int, typer.Option(min=1, help="array tasks")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--dir", parser=path, metavar="FOLDER", help="of the scripts; default logs/slurm/<name>"
    ),
]
Gpus = Annotated[int, typer.Option(min=0, help="GPUs of a task; 0 for none")]
Processes = Annotated[
    int | None, typer.Option(min=1, help="processes of a task, under torchrun; default one a GPU")
]
Cpus = Annotated[int, typer.Option(min=1, help="CPU cores of a task")]
Mem = Annotated[str | None, typer.Option(help="memory of a task, as 32G")]
Time = Annotated[
    str | None, typer.Option(help="limit of a task, as 4:00:00; then it is requeued and goes on")
]
Partition = Annotated[str | None, typer.Option(help="as in sbatch")]
Account = Annotated[str | None, typer.Option(help="as in sbatch")]
MaxParallel = Annotated[int | None, typer.Option(min=1, help="tasks at one time")]
SbatchOption = Annotated[
    list[str] | None, typer.Option(help="more for sbatch, as --sbatch=--constraint=a100; repeats")
]
Setup = Annotated[
    list[str] | None, typer.Option(help='a shell line first, as "module load cuda"; repeats')
]
ResultsDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        parser=path,
        metavar="FOLDER",
        help=f"folder of the results folders ({RESULTS})",
    ),
]
SweepJournal = Annotated[
    Path | None,
    typer.Option(
        "--journal", parser=path, metavar="FOLDER", help=f"folder of finished answers ({JOURNAL})"
    ),
]
SweepGib = Annotated[
    float | None,
    typer.Option("--visual-store-gib", min=0.001, help="GiB that this folder may take"),
]
Submit = Annotated[bool, typer.Option("--submit", help="submit them as well")]


def slurm(
    configs: Configs,
    shards: Shards,
    shard_by: ShardBy = "documents",
    folder: Folder = None,
    gpus_per_task: Gpus = 1,
    processes_per_task: Processes = None,
    cpus_per_task: Cpus = 4,
    mem: Mem = None,
    time: Time = None,
    partition: Partition = None,
    account: Account = None,
    max_parallel: MaxParallel = None,
    sbatch: SbatchOption = None,
    setup: Setup = None,
    output_dir: ResultsDir = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    journal: SweepJournal = None,
    without_java: WithoutJava = False,
    strict: Strict = False,
    calibration: Calibration = False,
    report: ReportOption = True,
    visual_store: VisualStore = None,
    visual_store_gib: SweepGib = None,
    submit: Submit = False,
) -> None:
    """Write Slurm scripts of a sweep: one array job, and a job for the tables that depends on it.

    Each array task is ``otprune sweep ... --shard i/N``. Tasks are requeued when a node fails, when
    they are killed, and before their time limit, and go on where they stopped. Paths are meant as
    seen from here, the folder that the jobs run in.

    Example: otprune slurm configs/paper.yaml --shards 8
    """
    log(quiet=False)
    from otprune_lmms.cli.experiments import read_sources

    try:
        # The jobs run elsewhere.
        read_sources(configs, hub=False)
        name = "-".join(path.stem for path in configs)[:60]
        values = {"output-dir": output_dir, "limit": limit, "batch-size": batch_size}
        values |= {"visual-store": visual_store, "visual-store-gib": visual_store_gib}
        flags = {"without-java": without_java, "strict": strict, "no-report": not report}
        flags["calibration"] = calibration
        arguments = _sweep_arguments(values | {"journal": journal}, flags)
        job = SlurmJob(
            name=f"otprune-{name}",
            configs=tuple(map(str, configs)),
            shards=shards,
            shard_by=shard_by,
            arguments=tuple(arguments),
            gpus_per_task=gpus_per_task,
            processes_per_task=processes_per_task,
            cpus_per_task=cpus_per_task,
            mem=mem,
            time=time,
            partition=partition,
            account=account,
            max_parallel=max_parallel,
            options=tuple(sbatch or ()),
            setup=tuple(setup or ()),
            python=_python(),
        )
        paths = write_scripts(job, folder or Path("logs") / "slurm" / name, Path.cwd())
    except (ValueError, OSError) as error:
        fail(error, 2)
    for script in paths:
        say(script)
    if submit:
        _submit(paths[-1])


def _sweep_arguments(values: Mapping[str, object], flags: Mapping[str, bool]) -> list[str]:
    found = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return found + [f"--{name}" for name, given in flags.items() if given]


def _python() -> str:
    """Return this interpreter, as seen from here if it lies below."""
    here = os.path.relpath(sys.executable)
    return sys.executable if here.startswith("..") else here


def _submit(script: Path) -> None:
    try:
        done = subprocess.run(["bash", "--", str(script)], check=False)
    except FileNotFoundError as error:
        fail(error, 1)
    if done.returncode:
        fail(f"{script} ended with status {done.returncode}; is this a machine with Slurm?", 1)
