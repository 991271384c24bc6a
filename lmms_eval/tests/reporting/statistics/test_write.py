"""The files of a results folder."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from otprune_lmms.reporting.statistics import write_statistics
from otprune_lmms.reporting.statistics.compare import (
    AVERAGE_COLUMNS,
    INTERVAL_COLUMNS,
    PAIR_COLUMNS,
)

FILES = ("averages.csv", "intervals.csv", "pairs.csv", "kept.csv", "answers.csv", "statistics.md")


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    stream = np.random.default_rng(0)
    rates = {
        "unpruned": 0.95,
        "otprune-0.1": 0.8,
        "random-0.1-seed0": 0.3,
        "random-0.1-seed1": 0.4,
        "otprune-0.1-layer2": 0.85,
    }
    tasks = {"gqa": 80, "pope": 40, "mme": 36, "seedbench": 50, "mmmu_val": 30, "nocaps_val": 30}
    right = {
        ("m", setting): {task: (stream.random(n) < rate).astype(float) for task, n in tasks.items()}
        for setting, rate in rates.items()
    }
    path = tmp_path_factory.mktemp("results") / "made"
    made.write_folder(path, *made.experiment(right, {"pope": np.arange(40) // 2}))
    write_statistics(path)
    return path


def test_all_files_are_there_and_nothing_half_written(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {*FILES, "records.csv", "samples.parquet"}
    assert tuple(pd.read_csv(folder / "averages.csv").columns) == AVERAGE_COLUMNS
    assert tuple(pd.read_csv(folder / "intervals.csv").columns) == INTERVAL_COLUMNS
    pairs = pd.read_csv(folder / "pairs.csv", dtype={"budget": str})
    assert tuple(pairs.columns) == PAIR_COLUMNS
    assert set(pairs["budget"]) == {"0.1", "0.1 at layer 2", "0.1, layers"}


def test_a_second_time_gives_the_same_bytes(folder):
    before = {name: (folder / name).read_bytes() for name in FILES}
    write_statistics(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_the_page_says_what_is_in_the_files(folder):
    text = (folder / "statistics.md").read_text()
    assert text.startswith("# Statistics: made (mini suite: embedded data")
    for part in (
        "Relative averages",
        "Scores",
        "Differences between rows",
        "What this sample can decide",
        "Against the unpruned model",
        "Over tasks (Wilcoxon)",
        "Cautions",
        "How the numbers were made",
    ):
        assert text.count(f"## {part}\n") == 1
    intervals = pd.read_csv(folder / "intervals.csv").set_index(["row", "task"])
    one = intervals.loc[("otprune-0.1", "gqa")]
    assert f"{one['value']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" in text
    pairs = pd.read_csv(folder / "pairs.csv")
    single = pairs[~pairs["task"].str.startswith("all") & (pairs["b"] != "unpruned")]
    sure = int((single["p_holm"] < 0.05).sum())
    assert f"{sure} of {len(single)} differences between rows on a single task survive" in text
    assert re.search(r"Random 0\.1: mean of 2 seeds, .* standard deviation of \d", text)
    assert "mcnemar-midp" in text
    assert "Budget 0.1, layers:" in text


def test_every_table_of_the_page_has_as_many_cells_as_heads(folder):
    lines = (folder / "statistics.md").read_text().splitlines()
    width = 0
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("|"):
            assert not line or not before.startswith("|")
            continue
        width = width if before.startswith("|") else line.count("|")
        assert line.count("|") == width, line


def test_wins_and_losses_of_the_page_are_those_of_the_pairs(folder):
    pairs = pd.read_csv(folder / "pairs.csv")
    text = (folder / "statistics.md").read_text().split("## Against the unpruned model")[1]
    row = next(line for line in text.splitlines() if line.startswith("| Random 0.1 | unpruned |"))
    mine = pairs[(pairs["a"] == "random-0.1") & (pairs["b"] == "unpruned")]
    lost = mine[(mine["p_holm"] < 0.05) & (mine["difference"] < 0)]
    tasks = [task for task in lost["task"] if not task.startswith("all")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[4] == "–"
    assert len(cells[5].split(", ")) == len(tasks) >= 4
    assert cells[6] == f"{6 - len(tasks)} of 6 tasks"


@pytest.mark.parametrize("gone", ["records.csv", "samples.parquet"])
def test_a_folder_that_lacks_a_file_is_refused(folder, tmp_path, gone):
    for name in {"records.csv", "samples.parquet"} - {gone}:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match=gone.split(".")[0]):
        write_statistics(tmp_path)
    assert not any((tmp_path / name).exists() for name in FILES)


def test_nothing_of_it_needs_torch():
    code = (
        "import sys, otprune_lmms.reporting.statistics.write, otprune_lmms.reporting.published\n"
        "assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_averages_alone_need_no_statsmodels():
    code = "import sys, otprune_lmms.reporting.statistics.averages\n"
    code += "assert 'statsmodels' not in set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
