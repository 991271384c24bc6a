"""The engine leaves out documents that cannot be used, and nothing else."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from broken_suites import rows, suite
from helpers import loaded, picture, request, tiny
from otprune_lmms.documents import Failure
from otprune_lmms.engine import DocumentError, Engine, requests_of
from otprune_lmms.journal import Journal
from otprune_lmms.models.llava import Llava
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import load_tasks

CONFIGS = [PruningConfig(), PruningConfig.make("random", 0.02)]
SHORT = {"generation": {"max_new_tokens": 2}}


def engine(**settings) -> Engine:
    given = {"model_name": "tiny", "progress": False, "batch_size": 4, "workers": 0}
    return Engine(tiny(), **(given | settings))


def about(doc_id: int, images=lambda: [], **others):
    return replace(request(doc_id, f"What is {doc_id}?", (), **SHORT, **others), images=images)


def missing():
    raise FileNotFoundError("no such image")


class NotedFailures(list):
    """Notes the failures of each call, and leaves nothing more out."""

    def __call__(self, failures):
        self.append(list(failures))
        return ()


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_documents_are_reported_before_the_first_answer(workers, tmp_path):
    requests = [about(0), about(1, missing), about(2), about(3, lambda: [None])]
    noted_failures = NotedFailures()
    with Journal(tmp_path) as journal:

        def leave_out(failures):
            assert len(journal) == 0
            return noted_failures(failures)

        answers = engine(journal=journal, workers=workers).run(requests, CONFIGS, leave_out)
    gone = [
        Failure("task", 1, "test", "no such image"),
        Failure("task", 3, "test", "image 0 must be a PIL image, got NoneType"),
    ]
    assert noted_failures == [gone]
    assert list(answers.failed) == gone
    assert answers.requests == (requests[0], requests[2])
    assert len(answers) == len(list(answers)) == 4
    assert (answers.counts.failed, answers.counts.requests, answers.counts.generated) == (2, 4, 4)
    with pytest.raises(KeyError):
        answers[CONFIGS[0], requests[1]]
    with pytest.raises(DocumentError, match=r"document 1 of task \(test\): no such image"):
        engine(workers=workers).run(requests, CONFIGS)


def test_all_requests_of_a_document_go_and_what_the_caller_says():
    requests = [
        about(0),
        about(1, index=0),
        about(1, missing, index=1),
        about(2, task="other"),
        about(1, task="other"),
    ]
    answers = engine().run(requests, CONFIGS[:1], lambda _: {("other", 2)})
    assert [(one.task, one.doc_id) for one in answers.requests] == [("task", 0), ("other", 1)]
    assert answers.counts.generated == 2
    assert answers.counts.failed == 1


def test_an_equal_request_of_another_document_is_still_answered(tmp_path):
    same = {"index": 0, "context": "What is it?"}
    first = replace(request(0, pictures=(), **SHORT), **same)
    requests = [first, about(0, missing, index=1), replace(first, doc_id=5)]
    with Journal(tmp_path) as journal:
        answers = engine(journal=journal).run(requests, CONFIGS[:1], NotedFailures())
        assert [one.doc_id for one in answers.requests] == [5]
        (record,) = journal
        assert record.doc_id == 5, "named after a document that is answered"


def test_an_image_that_breaks_later_is_left_out_as_well(monkeypatch):
    """Read well at first, gone or too odd for the model when its turn comes."""
    whole = Llava.preprocess

    def preprocess(self, image, view=None):
        if image.width == 7:
            raise ValueError("height and width must be > 0")
        return whole(self, image, view)

    monkeypatch.setattr(Llava, "preprocess", preprocess)

    def odd():
        return [Image.new("RGB", (7, 9))]

    requests = [about(0), about(1, odd), about(2, lambda: [picture("land.png")]), about(3, odd)]
    for workers in (0, 2):
        answers = engine(workers=workers).run(requests, CONFIGS, NotedFailures())
        assert [one.doc_id for one in answers.requests] == [0, 2]
        assert {one.doc_id for one in answers.failed} == {1, 3}
        assert answers.failed[0].reason == "height and width must be > 0"
        assert (answers.counts.generated, answers.counts.failed) == (4, 2)
        assert {key[1].doc_id for key in answers} == {0, 2}
        with pytest.raises(DocumentError, match=r"document [13] of task .* must be > 0"):
            engine(workers=workers).run(requests, CONFIGS)


def test_a_lack_of_memory_is_no_broken_document(monkeypatch):
    model = loaded()[1]
    whole = type(model).generate

    def generate(self, inputs, **kwargs):
        if len(inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "generate", generate)
    requests = [about(0), about(1, missing), about(2), about(3), about(4)]
    answers = engine().run(requests, CONFIGS, NotedFailures())
    assert answers.counts.halvings == 4
    assert [one.doc_id for one in answers.requests] == [0, 2, 3, 4]

    def never(self, inputs, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "generate", never)
    with pytest.raises(ValueError, match=r"document \d of task .* alone does not fit into memory"):
        engine().run(requests, CONFIGS, NotedFailures())


def test_another_error_of_the_model_is_no_broken_document(monkeypatch):
    def generate(self, inputs, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(loaded()[1]), "generate", generate)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        engine().run([about(0)], CONFIGS, NotedFailures())


def test_requests_that_cannot_be_built_are_noted_by_each_process(tmp_path):
    made = rows("pope", 6, {})
    made[1]["question"] = made[4]["question"] = None
    task = load_tasks(["pope"], suite(tmp_path, {"pope": made}))["pope"]
    for rank in (0, 1):
        failed: list[Failure] = []
        found = requests_of(task, "pope", rank, 2, failed=failed)
        number = {0: 4, 1: 1}[rank]
        assert [one.doc_id for one in found] == [n for n in range(rank, 6, 2) if n != number]
        assert [(one.doc_id, one.split) for one in failed] == [(number, "test")]
        with pytest.raises(DocumentError, match=rf"document {number} of pope \(test\): Attr"):
            requests_of(task, "pope", rank, 2)
    assert "construct_requests" not in vars(task)


def test_a_task_without_one_request_that_can_be_built_is_an_error(tmp_path):
    made = rows("pope", 3, {})
    task = load_tasks(["pope"], suite(tmp_path, {"pope": made}))["pope"]
    task.dataset_no_image["test"] = task.dataset_no_image["test"].remove_columns("question")
    with pytest.raises(ValueError, match="none of the 3 documents of task pope can be used"):
        requests_of(task, "pope", failed=[])


def test_a_first_document_without_text_is_named(tmp_path):
    made = rows("pope", 3, {})
    made[0]["question"] = None
    folder = suite(tmp_path, {"pope": made})
    with pytest.raises(ValueError, match="task pope could not be made of its first document"):
        load_tasks(["pope"], folder)
