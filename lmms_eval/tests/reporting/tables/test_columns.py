"""A column more: what it takes to show it everywhere."""

import csv as csv_reader
import io

import pytest
from rich.console import Console

from otprune_lmms.cli.table import show
from otprune_lmms.reporting.tables import blocks, csv, html, latex, make_table, markdown, terminal
from otprune_lmms.reporting.tables.columns import columns_of
from otprune_lmms.reporting.tables.layout import Column

ENTERING = Column(
    "entering", "plain", 2, records="layer_tokens", explanation="tokens of a layer, by the records"
)
NOTE = f"{ENTERING.name}: {ENTERING.explanation}"
SHOWN = {"unpruned": "576.00", "otprune-0.1": "123.25", "random-0.1": "150.50"}


@pytest.fixture
def plain(made):
    records = made.records()
    # Tasks differ, so that the mean must count each once, however many metrics it has.
    others = records["task"].map({"gqa": -1.0, "mme": 0.0, "flickr30k_test": 1.0})
    records["layer_tokens"] = records["row"].map(SHOWN).astype(float) + others
    return records, make_table(records, made.manifest)


@pytest.fixture
def table(plain, made, monkeypatch):
    """The table with one more column, of numbers that the records hold."""
    monkeypatch.setattr(blocks, "columns_of", lambda *a, **b: (*columns_of(*a, **b), ENTERING))
    return make_table(plain[0], made.manifest)


def test_a_column_of_the_records_is_one_column_more(table, plain, entry_of):
    _, before = plain
    assert table.columns == (*before.columns, ENTERING)
    assert [row[:-1] for row in table.rows] == list(before.rows)
    for row, text in SHOWN.items():
        entry = entry_of(table, row, ENTERING.name)
        assert entry.value == pytest.approx(float(text))
        assert entry.mark is None, "plain numbers have no best"
    first, explanations, *others = before.notes
    assert table.notes == (first, f"{explanations}; {NOTE}", *others)


@pytest.mark.parametrize("draw", [markdown, latex, html])
def test_every_page_shows_it_with_its_explanation(table, made, draw):
    page = draw(table, made.origin)
    for text in (ENTERING.name, NOTE, *SHOWN.values()):
        assert text in page


def test_csv_has_its_numbers_with_all_digits(table):
    lines = list(csv_reader.DictReader(io.StringIO(csv(table))))
    assert {line["setting"]: float(line[ENTERING.name]) for line in lines} == pytest.approx(
        {row: float(text) for row, text in SHOWN.items()}
    )


def test_a_terminal_shows_it_and_its_explanation(table, capsys):
    out = io.StringIO()
    Console(file=out, width=200).print(terminal(table))
    for text in (ENTERING.name, *SHOWN.values()):
        assert text in out.getvalue()
    show(table)
    assert NOTE in capsys.readouterr().out
