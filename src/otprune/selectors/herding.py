"""Kernel herding: keep the tokens whose mean stays near the mean of all (arXiv 1203.3472)."""

from dataclasses import dataclass
from typing import Literal

import torch

from otprune.checks import check_choice
from otprune.kernels import unit_rows, working_dtype
from otprune.selector import Selector
from otprune.signals import Signals
from otprune.types import PickOrder, VisualTokens


@dataclass(frozen=True, slots=True)
class Herding(Selector):
    """Greedy matching of the kernel mean embedding, without replacement.

    Source: Chen, Welling & Smola, arXiv 1203.3472, Eq. 8: pick t + 1 maximises
    mean over j of κ(i, j) - (1 / (t + 1)) * sum over picks s of κ(i, s). With the cosine kernel
    that is the token whose direction best corrects the mean of the picks. O(nkd), memory O(nd);
    the Gaussian kernel adds O(n²d) for its means.

    Attributes:
        kernel: "cosine", or "gaussian" exp(-‖u - v‖² / s) on unit-norm tokens, s being their mean
            squared distance.
        accumulate: "float32" or "float64".
    """

    kernel: Literal["cosine", "gaussian"] = "cosine"
    accumulate: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("kernel", self.kernel, ("cosine", "gaussian"))
        check_choice("accumulate", self.accumulate, ("float32", "float64"))

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        units = unit_rows(tokens.to(working_dtype(self.accumulate)))
        mean = units.mean(0)
        if self.kernel == "cosine":
            target = units @ mean
            spread = None
        else:
            # Mean squared distance of unit vectors: 2 - 2 ‖mean‖² (all-zero tokens aside).
            spread = (2 - 2 * mean.square().sum()).clamp(min=torch.finfo(units.dtype).eps)
            rows = [_gaussian(block @ units.T, spread).mean(1) for block in units.split(512)]
            target = torch.cat(rows)
        order = torch.empty(k, dtype=torch.long, device=tokens.device)
        covered = torch.zeros_like(target)
        barred = torch.zeros_like(target)
        for t in range(k):
            last = (target - covered / (t + 1) + barred).argmax(0, keepdim=True)
            order[t : t + 1] = last
            similarity = units @ units[last][0]
            covered += similarity if spread is None else _gaussian(similarity, spread)
            barred.index_fill_(0, last, float("-inf"))
        return order


def _gaussian(cosine: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    return torch.exp((2 * cosine - 2) / spread)
