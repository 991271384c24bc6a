"""Blocks of a table: the unpruned model, then budgets, then what papers print."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from otprune_lmms.reporting import published
from otprune_lmms.reporting.tables import make_table
from otprune_lmms.reporting.tables.layout import MISSING, NOT_RUN
from otprune_lmms.results.columns import Budget
from otprune_lmms.results.manifest import Manifest, PlannedRow, PrintedRow
from otprune_lmms.results.records import records_frame


def titles(table, part=0):
    return [block.title for block in table.parts[part].blocks]


def labels(table, part=0):
    return [[row.label for row in block.rows] for block in table.parts[part].blocks]


def test_a_block_for_the_unpruned_model_and_one_for_each_budget(made):
    records = made.plain(
        {
            "unpruned": (80, 90), "a-0.1": (60, 70), "b-0.1": (50, 60), "a-0.5": (70, 80),
            "a-k288": (70, 80), "b-k64": (50, 50),
        }
    )  # fmt: skip
    records.loc[records["row"].str.endswith(("0.5", "288")), "kept_tokens"] = 288.0
    records.loc[records["row"] == "b-k64", "kept_tokens"] = 64.25
    table = make_table(records, made.manifest)
    assert titles(table) == [
        "Upper bound: 576 visual tokens (100 %)",
        "Retain 0.5 (288 of 576 tokens, down 50.0 %)",
        "Retain k = 288 (288 of 576 tokens, down 50.0 %)",
        "Retain k = 64 (64.2 of 576 tokens, down 88.8 %)",
        "Retain 0.1 (57.6 of 576 tokens, down 90.0 %)",
    ]
    assert labels(table) == [["unpruned"], ["a-0.5"], ["a-k288"], ["b-k64"], ["a-0.1", "b-0.1"]]


HEADINGS = ("tokens", "GQA", "MME-P", "Flickr", "mean of ratios", "ratio of means (MME-P/20)")


def test_the_numbers_of_a_row(made, values_of, in_order):
    table = make_table(made.records(), made.manifest)
    headings = (*HEADINGS, "average rank")
    assert in_order(table, *headings) == list(headings)
    assert {column.name for column in table.columns if column.kind != "plain"} == {*headings[1:]}
    assert [row[0] for row in table.rows] == ["unpruned", "otprune-0.1", "random-0.1"]
    assert values_of(table, "unpruned", *HEADINGS) == (576.0, 80.0, 1500.0, 120.0, 100.0, 100.0)
    tokens, *scores, ratios, means = values_of(table, "otprune-0.1", *HEADINGS)
    assert tokens == 57.6
    assert scores == pytest.approx([60, 1200, 60])
    assert ratios == pytest.approx(100 * (60 / 80 + 1200 / 1500 + 60 / 120) / 3)
    assert means == pytest.approx(100 * (60 + 1200 / 20 + 60) / (80 + 1500 / 20 + 120))
    # Two seeds: their mean, then averages of the mean.
    assert values_of(table, "random-0.1", *HEADINGS[1:4]) == pytest.approx((30, 450, 40))


def test_seeds_are_averaged_and_their_spread_is_shown(made, entry_of):
    table = make_table(made.records(), made.manifest)
    entry = entry_of(table, "random-0.1", "GQA")
    assert entry.spread == pytest.approx(np.std([20, 40], ddof=1))
    each = [100 * (g / 80 + m / 1500 + f / 120) / 3 for g, m, f in [(20, 300, 30), (40, 600, 50)]]
    average = entry_of(table, "random-0.1", "mean of ratios")
    assert average.value == pytest.approx(np.mean(each))
    assert average.spread == pytest.approx(np.std(each, ddof=1))
    assert entry_of(table, "otprune-0.1", "GQA").spread is None
    (note,) = [note for note in table.notes if note.startswith("Random 0.1: mean of 2 seeds")]
    assert "standard deviation: GQA 14.1, MME-P 212, Flickr 14.1, mean of ratios" in note


def test_a_seed_that_is_missing_leaves_no_mean_of_the_others(made, values_of):
    records = made.records()
    records.loc[records["setting"] == "random-0.1-seed1", "value"] = None
    table = make_table(records, made.manifest)
    assert values_of(table, "random-0.1", *HEADINGS[1:]) == (None,) * 5
    (row,) = [row for *_, row in table.ours() if row.label == "random-0.1"]
    assert {entry.spread for entry in row.entries} == {None}


def test_what_is_missing_is_said_and_never_counted_as_zero(made, entry_of):
    records = made.records()
    captions = records["task"] == "flickr30k_test"
    records.loc[captions, "value"] = None
    records.loc[captions, "missing"] = "needs Java"
    table = make_table(records, made.manifest)
    entry = entry_of(table, "otprune-0.1", "Flickr")
    assert (entry.value, entry.empty) == (None, MISSING)
    average = entry_of(table, "otprune-0.1", "mean of ratios")
    assert average.value == pytest.approx(100 * (0.75 + 0.8) / 2)
    assert "not computed (needs Java): flickr30k_test; relative averages leave them out" in (
        table.notes
    )


def test_controls_are_named_and_so_are_those_that_are_missing(made):
    notes = make_table(made.records(), made.manifest).notes
    assert "controls, which a method must beat at equal tokens: Random" in notes
    absent = "Uniform stride, Average pooling, Downsampling"
    assert f"controls that are not in this table: {absent}" in notes


def test_a_table_of_controls_alone_says_nothing_of_them(made):
    records = made.records()
    records = records[records["method"].isna() | (records["method"] == "random")]
    notes = make_table(records, dataclasses.replace(made.manifest, configs=[])).notes
    assert not any(note.startswith("controls") for note in notes)


def test_averages_over_fewer_tasks_are_named_and_no_contest(made, entry_of):
    records = made.records()
    lost = (records["row"] == "random-0.1") & (records["task"] == "gqa")
    records.loc[lost, "value"] = None
    table = make_table(records, made.manifest)
    assert any("Random 0.1: relative averages over 2 of 3 tasks" in note for note in table.notes)
    assert entry_of(table, "otprune-0.1", "mean of ratios").mark is None
    assert entry_of(table, "otprune-0.1", "Flickr").mark == "best"


def test_what_was_asked_for_and_not_run_says_so(made, entry_of):
    manifest = Manifest(
        "A try",
        models=("tiny", "large"),
        tasks=("gqa", "pope", "mme"),
        planned=(
            PlannedRow("unpruned", "unpruned"),
            PlannedRow("a-0.1", "a", "a", Budget(0.1)),
            PlannedRow("b-0.1", "b", "b", Budget(0.1)),
            PlannedRow("b-0.5", "b", "b", Budget(0.5)),
        ),
    )
    records = made.plain({"unpruned": (80, 90), "b-0.1": (60, 70)})
    table = make_table(records, manifest)
    assert [part.model for part in table.parts] == ["tiny", "large"]
    assert labels(table) == [["unpruned"], ["b-0.5"], ["a-0.1", "b-0.1"]]
    assert titles(table)[1:] == ["Retain 0.5", "Retain 0.1 (57.6 of 576 tokens, down 90.0 %)"]
    assert labels(table, 1) == [["unpruned"], ["b-0.5"], ["a-0.1", "b-0.1"]]
    (row,) = [row for part, _, row in table.ours() if row.label == "a-0.1" and part.model == "tiny"]
    assert {(entry.value, entry.empty) for entry in row.entries} == {(None, NOT_RUN)}
    absent = entry_of(table, "b-0.1", "MME-P", "tiny")
    assert (absent.value, absent.empty) == (None, NOT_RUN)
    assert entry_of(table, "b-0.1", "average rank", "tiny").value is None, (
        "nothing to be ranked among"
    )
    # Without the experiment's settings the model alone is known to be missing.
    less = make_table(records, dataclasses.replace(manifest, planned=()))
    assert labels(less, 1) == [["unpruned"]]
    assert entry_of(less, "unpruned", "GQA", "large").empty == NOT_RUN


def test_layers_and_settings_stand_in_the_row(made):
    rows = ("otprune-0.1", "otprune-0.1-layer2", "otprune-0.1-layer8", "otprune-0.1-gamma1e-05")
    records = made.plain({"unpruned": (80, 90)} | dict.fromkeys(rows, (50, 60)))
    for layer in (2, 8):
        own = records["row"].str.endswith(f"layer{layer}")
        records.loc[own, "layer"] = layer
    records.loc[records["row"] == rows[-1], "changed_settings"] = '{"gamma": 1e-05}'
    table = make_table(records, made.manifest)
    (block,) = table.parts[0].blocks[1:]
    assert [row.name for row in block.rows] == [
        "OTPrune", "OTPrune, layer 2", "OTPrune, layer 8", "OTPrune, γ = 1e-05",
    ]  # fmt: skip
    assert block.rows[1].whole == "OTPrune 0.1, layer 2"
    assert [row.layer for row in block.rows] == [0, 2, 8, 0]
    assert any(note.startswith("layer 2, 8: pruned at the input") for note in table.notes)


def test_schedules_and_multiply_adds_are_budgets_of_their_own(made):
    records = made.plain(
        {"unpruned": (80, 90), "a-0.5": (60, 70), "b-0.5": (60, 70), "c-0.5": (60, 70)}
    )
    records.loc[records["row"] == "b-0.5", "match"] = "average"
    records.loc[records["row"] == "c-0.5", "match"] = "flops"
    assert labels(make_table(records, made.manifest)) == [
        ["unpruned"],
        ["a-0.5", "b-0.5"],
        ["c-0.5"],
    ]
    records.loc[records["row"] == "c-0.5", ["keep_ratio", "match"]] = None, None
    table = make_table(records, made.manifest)
    assert titles(table)[-1].startswith("Own schedules")
    assert labels(table)[-1] == ["c-0.5"]


def test_models_are_compared_with_their_own_unpruned_row(made, entry_of):
    small, large = made.records(), made.records()
    large["model"] = "large"
    large.loc[large["row"] == "unpruned", "value"] *= 2
    table = make_table(pd.concat([small, large], ignore_index=True), made.manifest)
    assert [part.model for part in table.parts] == ["tiny", "large"]
    own, other = (
        entry_of(table, "otprune-0.1", "mean of ratios", model).value for model in ("large", "tiny")
    )
    assert own == pytest.approx(other / 2)


def test_without_an_unpruned_row_nothing_is_relative(made, values_of):
    records = made.records()
    table = make_table(records[records["row"] != "unpruned"], made.manifest)
    assert len(table.rows) == 2
    for label, *_ in table.rows:
        assert values_of(table, label, *HEADINGS[-2:]) == (None, None)
    assert [block.kind for block in table.parts[0].blocks] == ["retain"]
    assert "tiny: no unpruned row, so nothing is relative to it" in table.notes


def test_an_unpruned_zero_is_left_out_and_named(made, entry_of):
    records = made.records()
    records.loc[(records["row"] == "unpruned") & (records["task"] == "gqa"), "value"] = 0.0
    table = make_table(records, made.manifest)
    average = entry_of(table, "otprune-0.1", "mean of ratios")
    assert average.value == pytest.approx(100 * (0.8 + 0.5) / 2)
    assert any("unpruned scores 0 on gqa" in note for note in table.notes)


def test_the_mini_suite_says_so_and_the_hub_does_not(made):
    records = made.records()
    assert make_table(records, made.manifest).title == "A try"
    records["suite"] = "mini"
    title = make_table(records, made.manifest).title
    assert title == "A try (mini suite: embedded data, not the paper's benchmarks)"


def test_two_tasks_of_one_benchmark_keep_their_names(made):
    tasks = ("mmbench_en_dev", "mmbench_en_dev_static")
    records = records_frame(
        [made.record("unpruned", task, "gpt_eval_score", 64.0) for task in tasks]
    )
    columns = make_table(records, made.manifest).columns
    assert [column.name for column in columns if column.kind == "score"] == list(tasks)


def test_prompts_without_images_have_no_tokens(made, entry_of):
    records = made.plain(
        {"unpruned": (80, 90), "a-0.1": (60, 70)},
        kept_tokens=None,
        visual_tokens=None,
        multiply_adds_2ndm=1e9,
    )
    table = make_table(records, made.manifest)
    assert titles(table) == ["Upper bound", "Retain 0.1"]
    assert entry_of(table, "a-0.1", "tokens").value is None
    assert not [column for column in table.columns if column.kind == "cost"]


def test_documents_without_an_answer_are_named(made):
    manifest = dataclasses.replace(made.manifest, left_out={"gqa": 3})
    note = "gqa: 3 documents could not be used and are left out of every row"
    assert note in make_table(made.records(), manifest).notes
    assert note not in make_table(made.records(), made.manifest).notes


def test_a_part_of_a_benchmark_is_named_as_a_part(made):
    manifest = dataclasses.replace(made.manifest, limited=frozenset({"gqa"}))
    note = "documents: gqa 10 (the first), mme 10, flickr30k_test 10"
    assert note in make_table(made.records(), manifest).notes


def test_no_records_are_refused(made):
    with pytest.raises(ValueError, match="needs records"):
        make_table(records_frame([]), made.manifest)


def test_published_numbers_stand_apart(made, entry_of):
    base = {"gqa": 61.96, "mme": 1506, "pope": 1.0}
    manifest = Manifest(
        "A try",
        published=(
            PrintedRow("a paper", "unpruned", "tiny", base),
            PrintedRow("a paper", "OTPrune", "tiny", {"gqa": 99.9, "mme": 1368}),
            PrintedRow("another", "FastV", "tiny", {"gqa": 49.6}),
        ),
    )
    alone, table = make_table(made.records(), made.manifest), make_table(made.records(), manifest)
    kinds = [block.kind for block in table.parts[0].blocks]
    assert kinds == ["upper", "retain", "published", "published"]
    assert titles(table)[2:] == [
        "As published, not run here: a paper", "As published, not run here: another",
    ]  # fmt: skip
    ours = [[row.entries for row in block.rows] for block in table.parts[0].blocks[:2]]
    before = [[row.entries for row in block.rows] for block in alone.parts[0].blocks]
    marks = [[[e.mark for e in row] for row in block] for block in ours]
    assert marks == [[[e.mark for e in row] for row in block] for block in before]
    assert table.rows == alone.rows
    for block in table.parts[0].blocks[2:]:
        assert {e.mark for row in block.rows for e in row.entries} == {None}
    # Over the tasks of this table alone, against the same source's unpruned row.
    assert entry_of(table, "OTPrune", "mean of ratios").value == pytest.approx(
        100 * (99.9 / 61.96 + 1368 / 1506) / 2
    )
    assert entry_of(table, "FastV", "mean of ratios").value is None
    assert entry_of(table, "FastV", "MME-P").empty == MISSING


def table_1(model, shown):
    """OTPrune's Table 1 as if it had been run here: one block."""
    lines = published.load(source="OTPrune arXiv:2602.20205v2 Table 1", model=model)
    lines = lines[(lines["task"] != "") & (lines["method"].isin(["Original", *shown]))]
    lines = lines[lines["variant"] == ""]
    heads = {"mme": "mme_perception_score", "pope": "pope_f1_score", "mmmu_val": "mmmu_acc",
             "mmbench_en_dev_static": "gpt_eval_score", "seedbench": "seed_image",
             "coco2017_cap_val": "coco_CIDEr", "flickr30k_test": "flickr_CIDEr",
             "nocaps_val": "nocaps_CIDEr"}  # fmt: skip
    return [
        {
            "row": "unpruned" if line["method"] == "Original" else f"{line['method']}-0.098",
            "task": line["task"],
            "metric": heads.get(line["task"], "exact_match"),
            "value": line["value"]
            / (1 if line["task"] in ("mme", "mmbench_en_dev_static") else 100),
        }
        for line in lines.to_dict("records")
    ]


@pytest.mark.parametrize(
    ("model", "ranks", "averages"),
    [
        ("LLaVA-1.5-7B", (1.64, 1.36), (91.27, 92.53)),
        ("LLaVA-1.5-13B", (1.91, 1.18), (91.77, 93.86)),
        ("LLaVA-NeXT-7B", (1.77, 1.23), (92.96, 95.20)),
    ],
)
def test_the_paper_s_table_has_the_paper_s_ranks(model, ranks, averages, made, entry_of):
    lines = table_1(model, ("VTW", "FastV", "DivPrune", "OTPrune"))
    table = make_table(records_frame([made.record(**line) for line in lines]), made.manifest)
    for method, rank, average in zip(("DivPrune", "OTPrune"), ranks, averages, strict=True):
        row = f"{method}-0.098"
        assert round(entry_of(table, row, "average rank").value, 2) == rank
        assert round(entry_of(table, row, "mean of ratios").value, 2) == average
    assert entry_of(table, "OTPrune-0.098", "average rank").mark == "best"
