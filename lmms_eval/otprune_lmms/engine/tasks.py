"""Makes requests of lmms-eval's tasks and instances."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.documents import Failure, build_requests
from otprune_lmms.engine.prepare import document_errors
from otprune_lmms.engine.requests import DocumentError, Request, RequestError


def requests_of(
    task: Any,
    task_name: str,
    rank: int = 0,
    world: int = 1,
    limit: int | None = None,
    *,
    failed: list[Failure] | None = None,
) -> list[Request]:
    """Return the requests of an lmms-eval task for one of ``world`` processes.

    Builds the task's instances and stores them in it (``task.instances``), as lmms-eval's evaluator
    does; no model is needed.

    Args:
        task: lmms-eval's task object.
        task_name: ``task`` of the requests: the benchmark's name, or the task's id.
        rank: number of this process.
        world: number of processes.
        limit: documents from the start; None for all.
        failed: documents whose requests cannot be built are appended to it; None: the first is an
            error.

    Raises:
        RequestError: a kind of request other than "generate_until" and "loglikelihood".
        DocumentError: without ``failed``: a document whose requests cannot be built.
        ValueError: the task has no documents, or none that can be used.
    """
    broken = build_requests(task, limit, rank, world)
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    found = [Failure(task_name, doc_id, split, reason) for doc_id, reason in broken.items()]
    if failed is not None:
        failed += found
    elif found:
        raise DocumentError(found[0])
    datasets = {task.config.task: task.dataset}
    return requests_from(task.instances, datasets, failed, task_name)


def requests_from(
    instances: Sequence[Any],
    datasets: Mapping[str, Mapping[str, Any]],
    failed: list[Failure] | None = None,
    task_name: str | None = None,
) -> list[Request]:
    """Return the requests of lmms-eval instances, one each, in order.

    An instance that occurs several times is sampled several times (`Request.repeat`). Clones, which
    lmms-eval adds so that all processes have equally many instances, equal their original request.

    Args:
        instances: with ``args`` in lmms-eval 0.7's order for "simple" models.
        datasets: splits of each task's data, by the task's id.
        failed: documents whose continuation cannot be read are appended to it; None: the first is
            an error.
        task_name: ``task`` of the requests; None for the id of each instance's own task.

    Raises:
        RequestError: a kind of request other than "generate_until" and "loglikelihood".
        DocumentError: without ``failed``: a document whose continuation cannot be read.
    """
    videos: dict[tuple[str, str], Sequence[bool] | None] = {}
    repeats: dict[int, int] = {}
    found = []
    for instance in instances:
        repeat = repeats.get(id(instance), -1) + 1
        repeats[id(instance)] = repeat
        *_, task, split = instance.args
        if (task, split) not in videos:
            rule = benchmark(task).video
            videos[task, split] = None if rule is None else rule.videos(datasets[task][split])
        try:
            dataset, video = datasets[task][split], videos[task, split]
            found.append(_request(instance, task_name or task, dataset, repeat, video))
        except DocumentError as error:
            if failed is None:
                raise
            failed.append(error.failure)
    return found


def _request(
    instance: Any, task: str, dataset: Any, repeat: int, videos: Sequence[bool] | None
) -> Request:
    kind = instance.request_type
    context, second, doc_to_visual, doc_id, _, split = _arguments(instance)
    generation = {} if kind == "loglikelihood" else dict(second)
    request = Request(
        task=task,
        split=split,
        doc_id=doc_id,
        index=instance.idx,
        context=context[0] if isinstance(context, list) else context,
        generation=generation,
        images=partial(_images, dataset, doc_id, doc_to_visual),
        kind="loglikelihood" if kind == "loglikelihood" else "generate",
        video=videos is not None and videos[doc_id],
        repeat=repeat,
    )
    if kind != "loglikelihood":
        return request
    with document_errors(request):
        continuation = second if isinstance(second, str) else second(dataset[doc_id])
    return replace(request, continuation=str(continuation))


def _arguments(instance: Any) -> tuple[Any, ...]:
    known = ("generate_until", "loglikelihood")
    if instance.request_type not in known or len(instance.args) != 6:
        raise RequestError(
            f"requests must be one of {', '.join(known)} about a document, got "
            f"{instance.request_type} with {len(instance.args)} arguments"
        )
    return instance.args


def _images(
    dataset: Any, doc_id: int, doc_to_visual: Callable[[Any], Any] | None
) -> list[Image.Image]:
    images = None if doc_to_visual is None else doc_to_visual(dataset[doc_id])
    # Tasks say in several ways that a document has no image.
    if not images or any(image is None for image in images):
        return []
    return list(images)
