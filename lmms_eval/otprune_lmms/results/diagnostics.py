"""Diagnostics on disk: one row for each setting and image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from otprune_lmms.files import atomic_write
from otprune_lmms.results.checked import Column, Kind, read_parquet
from otprune_lmms.results.columns import SETTING, SETTING_COLUMNS
from otprune_lmms.results.times import write_selection_seconds

DIAGNOSTICS = "diagnostics.parquet"

COLUMNS = [
    "model",
    *SETTING,
    "cluster",
    "task",
    "doc_id",
    "image",
    "height",
    "width",
    "kept",
    "n",
    "gaussian_w2",
    "gaussian_w2_zero_mean",
    "gaussian_w2_channels",
    "exact_w2",
    "coverage",
    "coverage_mean",
    "coverage_max",
    "effective_rank",
]
"""The columns of a setting are those of `results.columns`. ``cluster``: hash of the document's
images; ``doc_id``: a document of the task that shows them; ``image``: number of the image in the
document; ``height`` and ``width``: rows and columns of its patches, 0 where its tokens are no
single raster; ``kept``: positions of the kept tokens; ``n``: visual tokens before pruning.
The others: see `QUANTITIES`."""

_KINDS = {
    **dict.fromkeys(("model", "cluster", "task"), Column(Kind.TEXT)),
    **SETTING_COLUMNS,
    **dict.fromkeys(("doc_id", "image", "height", "width", "n"), Column(Kind.WHOLE)),
    "kept": Column(Kind.PLACES),
    **dict.fromkeys(COLUMNS[COLUMNS.index("n") + 1 :], Column(Kind.NUMBER, empty=True)),
}
"""What each column must hold; a file of an earlier version also has ``seconds``."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that is measured for a set of kept tokens.

    Attributes:
        column: its column in the diagnostics.
        name: for tables.
        better: +1 where larger values are expected to be better, -1 where smaller ones are.
        description: for readers.
    """

    column: str
    name: str
    better: int
    description: str


QUANTITIES = (
    Quantity("exact_w2", "exact W2", -1, "2-Wasserstein distance between the two sets of points"),
    Quantity(
        "gaussian_w2", "Gaussian W2", -1, "between Gaussians with the sets' means and covariances"
    ),
    Quantity(
        "gaussian_w2_zero_mean",
        "Gaussian W2, zero mean",
        -1,
        "the same with raw second moments and no means: OTPrune's Eq. 3",
    ),
    Quantity(
        "gaussian_w2_channels",
        "Gaussian W2, zero mean, unit channels",
        -1,
        "the same after every channel was divided by its root mean square over all tokens, the "
        "space that OTPrune works in",
    ),
    Quantity(
        "coverage", "coverage", -1, "root mean squared distance of a token to its nearest kept one"
    ),
    Quantity(
        "coverage_mean",
        "coverage, mean",
        -1,
        "mean distance of a dropped token to its nearest kept one",
    ),
    Quantity("coverage_max", "coverage, max", -1, "largest distance of a token to its nearest"),
    Quantity(
        "effective_rank",
        "effective rank",
        1,
        "of the kept tokens, divided by that of all tokens (Roy & Vetterli 2007)",
    ),
)
"""Quantities that are compared with the scores; the first is the exact distance."""

MAIN = ("exact_w2", "gaussian_w2_zero_mean", "coverage", "effective_rank")
"""The quantities that pages show; all are in the CSV."""


def quantity(column: str) -> Quantity:
    """Return the quantity of a column.

    Raises:
        ValueError: there is none.
    """
    for one in QUANTITIES:
        if one.column == column:
            return one
    known = ", ".join(one.column for one in QUANTITIES)
    raise ValueError(f"quantity must be one of {known}; got {column!r}")


def diagnostics_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return diagnostics as a frame: all columns in their order, then ``seconds``."""
    return pd.DataFrame(list(rows), columns=[*COLUMNS, "seconds"])


def write_diagnostics(diagnostics: pd.DataFrame, folder: Path) -> Path:
    """Write diagnostics into a results folder, the time of each selection apart; return the file.

    Args:
        diagnostics: `COLUMNS` and ``seconds``, the time of one selection.
        folder: of the results.

    Raises:
        OutputError: a file cannot be written.
    """
    path = folder / DIAGNOSTICS
    with atomic_write(path) as place:
        diagnostics[COLUMNS].to_parquet(place, index=False)
    write_selection_seconds(folder, diagnostics)
    return path


def read_diagnostics(folder: Path) -> pd.DataFrame:
    """Return the diagnostics of a results folder.

    Raises:
        ValueError: there are none, or with other columns than ours.
    """
    path = folder / DIAGNOSTICS
    if not path.is_file():
        raise ValueError(f"no diagnostics at {path}: run `otprune analyze` on the experiment")
    found = read_parquet(path, _KINDS, COLUMNS)
    raster = found["height"] * found["width"]
    if not ((raster == 0) | (raster == found["n"])).all():
        raise ValueError(f"{path}: height times width must be n or 0")
    most = found["kept"].map(lambda kept: max(kept, default=-1)).astype(int)
    if (most >= found["n"]).any():
        raise ValueError(f"{path}: kept must have positions below n")
    if found.duplicated(["model", "setting", "task", "doc_id", "image"]).any():
        raise ValueError(f"{path} has several lines of one image, document, setting and model")
    return found
