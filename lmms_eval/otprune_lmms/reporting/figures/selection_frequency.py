"""How often each patch of the grid is kept, over images: maps of each method."""

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from otprune_lmms.reporting.figures.data import NotDrawn, Results, budget_names
from otprune_lmms.reporting.figures.kept_patches import rasters
from otprune_lmms.reporting.figures.overlay import mask_of
from otprune_lmms.reporting.figures.parts import below, panel_titles, series_of, unnamed
from otprune_lmms.reporting.figures.style import WIDTH
from otprune_lmms.results.frames import Frame

CAPTION = (
    "How often each patch of the grid is kept over images, as a multiple of what chance would "
    "give (white: 1). A method without a bias of place is white but for noise."
)

_MOST = 4.0
_BUDGETS = 3
_COLUMNS = 8


def draw(results: Results, model: str) -> Figure:
    """Return one map for each method and budget.

    Images whose grid is not the most frequent one are left out.

    Raises:
        NotDrawn: see `kept_patches.rasters`.
    """
    kept = rasters(results, model).drop_duplicates(["setting", "cluster", "image"])
    grid = (kept[["height", "width"]].value_counts()).index[0]
    kept = kept[(kept["height"] == grid[0]) & (kept["width"] == grid[1])]
    budgets = list(budget_names(kept).items())[:_BUDGETS]
    every = series_of(kept)
    series = every[:_COLUMNS]
    side = (WIDTH - 0.9) / max(len(series), 4)
    size = (side * len(series) + 0.9, side * len(budgets) * grid[0] / grid[1] + 0.4)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=size, layout=layout)
    axes = figure.subplots(len(budgets), len(series), squeeze=False)
    norm = TwoSlopeNorm(1, 0, _MOST)
    drawn = None
    for line, (name, rows) in zip(axes, budgets, strict=True):
        line[0].set_ylabel(name.replace(" (", "\n("), fontsize=7.5)
        for place, one in zip(line, series, strict=True):
            own = kept[(kept["method"] == one.method) & (kept["variant"] == one.variant)]
            own = own[own["row"].isin(rows)]
            if len(own):
                drawn = place.imshow(frequency(own), norm=norm, cmap="RdBu_r")
            place.set(xticks=[], yticks=[])
            place.grid(visible=False)
            place.spines[:].set_visible(False)
    panel_titles(list(axes[0]), series, side)
    if drawn is None:
        raise NotDrawn("no budget that a method was run at")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, aspect=25, pad=0.015, ticks=[0, 0.5, 1, 2, 4])
    bar.ax.set_yticklabels(["never", "½", "chance", "2 ×", "≥ 4 ×"])
    bar.ax.spines["outline"].set_visible(False)
    images = kept[["cluster", "image"]].drop_duplicates().shape[0]
    below(figure, f"{images} images", unnamed(every, series))
    return figure


def frequency(kept: Frame) -> np.ndarray:
    """Return how often each patch is kept, as a multiple of the mean: [rows columns].

    Args:
        kept: diagnostics of one row, with equal grids; at least one kept patch in all.
    """
    first = kept.iloc[0]
    grid = (int(first["height"]), int(first["width"]))
    total = np.sum([mask_of(one, grid) for one in kept["kept"]], axis=0, dtype=float)
    return total / total.mean()
