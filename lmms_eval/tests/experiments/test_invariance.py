"""Answers do not depend on how they are made, and where they do it is told."""

import shutil
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from helpers import TINY
from otprune_lmms.cli.app import app
from otprune_lmms.experiments import invariance
from otprune_lmms.experiments.invariance import check_invariance, differences
from otprune_lmms.experiments.verify import experiment_of
from runs import source_of, written
from suites import make_suite

WAYS = {"16 at once", "another order", "resumed"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("invariance")
    make_suite(folder / "suite", ["pope", "gqa"])
    content = {
        "name": "try", "title": "A try", "suite": "./suite/tasks", "tasks": ["pope", "gqa"],
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "pruning": {"controls": False, "keep_ratios": [0.25], "methods": ["otprune", "divprune"]},
    }  # fmt: skip
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    written(source_of(path), folder / "journal", folder / "results", statistics=True)
    return folder


def test_answers_are_the_same_in_every_way(run):
    source = experiment_of(run / "results", run, limit=2)
    found = check_invariance(source, processes=False)
    assert found.compared == dict.fromkeys(WAYS, 2 * 2 * 3)
    assert differences(found) == []


def test_an_answer_that_changes_is_told_with_how_near_it_was(run, monkeypatch):
    records = invariance._records
    changed = []

    def falsified(folder):
        found = records(folder)
        if folder.name == "order":
            key = next(key for key, one in found.items() if one.text)
            changed.append(found[key])
            found[key] = replace(found[key], text="something else")
        return found

    monkeypatch.setattr(invariance, "_records", falsified)
    found = check_invariance(experiment_of(run / "results", run, limit=1), processes=False)
    (one,) = found.differences
    assert (one.way, one.other, one.task) == ("another order", "something else", changed[0].task)
    # Greedy answers are likelier, word by word; a random model's words are nearly as likely.
    assert one.margin is not None
    (line,) = differences(found)
    assert "another order answers 'something else'" in line
    assert "nats apart" in line


def test_an_answer_that_is_missing_is_an_error(run, monkeypatch):
    records = invariance._records
    monkeypatch.setattr(
        invariance, "_records", lambda folder: {} if folder.name == "batch" else records(folder)
    )
    source = experiment_of(run / "results", run, limit=1)
    with pytest.raises(RuntimeError, match="16 at once: no answer to document"):
        check_invariance(source, processes=False)


@pytest.mark.long
def test_two_processes_and_the_command(run, tmp_path):
    results = shutil.copytree(run / "results", tmp_path / "results")
    given = ["verify", str(results), "--invariance", "--config-dir", str(run), "--limit", "1"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "6 answers made otherwise (two processes)" in " ".join(done.output.split())
    assert "all equal" in done.output
