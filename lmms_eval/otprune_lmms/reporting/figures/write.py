"""All figures of a results folder."""

import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from otprune_lmms.files import atomic_write
from otprune_lmms.reporting.figures import (
    correlations,
    differences,
    distance_rank,
    distance_score,
    kept_patches,
    radar,
    ratio_curves,
    relative_by_tokens,
    score_by_latency,
    score_by_layer,
    score_by_setting,
    score_by_tokens,
    selection_frequency,
)
from otprune_lmms.reporting.figures.data import (
    ImageSource,
    NoImages,
    NotDrawn,
    Results,
    read_results,
)
from otprune_lmms.reporting.figures.images import DataFileImages, task_file_folder
from otprune_lmms.reporting.figures.style import styled

logger = logging.getLogger(__name__)

Format = Literal["png", "pdf", "svg"]

FOLDER = "figures"
"""Folder of the figures in a results folder."""

_DPI = 200
_COLOURS = 256
"""Colours of a PNG's palette: a fraction of the bytes, without a visible difference."""


@dataclass(frozen=True, slots=True)
class FigureKind:
    """A figure that a results folder may have.

    Attributes:
        name: of its file.
        caption: what it shows, for readers.
        draw: returns it for one model, or raises `NotDrawn`.
    """

    name: str
    caption: str
    draw: Callable[[Results, str], Figure]


def _kind(module: ModuleType) -> FigureKind:
    return FigureKind(module.__name__.rpartition(".")[2], module.CAPTION, module.draw)


KINDS = tuple(
    _kind(module)
    for module in (
        relative_by_tokens,
        score_by_tokens,
        differences,
        ratio_curves,
        radar,
        score_by_layer,
        score_by_setting,
        score_by_latency,
        distance_rank,
        distance_score,
        correlations,
        kept_patches,
        selection_frequency,
    )
)
"""All figures, in the order in which pages show them."""


def write_figures(
    folder: Path, formats: Sequence[Format] = ("png",), images: ImageSource | None = None
) -> list[Path]:
    """Write the figures that a results folder's data allow into its ``figures``.

    Which are left out, and why, goes to the log. An older file of a figure that the data no longer
    allow, or of a model that the run does not have, is removed; one that only lacks the documents'
    images here stays. An older file in another format is drawn anew.

    Args:
        folder: with ``records.csv``; what other parts wrote is used where it is there.
        formats: png, pdf, svg.
        images: of the documents; by default those of local data files, see `default_images`.

    Returns:
        What was written.

    Raises:
        ValueError: no records; an unknown format.
        OutputError: a figure cannot be written.
    """
    for one in formats:
        if one not in get_args(Format):
            raise ValueError(f"format must be one of {', '.join(get_args(Format))}; got {one!r}")
    results = read_results(folder)
    results = Results(folder, results.records, images or default_images(results))
    written, known = [], set()
    for kind in KINDS:
        for model, stem in stems(results, kind.name):
            known.add(stem)
            written += _write(results, kind, model, folder / FOLDER / stem, formats)
    for path in (folder / FOLDER).glob("*"):
        kind = path.stem.partition("-")[0]
        ours = kind in {one.name for one in KINDS} and path.suffix[1:] in get_args(Format)
        if ours and path.stem not in known:
            path.unlink()
    return written


def stems(results: Results, name: str) -> Iterator[tuple[str, str]]:
    """Yield each model and the name of its file of a figure, without the suffix."""
    for model in results.models:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", model)
        yield model, name if len(results.models) == 1 else f"{name}-{safe}"


def default_images(results: Results, tasks: Path | None = None) -> DataFileImages | None:
    """Return the images of the data files that a run's task files name.

    None where the folder does not say where its data is, or it is on the hub.

    Args:
        results: of the run.
        tasks: folder of the task files, where the suite is one of the experiment's own.
    """
    experiment = results.manifest.get("experiment") or {}
    try:
        task_files = task_file_folder(experiment.get("suite", "hub"), tasks)
    except ValueError as error:
        logger.info("no images: %s", error)
        return None
    return None if task_files is None else DataFileImages(task_files, results.folder)


def _write(
    results: Results, kind: FigureKind, model: str, stem: Path, formats: Sequence[Format]
) -> list[Path]:
    every: list[Format] = [
        one for one in get_args(Format) if one in formats or _file(stem, one).is_file()
    ]
    paths = [_file(stem, one) for one in every]
    try:
        with styled():
            figure = kind.draw(results, model)
            contents = [render(figure, one) for one in every]
    except NotDrawn as reason:
        logger.info("%s: no figure %s: %s", results.folder, stem.name, reason)
        for one in get_args(Format) if not isinstance(reason, NoImages) else ():
            _file(stem, one).unlink(missing_ok=True)
        return []
    for path, content in zip(paths, contents, strict=True):
        with atomic_write(path) as place:
            place.write_bytes(content)
    return paths


def _file(stem: Path, form: Format) -> Path:
    return stem.with_name(f"{stem.name}.{form}")


def render(figure: Figure, form: Format) -> bytes:
    """Return a figure as the content of a file; equal figures give equal bytes."""
    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    if form != "png":
        undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
        canvas.print_figure(file, format=form, metadata=undated)
        return file.getvalue()
    canvas.print_figure(file, format="png", dpi=_DPI)
    small = io.BytesIO()
    picture = Image.open(file).convert("RGB").quantize(_COLOURS)
    picture.save(small, "PNG", optimize=True, dpi=(_DPI, _DPI))
    return small.getvalue()
