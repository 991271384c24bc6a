"""The command sweep: what it refuses, what it calls, where things go."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from otprune_lmms.cli import sweep as module


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What the command would have done."""
    found = []
    monkeypatch.chdir(tmp_path)

    def answer(sources, journal, *, shard=None, **_):
        found.append(("answer", [one.name for one, _ in sources], journal, str(shard)))
        return {}

    def run_one(path, experiment, journal, output, quiet):
        found.append(("run", experiment.name, journal, output))
        return True

    def finish(experiment, config, folder, **more):
        found.append(("finish", experiment.name, folder))

    monkeypatch.setattr("otprune_lmms.experiments.answering.answer", answer)
    monkeypatch.setattr(module, "run_one", run_one)
    monkeypatch.setattr(module, "finish", finish)
    return found


def invoke(*arguments):
    app = typer.Typer()
    app.command()(module.sweep)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_several_experiments_are_answered_together_and_then_one_by_one(write, calls):
    done = invoke(write("one"), write("two"))
    assert done.exit_code == 0, done.output
    journal, results = Path("logs/sweep"), Path("results")
    assert calls == [
        ("answer", ["one", "two"], journal, "None"),
        ("run", "one", journal, results / "one"),
        ("finish", "one", results / "one"),
        ("run", "two", journal, results / "two"),
        ("finish", "two", results / "two"),
    ]


def test_one_experiment_needs_no_pass_of_its_own(write, calls):
    assert invoke(write("one"), "--no-report").exit_code == 0
    assert calls == [("run", "one", Path("logs/sweep"), Path("results/one"))]


def test_a_shard_only_answers(write, calls):
    arguments = ("--shard", "2/3", "--shard-by", "configs", "--journal", "here")
    assert invoke(write("one"), *arguments).exit_code == 0
    assert calls == [("answer", ["one"], Path("here"), "2/3")]


def test_a_trial_stays_out_of_the_results(write, calls):
    assert invoke(write("one"), "--limit", 4).exit_code == 0
    assert calls[0][-1] == Path("logs/sweep/results-limit4/one")
    calls.clear()
    assert invoke(write("one"), "--limit", 4, "--output-dir", "mine").exit_code == 0
    assert calls[0][-1] == Path("mine/one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "0/3"], "shard must be i/N with 1 <= i <= N, as 1/3, 2/3, 3/3; got 0/3"),
        (["--shard", "4/3"], "got 4/3"),
        (["--shard", "half"], "shard must be i/N"),
        (["--shard", "1/3", "--shard-by", "tasks"], "tasks"),
        (["try.yaml"], "names of their own, got try twice"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(arguments, message, write, calls):
    done = invoke(write(), *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert calls == []


def test_a_failure_is_a_sentence(write, calls, monkeypatch):
    def answer(*_, **__):
        raise ValueError("no such task")

    monkeypatch.setattr("otprune_lmms.experiments.answering.answer", answer)
    done = invoke(write("one"), write("two"))
    assert done.exit_code == 1
    assert "error: no such task" in done.stderr
    assert calls == []
