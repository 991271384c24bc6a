"""SEED-Bench's videos: the documents and requests of `seedbench`, scored on those with frames.

In an experiment with `seedbench` it needs no further answers: equal requests are answered once.
"""

from dataclasses import replace

from otprune_lmms.benchmarks import seedbench
from otprune_lmms.benchmarks.record import PrintedName

BENCHMARK = replace(
    seedbench.BENCHMARK,
    name="seedbench_video",
    metric="seed_video",
    column="SEED-V",
    counted="videos",
    related=(),
    printed=(PrintedName("seedbench_video", "acc"),),
)
