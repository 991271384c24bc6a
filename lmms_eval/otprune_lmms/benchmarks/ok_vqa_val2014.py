"""OK-VQA: questions that need knowledge beyond the image; soft accuracy over ten answers."""

from operator import itemgetter

from otprune_lmms.benchmarks.record import Benchmark, PrintedName

BENCHMARK = Benchmark(
    name="ok_vqa_val2014",
    task="ok_vqa_val2014",
    metric="exact_match",
    column="OK-VQA",
    folder="ok_vqa",
    reference=itemgetter("answers"),
    printed=(PrintedName("ok_vqa_val2014", "VQA_acc"),),
)
