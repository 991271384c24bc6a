"""A line with a right checksum must also say what an answer says; else it is left out and named."""

import hashlib
import json
import tracemalloc

import pytest

from journal_records import numbers, part, record, write
from otprune_lmms.cluster.planned import settings_of
from otprune_lmms.cluster.state import read_state
from otprune_lmms.cluster.status import journal_status
from otprune_lmms.journal import Journal, JournalError
from otprune_lmms.journal.lines import encode
from otprune_lmms.journal.schema import FORMAT

ANSWER = record(2).plain()

LATER = ("truncated", "unfinished")
"""What lines of earlier versions do not have."""


def line(**changes) -> bytes:
    """An answer's line, some of its fields changed."""
    return encode({"kind": "answer", "format": FORMAT, "answer": ANSWER | changes})


def sealed(content: bytes) -> bytes:
    """A line of any bytes with a right checksum."""
    place = encode({})
    checksum = hashlib.sha256(content).hexdigest()[:32].encode()
    return place[:11] + checksum + place[43:52] + content + b"}\n"


def without(name: str) -> bytes:
    kept = {key: value for key, value in ANSWER.items() if key != name}
    return encode({"kind": "answer", "format": FORMAT, "answer": kept})


def session(**header) -> bytes:
    return encode({"kind": "session", "format": FORMAT, "session": header})


