"""Parts that several figures share: lines of methods, token axes, panels, legends."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from otprune_lmms.reporting.figures.style import RC, UNPRUNED_LOOK, Look, drawn, look, shade
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import in_words

_SHORT = 8
"""Entries of a legend that fit into a panel."""

_ENTRY = 0.55
"""Inches of a legend's entry beside its text: its line and the gaps."""

_ROWS, _ROW = 4, 0.16
"""Rows of a legend above a figure that fit into it, and the inches of each further one."""

_NOTE = 6.5
"""Points of a sentence below a figure."""

PLAIN = "{}"
"""Variant of a method with its defaults."""


@dataclass(frozen=True)
class Series:
    """A method with its settings, over budgets or layers: one line of a figure.

    Attributes:
        method: its name.
        variant: settings that differ from the defaults, see `data.variants_of`.
        look: how it is drawn.
        label: in the legend.
    """

    method: str
    variant: str
    look: Look
    label: str


def series_of(scores: Frame) -> list[Series]:
    """Return the methods and variants of some scores, in order of appearance."""
    pruned = scores[scores["method"].notna()]
    pairs = list(dict.fromkeys(zip(pruned["method"], pruned["variant"], strict=True)))
    methods = [method for method, _ in pairs]
    labels = _labels(pruned)
    found = []
    for method, variant in pairs:
        own = [other for name, other in pairs if name == method]
        plain = look(method, methods)
        label = labels.get((method, variant)) or _label(plain, variant)
        shaded = shade(plain, own.index(variant), len(own))
        found.append(Series(method, variant, shaded, drawn(label)))
    return found


def _labels(pruned: Frame) -> dict[tuple[str, str], str]:
    """Return the name of each method and variant that has one name in all its rows."""
    if "line" not in pruned:
        return {}
    return {
        pair: str(some["line"].iloc[0])
        for pair, some in pruned.groupby(["method", "variant"], sort=False)
        if some["line"].nunique() == 1
    }


def _label(plain: Look, variant: str) -> str:
    return ", ".join(part for part in (plain.name, in_words(json.loads(variant))) if part)


def rows_of(scores: Frame, series: Series) -> Frame:
    """Return the scores of a method with its settings."""
    own = (scores["method"] == series.method) & (scores["variant"] == series.variant)
    return scores[own]


def of_series(scores: Frame, series: Sequence[Series]) -> Frame:
    """Return the scores of some methods with their settings."""
    wanted = {(one.method, one.variant) for one in series}
    pairs = zip(scores["method"], scores["variant"], strict=True)
    return scores[[pair in wanted for pair in pairs]]


def others_of(scores: Frame, series: Sequence[Series]) -> Frame:
    """Return the scores of methods that are none of the series."""
    pruned = scores[scores["method"].notna()]
    return pruned[~pruned.index.isin(of_series(pruned, series).index)]


def draw_others(axes: Axes, frame: Frame, x: str, y: str) -> None:
    """Draw what has no name in the legend as grey dots.

    Args:
        axes: where.
        frame: of `others_of`.
        x: column of the places.
        y: column of the values.
    """
    if len(frame):
        axes.plot(frame[x], frame[y], ls="", marker=".", ms=4, color="#BBBBBB", zorder=2)


def first_layer(scores: Frame) -> Frame:
    """Return the scores of each method at its lowest layer: before the LLM, if it was run there."""
    first = scores.groupby(["method", "variant"], dropna=False)["layer"].transform("min")
    return scores[scores["layer"] == first]


