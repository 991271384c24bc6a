"""MMMU: questions of college examinations, most with options."""

from otprune_lmms.benchmarks.record import Benchmark, PrintedName

BENCHMARK = Benchmark(
    name="mmmu_val",
    task="mmmu_val",
    metric="mmmu_acc",
    column="MMMU",
    folder="mmmu",
    printed=(PrintedName("mmmu_val", "acc"),),
)
