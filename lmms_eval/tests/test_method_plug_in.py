"""A method of another package, installed and swept as its author would do it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from otprune_lmms.cli.app import app
from runs import write_experiment

ROOT = Path(__file__).parents[2]
METHODS = [
    "otprune",
    "largest_norm",
    {"method": "largest_norm", "settings": {"preset": "manhattan"}},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages with the sample package in it."""
    source, site = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples" / "plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", site, source]
    subprocess.run(command, check=True)
    return site


@pytest.fixture(scope="module")
def swept(forks, site, tmp_path_factory):
    """The results folder of a sweep in a process that has the sample package beside ours."""
    folder = tmp_path_factory.mktemp("sweep")
    pruning = {"keep_ratios": [0.25], "methods": METHODS}
    write_experiment(folder, ["pope"], "mini", limit=2, pruning=pruning)
    said = forks.command(folder, "sweep", "try.yaml", "--quiet", path=[site])
    assert said["status"] == 0, said["text"]
    return folder / "outputs" / "try"


def test_its_settings_are_rows_of_the_table_and_columns_of_the_records(swept):
    records = pd.read_csv(swept / "records.csv")
    mine = records[records.method == "largest_norm"]
    assert mine.setting.nunique() == 2
    assert set(mine.keep_ratio) == {0.25}
    table = (swept / "table.md").read_text().partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| largest_norm")]
    assert len(rows) == len(set(rows)) == 2, table
    assert any("manhattan" in row for row in rows), table


def test_it_is_in_figures_and_in_the_report(swept):
    assert list((swept / "figures").glob("*.png"))
    assert "largest_norm" in (swept / "report.html").read_text()


def test_its_results_are_verified(forks, site, swept):
    said = forks.command(swept.parents[1], "verify", "outputs/try", path=[site])
    assert said["status"] == 0, said["text"]
    assert "outputs/try: all equal; compared 20 scores" in said["text"]


def test_without_its_package_the_experiment_says_which_methods_there_are(swept, monkeypatch):
    monkeypatch.chdir(swept.parents[1])
    done = CliRunner().invoke(app, ["sweep", "try.yaml"])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "method must be one of" in said
    assert "got 'largest_norm'" in said
