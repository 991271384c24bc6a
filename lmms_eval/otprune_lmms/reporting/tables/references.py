"""Where the unpruned models of a run should be: what the gate holds them against."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.reporting import published
from otprune_lmms.results.manifest import Manifest

REFERENCES = Path(__file__).parent / "references.yaml"


class Anchor(NamedTuple):
    """Where an unpruned score should be.

    Attributes:
        value: in the unit of the table's column.
        tolerance: largest distance that passes, itself included.
        source: where the value is from.
        documents: how many it was measured on; None for all of the benchmark.
    """

    value: float
    tolerance: float
    source: str = ""
    documents: int | None = None


Anchors = Mapping[str, Mapping[str, Anchor]]
"""By model and task."""


def references(manifest: Manifest, path: Path = REFERENCES) -> dict[str, dict[str, Anchor]]:
    """Return what the unpruned models of a run are held against.

    The unpruned rows that the experiment itself prints come first, then the package's own file. A
    task of which the run asked only the first documents has no published reference.

    Raises:
        ValueError: a file of another format.
    """
    known = _file(path)
    found: dict[str, dict[str, Anchor]] = {}
    for model in dict.fromkeys([*manifest.models, *known.anchors]):
        anchors = dict(known.anchors.get(model, {}))
        # The first of several sources has the last word.
        for row in reversed(manifest.printed):
            if row.unpruned and row.model == model:
                anchors |= {
                    task: Anchor(value, known.tolerance(task), row.source)
                    for task, value in row.scores.items()
                }
        found[model] = {
            task: anchor
            for task, anchor in anchors.items()
            if anchor.documents is not None or task not in manifest.limited
        }
    return found


@dataclass(frozen=True)
class _References:
    anchors: Anchors
    tolerances: Mapping[str, float]
    usual: float | None

    def tolerance(self, task: str) -> float:
        usual = benchmark(task).tolerance if self.usual is None else self.usual
        return self.tolerances.get(task, usual)


@cache
def _file(path: Path) -> _References:
    """Return the content of a file of references; the head of ``references.yaml`` explains it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        tolerances = {task: float(x) for task, x in content.get("tolerances", {}).items()}
        known = _References({}, tolerances, content.get("tolerance"))
        anchors = {model: _anchors(one, known) for model, one in content["models"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds no references: {error!r}") from error
    return _References(anchors, known.tolerances, known.usual)


def _anchors(one: Mapping[str, Any], known: _References) -> dict[str, Anchor]:
    if "published" in one:
        lines = published.load(**one["published"])
        lines = lines[(lines["method"] == "Original") & (lines["task"] != "")]
        return {
            task: Anchor(float(value), known.tolerance(task), source)
            for task, value, source in zip(
                lines["task"], lines["value"], lines["source"], strict=True
            )
        }
    own, documents = one.get("tolerances", {}), one.get("documents", {})
    return {
        task: Anchor(
            float(value),
            float(own.get(task, known.tolerance(task))),
            str(one["source"]),
            documents.get(task),
        )
        for task, value in one["scores"].items()
    }
