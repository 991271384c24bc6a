"""Figures, held to the numbers that they show."""

import io
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import rankdata

import results_folder
from otprune_lmms.benchmarks import benchmark
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.figures import (
    KINDS,
    differences,
    distance_rank,
    kept_patches,
    radar,
    read_results,
    score_by_latency,
    score_by_layer,
    score_by_tokens,
    write_figures,
)
from otprune_lmms.reporting.figures.data import NoImages, NotDrawn, Results
from otprune_lmms.reporting.figures.kept_patches import rasters
from otprune_lmms.reporting.figures.overlay import fade, mask_of, outline, seen
from otprune_lmms.reporting.figures.score_by_latency import front
from otprune_lmms.reporting.figures.selection_frequency import frequency
from otprune_lmms.reporting.figures.style import LOOKS, styled
from otprune_lmms.reporting.figures.write import render

GRID = results_folder.GRID
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return results_folder.write_folder(tmp_path_factory.mktemp("figures") / "results")


@pytest.fixture(scope="module")
def results(folder):
    plain = read_results(folder)
    return Results(folder, plain.records, results_folder.images)


def panel(figure: Figure, name: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left") == name]
    return found


def lines(axes: Axes, method: str) -> list:
    colour = LOOKS[method].colour.lower()
    return [line for line in axes.lines if to_hex(line.get_color()) == colour]


def test_curves_hold_the_scores_and_their_intervals(results):
    figure = score_by_tokens.draw(results, "tiny")
    for task in results_folder.METRICS:
        axes = panel(figure, benchmark(task).column)
        own = results.scores[results.scores["task"] == task]
        for method in ("otprune", "divprune", "random"):
            (line,) = lines(axes, method)
            want = own[own["method"] == method].sort_values("tokens")
            np.testing.assert_array_equal(line.get_ydata(), want["value"])
            np.testing.assert_allclose(line.get_xdata(), want["tokens"], rtol=0.06)
            (bars,) = [
                one for one in axes.collections
                if to_hex(one.get_color()[0]) == LOOKS[method].colour.lower()
            ]  # fmt: skip
            ends = [(part[0, 1], part[1, 1]) for part in bars.get_segments()]
            np.testing.assert_allclose(ends, want[["low", "high"]].to_numpy())
        flat = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
        assert own[own["method"].isna()]["value"].item() in [line.get_ydata()[0] for line in flat]


def test_ranks_are_those_of_distances_and_scores(results):
    figure = distance_rank.draw(results, "tiny")
    kept = results.diagnostics
    methods = ("otprune", "divprune", "random")
    for task in results_folder.METRICS:
        axes = panel(figure, benchmark(task).column)
        far, good = [], []
        for method in methods:
            row = f"{method}-0.125"  # the paper's 0.098 was not run, so the smallest
            far.append(kept[(kept["row"] == row) & (kept["task"] == task)]["exact_w2"].mean())
            own = results.scores[(results.scores["row"] == row) & (results.scores["task"] == task)]
            good.append(own["value"].item())
        wanted = zip(methods, rankdata(far), rankdata(-np.array(good)), strict=True)
        for method, x, y in wanted:
            (mark,) = lines(axes, method)
            assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (x, y)
        assert axes.get_xlabel() == "ρ = −0.50 [−1.00, 0.25]"


def test_differences_point_at_the_better_one_and_mark_what_is_decided(results):
    figure = differences.draw(results, "tiny")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "keep ratio 0.125", "keep ratio 0.25", "keep ratio 0.5",
    ]  # fmt: skip
    base = results.scores[results.scores["method"].isna()].set_index("task")["value"]
    tasks = [*results_folder.METRICS, "all"]
    for method, sign, filled in (("divprune", -1, True), ("random", 1, False)):
        # otprune - divprune is +4, so divprune lies to the left.
        shown = np.concatenate(
            [
                line.get_xdata() for line in figure.axes[0].lines
                if to_hex(line.get_markeredgecolor()) == LOOKS[method].colour.lower()
                and (to_hex(line.get_markerfacecolor()) != "#ffffff") == filled
            ]
        )  # fmt: skip
        want = [4 * sign if t == "all" else 400 * sign / base[t] for t in tasks]
        np.testing.assert_allclose(np.sort(shown), np.sort(want))
    figure.canvas.draw()
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "mean of ratios"


