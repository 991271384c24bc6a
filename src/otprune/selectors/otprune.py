"""OTPrune: keep the tokens that maximise log det of a kernel of token similarities (2602.20205)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from otprune.adaptive import AdaptiveSelector, Gains
from otprune.checks import check_choice, check_positive
from otprune.greedy import greedy_logdet_batch
from otprune.greedy.padded_kernels import together_at_once
from otprune.greedy.picks import Picks
from otprune.greedy.programs import in_parts, padded
from otprune.greedy.reference import greedy_reference
from otprune.kernels import (
    FactoredKernel,
    column_energy,
    in_range,
    reading_waits,
    squared_gram,
    squared_grams,
    with_mean_diagonal,
    working_dtype,
)
from otprune.set_order import set_order
from otprune.signals import Signals
from otprune.types import KeptIndices, PickOrder, VisualTokens

AUTO = 10.0
"""Mean diagonal of g (V̂ V̂ᵀ)² under ``gamma="auto"``, beside the ridge of 1; chosen on llava-mini's
development scenes, see docs/auto.md."""

RELEASED = {"order": "reference", "accumulate": "model", "arithmetic": "reference"}
"""Settings that reproduce the released code: its picks, its order, its rounding."""


@dataclass(frozen=True, slots=True)
class OTPrune(AdaptiveSelector):
    r"""Greedy maximiser of log det K_C, K = I + g W Wᵀ, W = V̂ V̂ᵀ.

    Source: arXiv 2602.20205 (CVPR 2026), Eq. 7 and Algorithm 1; the released code where the two
    differ, unless ``variant="paper"``. V̂ are the visual tokens after the projector with their
    channels (columns) scaled over the tokens. The objective is monotone and submodular, so the
    greedy value is at least (1 - 1/e) of the best. It is a substitute for the cross term of the
    Gaussian 2-Wasserstein distance between kept and all tokens, not that distance itself, which
    `otprune.wasserstein` measures.

    Cost: O(n²d / 2) or O(nd²) for the kernel's factor, then at most O(nk(min(n, d) + k)).

    Where paper and released code differ, or the code fails:

    - scaling: paper unit variance per channel and γ/(nk); code unit L2 norm per channel and γ.
      ``variant`` chooses; under "paper" the kernel depends on k, so budgets are not nested.
    - order: the code passes kept tokens on in CPython's ``list(set(...))`` order, which is
      scrambled; here ascending, or ``order="reference"``.
    - half precision: the code keeps Cholesky rows in the model's dtype and rounds the norms to it;
      here float32 (or float64) throughout, or ``accumulate="model"``.
    - an all-zero channel is NaN in the code and is left out here; a budget that rounds to 0 fails
      there and keeps one token here.
    - the code restarts the greedy run if it picks a token twice; here picked tokens are masked.

    Attributes:
        gamma: γ, 1e-12 to 1e12; beyond, the kernel would be I or infinite in float32. Or "auto":
            each image has the g with which the diagonal of g W Wᵀ has the mean 10, where that of I
            is 1: g = 10 n / ‖W‖². It depends on neither k nor the variant, which only scales W;
            O(n²) or O(d²) more. For an image of zeros K is I. No part of paper or release.
        variant: "code" or "paper".
        order: "spatial" (ascending) or "reference" (the released order).
        accumulate: "float32", "float64", or "model": the tokens' own dtype where the released code
            has it, which implies the reference arithmetic.
        arithmetic: "fast", or "reference": the full kernel and the released code's order of
            operations. The same picks but for near-ties within rounding.
        adaptive: whether images have counts of their own, see `AdaptiveSelector`: the gain of a
            pick is what it adds to log det K_C, in nats.
        threshold: with ``adaptive=True``, the least gain of a kept pick.
    """

    presets: ClassVar = {
        "released": RELEASED,
        "paper": {"variant": "paper"},
        "auto": {"gamma": "auto"},
    }

    gamma: float | Literal["auto"] = 0.01
    variant: Literal["code", "paper"] = "code"
    order: Literal["spatial", "reference"] = "spatial"
    accumulate: Literal["float32", "float64", "model"] = "float32"
    arithmetic: Literal["fast", "reference"] = "fast"

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.gamma != "auto":
            check_positive("gamma", self.gamma)
            if not 1e-12 <= self.gamma <= 1e12:
                raise ValueError(f"gamma must lie in 1e-12..1e12, got {self.gamma}")
        check_choice("variant", self.variant, ("code", "paper"))
        check_choice("order", self.order, ("spatial", "reference"))
        check_choice("accumulate", self.accumulate, ("float32", "float64", "model"))
        check_choice("arithmetic", self.arithmetic, ("fast", "reference"))
        self._check_threshold()

    @property
    def nested(self) -> bool:
        """Whether the kernel is the same for every budget; with the paper's γ/(nk) it is not."""
        return self.variant == "code" or self.gamma == "auto"

    def _rank_images(
        self, tokens: list[Tensor], k: list[int], signals: list[Signals]
    ) -> list[Tensor]:
        if self.arithmetic == "reference" or self.accumulate == "model":
            return super(OTPrune, self)._rank_images(tokens, k, signals)
        kernels = self._kernels(tokens, k)
        return [picks.order for picks in greedy_logdet_batch(kernels, k)]

    def _rank_image(self, tokens: VisualTokens, k: int, signals: Signals) -> PickOrder:
        return self._released_picks(tokens, k, k).order

    def _released_picks(self, tokens: VisualTokens, k: int, most: int) -> Picks:
        """Return ``most`` picks under the kernel of budget ``k``, as in the released code."""
        kernel = self._released_kernel(tokens, k)
        factor_dtype = tokens.dtype if self.accumulate == "model" else kernel.dtype
        return greedy_reference(kernel, most, factor_dtype)

    def _rank_with_gains(
        self, tokens: list[Tensor], k: list[int], most: list[int], signals: list[Signals]
    ) -> list[Gains]:
        if self.arithmetic == "reference" or self.accumulate == "model":
            found = [
                self._released_picks(image, count, each)
                for image, count, each in zip(tokens, k, most, strict=True)
            ]
        else:
            found = greedy_logdet_batch(self._kernels(tokens, k), most)
        # A pick never lowers the determinant of a kernel I + PSD; rounding may.
        return [Gains(picks.order, picks.variances.clamp(min=1.0).log()) for picks in found]

    def _arrange(self, picks: PickOrder) -> KeptIndices:
        if self.order == "spatial":
            return picks.sort().values
        return torch.tensor(set_order(picks.tolist()), device=picks.device)

    def kernel(self, tokens: VisualTokens, k: int) -> FactoredKernel:
        """Return K of one image as factors; ``k`` matters to the paper's γ/(nk) only."""
        return self._kernels([tokens], [k])[0]

    def _kernels(self, tokens: list[Tensor], k: list[int]) -> list[FactoredKernel]:
        """Return K of each image; the host waits for a GPU once, not at all for equal shapes."""
        if reading_waits(tokens[0]) and len({(one.shape, one.device) for one in tokens}) == 1:
            kernels: list[FactoredKernel] = []
            dtype = working_dtype(self.accumulate)
            for part in in_parts(len(tokens), together_at_once(tokens, dtype)):
                kernels += self._kernels_together(tokens[part], k[part])
            return kernels
        found = _finite_energies([image.to(working_dtype(self.accumulate)) for image in tokens])
        kernels = []
        for (image, energy), count in zip(found, k, strict=True):
            scale = self._scale(len(image), count)
            weights = self._weights(energy, len(image))
            kernel = squared_gram(image, weights, scale=scale, ridge=1.0)
            kernels.append(self._set_scale(kernel, weights))
        return kernels

    def _set_scale(self, kernel: FactoredKernel, weights: Tensor) -> FactoredKernel:
        """Return the kernel with the scale that its own tokens give, under ``gamma="auto"``."""
        return with_mean_diagonal(kernel, AUTO, weights) if self.gamma == "auto" else kernel

    def _weights(self, energy: Tensor, n: int) -> Tensor:
        """Return the squares of the channels' scales, from the sums of their squares."""
        weights = energy.reciprocal().masked_fill(energy <= torch.finfo(energy.dtype).tiny, 0.0)
        return weights.mul_(n) if self.variant == "paper" else weights

    def _kernels_together(self, tokens: list[Tensor], k: list[int]) -> list[FactoredKernel]:
        """Return K of images of one shape, in a few operations for all; nothing is read back."""
        images = padded(tokens, working_dtype(self.accumulate))
        energy = images.square().sum(1)
        total = energy.sum(1)[:, None, None]
        # The kernel does not change when all tokens of an image are multiplied by one number.
        largest = images.abs().amax((1, 2), keepdim=True)
        usual = ((total > 1e-16) & (total < 1e30)) | (largest == 0)
        images = images / largest.masked_fill(usual, 1.0)
        weights = self._weights(images.square().sum(1), images.shape[1])
        scales = [self._scale(images.shape[1], count) for count in k]
        kernels = squared_grams(images, weights, scales=scales, ridge=1.0)
        return [self._set_scale(*one) for one in zip(kernels, weights, strict=True)]

    def _scale(self, n: int, k: int) -> float:
        """Return γ or γ/(nk); 1 under ``gamma="auto"``, which needs the tokens."""
        if isinstance(self.gamma, str):
            return 1.0
        return self.gamma if self.variant == "code" else self.gamma / (n * k)

    def _released_kernel(self, tokens: VisualTokens, k: int) -> Tensor:
        """Return the full K, with norms, products and sums as in the released code."""
        dtype = working_dtype(self.accumulate)
        source = tokens if self.accumulate == "model" else tokens.to(dtype)
        # The released code takes norms in the tokens' dtype and divides in float32.
        norms = source.norm(dim=-2, keepdim=True).to(dtype)
        norms = norms.masked_fill(norms == 0, 1.0)
        if self.variant == "paper":
            norms = norms / len(tokens) ** 0.5
        scaled = source.to(dtype) / norms
        similarity = scaled @ scaled.T
        scale: float | Tensor = self._scale(len(tokens), k)
        if self.gamma == "auto":
            total = similarity.square().sum()
            scale = AUTO * len(tokens) / total.masked_fill(total == 0, 1.0)
        full = (scale * similarity) @ similarity.T
        full.diagonal().add_(1.0)
        return full


def _finite_energies(tokens: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return tokens with their column energies, rescaled where squares leave the dtype's range.

    The kernel does not change when all tokens of an image are multiplied by one number.
    """
    energies = [column_energy(image) for image in tokens]
    device = tokens[0].device
    totals = torch.stack([energy.sum().to(device) for energy in energies]).tolist()
    found = []
    for image, energy, total in zip(tokens, energies, totals, strict=True):
        if not 1e-16 < total < 1e30:
            image = in_range(image)
            energy = column_energy(image)
        found.append((image, energy))
    return found
