"""Figures of many settings or of long names: nothing is cropped, few lines are drawn."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend

import results_folder
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures import KINDS, read_results, score_by_tokens
from otprune_lmms.reporting.figures.choose import MOST, chosen
from otprune_lmms.reporting.figures.data import NotDrawn, Results
from otprune_lmms.reporting.figures.parts import fitted, series_of, text_width, wrapped
from otprune_lmms.reporting.figures.style import styled

METHODS = (
    "divprune", "dpp", "herding", "otprune", "kmedoids", "grid", "first_k", "fastervlm",
    "vispruner", "scope", "holov", "random", "mmtok",
)  # fmt: skip
WIDE = "W" * 40


def many(folder, label=None, methods=METHODS):
    """A results folder of many methods at two budgets, all with the figures' data."""
    configs = [
        PruningConfig(),
        *(PruningConfig.make(method, ratio) for method in methods for ratio in (0.25, 0.5)),
        *(PruningConfig.make("otprune", 0.25, layer=layer) for layer in (1, 2)),
    ]
    settings = [config.columns() for config in configs]
    own = results_folder.write_folder(folder, settings)
    content = json.loads((own / "manifest.json").read_text())
    content["configs"] = [
        one | ({} if label is None or one["method"] is None else {"label": label(one["method"])})
        for one in settings
    ]
    (own / "manifest.json").write_text(json.dumps(content))
    plain = read_results(own)
    return Results(own, plain.records, results_folder.images)


@pytest.fixture(
    scope="module",
    params=[pytest.param("our names", marks=pytest.mark.long), "long labels", "one long label"],
)
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "results"
    if request.param == "our names":
        return many(folder)
    if request.param == "long labels":
        return many(folder, lambda method: f"{method} {WIDE}"[:40])
    return many(folder, lambda method: f"{method} {WIDE}"[:40], METHODS[3:4])


def outside(figure, one):
    box, whole = one.get_window_extent(), figure.bbox
    return box.x0 < whole.x0 - 1 or box.y0 < whole.y0 - 1 or box.x1 > whole.x1 + 1 or (
        box.y1 > whole.y1 + 1
    )  # fmt: skip


def texts(figure):
    """All texts that are drawn but numbers at axes."""
    for axes in figure.axes:
        yield from (axes.title, axes._left_title, axes._right_title)
        yield from (axes.xaxis.label, axes.yaxis.label)
        low, high = sorted(axes.get_ylim())
        labels = zip(axes.get_yticks(), axes.get_yticklabels(), strict=False)
        yield from (label for place, label in labels if low <= place <= high)
    yield from figure.texts


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_legend_and_no_text_leaves_its_figure(results, kind):
    with styled():
        try:
            figure = kind.draw(results, "tiny")
        except NotDrawn as reason:
            pytest.skip(str(reason))
        FigureCanvasAgg(figure).draw()
        legends = figure.findobj(Legend)
        for one in legends:
            assert not outside(figure, one)
            for text in one.get_texts():
                assert not outside(figure, text), text.get_text()
        for text in texts(figure):
            assert not text.get_text().strip() or not outside(figure, text), text.get_text()
        titles = [axes.title for axes in figure.axes if axes.title.get_text()]
        boxes = sorted((t.get_window_extent().extents.tolist() for t in titles), key=lambda b: b[0])
        for one, other in zip(boxes, boxes[1:], strict=False):
            same_row = abs(one[1] - other[1]) < 2
            assert not same_row or other[0] >= one[2] - 1, "titles run into each other"


def test_few_lines_are_named_and_a_sentence_says_which(tmp_path):
    results = many(tmp_path / "results")
    series = series_of(results.scores)
    kept, said = chosen(results, "tiny", series)
    assert len(series) == len(METHODS) > MOST
    assert len(kept) == MOST
    assert [one for one in series if one in kept] == kept
    means = results.averages.merge(results.scores[["row", "method"]].drop_duplicates(), on="row")
    means = means.groupby("method")["value"].mean().drop(["otprune", "random"])
    best = set(means.sort_values(ascending=False).index[: MOST - 2])
    assert {one.method for one in kept} == {"otprune", "random"} | best
    assert said == (
        "4 of 13 lines are left out; shown are OTPrune, Random and of the others the best 7 by "
        "their mean of ratios; table.md has all."
    )
    figure = score_by_tokens.draw(results, "tiny")
    assert said in figure._supxlabel.get_text().replace("\n", " ")
    lowest = results.scores[results.scores["method"].isin([one.method for one in kept])]
    for axes, task in zip(figure.axes, results_folder.METRICS, strict=False):
        own = lowest[lowest["task"] == task]
        # The axis is that of the lines shown, not of those left out.
        shown = own["low"].min()
        assert axes.get_ylim()[0] >= shown - 0.2 * (own["high"].max() - shown)
    some, nothing = chosen(results, "tiny", series[:MOST])
    assert (some, nothing) == (series[:MOST], "")


def test_without_averages_the_first_lines_are_shown(tmp_path):
    results = many(tmp_path / "results")
    (results.folder / "averages.csv").unlink()
    pruned = results.records[results.records["method"].notna()]
    alone = Results(results.folder, pruned)
    series = series_of(alone.scores)
    kept, said = chosen(alone, "tiny", series)
    assert [one.method for one in kept[:3]] == list(METHODS[:3])
    assert "of the others the first ones" in said


@pytest.mark.parametrize("text", ["OTPrune", WIDE, "two words", f"{WIDE} {WIDE}", "a b c d e f g"])
@pytest.mark.parametrize("width", [0.3, 0.9, 3.0])
def test_text_is_wrapped_and_cut_to_a_width(text, width):
    assert text_width(fitted(text, width)) <= width
    lines = wrapped(text, width).split("\n")
    assert len(lines) <= 2
    assert all(text_width(line) <= width for line in lines)
    if text_width(text) <= width:
        assert fitted(text, width) == wrapped(text, width) == text
    np.testing.assert_allclose(text_width(text + text, 9), 9 / 7.5 * text_width(text + text))
