"""One look for each method in all figures, readable in print and to the colour-blind.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/) and of Tol's muted scheme
(https://personal.sron.nl/~pault/) and, for those who came later, of ColorBrewer
(https://colorbrewer2.org). No two methods share a colour, nor a marker and a line style: methods
that ignore the tokens' content (random, stride, first tokens) are dashed, those that merge tokens
dash-dotted, those that prune layer by layer dotted, so that they differ without colour too.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import findfont, get_font

from otprune_lmms.reporting.escape import flat
from otprune_lmms.results.names import METHOD_NAMES


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn.

    Attributes:
        name: what figures call it.
        colour: as hex.
        marker: matplotlib's code.
        dash: line style.
        width: of lines, in points.
    """

    name: str
    colour: str
    marker: str
    dash: str | tuple[int, tuple[int, ...]] = "-"
    width: float = 1.3


BLIND = "--"
"""Line style of methods that ignore the tokens' content."""

MERGES = "-."
"""Line style of methods that merge tokens."""

LAYERS = ":"
"""Line style of methods that drop tokens layer by layer."""

LOOKS: dict[str, Look] = {
    "otprune": Look(METHOD_NAMES["otprune"], "#D55E00", "o", width=1.9),
    "divprune": Look(METHOD_NAMES["divprune"], "#0072B2", "s"),
    "w2greedy": Look(METHOD_NAMES["w2greedy"], "#009E73", "^"),
    "dpp": Look(METHOD_NAMES["dpp"], "#AA4499", "P"),
    "herding": Look(METHOD_NAMES["herding"], "#E69F00", "<"),
    "facility_location": Look(METHOD_NAMES["facility_location"], "#332288", ">"),
    "kmedoids": Look(METHOD_NAMES["kmedoids"], "#44AA99", "h"),
    "farthest_point": Look(METHOD_NAMES["farthest_point"], "#999933", "p"),
    "random": Look(METHOD_NAMES["random"], "#555555", "X", BLIND),
    "uniform": Look(METHOD_NAMES["uniform"], "#56B4E9", "D", BLIND),
    "grid": Look(METHOD_NAMES["grid"], "#882255", "d", BLIND),
    "first_k": Look(METHOD_NAMES["first_k"], "#117733", "v", BLIND),
    "last_k": Look(METHOD_NAMES["last_k"], "#CC6677", "*", BLIND),
    "fastervlm": Look(METHOD_NAMES["fastervlm"], "#E7298A", "8"),
    "vispruner": Look(METHOD_NAMES["vispruner"], "#5E3C99", "H"),
    "scope": Look(METHOD_NAMES["scope"], "#1A9850", "D"),
    "holov": Look(METHOD_NAMES["holov"], "#A6761D", "d"),
    "cdpruner": Look(METHOD_NAMES["cdpruner"], "#B2182B", "v"),
    "mmtok": Look(METHOD_NAMES["mmtok"], "#3690C0", "X"),
    "visionzip": Look(METHOD_NAMES["visionzip"], "#C51B7D", "o", MERGES),
    "prumerge": Look(METHOD_NAMES["prumerge"], "#4D9221", "s", MERGES),
    "tome": Look(METHOD_NAMES["tome"], "#2166AC", "^", MERGES),
    "pooling": Look(METHOD_NAMES["pooling"], "#8C510A", "D", MERGES),
    "downsample": Look(METHOD_NAMES["downsample"], "#01665E", "v", MERGES),
    "fastv": Look(METHOD_NAMES["fastv"], "#E31A1C", "s", LAYERS),
    "pyramiddrop": Look(METHOD_NAMES["pyramiddrop"], "#1F78B4", "^", LAYERS),
    "transprune": Look(METHOD_NAMES["transprune"], "#33A02C", "o", LAYERS, 1.6),
    "sparsevlm": Look(METHOD_NAMES["sparsevlm"], "#6A3D9A", "D", LAYERS),
    "dart": Look(METHOD_NAMES["dart"], "#B15928", "v", LAYERS),
    "tops": Look(METHOD_NAMES["tops"], "#FF7F00", "P", LAYERS),
    "vtw": Look(METHOD_NAMES["vtw"], "#7F7F7F", "X", LAYERS),
}
"""Looks that were chosen; every other method gets one by `look`."""

UNPRUNED_LOOK = Look("Unpruned", "#000000", "", (":"), 1.1)

_SPARE_COLOURS = ("#CC79A7", "#661100", "#0B7A75", "#7B4B94", "#B5A642", "#3D5A80", "#DA627D")
_SPARE_MARKERS = ("8", "H", "v", "d", "p", "P", "*", "X", "h", ">", "<")
_SPARE_DASH = (0, (5, 1, 1, 1))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 4.0,
    "axes.labelsize": 7.5,
    "figure.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.markersize": 4.2,
    # A dollar sign is one.
    "text.parse_math": False,
    "savefig.facecolor": "white",
    "figure.facecolor": "white",
    # Text stays text in vector files, and equal figures are equal files.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "otprune",
}

WIDTH = 6.875
"""Inches: the text width of a two-column CVPR page."""

COLUMN = 3.25
"""Inches: one of its columns."""


def look(method: str | None, methods: Iterable[str] = ()) -> Look:
    """Return how a method is drawn.

    Args:
        method: None for the unpruned model.
        methods: all methods of the figure; those without a chosen look get spare ones, by name, so
            that the same set looks the same everywhere.
    """
    if method is None:
        return UNPRUNED_LOOK
    if method in LOOKS:
        return LOOKS[method]
    others = sorted({*methods, method} - LOOKS.keys())
    place = others.index(method)
    colour = _SPARE_COLOURS[place % len(_SPARE_COLOURS)]
    return Look(drawn(method), colour, _SPARE_MARKERS[place % len(_SPARE_MARKERS)], _SPARE_DASH)


def shade(given: Look, place: int, count: int) -> Look:
    """Return the look of one of several variants of a method: from its colour to a darker one."""
    if count < 2:
        return given
    dark = 0.6 * place / (count - 1)
    red, green, blue = (channel * (1 - dark) for channel in to_rgb(given.colour))
    colour = to_hex((red, green, blue))
    dashes = (given.dash, (0, (4, 1)), (0, (2, 1)), (0, (4, 1, 1, 1)))
    return replace(given, colour=colour, dash=dashes[place % len(dashes)])


def drawn(text: object, longest: int = 44) -> str:
    """Return a text of an experiment or a data set as figures draw it: one line, not too long.

    Control characters are written out, letters that the font lacks are "□".
    """
    letters = "".join(one if ord(one) in _letters() else "□" for one in flat(text))
    short = letters if len(letters) <= longest else letters[: longest - 1].rstrip() + "…"
    # Legends leave out what begins with an underscore.
    return f" {short}" if short.startswith("_") else short


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(RC["font.family"])).get_charmap())


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures look alike; nothing outside it changes."""
    return mpl.rc_context(RC)