def draw_line(axes: Axes, x: Any, frame: Frame, look: Look, label: str | None = None) -> None:
    """Draw values with their 95 % intervals, where there are any.

    Args:
        axes: where.
        x: of each row, ascending.
        frame: value, low and high.
        look: of the line.
        label: for the legend.
    """
    value = frame["value"].to_numpy()
    known = frame["low"].notna().to_numpy()
    axes.plot(
        x, value, color=look.colour, ls=look.dash, lw=look.width, marker=look.marker,
        mec="white", mew=0.5, label=label, zorder=3 + look.width, clip_on=False,
    )  # fmt: skip
    low, high = frame["low"].to_numpy()[known], frame["high"].to_numpy()[known]
    axes.vlines(np.asarray(x)[known], low, high, color=look.colour, lw=0.8, alpha=0.75, zorder=3)


def draw_unpruned(axes: Axes, frame: Frame) -> None:
    """Draw the unpruned model's value as a line, its interval as a band."""
    for line in frame.itertuples():
        axes.axhline(
            line.value, color=UNPRUNED_LOOK.colour, ls=UNPRUNED_LOOK.dash, lw=UNPRUNED_LOOK.width
        )
        if line.low == line.low:
            axes.axhspan(line.low, line.high, color="#000000", alpha=0.07, lw=0)


def dodge(place: int, count: int, width: float = 0.16) -> float:
    """Return the factor that moves one of several series aside on a logarithmic axis.

    Args:
        place: of the series.
        count: of all series.
        width: of all together, in octaves.
    """
    return 2.0 ** (width * (place / (count - 1) - 0.5)) if count > 1 else 1.0


def several_budgets(pruned: Frame) -> bool:
    """Return whether any method was run at two budgets of the same task."""
    names = ["method", "variant", "layer", "task"]
    budgets = pruned.groupby(names)["tokens"].agg(lambda tokens: tokens.round(1).nunique())
    return bool((budgets > 1).any())


def of_all(scores: Frame) -> str:
    """Return " of 576" where all images of a model have as many visual tokens, else ""."""
    visual = scores["visual"].round(1).unique()
    return f" of {visual[0]:.0f}" if len(visual) == 1 else ""


def token_axis(axes: Axes, tokens: Sequence[float]) -> None:
    """Make x a logarithmic axis of kept tokens with a tick at each budget."""
    axes.set_xscale("log", base=2)
    # A method may leave none at all.
    tokens = [token for token in tokens if token > 0]
    if not tokens:
        return
    ticks = thinned(sorted({max(1, round(float(token))) for token in tokens}))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlim(min(tokens) / 1.3, max(tokens) * 1.3)


def thinned(values: Sequence[float], apart: float = 1.22) -> list[float]:
    """Return ascending values without those too near their predecessor for two labels."""
    kept: list[float] = []
    for value in values:
        if not kept or value >= kept[-1] * apart:
            kept.append(value)
    return kept


def title(axes: Axes, name: str, metric: str = "") -> None:
    """Write a panel's name at the left and, small, its metric at the right."""
    axes.set_title(drawn(name), loc="left")
    if metric:
        style = {"fontsize": 6.5, "fontweight": "normal", "color": "#555555"}
        axes.set_title(drawn(metric), loc="right", **style)


def handles(series: Sequence[Series], unpruned: bool = True) -> list[Line2D]:
    """Return what a legend shows of some series."""
    looks = [(one.look, one.label) for one in series]
    looks += [(UNPRUNED_LOOK, UNPRUNED_LOOK.name)] if unpruned else []
    return [
        Line2D(
            [], [], color=one.colour, ls=one.dash, lw=one.width, marker=one.marker or None,
            mec="white", mew=0.5, label=label,
        )
        for one, label in looks
    ]  # fmt: skip


