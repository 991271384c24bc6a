"""Numbers from papers, in blocks of their own: never marked, ranked or averaged with ours."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from otprune_lmms.reporting.tables.columns import AVERAGE
from otprune_lmms.reporting.tables.layout import Block, Column, Entry, Row
from otprune_lmms.results.manifest import Manifest, Printed


def printed_blocks(model: str, manifest: Manifest, columns: Sequence[Column]) -> list[Block]:
    """Return one block for each source that prints something of a model.

    The relative averages are ours, of the printed scores in this table, against the unpruned row of
    the same source; without one there is none.
    """
    tasks = [column.task for column in columns if column.task is not None]
    sources: dict[str, list[Printed]] = {}
    for row in manifest.printed:
        if row.model == model:
            sources.setdefault(row.source, []).append(row)
    blocks = []
    for source, rows in sources.items():
        base = next((_series(row.scores, tasks) for row in rows if row.unpruned), None)
        shown = [(row, _series(row.scores, tasks)) for row in rows]
        blocks.append(
            Block(
                "published",
                f"As published, not run here: {source}",
                tuple(
                    Row(row.row, row.row, tuple(_entry(own, base, column) for column in columns))
                    for row, own in shown
                ),
            )
        )
    return blocks


def _entry(own: pd.Series, base: pd.Series | None, column: Column) -> Entry:
    if column.kind == "score":
        value = float(own.at[column.task])
    elif column.rule is not None and base is not None:
        value = AVERAGE[column.rule](own, base)
    else:
        return Entry()
    return Entry(None if math.isnan(value) else value)


def _series(scores: Mapping[str, float], tasks: Sequence[str]) -> pd.Series:
    return pd.Series(scores, dtype=float).reindex(tasks)
