"""A cache of scores, on disk."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from otprune_lmms.files import write_text
from otprune_lmms.scoring.score import AnswerValue, Sample, TaskScore, TaskScorer

FORMAT = 2
"""Version of the files; others are not read."""


class ScoreCache:
    """A folder of scores, each stored under a hash of everything that decides it.

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

    def find(self, key: str) -> TaskScore | None:
        """Return the score of a key; None if there is none, or its file cannot be read."""
        try:
            content = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            samples = tuple(Sample(**sample) for sample in content.pop("samples"))
            return TaskScore(**content, samples=samples)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, key: str, score: TaskScore) -> None:
        """Write a score under its key, whole or not at all.

        Raises:
            ValueError: metrics are missing for want of Java.
            OutputError: it could not be written.
        """
        if score.missing:
            raise ValueError(f"the score of task {score.task} is incomplete and cannot be kept")
        write_text(self.folder / f"{key}.json", json.dumps(dataclasses.asdict(score)))