def test_a_radar_closes_and_its_ring_is_the_unpruned_model(results):
    axes = radar.draw(results, "tiny").axes[0]
    (ring,) = lines(axes, "otprune")
    assert len(ring.get_ydata()) == 5
    assert ring.get_ydata()[0] == ring.get_ydata()[-1]
    (whole,) = [line for line in axes.lines if set(line.get_ydata()) == {100.0}]
    assert to_hex(whole.get_color()) == "#000000"


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12),
)
def test_the_front_is_what_nothing_dominates(points):
    cost, score = zip(*points, strict=True)
    want = [not any((a <= x and b >= y) and (a < x or b > y) for a, b in points) for x, y in points]
    assert front(cost, score).tolist() == want


def test_latency_joins_scores_and_times_at_the_smallest_batch(results, folder):
    path = folder / "cost.csv"
    before = path.read_text()
    cost = pd.read_csv(path)
    pd.concat([cost, cost.assign(batch=16, prefill_ms=1000.0)]).to_csv(path, index=False)
    try:
        left, right = score_by_latency.draw(read_results(folder), "tiny").axes
    finally:
        path.write_text(before)
    (line,) = [one for one in lines(left, "otprune") if len(one.get_xdata()) == 3]
    np.testing.assert_allclose(line.get_xdata(), [2 + 1, 4 + 1, 8 + 1])
    (line,) = [one for one in lines(right, "otprune") if len(one.get_xdata()) == 3]
    np.testing.assert_allclose(line.get_xdata(), [62, 64, 68])


def test_layers_are_drawn_where_a_budget_has_several(tmp_path, results):
    with pytest.raises(NotDrawn, match="several layers"):
        score_by_layer.draw(results, "tiny")
    configs = [PruningConfig(), PruningConfig.make("divprune", 0.25)]
    configs += [PruningConfig.make("otprune", 0.25, layer=layer) for layer in (0, 2, 5)]
    columns = [config.columns() for config in configs]
    layered = read_results(results_folder.write_folder(tmp_path / "layers", columns))
    figure = score_by_layer.draw(layered, "tiny")
    (line,) = lines(panel(figure, "GQA"), "otprune")
    assert list(line.get_xdata()) == [0, 2, 5]
    assert lines(panel(figure, "GQA"), "divprune") == []


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_an_outline_is_as_long_as_the_border_of_what_is_kept(mask):
    framed = np.pad(mask, 1).astype(int)
    border = np.abs(np.diff(framed, axis=0)).sum() + np.abs(np.diff(framed, axis=1)).sum()
    axes = Figure().add_subplot()
    outline(axes, mask, (10 * mask.shape[0], 10 * mask.shape[1]), "red")
    segments = np.array(axes.collections[0].get_segments()).reshape(-1, 2, 2)
    assert len(segments) == border
    if border:
        np.testing.assert_allclose(np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1), 10)


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_fading_leaves_what_is_kept_and_greys_the_rest(mask):
    draw = np.random.default_rng(0)
    pixels = draw.uniform(size=(3 * mask.shape[0], 3 * mask.shape[1], 3))
    faded = fade(pixels, mask)
    whole = mask.repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(faded[whole], pixels[whole])
    assert np.ptp(faded[~whole], axis=-1).max(initial=0) < 1e-12
    assert faded[~whole].min(initial=1) >= 0.65


def test_a_mask_is_in_raster_order_and_refuses_what_is_outside():
    mask = mask_of(np.array([0, 5]), (2, 3))
    assert mask.tolist() == [[True, False, False], [False, False, True]]
    for wrong in ([6], [-1]):
        with pytest.raises(ValueError, match="grid of 2 x 3"):
            mask_of(np.array(wrong), (2, 3))


def test_a_square_grid_covers_the_image_padded_to_a_square():
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    square = seen(image, (4, 4), side=40)
    assert square.shape == (40, 40, 3)
    np.testing.assert_allclose(square[20, 20], [1, 0, 0])
    np.testing.assert_allclose(square[2, 20] * 255, [122, 116, 104])
    assert seen(image, (2, 4), side=40).shape == (20, 40, 3)
    np.testing.assert_allclose(
        seen(image, (2, 4), side=40), np.broadcast_to([1, 0, 0], (20, 40, 3))
    )


