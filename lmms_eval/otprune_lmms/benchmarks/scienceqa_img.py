"""ScienceQA: questions with options from school science; the split of those with an image."""

from otprune_lmms.benchmarks.record import Benchmark, PrintedName

BENCHMARK = Benchmark(
    name="scienceqa_img",
    task="scienceqa_img",
    metric="exact_match",
    column="SQA-I",
    title="ScienceQA-IMG",
    folder="scienceqa",
    printed=(PrintedName("scienceqa_img", "acc"),),
)
