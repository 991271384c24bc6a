"""SEED-Bench: questions with options about images and, a smaller part, about videos.

All are answered; the headline is the accuracy on images, as in OTPrune's and DivPrune's tables.
`seedbench_video` has the accuracy on videos.
"""

from collections.abc import Mapping
from typing import Any

from otprune_lmms.benchmarks.letters import answer_letter
from otprune_lmms.benchmarks.options import Options, lettered
from otprune_lmms.benchmarks.record import Benchmark, PrintedName, VideoRule


def options(document: Mapping[str, Any]) -> Options | None:
    """Return the letters of a document's options, of which there are four."""
    letters = [one for one in "ABCD" if document.get(f"choice_{one.lower()}") is not None]
    return lettered(letters, answer_letter(document))


BENCHMARK = Benchmark(
    name="seedbench",
    task="seedbench",
    metric="seed_image",
    column="SEED-I",
    title="SEED-Bench",
    folder="seedbench",
    counted="images",
    reference=answer_letter,
    options=options,
    video=VideoRule("data_type", "video"),
    related=("seedbench_lite", "seedbench_ppl"),
    printed=(
        # In other papers both names mean the accuracy on all questions.
        PrintedName("seedbench", "acc", sources=("OTPrune", "DivPrune")),
        PrintedName("seedbench_image", "acc", sources=("Cen-Prune", "TransPrune")),
    ),
)
