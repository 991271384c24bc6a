"""Requests to a model, and answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from otprune_lmms.documents import Failure

RequestKind = Literal["generate", "loglikelihood"]

RequestKey = tuple[str, str, int, int, str, int, str, str | None]
"""Task, split, document, index, kind, repeat, context, continuation: identifies a request within a
run."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request about one document; two with the same `key` are the same request.

    Attributes:
        task: name of the benchmark, or id of the task.
        split: split of its dataset.
        doc_id: number of the document in the split.
        index: number of the request among those of its document.
        context: the task's text, without a chat template; may place images with ``<image>``.
        generation: generation settings of the task: ``max_new_tokens`` (1024), ``temperature``
            (0), ``top_p``, ``num_beams`` (1), ``until``, ``image_aspect_ratio``; others are
            ignored, as by lmms-eval's own wrapper.
        images: returns the document's images; called on worker threads, more than once.
        kind: "generate" for a text, "loglikelihood" for the loss of ``continuation``.
        continuation: the text whose loss is computed; None for "generate".
        video: whether the images are frames of a video.
        repeat: number of the sample where a request is sampled several times; it changes the answer
            only with ``temperature > 0``.
    """

    task: str
    split: str
    doc_id: int
    index: int
    context: str
    generation: Mapping[str, Any] = field(compare=False)
    images: Callable[[], list[Image.Image]] = field(compare=False, repr=False)
    kind: RequestKind = "generate"
    continuation: str | None = None
    video: bool = field(default=False, compare=False)
    repeat: int = 0

    @property
    def key(self) -> RequestKey:
        """What identifies this request within a run."""
        place = (self.task, self.split, self.doc_id, self.index)
        return (*place, self.kind, self.repeat, self.context, self.continuation)

    @property
    def name(self) -> str:
        """The request's document in words, for messages."""
        return self.failure("").name

    def failure(self, reason: str) -> Failure:
        """Return a `Failure` of the request's document."""
        return Failure(self.task, self.doc_id, self.split, reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to one request under one pruning config.

    Attributes:
        text: the generated text; None for a loglikelihood.
        loss: mean negative log-likelihood of the continuation's tokens in nats; None for a text.
        greedy: whether greedy decoding would give the continuation; None for a text.
        kept: number of visual tokens of each image after the last pruning.
        candidates: number of visual tokens of each image before any pruning.
        new_tokens: generated tokens, or those of the continuation.
        seconds: this request's share of its batch's time in the language model, pruning included. A
            ranking that serves many answers counts for the batch that made it (`Engine`,
            ``rank_once``).
        truncated: positions of the prompt's end that were cut off, being more than the model takes.
        unfinished: whether a text ended because it had the most tokens allowed; None for a
            loglikelihood, and where an earlier version did not note it.
        phases: seconds by phase (`otprune_lmms.engine.phases.PHASES`); empty without times.
    """

    text: str | None = None
    loss: float | None = None
    greedy: bool | None = None
    kept: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    new_tokens: int = 0
    seconds: float = 0.0
    truncated: int = 0
    unfinished: bool | None = None
    phases: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def value(self) -> str | tuple[float, bool]:
        """The answer as lmms-eval takes it: the text, or (loss, greedy)."""
        if self.text is not None:
            return self.text
        return float(self.loss or 0.0), bool(self.greedy)


class RequestError(ValueError):
    """A request that cannot be answered; the message names task and document."""


class DocumentError(RequestError):
    """A document that cannot be used: broken images, or a context that does not fit them.

    Attributes:
        failure: the document and the reason.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.name}: {failure.reason}")
        self.failure = failure
