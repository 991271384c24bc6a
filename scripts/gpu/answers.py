"""Part `answers`: pruned logits against prompts that were shortened by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpu.budget import Budget
from gpu.models import Architecture, architectures
from gpu.page import Page
from gpu.ways import UNPRUNED, Way, prefill, way
from otprune.hf.wrapping import replaced

RATIOS = (0.2, 0.098)
METHODS = ("otprune", "divprune", "random", "fastv")
SECONDS = 25
"""Of making a model and checking one prompt on a GPU, as a guess before the first."""

NOTES = [
    "Differences: the largest of any logit, as a share of the largest logit; that of the unpruned "
    "logits tells how far off an answer would be if nothing were pruned."
]


class ByHand:
    """What the language model is given for unpruned prompts, and its layers run one after another.

    Args:
        kind: the kind of model.
        model: the model.
        inputs: of a call.
    """

    def __init__(self, kind: Architecture, model: Any, inputs: dict[str, Tensor]) -> None:
        self.model, self.inputs = model, inputs
        self.decoder = model.model.language_model
        given: dict[str, Any] = {}

        def noted(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            given.update(kwargs)
            return forward(*args, **kwargs)

        with replaced(self.decoder, "forward", noted):
            self.unpruned = prefill(model, inputs)
        self.embeds = given["inputs_embeds"]
        self.visual = kind.visual(model, inputs)
        self.axes = kind.positions(model, inputs)

    def logits(self, row: int, layer: int, kept: Tensor) -> Tensor:
        """Return the last token's logits of one prompt without padding, shortened at a layer."""
        valid = self.inputs["attention_mask"][row].bool()
        visual = self.visual[row, valid]
        stays = ~visual
        stays[visual.nonzero()[:, 0][kept.to(visual.device)]] = True
        hidden = self.embeds[row : row + 1, valid]
        if self.axes is None:
            axes = torch.arange(len(stays), device=stays.device)[None]
        else:
            axes = self.axes[:, row : row + 1, valid]
        for number, block in enumerate(self.decoder.layers):
            if number == layer:
                hidden, axes = hidden[:, stays], axes[..., stays]
                if self.axes is None and layer == 0:
                    axes = torch.arange(axes.shape[-1], device=axes.device)[None]
            angles = self.decoder.rotary_emb(hidden, axes)
            # Without a mask, attention is causal.
            hidden = block(hidden, attention_mask=None, position_embeddings=angles)
        return self.model.lm_head(self.decoder.norm(hidden)[0, -1])


def distance(logits: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, as a share of the largest logit that is wanted."""
    wanted = wanted.float()
    return float((logits.float() - wanted).abs().max() / wanted.abs().max())


def ways() -> list[Way]:
    """Return every method at every ratio."""
    return [way(method, ratio) for ratio in RATIOS for method in METHODS]


def compared(
    kind: Architecture, model: Any, inputs: dict[str, Tensor], bound: float
) -> list[dict[str, Any]]:
    """Return how far answers are from what they must be, and whether that is near enough."""
    hand = ByHand(kind, model, inputs)
    said = {"model": kind.name, "prompts": len(inputs["input_ids"])}
    with way("otprune", 1.0).open(model):
        whole = prefill(model, inputs)
    same = torch.equal(whole, hand.unpruned)
    found = [
        {
            **said,
            "setting": "otprune, all tokens kept",
            "must be": f"as {UNPRUNED.name}, to the last bit",
            "difference": 0.0 if same else distance(whole, hand.unpruned),
            "unpruned would be off by": 0.0,
            "right": same,
        }
    ]
    for one in ways():
        with one.open(model) as trace:
            logits = prefill(model, inputs)
        layer, kept = list(trace.kept.items())[-1]
        wanted = [hand.logits(row, layer, kept[row]) for row in range(len(logits))]
        worst = max(map(distance, logits, wanted))
        found.append(
            {
                **said,
                "setting": one.name,
                "must be": f"the prompt shortened by hand, to {bound} of its largest logit",
                "difference": worst,
                "unpruned would be off by": min(map(distance, hand.unpruned, wanted)),
                "right": worst <= bound,
            }
        )
    return found


@torch.inference_mode()
def run(page: Page, budget: Budget, device: str, *, small: bool) -> list[str]:
    """Add the table; return what is wrong."""
    page.notes += NOTES
    dtype, bound = (torch.float32, 1e-4) if device == "cpu" else (torch.bfloat16, 3e-2)
    rows: list[dict[str, Any]] = []
    for kind in architectures(small=small):
        if not budget.allows(kind.name, 0 if small else SECONDS):
            continue
        model = kind.model(device, dtype, "sdpa")
        for batch in (1, 4):
            what = f"{kind.name}, {batch} prompts"
            if not budget.allows(what, 0 if small else batch):
                continue
            with budget.fits(what):
                found = compared(kind, model, kind.request(model, batch), bound)
                page.add("Answers", found)
                rows += found
        del model
        if device == "cuda":
            torch.cuda.empty_cache()
    return [
        f"{row['model']}, {row['prompts']} prompts, {row['setting']}"
        for row in rows
        if not row["right"]
    ]
