"""SEED-Bench: questions with options about images and, a smaller part, about videos.

All are asked; the headline is the accuracy on images, as in OTPrune's and DivPrune's tables. The
videos' is that of `seedbench_video`.
"""

from otprune_lmms.benchmarks.record import Benchmark, PrintedName, VideoRule

BENCHMARK = Benchmark(
    name="seedbench",
    task="seedbench",
    metric="seed_image",
    column="SEED-I",
    title="SEED-Bench",
    folder="seedbench",
    counted="images",
    video=VideoRule("data_type", "video"),
    related=("seedbench_lite", "seedbench_ppl"),
    printed=(
        # Elsewhere this name stands for all questions, and the next one too.
        PrintedName("seedbench", "acc", sources=("OTPrune", "DivPrune")),
        PrintedName("seedbench_image", "acc", sources=("Cen-Prune", "TransPrune")),
    ),
)
