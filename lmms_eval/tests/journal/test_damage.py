"""Torn or flipped at any byte: never believed, said, answered again, and others can go on."""

import random
import warnings

import pytest

from journal_records import numbers, part, record, write
from otprune_lmms.journal import Journal

ANSWERS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """A journal of a header and four answers."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, *ANSWERS, model="m")
    return part(folder).read_bytes()


def line(content: bytes, number: int) -> range:
    """Places of a line's bytes, its newline included; negative numbers count from the end."""
    lines = content.splitlines(keepends=True)
    start = sum(map(len, lines[: number % len(lines)]))
    return range(start, start + len(lines[number]))


def mended(folder, caplog, warning: str) -> set[int]:
    """Open a damaged journal, check what it believes, answer again what is lost; what was lost."""
    caplog.clear()
    with Journal(folder) as journal, Journal(folder) as other:
        found = {one.doc_id: one for one in journal}
        assert all(one == record(number) for number, one in found.items()), "as written, or not"
        assert warning in caplog.text
        lost = set(ANSWERS) - set(found)
        journal.append(*(record(number) for number in sorted(lost)))
        # Another process sees the same, and can go on writing.
        other.append(record(9))
        other.refresh()
        assert {one.doc_id for one in other} == {*ANSWERS, 9}
        assert journal.refresh() == {record(9).key}
    caplog.clear()
    with Journal(folder, readonly=True) as journal:
        assert journal.report.repeated == journal.report.torn == 0
    assert numbers(folder) == [*ANSWERS, 9]
    return lost


def test_a_tail_torn_at_every_byte_of_the_last_two_answers(content, tmp_path, caplog):
    first, last = line(content, -2), line(content, -1)
    for size in range(first.start, last.stop):
        folder = tmp_path / str(size)
        folder.mkdir()
        part(folder).write_bytes(content[:size])
        whole = size in (first.start, last.start)
        want = {4} if size >= last.start else {3, 4}
        warning = "" if whole else f"its last {size - max(first.start, 0)} bytes are no whole line"
        if size > last.start:
            warning = f"its last {size - last.start} bytes are no whole line, as after a crash; cut"
        assert mended(folder, caplog, warning) == want


@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_bit_flipped_at_every_byte_of_a_line(content, tmp_path, caplog, number):
    draw = random.Random(number)
    places = line(content, number)
    for place in places:
        folder = tmp_path / str(place)
        folder.mkdir()
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        part(folder).write_bytes(changed)
        warning = "no whole line" if number == -1 else "are damaged and not used"
        lost = mended(folder, caplog, warning)
        # Without its newline a line takes the next one with it.
        both = place == places[-1] and number != -1
        want = {0: set(), 2: {2}, -1: {4}}[number] | ({0: {1}, 2: {3}}[number] if both else set())
        assert lost == want


def test_a_tail_of_zeros_as_after_a_loss_of_power(content, tmp_path, caplog):
    for size in (1, 511, 4096, 70000):
        folder = tmp_path / str(size)
        folder.mkdir()
        part(folder).write_bytes(content + bytes(size))
        assert mended(folder, caplog, f"its last {size} bytes are no whole line") == set()


def test_whole_blocks_lost_or_repeated_are_seen(content, tmp_path, caplog):
    cut = line(content, 2)
    for number, changed in enumerate(
        (
            content[: cut.start + 40] + content[cut.start + 90 :],
            content[: cut.stop - 60] + content[cut.stop - 100 :],
            content[: cut.start] + bytes(len(cut)) + content[cut.stop :],
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        part(folder).write_bytes(changed)
        assert mended(folder, caplog, "damaged and not used") <= {2, 3}


def test_nothing_but_damage_is_an_empty_journal(tmp_path, caplog):
    draw = random.Random(1)
    part(tmp_path).write_bytes(bytes(draw.randrange(256) for _ in range(5000)))
    with warnings.catch_warnings(), Journal(tmp_path) as journal:
        assert len(journal) == 0
        assert journal.report.torn == 5000
        journal.append(record(1))
    assert "its last 5000 bytes are no whole line" in caplog.text
    assert numbers(tmp_path) == [1]
