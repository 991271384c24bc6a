"""What a line of a journal says."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class JournalError(RuntimeError):
    """A journal that cannot be read or written; the message names the file and the reason."""


class Key(NamedTuple):
    """What an answer is found by.

    Attributes:
        config: `PruningConfig.fingerprint`.
        request: hash of everything else that decides the answer: prompt, images, generation
            settings, model.
    """

    config: str
    request: str


@dataclass(frozen=True, slots=True)
class Record:
    """One finished answer.

    Attributes:
        config: fingerprint of the config.
        request: hash of the request.
        settings: the config's settings in plain words.
        task: id of the task; with split, doc_id and index the first request that had this hash.
        split: split of its dataset.
        doc_id: number of the document.
        index: number of the request among those of its document.
        kind: "generate" or "loglikelihood".
        text: the answer, or
        loss: mean negative log-likelihood of the continuation, and
        greedy: whether greedy decoding would have said it.
        kept: visual tokens of each image that were left.
        candidates: visual tokens of each image before any pruning.
        new_tokens: tokens written.
        seconds: times by what was done.
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

    @property
    def key(self) -> Key:
        """What the answer is found by."""
        return Key(self.config, self.request)

    def plain(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Record":
        """Return the record that `plain` has written.

        Raises:
            JournalError: other fields than a record's.
        """
        known = {one.name for one in fields(cls)}
        try:
            found = cls(**{name: value for name, value in content.items() if name in known})
        except TypeError as error:
            raise JournalError(f"no record of this journal's format: {error}") from None
        for name in ("kept", "candidates"):
            object.__setattr__(found, name, tuple(getattr(found, name)))
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """What opening a journal found.

    Attributes:
        files: files read.
        records: records that can be used, each key once.
        repeated: records whose key was there already.
        skipped: complete lines that failed their checksum or say nothing known, not used.
        torn: bytes of unfinished or damaged ends of files, not used.
    """

    files: int = 0
    records: int = 0
    repeated: int = 0
    skipped: int = 0
    torn: int = 0
