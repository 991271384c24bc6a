"""Each document's share of the headline metric: their mean is the metric."""

import math

import pytest

from otprune_lmms.benchmarks import (
    OTPRUNE_11,
    DocumentResults,
    benchmark,
    caption_shares,
    metric_shares,
)
from otprune_lmms.scoring import TaskScorer, java, load_tasks, shared_captions
from suites import make_suite, right, wrong

CAPTIONS = ("coco2017_cap_val", "flickr30k_test", "nocaps_val")
needs_java = pytest.mark.skipif(java() is None, reason="caption metrics need Java")
MEANS = [
    pytest.param(task, marks=[needs_java] if task in CAPTIONS else [])
    for task in OTPRUNE_11
    if task not in ("mme", "pope")
]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return load_tasks(OTPRUNE_11, make_suite(tmp_path_factory.mktemp("suite"), list(OTPRUNE_11)))


def half_right(task):
    return {i: [a] for i, a in enumerate([*right(task)[:2], *wrong(task)[2:]])}


@pytest.mark.parametrize("task", MEANS)
def test_the_mean_of_the_shares_is_the_metric(task, tasks, monkeypatch):
    if task in CAPTIONS:
        for metric in tasks[task].aggregation():
            if not metric.endswith("CIDEr"):  # the others take seconds
                monkeypatch.setitem(tasks[task]._aggregation_list, metric, len)
    scorer = TaskScorer(tasks[task], task)
    with shared_captions() as tools:
        score = scorer.score(half_right(task), tools=tools)
    values = [sample.value for sample in score.samples]
    counted = [value for value in values if value is not None]
    assert counted
    assert max(counted) > min(counted)
    metric = score.metrics[benchmark(task).metric]
    assert sum(counted) / len(counted) == pytest.approx(metric, rel=1e-12)


@pytest.mark.parametrize("task", ["mme", "pope"])
def test_pope_and_mme_are_right_or_wrong_with_what_their_metric_needs(task, tasks):
    score = TaskScorer(tasks[task], task).score(half_right(task))
    assert [sample.value for sample in score.samples] == [1, 1, 0, 0]
    keys = {"mme": {"category", "question_id"}, "pope": {"prediction", "truth"}}[task]
    assert all(set(sample.detail) == keys for sample in score.samples)


def test_captions_have_the_score_of_their_image_or_none():
    said = {i: {"coco_CIDEr": {"image_id": str(100 + i), "pred": "x"}} for i in range(3)}
    scores = {100: 1.5, 101: 0.0}
    known = caption_shares(DocumentResults("coco_CIDEr", said, caption_scores=scores))
    assert [known[i].value for i in range(3)] == [1.5, 0.0, None]
    assert caption_shares(DocumentResults("coco_CIDEr", said))[0].value is None


def hits(results):
    """MMBench's rule: all turned copies of a question must be right."""
    groups = {}
    for one in results:
        groups.setdefault(one["index"] % 1_000_000, []).append(one["hit"])
        one.clear()
    return 100 * sum(map(all, groups.values())) / len(groups)


def test_turned_copies_of_a_question_count_once_and_together():
    said = {
        0: {"m": {"index": 7, "hit": True}},
        1: {"m": {"index": 1_000_007, "hit": False}},
        2: {"m": {"index": 8, "hit": True}},
        3: {"m": {"index": 1_000_008, "hit": True}},
    }
    groups = benchmark("mmbench_en_dev").groups.of((i, one["m"]) for i, one in said.items())
    given = DocumentResults("m", said, groups, hits)
    found = {doc_id: share.value for doc_id, share in metric_shares(given).items()}
    assert found == {0: 0.0, 1: None, 2: 100.0, 3: None}
    assert said[0]["m"] == {"index": 7, "hit": True}, "the task's code got copies"


def test_documents_that_do_not_count_have_no_share():
    said = {0: {"m": {"pred": "A", "answer": "A"}}, 1: {"other": {"pred": "A", "answer": "B"}}}

    def right(many):
        return float(many[0]["pred"] == many[0]["answer"])

    found = metric_shares(DocumentResults("m", said, aggregate=right))
    assert [found[0].value, found[1].value] == [1.0, None]


def test_other_tasks_have_their_numbers_as_shares():
    said = {0: {"acc": True}, 1: {"acc": 0.25}, 2: {}}
    found = metric_shares(DocumentResults("acc", said))
    assert [found[i].value for i in range(3)] == [1.0, 0.25, None]
    assert not any(math.isnan(one.value) for one in found.values() if one.value is not None)
    assert metric_shares(DocumentResults("acc", {0: {"acc": "text"}}))[0].value is None


@pytest.fixture
def turned():
    """MMBench's values for three questions, the first with its options turned twice."""
    right_ones = {0: "A", 1: "B", 2: "B", 3: "C", 4: "A"}
    said = {0: "A", 1: "B", 2: "A", 3: "C", 4: "no letter"}
    indices = {0: 7, 1: 1_000_007, 2: 2_000_007, 3: 8, 4: 9}
    return {
        place: {
            "gpt_eval_score": {
                "index": index, "question": "q", "answer": right_ones[place],
                "prediction": said[place], "hint": "nan", "source": "s", "split": "dev",
                "category": "c", "L2-category": "l", "A": "one", "B": "two", "C": "three",
                "D": "nan", "E": "nan",
            }
        }
        for place, index in indices.items()
    }  # fmt: skip


def test_what_mmbench_s_evaluator_finds_is_noted_and_the_same_as_one_by_one(turned, tasks):
    name = "mmbench_en_dev_static"
    record = benchmark(name)
    aggregate = TaskScorer(tasks[name], name)._aggregation("gpt_eval_score")
    groups = record.groups.of((i, one["gpt_eval_score"]) for i, one in turned.items())
    calls = []

    def counted(values):
        calls.append(len(values))
        return aggregate(values)

    given = {"metric": "gpt_eval_score", "results": turned, "groups": groups}
    one_by_one = metric_shares(DocumentResults(**given, aggregate=counted))
    assert calls == [3, 1, 1]
    with record.notes(aggregate) as noted:
        whole = aggregate([dict(one["gpt_eval_score"]) for one in turned.values()])
    found = metric_shares(DocumentResults(**given, aggregate=counted, noted=noted))
    assert calls == [3, 1, 1]
    assert found == one_by_one
    assert [share.value for share in found.values()] == [0, None, None, 100, 0]
    assert whole == pytest.approx(100 / 3)


def test_mmbench_s_evaluator_is_left_as_it_was(turned, tasks):
    name = "mmbench_en_dev_static"
    aggregate = TaskScorer(tasks[name], name)._aggregation("gpt_eval_score")
    evaluator = aggregate.func.__globals__["mmbench_evaluator"]
    before = dict(vars(evaluator))
    with pytest.raises(RuntimeError, match="stop"), benchmark(name).notes(aggregate):
        raise RuntimeError("stop")
    assert vars(evaluator) == before
    with benchmark(name).notes(len) as noted:
        assert noted == {}
