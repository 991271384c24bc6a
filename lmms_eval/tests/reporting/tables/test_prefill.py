"""What the prefill of a row processes and costs, from columns of the records."""

import dataclasses
import json

import pandas as pd
import pytest

from otprune.cost import VICUNA_7B, VICUNA_13B, DecoderShape, prefill_multiply_adds
from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.experiments.prefill import PromptTokens, mean_prefill
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.tables import make_table
from otprune_lmms.reporting.tables.columns import cost_columns
from otprune_lmms.reporting.tables.prefill import PrefillCost, prefill_costs
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.records import records_frame

MEAN = "tokens, mean over layers"

TEXT = [15, 15, 23, 83, 25, 113, 15, 39, 21, 91, 57]
"""Text lengths of OTPrune's and DivPrune's tables, by their order of tasks."""

ANYRES = [2225, 1922, 2239, 1927, 2108, 1882, 2292, 2249, 2250, 1598, 2116]
"""Visual tokens of LLaVA-1.6 there."""

TASKS = [
    "coco2017_cap_val", "flickr30k_test", "gqa", "mmbench_en_dev_static", "mme", "mmmu_val",
    "nocaps_val", "ok_vqa_val2014", "pope", "scienceqa_img", "seedbench",
]  # fmt: skip


def prefill_columns(config, shape, kept, visual, text):
    """The columns of a task whose prompts have one image each."""
    found = mean_prefill(config, shape, [PromptTokens((kept,), (visual,))], text)
    costs = {f"multiply_adds_{name}": value for name, value in found.multiply_adds.items()}
    return {"layer_tokens": found.layer_tokens, **costs}


def run_of(made, visual, shape, text=TEXT):
    assert tuple(TASKS) == OTPRUNE_11
    configs = [PruningConfig(), PruningConfig.make("otprune", 0.098)]
    records = []
    for task, n, words in zip(TASKS, visual, text, strict=True):
        for config in configs:
            kept = n if config.method is None else round(0.098 * n)
            records.append(
                made.record(config.row, task, benchmark(task).metric, 1.0)
                | {"visual_tokens": n, "kept_tokens": kept}
                | prefill_columns(config, shape, kept, n, words)
            )
    manifest = dataclasses.replace(
        made.manifest,
        text_tokens={"tiny": dict(zip(TASKS, map(float, text), strict=True))},
    )
    return records_frame(records), manifest


@pytest.mark.parametrize(
    ("visual", "shape", "full", "pruned", "share"),
    [
        ([576] * 11, VICUNA_7B, 3.2280, 0.5122, 15.63),
        ([576] * 11, VICUNA_13B, 6.2813, 1.0020, 15.71),
        (ANYRES, VICUNA_7B, 11.8489, 1.2659, 10.80),
    ],
)
def test_the_tables_of_the_papers(made, entry_of, visual, shape, full, pruned, share):
    table = make_table(*run_of(made, visual, shape))
    names = [column.name for column in table.columns if column.kind == "cost"]
    assert names == ["TMAC (2ndm)", "MAC %"]
    assert round(entry_of(table, "unpruned", "TMAC (2ndm)").value, 4) == full
    assert entry_of(table, "unpruned", "MAC %").value == 100
    assert round(entry_of(table, "otprune-0.098", "TMAC (2ndm)").value, 4) == pruned
    assert round(entry_of(table, "otprune-0.098", "MAC %").value, 2) == share
    assert any("FastV, DivPrune and OTPrune print as FLOPs" in note for note in table.notes)
    assert any("text tokens a prompt, mean: COCO 15.0, Flickr 15.0" in n for n in table.notes)


def test_the_other_convention_is_named(made, entry_of):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B, text=[0.0] * 11)
    table = make_table(records, manifest, convention="3ndm")
    assert round(entry_of(table, "unpruned", "TMAC (3ndm)").value, 3) == 3.817
    assert any("3ndm a layer" in note and "TransPrune" in note for note in table.notes)
    with pytest.raises(ValueError, match="convention must be one of 2ndm, 3ndm; got '4ndm'"):
        make_table(records, manifest, convention="4ndm")


