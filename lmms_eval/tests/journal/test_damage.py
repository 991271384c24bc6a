"""Torn or flipped at any byte: never believed, said, answered again, and others can go on."""

import hashlib
import json
import os
import random
from dataclasses import replace

import pytest

from journal_records import numbers, part, record, write
from otprune_lmms.cluster.state import read_state
from otprune_lmms.journal import (
    Journal,
    RequestList,
    RequestPlace,
    read_request_lists,
    write_request_list,
)

ANSWERS: tuple[int, ...] = (1, 2, 3, 4)


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


EVERY = pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.long)])
"""How many bytes lie between two places of damage."""


def places_of(line: range, step: int) -> list[int]:
    """Some places of a line, its first and last ones among them."""
    return sorted({*line[::step], *line[:2], *line[-3:]})


def mended(folder, caplog, warning: str) -> set[int]:
    """Open a damaged journal, check what it believes, answer again what is lost; what was lost."""
    caplog.clear()
    before = part(folder).read_bytes()
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
        assert journal.report.repeated == 0
    assert part(folder).read_bytes() == before, "what is there stays"
    assert numbers(folder) == [*ANSWERS, 9]
    return lost


@EVERY
def test_a_tail_torn_at_any_byte_of_the_last_two_answers(content, tmp_path, caplog, step):
    first, last = line(content, -2), line(content, -1)
    for size in places_of(first, step) + places_of(last, step):
        folder = tmp_path / str(size)
        folder.mkdir()
        part(folder).write_bytes(content[:size])
        begin = last.start if size >= last.start else first.start
        warning = f"not used: part-000.jsonl: {size - begin}" if size > begin else ""
        assert mended(folder, caplog, warning) == ({4} if size >= last.start else {3, 4})


@EVERY
@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_bit_flipped_at_any_byte_of_a_line(content, tmp_path, caplog, number, step):
    draw = random.Random(number)
    places = line(content, number)
    for place in places_of(places, step):
        folder = tmp_path / str(place)
        folder.mkdir()
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        part(folder).write_bytes(changed)
        torn = place == places[-1] and number == -1
        warning = "no whole line" if torn else "damaged and not used"
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
        assert mended(folder, caplog, f"not used: part-000.jsonl: {size}") == set()


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
    damage = bytes(draw.randrange(256) for _ in range(5000))
    part(tmp_path).write_bytes(damage)
    with Journal(tmp_path) as journal:
        assert len(journal) == 0
        assert journal.report.skipped == damage.count(b"\n") > 10
        assert journal.report.torn == 4999 - damage.rindex(b"\n") > 0
        journal.append(record(1))
    assert "damaged and not used" in caplog.text
    assert f"not used: part-000.jsonl: {journal.report.torn}" in caplog.text
    assert numbers(tmp_path) == [1]


REQUESTS = RequestList(
    *("f" * 8, "tiny", "try"),
    requests={RequestPlace("pope", number, 0, 0): f"r{number}" for number in range(3)},
    failed=[("pope", 7, "half \ud800 a reason")],
)


def test_a_request_list_with_a_changed_byte_is_left_out_and_written_again(tmp_path, caplog):
    write_request_list(tmp_path, REQUESTS)
    (path,) = (tmp_path / "asked").iterdir()
    whole = path.read_bytes()
    (read,) = read_request_lists(tmp_path)
    assert replace(read, time=0.0) == REQUESTS
    changes = [whole[:end] for end in range(len(whole))]
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        changes.append(bytes(changed))
    for changed in changes:
        path.write_bytes(changed)
        assert read_request_lists(tmp_path) == []
    assert {one.getMessage() for one in caplog.records} == {
        f"{tmp_path / 'asked'}: lists of requests that are damaged, and not used: {path.name} "
        "(the checksum is wrong)"
    }
    write_request_list(tmp_path, REQUESTS)
    assert path.read_bytes() == whole


FORGED = [
    *(None, [], 3, "text", {}, {"format": 1}, {"format": True}),
    {"format": 1, "model": "f", "name": "m", "experiment": "e", "failed": [], "tasks": []},
    *(
        {"format": 1, "model": "f", "name": "m", "experiment": "e", "failed": [], **wrong}
        for wrong in (
            {"tasks": {"pope": [[0, 0, "r"]]}},
            {"tasks": {"pope": [["0", 0, 0, "r"]]}},
            {"tasks": {"pope": [[-1, 0, 0, "r"]]}},
            {"tasks": {"pope": [[2**60, 0, 0, "r"]]}},
            {"tasks": {"pope": [[0, 0, 0, None]]}},
            {"tasks": {"pope": 3}},
            {"tasks": {}, "failed": [["pope", 0]]},
            {"tasks": {}, "model": 3},
        )
    ),
]


def test_request_lists_with_the_right_name_and_other_content_are_left_out(tmp_path, caplog):
    folder = tmp_path / "asked"
    folder.mkdir()
    texts = [json.dumps(one).encode() for one in FORGED]
    texts += [b"[" * 100_000, b'{"format":' * 100_000, b"\xff", b""]
    for text in texts:
        (folder / f"{hashlib.sha256(text).hexdigest()[:24]}.json").write_bytes(text)
    (folder / "0.json").mkdir()
    os.mkfifo(folder / "1.json")
    other = json.dumps({"format": 99}).encode()
    (folder / f"{hashlib.sha256(other).hexdigest()[:24]}.json").write_bytes(other)
    write_request_list(tmp_path, REQUESTS)
    assert [replace(one, time=0.0) for one in read_request_lists(tmp_path)] == [REQUESTS]
    assert len(caplog.records) == 1
    assert read_state([tmp_path]).request_lists
    for line in ("no regular file but a folder", "and 11 more"):
        assert line in caplog.text
