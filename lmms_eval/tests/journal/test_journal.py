"""The journal keeps what was written, and trusts nothing else."""

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from socket import gethostname

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from journal_records import numbers, part, record, write
from otprune_lmms.cluster.state import read_state
from otprune_lmms.journal import Journal, JournalError
from otprune_lmms.journal.lines import decode, encode
from otprune_lmms.journal.schema import FORMAT

RECORD = (
    "from otprune_lmms.journal import Journal, JournalError, Record; "
    f"record = lambda n: Record(**{{**{record(0).plain()!r}, 'doc_id': n, 'request': f'r{{n}}'}})"
)
"""`record`, for other processes; the text is that of number 0."""


def test_what_was_written_is_found_again_in_every_field(tmp_path):
    write(tmp_path, 1, 2, model="fingerprint")
    likelihood = record(3, kind="loglikelihood", text=None, loss=0.1 + 0.2, greedy=True)
    with Journal(tmp_path) as journal:
        assert journal.find(("c" * 8, "r3")) is None
        journal.append(likelihood)
    with Journal(tmp_path, readonly=True) as journal:
        assert [journal.find(one.key) for one in (record(1), record(2), likelihood)] == [
            record(1),
            record(2),
            likelihood,
        ]
        assert journal.find(("other", "r1")) is None
        assert journal.sessions == [{"model": "fingerprint"}, {}]
        assert (journal.report.files, journal.report.records) == (2, 3)


def test_every_line_is_json_that_other_tools_can_read(tmp_path):
    write(tmp_path, 1)
    lines = [json.loads(line) for line in part(tmp_path).read_text().splitlines()]
    assert [line["says"]["kind"] for line in lines] == ["session", "answer"]
    assert lines[1]["says"]["answer"]["text"] == record(1).text


def test_a_record_is_never_written_twice(tmp_path):
    write(tmp_path, 1)
    with Journal(tmp_path) as journal:
        for again in ([record(1)], [record(2), record(2)]):
            with pytest.raises(JournalError, match="has an answer of request"):
                journal.append(*again)
    assert numbers(tmp_path) == [1]
    assert len(part(tmp_path).read_text().splitlines()) == 2


def test_each_writer_has_a_file_of_its_own_named_after_it(tmp_path):
    with Journal(tmp_path) as one, Journal(tmp_path) as other:
        one.append(record(1))
        other.append(record(1), record(2))
        with Journal(tmp_path, readonly=True) as reader:
            assert reader.report.repeated == 1
            assert reader.report.torn == 0
    write(tmp_path, 3)
    found = sorted(path.name for path in tmp_path.iterdir())
    host = re.escape(re.sub("[^A-Za-z0-9.]", "_", gethostname()))
    name = rf"part-\d{{8}}T\d{{12}}-{host}-{os.getpid()}-[0-9a-f]{{8}}\.jsonl"
    assert len(found) == 3
    assert all(re.fullmatch(name, one) for one in found)
    assert numbers(tmp_path) == [1, 2, 3]


def test_a_run_without_answers_leaves_no_file(tmp_path):
    Journal(tmp_path / "journal").close()
    assert list((tmp_path / "journal").iterdir()) == []


@pytest.mark.parametrize("lost", [1, 2, 40, 100])
def test_a_torn_tail_is_left_and_said(tmp_path, lost, caplog):
    write(tmp_path, 1, 2, 3)
    whole = part(tmp_path).read_bytes()
    part(tmp_path).write_bytes(whole[:-lost])
    assert numbers(tmp_path) == [1, 2]
    assert "not used" in caplog.text
    with Journal(tmp_path) as journal:
        assert journal.report.torn > 0
        journal.append(record(3))
    assert part(tmp_path).read_bytes() == whole[:-lost], "nobody changes it"
    assert numbers(tmp_path) == [1, 2, 3]


def test_a_damaged_line_in_the_middle_is_skipped_and_said_and_later_ones_are_used(tmp_path, caplog):
    write(tmp_path, 1, 2, 3)
    lines = part(tmp_path).read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"answer 2", b"answer 9")
    part(tmp_path).write_bytes(b"".join(lines))
    assert numbers(tmp_path) == [1, 3]
    assert f"damaged and not used: {part(tmp_path).name}: lines 3" in caplog.text
    with Journal(tmp_path) as journal:
        assert journal.report.skipped == 1
        journal.append(record(2))
    assert numbers(tmp_path) == [1, 2, 3]


def test_a_tail_that_a_living_process_is_writing_is_no_damage(tmp_path, caplog):
    with Journal(tmp_path) as journal:
        journal.append(record(1))
        with part(tmp_path).open("ab") as other:
            other.write(b'{"sha256":"')
        with Journal(tmp_path, readonly=True) as reader:
            assert reader.report.torn == 0
            assert len(reader) == 1
    assert "not used" not in caplog.text


