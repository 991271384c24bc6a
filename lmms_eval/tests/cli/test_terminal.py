"""What reaches a terminal: no orders, nothing cut, nothing that its encoding lacks."""

import io
import logging
import re
import sys
from types import SimpleNamespace

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llava import printing
from otprune_lmms import terminal_text
from otprune_lmms.cli import status, table, terminal
from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.terminal import Listing, say
from otprune_lmms.terminal_text import degrade_output, printable

quiet = settings(deadline=None, max_examples=30, derandomize=True)

EVIL = "[low, high] [red]\x1b[31mred\x9b5m :dog: \u202egnp\u2028 \udcff\r\x07"
SEEN = r"[low, high] [red]\x1b[31mred\x9b5m :dog: \u202egnp\u2028 \udcff\r\x07"
LINE = SimpleNamespace(
    experiment="e", model="m", setting="s", name=EVIL, answered=123456, asked=234567
)


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 40 columns; its text."""

    def console(*, stderr=False):
        return Console(
            file=out, width=40, force_terminal=True, color_system=None,
            markup=False, emoji=False, highlight=False, soft_wrap=True,
        )  # fmt: skip

    out = io.StringIO()
    monkeypatch.setattr(terminal, "console", console)
    monkeypatch.setattr(table, "console", console)
    return out


def test_chat_and_harness_write_the_same_characters_out():
    """Pages are made without llava, so the rule is written down twice."""
    assert terminal_text._UNSEEN.pattern == printing.UNSEEN.pattern
    assert printing.printable(EVIL) == printable(EVIL) == SEEN


def test_a_line_is_printed_as_it_is_and_gives_no_orders(capsys):
    say(EVIL)
    assert capsys.readouterr().out == f"{SEEN}\n"


def test_an_error_and_a_log_line_give_no_orders_either(capsys):
    with pytest.raises(typer.Exit) as ended:
        fail(EVIL, 3)
    assert ended.value.exit_code == 3
    log(quiet=False)
    logging.getLogger("otprune_lmms").info("%s", EVIL)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {SEEN}"
    assert second.endswith(SEEN)


def test_a_line_longer_than_the_terminal_stays_one_line(narrow):
    say("word " * 30)
    assert narrow.getvalue().count("\n") == 1


@quiet
@given(st.text())
def test_printable_text_has_no_control_characters(text):
    shown = printable(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    shown.encode()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


@quiet
@given(
    width=st.integers(1, 120),
    names=st.integers(1, 2),
    rows=st.lists(st.lists(st.integers(0, 10**9), min_size=5, max_size=5), max_size=4),
)
def test_no_width_cuts_a_number(width, names, rows):
    texts = [[f"row{number}", *map(str, row)] for number, row in enumerate(rows)]
    heads = ("method", "tokens", "of all", "exact W2", "zero mean", "ms")
    lines = list(Listing(heads, texts, names=names).lines(width))
    found = {text[0]: [] for text in texts}
    for line in map(str.split, lines):
        if line and line[0] in found:
            found[line[0]] += line[names:]
    assert found == {text[0]: text[names:] for text in texts}
    assert max(map(len, lines)) <= max(width, (names + 1) * (max(10, len("method")) + 2))


def test_a_listing_on_80_columns_shows_what_prune_measures():
    heads = (
        "method",
        "tokens",
        "of",
        "exact W2",
        "Gaussian W2",
        "zero mean",
        "coverage",
        "rank",
        "ms",
    )
    row = (
        "otprune-0.098-gamma0.05",
        "56",
        "576",
        "0.641",
        "0.452",
        "0.419",
        "0.603",
        "0.712",
        "613.2",
    )
    lines = list(Listing(heads, [row]).lines(80))
    assert all(len(line) <= 80 for line in lines)
    shown = [line.split() for line in lines if line.startswith("otprune")]
    assert len(shown) == 2
    assert [cell for line in shown for cell in line[1:]] == list(row[1:])


def test_status_shows_labels_and_numbers_whole(narrow):
    shown = SimpleNamespace(
        rows=[LINE], failed=[("m", "pope", 1, EVIL)], writers=[], missing=1, rate=0.0,
        seconds_left=None,
    )  # fmt: skip
    status._show(shown)
    text = narrow.getvalue()
    assert "[low, high] [red]" in text
    assert {"123456", "234567", "52.6"} <= set(text.split())
    assert "\x1b" not in text


def test_a_table_s_title_and_notes_are_no_markup_and_no_orders(narrow, monkeypatch):
    from otprune_lmms.reporting.tables.layout import ResultsTable

    monkeypatch.setattr(Console, "measure", lambda *_: SimpleNamespace(minimum=40, maximum=40))
    table.show(ResultsTable(title=EVIL, columns=(), parts=(), notes=(EVIL,)))
    assert "".join(narrow.getvalue().split()).count("".join(SEEN.split())) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_degrades_with_the_terminal_s_encoding(encoding, monkeypatch):
    stored = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stored, encoding, write_through=True))
    degrade_output()
    say("– 4nd² … ┃ 日 \udcff")
    said = stored.getvalue().decode(encoding)
    wanted = {
        "ascii": "- 4nd^2 ... | ? \\udcff\n",
        "latin-1": "- 4nd² ... | ? \\udcff\n",
        "utf-8": "– 4nd² … ┃ 日 \\udcff\n",
    }
    assert said == wanted[encoding]
    sys.stdout.write("\udcff\u2026")
    assert stored.getvalue().decode(encoding)[len(said) :] in ("?...", "?…")
