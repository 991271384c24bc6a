"""The compiled loops as functions of tensors."""

import ctypes
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from otprune.compiled.build import CannotBuildError, load

logger = logging.getLogger(__name__)

_WHOLE, _SINGLE, _DOUBLE = ctypes.c_int64, ctypes.c_float, ctypes.c_double
_NUMBERS = {torch.float32: "float32", torch.float64: "float64"}

_WORTH_THREADS = 1 << 27
"""Multiply-adds from which products of all pairs of rows are shared among threads."""

_WORTH_THREADS_ENERGY = 1 << 22
"""Numbers from which sums of squares are shared among threads."""

_CHANNELS = 2048
"""Channels that threads copy at a time, before they multiply."""


class RowsOfKernel(NamedTuple):
    """Rows of a kernel [n n] that are known.

    Attributes:
        rows: [m n].
        slot: [n] int64, which of ``rows`` is each token's, negative if none is; None if all n rows
            are there, in order.
    """

    rows: Tensor
    slot: Tensor | None = None


class Loops:
    """The compiled loops; a call releases Python's lock and may run in any thread.

    Tensors are contiguous, on the CPU, and where not said otherwise float32 or float64.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def _call(self, name: str, *arguments: object, result: type | None = None) -> int:
        function = getattr(self._library, name)
        function.restype = result
        return function(*(_address(a) if isinstance(a, Tensor) else a for a in arguments))

    def all_products(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return ``rows @ diag(weights) @ rows.T`` [n n] for rows [n d] of any strides.

        Exactly symmetric, and rows that are equal have equal products. Half of the products are
        computed, in as many threads as torch uses; their number does not change the result. Numbers
        are summed in runs of 256.

        Args:
            rows: [n d].
            weights: [d], not negative.
        """
        n, d = rows.shape
        if not rows.numel():
            return rows.new_zeros(n, n)
        threads = torch.get_num_threads() if n * n * d > 2 * _WORTH_THREADS else 1
        name = f"all_products_{_NUMBERS[rows.dtype]}"
        needed = _WHOLE(n), _WHOLE(min(d, _CHANNELS if threads > 1 else 1))
        room = self._call("room_for_products", *needed, result=_WHOLE)
        product = rows.new_empty(n, n)
        self._call(
            name,
            _WHOLE(n),
            _WHOLE(d),
            ctypes.c_void_p(rows.data_ptr()),
            *map(_WHOLE, rows.stride()),
            None if weights is None else weights.sqrt().contiguous(),
            product,
            rows.new_empty(room),
            _WHOLE(room),
            _WHOLE(threads),
        )
        return product

    def column_energies(self, rows: Tensor) -> Tensor:
        """Return the sum of squares of each column [d] of rows [n d], whose columns lie together.

        In as many threads as torch uses; their number does not change the result. Numbers are
        summed in runs of 8 and of 256.
        """
        n, d = rows.shape
        if n > 1 and rows.stride(0) < d or d > 1 and rows.stride(1) != 1:
            raise ValueError(f"rows must have columns that lie together, got {rows.stride()}")
        energy = rows.new_empty(d)
        threads = torch.get_num_threads() if rows.numel() > _WORTH_THREADS_ENERGY else 1
        self._call(
            f"column_energies_{_NUMBERS[rows.dtype]}",
            _WHOLE(n),
            _WHOLE(d),
            ctypes.c_void_p(rows.data_ptr()),
            _WHOLE(rows.stride(0)),
            energy,
            _WHOLE(threads),
        )
        return energy

    def logdet_picks(self, known: RowsOfKernel, state: "GreedyState", floor: float) -> None:
        """Go on picking the token with the largest conditional variance, in ``state``.

        Until all of ``state.order`` is filled, the largest variance is not above ``floor``, or its
        token's row is not known.
        """
        name = _NUMBERS[state.factor.dtype]
        state.picked = self._call(
            f"logdet_picks_{name}",
            _WHOLE(len(state.variance)),
            _WHOLE(len(state.order)),
            _WHOLE(state.picked),
            _DOUBLE(floor),
            known.rows,
            known.slot,
            state.factor,
            state.variance,
            state.factor.new_empty(len(state.order)),
            state.order,
            state.best,
            result=_WHOLE,
        )

    def conditional_picks(
        self,
        cosines: Tensor,
        weight: Tensor,
        spent: Tensor,
        least: float,
        variance: Tensor,
        k: int,
    ) -> Tensor:
        """Return k picks by weight * conditional variance, or ``spent`` at ``least`` and below.

        ``variance`` [n] holds the first variances; ``cosines`` [n n].
        """
        name = _NUMBERS[cosines.dtype]
        order = torch.empty(k, dtype=torch.long)
        n = len(cosines)
        self._call(
            f"conditional_picks_{name}",
            _WHOLE(n),
            _WHOLE(k),
            cosines,
            weight,
            spent,
            _DOUBLE(least),
            variance.double(),
            order,
            cosines.new_empty(k, n),
            cosines.new_empty(n, dtype=torch.float64),
            cosines.new_empty(k),
            torch.empty(n, dtype=torch.uint8),
        )
        return order

    def max_min_picks(self, cosines: Tensor, k: int) -> Tensor:
        """Return k picks, each the farthest from its nearest pick under 1 - cosine [n n].

        The first is the token whose second-nearest token, itself counted, is farthest.
        """
        order = torch.empty(k, dtype=torch.long)
        name = _NUMBERS[cosines.dtype]
        n = len(cosines)
        work = cosines.new_empty(n)
        self._call(f"max_min_picks_{name}", _WHOLE(n), _WHOLE(k), cosines, order, work)
        return order

    def nearest_squares(self, points: Tensor, centres: Tensor) -> Tensor:
        """Return the squared distance of each point [n d] to its nearest centre [m d], [n].

        By differences of entries: no digits are lost among near points.
        """
        nearest = torch.full_like(points[:, 0], float("inf"))
        (n, d), m = points.shape, len(centres)
        name = f"nearest_squares_{_NUMBERS[points.dtype]}"
        self._call(name, _WHOLE(n), _WHOLE(d), _WHOLE(m), points, centres, nearest)
        return nearest

    def token_set(
        self, cosines: Tensor, relevance: Tensor, k: int, alpha: float, lam: float, minmax: bool
    ) -> Tensor:
        """Return k picks of TOPS' selection from float32 cosines [n n] and relevance [n]."""
        n = len(cosines)
        order = torch.empty(k, dtype=torch.long)
        self._call(
            "token_set",
            _WHOLE(n),
            _WHOLE(k),
            cosines,
            relevance,
            _SINGLE(alpha),
            _SINGLE(lam),
            ctypes.c_int(minmax),
            order,
            *(cosines.new_empty(n) for _ in range(3)),
            *(order.new_empty(n) for _ in range(2)),
            torch.empty(n, dtype=torch.uint8),
        )
        return order

    def w2_picks(self, known: RowsOfKernel, state: "MixtureState") -> None:
        """Go on picking in ``state``, until all are picked or the next pick's row is not known."""
        state.picked = self._call(
            "w2_picks",
            _WHOLE(len(state.offset)),
            _WHOLE(len(state.order)),
            _WHOLE(len(state.nodes)),
            _WHOLE(len(state.factor)),
            _WHOLE(state.picked),
            known.rows,
            known.slot,
            state.nodes,
            state.weights,
            state.offset,
            state.variance,
            state.factor,
            state.rough_factor,
            state.gain,
            state.gain.new_empty(len(state.order)),
            state.rough_factor.new_empty(len(state.order)),
            state.order,
            result=_WHOLE,
        )


