"""What one process writes, another one sees; of two answers to one question, one holds for all."""

import random

import pytest

from journal_records import part, record
from otprune_lmms.journal import Journal, JournalError


def text_of(journal, number: int) -> str | None:
    found = journal.find(record(number).key)
    return None if found is None else found.text


def test_a_journal_sees_what_others_write_when_it_looks(tmp_path):
    watching = Journal(tmp_path, readonly=True)
    with Journal(tmp_path) as one, Journal(tmp_path) as other:
        assert one.refresh() == other.refresh() == set()
        one.append(record(1), record(2))
        assert text_of(other, 1) is None
        assert other.refresh() == watching.refresh() == {record(1).key, record(2).key}
        assert text_of(other, 1) == text_of(watching, 1) == record(1).text
        assert other.refresh() == set(), "each line is read once"
        other.append(record(3))
        assert one.refresh() == {record(3).key}
        with pytest.raises(JournalError, match="has an answer of request r3 already"):
            one.append(record(3))


def test_a_new_writer_s_file_is_seen_and_a_file_that_goes_is_no_error(tmp_path):
    with Journal(tmp_path) as one:
        with Journal(tmp_path):
            assert one.refresh() == set()
        assert one.refresh() == set()
        with Journal(tmp_path) as other:
            other.append(record(1))
        assert one.refresh() == {record(1).key}


def test_half_a_line_waits_for_its_end(tmp_path):
    with Journal(tmp_path) as one:
        with Journal(tmp_path) as other:
            other.append(record(1), record(2))
        other_s = part(tmp_path, 1)
        content = other_s.read_bytes()
        other_s.write_bytes(b"")
        seen = set()
        for size in range(0, len(content) + 1, 7):
            other_s.write_bytes(content[:size])
            new = one.refresh()
            assert not new & seen
            seen |= new
        other_s.write_bytes(content)
        assert seen | one.refresh() == {record(1).key, record(2).key}


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_answers_the_first_file_s_holds_whoever_wrote_first(tmp_path, first):
    journals = [Journal(tmp_path), Journal(tmp_path)]
    for number in (first, 1 - first):
        journals[number].append(record(1, text=f"of {number}"))
    for journal in journals:
        assert journal.refresh() == {record(1).key}
        assert text_of(journal, 1) == "of 0"
    assert [len(journal) for journal in journals] == [1, 1]
    for journal in journals:
        journal.close()
    with Journal(tmp_path) as again:
        assert text_of(again, 1) == "of 0"
        assert (again.report.records, again.report.repeated) == (1, 1)


def test_readers_and_opening_agree_whatever_the_order_of_writing(tmp_path):
    draw = random.Random(3)
    journals = [Journal(tmp_path) for _ in range(3)]
    for step in range(60):
        journal, number = draw.choice(journals), draw.randrange(12)
        if journal.find(record(number).key) is None:
            journal.append(record(number, text=f"{step}"))
        if draw.random() < 0.2:
            draw.choice(journals).refresh()
    for journal in journals:
        journal.refresh()
    want = {one.key: one.text for one in Journal(tmp_path, readonly=True)}
    assert len(want) == 12
    assert all({one.key: one.text for one in journal} == want for journal in journals)
    for journal in journals:
        journal.close()
