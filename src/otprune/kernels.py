"""Kernels over the tokens of one image, kept as factors: n x n is formed only when it pays."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ROWS = 192
"""Rows a time in blocked passes: a block stays in cache and still fills a matrix product."""


@dataclass(frozen=True, slots=True)
class FactoredKernel:
    """The positive semi-definite kernel ``ridge * I + scale * left @ right.T``.

    Attributes:
        left: [n r].
        right: [n r]; the same tensor as ``left`` where the product is a plain Gram matrix.
        scale: factor of the product.
        ridge: what is added on the diagonal.
        known_diagonal: the diagonal where it is known better than rounded products give it: that of
            cosines is exactly 1, and greedy rules start from a tie, not from the last bit.
    """

    left: Float[Tensor, "n r"]
    right: Float[Tensor, "n r"]
    scale: float = 1.0
    ridge: float = 0.0
    known_diagonal: Float[Tensor, " n"] | None = None

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.left)

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return the diagonal, a new tensor; O(nr)."""
        if self.known_diagonal is not None:
            return self.known_diagonal.clone()
        if self.left is self.right:
            squares = torch.linalg.vector_norm(self.left, dim=1).square_()
        else:
            squares = torch.linalg.vecdot(self.left, self.right)
        return squares.mul_(self.scale).add_(self.ridge)

    def dense(self) -> Float[Tensor, "n n"]:
        """Return the kernel in full, O(n²r / 2) time and O(n²) memory."""
        full = symmetric_product(self.left, self.right).mul_(self.scale)
        if self.known_diagonal is None:
            full.diagonal().add_(self.ridge)
        else:
            full.diagonal().copy_(self.known_diagonal)
        return full


def symmetric_product(
    left: Float[Tensor, "n r"],
    right: Float[Tensor, "n r"],
    weights: Float[Tensor, " r"] | None = None,
) -> Float[Tensor, "n n"]:
    """Return ``left @ diag(weights) @ right.T``, known to be symmetric.

    Only the upper triangle of blocks is computed and mirrored: about 1.4 times as fast on a CPU as
    the full product. A GPU is faster with the one large product.
    """
    if left.device.type != "cpu":
        return (left if weights is None else left * weights) @ right.T
    n = len(left)
    product = left.new_empty(n, n)
    for start in range(0, n, _ROWS):
        stop = min(n, start + _ROWS)
        rows = left[start:stop] if weights is None else left[start:stop] * weights
        block = rows @ right[start:].T
        product[start:stop, start:] = block
        product[stop:, start:stop] = block[:, stop - start :].T
    return product


def squared_gram(
    tokens: Float[Tensor, "n d"],
    weights: Float[Tensor, " d"] | None = None,
    *,
    scale: float = 1.0,
    ridge: float = 0.0,
) -> FactoredKernel:
    """Return ``ridge * I + scale * (V Vᵀ)²`` with V = tokens * sqrt(weights).

    (V Vᵀ)² = V (VᵀV) Vᵀ, so its rows come either from W = V Vᵀ [n n] at O(n²) each, or from V and
    the Gram matrix VᵀV [d d] at O(nd) each; `gram_is_cheaper` decides. Which one is taken depends
    on the shape alone, so that budgets and batches do not change the rounding.
    """
    if gram_is_cheaper(*tokens.shape):
        scaled = tokens if weights is None else tokens * weights.sqrt()
        gram = symmetric_product(scaled.T, scaled.T)
        return FactoredKernel(scaled @ gram, scaled, scale, ridge)
    similarity = symmetric_product(tokens, tokens, weights)
    return FactoredKernel(similarity, similarity, scale, ridge)


def column_energy(tokens: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Return the sum over tokens of the squared entries of each channel.

    In row blocks: reducing the outer axis in one call costs more than the product it prepares.
    """
    energy = tokens.new_zeros(tokens.shape[1])
    for block in tokens.split(_ROWS if tokens.device.type == "cpu" else len(tokens)):
        energy += block.square().sum(0)
    return energy


def unit_rows(tokens: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the tokens divided by their Euclidean norms; an all-zero token stays zero."""
    norms = torch.linalg.vector_norm(tokens, dim=1, keepdim=True)
    return tokens / norms.masked_fill(norms == 0, 1.0)


def gram_is_cheaper(n: int, d: int) -> bool:
    """Whether rows of (V Vᵀ)² are cheaper through VᵀV [d d] than through V Vᵀ [n n].

    The Gram route costs 3/2 nd² multiply-adds before the first pick and nd a row, the other one
    n²d / 2 and n²: on two CPU cores they are level near n = 2d. Memory follows the same choice,
    O(d(n + d)) against O(n²).
    """
    return n > 2 * d


def working_dtype(accumulate: str) -> torch.dtype:
    """Return the dtype that a setting ``accumulate`` of float32 or float64 stands for."""
    return torch.float64 if accumulate == "float64" else torch.float32
