"""What answers tell beside their scores."""

import dataclasses

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.reporting.statistics.answers import (
    QUANTITIES,
    answer_quantities,
    answers_section,
    repeats,
)
from otprune_lmms.reporting.tables import answer_columns_of, make_table, write_tables
from otprune_lmms.results.columns import SETTING
from otprune_lmms.results.manifest import Manifest
from otprune_lmms.results.names import Names
from otprune_lmms.results.records import COLUMNS, records_frame


def setting(row):
    plain = dict.fromkeys(SETTING) | {"setting": row, "row": row, "name": row, "layer": 0}
    plain |= {"settings": "{}", "changed_settings": "{}", "keep_newlines": False}
    if row == "unpruned":
        return plain
    return plain | {"method": "otprune", "keep_ratio": 0.1, "match": "kept"}


def samples(task, targets, **answers):
    """Samples of one task: the answers of each row to its documents, two an image."""
    frames = [
        pd.DataFrame(
            {
                "model": "tiny",
                "row": row,
                "setting": row,
                "method": None if row == "unpruned" else "otprune",
                "task": task,
                "doc_id": range(len(targets)),
                "cluster": [f"image {i // 2}" for i in range(len(targets))],
                "answer": said,
                "target": targets,
                "value": [
                    float(a.strip(" .").lower() == b) for a, b in zip(said, targets, strict=True)
                ],
                "keep_ratio": None if row == "unpruned" else 0.1,
                "k": None,
                "match": None if row == "unpruned" else "kept",
                "unfinished": None,
                "probabilities": None,
                "right_option": None,
            }
        )
        for row, said in answers.items()
    ]
    return pd.concat(frames, ignore_index=True)


POPE = samples(
    "pope",
    ["yes", "no", "yes", "no"],
    unpruned=["yes", "no", "yes", "no"],
    pruned=["Yes.", "Yes", "yes", "no"],
)


def value_of(found, row, task, quantity):
    (line,) = found[
        (found["row"] == row) & (found["task"] == task) & (found["quantity"] == quantity)
    ].to_dict("records")
    return line


def test_quantities_are_shares_of_the_answers():
    gqa = samples(
        "gqa", ["dog", "cat", "no", "red"],
        unpruned=["dog", "a cat", "no", "red"],
        pruned=["dog", "", " .. ", "the dog the dog the dog the dog"],
    )  # fmt: skip
    found = answer_quantities(pd.concat([POPE, gqa]), draws=200)
    assert value_of(found, "pruned", "pope", "yes_bias")["value"] == pytest.approx(25)
    assert value_of(found, "unpruned", "pope", "yes_bias")["value"] == 0
    assert value_of(found, "pruned", "pope", "agreement")["value"] == pytest.approx(50)
    assert value_of(found, "pruned", "gqa", "agreement")["value"] == pytest.approx(25)
    assert value_of(found, "pruned", "all", "agreement")["value"] == pytest.approx(37.5)
    assert value_of(found, "pruned", "gqa", "empty")["value"] == pytest.approx(50)
    assert value_of(found, "pruned", "gqa", "repeated")["value"] == pytest.approx(25)
    assert not len(found[(found["task"] == "gqa") & (found["quantity"] == "yes_bias")])
    line = value_of(found, "pruned", "gqa", "empty")
    assert 0 <= line["low"] <= 50 <= line["high"] <= 100
    assert (line["documents"], line["clusters"]) == (4, 2)


def test_answers_of_earlier_versions_may_have_ended_in_any_way():
    assert "unfinished" not in set(answer_quantities(POPE, draws=10)["quantity"])
    noted = POPE.assign(unfinished=[False, False, True, False, None, True, True, False])
    found = answer_quantities(noted, draws=50)
    assert value_of(found, "unpruned", "pope", "unfinished")["value"] == pytest.approx(25)
    # What is not known is not counted.
    assert value_of(found, "pruned", "pope", "unfinished")["value"] == pytest.approx(200 / 3)


def test_captions_need_not_agree():
    caption = samples("nocaps_val", ["a dog", "a cat"], unpruned=["x", "y"], pruned=["x", "y"])
    found = answer_quantities(caption, draws=10)
    assert set(found["quantity"]) == {"empty", "repeated"}


def test_seeds_are_averaged_and_rows_without_all_documents_left_out():
    second = POPE[POPE["row"] == "pruned"].assign(answer="no")
    fewer = POPE[POPE["row"] == "pruned"].head(3).assign(row="fewer")
    found = answer_quantities(pd.concat([POPE, second, fewer]), draws=10)
    # One seed agrees on two of four, the other too: "no" to all.
    assert value_of(found, "pruned", "pope", "yes_bias")["value"] == pytest.approx((25 - 50) / 2)
    assert "fewer" not in set(found["row"])


