"""The content of a journal's lines."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from otprune_lmms.journal.schema import AnswerContent


class JournalError(RuntimeError):
    """A journal that cannot be read or written; the message names the file and the reason."""


class Key(NamedTuple):
    """What an answer is looked up by.

    Attributes:
        config: `PruningConfig.answer_key`.
        request: digest of everything else that decides the answer: prompt, images, generation
            settings, model (`engine.prepare.request_hash`).
    """

    config: str
    request: str


@dataclass(frozen=True, slots=True)
class Record:
    """One finished answer.

    Attributes:
        config: the config's `answer_key`.
        request: digest of the request.
        settings: the config, as `PruningConfig.as_dict`.
        task: name of the benchmark, or id of the task; task, split, doc_id and index are those of
            the first request with this digest.
        split: split of its dataset.
        doc_id: number of the document.
        index: number of the request among those of its document.
        kind: "generate" or "loglikelihood".
        text: the generated text; None for a loglikelihood.
        loss: mean negative log-likelihood of the continuation's tokens, nats; None for a text.
        greedy: whether greedy decoding would give the continuation; None for a text.
        kept: number of visual tokens of each image after the last pruning.
        candidates: number of visual tokens of each image before any pruning.
        new_tokens: generated tokens, or those of the continuation.
        seconds: "generate" for the time in the language model, and times by phase if taken.
        truncated: positions of the prompt's end that were cut off.
        unfinished: whether a text ended because it had the most tokens allowed; None for a
            loglikelihood, and where an earlier version did not note it.
    """

    config: str
    request: str
    settings: Mapping[str, Any]
    task: str
    split: str
    doc_id: int
    index: int
    kind: str
    text: str | None = None
    loss: float | None = None
    greedy: bool | None = None
    kept: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    new_tokens: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    truncated: int = 0
    unfinished: bool | None = None

    @property
    def key(self) -> Key:
        """What the answer is looked up by."""
        return Key(self.config, self.request)

    def plain(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_content(cls, content: AnswerContent) -> "Record":
        """Return the record that a line's answer has."""
        given: dict[str, Any] = {**content}
        for name in ("kept", "candidates"):
            given[name] = tuple(given[name])
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of what opening a journal found.

    Attributes:
        files: files read.
        records: usable answers, each key once.
        repeated: further answers of a key.
        skipped: complete lines with a wrong checksum, or that are no answer and no session.
        torn: bytes of incomplete lines at the ends of files that no process is writing.
    """

    files: int = 0
    records: int = 0
    repeated: int = 0
    skipped: int = 0
    torn: int = 0
