"""Questions about one image with and without a shared prefix, same model, same run.

    .venv/bin/python scripts/bench_shared_prefix.py
    .venv/bin/python scripts/bench_shared_prefix.py --large --repeats 2

A call answers some questions about one image in two tokens each. The image is encoded before, its
tokens are chosen in the call. Calls with whole prompts and with a shared prefix take turns; CPU
time is counted, which other work on the machine disturbs less. Models are llava-mini and qwen-mini,
with images of 256 tokens; with ``--large`` an LLaVA instead with images of 576 tokens and 110
million random weights in its language model, half a minute a round. Writes
results/harness/shared_prefix_cpu.md and .json, or shared_prefix_110m_cpu.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest import mock

import torch
import typer
from otprune_lmms import provenance
from otprune_lmms.models import ModelSource, load_model, shared_prefix
from otprune_lmms.models.llava import Llava
from otprune_lmms.models.protocol import Generation, ModelInput, VisionLanguageModel
from PIL import Image

from bench_common import ROOT, image_like_tokens, write_tables
from bench_model import Case, random_model
from otprune.cost import DecoderShape
from otprune.pruning import Pruning, Trace, make_pruning
from otprune.pruning.image_tokens import ImageTokens

OUT = ROOT / "results" / "harness"
QUESTIONS = (1, 2, 4, 8)
HEADING = "Calls about one image, two new tokens"
ANSWER = Generation(max_new_tokens=2)
THINGS = ("dog", "cat", "car", "bus", "person", "tree", "snowboard", "bench")
_DECODER = DecoderShape(hidden=768, feed_forward=2048, layers=12, heads=12)
_TOWER = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "image_size": 336,
    "patch_size": 14,
}


def questions_of(model: VisionLanguageModel, visual: ImageTokens, count: int) -> list[ModelInput]:
    """Return questions as POPE asks them, all about one image."""
    contexts = [
        f"Is there a {thing} in the image?\nAnswer the question using a single word or phrase."
        for thing in THINGS[:count]
    ]
    return [
        ModelInput(model.token_ids(model.render(text, 1, {}), [visual]), (visual,), (0,))
        for text in contexts
    ]


def seen_by(model: VisionLanguageModel) -> ImageTokens:
    """Return an encoded image; what it shows does not change a time."""
    noise = torch.randint(0, 256, (224, 224, 3), generator=torch.Generator().manual_seed(0))
    pixels = model.preprocess(Image.fromarray(noise.byte().numpy()))
    return model.encode([pixels], frozenset())[0]


def made_model(mini: Llava) -> tuple[Llava, ImageTokens]:
    """Return an LLaVA with random weights, and an image of its."""
    torch.manual_seed(0)
    case = Case("110M", _DECODER, 576, 1, (1,), _TOWER)
    model = random_model(case, "cpu", torch.float32)
    image = image_like_tokens(case.visual, case.shape.hidden)
    loaded = (mini.tokenizer, model, mini.image_processor, 0)
    return Llava(loaded, mini.chat_template), ImageTokens(image / image.std())


def compared(
    model: VisionLanguageModel, inputs: Sequence[ModelInput], pruning: Pruning | None, repeats: int
) -> tuple[float, float, bool]:
    """Return CPU ms of whole prompts, of a shared prefix, and whether answers are equal."""

    def answered(share: bool) -> list[str]:
        written = model.generate(inputs, pruning, ANSWER, Trace(), share_prefix=share)
        return [one.text for one in written]

    found, spent = {}, {False: [], True: []}
    # One round more than is counted, as a warm-up.
    for turn in range(repeats + 1):
        for share, times in spent.items():
            begin = time.process_time()
            found[share] = answered(share)
            times += [1e3 * (time.process_time() - begin)] if turn else []
    whole, shared = (median(times) for times in spent.values())
    return whole, shared, found[False] == found[True]


def call_rows(
    name: str,
    model: VisionLanguageModel,
    image: ImageTokens,
    repeats: int,
    questions: Sequence[int] = QUESTIONS,
    ratios: Sequence[float] = (1.0, 0.2, 0.098),
) -> list[dict]:
    """Return CPU milliseconds with and without sharing, by kept tokens and questions."""
    rows = []
    for ratio in ratios:
        pruning = None if ratio == 1 else make_pruning("divprune", keep_ratio=ratio)
        for count in questions:
            inputs = questions_of(model, image, count)
            whole, shared, same = compared(model, inputs, pruning, repeats)
            rows.append(
                {
                    "model": name,
                    "kept tokens": round(ratio * len(image)),
                    "questions": count,
                    "whole prompts, CPU ms": whole,
                    "shared prefix, CPU ms": shared,
                    "times faster": whole / shared,
                    "answers": "the same" if same else "differ",
                }
            )
    return rows


def forced_rows(model: Llava, image: ImageTokens, repeats: int) -> list[dict]:
    """Return what sharing gains where it is done however little it spares."""
    rows = []
    for kept in (8, 16, 32, 64):
        pruning = make_pruning("random", k=kept, seed=0)
        for count in QUESTIONS[1:]:
            inputs = questions_of(model, image, count)
            with mock.patch.object(shared_prefix, "_LEAST_SAVED", 0):
                whole, shared, _ = compared(model, inputs, pruning, repeats)
                # The words of the question differ after what all have in common.
                common = min(
                    shared_prefix.shared_beginning(inputs[0].ids, one.ids) for one in inputs[1:]
                )
            longest = max(len(one.ids) for one in inputs)
            spared = count * (longest - 1 + kept)
            spared -= common - 1 + kept + count * (longest - common)
            rows.append(
                {
                    "kept tokens": kept,
                    "questions": count,
                    "positions spared": spared,
                    "times faster": whole / shared,
                }
            )
    return sorted(rows, key=lambda row: row["positions spared"])


@torch.inference_mode()
def main(
    repeats: Annotated[int, typer.Option(min=1, help="rounds of each comparison")] = 5,
    large: Annotated[
        bool, typer.Option("--large", help="the model of 110 million instead")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
    out: Annotated[Path, typer.Option(help="folder to write to")] = OUT,
) -> None:
    """Measure, print and write the tables."""
    torch.set_num_threads(threads)
    command = f"python scripts/bench_shared_prefix.py --repeats {repeats} --threads {threads}"
    command += " --large" * large
    origin = provenance.origin(command, "cpu")
    names = ("llava-mini",) if large else ("llava-mini", "qwen-mini")
    minis = {name: load_model(ModelSource(name, device="cpu")) for name in names}
    mini = minis["llava-mini"]
    if not isinstance(mini, Llava):
        raise TypeError(f"llava-mini must be loaded by llava, got {type(mini).__name__}")
    if large:
        rows = call_rows("110M", *made_model(mini), repeats, (2, 8), (1.0, 0.098))
        tables, name = {HEADING: rows}, "shared_prefix_110m_cpu"
    else:
        rows = []
        for label, model in minis.items():
            rows += call_rows(label, model, seen_by(model), repeats)
        forced = forced_rows(mini, seen_by(mini), 3 * repeats)
        tables, name = {HEADING: rows, "Where sharing is forced": forced}, "shared_prefix_cpu"
    notes = [
        f"Medians of {repeats} rounds of CPU time, both ways in turns. Other work ran on the",
        "machine: compare within a row, not rows with each other. Where sharing spares too little",
        "(one question, few tokens) both ways are the same call.",
    ]
    if not large:
        notes += [
            f"In the second table ({3 * repeats} rounds) llava-mini shares a prefix however few",
            "positions that spares; the engine does so from 128 on.",
        ]
    print(write_tables(out / name, "Shared prefixes", origin, tables, notes))


if __name__ == "__main__":
    typer.run(main)
