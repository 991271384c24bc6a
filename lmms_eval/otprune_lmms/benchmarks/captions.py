"""The record that all caption benchmarks share."""

from operator import itemgetter

from otprune_lmms.benchmarks.record import Benchmark, PrintedName
from otprune_lmms.benchmarks.shares import caption_shares


def caption_benchmark(
    name: str, *, folder: str, metric: str, column: str, title: str, captions: str
) -> Benchmark:
    """Return the record of a benchmark whose headline is CIDEr x 100, the mean over images.

    Papers print CIDEr unscaled or x 100, with two decimals, so its tolerance is wider than that of
    percentages.

    Args:
        name: of the benchmark and of its lmms-eval task.
        folder: of the task files.
        metric: lmms-eval's name of the task's CIDEr.
        column: heading of its column.
        title: what readers call it.
        captions: column of the reference captions.
    """
    return Benchmark(
        name=name,
        task=name,
        metric=metric,
        column=column,
        title=title,
        folder=folder,
        best=None,
        metric_words="CIDEr",
        kind="caption",
        shares=caption_shares,
        reference=itemgetter(captions),
        tolerance=3.0,
        printed=(PrintedName(name, "CIDEr"), PrintedName(name, "CIDEr_x100")),
    )
