"""Experiments written, and run in this process without a command line."""

from pathlib import Path

import yaml

from helpers import TINY
from otprune_lmms.experiments.answering import AnswerOptions
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.experiments.folder import write_results
from otprune_lmms.experiments.outcome import Outcome
from otprune_lmms.experiments.plan import Source
from otprune_lmms.experiments.run import run_experiments
from otprune_lmms.reporting.statistics import write_statistics
from otprune_lmms.reporting.tables import write_tables


def write_experiment(folder: Path, tasks: list[str], suite: str = "hub", **changes) -> Path:
    """Write an experiment of two pruning configs on a tiny model, no controls; return its file."""
    content = {
        "name": "try",
        "title": "A try",
        "suite": suite,
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "tasks": tasks,
        "pruning": {"keep_ratios": [0.25], "methods": ["divprune"]},
        "workers": 1,
    }
    content |= changes
    content["pruning"] = {"controls": False} | content["pruning"]
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def source_of(path: Path) -> Source:
    """An experiment's file."""
    return Source(load_experiment(path), path.parent)


def run(
    source: Source, journal: Path, output: Path, diagnostics=None, *, calibration=False
) -> Outcome:
    """What a run of one experiment finds; nothing is written but the journal."""
    options = AnswerOptions(journal, progress=False, calibration=calibration)
    outcomes = run_experiments([source], options, diagnostics, [output])
    assert outcomes is not None
    (outcome,) = outcomes
    return outcome


def written(source: Source, journal: Path, output: Path, *, statistics=False):
    """Run an experiment and write its results folder and tables; return outcome and table."""
    outcome = run(source, journal, output)
    write_results(source.experiment, outcome, output, "python -m x", 1.0)
    if statistics:
        write_statistics(output)
    return outcome, write_tables(output)