def test_what_the_down_sampled_image_gets_wrong_is_hard():
    targets = ["a", "b", "c", "d", "e", "f"]
    frame = samples(
        "gqa", targets,
        unpruned=targets,
        small=["a", "b", "x", "x", "x", "x"],
        own=["x", "b", "c", "d", "e", "x"],
        other=["a", "b", "x", "x", "x", "x"],
    )  # fmt: skip
    frame.loc[frame["row"] == "small", "method"] = "downsample"
    # Another budget has no down-sampled row.
    frame.loc[frame["row"] == "other", "keep_ratio"] = 0.2
    # A document without a value is neither hard nor easy.
    frame.loc[(frame["row"] == "own") & (frame["doc_id"] == 5), "value"] = None
    found = answer_quantities(frame, draws=200)
    hard = found[found["quantity"] == "hard"]
    assert set(hard["row"]) == {"own"}
    line = value_of(found, "own", "gqa", "hard")
    assert line["value"] == pytest.approx(100)
    assert line["low"] == line["high"] == pytest.approx(100)


def test_a_share_is_of_the_hard_documents_alone():
    targets = list("abcdefgh")
    frame = samples(
        "gqa", targets, unpruned=targets, small=list("abcdxxxx"), own=list("xxxxefgx"),
    )  # fmt: skip
    frame.loc[frame["row"] == "small", "method"] = "downsample"
    frame["cluster"] = frame["doc_id"].astype(str)
    line = value_of(answer_quantities(frame, draws=500), "own", "gqa", "hard")
    assert line["value"] == pytest.approx(75)
    assert line["low"] < 75 < line["high"]


@pytest.mark.parametrize(
    "task", [name for name in OTPRUNE_11 if benchmark(name).best_share is not None]
)
def test_a_share_is_one_whatever_a_benchmark_s_documents_are_worth(task):
    frame = samples(
        task, list("abcdefgh"), unpruned=list("abcdefgh"), small=list("abcdxxxx"),
        own=list("xxxxefgx"),
    )  # fmt: skip
    frame.loc[frame["row"] == "small", "method"] = "downsample"
    frame["value"] *= benchmark(task).best_share
    line = value_of(answer_quantities(frame, draws=10), "own", task, "hard")
    assert line["value"] == pytest.approx(75)


def test_one_image_has_no_interval():
    found = answer_quantities(POPE.assign(cluster="one"), draws=10)
    assert found["low"].isna().all()
    assert "[" not in answers_section(found, Names([setting("unpruned"), setting("pruned")]))


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("a a a a", True),
        ("a a a", False),
        ("see the dog. The dog the dog the dog the cat", False),
        ("x the dog the dog the dog the dog", True),
        ("a b c d e f g h " * 4, True),
        ("a b c d e f g h i " * 4, False),
        ("", False),
        ("The the THE the", True),
    ],
)
def test_repeating_answers(text, yes):
    assert repeats(text) == yes


@given(st.lists(st.sampled_from("ab"), max_size=14))
def test_repeats_is_what_trying_every_place_finds(words):
    tried = any(
        words[start : start + size] * 4 == words[start : start + 4 * size]
        for size in range(1, 9)
        for start in range(len(words) - 4 * size + 1)
    )
    assert repeats(" ".join(words)) == tried


def test_the_section_names_every_quantity():
    found = answer_quantities(POPE, draws=50)
    text = answers_section(found, Names([setting("unpruned"), setting("pruned")]))
    assert "yes bias, POPE" in text
    assert "25.0 \\[" in text
    told = {name for name, what in QUANTITIES.items() if what in text}
    assert told == set(found["quantity"]) == {"yes_bias", "agreement", "empty", "repeated"}
    assert answers_section(found.iloc[:0], Names([])) == ""


def records():
    tasks = (("pope", "pope_f1_score"), ("gqa", "exact_match"))
    return records_frame(
        [
            dict.fromkeys(COLUMNS)
            | setting(row)
            | {"experiment": "try", "suite": "hub", "model": "tiny", "task": task}
            | {"metric": metric, "value": 0.5, "documents": 4, "kept_tokens": 5.0}
            for row in ("unpruned", "otprune-0.1")
            for task, metric in tasks
        ]
    )


def test_a_table_has_the_columns_that_are_asked_for(tmp_path):
    answers = answer_quantities(POPE.replace({"row": {"pruned": "otprune-0.1"}}), draws=50)
    records().to_csv(tmp_path / "records.csv", index=False)
    answers.to_csv(tmp_path / "answers.csv", index=False)
    (tmp_path / "manifest.json").write_text(
        '{"origin": {}, "experiment": {"title": "T", "models": [{"name": "tiny"}], "tasks": []}}'
    )
    assert [c.quantity for c in write_tables(tmp_path).columns if c.quantity] == []
    assert answer_columns_of(tmp_path) == []
    table = write_tables(tmp_path, answer_columns=["yes_bias", "agreement", "yes_bias"])
    places = [i for i, column in enumerate(table.columns) if column.quantity]
    (row,) = [row for *_, row in table.ours() if row.label == "otprune-0.1"]
    assert [row.entries[place].value for place in places] == [25, 50]
    page = (tmp_path / "table.md").read_text()
    assert "| 25.0 [" in page
    assert QUANTITIES["yes_bias"] in page
    assert answer_columns_of(tmp_path) == ["yes_bias", "agreement"]


def test_an_unknown_column_is_refused():
    manifest = dataclasses.replace(Manifest("T"))
    with pytest.raises(ValueError, match=r"quantities must be of agreement.*got 'luck'"):
        make_table(records(), manifest, answer_columns=["luck"])
