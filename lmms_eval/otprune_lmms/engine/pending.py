"""What is still to be answered, by this process or by others that write into the same journal."""

from collections.abc import Collection, Iterable, Sequence

from otprune_lmms.engine.answers import Counts
from otprune_lmms.engine.entries import answer_of, record_of
from otprune_lmms.engine.requests import Answer
from otprune_lmms.engine.survey import Question
from otprune_lmms.journal import Journal, Key
from otprune_lmms.pruning_config import PruningConfig


class Left:
    """The configs that each question still has to be answered under.

    Args:
        questions: what is asked, each question once.
        configs: under which configs.
        known: answers that are there, by (config, question); new ones are put in.
        journal: where others are found and new ones are kept.
        counts: told of every answer that was found or is new.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        configs: Sequence[PruningConfig],
        known: dict[tuple[str, str], Answer],
        journal: Journal | None,
        counts: Counts,
    ) -> None:
        self._known, self._journal, self._counts = known, journal, counts
        self._configs = {config.fingerprint: config for config in configs}
        self._left = {question.digest: set(self._configs) for question in questions}
        self._number = len(self._left) * len(self._configs)
        for digest, cells_left in self._left.items():
            for config in list(cells_left):
                if (config, digest) in known:
                    self._done(Key(config, digest))
                elif journal is not None and journal.find((config, digest)) is not None:
                    self._take(Key(config, digest))

    def __len__(self) -> int:
        """Number of answers that are missing."""
        return self._number

    def __contains__(self, question: Question) -> bool:
        """Whether a question lacks an answer."""
        return bool(self._left[question.digest])

    def any(self, batch: Iterable[Question]) -> bool:
        """Return whether any of some questions lacks an answer."""
        return any(question in self for question in batch)

    def configs(self, batch: Iterable[Question]) -> list[PruningConfig]:
        """Return the configs that any of some questions lacks."""
        names = set().union(*(self._left[question.digest] for question in batch))
        return [config for name, config in self._configs.items() if name in names]

    def rows(self, batch: Iterable[Question], config: PruningConfig) -> list[Question]:
        """Return those of some questions that lack a config's answer."""
        name = config.fingerprint
        return [question for question in batch if name in self._left[question.digest]]

    def drop(self, digests: Collection[str]) -> None:
        """Give questions up."""
        for digest in digests:
            for config in list(self._left[digest]):
                self._done(Key(config, digest))

    def keep(
        self, questions: Sequence[Question], answers: Sequence[Answer], config: PruningConfig
    ) -> None:
        """Take new answers, and write them down.

        Raises:
            JournalError: they could not be written.
        """
        name = config.fingerprint
        pairs = list(zip(questions, answers, strict=True))
        if self._journal is not None:
            self._journal.append(*(record_of(q, a, config, name) for q, a in pairs))
        for question, answer in pairs:
            self._known[name, question.digest] = answer
            self._done(Key(name, question.digest))
        self._counts.generated += len(pairs)

    def refresh(self) -> set[str]:
        """Take what other processes have answered since; return the questions, known or new.

        Where both have answered, the journal says whose answer holds.

        Raises:
            JournalError: the journal cannot be read.
        """
        keys = set() if self._journal is None else self._journal.refresh()
        asked = {key for key in keys if key.request in self._left and key.config in self._configs}
        for key in asked:
            self._take(key)
        return {key.request for key in asked}

    def _take(self, key: Key) -> None:
        record = None if self._journal is None else self._journal.find(key)
        if record is not None:
            self._known[key] = answer_of(record)
            self._counts.reused += self._done(key)

    def _done(self, key: Key) -> bool:
        """Note that an answer is there; return whether it was missing."""
        missing = self._left[key.request]
        if key.config not in missing:
            return False
        missing.remove(key.config)
        self._number -= 1
        return True
