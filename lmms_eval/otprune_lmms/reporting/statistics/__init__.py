"""Statistics of an experiment's scores: intervals, paired tests, relative averages."""

from pathlib import Path


def write_statistics(folder: Path) -> None:
    """Write ``averages.csv``, ``intervals.csv``, ``pairs.csv`` and ``statistics.md`` of a folder.

    Reads ``records.csv``, ``samples.parquet`` and, where there is one, ``manifest.json``. Equal
    files give equal numbers: all draws start from fixed seeds.

    Args:
        folder: results of an experiment.

    Raises:
        ValueError: no records or samples, or of another format.
    """
    # Here, so that the averages alone cost no import of statsmodels.
    from otprune_lmms.reporting.statistics.write import write_statistics as write

    write(folder)


__all__ = ["write_statistics"]
