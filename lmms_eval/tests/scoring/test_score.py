"""Known answers give known scores, and the same as lmms-eval's own evaluator."""

import json
import random
from pathlib import Path

import pytest
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.scoring import (
    JavaError,
    ScoringError,
    TaskScorer,
    java,
    load_tasks,
    shared_captions,
)
from otprune_lmms.scoring.captions import SharedMeteor, SharedTokenizer, one_line
from otprune_lmms.scoring.tasks import task_manager
from suites import make_suite, right, wrong

CAPTIONS = ("coco2017_cap_val", "flickr30k_test", "nocaps_val")
needs_java = pytest.mark.skipif(java() is None, reason="caption metrics need Java")
TASKS = [pytest.param(t, marks=needs_java) if t in CAPTIONS else t for t in OTPRUNE_11]
BEST = {"mme": 200.0, "mmbench_en_dev_static": 100.0}


class Replay(lmms):
    """Stored answers as a model."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def generate_until(self, requests):
        return [self.answers[request.args[3]] for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    def generate_until_multi_round(self, requests):
        raise NotImplementedError


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    return make_suite(tmp_path_factory.mktemp("suite"), list(OTPRUNE_11))


@pytest.fixture(scope="session")
def tasks(suite):
    return load_tasks(OTPRUNE_11, suite)


@pytest.fixture(scope="session")
def meteor():
    """METEOR, which takes ten seconds to start."""
    one = SharedMeteor()
    yield one
    one.close()


@pytest.fixture
def tools(meteor):
    with shared_captions() as shared:
        shared.meteor = meteor
        yield shared


def by_document(answers):
    return {number: [answer] for number, answer in enumerate(answers)}


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_score_best_and_wrong_ones_worst(task, tasks, tools):
    scorer = TaskScorer(tasks[task], task)
    metric = benchmark(task).metric
    best = scorer.score(by_document(right(task)))
    worst = scorer.score(by_document(wrong(task)))
    assert worst.metrics[metric] == 0
    if task in CAPTIONS:
        assert best.metrics[metric] > 3
        assert best.metrics[metric.replace("CIDEr", "METEOR")] == 1
    else:
        assert best.metrics[metric] == BEST.get(task, 1.0)
    assert best.documents == 4
    assert [sample.doc_id for sample in best.samples] == [0, 1, 2, 3]
    assert [sample.answer for sample in worst.samples] == wrong(task)
    assert not best.missing


def stock(task, tasks, answers):
    """What lmms-eval's evaluator makes of the answers."""
    results = simple_evaluate(
        model=Replay(answers),
        tasks=[tasks[task]],
        task_manager=task_manager([task]),
        bootstrap_iters=0,
        process_docs_parallel=1,
        log_samples=False,
    )
    return {
        key.removesuffix(",none"): value
        for key, value in results["results"][task].items()
        if "stderr" not in key and isinstance(value, float | int)
    }


