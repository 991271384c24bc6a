"""What figures read of a results folder."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import results_folder
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures import radar, ratio_curves, relative_by_tokens, score_by_tokens
from otprune_lmms.reporting.figures.data import (
    NotDrawn,
    budget_names,
    read_results,
    variants_of,
)
from otprune_lmms.reporting.figures.parts import (
    first_layer,
    series_of,
    several_budgets,
    thinned,
)
from otprune_lmms.reporting.figures.ratio_curves import relative_scores
from otprune_lmms.reporting.figures.score_by_setting import curves_of
from otprune_lmms.reporting.statistics import averages
from otprune_lmms.results.names import in_words


def variant(**settings):
    return json.dumps(settings)


def test_a_variant_is_what_differs_beside_budget_and_layer():
    configs = [
        PruningConfig.make("otprune", 0.5),
        PruningConfig.make("otprune", k=64, layer=2, gamma=0.05),
        PruningConfig.make("random", 0.1, seed=3),
        PruningConfig.make("otprune", 0.5, match="average"),
        PruningConfig.make("otprune", 0.5, match="flops", gamma=0.05),
        PruningConfig(),
    ]
    found = variants_of(pd.DataFrame([config.columns() for config in configs]))
    assert [json.loads(one) for one in found] == [
        {}, {"gamma": 0.05}, {}, {}, {"gamma": 0.05, "match": "flops"}, {},
    ]  # fmt: skip


def test_settings_are_said_as_a_reader_says_them():
    assert in_words({"gamma": 0.05}) == "γ = 0.05"
    assert in_words({"gamma": 1e-05, "positions": "original"}) == "γ = 1e-05, original"
    assert in_words({"variant": "paper", "plus": True}) == "variant paper, plus"
    assert in_words({"keep_newlines": True, "last": False}) == "keep newlines, no last"
    assert in_words({"preset": "tokens-192", "match": "flops"}) == "tokens-192, by multiply-adds"
    assert in_words({"observe_from": 0.1234567891}) == "observe from = 0.1234567891"
    assert in_words({}) == ""


@pytest.fixture
def folder(tmp_path):
    return results_folder.write_folder(tmp_path / "results")


def test_scores_are_those_of_the_tables_with_their_intervals(folder):
    results = read_results(folder)
    table = averages.headline_scores(results.records)
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
    second = records[records["row"] == "random-0.25"].assign(setting="random-0.25-seed1", seed=1)
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
    table = averages.headline_scores(results.records).droplevel("model")
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
    configs = [
        PruningConfig(),
        PruningConfig.make("otprune", 0.25, match="average"),
        PruningConfig.make("divprune", 0.25, match="average"),
        PruningConfig.make("divprune", 0.5, match="average"),
        PruningConfig.make("otprune", 0.5, match="average", layer=2),
        PruningConfig.make("fastv", 0.5, schedule="1:0.5"),
        PruningConfig.make("vtw", schedule="2:0"),
    ]
    tokens = [16, 4, 4, 8, 8, 7.75, 8]
    records = pd.concat(
        [
            results_folder.records(
                [config.columns() | {"keep_ratio": config.keep_ratio or 1.0}]
            ).assign(keep_ratio=config.keep_ratio, layer_tokens=count)
            for config, count in zip(configs, tokens, strict=True)
        ]
    )
    (tmp_path / "r").mkdir()
    records.to_csv(tmp_path / "r" / "records.csv", index=False)
    results = read_results(tmp_path / "r")
    assert results.amount == "visual tokens (mean over layers)"
    found = results.scores.groupby("row")["tokens"].first()
    assert [found[config.row] for config in configs] == tokens
    names = budget_names(results.scores[results.scores["method"].notna()])
    assert list(names) == ["4 tokens (25 %)", "8 tokens (50 %)", "own schedules"]
    assert [one.label for one in series_of(results.scores)][:1] == ["OTPrune"]
    for draw in (score_by_tokens.draw, relative_by_tokens.draw, radar.draw, ratio_curves.draw):
        assert draw(results, "tiny").axes


def test_budgets_about_multiply_adds_are_apart():
    configs = [
        PruningConfig.make("otprune", 0.5),
        PruningConfig.make("otprune", 0.5, match="flops"),
        PruningConfig.make("otprune", k=7, match="flops"),
    ]
    table = pd.DataFrame([config.columns() for config in configs]).assign(tokens=[8, 9, 7])
    assert budget_names(table) == {
        "7 tokens (of multiply-adds)": ["otprune-k7-flops"],
        "8 tokens (50 %)": ["otprune-0.5"],
        "9 tokens (50 % of multiply-adds)": ["otprune-0.5-flops"],
    }


def test_a_legend_has_the_names_of_lines_where_they_are_known():
    schedule = {"schedule": "1:0.5/2:0.35/4:0.2"}
    lines = [("sparsevlm", variant(**schedule)), ("sparsevlm", variant(**schedule, version=2)),
             ("dart", variant(**schedule)), ("otprune", variant(gamma=0.05))]  # fmt: skip
    scores = pd.DataFrame(lines, columns=["method", "variant"])
    assert [one.label for one in series_of(scores)][3:] == ["OTPrune, γ = 0.05"]
    lines = ["SparseVLM", "SparseVLM v2", "DART", "OTPrune"]
    assert [one.label for one in series_of(scores.assign(line=lines))] == lines


def test_each_method_counts_where_it_prunes_first(tmp_path):
    configs = [
        PruningConfig(),
        *(PruningConfig.make("otprune", 0.25, layer=layer) for layer in (0, 2)),
        *(PruningConfig.make("divprune", 0.25, layer=layer) for layer in (2, 5)),
    ]
    columns = [config.columns() for config in configs]
    results = read_results(results_folder.write_folder(tmp_path / "r", columns))
    kept = first_layer(results.scores)
    assert set(kept["row"]) == {"unpruned", "otprune-0.25", "divprune-0.25-layer2"}
    assert not several_budgets(kept[kept["method"].notna()])
    assert [one.label for one in series_of(results.scores)] == ["OTPrune", "DivPrune"]


def test_a_curve_over_a_setting_has_its_default_too():
    configs = [PruningConfig.make("otprune", 0.1, gamma=gamma) for gamma in (0.005, 0.01, 0.05)]
    configs += [
        PruningConfig.make("otprune", 0.1, gamma=0.5, variant="paper"),
        PruningConfig.make("otprune", 0.1, variant="paper"),
        PruningConfig.make("divprune", 0.1),
    ]
    table = pd.DataFrame([config.columns() for config in configs])
    table = table.assign(variant=variants_of(table), value=[61.0, 62.0, 63.0, 9.0, 9.0, 9.0])
    ((key, frame),) = curves_of(table).items()
    assert key == ("otprune", "gamma")
    assert dict(zip(frame["x"], frame["value"], strict=True)) == {
        0.005: 61.0, 0.01: 62.0, 0.05: 63.0,
    }  # fmt: skip
    assert curves_of(table.iloc[1:]) == {}, "two values are no curve"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 4000), min_size=1, unique=True).map(sorted))
def test_labels_of_an_axis_never_stand_too_near(values):
    kept = thinned(values, 1.2)
    assert kept[0] == values[0]
    assert set(kept) <= set(values)
    assert all(b >= 1.2 * a for a, b in zip(kept, kept[1:], strict=False))
    for value in set(values) - set(kept):
        assert any(one < value < 1.2 * one for one in kept)