@pytest.mark.parametrize(
    ("most", "name", "unit"),
    [(3e12, "T", 1e12), (1e11, "T", 1e12), (9.9e10, "G", 1e9), (2e8, "G", 1e9), (5e7, "M", 1e6),
     (3.0, "M", 1e6)],
)  # fmt: skip
def test_the_unit_fits_the_largest_cost(most, name, unit):
    costs = [PrefillCost(None, most, None), PrefillCost(9.0, 1.0, 1.0), PrefillCost(9.0, None, 1.0)]
    columns, found = cost_columns(costs, "2ndm")
    assert (columns[0].name, found) == (f"{name}MAC (2ndm)", unit)
    assert cost_columns(costs[2:], "2ndm") == ((), 1.0)


def test_without_costs_there_is_no_column_and_a_note_says_so(made):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B)
    table = make_table(records.assign(multiply_adds_2ndm=None), manifest)
    assert not [column for column in table.columns if column.kind == "cost"]
    assert any(note.startswith("no column of multiply-adds") for note in table.notes)


def test_a_model_without_costs_has_no_number_beside_one_that_has(made, entry_of):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B)
    other = records.assign(model="large", multiply_adds_2ndm=None)
    table = make_table(pd.concat([records, other], ignore_index=True), manifest)
    assert entry_of(table, "otprune-0.098", "MAC %", "tiny").value is not None
    assert entry_of(table, "otprune-0.098", "MAC %", "large").value is None
    assert "large: multiply-adds unknown" in table.notes


def test_costs_are_means_over_seeds_then_over_tasks_with_images(made):
    two = [
        made.record("unpruned", "gqa", "exact_match", 1.0, multiply_adds_2ndm=200.0),
        made.record("unpruned", "mme", "mme_perception_score", 1.0, multiply_adds_2ndm=400.0),
        made.record("random-0.1", "gqa", "exact_match", 1.0, multiply_adds_2ndm=20.0, seed=0),
        made.record("random-0.1", "mme", "mme_perception_score", 1.0, multiply_adds_2ndm=80.0),
        # Two metrics of one task count once.
        made.record("random-0.1", "mme", "mme_cognition_score", 1.0, multiply_adds_2ndm=80.0),
        made.record(
            "random-0.1", "gqa", "exact_match", 1.0, multiply_adds_2ndm=60.0, setting="seed 1"
        ),
        made.record(
            "random-0.1", "text", "accuracy", 1.0, multiply_adds_2ndm=1e9, kept_tokens=None
        ),
    ]
    found = prefill_costs(records_frame(two), "2ndm")["tiny", "random-0.1"]
    assert found.multiply_adds == (40 + 80) / 2
    assert found.share == (100 * 40 / 200 + 100 * 80 / 400) / 2
    assert found.layer_tokens is None
    alone = prefill_costs(records_frame(two[2:]), "2ndm")["tiny", "random-0.1"]
    assert (alone.multiply_adds, alone.share) == (60, None)


SHAPE = DecoderShape(hidden=8, feed_forward=20, layers=8, heads=2)
N = 256

CONFIGS = (
    PruningConfig(),
    PruningConfig.make("otprune", 0.5, match="average"),
    PruningConfig.make("divprune", 0.5),
    PruningConfig.make("uniform", 0.5, layer=2),
    PruningConfig.make("fastv", 0.5, schedule="1:0.5"),
    PruningConfig.make("sparsevlm", 0.5, schedule="1:0.5/2:0.25/4:0.125"),
    PruningConfig.make("otprune", 0.5, match="flops"),
    PruningConfig.make("fastv", 0.5, schedule="1:0.5", match="flops"),
    PruningConfig.make("vtw", schedule="4:0"),
    PruningConfig.make("pyramiddrop", schedule="2:0.5/4:0.25"),
)


def tokens_of(config):
    """Tokens that enter each layer."""
    return [N] * 8 if config.pruning is None else list(config.pruning.tokens_by_layer(N, SHAPE))


@pytest.fixture
def run(made, tmp_path):
    """Records and manifest of all configs on two tasks."""
    lines = []
    for task, text in (("gqa", 10.0), ("pope", 12.5)):
        for place, config in enumerate(CONFIGS):
            kept = tokens_of(config)[-1]
            lines.append(
                made.record("unpruned", task, "exact_match", 0.8 - 0.01 * place)
                | config.columns()
                | {"visual_tokens": float(N), "kept_tokens": float(kept)}
                | prefill_columns(config, SHAPE, kept, N, text)
            )
    records = records_frame(lines)
    known = {
        "configs": json.loads(json.dumps([config.columns() for config in CONFIGS])),
        "text_tokens": {"tiny": {"gqa": 10.0, "pope": 12.5}},
        "experiment": {"tasks": [{"id": task, "limit": None} for task in ("gqa", "pope")]},
    }
    return records, read_manifest(made.folder(tmp_path / "results", records, **known))


