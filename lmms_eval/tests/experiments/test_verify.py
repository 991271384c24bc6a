"""A results folder is held to its answers."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from helpers import TINY
from otprune_lmms.cli.app import app
from otprune_lmms.experiments.verify import verify_answers
from otprune_lmms.reporting.remake import changed_pages
from otprune_lmms.results.samples import COLUMNS, read_samples
from runs import source_of, written
from suites import make_suite


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    make_suite(folder / "suite", ["pope", "gqa"])
    content = {
        "name": "try", "title": "A try", "suite": "./suite/tasks", "tasks": ["pope", "gqa"],
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "pruning": {"controls": False, "keep_ratios": [0.25], "methods": ["otprune"]},
    }  # fmt: skip
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    written(source_of(path), folder / "journal", folder / "results", statistics=True)
    return folder


@pytest.fixture
def results(run, tmp_path):
    return shutil.copytree(run / "results", tmp_path / "results")


def changed(folder, column, number, value):
    table = pq.read_table(folder / "samples.parquet")
    values = table[column].to_pylist()
    values[number] = value
    at = table.schema.get_field_index(column)
    field = table.schema.field(column)
    new = table.set_column(at, field, pa.array(values, type=field.type))
    pq.write_table(new, folder / "samples.parquet")


def test_samples_say_what_was_asked_and_answered(run):
    samples = read_samples(run / "results")
    assert tuple(samples.columns) == COLUMNS
    assert len(samples) == 2 * 2 * 4
    assert set(samples["candidates"]) == {576}
    assert set(samples.groupby("setting")["kept"].first()) == {576, 144}
    one = samples[(samples["task"] == "pope") & (samples["setting"] == "unpruned")]
    assert one["prompt"].str.len().min() > 10
    assert (one["answers"].str[0] != "").all()
    questions = samples.groupby(["task", "doc_id"])["requests"].agg(lambda s: {r[0] for r in s})
    assert questions.map(len).eq(1).all(), "configs share a question"
    assert samples.groupby("task")["cluster"].nunique().min() >= 1


def test_what_a_run_left_is_equal_when_computed_again(run):
    verdict = verify_answers(run / "results", run, run / "journal")
    assert verdict.differences == []
    assert verdict.checked["answers found in the journal"] == 16
    assert verdict.checked["scores"] > 4
    pages = changed_pages(run / "results")
    assert len(pages) > 3
    assert all(pages.values())


def test_a_changed_score_is_found(run, results):
    records = pd.read_csv(results / "records.csv", dtype=str, keep_default_na=False)
    at = records.index[records["metric"] == "exact_match"][0]
    records.loc[at, "value"] = "0.875"
    records.to_csv(results / "records.csv", index=False)
    found = verify_answers(results, run).differences
    assert any("gqa: exact_match is" in line and "stored is 0.875" in line for line in found)
    assert not all(changed_pages(results).values())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("answers", ["something else"], "the journal has another answer"),
        ("requests", ["0" * 64], "not in the journal"),
        ("value", 0.125, "shares of documents"),
    ],
)
def test_a_changed_sample_is_found(run, results, column, value, message):
    changed(results, column, 0, value)
    verdict = verify_answers(results, run, run / "journal")
    assert any(message in line for line in verdict.differences)


def test_a_changed_table_is_found(run, results):
    page = results / "table.md"
    page.write_text(page.read_text() + "\n| otprune | 100 |\n")
    assert [name for name, same in changed_pages(results).items() if not same] == ["table.md"]
    assert verify_answers(results, run).differences == []


def test_other_documents_are_found(run, results):
    manifest = json.loads((results / "manifest.json").read_text())
    manifest["data"]["gqa"]["documents sha256"] = "0" * 64
    (results / "manifest.json").write_text(json.dumps(manifest))
    found = verify_answers(results, run).differences
    assert found[0] == "gqa: its documents have changed since the run"


def test_the_command_exits_with_one_on_a_difference(run, results):
    right = CliRunner().invoke(app, ["verify", str(results), "--config-dir", str(run)])
    assert (right.exit_code, "all equal" in right.output) == (0, True)
    (results / "table.csv").write_text("nothing\n")
    wrong = CliRunner().invoke(app, ["verify", str(results), "--config-dir", str(run)])
    assert (wrong.exit_code, "table.csv is not what" in wrong.output) == (1, True)
    none = CliRunner().invoke(app, ["verify", str(run)])
    assert none.exit_code == 2
