"""A stored score is used only as it was written, and for the answers that it was written for."""

import os

import pytest

from journal_records import record
from otprune_lmms.files import OutputError
from otprune_lmms.journal.lines import encode
from otprune_lmms.scoring import Sample, ScoreCache, TaskScore

SCORE = TaskScore(
    task="pope",
    documents=2,
    metrics={"pope_recall": 0.0, "pope_accuracy": 0.5},
    samples=(
        Sample(0, "yes", "no \ud800\n", {"pope_accuracy": 0.0}, 0.0, {"truth": "yes"}),
        Sample(1, "no", "no", {"pope_accuracy": 1.0}),
    ),
    missing={},
)
KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def cache(tmp_path):
    cache = ScoreCache(tmp_path)
    cache.keep(KEY, SCORE)
    return cache


def test_a_score_comes_back_as_it_was(cache, caplog):
    found = cache.find([KEY, OTHER, KEY])
    assert found == {KEY: SCORE}
    assert list(found[KEY].metrics) == list(SCORE.metrics)
    assert not caplog.records


def test_a_changed_byte_anywhere_makes_the_score_anew(cache, tmp_path):
    path = tmp_path / f"{KEY}.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for flipped in (1, 0x20, 0x80):
            changed = bytearray(whole)
            changed[place] ^= flipped
            path.write_bytes(changed)
            assert cache.find([KEY]) == {}, bytes(changed)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert cache.find([KEY]) == {}
    path.write_bytes(whole)
    assert cache.find([KEY]) == {KEY: SCORE}


def content(**changes):
    """A file's content with other values, to be given its right checksum."""
    score = {
        "task": "pope",
        "documents": 1,
        "metrics": {"pope_accuracy": 1.0},
        "samples": [
            {
                **{"doc_id": 0, "target": "yes", "answer": "yes", "value": 1.0, "detail": {}},
                "scores": {"pope_accuracy": 1.0},
            }
        ],
    }
    return {"kind": "score", "key": KEY, "score": score | changes}


DAMAGED = {
    "halved": lambda line: line.replace(b":0.5}", b":0.25}"),
    "of another cell": lambda line: line.replace(KEY.encode(), OTHER.encode()),
    "empty": lambda _: b"",
    "null": lambda _: b"null",
    "a list": lambda _: b"[]",
    "an answer": lambda _: encode({"kind": "answer", "answer": record(1).plain()}),
    "of the earlier format": lambda line: line[line.index(b"{", 9) : -2],
    "no UTF-8": lambda _: b"\xff\xfe" * 40,
    "nested": lambda _: b"[" * 100_000,
    "wrong types": lambda _: encode(content(documents="1")),
    "no number": lambda _: encode(content(metrics={"pope_accuracy": None})),
    "a huge number": lambda _: encode(content(metrics={"pope_accuracy": 10**400})),
    "a column too many": lambda _: encode(content() | {"more": 1}),
    "no samples": lambda _: encode(content(samples=None)),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_score_is_none_with_one_warning(cache, tmp_path, caplog, damage):
    cache.keep(OTHER, SCORE)
    path = tmp_path / f"{KEY}.json"
    path.write_bytes(damage(path.read_bytes()))
    assert cache.find([KEY, OTHER]) == {OTHER: SCORE}
    assert len(caplog.records) == 1
    assert f"made again: {KEY}.json (" in caplog.text
    cache.keep(KEY, SCORE)
    assert cache.find([KEY, OTHER]) == {KEY: SCORE, OTHER: SCORE}


def test_the_file_of_another_score_is_none(cache, tmp_path, caplog):
    (tmp_path / f"{OTHER}.json").write_bytes((tmp_path / f"{KEY}.json").read_bytes())
    assert cache.find([OTHER]) == {}
    assert "the score of another key" in caplog.text


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_what_is_no_file_is_no_score(tmp_path, caplog, make, kind):
    cache = ScoreCache(tmp_path)
    make(tmp_path / f"{KEY}.json")
    assert cache.find([KEY]) == {}
    assert f"no regular file but {kind}" in caplog.text
    if make is os.mkdir:
        with pytest.raises(OutputError, match="Is a directory"):
            cache.keep(KEY, SCORE)
    else:
        cache.keep(KEY, SCORE)
        assert cache.find([KEY]) == {KEY: SCORE}


def test_a_number_that_json_cannot_say_is_not_stored(tmp_path):
    cache = ScoreCache(tmp_path)
    for number in (float("nan"), float("inf")):
        cache.keep(KEY, TaskScore("pope", 1, {"accuracy": number}, (), {}))
        sample = Sample(0, "yes", "yes", {}, number)
        cache.keep(KEY, TaskScore("pope", 1, {"accuracy": 1.0}, (sample,), {}))
    assert list(tmp_path.iterdir()) == []
