"""Whole experiments on a toy model: from the file to the results folder and its pages."""

import yaml

from helpers import TINY
from otprune_lmms.experiments.answering import AnswerOptions
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.experiments.folder import write_results
from otprune_lmms.experiments.plan import Source
from otprune_lmms.experiments.run import run_experiments
from otprune_lmms.reporting.statistics import write_statistics
from otprune_lmms.reporting.tables import write_tables


def write_experiment(folder, tasks, suite="hub"):
    """Write an experiment of two pruning configs; return it with its folder."""
    content = {
        "name": "try",
        "title": "A try",
        "suite": suite,
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "tasks": tasks,
        "pruning": {"keep_ratios": [0.25], "methods": ["divprune"]},
        "workers": 1,
    }
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    return Source(load_experiment(path), folder)


def ran(source, folder):
    """Run an experiment; return what was found and its results folder."""
    options = AnswerOptions(folder / "journal", progress=False)
    (outcome,) = run_experiments([source], options)
    output = folder / "results"
    write_results(source.experiment, outcome, output, "a command", 1.0)
    write_statistics(output)
    write_tables(output)
    return outcome, output
