"""Rows whose budget is about all layers, and schedules without a budget."""

import dataclasses
import json

import pandas as pd
import pytest

from otprune.cost import DecoderShape, prefill_multiply_adds
from otprune.pruning import make_pruning
from otprune_lmms.experiments.folder import _cell
from otprune_lmms.pruning_config import Cell
from otprune_lmms.reporting.tables import Manifest, frame, read_manifest, wide
from otprune_lmms.reporting.tables.by_layer import profiles
from otprune_lmms.reporting.tables.labels import parts_of
from otprune_lmms.reporting.tables.settings import Setting, settings_of, with_planned

SHAPE = DecoderShape(hidden=8, feed_forward=20, layers=8, heads=2)
N = 256
MEAN = "tokens, mean over layers"

CELLS = (
    Cell(),
    Cell.make("otprune", 0.5, match="average"),
    Cell.make("divprune", 0.5),
    Cell.make("uniform", 0.5, layer=2),
    Cell.make("fastv", 0.5, schedule="1:0.5"),
    Cell.make("sparsevlm", 0.5, schedule="1:0.5/2:0.25/4:0.125"),
    Cell.make("otprune", 0.5, match="flops"),
    Cell.make("fastv", 0.5, schedule="1:0.5", match="flops"),
    Cell.make("vtw", schedule="4:0"),
    Cell.make("pyramiddrop", schedule="2:0.5/4:0.25"),
)


def kept(cell, n=N):
    """Tokens that are left after the last layer."""
    pruning = cell.pruning()
    return n if pruning is None else pruning.tokens_by_layer(n, SHAPE)[-1]


def planned(cells=CELLS):
    return json.loads(json.dumps([_cell(cell) for cell in cells]))


@pytest.fixture
def run(made, tmp_path):
    """Records, folder and manifest of all cells on two tasks."""
    lines = []
    for task in ("gqa", "pope"):
        for place, cell in enumerate(CELLS):
            own = {
                name: _cell(cell)[name] for name in ("setting", "row", "method", "keep_ratio", "k")
            }
            line = made.record("unpruned", task, "exact_match", 0.8 - 0.01 * place)
            counts = {"visual_tokens": float(N), "kept_tokens": float(kept(cell))}
            lines.append(line | own | counts | {"layer": cell.layer})
    records = frame(lines)
    known = {
        "cells": planned(),
        "shapes": {"tiny": dataclasses.asdict(SHAPE)},
        "text_tokens": {"tiny": {"gqa": 10.0, "pope": 12.5}},
        "experiment": {"tasks": [{"id": task, "limit": None} for task in ("gqa", "pope")]},
    }
    folder = made.folder(tmp_path / "results", records, **known)
    return records, folder, read_manifest(folder)


def row_of(cell):
    return _cell(cell)["row"]


def test_the_mean_over_layers_is_the_schedule_s(run, cell):
    records, folder, manifest = run
    table = wide(records, manifest, folder=folder)
    assert [column.name for column in table.columns][:3] == ["tokens", MEAN, "MMAC (2ndm)"]
    for one in CELLS:
        pruning = one.pruning()
        want = [N] * 8 if pruning is None else pruning.tokens_by_layer(N, SHAPE)
        assert cell(table, row_of(one), MEAN).value == pytest.approx(sum(want) / 8)
        assert cell(table, row_of(one), "tokens").value == want[-1]
    assert cell(table, row_of(CELLS[3]), MEAN).value == (2 * 256 + 6 * 128) / 8
    assert cell(table, row_of(CELLS[4]), MEAN).value == pytest.approx(128, abs=1)
    assert any(note.startswith(f"{MEAN}: visual tokens of an image") for note in table.notes)


def test_the_cost_is_that_of_each_layer_s_tokens(run, cell):
    records, folder, manifest = run
    table = wide(records, manifest, folder=folder, convention="3ndm")
    for one in CELLS:
        pruning = one.pruning()
        tokens = [N] * 8 if pruning is None else pruning.tokens_by_layer(N, SHAPE)

        def cost(text, tokens=tokens):
            return prefill_multiply_adds(SHAPE, [text + n for n in tokens], "3ndm")

        # Between two whole counts of text tokens the cost is a line.
        want = (cost(10) + (cost(12) + cost(13)) / 2) / 2
        entry = cell(table, row_of(one), "MMAC (3ndm)")
        assert 1e6 * entry.value == pytest.approx(want, rel=1e-9)


def test_rows_of_one_budget_share_a_block_whatever_the_method(run):
    records, folder, manifest = run
    blocks = wide(records, manifest, folder=folder).parts[0].blocks
    assert [len(block.rows) for block in blocks] == [1, 5, 2, 2]
    titles = [block.title for block in blocks]
    assert titles[1].startswith("Retain 0.5 (12")
    assert "of 256 tokens in a layer on average, down 4" in titles[1]
    assert titles[2].startswith("Retain multiply-adds of 0.5 (")
    assert titles[3].startswith("Own schedules (")
    names = [row.name for block in blocks for row in block.rows]
    assert names == [
        "unpruned", "otprune", "divprune", "uniform, layer 2", "fastv, schedule 1:0.5",
        "sparsevlm, schedule 1:0.5/2:0.25/4:0.125", "otprune", "fastv, schedule 1:0.5",
        "vtw, schedule 4:0", "pyramiddrop, schedule 2:0.5/4:0.25",
    ]  # fmt: skip


