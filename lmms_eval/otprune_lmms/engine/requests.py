"""What is asked, and what is answered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from otprune_lmms.documents import Failure

RequestKind = Literal["generate", "loglikelihood"]

RequestKey = tuple[str, str, int, int, str, int, str, str | None]
"""Task, split, document, index, kind, repeat, context, continuation: what names a request within a
run."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question about one document; two with the same `key` are the same request.

    Attributes:
        task: name of the benchmark, or id of the task.
        split: split of its dataset.
        doc_id: number of the document in the split.
        index: number of the request among those of its document.
        context: the text that the task asks with; may place images with ``<image>``.
        generation: generation settings of the task: ``max_new_tokens`` (1024), ``temperature``
            (0), ``top_p``, ``num_beams`` (1), ``until``, ``image_aspect_ratio``; others are
            ignored, as by lmms-eval's own wrapper.
        images: returns the document's images; called on worker threads, more than once.
        kind: "generate" for an answer, "loglikelihood" for the loss of ``continuation``.
        continuation: the answer whose loss is wanted.
        video: the images are frames of a video.
        repeat: tells samples of one question apart; matters with ``temperature > 0`` only.
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
        """What names this request within a run."""
        place = (self.task, self.split, self.doc_id, self.index)
        return (*place, self.kind, self.repeat, self.context, self.continuation)

    @property
    def name(self) -> str:
        """The request in words, for messages."""
        return self.failure("").name

    def failure(self, reason: str) -> Failure:
        """Return that the request's document cannot be used."""
        return Failure(self.task, self.doc_id, self.split, reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one request under one config.

    Attributes:
        text: the answer; None for a loglikelihood.
        loss: mean negative log-likelihood of the continuation's tokens, nats; None for text.
        greedy: whether greedy decoding would have said the continuation; None for text.
        kept: visual tokens of each image that were left after the last pruning.
        candidates: visual tokens of each image before any pruning.
        new_tokens: tokens written, or those of the continuation.
        seconds: this request's share of its batch's time in the language model, pruning included;
            ranking counts where it was done, once for many answers (`Engine`, ``rank_once``).
        phases: seconds by phase (`otprune_lmms.engine.phases.PHASES`); empty unless asked for.
    """

    text: str | None = None
    loss: float | None = None
    greedy: bool | None = None
    kept: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    new_tokens: int = 0
    seconds: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def value(self) -> str | tuple[float, bool]:
        """What lmms-eval expects back: the text, or (loss, greedy)."""
        if self.text is not None:
            return self.text
        return float(self.loss or 0.0), bool(self.greedy)


class RequestError(ValueError):
    """A request that cannot be answered; the message names task and document."""


class DocumentError(RequestError):
    """A document that cannot be used: broken images, or a context that does not fit them.

    Attributes:
        failure: what is wrong with which document.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.name}: {failure.reason}")
        self.failure = failure
