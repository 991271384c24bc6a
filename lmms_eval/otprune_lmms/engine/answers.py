"""The result of a run: answers, their records in the journal, and counts of the work."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from otprune_lmms.engine.prepare import PreparedRequest
from otprune_lmms.engine.request_set import RequestSet
from otprune_lmms.engine.requests import Answer, Request
from otprune_lmms.journal import Record
from otprune_lmms.pruning_config import PruningConfig


@dataclass
class Counts:
    """Counts of the work of a run.

    Attributes:
        requests: requests times configs, without those of documents that were left out.
        failed: documents that could not be used.
        generated: answers computed; equal requests are answered once.
        reused: answers taken from the journal.
        encoded: images that went through the vision encoder.
        stored: images whose visual tokens were read from the disk instead, see `VisualFiles`.
        images: different images among all requests.
        ranked: rankings of an image by a method, each of which serves all budgets and requests; 0
            where each answer has its own ranking.
        halvings: how often a batch was halved because it did not fit into memory.
        seconds: wall time by phase: "survey" (reading and hashing images), "load" (waiting for
            preprocessed images), "encode", "generate", "journal".
    """

    requests: int = 0
    failed: int = 0
    generated: int = 0
    reused: int = 0
    encoded: int = 0
    stored: int = 0
    images: int = 0
    ranked: int = 0
    halvings: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def plain(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        rounded = {phase: round(spent, 2) for phase, spent in self.seconds.items()}
        return vars(self) | {"seconds": rounded}


def added(counts: Iterable[Counts], *, in_turn: bool) -> Counts:
    """Return the sum of counts.

    Args:
        counts: to add up.
        in_turn: whether the work was done one after the other: then seconds are added, otherwise
            the largest is taken.
    """
    total = Counts()
    for one in counts:
        for name, value in vars(one).items():
            if name != "seconds":
                setattr(total, name, getattr(total, name) + value)
        for phase, seconds in one.seconds.items():
            before = total.seconds.get(phase, 0.0)
            total.seconds[phase] = before + seconds if in_turn else max(before, seconds)
    return total


class Answers(Mapping[tuple[PruningConfig, Request], Answer]):
    """Answers by (config, request): ``answers[config, request]``.

    Args:
        requests: the requests of the run.
        found: answers by (`PruningConfig.answer_key`, digest of the request).
        configs: pruning configs of the run.
        counts: counts of the run's work.

    Attributes:
        configs: see above.
        requests: the requests, without those of documents that were left out.
        failed: documents that could not be used.
        counts: see above.
    """

    def __init__(
        self,
        requests: RequestSet,
        found: Mapping[tuple[str, str], Answer],
        configs: tuple[PruningConfig, ...],
        counts: Counts,
    ) -> None:
        self._prepared = dict(requests.prepared)
        self._found = found
        self._keys = {config: config.answer_key for config in configs}
        self.configs = configs
        self.requests = requests.requests
        self.failed = tuple(requests.failed)
        self.counts = counts

    def __getitem__(self, key: tuple[PruningConfig, Request]) -> Answer:
        """Return the answer to a request under a config.

        Raises:
            KeyError: the run had no such request or config, or the document was left out.
        """
        config, request = key
        return self._found[self._keys[config], self._prepared[request.key].digest]

    def __iter__(self) -> Iterator[tuple[PruningConfig, Request]]:
        """Iterate over (config, request), config by config."""
        return ((config, request) for config in self.configs for request in self.requests)

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.configs) * len(self.requests)

    def prepared(self, request: Request) -> PreparedRequest:
        """Return a request as it was prepared: its digest, its images' hashes, its prompt."""
        return self._prepared[request.key]


def log_likelihood(answer: Answer | Record) -> float:
    """Return the log-likelihood of a continuation in nats: of all its tokens, not their mean."""
    return -(answer.loss or 0.0) * answer.new_tokens


def answer_of(record: Record) -> Answer:
    """Return the answer that a journal's record holds."""
    return Answer(
        text=record.text,
        loss=record.loss,
        greedy=record.greedy,
        kept=record.kept,
        candidates=record.candidates,
        new_tokens=record.new_tokens,
        seconds=record.seconds.get("generate", 0.0),
        truncated=record.truncated,
        unfinished=record.unfinished,
        phases={name: spent for name, spent in record.seconds.items() if name != "generate"},
    )


def record_of(
    one: PreparedRequest, answer: Answer, config: PruningConfig, answer_key: str
) -> Record:
    """Return the record of an answer; ``answer_key`` is the config's."""
    request = one.request
    seconds = {"generate": answer.seconds, **answer.phases}
    return Record(
        config=answer_key,
        request=one.digest,
        settings=config.as_dict(),
        task=request.task,
        split=request.split,
        doc_id=request.doc_id,
        index=request.index,
        kind=request.kind,
        text=answer.text,
        loss=answer.loss,
        greedy=answer.greedy,
        kept=answer.kept,
        candidates=answer.candidates,
        new_tokens=answer.new_tokens,
        seconds={name: round(spent, 6) for name, spent in seconds.items()},
        truncated=answer.truncated,
        unfinished=answer.unfinished,
    )
