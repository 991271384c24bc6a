"""What each setting of a table really spends: the budget ledger.

Papers compare methods "at the same budget", and mean by it tokens after the last pruning, tokens
averaged over layers, or multiply-adds. The ledger has all of them for each row of the table, and
says where rows of one block differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from otprune_lmms.reporting.statistics.kept import QUARTILES
from otprune_lmms.reporting.tables.layout import (
    Block,
    Column,
    Entry,
    ResultsTable,
    TablePart,
    TableRow,
)
from otprune_lmms.reporting.tables.prefill import PrefillCost
from otprune_lmms.reporting.tables.settings import RowSetting
from otprune_lmms.results import checked
from otprune_lmms.results.checked import Kind, read_csv
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import Manifest

MOST_APART = 0.02
"""Rows of one block that differ by a larger share do not have the same budget."""

KEPT, LAYERS, SHARE, CACHE = "kept", "a layer, mean", "MAC %", "cache MiB"
_COMPARED = (KEPT, LAYERS, SHARE, CACHE)
TITLE = "Budgets"

_BYTES = 2
_MIB = 2**20
_FILE = "kept.csv"

_COLUMNS = (
    *(Column(name.replace("_", " "), "plain", 0) for name in QUARTILES),
    Column(KEPT, "plain", 1),
    Column(LAYERS, "plain", 1),
    Column(SHARE, "cost", 2),
    Column(CACHE, "cost", 3),
    Column("divided among", "plain"),
    Column("newline tokens", "plain"),
)

_NOTES = (
    "lowest to highest: visual tokens that a document keeps after the last pruning, all its images "
    "together, over documents",
    f"{KEPT}: of an image, mean; {LAYERS}: visual tokens of an image that enter a layer of the "
    f"language model; {SHARE}: multiply-adds of the prefill, pruned / unpruned; {CACHE}: keys and "
    "values of a mean prompt after the prefill, at two bytes a number",
    "divided among: whether a budget is for a whole image or the same for each of its tiles; "
    "newline tokens, in models that have them: they compete for the budget or are all kept besides",
)

Quartiles = Mapping[tuple[str, str], Sequence[float]]
"""Quartiles of a row's kept tokens, by (model, row), in the order of `QUARTILES`."""


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """What a ledger is made of.

    Attributes:
        records: of the experiment.
        manifest: of the run.
        settings: of the rows, by (model, row).
        costs: prefill of the rows.
        quartiles: of their kept tokens; may be empty.
    """

    records: Frame
    manifest: Manifest
    settings: Mapping[tuple[str, str], RowSetting]
    costs: Mapping[tuple[str, str], PrefillCost]
    quartiles: Quartiles


def read_quartiles(folder: Path) -> Quartiles:
    """Return the quartiles of a folder's ``kept.csv``; none where there is no such file.

    Raises:
        ValueError: a file of another format.
    """
    path = folder / _FILE
    if not path.is_file():
        return {}
    columns = dict.fromkeys(("model", "row"), checked.Column(Kind.TEXT))
    columns |= {"samples": checked.Column(Kind.WHOLE)}
    columns |= dict.fromkeys(QUARTILES, checked.Column(Kind.NUMBER))
    lines = read_csv(path, columns)
    numbers = lines[list(QUARTILES)].astype(float).to_numpy().tolist()
    keys = lines[["model", "row"]].itertuples(index=False, name=None)
    return {(str(model), str(row)): own for (model, row), own in zip(keys, numbers, strict=True)}


def budget_ledger(table: ResultsTable, facts: BudgetFacts) -> ResultsTable:
    """Return the ledger of a table's own rows, in its blocks; its notes end with warnings."""
    cached = _cached(facts)
    parts = tuple(
        TablePart(part.model, tuple(_blocks(part, facts, cached))) for part in table.parts
    )
    several = len(parts) > 1
    warnings = tuple(
        f"{part.model}, {warning}" if several else warning
        for part in parts
        for block in part.blocks
        for warning in _apart(block, part.model, facts)
    )
    return ResultsTable(TITLE, _COLUMNS, parts, (*_NOTES, *warnings))


def warnings_of(ledger: ResultsTable) -> tuple[str, ...]:
    """Return the ledger's notes about rows of one block that differ."""
    return ledger.notes[len(_NOTES) :]


def _blocks(
    part: TablePart, facts: BudgetFacts, cached: Mapping[tuple[str, str], float]
) -> Iterator[Block]:
    for block in part.blocks:
        if block.kind != "published":
            rows = tuple(_row(part.model, row, facts, cached) for row in block.rows)
            yield replace(block, rows=rows)


def _cached(facts: BudgetFacts) -> dict[tuple[str, str], float]:
    """Return the MiB of each row's key-value cache, mean over tasks whose prompts have images."""
    once = facts.records.drop_duplicates(["model", "setting", "task"])
    once = once[once["kept_tokens"].notna() & once["cached_tokens"].notna()]
    tasks = once.groupby(["model", "row", "task"], sort=False)["cached_tokens"].mean()
    found = {}
    for (model, row), tokens in tasks.groupby(level=["model", "row"], sort=False).mean().items():
        numbers = facts.manifest.cache_numbers.get(str(model))
        if numbers is not None:
            found[str(model), str(row)] = float(tokens) * numbers * _BYTES / _MIB
    return found


def _row(
    model: str, row: TableRow, facts: BudgetFacts, cached: Mapping[tuple[str, str], float]
) -> TableRow:
    key = (model, row.label)
    setting, cost = facts.settings.get(key), facts.costs.get(key)
    own = facts.records[(facts.records["model"] == model) & (facts.records["row"] == row.label)]
    kept = own.drop_duplicates(["setting", "task"])["kept_tokens"].dropna()
    quartiles = facts.quartiles.get(key, [None] * len(QUARTILES))
    numbers = (
        *quartiles,
        float(kept.mean()) if len(kept) else None,
        None if cost is None else cost.layer_tokens,
        None if cost is None else cost.share,
        cached.get(key),
    )
    pruned = setting is not None and setting.method is not None and len(own)
    texts = (_unit(row.label, facts), _newlines(own)) if pruned else ("–", "–")
    entries = (*map(Entry, numbers), *(Entry(None, text) for text in texts))
    return replace(row, entries=entries)


def _unit(row: str, facts: BudgetFacts) -> str:
    config = next((one for one in facts.manifest.configs if one["row"] == row), {})
    return "–" if "by_tile" not in config else "tiles" if config["by_tile"] else "image"


def _newlines(own: Frame) -> str:
    return "kept besides" if bool(own["keep_newlines"].iloc[0]) else "compete"


def _apart(block: Block, model: str, facts: BudgetFacts) -> Iterator[str]:
    """Say in what the rows of a block differ."""
    settings = [facts.settings.get((model, row.label)) for row in block.rows]
    if block.kind != "retain" or any(one is None or one.own_schedule for one in settings):
        return
    found = []
    for place, column in enumerate(_COLUMNS):
        known = [(row.entries[place].value, row.name) for row in block.rows]
        numbers = sorted((value, name) for value, name in known if value is not None)
        if column.name not in _COMPARED or not numbers:
            continue
        (low, least), (high, most) = numbers[0], numbers[-1]
        if high - low > MOST_APART * high:
            digits = column.digits
            found.append(
                f"{column.name} from {low:.{digits}f} ({least}) to {high:.{digits}f} ({most})"
            )
    if found:
        yield f"{block.title}: rows differ by more than {MOST_APART:.0%}: {'; '.join(found)}"
