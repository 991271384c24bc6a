"""What a run of an experiment found."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """What a run found.

    Attributes:
        records: one for each model, config, task and metric (`tables.COLUMNS`).
        samples: columns of the samples of each model, config and task (`samples.SCHEMA`).
        data: documents and fingerprint of each task.
        failed: documents that are left out of every row, fields of `Failure`.
        models: fingerprint of each model.
        shapes: sizes of each model's decoder (`otprune.cost.DecoderShape`).
        text_tokens: mean text tokens of a prompt, the template's included, by model and task.
        counts: what the engine did for each model.
        seconds: wall time by phase.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, list[Any]]] = field(default_factory=list)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    text_tokens: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + spent, 2)
