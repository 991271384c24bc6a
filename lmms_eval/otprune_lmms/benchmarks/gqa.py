"""GQA: questions about scene graphs, answered with a word or a phrase."""

from otprune_lmms.benchmarks.record import Benchmark, PrintedName

BENCHMARK = Benchmark(
    name="gqa",
    task="gqa",
    metric="exact_match",
    column="GQA",
    folder="gqa",
    printed=(PrintedName("gqa", "acc"),),
)
