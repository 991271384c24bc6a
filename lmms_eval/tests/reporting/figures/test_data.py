"""What figures read of a results folder."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import results_folder
from otprune_lmms.experiments.folder import _cell
from otprune_lmms.experiments.records import row_label
from otprune_lmms.pruning_config import Cell
from otprune_lmms.reporting.figures import radar, ratio_curves, relative_by_tokens, score_by_tokens
from otprune_lmms.reporting.figures.budgets import budget_names
from otprune_lmms.reporting.figures.data import NotDrawn, read_results, spoken, variant
from otprune_lmms.reporting.figures.parts import first_layer, series_of, several_budgets, thinned
from otprune_lmms.reporting.figures.ratio_curves import relative_scores
from otprune_lmms.reporting.figures.score_by_setting import settings_of
from otprune_lmms.reporting.statistics import averages

BUDGETS = st.one_of(
    st.fixed_dictionaries({"keep_ratio": st.floats(1e-6, 1)}),
    st.fixed_dictionaries({"k": st.integers(1, 3000)}),
)
SETTINGS = st.sampled_from(
    [("otprune", {}), ("otprune", {"gamma": 0.05}), ("otprune", {"gamma": 1e-05}),
     ("otprune", {"positions": "original"}), ("random", {"seed": 3}), ("divprune", {})]
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(setting=SETTINGS, one=BUDGETS, other=BUDGETS, layers=st.tuples(*[st.integers(0, 40)] * 2))
def test_the_variant_of_a_row_hangs_neither_on_budget_nor_on_layer(setting, one, other, layers):
    method, more = setting
    found = []
    for budget, layer in zip((one, other), layers, strict=True):
        if layer and "positions" in more:
            layer = 0
        cell = Cell.make(method, layer=layer, **budget, **more)
        ratio = np.nan if cell.keep_ratio is None else cell.keep_ratio
        k = np.nan if cell.k is None else cell.k
        found.append(variant(row_label(cell), method, ratio, k, cell.layer))
    assert found[0] == found[1]
    shown = {name: value for name, value in more.items() if name != "seed"}
    assert (found[0] == "") == (not shown)


def test_variants_are_spoken():
    assert spoken("gamma0.05") == "γ = 0.05"
    assert spoken("gamma1e-05-original") == "γ = 1e-05, original"
    assert spoken("") == ""


@pytest.fixture
def folder(tmp_path):
    return results_folder.write_folder(tmp_path / "results")


def test_scores_are_those_of_the_tables_with_their_intervals(folder):
    results = read_results(folder)
    table = averages.scores(results.records)
    assert len(results.scores) == table.size == 10 * 4
    for line in results.scores.itertuples():
        assert line.value == table.loc[(line.model, line.row), line.task]
        assert line.low == pytest.approx(0.9 * line.value)
        assert line.tokens == (16 if line.method is None else 16 * line.keep_ratio)


def test_intervals_of_other_scores_are_not_shown(folder):
    path = folder / "intervals.csv"
    intervals = pd.read_csv(path)
    stale = intervals["task"] == "gqa"
    intervals.loc[stale, "value"] += 0.5
    intervals.to_csv(path, index=False)
    scores = read_results(folder).scores
    assert scores.loc[scores["task"] == "gqa", "low"].isna().all()
    assert scores.loc[scores["task"] != "gqa", "low"].notna().all()


def test_a_score_that_could_not_be_computed_is_left_out_and_seeds_are_averaged(folder):
    records = pd.read_csv(folder / "records.csv")
    second = records[records["row"] == "random-0.25"].assign(cell="random-0.25-seed1", seed=1)
    second["value"] += 0.2
    missing = (records["row"] == "otprune-0.5") & (records["task"] == "coco2017_cap_val")
    records.loc[missing, "value"] = np.nan
    pd.concat([records, second]).to_csv(folder / "records.csv", index=False)
    scores = read_results(folder).scores.set_index(["row", "task"])
    assert ("otprune-0.5", "coco2017_cap_val") not in scores.index
    alone = records[(records["row"] == "random-0.25") & (records["task"] == "gqa")]["value"].item()
    assert scores.loc[("random-0.25", "gqa"), "value"] == pytest.approx(100 * (alone + 0.1))
    assert np.isnan(scores.loc[("random-0.25", "gqa"), "low"])


def test_without_averages_they_come_from_the_records(folder):
    (folder / "averages.csv").unlink()
    results = read_results(folder)
    found = results.averages.set_index(["row", "rule"])["value"]
    table = averages.scores(results.records).droplevel("model")
    want = averages.ratio_of_means(table.loc["otprune-0.5"], table.loc["unpruned"])
    assert found["otprune-0.5", "ratio_of_means"] == want
    assert found["unpruned", "mean_of_ratios"] == 100


def test_relative_scores_are_shares_of_the_unpruned_one(folder):
    results = read_results(folder)
    found = relative_scores(results.scores)
    assert "unpruned" not in set(found["row"])
    base = results.scores[results.scores["method"].isna()].set_index("task")["value"]
    for line in found.itertuples():
        assert line.relative == pytest.approx(100 * line.value / base[line.task])
    with pytest.raises(NotDrawn, match="no unpruned scores"):
        relative_scores(results.scores[results.scores["method"].notna()])


def test_budgets_are_named_by_their_tokens_smallest_first(folder):
    scores = read_results(folder).scores
    names = budget_names(scores[scores["method"].notna()].iloc[::-1])
    assert list(names) == ["2 tokens (12.5 %)", "4 tokens (25 %)", "8 tokens (50 %)"]
    assert set(names["4 tokens (25 %)"]) == {"otprune-0.25", "divprune-0.25", "random-0.25"}


def test_budgets_about_all_layers_count_tokens_over_layers(tmp_path):
    """Sixteen tokens, four layers; VTW drops all of them half-way."""
    cells = [
        Cell(),
        Cell.make("otprune", 0.25, match="average"),
        Cell.make("divprune", 0.25, match="average"),
        Cell.make("divprune", 0.5, match="average"),
        Cell.make("otprune", 0.5, match="average", layer=2),
        Cell.make("fastv", 0.5, schedule="1:0.5"),
        Cell.make("vtw", schedule="2:0"),
    ]
    known = [_cell(cell) for cell in cells]
    lines = [results_folder.cell_of(None)] + [
        {name: one[name] for name in ("setting", "row", "method", "keep_ratio", "k", "layer")}
        | {"seed": None}
        for one in known[1:]
    ]
    folder = tmp_path / "r"
    folder.mkdir()
    records = results_folder.records(
        [one | {"keep_ratio": one["keep_ratio"] or 0} for one in lines]
    )
    records["keep_ratio"] = records["keep_ratio"].replace(0, np.nan)
    records.loc[records["row"] == lines[4]["row"], "kept_tokens"] = 0.0
    records.to_csv(folder / "records.csv", index=False)
    shape = {"hidden": 8, "feed_forward": 20, "layers": 4, "heads": 2}
    content = results_folder.manifest() | {"cells": known, "shapes": {"tiny": shape}}
    (folder / "manifest.json").write_text(json.dumps(content))
    results = read_results(folder)
    assert results.amount == "visual tokens (mean over layers)"
    tokens = results.scores.groupby("row")["tokens"].first()
    assert [tokens[one["row"]] for one in lines] == [16, 4, 4, 8, 8, 7.75, 8]
    names = budget_names(results.scores[results.scores["method"].notna()])
    assert list(names) == ["4 tokens (25 %)", "8 tokens (50 %)", "own schedules"]
    assert [one.label for one in series_of(results.scores)][:1] == ["OTPrune"]
    for draw in (score_by_tokens.draw, relative_by_tokens.draw, radar.draw, ratio_curves.draw):
        assert draw(results, "tiny").axes


def test_a_legend_leaves_out_what_all_variants_of_a_method_share_if_it_is_long():
    schedule = "schedule1_0.5_2_0.35_4_0.2"
    lines = [("sparsevlm", schedule), ("sparsevlm", f"{schedule}-version2"), ("dart", schedule),
             ("otprune", "gamma0.05")]  # fmt: skip
    scores = pd.DataFrame(lines, columns=["method", "variant"])
    assert [one.label for one in series_of(scores)] == [
        "SparseVLM", "SparseVLM, version = 2", "DART", "OTPrune, γ = 0.05",
    ]  # fmt: skip


def test_each_method_counts_where_it_prunes_first(tmp_path):
    cells = [
        results_folder.cell_of(None),
        *(results_folder.cell_of("otprune", 0.25, layer) for layer in (0, 2)),
        *(results_folder.cell_of("divprune", 0.25, layer) for layer in (2, 5)),
    ]
    results = read_results(results_folder.write_folder(tmp_path / "r", cells))
    kept = first_layer(results.scores)
    assert set(kept["row"]) == {"unpruned", "otprune-0.25", "divprune-0.25-layer2"}
    assert not several_budgets(kept[kept["method"].notna()])
    assert [one.label for one in series_of(results.scores)] == ["OTPrune", "DivPrune"]


def test_a_default_that_no_label_says_comes_from_the_experiment():
    rows = {"gamma0.005": 61.0, "": 62.0, "gamma0.05": 63.0}
    lines = [{"method": "otprune", "variant": name, "value": value} for name, value in rows.items()]
    choices = [{"method": "otprune", "settings": {"gamma": g}} for g in (0.005, 0.01, 0.05)]
    manifest = {"experiment": {"cells": {"methods": choices}}}
    ((key, frame),) = settings_of(pd.DataFrame(lines), manifest).items()
    assert key == ("otprune", "gamma")
    assert dict(zip(frame["setting"], frame["value"], strict=True)) == {
        0.005: 61.0, 0.01: 62.0, 0.05: 63.0,
    }  # fmt: skip
    assert settings_of(pd.DataFrame(lines), {}) == {}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 4000), min_size=1, unique=True).map(sorted))
def test_labels_of_an_axis_never_stand_too_near(values):
    kept = thinned(values, 1.2)
    assert kept[0] == values[0]
    assert set(kept) <= set(values)
    assert all(b >= 1.2 * a for a, b in zip(kept, kept[1:], strict=False))
    for value in set(values) - set(kept):
        assert any(one < value < 1.2 * one for one in kept)