FORGED = {
    "no answer": encode({"kind": "answer", "format": FORMAT}),
    "null": encode({"kind": "answer", "format": FORMAT, "answer": None}),
    "list": encode({"kind": "answer", "format": FORMAT, "answer": [1]}),
    **{f"without {name}": without(name) for name in ANSWER if name not in LATER},
    **{
        f"{name} null": line(**{name: None})
        for name in ANSWER
        if name not in ("loss", "greedy", "unfinished")
    },
    **{f"{name} a list of lists": line(**{name: [[1]]}) for name in ANSWER},
    "config a number": line(config=7),
    "text a number": line(text=7),
    "text true": line(text=True),
    "doc_id a text": line(doc_id="2"),
    "doc_id a fraction": line(doc_id=2.5),
    "doc_id true": line(doc_id=True),
    "doc_id negative": line(doc_id=-1),
    "doc_id too large": line(doc_id=10**30),
    "kept texts": line(kept=["56"]),
    "kept true": line(kept=[True]),
    "seconds texts": line(seconds={"generate": "0.1"}),
    "seconds infinite": line().replace(b"0.125", b"1e999"),
    "settings nested": line(settings={"method": ["otprune"]}),
    "another kind": line(kind="guess"),
    "text and loss": line(loss=0.5, greedy=True),
    "neither text nor loss": line(text=None),
    "likelihood without greedy": line(kind="loglikelihood", text=None, loss=0.5),
    "likelihood with text": line(kind="loglikelihood", loss=0.5, greedy=True),
    "greedy a number": line(kind="loglikelihood", text=None, loss=0.5, greedy=1),
    "format true": encode({"kind": "answer", "format": True, "answer": ANSWER}),
    "format a text": encode({"kind": "answer", "format": "2", "answer": ANSWER}),
    "format 2.0": encode({"kind": "answer", "format": 2.0, "answer": ANSWER}),
    "kind a list": encode({"kind": ["answer"], "format": FORMAT, "answer": ANSWER}),
    "session a list": encode({"kind": "session", "format": FORMAT, "session": [1]}),
    "session missing": encode({"kind": "session", "format": FORMAT}),
    "source a list": session(source=[1]),
    "models a list": session(models=["m"]),
    "process a text": session(process="7"),
    "process without host": session(process={"pid": 1, "begun": 1.0}),
    "begun a text": session(process={"host": "h", "pid": 1, "begun": "now"}),
    "a list": sealed(b"[1, 2]"),
    "no JSON": sealed(b"{"),
    "no UTF-8": sealed(b'{"kind":"answer","format":2,"answer":"\xff\xfe"}'),
    "UTF-16": sealed(json.dumps({"kind": "answer"}).encode("utf-16")),
    "deep lists": sealed(b"[" * 200_000),
    "deep settings": sealed(
        b'{"kind":"answer","format":2,"answer":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    ),
    "a number without end": sealed(b'{"kind":"answer","format":' + b"2" * 9000 + b"}"),
}


def in_seconds(content: bytes) -> bytes:
    """A changed line, its checksum made right again where it was not."""
    return content if b"1e999" not in content else sealed(content[52:-2])


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """A folder with all of them, a good line between any two."""
    folder = tmp_path_factory.mktemp("forged")
    lines = []
    for number, content in enumerate(FORGED.values()):
        good = encode({"kind": "answer", "format": FORMAT, "answer": record(number + 100).plain()})
        lines += [in_seconds(content), good]
    part(folder).write_bytes(b"".join(lines))
    return folder


GOOD = [number + 100 for number in range(len(FORGED))]


def test_forged_lines_are_no_answers_for_reader_writer_and_status(forged, caplog):
    before = part(forged).read_bytes()
    for readonly in (True, False):
        caplog.clear()
        with Journal(forged, readonly=readonly) as journal:
            taken = {one.doc_id for one in journal} - set(GOOD)
            assert taken == set()
            assert len(journal) == len(GOOD)
            assert journal.report.skipped == len(FORGED)
            assert all(journal.find(record(number).key) == record(number) for number in GOOD)
            assert journal.find(record(2).key) is None
            assert journal.sessions == []
        message = "no record of this journal's format, and not used: part-000.jsonl, line 1 ("
        assert message in caplog.text
        assert len(caplog.text) < 3000
    caplog.clear()
    state = read_state([forged])
    assert len(state.answered) == len(GOOD)
    assert "no record of this journal's format" in caplog.text
    assert journal_status(state, settings_of(state.configs.values())).rows == ()
    assert part(forged).read_bytes() == before


def test_a_fault_is_named_with_its_place(tmp_path, caplog):
    part(tmp_path).write_bytes(line() + line(request="r3", kept=None))
    assert numbers(tmp_path) == [2]
    assert "part-000.jsonl, line 2 (answer.kept: Input should be a valid list)" in caplog.text


@pytest.mark.parametrize("name", LATER)
def test_lines_of_earlier_versions_are_read(tmp_path, name):
    part(tmp_path).write_bytes(without(name) + line(request="r3", unfinished=True))
    with Journal(tmp_path, readonly=True) as journal:
        assert [one.unfinished for one in journal] == [None, True]
        assert journal.find(record(2).key) == record(2)


def test_further_keys_are_of_a_later_version_and_no_fault(tmp_path):
    part(tmp_path).write_bytes(session(mood="good") + line(mood="good"))
    with Journal(tmp_path, readonly=True) as journal:
        assert list(journal) == [record(2)]
        assert journal.sessions == [{"mood": "good"}]


@pytest.mark.parametrize("changes", [{"loss": float("nan")}, {"kept": (-1,)}, {"text": None}])
def test_an_answer_that_could_not_be_read_back_is_not_written(tmp_path, changes):
    with Journal(tmp_path) as journal:
        with pytest.raises(JournalError, match=f"{tmp_path} cannot store this answer: "):
            journal.append(record(1, **changes))
        journal.append(record(1))
    assert numbers(tmp_path) == [1]


def test_lines_that_end_with_cr_lf_are_read_and_left(tmp_path, caplog):
    write(tmp_path, *range(90))
    changed = part(tmp_path).read_bytes().replace(b"\n", b"\r\n")
    part(tmp_path).write_bytes(changed)
    with Journal(tmp_path) as journal:
        assert len(list(journal)) == len(journal) == 90
        assert journal.find(record(7).key) == record(7)
        journal.append(record(90))
    assert "not used" not in caplog.text
    assert part(tmp_path).read_bytes() == changed
    assert numbers(tmp_path) == list(range(91))


def test_damaged_lines_at_the_end_stay(tmp_path, caplog):
    write(tmp_path, *range(30))
    lines = part(tmp_path).read_bytes().splitlines(keepends=True)
    damaged = b"".join(lines[:11] + [one.replace(b"answer", b"bnswer") for one in lines[11:]])
    part(tmp_path).write_bytes(damaged)
    with Journal(tmp_path) as journal:
        assert (len(journal), journal.report.skipped, journal.report.torn) == (10, 20, 0)
    assert "lines 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 and 10 more" in caplog.text
    assert part(tmp_path).read_bytes() == damaged


def test_answers_take_little_memory(tmp_path):
    """0.3 KB an answer at most, of which there may be millions; before, it was 4 KB."""
    count = 3000
    content = b"".join(
        encode(
            {
                "kind": "answer",
                "format": FORMAT,
                "answer": ANSWER | {"config": "c" * 64, "request": f"{number:064x}"},
            }
        )
        for number in range(count)
    )
    part(tmp_path).write_bytes(content)
    Journal(tmp_path, readonly=True)
    tracemalloc.start()
    try:
        journal = Journal(tmp_path, readonly=True)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(journal) == count
    assert taken / count < 300
