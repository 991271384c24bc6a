"""DART: keep the tokens least similar to a few pivot tokens (arXiv 2502.11494)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.kernels import unit_rows
from otprune.layer_pruner import Kept, LayerPruner, LayerView
from otprune.set_order import set_order


@dataclass(frozen=True, slots=True)
class DART(LayerPruner):
    """Pivots of the image and of the question; the tokens least similar to them are kept.

    Source: arXiv 2502.11494 (EMNLP 2025). After layer 1 (here: at the input of layer 2) the 4 image
    and 4 question tokens whose keys in the layer that has just run have the largest L1 norm (heads
    concatenated, rotary angles applied) are pivots. Each pivot in turn takes the remaining image
    tokens with the lowest cosine to it, both after the language model's final norm. The image's
    pivots and all tokens taken are kept, at their original positions.

    Without text after the image there are only the image's pivots.

    The authors' code was not run. That the norm is L1, the counts 4 + 4, the final norm and the
    order of the pivots were read in ports and copies of it; whether the paper's experiments have
    all of this is uncertain (one port takes 5 + 3).

    Counts: the ports let every pivot take int(0.222 * 576 / 8) = 15 tokens and so keep 124 for a
    budget of 128; others let it take 128 // 8 = 16 and keep 132. Here exactly k are kept: the
    image's pivots, then the same whole number of tokens for each pivot, then one more for each of
    the first few. k = 124 is the ports' configuration (preset "ports"); k = 128 keeps the same 124
    and four more.

    Cost: O(v d) for each pivot; no attention is computed.

    Attributes:
        schedule: layer and number of kept tokens.
        image_pivots: number of image pivots; at most k.
        text_pivots: number of question pivots; at most the question's tokens.
        order: order in which pivots take tokens. "reference": that of CPython's set of their
            positions in the prompt, as in the ports; "norm": image before question, each by
            decreasing norm.
    """

    looks_back: ClassVar[bool] = True
    positions: ClassVar[Literal["original", "compact"]] = "original"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "192": {"schedule": "2:192"},
        "128": {"schedule": "2:128"},
        "64": {"schedule": "2:64"},
        "ports": {"schedule": "2:124"},
    }

    schedule: str = "2:128"
    image_pivots: int = 4
    text_pivots: int = 4
    order: Literal["reference", "norm"] = "reference"

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.points[0].layer == 0:
            raise ValueError(
                f"schedule must begin at layer 1 or later, got {self.schedule!r}: pivots are found "
                "by the keys of the layer before"
            )
        check_count("image_pivots", self.image_pivots, least=1)
        check_count("text_pivots", self.text_pivots)
        check_choice("order", self.order, ("reference", "norm"))

    def _prune(self, view: LayerView, k: int) -> Kept:
        norms = view.probe.keys(view.layer - 1).float().abs().sum((0, 2))
        image = _largest(norms[view.visual], min(self.image_pivots, k))
        text = _largest(norms[view.question], self.text_pivots)
        pivots = torch.cat([view.visual[image], view.question[text]]).tolist()
        if self.order == "reference":
            pivots = set_order(pivots)
        if not pivots:
            return Kept(image, scores=norms[view.visual])
        at = torch.tensor(pivots, device=norms.device)
        units = unit_rows(view.probe.final_norm(view.hidden).float())
        taken = take_unlike(units[at] @ units[view.visual].T, image, k)
        return Kept(taken, scores=norms[view.visual])


def _largest(norms: Float[Tensor, " v"], count: int) -> Int64[Tensor, " p"]:
    return norms.argsort(descending=True, stable=True)[:count]


def take_unlike(
    cosines: Float[Tensor, "p v"], first: Int64[Tensor, " m"], k: int
) -> Int64[Tensor, " k"]:
    """Return ``k`` >= m tokens: ``first``, then for each pivot those with the lowest cosines.

    Pivots take turns: (k - m) // p tokens each, then one each until there are ``k``.
    """
    each, rest = divmod(k - len(first), len(cosines))
    taken = [first]
    free = torch.ones(cosines.shape[1], dtype=torch.bool, device=cosines.device)
    free[first] = False
    rounds = [(row, each) for row in cosines] + [(row, 1) for row in cosines[:rest]]
    for row, count in rounds:
        lowest = row.masked_fill(~free, float("inf")).argsort(stable=True)[:count]
        free[lowest] = False
        taken.append(lowest)
    return torch.cat(taken)