def test_schedules_without_a_budget_are_no_contest(run):
    records, folder, manifest = run
    table = wide(records, manifest, folder=folder)
    *_, contest, own = table.parts[0].blocks
    assert {entry.mark for row in own.rows for entry in row.entries} == {None}
    assert {row.entries[-1].value for row in own.rows} == {None}
    assert {row.entries[-1].value for row in contest.rows} == {1.0, 2.0}
    assert any(note.startswith("own schedules: each at its own cost") for note in table.notes)


def test_without_such_rows_a_table_is_as_it_was(run, made):
    records, folder, manifest = run
    plain = records[records["row"].isin(["unpruned", "divprune-0.5", "uniform-0.5-layer2"])]
    less = dataclasses.replace(
        manifest, planned=tuple(one for one in manifest.planned if one.row in set(plain["row"]))
    )
    table = wide(plain, less, folder=folder)
    before = tuple(dataclasses.replace(one, match=None, settings={}) for one in less.planned)
    assert table == wide(plain, dataclasses.replace(less, planned=before), folder=folder)
    assert MEAN not in [column.name for column in table.columns]


def test_images_of_a_prompt_are_told_apart_by_the_samples(run):
    records, folder, manifest = run
    settings = with_planned(settings_of(records), manifest.models, manifest.planned)
    one = next(s for s in settings if s.label == row_of(CELLS[9]))
    plain = profiles(settings, records, manifest, folder)["tiny", one.label, "gqa"]
    assert plain.tokens == (256, 256, 128, 128, 64, 64, 64, 64)
    assert plain.images == 1
    samples = pd.DataFrame(
        {"model": "tiny", "row": one.label, "task": "gqa", "doc_id": [0, 1, 2],
         "candidates": [256, 768, 0]}
    )  # fmt: skip
    samples.to_parquet(folder / "samples.parquet")
    several = profiles(settings, records, manifest, folder)["tiny", one.label, "gqa"]
    assert several.tokens == tuple(2 * n for n in plain.tokens)
    assert (several.images, several.mean) == (2, plain.mean)


@pytest.mark.parametrize("settings", [{}, {"method": "gone"}, {"method": "vtw", "gone": 1}])
def test_a_schedule_that_cannot_be_read_has_neither_mean_nor_cost(run, cell, settings):
    records, folder, manifest = run
    label = row_of(CELLS[8])
    other = tuple(
        dataclasses.replace(one, settings=settings) if one.row == label else one
        for one in manifest.planned
    )
    table = wide(records, dataclasses.replace(manifest, planned=other), folder=folder)
    assert cell(table, label, MEAN).value is None
    assert cell(table, label, "MAC %").value is None
    assert cell(table, label, "tokens").value == 0


def test_a_folder_without_a_decoder_has_no_mean(run, cell):
    records, folder, manifest = run
    table = wide(records, dataclasses.replace(manifest, shapes={}), folder=folder)
    assert {cell(table, row_of(one), MEAN).value for one in CELLS} == {None}


@pytest.mark.parametrize(
    ("label", "budget", "parts"),
    [
        ("otprune-0.5", (0.5, None), (None, [])),
        ("otprune-0.5-average-layer2", (0.5, None), ("average", ["layer2"])),
        ("otprune-k64-flops-gamma1e-05", (None, 64.0), ("flops", ["gamma1e-05"])),
        ("transprune", (None, None), (None, [])),
        ("transprune-low", (float("nan"), float("nan")), (None, ["low"])),
        ("fastv-0.5-schedule1_0.5-0a1b2c3d", (0.5, None), (None, ["schedule1_0.5"])),
        ("something else", (0.5, None), None),
    ],
)
def test_the_parts_of_a_label(label, budget, parts):
    method = label.split("-")[0]
    assert parts_of(label, method, *budget) == parts


def test_the_manifest_says_what_budgets_are_about():
    about = {one["row"]: one["match"] for one in planned()}
    assert about["unpruned"] is None
    assert about["divprune-0.5"] == "kept"
    assert about["otprune-0.5-average"] == "average"
    assert about[row_of(CELLS[4])] == "average"
    assert about["otprune-0.5-flops"] == "flops"
    assert about[row_of(CELLS[8])] is None


def test_a_setting_of_an_older_folder_is_about_what_is_kept():
    old = Setting("tiny", "otprune-0.5-layer2", "otprune", 0.5, layer=2)
    assert not old.by_layer
    assert old.budget == ("ratio", 0.5)
    assert not Manifest("A try").planned


def test_plans_of_these_rows_are_those_of_the_model():
    pruning = make_pruning("fastv", keep_ratio=0.5, schedule="1:0.5")
    assert CELLS[4].pruning() == pruning
