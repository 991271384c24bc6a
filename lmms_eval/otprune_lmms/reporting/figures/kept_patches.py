"""What each method keeps of the same images, side by side."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from otprune_lmms.reporting.figures.data import NoImages, NotDrawn, Results, budget_names, heading
from otprune_lmms.reporting.figures.overlay import fade, mask_of, outline, seen
from otprune_lmms.reporting.figures.parts import (
    Series,
    below,
    first_layer,
    panel_titles,
    series_of,
    unnamed,
)
from otprune_lmms.reporting.figures.style import WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "Patches that each method (up to seven) keeps of the same images at the smallest budget, in "
    "colour and outlined; what it drops is grey. Images are padded to a square as the model sees "
    "them."
)

_IMAGES = 4
_COLUMNS = 8


def draw(results: Results, model: str) -> Figure:
    """Return one row an image and one column a method.

    Raises:
        NotDrawn: no diagnostics, or no image whose tokens are one raster of patches.
        NoImages: the images of the documents are not at hand.
    """
    kept = rasters(results, model)
    if results.images is None:
        raise NoImages("the images of the documents are not at hand")
    chosen = _chosen(kept)
    found = results.images([(task, doc_id) for task, doc_id, _ in chosen])
    chosen = [place for place in chosen if len(found.get(place[:2], ())) > place[2]][:_IMAGES]
    if not chosen:
        raise NoImages("the images of the documents could not be read")
    budget, rows = next(iter(budget_names(with_tokens(kept)).items()))
    shown = kept[kept["row"].isin(rows)]
    every = series_of(shown)
    series = every[: _COLUMNS - 1]
    side = WIDTH / (len(series) + 1)
    layout = ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, hspace=0, wspace=0)
    figure = Figure(figsize=(WIDTH, side * len(chosen) + 0.42), layout=layout)
    axes = figure.subplots(len(chosen), len(series) + 1, squeeze=False)
    for line, (task, doc_id, image) in zip(axes, chosen, strict=True):
        own = shown[(shown["task"] == task) & (shown["doc_id"] == doc_id)]
        own = own[own["image"] == image]
        grid = (int(own["height"].iloc[0]), int(own["width"].iloc[0]))
        pixels = seen(found[task, doc_id][image], grid)
        line[0].imshow(pixels)
        line[0].set_ylabel(heading(task), fontsize=7.5)
        for place, one in zip(line[1:], series, strict=True):
            _panel(place, pixels, own, one)
    _titles(axes, series, side)
    below(figure, f"{budget} kept of each image", unnamed(every, series))
    return figure


def rasters(results: Results, model: str) -> Frame:
    """Return the diagnostics of images whose tokens are one raster; one seed of each row.

    With ``line``, ``variant``, ``tokens`` and ``visual`` as the scores have them.

    Raises:
        NotDrawn: there are none.
    """
    found = results.diagnostics
    found = found[(found["model"] == model) & (found["height"] > 0)]
    about = results.scores[["model", "row", "line", "variant"]].drop_duplicates(["model", "row"])
    found = first_layer(found.merge(about, "inner", ["model", "row"]))
    if found.empty:
        raise NotDrawn(f"no image of {model} whose visual tokens are one raster of patches")
    first = found.groupby("row")["setting"].transform("first")
    return with_tokens(found[found["setting"] == first])


def with_tokens(kept: Frame) -> Frame:
    """Return diagnostics with the tokens kept and those there were, by image."""
    return kept.assign(tokens=kept["kept"].map(len), visual=kept["n"])


def _chosen(kept: Frame) -> list[tuple[str, int, int]]:
    """Return images, the first of every task before the second of any; no image twice."""
    places = kept.drop_duplicates(["cluster", "image"])[["task", "doc_id", "image"]]
    turn = places.groupby("task", sort=False).cumcount()
    ordered = places.assign(turn=turn).sort_values("turn", kind="stable")
    return [(row.task, int(row.doc_id), int(row.image)) for row in ordered.itertuples()]


def _panel(axes: Axes, pixels: np.ndarray, own: Frame, one: Series) -> None:
    mine = own[(own["method"] == one.method) & (own["variant"] == one.variant)]
    if mine.empty:
        return
    first = mine.iloc[0]
    mask = mask_of(first["kept"], (int(first["height"]), int(first["width"])))
    axes.imshow(fade(pixels, mask))
    outline(axes, mask, (pixels.shape[0], pixels.shape[1]), one.look.colour)


def _titles(axes: np.ndarray, series: list[Series], side: float) -> None:
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
        place.grid(visible=False)
        place.spines[:].set_visible(False)
    axes[0, 0].set_title("image", fontweight="normal")
    panel_titles(list(axes[0, 1:]), series, side)
