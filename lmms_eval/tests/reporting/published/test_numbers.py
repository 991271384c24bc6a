"""The shipped numbers: complete, unambiguous, in named units."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.reporting import published
from otprune_lmms.reporting.published import numbers

TABLE1 = "OTPrune arXiv:2602.20205v2 Table 1"


def test_everything_is_there_and_unique():
    found = published.load()
    assert len(found) == 3398
    assert tuple(found.columns) == published.COLUMNS
    key = [*numbers.PRINTED[:8], "source"]
    assert not found.duplicated(key).any()
    assert found[["score", "value"]].notna().all(axis=None)
    assert found["provenance"].isin(["own", "rerun", "copied", "unstated"]).all()
    assert (found["source"] != "").all()
    assert (found["unit"] != "").all()


def test_numbers_of_the_paper_s_first_table():
    found = published.wide(published.load(source=TABLE1, model="LLaVA-1.5-13B"))
    row = found.xs("OTPrune", level="method").iloc[0]
    assert sorted(row.index) == sorted(OTPRUNE_11)
    assert row["coco2017_cap_val"] == 103
    assert row["mme"] == 1411
    assert row["pope"] == 79.39
    assert row["mmbench_en_dev_static"] == 65.55
    assert row["seedbench"] == 62.08


def test_caption_scores_have_one_unit_whatever_was_printed():
    found = published.load(model="LLaVA-1.5-7B", budget="full")
    coco = found[(found["benchmark"] == "coco2017_cap_val") & (found["method"] == "Original")]
    assert sorted(coco["metric"]) == ["CIDEr", "CIDEr_x100"]
    assert sorted(coco["score"]) == [1.10, 110.4]
    assert sorted(coco["value"]) == [110, 110.4]
    assert set(coco["unit"]) == {"CIDEr x 100"}


def test_only_comparable_numbers_have_a_task():
    found = published.load()
    assert set(found["task"]) == {"", *OTPRUNE_11, "seedbench_video"}
    mme = found[found["benchmark"] == "mme"]
    assert set(mme.loc[mme["task"] != "", "metric"]) == {"perception"}
    assert (found.loc[found["benchmark"] == "mmbench_en", "task"] == "").all()
    seed = found[found["task"] == "seedbench"]
    whole = seed[(seed["model"] == "LLaVA-1.5-7B") & (seed["method"] == "Original")]
    # Accuracy on images; on all questions it is about 60.
    assert (whole["value"] > 66).all()
    assert len(whole) >= 3
    best = {task: benchmark(task).best for task in (*OTPRUNE_11, "seedbench_video")}
    for task, group in found[found["task"] != ""].groupby("task"):
        top = best[str(task)]
        assert group["value"].between(0, top or 200).all(), task


def test_filters_cut_and_combine():
    found = published.load(source=TABLE1, model=["LLaVA-1.5-7B", "LLaVA-NeXT-7B"], budget=0.098)
    assert set(found["method"]) == {"OTPrune", "DivPrune"}
    assert set(found["model"]) == {"LLaVA-1.5-7B", "LLaVA-NeXT-7B"}
    assert (found["keep_tokens_or_ratio"] == 0.098).all()
    assert found.index.tolist() == list(range(len(found)))
    mixed = published.load(budget=["full", 128])
    assert set(mixed["budget_kind"]) >= {"full", "tokens"}
    other = mixed[mixed["budget_kind"] != "full"]
    assert (other["keep_tokens_or_ratio"] == 128).all()


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({"source": "OTPrune Table 1"}, TABLE1),
        ({"model": ["LLaVA-1.5-7B", "LLaVA-1.6-7B"]}, "LLaVA-NeXT-7B"),
        ({"budget": 129}, "128"),
        ({"budget": "half"}, "adaptive"),
    ],
)
def test_unknown_values_are_refused_with_the_known_ones(given, known):
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be one of .*{known}"):
        published.load(**given)


def test_what_a_caller_changes_stays_with_the_caller():
    mine = published.load()
    mine["score"] = 0.0
    assert published.load()["score"].gt(0).any()


def test_a_wide_table_holds_every_number_that_has_a_task_once():
    found = published.load()
    table = published.wide(found)
    assert int(table.notna().to_numpy().sum()) == int((found["task"] != "").sum())
    assert not table.index.has_duplicates
    assert table.index.names[0] == "source"


def test_the_file_is_plain_and_names_no_other_document():
    path = Path(numbers.__file__).with_name("scores.csv")
    text = path.read_text(encoding="utf-8")
    assert "\r" not in text
    assert not re.search(r"\.md\b|/work|https?://", text)
    assert text.splitlines()[0] == ",".join(numbers.PRINTED)
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    np.testing.assert_array_equal(raw["score"].astype(float), published.load()["score"])


def test_the_package_ships_its_file():
    text = (Path(numbers.__file__).parents[3] / "pyproject.toml").read_text()
    assert re.search(r'otprune_lmms = \[.*"reporting/published/\*\.csv"', text)
