"""`otprune run` and `otprune sweep`: what they refuse, what they call, where things go."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from otprune_lmms.cli import run as module
from otprune_lmms.engine import VisualFolder
from otprune_lmms.experiments.run import AnsweredShard


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What the command would have done."""
    found = []
    monkeypatch.chdir(tmp_path)

    def answer_shard(sources, options):
        names = [one.experiment.name for one in sources]
        found.append(("answer", names, options.journal, str(options.shard)))
        return AnsweredShard({}, {})

    def run_experiments(sources, options, diagnostics, folders):
        names = [one.experiment.name for one in sources]
        found.append(("run", names, options.journal, diagnostics is not None))
        return [SimpleNamespace() for _ in sources]

    def write_results(experiment, outcome, folder, command, seconds):
        found.append(("write", experiment.name, folder))
        return ["table.md", "report.html"]

    def finish(folder, *, report):
        found.append(("finish", folder, report))

    monkeypatch.setattr("otprune_lmms.experiments.run.answer_shard", answer_shard)
    monkeypatch.setattr("otprune_lmms.experiments.run.run_experiments", run_experiments)
    monkeypatch.setattr("otprune_lmms.experiments.folder.write_results", write_results)
    monkeypatch.setattr(module, "finish", finish)
    return found


def invoke(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_several_experiments_are_one_call_and_a_folder_each(write, calls):
    done = invoke(module.sweep, write("one"), write("two"))
    assert done.exit_code == 0, done.output
    assert calls == [
        ("run", ["one", "two"], Path("logs/answers"), True),
        ("write", "one", Path("outputs/one")),
        ("write", "two", Path("outputs/two")),
        ("finish", Path("outputs/one"), True),
        ("finish", Path("outputs/two"), True),
    ]


def test_run_is_a_sweep_without_the_report(write, calls):
    one = write("one")
    assert invoke(module.run, one).exit_code == 0
    alone = list(calls)
    calls.clear()
    assert invoke(module.sweep, one, "--no-report").exit_code == 0
    assert calls == alone
    assert alone == [
        ("run", ["one"], Path("logs/answers"), False),
        ("write", "one", Path("outputs/one")),
        ("finish", Path("outputs/one"), False),
    ]


def test_a_shard_only_answers(write, calls):
    arguments = ("--shard", "2/3", "--shard-by", "configs", "--journal", "here")
    assert invoke(module.sweep, write("one"), *arguments).exit_code == 0
    assert calls == [("answer", ["one"], Path("here"), "2/3")]


@pytest.mark.parametrize("command", [module.run, module.sweep])
def test_a_trial_stays_out_of_the_results(write, calls, command):
    assert invoke(command, write("one"), "--limit", 4).exit_code == 0
    assert calls[1] == ("write", "one", Path("outputs/limit4/one"))
    calls.clear()
    assert invoke(command, write("one"), "--limit", 4, "--output-dir", "mine").exit_code == 0
    assert calls[1] == ("write", "one", Path("mine/limit4/one"))


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
    done = invoke(module.sweep, write(), *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert calls == []


def test_a_failure_is_a_sentence(write, calls, monkeypatch):
    def fails(*_, **__):
        raise ValueError("no such task")

    monkeypatch.setattr("otprune_lmms.experiments.run.run_experiments", fails)
    done = invoke(module.sweep, write("one"), write("two"))
    assert done.exit_code == 1
    assert "error: one, two: no such task" in done.stderr
    assert calls == []


def test_the_folder_of_visual_tokens_reaches_the_engine(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []

    def answer_shard(sources, options):
        found.append(options.visual)
        return AnsweredShard({}, {})

    monkeypatch.setattr("otprune_lmms.experiments.run.answer_shard", answer_shard)
    one = write("one")
    assert invoke(module.sweep, one, "--shard", "1/2").exit_code == 0
    options = ("--shard", "1/2", "--visual-store", "seen", "--visual-store-gib", "0.5")
    assert invoke(module.sweep, one, *options).exit_code == 0
    assert found == [None, VisualFolder(Path("seen"), 0.5)]
    (tmp_path / "file").write_text("")
    for folder in ("", "file"):
        done = invoke(module.run, one, "--visual-store", folder)
        assert done.exit_code == (2 if folder == "" else 1), done.output
    assert "file cannot be written" in done.stderr
    assert len(found) == 2
