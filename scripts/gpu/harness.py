"""Part `harness`: answers a second of the harness's engine with an LLaVA-1.5-7B of random weights.

The engine reads, encodes and answers as in a sweep, without a journal. The tokenizer is
llava-mini's, since no other comes with the package; images are made.
"""

import time
from typing import Any

import torch
from llava.checkpoint.config import read_config
from llava.checkpoint.files import CheckpointFiles
from llava.images.processor import ImageProcessor
from llava.model.vocabulary import read_tokenizer
from otprune_lmms.engine import Engine, Request
from otprune_lmms.models.llava import Llava
from otprune_lmms.pruning_config import PruningConfig
from PIL import Image

from bench_model import CASES, Case, random_model
from gpu.budget import Budget
from gpu.page import Page
from gpu.ways import verdict
from otprune.cost import DecoderShape

RATIOS = (None, 0.5, 0.2, 0.098)
NEW = 16
SECONDS = 30
"""Of making the model on a GPU, and of one way, as guesses before the first."""

_SMALL = Case(
    "a small LLaVA",
    DecoderShape(hidden=128, feed_forward=256, layers=2, heads=4),
    64,
    1,
    (1,),
    {
        "model_type": "dinov2",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 112,
        "patch_size": 14,
    },
)
THINGS = ("dog", "cat", "car", "bus", "person", "tree", "snowboard", "bench")
NOTES = [
    "Answers a second from images in memory to texts: preprocessing, vision encoder, selection and "
    f"{NEW} new tokens at most, each image with a question of its own; no journal, no scoring. One "
    "run a row, after a short one that does not count.",
]


def made_model(case: Case, device: str) -> Llava:
    """Return an LLaVA with random weights for the harness."""
    # Its weights are not read, and need not have travelled to the GPU's machine.
    files = CheckpointFiles("llava-mini", local_files_only=True)
    tokenizer = read_tokenizer(files, read_config(files).model)
    torch.manual_seed(0)
    model: Any = random_model(case, device, torch.float32 if device == "cpu" else torch.bfloat16)
    side = 336 if case.tower is None else case.tower["image_size"]
    return Llava((tokenizer, model, ImageProcessor(side=side), 0))


def requests(count: int) -> list[Request]:
    """Return questions, each about an image of its own."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        noise = torch.randint(0, 256, (12, 16, 3), generator=generator, dtype=torch.uint8)
        image = Image.fromarray(noise.numpy()).resize((640, 480))
        thing = THINGS[number % len(THINGS)]
        context = f"Is there a {thing} in the image?\nAnswer with a single word or phrase."
        settings = {"max_new_tokens": NEW, "temperature": 0}
        found.append(Request("made", "test", number, 0, context, settings, lambda one=image: [one]))
    return found


def answered(
    model: Llava, asked: list[Request], ratio: float | None, batch: int
) -> tuple[float, float]:
    """Return the answers a second, and how many visual tokens each had on average."""
    config = PruningConfig() if ratio is None else PruningConfig("otprune", keep_ratio=ratio)
    engine = Engine(model, model_name="made", batch_size=batch, progress=False)
    begin = time.perf_counter()
    answers = engine.run(asked, [config])
    spent = time.perf_counter() - begin
    kept = [sum(answers[config, one].kept) for one in asked]
    return len(asked) / spent, sum(kept) / len(kept)


def run(page: Page, budget: Budget, device: str, *, small: bool) -> None:
    """Add the table."""
    page.notes += NOTES
    case = _SMALL if small else CASES["cuda"][0]
    if not budget.allows(f"the harness with {case.name}", 0 if small else SECONDS):
        return
    model = made_model(case, device)
    needed = 0.0
    for batch in (1, 2) if small else (1, 16):
        first = 0.0
        asked = requests(4 if small else 4 * batch + 12)
        for ratio in RATIOS:
            name = "unpruned" if ratio is None else f"otprune {ratio:g}"
            if not budget.allows(f"the harness, {name}, batch {batch}", needed):
                continue
            left = budget.left()
            answered(model, asked[:batch], ratio, batch)
            found, kept = answered(model, asked, ratio, batch)
            needed = 0.0 if small else left - budget.left()
            first = first or found
            row = {
                "model": case.name,
                "batch": batch,
                "way": name,
                "visual tokens": kept or case.visual,
                "answers": len(asked),
                "answers/s": found,
                "verdict": verdict(1 / first, 1 / found),
            }
            page.add("Answers a second", [row])
