"""Benchmarks: one file each, with all that is particular to it (its `Benchmark` record).

To add a benchmark, add a module of its name with a ``BENCHMARK`` to this package; no other file
names it. Other packages add theirs by an entry point of the group ``otprune.benchmarks``::

    [project.entry-points."otprune.benchmarks"]
    my_benchmark = "my_package.my_module:BENCHMARK"

A task of lmms-eval without a record also runs: its headline is the mean of its first metric.
"""

import logging
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from otprune_lmms.benchmarks.aggregation import MEAN, Aggregation, HeadlineTerms
from otprune_lmms.benchmarks.groups import DocumentGroups, with_group_members
from otprune_lmms.benchmarks.options import Options
from otprune_lmms.benchmarks.record import Benchmark, PrintedName, VideoRule
from otprune_lmms.benchmarks.shares import DocumentResults, Share, caption_shares, metric_shares

__all__ = [
    "ENTRY_POINTS",
    "GROUPS",
    "MEAN",
    "OTPRUNE_11",
    "Aggregation",
    "Benchmark",
    "DocumentGroups",
    "DocumentResults",
    "HeadlineTerms",
    "Options",
    "PrintedName",
    "Share",
    "VideoRule",
    "all_benchmarks",
    "benchmark",
    "caption_shares",
    "metric_shares",
    "with_group_members",
]

logger = logging.getLogger(__name__)

ENTRY_POINTS = "otprune.benchmarks"
"""Group of the entry points by which other packages add benchmarks: name to "module:BENCHMARK"."""

OTPRUNE_11: tuple[str, ...] = (
    "coco2017_cap_val",
    "flickr30k_test",
    "gqa",
    "mmbench_en_dev_static",
    "mme",
    "mmmu_val",
    "nocaps_val",
    "ok_vqa_val2014",
    "pope",
    "scienceqa_img",
    "seedbench",
)
"""The benchmarks of OTPrune's and DivPrune's tables; MMBench by rule, which needs no judge."""

GROUPS: Mapping[str, tuple[str, ...]] = {"otprune_11": OTPRUNE_11}
"""Names that stand for several benchmarks among an experiment's tasks."""

_BROKEN = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, NameError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError),
)
"""What the import of a module that is not ours may raise."""


def benchmark(name: str, metrics: Sequence[str] | None = None) -> Benchmark:
    """Return the record of a benchmark.

    A task without a record gets a default: the mean of its first metric, unscaled, with three
    decimals. If it is related to a benchmark (`Benchmark.related`), it has that benchmark's folder,
    groups and video rule.

    Args:
        name: name of the benchmark, or id of a task of lmms-eval.
        metrics: metrics of the task; None where the metric does not matter: a default then has
            "value".

    Raises:
        ValueError: there is no record, and ``metrics`` is empty.
    """
    own = _own()
    if name in own:
        return own[name]
    known = all_benchmarks()
    if name in known:
        return known[name]
    if metrics is not None and not metrics:
        raise ValueError(f"task {name} has no metrics")
    metric = metrics[0] if metrics else "value"
    plain = Benchmark(
        name=name,
        task=name,
        metric=metric,
        column=name,
        scale=1.0,
        best=None,
        digits=3,
        metric_words=metric.split("_")[-1],
    )
    for one in known.values():
        if one.is_related(name):
            return replace(plain, folder=one.folder, groups=one.groups, video=one.video)
    return plain


@cache
def all_benchmarks() -> Mapping[str, Benchmark]:
    """Return all benchmarks with a record by name: this package's, then those of entry points.

    Entry points are loaded at the first call. One that cannot be loaded, has no record of its name,
    or has a name that is taken, is left out with a warning.
    """
    found = dict(_own())
    owners = dict.fromkeys(found, "otprune-lmms")
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: (_owner(one), one.name)):
        record = _loaded(point, owners)
        if isinstance(record, Benchmark):
            found[point.name], owners[point.name] = record, _owner(point)
        else:
            logger.warning("benchmark %s of %s is left out: %s", point.name, _owner(point), record)
    return found


@cache
def _own() -> Mapping[str, Benchmark]:
    """Return the records of this package's modules."""
    modules = [import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__)]
    records = [module.BENCHMARK for module in modules if hasattr(module, "BENCHMARK")]
    return {record.name: record for record in records}


def _loaded(point: EntryPoint, owners: Mapping[str, str]) -> Benchmark | str:
    """Return the record of an entry point, or the reason why there is no usable one.

    Args:
        point: the entry point.
        owners: distributions of the names that are taken.
    """
    if point.name in owners:
        return f"{owners[point.name]} has a benchmark of this name"
    try:
        record = point.load()
    except _BROKEN as error:
        return f"{type(error).__name__}: {error}"
    if not isinstance(record, Benchmark):
        return f"{point.value} is no Benchmark but a {type(record).__name__}"
    if record.name != point.name:
        return f"its record is named {record.name!r}"
    return record


def _owner(point: EntryPoint) -> str:
    """Return the distribution of an entry point."""
    return "an unnamed distribution" if point.dist is None else point.dist.name