def panels(
    count: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, list[Axes], list[Axes]]:
    """Return a figure of small multiples: the figure, its panels, and places left over.

    Args:
        count: of panels.
        columns: at most.
        width: of the figure, inches.
        height: of a panel, inches.
        options: of ``Figure.subplots``.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, hspace=0.03, wspace=0.02)
    figure = Figure(figsize=(width, rows * height), layout=layout)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flatten())
    for place in axes[count:]:
        place.set_axis_off()
    return figure, axes[:count], axes[count:]


def legend(figure: Figure, lines: Sequence[Line2D], free: Sequence[Axes]) -> None:
    """Put a short legend into a panel that is left over, else above the figure."""
    if free and len(lines) <= _SHORT:
        place = free[-1].get_subplotspec()
        columns = 1 if place is None else place.get_gridspec().ncols
        if _widest(lines) <= figure.get_figwidth() / columns:
            free[-1].legend(handles=list(lines), loc="center", handlelength=2.4, labelspacing=0.7)
            return
    outside(figure, lines)


def outside(figure: Figure, lines: Sequence[Line2D]) -> None:
    """Put the legend above the figure, in as many columns as its width allows.

    Labels that are wider than the figure are cut.
    """
    for line in lines:
        line.set_label(fitted(str(line.get_label()), figure.get_figwidth() - _ENTRY - 0.1))
    columns = max(1, min(len(lines), int(figure.get_figwidth() / _widest(lines))))
    # A long legend must not take the panels' place.
    rows = -(-len(lines) // columns)
    figure.set_figheight(figure.get_figheight() + _ROW * max(0, rows - _ROWS))
    # Filled row by row, as it is read.
    ordered = [one for start in range(columns) for one in lines[start::columns]]
    figure.legend(handles=ordered, loc="outside upper center", ncols=columns)


def _widest(lines: Sequence[Line2D]) -> float:
    return _ENTRY + max((text_width(str(line.get_label())) for line in lines), default=0.0)


def text_width(text: str, size: float | None = None, bold: bool = False) -> float:
    """Return the width of a line of text in inches.

    Args:
        text: without line ends.
        size: in points; None for a legend's.
        bold: whether it is.
    """
    if not text.strip():
        return 0.0
    font = FontProperties(family=RC["font.family"], weight="bold" if bold else "normal")
    found = TextPath((0, 0), text, size=size or RC["legend.fontsize"], prop=font, usetex=False)
    return float(found.get_extents().width) / 72


def fitted(text: str, width: float, size: float | None = None, bold: bool = False) -> str:
    """Return a line of text, cut with "…" where it is wider than so many inches."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(f"{text}…", size, bold) > width:
        text = text[:-1].rstrip()
    return f"{text}…"


def wrapped(text: str, width: float, size: float | None = None, bold: bool = False) -> str:
    """Return text on one or two lines of so many inches, each cut where a word is wider."""
    first, rest = "", text
    for word in text.split():
        longer = f"{first} {word}".strip()
        if first and text_width(longer, size, bold) > width:
            break
        first, rest = longer, rest.removeprefix(word).lstrip()
    lines = [fitted(line, width, size, bold) for line in (first, rest) if line]
    return "\n".join(lines)


def panel_titles(places: Sequence[Axes], series: Sequence[Series], width: float) -> None:
    """Write the name of a line above each panel, in its colour, no wider than the panel.

    Args:
        places: panels beside each other.
        series: a line for each.
        width: of a panel, inches.
    """
    size = RC["axes.titlesize"]
    for place, one in zip(places, series, strict=True):
        place.set_title(wrapped(one.label, 0.96 * width, size, True), color=one.look.colour)


def unnamed(every: Sequence[Series], shown: Sequence[Series]) -> str:
    """Return a sentence about methods that have no panel; "" where all have one."""
    left = [one.label for one in every if one not in shown]
    return f"Not shown: {', '.join(left)}." if left else ""


def below(figure: Figure, label: str, sentence: str) -> None:
    """Write the label of all x axes, and below it a sentence about what is left out."""
    if not sentence:
        figure.supxlabel(label)
        return
    width, lines = 0.94 * figure.get_figwidth(), [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, _NOTE) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    # The panels keep their height.
    figure.set_figheight(figure.get_figheight() + 0.11 * len(lines) + 0.05)
    figure.supxlabel("\n".join([label, *lines]), fontsize=_NOTE, linespacing=1.3)
