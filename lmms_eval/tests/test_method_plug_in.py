"""A method of another package, installed and swept as its author would do it."""

import os
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
def environment(tmp_path_factory):
    """The environment of a process that has the sample package beside ours."""
    source, site = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples" / "plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", site, source]
    subprocess.run(command, check=True)
    return os.environ | {"PYTHONPATH": str(site)}


SWEEP_AND_VERIFY = """
from otprune_lmms.cli.app import app

app(["sweep", "try.yaml", "--quiet"], standalone_mode=False)
print("verified:")
app(["verify", "outputs/try"], standalone_mode=False)
"""
"""Two commands in one process, which imports everything once."""


@pytest.fixture(scope="module")
def swept(environment, tmp_path_factory):
    """The results folder of a sweep that is verified, and what the commands printed."""
    folder = tmp_path_factory.mktemp("sweep")
    pruning = {"keep_ratios": [0.25], "methods": METHODS}
    write_experiment(folder, ["pope"], "mini", limit=2, pruning=pruning)
    command = [sys.executable, "-c", SWEEP_AND_VERIFY]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "outputs" / "try", done.stdout


def test_its_settings_are_rows_of_the_table_and_columns_of_the_records(swept):
    swept, _ = swept
    records = pd.read_csv(swept / "records.csv")
    mine = records[records.method == "largest_norm"]
    assert mine.setting.nunique() == 2
    assert set(mine.keep_ratio) == {0.25}
    table = (swept / "table.md").read_text().partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| largest_norm")]
    assert len(rows) == len(set(rows)) == 2, table
    assert any("manhattan" in row for row in rows), table


def test_it_is_in_figures_and_in_the_report(swept):
    swept, _ = swept
    assert list((swept / "figures").glob("*.png"))
    assert "largest_norm" in (swept / "report.html").read_text()


def test_its_results_are_verified(swept):
    _, said = swept
    _, _, verified = said.partition("verified:\n")
    assert "outputs/try: all equal; compared 20 scores" in verified, said


def test_without_its_package_the_experiment_says_which_methods_there_are(swept, monkeypatch):
    folder, _ = swept
    monkeypatch.chdir(folder.parents[1])
    done = CliRunner().invoke(app, ["sweep", "try.yaml"])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "method must be one of" in said
    assert "got 'largest_norm'" in said
