"""Tables from hand-made records."""

import io

import pandas as pd
import pytest
from rich.console import Console

from otprune_lmms.experiments.config import PublishedRow
from otprune_lmms.experiments.tables import (
    csv,
    frame,
    markdown,
    published,
    read_records,
    relative,
    terminal,
    wide,
)

ORIGIN = {"hardware": "a computer", "commit": "abc"}


def record(row, task, metric, value, **others):
    plain = {
        "experiment": "try", "suite": "mini", "model": "tiny", "cell": row, "method": None,
        "keep_ratio": None, "k": None, "layer": 0, "seed": None, "row": row, "task": task,
        "metric": metric, "value": value, "missing": None, "documents": 10, "kept_tokens": 57.6,
        "visual_tokens": 576.0,
    }  # fmt: skip
    return plain | others


def some_records():
    whole = {"kept_tokens": 576.0}
    second = {"seed": 1, "cell": "random-0.1-seed1"}
    return frame(
        [
            record("unpruned", "gqa", "exact_match", 0.8, **whole),
            record("unpruned", "mme", "mme_perception_score", 1500.0, **whole),
            record("unpruned", "mme", "mme_cognition_score", 300.0, **whole),
            record("unpruned", "flickr30k_test", "flickr_Bleu_4", 0.5, **whole),
            record("unpruned", "flickr30k_test", "flickr_CIDEr", 1.2, **whole),
            record("otprune-0.1", "gqa", "exact_match", 0.6),
            record("otprune-0.1", "mme", "mme_perception_score", 1200.0),
            record("otprune-0.1", "flickr30k_test", "flickr_CIDEr", 0.6),
            record("random-0.1", "gqa", "exact_match", 0.2, seed=0),
            record("random-0.1", "mme", "mme_perception_score", 300.0, seed=0),
            record("random-0.1", "flickr30k_test", "flickr_CIDEr", 0.3, seed=0),
            record("random-0.1", "gqa", "exact_match", 0.4, **second),
            record("random-0.1", "mme", "mme_perception_score", 600.0, **second),
            record("random-0.1", "flickr30k_test", "flickr_CIDEr", 0.5, **second),
        ]
    )  # fmt: skip


def test_one_row_a_setting_and_one_column_a_task():
    table = wide(some_records(), "A try")
    assert table.columns == ("setting", "tokens", "GQA", "MME-P", "Flickr", "relative %")
    assert table.rows[0] == ("unpruned", 576.0, 80.0, 1500.0, 120.0, 100.0)
    setting, tokens, *scores, share = table.rows[1]
    assert (setting, tokens) == ("otprune-0.1", 57.6)
    assert scores == pytest.approx([60, 1200, 60])
    assert share == pytest.approx(100 * (0.6 / 0.8 + 1200 / 1500 + 0.5) / 3)
    assert table.rows[2][2:] == pytest.approx((30, 450, 40, 100 * (0.3 / 0.8 + 0.3 + 1 / 3) / 3))


def test_the_mini_suite_says_so_and_the_hub_does_not():
    records = some_records()
    assert "mini suite" in wide(records, "A try").title
    assert "not the paper's benchmarks" in markdown(wide(records, "A try"), ORIGIN)
    records["suite"] = "hub"
    assert wide(records, "A try").title == "A try"


def test_the_markdown_page():
    page = markdown(wide(some_records(), "A try"), ORIGIN)
    assert page.splitlines()[0].startswith("# A try (mini suite")
    assert "hardware: `a computer`  " in page
    assert "| otprune-0.1 | 57.6 | 60.0 | 1200 | 60.0 | 68.3 |" in page
    assert "mean over tasks of score / unpruned score" in page
    assert "MME-P = mme mme_perception_score;" in page
    assert "Flickr = flickr30k_test flickr_CIDEr x 100" in page
    assert "random-0.1: mean of 2 seeds" in page
    assert "documents: gqa 10, mme 10, flickr30k_test 10" in page


def test_terminal_and_csv_hold_the_same_numbers():
    table = wide(some_records(), "A try")
    drawn = io.StringIO()
    Console(file=drawn, width=200).print(terminal(table))
    assert "68.3" in drawn.getvalue()
    assert "A try" in drawn.getvalue()
    stored = pd.read_csv(io.StringIO(csv(table)))
    assert list(stored.columns) == list(table.columns)
    assert stored["relative %"][1] == table.rows[1][-1]


def test_what_is_missing_is_said_and_never_counted_as_zero():
    records = some_records()
    captions = records["task"] == "flickr30k_test"
    records.loc[captions, "value"] = None
    records.loc[captions, "missing"] = "needs Java"
    table = wide(records, "A try")
    assert table.rows[1][-2] is None
    assert table.rows[1][-1] == pytest.approx(100 * (0.75 + 0.8) / 2)
    page = markdown(table, ORIGIN)
    assert "| – |" in page
    assert "not computed (needs Java): flickr30k_test" in page


def test_a_seed_that_is_missing_leaves_no_mean_of_the_others():
    records = some_records()
    records.loc[records["cell"] == "random-0.1-seed1", "value"] = None
    assert wide(records, "A try").rows[2][2:] == (None, None, None, None)


def test_models_are_compared_with_their_own_unpruned_row():
    small, large = some_records(), some_records()
    large["model"] = "large"
    large.loc[large["row"] == "unpruned", "value"] *= 2
    table = wide(pd.concat([small, large]), "A try")
    assert table.columns[0] == "model"
    assert [row[0] for row in table.rows] == ["tiny"] * 3 + ["large"] * 3
    assert table.rows[4][-1] == pytest.approx(table.rows[1][-1] / 2)


def test_without_an_unpruned_row_nothing_is_relative():
    records = some_records()
    table = wide(records[records["row"] != "unpruned"], "A try")
    assert [row[-1] for row in table.rows] == [None, None]
    assert relative({"gqa": 1.0}, {"gqa": 0.0}) is None
    assert relative({}, {}) is None


def test_an_unpruned_zero_is_left_out_and_named():
    records = some_records()
    records.loc[(records["row"] == "unpruned") & (records["task"] == "gqa"), "value"] = 0.0
    table = wide(records, "A try")
    assert table.rows[1][-1] == pytest.approx(100 * (0.8 + 0.5) / 2)
    assert "unpruned scores 0 on gqa" in markdown(table, ORIGIN)


def test_records_come_back_from_their_file_as_they_were(tmp_path):
    path = tmp_path / "records.csv"
    records = some_records()
    records.loc[0, "value"] = 0.1 + 0.2
    records.to_csv(path, index=False)
    assert wide(read_records(path), "A try") == wide(records, "A try")
    with pytest.raises(ValueError, match="no records at"):
        read_records(tmp_path / "none.csv")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns experiment, suite"):
        read_records(path)
    with pytest.raises(ValueError, match="needs records"):
        wide(frame([]), "A try")


def test_published_numbers_stand_apart():
    row = PublishedRow(source="a paper", row="OTPrune", model="tiny", scores={"gqa": 56.6})
    page = published([row], some_records())
    assert "As published (not run here)" in page
    assert "| a paper | tiny | OTPrune | 56.6 | – | – |" in page
    assert published([], some_records()) == ""
