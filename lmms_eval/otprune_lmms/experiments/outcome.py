"""The outcome of a run of an experiment."""

from dataclasses import dataclass, field
from typing import Any

from otprune_lmms.results.kept_image import KeptImage


@dataclass
class Outcome:
    """The outcome of a run of an experiment.

    Attributes:
        records: one for each model, setting, task and metric (`results.records.COLUMNS`).
        samples: columns of the samples of each model, setting and task (`results.samples.SCHEMA`).
        diagnostics: distances of kept tokens (`results.diagnostics.COLUMNS`); None if not measured.
        kept_image: kept patches of one image; None if not wanted.
        data: number of documents and fingerprints of each task.
        failed: documents that are left out of every row, fields of `Failure`.
        models: fingerprint of each model.
        hub: commit of each repository on the hub that a model or data came from.
        shapes: sizes of each model's decoder (`otprune.cost.DecoderShape`).
        text_tokens: mean text tokens of a prompt, the chat template's included, by model and task.
        counts: `Counts` of each model, over all experiments of the sweep.
        seconds: wall time by phase, over all experiments of the sweep.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, list[Any]]] = field(default_factory=list)
    diagnostics: list[dict[str, Any]] | None = None
    kept_image: KeptImage | None = None
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    hub: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    text_tokens: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