def test_the_mean_over_layers_is_the_schedule_s(run, entry_of, in_order):
    table = make_table(*run)
    headings = ["tokens", MEAN, "MMAC (2ndm)"]
    assert in_order(table, *headings) == headings
    for config in CONFIGS:
        want = tokens_of(config)
        assert entry_of(table, config.row, MEAN).value == pytest.approx(sum(want) / 8)
        assert entry_of(table, config.row, "tokens").value == want[-1]
    assert entry_of(table, CONFIGS[3].row, MEAN).value == (2 * 256 + 6 * 128) / 8
    assert entry_of(table, CONFIGS[4].row, MEAN).value == pytest.approx(128, abs=1)
    assert any(note.startswith(f"{MEAN}: visual tokens of an image") for note in table.notes)


def test_the_cost_is_that_of_each_layer_s_tokens(run, entry_of):
    table = make_table(*run, convention="3ndm")
    for config in CONFIGS:
        tokens = tokens_of(config)

        def cost(text, tokens=tokens):
            return prefill_multiply_adds(SHAPE, [text + n for n in tokens], "3ndm")

        # Between two whole counts of text tokens the cost is a line.
        want = (cost(10) + (cost(12) + cost(13)) / 2) / 2
        entry = entry_of(table, config.row, "MMAC (3ndm)")
        assert 1e6 * entry.value == pytest.approx(want, rel=1e-9)


def test_rows_of_one_budget_share_a_block_whatever_the_method(run):
    blocks = make_table(*run).parts[0].blocks
    assert [len(block.rows) for block in blocks] == [1, 5, 2, 2]
    titles = [block.title for block in blocks]
    assert titles[1].startswith("Retain 0.5 (12")
    assert "of 256 tokens in a layer on average, down 4" in titles[1]
    assert titles[2].startswith("Retain multiply-adds of 0.5 (")
    assert titles[3].startswith("Own schedules (")
    names = [row.name for block in blocks for row in block.rows]
    assert names == [
        "unpruned", "OTPrune", "DivPrune", "Uniform stride, layer 2", "FastV", "SparseVLM",
        "OTPrune", "FastV", "VTW", "PyramidDrop",
    ]  # fmt: skip


def test_schedules_without_a_budget_are_neither_marked_nor_ranked(run):
    table = make_table(*run)
    *_, compared, own = table.parts[0].blocks
    assert {entry.mark for row in own.rows for entry in row.entries} == {None}
    assert {row.entries[-1].value for row in own.rows} == {None}
    assert {row.entries[-1].value for row in compared.rows} == {1.0, 2.0}
    assert any(note.startswith("own schedules: each has a cost of its own") for note in table.notes)


def test_without_such_rows_there_is_no_column_of_layers(run):
    records, manifest = run
    plain = records[records["row"].isin(["unpruned", "divprune-0.5", "uniform-0.5-layer2"])]
    rows = set(plain["row"])
    less = dataclasses.replace(
        manifest, planned=tuple(one for one in manifest.planned if one.row in rows)
    )
    assert MEAN not in [column.name for column in make_table(plain, less).columns]


def test_rows_of_which_the_records_say_nothing_have_neither_mean_nor_cost(run, entry_of):
    records, manifest = run
    row = CONFIGS[8].row
    unknown = records["row"] == row
    records.loc[unknown, ["layer_tokens", "multiply_adds_2ndm"]] = None
    table = make_table(records, manifest)
    assert entry_of(table, row, MEAN).value is None
    assert entry_of(table, row, "MAC %").value is None
    assert entry_of(table, row, "tokens").value == 0


def test_the_columns_say_what_budgets_are_about():
    about = {config.row: config.columns()["match"] for config in CONFIGS}
    assert list(about.values()) == [
        None, "average", "kept", "kept", "average", "average", "flops", "flops", None, None,
    ]  # fmt: skip
