"""Greedy log-determinant for a padded batch, without reading back for each pick; for CUDA."""

from collections.abc import Callable
from functools import cache

import torch

from otprune.greedy.padded_kernels import padded_factors
from otprune.greedy.picks import PICKED, Picks, variance_floor
from otprune.greedy.programs import can_run, checked
from otprune.kernels import FactoredKernel

Engine = Callable[[list[FactoredKernel], list[int]], list[Picks]]


def greedy_device(kernels: list[FactoredKernel], k: list[int]) -> list[Picks]:
    """Return the picks of each image, by a program an image where that works, else by a loop."""
    program, some = None, kernels[0].factor
    if can_run(some, max(map(len, kernels))):
        program = _program(some.device, some.dtype)
    return greedy_loop(kernels, k) if program is None else program(kernels, k)


@cache
def _program(device: torch.device, dtype: torch.dtype) -> Engine | None:
    """Return `greedy_programs` if it works on a device, see `checked`."""

    def load() -> Engine:
        from otprune.greedy.triton_program import greedy_programs

        return greedy_programs

    def agrees(program: Engine) -> bool:
        generator = torch.Generator().manual_seed(0)
        sample = torch.randn(70, 24, generator=generator, dtype=torch.float64)
        kernels = [FactoredKernel(sample[:n].to(device, dtype), ridge=1.0) for n in (70, 41)]
        both = zip(program(kernels, [20, 9]), greedy_loop(kernels, [20, 9]), strict=True)
        return all(torch.equal(a.order, b.order) for a, b in both)

    return checked(load, agrees)


def greedy_loop(kernels: list[FactoredKernel], k: list[int]) -> list[Picks]:
    """Return the picks of each image; all images advance together, one pick a step.

    Images may differ in n, r and k: factors are padded with zeros, padding is never picked, and
    further picks of an image that has its k are ignored. Nothing is read back to the host, so that
    steps queue up on the device. Memory O(b(nr + nk)) with the largest n, r and k.
    """
    left, right = padded_factors(kernels)
    ridge = kernels[0].ridge
    # Filled on the device, since copying a list would wait for the host.
    scale = torch.cat([left.new_full((1,), kernel.scale) for kernel in kernels])
    b, n, _ = left.shape
    steps = max(k)
    images = torch.arange(b, device=left.device)

    variance = left.new_full((b, n), PICKED)
    for i, kernel in enumerate(kernels):
        variance[i, : len(kernel)] = kernel.diagonal()
    floor = variance_floor(variance, ridge)[:, None]
    factor = left.new_zeros(b, steps, n)
    order = torch.empty(b, steps, dtype=torch.long, device=left.device)
    variances = left.new_empty(b, steps)
    for t in range(steps):
        # At or below the floor tokens are equal: argmax then takes the lowest that is not picked.
        level = torch.where(variance > PICKED, variance.maximum(floor), variance)
        j = level.argmax(-1)
        best = level.gather(1, j[:, None]).maximum(floor)
        order[:, t] = j
        variances[:, t] = best[:, 0]
        row = torch.bmm(right, left[images, j][..., None])[..., 0] * scale[:, None]
        row[images, j] += ridge
        past = factor[:, :t]
        known = torch.bmm(past[images, :, j][:, None], past)[:, 0] if t else 0.0
        row = (row - known) / best.sqrt()
        factor[:, t] = row
        variance = (variance - row * row).scatter_(1, j[:, None], PICKED)
    return [Picks(order[i, :count], variances[i, :count]) for i, count in enumerate(k)]
