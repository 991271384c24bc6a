"""The table as CSV: one line a row of ours, all digits."""

from typing import Any

import pandas as pd

from otprune_lmms.reporting.tables.layout import (
    Block,
    ResultsTable,
    TablePart,
    TableRow,
)


def csv(table: ResultsTable) -> str:
    """Return our rows as CSV, all digits; published rows are not among them.

    One line a model and setting: ``setting`` is the row of the records, ``name`` what pages show.
    Empty where there is no number, never a mark; ``sd`` columns hold
    standard deviations over seeds, ``low`` and ``high`` columns 95 % intervals, each only where the
    table has some. ``doubted`` names the columns whose unpruned score is not where it should be.
    """
    lines = [_line(table, part, block, row) for part, block, row in table.ours()]
    frame = pd.DataFrame(lines).dropna(axis="columns", how="all")
    # What every table has stays, even where it is empty.
    first = ["model", "setting", "name", "method", "keep_ratio", "k", "layer", "seeds"]
    first += ["visual tokens"]
    fixed = [*first, *(column.name for column in table.columns)]
    more = [name for name in frame.columns if name not in fixed]
    return frame.reindex(columns=[*fixed, *more]).to_csv(index=False)


def _line(table: ResultsTable, part: TablePart, block: Block, row: TableRow) -> dict[str, Any]:
    line: dict[str, Any] = {
        "model": part.model,
        "setting": row.label,
        "name": row.whole,
        "method": row.method,
        "keep_ratio": row.keep_ratio,
        # Text, or a missing one would make floats of all.
        "k": None if row.k is None else str(row.k),
        "layer": row.layer,
        "seeds": row.seeds,
        "visual tokens": row.visual_tokens,
    }
    pairs = list(zip(table.columns, row.entries, strict=True))
    line |= {column.name: entry.value for column, entry in pairs}
    for column, entry in pairs:
        line[f"{column.name} sd"] = entry.spread
        line[f"{column.name} low"] = entry.low
        line[f"{column.name} high"] = entry.high
    doubted = [column.name for column, entry in pairs if entry.doubted]
    return line | {"doubted": "; ".join(doubted) or None}