@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data())
def test_no_changed_bit_is_ever_believed(data):
    line = encode({"kind": "answer", "text": "yes", "number": 7})
    place = data.draw(st.integers(0, len(line) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(line)
    changed[place] ^= 1 << bit
    assert decode(bytes(changed)) is None
    assert json.loads(decode(line) or b"") == {"kind": "answer", "text": "yes", "number": 7}


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(damage=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=6))
def test_any_damage_loses_lines_only_and_what_is_found_is_as_written(
    tmp_path_factory, caplog, damage
):
    folder = tmp_path_factory.mktemp("damaged")
    write(folder, *range(8))
    content = bytearray(part(folder).read_bytes())
    for place, change in damage:
        content[place % len(content)] ^= change
    part(folder).write_bytes(content)
    with Journal(folder) as journal:
        left = {one.doc_id: one for one in journal}
        assert all(one == record(number) for number, one in left.items())
        assert len(left) >= 8 - 2 * len(damage)
        missing = sorted(set(range(8)) - set(left))
        if missing:
            journal.append(*(record(number) for number in missing))
    assert numbers(folder) == list(range(8))


def test_lines_of_an_unknown_kind_are_skipped(tmp_path):
    write(tmp_path, 1)
    with part(tmp_path).open("ab") as file:
        file.write(encode({"kind": "note", "format": FORMAT}))
        file.write(encode({"kind": "answer", "answer": record(2).plain()}))
        file.write(encode({"kind": "answer", "format": FORMAT, "answer": record(3).plain()}))
    with Journal(tmp_path, readonly=True) as journal:
        assert sorted(one.doc_id for one in journal) == [1, 3]
        assert journal.report.skipped == 2


EARLIER = {
    "setting": "c" * 64,
    "question": "r1",
    "settings": {"method": "otprune", "keep_ratio": 0.098},
    "task": "pope",
    "split": "test",
    "doc_id": 1,
    "index": 0,
    "kind": "generate",
    "text": "yes",
}
"""An answer as the first format wrote it."""


@pytest.mark.parametrize("number", [1, FORMAT + 1])
@pytest.mark.parametrize("readonly", [True, False])
def test_a_journal_of_another_format_is_refused_and_left_as_it_is(tmp_path, number, readonly):
    content = encode({"kind": "session", "format": number, "session": {}})
    content += encode({"kind": "answer", "format": number, "answer": EARLIER})
    part(tmp_path).write_bytes(content)
    message = rf"part-000.jsonl, line 1: an answer of journal format {number}, .* --journal"
    with pytest.raises(JournalError, match=message):
        Journal(tmp_path, readonly=readonly)
    with pytest.raises(JournalError, match=message):
        read_state([tmp_path])
    assert part(tmp_path).read_bytes() == content


def test_a_closed_or_read_journal_takes_no_answers(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append(record(1))
    with pytest.raises(JournalError, match="is closed or open for reading only"):
        journal.append(record(2))
    assert journal.find(record(1).key) == record(1)
    with (
        Journal(tmp_path, readonly=True) as reader,
        pytest.raises(JournalError, match="is closed or open for reading only"),
    ):
        reader.append(record(2))
    with pytest.raises(JournalError, match="does not exist"):
        Journal(tmp_path / "nowhere", readonly=True)


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file cannot be made"):
        Journal(tmp_path / "file")


def test_a_read_only_folder_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    def refused(path, flags, mode=0o777):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(JournalError, match="cannot be written: Read-only file system"):
        Journal(tmp_path)


def test_a_full_disk_is_an_error_and_what_was_there_stays_whole(tmp_path):
    # A limit on the size of files stands for the disk: the write comes back short, then fails.
    code = textwrap.dedent(
        f"""
        import resource, signal, sys
        {RECORD}
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        with Journal({str(tmp_path)!r}) as journal:
            done = 0
            try:
                while True:
                    journal.append(record(done))
                    done += 1
            except JournalError as error:
                sys.exit(f"{{done}} {{error}}")
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    count, message = done.stderr.strip().split(" ", 1)
    assert f"{part(tmp_path).name} cannot be written: File too large" in message
    assert numbers(tmp_path) == list(range(int(count)))
    assert part(tmp_path).read_bytes().endswith(b"\n")
    assert part(tmp_path).stat().st_size <= 3000


def test_many_processes_at_once_lose_nothing(tmp_path):
    code = textwrap.dedent(
        f"""
        import sys
        {RECORD}
        with Journal({str(tmp_path)!r}) as journal:
            for number in range(int(sys.argv[1]), int(sys.argv[1]) + 50):
                journal.append(record(number))
        """
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(100 * i)]) for i in range(2)]
    assert [one.wait() for one in running] == [0, 0]
    want = sorted(100 * i + j for i in range(2) for j in range(50))
    assert numbers(tmp_path) == want