@pytest.mark.parametrize("task", [t for t in OTPRUNE_11 if t not in CAPTIONS])
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_lmms_eval_s_evaluator(task, tasks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the evaluator's submission files
    mixed = [*right(task)[:3], *wrong(task)[3:]]
    ours = TaskScorer(tasks[task], task).score(by_document(mixed))
    theirs = stock(task, tasks, mixed)
    assert theirs
    assert ours.metrics == theirs


@needs_java
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
@pytest.mark.parametrize("metrics", ["METEOR", "coco"])
def test_shared_caption_tools_change_no_digit(tasks, tmp_path, monkeypatch, meteor, metrics):
    monkeypatch.chdir(tmp_path)
    for metric in tasks["coco2017_cap_val"].aggregation():
        if metrics not in metric:  # each starts METEOR, whether it is that or not
            monkeypatch.setitem(tasks["coco2017_cap_val"]._aggregation_list, metric, len)
    answers = ["A red ball in the U.S.", "two cats' sofa, (old) ``couch''", "", "Birds… on a\nwire"]
    theirs = stock("coco2017_cap_val", tasks, answers)
    scorer = TaskScorer(tasks["coco2017_cap_val"], "coco2017_cap_val")
    with shared_captions() as tools:
        tools.meteor = meteor
        scorer.prime(tools, [by_document(answers), by_document(right("coco2017_cap_val"))])
        before = tools.tokenizer.runs
        ours = scorer.score(by_document(answers))
        again = scorer.score(by_document(answers))
        assert tools.tokenizer.runs == before + 1, "references only: candidates were primed"
    assert len(theirs) == 7
    assert ours.metrics == theirs
    assert again.metrics == ours.metrics


BREAKS = ("\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029")


@needs_java
def test_a_line_break_in_a_caption_moves_no_other_caption():
    tokenizer, plain = SharedTokenizer(), ["a red ball", "two cats", "", "three birds"]
    made = [
        [*plain[:place], f"two{mark}birds{end}", *plain[place:]]
        for place in range(5)
        for mark in BREAKS
        for end in ("", mark)
    ]
    tokenizer.prime("\n".join(map(one_line, captions)) for captions in made)
    for captions in made:
        found = tokenizer.tokenize({n: [{"caption": one}] for n, one in enumerate(captions)})
        want = [one if one in plain else "two birds" for one in captions]
        assert found == {n: [one] for n, one in enumerate(want)}
    assert tokenizer.runs == 1


@pytest.mark.parametrize("task", CAPTIONS)
def test_every_tokeniser_is_given_captions_of_one_line(task, tasks):
    scorer = TaskScorer(tasks[task], task)
    broken = [f"two{mark}birds" for mark in BREAKS[4:]]
    score = scorer.score(by_document(broken), without_java=True)
    assert [one.answer for one in score.samples] == ["two birds"] * 4


@needs_java
def test_a_tokeniser_that_loses_a_line_is_an_error(monkeypatch):
    tokenizer = SharedTokenizer()
    captions = {n: [{"caption": text}] for n, text in enumerate(("a\u2028b", "", "c"))}
    assert tokenizer.tokenize(captions) == {0: ["a b"], 1: [""], 2: ["c"]}
    (text,) = tokenizer._lines
    tokenizer._lines[text] = ["a", "b", "", "c"]
    with pytest.raises(JavaError, match="returned 4 lines for 3 captions"):
        tokenizer.tokenize(captions)


@needs_java
def test_lines_are_tokenised_with_what_follows_them():
    one = {0: [{"caption": "A man in the U.S."}], 1: [{"caption": "Dogs run"}]}
    two = {0: [{"caption": "A man in the U.S."}], 1: [{"caption": "dogs run"}]}
    tokenizer = SharedTokenizer()
    tokenizer.prime(["A man in the U.S.\nDogs run", "A man in the U.S.\ndogs run", ""])
    assert tokenizer.runs == 1
    assert tokenizer.tokenize(one)[0] == tokenizer.tokenize(two)[0] == ["a man in the u.s."]
    assert tokenizer.tokenize({}) == {}
    assert tokenizer.runs == 1


@needs_java
def test_the_stock_classes_are_as_before_after_sharing():
    before = (Meteor.__init__, Meteor.compute_score, Bleu.compute_score, PTBTokenizer.tokenize)
    kept = []

    def fail_inside():
        with shared_captions() as tools:
            assert Meteor.__init__ is not before[0]
            tools.meteor.start()
            kept.append(tools.meteor._process)
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        fail_inside()
    assert kept[0].poll() is not None, "METEOR must have ended"
    after = (Meteor.__init__, Meteor.compute_score, Bleu.compute_score, PTBTokenizer.tokenize)
    assert after == before


def test_without_java_captions_are_marked_and_nothing_is_run(tasks, monkeypatch):
    monkeypatch.setenv("PATH", "")
    scorer = TaskScorer(tasks["flickr30k_test"], "flickr30k_test")
    score = scorer.score(by_document(right("flickr30k_test")), without_java=True)
    assert score.metrics == {}
    assert set(score.missing.values()) == {"needs Java"}
    assert "flickr_CIDEr" in score.missing
    assert len(score.samples) == 4
    gqa = TaskScorer(tasks["gqa"], "gqa").score(by_document(right("gqa")), without_java=True)
    assert gqa.metrics == {"exact_match": 1.0}
    with shared_captions(), pytest.raises(JavaError, match="need Java"):
        scorer.score(by_document(right("flickr30k_test")))


@pytest.mark.parametrize("task", OTPRUNE_11)
def test_only_caption_metrics_need_java(task, tasks):
    assert TaskScorer(tasks[task], task).needs_java == (task in CAPTIONS)


def test_answers_must_be_there_and_no_more(tasks):
    scorer = TaskScorer(tasks["gqa"], "gqa")
    with pytest.raises(ValueError, match=r"gqa: document 3 needs 1 answers, got 0"):
        scorer.score(by_document(["red"] * 3))
    with pytest.raises(ValueError, match=r"document 0 needs 1 answers, got 2"):
        scorer.score({n: ["red", "blue"] for n in range(4)})


def test_a_limit_scores_the_first_documents(tasks):
    scorer = TaskScorer(tasks["gqa"], "gqa", limit=3)
    assert len(scorer) == 3
    assert scorer.score(by_document(["red", "blue", "blue"])).metrics["exact_match"] == 2 / 3


def test_mme_wants_both_questions_of_an_image(tasks):
    with pytest.raises(ValueError, match="existence/1.jpg has 1 among the 3 documents"):
        TaskScorer(tasks["mme"], "mme", limit=3)
    assert len(TaskScorer(tasks["mme"], "mme", limit=2)) == 2


def test_unreadable_letters_are_guessed_alike_and_leave_no_trace(tasks):
    scorer = TaskScorer(tasks["mmmu_val"], "mmmu_val")
    random.seed(5)
    state = random.getstate()
    first = scorer.score(by_document(["no idea"] * 4))
    assert random.getstate() == state
    random.seed(6)
    assert scorer.score(by_document(["no idea"] * 4)) == first


def test_scoring_writes_nothing_where_it_runs(tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for task in ("mmbench_en_dev_static", "ok_vqa_val2014"):
        TaskScorer(tasks[task], task).score(by_document(right(task)))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_metric_without_a_value_is_an_error_that_names_the_task(tasks, monkeypatch):
    scorer = TaskScorer(tasks["gqa"], "gqa")
    monkeypatch.setitem(tasks["gqa"]._aggregation_list, "exact_match", lambda items: None)
    with pytest.raises(ScoringError, match="exact_match of task gqa has no value: None"):
        scorer.score(by_document(right("gqa")))
    monkeypatch.setitem(tasks["gqa"]._aggregation_list, "exact_match", lambda items: items[9])
    with pytest.raises(ScoringError, match="task gqa failed: IndexError"):
        scorer.score(by_document(right("gqa")))


def test_scores_by_document_are_kept_where_the_task_has_them(tasks):
    score = TaskScorer(tasks["pope"], "pope").score(by_document(["yes", "yes", "yes", "no"]))
    assert [sample.scores["pope_accuracy"] for sample in score.samples] == [1, 0, 1, 1]
    json.dumps([dict(sample.scores) for sample in score.samples])


def test_an_unknown_task_s_first_metric_stands_for_it():
    assert benchmark("textvqa_val", ["exact_match", "submission"]).metric == "exact_match"
    with pytest.raises(ValueError, match="task x has no metrics"):
        benchmark("x", [])


def test_missing_data_is_named(tmp_path):
    with pytest.raises(ValueError, match="no task file for gqa in"):
        load_tasks(["gqa"], tmp_path)
    Path(tmp_path / "gqa.yaml").write_text(
        "{task: gqa, dataset_path: parquet, dataset_kwargs: {data_files: {testdev: no.parquet}}}"
    )
    with pytest.raises(ValueError, match="the data of task gqa is missing: no file .*no.parquet"):
        load_tasks(["gqa"], tmp_path)
    with pytest.raises(ValueError, match="unknown task 'no_such_task'"):
        load_tasks(["no_such_task"])
    with pytest.raises(ValueError, match="at least one"):
        load_tasks([])
