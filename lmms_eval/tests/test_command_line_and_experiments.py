"""lmms-eval's command line and our experiments: the same answers, the same scores."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers import ROOT, TINY, Done, command
from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.experiments.config import TASKS
from otprune_lmms.scoring import java
from runs import source_of, written
from suites import make_suite

MINI = ROOT / "LLaVA" / "checkpoints" / "llava-mini"
SMALL = ["gqa", "mme", "pope", "scienceqa_img"]


def experiment(folder: Path, checkpoint: Path, suite: str, tasks: list[str], limit: int | None):
    """Records of unpruned and otprune 0.25, and the journal."""
    path = folder / "both.yaml"
    content = {
        "name": "both",
        "title": "Command line and experiment",
        "suite": suite,
        "models": [{"name": "model", "pretrained": str(checkpoint), "dtype": "float32"}],
        "tasks": tasks,
        "pruning": {"controls": False, "methods": ["otprune"], "keep_ratios": [0.25]},
        "java": "optional",
    }
    path.write_text(yaml.safe_dump(content | ({"limit": limit} if limit else {})))
    written(source_of(path), folder / "journal", folder / "results")
    return pd.read_csv(folder / "results" / "records.csv")


def from_the_command_line(results: dict, task: str) -> dict[str, float]:
    """Metrics of a task in a results file."""
    return {
        name.removesuffix(",none"): value
        for name, value in results["results"][task].items()
        if name.endswith(",none") and "stderr" not in name and isinstance(value, int | float)
    }


def check(main, folder, checkpoint, suite, tasks_folder, tasks, limit):
    records = experiment(folder, checkpoint, suite, tasks, limit)
    arguments = {"unpruned": "", "otprune-0.25": ",method=otprune,keep_ratio=0.25"}
    more = [] if limit is None else ["--limit", str(limit)]
    for label, pruning in arguments.items():
        model_args = f"pretrained={checkpoint},dtype=float32,journal={folder / 'journal'}{pruning}"
        said = main(*command(tasks_folder, folder / label, model_args, *more)[3:])
        # The requests are the same, so every answer was in the journal.
        assert "generated=0" in said
        done = Done(0, said, folder / label)
        for task in tasks:
            ours = records[(records["setting"] == label) & (records["task"] == task)]
            theirs = from_the_command_line(done.results, task)
            assert theirs
            assert dict(zip(ours["metric"], ours["value"], strict=True)) == theirs, task
    assert (folder / "otprune-0.25").exists()


def test_both_give_the_same_numbers(main, tmp_path):
    suite = make_suite(tmp_path / "suite", SMALL)
    check(main, tmp_path, TINY, "./suite/tasks", suite, SMALL, None)


@pytest.mark.long
@pytest.mark.skipif(not MINI.exists(), reason="the embedded checkpoint is not there")
@pytest.mark.skipif(java() is None, reason="caption metrics need Java")
def test_the_embedded_default_answers_all_eleven_benchmarks(main, tmp_path):
    check(main, tmp_path, MINI, "mini", TASKS / "mini", list(OTPRUNE_11), 2)
    content = json.loads((tmp_path / "results" / "manifest.json").read_text())
    assert content["data"].keys() == set(OTPRUNE_11)
