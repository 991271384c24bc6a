"""Choose the implementation of the greedy rule."""

from collections.abc import Callable

from otprune.checks import check_count
from otprune.compiled import loops_for
from otprune.greedy.active_set import greedy_active_set
from otprune.greedy.by_rows import greedy_dense, greedy_row_cache
from otprune.greedy.device import greedy_device
from otprune.greedy.picks import Picks
from otprune.kernels import FactoredKernel

_DENSE_UP_TO = 1536
"""Tokens up to which the full kernel is fastest on a CPU."""

_ROW_CACHE_UP_TO = 8192
"""Tokens up to which `by_rows` is faster than `active_set`: in compiled loops, or if r <= n / 2."""


def greedy_logdet(kernel: FactoredKernel, k: int) -> Picks:
    """Return k greedy picks for one image; see `greedy_logdet_batch`."""
    return greedy_logdet_batch([kernel], [k])[0]


def greedy_logdet_batch(kernels: list[FactoredKernel], k: list[int]) -> list[Picks]:
    """Pick k tokens of each image by greedy maximisation of log det K_C.

    The value reached is at least (1 - 1/e) of the best for k tokens if the kernel's ridge is at
    least 1 (then the objective is monotone and submodular). The order is nested. Ties go to the
    lower index; a token is never picked twice, even when the picks span the kernel's rank.

    On a CPU images are handled one by one, which is faster than padding them; on CUDA they advance
    together. All kernels share dtype, device and ridge. Time at most O(nk(r + k)), memory
    O(n(r + k)); O(n²) up to 1536 tokens; up to 8192 also the computed rows.

    Raises:
        ValueError: k outside 1..n; kernels that differ in dtype, device or ridge.
    """
    for kernel, count in zip(kernels, k, strict=True):
        check_count("k", count, least=1)
        if count > len(kernel):
            raise ValueError(f"k must be in 1..n = 1..{len(kernel)}, got {count}")
    if not kernels:
        return []
    kinds = {(kernel.factor.dtype, kernel.factor.device, kernel.ridge) for kernel in kernels}
    if len(kinds) > 1:
        raise ValueError(
            f"kernels must share dtype, device and ridge, got {sorted(map(str, kinds))}"
        )
    if kernels[0].factor.device.type != "cpu":
        return greedy_device(kernels, k)
    return [_engine(kernel)(kernel, count) for kernel, count in zip(kernels, k, strict=True)]


def _engine(kernel: FactoredKernel) -> Callable[[FactoredKernel, int], Picks]:
    """Choose by the shape alone, so that neither budget nor batch changes the rounding."""
    n, r = kernel.factor.shape
    if n <= _DENSE_UP_TO:
        return greedy_dense
    by_rows = 2 * r <= n or loops_for(kernel.factor) is not None
    return greedy_row_cache if n <= _ROW_CACHE_UP_TO and by_rows else greedy_active_set
