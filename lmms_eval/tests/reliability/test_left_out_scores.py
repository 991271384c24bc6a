"""Scores without some documents are the scores of a data set that never had them."""

import random

import pytest

import suites
from broken_suites import suite
from otprune_lmms.documents import Failure
from otprune_lmms.experiments.left_out import left_out
from otprune_lmms.scoring import ScoreCache, TaskScorer, java, load_tasks, shared_captions

CAPTIONS = "flickr30k_test"
# Documents that go, and what goes with them.
TASKS = {
    "pope": ({1}, {1}),
    "mme": ({2}, {2, 3}),
    "mmbench_en_dev_static": ({0}, {0}),
    "mmmu_val": ({0, 3}, {0, 3}),
    "seedbench": ({3}, {3}),
    CAPTIONS: ({1}, {1}),
}


def answers(task: str) -> list[str]:
    """Some right, some wrong."""
    right, wrong = suites.right(task), suites.wrong(task)
    draw = random.Random(task)
    return [draw.choice(pair) for pair in zip(right, wrong, strict=True)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Each task whole, and without its documents that go."""
    whole = {task: suites.rows(task) for task in TASKS}
    less = {
        task: [row for n, row in enumerate(rows) if n not in TASKS[task][1]]
        for task, rows in whole.items()
    }
    folder = tmp_path_factory.mktemp("suites")
    return [
        load_tasks(list(TASKS), suite(folder / name, rows))
        for name, rows in (("whole", whole), ("less", less))
    ]


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_those_of_the_smaller_data_set(tasks, task, monkeypatch):
    if task == CAPTIONS and java() is None:
        pytest.skip("caption metrics need Java")
    for metric in tasks[0][CAPTIONS].aggregation():
        if not metric.endswith("CIDEr"):  # the others take seconds, and the same documents
            for each in tasks:
                monkeypatch.setitem(each[CAPTIONS]._aggregation_list, metric, len)
    gone, left = TASKS[task]
    given = answers(task)
    kept = [answer for n, answer in enumerate(given) if n not in left]
    whole, less = (TaskScorer(each[task], task) for each in tasks)
    asked = {n: [answer] for n, answer in enumerate(given) if n not in gone}
    with shared_captions() as tools:
        found = whole.score(asked, without=gone, tools=tools)
        want = less.score({n: [answer] for n, answer in enumerate(kept)}, tools=tools)
        again = whole.score({n: [answer] for n, answer in enumerate(given)}, tools=tools)
    assert found.metrics == want.metrics
    assert found.documents == want.documents == 4 - len(left)
    assert [one.doc_id for one in found.samples] == [n for n in range(4) if n not in left]
    assert [one.value for one in found.samples] == [one.value for one in want.samples]
    assert again.documents == 4, "the next score is of all again"
    assert set(whole.left_out(gone)) == left


def test_nothing_left_is_an_error_and_an_answer_too_few_is_still_one(tasks):
    scorer = TaskScorer(tasks[0]["pope"], "pope")
    with pytest.raises(ValueError, match="task pope: all of its 4 documents are left out"):
        scorer.score({}, without=range(4))
    with pytest.raises(ValueError, match="document 2 needs 1 answers, got 0"):
        scorer.score({0: ["yes"], 3: ["no"]}, without={1})


def test_turned_questions_of_mmbench_go_together(tasks, tmp_path):
    rows = suites.rows("mmbench_en_dev_static")
    for n, index in enumerate((7, 8, 1_000_007, 2_000_007)):
        rows[n]["index"] = index
    name = "mmbench_en_dev_static"
    scorer = TaskScorer(load_tasks([name], suite(tmp_path, {name: rows}))[name], name)
    assert scorer.left_out({2}) == {0, 2, 3}
    assert scorer.left_out({1}) == {1}
    assert scorer.left_out() == frozenset()


def test_stored_scores_know_what_was_left_out(tasks, tmp_path):
    scorer, cache = TaskScorer(tasks[0]["mme"], "mme"), ScoreCache(tmp_path)
    given = {n: [answer] for n, answer in enumerate(answers("mme"))}
    keys = {cache.key(scorer, given, without) for without in ((), {0}, {1}, {2}, {0, 2})}
    assert len(keys) == 4, "0 and 1 are one image"
    assert cache.key(scorer, given) == cache.key(scorer, given, ())


def failure(task: str, doc_id: int, reason: str = "broken") -> Failure:
    return Failure(task, doc_id, "test", reason)


def test_what_is_left_out_is_said_once_and_in_order(tasks):
    scorers = {name: TaskScorer(tasks[0][name], name) for name in ("pope", "mme")}
    found = left_out([failure("mme", 3), failure("pope", 2), failure("mme", 3)], scorers)
    assert found == [
        failure("pope", 2),
        failure("mme", 2, "scored as one with document 3"),
        failure("mme", 3),
    ]
    assert left_out([], scorers) == []
    half = [failure("pope", n) for n in (0, 1)]
    assert left_out(half, scorers) == half
    with pytest.raises(ValueError, match=r"3 of the 4 documents of task pope .* too many .*\(brok"):
        left_out([*half, failure("pope", 3)], scorers)
