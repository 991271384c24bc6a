"""SEED-Bench: questions with options about images and, a smaller part, about videos.

All are answered; the headline is the accuracy on images, as in OTPrune's and DivPrune's tables.
`seedbench_video` has the accuracy on videos.
"""

from otprune_lmms.benchmarks.letters import answer_letter
from otprune_lmms.benchmarks.record import Benchmark, PrintedName, VideoRule

BENCHMARK = Benchmark(
    name="seedbench",
    task="seedbench",
    metric="seed_image",
    column="SEED-I",
    title="SEED-Bench",
    folder="seedbench",
    counted="images",
    reference=answer_letter,
    video=VideoRule("data_type", "video"),
    related=("seedbench_lite", "seedbench_ppl"),
    printed=(
        # In other papers both names mean the accuracy on all questions.
        PrintedName("seedbench", "acc", sources=("OTPrune", "DivPrune")),
        PrintedName("seedbench_image", "acc", sources=("Cen-Prune", "TransPrune")),
    ),
)