def test_frequency_is_a_multiple_of_chance():
    sets = [[0, 1], [0, 2], [0, 3], [0, 1]]
    kept = pd.DataFrame({"kept": sets, "height": 2, "width": 2})
    np.testing.assert_allclose(frequency(kept), [[2, 1], [0.5, 0.5]])
    assert frequency(kept).mean() == 1


def test_of_several_seeds_one_is_shown_and_images_without_a_raster_are_not(folder):
    kept = pd.read_parquet(folder / "diagnostics.parquet")
    second = kept[kept["method"] == "random"].assign(setting="again")
    flat = kept[kept["task"] == "gqa"].index
    kept.loc[flat, ["height", "width"]] = 0
    own = read_results(folder)
    own.__dict__["diagnostics"] = pd.concat([kept, second])
    found = rasters(own, "tiny")
    assert set(found["task"]) == set(results_folder.METRICS) - {"gqa"}
    assert "again" not in set(found["setting"])
    own.__dict__["diagnostics"] = kept.assign(height=0)
    with pytest.raises(NotDrawn, match="one raster"):
        rasters(own, "tiny")


def test_kept_patches_say_what_they_lack(results, folder):
    with pytest.raises(NoImages):
        kept_patches.draw(read_results(folder), "tiny")
    with pytest.raises(NoImages):
        kept_patches.draw(Results(folder, results.records, lambda places: {}), "tiny")
    figure = kept_patches.draw(results, "tiny")
    assert len(figure.axes) == 4 * 4
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert drawn.shape[0] == drawn.shape[1]  # a wide picture, padded as the model sees it


def test_all_figures_are_written_and_no_stale_one_stays(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("otprune_lmms.reporting.figures.write._DPI", 80)  # faster
    own = results_folder.write_folder(tmp_path / "results")
    (own / "figures").mkdir()
    stale = own / "figures" / "score_by_layer.png"
    stale.write_bytes(b"old")
    with caplog.at_level(logging.INFO, "otprune_lmms"):
        written = write_figures(own, images=results_folder.images)
    left_out = {"score_by_layer", "score_by_setting"}
    assert {path.stem for path in written} == {kind.name for kind in KINDS} - left_out
    assert not stale.exists()
    assert "no figure score_by_layer: no method was run at several layers" in caplog.text
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 80
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 8
    assert sorted(own.glob("figures/*")) == sorted(written)
    with styled():
        again = io.BytesIO()
        score_by_tokens.draw(read_results(own), "tiny").savefig(again, dpi=80)
    picture = Image.open(own / "figures" / "score_by_tokens.png").convert("RGB")
    difference = np.abs(np.asarray(picture, int) - np.asarray(Image.open(again).convert("RGB")))
    assert difference.mean() < 2  # the palette


def test_records_alone_give_the_figures_that_need_no_more(tmp_path, caplog):
    own = results_folder.write_folder(tmp_path / "results", models=("a", "b"))
    for path in own.iterdir():
        if path.name != "records.csv":
            path.unlink()
    before = own / "figures" / "kept_patches-a.png"
    before.parent.mkdir()
    before.write_bytes(b"old")
    with caplog.at_level(logging.INFO, "otprune_lmms"):
        written = write_figures(own, formats=("svg",))
    kinds = ("relative_by_tokens", "score_by_tokens", "ratio_curves", "radar")
    assert {path.name for path in written} == {f"{k}-{model}.svg" for k in kinds for model in "ab"}
    assert "no cost.csv (otprune bench makes it)" in caplog.text
    assert "no diagnostics.parquet (otprune analyze makes it)" in caplog.text
    assert "OTPrune</text>" in (own / "figures" / "radar-a.svg").read_text()
    assert not before.exists()


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.long) for form in ("png", "pdf")] + ["svg"]
)
def test_equal_figures_are_equal_files(results, form):
    def drawn():
        with styled():
            return render(radar.draw(results, "tiny"), form)

    assert drawn() == drawn()


def test_mistakes_are_sentences(tmp_path, folder):
    with pytest.raises(ValueError, match=r"no records at .*records\.csv"):
        write_figures(tmp_path)
    with pytest.raises(ValueError, match="format must be one of png, pdf, svg; got 'gif'"):
        # The wrong type is the point.
        write_figures(folder, formats=("gif",))
