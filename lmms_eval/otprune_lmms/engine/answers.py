"""What a run gives back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from otprune_lmms.engine.asked import Asked
from otprune_lmms.engine.requests import Answer, Request
from otprune_lmms.pruning_config import PruningConfig


@dataclass
class Counts:
    """What a run did.

    Attributes:
        requests: requests times configs that were asked for, less those of documents left out.
        failed: documents that could not be asked about.
        generated: answers computed; equal questions are answered once.
        reused: answers that the journal had.
        encoded: images that went through the vision tower.
        images: different images among all requests.
        ranked: images ranked, over all methods, for all budgets and questions that they serve; 0
            where each answer ranks for itself.
        halvings: how often a batch was halved for want of memory.
        seconds: wall time by phase: "survey" (reading and hashing images), "load" (waiting for
            preprocessed images), "encode", "generate", "journal".
    """

    requests: int = 0
    failed: int = 0
    generated: int = 0
    reused: int = 0
    encoded: int = 0
    images: int = 0
    ranked: int = 0
    halvings: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        """Count time to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


class Answers(Mapping[tuple[PruningConfig, Request], Answer]):
    """Answers by (config, request): ``answers[config, request]``.

    Args:
        asked: what was asked for.
        found: answers by (fingerprint of the config, hash of the question).
        configs: the configs that were asked for.
        counts: what the run did.

    Attributes:
        configs: see above.
        requests: the requests, less those of documents that were left out.
        failed: documents that could not be asked about.
        counts: see above.
    """

    def __init__(
        self,
        asked: Asked,
        found: Mapping[tuple[str, str], Answer],
        configs: tuple[PruningConfig, ...],
        counts: Counts,
    ) -> None:
        self._digests, self._images = asked.digests, asked.images
        self._found = found
        self._fingerprints = {config: config.fingerprint for config in configs}
        self.configs = configs
        self.requests = asked.requests
        self.failed = tuple(asked.failed)
        self.counts = counts

    def __getitem__(self, key: tuple[PruningConfig, Request]) -> Answer:
        """Return the answer to a request under a config.

        Raises:
            KeyError: it was not asked for, or its document was left out.
        """
        config, request = key
        return self._found[self._fingerprints[config], self._digests[request.key]]

    def __iter__(self) -> Iterator[tuple[PruningConfig, Request]]:
        """Iterate over what was asked, config by config."""
        return ((config, request) for config in self.configs for request in self.requests)

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.configs) * len(self.requests)

    def question(self, request: Request) -> str:
        """Return the hash of a request's question: what the journal finds its answers by."""
        return self._digests[request.key]

    def images(self, request: Request) -> tuple[str, ...]:
        """Return the hash of each of a request's images: their content, as it is shown."""
        return self._images[request.key]
