"""Which answers are missing, where other processes may write into the same journal."""

from collections.abc import Collection, Iterable, Sequence

from otprune_lmms.engine.answers import Counts, answer_of, record_of
from otprune_lmms.engine.batches import Batch
from otprune_lmms.engine.prepare import PreparedRequest
from otprune_lmms.engine.requests import Answer
from otprune_lmms.journal import Journal, Key
from otprune_lmms.pruning_config import PruningConfig


class PendingAnswers:
    """The pruning configs under which each request lacks an answer.

    Args:
        requests: each digest once.
        configs: pruning configs; every request needs an answer under each.
        known: answers by (config's `answer_key`, request digest); found and new ones are added.
        journal: where answers are looked up and new ones are written; None for none.
        counts: its ``reused`` and ``generated`` are increased for each answer.
    """

    def __init__(
        self,
        requests: Sequence[PreparedRequest],
        configs: Sequence[PruningConfig],
        known: dict[tuple[str, str], Answer],
        journal: Journal | None,
        counts: Counts,
    ) -> None:
        self._known, self._journal, self._counts = known, journal, counts
        self._configs = {config.answer_key: config for config in configs}
        self._missing = {one.digest: set(self._configs) for one in requests}
        self._number = len(self._missing) * len(self._configs)
        for digest, missing in self._missing.items():
            for config in list(missing):
                if (config, digest) in known:
                    self._done(Key(config, digest))
                else:
                    self._take(Key(config, digest))

    def __len__(self) -> int:
        """Number of answers that are missing."""
        return self._number

    def __contains__(self, one: PreparedRequest) -> bool:
        """Whether a request lacks an answer."""
        return bool(self._missing[one.digest])

    def any(self, batch: Iterable[PreparedRequest]) -> bool:
        """Return whether any of some requests lacks an answer."""
        return any(one in self for one in batch)

    def configs(self, batch: Iterable[PreparedRequest]) -> list[PruningConfig]:
        """Return the configs under which any of some requests lacks an answer."""
        names = set().union(*(self._missing[one.digest] for one in batch))
        return [config for name, config in self._configs.items() if name in names]

    def rows(self, batch: Iterable[PreparedRequest], config: PruningConfig) -> Batch:
        """Return those of some requests that lack the answer under a config."""
        name = config.answer_key
        return [one for one in batch if name in self._missing[one.digest]]

    def drop(self, digests: Collection[str]) -> None:
        """Expect no answers to some requests any more."""
        for digest in digests:
            for config in list(self._missing[digest]):
                self._done(Key(config, digest))

    def keep(
        self,
        requests: Sequence[PreparedRequest],
        answers: Sequence[Answer],
        config: PruningConfig,
    ) -> None:
        """Add new answers, and write them into the journal.

        Raises:
            JournalError: they could not be written.
        """
        name = config.answer_key
        pairs = list(zip(requests, answers, strict=True))
        if self._journal is not None:
            self._journal.append(*(record_of(r, a, config, name) for r, a in pairs))
        for one, answer in pairs:
            self._known[name, one.digest] = answer
            self._done(Key(name, one.digest))
        self._counts.generated += len(pairs)

    def refresh(self) -> set[str]:
        """Add answers that other processes have written since the last call.

        Where this process has answered too, the answer that the journal returns is used.

        Returns:
            Digests of the requests that they have answered.

        Raises:
            JournalError: the journal cannot be read.
        """
        keys = set() if self._journal is None else self._journal.refresh()
        ours = {key for key in keys if key.request in self._missing and key.config in self._configs}
        for key in ours:
            self._take(key)
        return {key.request for key in ours}

    def _take(self, key: Key) -> None:
        record = None if self._journal is None else self._journal.find(key)
        if record is not None:
            self._known[key] = answer_of(record)
            self._counts.reused += self._done(key)

    def _done(self, key: Key) -> bool:
        """Mark an answer as no longer missing; return whether it was."""
        missing = self._missing[key.request]
        if key.config not in missing:
            return False
        missing.remove(key.config)
        self._number -= 1
        return True