class MixtureState:
    """A run of `Loops.w2_picks`: W2Greedy's log-determinants, one a node.

    Attributes:
        nodes: [q] the ridges, ascending.
        weights: [q] of the logarithms.
        variance: [q n] conditional variances under each ridge.
        offset: [n] what each gain has beside the logarithms; -inf for picked tokens.
        factor: [e k n] rows of the Cholesky factors of the first e nodes.
        rough_factor: [q-e k n] those of the other nodes, float32; all else is float64.
        gain: [n] gains when the run stopped.
        order: [k] the picks.
        picked: how many there are.
    """

    def __init__(
        self, nodes: Tensor, weights: Tensor, diagonal: Tensor, offset: Tensor, k: int, exact: int
    ) -> None:
        n, q = len(diagonal), len(nodes)
        self.nodes, self.weights, self.offset = nodes, weights, offset
        self.variance = diagonal + nodes[:, None]
        self.factor = diagonal.new_empty(exact, k, n)
        self.rough_factor = diagonal.new_empty(q - exact, k, n, dtype=torch.float32)
        self.gain = torch.empty_like(offset)
        self.order = torch.empty(k, dtype=torch.long)
        self.picked = 0


class GreedyState:
    """A run of `Loops.logdet_picks`, valid for the first ``picked`` tokens.

    Attributes:
        variance: [n] float64 conditional variances, -inf for picked tokens.
        factor: [k n] rows of the Cholesky factor, of the diagonal's dtype.
        order: [k] the picks.
        best: [k] float64, the variance of each when it was picked.
        picked: how many there are.
    """

    def __init__(self, diagonal: Tensor, k: int) -> None:
        self.variance = diagonal.to(torch.float64, copy=True)
        self.factor = diagonal.new_empty(k, len(diagonal))
        self.order = torch.empty(k, dtype=torch.long)
        self.best = self.variance.new_empty(k)
        self.picked = 0


def _address(tensor: Tensor) -> ctypes.c_void_p:
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError(
            f"compiled loops take contiguous tensors on the CPU, got strides {tensor.stride()} on "
            f"{tensor.device}"
        )
    return ctypes.c_void_p(tensor.data_ptr())


class _Once:
    """The loops, built at the first use in a process; None if they cannot be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tried = False
        self.found: Loops | None = None

    def get(self) -> Loops | None:
        if self.tried:
            return self.found
        with self.lock:
            if not self.tried:
                try:
                    self.found = Loops(load())
                except CannotBuildError as error:
                    logger.info("no compiled loops, selection runs in torch: %s", error)
                self.tried = True
        return self.found

    def after_fork(self) -> None:
        # Another thread of the parent, which is not in the child, may have held it.
        self.lock = threading.Lock()


_once = _Once()
_off = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_once.after_fork)


def loops_for(tensor: Tensor) -> Loops | None:
    """Return the compiled loops for numbers like these; None where torch is to be used.

    That is for tensors on another device or of another dtype than float32 and float64, and where
    the loops cannot be built. The first call in a process loads them from the user's cache folder,
    or compiles them, which takes a second or two.
    """
    usual = type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.dtype in _NUMBERS
    return _once.get() if usual and not getattr(_off, "depth", 0) else None


@contextmanager
def without_loops() -> Iterator[None]:
    """In this context, and in this thread, methods run in torch, as where there is no compiler."""
    _off.depth = getattr(_off, "depth", 0) + 1
    try:
        yield
    finally:
        _off.depth -= 1
