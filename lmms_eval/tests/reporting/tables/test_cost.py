"""Multiply-adds of a row, from measured tokens."""

import dataclasses

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune.cost import VICUNA_7B, VICUNA_13B, DecoderShape, prefill_multiply_adds
from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.reporting.tables import Manifest, frame, wide
from otprune_lmms.reporting.tables.columns import cost_columns
from otprune_lmms.reporting.tables.cost import Cost, prefill, tokens_of

quiet = settings(deadline=None, max_examples=40, derandomize=True)

TEXT = [15, 15, 23, 83, 25, 113, 15, 39, 21, 91, 57]
"""Text lengths of OTPrune's and DivPrune's tables, by their order of tasks."""

ANYRES = [2225, 1922, 2239, 1927, 2108, 1882, 2292, 2249, 2250, 1598, 2116]
"""Visual tokens of LLaVA-1.6 there."""

TASKS = [
    "coco2017_cap_val", "flickr30k_test", "gqa", "mmbench_en_dev_static", "mme", "mmmu_val",
    "nocaps_val", "ok_vqa_val2014", "pope", "scienceqa_img", "seedbench",
]  # fmt: skip

TINY = DecoderShape(hidden=8, feed_forward=20, layers=6, heads=2)


def run_of(made, visual, shape, layer=0, text=TEXT):
    assert tuple(TASKS) == OTPRUNE_11
    records = [
        made.record(
            row, task, benchmark(task).metric, 1.0, layer=at, visual_tokens=n, kept_tokens=kept
        )
        for task, n in zip(TASKS, visual, strict=True)
        for row, kept, at in (("unpruned", n, 0), ("otprune-0.098", round(0.098 * n), layer))
    ]
    manifest = dataclasses.replace(
        made.manifest,
        shapes={"tiny": dataclasses.asdict(shape)},
        text_tokens={"tiny": dict(zip(TASKS, map(float, text), strict=True))},
    )
    return frame(records), manifest


@pytest.mark.parametrize(
    ("visual", "shape", "full", "pruned", "share"),
    [
        ([576] * 11, VICUNA_7B, 3.2280, 0.5122, 15.63),
        ([576] * 11, VICUNA_13B, 6.2813, 1.0020, 15.71),
        (ANYRES, VICUNA_7B, 11.8489, 1.2659, 10.80),
    ],
)
def test_the_tables_of_the_papers(made, cell, visual, shape, full, pruned, share):
    table = wide(*run_of(made, visual, shape))
    names = [column.name for column in table.columns]
    assert names[1:3] == ["TMAC (2ndm)", "MAC %"]
    assert round(cell(table, "unpruned", "TMAC (2ndm)").value, 4) == full
    assert cell(table, "unpruned", "MAC %").value == 100
    assert round(cell(table, "otprune-0.098", "TMAC (2ndm)").value, 4) == pruned
    assert round(cell(table, "otprune-0.098", "MAC %").value, 2) == share
    assert any("FastV, DivPrune and OTPrune print as FLOPs" in note for note in table.notes)
    assert any("text tokens a prompt, mean: COCO 15.0, Flickr 15.0" in n for n in table.notes)


def test_the_other_convention_is_named(made, cell):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B, text=[0.0] * 11)
    table = wide(records, manifest, convention="3ndm")
    assert round(cell(table, "unpruned", "TMAC (3ndm)").value, 3) == 3.817
    assert any("3ndm a layer" in note and "TransPrune" in note for note in table.notes)
    with pytest.raises(ValueError, match="convention must be one of"):
        wide(records, manifest, convention="4ndm")


@quiet
@given(
    layer=st.integers(0, 9), text=st.integers(0, 50), kept=st.integers(0, 40),
    more=st.integers(0, 200), convention=st.sampled_from(["2ndm", "3ndm"]),
)  # fmt: skip
def test_layers_before_the_pruning_see_all_tokens(layer, text, kept, more, convention):
    each = [text + kept + more if at < layer else text + kept for at in range(TINY.layers)]
    found = prefill(dataclasses.asdict(TINY), layer, text, kept, kept + more, convention)
    assert found == prefill_multiply_adds(TINY, each, convention)


@quiet
@given(st.floats(0, 60), st.floats(0, 600))
def test_a_mean_that_is_not_whole_is_between_its_neighbours(text, kept):
    tokens = text + kept
    d, m = TINY.hidden, TINY.feed_forward
    exact = TINY.layers * (4 * tokens * d * d + 2 * tokens**2 * d + 2 * tokens * d * m)
    found = prefill(dataclasses.asdict(TINY), 0, text, kept, kept, "2ndm")
    assert -1e-6 * exact <= found - exact <= TINY.layers * 2 * d / 4 + 1e-6 * exact


@pytest.mark.parametrize(
    ("most", "name", "unit"),
    [(3e12, "T", 1e12), (1e11, "T", 1e12), (9.9e10, "G", 1e9), (2e8, "G", 1e9), (5e7, "M", 1e6),
     (3.0, "M", 1e6)],
)  # fmt: skip
def test_the_unit_fits_the_dearest_row(most, name, unit):
    columns, found = cost_columns(
        {("a", "b"): Cost(most, None), ("a", "c"): Cost(1.0, 1.0)}, "2ndm"
    )
    assert (columns[0].name, found) == (f"{name}MAC (2ndm)", unit)


def test_without_the_decoder_there_is_no_column_and_a_note_says_so(made):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B)
    for less in ({"shapes": {}}, {"text_tokens": {}}):
        table = wide(records, dataclasses.replace(manifest, **less))
        assert not [column for column in table.columns if column.kind == "cost"]
        assert any(note.startswith("no column of multiply-adds") for note in table.notes)


def test_a_model_without_a_known_decoder_has_no_number_beside_one_that_has(made, cell):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B)
    both = pd.concat([records, records.assign(model="large")], ignore_index=True)
    table = wide(both, manifest)
    assert cell(table, "otprune-0.098", "MAC %", "tiny").value is not None
    assert cell(table, "otprune-0.098", "MAC %", "large").value is None
    assert "large: multiply-adds unknown" in table.notes


def test_a_prompt_of_several_images_counts_them_all(made, tmp_path):
    records, _ = run_of(made, [576] * 11, VICUNA_7B)
    assert tokens_of(records, tmp_path)["tiny", "otprune-0.098", "gqa"] == (56, 576)
    samples = pd.DataFrame(
        {"model": "tiny", "row": "otprune-0.098", "task": "mmmu_val", "doc_id": [0, 1],
         "kept": [56, 168], "candidates": [576, 1728]}
    )  # fmt: skip
    samples.to_parquet(tmp_path / "samples.parquet")
    assert tokens_of(records, tmp_path) == {("tiny", "otprune-0.098", "mmmu_val"): (112, 1152)}


def test_a_decoder_that_cannot_be_is_refused(made):
    records, manifest = run_of(made, [576] * 11, VICUNA_7B)
    broken = dataclasses.asdict(VICUNA_7B) | {"layers": 0}
    with pytest.raises(ValueError, match="layers"):
        wide(records, Manifest("A try", shapes={"tiny": broken}, text_tokens=manifest.text_tokens))
