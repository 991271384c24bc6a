"""A cache of scores, on disk: a score is used only where its file is as it was written."""

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # typing has one that pydantic can use from Python 3.12 on

from otprune_lmms.files import read_file, write_text
from otprune_lmms.journal.faults import few
from otprune_lmms.journal.lines import decode, encode
from otprune_lmms.json_files import first_fault
from otprune_lmms.scoring.score import AnswerValue, Sample, TaskScore, TaskScorer

logger = logging.getLogger(__name__)

FORMAT = 3
"""Version of the files; others are not read, since it is part of the key."""

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

_Count = Annotated[int, Field(ge=0)]


@with_config(_STRICT)
class _SampleContent(TypedDict):
    """A `Sample`, as JSON has it."""

    doc_id: _Count
    target: str
    answer: str
    scores: dict[str, float]
    value: float | None
    detail: dict[str, str]


@with_config(_STRICT)
class _ScoreContent(TypedDict):
    """A `TaskScore` without missing metrics, as JSON has it."""

    task: str
    documents: _Count
    metrics: dict[str, float]
    samples: list[_SampleContent]


@with_config(_STRICT)
class _File(TypedDict):
    """The content of a file: the score, and the key that it was stored under."""

    kind: Literal["score"]
    key: str
    score: _ScoreContent


_FILE = TypeAdapter(_File)


class ScoreCache:
    """A folder of scores, each stored under a hash of everything that decides it.

    A file is one line with a checksum over the key and the score, as the lines of a journal have
    it (`journal.lines`).

    Args:
        folder: created when the first score is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(
        self,
        scorer: TaskScorer,
        answers: Mapping[int, Sequence[AnswerValue]],
        without: Collection[int] = (),
    ) -> str:
        """Return SHA-256, as hex, over documents, answers and the scoring code.

        Args:
            scorer: the benchmark's scorer.
            answers: values of the answers by document, in the order of its requests.
            without: documents that are left out, as in `TaskScorer.score`.
        """
        content: dict[str, Any] = {
            "format": FORMAT,
            "code": {name: version(name) for name in ("lmms_eval", "pycocoevalcap")},
            "source": scorer.code,
            "task": scorer.name,
            "documents": scorer.fingerprint,
            "answers": sorted((doc_id, list(many)) for doc_id, many in answers.items()),
        }
        out = scorer.left_out(without)
        if out:
            content["left out"] = sorted(out)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def find(self, keys: Iterable[str]) -> dict[str, TaskScore]:
        """Return the scores of some keys, as far as they are stored.

        Files that are damaged, or that cannot be read, count as none, with one warning for all.
        """
        found: dict[str, TaskScore] = {}
        faults: list[str] = []
        for key in dict.fromkeys(keys):
            try:
                found[key] = self._read(key)
            except FileNotFoundError:
                continue
            except OSError as error:
                faults.append(f"{key}.json ({error.strerror})")
            except ValueError as error:
                faults.append(f"{key}.json ({error})")
        if faults:
            logger.warning(
                "%s: scores that are damaged, and made again: %s", self.folder, few(faults, "; ")
            )
        return found

    def keep(self, key: str, score: TaskScore) -> None:
        """Write a score under its key, whole or not at all.

        A score with a number that is not finite is not written, and made again each time.

        Raises:
            ValueError: metrics are missing for want of Java.
            OutputError: it could not be written.
        """
        if score.missing:
            raise ValueError(f"the score of task {score.task} is incomplete and cannot be kept")
        if not all(map(math.isfinite, _numbers(score))):
            return
        content = dataclasses.asdict(score)
        del content["missing"]
        # Not sorted: metrics are listed in their order.
        line = encode({"kind": "score", "key": key, "score": content}, sort=False)
        write_text(self.folder / f"{key}.json", line.decode())

    def _read(self, key: str) -> TaskScore:
        """Return the score of a key.

        Raises:
            ValueError: its file is not as it was written.
            OSError: it cannot be read.
        """
        text = decode(read_file(self.folder / f"{key}.json"))
        if text is None:
            raise ValueError("the checksum is wrong")
        try:
            content = _FILE.validate_python(json.loads(text))
        except ValidationError as error:
            raise ValueError(first_fault(error)) from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if content["key"] != key:
            raise ValueError("the score of another key")
        score = content["score"]
        samples = tuple(Sample(**one) for one in score["samples"])
        return TaskScore(score["task"], score["documents"], score["metrics"], samples, {})


def _numbers(score: TaskScore) -> Iterable[float]:
    yield from score.metrics.values()
    for sample in score.samples:
        yield from sample.scores.values()
        if sample.value is not None:
            yield sample.value
