"""The analysis of a results folder: ``analysis.csv``, ``analysis.md``, ``selection_times.csv``."""

from pathlib import Path

import pandas as pd

from otprune_lmms.files import write_text
from otprune_lmms.reporting.analysis.correlation import correlations
from otprune_lmms.reporting.analysis.levels import levels, times
from otprune_lmms.reporting.analysis.loyalty import loyalty
from otprune_lmms.reporting.analysis.page import page
from otprune_lmms.reporting.analysis.per_sample import per_sample
from otprune_lmms.reporting.analysis.points import points
from otprune_lmms.results.diagnostics import read_diagnostics
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import read_content
from otprune_lmms.results.records import RECORDS, read_records
from otprune_lmms.results.samples import read_samples
from otprune_lmms.results.times import read_selection_seconds

ANALYSIS, PAGE, TIMES = "analysis.csv", "analysis.md", "selection_times.csv"

DRAWS = 2000
"""Redraws of images behind each interval."""

COLUMNS = [
    "analysis",
    "model",
    "budget",
    "row",
    "subjects",
    "kind",
    "comparison",
    "task",
    "quantity",
    "against",
    "value",
    "low",
    "high",
    "p",
    "methods",
    "permutations",
    "deviation",
    "answers",
    "documents",
    "images",
    "clusters",
]
"""``analysis`` says which: "level" (`levels`), "spearman" and "difference" (`correlation`),
"sample" (`per_sample`), "loyalty" (`loyalty`); columns that one does not have are empty."""


def write_analysis(folder: Path, draws: int = DRAWS) -> Frame:
    """Write the analysis of a results folder from its records, samples and diagnostics.

    A pure function of these files: the same files give the same analysis. The times of selections
    (`results.times`), where there are any, go into a file of their own.

    Args:
        folder: with ``records.csv``, ``samples.parquet``, ``diagnostics.parquet`` and
            ``manifest.json``.
        draws: redraws of images behind each interval.

    Returns:
        What was written into ``analysis.csv``.

    Raises:
        ValueError: one of the files is missing or of another format; diagnostics of other images
            than the samples'.
        OutputError: the folder cannot be written to.
    """
    diagnostics, samples = read_diagnostics(folder), read_samples(folder)
    records, manifest = read_records(folder / RECORDS), read_content(folder)
    found = analysis(diagnostics, samples, records, draws)
    write_text(folder / ANALYSIS, found.to_csv(index=False))
    write_text(folder / PAGE, page(found, records, manifest))
    seconds = read_selection_seconds(folder)
    if seconds is not None:
        write_text(folder / TIMES, times(diagnostics, seconds).to_csv(index=False))
    return found


def analysis(diagnostics: Frame, samples: Frame, records: Frame, draws: int) -> Frame:
    """Return all analyses, `COLUMNS`.

    Raises:
        ValueError: no diagnosed image is among those of the samples.
    """
    known = set(samples["cluster"])
    if len(diagnostics) and known.isdisjoint(diagnostics["cluster"]):
        raise ValueError("the diagnostics are of other images than the samples: run analyze again")
    dots = list(points(diagnostics, samples, records, draws))
    ranked = correlations(dots)
    parts = {
        "level": levels(dots),
        "spearman": ranked[ranked["against"].isna()],
        "difference": ranked[ranked["against"].notna()],
        "sample": per_sample(diagnostics, samples),
        "loyalty": loyalty(samples, draws),
    }
    some = [part.assign(analysis=name) for name, part in parts.items() if len(part)]
    whole = pd.concat(some) if some else pd.DataFrame()
    whole = whole.reindex(columns=COLUMNS)
    counts = ["methods", "permutations", "answers", "documents", "images", "clusters"]
    return whole.astype(dict.fromkeys(counts, "Int64")).reset_index(drop=True)
