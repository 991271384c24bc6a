"""Parts `prefill` and `flash`: times of prefill and of whole answers, unpruned and pruned.

All ways take turns in one process. `flash` is the same under FlashAttention, where that is there.
"""

from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers.utils import is_flash_attn_2_available

from bench_common import added_peak_mib
from gpu.budget import Budget
from gpu.models import Architecture, architectures
from gpu.page import Page
from gpu.ways import UNPRUNED, Clock, Way, prefill, verdict, way
from otprune.cost import DecoderShape, prefill_multiply_adds
from otprune.hf.layers import decoder_shape

RATIOS = (1.0, 0.5, 0.2, 0.098)
OTHERS = (("divprune", 0.098), ("fastv", 0.098))
BATCHES = (1, 8, 32)
TURNS = 3
SECONDS = 30
"""Of making a model and measuring one prompt on a GPU, as a guess before the first."""

NOTES = [
    "Prefill: a whole call, vision encoder and selection included; whole answer: `generate` with "
    "that many new tokens. Medians of turns in which all ways alternate, after one that does not "
    "count. Verdicts compare with `unpruned`. Decoder: what is left of a prefill without the "
    "vision encoder, whose time was taken apart. By FLOPs: multiply-adds of the decoder, "
    "4nd² + 2n²d + 3ndm a layer, the most that pruning can gain there. Selection: all that chooses "
    "tokens; of what it saves: of the time that the decoder is faster by without it. Peak: what a "
    "prefill adds to the weights. `fastv` prunes at the input of the third layer, the others "
    "before the language model.",
]


def ways() -> list[Way]:
    """Return unpruned, OTPrune at each ratio, and two others."""
    own = [way("otprune", ratio) for ratio in RATIOS]
    return [UNPRUNED, *own, *(way(method, ratio) for method, ratio in OTHERS)]


def by_flops(shape: DecoderShape, length: int, visual: int, kept: int, first: int) -> float:
    """Return how many times less a decoder computes for a prompt that is shortened from a layer on.

    Args:
        shape: the decoder.
        length: tokens of the unpruned prompt.
        visual: those of them that are visual.
        kept: how many of these stay.
        first: the layer, 0 for all.
    """
    shorter = length - visual + kept
    lengths = [length if layer < first else shorter for layer in range(shape.layers)]
    whole = prefill_multiply_adds(shape, length, "3ndm")
    return whole / prefill_multiply_adds(shape, lengths, "3ndm")


class Times:
    """Milliseconds of one way, a number a turn."""

    def __init__(self) -> None:
        self.prefill: list[float] = []
        self.selection: list[float] = []
        self.answer: list[float] = []
        self.kept, self.layer = 0, 0


def one_turn(model: Any, inputs: dict[str, Tensor], one: Way, into: Times, new: int) -> None:
    """Take the times of one way once."""
    clock, whole = Clock(model.device.type), Clock(model.device.type)
    visual = into.kept
    with one.open(model) as trace:
        if trace is not None:
            trace.watch = clock
        with whole():
            prefill(model, inputs)
        if trace is not None:
            into.layer, kept = list(trace.kept.items())[-1]
            visual = len(kept[0])
        into.prefill.append(whole.spent)
        into.selection.append(clock.spent)
        whole.spent = 0.0
        with whole():
            model.generate(
                **inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
            )
        into.answer.append(whole.spent)
    into.kept = visual


def measured(
    kind: Architecture, model: Any, batch: int, new: int, budget: Budget
) -> list[dict[str, Any]]:
    """Return a row for each way."""
    device = model.device.type
    inputs, chosen = kind.request(model, batch), ways()
    visual = int(kind.visual(model, inputs)[0].sum())
    times = {one.name: Times() for one in chosen}
    for each in times.values():
        each.kept = visual
    images = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    encoder: list[float] = []
    turns, turn = TURNS, 0
    while turn <= turns:
        whole = Clock(device)
        with whole():
            start = whole.now()
            model.get_image_features(**images)
            encoder.append(whole.now() - start)
            for one in chosen:
                one_turn(model, inputs, one, times[one.name], new)
        if turn == 0:
            # The first also loads kernels: what follows is faster.
            turns = budget.turns(TURNS, whole.spent / 1e3)
        turn += 1
    shape = decoder_shape(model.config.get_text_config())
    vision = median(encoder[1:])
    first = times[UNPRUNED.name]
    whole_ms, answer_ms = median(first.prefill[1:]), median(first.answer[1:])
    rows = []
    for one in chosen:
        taken = times[one.name]
        spent, select = median(taken.prefill[1:]), median(taken.selection[1:])
        saved = whole_ms - spent + select
        pruned_from = taken.layer if one.method else 0
        with one.open(model):
            peak = added_peak_mib(lambda: prefill(model, inputs), device)
        limit = by_flops(shape, inputs["input_ids"].shape[1], visual, taken.kept, pruned_from)
        rows.append(
            {
                "attention": model.config._attn_implementation,
                "prompts": batch,
                "way": one.name,
                "visual tokens": taken.kept,
                "prefill ms": spent,
                "prefill": verdict(whole_ms, spent),
                "decoder": verdict(whole_ms - vision, spent - vision),
                "by FLOPs": f"×{limit:.2f}",
                "selection ms": select,
                "of what it saves": f"{100 * select / saved:.1f} %" if saved > select > 0 else "-",
                "answer ms": median(taken.answer[1:]),
                f"answer of {new} tokens": verdict(answer_ms, median(taken.answer[1:])),
                "peak MiB": peak,
                "turns": turns,
            }
        )
    return rows


@torch.inference_mode()
def run(page: Page, budget: Budget, device: str, *, small: bool, attention: str = "sdpa") -> None:
    """Add a table for each model."""
    page.notes += NOTES
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    for kind in architectures(small=small):
        needed = 0.0 if small else SECONDS
        if not budget.allows(f"{kind.name}, {attention}", needed):
            continue
        model = kind.model(device, dtype, attention)
        for batch in (1, 2) if small else BATCHES:
            # Twice the prompts take at most twice as long, but for the first: it is slow once.
            what = f"{kind.name}, {batch} prompts, {attention}"
            if batch > 1 and not budget.allows(what, needed):
                continue
            left = budget.left()
            with budget.fits(what):
                page.add(kind.name, measured(kind, model, batch, 2 if small else 16, budget))
            # Two turns, the least there are, of four times as many prompts.
            needed = 0.0 if small else 2 * 4 * (left - budget.left()) / (1 + TURNS)
        del model
        if device == "cuda":
            torch.cuda.empty_cache()


def run_flash(page: Page, budget: Budget, device: str, *, small: bool) -> None:
    """Add the tables under FlashAttention, or say that it is not there."""
    if device == "cuda" and is_flash_attn_2_available():
        run(page, budget, device, small=small, attention="flash_attention_2")
    else:
        found = {"left out": "flash_attention_2", "why": "the package flash_attn is not there"}
        page.add("Left out", [found])
