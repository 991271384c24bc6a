"""Kernels over the tokens of one image, stored as factors; [n n] is formed only where cheaper."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.compiled import loops_for

_ROWS = 192
"""Rows per block: small enough for the cache, and to waste little above the diagonal."""

MOST_GIB = 16.0
"""Memory that a matrix of one number for each pair of tokens, or of picks, may take."""


@dataclass(frozen=True, slots=True)
class FactoredKernel:
    """The kernel ``ridge * I + scale * F M Fᵀ`` as its factors, F M Fᵀ positive semi-definite.

    Attributes:
        factor: F, [n r].
        middle: M, symmetric [r r]; None for the identity.
        scale: factor of the product.
        ridge: number added on the diagonal.
        known_diagonal: the exact diagonal, if it is known. That of cosines is 1; computed as
            products it would be rounded, and rounding would decide a greedy rule's first pick.
        symmetric: F is its own transpose, to the last bit. Rows of the kernel are then products
            with rows of F, which are read faster than its columns.
    """

    factor: Float[Tensor, "n r"]
    middle: Float[Tensor, "r r"] | None = None
    scale: float = 1.0
    ridge: float = 0.0
    known_diagonal: Float[Tensor, " n"] | None = None
    symmetric: bool = False

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.factor)

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return the diagonal, a new tensor; O(nr), or O(nr² / 2) with a middle."""
        if self.known_diagonal is not None:
            return self.known_diagonal.clone()
        if self.middle is None:
            products = torch.linalg.vector_norm(self.factor, dim=1).square_()
        else:
            products = _quadratic_forms(self.factor, self.middle)
        return products.mul_(self.scale).add_(self.ridge)

    def left_rows(self, index: Int64[Tensor, " m"]) -> Float[Tensor, "m r"]:
        """Return rows of F M; O(mr), or O(mr²) with a middle."""
        rows = self.factor[index]
        return rows if self.middle is None else rows @ self.middle

    def rows(
        self, index: Int64[Tensor, " m"], out: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        """Return rows of the kernel, O(mr(n + r)), in ``out`` if it is given."""
        right = self.factor if self.symmetric else self.factor.T
        rows = torch.mm(self.left_rows(index), right, out=out).mul_(self.scale)
        rows[torch.arange(len(index), device=index.device), index] += self.ridge
        return rows

    def left(self) -> Float[Tensor, "n r"]:
        """Return F M."""
        return self.factor if self.middle is None else self.factor @ self.middle

    def dense(self) -> Float[Tensor, "n n"]:
        """Return the kernel in full, O(n²r / 2) time and O(n²) memory."""
        full = symmetric_product(self.left(), self.factor).mul_(self.scale)
        if self.known_diagonal is None:
            full.diagonal().add_(self.ridge)
        else:
            full.diagonal().copy_(self.known_diagonal)
        return full


def check_gib(what: str, count: int, dtype: torch.dtype) -> None:
    """Raise ``ValueError`` if so many numbers of this dtype take more than `MOST_GIB`."""
    gib = count * dtype.itemsize / 2**30
    if gib > MOST_GIB:
        raise ValueError(f"{what} would take {gib:.1f} GiB; the limit is {MOST_GIB:g} GiB")


def _quadratic_forms(
    vectors: Float[Tensor, "n r"], matrix: Float[Tensor, "r r"]
) -> Float[Tensor, " n"]:
    """Return vᵀ M v for each row v, M symmetric; blocks above M's diagonal are counted twice."""
    if vectors.device.type != "cpu":
        return torch.linalg.vecdot(vectors @ matrix, vectors)
    forms = vectors.new_zeros(len(vectors))
    for start in range(0, len(matrix), _ROWS):
        stop = min(len(matrix), start + _ROWS)
        block = vectors[:, start:stop]
        halves = block @ matrix[start:stop, start:stop].mul(0.5)
        halves.addmm_(vectors[:, :start], matrix[:start, start:stop])
        forms.add_(halves.mul_(block).sum(1), alpha=2)
    return forms


def symmetric_product(
    left: Float[Tensor, "n r"],
    right: Float[Tensor, "n r"],
    weights: Float[Tensor, " r"] | None = None,
) -> Float[Tensor, "n n"]:
    """Return ``left @ diag(weights) @ right.T``, known to be symmetric.

    On a CPU only the upper triangle is computed, then mirrored: if left and right are one tensor,
    in a compiled loop (`otprune.compiled`), else in blocks. A GPU is faster with one large product.

    Args:
        left: [n r].
        right: [n r].
        weights: [r], not negative.

    Raises:
        ValueError: the product would take more than `MOST_GIB`; on a CPU.
    """
    if left.device.type != "cpu":
        return (left if weights is None else left * weights) @ right.T
    n = len(left)
    check_gib(f"the similarities of {n} tokens", n * n, left.dtype)
    loops = loops_for(left) if left is right else None
    if loops is not None:
        return loops.all_products(left, weights)
    product = left.new_empty(n, n)
    # One buffer for all blocks: new memory for each would cost as much as the arithmetic.
    buffer = left.new_empty(min(n, _ROWS), left.shape[1])
    for start in range(0, n, _ROWS):
        stop = min(n, start + _ROWS)
        rows = left[start:stop]
        if weights is not None:
            rows = torch.mul(rows, weights, out=buffer[: stop - start])
        torch.mm(rows, right[start:].T, out=product[start:stop, start:])
        product[stop:, start:stop] = product[start:stop, stop:].T
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
    the Gram matrix VᵀV [d d] at O(d(n + d)) each; `gram_is_cheaper` decides by the shape alone, so
    that budgets and batches do not change the rounding.
    """
    if gram_is_cheaper(*tokens.shape):
        channels = tokens.T
        gram = symmetric_product(channels, channels)
        if weights is not None:
            # With D = diag(weights): (V D Vᵀ)² = V (D VᵀV D) Vᵀ, which needs no scaled copy of V.
            # In two steps, since the product of two weights may leave the dtype's range.
            gram *= weights[:, None]
            gram *= weights
        return FactoredKernel(tokens, gram, scale, ridge)
    product = symmetric_product(tokens, tokens, weights)
    return FactoredKernel(product, None, scale, ridge, symmetric=product.device.type == "cpu")


def squared_grams(
    tokens: Float[Tensor, "b n d"],
    weights: Float[Tensor, "b d"],
    *,
    scales: list[float],
    ridge: float,
) -> list[FactoredKernel]:
    """Return `squared_gram` of each image, in a few operations for all; for GPUs."""
    middles: Sequence[Tensor | None] = [None] * len(tokens)
    factors = tokens
    if gram_is_cheaper(*tokens.shape[1:]):
        middles = list(
            torch.bmm(tokens.mT, tokens).mul_(weights[:, :, None]).mul_(weights[:, None])
        )
    else:
        factors = torch.bmm(tokens * weights[:, None], tokens.mT)
    found = zip(factors, middles, scales, strict=True)
    return [FactoredKernel(factor, middle, scale, ridge) for factor, middle, scale in found]


def with_mean_diagonal(
    kernel: FactoredKernel, mean: float, weights: Float[Tensor, " d"]
) -> FactoredKernel:
    """Return ``ridge * I + g (V Vᵀ)²`` with the g that gives g (V Vᵀ)² a diagonal of this mean.

    g = mean * n / ‖V Vᵀ‖², or 1 for tokens that are all zero. The kernel's factors are multiplied
    in place; nothing is read back from a GPU. O(n²), or O(d²) with a middle.

    Args:
        kernel: of ``tokens`` and ``weights``, as `squared_gram` returns it, with a scale of 1.
        mean: of the diagonal, without the ridge.
        weights: as for `squared_gram`.
    """
    if kernel.middle is None:
        total = kernel.factor.square().sum()
    else:
        # The middle is D VᵀV D; with D^(-1/2) on both sides it has the eigenvalues of V D Vᵀ.
        roots = weights.rsqrt().masked_fill(weights == 0, 0.0)
        total = (kernel.middle * roots[:, None] * roots).square_().sum()
    scale = len(kernel) * mean / total.masked_fill(total == 0, 1.0)
    if kernel.middle is None:
        return replace(kernel, factor=kernel.factor.mul_(scale.sqrt()))
    return replace(kernel, middle=kernel.middle.mul_(scale))


def column_energy(tokens: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Return the sum over tokens of the squared entries of each channel.

    In a compiled loop or in blocks of rows on a CPU, where one reduction over the outer axis is
    several times slower.
    """
    if tokens.device.type != "cpu":
        return tokens.square().sum(0)
    loops = loops_for(tokens)
    if loops is not None and tokens.is_contiguous():
        return loops.column_energies(tokens)
    energy = tokens.new_zeros(tokens.shape[1])
    buffer = torch.empty_like(tokens[:_ROWS])
    for block in tokens.split(_ROWS):
        energy += torch.mul(block, block, out=buffer[: len(block)]).sum(0)
    return energy


def reading_waits(tensor: Tensor) -> bool:
    """Return whether a number read from a tensor makes the host wait for a device's queue."""
    return tensor.device.type != "cpu"


def in_range(tokens: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the tokens, divided by their largest entry if squares would leave the dtype's range.

    For rules whose result does not change when all tokens are multiplied by one number. On a CPU
    two numbers are read, which saves a copy; on a GPU none.
    """
    low, high = torch.aminmax(tokens)
    if reading_waits(tokens):
        largest = torch.maximum(low.abs(), high.abs())
        usual = (largest == 0) | ((largest > 1e-12) & (largest < 1e15))
        return tokens / largest.masked_fill(usual, 1.0)
    largest = max(abs(float(low)), abs(float(high)))
    if largest == 0 or 1e-12 < largest < 1e15:
        return tokens
    return tokens / largest


def unit_rows(tokens: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return the tokens divided by their Euclidean norms; an all-zero token stays zero.

    Norms are at least float32. If any leaves the dtype's range, each token is divided by its
    largest entry first. On a CPU that is read, and usually saves the second way; on a GPU both are
    computed, which is faster than waiting.
    """
    single = tokens if tokens.dtype == torch.float64 else tokens.float()
    norms = torch.linalg.vector_norm(single, dim=1, keepdim=True)
    usual = ((norms > 1e-4) & (norms < 6e4)).all()
    if reading_waits(tokens):
        plain = tokens / norms.to(tokens.dtype)
        return torch.where(usual, plain, _scaled_units(single).to(tokens.dtype))
    if bool(usual):
        return tokens / norms.to(tokens.dtype)
    return _scaled_units(single).to(tokens.dtype)


def _scaled_units(single: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Return `unit_rows` of tokens of any magnitude."""
    largest = single.abs().amax(1, keepdim=True)
    single = single / largest.masked_fill(largest == 0, 1.0)
    norms = torch.linalg.vector_norm(single, dim=1, keepdim=True)
    return single / norms.masked_fill(norms == 0, 1.0)


def any_entry(units: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return 1 for each row of `unit_rows` that has an entry, 0 for all-zero ones: exact squares.

    The norm of a row is 1 up to rounding or 0, and several times as fast as a test of its entries.
    """
    return (torch.linalg.vector_norm(units, dim=1) > 0.5).to(units.dtype)


def gram_is_cheaper(n: int, d: int) -> bool:
    """Whether rows of (V Vᵀ)² are cheaper through VᵀV [d d] than through V Vᵀ [n n].

    Through VᵀV: nd² multiply-adds before the first pick, d(n + d) a row, d² memory. Through V Vᵀ:
    n²d / 2 before the first pick, n² a row, n² memory.
    """
    return n > 2 * d


def working_dtype(accumulate: str) -> torch.dtype:
    """Return the dtype that a setting ``accumulate``, float32 or float64, names."""
    return torch.float64 if accumulate == "float64" else torch.float32
