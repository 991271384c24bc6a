"""Packages that add a benchmark, as an installer leaves them on the path."""

from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Image

from otprune_lmms.benchmarks import ENTRY_POINTS, all_benchmarks
from suites import picture


def install(folder: Path, distribution: str, points: dict[str, str]) -> None:
    """Write the metadata of a distribution with entry points into a folder of the path."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"[{ENTRY_POINTS}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    refresh()


def refresh() -> None:
    """Let the entry points of the path be looked for again."""
    invalidate_caches()
    all_benchmarks.cache_clear()


WORST_KIND = '''
"""Questions of two kinds; the headline is the accuracy of the kind that is answered worse."""

from pathlib import Path

import numpy as np

from otprune_lmms.benchmarks import Aggregation, Benchmark, HeadlineTerms, Share, VideoRule
from otprune_lmms.benchmarks.aggregation import details, divided

KINDS = ("colour", "shape")


def shares(given):
    return {
        doc_id: Share(float(value["right"]), {"kind": value["kind"]})
        for doc_id, value in given.values.items()
    }


def terms(samples, scale):
    counted = samples["value"].notna().to_numpy()
    kind = np.array([KINDS.index(one["kind"]) for one in details(samples)])
    found = np.zeros((len(samples), 4))
    found[np.arange(len(samples)), 2 * kind] = samples["value"].to_numpy(float)
    found[np.arange(len(samples)), 2 * kind + 1] = 1.0

    def score(sums):
        return scale * np.min(divided(sums[..., 0::2], sums[..., 1::2]), axis=-1)

    return HeadlineTerms(found, counted, kind, np.arange(len(samples)), score)


BENCHMARK = Benchmark(
    name="worst_kind",
    task="two_kinds",
    metric="worst_kind",
    column="Worst",
    title="Two Kinds",
    folder=Path(__file__).parent / "two_kinds",
    shares=shares,
    aggregation=Aggregation(terms, called="the worse kind", strata="kind"),
    counted="questions",
    ratio_divisor=4.0,
    video=VideoRule("kind", "shape"),
)
'''
"""The one module of a package that adds a benchmark."""

_UTILS = """
def visual(doc):
    return [doc["image"].convert("RGB")] * doc["frames"]


def text(doc):
    return doc["question"]


def result(doc, results):
    # A toy model knows nothing, but the lengths of its answers differ.
    right = len(results[0].strip()) % 2 == 1
    return {"worst_kind": {"right": right, "kind": doc["kind"]}, "all": float(right)}


def worst(values):
    kinds = {}
    for one in values:
        kinds.setdefault(one["kind"], []).append(one["right"])
    return min(sum(right) / len(right) for right in kinds.values())


def mean(values):
    return sum(values) / len(values)
"""

_TASK: dict[str, Any] = {
    "task": "two_kinds",
    "dataset_path": "parquet",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_target": "answer",
    "generation_kwargs": {"max_new_tokens": 4},
}
_FUNCTIONS = """
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
process_results: !function utils.result
metric_list:
  - {metric: worst_kind, aggregation: !function utils.worst, higher_is_better: true}
  - {metric: all, aggregation: !function utils.mean, higher_is_better: true}
"""


def _documents(count: int) -> list[dict[str, Any]]:
    """Questions of two kinds, the second about three frames of a video."""
    return [
        {
            "image": picture(n),
            "question": f"What is it, number {n}?",
            "answer": "red",
            "kind": ("colour", "shape")[n % 2],
            "frames": (1, 3)[n % 2],
        }
        for n in range(count)
    ]


def write_package(folder: Path, count: int = 12) -> None:
    """Write and install a package with a benchmark of its own: module, task files, data."""
    task = folder / "my_benchmarks" / "two_kinds"
    task.mkdir(parents=True)
    (folder / "my_benchmarks" / "__init__.py").write_text("")
    (folder / "my_benchmarks" / "worst_kind.py").write_text(WORST_KIND)
    data = task / "two_kinds.parquet"
    Dataset.from_list(_documents(count)).cast_column("image", Image()).to_parquet(data)
    content = _TASK | {"dataset_kwargs": {"data_files": {"test": str(data)}}}
    (task / "two_kinds.yaml").write_text(yaml.safe_dump(content) + _FUNCTIONS)
    (task / "utils.py").write_text(_UTILS)
    install(folder, "my-benchmarks", {"worst_kind": "my_benchmarks.worst_kind:BENCHMARK"})
