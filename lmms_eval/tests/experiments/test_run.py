"""A whole experiment on a tiny checkpoint: run, resume, several processes, failures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from helpers import TINY
from otprune_lmms.cli.app import app
from otprune_lmms.reporting.tables import write_tables
from otprune_lmms.results.kept_image import read_kept_image
from runs import source_of, written
from suites import ROWS, make_suite

TASKS = ["pope", "mme"]
pope = ROWS["pope"]
RUN = [sys.executable, "-m", "otprune_lmms", "run"]
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("WORLD", "RANK", "MASTER"))},
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "1",
}


def experiment_of(folder, **changes):
    random = {"method": "random", "seeds": [0, 1]}
    content = {
        "name": "try",
        "title": "A try",
        "suite": "./suite/tasks",
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 3}],
        "tasks": TASKS,
        "pruning": {"controls": False, "keep_ratios": [0.25], "methods": ["otprune", random]},
        "picture": True,
    }  # fmt: skip
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def prepared(folder, tasks=TASKS):
    make_suite(folder / "suite", list(tasks))
    return folder


def run_here(folder, path):
    return written(source_of(path), folder / "journal", folder / "results")


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    folder = prepared(tmp_path_factory.mktemp("first"))
    outcome, table = run_here(folder, experiment_of(folder))
    return folder, outcome, table


def test_a_run_leaves_records_tables_manifest_and_kept_patches(first):
    folder, outcome, table = first
    output = folder / "results"
    assert outcome.counts["tiny"]["generated"] == 8 * 4
    assert [row[0] for row in table.rows] == ["unpruned", "otprune-0.25", "random-0.25"]
    assert [row[1] for row in table.rows] == [576.0, 144.0, 144.0]
    records = pd.read_csv(output / "records.csv")
    assert set(records["task"]) == set(TASKS)
    assert set(records["documents"]) == {4}
    assert set(records["setting"]) == {
        "unpruned",
        "otprune-0.25",
        "random-0.25",
        "random-0.25-seed1",
    }
    assert records["value"].between(0, 2000).all()
    content = json.loads((output / "manifest.json").read_text())
    assert set(content["origin"]) == {"hardware", "commit", "torch", "python", "command"}
    assert all(content["origin"].values())
    assert content["runs"][0]["seconds"]["answer"] > 0
    assert content["data"]["pope"]["files sha256"] != content["data"]["mme"]["files sha256"]
    assert str(folder) not in (output / "manifest.json").read_text()
    kept = read_kept_image(output)
    assert [one["setting"] for one in kept.settings] == ["otprune-0.25", "random-0.25"]
    assert kept.masks.sum(axis=(1, 2)).tolist() == [144, 144]


def test_a_second_run_does_nothing_twice_and_says_the_same(first):
    folder, _, table = first
    before = (folder / "results" / "records.csv").read_text()
    outcome, again = run_here(folder, folder / "try.yaml")
    assert outcome.counts["tiny"]["generated"] == 0
    assert outcome.counts["tiny"]["encoded"] == 0
    assert again == table
    assert (folder / "results" / "records.csv").read_text() == before
    content = json.loads((folder / "results" / "manifest.json").read_text())
    assert [run["counts"]["tiny"]["generated"] for run in content["runs"][:2]] == [32, 0]


def test_new_settings_generate_only_themselves(first, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(first[0], folder)
    methods = ["otprune", "divprune"]
    sweep = {"methods": methods, "keep_ratios": [0.25], "controls": False}
    outcome, table = run_here(folder, experiment_of(folder, pruning=sweep))
    assert outcome.counts["tiny"]["generated"] == 8
    assert outcome.counts["tiny"]["reused"] == 16
    assert table.rows[:2] == first[2].rows[:2]
    runs = json.loads((folder / "results" / "manifest.json").read_text())["runs"]
    assert len(runs) == 1, "another experiment's runs are not this one's"


def test_tables_are_made_anew_from_records_alone(first, tmp_path):
    folder, _, table = first
    shutil.copytree(folder / "results", tmp_path / "results")
    page = (tmp_path / "results" / "table.md").read_text()
    (tmp_path / "results" / "table.md").unlink()
    (tmp_path / "results" / "table.csv").unlink()
    assert write_tables(tmp_path / "results") == table
    assert (tmp_path / "results" / "table.md").read_text() == page
    (tmp_path / "results" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest.json is no manifest of a run"):
        write_tables(tmp_path / "results")


def test_stored_scores_that_say_something_else_are_made_again(first, tmp_path, caplog):
    folder = tmp_path / "other"
    shutil.copytree(first[0], folder)
    known = sorted((folder / "journal" / "scores").iterdir())
    whole = [path.read_bytes() for path in known]
    known[0].write_text("{ damaged")
    known[1].write_bytes(whole[2])
    known[2].write_bytes(re.sub(rb'("documents"):\d+', rb"\1:2", whole[2]))
    known[3].write_bytes(re.sub(rb'("value"):0\.0', rb"\1:0.5", whole[3], count=1))
    _, table = run_here(folder, folder / "try.yaml")
    assert table == first[2]
    assert [path.read_bytes() for path in known] == whole
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert [one.count(".json (") for one in warnings if "made again" in one] == [4]


def test_a_run_makes_every_file_of_its_folder_again_that_is_damaged(first, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(first[0], folder)
    results = folder / "results"
    files = sorted(path for path in results.iterdir() if path.is_file())
    for number, path in enumerate(files):
        path.unlink()
        if number % 2:
            os.mkfifo(path)
        else:
            path.write_text("[]")
    _, table = run_here(folder, folder / "try.yaml")
    assert table == first[2]
    for path in files:
        if path.name not in ("manifest.json", "answer_seconds.parquet"):  # these have times
            assert path.read_bytes() == (first[0] / "results" / path.name).read_bytes()
    (results / "samples.parquet").unlink()
    (results / "samples.parquet").mkdir()
    with pytest.raises(OSError, match=r"samples.parquet cannot be written: Is a directory"):
        run_here(folder, folder / "try.yaml")


@pytest.mark.long
def test_the_command_line_survives_a_kill(first, tmp_path):
    folder = prepared(tmp_path)
    path = experiment_of(folder, picture=False)
    log = tmp_path / "logs" / "answers"
    running = subprocess.Popen(
        [*RUN, path.name], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(1200):
            parts = list(log.glob("part-*.jsonl"))
            if (
                parts and len(parts[0].read_bytes().splitlines()) > 4
            ) or running.poll() is not None:
                break
            time.sleep(0.1)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    before = len(list(log.glob("part-*.jsonl"))[0].read_bytes().splitlines()) - 1
    done = subprocess.run(
        [*RUN, path.name], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "OTPrune 0.25" in done.stdout
    content = json.loads((folder / "outputs" / "try" / "manifest.json").read_text())
    counts = content["runs"][0]["counts"]["tiny"]
    assert counts["reused"] >= before - 1 > 0
    assert counts["generated"] + counts["reused"] == 32
    assert pd.read_csv(folder / "outputs" / "try" / "records.csv").equals(
        pd.read_csv(first[0] / "results" / "records.csv")
    )


def torchrun(path, timeout):
    """Two processes."""
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
    ]  # fmt: skip
    return subprocess.run(
        [*launcher, *RUN[1:], path.name], cwd=path.parent, env=ENVIRONMENT, capture_output=True,
        text=True, check=False, timeout=timeout,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "arguments", "message", "code"),
    [
        ({"tasks": ["no_such_task"]}, [], "unknown task 'no_such_task'", 1),
        ({"suite": "./none"}, [], "suite: no folder", 2),
        ({"suite": "./" + "n" * 400}, [], "suite: no folder", 2),
        ({"models": [{"name": "x", "pretrained": "./suite"}]}, [], "config.json", 1),
        ({}, ["try.yaml"], "names of their own, got try twice", 2),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(
    changes, arguments, message, code, tmp_path, first, monkeypatch
):
    (tmp_path / "suite").symlink_to(first[0] / "suite")
    path = experiment_of(tmp_path, **changes)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", path.name, *arguments])
    assert done.exit_code == code, done.output
    assert isinstance(done.exception, SystemExit), "anything else is a traceback"
    assert message in " ".join(done.stderr.split())


@pytest.mark.long
def test_the_environment_s_settings_have_no_say_in_an_experiment(first, tmp_path):
    shutil.copytree(first[0], tmp_path / "copy")
    done = subprocess.run(
        [*RUN, "try.yaml", "--journal", "journal", "--output-dir", "again"],
        cwd=tmp_path / "copy",
        env=ENVIRONMENT | {"BASELINE": "DIVPRUNE", "SUBSET_RATIO": "0.5"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "BASELINE, SUBSET_RATIO in the environment: not used" in " ".join(done.stderr.split())
    again = pd.read_csv(tmp_path / "copy" / "again" / "try" / "records.csv")
    assert again.equals(pd.read_csv(first[0] / "results" / "records.csv"))


def test_without_java_captions_are_refused_or_marked(tmp_path, monkeypatch):
    folder = prepared(tmp_path, ["flickr30k_test", "pope"])
    changes = {"tasks": ["flickr30k_test", "pope"], "limit": 2, "pruning": {"methods": []}}
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="flickr30k_test need Java .* --without-java"):
        run_here(folder, experiment_of(folder, **changes))
    assert not (folder / "journal").exists(), "refused before anything is answered"
    outcome, table = run_here(folder, experiment_of(folder, java="optional", **changes))
    assert outcome.counts["tiny"]["generated"] == 4
    place = [column.name for column in table.columns].index("Flickr")
    _, _, unpruned = next(table.ours())
    assert unpruned.entries[place].value is None
    assert "needs Java" in (folder / "results" / "table.md").read_text()


def with_a_broken_image(folder, monkeypatch, tasks=("pope",), **changes):
    broken = {"bytes": b"no picture", "path": None}
    monkeypatch.setitem(ROWS, "pope", lambda n: pope(n) | ({"image": broken} if n == 3 else {}))
    return experiment_of(prepared(folder, list(tasks)), tasks=list(tasks), **changes)


@pytest.mark.long
def test_torchrun_s_processes_find_what_one_finds(first, tmp_path):
    folder = prepared(tmp_path)
    done = torchrun(experiment_of(folder), 300)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(folder / "outputs" / "try" / "records.csv")
    assert found.equals(pd.read_csv(first[0] / "results" / "records.csv"))
    assert done.stdout.count("OTPrune 0.25") == 1, "one process prints"
    assert done.stderr.count("2 tasks; answers in") == 1


@pytest.mark.long
def test_one_process_s_failure_ends_all_with_its_message(tmp_path, monkeypatch):
    done = torchrun(with_a_broken_image(tmp_path, monkeypatch, strict=True), 300)
    assert done.returncode != 0
    assert "document 3 of pope (test)" in done.stderr
    assert not (tmp_path / "outputs" / "try" / "table.md").exists()


def test_two_processes_find_what_one_finds_and_leave_out_what_it_leaves_out(
    forks, tmp_path, monkeypatch
):
    path = with_a_broken_image(tmp_path, monkeypatch, tasks=TASKS)
    outcome, _ = run_here(tmp_path, path)
    done = forks.commands(tmp_path, "run", path.name, processes=2, ranks=True)
    assert [one["status"] for one in done] == [0, 0], done
    first, second = (one["text"] for one in done)
    output = tmp_path / "outputs" / "try"
    found = pd.read_csv(output / "records.csv")
    assert found.equals(pd.read_csv(tmp_path / "results" / "records.csv"))
    assert set(found[found["task"] == "pope"]["documents"]) == {3}
    content = json.loads((output / "manifest.json").read_text())
    assert [one["doc_id"] for one in content["failed"]] == [3]
    assert content["runs"][0]["counts"]["tiny"]["requests"] == 28
    assert outcome.counts["tiny"]["requests"] == 28
    assert len(list((tmp_path / "logs" / "answers").glob("part-*.jsonl"))) == 2
    for words, times in (
        # In the table, and among its budgets.
        ("OTPrune 0.25", 2),
        ("2 tasks; answers in", 1),
        ("pope: 1 of 4 documents cannot be used", 1),
    ):
        assert first.count(words) == times
        assert words not in second, "one process prints"
