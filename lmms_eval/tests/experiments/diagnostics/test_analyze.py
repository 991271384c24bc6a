"""``otprune analyze`` after a real run."""

import json

import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

from helpers import TINY
from otprune_lmms.cli.analyze import analyze
from runs import source_of, written
from suites import make_suite


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    make_suite(folder / "suite", ["pope"])
    inside = {"method": "otprune", "layers": [1]}
    methods = ["otprune", inside, {"method": "random", "seeds": [0, 1]}]
    content = {
        "name": "try",
        "title": "A try",
        "suite": "./suite/tasks",
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "tasks": ["pope"],
        "pruning": {"controls": False, "keep_ratios": [0.05], "methods": methods},
    }
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    written(source_of(path), folder / "journal", folder / "out" / "try")
    return path, folder / "out" / "try"


def call(*words):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(analyze)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_analysis_of_a_run(ran):
    path, output = ran
    (output / "figures").mkdir()
    for name in ("report.html", "figures/distance_rank.png", "figures/radar.png"):
        (output / name).write_text("of an earlier analysis, or of none")
    done = call(path, "--output-dir", output.parent, "--quiet")
    assert done.exit_code == 0, done.output
    assert "try: report.html, figures/distance_rank.png removed" in " ".join(done.stderr.split())
    assert not (output / "report.html").exists()
    assert [one.name for one in (output / "figures").iterdir()] == ["radar.png"]
    found = pd.read_parquet(output / "diagnostics.parquet")
    samples = pd.read_parquet(output / "samples.parquet")
    assert set(found["setting"]) == {"otprune-0.05", "random-0.05", "random-0.05-seed1"}
    assert set(found["cluster"]) <= set(samples["cluster"])
    # What was diagnosed is what the engine kept.
    kept = found.assign(count=found["kept"].map(len)).merge(
        samples[["setting", "task", "cluster", "kept", "candidates"]].drop_duplicates(),
        on=["setting", "task", "cluster"],
    )
    assert len(kept) == len(found)
    assert (kept["count"] == kept["kept_y"]).all()
    assert (kept["n"] == kept["candidates"]).all()
    assert "OTPrune 0.05" in (output / "analysis.md").read_text()
    before = (output / "analysis.csv").read_bytes()
    assert call(path, "--output-dir", output.parent, "--tables-only").exit_code == 0
    assert (output / "analysis.csv").read_bytes() == before


def test_another_checkpoint_than_that_of_the_answers_is_refused(ran, tmp_path):
    path, output = ran
    copy = tmp_path / "try"
    copy.mkdir()
    for name in ("records.csv", "samples.parquet", "manifest.json"):
        (copy / name).write_bytes((output / name).read_bytes())
    content = json.loads((copy / "manifest.json").read_text())
    content["models"]["tiny"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(content))
    done = call(path, "--output-dir", tmp_path, "--quiet")
    assert done.exit_code == 1
    assert "tiny has changed since" in done.output
    assert not (copy / "diagnostics.parquet").exists()


def test_an_experiment_that_was_not_run_is_refused(ran, tmp_path):
    done = call(ran[0], "--output-dir", tmp_path)
    assert done.exit_code == 1
    assert "no samples" in done.output
