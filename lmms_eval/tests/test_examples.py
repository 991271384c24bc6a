"""The examples run, with the embedded model and data."""

import json
import os
import runpy
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from helpers import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """Run an example in a folder of its own; return what it prints."""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_prune_and_look_draws_what_two_methods_keep(example, tmp_path):
    said = example("prune_and_look.py")
    assert "otprune: 26 of 256 tokens" in said
    assert "divprune: 26 of 256 tokens" in said
    with Image.open(tmp_path / "kept.png") as drawn:
        assert min(drawn.size) > 100
    Image.new("RGB", (40, 30), "red").save(tmp_path / "mine.png")
    assert "drawn: other.png" in example("prune_and_look.py", "mine.png", "other.png")


def test_a_model_of_transformers_answers_at_three_ratios(example):
    question, *answers = example("prune_transformers.py").splitlines()
    right = question.rpartition("says: ")[2].rstrip(")").capitalize()
    assert answers == [
        f"keep ratio {ratio}: {right}; kept {kept} tokens"
        for ratio, kept in ((1.0, 256), (0.25, 64), (0.1, 26))
    ]


def test_a_sweep_ends_in_a_table_of_scores(example):
    lines = example("sweep_to_pandas.py").splitlines()
    assert lines[0].split() == ["benchmark", "gqa", "pope", "mean"]
    rows = {line.split()[0]: [float(one) for one in line.split()[1:]] for line in lines[2:]}
    assert list(rows) == ["unpruned", "otprune-0.1", "otprune-0.4", "random-0.1", "random-0.4"]
    for gqa, pope, mean in rows.values():
        assert 0 <= gqa <= 100
        assert mean == pytest.approx((gqa + pope) / 2, abs=0.051)


def test_a_results_folder_is_read(example):
    said = example("read_results.py", ROOT / "results" / "mini")
    origin = json.loads((ROOT / "results" / "mini" / "manifest.json").read_text())["origin"]
    assert f"commit {origin['commit']}" in said
    assert "OTPrune 0.098" in said
    assert "POPE accuracy at 25 tokens" in said


def test_a_cluster_job_is_written_and_not_submitted(tmp_path):
    # A copy, so that the scripts' paths are those of a folder of its own.
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    otprune = tmp_path / ".venv" / "bin" / "otprune"
    otprune.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m otprune_lmms "$@"\n')
    otprune.chmod(0o755)
    done = subprocess.run(
        ["bash", tmp_path / "examples" / "cluster_job.sh"],
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs" / "slurm" / "mini" / "array.sbatch").is_file()
    assert "sbatch --parsable" in done.stdout
