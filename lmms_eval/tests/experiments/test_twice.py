"""The same sweep twice is the same files; a run leaves none that is of other numbers."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from helpers import loaded
from otprune_lmms.cli.app import app
from otprune_lmms.models import llava
from otprune_lmms.reporting.figures import write as figures
from otprune_lmms.reporting.figures.write import KINDS
from otprune_lmms.reporting.report import write as pages

MAY_DIFFER = {
    "manifest.json": "times, memory and commands of each run",
    "answer_seconds.parquet": "measured times",
    "selection_seconds.parquet": "measured times",
    "selection_times.csv": "made of measured times",
}
TWO = {"keep_ratios": [0.25], "methods": ["otprune", "uniform"]}


@pytest.fixture
def command(monkeypatch):
    """Run the command line in a folder, as a user would."""

    def command(folder, *arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["otprune", *arguments])
        return CliRunner().invoke(app, list(arguments))

    return command


def files_of(folder):
    """The content of each file of a results folder."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in sorted(found.items())}


@pytest.fixture
def swept(suite, tmp_path):
    """Two folders, each with tasks, and room for an experiment and its sweep."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks").symlink_to(suite)
    return tmp_path


@pytest.mark.parametrize(
    ("kinds", "changes"),
    [
        ({"selection_frequency"}, {"tasks": ["gqa"]}),
        pytest.param(None, {"picture": True}, marks=pytest.mark.long),
    ],
    ids=["few", "all"],
)
def test_two_sweeps_leave_the_same_files_and_a_run_leaves_its_folder_whole(
    kinds, changes, write, swept, command, monkeypatch
):
    monkeypatch.setattr(llava, "load_pretrained_model", lambda *_, **__: loaded())
    if kinds is not None:  # figures take the most time
        for module in (figures, pages):
            monkeypatch.setattr(module, "KINDS", tuple(k for k in KINDS if k.name in kinds))
    path = write(configs=TWO, limit=2, **changes)
    for name in ("one", "other"):
        shutil.copy(path, swept / name)
        done = command(swept / name, "sweep", "try.yaml", "--images", "2", "--without-exact")
        assert done.exit_code == 0, done.output
        assert "open outputs/try/report.html" in done.stderr.splitlines()[-1]
    one, other = (files_of(swept / name / "outputs" / "try") for name in ("one", "other"))
    assert (
        one.keys() == other.keys() >= {*MAY_DIFFER, "report.html", "analysis.md", "samples.parquet"}
    )
    assert {name for name in one if one[name] != other[name]} <= set(MAY_DIFFER)
    first, second = (json.loads(some["manifest.json"]) for some in (one, other))
    assert first.pop("runs") != second.pop("runs")
    assert first == second, "of a manifest its runs alone differ"

    # A run: pages of the same answers stay, of others none does.
    folder = swept / "one"
    results = folder / "outputs" / "try"
    before = files_of(results)
    assert command(folder, "run", "try.yaml").exit_code == 0
    after = files_of(results)
    assert {name for name in before if before[name] != after.get(name)} <= set(MAY_DIFFER)
    checked = command(folder, "verify", "outputs/try", "--config-dir", ".")
    assert (checked.exit_code, "all equal" in checked.output) == (0, True)
    shutil.copy(write(configs=TWO, limit=3, **changes), folder / "try.yaml")
    done = command(folder, "run", "try.yaml")
    assert done.exit_code == 0
    said = " ".join(done.stderr.split())
    assert "outputs/try: analysis.md, report.html, figures removed, since they were made" in said
    left = files_of(results)
    assert not {"analysis.csv", "report.html", "diagnostics.parquet"} & left.keys()
    assert not [name for name in left if name.startswith("figures/")]
    if kinds is None:
        assert command(folder, "verify", "outputs/try", "--config-dir", ".").exit_code == 0
