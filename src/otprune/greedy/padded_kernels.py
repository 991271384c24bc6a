"""Kernels of several images in one tensor, for GPUs: a few operations for all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from otprune.greedy.picks import PICKED
from otprune.greedy.programs import behind, images_at_once, padded
from otprune.kernels import FactoredKernel, unit_rows


def padded_units(images: Sequence[Tensor], dtype: torch.dtype) -> Float[Tensor, "b n d"]:
    """Return the tokens of images [n_i d], divided by their norms, zeros behind."""
    together = padded(images, dtype)
    return unit_rows(together.flatten(0, 1)).view_as(together)


def together_at_once(images: Sequence[Tensor], dtype: torch.dtype) -> int:
    """Return how many of some images [n_i d] are handled at once, with all pairs of tokens."""
    n, d = max(map(len, images)), max(image.shape[1] for image in images)
    # Two matrices of pairs, and five of tokens while norms are taken.
    return images_at_once(n * (2 * n + 5 * d), dtype)


def padded_factors(kernels: list[FactoredKernel]) -> tuple[Tensor, Tensor]:
    """Return F M and F as [b n r], zeros behind; one tensor twice where no kernel has a middle."""
    dtype = kernels[0].factor.dtype
    if len(kernels) == 1:
        return kernels[0].left()[None], kernels[0].factor[None]
    right = padded([kernel.factor for kernel in kernels], dtype)
    if all(kernel.middle is None for kernel in kernels):
        return right, right
    if len({kernel.middle is None for kernel in kernels}) == 1 and _one_shape(kernels):
        middles = [kernel.middle for kernel in kernels if kernel.middle is not None]
        return torch.bmm(right, torch.stack(middles)), right
    return padded([kernel.left() for kernel in kernels], dtype), right


def dense_kernels(
    kernels: list[FactoredKernel],
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n"]]:
    """Return the kernels in full and their diagonals; -inf behind an image's last token there.

    Memory O(bn²). Nothing is read back to the host.
    """
    left, right = padded_factors(kernels)
    full = torch.bmm(left, right.mT)
    scales = [kernel.scale for kernel in kernels]
    if len(set(scales)) == 1:
        full.mul_(scales[0])
    else:
        # Filled on the device, since copying a list would wait for the host.
        full.mul_(torch.cat([full.new_full((1, 1, 1), scale) for scale in scales]))
    diagonal = full.diagonal(dim1=1, dim2=2)
    diagonal.add_(kernels[0].ridge)
    for row, kernel in zip(diagonal, kernels, strict=True):
        if kernel.known_diagonal is not None:
            row[: len(kernel)].copy_(kernel.known_diagonal)
    sizes = [len(kernel) for kernel in kernels]
    if len(set(sizes)) == 1:
        return full, diagonal.clone()
    return full, diagonal.masked_fill(behind(sizes, full), PICKED)


def _one_shape(kernels: list[FactoredKernel]) -> bool:
    return len({kernel.factor.shape for kernel in kernels}) == 1
